use std::sync::Arc;

use auth::User;
use base::{Clock, ManualClock};
use k8s_openapi::api::core::v1::{Event, Node, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use testkit::Cluster;

use super::*;

/// A node that asks, and a signer beside it.
struct World {
    cluster: Cluster,
    clock: ManualClock,
    certificates: Certificates,
    pod: Pod,
    wanted: core::PodCertificateProjection,
    authority: rcgen::Issuer<'static, rcgen::KeyPair>,
}

const KIND: &str = "certificates.k8s.io/v1beta1";

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap());
        let cluster = Cluster::start_with(Arc::new(clock.clone()), &format!("{KIND}=true")).await;
        let user = User::authenticated("system:node:n1".to_owned(), ["system:nodes".to_owned()]);
        let client = cluster.client_as(user);
        let recorder =
            Recorder::start(client.clone(), "kubelet", "n1", cluster.clock.clone(), &cluster.drain);
        let mut certificates = Certificates::new(client, "n1".into(), recorder);
        certificates.patience = Duration::from_millis(20);
        let account: ServiceAccount = testkit::object(json!({"metadata": {"name": "default"}}));
        cluster.create("default", &account).await;
        cluster.create_global::<Node>(&testkit::object(json!({"metadata": {"name": "n1"}}))).await;
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
            "automountServiceAccountToken": false, "containers": [{"name": "a", "image": "a"}]}});
        let pod = cluster.create("default", &testkit::object::<Pod>(pod)).await;
        let wanted = json!({"signerName": "example.com/s", "keyType": "ED25519", "credentialBundlePath": "b",
            "userAnnotations": {"example.com/a": "b"}});
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::Issuer::new(params, rcgen::KeyPair::generate().unwrap());
        let wanted = serde_json::from_value(wanted).unwrap();
        Self { cluster, clock, certificates, pod, wanted, authority }
    }

    async fn get(&self) -> Result<(Issued, Duration), String> {
        let now = self.clock.now();
        self.certificates.get(&self.pod, "v", &self.wanted, now).await.map_err(|e| e.to_string())
    }

    fn requests(&self) -> Api<PodCertificateRequest> {
        self.cluster.api("default")
    }

    /// The request that nobody has answered.
    async fn open(&self) -> PodCertificateRequest {
        let all = self.requests().list(&ListParams::default()).await.unwrap().items;
        let mut open = all.into_iter().filter(|r| matches!(outcome(r), Outcome::Pending));
        let found = open.next().unwrap();
        assert!(open.next().is_none(), "one at a time");
        found
    }

    async fn say(&self, request: &PodCertificateRequest, status: serde_json::Value) -> Result<(), String> {
        let (name, patch) = (request.name_any(), Patch::Merge(json!({"status": status})));
        let said = self.requests().patch_status(&name, &PatchParams::default(), &patch).await;
        said.map(drop).map_err(|e| e.to_string())
    }

    fn ended(kind: &str) -> serde_json::Value {
        json!([{"type": kind, "status": "True", "reason": "R", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    }

    /// A status with a certificate that lives for an hour.
    fn issued(&self, request: &PodCertificateRequest, refresh: Duration) -> serde_json::Value {
        let now = self.clock.now().as_second();
        let at = |seconds: i64| Timestamp::from_second(now + seconds).unwrap();
        let when =
            |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now + seconds) as u64);
        let der = request.spec.stub_pkc_s10_request.0.clone().into();
        let mut asked = rcgen::CertificateSigningRequestParams::from_der(&der).unwrap();
        (asked.params.not_before, asked.params.not_after) = (when(0), when(3600));
        let chain = asked.signed_by(&self.authority).unwrap().pem();
        json!({"conditions": Self::ended("Issued"), "certificateChain": format!("a note\n{chain}"),
            "notBefore": at(0), "notAfter": at(3600), "beginRefreshAt": at(refresh.as_secs() as i64)})
    }

    async fn issue(&self) {
        let request = self.open().await;
        self.say(&request, self.issued(&request, Duration::from_secs(1800))).await.unwrap();
    }

    async fn told(&self, reason: &str) {
        let events: Api<Event> = self.cluster.api("default");
        let found = || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().any(|e| e.reason.as_deref() == Some(reason)).then_some(())
        };
        self.cluster.wait_for(&format!("an event {reason}"), found).await;
    }
}

#[tokio::test]
async fn keys_of_every_type_are_made_and_believed() {
    let mut world = World::new().await;
    for kind in ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"] {
        world.wanted.key_type = kind.to_owned();
        let (key, request) = world.certificates.request(&world.pod, &world.wanted).await.unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{kind}");
        world
            .requests()
            .create(&PostParams::default(), &request)
            .await
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
        let mut forged = request;
        *forged.spec.stub_pkc_s10_request.0.last_mut().unwrap() ^= 1;
        let said = world.requests().create(&PostParams::default(), &forged).await.unwrap_err().to_string();
        assert!(said.contains("could not verify the signature of the request"), "{kind}: {said}");
    }
    world.wanted.key_type = "RSA1024".to_owned();
    let why = world.certificates.request(&world.pod, &world.wanted).await.unwrap_err().to_string();
    assert!(why.ends_with("key type of a podCertificate: RSA1024"), "{why}");
}

