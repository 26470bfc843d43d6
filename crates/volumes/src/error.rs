/// A volume that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Setting it up.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    SetUp {
        /// Its name in the pod.
        volume: String,
        /// Why.
        why: Fault,
    },
    /// A part of it.
    #[error("failed to prepare subPath for volumeMount {volume:?} of container {container:?}: {why}")]
    SubPath {
        /// Its name in the pod.
        volume: String,
        /// Who mounts it.
        container: String,
        /// Why.
        why: Fault,
    },
    /// Taking the volumes of a pod away.
    #[error("UnmountVolume.TearDown failed for the volumes in {folder}: {why}")]
    TearDown {
        /// Where they are.
        folder: String,
        /// Why.
        why: Fault,
    },
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A file of the node.
    #[error("cannot {attempt} {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A mount.
    #[error(transparent)]
    System(#[from] sys::Error),
    /// The API refused or did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A ConfigMap or Secret that is not there.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key that is not there.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// An object that the API does not tell of in time.
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    Late {
        /// `configmap` or `secret`.
        kind: &'static str,
    },
    /// A path that leads out of its volume.
    #[error("path {0:?} leads out of the volume")]
    Path(String),
    /// A hostPath that is not what it should be.
    #[error("hostPath type check failed: {path} is not {what}")]
    HostPath {
        /// The path.
        path: String,
        /// `a directory` and the like.
        what: &'static str,
    },
    /// A value that the downward API cannot give.
    #[error("unsupported {what}: {text}")]
    Unsupported {
        /// `fieldPath` and the like.
        what: &'static str,
        /// What was asked for.
        text: String,
    },
    /// A kind of volume that this version does not have.
    #[error("volumes of type {0} are not available in this version")]
    Kind(String),
    /// Mounts that do not go away; what they show must not be deleted.
    #[error("{0} is still mounted")]
    Mounted(String),
}

impl Fault {
    pub(crate) fn file<'a>(
        attempt: &'static str,
        path: &'a std::path::Path,
    ) -> impl Fn(std::io::Error) -> Self + 'a {
        move |source| Self::File { attempt, path: path.display().to_string(), source }
    }
}
