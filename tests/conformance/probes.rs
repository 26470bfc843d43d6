//! Probes.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, is, serves, sh};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    restarted_again_and_again: "Pod liveness probe, using http endpoint, multiple restarts (slow)";
    alive_by_request: "Pod liveness probe, using http endpoint, failure";
    alive_by_file: "Pod liveness probe, using local file, no restart";
    alive_by_connection: "Pod liveness probe, using tcp socket, no restart";
    restarted_by_request: "Pod liveness probe, using http endpoint, restart";
    restarted_by_file: "Pod liveness probe, using local file, restart";
    ready_after_a_while: "Pod readiness probe, with initial delay";
    never_ready: "Pod readiness probe, failure";
];

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0)
}

fn by_request() -> Value {
    json!({"httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 1})
}

fn by_file() -> Value {
    json!({"exec": {"command": ["/bin/busybox", "cat", "/health"]}, "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 1})
}

/// Serves, and after so many seconds what it is asked for is gone.
fn falls_ill(seconds: u32) -> PodShape {
    let script = format!(
        "busybox mkdir -p /www; echo ok > /www/healthz; echo ok > /health; \
         (busybox sleep {seconds}; busybox rm /www/healthz /health) & exec busybox httpd -f -p 8080 -h /www"
    );
    sh(&script).spec(json!({"restartPolicy": "Always"}))
}

/// It has been asked five times by somebody, and was not restarted.
fn stays(t: &Trial, pod: PodShape, probe: Value) {
    let name = pod.name();
    t.ready(&pod.with(json!({"livenessProbe": probe})));
    // The pod's own clock says when five periods are over.
    t.inside_pod(&name, "busybox sleep 6");
    let pod = t.get(&["pod", &name]);
    assert_eq!(restarts(&pod), 0, "{pod}");
    assert!(is(&pod, "Ready"), "{pod}");
}

fn alive_by_request(t: &Trial) {
    stays(t, serves("p"), by_request());
}

fn alive_by_file(t: &Trial) {
    stays(t, sh("echo ok > /health; exec busybox sleep 1000000"), by_file());
}

fn alive_by_connection(t: &Trial) {
    // The port stays open, whatever it answers.
    stays(t, falls_ill(2), json!({
        "tcpSocket": {"port": 8080}, "initialDelaySeconds": 2, "periodSeconds": 1, "failureThreshold": 1,
    }));
}

fn restarted(t: &Trial, probe: Value) {
    t.ready(&falls_ill(2).with(json!({"livenessProbe": probe})));
    t.until(&["pod", "p"], "to be restarted", |pod| restarts(pod) == 1);
    t.until(&["events", "--field-selector=reason=Unhealthy"], "to say why", |list| {
        list["items"].as_array().is_some_and(|all| !all.is_empty())
    });
}

fn restarted_by_request(t: &Trial) {
    restarted(t, by_request());
}

fn restarted_by_file(t: &Trial) {
    restarted(t, by_file());
}

fn restarted_again_and_again(t: &Trial) {
    t.create(&[falls_ill(1).with(json!({"livenessProbe": by_request()})).object()]);
    for wanted in 1..=5 {
        // Pauses between restarts double, from ten seconds on.
        t.until_late(&["pod", "p"], "to be restarted once more", |pod| restarts(pod) >= wanted);
        assert_eq!(restarts(&t.get(&["pod", "p"])), wanted, "one after the other");
    }
}

fn ready_after_a_while(t: &Trial) {
    let probe = json!({"httpGet": {"path": "/", "port": 8080}, "initialDelaySeconds": 5, "periodSeconds": 1});
    t.ready(&serves("p").with(json!({"readinessProbe": probe})));
    let pod = t.get(&["pod", "p"]);
    assert_eq!(restarts(&pod), 0);
    let second = |value: &Value| {
        let text = value.as_str().expect("a time").to_owned();
        let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
        part(11..13) * 3600 + part(14..16) * 60 + part(17..19)
    };
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("a condition");
    let began = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    let waited = (second(&ready["lastTransitionTime"]) - second(began)).rem_euclid(86_400);
    assert!(waited >= 5, "ready after {waited} s");
}

fn never_ready(t: &Trial) {
    let probe = json!({"exec": {"command": ["/bin/busybox", "false"]}, "periodSeconds": 1});
    t.create(&[serves("p").with(json!({"readinessProbe": probe})).object()]);
    t.until_phase("p", &["Running"]);
    t.inside_pod("p", "busybox sleep 4");
    let pod = t.get(&["pod", "p"]);
    assert!(!is(&pod, "Ready") && restarts(&pod) == 0, "{pod}");
}
