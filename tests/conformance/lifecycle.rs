//! Hooks, init containers, and the life of a pod.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, count, is, serves, sh, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    after_the_start_a_command: "Pod Lifecycle, post start exec hook";
    after_the_start_a_request: "Pod Lifecycle, post start http hook";
    before_the_stop_a_command: "Pod Lifecycle, prestop exec hook", "Pods, prestop hook";
    before_the_stop_a_request: "Pod Lifecycle, prestop http hook";
    init_containers_come_first: "init-container-starts-app-restartnever-pod", "init-container-starts-app-restartalways-pod";
    a_failed_init_container_ends_a_pod: "init-container-fails-stops-app-restartnever-pod";
    a_failing_init_container_holds_a_pod_up: "init-container-fails-stops-app-restartalways-pod";
    a_pod_has_its_time: "Pods, ActiveDeadlineSeconds";
    a_pod_comes_and_goes: "Pods, lifecycle", "Pods, assigned hostip";
    a_pods_labels_change: "Pods, update";
    many_pods_go_at_once: "Pods, delete a collection";
    a_pod_and_its_status: "Pods, completes the lifecycle of a Pod and the PodStatus";
    who_did_what: "Pod events, verify event from Scheduler and Kubelet";
    removed_with_their_namespace: "namespace-deletion-removes-pods", "namespace-deletion-removes-services";
    accounts_are_mounted: "Service Account Tokens Must AutoMount", "Service account tokens auto mount optionally";
    tokens_for_an_audience: "TokenRequestProjection should mount a projected volume with token using TokenRequest API.";
];

/// A pod that notes who asks it for `/WHAT`.
fn listener(t: &Trial) -> String {
    let script = "busybox mkdir /www; echo ok > /www/hook; exec busybox httpd -f -vv -p 8080 -h /www";
    t.ready(&sh(script).named("listener"))
}

fn heard(t: &Trial) {
    t.until_logged("listener", "url:/hook");
}

fn asks(address: &str) -> Value {
    let url = format!("http://{address}:8080/hook");
    json!({"exec": {"command": ["/bin/busybox", "wget", "-q", "-O", "/dev/null", url]}})
}

fn requests(address: &str) -> Value {
    json!({"httpGet": {"host": address, "port": 8080, "path": "/hook"}})
}

fn after_the_start(t: &Trial, hook: fn(&str) -> Value) {
    let address = listener(t);
    t.ready(&sleeps().with(json!({"lifecycle": {"postStart": hook(&address)}})));
    heard(t);
}

fn after_the_start_a_command(t: &Trial) {
    after_the_start(t, asks);
}

fn after_the_start_a_request(t: &Trial) {
    after_the_start(t, requests);
}

fn before_the_stop(t: &Trial, hook: fn(&str) -> Value) {
    let address = listener(t);
    let pod = sleeps().with(json!({"lifecycle": {"preStop": hook(&address)}}));
    t.ready(&pod.spec(json!({"terminationGracePeriodSeconds": 5})));
    assert!(!t.kubectl(&["logs", "listener"]).contains("url:/hook"), "not before it stops");
    t.kubectl(&["delete", "pod", "p", "--wait=false"]);
    heard(t);
    t.until_gone(&["pod", "p"]);
}

fn before_the_stop_a_command(t: &Trial) {
    before_the_stop(t, asks);
}

fn before_the_stop_a_request(t: &Trial) {
    before_the_stop(t, requests);
}

/// A pod with two init containers that write down that they ran.
fn with_init(pod: PodShape, scripts: [&str; 2]) -> PodShape {
    let init: Vec<Value> = scripts
        .iter()
        .enumerate()
        .map(|(n, script)| {
            json!({
                "name": format!("init-{n}"), "image": "busybox:1", "command": ["/bin/busybox", "sh", "-c", script],
                "volumeMounts": [{"name": "v0", "mountPath": "/v"}],
            })
        })
        .collect();
    pod.volume("/v", json!({"emptyDir": {}})).spec(json!({"initContainers": init}))
}

