use proptest::prelude::*;
use serde_json::json;

use super::*;

const TENTH: Tolerance = Tolerance { down: 0.1, up: 0.1 };

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// A pod that asks for so much, and has been ready for long.
fn pod(name: &str, cpu: &str) -> PodView {
    at(name, cpu, "Running", "True", "2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z")
}

fn at(name: &str, cpu: &str, phase: &str, ready: &str, started: &str, turned: &str) -> PodView {
    testkit::object(json!({"metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": phase, "startTime": started,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": turned}]}}))
}

fn samples(values: &[i64]) -> Samples {
    let sample = |value| Sample { at: now(), window: Duration::from_secs(30), value };
    values.iter().enumerate().map(|(i, value)| (format!("p{i}"), sample(*value))).collect()
}

fn pods(count: usize) -> Vec<Arc<PodView>> {
    (0..count).map(|i| Arc::new(pod(&format!("p{i}"), "1"))).collect()
}

fn asked(pods: &[Arc<PodView>]) -> Asked<'_> {
    Asked { pods, current: pods.len() as i32, tolerance: TENTH, now: now(), settings: Default::default() }
}

fn cpu(pods: &[Arc<PodView>], values: &[i64], target: i32) -> Result<(i32, i32), String> {
    let requests = Requests { resource: "cpu", container: None };
    let found = by_utilization(&asked(pods), samples(values), &requests, target);
    found.map(|(n, u)| (n, u.percent)).map_err(|why| why.to_string())
}

#[test]
fn utilization_is_of_sums_and_rounded_down() {
    assert_eq!(cpu(&pods(3), &[300, 500, 700], 30), Ok((5, 50)));
    assert_eq!(cpu(&pods(3), &[300, 500, 700], 50), Ok((3, 50)));
    assert_eq!(cpu(&pods(3), &[320, 500, 699], 46), Ok((3, 50)), "within the tolerance");
    assert_eq!(cpu(&pods(5), &[100, 100, 100, 100, 100], 30), Ok((2, 10)));
    assert_eq!(
        cpu(&[], &[1], 30),
        Err("no pods returned by selector while calculating replica count".into())
    );
    assert_eq!(
        cpu(&pods(1), &[], 30),
        Err("did not receive metrics for targeted pods (pods might be unready)".into())
    );
}

#[test]
fn what_is_not_known_speaks_against_the_change() {
    // Up: the missing one uses nothing. Down: it uses all it asked for.
    assert_eq!(cpu(&pods(4), &[900, 900, 900], 60), Ok((5, 90)));
    assert_eq!(cpu(&pods(4), &[100, 450, 450], 50), Ok((4, 33)), "40 + 100 of four is above 50 %");
    assert_eq!(cpu(&pods(3), &[100, 100], 100), Ok((2, 10)));
    // A target above all that was asked for is what a missing one is taken to use.
    assert_eq!(cpu(&pods(3), &[1000, 1000], 300), Ok((2, 100)));
}

#[test]
fn starting_pods_do_not_drive_the_number_up() {
    let mut all = pods(2);
    // Started a minute ago, and unready; pending; failed; on its way out.
    let late = "2026-01-01T00:59:00Z";
    all.push(Arc::new(at("p2", "1", "Running", "False", late, late)));
    assert_eq!(cpu(&all, &[900, 900, 5000], 60), Ok((3, 90)), "1800 m of three is 60 %");
    all.push(Arc::new(at("p3", "1", "Pending", "False", late, late)));
    assert_eq!(cpu(&all, &[900, 900, 5000], 30), Ok((6, 90)));
    all.push(Arc::new(at("p4", "1", "Failed", "False", late, late)));
    assert_eq!(cpu(&all, &[900, 900, 5000, 0, 9000], 30), Ok((6, 90)));
    // Down, those who are only starting do not matter.
    assert_eq!(cpu(&all, &[100, 100, 5000], 50), Ok((1, 10)));
    // One that was ready once and is not now counts, once its start is long ago.
    let was = at("p0", "1", "Running", "False", "2026-01-01T00:00:00Z", "2026-01-01T00:50:00Z");
    let never = at("p0", "1", "Running", "False", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    assert_eq!(cpu(&[Arc::new(was)], &[900], 30), Ok((3, 90)));
    assert!(cpu(&[Arc::new(never)], &[900], 30).is_err());
    // Ready for less than a window: what was measured is the start.
    let fresh = at("p0", "1", "Running", "True", "2026-01-01T00:58:00Z", "2026-01-01T00:59:50Z");
    assert!(cpu(&[Arc::new(fresh)], &[900], 30).is_err());
}

#[test]
fn averages_and_totals() {
    let average = |values: &[i64], target| {
        let all = pods(3);
        by_average(&asked(&all), samples(values), false, target).map_err(|why| why.to_string())
    };
    assert_eq!(average(&[20_000, 10_000, 30_000], 15_000), Ok((4, 20_000)));
    assert_eq!(average(&[20_000, 10_000], 30_000), Ok((2, 15_000)));
    assert_eq!(average(&[10_000, 10_000, 10_000], 10_500), Ok((3, 10_000)));
    let all = pods(3);
    assert_eq!(by_total(&asked(&all), 40, 10).unwrap(), 12);
    assert_eq!(by_total(&asked(&all), 10, 10).unwrap(), 3);
    let none = Asked { current: 0, ..asked(&[]) };
    assert_eq!(by_total(&none, 25, 10).unwrap(), 3, "from nothing, the ratio is the number");
    assert_eq!(by_total(&none, 0, 10).unwrap(), 0);
    let gone = Asked { current: 2, ..asked(&[]) };
    assert_eq!(
        by_total(&gone, 25, 10).unwrap_err().to_string(),
        "unable to calculate ready pods: no pods returned by selector while calculating replica count"
    );
    assert_eq!(by_total(&asked(&all), i64::MAX, 1).unwrap(), i32::MAX);
    assert_eq!(by_share(3, 8600, 2200, TENTH), (4, 2867));
    assert_eq!(by_share(4, 8600, 2200, TENTH), (4, 2150));
    assert_eq!(by_share(0, 10, 5, TENTH), (2, 10));
}

proptest! {
    /// What keeps within the tolerance changes nothing, whoever is missing or starting.
    #[test]
    fn never_flaps_within_the_tolerance(
        count in 1_usize..20, target in 50_i64..5000, strays in prop::collection::vec(-9_i64..=9, 20),
    ) {
        let values: Vec<i64> = strays[..count].iter().map(|stray| target * 100 + target * stray).collect();
        let all = pods(count);
        let (replicas, _) = by_average(&asked(&all), samples(&values), false, target * 100).unwrap();
        prop_assert_eq!(replicas, count as i32);
    }

    /// A number goes the way the measurement says, or stays: with some missing too.
    #[test]
    fn never_goes_the_wrong_way(
        values in prop::collection::vec(0_i64..4000, 1..12), missing in 0_usize..6, target in 1_i32..200,
    ) {
        let all = pods(values.len() + missing);
        let (replicas, percent) = cpu(&all, &values, target).unwrap();
        let current = all.len() as i32;
        prop_assert!(replicas >= 0);
        if percent > target && missing > 0 {
            prop_assert!(replicas >= current, "{percent} % of {target} % made {current} into {replicas}");
        } else if percent < target {
            prop_assert!(replicas <= current, "{percent} % of {target} % made {current} into {replicas}");
        }
    }
}
