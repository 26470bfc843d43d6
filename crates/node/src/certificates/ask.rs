//! Asking the cluster for one certificate (kubernetes/kubernetes, `staging/src/k8s.io/client-go/util/certificate/csr/csr.go`,
//! `RequestCertificate`, `WaitForCertificate`).

use std::path::PathBuf;
use std::time::Duration;

use auth::{KeyAndRequest, KeyPairPem};
use base::Backoff;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::wait::{Error as WaitError, await_condition};
use kube::runtime::watcher::Error as Watch;
use kube::{Api, Client};

use super::CertificateUse;

/// How long a request may lie with those who decide on it (`certificateWaitTimeout`).
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often in all it is looked for again after a failure; then somebody may have taken the request away.
const TRIES: u32 = 10;

/// A certificate that is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key, or the request, cannot be made.
    #[error("cannot make a key and a request: {0}")]
    Make(Box<dyn std::error::Error + Send + Sync>),
    /// The request cannot be put.
    #[error("cannot create certificate signing request: {}", causes(.0))]
    Create(kube::Error),
    /// What becomes of it cannot be seen.
    #[error("cannot watch on the certificate signing request: {0}")]
    Watch(Box<WaitError>),
    /// Somebody has said no.
    #[error("certificate signing request {name} is denied, reason: {reason}, message: {message}")]
    Denied {
        /// Of the request.
        name: String,
        /// A word for programs.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// It cannot be signed.
    #[error("certificate signing request {name} failed, reason: {reason}, message: {message}")]
    Failed {
        /// Of the request.
        name: String,
        /// A word for programs.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// It has been taken away.
    #[error("certificate signing request {0} is there no more")]
    Gone(String),
    /// Nobody has decided.
    #[error("certificate signing request {0} was neither approved nor denied within 15 minutes")]
    Late(String),
    /// What came is none.
    #[error("what was signed is no certificate")]
    Form,
    /// What came does not fit.
    #[error("the certificate cannot be used: {0}")]
    Use(auth::TlsError),
    /// Nobody who could ask.
    #[error("there is no certificate that is good and no bootstrap identity to ask for one")]
    NoBootstrap,
    /// It cannot be kept.
    #[error("cannot {attempt} {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// An error with all that led to it.
fn causes(error: &kube::Error) -> String {
    let mut text = client::message(error);
    let mut cause = std::error::Error::source(error);
    while let Some(why) = cause {
        let said = why.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = why.source();
    }
    text
}

/// Asks, and waits for what becomes of it.
pub(super) async fn ask(
    client: &Client,
    usage: CertificateUse,
    node: &str,
    names: &[String],
) -> Result<KeyPairPem, CertificateError> {
    let made = KeyAndRequest::new(&format!("system:node:{node}"), "system:nodes", names)
        .map_err(|error| CertificateError::Make(Box::new(error)))?;
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(made.request.into_bytes()),
            signer_name: usage.signer().into(),
            usages: Some(usage.usages().map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let put = api.create(&PostParams::default(), &request).await.map_err(CertificateError::Create)?;
    let name = put.metadata.name.unwrap_or_default();
    let found = tokio::time::timeout(PATIENCE, decision(&api, &name)).await;
    let found = found.map_err(|_| CertificateError::Late(name))??;
    let certificate = answer(&found).unwrap_or(Err(CertificateError::Form))?;
    Ok(KeyPairPem { certificate, key: made.key })
}

/// A request once it is decided. A server that is away for a moment does not matter, nor one that does not let us look
/// yet: a second request would be one more for people to decide on, and what they say to the first would be lost. One
/// that is not there any more never comes back.
async fn decision(
    api: &Api<CertificateSigningRequest>,
    name: &str,
) -> Result<CertificateSigningRequest, CertificateError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let decided =
            |request: Option<&CertificateSigningRequest>| request.is_none_or(|r| answer(r).is_some());
        let error = match await_condition(api.clone(), name, decided).await {
            Ok(found) => return found.ok_or_else(|| CertificateError::Gone(name.to_owned())),
            Err(error) => error,
        };
        if backoff.failures() == TRIES || is_final(&error) {
            return Err(CertificateError::Watch(Box::new(error)));
        }
        tracing::warn!(request = name, %error, "what becomes of the request cannot be seen; looking again");
        tokio::time::sleep(backoff.fail()).await;
    }
}

/// Whether another look would say the same: nobody knows of such requests here.
fn is_final(error: &WaitError) -> bool {
    let WaitError::ProbeFailed(Watch::InitialListFailed(why) | Watch::WatchStartFailed(why)) = error else {
        return false;
    };
    client::is_not_found(why)
}

/// What has become of a request, if that is decided.
fn answer(request: &CertificateSigningRequest) -> Option<Result<String, CertificateError>> {
    let status = request.status.as_ref()?;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = text(&request.metadata.name);
    if let Some(c) = condition("Denied") {
        return Some(Err(CertificateError::Denied {
            name,
            reason: text(&c.reason),
            message: text(&c.message),
        }));
    }
    if let Some(c) = condition("Failed") {
        return Some(Err(CertificateError::Failed {
            name,
            reason: text(&c.reason),
            message: text(&c.message),
        }));
    }
    condition("Approved")?;
    let certificate = status.certificate.as_ref().filter(|c| !c.0.is_empty())?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|_| CertificateError::Form))
}
