//! Approved requests get their certificates (kubernetes/kubernetes, `pkg/controller/certificates/signer/signer.go`).

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::PostParams;

use super::request::parse;
use super::{CertificateOrder, Signing, condition, is_issued, keys, with_condition};
use crate::context::Context;
use crate::error::{Attempt, Error};

/// For clients whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// Certificates that are good for less are good for all of it from now on.
const SHORT: Duration = Duration::from_secs(8 * 3600);
const LEAST: Duration = Duration::from_secs(600);

struct State {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
    signing: Signing,
}

pub(super) fn start(ctx: &Context, requests: &Informer<CertificateSigningRequest>, signing: &Signing) {
    let controller = Controller::new("csrsigning").watches(requests, keys);
    let state = State { ctx: ctx.clone(), requests: requests.clone(), signing: signing.clone() };
    ctx.spawn(controller, Arc::new(state), look);
}

/// From when until when a certificate is good for which so many seconds were asked.
fn span(asked: Option<i32>, most: Duration, now: Timestamp) -> (Timestamp, Timestamp) {
    let wish = asked.map_or(most, |seconds| Duration::from_secs(seconds.max(0).unsigned_abs().into()));
    let length = if wish > most { most } else { wish.max(LEAST) };
    let later = |from: Timestamp, by: Duration| from.checked_add(by).unwrap_or(Timestamp::MAX);
    let begin = now.checked_sub(BACKDATE).unwrap_or(now);
    (begin, later(if length < SHORT { now } else { begin }, length))
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(request) = state.requests.get(&key) else { return Ok(Next::Done) };
    let is = |kind: &str| condition(&request, kind).is_some();
    if !is("Approved") || is("Denied") || is("Failed") || is_issued(&request) {
        return Ok(Next::Done);
    }
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    // Those of other signers may look as they like.
    if !spec.signer_name.starts_with("kubernetes.io/") {
        return Ok(Next::Done);
    }
    let asked = match parse(&request) {
        Ok(asked) => asked,
        Err(fault) => {
            return Err(Error::Sign { request: key.name().to_owned(), source: Box::new(fault) });
        }
    };
    let now = state.ctx.now();
    let new = match asked.check(&spec.signer_name, usages) {
        None => return Ok(Next::Done),
        Some(Err(fault)) => {
            with_condition(&request, "Failed", "SignerValidationFailure", fault.to_string(), now)
        }
        Some(Ok(())) => {
            let (not_before, not_after) = span(spec.expiration_seconds, state.signing.duration, now);
            let order = CertificateOrder { request: &asked.der, usages, not_before, not_after };
            let certificate = state.signing.signer.sign(&order);
            let certificate =
                certificate.map_err(|source| Error::Sign { request: key.name().to_owned(), source })?;
            let mut new = (*request).clone();
            new.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
            new
        }
    };
    let api: Api<CertificateSigningRequest> = Api::all(state.ctx.client());
    match api.replace_status(key.name(), &PostParams::default(), &new).await {
        // Whatever came between wakes us.
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(Next::Done),
        outcome => outcome.map(|_| Next::Done).attempt(|| format!("answer the certificate request {key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_given_within_bounds() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let year = Duration::from_secs(365 * 86_400);
        let good = |asked, most| {
            let (from, to) = span(asked, most, now);
            assert_eq!(from, "2025-12-31T23:55:00Z".parse().unwrap());
            to.duration_since(now).as_secs()
        };
        assert_eq!(good(None, year), 365 * 86_400 - 300);
        assert_eq!(good(Some(i32::MAX), year), 365 * 86_400 - 300);
        assert_eq!(good(Some(3600), year), 3600);
        assert_eq!(good(Some(86_400), year), 86_400 - 300);
        assert_eq!(good(Some(1), year), 600);
        assert_eq!(good(Some(86_400), Duration::from_secs(3600)), 3600);
    }
}
