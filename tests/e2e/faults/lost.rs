//! A node that is lost: its pods keep their names until it is certain that they have ended.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::beside::NODE;
use crate::cluster::Cluster;
use crate::single::told;
use crate::{World, census};

pub const TESTS: &[crate::Test] = &[("lost::a_name_is_held_until_its_pod_has_ended", a_name_is_held)];

/// What is waited for includes the time after which a node counts as lost.
const LONG: Duration = Duration::from_secs(120);

const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  serviceName: set
  replicas: 1
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
        - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      volumes: [{name: shared, hostPath: {path: SHARED}}]
      containers:
        - name: main
          image: locker:1
          env: [{name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]
          command: [/bin/busybox, sh, -c]
          args: ["exec 9>/shared/lock; flock -n 9 || echo $UID >> /shared/twice; echo $UID >> /shared/begun; trap 'exit 0' TERM; while :; do busybox sleep 0.1; done"]
          volumeMounts: [{name: shared, mountPath: /shared}]
"#;

/// The only pod of the set.
struct Member<'a>(&'a Cluster, &'a str);

impl Member<'_> {
    fn get(&self) -> Value {
        let said = self.0.try_kubectl(self.1, &["get", "pod", "set-0", "-o", "json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    fn uid(pod: &Value) -> String {
        pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until another one than `before` is Ready on this node.
    fn follows(&self, before: &str, node: &str) -> String {
        let mut pod = Value::Null;
        self.0.wait_at_most(LONG, &format!("set-0 to be Ready on {node}"), || {
            pod = self.get();
            let conditions = pod["status"]["conditions"].as_array();
            let ready = conditions
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
            ready && Self::uid(&pod) != before && pod["spec"]["nodeName"] == node
        });
        Self::uid(&pod)
    }

    /// Waits until it is marked for deletion because its node is lost.
    fn is_marked(&self, uid: &str) {
        self.0.wait_at_most(LONG, "the pod to be marked for deletion", || {
            let pod = self.get();
            assert_eq!(Self::uid(&pod), uid, "replaced while nobody knows whether it has ended");
            pod["metadata"]["deletionTimestamp"].is_string()
        });
    }
}

fn ready(cluster: &Cluster) -> String {
    let node = cluster.get("default", &["node", NODE]);
    let conditions = node["status"]["conditions"].as_array().expect("conditions").clone();
    let found = conditions.into_iter().find(|c| c["type"] == "Ready").expect("a Ready condition");
    found["status"].as_str().unwrap_or_default().to_owned()
}

fn a_name_is_held(world: &World) {
    let (cluster, beside, ns) = (&world.cluster, &world.beside, "lost");
    cluster.namespace(ns);
    let shared = cluster.folder("lost");
    let read = |file: &str| fs::read_to_string(shared.join(file)).unwrap_or_default();
    let member = Member(cluster, ns);
    cluster.kubectl("default", &["cordon", "node-1"]);
    let made = cluster.with_manifest(ns, &["apply"], &SET.replace("SHARED", &shared.display().to_string()));
    assert!(made.ok, "{made:?}");
    let first = member.follows("", NODE);

    // By force another one is made at once; the node ends the old one before it begins the new one.
    beside.kill();
    cluster.kubectl(ns, &["delete", "pod", "set-0", "--force", "--grace-period=0"]);
    cluster.wait_for("another pod", || !["", &*first].contains(&&*Member::uid(&member.get())));
    assert_eq!(read("begun").lines().count(), 1);
    beside.start();
    let second = member.follows(&first, NODE);

    // A node that hangs: its pod lives, so nobody gets its name.
    beside.signal("-STOP");
    member.is_marked(&second);
    assert_eq!(ready(cluster), "Unknown");
    told(cluster, ns, "set-0", "NodeNotReady", "Node is not ready");
    told(cluster, ns, "set-0", "TaintManagerEviction", "Marking for deletion Pod lost/set-0");
    let lock = Command::new("flock").args(["-n"]).arg(shared.join("lock")).arg("true").status();
    assert!(!lock.expect("flock is there").success(), "the pod of a node that is silent lives");
    // The set's controller has looked since.
    cluster.kubectl(ns, &["annotate", "statefulset", "set", "look=again"]);
    cluster.wait_for("the controller's look", || {
        let set = cluster.get(ns, &["statefulset", "set"]);
        set["status"]["observedGeneration"] == set["metadata"]["generation"]
            && set["status"]["readyReplicas"].as_u64().unwrap_or(0) == 0
    });
    assert_eq!(Member::uid(&member.get()), second);
    beside.signal("-CONT");
    let third = member.follows(&second, NODE);
    cluster.wait_at_most(LONG, "the node to be well", || ready(cluster) == "True");

    // A node that is down for good, and somebody says so.
    cluster.kubectl("default", &["uncordon", "node-1"]);
    beside.kill();
    beside.kill_shims();
    member.is_marked(&third);
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    cluster.kubectl("default", &["taint", "node", NODE, taint]);
    let fourth = member.follows(&third, "node-1");
    cluster.kubectl("default", &["taint", "node", NODE, &format!("{taint}-")]);
    beside.start();
    cluster.wait_at_most(LONG, "the node to be well", || ready(cluster) == "True");
    census::nothing_is_orphaned(world);

    assert_eq!(read("begun").lines().collect::<Vec<_>>(), [first, second, third, fourth]);
    assert_eq!(read("twice"), "", "two of one name were alive at once");
    cluster.kubectl("default", &["delete", "namespace", ns, "--timeout=60s"]);
    census::nothing_is_orphaned(world);
}
