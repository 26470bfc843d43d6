//! Pods run by a real containerd, as Debian packages it, instead of the built-in runtime.
//!
//! One machine serves all tests, which follow each other: the last ones take the cluster down.

mod machine;

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use machine::{Guest, Machine};
use serde_json::Value;

/// The machine, and its container runtime while that runs.
struct Place {
    machine: Machine,
    containerd: Option<Guest>,
}

type Test = (&'static str, fn(&mut Place));

const TESTS: &[Test] = &[
    ("the_node_is_as_ready_as_its_runtime", the_node_is_as_ready_as_its_runtime),
    ("pods_are_what_they_say", pods_are_what_they_say),
    ("containers_restart_and_are_probed", containers_restart_and_are_probed),
    ("hooks_and_grace", hooks_and_grace),
    ("streams_go_through", streams_go_through),
    ("usage_is_measured", usage_is_measured),
    ("what_it_cannot_do_is_said", what_it_cannot_do_is_said),
    ("images_are_looked_for", images_are_looked_for),
    ("restarts_are_survived", restarts_are_survived),
    ("nothing_is_left", nothing_is_left),
    ("a_node_alone_runs_its_own_pods", a_node_alone_runs_its_own_pods),
];

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let picked = |name: &str| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
    // The cluster comes up with the first one and goes down with the last but one.
    let needed = |name: &str| [TESTS[0].0, TESTS[9].0].contains(&name);
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| picked(name) || needed(name)).collect();
    println!("\nrunning {} tests", tests.len());
    let mut place = Place { machine: Machine::new(), containerd: None };
    let mut failed = 0;
    for (name, test) in &tests {
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| test(&mut place))).is_ok();
        if !passed {
            failed += 1;
            let state = ["get", "pods,events,nodes", "-A", "-o", "wide"];
            println!("{}\n{}", place.machine.kubectl(&state).out, place.machine.logs());
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    drop(place.containerd.take());
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let passed = tests.len() - failed;
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A pod of one busybox shell script; `more` are fields of the container, `spec` of the pod.
fn pod(name: &str, script: &str, more: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{
            terminationGracePeriodSeconds: 5, {spec} containers: [{{name: main, image: 'busybox:1', {more}
            command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
        serde_json::to_string(script).expect("text")
    )
}

const SLEEP: &str = "exec /bin/busybox sleep 1000";

fn main_status(m: &Machine, name: &str) -> Value {
    m.get(&["pod", name])["status"]["containerStatuses"][0].clone()
}

/// Waits until `kubectl describe pod` shows all of these.
fn describes(m: &Machine, name: &str, parts: &[&str]) {
    m.wait_for(&format!("{name} to show {parts:?}"), || {
        let text = m.must(&["describe", "pod", name]);
        parts.iter().all(|part| text.contains(part))
    });
}

fn gone(m: &Machine) {
    m.must(&["delete", "pods", "--all", "--timeout=60s"]);
}

fn readiness(m: &Machine) -> Value {
    let node = m.get(&["node", "node-1"]);
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == "Ready").expect("a condition")
}

fn the_node_is_as_ready_as_its_runtime(place: &mut Place) {
    let m = &place.machine;
    let refused = m.gantry(&["up", "--container-runtime-endpoint=tcp://127.0.0.1:1"]);
    assert!(!refused.ok && refused.err.contains("give a socket, such as unix:///"), "{refused:?}");
    place.containerd = Some(m.containerd());
    m.does(&["up", &m.endpoint()]);
    let node = m.get(&["node", "node-1"]);
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
    assert!(version.starts_with("containerd://1.6."), "{version}");
    let ready = readiness(m);
    let message = ready["message"].as_str().unwrap_or_default();
    assert_eq!(ready["status"], "False", "{ready}");
    assert!(message.starts_with("container runtime network not ready: NetworkReady=false"), "{message}");
    m.add_network();
    m.wait_for("the node to be ready", || readiness(m)["status"] == "True");
}

fn pods_are_what_they_say(place: &mut Place) {
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
    m.wait_for("the pod to say all", || m.must(&["logs", "web", "-c", "main"]).contains("complaint"));
    let log = m.must(&["logs", "web", "-c", "main"]);
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

fn containers_restart_and_are_probed(place: &mut Place) {
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

fn hooks_and_grace(place: &mut Place) {
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

fn streams_go_through(place: &mut Place) {
    let m = &place.machine;
    let script = "echo up; while read line; do echo heard $line; done";
    let web =
        "(/bin/busybox mkdir /www; echo page > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www)&";
    m.apply(&pod("talks", &format!("{web} {script}; exec /bin/busybox sleep 1000"), "stdin: true,", ""));
    m.ready("talks");
    let exec = |words: &[&'static str]| [&["exec", "-i", "talks", "--"], words].concat();
    assert_eq!(m.must(&exec(&["/bin/busybox", "echo", "hi"])), "hi\n");
    let failed = m.kubectl(&exec(&["/bin/busybox", "sh", "-c", "echo bad >&2; exit 5"]));
    assert!(!failed.ok && failed.err.contains("bad\n") && failed.err.contains("exit code 5"), "{failed:?}");
    let long = "0123456789".repeat(100_000);
    let copied = m.told(&exec(&["/bin/busybox", "cat"]), &long);
    assert!(copied.ok && copied.out == long, "{} bytes: {}", copied.out.len(), copied.err);
    let shell = m.kubectl_command(&["exec", "-it", "talks", "--", "/bin/busybox", "sh"]);
    let shown = m.on_terminal(&shell, "/bin/busybox tty; exit\n");
    assert!(shown.contains("/dev/pts/"), "{shown}");
    // Whoever attaches is heard, and hears.
    let mut attach = m.kubectl_command(&["attach", "-i", "talks"]);
    let attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut attached = Guest(attach.spawn().expect("kubectl starts"));
    let mut input = attached.0.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"me\n").expect("it listens");
    let mut line = String::new();
    let mut output = BufReader::new(attached.0.stdout.take().expect("piped"));
    while !line.ends_with("heard me\n") {
        assert!(output.read_line(&mut line).expect("text") > 0, "{line:?}");
    }
    drop(attached);
    let mut forward = m.kubectl_command(&["port-forward", "pod/talks", ":8080"]);
    let forward = forward.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut forward = Guest(forward.spawn().expect("kubectl starts"));
    let mut line = String::new();
    // It is kept: who forwards also says so, and ends if nobody listens.
    let mut said = BufReader::new(forward.0.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("text");
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    m.wait_for("the page", || m.fetch(&format!("http://127.0.0.1:{port}/")).contains("page"));
    drop(forward);
    // A log that has become long is put aside, and read all the same.
    m.apply(&pod(
        "long",
        "/bin/busybox yes 0123456789 | /bin/busybox head -c 12100000; echo end; exec /bin/busybox sleep 1000",
        "",
        "",
    ));
    let rotated = || {
        let pods = std::fs::read_dir(m.path("logs")).expect("the folder of logs").flatten();
        let long = pods.map(|p| p.path().join("main")).find(|p| p.display().to_string().contains("_long_"));
        let files = long.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        files.filter(|f| f.file_name().to_string_lossy().starts_with("0.log.")).count()
    };
    m.wait_for("the log to be put aside", || rotated() == 1);
    assert_eq!(m.must(&["logs", "long", "--tail=2"]), "0123456789\nend\n");
    assert_eq!(m.must(&["logs", "long"]).lines().count(), 1_100_001);
    // A log is followed to its end.
    m.apply(&pod(
        "counts",
        "for n in 1 2 3; do echo $n; /bin/busybox sleep 1; done",
        "",
        "restartPolicy: Never,",
    ));
    m.wait_for("it to begin", || !m.kubectl(&["logs", "counts"]).out.is_empty());
    assert_eq!(m.must(&["logs", "-f", "counts"]), "1\n2\n3\n");
    gone(m);
}

fn usage_is_measured(place: &mut Place) {
    let m = &place.machine;
    let script = "/bin/busybox dd if=/dev/zero of=/file bs=1M count=5; while :; do :; done";
    m.apply(&pod("busy", script, "resources: {limits: {cpu: 200m, memory: 64Mi}},", ""));
    m.ready("busy");
    let summary = || -> Value {
        let text = m.must(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]);
        serde_json::from_str(&text).expect("JSON")
    };
    let main = || {
        let pod = summary()["pods"].as_array().cloned().unwrap_or_default().into_iter();
        pod.into_iter().find(|p| p["podRef"]["name"] == "busy").unwrap_or_default()
    };
    m.wait_for("its CPU time", || {
        main()["containers"][0]["cpu"]["usageNanoCores"].as_u64() > Some(50_000_000)
    });
    m.wait_for("its disk", || main()["containers"][0]["rootfs"]["usedBytes"].as_u64() > Some(5 << 20));
    let found = main();
    assert!(found["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0), "{found}");
    assert!(!found["network"]["rxBytes"].is_null(), "{found}");
    let size = "{\"spec\":{\"containers\":[{\"name\":\"main\",\"resources\":{\"limits\":{\"cpu\":\"300m\"},\"requests\":{\"cpu\":\"300m\"}}}]}}";
    m.must(&["patch", "pod", "busy", "--subresource=resize", "-p", size]);
    let status = || main_status(m, "busy");
    m.wait_for("the other size", || status()["resources"]["limits"]["cpu"] == "300m");
    assert_eq!(status()["restartCount"], 0);
    let id = status()["containerID"].as_str().unwrap_or_default().replace("containerd://", "");
    let known: Value = serde_json::from_str(&m.ctr(&["containers", "info", &id]).out).expect("JSON");
    assert_eq!(known["Spec"]["linux"]["resources"]["cpu"]["quota"], 30_000);
    m.wait_for("kubectl top", || m.kubectl(&["top", "pod", "busy", "--no-headers"]).out.starts_with("busy"));
    gone(m);
}

fn what_it_cannot_do_is_said(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("users", SLEEP, "", "hostUsers: false,"));
    describes(m, "users", &["FailedCreatePodSandBox", "runtime does not support user namespaces"]);
    let image = "volumes: [{name: files, image: {reference: 'busybox:1'}}],";
    m.apply(&pod("files", SLEEP, "volumeMounts: [{name: files, mountPath: /files}],", image));
    describes(
        m,
        "files",
        &["volume \"files\" is an image, which only the built-in container runtime can mount"],
    );
    let below = "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}],";
    m.apply(&pod("below", SLEEP, below, "volumes: [{name: v, emptyDir: {}}],"));
    describes(m, "below", &["is requested to be mounted recursively read-only"]);
    m.apply(&pod("strict", SLEEP, "", "securityContext: {supplementalGroupsPolicy: Strict},"));
    describes(m, "strict", &["SupplementalGroupsPolicyNotSupported"]);
    gone(m);
}

fn images_are_looked_for(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("never", SLEEP, "imagePullPolicy: Never,", "").replace("busybox:1", "nobody.invalid/x:1"));
    describes(m, "never", &["ErrImageNeverPull"]);
    m.apply(&pod("pulls", SLEEP, "", "").replace("busybox:1", "nobody.invalid/x:1"));
    describes(
        m,
        "pulls",
        &["failed to pull image \"nobody.invalid/x:1\": rpc error: code = ", "ImagePullBackOff"],
    );
    // What is here, and cannot be had anew, is used all the same.
    m.apply(&pod("always", SLEEP, "imagePullPolicy: Always,", ""));
    m.ready("always");
    let registry = m.registry();
    let login = ["--docker-server=127.0.0.1:5055", "--docker-username=user", "--docker-password=secret"];
    m.must(&[&["create", "secret", "docker-registry", "key"][..], &login].concat());
    let private = |name: &str, secret: &str| {
        m.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, {secret}
                containers: [{{name: main, image: '127.0.0.1:5055/private:1'}}]}}}}"
        ));
    };
    private("known", "imagePullSecrets: [{name: key}],");
    m.wait_for("its end", || m.get(&["pod", "known"])["status"]["phase"] == "Succeeded");
    describes(m, "known", &["Pulling image \"127.0.0.1:5055/private:1\"", "Successfully pulled image"]);
    private("unknown", "");
    describes(m, "unknown", &["failed to pull image", "401 Unauthorized"]);
    drop(registry);
    m.apply(&pod("root", SLEEP, "securityContext: {runAsNonRoot: true},", ""));
    describes(m, "root", &["container has runAsNonRoot and image will run as root"]);
    gone(m);
    // What nobody uses goes when there is need of room, but not what no registry has.
    let has = |name: &str| m.ctr(&["images", "ls", "-q"]).out.lines().any(|line| line == name);
    assert!(has("127.0.0.1:5055/private:1"));
    m.kill_and_restart(&[
        "--image-gc-high-threshold=0",
        "--image-gc-low-threshold=0",
        "--minimum-image-ttl-duration=0s",
    ]);
    m.wait_for("the image to go", || !has("127.0.0.1:5055/private:1"));
    assert!(has("docker.io/library/busybox:1") && has("localhost/pause:1"));
    m.kill_and_restart(&[]);
}

