//! What is counted of volumes and claims (kubernetes/kubernetes, `pkg/controller/volume/persistentvolume/metrics`).

use std::collections::HashMap;
use std::sync::LazyLock;

use base::Drain;
use base::metrics::{Counter, Family, Histogram, Page};
use client::Informer;
use client::storage::{claim_phase, class_of_claim, class_of_volume, volume_phase};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::counter;
use super::sources::{Sources, Tally, tally};

const SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

type Caches = (Informer<PersistentVolume>, Informer<PersistentVolumeClaim>);

static CACHES: Sources<Caches> = Sources::new();
static ASSIGNED: Counter = Counter::new();
static NOT_ASSIGNED: Counter = Counter::new();
static TOOK: Family<Histogram> = Family::new();
static FAILED: Family<Counter> = Family::new();
/// What others have been asked to do, by the claim or volume it is about.
static ASKED: LazyLock<Mutex<HashMap<String, Asked>>> = LazyLock::new(Mutex::default);

/// Somebody who makes or deletes a volume, and since when.
struct Asked {
    labels: String,
    since: Instant,
}

/// These are counted whenever somebody asks, until the drain starts.
pub(crate) fn volumes_of(
    drain: &Drain,
    volumes: &Informer<PersistentVolume>,
    claims: &Informer<PersistentVolumeClaim>,
) {
    CACHES.add(drain, (volumes.clone(), claims.clone()));
}

/// A claim without a class was to be given the default one.
pub(crate) fn class_assigned(success: bool) {
    if success { ASSIGNED.inc() } else { NOT_ASSIGNED.inc() }
}

fn ask(about: &str, by: &str, what: &str) {
    let labels = format!("operation_name=\"{what}\",plugin_name=\"{by}\"");
    let asked = Asked { labels, since: Instant::now() };
    ASKED.lock().entry(about.to_owned()).or_insert(asked);
}

fn done(about: &str) {
    if let Some(Asked { labels, since }) = ASKED.lock().remove(about) {
        TOOK.of(&labels, || Histogram::new(SECONDS)).observe(since.elapsed().as_secs_f64());
    }
}

/// A claim asks somebody for a volume.
pub(crate) fn claim_asks(claim: &str, provisioner: &str) {
    ask(claim, provisioner, "provision");
}

/// A claim was to be bound.
pub(crate) fn claim_bound(claim: &str, success: bool) {
    if success {
        done(claim);
    } else if let Some(asked) = ASKED.lock().get(claim) {
        counter(&FAILED, &asked.labels).inc();
    }
}

/// A claim is gone.
pub(crate) fn claim_gone(claim: &str) {
    ASKED.lock().remove(claim);
}

/// A volume waits for whoever made it to delete it.
pub(crate) fn volume_released(volume: &str, by: &str) {
    ask(volume, by, "delete");
}

/// A volume is gone.
pub(crate) fn volume_gone(volume: &str) {
    done(volume);
}

/// Whose volume it is, as upstream calls the parts that look after volumes (`getPVPluginName`).
fn plugin(spec: &PersistentVolumeSpec) -> String {
    match spec {
        PersistentVolumeSpec { csi: Some(csi), .. } => format!("kubernetes.io/csi:{}", csi.driver),
        PersistentVolumeSpec { host_path: Some(_), .. } => "kubernetes.io/host-path".to_owned(),
        PersistentVolumeSpec { local: Some(_), .. } => "kubernetes.io/local-volume".to_owned(),
        PersistentVolumeSpec { nfs: Some(_), .. } => "kubernetes.io/nfs".to_owned(),
        _ => "N/A".to_owned(),
    }
}

/// How many there are of each sort.
#[derive(Default)]
struct Counts {
    total: Tally,
    bound: Tally,
    unbound: Tally,
    bound_claims: Tally,
    unbound_claims: Tally,
}

impl Counts {
    fn volume(&mut self, volume: &PersistentVolume) {
        let Some(spec) = &volume.spec else { return };
        let mode = spec.volume_mode.as_deref().unwrap_or("Filesystem");
        let plugin = plugin(spec);
        *self.total.entry(format!("plugin_name=\"{plugin}\",volume_mode=\"{mode}\"")).or_default() += 1;
        let which = if volume_phase(volume) == "Bound" { &mut self.bound } else { &mut self.unbound };
        *which.entry(format!("storage_class=\"{}\"", class_of_volume(volume))).or_default() += 1;
    }

    fn claim(&mut self, claim: &PersistentVolumeClaim) {
        let spec = claim.spec.as_ref();
        let attributes =
            spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default();
        let which =
            if claim_phase(claim) == "Bound" { &mut self.bound_claims } else { &mut self.unbound_claims };
        let labels = format!(
            "namespace=\"{}\",storage_class=\"{}\",volume_attributes_class=\"{attributes}\"",
            claim.metadata.namespace.as_deref().unwrap_or_default(),
            class_of_claim(claim),
        );
        *which.entry(labels).or_default() += 1;
    }
}

