//! Processes are killed at random, in any order, while work is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::World;
use crate::census;

pub const TESTS: &[crate::Test] =
    &[("storm::first_seed", |world| storms(world, 1)), ("storm::second_seed", |world| storms(world, 2))];

/// How many items the Job has.
const ITEMS: usize = 6;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

/// One storm, or as many as the environment asks for.
fn storms(world: &World, seed: u64) {
    let runs = setting("FAULTS_RUNS");
    let first = setting("FAULTS_SEED").unwrap_or(seed);
    for seed in first..first + runs.unwrap_or(1) {
        println!("storm {seed}");
        Storm::new(world, seed).rage();
    }
}

/// Random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

struct Storm<'a> {
    world: &'a World,
    ns: String,
    dice: Dice,
    /// What the pods write to.
    shared: PathBuf,
    /// Whether the server runs.
    up: bool,
    /// The pods whose shims were killed.
    killed: BTreeSet<String>,
    round: u32,
}

/// Whoever finds his lock taken says so, and goes on.
const WORK: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: roll}
spec:
  replicas: 3
  selector: {matchLabels: {app: roll}}
  template:
    metadata: {labels: {app: roll}, annotations: {round: "0"}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: scratch, emptyDir: {medium: Memory}}, {name: word, configMap: {name: word}}]
      containers:
        - name: main
          image: busybox:1
          command: [/bin/busybox, sh, -c, "trap 'exit 0' TERM; while :; do busybox sleep 0.1; done"]
          volumeMounts: [{name: scratch, mountPath: /scratch}, {name: word, mountPath: /word}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: word}
