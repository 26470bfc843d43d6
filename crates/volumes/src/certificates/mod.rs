//! Certificates of pods (kubernetes/kubernetes, `pkg/kubelet/podcertificate/podcertificatemanager.go`): a key is made here
//! and never leaves the node; whoever signs for the name that the pod asks for answers a PodCertificateRequest.
//!
//! ```text
//! request ─► waits ─► issued ─► (when its signer says so) another request
//!              └─ denied, failed: for good
//! ```

mod keys;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;
use client::Recorder;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;

use crate::error::Fault;

/// Whose certificate: pod UID, volume, and the path of a file of it.
type Id = (String, String, String);

/// How long one look waits for a signer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it does while the pod runs with an old certificate.
const BRIEFLY: Duration = Duration::from_secs(1);
/// What was asked for while the pod runs is looked for again after so long.
const AGAIN: Duration = Duration::from_secs(15);
/// A certificate that should have been renewed so long ago is told of (`refreshOverdueDuration`).
const OVERDUE: Duration = Duration::from_secs(10 * 60);

pub(crate) struct Certificates {
    client: Client,
    node: String,
    recorder: Recorder,
    /// How long one look waits for a signer.
    patience: Duration,
    held: Mutex<HashMap<Id, Held>>,
}

/// What there is of one certificate.
#[derive(Clone, Default)]
struct Held {
    issued: Option<Issued>,
    /// The key, and the name of the request that is not answered yet.
    waiting: Option<(String, String)>,
    /// No amount of asking helps.
    refused: Option<String>,
}

/// A key and its certificates, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) key: String,
    pub(crate) chain: String,
    refresh: Timestamp,
    end: Option<Timestamp>,
    /// What people have been told of it: that it is overdue, that it is over.
    told: (bool, bool),
}

/// What became of a request.
enum Outcome {
    Pending,
    Issued { chain: String, refresh: Option<Timestamp>, end: Option<Timestamp> },
    Refused { kind: String, reason: String, message: String },
}

impl Certificates {
    pub(crate) fn new(client: Client, node: String, recorder: Recorder) -> Self {
        Self { client, node, recorder, patience: PATIENCE, held: Mutex::default() }
    }

