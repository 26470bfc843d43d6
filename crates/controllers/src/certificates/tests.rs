use base::ManualClock;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::{Authority, Cluster, certificate_request};

use super::request::{CLIENT, NODE_CLIENT, NODE_SERVING};
use super::*;
use crate::testing::config;

struct Ours(Authority);

impl Signer for Ours {
    fn sign(&self, order: &CertificateOrder<'_>) -> Result<String, Box<dyn StdError + Send + Sync>> {
        Ok(self.0.sign(order.request, order.usages, order.not_before, order.not_after)?)
    }
}

const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

async fn stage() -> (Cluster, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new("2026-12-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_at(clock.clone()).await;
    let signing = Signing::new(Arc::new(Ours(Authority::new().unwrap())));
    let mut config = config(&cluster);
    config.signing = Some(signing);
    crate::run(&config);
    (cluster, clock)
}

fn asked(name: &str, signer: &str, usages: &[&str], pem: &str) -> CertificateSigningRequest {
    let mut request: CertificateSigningRequest = testkit::object(json!({"metadata": {"name": name},
        "spec": {"request": "", "signerName": signer, "usages": usages, "expirationSeconds": 3600}}));
    request.spec.request.0 = pem.as_bytes().to_vec();
    request
}

/// A client that speaks for somebody in groups.
fn user(cluster: &Cluster, name: &str, groups: Value) -> Api<CertificateSigningRequest> {
    let groups: Vec<String> = serde_json::from_value(groups).unwrap();
    Api::all(cluster.client_of(name, groups))
}

async fn until(
    cluster: &Cluster,
    name: &str,
    what: &str,
    wish: impl Fn(&CertificateSigningRequest) -> bool,
) -> CertificateSigningRequest {
    let api = cluster.all::<CertificateSigningRequest>();
    cluster.wait_for(what, || async { api.get_opt(name).await.unwrap().filter(|r| wish(r)) }).await
}

#[tokio::test]
async fn what_people_approve_becomes_a_certificate_that_lets_in() {
    let (cluster, clock) = stage().await;
    let pem = certificate_request("eve", "dev", &[]);
    let api = cluster.all::<CertificateSigningRequest>();
    api.create(&PostParams::default(), &asked("eve", CLIENT, &USAGES, &pem)).await.unwrap();
    let binding: ClusterRoleBinding = testkit::object(json!({"metadata": {"name": "eve"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]}));
    cluster.create_global(&binding).await;
    let said = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "KubectlApprove",
        "lastUpdateTime": "2026-12-01T00:00:00Z"}]}});
    api.patch_approval("eve", &PatchParams::default(), &Patch::Merge(said)).await.unwrap();
    let signed = until(&cluster, "eve", "the certificate", is_issued).await;
    let user = Authority::user(certificate(&signed).unwrap()).unwrap();
    assert!(user.name == "eve" && user.in_group("dev"), "{user:?}");
    let namespaces: Api<Namespace> = Api::all(cluster.client_as(user));
    assert!(!namespaces.list(&Default::default()).await.unwrap().items.is_empty());

    // An hour later nobody needs the request any more.
    clock.advance(Duration::from_secs(3601));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3601)).await;
    tokio::time::resume();
    cluster
        .wait_for("the request to go", || async { api.get_opt("eve").await.unwrap().is_none().then_some(()) })
        .await;
}

