/// Why a pod cannot go on for now; shown in its status and events.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The API refused or did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] crate::engine::EngineError),
    /// The network.
    #[error("cannot join the pod to the network: {0}")]
    Network(#[from] network::NetworkError),
    /// An image that is not there and is not to be pulled, or cannot be.
    #[error("{message}")]
    Image {
        /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull` or `InvalidImageName`.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Something that a container is configured with is not there.
    #[error("{0}")]
    Config(String),
    /// A sandbox that cannot be as the pod wants it.
    #[error("{0}")]
    Sandbox(String),
    /// A container that cannot be as it wants to be.
    #[error("{0}")]
    Create(String),
    /// A hook after the start.
    #[error("the hook after the start of container {container:?} failed: {why}")]
    Hook {
        /// Whose.
        container: String,
        /// Why.
        why: String,
    },
    /// A volume.
    #[error(transparent)]
    Volume(#[from] volumes::VolumeError),
    /// The agent's server has no place.
    #[error(
        "cannot listen on {address} for the node's agent: {source}; choose another port or end what uses it"
    )]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Settings that cannot be used.
    #[error(transparent)]
    Threshold(#[from] crate::eviction::ThresholdError),
    /// The same.
    #[error(transparent)]
    Settings(#[from] crate::settings::SettingsError),
    /// What devices, CPUs and memory are given out with.
    #[error(transparent)]
    Manager(#[from] crate::managers::ManagerError),
    /// A claim of devices.
    #[error(transparent)]
    Dra(#[from] crate::dra::DraError),
    /// Nothing says how long pods get when the node goes down.
    #[error(
        "this node does not wait for its pods when it goes down; set shutdownGracePeriod or shutdownGracePeriodByPodPriority"
    )]
    NoShutdown,
    /// A file of the agent's own.
    #[error("cannot {attempt} {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl NodeError {
    /// Whether it keeps all containers of a pod from starting, for want of a volume.
    pub(crate) fn is_mount(&self) -> bool {
        matches!(self, Self::Volume(why) if why.is_mount())
    }

    /// Whether a container could not be started, and has ended by that.
    pub(crate) fn is_unstarted(&self) -> bool {
        matches!(self, Self::Runtime(why) if why.is_unstarted())
    }

    /// The reason that a container waits with this error, as `kubectl get pods` shows it.
    pub(crate) fn waiting_reason(&self) -> &'static str {
        match self {
            Self::Image { reason, .. } => reason,
            Self::Config(_) | Self::Api(_) => "CreateContainerConfigError",
            Self::Volume(volumes::VolumeError::SubPath { .. }) => "CreateContainerConfigError",
            Self::Volume(_) => "ContainerCreating",
            Self::Hook { .. } => "PostStartHookError",
            Self::Runtime(_)
            | Self::Sandbox(_)
            | Self::Create(_)
            | Self::Network(_)
            | Self::Dra(_)
            | Self::File { .. }
            | Self::Listen { .. }
            | Self::Manager(_)
            | Self::NoShutdown
            | Self::Settings(_)
            | Self::Threshold(_) => "CreateContainerError",
        }
    }
}
