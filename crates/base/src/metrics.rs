//! Numbers that are counted while work is done, and told in Prometheus' text format when somebody asks.
//!
//! To count is an atomic operation and no more. What has labels is looked up once, by [`Family::of`], and kept by
//! whoever counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// This much from now on.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// So much more, or less.
    pub fn add(&self, more: i64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How much now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers sorted into buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// For each bound, how many numbers lie within it and above the one before.
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    /// The bits of a float.
    sum: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, which grow.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = bounds.iter().map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    /// Counts a number.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let more = |bits: u64| Some((f64::from_bits(bits) + value).to_bits());
        // It always gives something, so it never fails.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// How many numbers so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The same number for different labels.
#[derive(Debug, Default)]
pub struct Family<S> {
    series: Mutex<BTreeMap<String, Arc<S>>>,
}

impl<S> Family<S> {
    /// Without any series.
    pub const fn new() -> Self {
        Self { series: Mutex::new(BTreeMap::new()) }
    }

    /// The series of these labels (as between the braces), made by `new` if there is none.
    pub fn of(&self, labels: &str, new: impl FnOnce() -> S) -> Arc<S> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.get(labels) {
            return known.clone();
        }
        let made = Arc::new(new());
        series.insert(labels.to_owned(), made.clone());
        made
    }

    /// Forgets the series of these labels: what they are about is gone.
    pub fn remove(&self, labels: &str) {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).remove(labels);
    }

    /// All series, by their labels.
    pub fn all(&self) -> Vec<(String, Arc<S>)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(labels, one)| (labels.clone(), one.clone())).collect()
    }
}

/// A page of metrics on its way.
#[derive(Debug, Default)]
pub struct Page {
    out: String,
    name: String,
}

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a family; samples that follow belong to it. `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.name = name.to_owned();
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number. `labels` are as between the braces, or empty.
    pub fn sample(&mut self, labels: &str, value: f64) {
        let value = if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() };
        let _ = match labels {
            "" => writeln!(self.out, "{} {value}", self.name),
            labels => writeln!(self.out, "{}{{{labels}}} {value}", self.name),
        };
    }

    /// A family of one counter.
    pub fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.family(name, "counter", help);
        self.sample("", counter.get() as f64);
    }

    /// A family of counters.
    pub fn counters(&mut self, name: &str, help: &str, family: &Family<Counter>) {
        self.family(name, "counter", help);
        family.all().iter().for_each(|(labels, counter)| self.sample(labels, counter.get() as f64));
    }

    /// A family of gauges.
    pub fn gauges(&mut self, name: &str, help: &str, family: &Family<Gauge>) {
        self.family(name, "gauge", help);
        family.all().iter().for_each(|(labels, gauge)| self.sample(labels, gauge.get() as f64));
    }

    /// A family of histograms.
    pub fn histograms(&mut self, name: &str, help: &str, family: &Family<Histogram>) {
        self.family(name, "histogram", help);
        family.all().iter().for_each(|(labels, histogram)| self.histogram(labels, histogram));
    }

    /// A histogram's numbers.
    pub fn histogram(&mut self, labels: &str, histogram: &Histogram) {
        let name = &self.name;
        let comma = if labels.is_empty() { "" } else { "," };
        let mut within = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.buckets) {
            within += count.load(Ordering::Relaxed);
            let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {within}");
        }
        let count = histogram.count().max(within);
        let sum = f64::from_bits(histogram.sum.load(Ordering::Relaxed));
        let _ = writeln!(self.out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.out, "{name}_sum{braces} {sum}\n{name}_count{braces} {count}");
    }

    /// The page's text.
    pub fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_labels_are_kept_apart() {
        static FAMILY: Family<Histogram> = Family::new();
        let series = FAMILY.of("a=\"b\"", || Histogram::new(&[1.0, 2.0]));
        for value in [0.5, 1.0, 1.5, 9.0] {
            series.observe(value);
        }
        assert_eq!(FAMILY.of("a=\"b\"", || Histogram::new(&[1.0])).count(), 4, "it is the same one");
        let (plain, mut page) = (Histogram::new(&[1.0]), Page::new());
        plain.observe(3.0);
        page.histograms("x", "Some numbers.", &FAMILY);
        page.family("y", "histogram", "Others.");
        page.histogram("", &plain);
        assert_eq!(
            page.finish(),
            "# HELP x Some numbers.\n# TYPE x histogram\nx_bucket{a=\"b\",le=\"1\"} 2\nx_bucket{a=\"b\",le=\"2\"} 3\n\
             x_bucket{a=\"b\",le=\"+Inf\"} 4\nx_sum{a=\"b\"} 12\nx_count{a=\"b\"} 4\n\
             # HELP y Others.\n# TYPE y histogram\ny_bucket{le=\"1\"} 0\ny_bucket{le=\"+Inf\"} 1\ny_sum 3\ny_count 1\n"
        );
    }

    #[test]
    fn many_threads_lose_nothing() {
        let (counter, gauge, histogram) = (Counter::new(), Gauge::new(), Histogram::new(&[10.0]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counter.inc();
                        gauge.add(1);
                        gauge.add(-1);
                        histogram.observe(2.0);
                    }
                });
            }
        });
        assert_eq!((counter.get(), gauge.get(), histogram.count()), (4000, 0, 4000));
        assert_eq!(f64::from_bits(histogram.sum.load(Ordering::Relaxed)), 8000.0);
    }
}
