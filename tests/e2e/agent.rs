//! What the node agent does with pods: probes, hooks, volumes, ports, last words.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("agent::a_failing_liveness_probe_restarts", a_failing_liveness_probe_restarts),
    ("agent::readiness_gates_endpoints", readiness_gates_endpoints),
    ("agent::hooks_run_at_both_ends", hooks_run_at_both_ends),
];

/// A pod of one busybox shell script; `more` are fields of the container, `spec` of the pod.
fn pod(name: &str, script: &str, more: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{
            terminationGracePeriodSeconds: 5, {spec} containers: [{{name: main, image: 'busybox:1', {more}
            command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
        serde_json::to_string(script).expect("text")
    )
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

fn main_status(cluster: &Cluster, ns: &str, name: &str) -> Value {
    cluster.get(ns, &["pod", name])["status"]["containerStatuses"][0].clone()
}

/// Waits until `kubectl describe pod` shows all of these.
fn describes(cluster: &Cluster, ns: &str, name: &str, parts: &[&str]) {
    cluster.wait_for(&format!("{name} to show {parts:?}"), || {
        let text = cluster.kubectl(ns, &["describe", "pod", name]);
        parts.iter().all(|part| text.contains(part))
    });
}

fn a_failing_liveness_probe_restarts(cluster: &Cluster) {
    let ns = "liveness";
    cluster.namespace(ns);
    let probe = "livenessProbe: {periodSeconds: 1, failureThreshold: 2, exec: {command: [/bin/busybox, test, -e, /ok]}},
        startupProbe: {periodSeconds: 1, failureThreshold: 30, exec: {command: [/bin/busybox, test, -e, /up]}},";
    let script = "trap 'exit 0' TERM; busybox touch /ok /up; busybox sleep 3; busybox rm /ok; while :; do busybox sleep 1; done";
    make(cluster, ns, &pod("sick", script, probe, ""));
    cluster.wait_for("a restart", || main_status(cluster, ns, "sick")["restartCount"].as_u64() >= Some(1));
    describes(
        cluster,
        ns,
        "sick",
        &["Unhealthy", "Liveness probe failed:", "Container main failed liveness probe, will be restarted"],
    );
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn readiness_gates_endpoints(cluster: &Cluster) {
    let ns = "readiness";
    cluster.namespace(ns);
    let probe = "readinessProbe: {periodSeconds: 1, failureThreshold: 1, httpGet: {path: /ready, port: web}},
        ports: [{name: web, containerPort: 8080}], volumeMounts: [{name: www, mountPath: /www}],";
    let folder = tempfile::tempdir().expect("temporary folder");
    let volume = format!("volumes: [{{name: www, hostPath: {{path: {}}}}}],", folder.path().display());
    make(cluster, ns, &pod("web", "exec /bin/busybox httpd -f -p 8080 -h /www", probe, &volume));
    cluster.kubectl(ns, &["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    describes(cluster, ns, "web", &["Readiness probe failed: HTTP probe failed with statuscode: 404"]);
    let ready = || {
        let slices = cluster.get(ns, &["endpointslices"]);
        slices["items"][0]["endpoints"][0]["conditions"]["ready"].as_bool().unwrap_or(false)
    };
    let is_ready = || main_status(cluster, ns, "web")["ready"] == true;
    assert!(!ready() && !is_ready());
    std::fs::write(folder.path().join("ready"), "").expect("writable folder");
    cluster.wait_for("the endpoint to be ready", ready);
    assert!(is_ready());
    cluster.kill_and_restart();
    assert!(is_ready(), "a new agent must not take a ready pod for one that is not");
    std::fs::remove_file(folder.path().join("ready")).expect("the file is there");
    cluster.wait_for("the endpoint to be unready", || !ready());
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn hooks_run_at_both_ends(cluster: &Cluster) {
    let ns = "hooks";
    cluster.namespace(ns);
    let hooks = "volumeMounts: [{name: out, mountPath: /out}],
        lifecycle: {postStart: {exec: {command: [/bin/busybox, touch, /out/began]}},
                    preStop: {exec: {command: [/bin/busybox, touch, /out/ended]}}},";
    let folder = tempfile::tempdir().expect("temporary folder");
    let volume = format!("volumes: [{{name: out, hostPath: {{path: {}}}}}],", folder.path().display());
    make(cluster, ns, &pod("polite", "exec busybox sleep 1000", hooks, &volume));
    cluster.kubectl(ns, &["wait", "pod/polite", "--for=condition=Ready", "--timeout=30s"]);
    assert!(folder.path().join("began").exists() && !folder.path().join("ended").exists());
    cluster.kubectl(ns, &["delete", "pod", "polite"]);
    assert!(folder.path().join("ended").exists());
    let failing = "lifecycle: {postStart: {exec: {command: [/bin/busybox, 'false']}}},";
    make(cluster, ns, &pod("rude", "exec busybox sleep 1000", failing, ""));
    describes(cluster, ns, "rude", &["FailedPostStartHook", "PostStartHookError"]);
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}
