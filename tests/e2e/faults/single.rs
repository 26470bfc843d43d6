//! What goes wrong inside of one pod: the others go on, and events say what happened.

use std::path::Path;

use serde_json::Value;

use crate::World;
use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("single::out_of_memory", out_of_memory),
    ("single::too_much_on_disk", too_much_on_disk),
    ("single::a_hook_that_hangs", a_hook_that_hangs),
    ("single::dead_probes", dead_probes),
    ("single::a_missing_interface_is_mended", a_missing_interface_is_mended),
];

/// A namespace of its own for what is in `manifest`.
fn begin(cluster: &Cluster, ns: &str, manifest: &str) {
    cluster.namespace(ns);
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}");
}

/// Waits for an event of the object of this name, with this reason and these words.
pub fn told(cluster: &Cluster, ns: &str, name: &str, reason: &str, words: &str) {
    let filter = format!("--field-selector=reason={reason},involvedObject.name={name}");
    cluster.wait_for(&format!("the event {reason} of {name}: {words}"), || {
        cluster.try_kubectl(ns, &["get", "events", &filter, "-o", "wide"]).out.contains(words)
    });
}

/// One container of a pod, by its place.
fn container(pod: &Value, place: usize) -> &Value {
    &pod["status"]["containerStatuses"][place]
}

/// The process of the pod's shim.
fn shim(cluster: &Cluster, pod: &Value) -> u32 {
    let uid = pod["metadata"]["uid"].as_str().expect("a UID");
    crate::storm::pid_of(&cluster.folder("run").join("shims").join(uid)).expect("its shim lives")
}

fn out_of_memory(world: &World) {
    let (cluster, ns) = (&world.cluster, "memory");
    begin(
        cluster,
        ns,
        "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - {name: calm, image: 'busybox:1', command: [/bin/busybox, sleep, '3600']}
  - name: greedy
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'exec busybox tail /dev/zero']
    resources: {limits: {memory: 16Mi}}
",
    );
    let mut pod = Value::Null;
    let mut killed = |times: u64| {
        cluster.wait_for("the container to be killed again", || {
            pod = cluster.get(ns, &["pod", "p"]);
            container(&pod, 1)["restartCount"].as_u64() >= Some(times)
                && container(&pod, 1)["lastState"]["terminated"].is_object()
        });
        pod.clone()
    };
    let first = killed(0);
    let ended = &container(&first, 1)["lastState"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&"OOMKilled".into(), &137.into()), "{ended}");
    let (sandbox, address) = (shim(cluster, &first), first["status"]["podIP"].clone());
    told(cluster, ns, "p", "BackOff", "Back-off restarting failed container greedy in pod p_memory(");
    let again = killed(1);
    let waiting = &container(&again, 1)["state"]["waiting"];
    assert_eq!(waiting["reason"], "CrashLoopBackOff", "{again}");
    assert!(
        waiting["message"].as_str().is_some_and(|why| why.starts_with("back-off 10s restarting")),
        "{waiting}"
    );
    // Sandbox and neighbour do not notice.
    assert_eq!((shim(cluster, &again), &again["status"]["podIP"]), (sandbox, &address));
    assert_eq!(
        (&container(&again, 0)["restartCount"], &container(&again, 0)["ready"]),
        (&0.into(), &true.into())
    );
    assert_eq!(container(&again, 0)["containerID"], container(&first, 0)["containerID"]);
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
}

fn too_much_on_disk(world: &World) {
    let (cluster, ns) = (&world.cluster, "disk");
    begin(
        cluster,
        ns,
        "
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'busybox dd if=/dev/zero of=/big bs=1M count=8; exec busybox sleep 3600']
    resources: {limits: {ephemeral-storage: 2Mi}}
  - name: modest
    image: 'busybox:1'
    command: [/bin/busybox, sleep, '3600']
    resources: {limits: {ephemeral-storage: 20Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'busybox dd if=/dev/zero of=/small bs=1M count=1; exec busybox sleep 3600']
    resources: {limits: {ephemeral-storage: 20Mi}}
",
    );
    let mut pod = Value::Null;
    cluster.wait_for("the pod to be sent away", || {
        pod = cluster.get(ns, &["pod", "greedy"]);
        pod["status"]["phase"] == "Failed"
    });
    assert_eq!(pod["status"]["reason"], "Evicted");
    let why = "Container main exceeded its local ephemeral storage limit \"2Mi\". ";
    assert_eq!(pod["status"]["message"], why);
    told(cluster, ns, "greedy", "Evicted", why.trim_end());
    assert_eq!(cluster.get(ns, &["pod", "modest"])["status"]["phase"], "Running");
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
}

