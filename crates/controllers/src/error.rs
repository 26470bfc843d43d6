/// A look that failed. It will be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("cannot {attempt}: {}", client::message(.source))]
    Api {
        /// What was tried.
        attempt: String,
        /// Why it failed.
        source: kube::Error,
    },
    /// A selector that cannot be understood.
    #[error("cannot use the selector of {object}: {source}")]
    Selector {
        /// Whose selector.
        object: String,
        /// Why.
        source: types::SelectorError,
    },
    /// A pod whose manager is not there.
    #[error("found no controllers for pod {pod:?}")]
    NoManager {
        /// Which pod.
        pod: String,
    },
    /// A manager of pods that does not say how many it keeps.
    #[error("{kind} does not implement the scale subresource")]
    NoScale {
        /// Its kind.
        kind: String,
    },
    /// A pod that would get a claim on its way out.
    #[error("pvc {claim} is being deleted")]
    ClaimGoing {
        /// The claim's name.
        claim: String,
    },
    /// A claim that bears our mark and names a volume of somebody else's.
    #[error("invalid binding of claim {claim:?} to volume {volume:?}: volume already claimed by {by:?}")]
    Misbound {
        /// The claim.
        claim: String,
        /// The volume that it names.
        volume: String,
        /// The claim that the volume names.
        by: String,
    },
    /// The name of a pod's own claim is taken.
    #[error("{why}")]
    ForeignClaim {
        /// By what.
        why: String,
    },
    /// A template that is not there.
    #[error("resource claim template {name:?}: resourceclaimtemplate.resource.k8s.io {name:?} not found")]
    NoTemplate {
        /// Its name.
        name: String,
    },
    /// Somebody who has a claim, and who is no pod.
    #[error("unsupported ReservedFor entry in ResourceClaim {claim}: {consumer}")]
    UnknownConsumer {
        /// The claim.
        claim: String,
        /// Who has it.
        consumer: String,
    },
    /// An owner of a kind that the server does not have.
    #[error("cannot tell whether {owner}, the owner of {object}, is there: the server has no such kind")]
    UnknownOwner {
        /// Which object.
        object: String,
        /// Its owner.
        owner: String,
    },
    /// A group of resources whose server is away.
    #[error("cannot tell whether there is a resource {resource}: its group does not answer")]
    NoAnswer {
        /// The resource.
        resource: String,
    },
    /// A certificate that cannot be made.
    #[error("cannot sign the certificate request {request}: {source}")]
    Sign {
        /// The request's name.
        request: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What the server said, if it was the server: in upstream's conditions there is nothing else.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::Api { source, .. } => client::message(source),
            other => other.to_string(),
        }
    }
}

/// Names what was tried.
pub(crate) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Attempt<T> for Result<T, kube::Error> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { attempt: what(), source })
    }
}
