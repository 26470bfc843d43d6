//! What is counted of EndpointSlices (kubernetes/kubernetes, `pkg/controller/endpointslice/metrics`,
//! `endpointslicemirroring/metrics`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{Counter, Family, Gauge, Histogram, Page};
use parking_lot::Mutex;

use super::{SECONDS, counter};

/// Prometheus' own bounds, which upstream has left here.
const SLICES: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How many endpoints came or went.
const ENDPOINTS: &[f64] =
    &[2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];

/// Whose slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// Those of Services that select pods.
    Slices,
    /// Those that mirror Endpoints.
    Mirror,
}

/// What a Service has and should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Addresses behind it.
    pub(crate) endpoints: usize,
    /// Slices that there are.
    pub(crate) slices: usize,
    /// Slices that would be enough for them.
    pub(crate) needed: usize,
}

/// What a look at mirrored Endpoints changes, and what it leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirrored {
    /// Endpoints that come.
    pub(crate) added: usize,
    /// Those that are told differently.
    pub(crate) updated: usize,
    /// Those that go.
    pub(crate) removed: usize,
    /// Addresses that are none, or too many.
    pub(crate) skipped: usize,
}

/// Sums over Services, whose shares are known.
#[derive(Default)]
struct Totals {
    shares: Mutex<HashMap<String, Sizes>>,
    sums: [Gauge; 3],
}

impl Totals {
    /// What one has by now; none when it is gone.
    fn set(&self, service: &str, sizes: Option<Sizes>) {
        let mut all = self.shares.lock();
        let before = match sizes {
            Some(sizes) => all.insert(service.to_owned(), sizes),
            None => all.remove(service),
        };
        let (before, after) = (before.unwrap_or_default(), sizes.unwrap_or_default());
        let of = |s: Sizes| [s.endpoints, s.slices, s.needed].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        for ((gauge, after), before) in self.sums.iter().zip(of(after)).zip(of(before)) {
            gauge.add(after - before);
        }
    }

    fn page(&self, page: &mut Page, keeper: &str) {
        let totals = [
            ("endpoints_desired", "Number of endpoints desired"),
            ("num_endpoint_slices", "Number of EndpointSlices"),
            (
                "desired_endpoint_slices",
                "Number of EndpointSlices that would exist with perfect endpoint allocation",
            ),
        ];
        for ((name, help), gauge) in totals.into_iter().zip(&self.sums) {
            page.family(&format!("{keeper}_{name}"), "gauge", help);
            page.sample("", gauge.get() as f64);
        }
    }
}

/// The Services that have a distribution of their traffic, by it.
static DISTRIBUTIONS: LazyLock<Mutex<BTreeMap<String, BTreeSet<String>>>> = LazyLock::new(Mutex::default);
static CHANGED: Family<Histogram> = Family::new();
static MIRROR_TOTALS: LazyLock<Totals> = LazyLock::new(Totals::default);
static MIRRORED: LazyLock<[Histogram; 4]> = LazyLock::new(|| [(); 4].map(|()| Histogram::new(ENDPOINTS)));
static MIRROR_SECONDS: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(SECONDS));
static CHANGES: Family<Counter> = Family::new();
static MIRROR_CHANGES: Family<Counter> = Family::new();
static SYNCS: Family<Counter> = Family::new();
static ADDED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(ENDPOINTS));
static REMOVED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(ENDPOINTS));
static TOTALS: LazyLock<Totals> = LazyLock::new(Totals::default);

/// A slice is made, changed or deleted (`create`, `update`, `delete`).
pub(crate) fn slice_changed(keeper: Keeper, operation: &str) {
    let family = if keeper == Keeper::Slices { &CHANGES } else { &MIRROR_CHANGES };
    counter(family, &format!("operation=\"{operation}\"")).inc();
}

/// A Service's slices have been looked at, with `success`, `error`, or by a cache that is `stale`.
pub(crate) fn slices_synced(result: &str) {
    counter(&SYNCS, &format!("result=\"{result}\"")).inc();
}

/// So many slices of a Service with this distribution of its traffic are made, changed or deleted together.
pub(crate) fn slices_changed(distribution: &str, slices: usize) {
    let labels = format!("topology=\"Disabled\",traffic_distribution=\"{distribution}\"");
    CHANGED.of(&labels, || Histogram::new(SLICES)).observe(slices as f64);
}

/// How a Service wants its traffic distributed, if it says so.
pub(crate) fn traffic_distribution(service: &str, distribution: Option<&str>) {
    let mut all = DISTRIBUTIONS.lock();
    for (name, services) in all.iter_mut() {
        if Some(name.as_str()) != distribution {
            services.remove(service);
        }
    }
    if let Some(distribution) = distribution {
        all.entry(distribution.to_owned()).or_default().insert(service.to_owned());
    }
}

/// What a look at mirrored Endpoints did, and how long it took.
pub(crate) fn mirrored(change: Mirrored, took: Duration) {
    let Mirrored { added, updated, removed, skipped } = change;
    for (histogram, count) in MIRRORED.iter().zip([added, updated, removed, skipped]) {
        histogram.observe(count as f64);
    }
    MIRROR_SECONDS.observe(took.as_secs_f64());
}

