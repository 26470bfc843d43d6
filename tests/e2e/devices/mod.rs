//! Devices, CPUs and what monitors hear of them.

mod plugin;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use plugin::{Plugin, RESOURCE, all, first, parts};

pub const TESTS: &[crate::Test] = &[
    ("devices::plugins_hand_out_devices", plugins_hand_out_devices),
    ("devices::hooks_of_devices_are_run", hooks_of_devices_are_run),
    ("devices::cpus_of_its_own", cpus_of_its_own),
];

const CDI: &str = r#"{"cdiVersion": "0.6.0", "kind": "e2e.example.com/gadget", "devices": [{"name": "one",
    "containerEdits": {"env": ["FROM_CDI=yes"], "deviceNodes": [{"path": "/dev/second", "hostPath": "/dev/loop-control"}],
    "mounts": [{"hostPath": "FOLDER/words", "containerPath": "/words", "options": ["ro"]}]}}]}"#;

/// A pod of one busybox shell script.
fn pod(name: &str, script: &str, resources: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {spec}
            containers: [{{name: main, image: 'busybox:1', resources: {{limits: {resources}}},
            command: [/bin/busybox, sh, -c], args: [{}]}}]}}}}",
        serde_json::to_string(script).expect("text")
    )
}

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

/// What the node says of the gadgets: all, and those to be had.
fn gadgets(cluster: &Cluster) -> (String, String) {
    let status = cluster.get("default", &["node", "node-1"])["status"].clone();
    let text = |what: &str| status[what][RESOURCE].as_str().unwrap_or_default().to_owned();
    (text("capacity"), text("allocatable"))
}

fn wait_for_gadgets(cluster: &Cluster, capacity: &str, allocatable: &str) {
    let want = (capacity.to_owned(), allocatable.to_owned());
    cluster.wait_for(&format!("the node to have {want:?} gadgets"), || gadgets(cluster) == want);
}

fn data(cluster: &Cluster) -> PathBuf {
    cluster.kubeconfig().parent().expect("a data directory").to_owned()
}

/// The devices of each pod, as monitors hear it.
fn listed(plugin: &Plugin, data: &Path) -> BTreeMap<String, Vec<String>> {
    let answer = plugin.pod_resources(data, "List", &[]).expect("an answer");
    let pods = parts(&answer, 1).into_iter().map(|pod| {
        let devices = parts(pod, 3).into_iter().flat_map(|container| parts(container, 2));
        let ids = devices.filter(|device| first(device, 1) == RESOURCE.as_bytes()).flat_map(|d| all(d, 2));
        (all(pod, 1).concat(), ids.collect::<Vec<_>>())
    });
    pods.filter(|(_, ids)| !ids.is_empty()).collect()
}

fn phase_and_reason(cluster: &Cluster, ns: &str, name: &str) -> (String, String) {
    let status = cluster.get(ns, &["pod", name])["status"].clone();
    let text = |what: &str| status[what].as_str().unwrap_or_default().to_owned();
    (text("phase"), text("reason"))
}

