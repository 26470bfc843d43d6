//! What is counted of nodes' ranges of addresses (kubernetes/kubernetes,
//! `pkg/controller/nodeipam/ipam/cidrset/metrics.go`).

use base::metrics::{Counter, Family, Gauge, Page};

use super::counter;

static GIVEN: Family<Counter> = Family::new();
static RELEASED: Family<Counter> = Family::new();
static MOST: Family<Gauge> = Family::new();
/// In millionths.
static USED: Family<Gauge> = Family::new();

fn labels(cluster: &str) -> String {
    format!("clusterCIDR=\"{cluster}\"")
}

fn usage(cluster: &str, used: usize, most: u64) {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    MOST.of(&labels(cluster), Gauge::new).set(whole(most));
    let share = (used as u64).saturating_mul(1_000_000) / most.max(1);
    USED.of(&labels(cluster), Gauge::new).set(whole(share));
}

/// A node was given its part of the cluster's range, of whose `most` parts so many are used now.
pub(crate) fn range_given(cluster: &str, used: usize, most: u64) {
    counter(&GIVEN, &labels(cluster)).inc();
    usage(cluster, used, most);
}

/// A node's part is free again.
pub(crate) fn range_released(cluster: &str, used: usize, most: u64) {
    counter(&RELEASED, &labels(cluster)).inc();
    usage(cluster, used, most);
}

pub(super) fn page(page: &mut Page) {
    page.counters(
        "node_ipam_controller_cidrset_cidrs_allocations_total",
        "Counter measuring total number of CIDR allocations.",
        &GIVEN,
    );
    page.counters(
        "node_ipam_controller_cidrset_cidrs_releases_total",
        "Counter measuring total number of CIDR releases.",
        &RELEASED,
    );
    // So it is written upstream.
    page.gauges(
        "node_ipam_controller_cirdset_max_cidrs",
        "Maximum number of CIDRs that can be allocated.",
        &MOST,
    );
    page.family(
        "node_ipam_controller_cidrset_usage_cidrs",
        "gauge",
        "Gauge measuring percentage of allocated CIDRs.",
    );
    for (labels, share) in USED.all() {
        page.sample(&labels, share.get() as f64 / 1e6);
    }
}
