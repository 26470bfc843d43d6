use proptest::prelude::*;
use serde_json::json;

use super::*;

fn after(begun: Instant, seconds: u64) -> Instant {
    begun + Duration::from_secs(seconds)
}

fn wish(current: i32, desired: i32) -> Wish {
    Wish { current, desired, min: 1, max: 100 }
}

fn behavior(value: serde_json::Value) -> Behavior {
    testkit::object(value)
}

#[test]
fn without_rules_it_doubles_at_most_and_shrinks_after_five_minutes() {
    let (mut history, t) = (History::default(), Instant::now());
    history.begin(3, DOWN_WINDOW, t);
    let granted = history.grant(wish(3, 20), None, t);
    assert_eq!((granted.replicas, granted.limited, granted.limit.0), (6, true, "ScaleUpLimit"));
    let granted = history.grant(Wish { max: 5, ..wish(3, 20) }, None, after(t, 1));
    assert_eq!((granted.replicas, granted.limit), (5, TOO_MANY));
    // What was wished for, not what was granted, counts for five minutes.
    let granted = history.grant(wish(20, 1), None, after(t, 299));
    assert_eq!((granted.replicas, granted.stabilized), (20, DOWN_STABILIZED));
    let granted = history.grant(wish(20, 1), None, after(t, 302));
    assert_eq!((granted.replicas, granted.stabilized, granted.limit), (1, READY, IN_RANGE));
    let granted = history.grant(Wish { min: 2, ..wish(20, 1) }, None, after(t, 303));
    assert_eq!((granted.replicas, granted.limited, granted.limit), (2, true, TOO_FEW));
    assert_eq!(history.grant(wish(1, 9), None, after(t, 304)).replicas, 4, "four can always be had");
}

#[test]
fn everybodys_window_holds_where_an_autoscaler_does_not_say() {
    let minute = Duration::from_secs(60);
    for behavior in [None, Some(behavior(json!({"scaleDown": {"policies": []}})))] {
        let (mut history, t) = (History::default(), Instant::now());
        history.begin(9, minute, t);
        let early = history.grant(wish(9, 8), behavior.as_ref(), after(t, 59)).replicas;
        let late = history.grant(wish(9, 8), behavior.as_ref(), after(t, 61)).replicas;
        assert_eq!((early, late), (9, 8), "{behavior:?}");
    }
}

#[test]
fn policies_limit_what_happens_in_their_period() {
    let rules = |select: &str| {
        behavior(json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 30}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 30}]},
        }))
    };
    let t = Instant::now();
    let first = |select: &str, current, desired| {
        let granted = History::default().grant(wish(current, desired), Some(&rules(select)), t);
        (granted.replicas, granted.limit.0)
    };
    assert_eq!(first("Max", 20, 90), (30, "ScaleUpLimit"));
    assert_eq!(first("Min", 20, 90), (24, "ScaleUpLimit"));
    assert_eq!(first("Disabled", 20, 90), (20, "ScaleUpLimit"));
    assert_eq!(first("Max", 20, 1), (10, "ScaleDownLimit"));
    assert_eq!(first("Min", 20, 1), (16, "ScaleDownLimit"));
    assert_eq!(first("Disabled", 20, 1), (20, "ScaleDownLimit"));
    assert_eq!(first("Max", 1, 2), (2, "DesiredWithinRange"));

    let (mut history, min) = (History::default(), rules("Min"));
    history.note(Some(&min), 20, 24, t);
    let granted = history.grant(wish(24, 90), Some(&min), after(t, 59));
    assert_eq!((granted.replicas, granted.limited), (24, true), "four within the minute");
    let granted = history.grant(wish(24, 90), Some(&min), after(t, 60));
    assert_eq!(granted.replicas, 28);
    // What went down within the period may come up again besides.
    history.note(Some(&min), 24, 20, after(t, 61));
    assert_eq!(history.grant(wish(20, 90), Some(&min), after(t, 62)).replicas, 28);
}