fn restarts_are_survived(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("stays", SLEEP, "", ""));
    m.apply(&pod("goes", "exec /bin/busybox sleep 1000", "", ""));
    m.ready("stays");
    m.ready("goes");
    let before = main_status(m, "stays")["containerID"].clone();
    m.kill_and_restart(&[]);
    m.ready("stays");
    assert_eq!(main_status(m, "stays")["containerID"], before);
    // The runtime goes, and comes back.
    drop(place.containerd.take());
    m.wait_at_most(Duration::from_secs(90), "the node to say that it is down", || {
        let ready = readiness(m);
        ready["status"] == "False" && ready["message"] == "container runtime is down"
    });
    place.containerd = Some(m.containerd());
    m.wait_for("the node to be ready again", || readiness(m)["status"] == "True");
    m.ready("stays");
    let now = main_status(m, "stays");
    assert_eq!((&now["containerID"], &now["restartCount"]), (&before, &0.into()));
    // What ends behind the agent's back is noticed.
    let id = main_status(m, "goes")["containerID"].as_str().unwrap_or_default().replace("containerd://", "");
    assert!(m.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]).ok);
    m.wait_for("a restart", || main_status(m, "goes")["restartCount"].as_u64() == Some(1));
    assert_eq!(main_status(m, "goes")["lastState"]["terminated"]["exitCode"], 137);
    gone(m);
}

