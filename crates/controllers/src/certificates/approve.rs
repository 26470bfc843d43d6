//! Nodes' requests are approved if those who ask may ask for them (kubernetes/kubernetes,
//! `pkg/controller/certificates/approver/sarapprove.go`).

use std::sync::Arc;
use std::time::Duration;

use client::{Controller, Informer, Key, Next};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::PostParams;

use super::request::{NODE_CLIENT, parse};
use super::{condition, is_issued, keys, with_condition};
use crate::context::Context;
use crate::error::{Attempt, Error};

/// Somebody may get the right later.
const AGAIN: Duration = Duration::from_secs(60);

struct State {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
}

pub(super) fn start(ctx: &Context, requests: &Informer<CertificateSigningRequest>) {
    let controller = Controller::new("csrapproving").watches(requests, keys);
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), requests: requests.clone() }), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(request) = state.requests.get(&key) else { return Ok(Next::Done) };
    let decided = ["Approved", "Denied"].iter().any(|kind| condition(&request, kind).is_some());
    if decided || is_issued(&request) || request.spec.signer_name != NODE_CLIENT {
        return Ok(Next::Done);
    }
    // What cannot be read now never can be.
    let Ok(asked) = parse(&request) else { return Ok(Next::Done) };
    if asked.node_client(request.spec.usages.as_deref().unwrap_or_default()).is_err() {
        return Ok(Next::Done);
    }
    let own = request.spec.username.as_deref() == Some(&asked.common_name);
    let own = own.then_some(("selfnodeclient", "self kubelet client"));
    for (right, what) in own.into_iter().chain([("nodeclient", "kubelet client")]) {
        if state.may(&request, right).await? {
            let message = format!("Auto approving {what} certificate after SubjectAccessReview.");
            let new = with_condition(&request, "Approved", "AutoApproved", message, state.ctx.now());
            return state.write(&key, &new).await;
        }
    }
    Ok(Next::After(AGAIN))
}

impl State {
    async fn may(&self, request: &CertificateSigningRequest, right: &str) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(right.to_owned()),
                    verb: Some("create".to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.ctx.client());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.attempt(|| format!("ask whether {:?} is a {right}", spec.username))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn write(&self, key: &Key, new: &CertificateSigningRequest) -> Result<Next, Error> {
        let api: Api<CertificateSigningRequest> = Api::all(self.ctx.client());
        let name = key.name();
        match api.replace_subresource("approval", name, &PostParams::default(), new).await {
            // Whatever came between wakes us.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(Next::Done),
            outcome => {
                let outcome: Result<CertificateSigningRequest, _> = outcome;
                outcome.map(|_| Next::Done).attempt(|| format!("approve the certificate request {name}"))
            }
        }
    }
}
