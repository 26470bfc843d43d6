//! What is counted of EndpointSlices (kubernetes/kubernetes, `pkg/controller/endpointslice/metrics`,
//! `endpointslicemirroring/metrics`).

use std::collections::HashMap;
use std::sync::LazyLock;

use base::metrics::{Counter, Family, Gauge, Histogram, Page};
use parking_lot::Mutex;

use super::counter;

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

static CHANGES: Family<Counter> = Family::new();
static MIRROR_CHANGES: Family<Counter> = Family::new();
static SYNCS: Family<Counter> = Family::new();
static ADDED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(ENDPOINTS));
static REMOVED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(ENDPOINTS));
static SIZES: LazyLock<Mutex<HashMap<String, Sizes>>> = LazyLock::new(Mutex::default);
static TOTALS: [Gauge; 3] = [Gauge::new(), Gauge::new(), Gauge::new()];

/// A slice is made, changed or deleted (`create`, `update`, `delete`).
pub(crate) fn slice_changed(keeper: Keeper, operation: &str) {
    let family = if keeper == Keeper::Slices { &CHANGES } else { &MIRROR_CHANGES };
    counter(family, &format!("operation=\"{operation}\"")).inc();
}

/// A Service's slices have been looked at.
pub(crate) fn slices_synced(success: bool) {
    let result = if success { "success" } else { "error" };
    counter(&SYNCS, &format!("result=\"{result}\"")).inc();
}

/// So many endpoints came and went with one look.
pub(crate) fn endpoints_changed(added: usize, removed: usize) {
    ADDED.observe(added as f64);
    REMOVED.observe(removed as f64);
}

/// What a Service has by now; none when it is gone.
pub(crate) fn slices_of(service: &str, sizes: Option<Sizes>) {
    let mut all = SIZES.lock();
    let before = match sizes {
        Some(sizes) => all.insert(service.to_owned(), sizes),
        None => all.remove(service),
    };
    let (before, after) = (before.unwrap_or_default(), sizes.unwrap_or_default());
    let of = |s: Sizes| [s.endpoints, s.slices, s.needed].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    for ((gauge, after), before) in TOTALS.iter().zip(of(after)).zip(of(before)) {
        gauge.add(after - before);
    }
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
    let totals = [
        ("endpoints_desired", "Number of endpoints desired"),
        ("num_endpoint_slices", "Number of EndpointSlices"),
        (
            "desired_endpoint_slices",
            "Number of EndpointSlices that would exist with perfect endpoint allocation",
        ),
    ];
    for ((name, help), gauge) in totals.into_iter().zip(&TOTALS) {
        page.family(&format!("endpoint_slice_controller_{name}"), "gauge", help);
        page.sample("", gauge.get() as f64);
    }
    page.counters(
        "endpoint_slice_mirroring_controller_changes",
        "Number of EndpointSlice changes",
        &MIRROR_CHANGES,
    );
}
