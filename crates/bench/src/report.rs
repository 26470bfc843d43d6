//! How figures are shown.

use std::time::Duration;

/// One figure, with what it should be.
pub fn show(what: &str, figure: f64, unit: &str, target: &str) {
    let target = if target.is_empty() { String::new() } else { format!("   target {target}") };
    let digits = digits(figure);
    println!("{what:<40} {figure:>10.digits$} {unit:<3}{target}");
}

fn digits(figure: f64) -> usize {
    match figure.abs() {
        ..1.0 => 2,
        ..100.0 => 1,
        _ => 0,
    }
}

/// Several takes of the same figures, in the order in which they were first taken.
///
/// Whoever shares the machine may take half of it away from one minute to the next. The best take is what the server does;
/// the median, which is shown beside it, is what the others leave of that.
#[derive(Default)]
pub struct Takes(Vec<Take>);

struct Take {
    what: &'static str,
    unit: &'static str,
    target: &'static str,
    figures: Vec<f64>,
}

impl Takes {
    /// One more take. Of rates (`/s`) the highest is the best, of all else the lowest.
    pub fn add(&mut self, what: &'static str, figure: f64, unit: &'static str, target: &'static str) {
        match self.0.iter_mut().find(|take| take.what == what) {
            Some(take) => take.figures.push(figure),
            None => self.0.push(Take { what, unit, target, figures: vec![figure] }),
        }
    }

    /// The same for a time, in milliseconds.
    pub fn add_time(&mut self, what: &'static str, time: Duration, target: &'static str) {
        self.add(what, time.as_secs_f64() * 1e3, "ms", target);
    }

    /// Shows them all.
    pub fn show(self) {
        for Take { what, unit, target, figures } in self.0 {
            let (best, median) = best_and_median(figures, unit == "/s");
            let digits = self::digits(median);
            let target = if target.is_empty() { String::new() } else { format!("   target {target}") };
            let of = self::digits(best);
            println!("{what:<40} {best:>10.of$} {unit:<3}   median {median:<8.digits$}{target}");
        }
    }
}

fn best_and_median(mut figures: Vec<f64>, highest: bool) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    let best = if highest { figures.last() } else { figures.first() };
    let median = figures.get(figures.len().saturating_sub(1) / 2);
    (best.copied().unwrap_or_default(), median.copied().unwrap_or_default())
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
    fn the_best_is_the_highest_rate_or_the_lowest_time() {
        let figures = || vec![3.0, 1.0, 2.0, 9.0];
        assert_eq!(best_and_median(figures(), true), (9.0, 2.0));
        assert_eq!(best_and_median(figures(), false), (1.0, 2.0));
    }

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let mut times: Vec<Duration> = (1..=50).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut times, 0.5), Duration::from_millis(25));
        assert_eq!(quantile(&mut times, 0.99), Duration::from_millis(50));
        assert_eq!(quantile(&mut times[..1], 0.5), Duration::from_millis(1));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }
}
