use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::super::backoff::Record;
use super::super::tally::tally;
use super::*;

fn pod(number: usize, phase: &str, tracked: bool) -> Arc<PodView> {
    Arc::new(testkit::object(json!({
        "metadata": {"uid": format!("u{number}"), "name": format!("p{number}"),
            "annotations": {INDEX: number.to_string()},
            "finalizers": if tracked { vec![FINALIZER] } else { vec![] }},
        "status": {"phase": phase}})))
}

/// A world in which steps of the controller can be cut short.
struct World {
    job: Job,
    /// The phase of each pod, and whether it has its finalizer.
    pods: BTreeMap<usize, (&'static str, bool)>,
}

impl World {
    fn pods(&self) -> Vec<Arc<PodView>> {
        self.pods.iter().map(|(n, (phase, tracked))| pod(*n, phase, *tracked)).collect()
    }

    /// One look that is cut short after so many writes. The cache shows `pods`, and `released` is what it lags behind.
    fn step(&mut self, pods: &Pods, released: &HashSet<String>, writes: usize) {
        let spec = self.job.spec.clone().unwrap();
        let mut status = self.job.status.clone().unwrap_or_default();
        let tally = tally(&spec, &status, pods, released, Record::default());
        let tracked = track(&self.job, &spec, &mut status, pods, released, &tally, None);
        if writes == 0 {
            return;
        }
        self.job.status = Some(status.clone());
        let mut held = held(pods, released);
        for pod in tracked.release.iter().take(writes - 1) {
            let number = pod.metadata.name.as_deref().unwrap()[1..].parse().unwrap();
            self.pods.get_mut(&number).unwrap().1 = false;
            held.remove(uid(pod));
        }
        settle(&mut status, &held);
        if writes > tracked.release.len() + 1 {
            self.job.status = Some(status);
        }
    }
}

fn world(phases: &[&'static str], indexed: bool) -> World {
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    let spec = json!({"completionMode": mode, "completions": 50, "template": {}});
    World {
        job: testkit::object(json!({"spec": spec, "status": {}})),
        pods: phases.iter().enumerate().map(|(n, phase)| (n, (*phase, true))).collect(),
    }
}

proptest! {
    /// However often it is stopped in the middle, and however far the cache lags, each pod is counted once.
    #[test]
    fn each_pod_is_counted_once(
        phases in prop::collection::vec(prop::sample::select(vec!["Succeeded", "Failed", "Running"]), 0..12),
        cuts in prop::collection::vec((0usize..16, any::<bool>()), 0..8),
        indexed in any::<bool>(),
    ) {
        let mut world = world(&phases, indexed);
        let mut shown = world.pods();
        let mut released = HashSet::new();
        for (writes, restarts) in cuts {
            if restarts {
                // Whoever begins anew lists the pods anew.
                shown = world.pods();
                released.clear();
            }
            world.step(&shown, &released, writes);
            let without = world.pods.iter().filter(|(_, (_, tracked))| !tracked);
            released = without.map(|(n, _)| format!("u{n}")).collect();
            prop_assert!(world.job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0) as usize <= phases.len());
        }
        let shown = world.pods();
        world.step(&shown, &HashSet::new(), usize::MAX);
        world.step(&world.pods(), &HashSet::new(), usize::MAX);
        let status = world.job.status.unwrap();
        let count = |phase: &str| phases.iter().filter(|p| **p == phase).count() as i32;
        prop_assert_eq!((status.succeeded, status.failed), (positive(count("Succeeded")), positive(count("Failed"))));
        prop_assert!(is_settled(&status));
        prop_assert!(world.pods.values().all(|(phase, tracked)| *tracked == (*phase == "Running")));
    }
}

#[test]
fn so_many_at_a_time() {
    let mut world = world(&vec!["Failed"; 700], false);
    let (pods, none) = (world.pods(), HashSet::new());
    let spec = world.job.spec.clone().unwrap();
    let mut status = JobStatus::default();
    let first = tally(&spec, &status, &pods, &none, Record::default());
    let tracked = track(&world.job, &spec, &mut status, &pods, &none, &first, None);
    assert_eq!((tracked.release.len(), tracked.more), (MOST, true));
    world.step(&pods, &none, usize::MAX);
    assert_eq!(world.job.status.as_ref().unwrap().failed, Some(500));
    world.step(&world.pods(), &none, usize::MAX);
    assert_eq!(world.job.status.unwrap().failed, Some(700));
}

#[test]
fn a_failed_pod_of_an_index_stays_until_it_is_replaced() {
    let mut world = world(&["Failed", "Succeeded"], true);
    world.job.spec.as_mut().unwrap().backoff_limit_per_index = Some(1);
    world.step(&world.pods(), &HashSet::new(), usize::MAX);
    let status = world.job.status.clone().unwrap();
    assert_eq!((status.failed, status.completed_indexes.as_deref()), (None, Some("1")));
    assert!(world.pods[&0].1 && !world.pods[&1].1);
    let mut pods = world.pods();
    let mut another = (*pod(0, "Running", true)).clone();
    another.metadata.uid = Some("another".into());
    pods.push(Arc::new(another));
    world.step(&pods, &HashSet::new(), usize::MAX);
    assert_eq!((world.job.status.unwrap().failed, world.pods[&0].1), (Some(1), false));
}
