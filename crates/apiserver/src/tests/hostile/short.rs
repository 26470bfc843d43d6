use super::super::hammer::{Settings, run};

/// A little of what `examples/hammer` does for hours.
#[test]
fn damaged_requests_are_answered_one_by_one() {
    // Unoptimised code is slow, and its neighbours are loud.
    let most = std::time::Duration::from_secs(20);
    let report = run(&Settings { requests: 2_000, seed: 1, most, ..Settings::default() });
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.requests >= 2_000 && report.mutated > 1_000 && report.taken > 200, "{report}");
}
