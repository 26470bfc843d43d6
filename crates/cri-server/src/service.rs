use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Drain, Ids, RandomIds};
use cri::ContainerEventResponse;
use image::ImageStore;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use runtime::Runtime;
use tokio::sync::broadcast;

use crate::error::CriError;
use crate::extent::Extents;
use crate::network::PodNetwork;
use crate::records::Records;
use crate::streams::Streams;

/// What the runtime interface is told of its machine.
#[derive(Clone, Debug)]
pub struct CriConfig {
    /// Records are kept in `cri/` below it; images and the engine keep theirs there too.
    pub data_dir: PathBuf,
    /// The bridge that sandboxes are joined to.
    pub bridge: String,
    /// Their addresses, until `UpdateRuntimeConfig` says otherwise.
    pub pod_cidr: Ipv4Net,
    /// OCI runtimes, by the name of the handler.
    pub handlers: BTreeMap<String, PathBuf>,
}

/// The label that the engine's sandboxes of ours have.
pub(crate) const LABEL: &str = "io.gantry.cri";

/// Both services of the interface, over one engine. Clones share it.
#[derive(Clone)]
pub struct CriService(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: CriConfig,
    pub(crate) runtime: Runtime,
    pub(crate) images: ImageStore,
    pub(crate) network: PodNetwork,
    pub(crate) records: Records,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: broadcast::Sender<ContainerEventResponse>,
    /// Containers that are being started.
    pub(crate) starting: Mutex<HashSet<String>>,
    /// Names of sandboxes that are being made.
    pub(crate) making: Mutex<HashSet<String>>,
    pub(crate) streams: Streams,
    pub(crate) extents: Extents,
    ids: RandomIds,
}

impl CriService {
    /// Finds what an earlier process left, and begins to listen for streams on the loopback interface.
    ///
    /// # Errors
    /// When the records, the network or the port cannot be had.
    pub async fn open(
        config: CriConfig,
        runtime: Runtime,
        images: ImageStore,
        clock: Arc<dyn Clock>,
        drain: &Drain,
    ) -> Result<Self, CriError> {
        let folder = config.data_dir.join("cri");
        let records = Records::open(&folder)?;
        let network = PodNetwork::open(&config, folder.join("pod-cidr")).await?;
        let streams = Streams::start(runtime.clone(), drain).await?;
        let service = Self(Arc::new(Inner {
            config,
            runtime,
            images,
            network,
            records,
            clock,
            events: broadcast::Sender::new(1024),
            starting: Mutex::default(),
            making: Mutex::default(),
            streams,
            extents: Extents::default(),
            ids: RandomIds,
        }));
        service.clear_away().await?;
        service.follow_events(drain);
        Ok(service)
    }

    /// What came to be in the engine and was never answered for, and what addresses were left behind.
    async fn clear_away(&self) -> Result<(), CriError> {
        let mut ready = HashSet::new();
        for sandbox in self.0.runtime.sandboxes() {
            if !sandbox.spec.labels.contains_key(LABEL) {
                continue;
            }
            match self.0.records.sandbox(&sandbox.spec.id) {
                Ok(_) if sandbox.state == runtime::SandboxState::Ready => {
                    ready.insert(sandbox.spec.id);
                }
                Ok(_) => {}
                Err(_) => self.0.runtime.remove_sandbox(&sandbox.spec.id).await?,
            }
        }
        self.0.network.current()?.gc(&ready).await?;
        Ok(())
    }

    pub(crate) fn new_id(&self) -> String {
        self.0.ids.hex64()
    }

    /// Nanoseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.0.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }
}