pub(super) fn page(page: &mut Page) {
    let mut counts = Counts::default();
    for caches in CACHES.all() {
        let (volumes, claims) = &*caches;
        volumes.store().for_each(|_, volume| counts.volume(volume));
        claims.store().for_each(|_, claim| counts.claim(claim));
    }
    for (name, what, all) in [
        ("total_pv_count", "total number of persistent volumes", &counts.total),
        ("bound_pv_count", "number of persistent volume currently bound", &counts.bound),
        ("unbound_pv_count", "number of persistent volume currently unbound", &counts.unbound),
        ("bound_pvc_count", "number of persistent volume claim currently bound", &counts.bound_claims),
        ("unbound_pvc_count", "number of persistent volume claim currently unbound", &counts.unbound_claims),
    ] {
        tally(page, &format!("pv_collector_{name}"), &format!("Gauge measuring {what}"), all);
    }
    page.counter(
        "retroactive_storageclass_total",
        "Total number of retroactive StorageClass assignments to persistent volume claim",
        &ASSIGNED,
    );
    page.counter(
        "retroactive_storageclass_errors_total",
        "Total number of failed retroactive StorageClass assignments to persistent volume claim",
        &NOT_ASSIGNED,
    );
    page.histograms("volume_operation_total_seconds", "Total volume operation time", &TOOK);
    page.counters("volume_operation_total_errors", "Total volume operation errors", &FAILED);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use testkit::Cluster;

    use super::*;
    use crate::testing::cluster;
    use crate::volume::testing::{claim, volume, wait_claim};

    fn text() -> String {
        let mut text = Page::new();
        page(&mut text);
        text.finish()
    }

    async fn wait_line(cluster: &Cluster, line: &str) {
        let is_there = || async { text().lines().any(|l| l == line).then_some(()) };
        cluster.wait_for(line, is_there).await;
    }

    #[tokio::test]
    async fn volumes_and_claims_are_counted_by_their_state() {
        let cluster = cluster().await;
        // The process may have other clusters: these are in a class of their own.
        let of = |more: serde_json::Value| {
            let mut spec = json!({"storageClassName": "counted"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        for name in ["a", "b"] {
            cluster.create_global(&volume(name, of(json!({})))).await;
        }
        let csi = of(json!({"hostPath": null, "csi": {"driver": "counted.io", "volumeHandle": "h"},
            "capacity": {"storage": "9Gi"}, "volumeMode": "Block"}));
        cluster.create_global(&volume("c", csi)).await;
        cluster.create("default", &claim("bound", of(json!({})))).await;
        wait_claim(&cluster, "bound", "Bound").await;
        let large =
            json!({"resources": {"requests": {"storage": "99Gi"}}, "volumeAttributesClassName": "gold"});
        cluster.create("default", &claim("waits", of(large))).await;
        for line in [
            "pv_collector_total_pv_count{plugin_name=\"kubernetes.io/csi:counted.io\",volume_mode=\"Block\"} 1",
            "pv_collector_bound_pv_count{storage_class=\"counted\"} 1",
            "pv_collector_unbound_pv_count{storage_class=\"counted\"} 2",
            "pv_collector_bound_pvc_count{namespace=\"default\",storage_class=\"counted\",volume_attributes_class=\"\"} 1",
            "pv_collector_unbound_pvc_count{namespace=\"default\",storage_class=\"counted\",volume_attributes_class=\"gold\"} 1",
        ] {
            wait_line(&cluster, line).await;
        }
        let witness = testkit::Cluster::start().await;
        drop(cluster);
        let gone = || async { (!text().contains("storage_class=\"counted\"")).then_some(()) };
        witness.wait_for("what has ended not to be counted", gone).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_were_asked_for_is_timed() {
        let about = |what: &str| format!("{{operation_name=\"{what}\",plugin_name=\"counted.io/maker\"}}");
        claim_asks("counted/c", "counted.io/maker");
        tokio::time::advance(Duration::from_secs(3)).await;
        claim_asks("counted/c", "counted.io/maker");
        claim_bound("counted/c", false);
        claim_bound("counted/c", true);
        claim_bound("counted/c", true);
        volume_released("counted-v", "counted.io/maker");
        tokio::time::advance(Duration::from_secs(2)).await;
        volume_gone("counted-v");
        claim_asks("counted/d", "counted.io/maker");
        claim_gone("counted/d");
        claim_bound("counted/d", true);
        let text = text();
        for line in [
            format!("volume_operation_total_seconds_sum{} 3", about("provision")),
            format!("volume_operation_total_seconds_count{} 1", about("provision")),
            format!("volume_operation_total_errors{} 1", about("provision")),
            format!("volume_operation_total_seconds_sum{} 2", about("delete")),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
