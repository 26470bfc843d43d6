//! What pods are, and how their containers come and go.

use serde_json::Value;

use crate::{Place, SLEEP, describes, gone, main_status, pod};

pub fn pods_are_what_they_say(place: &mut Place) {
    let m = &place.machine;
    m.must(&["create", "configmap", "settings", "--from-literal=colour=red"]);
    let spec = "shareProcessNamespace: true, hostname: told, securityContext: {fsGroup: 77, supplementalGroups: [88]},
        initContainers: [
            {name: first, image: 'busybox:1', command: [/bin/busybox, sh, -c, 'echo first > /shared/file'],
             volumeMounts: [{name: shared, mountPath: /shared}]},
            {name: beside, image: 'busybox:1', restartPolicy: Always, command: [/bin/busybox, sleep, '1000']}],
        volumes: [{name: shared, emptyDir: {}}, {name: settings, configMap: {name: settings}},
            {name: token, projected: {sources: [{serviceAccountToken: {path: token}}]}}],";
    let container = "env: [{name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}],
        securityContext: {runAsUser: 1000, runAsGroup: 2000, readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}},
        resources: {requests: {cpu: 50m}, limits: {memory: 64Mi, cpu: 500m}},
        volumeMounts: [{name: shared, mountPath: /shared}, {name: shared, mountPath: /one, subPath: file},
            {name: settings, mountPath: /settings}, {name: token, mountPath: /token}],";
    let script = "echo name $ME; busybox cat /shared/file /one; echo colour $(busybox cat /settings/colour); \
        busybox id; busybox hostname; busybox wc -c < /token/token; busybox touch /x 2>&1; \
        busybox grep -c . /etc/hosts; busybox grep NoNewPrivs /proc/self/status; echo complaint >&2; exec /bin/busybox sleep 1000";
    // The image holds one program only; a shell finds the others in it.
    let script = format!("busybox() {{ /bin/busybox \"$@\"; }}; {script}");
    m.apply(&pod("web", &script, container, spec));
    m.ready("web");
    let status = m.get(&["pod", "web"])["status"].clone();
    let main = &status["containerStatuses"][0];
    let id = main["containerID"].as_str().unwrap_or_default();
    assert!(id.starts_with("containerd://"), "{main}");
    assert!(main["imageID"].as_str().is_some_and(|id| id.contains("sha256:")), "{main}");
    assert!(status["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.42.0.")), "{status}");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(status["initContainerStatuses"][1]["ready"], true);
    let said = || m.must(&["logs", "web", "-c", "main"]);
    m.wait_for("the pod to say all", || ["NoNewPrivs", "complaint"].iter().all(|last| said().contains(last)));
    // Output and errors come by ways of their own: what is said there stands anywhere.
    let log = said().replace("complaint\n", "");
    for part in [
        "name web\nfirst\nfirst\ncolour red\nuid=1000 gid=2000 groups=77,88,2000\ntold\n",
        "/x: Read-only file system",
        "NoNewPrivs:\t1",
    ] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
    let known = m.ctr(&["containers", "info", id.trim_start_matches("containerd://")]).out;
    let known: Value = serde_json::from_str(&known).expect("JSON");
    let limits = &known["Spec"]["linux"]["resources"];
    assert_eq!((&limits["memory"]["limit"], &limits["cpu"]["quota"]), (&(64 << 20).into(), &50_000.into()));
    m.must(&[
        "debug",
        "web",
        "--image=busybox:1",
        "--target=main",
        "-c",
        "looks",
        "--",
        "/bin/busybox",
        "ps",
    ]);
    m.wait_for("the debugger", || m.kubectl(&["logs", "web", "-c", "looks"]).out.contains("sleep 1000"));
    // What is written to a volume is followed.
    m.must(&["patch", "configmap", "settings", "-p", "{\"data\":{\"colour\":\"blue\"}}"]);
    let read = ["exec", "web", "-c", "main", "--", "/bin/busybox", "cat", "/settings/colour"];
    m.wait_for("the other colour", || m.kubectl(&read).out == "blue");
    let at = m.path("logs");
    gone(m);
    assert_eq!(std::fs::read_dir(at).expect("the folder of logs").count(), 0);
    for handler in ["runc", "nothing"] {
        m.apply(&format!(
            "{{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {{name: {handler}}}, handler: {handler}}}"
        ));
        m.apply(&pod(&format!("by-{handler}"), SLEEP, "", &format!("runtimeClassName: {handler},")));
    }
    m.ready("by-runc");
    describes(m, "by-nothing", &["FailedCreatePodSandBox", "no runtime for \"nothing\" is configured"]);
    let ended = pod("once", "echo done; exit 3", "", "restartPolicy: Never,");
    m.apply(&ended);
    m.wait_for("its end", || m.get(&["pod", "once"])["status"]["phase"] == "Failed");
    let state = main_status(m, "once")["state"]["terminated"].clone();
    assert_eq!((&state["exitCode"], &state["reason"]), (&3.into(), &"Error".into()));
    assert_eq!(m.must(&["logs", "once"]), "done\n");
    gone(m);
}