#[test]
fn windows_hold_back_both_ways() {
    let rules = behavior(json!({
        "scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies":
            [{"type": "Pods", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 120, "selectPolicy": "Max", "policies":
            [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }));
    let (mut history, t) = (History::default(), Instant::now());
    history.begin(5, DOWN_WINDOW, t);
    let granted = history.grant(wish(5, 9), Some(&rules), after(t, 15));
    assert_eq!((granted.replicas, granted.stabilized), (5, UP_STABILIZED));
    let granted = history.grant(wish(5, 8), Some(&rules), after(t, 61));
    assert_eq!((granted.replicas, granted.stabilized), (8, READY));
    let granted = history.grant(wish(8, 2), Some(&rules), after(t, 62));
    assert_eq!((granted.replicas, granted.stabilized), (8, DOWN_STABILIZED));
    let granted = history.grant(wish(8, 2), Some(&rules), after(t, 136));
    assert_eq!(granted.replicas, 8, "eight was wished for less than two minutes ago");
    assert_eq!(history.grant(wish(8, 2), Some(&rules), after(t, 182)).replicas, 2);
    // Without a window of its own, shrinking waits as long as everywhere.
    let mut rules = rules;
    rules.scale_down.as_mut().unwrap().stabilization_window_seconds = None;
    let mut history = History::default();
    history.begin(5, DOWN_WINDOW, t);
    assert_eq!(history.grant(wish(5, 1), Some(&rules), after(t, 299)).replicas, 5);
    assert_eq!(history.grant(wish(5, 1), Some(&rules), after(t, 300)).replicas, 1);
}

fn rules() -> impl Strategy<Value = serde_json::Value> {
    let policy = (any::<bool>(), 1_i32..200, 1_i32..600).prop_map(|(pods, value, period)| {
        json!({"type": if pods { "Pods" } else { "Percent" }, "value": value, "periodSeconds": period})
    });
    let select = prop::sample::select(vec!["Max", "Min", "Disabled"]);
    (prop::collection::vec(policy, 1..4), select, 0_i32..600).prop_map(|(policies, select, window)| {
        json!({"policies": policies, "selectPolicy": select, "stabilizationWindowSeconds": window})
    })
}

proptest! {
    /// Whatever is wished for when, the bounds hold, no step is larger than the rules allow, and what did not come
    /// true is said.
    #[test]
    fn the_bounds_always_hold(
        up in rules(), down in rules(), with_rules in any::<bool>(), min in 0_i32..10, more in 0_i32..50,
        steps in prop::collection::vec((0_i32..200, 0_u64..400), 1..40),
    ) {
        let rules = behavior(json!({"scaleUp": up, "scaleDown": down}));
        let rules = with_rules.then_some(&rules);
        let (mut history, mut now, max) = (History::default(), Instant::now(), min + more);
        let mut current = min;
        history.begin(current, DOWN_WINDOW, now);
        for (desired, later) in steps {
            now += Duration::from_secs(later);
            let granted = history.grant(Wish { current, desired, min, max }, rules, now);
            prop_assert!((min..=max).contains(&granted.replicas), "{granted:?}");
            prop_assert!(rules.is_some() || granted.replicas <= (current * 2).max(4));
            if granted.replicas != desired {
                prop_assert!(granted.limited || granted.stabilized != READY);
            }
            if granted.replicas != current {
                history.note(rules, current, granted.replicas, now);
                current = granted.replicas;
            }
        }
        prop_assert!(history.wishes.len() <= 41 && history.ups.len() <= 40);
    }

    /// A wish that goes up and down does not move the pods while the window for shrinking is open.
    #[test]
    fn a_restless_wish_moves_nothing(low in 1_i32..5, steps in prop::collection::vec(1_u64..20, 1..15)) {
        let (mut history, mut now) = (History::default(), Instant::now());
        history.begin(8, DOWN_WINDOW, now);
        for (i, later) in steps.into_iter().enumerate() {
            now += Duration::from_secs(later);
            let desired = if i % 2 == 0 { low } else { 8 };
            prop_assert_eq!(history.grant(wish(8, desired), None, now).replicas, 8);
        }
    }
}