#[tokio::test]
async fn nodes_get_theirs_by_themselves_if_they_may() {
    let (cluster, _) = stage().await;
    let bootstrap = "system:bootstrappers:kubeadm:default-node-token";
    for (name, role, group) in [
        ("ask", "system:node-bootstrapper", bootstrap),
        ("ask-too", "system:node-bootstrapper", "dev"),
        ("first", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", bootstrap),
        ("again", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes"),
    ] {
        let binding: ClusterRoleBinding = testkit::object(json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]}));
        cluster.create_global(&binding).await;
    }
    let pem = certificate_request("system:node:n1", "system:nodes", &[]);
    // With a bootstrap token, as kubelets begin.
    let first = user(&cluster, "system:bootstrap:abcdef", json!(["system:bootstrappers", bootstrap]));
    first.create(&PostParams::default(), &asked("first", NODE_CLIENT, &USAGES, &pem)).await.unwrap();
    let signed = until(&cluster, "first", "the first certificate", is_issued).await;
    let approved = condition(&signed, "Approved").unwrap();
    assert_eq!(approved.reason.as_deref(), Some("AutoApproved"));
    let said = "Auto approving kubelet client certificate after SubjectAccessReview.";
    assert_eq!(approved.message.as_deref(), Some(said));
    let node = Authority::user(certificate(&signed).unwrap()).unwrap();
    assert_eq!(node.name, "system:node:n1");

    // With that certificate, as they go on.
    let again: Api<CertificateSigningRequest> = Api::all(cluster.client_as(node));
    again.create(&PostParams::default(), &asked("again", NODE_CLIENT, &USAGES, &pem)).await.unwrap();
    let signed = until(&cluster, "again", "the next certificate", is_issued).await;
    let said = "Auto approving self kubelet client certificate after SubjectAccessReview.";
    assert_eq!(condition(&signed, "Approved").unwrap().message.as_deref(), Some(said));

    // Whatever people say of themselves, it is known who they are.
    let mallory = user(&cluster, "mallory", json!(["dev"]));
    let mut forged = asked("forged", NODE_CLIENT, &USAGES, &pem);
    forged.spec.username = Some("system:node:n1".into());
    forged.spec.groups = Some(vec![bootstrap.into(), "system:nodes".into()]);
    let forged = mallory.create(&PostParams::default(), &forged).await.unwrap();
    assert_eq!(forged.spec.username.as_deref(), Some("mallory"));
    assert_eq!(forged.spec.groups, Some(vec!["dev".into(), "system:authenticated".into()]));

    // One for serving is for people to decide on.
    let serving = ["digital signature", "key encipherment", "server auth"];
    let named = certificate_request("system:node:n1", "system:nodes", &["n1", "10.0.0.1"]);
    again.create(&PostParams::default(), &asked("serving", NODE_SERVING, &serving, &named)).await.unwrap();
    let admin = cluster.all::<CertificateSigningRequest>();
    let waiting = admin.get("serving").await.unwrap();
    assert!(conditions(&waiting).is_empty());
    let said = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "KubectlApprove",
        "lastUpdateTime": "2026-12-01T00:00:00Z"}]}});
    admin.patch_approval("serving", &PatchParams::default(), &Patch::Merge(said.clone())).await.unwrap();
    until(&cluster, "serving", "the certificate for serving", is_issued).await;

    assert!(conditions(&admin.get("forged").await.unwrap()).is_empty());
    // Who may write a status does not decide.
    let mut sly = admin.get("forged").await.unwrap();
    sly = with_condition(&sly, "Approved", "Me", "mine".into(), "2026-12-01T00:00:00Z".parse().unwrap());
    let sly = admin.replace_status("forged", &PostParams::default(), &sly).await.unwrap();
    assert!(conditions(&sly).is_empty());

    // What is approved and cannot be has failed.
    let wrong = asked("wrong", CLIENT, &["server auth"], &certificate_request("eve", "dev", &[]));
    admin.create(&PostParams::default(), &wrong).await.unwrap();
    admin.patch_approval("wrong", &PatchParams::default(), &Patch::Merge(said)).await.unwrap();
    let failed = until(&cluster, "wrong", "the failure", |r| condition(r, "Failed").is_some()).await;
    let failed = condition(&failed, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("SignerValidationFailure"));
    assert_eq!(failed.message.as_deref(), Some("invalid usage for client certificate: server auth"));
}
