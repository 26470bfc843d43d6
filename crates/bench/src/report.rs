//! How figures are shown.

use std::time::Duration;

/// One figure, with what it should be.
pub fn show(what: &str, figure: f64, unit: &str, target: &str) {
    let digits = match figure.abs() {
        ..1.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let target = if target.is_empty() { String::new() } else { format!("   target {target}") };
    println!("{what:<40} {figure:>10.digits$} {unit:<3}{target}");
}

/// A time, in milliseconds.
pub fn show_time(what: &str, time: Duration, target: &str) {
    show(what, time.as_secs_f64() * 1e3, "ms", target);
}

/// The time that the given share of all times does not exceed.
pub fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let mut times: Vec<Duration> = (1..=50).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut times, 0.5), Duration::from_millis(25));
        assert_eq!(quantile(&mut times, 0.99), Duration::from_millis(50));
        assert_eq!(quantile(&mut times[..1], 0.5), Duration::from_millis(1));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }
}