#[tokio::test]
async fn a_certificate_is_renewed_when_its_signer_says_so() {
    let world = World::new().await;
    assert!(world.get().await.unwrap_err().contains("not issued yet"));
    let request = world.open().await;
    let spec = &request.spec;
    assert_eq!((&*spec.pod_name, &*spec.node_name, &*spec.service_account_name), ("p", "n1", "default"));
    assert_eq!(spec.unverified_user_annotations.as_ref().unwrap()["example.com/a"], "b");
    world.issue().await;
    let (first, wait) = world.get().await.unwrap();
    assert!(first.chain.starts_with("-----BEGIN CERTIFICATE-----"), "{}", first.chain);
    assert_eq!(wait, Duration::from_secs(1800));
    // Until its time has come, nobody is asked.
    world.clock.advance(Duration::from_secs(1700));
    assert_eq!(world.get().await.unwrap().1, Duration::from_secs(100));
    world.clock.advance(Duration::from_secs(200));
    // While the signer thinks about it, the old one goes on, and there is one request only.
    for _ in 0..3 {
        assert_eq!(world.get().await.unwrap().0.chain, first.chain);
        world.open().await;
    }
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.get().await.unwrap().0.chain, first.chain);
    world.told("CertificateOverdueForRefresh").await;
    world.told("CertificateExpired").await;
    world.issue().await;
    let (second, wait) = world.get().await.unwrap();
    assert!(second.chain != first.chain && second.key != first.key);
    assert_eq!(wait, Duration::from_secs(1800));
}

#[tokio::test]
async fn a_request_that_is_gone_is_made_again_and_a_refused_one_is_not() {
    let world = World::new().await;
    world.get().await.unwrap_err();
    let first = world.open().await.name_any();
    world.requests().delete(&first, &Default::default()).await.unwrap();
    assert!(world.get().await.unwrap_err().ends_with("appears to have been deleted"));
    world.get().await.unwrap_err();
    let second = world.open().await;
    assert_ne!(second.name_any(), first);
    world.say(&second, json!({"conditions": World::ended("Denied")})).await.unwrap();
    let why = "PodCertificateRequest was permanently denied: reason=\"R\" message=\"m\"";
    assert!(world.get().await.unwrap_err().ends_with(why));
    world.told("Denied").await;
    assert!(world.get().await.unwrap_err().ends_with(why));
    assert_eq!(world.requests().list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn what_a_signer_may_not_say_is_refused() {
    let world = World::new().await;
    world.get().await.unwrap_err();
    let request = world.open().await;
    let good = world.issued(&request, Duration::from_secs(1800));
    let with = |change: serde_json::Value| {
        let mut status = good.clone();
        types::patch::merge_patch(&mut status, change);
        status
    };
    let now = world.clock.now();
    let at = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap();
    let twice = [World::ended("Issued")[0].clone(), World::ended("Denied")[0].clone()];
    for (status, why) in [
        (with(json!({"certificateChain": ""})), "must contain at least one certificate"),
        (with(json!({"notBefore": at(1)})), "must be set to the NotBefore time encoded"),
        (with(json!({"beginRefreshAt": at(60)})), "must be at least 10 minutes after status.notBefore"),
        (with(json!({"beginRefreshAt": at(3590)})), "must be at least 10 minutes before status.notAfter"),
        (with(json!({"beginRefreshAt": null})), "status.beginRefreshAt: Required value"),
        (with(json!({"conditions": World::ended("Denied")})), "must be empty when denying or failing"),
        (with(json!({"conditions": World::ended("Approved")})), "Unsupported value: \"Approved\""),
        (with(json!({"conditions": twice})), "at most one condition with type"),
    ] {
        let said = world.say(&request, status).await.unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    // What was signed a while ago comes too late.
    world.clock.advance(Duration::from_secs(301));
    let said = world.say(&request, good.clone()).await.unwrap_err();
    assert!(said.contains("within 5 minutes of kube-apiserver's current time"), "{said}");
    let good = world.issued(&request, Duration::from_secs(1800));
    world.say(&request, good.clone()).await.unwrap();
    let mut other = good.clone();
    other["beginRefreshAt"] = json!(at(2200));
    let said = world.say(&request, other).await.unwrap_err();
    assert!(said.contains("immutable after PodCertificateRequest is issued, denied, or failed"), "{said}");
    // Somebody else's key.
    let mut other = request.clone();
    let (_, csr) = keys::make("ED25519").unwrap();
    other.spec.stub_pkc_s10_request = ByteString(csr.clone());
    other.metadata = ObjectMeta { name: Some("other".into()), ..ObjectMeta::default() };
    world.requests().create(&PostParams::default(), &other).await.unwrap();
    let said = world.say(&other, good).await.unwrap_err();
    assert!(said.contains("was not issued to the requested public key"), "{said}");
    // One that shows no key.
    let last = csr.len() - 1;
    let mut broken = csr;
    broken[last] ^= 1;
    other.metadata.name = Some("broken".into());
    other.spec.stub_pkc_s10_request = ByteString(broken);
    let said = world.requests().create(&PostParams::default(), &other).await.unwrap_err().to_string();
    assert!(said.contains("could not verify the signature of the request"), "{said}");
}