/// What mirrored Endpoints have by now; none when they are gone.
pub(crate) fn mirrored_sizes(service: &str, sizes: Option<Sizes>) {
    MIRROR_TOTALS.set(service, sizes);
}

/// So many endpoints came and went with one look.
pub(crate) fn endpoints_changed(added: usize, removed: usize) {
    ADDED.observe(added as f64);
    REMOVED.observe(removed as f64);
}

/// What a Service has by now; none when it is gone.
pub(crate) fn slices_of(service: &str, sizes: Option<Sizes>) {
    TOTALS.set(service, sizes);
}

pub(super) fn page(page: &mut Page) {
    page.counters("endpoint_slice_controller_changes", "Number of EndpointSlice changes", &CHANGES);
    page.counters("endpoint_slice_controller_syncs", "Number of EndpointSlice syncs", &SYNCS);
    let both = [
        ("added", "Number of endpoints added on each Service sync", &*ADDED),
        ("removed", "Number of endpoints removed on each Service sync", &*REMOVED),
    ];
    for (what, help, histogram) in both {
        page.family(&format!("endpoint_slice_controller_endpoints_{what}_per_sync"), "histogram", help);
        page.histogram("", histogram);
    }
    TOTALS.page(page, "endpoint_slice_controller");
    page.histograms(
        "endpoint_slice_controller_endpointslices_changed_per_sync",
        "Number of EndpointSlices changed on each Service sync",
        &CHANGED,
    );
    page.family(
        "endpoint_slice_controller_services_count_by_traffic_distribution",
        "gauge",
        "Number of Services using some specific trafficDistribution",
    );
    for (distribution, services) in DISTRIBUTIONS.lock().iter() {
        page.sample(&format!("traffic_distribution=\"{distribution}\""), services.len() as f64);
    }
    mirror_page(page);
}

fn mirror_page(page: &mut Page) {
    const KEEPER: &str = "endpoint_slice_mirroring_controller";
    page.counters(
        "endpoint_slice_mirroring_controller_changes",
        "Number of EndpointSlice changes",
        &MIRROR_CHANGES,
    );
    MIRROR_TOTALS.page(page, KEEPER);
    let all = [
        ("endpoints_added", "Number of endpoints added on each Endpoints sync"),
        ("endpoints_updated", "Number of endpoints updated on each Endpoints sync"),
        ("endpoints_removed", "Number of endpoints removed on each Endpoints sync"),
        (
            "addresses_skipped",
            "Number of addresses skipped on each Endpoints sync due to being invalid or exceeding MaxEndpointsPerSubset",
        ),
    ];
    for ((what, help), histogram) in all.into_iter().zip(MIRRORED.iter()) {
        page.family(&format!("{KEEPER}_{what}_per_sync"), "histogram", help);
        page.histogram("", histogram);
    }
    page.family(
        &format!("{KEEPER}_endpoints_sync_duration"),
        "histogram",
        "Duration of syncEndpoints() in seconds",
    );
    page.histogram("", &MIRROR_SECONDS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_counted_by_service_and_let_go() {
        let line = |distribution: &str| -> Option<String> {
            let mut text = Page::new();
            page(&mut text);
            let start =
                format!("services_count_by_traffic_distribution{{traffic_distribution=\"{distribution}\"}} ");
            text.finish().lines().find_map(|line| line.split_once(&start).map(|(_, value)| value.to_owned()))
        };
        traffic_distribution("counted/a", Some("CountedNear"));
        traffic_distribution("counted/b", Some("CountedNear"));
        traffic_distribution("counted/a", Some("CountedFar"));
        assert_eq!((line("CountedNear").as_deref(), line("CountedFar").as_deref()), (Some("1"), Some("1")));
        traffic_distribution("counted/b", None);
        assert_eq!(line("CountedNear").as_deref(), Some("0"));
    }

    #[test]
    fn what_is_mirrored_is_counted_and_summed() {
        let value = |name: &str| -> f64 {
            let mut text = Page::new();
            page(&mut text);
            let start = format!("endpoint_slice_mirroring_controller_{name} ");
            let text = text.finish();
            let line = text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        // Other tests mirror, too: only more can be told from less.
        let (added, skipped) =
            (value("endpoints_added_per_sync_sum"), value("addresses_skipped_per_sync_sum"));
        let million = 1_000_000;
        mirrored(
            Mirrored { added: million, skipped: million, ..Mirrored::default() },
            Duration::from_secs(1),
        );
        assert!(value("endpoints_added_per_sync_sum") - added >= 1e6);
        assert!(value("addresses_skipped_per_sync_sum") - skipped >= 1e6);
        mirrored_sizes(
            "counted/m",
            Some(Sizes { endpoints: million, slices: 2 * million, needed: 3 * million }),
        );
        let all =
            ["endpoints_desired", "num_endpoint_slices", "desired_endpoint_slices"].map(|n| value(n) / 1e6);
        assert_eq!(all.map(f64::floor), [1.0, 2.0, 3.0]);
        mirrored_sizes("counted/m", None);
        assert!(value("endpoints_desired") < 1e6);
    }
}