pub fn containers_restart_and_are_probed(place: &mut Place) {
    let m = &place.machine;
    let probes = "livenessProbe: {periodSeconds: 1, failureThreshold: 2, exec: {command: [/bin/busybox, test, -e, /ok]}},
        readinessProbe: {periodSeconds: 1, httpGet: {path: /, port: 8080}}, ports: [{containerPort: 8080}],
        startupProbe: {periodSeconds: 1, failureThreshold: 30, tcpSocket: {port: 8080}},";
    let script = "/bin/busybox touch /ok /index.html; (/bin/busybox sleep 8; /bin/busybox rm /ok) & \
        echo run; exec /bin/busybox httpd -f -p 8080 -h /";
    m.apply(&pod("sick", script, probes, ""));
    let slow =
        "readinessProbe: {periodSeconds: 1, timeoutSeconds: 1, exec: {command: [/bin/busybox, sleep, '9']}},";
    m.apply(&pod("slow", SLEEP, slow, ""));
    m.ready("sick");
    m.wait_for("a restart", || main_status(m, "sick")["restartCount"].as_u64() >= Some(1));
    describes(
        m,
        "sick",
        &["Liveness probe failed:", "Container main failed liveness probe, will be restarted"],
    );
    m.wait_for("the log of the run before", || m.kubectl(&["logs", "-p", "sick"]).out == "run\n");
    describes(m, "slow", &["Readiness probe failed: command timed out", "timed out after 1s"]);
    let words = "echo -n last > /dev/termination-log; exit 4";
    m.apply(&pod("loops", words, "", ""));
    describes(m, "loops", &["CrashLoopBackOff", "Exit Code:    4", "Message:      last"]);
    gone(m);
}

pub fn hooks_and_grace(place: &mut Place) {
    let m = &place.machine;
    let hooks = "volumeMounts: [{name: out, mountPath: /out}],
        lifecycle: {postStart: {exec: {command: [/bin/busybox, touch, /out/began]}},
                    preStop: {exec: {command: [/bin/busybox, touch, /out/ended]}}},";
    let out = m.path("out");
    std::fs::create_dir_all(&out).expect("writable folder");
    let volume = format!("volumes: [{{name: out, hostPath: {{path: {}}}}}],", out.display());
    let script = "trap '/bin/busybox touch /out/asked; exit 0' TERM; while :; do /bin/busybox sleep 1; done";
    m.apply(&pod("polite", script, hooks, &volume));
    m.ready("polite");
    assert!(out.join("began").exists() && !out.join("ended").exists());
    m.must(&["delete", "pod", "polite"]);
    assert!(out.join("ended").exists() && out.join("asked").exists());
}