fn plugins_hand_out_devices(cluster: &Cluster) {
    let ns = "devices";
    cluster.namespace(ns);
    let (folder, data) = (cluster.folder("cdi"), data(cluster));
    std::fs::write(folder.join("words"), "hello").expect("writable folder");
    let cdi = CDI.replace("FOLDER", &folder.display().to_string());
    std::fs::write(folder.join("gadget.json"), cdi).expect("writable folder");
    let plugin = Plugin::start(&data, &[("one", true), ("two", true), ("ill", false)]);
    wait_for_gadgets(cluster, "3", "2");

    // One is put into a container: nodes, environment, and what the CDI device says.
    let script = "set -e; echo $GADGETS $FROM_CDI $(busybox cat /words); busybox ls -l /dev/gadget; busybox true < /dev/gadget;
        if busybox true > /dev/gadget; then exit 9; fi; busybox true < /dev/second; echo fine; exec busybox sleep 1000";
    let one = format!("{{{RESOURCE}: 1}}");
    make(cluster, ns, &pod("first", script, &one, ""));
    cluster.kubectl(ns, &["wait", "pod/first", "--for=condition=Ready", "--timeout=60s"]);
    cluster.wait_for("the script to have seen its device", || {
        cluster.kubectl(ns, &["logs", "first"]).contains("fine")
    });
    let log = cluster.kubectl(ns, &["logs", "first"]);
    let had = listed(&plugin, &data)["first"].clone();
    // What the shell complains of may come before or after.
    let (seen, refused) =
        (format!("{} yes hello", had[0]), "can't create /dev/gadget: Operation not permitted");
    assert!(log.lines().any(|line| line == seen) && log.contains(refused), "{log}: {had:?}");
    // Without asking there is none.
    make(cluster, ns, &pod("without", "test -e /dev/gadget && exit 9; exec busybox sleep 1000", "{}", ""));
    cluster.kubectl(ns, &["wait", "pod/without", "--for=condition=Ready", "--timeout=60s"]);
    // Whoever comes past the scheduler is refused.
    let spec = "nodeName: node-1, restartPolicy: Never,";
    make(cluster, ns, &pod("greedy", "true", &format!("{{{RESOURCE}: 2}}"), spec));
    cluster.wait_for("a refusal", || {
        phase_and_reason(cluster, ns, "greedy") == ("Failed".into(), "UnexpectedAdmissionError".into())
    });
    let message = cluster.get(ns, &["pod", "greedy"])["status"]["message"].clone();
    let why = format!(
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for {RESOURCE}. Requested: 2, Available: 1, which is unexpected"
    );
    assert_eq!(message.as_str(), Some(why.as_str()));

    // A dead agent is followed by one that knows who has what; the plugin comes back to it.
    cluster.kill_and_restart();
    cluster.wait_for("the new agent to list what pods have", || {
        plugin.pod_resources(&data, "List", &[]).is_ok() && listed(&plugin, &data).get("first") == Some(&had)
    });
    assert_eq!(gadgets(cluster).1, "0", "a plugin that has not come back has nothing to give");
    plugin.begin();
    wait_for_gadgets(cluster, "3", "2");
    make(cluster, ns, &pod("second", "exec busybox sleep 1000", &one, ""));
    cluster.kubectl(ns, &["wait", "pod/second", "--for=condition=Ready", "--timeout=60s"]);
    let other = listed(&plugin, &data)["second"].clone();
    assert_ne!(other, had);
    // What is asked for one pod is told of that one.
    let mut writer = grpc::Writer::new();
    writer.bytes(1, b"second").bytes(2, ns.as_bytes());
    let asked = plugin.pod_resources(&data, "Get", &writer.finish()).expect("an answer");
    assert_eq!(all(first(&asked, 1), 1), ["second"]);
    let none = plugin.pod_resources(&data, "Get", &[]).expect_err("there is no such pod");
    assert!(none.contains("not found"), "{none}");
    let allocatable = plugin.pod_resources(&data, "GetAllocatableResources", &[]).expect("an answer");
    assert_eq!(parts(&allocatable, 1).len(), 2);

    // A device is free again when its pod is gone, also for one that waited.
    make(cluster, ns, &pod("third", "exec busybox sleep 1000", &one, ""));
    cluster.kubectl(ns, &["delete", "pod", "first"]);
    cluster.kubectl(ns, &["wait", "pod/third", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(listed(&plugin, &data)["third"], had);
    // Illness and a plugin's end show in the node's status.
    plugin.tell(&[("one", true), ("two", false), ("ill", false)]);
    wait_for_gadgets(cluster, "3", "1");
    let health = |name: &str| {
        let status = cluster.get(ns, &["pod", name])["status"]["containerStatuses"][0].clone();
        let of = status["allocatedResourcesStatus"][0].clone();
        assert_eq!(of["name"], RESOURCE, "{status}");
        let id = of["resources"][0]["resourceID"].as_str().unwrap_or_default().to_owned();
        (id, of["resources"][0]["health"].as_str().unwrap_or_default().to_owned())
    };
    let pair = || [health("second"), health("third")];
    let well = |id: &str| if id == "two" { "Unhealthy" } else { "Healthy" };
    cluster.wait_for("the pods to tell of it", || pair().iter().all(|(id, is)| is == well(id)));
    assert!(pair().iter().any(|(id, _)| id == "two"));
    drop(plugin);
    wait_for_gadgets(cluster, "3", "0");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

/// Describes the device of the next test by its hooks.
fn describe(folder: &Path, hooks: &[(&str, &str)]) {
    let hook = |(name, script): &(&str, &str)| {
        serde_json::json!({"hookName": name, "path": "/bin/busybox", "args": ["sh", "-c", script],
            "env": [format!("F={}", folder.display()), "PATH=/bin".to_owned()], "timeout": 30})
    };
    let hooks: Vec<_> = hooks.iter().map(hook).collect();
    let device = serde_json::json!({"name": "one", "containerEdits": {"hooks": hooks}});
    let file =
        serde_json::json!({"cdiVersion": "0.6.0", "kind": "e2e.example.com/gadget", "devices": [device]});
    std::fs::write(folder.join("gadget.json"), file.to_string()).expect("writable folder");
}

fn hooks_of_devices_are_run(cluster: &Cluster) {
    let ns = "device-hooks";
    cluster.namespace(ns);
    let (folder, data) = (cluster.folder("cdi"), data(cluster));
    let within = "s=$(cat); b=${s#*'\"bundle\":\"'}; b=${b%%'\"'*}; busybox grep -q '\"root\":{\"path\":\"'$b/root $b/config.json || exit 7
        echo by a hook >$b/root/made";
    let hooks = [
        ("createRuntime", "busybox cat >$F/created"),
        ("createContainer", within),
        ("poststop", "busybox cat >$F/stopping && busybox mv $F/stopping $F/stopped"),
    ];
    describe(&folder, &hooks);
    let plugin = Plugin::start(&data, &[("one", true)]);
    wait_for_gadgets(cluster, "1", "1");
    let one = format!("{{{RESOURCE}: 1}}");
    make(cluster, ns, &pod("good", "busybox cat /made; exec busybox sleep 1000", &one, ""));
    cluster.kubectl(ns, &["wait", "pod/good", "--for=condition=Ready", "--timeout=60s"]);
    cluster.wait_for("what the hook made", || cluster.kubectl(ns, &["logs", "good"]).contains("by a hook"));
    let state = std::fs::read_to_string(folder.join("created")).expect("the state");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    let id = cluster.get(ns, &["pod", "good"])["status"]["containerStatuses"][0]["containerID"].clone();
    assert!(id.as_str().is_some_and(|id| id.ends_with(state["id"].as_str().unwrap_or("?"))), "{state}");
    assert!(!folder.join("stopped").exists());
    cluster.kubectl(ns, &["delete", "pod", "good", "--now"]);
    cluster.wait_for("the hook after the end", || folder.join("stopped").exists());

    // One that fails is told with what it said, and the container is not started.
    describe(&folder, &[("createContainer", "echo no such luck >&2; exit 5")]);
    make(cluster, ns, &pod("bad", "exec busybox sleep 1000", &one, ""));
    let why = "the createContainer hook /bin/busybox: it ended with 5: no such luck";
    cluster.wait_for("the failure", || {
        let of = "--field-selector=involvedObject.name=bad";
        cluster.kubectl(ns, &["get", "events", of, "-o", "wide"]).contains(why)
    });
    let waits = cluster.get(ns, &["pod", "bad"])["status"]["containerStatuses"][0]["state"].clone();
    assert!(waits["running"].is_null(), "{waits}");
    // Once the description is mended, it runs.
    describe(&folder, &[("createContainer", "exit 0")]);
    cluster.kubectl(ns, &["wait", "pod/bad", "--for=condition=Ready", "--timeout=120s"]);
    drop(plugin);
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

/// What a pod's script has printed of the CPUs it may use.
fn cpus(cluster: &Cluster, ns: &str, name: &str) -> String {
    let log = cluster.try_kubectl(ns, &["logs", name, "--tail=1"]).out;
    log.trim().rsplit(|c: char| c.is_whitespace()).next().unwrap_or_default().to_owned()
}

fn cpus_of_its_own(cluster: &Cluster) {
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("the machine's CPUs");
    if all.trim() == "0" {
        println!("skipped: a machine of one CPU has none to give");
        return;
    }
    let ns = "cpus";
    cluster.namespace(ns);
    // Containers that run already share what is left.
    let script = "while :; do busybox grep Cpus_allowed_list /proc/self/status; busybox sleep 0.3; done";
    make(cluster, ns, &pod("shares", script, "{}", ""));
    cluster.kubectl(ns, &["wait", "pod/shares", "--for=condition=Ready", "--timeout=60s"]);
    cluster.wait_for("what it may use", || !cpus(cluster, ns, "shares").is_empty());
    let before = cpus(cluster, ns, "shares");
    let own =
        ["--cpu-manager-policy=static", "--reserved-cpus=0", "--topology-manager-policy=single-numa-node"];
    cluster.kill_and_restart_with(&own);
    make(cluster, ns, &pod("own", script, "{cpu: 1, memory: 16Mi}", ""));
    cluster.kubectl(ns, &["wait", "pod/own", "--for=condition=Ready", "--timeout=60s"]);
    cluster
        .wait_for("a CPU of its own", || cpus(cluster, ns, "own").parse::<usize>().is_ok_and(|cpu| cpu > 0));
    let mine = cpus(cluster, ns, "own");
    let apart = || {
        let theirs = cpus(cluster, ns, "shares");
        theirs != before && !theirs.split([',', '-']).any(|cpu| cpu == mine)
    };
    cluster.wait_for("the other container to keep off it", apart);
    cluster.kill_and_restart_with(&own);
    make(cluster, ns, &pod("later", script, "{}", ""));
    cluster.kubectl(ns, &["wait", "pod/later", "--for=condition=Ready", "--timeout=60s"]);
    cluster.wait_for("a new agent to know whose it is", || {
        cpus(cluster, ns, "later") == cpus(cluster, ns, "shares")
    });
    assert!(apart() && cpus(cluster, ns, "own") == mine);
    cluster.kubectl(ns, &["delete", "pod", "own"]);
    cluster.wait_for("the CPU to be everybody's again", || cpus(cluster, ns, "shares") == before);
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    // The way back is by way of the file that says what was so.
    let state = data(cluster).join("kubelet/cpu_manager_state");
    assert!(state.exists());
    std::fs::remove_file(state).expect("the agent's state");
    cluster.kill_and_restart();
}