data: {word: please}
---
apiVersion: v1
kind: Service
metadata: {name: set}
spec: {clusterIP: None, selector: {app: set}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  serviceName: set
  replicas: 3
  podManagementPolicy: MANAGEMENT
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}, annotations: {round: "0"}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: shared, hostPath: {path: SHARED}}]
      containers:
        - name: main
          image: locker:1
          env: [{name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]
          command: [/bin/busybox, sh, -c]
          args: ["exec 9>/shared/$HOSTNAME.lock; flock -n 9 || echo $HOSTNAME $UID >> /shared/twice; trap 'exit 0' TERM; while :; do busybox sleep 0.1; done"]
          volumeMounts: [{name: shared, mountPath: /shared}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: items}
spec:
  completions: ITEMS
  parallelism: 2
  completionMode: Indexed
  backoffLimit: 1000
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      volumes: [{name: shared, hostPath: {path: SHARED}}]
      containers:
        - name: main
          image: locker:1
          env: [{name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]
          command: [/bin/busybox, sh, -c]
          args: ["exec 9>/shared/item-$JOB_COMPLETION_INDEX.lock; flock -n 9 || echo item $JOB_COMPLETION_INDEX $UID >> /shared/twice; echo begin $JOB_COMPLETION_INDEX $UID >> /shared/items; busybox sleep 2; echo end $JOB_COMPLETION_INDEX $UID >> /shared/items"]
          volumeMounts: [{name: shared, mountPath: /shared}]
"#;

impl<'a> Storm<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        let ns = format!("storm-{seed}");
        let shared = world.cluster.folder(&ns);
        Self { world, ns, dice: Dice(seed), shared, up: true, killed: BTreeSet::new(), round: 0 }
    }

    fn rage(mut self) {
        self.world.cluster.namespace(&self.ns);
        let management = ["OrderedReady", "Parallel"][self.dice.roll(2)];
        let work = WORK.replace("SHARED", &self.shared.display().to_string());
        let work = work.replace("MANAGEMENT", management).replace("ITEMS", &ITEMS.to_string());
        let made = self.world.cluster.with_manifest(&self.ns, &["apply"], &work);
        assert!(made.ok, "{made:?}");
        for _ in 0..setting("FAULTS_STEPS").unwrap_or(16) {
            self.step();
        }
        self.settle();
        self.verdict();
        self.end();
    }

    /// One fault, or one wish of a user's.
    fn step(&mut self) {
        // The moment at which a fault hits is part of the fault: this waits for nothing.
        std::thread::sleep(Duration::from_millis(self.dice.roll(400) as u64));
        match self.dice.roll(10) {
            0 => self.restart_server(),
            1 => self.kill_server(),
            2 => self.world.beside.kill(),
            3 => {
                self.world.beside.kill();
                self.world.beside.start();
            }
            4 | 5 => self.kill_shims(),
            6 => {
                self.kill_server();
                self.kill_shims();
                self.world.beside.kill();
            }
            7 => self.change("deployment/roll"),
            8 => self.change("statefulset/set"),
            _ => self.delete_a_pod(),
        }
        // Neither is away for long: a node that is declared lost is another test.
        if self.dice.roll(3) == 0 {
            self.world.beside.start();
        }
        if self.dice.roll(2) == 0 {
            self.start_server();
        }
    }

    fn kill_server(&mut self) {
        if std::mem::take(&mut self.up) {
            self.world.cluster.kill();
        }
    }

    fn start_server(&mut self) {
        if !std::mem::replace(&mut self.up, true) {
            let up = self.world.cluster.gantry(&["up"]);
            assert!(up.ok, "gantry up after kill -9 failed:\n{}{}", up.out, up.err);
        }
    }

    fn restart_server(&mut self) {
        self.kill_server();
        self.start_server();
    }

    /// Kills up to three shims, of either node.
    fn kill_shims(&mut self) {
        let own = self.world.cluster.folder("run");
        for _ in 0..=self.dice.roll(3) {
            let run =
                if self.dice.roll(2) == 0 { own.clone() } else { self.world.beside.folder().join("run") };
            let shims = fs::read_dir(run.join("shims")).into_iter().flatten().flatten();
            let mut all: Vec<PathBuf> = shims.map(|entry| entry.path()).collect();
            all.sort();
            if all.is_empty() {
                continue;
            }
            let shim = all.swap_remove(self.dice.roll(all.len()));
            let Some(pid) = pid_of(&shim) else { continue };
            self.killed.insert(shim.file_name().expect("a name").to_string_lossy().into_owned());
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }

    /// A user's wishes may fail while the server is away.
    fn wish(&self, args: &[&str]) {
        let said = self.world.cluster.try_kubectl(&self.ns, &[args, &["--request-timeout=10s"]].concat());
        assert!(said.ok || !self.up, "{args:?}: {said:?}");
    }

    fn change(&mut self, what: &str) {
        self.round += 1;
        let round = self.round;
        let patch =
            format!(r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"round":"{round}"}}}}}}}}}}"#);
        self.wish(&["patch", what, "-p", &patch]);
    }

    fn delete_a_pod(&mut self) {
        let pod = format!("pod/set-{}", self.dice.roll(3));
        self.wish(&["delete", &pod, "--wait=false", "--ignore-not-found"]);
    }

    fn get(&self, what: &str) -> Value {
        let said = self.world.cluster.try_kubectl(&self.ns, &["get", what, "-o", "json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// Everything comes to what is asked for.
    fn settle(&mut self) {
        self.world.beside.start();
        self.start_server();
        let limit = Duration::from_secs(150);
        let wait = |what: &str, holds: &dyn Fn() -> bool| self.world.cluster.wait_at_most(limit, what, holds);
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        wait("the Deployment to be rolled out", &|| {
            let all = self.get("deployment/roll");
            let (spec, status) = (&all["spec"], &all["status"]);
            let is = |field: &str| status[field] == spec["replicas"];
            status["observedGeneration"] == all["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"].into_iter().all(is)
        });
        wait("the StatefulSet to be upgraded", &|| {
            let all = self.get("statefulset/set");
            let (spec, status) = (&all["spec"], &all["status"]);
            let is = |field: &str| status[field] == spec["replicas"];
            status["observedGeneration"] == all["metadata"]["generation"]
                && status["currentRevision"] == status["updateRevision"]
                && ["replicas", "currentReplicas", "readyReplicas"].into_iter().all(is)
        });
        wait("the Job to be done", &|| {
            let all = self.get("job/items");
            let complete = |c: &Value| c["type"] == "Complete" && c["status"] == "True";
            all["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(complete))
                && number(&all["status"]["succeeded"]) == ITEMS as u64
        });
        census::nothing_is_orphaned(self.world);
    }

    /// Nothing ran twice that must run once.
    fn verdict(&self) {
        let read = |file: &str| fs::read_to_string(self.shared.join(file)).unwrap_or_default();
        assert_eq!(read("twice"), "", "two of one name were alive at once");
        let items = read("items");
        let mut begun: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for line in items.lines() {
            let [what, item, uid] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            let item = item.parse().unwrap_or_else(|_| panic!("{line:?}"));
            if what == "begin" {
                begun.entry(item).or_default().push(uid);
            } else {
                assert!(begun[&item].contains(&uid), "{line:?}");
            }
        }
        assert_eq!(begun.keys().copied().collect::<Vec<_>>(), (0..ITEMS).collect::<Vec<_>>());
        for (item, pods) in begun {
            let once: BTreeSet<&&str> = pods.iter().collect();
            assert_eq!(once.len(), pods.len(), "a pod of item {item} ran twice: {items}");
            // Only who was killed is followed by another.
            let spared = pods.iter().filter(|uid| !self.killed.contains(**uid)).count();
            assert!(spared <= 1, "item {item} was done again though nobody had killed it: {items}");
        }
        let pods = self.get("pods");
        for pod in pods["items"].as_array().expect("a list") {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            let failed = pod["status"]["phase"] == "Failed";
            assert!(!failed || self.killed.contains(uid), "failed though nobody had killed it: {pod}");
        }
    }

    /// Everything goes.
    fn end(&self) {
        let cluster = &self.world.cluster;
        let limit = "--timeout=120s";
        cluster.kubectl("default", &["delete", "namespace", &self.ns, limit]);
        census::nothing_is_orphaned(self.world);
    }
}

/// The process of the shim with this folder, if it lives.
pub fn pid_of(shim: &Path) -> Option<u32> {
    let text = fs::read(shim.join("process.json")).ok()?;
    let pid = serde_json::from_slice::<Value>(&text).ok()?["pid"].as_u64()?;
    // Numbers are used again.
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    String::from_utf8_lossy(&command).contains(shim.to_str()?).then_some(pid as u32)
}
