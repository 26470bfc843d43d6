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
    /// Finding what a claim stands for.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
         volumes=[{volume}]: error processing PVC {claim}: {why}"
    )]
    Claim {
        /// The volume's name in the pod.
        volume: String,
        /// The claim's namespace and name.
        claim: String,
        /// Why.
        why: Box<ClaimFault>,
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

impl VolumeError {
    /// Whether it keeps a pod from getting a volume, which is told as `FailedMount`.
    pub fn is_mount(&self) -> bool {
        matches!(self, Self::SetUp { .. } | Self::Claim { .. })
    }
}

/// What is wrong with a claim or its volume, in the kubelet's words.
#[derive(Debug, thiserror::Error)]
pub enum ClaimFault {
    /// The claim cannot be had.
    #[error("failed to fetch PVC from API server: {}", client::message(.0))]
    Fetch(kube::Error),
    /// It is on its way out.
    #[error("PVC is being deleted")]
    Deleting,
    /// It has no volume.
    #[error("PVC is not bound")]
    Unbound,
    /// It is somebody else's.
    #[error("PVC {namespace}/{claim} was not created for pod {namespace}/{pod} (pod is not owner)")]
    NotOwned {
        /// Of both.
        namespace: String,
        /// The claim.
        claim: String,
        /// The pod.
        pod: String,
    },
    /// The volume cannot be had.
    #[error("failed to fetch PV {name} from API server: {}", client::message(.source))]
    FetchVolume {
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// The volume does not know of the claim.
    #[error(
        "found PV object {0} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
    )]
    NoReference(String),
    /// The volume is another claim's.
    #[error(
        "found PV object {volume} but its pv.Spec.ClaimRef.UID {found} does not point to claim.UID {wanted}"
    )]
    OtherClaim {
        /// The volume.
        volume: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A container uses it as what it is not.
    #[error("volume {volume} has volumeMode {mode}, but is specified in {place}")]
    Mode {
        /// Its name in the pod.
        volume: String,
        /// What it is.
        mode: String,
        /// Where it is named.
        place: &'static str,
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
    /// A file system that hangs.
    #[error("the file system of {path} has not answered for {seconds} s")]
    Silent {
        /// What was looked at.
        path: String,
        /// For how long.
        seconds: u64,
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
    /// A service account's token that is not to be had.
    #[error("{0}")]
    Token(String),
    /// What a source of a volume is about is off.
    #[error(
        "certificates.k8s.io/v1beta1 is not served by the API, and without it there is no {0}; its switch is \
         --runtime-config=certificates.k8s.io/v1beta1=true"
    )]
    NotServed(&'static str),
    /// A pod's certificate that nobody has signed.
    #[error("{0}")]
    Certificate(String),
    /// A ClusterTrustBundle that is not there.
    #[error("{0}")]
    Trust(String),
    /// Huge pages of a size that nobody can tell.
    #[error("{0}")]
    HugePages(&'static str),
    /// A kind of volume that this version does not have.
    #[error("volumes of type {0} are not available in this version")]
    Kind(String),
    /// A volume whose data is elsewhere.
    #[error("NodeAffinity check failed for volume {volume:?} : no matching NodeSelectorTerms")]
    OtherNode {
        /// Which.
        volume: String,
    },
    /// A local volume without its path.
    #[error("path {0:?} does not exist")]
    NoPath(String),
    /// A local volume whose path is something else.
    #[error("path {path:?} is not {what}")]
    NotA {
        /// Which.
        path: String,
        /// What it should be.
        what: &'static str,
    },
    /// A volume that only one pod may have.
    #[error("volume uses the ReadWriteOncePod access mode and is already in use by another pod")]
    InUseAlone,
    /// A volume that pods still have.
    #[error("volume {0:?} is still in use by pods of this node")]
    InUse(String),
    /// Nothing is wrong: the next agent begins anew.
    #[error("this node's agent is ending")]
    Ending,
    /// Files that are to become a block device.
    #[error("{what} {name:?} is kept in a directory, which cannot become a block device")]
    NoDevice {
        /// `snapshot` or `volume`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Files that do not fit into a volume.
    #[error("what is in {what} {name:?} does not fit into the volume's {fits} bytes")]
    TooMuch {
        /// `snapshot` or `volume`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The volume's.
        fits: u64,
    },
    /// What a volume is to be a copy of is not on this node.
    #[error("{what} {name:?} is not on this node")]
    NoOrigin {
        /// `snapshot` or `volume`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// What a volume is to be a copy of does not fit into it.
    #[error("{what} {name:?} has {has} bytes, more than the volume's {fits}")]
    TooLarge {
        /// `snapshot` or `volume`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its size.
        has: u64,
        /// The volume's.
        fits: u64,
    },
    /// A file system that cannot be held still, because only a container that ends sees it.
    #[error("volume {0:?} is being taken away from a pod; it can be copied after that")]
    Leaving(String),
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
