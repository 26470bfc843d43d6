//! The socket, and which call is whose.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use base::Drain;
use bytes::Bytes;
use cri::{IMAGE_SERVICE, Message, RUNTIME_SERVICE};
use grpc::{Code, Reply, answer_with_streams};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::error::CriError;
use crate::records::file;
use crate::service::CriService;

/// How many items of a list a message of a stream holds.
const CHUNK: usize = 100;

/// Makes the socket that [`serve`] answers on. One that nobody listens at any more is replaced.
///
/// # Errors
/// When the socket cannot be made, or somebody else listens there.
pub async fn bind(socket: &Path) -> Result<UnixListener, CriError> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(file("make folder", folder))?;
    }
    if std::fs::symlink_metadata(socket).is_ok_and(|meta| meta.file_type().is_socket()) {
        if tokio::net::UnixStream::connect(socket).await.is_ok() {
            return Err(CriError::State(format!("somebody listens at {} already", socket.display())));
        }
        std::fs::remove_file(socket).map_err(file("remove", socket))?;
    }
    let listener = UnixListener::bind(socket).map_err(file("listen at", socket))?;
    // Who may ask here may do anything on this machine.
    let only_root = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(socket, only_root).map_err(file("set the mode of", socket))?;
    Ok(listener)
}

/// Answers whoever comes until the drain starts.
pub fn serve(service: CriService, listener: UnixListener, drain: &Drain) {
    let drain_too = drain.clone();
    drain.spawn_until_started(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let service = service.clone();
                    drain_too.spawn_until_started(answer_with_streams(stream, move |path, message| {
                        let service = service.clone();
                        async move { service.call(&path, message).await }
                    }));
                }
                // Out of file descriptors, most likely: others must go first.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
}

/// Reads a question, has it answered, and writes the answer.
macro_rules! ask {
    ($service:expr, $message:expr, $method:ident) => {
        match Message::decode(&$message) {
            Ok(question) => $service.$method(question).await.map(|answer| Reply::One(answer.encode())),
            Err(error) => Err(error.into()),
        }
    };
}

/// The answers of a stream, each with a part of a list.
fn in_pieces<T: Clone, A: Message>(items: &[T], answer: impl Fn(Vec<T>) -> A) -> Reply {
    let pieces: Vec<Vec<u8>> = items.chunks(CHUNK).map(|chunk| answer(chunk.to_vec()).encode()).collect();
    let (send, receive) = mpsc::channel(pieces.len().max(1));
    for piece in pieces {
        // There is room for all of them.
        let _ = send.try_send(piece);
    }
    Reply::Many(receive)
}

impl CriService {
    async fn call(&self, path: &str, message: Bytes) -> Result<Reply, (Code, String)> {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        // What kubelets before 1.26 speak is the same under another name.
        let (service, old) = match service.split_once(".v1alpha2.") {
            Some((package, name)) => (format!("{package}.v1.{name}"), true),
            None => (service.to_owned(), false),
        };
        let answer = match service.as_str() {
            RUNTIME_SERVICE => self.of_runtime(method, message, old).await,
            IMAGE_SERVICE => self.of_images(method, message).await,
            _ => Err(CriError::Unsupported(format!("unknown service {service}"))),
        };
        answer.map_err(|error| {
            tracing::debug!(path, %error, "refused");
            (error.code(), error.to_string())
        })
    }

    async fn of_runtime(&self, method: &str, message: Bytes, old: bool) -> Result<Reply, CriError> {
        match method {
            "Version" => {
                let mut version = self.version();
                if old {
                    version.runtime_api_version = "v1alpha2".to_owned();
                }
                Ok(Reply::One(version.encode()))
            }
            "Status" => ask!(self, message, status),
            "RuntimeConfig" => ask!(self, message, runtime_config),
            "UpdateRuntimeConfig" => ask!(self, message, update_runtime_config),
            "RunPodSandbox" => ask!(self, message, run_pod_sandbox),
            "StopPodSandbox" => ask!(self, message, stop_pod_sandbox),
            "RemovePodSandbox" => ask!(self, message, remove_pod_sandbox),
            "PodSandboxStatus" => ask!(self, message, pod_sandbox_status),
            "ListPodSandbox" => ask!(self, message, list_pod_sandbox),
            "UpdatePodSandboxResources" => ask!(self, message, update_pod_sandbox_resources),
            "CreateContainer" => ask!(self, message, create_container),
            "StartContainer" => ask!(self, message, start_container),
            "StopContainer" => ask!(self, message, stop_container),
            "RemoveContainer" => ask!(self, message, remove_container),
            "ListContainers" => ask!(self, message, list_containers),
            "ContainerStatus" => ask!(self, message, container_status),
            "UpdateContainerResources" => ask!(self, message, update_container_resources),
            "ReopenContainerLog" => ask!(self, message, reopen_container_log),
            "ExecSync" => ask!(self, message, exec_sync),
            "Exec" => ask!(self, message, exec),
            "Attach" => ask!(self, message, attach),
            "PortForward" => ask!(self, message, port_forward),
            "ContainerStats" => ask!(self, message, container_stats),
            "ListContainerStats" => ask!(self, message, list_container_stats),
            "PodSandboxStats" => ask!(self, message, pod_sandbox_stats),
            "ListPodSandboxStats" => ask!(self, message, list_pod_sandbox_stats),
            "GetContainerEvents" => Ok(Reply::Many(self.events())),
            "StreamPodSandboxes" => {
                let items = self.stream_pod_sandboxes(Message::decode(&message)?);
                Ok(in_pieces(&items, |pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes }))
            }
            "StreamContainers" => {
                let items = self.stream_containers(Message::decode(&message)?);
                Ok(in_pieces(&items, |containers| cri::StreamContainersResponse { containers }))
            }
            "StreamContainerStats" => {
                let question = cri::StreamContainerStatsRequest::decode(&message)?;
                let items = self.all_container_stats(&question.filter.unwrap_or_default()).await?;
                Ok(in_pieces(&items, |container_stats| cri::StreamContainerStatsResponse { container_stats }))
            }
            "StreamPodSandboxStats" => {
                let question = cri::StreamPodSandboxStatsRequest::decode(&message)?;
                let items = self.all_sandbox_stats(&question.filter.unwrap_or_default()).await?;
                Ok(in_pieces(&items, |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse {
                    pod_sandbox_stats,
                }))
            }
            _ => Err(CriError::Unsupported(format!("{method} is not served by this runtime"))),
        }
    }

    async fn of_images(&self, method: &str, message: Bytes) -> Result<Reply, CriError> {
        match method {
            "ListImages" => ask!(self, message, list_images),
            "ImageStatus" => ask!(self, message, image_status),
            "PullImage" => ask!(self, message, pull_image),
            "RemoveImage" => ask!(self, message, remove_image),
            "ImageFsInfo" => ask!(self, message, image_fs_info),
            "StreamImages" => {
                let items = self.stream_images(Message::decode(&message)?);
                Ok(in_pieces(&items, |images| cri::StreamImagesResponse { images }))
            }
            _ => Err(CriError::Unsupported(format!("{method} is not served by this runtime"))),
        }
    }
}