fn a_hook_that_hangs(world: &World) {
    let (cluster, ns) = (&world.cluster, "hook");
    begin(
        cluster,
        ns,
        "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, \"trap '' TERM; while :; do busybox sleep 1; done\"]
    lifecycle: {preStop: {exec: {command: [/bin/busybox, sleep, '3600']}}}
",
    );
    cluster.kubectl(ns, &["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]);
    cluster.kubectl(ns, &["delete", "pod", "p", "--timeout=60s"]);
    told(cluster, ns, "p", "FailedPreStopHook", "PreStopHook failed");
    told(cluster, ns, "p", "Killing", "Stopping container main");
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
}

fn dead_probes(world: &World) {
    let (cluster, ns) = (&world.cluster, "probes");
    let shared = cluster.folder("probes");
    for part in ["ready", "alive"] {
        std::fs::write(shared.join(part), "").expect("writable folder");
    }
    let manifest = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: shared, hostPath: {path: SHARED}}]
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sleep, '3600']
    volumeMounts: [{name: shared, mountPath: /shared}]
    readinessProbe: {periodSeconds: 1, failureThreshold: 1, exec: {command: [/bin/busybox, cat, /shared/ready]}}
    livenessProbe: {periodSeconds: 1, failureThreshold: 1, exec: {command: [/bin/busybox, cat, /shared/alive]}}
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sleep, '3600']
    startupProbe: {periodSeconds: 1, failureThreshold: 2, exec: {command: [/bin/busybox, cat, /never]}}
    livenessProbe: {periodSeconds: 1, failureThreshold: 1, exec: {command: [/bin/busybox, cat, /never]}}
";
    begin(cluster, ns, &manifest.replace("SHARED", &shared.display().to_string()));
    let endpoints = || {
        let all = cluster.get(ns, &["endpointslices", "-l", "kubernetes.io/service-name=web"]);
        let slices = all["items"].as_array().cloned().unwrap_or_default();
        let points = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        points.filter(|point| point["conditions"]["ready"] == true).count()
    };
    cluster.wait_for("the endpoint", || endpoints() == 1);
    let restarts = |pod: &str| container(&cluster.get(ns, &["pod", pod]), 0)["restartCount"].as_u64();

    std::fs::remove_file(shared.join("ready")).expect("it is there");
    cluster.wait_for("the endpoint to leave", || endpoints() == 0);
    told(cluster, ns, "web", "Unhealthy", "Readiness probe failed:");
    assert_eq!(restarts("web"), Some(0));
    std::fs::write(shared.join("ready"), "").expect("writable folder");
    cluster.wait_for("the endpoint to come back", || endpoints() == 1);

    std::fs::remove_file(shared.join("alive")).expect("it is there");
    cluster.wait_for("the container to be restarted", || restarts("web") >= Some(1));
    told(cluster, ns, "web", "Unhealthy", "Liveness probe failed:");
    told(cluster, ns, "web", "Killing", "Container main failed liveness probe, will be restarted");
    std::fs::write(shared.join("alive"), "").expect("writable folder");
    cluster.wait_for("the endpoint to come back", || endpoints() == 1);

    cluster.wait_for("the late one to be restarted", || restarts("late") >= Some(1));
    told(cluster, ns, "late", "Unhealthy", "Startup probe failed:");
    told(cluster, ns, "late", "Killing", "Container main failed startup probe, will be restarted");
    // Nobody asks whether it lives before it has started.
    let events =
        cluster.kubectl(ns, &["get", "events", "--field-selector=involvedObject.name=late", "-o", "wide"]);
    assert!(!events.contains("Liveness probe failed"), "{events}");
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
    assert!(Path::new(&shared).exists());
}

/// An agent that is killed when it has given a pod its address, and not yet its interface, leaves this.
fn a_missing_interface_is_mended(world: &World) {
    let (cluster, ns) = (&world.cluster, "mended");
    begin(
        cluster,
        ns,
        "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'echo hello > /index.html; exec busybox httpd -f -p 80 -h /']
",
    );
    cluster.kubectl(ns, &["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]);
    let pod = cluster.get(ns, &["pod", "p"]);
    let url = format!("http://{}/", pod["status"]["podIP"].as_str().expect("an address"));
    let answers = || cluster.fetch(&url).trim() == "hello";
    cluster.wait_for("an answer", answers);
    let route = ["-n", cluster.cgroup(), "-o", "route", "get", url.split('/').nth(2).expect("a host")];
    let said = std::process::Command::new("ip").args(route).output().expect("ip is there");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let link =
        said.split_whitespace().skip_while(|word| *word != "dev").nth(1).expect("an interface").to_owned();
    cluster.kill();
    let gone =
        std::process::Command::new("ip").args(["-n", cluster.cgroup(), "link", "delete", &link]).status();
    assert!(gone.expect("ip is there").success());
    let up = cluster.gantry(&["up"]);
    assert!(up.ok, "{up:?}");
    cluster.wait_for("an answer again", answers);
    assert_eq!(
        container(&cluster.get(ns, &["pod", "p"]), 0)["containerID"],
        container(&pod, 0)["containerID"]
    );
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
}
