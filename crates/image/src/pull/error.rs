use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};

use crate::content::ContentError;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::StoreError;

/// Why an image was not pulled, in words for the person who named it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry answers, but has no such image.
    #[error("image {reference} not found: {message}")]
    NotFound {
        /// The image.
        reference: Box<Reference>,
        /// What the registry said.
        message: String,
    },
    /// The registry wants other credentials, or does not say whether the image exists.
    #[error("not authorized to pull image {reference}: {message}")]
    Unauthorized {
        /// The image.
        reference: Box<Reference>,
        /// What the registry said.
        message: String,
    },
    /// No connection, no name, no valid certificate, or the connection broke.
    #[error("registry {} is unreachable for image {reference}: {message}", reference.registry())]
    Unreachable {
        /// The image.
        reference: Box<Reference>,
        /// What the network said.
        message: String,
    },
    /// The registry asks to come back later.
    #[error("registry {} limits requests for image {reference}: {message}", reference.registry())]
    RateLimited {
        /// The image.
        reference: Box<Reference>,
        /// What the registry said.
        message: String,
    },
    /// The registry failed in another way.
    #[error("registry {} failed to serve image {reference}: {message}", reference.registry())]
    Registry {
        /// The image.
        reference: Box<Reference>,
        /// What the registry said.
        message: String,
    },
    /// The registry sent something else than what was asked for.
    #[error("{what} of image {reference} does not match its digest: expected {expected}, got {actual}")]
    Digest {
        /// The image.
        reference: Box<Reference>,
        /// Manifest or blob.
        what: &'static str,
        /// The promised digest.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// A blob is longer or shorter than the manifest says.
    #[error(
        "blob {digest} of image {reference} does not have the {expected} bytes that its manifest promises"
    )]
    Size {
        /// The image.
        reference: Box<Reference>,
        /// The blob.
        digest: Digest,
        /// The promised size.
        expected: u64,
    },
    /// There is no image for this machine.
    #[error("image {reference} is not available for {platform}, only for: {available}")]
    NoPlatform {
        /// The image.
        reference: Box<Reference>,
        /// What was asked for.
        platform: Platform,
        /// What there is.
        available: String,
    },
    /// A manifest or configuration makes no sense.
    #[error("image {reference} is malformed: {problem}")]
    Malformed {
        /// The image.
        reference: Box<Reference>,
        /// In which way.
        problem: String,
    },
    /// A certificate given in the options cannot be used.
    #[error("cannot set up the connection for image {reference}: {message}")]
    Client {
        /// The image.
        reference: Box<Reference>,
        /// What is wrong.
        message: String,
    },
    /// The image came, but could not be stored or unpacked.
    #[error("store image {reference}: {source}")]
    Store {
        /// The image.
        reference: Box<Reference>,
        /// What went wrong.
        source: StoreError,
    },
    /// A defect of this program or of its registry client.
    #[error("pulling image {reference} failed unexpectedly; the log says where")]
    Panicked {
        /// The image.
        reference: Box<Reference>,
    },
}

impl PullError {
    /// Whether trying again with the same arguments cannot help until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Unauthorized { .. } | Self::NoPlatform { .. })
    }

    pub(super) fn from_registry(reference: &Reference, what: &'static str, e: OciDistributionError) -> Self {
        use OciDistributionError as E;
        let reference = Box::new(reference.clone());
        match e {
            E::ImageManifestNotFoundError(message) => Self::NotFound { reference, message },
            E::UnauthorizedError { .. } => {
                let message =
                    "the registry wants (other) credentials, or the repository does not exist".into();
                Self::Unauthorized { reference, message }
            }
            E::AuthenticationFailure(message) => {
                let message = format!("the registry refused to give a token: {}", excerpt(&message));
                Self::Unauthorized { reference, message }
            }
            E::RegistryError { envelope, .. } => {
                let said = envelope.errors.iter().map(|e| e.message.as_str()).filter(|m| !m.is_empty());
                let said = excerpt(&said.collect::<Vec<_>>().join("; "));
                match envelope.errors.first().map(|e| &e.code) {
                    Some(
                        OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::BlobUnknown,
                    ) => Self::NotFound { reference, message: or(said, "the registry does not know it") },
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
                        Self::Unauthorized { reference, message: or(said, "access denied") }
                    }
                    Some(OciErrorCode::Toomanyrequests) => {
                        Self::RateLimited { reference, message: or(said, "too many requests") }
                    }
                    _ => Self::Registry { reference, message: or(said, "no reason given") },
                }
            }
            E::ServerError { code, message, .. } => {
                let message = format!("status {code} {}", excerpt(&message)).trim_end().to_owned();
                match code {
                    401 | 403 => Self::Unauthorized { reference, message },
                    404 => Self::NotFound { reference, message },
                    429 => Self::RateLimited { reference, message },
                    _ => Self::Registry { reference, message },
                }
            }
            E::RequestError(e) => Self::Unreachable { reference, message: chain(&e) },
            E::DigestError(DigestError::VerificationError { expected, actual }) => {
                match (expected.parse(), actual.parse()) {
                    (Ok(expected), Ok(actual)) => Self::Digest { reference, what, expected, actual },
                    _ => Self::Malformed {
                        reference,
                        problem: format!("digest {actual} instead of {expected}"),
                    },
                }
            }
            other => {
                Self::Registry { reference, message: format!("{what}: {}", excerpt(&other.to_string())) }
            }
        }
    }

    pub(super) fn from_content(reference: &Reference, digest: Digest, e: ContentError) -> Self {
        let reference = Box::new(reference.clone());
        match e {
            ContentError::Digest { expected, actual } => {
                Self::Digest { reference, what: "blob", expected, actual }
            }
            ContentError::Size { expected, .. } => Self::Size { reference, digest, expected },
            other => Self::Store { reference, source: other.into() },
        }
    }
}

fn or(said: String, otherwise: &str) -> String {
    if said.is_empty() { otherwise.to_owned() } else { said }
}

/// What a stranger's server says goes into events and status fields: one line of it is enough.
fn excerpt(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim().to_owned()
}

/// The reasons behind an error; the innermost says what happened.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let reason = e.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        source = e.source();
    }
    excerpt(&text)
}
