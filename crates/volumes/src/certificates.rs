//! Certificates of pods (kubernetes/kubernetes, `pkg/kubelet/podcertificate/podcertificatemanager.go`): a key is made here
//! and never leaves the node; whoever signs for the name that the pod asks for answers a PodCertificateRequest.
//!
//! ```text
//! request ─► waits ─► issued ─► (when its signer says so) another request
//!              └─ denied, failed: for good
//! ```

use std::collections::HashMap;
use std::time::Duration;

use base::Timestamp;
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
/// A certificate that could not be renewed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);

pub(crate) struct Certificates {
    client: Client,
    node: String,
    held: Mutex<HashMap<Id, State>>,
}

#[derive(Clone)]
enum State {
    /// The key, and the request's name.
    Waiting(String, String),
    Issued(Issued),
    /// No amount of asking helps.
    Refused(String),
}

/// A key and its certificates, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) key: String,
    pub(crate) chain: String,
    refresh: Timestamp,
}

/// What became of a request.
enum Outcome {
    Pending,
    Issued(String, Option<Timestamp>),
    Refused(String),
}

impl Certificates {
    pub(crate) fn new(client: Client, node: String) -> Self {
        Self { client, node, held: Mutex::default() }
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
        let state = self.held.lock().get(&id).cloned();
        let wait = |issued: Issued| {
            let wait = issued.refresh.duration_since(now).try_into().unwrap_or(Duration::ZERO);
            (issued, wait)
        };
        let old = match state {
            Some(State::Issued(issued)) if issued.refresh > now => return Ok(wait(issued)),
            Some(State::Refused(why)) => return Err(Fault::Certificate(why)),
            Some(State::Issued(old)) => Some(old),
            Some(State::Waiting(..)) | None => None,
        };
        match (self.obtain(pod, wanted, &id, now).await, old) {
            (Ok(issued), _) => Ok(wait(issued)),
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "cannot renew a pod's certificate; will try again");
                let old = Issued { refresh: now.checked_add(AGAIN).unwrap_or(now), ..old };
                self.held.lock().insert(id, State::Issued(old.clone()));
                Ok(wait(old))
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn obtain(
        &self,
        pod: &Pod,
        wanted: &core::PodCertificateProjection,
        id: &Id,
        now: Timestamp,
    ) -> Result<Issued, Fault> {
        let api: Api<PodCertificateRequest> =
            Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let waiting = match self.held.lock().get(id) {
            Some(State::Waiting(key, name)) => Some((key.clone(), name.clone())),
            _ => None,
        };
        let (key, name) = match waiting {
            Some(waiting) => waiting,
            None => {
                let (key, request) = self.request(pod, wanted).await?;
                let name = api.create(&PostParams::default(), &request).await?.name_any();
                self.held.lock().insert(id.clone(), State::Waiting(key.clone(), name.clone()));
                (key, name)
            }
        };
        let settled = |request: Option<&PodCertificateRequest>| {
            request.is_none_or(|request| !matches!(outcome(request), Outcome::Pending))
        };
        // If it takes longer, another look goes on waiting.
        let _ = tokio::time::timeout(PATIENCE, await_condition(api.clone(), &name, settled)).await;
        let Some(request) = api.get_opt(&name).await? else {
            self.held.lock().remove(id);
            return Err(Fault::Certificate(format!(
                "PodCertificateRequest {name:?} appears to have been deleted"
            )));
        };
        match outcome(&request) {
            Outcome::Pending => Err(Fault::Certificate("credential bundle is not issued yet".to_owned())),
            Outcome::Refused(why) => {
                self.held.lock().insert(id.clone(), State::Refused(why.clone()));
                Err(Fault::Certificate(why))
            }
            Outcome::Issued(chain, refresh) => {
                // Whoever signs says when; one that does not is asked after an hour.
                let refresh =
                    refresh.or_else(|| now.checked_add(Duration::from_secs(3600)).ok()).unwrap_or(now);
                let issued = Issued { key, chain, refresh };
                self.held.lock().insert(id.clone(), State::Issued(issued.clone()));
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
        let (key, csr) = make_key(&wanted.key_type)?;
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
                generate_name: Some(format!("req-{uid}-")),
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

fn outcome(request: &PodCertificateRequest) -> Outcome {
    let Some(status) = &request.status else { return Outcome::Pending };
    let mut conditions = status.conditions.iter().flatten().filter(|c| c.status == "True");
    match conditions.find(|c| matches!(c.type_.as_str(), "Issued" | "Denied" | "Failed")) {
        None => Outcome::Pending,
        Some(condition) if condition.type_ == "Issued" => {
            let chain = status.certificate_chain.clone().unwrap_or_default();
            Outcome::Issued(chain, status.begin_refresh_at.as_ref().map(|at| at.0))
        }
        Some(condition) => Outcome::Refused(format!(
            "PodCertificateRequest was permanently {}: reason={:?} message={:?}",
            condition.type_.to_lowercase(),
            condition.reason,
            condition.message
        )),
    }
}

/// A key of this type as PEM, and a request that shows that we have it.
fn make_key(kind: &str) -> Result<(String, Vec<u8>), Fault> {
    let algorithm = match kind {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        other => {
            let what = "key type of a podCertificate (ECDSAP256, ECDSAP384 and ED25519 can be made here)";
            return Err(Fault::Unsupported { what, text: other.to_owned() });
        }
    };
    let made = || {
        let key = rcgen::KeyPair::generate_for(algorithm)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok::<_, rcgen::Error>((key.serialize_pem(), request))
    };
    made().map_err(|error| Fault::Certificate(format!("cannot make a key: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_made_by_type() {
        for kind in ["ECDSAP256", "ECDSAP384", "ED25519"] {
            let (key, request) = make_key(kind).unwrap();
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----") && request.len() > 50, "{kind}");
        }
        let why = make_key("RSA4096").unwrap_err().to_string();
        assert!(why.ends_with("can be made here): RSA4096"), "{why}");
    }

    #[test]
    fn requests_end_in_one_of_three_ways() {
        let of = |status: serde_json::Value| {
            let spec = json!({"signerName": "x/y", "podName": "p", "podUID": "1", "serviceAccountName": "a",
                "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "stubPKCS10Request": ""});
            let request = json!({"metadata": {}, "spec": spec, "status": status});
            match outcome(&serde_json::from_value(request).unwrap()) {
                Outcome::Pending => "pending".to_owned(),
                Outcome::Issued(chain, _) => chain,
                Outcome::Refused(why) => why,
            }
        };
        let condition = |kind: &str| json!([{"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        assert_eq!(of(json!({})), "pending");
        assert_eq!(of(json!({"conditions": condition("Issued"), "certificateChain": "pem"})), "pem");
        let denied = "PodCertificateRequest was permanently denied: reason=\"R\" message=\"m\"";
        assert_eq!(of(json!({"conditions": condition("Denied")})), denied);
    }
}
