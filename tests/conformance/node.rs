//! Taints that drive pods away, and runtime classes.

use serde_json::{Value, json};

use crate::trial::{Trial, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    classes_of_runtimes: "RuntimeClass API";
];

/// They change the node.
pub const ALONE: &[Check] = checks![
    a_taint_that_goes_in_time: "Taint, Pod Eviction on taint removal";
    tolerated_for_so_long: "Pod Eviction, Toleration limits";
];

const TAINT: &str = "kubernetes.io/e2e-evict-taint-key";

fn tolerates(name: &str, seconds: u32) -> Value {
    let toleration = json!({"key": TAINT, "operator": "Equal", "value": "evictTaintVal", "effect": "NoExecute",
                            "tolerationSeconds": seconds});
    sleeps().named(name).spec(json!({"tolerations": [toleration]})).object()
}

fn taint(t: &Trial, how: &str) {
    t.kubectl(&["taint", "node", "node-1", &format!("{TAINT}{how}")]);
}

fn a_taint_that_goes_in_time(t: &Trial) {
    t.create(&[tolerates("stays", 6)]);
    t.kubectl(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=60s"]);
    taint(t, "=evictTaintVal:NoExecute");
    t.inside_pod("stays", "busybox sleep 2");
    taint(t, ":NoExecute-");
    // Longer than it would have been tolerated.
    t.inside_pod("stays", "busybox sleep 6");
    assert!(t.get(&["pod", "stays"])["metadata"]["deletionTimestamp"].is_null());
}

fn tolerated_for_so_long(t: &Trial) {
    t.create(&[tolerates("short", 2), tolerates("long", 600)]);
    t.kubectl(&["wait", "--for=condition=Ready", "pod/short", "pod/long", "--timeout=60s"]);
    taint(t, "=evictTaintVal:NoExecute");
    t.until_gone(&["pod", "short"]);
    let stays = t.get(&["pod", "long"])["metadata"]["deletionTimestamp"].is_null();
    taint(t, ":NoExecute-");
    assert!(stays);
}

fn classes_of_runtimes(t: &Trial) {
    let class = |name: &str| {
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
               "metadata": {"name": name, "labels": {"of": "the-check"}}, "handler": "handler"})
    };
    t.create(&[class("one"), class("two")]);
    assert_eq!(t.names("runtimeclasses", "of=the-check"), ["one", "two"]);
    t.kubectl(&["label", "runtimeclass", "one", "patched=yes"]);
    let refused = t.attempt(&["patch", "runtimeclass", "one", "-p", r#"{"handler":"other"}"#]);
    assert!(!refused.ok && refused.err.contains("immutable"), "{refused:?}");
    assert_eq!(t.names("runtimeclasses", "patched=yes"), ["one"]);
    t.kubectl(&["delete", "runtimeclass", "one"]);
    t.kubectl(&["delete", "--raw", "/apis/node.k8s.io/v1/runtimeclasses?labelSelector=of%3Dthe-check"]);
    assert!(t.names("runtimeclasses", "of=the-check").is_empty());
}
