use proptest::prelude::*;
use serde_json::json;

use super::*;

fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    let value = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n));
    let mut d = testkit::deployment("web", replicas);
    d.spec.as_mut().unwrap().strategy = Some(testkit::object(json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": value(surge), "maxUnavailable": value(unavailable)}})));
    d
}

fn set(name: &str, replicas: i32, available: i32) -> Arc<ReplicaSet> {
    let mut set = testkit::replica_set(name, replicas);
    set.metadata.uid = Some(name.into());
    set.status = Some(testkit::object(json!({"replicas": replicas, "availableReplicas": available})));
    Arc::new(set)
}

fn shown(resizes: &[Resize]) -> Vec<(String, i32)> {
    resizes.iter().map(|(s, n)| (s.metadata.name.clone().unwrap(), *n)).collect()
}

#[test]
fn fences() {
    for (replicas, surge, unavailable, want) in [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (4, "0", "0", (0, 1)),
        (10, "0%", "1%", (0, 1)),
        (10, "100%", "50%", (10, 5)),
        (3, "2", "1", (2, 1)),
    ] {
        assert_eq!(
            fenceposts(&deployment(replicas, surge, unavailable)),
            want,
            "{replicas} {surge} {unavailable}"
        );
    }
    assert_eq!(max_unavailable(&deployment(2, "0", "5")), 2);
}

#[test]
fn broken_pods_of_old_sets_go_first() {
    let d = deployment(10, "0", "2");
    let sets = Sets { new: Some(set("new", 0, 0)), old: vec![set("a", 5, 2), set("b", 5, 5)] };
    assert_eq!(shown(&roll(&d, &sets)), [("a".into(), 3)]);
}

#[test]
fn a_deployment_scaled_in_a_rollout_is_shared_out() {
    let d = deployment(20, "0", "0");
    let with = |name: &str, n: i32| {
        let mut s = (*set(name, n, n)).clone();
        s.metadata.annotations = Some([(revision::MAX.into(), "10".into())].into());
        Arc::new(s)
    };
    let sets = Sets { new: Some(with("new", 6)), old: vec![with("old", 4)] };
    assert_eq!(shown(&scale(&d, &sets)), [("new".into(), 12), ("old".into(), 8)]);
}

proptest! {
    /// From any state, a rollout ends, and on the way there are never too many nor too few pods.
    #[test]
    fn a_rollout_ends_within_its_bounds(
        replicas in 0..30i32, surge in 0..60i32, unavailable in 0..60i32, percent: bool,
    ) {
        let text = |n: i32| if percent { format!("{n}%") } else { n.to_string() };
        let d = deployment(replicas, &text(surge), &text(unavailable));
        let mut sets = Sets { new: Some(set("new", 0, 0)), old: vec![set("old", replicas, replicas)] };
        let (surge, _) = fenceposts(&d);
        for step in 0.. {
            prop_assert!(step < 200, "no end");
            let resizes = roll(&d, &sets);
            if resizes.is_empty() {
                break;
            }
            // Shrinking takes available pods away at once; growing brings unavailable ones first.
            for (changed, size) in resizes {
                let fresh = set(changed.metadata.name.as_deref().unwrap(), size, size.min(available(&changed)));
                for known in sets.old.iter_mut().chain(&mut sets.new) {
                    if known.metadata.name == fresh.metadata.name {
                        *known = fresh.clone();
                    }
                }
            }
            let total: i32 = sets.all().map(|s| super::replicas(s)).sum();
            let ready: i32 = sets.all().map(|s| available(s)).sum();
            prop_assert!(total <= replicas + surge);
            prop_assert!(ready >= replicas - max_unavailable(&d));
            // Then the new pods become available.
            let new = sets.new.take().unwrap();
            sets.new = Some(set("new", super::replicas(&new), super::replicas(&new)));
        }
        prop_assert_eq!(super::replicas(sets.new.as_ref().unwrap()), replicas);
        prop_assert_eq!(super::replicas(&sets.old[0]), 0);
    }
}
