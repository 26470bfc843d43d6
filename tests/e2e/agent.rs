//! What the node agent does with pods: probes, hooks, volumes, ports, last words.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("agent::a_failing_liveness_probe_restarts", a_failing_liveness_probe_restarts),
    ("agent::readiness_gates_endpoints", readiness_gates_endpoints),
    ("agent::hooks_run_at_both_ends", hooks_run_at_both_ends),
    ("agent::volumes_follow_their_sources", volumes_follow_their_sources),
    ("agent::volumes_are_what_they_say", volumes_are_what_they_say),
    ("agent::last_words_are_shown", last_words_are_shown),
    ("agent::host_ports_answer", host_ports_answer),
    ("agent::sidecars_and_deadlines", sidecars_and_deadlines),
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

fn volumes_follow_their_sources(cluster: &Cluster) {
    let ns = "volumes";
    cluster.namespace(ns);
    cluster.kubectl(ns, &["create", "configmap", "settings", "--from-literal=colour=red"]);
    let container = "ports: [{containerPort: 8080}], volumeMounts: [{name: www, mountPath: /www}],";
    let spec = "volumes: [{name: www, projected: {sources: [
        {configMap: {name: settings}}, {configMap: {name: later, optional: true}},
        {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}}],";
    make(cluster, ns, &pod("web", "exec /bin/busybox httpd -f -p 8080 -h /www", container, spec));
    cluster.kubectl(ns, &["wait", "pod/web", "--for=condition=Ready", "--timeout=30s"]);
    let ip = cluster.get(ns, &["pod", "web"])["status"]["podIP"].as_str().expect("an address").to_owned();
    let shows = |file: &str, text: &str| {
        cluster.wait_for(&format!("{file} to hold {text}"), || {
            cluster.fetch(&format!("http://{ip}:8080/{file}")).trim() == text
        });
    };
    shows("colour", "red");
    shows("labels", "app=\"web\"");
    cluster.kubectl(ns, &["patch", "configmap", "settings", "-p", "{\"data\":{\"colour\":\"blue\"}}"]);
    shows("colour", "blue");
    cluster.kubectl(ns, &["create", "configmap", "later", "--from-literal=more=yes"]);
    shows("more", "yes");
    cluster.kubectl(ns, &["label", "pod", "web", "tier=front"]);
    shows("labels", "app=\"web\"\ntier=\"front\"");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    let missing = "volumes: [{name: x, configMap: {name: nowhere}}],";
    make(cluster, ns, &pod("waits", "true", "volumeMounts: [{name: x, mountPath: /x}],", missing));
    describes(
        cluster,
        ns,
        "waits",
        &["FailedMount", "MountVolume.SetUp failed for volume \"x\" : configmap \"nowhere\" not found"],
    );
    let claim = "volumes: [{name: x, persistentVolumeClaim: {claimName: c}}],";
    make(cluster, ns, &pod("claims", "true", "volumeMounts: [{name: x, mountPath: /x}],", claim));
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn volumes_are_what_they_say(cluster: &Cluster) {
    let ns = "kinds";
    cluster.namespace(ns);
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("precious"), "").expect("writable folder");
    let container = "env: [{name: WHO, value: me}], volumeMounts: [{name: memory, mountPath: /memory},
        {name: host, mountPath: /part, subPathExpr: parts/$(WHO)}],";
    let spec = format!(
        "securityContext: {{fsGroup: 4321}}, restartPolicy: Never, volumes: [
        {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}},
        {{name: host, hostPath: {{path: {}, type: Directory}}}}],",
        folder.path().display()
    );
    let script = "set -e; busybox touch /part/made; busybox stat -c %g:%a /memory > /dev/termination-log;
        busybox grep -q '/memory tmpfs' /proc/mounts; busybox test -s /var/run/secrets/kubernetes.io/serviceaccount/token;
        if busybox dd if=/dev/zero of=/memory/big bs=1M count=2; then exit 9; fi";
    make(cluster, ns, &pod("kinds", script, container, &spec));
    cluster.wait_for("the script to end", || {
        main_status(cluster, ns, "kinds")["state"]["terminated"].is_object()
    });
    let ended = main_status(cluster, ns, "kinds")["state"]["terminated"].clone();
    assert_eq!((&ended["exitCode"], &ended["message"]), (&0.into(), &"4321:2777\n".into()), "{ended}");
    assert!(folder.path().join("parts/me/made").exists());
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    assert!(folder.path().join("precious").exists() && folder.path().join("parts/me/made").exists());
}

fn last_words_are_shown(cluster: &Cluster) {
    let ns = "words";
    cluster.namespace(ns);
    make(
        cluster,
        ns,
        &pod("says", "echo -n 'no disk' > /dev/termination-log; exit 3", "", "restartPolicy: Never,"),
    );
    let policy = "terminationMessagePolicy: FallbackToLogsOnError,";
    make(cluster, ns, &pod("logs", "echo something; echo broke; exit 1", policy, "restartPolicy: Never,"));
    describes(cluster, ns, "says", &["Message:      no disk", "Exit Code:    3", "Reason:       Error"]);
    cluster.wait_for("the log's end", || {
        main_status(cluster, ns, "logs")["state"]["terminated"]["message"] == "something\nbroke\n"
    });
    assert_eq!(cluster.get(ns, &["pod", "says"])["status"]["phase"], "Failed");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn host_ports_answer(cluster: &Cluster) {
    let ns = "ports";
    cluster.namespace(ns);
    let port = "ports: [{containerPort: 8080, hostPort: 18080}],";
    let script = "busybox mkdir /www; echo hello > /www/index.html; exec busybox httpd -f -p 8080 -h /www";
    make(cluster, ns, &pod("web", script, port, ""));
    let answer = || cluster.fetch("http://127.0.0.1:18080/");
    cluster.wait_for("the node's port to answer", || answer().trim() == "hello");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    assert_eq!(answer(), "");
}

fn sidecars_and_deadlines(cluster: &Cluster) {
    let ns = "ends";
    cluster.namespace(ns);
    let side =
        "restartPolicy: Never, initContainers: [{name: side, image: 'busybox:1', restartPolicy: Always,
        command: [/bin/busybox, sh, -c, 'trap \"exit 0\" TERM; while :; do busybox sleep 0.1; done']}],";
    make(cluster, ns, &pod("job", "busybox sleep 1", "", side));
    cluster.kubectl(ns, &["wait", "pod/job", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=40s"]);
    make(cluster, ns, &pod("late", "exec busybox sleep 1000", "", "activeDeadlineSeconds: 2,"));
    cluster.kubectl(
        ns,
        &["wait", "pod/late", "--for=jsonpath={.status.reason}=DeadlineExceeded", "--timeout=40s"],
    );
    assert_eq!(cluster.get(ns, &["pod", "late"])["status"]["phase"], "Failed");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}
