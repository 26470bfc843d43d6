//! File systems that hang: who uses them waits and says so, everybody else goes on.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::single::told;
use crate::{World, census};

pub const TESTS: &[crate::Test] = &[
    ("hung::a_mount_that_hangs_holds_up_its_own", a_mount_that_hangs_holds_up_its_own),
    ("hung::a_process_that_cannot_be_killed", a_process_that_cannot_be_killed),
    ("hung::a_start_that_outlives_its_agent", a_start_that_outlives_its_agent),
];

/// A file system whose server can be made to hang.
struct Stuck {
    target: PathBuf,
    gate: PathBuf,
    server: Child,
    said: BufReader<ChildStdout>,
}

impl Stuck {
    fn mount(cluster: &Cluster, name: &str) -> Self {
        let folder = cluster.folder(name);
        let (target, gate) = (cluster.folder(&format!("{name}/mount")), folder.join("gate"));
        let mut server = Command::new("python3")
            .args(["-c", include_str!("stuck.py")])
            .args([&target, &gate])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let said = BufReader::new(server.stdout.take().expect("piped"));
        let mut stuck = Self { target, gate, server, said };
        stuck.hear("mounted");
        stuck
    }

    /// Waits for a word of the server's.
    fn hear(&mut self, word: &str) {
        let heard = (&mut self.said).lines().map_while(Result::ok).any(|line| line == word);
        assert!(heard, "the file system's server has ended without {word:?}");
    }

    fn signal(&self, signal: &str) {
        let pid = self.server.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill is there").success());
    }

    /// From now on requests (all, or those of shims' children) are taken and never answered.
    fn swallow(&self, whose: &str) {
        std::fs::write(&self.gate, whose).expect("writable folder");
    }

    fn target(&self) -> String {
        self.target.display().to_string()
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        // With its server everything ends that waits for it.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.target).status();
    }
}

/// A pod on the first node; `spec` are more fields of it, `mounts` its container's.
fn pod(name: &str, script: &str, spec: &str, mounts: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: node-1, terminationGracePeriodSeconds: 1, {spec}
          containers: [{{name: main, image: 'busybox:1', command: [/bin/busybox, sh, -c], args: [{}], {mounts}}}]}}\n---\n",
        serde_json::to_string(script).expect("text")
    )
}

const IDLE: &str = "trap 'exit 0' TERM; while :; do busybox sleep 0.1; done";

/// One that mounts the file system.
fn user(name: &str, script: &str, stuck: &Stuck, sub_path: &str) -> String {
    let volumes = format!("volumes: [{{name: stuck, hostPath: {{path: '{}'}}}}],", stuck.target());
    let mounts = format!("volumeMounts: [{{name: stuck, mountPath: /stuck, subPath: '{sub_path}'}}]");
    pod(name, script, &volumes, &mounts)
}

fn apply(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(made.ok, "{made:?}");
}

/// Another pod comes, is reached and goes as if nothing were the matter.
fn others_go_on(cluster: &Cluster, ns: &str) {
    apply(cluster, ns, &pod("free", IDLE, "", ""));
    cluster.kubectl(ns, &["wait", "pod/free", "--for=condition=Ready", "--timeout=30s"]);
    let said = cluster.kubectl(ns, &["exec", "free", "--", "/bin/busybox", "hostname"]);
    assert_eq!(said.trim(), "free");
    cluster.kubectl(ns, &["delete", "pod", "free", "--timeout=30s"]);
    let summary = cluster.kubectl("default", &["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]);
    assert!(summary.contains("\"nodeName\""), "{summary}");
}

fn phase(cluster: &Cluster, ns: &str, name: &str) -> String {
    cluster.get(ns, &["pod", name])["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

fn a_mount_that_hangs_holds_up_its_own(world: &World) {
    let (cluster, ns) = (&world.cluster, "hung");
    cluster.namespace(ns);
    let stuck = Stuck::mount(cluster, "stuck");
    // Two that run, one of them on a part of it.
    apply(cluster, ns, &(user("early", IDLE, &stuck, "") + &user("partial", IDLE, &stuck, "part")));
    cluster.kubectl(ns, &["wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"]);

    stuck.signal("-STOP");
    // More than there are threads for the work of the node.
    let names: Vec<String> = (0..6).map(|n| format!("late-{n}")).collect();
    let late: String = names
        .iter()
        .enumerate()
        .map(|(n, name)| user(name, IDLE, &stuck, if n % 2 == 0 { "" } else { "part" }))
        .collect();
    apply(cluster, ns, &late);
    told(cluster, ns, "late-0", "FailedMount", "has not answered for 10 s");
    others_go_on(cluster, ns);
    for name in &names {
        assert_eq!(phase(cluster, ns, name), "Pending", "{name}");
    }
    // Who waits can be sent away, and who runs can be ended.
    cluster.kubectl(ns, &["delete", "pod", "late-0", "late-1", "early", "partial", "--timeout=60s"]);
    // Neither does it matter to those who start again, whether they are told to end or killed.
    cluster.kill_and_restart();
    others_go_on(cluster, ns);
    told(cluster, ns, "late-2", "FailedMount", "has not answered for 10 s");

    stuck.signal("-CONT");
    for name in &names[2..] {
        cluster.kubectl(ns, &["wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=60s"]);
    }
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
    drop(stuck);
    census::nothing_is_orphaned(world);
}

fn a_process_that_cannot_be_killed(world: &World) {
    let (cluster, ns) = (&world.cluster, "undying");
    cluster.namespace(ns);
    let mut stuck = Stuck::mount(cluster, "swallowing");
    let script = "until [ -e /stuck/part/never ]; do busybox sleep 0.1; done";
    apply(cluster, ns, &user("p", script, &stuck, ""));
    cluster.kubectl(ns, &["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]);
    stuck.swallow("all");
    // A request that was taken is waited for, whatever happens to whoever asked.
    stuck.hear("hangs");
    cluster.kubectl(ns, &["delete", "pod", "p", "--wait=false"]);
    told(cluster, ns, "p", "FailedKillPod", "error killing pod:");
    others_go_on(cluster, ns);
    assert!(cluster.try_kubectl(ns, &["get", "pod", "p"]).ok, "its name is not given away while it lives");
    // With the file system's server the waiting ends.
    drop(stuck);
    cluster.wait_at_most(Duration::from_secs(90), "the pod to go", || {
        !cluster.try_kubectl(ns, &["get", "pod", "p"]).ok
    });
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
    census::nothing_is_orphaned(world);
}

fn a_start_that_outlives_its_agent(world: &World) {
    let (cluster, ns) = (&world.cluster, "slow");
    cluster.namespace(ns);
    let mut stuck = Stuck::mount(cluster, "slow-mount");
    // The agent is answered when it looks; the container's own process is not.
    stuck.swallow("shim");
    apply(cluster, ns, &user("p", IDLE, &stuck, ""));
    stuck.hear("hangs");
    cluster.kill_and_restart();
    others_go_on(cluster, ns);
    assert_eq!(phase(cluster, ns, "p"), "Pending");
    let uid = cluster.get(ns, &["pod", "p"])["metadata"]["uid"].as_str().expect("a UID").to_owned();
    assert!(Path::new(&cluster.folder("run").join("shims").join(uid)).exists());
    // Without its server the file system fails, and so does the start that waited for it: another one follows.
    drop(stuck);
    cluster.kubectl(ns, &["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]);
    let restarts = &cluster.get(ns, &["pod", "p"])["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(restarts, &serde_json::Value::from(0), "what has not begun is not restarted");
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
    census::nothing_is_orphaned(world);
}
