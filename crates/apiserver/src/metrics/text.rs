//! Prometheus' text format.

use std::fmt::Write;

/// Numbers sorted into buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    /// For each bound, how many numbers lie within it and above the one before.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    /// Counts a number; `bounds` are the same every time.
    pub(crate) fn observe(&mut self, bounds: &[f64], value: f64) {
        self.buckets.resize(bounds.len(), 0);
        if let Some(at) = bounds.iter().position(|bound| value <= *bound) {
            self.buckets[at] += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

/// A page of metrics on its way.
#[derive(Default)]
pub(crate) struct Text {
    out: String,
    name: String,
}

impl Text {
    /// Begins a family; samples that follow belong to it.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.name = name.to_owned();
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number. `labels` are as between the braces, or empty.
    pub(crate) fn sample(&mut self, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.out, "{} {value}", self.name),
            labels => writeln!(self.out, "{}{{{labels}}} {value}", self.name),
        };
    }

    /// A histogram's numbers.
    pub(crate) fn histogram(&mut self, labels: &str, bounds: &[f64], histogram: &Histogram) {
        let mut within = 0;
        let name = &self.name;
        for (bound, count) in bounds.iter().zip(&histogram.buckets) {
            within += count;
            let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"{bound}\"}} {within}");
        }
        let Histogram { count, sum, .. } = histogram;
        let _ = writeln!(
            self.out,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
        );
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let mut histogram = Histogram::default();
        for value in [0.5, 1.0, 1.5, 9.0] {
            histogram.observe(&[1.0, 2.0], value);
        }
        let mut text = Text::default();
        text.family("x", "histogram", "Some numbers.");
        text.histogram("a=\"b\"", &[1.0, 2.0], &histogram);
        assert_eq!(
            text.finish(),
            "# HELP x Some numbers.\n# TYPE x histogram\nx_bucket{a=\"b\",le=\"1\"} 2\nx_bucket{a=\"b\",le=\"2\"} 3\n\
             x_bucket{a=\"b\",le=\"+Inf\"} 4\nx_sum{a=\"b\"} 12\nx_count{a=\"b\"} 4\n"
        );
    }
}