    /// A key with certificates that are good for now, and when to ask again.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        volume: &str,
        wanted: &core::PodCertificateProjection,
        now: Timestamp,
    ) -> Result<(Issued, Duration), Fault> {
        let paths = [&wanted.credential_bundle_path, &wanted.key_path, &wanted.certificate_chain_path];
        let path = paths.into_iter().flatten().next().cloned().unwrap_or_default();
        let id = (pod.uid().unwrap_or_default(), volume.to_owned(), path);
        let held = self.held.lock().get(&id).cloned().unwrap_or_default();
        if let Some(why) = held.refused {
            return Err(Fault::Certificate(why));
        }
        let wait = |issued: Issued| {
            let wait = issued.refresh.duration_since(now).try_into().unwrap_or(AGAIN);
            (issued, wait)
        };
        let Some(mut old) = held.issued else {
            return self.obtain(pod, wanted, &id, now, self.patience).await.map(wait);
        };
        if old.refresh > now {
            return Ok(wait(old));
        }
        match self.obtain(pod, wanted, &id, now, self.patience.min(BRIEFLY)).await {
            Ok(issued) => Ok(wait(issued)),
            Err(error) if self.held.lock().get(&id).is_some_and(|held| held.refused.is_some()) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a pod's certificate is not renewed yet; will look again");
                self.complain(pod, &mut old, now);
                if let Some(held) = self.held.lock().get_mut(&id) {
                    held.issued = Some(old.clone());
                }
                Ok((old, AGAIN))
            }
        }
    }

    /// Tells people, once each, of a certificate that is not renewed in time.
    fn complain(&self, pod: &Pod, old: &mut Issued, now: Timestamp) {
        let overdue = old.refresh.checked_add(OVERDUE).is_ok_and(|at| now > at);
        if overdue && !std::mem::replace(&mut old.told.0, true) {
            self.recorder.warning(pod, "CertificateOverdueForRefresh", "PodCertificate refresh overdue");
        }
        let over = old.end.is_some_and(|end| now > end);
        if over && !std::mem::replace(&mut old.told.1, true) {
            self.recorder.warning(pod, "CertificateExpired", "PodCertificate expired");
        }
    }

    async fn obtain(
        &self,
        pod: &Pod,
        wanted: &core::PodCertificateProjection,
        id: &Id,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Issued, Fault> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<PodCertificateRequest> = Api::namespaced(self.client.clone(), namespace);
        let waiting = self.held.lock().get(id).and_then(|held| held.waiting.clone());
        let (key, name) = match waiting {
            Some(waiting) => waiting,
            None => {
                let (key, request) = self.request(pod, wanted).await?;
                let name = api.create(&PostParams::default(), &request).await.map_err(or_off)?.name_any();
                let waiting = (key.clone(), name.clone());
                self.held.lock().entry(id.clone()).or_default().waiting = Some(waiting);
                (key, name)
            }
        };
        let settled = |request: Option<&PodCertificateRequest>| {
            request.is_none_or(|request| !matches!(outcome(request), Outcome::Pending))
        };
        // If it takes longer, another look goes on waiting.
        let _ = tokio::time::timeout(patience, await_condition(api.clone(), &name, settled)).await;
        let found = api.get_opt(&name).await?;
        let mut all = self.held.lock();
        let held = all.entry(id.clone()).or_default();
        let Some(request) = found else {
            held.waiting = None;
            let why = format!("PodCertificateRequest \"{namespace}/{name}\" appears to have been deleted");
            return Err(Fault::Certificate(why));
        };
        match outcome(&request) {
            Outcome::Pending => Err(Fault::Certificate("credential bundle is not issued yet".to_owned())),
            Outcome::Refused { kind, reason, message } => {
                let how = if kind == "Denied" { "was denied" } else { "failed" };
                let told = format!(
                    "PodCertificateRequest {namespace}/{name} {how}, reason={reason:?}, message={message:?}"
                );
                self.recorder.warning(pod, &kind, told);
                let why = format!(
                    "PodCertificateRequest was permanently {}: reason={reason:?} message={message:?}",
                    kind.to_lowercase()
                );
                *held = Held { refused: Some(why.clone()), ..Held::default() };
                Err(Fault::Certificate(why))
            }
            Outcome::Issued { chain, refresh, end } => {
                // Whoever signs says when; one that does not is asked after an hour.
                let refresh =
                    refresh.or_else(|| now.checked_add(Duration::from_secs(3600)).ok()).unwrap_or(now);
                let issued = Issued { key, chain, refresh, end, told: (false, false) };
                *held = Held { issued: Some(issued.clone()), ..Held::default() };
                Ok(issued)
            }
        }
    }

    /// A new key, and the request for its certificate.
    async fn request(
        &self,
        pod: &Pod,
        wanted: &core::PodCertificateProjection,
    ) -> Result<(String, PodCertificateRequest), Fault> {
        let kind = wanted.key_type.clone();
        // Primes of thousands of bits take seconds to find.
        let made = tokio::task::spawn_blocking(move || keys::make(&kind)).await;
        let (key, csr) = made.map_err(|error| Fault::Certificate(error.to_string()))??;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
        let account = account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        let accounts: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        let nodes: Api<core::Node> = Api::all(self.client.clone());
        let (of_account, of_node) = (accounts.get(&account).await?, nodes.get(&self.node).await?);
        let uid = pod.uid().unwrap_or_default();
        let request = PodCertificateRequest {
            metadata: ObjectMeta {
                namespace: Some(namespace),
                generate_name: Some("req-".to_owned()),
                owner_references: pod.owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: PodCertificateRequestSpec {
                signer_name: wanted.signer_name.clone(),
                pod_name: pod.name_any(),
                pod_uid: uid,
                service_account_name: account,
                service_account_uid: of_account.uid().unwrap_or_default(),
                node_name: self.node.clone(),
                node_uid: of_node.uid().unwrap_or_default(),
                max_expiration_seconds: wanted.max_expiration_seconds,
                stub_pkc_s10_request: ByteString(csr),
                unverified_user_annotations: wanted.user_annotations.clone(),
                ..PodCertificateRequestSpec::default()
            },
            ..PodCertificateRequest::default()
        };
        Ok((key, request))
    }

    /// A pod that is gone needs none.
    pub(crate) fn release(&self, uid: &str) {
        self.held.lock().retain(|(holder, ..), _| holder != uid);
    }
}

/// An API that does not know such requests names nothing that it has not found.
fn or_off(error: kube::Error) -> Fault {
    let unknown = |status: &kube::core::Status| status.details.as_ref().is_none_or(|d| d.name.is_empty());
    match &error {
        kube::Error::Api(status) if client::is_not_found(&error) && unknown(status) => {
            Fault::NotServed("podCertificate")
        }
        _ => Fault::Api(error),
    }
}

fn outcome(request: &PodCertificateRequest) -> Outcome {
    let Some(status) = &request.status else { return Outcome::Pending };
    let mut conditions = status.conditions.iter().flatten().filter(|c| c.status == "True");
    match conditions.find(|c| matches!(c.type_.as_str(), "Issued" | "Denied" | "Failed")) {
        None => Outcome::Pending,
        Some(condition) if condition.type_ == "Issued" => Outcome::Issued {
            // Without what may stand between and in the blocks.
            chain: crate::trust::certificates(status.certificate_chain.as_deref().unwrap_or_default())
                .concat(),
            refresh: status.begin_refresh_at.as_ref().map(|at| at.0),
            end: status.not_after.as_ref().map(|at| at.0),
        },
        Some(condition) => Outcome::Refused {
            kind: condition.type_.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        },
    }
}
