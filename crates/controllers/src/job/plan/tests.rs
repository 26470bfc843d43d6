use std::collections::HashSet;

use k8s_openapi::api::batch::v1::JobStatus;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::backoff::Record;
use super::super::tally::tally;
use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

fn spec(more: Value) -> JobSpec {
    let mut spec = json!({"parallelism": 3, "completions": 5, "template": {}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    testkit::object(spec)
}

fn pod(name: &str, phase: &str, index: Option<u32>, going: bool) -> Arc<PodView> {
    let annotations = index.map(|index| json!({INDEX: index.to_string()}));
    Arc::new(testkit::object(json!({
        "metadata": {"name": name, "uid": name, "annotations": annotations, "finalizers": [FINALIZER],
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z")},
        "spec": {"nodeName": "n", "containers": []}, "status": {"phase": phase}})))
}

fn step(spec: &JobSpec, status: Value, pods: &Pods) -> Step {
    let status: JobStatus = testkit::object(status);
    let tally = tally(spec, &status, pods, &HashSet::new(), Record::default());
    plan(spec, pods, &tally, NOW.parse().unwrap())
}

#[test]
fn as_many_as_are_missing() {
    let running = [pod("a", "Running", None, false)];
    assert_eq!(step(&spec(json!({})), json!({}), &[]), Step::Create(3));
    assert_eq!(step(&spec(json!({})), json!({}), &running), Step::Create(2));
    assert_eq!(step(&spec(json!({})), json!({"succeeded": 4}), &running), Step::Nothing);
    assert_eq!(step(&spec(json!({})), json!({"succeeded": 5}), &running), Step::Delete(running.to_vec()));
    assert_eq!(step(&spec(json!({"suspend": true})), json!({}), &running), Step::Delete(running.to_vec()));
    assert_eq!(step(&spec(json!({"suspend": true})), json!({}), &[]), Step::Nothing);
    assert_eq!(step(&spec(json!({"parallelism": 0})), json!({}), &[]), Step::Nothing);
    let any = spec(json!({"completions": null}));
    assert_eq!(step(&any, json!({}), &running), Step::Create(2));
    assert_eq!(step(&any, json!({"succeeded": 1}), &running), Step::Nothing);
}

#[test]
fn a_pod_on_its_way_out_may_keep_its_place() {
    let going = [pod("a", "Running", Some(0), true)];
    let indexed = |policy: &str| {
        spec(json!({"completionMode": "Indexed", "completions": 2, "podReplacementPolicy": policy}))
    };
    assert_eq!(step(&indexed("TerminatingOrFailed"), json!({}), &going), Step::CreateIndexes(vec![0, 1]));
    assert_eq!(step(&indexed("Failed"), json!({}), &going), Step::CreateIndexes(vec![1]));
    let plain = spec(json!({"podReplacementPolicy": "Failed"}));
    assert_eq!(step(&plain, json!({}), &[pod("a", "Running", None, true)]), Step::Create(2));
}

#[test]
fn twins_and_strangers_go_first() {
    let indexed = spec(json!({"completionMode": "Indexed"}));
    let pods = [
        pod("a", "Running", Some(0), false),
        pod("b", "Pending", Some(0), false),
        pod("c", "Running", Some(9), false),
        pod("d", "Running", None, false),
        pod("e", "Running", Some(1), false),
    ];
    let Step::Delete(going) = step(&indexed, json!({}), &pods) else { panic!("nothing goes") };
    let mut names: Vec<&str> = going.iter().map(|pod| uid(pod)).collect();
    names.sort_unstable();
    assert_eq!(names, ["b", "c", "d"]);
}

#[test]
fn waits_after_failures() {
    let mut failed = (*pod("a", "Failed", Some(0), false)).clone();
    let status = failed.status.as_mut().unwrap();
    status.container_statuses =
        Some(vec![testkit::object(json!({"state": {"terminated": {"finishedAt": "2026-01-01T00:59:57Z"}}}))]);
    let pods = [Arc::new(failed)];
    assert_eq!(step(&spec(json!({})), json!({}), &pods), Step::Wait(Duration::from_secs(7)));
    let each = |parallelism: u32| {
        spec(json!({"completionMode": "Indexed", "backoffLimitPerIndex": 2, "parallelism": parallelism}))
    };
    assert_eq!(step(&each(1), json!({}), &pods), Step::Wait(Duration::from_secs(7)));
    assert_eq!(step(&each(3), json!({}), &pods), Step::CreateIndexes(vec![1, 2]));
}

proptest! {
    /// Never more than wanted, never the same index twice, and as many as there is room for.
    #[test]
    fn fills_up_and_no_more(
        parallelism in 0u32..12, completions in 1u32..12,
        active in prop::collection::btree_set(0u32..12, 0..6), done in prop::collection::btree_set(0u32..12, 0..6),
    ) {
        let spec = spec(json!({"completionMode": "Indexed", "parallelism": parallelism, "completions": completions}));
        let done: Vec<u32> = done.into_iter().filter(|i| *i < completions && !active.contains(i)).collect();
        let pods: Vec<Arc<PodView>> = active.iter().map(|i| pod(&format!("p{i}"), "Running", Some(*i), false)).collect();
        let succeeded = Indexes::default().with(done.iter().copied());
        let step = step(&spec, json!({"completedIndexes": succeeded.to_string()}), &pods);
        let valid = active.iter().filter(|i| **i < completions).count();
        let wanted = (parallelism as usize).min(completions as usize - done.len());
        match step {
            Step::Delete(going) => {
                prop_assert!(valid < active.len() || active.len() > wanted);
                prop_assert_eq!(going.len(), (active.len() - wanted.min(active.len())).max(active.len() - valid));
            }
            Step::CreateIndexes(new) => {
                prop_assert!(new.iter().all(|i| *i < completions && !active.contains(i) && !done.contains(i)));
                prop_assert!(new.is_sorted_by(|a, b| a < b));
                prop_assert_eq!(new.len() + active.len(), wanted);
            }
            Step::Nothing => prop_assert_eq!((valid, active.len()), (active.len(), wanted)),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