fn nothing_is_left(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("left", SLEEP, "", ""));
    m.ready("left");
    m.does(&["down", &m.endpoint()]);
    assert_eq!(m.ctr(&["containers", "ls", "-q"]).out, "");
    m.is_clean();
}

fn a_node_alone_runs_its_own_pods(place: &mut Place) {
    let m = &place.machine;
    if place.containerd.is_none() {
        place.containerd = Some(m.containerd());
    }
    let manifests = m.path("manifests");
    std::fs::create_dir_all(&manifests).expect("writable folder");
    let script =
        "/bin/busybox mkdir /www; echo alone > /www/index.html; exec /bin/busybox httpd -f -p 8081 -h /www";
    let own = pod("own", script, "", "hostNetwork: true,");
    std::fs::write(manifests.join("own.yaml"), own).expect("writable folder");
    let folder = format!("--pod-manifest-path={}", manifests.display());
    let agent = m.agent(&["--standalone", &m.endpoint(), &folder]);
    m.wait_for("the page", || m.fetch("http://127.0.0.1:8081/").contains("alone"));
    std::fs::remove_file(manifests.join("own.yaml")).expect("the file is there");
    m.wait_for("its end", || m.ctr(&["containers", "ls", "-q"]).out.is_empty());
    drop(agent);
    m.does(&["down", &m.endpoint()]);
    m.is_clean();
}
