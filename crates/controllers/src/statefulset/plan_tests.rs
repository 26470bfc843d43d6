use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";
const REVISIONS: Revisions<'static> = Revisions { current: "old", update: "new" };

fn set(replicas: i32, more: Value) -> StatefulSet {
    let mut spec = json!({"replicas": replicas, "selector": {}, "template": {}, "serviceName": "s",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    types::patch::merge_patch(&mut spec, more);
    testkit::object(json!({"metadata": {"name": "web"}, "spec": spec}))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Pending,
    Unready,
    Ready,
    Failed,
    Going,
}

fn pod(ordinal: i32, is: Is, revision: &str) -> Arc<PodView> {
    let phase = match is {
        Is::Pending => "Pending",
        Is::Failed => "Failed",
        _ => "Running",
    };
    let ready = if matches!(is, Is::Ready | Is::Going) { "True" } else { "False" };
    let name = format!("web-{ordinal}");
    Arc::new(testkit::object(json!({
        "metadata": {"name": name, "uid": name, "deletionTimestamp": (is == Is::Going).then_some(NOW),
            "labels": {"controller-revision-hash": revision, "statefulset.kubernetes.io/pod-name": name}},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:59:50Z"}]},
    })))
}

fn told(set: &StatefulSet, pods: &[Arc<PodView>]) -> Vec<String> {
    let steps = plan(set, REVISIONS, pods, NOW.parse().unwrap());
    let said = |step: Step| match step {
        Step::Create { ordinal, current } => format!("+{ordinal}{}", if current { " old" } else { "" }),
        Step::Provide(ordinal) => format!("claims {ordinal}"),
        Step::Label(pod) => format!("label {}", pod.metadata.name.as_deref().unwrap()),
        Step::Delete(pod, why) => format!("-{} {why:?}", ordinal(set, &pod).unwrap()),
    };
    steps.into_iter().map(said).collect()
}

#[test]
fn in_order_each_waits_for_the_one_before() {
    let three = set(3, json!({}));
    assert_eq!(told(&three, &[]), ["+0"]);
    assert_eq!(told(&three, &[pod(0, Is::Pending, "new")]), ["claims 0"]);
    assert!(told(&three, &[pod(0, Is::Unready, "new")]).is_empty());
    assert_eq!(told(&three, &[pod(0, Is::Ready, "new")]), ["+1"]);
    let slow = set(3, json!({"minReadySeconds": 20}));
    assert!(told(&slow, &[pod(0, Is::Ready, "new")]).is_empty());
    let parallel = set(3, json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(told(&parallel, &[pod(1, Is::Unready, "new")]), ["+0", "+2"]);
    let shifted = set(2, json!({"ordinals": {"start": 5}}));
    assert_eq!(told(&shifted, &[pod(0, Is::Ready, "new"), pod(5, Is::Ready, "new")]), ["+6"]);
}

#[test]
fn what_has_ended_goes_and_is_made_anew_when_it_is_gone() {
    let two = set(2, json!({}));
    assert_eq!(told(&two, &[pod(0, Is::Failed, "new"), pod(1, Is::Ready, "new")]), ["-0 Ended"]);
    assert!(told(&two, &[pod(0, Is::Going, "new"), pod(1, Is::Ready, "new")]).is_empty());
}

#[test]
fn the_last_goes_first() {
    let one = set(1, json!({}));
    let ready = |n| pod(n, Is::Ready, "new");
    assert_eq!(told(&one, &[ready(0), ready(1), ready(2)]), ["-2 Scaled"]);
    assert!(told(&one, &[ready(0), ready(1), pod(2, Is::Going, "new")]).is_empty());
    // Those before it come first.
    assert!(told(&one, &[pod(0, Is::Unready, "new"), ready(1)]).is_empty());
    let parallel = set(0, json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(told(&parallel, &[ready(0), ready(1)]), ["-1 Scaled", "-0 Scaled"]);
}

#[test]
fn an_update_goes_from_the_last_down_to_the_partition() {
    let old = |n| pod(n, Is::Ready, "old");
    let four: Vec<_> = (0..4).map(old).collect();
    assert_eq!(told(&set(4, json!({})), &four), ["-3 Updated"]);
    let strategy = |rolling: Value| set(4, json!({"updateStrategy": {"rollingUpdate": rolling}}));
    assert!(told(&strategy(json!({"partition": 4})), &four).is_empty());
    assert_eq!(told(&strategy(json!({"partition": 3, "maxUnavailable": 3})), &four), ["-3 Updated"]);
    assert_eq!(told(&strategy(json!({"maxUnavailable": "50%"})), &four), ["-3 Updated", "-2 Updated"]);
    assert!(
        told(&set(4, json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}})), &four)
            .is_empty()
    );
    // Below the partition, what is missing is made as it was.
    assert_eq!(told(&strategy(json!({"partition": 1})), &four[1..]), ["+0 old"]);
    let parallel = set(3, json!({"podManagementPolicy": "Parallel"}));
    let broken = [pod(0, Is::Unready, "old"), old(1), old(2)];
    assert_eq!(told(&parallel, &broken), ["-2 Updated"], "one after the other, whatever the first does");
    assert!(told(&parallel, &[old(0), old(1), pod(2, Is::Unready, "new")]).is_empty());
    let two = json!({"podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}});
    assert_eq!(told(&set(3, two), &broken), ["-0 Updated"], "it is missing anyway");
}

fn any_pods() -> impl Strategy<Value = Vec<(Is, bool)>> {
    let is = prop_oneof![
        1 => Just(Is::Pending),
        1 => Just(Is::Unready),
        6 => Just(Is::Ready),
        1 => Just(Is::Failed),
        1 => Just(Is::Going)
    ];
    prop::collection::vec((is, any::<bool>()), 0..8)
}

proptest! {
    #[test]
    fn the_rules_hold(
        pods in any_pods(),
        absent in prop::collection::hash_set(0..8_i32, 0..3),
        replicas in 0..8_i32,
        partition in 0..6_i32,
        max in 1..4_i32,
        parallel: bool,
    ) {
        let set = set(replicas, json!({
            "podManagementPolicy": if parallel { "Parallel" } else { "OrderedReady" },
            "updateStrategy": {"rollingUpdate": {"partition": partition, "maxUnavailable": max}},
        }));
        let now = NOW.parse().unwrap();
        let pods: Vec<_> = (0..).zip(&pods).filter(|(n, _)| !absent.contains(n))
            .map(|(n, (is, new))| pod(n, *is, if *new { "new" } else { "old" })).collect();
        let at = |n: i32| pods.iter().find(|p| ordinal(&set, p) == Some(n));
        let serves = |n: i32| at(n).is_some_and(|p| is_available(&set, p, now));
        let steps = plan(&set, REVISIONS, &pods, now);
        let mut changes = 0;
        let mut updated = 0;
        for step in &steps {
            match step {
                Step::Create { ordinal, current } => {
                    changes += 1;
                    // Never a second pod of a name.
                    prop_assert!(at(*ordinal).is_none() && ordinals(&set).contains(ordinal));
                    prop_assert!(parallel || (0..*ordinal).all(serves));
                    prop_assert_eq!(*current, *ordinal < partition);
                }
                Step::Delete(pod, why) => {
                    changes += 1;
                    let n = ordinal(&set, pod).unwrap();
                    prop_assert!(!is_deleting(&pod.metadata));
                    prop_assert_eq!(*why == Why::Scaled, n >= replicas);
                    if *why == Why::Scaled {
                        prop_assert!(parallel || (n + 1..8).all(|later| at(later).is_none()));
                        prop_assert!(parallel || (0..replicas).all(serves));
                    }
                    if *why == Why::Updated {
                        prop_assert!(n >= partition && revision_of(pod) == Some("old"));
                        updated += usize::from(serves(n));
                    }
                }
                Step::Provide(n) => prop_assert!(at(*n).is_some()),
                Step::Label(_) => prop_assert!(false, "all have their labels"),
            }
        }
        let rolls = steps.iter().any(|s| matches!(s, Step::Delete(_, Why::Updated)));
        prop_assert!(parallel || rolls || changes <= 1);
        let missing = (0..replicas).filter(|n| !serves(*n)).count();
        prop_assert!(updated == 0 || missing + updated <= max as usize);
        // Something is done, or somebody is waited for, or all is as it shall be.
        let done = (0..replicas).all(|n| serves(n) && (n < partition || revision_of(at(n).unwrap()) == Some("new")))
            && pods.iter().all(|p| ordinal(&set, p).unwrap() < replicas);
        prop_assert!(changes > 0 || done || pods.iter().any(|p| !is_available(&set, p, now)));
    }
}
