//! Requests go when nobody can want them any more (kubernetes/kubernetes,
//! `pkg/controller/certificates/cleaner/cleaner.go`).

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next, is_deleting};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{certificate, condition, conditions, keys};
use crate::context::Context;
use crate::error::{Attempt, Error};

/// Once all is said.
const DONE: Duration = Duration::from_secs(3600);
/// While somebody may yet look at it.
const OPEN: Duration = Duration::from_secs(86_400);

struct State {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
}

pub(super) fn start(ctx: &Context, requests: &Informer<CertificateSigningRequest>) {
    let controller = Controller::new("csrcleaner").watches(requests, keys);
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), requests: requests.clone() }), look);
}

/// When the certificate of a request ends.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let (_, block) = parse_x509_pem(certificate(request)?).ok()?;
    let (_, made) = X509Certificate::from_der(&block.contents).ok()?;
    Timestamp::from_second(made.validity().not_after.timestamp()).ok()
}

/// When a request goes, if it does so of itself.
fn due(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let after = |since: Option<&Time>, delay: Duration| since.and_then(|t| t.0.checked_add(delay).ok());
    let pending = after(request.metadata.creation_timestamp.as_ref(), OPEN);
    if conditions(request).is_empty() {
        return pending;
    }
    // Not everybody says when.
    let of = |kind: &str, delay| {
        condition(request, kind).and_then(|c| after(c.last_update_time.as_ref(), delay).or(pending))
    };
    let issued = certificate(request).is_some();
    let approved = of("Approved", if issued { DONE } else { OPEN });
    let ended = if condition(request, "Approved").is_some() { end(request) } else { None };
    [of("Denied", DONE), of("Failed", DONE), approved, ended].into_iter().flatten().min()
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(request) = state.requests.get(&key).filter(|request| !is_deleting(&request.metadata)) else {
        return Ok(Next::Done);
    };
    let Some(due) = due(&request) else { return Ok(Next::Done) };
    let left = Duration::try_from(due.duration_since(state.ctx.now())).unwrap_or(Duration::ZERO);
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    // Not one of the same name that came since, nor one about which something was said meanwhile.
    let only = Preconditions {
        uid: request.metadata.uid.clone(),
        resource_version: request.metadata.resource_version.clone(),
    };
    let params = DeleteParams { preconditions: Some(only), ..Default::default() };
    let api: Api<CertificateSigningRequest> = Api::all(state.ctx.client());
    match api.delete(key.name(), &params).await {
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(Next::Done),
        outcome => outcome.map(|_| Next::Done).attempt(|| format!("delete the certificate request {key}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn each_state_has_its_time() {
        let due = |conditions: &[&str], certificate: &str| {
            let said = |kind: &&str| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T12:00:00Z"});
            let conditions: Vec<Value> = conditions.iter().map(said).collect();
            let request: CertificateSigningRequest = testkit::object(json!({
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "x"},
                "status": {"conditions": conditions, "certificate": certificate}}));
            super::due(&request).map(|due| due.to_string()).unwrap_or_default()
        };
        assert_eq!(due(&[], ""), "2026-01-02T00:00:00Z");
        assert_eq!(due(&["Denied"], ""), "2026-01-01T13:00:00Z");
        assert_eq!(due(&["Approved"], ""), "2026-01-02T12:00:00Z");
        assert_eq!(due(&["Approved", "Failed"], ""), "2026-01-01T13:00:00Z");
        assert_eq!(due(&["Approved"], "Y2VydA=="), "2026-01-01T13:00:00Z");
        assert_eq!(due(&["Other"], ""), "");
    }
}
