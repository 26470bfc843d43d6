//! Objects that nothing runs for: they come, change and go.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::trial::{Trial, count};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    config_maps: "ConfigMap lifecycle";
    secrets: "Secret patching";
    namespaces: "Namespace patching";
    service_accounts: "ServiceAccount lifecycle test";
    pod_templates: "PodTemplate lifecycle", "PodTemplate, delete a collection";
    leases: "lease API should be available";
    events: "Event resource lifecycle", "Event, delete a collection";
    newer_events: "New Event resource lifecycle, testing a single event", "New Event resource lifecycle, testing a list of events";
    ingresses: "Ingress API";
    ingress_classes: "IngressClass API";
    requests_for_certificates: "CertificateSigningRequest API";
    what_the_server_is: "Confirm a server version", "Discovery, confirm the PreferredVersion for each api group";
    no_table_of_everything: "API metadata HTTP return";
];

/// Made, found by its label, patched, replaced, told of by a watch, and deleted with all that have the label.
fn life(t: &Trial, path: &str, resource: &str, object: &Value, patch: &Value, patched: &str) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    let watch = t.start(&["get", resource, "-w", "--output-watch-events", "-o", "jsonpath={.type} {.object.metadata.name}{\"\\n\"}"]);
    let mut object = object.clone();
    object["metadata"]["labels"] = json!({"of": t.ns});
    t.create(std::slice::from_ref(&object));
    let selector = format!("of={}", t.ns);
    assert_eq!(t.names(resource, &selector), [name]);
    t.kubectl(&["patch", resource, name, "--type=merge", "-p", &patch.to_string()]);
    let found = t.get(&[resource, name]);
    let wanted = patch.pointer(patched).expect("what was patched");
    assert_eq!(found.pointer(patched), Some(wanted));
    let mut replaced = found;
    replaced["metadata"]["annotations"] = json!({"replaced": "yes"});
    let said = t.submit("replace", &[replaced]);
    assert!(said.ok, "{said:?}");
    assert_eq!(t.get(&[resource, name])["metadata"]["annotations"]["replaced"], "yes");
    watch.until(|told| {
        told.contains(&format!("ADDED {name}")) && told.contains(&format!("MODIFIED {name}"))
    });
    t.kubectl(&["delete", "--raw", &format!("{path}/{resource}?labelSelector=of%3D{}", t.ns)]);
    watch.until(|told| told.contains(&format!("DELETED {name}")));
    assert!(t.names(resource, &selector).is_empty());
}

fn core(t: &Trial) -> String {
    format!("/api/v1/namespaces/{}", t.ns)
}

fn config_maps(t: &Trial) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o"}, "data": {"valueName": "value"}});
    life(t, &core(t), "configmaps", &object, &json!({"data": {"valueName": "value1"}}), "/data/valueName");
}

fn secrets(t: &Trial) {
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "o"}, "data": {"key": "dmFsdWU="}});
    life(t, &core(t), "secrets", &object, &json!({"data": {"key": "dmFsdWUx"}}), "/data/key");
}

fn namespaces(t: &Trial) {
    t.kubectl(&["patch", "namespace", &t.ns, "-p", r#"{"metadata":{"labels":{"testLabel":"testValue"}}}"#]);
    assert_eq!(t.get(&["namespace", &t.ns])["metadata"]["labels"]["testLabel"], "testValue");
}

fn service_accounts(t: &Trial) {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "o"}});
    let patch = json!({"automountServiceAccountToken": false});
    life(t, &core(t), "serviceaccounts", &object, &patch, "/automountServiceAccountToken");
}

fn pod_templates(t: &Trial) {
    let object = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "o"},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}});
    life(t, &core(t), "podtemplates", &object, &json!({"template": {"metadata": {"labels": {"a": "c"}}}}), "/template/metadata/labels/a");
}

fn leases(t: &Trial) {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}", t.ns);
    let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "o"},
        "spec": {"holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0,
                 "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:05.000000Z"}});
    life(t, &path, "leases", &object, &json!({"spec": {"holderIdentity": "holder2"}}), "/spec/holderIdentity");
}