fn init_containers_come_first(t: &Trial) {
    let scripts = ["echo first >> /v/log", "echo second >> /v/log"];
    let once = with_init(sh("busybox cat /v/log"), scripts);
    assert_eq!(t.says(&once), "first\nsecond\n");
    let pod = t.get(&["pod", "p"]);
    for state in pod["status"]["initContainerStatuses"].as_array().expect("states") {
        assert_eq!((&state["state"]["terminated"]["exitCode"], &state["ready"]), (&0.into(), &true.into()));
    }
    assert!(is(&pod, "Initialized"), "{pod}");
    t.ready(&with_init(sleeps().named("always"), scripts).spec(json!({"restartPolicy": "Always"})));
    assert_eq!(t.inside_pod("always", "busybox cat /v/log").out, "first\nsecond\n");
}

fn a_failed_init_container_ends_a_pod(t: &Trial) {
    t.create(&[with_init(sh("echo"), ["exit 1", "exit 0"]).object()]);
    let pod = t.until_phase("p", &["Failed"]);
    assert!(!is(&pod, "Initialized"), "{pod}");
    let waiting = |list: &str, n: usize| pod["status"][list][n]["state"]["waiting"].is_object();
    assert!(waiting("initContainerStatuses", 1) && waiting("containerStatuses", 0), "{pod}");
}

fn a_failing_init_container_holds_a_pod_up(t: &Trial) {
    let pod = with_init(sleeps(), ["exit 1", "exit 0"]).spec(json!({"restartPolicy": "Always"}));
    t.create(&[pod.object()]);
    let pod = t.until(&["pod", "p"], "to have tried three times", |pod| {
        pod["status"]["initContainerStatuses"][0]["restartCount"].as_i64() >= Some(3)
    });
    assert_eq!(pod["status"]["phase"], "Pending");
    assert!(pod["status"]["containerStatuses"][0]["state"]["waiting"].is_object(), "{pod}");
    assert!(pod["status"]["initContainerStatuses"][1]["state"]["waiting"].is_object(), "{pod}");
}

fn a_pod_has_its_time(t: &Trial) {
    t.ready(&sleeps().meta(json!({"labels": {"time": "t"}})));
    assert_eq!(t.names("pods", "time=t"), ["p"]);
    t.kubectl(&["patch", "pod", "p", "-p", "{\"spec\":{\"activeDeadlineSeconds\":1}}"]);
    let pod = t.until_phase("p", &["Failed"]);
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

fn a_pod_comes_and_goes(t: &Trial) {
    let watch = t.start(&["get", "pods", "-l", "time=t", "-w", "--output-watch-events", "-o", "jsonpath={.type}{\"\\n\"}"]);
    let address = t.ready(&sleeps().meta(json!({"labels": {"time": "t"}})));
    let pod = t.get(&["pod", "p"]);
    assert!(address.parse::<std::net::IpAddr>().is_ok());
    assert!(pod["status"]["hostIP"].as_str().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()), "{pod}");
    t.kubectl(&["delete", "pod", "p", "--grace-period=1"]);
    let told = watch.until(|told| told.contains("DELETED"));
    assert!(told.contains("ADDED") && told.contains("MODIFIED"), "{told}");
    assert!(t.names("pods", "time=t").is_empty());
}

fn a_pods_labels_change(t: &Trial) {
    t.ready(&sleeps().meta(json!({"labels": {"time": "before"}})));
    assert_eq!(t.names("pods", "time=before"), ["p"]);
    t.kubectl(&["label", "--overwrite", "pod", "p", "time=after"]);
    assert_eq!(t.names("pods", "time=after"), ["p"]);
    assert!(t.names("pods", "time=before").is_empty());
}

fn many_pods_go_at_once(t: &Trial) {
    let pod = |name: &str| sleeps().named(name).meta(json!({"labels": {"type": "testing"}})).object();
    t.create(&[pod("one"), pod("two"), pod("three")]);
    assert_eq!(t.names("pods", "type=testing").len(), 3);
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector=type%3Dtesting", t.ns);
    t.kubectl(&["delete", "--raw", &path]);
    t.until(&["pods", "-l", "type=testing"], "to be gone", |list| count(list) == 0);
}

