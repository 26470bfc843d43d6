//! CertificateSigningRequests: those of nodes are approved, approved ones signed, and old ones cleaned away
//! (kubernetes/kubernetes, `pkg/controller/certificates`).
//!
//! ```text
//! asked ─► approved (by us for nodes, else by people) ─► signed ─► gone after an hour
//!    └───► denied ─► gone after an hour                  └► failed ─► gone after an hour
//! ```

mod approve;
mod clean;
mod request;
mod sign;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::Key;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::Context;

/// A certificate to be made.
#[derive(Clone, Debug)]
pub struct CertificateOrder<'a> {
    /// The request (PKCS #10) as DER.
    pub request: &'a [u8],
    /// What it shall be good for, by the names of CertificateSigningRequests.
    pub usages: &'a [String],
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends at the latest.
    pub not_after: Timestamp,
}

/// Whoever has the authority's key.
pub trait Signer: Send + Sync + 'static {
    /// Makes a certificate; gives it as PEM.
    fn sign(&self, order: &CertificateOrder<'_>) -> Result<String, Box<dyn StdError + Send + Sync>>;
}

/// What it takes to sign.
#[derive(Clone)]
pub struct Signing {
    /// Who does.
    pub signer: Arc<dyn Signer>,
    /// How long certificates are good for at most (`--cluster-signing-duration`).
    pub duration: Duration,
}

impl Signing {
    /// For a year at most.
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self { signer, duration: Duration::from_secs(365 * 86_400) }
    }
}

/// Approves what nodes ask for.
pub(crate) fn start_approving(ctx: &Context) {
    approve::start(ctx, &ctx.informers.of());
}

/// Deletes what is over.
pub(crate) fn start_cleaning(ctx: &Context) {
    clean::start(ctx, &ctx.informers.of());
}

/// Signs what is approved.
pub(crate) fn start_signing(ctx: &Context, signing: &Signing) {
    sign::start(ctx, &ctx.informers.of(), signing);
}

fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a Condition> {
    conditions(request).iter().find(|condition| condition.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    certificate(request).is_some()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let bytes = request.status.as_ref()?.certificate.as_ref()?;
    (!bytes.0.is_empty()).then_some(&bytes.0)
}

/// The same request with one more condition that is true.
fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> CertificateSigningRequest {
    let mut new = request.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    new
}

fn keys(request: &CertificateSigningRequest) -> [Key; 1] {
    [Key::of(request)]
}

#[cfg(test)]
mod tests;