fn events(t: &Trial) {
    let object = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "o"}, "message": "This is a test event",
        "reason": "Test", "type": "Normal", "count": 1, "source": {"component": "mine"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": t.ns}});
    life(t, &core(t), "events", &object, &json!({"message": "This is a test event - patched"}), "/message");
}

fn newer_events(t: &Trial) {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}", t.ns);
    let object = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "o"}, "note": "a note",
        "reason": "Test", "action": "Do", "type": "Normal", "reportingController": "test/mine", "reportingInstance": "mine-1",
        "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "p", "namespace": t.ns}});
    let patch = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:07.000000Z"}});
    let resource = "events.v1.events.k8s.io";
    t.create(std::slice::from_ref(&object));
    t.kubectl(&["patch", resource, "o", "--type=merge", "-p", &patch.to_string()]);
    let found = t.get(&[resource, "o"]);
    assert_eq!(found["series"], patch["series"]);
    assert_eq!(found["note"], "a note");
    // The same, seen as the older kind.
    assert_eq!(t.get(&["events.v1.", "o"])["message"], "a note");
    t.kubectl(&["delete", "--raw", &format!("{path}/events")]);
    assert_eq!(count(&t.get(&[resource])), 0);
}

fn ingresses(t: &Trial) {
    let path = format!("/apis/networking.k8s.io/v1/namespaces/{}", t.ns);
    let backend = json!({"service": {"name": "default-backend", "port": {"number": 8080}}});
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "o"},
        "spec": {"defaultBackend": backend, "rules": [{"host": "foo.bar.com", "http": {"paths": [
            {"path": "/", "pathType": "ImplementationSpecific", "backend": backend}]}}]}});
    let patch = json!({"spec": {"ingressClassName": "other"}});
    life(t, &path, "ingresses", &object, &patch, "/spec/ingressClassName");
    t.create(&[object]);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}});
    t.kubectl(&["patch", "ingress", "o", "--subresource=status", "--type=merge", "-p", &status.to_string()]);
    assert_eq!(t.get(&["ingress", "o"])["status"], status["status"]);
}

fn ingress_classes(t: &Trial) {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "of-the-check"},
        "spec": {"controller": "example.com/controller"}});
    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}});
    life(t, "/apis/networking.k8s.io/v1", "ingressclasses", &object, &patch, "/metadata/annotations");
}

fn requests_for_certificates(t: &Trial) {
    let request = request();
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "of-the-check"},
        "spec": {"request": request, "signerName": "example.com/e2e", "usages": ["digital signature", "client auth"]}});
    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}});
    life(t, "/apis/certificates.k8s.io/v1", "certificatesigningrequests", &object, &patch, "/metadata/annotations");
    t.create(&[object]);
    t.kubectl(&["certificate", "approve", "of-the-check"]);
    let approved = t.get(&["certificatesigningrequests", "of-the-check"]);
    assert!(crate::trial::is(&approved, "Approved"), "{approved}");
    let status = json!({"status": {"certificate": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="}});
    let refused = t.attempt(&["patch", "certificatesigningrequests", "of-the-check", "--subresource=status", "--type=merge",
        "-p", &status.to_string()]);
    assert!(!refused.ok, "what is no certificate is refused: {refused:?}");
    t.kubectl(&["delete", "certificatesigningrequests", "of-the-check"]);
}

/// A request for a certificate, as the API takes it.
fn request() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "e2e-example");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("text");
    base64::engine::general_purpose::STANDARD.encode(pem)
}

fn what_the_server_is(t: &Trial) {
    let raw = |path: &str| -> Value { serde_json::from_str(&t.kubectl(&["get", "--raw", path])).expect("JSON") };
    let version = raw("/version");
    assert_eq!((&version["major"], &version["minor"]), (&"1".into(), &"36".into()));
    for group in raw("/apis")["groups"].as_array().expect("groups") {
        let name = group["name"].as_str().expect("a name");
        let one = raw(&format!("/apis/{name}"));
        assert_eq!(one["preferredVersion"], group["preferredVersion"], "{name}");
        let versions = group["versions"].as_array().expect("versions");
        assert!(versions.contains(&group["preferredVersion"]), "{group}");
    }
}

fn no_table_of_everything(t: &Trial) {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let told = t.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        &review.to_string(),
    );
    assert!(told.starts_with("HTTP/1.1 406"), "{told}");
}
