//! What is counted where pods, claims and certificates are made and ended (kubernetes/kubernetes,
//! `pkg/controller/podgc/metrics`, `tainteviction/metrics`, `replicaset/metrics`, `volume/ephemeral/metrics`,
//! `resourceclaim/metrics`, `certificates/rootcacertpublisher/metrics.go`, `garbagecollector/metrics`).

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{Counter, Family, Histogram, Page};

use super::{SECONDS, counter};

const EVICTION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0];
const RATIO: &[f64] = &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

static FORCED: Family<Counter> = Family::new();
static NOT_FORCED: Family<Counter> = Family::new();
static EVICTED: Counter = Counter::new();
static EVICTION_SECONDS: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(EVICTION));
static AGE_RATIO: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(RATIO));
static EPHEMERAL: Counter = Counter::new();
static EPHEMERAL_FAILURES: Counter = Counter::new();
static CLAIMS: Family<Counter> = Family::new();
static ROOT_CA: Family<Counter> = Family::new();
static ROOT_CA_SECONDS: Family<Histogram> = Family::new();
static UNLISTED: Counter = Counter::new();

/// A pod was to be removed at once, because it is `terminated`, `orphaned`, `unscheduled` or on a node that is
/// `out-of-service`.
pub(crate) fn pod_forced(namespace: &str, reason: &str, success: bool) {
    let family = if success { &FORCED } else { &NOT_FORCED };
    counter(family, &format!("namespace=\"{namespace}\",reason=\"{reason}\"")).inc();
}

/// A pod is deleted because it does not put up with a taint.
pub(crate) fn pod_deleted_for_taint() {
    EVICTED.inc();
}

/// So long after it had to go, a pod that does not put up with a taint was deleted.
pub(crate) fn taint_deletion_took(took: Duration) {
    EVICTION_SECONDS.observe(took.as_secs_f64());
}

/// A replica set deletes a pod: so many times as old as its youngest one.
pub(crate) fn deletion_age_ratio(ratio: f64) {
    AGE_RATIO.observe(ratio);
}

/// A claim that a pod brings along was to be made.
pub(crate) fn ephemeral_claim(success: bool) {
    EPHEMERAL.inc();
    if !success {
        EPHEMERAL_FAILURES.inc();
    }
}

/// A claim of devices was to be made, with or without access as an administrator.
pub(crate) fn device_claim(success: bool, admin: bool) {
    let status = if success { "success" } else { "failure" };
    counter(&CLAIMS, &format!("admin_access=\"{admin}\",status=\"{status}\"")).inc();
}

/// A namespace's certificate of the authority has been looked at, with this code of an answer.
pub(crate) fn root_ca(code: u16, took: Duration) {
    let labels = format!("code=\"{code}\"");
    counter(&ROOT_CA, &labels).inc();
    ROOT_CA_SECONDS.of(&labels, || Histogram::new(SECONDS)).observe(took.as_secs_f64());
}

/// The garbage collector could not learn which kinds there are.
pub(crate) fn kinds_unknown() {
    UNLISTED.inc();
}

pub(super) fn page(page: &mut Page) {
    page.counters(
        "pod_gc_collector_force_delete_pods_total",
        "Number of pods that are being forcefully deleted since the Pod GC Controller started.",
        &FORCED,
    );
    page.counters(
        "pod_gc_collector_force_delete_pod_errors_total",
        "Number of errors encountered when forcefully deleting the pods since the Pod GC Controller started.",
        &NOT_FORCED,
    );
    page.counter(
        "taint_eviction_controller_pod_deletions_total",
        "Total number of Pods deleted by TaintEvictionController since its start.",
        &EVICTED,
    );
    page.family(
        "taint_eviction_controller_pod_deletion_duration_seconds",
        "histogram",
        "Latency, in seconds, between the time when a taint effect has been activated for the Pod and its deletion via TaintEvictionController.",
    );
    page.histogram("", &EVICTION_SECONDS);
    page.family(
        "replicaset_controller_sorting_deletion_age_ratio",
        "histogram",
        "The ratio of chosen deleted pod's ages to the current youngest pod's age (at the time).",
    );
    page.histogram("", &AGE_RATIO);
    page.counter(
        "ephemeral_volume_controller_create_total",
        "Number of PersistentVolumeClaims creation requests",
        &EPHEMERAL,
    );
    page.counter(
        "ephemeral_volume_controller_create_failures_total",
        "Number of PersistentVolumeClaims creation requests failed",
        &EPHEMERAL_FAILURES,
    );
    page.counters(
        "resourceclaim_controller_creates_total",
        "Number of ResourceClaims creation requests, categorized by creation status and admin access",
        &CLAIMS,
    );
    page.counters(
        "root_ca_cert_publisher_sync_total",
        "Number of namespace syncs happened in root ca cert publisher.",
        &ROOT_CA,
    );
    page.histograms(
        "root_ca_cert_publisher_sync_duration_seconds",
        "Number of namespace syncs happened in root ca cert publisher.",
        &ROOT_CA_SECONDS,
    );
    page.counter(
        "garbagecollector_controller_resources_sync_error_total",
        "Number of garbage collector resources sync errors",
        &UNLISTED,
    );
}
