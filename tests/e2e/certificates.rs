//! Certificates and trust bundles that pods get as files, with a signer that the test plays.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("certificates::pods_get_certificates_of_a_signer", pods_get_certificates_of_a_signer),
    ("certificates::who_may_sign_and_who_may_not", who_may_sign_and_who_may_not),
    ("certificates::trust_bundles_follow_what_is_trusted", trust_bundles_follow_what_is_trusted),
    ("certificates::without_the_api_it_is_said", without_the_api_it_is_said),
];

/// As upstream, these are served only when somebody asks for it.
const SWITCH: &str = "--runtime-config=certificates.k8s.io/v1beta1=true";
const SIGNER: &str = "example.com/e2e";

/// The server with the switch; without it again when the test is over.
struct Served<'a>(&'a Cluster);

impl<'a> Served<'a> {
    fn by(cluster: &'a Cluster) -> Self {
        cluster.kill_and_restart_with(&[SWITCH]);
        Self(cluster)
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.kill_and_restart();
        }
    }
}

/// A pod that sleeps, with these parts of a projected volume on `/v`.
fn pod(name: &str, sources: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "busybox:1", "command": ["/bin/busybox", "sleep", "100000"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "projected": {"sources": sources}}]}})
    .to_string()
}

fn certificate(more: &Value) -> Value {
    let mut source =
        json!({"signerName": SIGNER, "keyType": "ECDSAP256", "credentialBundlePath": "bundle.pem"});
    source.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!([{"podCertificate": source}])
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["create"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

/// A file of a pod's volume.
fn read(cluster: &Cluster, ns: &str, pod: &str, file: &str) -> String {
    cluster.try_kubectl(ns, &["exec", pod, "--", "/bin/busybox", "cat", &format!("/v/{file}")]).out
}

fn told(cluster: &Cluster, ns: &str, pod: &str, text: &str) {
    cluster.wait_for(&format!("the event {text:?}"), || {
        let of = format!("--field-selector=involvedObject.name={pod}");
        cluster.kubectl(ns, &["get", "events", &of, "-o", "jsonpath={.items[*].message}"]).contains(text)
    });
}

/// The requests of a pod that nobody has answered.
fn open(cluster: &Cluster, ns: &str, pod: &str) -> Vec<Value> {
    let of = format!("--field-selector=spec.podName={pod}");
    let found = cluster.get(ns, &["podcertificaterequests", &of]);
    let all = found["items"].as_array().expect("a list").clone();
    all.into_iter().filter(|r| r["status"]["conditions"].is_null()).collect()
}

fn request(cluster: &Cluster, ns: &str, pod: &str) -> Value {
    let mut found = Vec::new();
    cluster.wait_for("a request", || {
        found = open(cluster, ns, pod);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let own = params.self_signed(&key).expect("a certificate").pem();
    (Issuer::new(params, key), own)
}

fn ended(kind: &str, reason: &str) -> Value {
    json!([{"type": kind, "status": "True", "reason": reason, "message": "says the test"}])
}

fn when(seconds: u64) -> String {
    // The calendar of the machine's `date` is as good as any.
    let said = std::process::Command::new("date")
        .args(["-u", &format!("-d@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    String::from_utf8(said.expect("date").stdout).expect("text").trim().to_owned()
}

/// What a signer answers: a certificate for the key of the request that lives for an hour.
fn issued(authority: &Issuer<'_, KeyPair>, request: &Value) -> Value {
    let text = request["spec"]["stubPKCS10Request"].as_str().expect("a request");
    let der = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    let mut asked = CertificateSigningRequestParams::from_der(&der.into()).expect("a request");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let at = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    (asked.params.not_before, asked.params.not_after) = (at(now), at(now + 3600));
    let chain = asked.signed_by(authority).expect("a certificate").pem();
    json!({"conditions": ended("Issued", "Issued"), "certificateChain": chain, "notBefore": when(now),
        "notAfter": when(now + 3600), "beginRefreshAt": when(now + 1800)})
}

fn answer(
    cluster: &Cluster,
    ns: &str,
    request: &Value,
    status: &Value,
    more: &[&str],
) -> crate::cluster::Said {
    let name = request["metadata"]["name"].as_str().expect("a name");
    let patch = json!({"status": status}).to_string();
    let args = ["patch", "podcertificaterequest", name, "--subresource=status", "--type=merge", "-p", &patch];
    cluster.try_kubectl(ns, &[&args, more].concat())
}

fn pods_get_certificates_of_a_signer(cluster: &Cluster) {
    let served = Served::by(cluster);
    let ns = "certificates";
    cluster.namespace(ns);
    let (signer, _) = authority("e2e");
    let files = json!({"keyPath": "key.pem", "certificateChainPath": "chain.pem", "maxExpirationSeconds": 7200,
        "userAnnotations": {"example.com/role": "web"}});
    make(cluster, ns, &pod("p", &certificate(&files)));
    // Until the signer has answered, the pod waits, and says for what.
    told(cluster, ns, "p", "credential bundle is not issued yet");
    let asked = request(cluster, ns, "p");
    let (spec, pod_now) = (&asked["spec"], cluster.get(ns, &["pod", "p"]));
    assert_eq!((&spec["signerName"], &spec["podUID"]), (&SIGNER.into(), &pod_now["metadata"]["uid"]));
    assert_eq!((&spec["nodeName"], &spec["serviceAccountName"]), (&"node-1".into(), &"default".into()));
    assert_eq!(spec["maxExpirationSeconds"], 7200);
    assert_eq!(spec["unverifiedUserAnnotations"]["example.com/role"], "web");
    assert_eq!(asked["metadata"]["ownerReferences"][0]["uid"], pod_now["metadata"]["uid"]);
    let said = answer(cluster, ns, &asked, &issued(&signer, &asked), &[]);
    assert!(said.ok, "{said:?}");
    cluster.kubectl(ns, &["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    let (key, chain) = (read(cluster, ns, "p", "key.pem"), read(cluster, ns, "p", "chain.pem"));
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{key}");
    let answered =
        cluster.get(ns, &["podcertificaterequest", asked["metadata"]["name"].as_str().expect("a name")]);
    assert_eq!(answered["status"]["certificateChain"].as_str().map(str::trim), Some(chain.trim()));
    assert_eq!(read(cluster, ns, "p", "bundle.pem"), format!("{key}{chain}"));
    // The key is the certificate's.
    let mine = KeyPair::from_pem(&key).expect("a key").public_key_pem();
    let public = "openssl x509 -pubkey -noout";
    let said = cluster.told(std::process::Command::new("sh").args(["-c", public]), &chain);
    if said.ok {
        assert_eq!(said.out.replace(['\n', '\r'], ""), mine.replace(['\n', '\r'], ""));
    }
    assert!(open(cluster, ns, "p").is_empty());
    // What is answered stays so.
    let said = answer(cluster, ns, &asked, &json!({"certificateChain": "other"}), &[]);
    assert!(
        said.err.contains("immutable after PodCertificateRequest is issued, denied, or failed"),
        "{said:?}"
    );
    drop(served);
}

fn who_may_sign_and_who_may_not(cluster: &Cluster) {
    let served = Served::by(cluster);
    let ns = "signers";
    cluster.namespace(ns);
    let (signer, _) = authority("e2e");
    for name in ["denied", "failed"] {
        make(cluster, ns, &pod(name, &certificate(&json!({}))));
        let asked = request(cluster, ns, name);
        let kind = if name == "denied" { "Denied" } else { "Failed" };
        let said =
            answer(cluster, ns, &asked, &json!({"conditions": ended(kind, "UnsupportedKeyType")}), &[]);
        assert!(said.ok, "{said:?}");
        let why = format!(
            "PodCertificateRequest was permanently {name}: reason=\"UnsupportedKeyType\" message=\"says the test\""
        );
        told(cluster, ns, name, &why);
        let of = format!("--field-selector=involvedObject.name={name},reason={kind}");
        assert!(cluster.kubectl(ns, &["get", "events", &of]).contains("says the test"));
        assert!(open(cluster, ns, name).is_empty(), "it is not asked again");
    }

    // Somebody may write the status, but not sign.
    make(cluster, ns, &pod("p", &certificate(&json!({}))));
    let asked = request(cluster, ns, "p");
    cluster.kubectl(ns, &["create", "serviceaccount", "signer"]);
    cluster.kubectl(
        ns,
        &[
            "create",
            "role",
            "writer",
            "--verb=get,update,patch",
            "--resource=podcertificaterequests,podcertificaterequests/status",
        ],
    );
    let account = format!("--serviceaccount={ns}:signer");
    cluster.kubectl(ns, &["create", "rolebinding", "writer", "--role=writer", &account]);
    let user = format!("--as=system:serviceaccount:{ns}:signer");
    let status = issued(&signer, &asked);
    let said = answer(cluster, ns, &asked, &status, &[&user]);
    let why = format!(
        "User \"system:serviceaccount:{ns}:signer\" is not permitted to \"sign\" for signer \"{SIGNER}\""
    );
    assert!(!said.ok && said.err.contains(&why), "{said:?}");
    // Signers are no resource that is served, so kubectl makes no role for them by itself.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "e2e-signer"},
        "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [SIGNER], "verbs": ["sign"]}]});
    make(cluster, ns, &role.to_string());
    cluster
        .kubectl(ns, &["create", "clusterrolebinding", "e2e-signer", "--clusterrole=e2e-signer", &account]);
    let mut early = status.clone();
    early["beginRefreshAt"] = early["notBefore"].clone();
    let said = answer(cluster, ns, &asked, &early, &[&user]);
    assert!(said.err.contains("must be at least 10 minutes after status.notBefore"), "{said:?}");
    let said = answer(cluster, ns, &asked, &status, &[&user]);
    assert!(said.ok, "{said:?}");
    cluster.kubectl(ns, &["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);

    // A request that somebody takes away is made again.
    make(cluster, ns, &pod("again", &certificate(&json!({}))));
    let first = request(cluster, ns, "again")["metadata"]["name"].clone();
    cluster.kubectl(ns, &["delete", "podcertificaterequest", first.as_str().expect("a name")]);
    let second = request(cluster, ns, "again");
    assert_ne!(second["metadata"]["name"], first);
    assert!(answer(cluster, ns, &second, &issued(&signer, &second), &[]).ok);
    cluster.kubectl(ns, &["wait", "--for=condition=Ready", "pod/again", "--timeout=60s"]);
    cluster.kubectl(ns, &["delete", "clusterrolebinding,clusterrole", "e2e-signer"]);
    drop(served);
}

fn bundle(name: &str, signer: Option<&str>, labels: &Value, text: &str) -> String {
    let mut spec = json!({"trustBundle": text});
    if let Some(signer) = signer {
        spec["signerName"] = signer.into();
    }
    json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name, "labels": labels}, "spec": spec})
    .to_string()
}

fn trust_bundles_follow_what_is_trusted(cluster: &Cluster) {
    let served = Served::by(cluster);
    let ns = "trust";
    cluster.namespace(ns);
    let [one, two, three] =
        ["one", "two", "three"].map(|name| authority(name).1.trim().replace("\r\n", "\n"));
    let signed = |name: &str| format!("example.com:e2e:{name}");
    make(cluster, ns, &bundle("e2e-plain", None, &json!({}), &format!("# a note\n{one}")));
    make(cluster, ns, &bundle(&signed("live"), Some(SIGNER), &json!({"live": "yes"}), &two));
    make(cluster, ns, &bundle(&signed("dead"), Some(SIGNER), &json!({"live": "no"}), &three));
    let sources = json!([
        {"clusterTrustBundle": {"name": "e2e-plain", "path": "plain.pem"}},
        {"clusterTrustBundle": {"signerName": SIGNER, "labelSelector": {"matchLabels": {"live": "yes"}}, "path": "live.pem"}},
        {"clusterTrustBundle": {"signerName": SIGNER, "labelSelector": {}, "path": "all.pem"}},
        {"clusterTrustBundle": {"name": "e2e-none", "path": "none.pem", "optional": true}},
        {"clusterTrustBundle": {"signerName": "example.com/nobody", "labelSelector": {}, "path": "nobody.pem", "optional": true}},
    ]);
    make(cluster, ns, &pod("p", &sources));
    cluster.kubectl(ns, &["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    let file = |name: &str| read(cluster, ns, "p", name).trim().to_owned();
    assert_eq!((file("plain.pem"), file("live.pem")), (one.clone(), two.clone()));
    let all = file("all.pem");
    assert!(all.contains(&two) && all.contains(&three), "{all}");
    assert_eq!((file("none.pem"), file("nobody.pem")), (String::new(), String::new()));

    // What changes is seen without a restart.
    let patch = json!({"spec": {"trustBundle": three}}).to_string();
    cluster.kubectl(ns, &["patch", "clustertrustbundle", "e2e-plain", "--type=merge", "-p", &patch]);
    cluster.wait_for("the other certificate", || file("plain.pem") == three);
    cluster.kubectl(ns, &["label", "clustertrustbundle", &signed("dead"), "live=yes", "--overwrite"]);
    cluster.wait_for("both certificates", || {
        file("live.pem").contains(&two) && file("live.pem").contains(&three)
    });
    make(cluster, ns, &bundle("e2e-none", None, &json!({}), &two));
    cluster.wait_for("the one that was not there", || file("none.pem") == two);

    // One that is not there is said, and waited for.
    make(
        cluster,
        ns,
        &pod("waits", &json!([{"clusterTrustBundle": {"name": "e2e-late", "path": "late.pem"}}])),
    );
    told(cluster, ns, "waits", "clustertrustbundle.certificates.k8s.io \"e2e-late\" not found");
    make(cluster, ns, &bundle("e2e-late", None, &json!({}), &one));
    cluster.kubectl(ns, &["wait", "--for=condition=Ready", "pod/waits", "--timeout=60s"]);
    let names = ["e2e-plain", "e2e-none", "e2e-late", &signed("live"), &signed("dead")];
    cluster.kubectl(ns, &[&["delete", "clustertrustbundle"], &names[..]].concat());
    drop(served);
}

/// By default nobody can ask for such things.
fn without_the_api_it_is_said(cluster: &Cluster) {
    let ns = "no-signers";
    cluster.namespace(ns);
    make(cluster, ns, &pod("p", &certificate(&json!({}))));
    told(cluster, ns, "p", "certificates.k8s.io/v1beta1 is not served");
    make(cluster, ns, &pod("t", &json!([{"clusterTrustBundle": {"name": "x", "path": "x.pem"}}])));
    told(cluster, ns, "t", "certificates.k8s.io/v1beta1 is not served");
}
