use std::path::PathBuf;

use grpc::Code;

/// Why a call failed, or why the server cannot start; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The engine said no.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The sandbox cannot be joined to the network.
    #[error(transparent)]
    Network(#[from] ::network::NetworkError),
    /// The images cannot be used.
    #[error(transparent)]
    Images(#[from] image::StoreError),
    /// An image cannot be had.
    #[error("failed to pull image {image:?}: {source}")]
    Pull {
        /// Which.
        image: String,
        /// Why not.
        source: Box<image::PullError>,
    },
    /// The question cannot be read.
    #[error("the request cannot be read: {0}")]
    Decode(#[from] cri::DecodeError),
    /// There is no such sandbox.
    #[error("pod sandbox {0:?} not found")]
    NoSandbox(String),
    /// There is no such container.
    #[error("container {0:?} not found")]
    NoContainer(String),
    /// There is no such image.
    #[error("image {0:?} not found")]
    NoImage(String),
    /// The beginning of more than one id.
    #[error("the id {0:?} is the beginning of more than one")]
    Ambiguous(String),
    /// Something that is asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is such a thing already.
    #[error("{0}")]
    Exists(String),
    /// The state does not allow it.
    #[error("{0}")]
    State(String),
    /// Nothing of ours does this.
    #[error("{0}")]
    Unsupported(String),
    /// A file operation failed.
    #[error("cannot {attempt} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What lies on disk cannot be read.
    #[error("the record {path} cannot be used: {why}", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A task ended before its time.
    #[error("work that waits for the disk was broken off")]
    Task(#[from] tokio::task::JoinError),
}

impl CriError {
    /// gRPC's word for it. Kubelets look at `NOT_FOUND` and `DEADLINE_EXCEEDED`.
    pub fn code(&self) -> Code {
        use runtime::Error as Of;
        match self {
            Self::NoSandbox(_) | Self::NoContainer(_) | Self::NoImage(_) => Code::NOT_FOUND,
            Self::Runtime(error) if error.is_not_found() => Code::NOT_FOUND,
            Self::Runtime(Of::Timeout { .. }) => Code::DEADLINE_EXCEEDED,
            Self::Runtime(Of::SandboxExists(_) | Of::ContainerExists { .. }) | Self::Exists(_) => {
                Code::ALREADY_EXISTS
            }
            Self::Runtime(Of::NotRunning(_) | Of::StillRunning(_) | Of::SandboxStopped(_))
            | Self::State(_) => Code::FAILED_PRECONDITION,
            Self::Decode(_) | Self::Ambiguous(_) | Self::Invalid(_) => Code::INVALID_ARGUMENT,
            Self::Runtime(Of::BadId { .. } | Of::BadSignal(_)) => Code::INVALID_ARGUMENT,
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            _ => Code::UNKNOWN,
        }
    }

    /// Whether what was named is not known, so that there is nothing to end.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Code::NOT_FOUND
    }
}
