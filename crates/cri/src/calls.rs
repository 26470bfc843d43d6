//! The calls, each with its path, its question and its answer.

use std::marker::PhantomData;
use std::time::Duration;

use grpc::{Channel, RpcError, Stream};

use crate::Message;

/// The service of sandboxes and containers. Kubelets before 1.26 ask `runtime.v1alpha2`, which is the same on the wire.
pub const RUNTIME_SERVICE: &str = "runtime.v1.RuntimeService";
/// The service of images.
pub const IMAGE_SERVICE: &str = "runtime.v1.ImageService";

/// One call: `Q` is asked, `A` is the answer, or each of them where the call is answered by a stream.
pub struct Call<Q, A> {
    /// Its path, as in `/runtime.v1.RuntimeService/Version`.
    pub path: &'static str,
    /// Its name, as in `Version`.
    pub name: &'static str,
    types: PhantomData<fn(Q) -> A>,
}

impl<Q: Message, A: Message> Call<Q, A> {
    /// Asks, and waits for the answer that long.
    pub async fn ask(&self, channel: &Channel, question: &Q, limit: Duration) -> Result<A, RpcError> {
        let answer = channel.unary(self.path, &question.encode(), limit).await?;
        self.read(channel, &answer)
    }

    /// Asks for a stream; each of its messages is read by [`Call::read`].
    pub async fn listen(&self, channel: &Channel, question: &Q) -> Result<Stream, RpcError> {
        channel.listen(self.path, &question.encode()).await
    }

    /// Reads an answer that came through this channel.
    pub fn read(&self, channel: &Channel, answer: &[u8]) -> Result<A, RpcError> {
        let malformed = |e: crate::DecodeError| RpcError::Malformed {
            target: channel.name().to_owned(),
            why: format!("{}: {e}", self.name),
        };
        A::decode(answer).map_err(malformed)
    }
}

macro_rules! calls {
    ($(#[$meta:meta])* $module:ident $service:literal {
        $($constant:ident $name:ident($question:ident) -> $answer:ident;)*
    }) => {
        $(#[$meta])*
        pub mod $module {
            // They are said by their names.
            #![allow(missing_docs)]

            use super::Call;

            $(pub const $constant: Call<crate::$question, crate::$answer> = Call {
                path: concat!("/", $service, "/", stringify!($name)),
                name: stringify!($name),
                types: std::marker::PhantomData,
            };)*
        }
    };
}

calls! {
    /// Calls of the [`RUNTIME_SERVICE`]. Those that begin with `STREAM`, and `GET_CONTAINER_EVENTS`, are answered by streams.
    runtime "runtime.v1.RuntimeService" {
        VERSION Version(VersionRequest) -> VersionResponse;
        RUN_POD_SANDBOX RunPodSandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        STOP_POD_SANDBOX StopPodSandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        REMOVE_POD_SANDBOX RemovePodSandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        POD_SANDBOX_STATUS PodSandboxStatus(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        LIST_POD_SANDBOX ListPodSandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        STREAM_POD_SANDBOXES StreamPodSandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesResponse;
        CREATE_CONTAINER CreateContainer(CreateContainerRequest) -> CreateContainerResponse;
        START_CONTAINER StartContainer(StartContainerRequest) -> StartContainerResponse;
        STOP_CONTAINER StopContainer(StopContainerRequest) -> StopContainerResponse;
        REMOVE_CONTAINER RemoveContainer(RemoveContainerRequest) -> RemoveContainerResponse;
        LIST_CONTAINERS ListContainers(ListContainersRequest) -> ListContainersResponse;
        STREAM_CONTAINERS StreamContainers(StreamContainersRequest) -> StreamContainersResponse;
        CONTAINER_STATUS ContainerStatus(ContainerStatusRequest) -> ContainerStatusResponse;
        UPDATE_CONTAINER_RESOURCES UpdateContainerResources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        REOPEN_CONTAINER_LOG ReopenContainerLog(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        EXEC_SYNC ExecSync(ExecSyncRequest) -> ExecSyncResponse;
        EXEC Exec(ExecRequest) -> ExecResponse;
        ATTACH Attach(AttachRequest) -> AttachResponse;
        PORT_FORWARD PortForward(PortForwardRequest) -> PortForwardResponse;
        CONTAINER_STATS ContainerStats(ContainerStatsRequest) -> ContainerStatsResponse;
        LIST_CONTAINER_STATS ListContainerStats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        STREAM_CONTAINER_STATS StreamContainerStats(StreamContainerStatsRequest) -> StreamContainerStatsResponse;
        POD_SANDBOX_STATS PodSandboxStats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        LIST_POD_SANDBOX_STATS ListPodSandboxStats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        STREAM_POD_SANDBOX_STATS StreamPodSandboxStats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsResponse;
        UPDATE_RUNTIME_CONFIG UpdateRuntimeConfig(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        STATUS Status(StatusRequest) -> StatusResponse;
        CHECKPOINT_CONTAINER CheckpointContainer(CheckpointContainerRequest) -> CheckpointContainerResponse;
        GET_CONTAINER_EVENTS GetContainerEvents(GetEventsRequest) -> ContainerEventResponse;
        LIST_METRIC_DESCRIPTORS ListMetricDescriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        LIST_POD_SANDBOX_METRICS ListPodSandboxMetrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        STREAM_POD_SANDBOX_METRICS StreamPodSandboxMetrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsResponse;
        RUNTIME_CONFIG RuntimeConfig(RuntimeConfigRequest) -> RuntimeConfigResponse;
        UPDATE_POD_SANDBOX_RESOURCES UpdatePodSandboxResources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }
}

calls! {
    /// Calls of the [`IMAGE_SERVICE`]. `STREAM_IMAGES` is answered by a stream.
    images "runtime.v1.ImageService" {
        LIST_IMAGES ListImages(ListImagesRequest) -> ListImagesResponse;
        STREAM_IMAGES StreamImages(StreamImagesRequest) -> StreamImagesResponse;
        IMAGE_STATUS ImageStatus(ImageStatusRequest) -> ImageStatusResponse;
        PULL_IMAGE PullImage(PullImageRequest) -> PullImageResponse;
        REMOVE_IMAGE RemoveImage(RemoveImageRequest) -> RemoveImageResponse;
        IMAGE_FS_INFO ImageFsInfo(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}
