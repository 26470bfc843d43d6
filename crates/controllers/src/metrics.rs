//! What controllers count, under the names that upstream's have (kubernetes/kubernetes,
//! `pkg/controller/podautoscaler/monitor`, `job/metrics`, `nodelifecycle/metrics.go`, `tainteviction/metrics`,
//! `cronjob/metrics`, `endpointslice/metrics`, `ttlafterfinished/metrics`, `volume/persistentvolume/metrics`). What their queues count is the client's.

mod attach;
mod claims;
mod ipam;
mod jobs;
mod pods;
mod slices;
mod sources;
mod volumes;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base::metrics::{Counter, Family, Gauge, Histogram, Page};

pub(crate) use attach::{forced_detach, volumes_on};
pub(crate) use claims::claims_of;
pub(crate) use ipam::{range_given, range_released};
pub(crate) use jobs::{
    job_finished, job_indexes_finished, job_managed_by, job_pod_awaits, job_pods_created, job_pods_finished,
    job_policy_applied, job_synced,
};
pub(crate) use pods::{
    deletion_age_ratio, device_claim, ephemeral_claim, kinds_unknown, pod_deleted_for_taint, pod_forced,
    root_ca, taint_deletion_took,
};
pub(crate) use slices::{
    Keeper, Mirrored, Sizes, endpoints_changed, mirrored, mirrored_sizes, slice_changed, slices_changed,
    slices_of, slices_synced, traffic_distribution,
};
pub(crate) use volumes::{
    claim_asks, claim_bound, claim_gone, class_assigned, volume_gone, volume_released, volumes_of,
};

/// A thousandth of a second, doubled again and again.
const SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
/// A second, doubled again and again.
const SKEW: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const DELETION: &[f64] = &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

static AUTOSCALER_LOOKS: Family<Counter> = Family::new();
static AUTOSCALER_SECONDS: Family<Histogram> = Family::new();
static COMPUTATIONS: Family<Counter> = Family::new();
static COMPUTATION_SECONDS: Family<Histogram> = Family::new();
static AUTOSCALERS: Gauge = Gauge::new();
static WISHES: Family<Gauge> = Family::new();
static ZONE_SIZE: Family<Gauge> = Family::new();
static ZONE_HEALTH: Family<Gauge> = Family::new();
static ZONE_UNHEALTHY: Family<Gauge> = Family::new();
static NODE_EVICTIONS: Family<Counter> = Family::new();
static CRON_SKEW: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(SKEW));
static TTL_DELETION: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(DELETION));

fn counter(family: &Family<Counter>, labels: &str) -> Arc<Counter> {
    family.of(labels, Counter::new)
}

/// One metric of an autoscaler has been asked: in which direction it points, whether it failed (as for
/// [`autoscaler`]), and its type.
pub(crate) fn metric_computed(action: &str, error: &str, kind: &str, took: Duration) {
    let labels = format!("action=\"{action}\",error=\"{error}\",metric_type=\"{kind}\"");
    counter(&COMPUTATIONS, &labels).inc();
    COMPUTATION_SECONDS.of(&labels, || Histogram::new(SECONDS)).observe(took.as_secs_f64());
}

/// A look at an autoscaler: what it did (`none`, `scale_up`, `scale_down`) and whether it failed (`none`, `internal`, or
/// `spec` if it says what cannot be).
pub(crate) fn autoscaler(action: &str, error: &str, took: Duration) {
    let labels = format!("action=\"{action}\",error=\"{error}\"");
    counter(&AUTOSCALER_LOOKS, &labels).inc();
    AUTOSCALER_SECONDS.of(&labels, || Histogram::new(SECONDS)).observe(took.as_secs_f64());
}

fn wish_labels(namespace: &str, name: &str) -> String {
    format!("hpa_name=\"{name}\",namespace=\"{namespace}\"")
}

/// How many pods an autoscaler wishes for, and how many autoscalers there are.
pub(crate) fn autoscaler_wishes(namespace: &str, name: &str, replicas: i32, autoscalers: usize) {
    WISHES.of(&wish_labels(namespace, name), Gauge::new).set(replicas.into());
    AUTOSCALERS.set(i64::try_from(autoscalers).unwrap_or(i64::MAX));
}

/// An autoscaler is gone; so many are left.
pub(crate) fn autoscaler_gone(namespace: &str, name: &str, autoscalers: usize) {
    WISHES.remove(&wish_labels(namespace, name));
    AUTOSCALERS.set(i64::try_from(autoscalers).unwrap_or(i64::MAX));
}