fn a_pod_and_its_status(t: &Trial) {
    t.ready(&sleeps().meta(json!({"labels": {"test-pod-static": "true"}})));
    let patch = json!({"metadata": {"labels": {"test-pod": "patched"}}, "spec": {"terminationGracePeriodSeconds": 0}});
    t.kubectl(&["patch", "pod", "p", "-p", &patch.to_string()]);
    let condition = json!({"status": {"conditions": [{"type": "Mine", "status": "True", "message": "by hand"}]}});
    t.kubectl(&["patch", "pod", "p", "--subresource=status", "-p", &condition.to_string()]);
    let pod = t.get(&["pod", "p"]);
    assert_eq!(pod["metadata"]["labels"]["test-pod"], "patched");
    assert!(is(&pod, "Mine") && is(&pod, "Ready"), "{pod}");
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector=test-pod-static%3Dtrue", t.ns);
    t.kubectl(&["delete", "--raw", &path]);
    t.until_gone(&["pod", "p"]);
}

fn who_did_what(t: &Trial) {
    t.ready(&sleeps());
    let uid = t.get(&["pod", "p"])["metadata"]["uid"].as_str().expect("a uid").to_owned();
    for source in ["default-scheduler", "kubelet"] {
        let selector = format!("involvedObject.kind=Pod,involvedObject.uid={uid},source={source}");
        t.until(&["events", "--field-selector", &selector], "to be there", |list| {
            count(list) > 0 && count(list) != usize::MAX
        });
    }
}

fn removed_with_their_namespace(t: &Trial) {
    t.ready(&serves("p"));
    t.kubectl(&["expose", "pod", "p", "--port=80", "--selector=a=b"]);
    let path = format!("/api/v1/namespaces/{}", t.ns);
    t.kubectl(&["delete", "--raw", &path]);
    t.until_gone(&["namespace", &t.ns]);
    t.namespace(&t.ns);
    assert_eq!(count(&t.get(&["pods"])), 0);
    assert_eq!(count(&t.get(&["services"])), 0);
}

const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn accounts_are_mounted(t: &Trial) {
    let script = format!("cd {FOLDER} 2>/dev/null || exit 0; busybox ls; busybox cat namespace; busybox head -n 1 ca.crt");
    let said = t.says(&sh(&script).named("default"));
    assert_eq!(said, format!("ca.crt\nnamespace\ntoken\n{}-----BEGIN CERTIFICATE-----\n", t.ns));
    // Who is asked first, the pod or its account.
    let account = |name: &str, mount: bool| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name},
               "automountServiceAccountToken": mount})
    };
    t.create(&[account("mounts", true), account("does-not", false)]);
    for (name, account, own, mounted) in [
        ("a", "mounts", Value::Null, true),
        ("b", "does-not", Value::Null, false),
        ("c", "does-not", true.into(), true),
        ("d", "mounts", false.into(), false),
    ] {
        let mut fields = json!({"serviceAccountName": account});
        if !own.is_null() {
            fields["automountServiceAccountToken"] = own;
        }
        t.kubectl(&["wait", "--for=create", &format!("serviceaccount/{account}"), "--timeout=10s"]);
        let said = t.says(&sh(&script).named(name).spec(fields));
        assert_eq!(!said.is_empty(), mounted, "{name}: {said}");
    }
}

fn tokens_for_an_audience(t: &Trial) {
    let sources = json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, "audience": "vault"}}]);
    let said = t.says(&sh("busybox cat /v/token").volume("/v", json!({"projected": {"sources": sources}})));
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": said, "audiences": ["vault"]},
    });
    let told = t.ask(&review);
    assert_eq!(told["status"]["user"]["username"], format!("system:serviceaccount:{}:default", t.ns), "{told}");
}