/// A zone's name with what may stand between quotes.
fn zone_label(zone: &str) -> String {
    format!("zone=\"{}\"", zone.replace('\0', "\\0").replace(['"', '\n'], "_"))
}

/// How many nodes of a zone are well, and how many are not.
pub(crate) fn zone(zone: &str, well: usize, ill: usize) {
    let (label, all) = (zone_label(zone), well + ill);
    let set = |family: &Family<Gauge>, value: usize| {
        family.of(&label, Gauge::new).set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    set(&ZONE_SIZE, all);
    set(&ZONE_UNHEALTHY, ill);
    // Without nodes it is in good health.
    set(&ZONE_HEALTH, (100 * well).checked_div(all).unwrap_or(100));
}

/// A node of a zone is tainted so that its pods leave.
pub(crate) fn node_evicted(zone: &str) {
    counter(&NODE_EVICTIONS, &zone_label(zone)).inc();
}

/// A cron job's job is there, so long after it should have been.
pub(crate) fn cron_job_begun(late: Duration) {
    CRON_SKEW.observe(late.as_secs_f64());
}

/// A job was deleted, so long after its time was over.
pub(crate) fn job_expired(late: Duration) {
    TTL_DELETION.observe(late.as_secs_f64());
}

/// Adds the numbers of all controllers to a page.
pub fn metrics(page: &mut Page) {
    page.counters(
        "horizontal_pod_autoscaler_controller_reconciliations_total",
        "Number of reconciliations of HPA controller.",
        &AUTOSCALER_LOOKS,
    );
    page.histograms(
        "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
        "The time(seconds) that the HPA controller takes to reconcile once.",
        &AUTOSCALER_SECONDS,
    );
    page.counters(
        "horizontal_pod_autoscaler_controller_metric_computation_total",
        "Number of metric computations.",
        &COMPUTATIONS,
    );
    page.histograms(
        "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
        "The time(seconds) that the HPA controller takes to calculate one metric.",
        &COMPUTATION_SECONDS,
    );
    page.family(
        "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers",
        "gauge",
        "Current number of controlled HPA objects.",
    );
    page.sample("", AUTOSCALERS.get() as f64);
    page.gauges(
        "horizontal_pod_autoscaler_controller_desired_replicas",
        "Current desired replica count for HPA objects.",
        &WISHES,
    );
    page.gauges(
        "node_collector_zone_size",
        "Gauge measuring number of registered Nodes per zones.",
        &ZONE_SIZE,
    );
    page.gauges(
        "node_collector_zone_health",
        "Gauge measuring percentage of healthy nodes per zone.",
        &ZONE_HEALTH,
    );
    page.gauges(
        "node_collector_unhealthy_nodes_in_zone",
        "Gauge measuring number of not Ready Nodes per zones.",
        &ZONE_UNHEALTHY,
    );
    page.counters(
        "node_collector_evictions_total",
        "Number of Node evictions that happened since current instance of NodeController started.",
        &NODE_EVICTIONS,
    );
    page.family(
        "cronjob_controller_job_creation_skew_duration_seconds",
        "histogram",
        "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
    );
    page.histogram("", &CRON_SKEW);
    page.family(
        "ttl_after_finished_controller_job_deletion_duration_seconds",
        "histogram",
        "The time it took to delete the job since it became eligible for deletion",
    );
    page.histogram("", &TTL_DELETION);
    attach::page(page);
    claims::page(page);
    ipam::page(page);
    jobs::page(page);
    pods::page(page);
    slices::page(page);
    volumes::page(page);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_was_counted_and_forgets_what_is_gone() {
        zone("r:\0:z", 3, 1);
        autoscaler_wishes("counted", "gone", 3, 2);
        autoscaler_wishes("counted", "there", 5, 2);
        autoscaler_gone("counted", "gone", 1);
        job_pods_finished(true, true, 4);
        job_pods_finished(true, true, -4);
        let mut page = Page::new();
        metrics(&mut page);
        let text = page.finish();
        for line in [
            "node_collector_zone_health{zone=\"r:\\0:z\"} 75",
            "node_collector_zone_size{zone=\"r:\\0:z\"} 4",
            "node_collector_unhealthy_nodes_in_zone{zone=\"r:\\0:z\"} 1",
            "horizontal_pod_autoscaler_controller_desired_replicas{hpa_name=\"there\",namespace=\"counted\"} 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("hpa_name=\"gone\",namespace=\"counted\""));
        assert!(text.contains(
            "job_controller_job_pods_finished_total{completion_mode=\"Indexed\",result=\"succeeded\"}"
        ));
    }
}
