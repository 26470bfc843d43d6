//! `/metrics` and `/metrics/probes`: the agent's own numbers (kubernetes/kubernetes, `pkg/kubelet/metrics`,
//! `pkg/kubelet/prober/prober_manager.go`).

use std::collections::BTreeMap;

use runtime::ContainerState;

use super::text::Text;
use super::{COUNTER, GAUGE};
use crate::meters::{BOUNDS, Counted, Durations};
use crate::server::Server;
use crate::server::summary::own_usage;

const HISTOGRAM: &str = "histogram";

pub(super) async fn text(server: &Server) -> String {
    let mut text = Text::default();
    let counted = server.meters.read();
    running(&mut text, server);
    doings(&mut text, &counted);
    volumes(&mut text, server).await;
    process(&mut text, server);
    let mut page = base::metrics::Page::new();
    crate::certificates::metrics(&mut page, &*server.clock);
    text.finish() + &page.finish()
}

fn running(text: &mut Text, server: &Server) {
    let (mut sandboxes, mut states) = (0, BTreeMap::<&str, u64>::new());
    for sandbox in server.runtime.sandboxes() {
        sandboxes += u64::from(sandbox.state == runtime::SandboxState::Ready);
        for container in server.runtime.containers(&sandbox.spec.id) {
            let state = match container.state {
                ContainerState::Created => "created",
                ContainerState::Running { .. } => "running",
                ContainerState::Exited(_) => "exited",
            };
            *states.entry(state).or_default() += 1;
        }
    }
    text.family("kubelet_node_name", GAUGE, "[ALPHA] The node's name. The count is always 1.");
    text.sample(&[("node", &server.node)], 1.0);
    text.family("kubelet_running_pods", GAUGE, "[BETA] Number of pods that have a running pod sandbox");
    text.sample(&[], sandboxes as f64);
    text.family("kubelet_running_containers", GAUGE, "[BETA] Number of containers currently running");
    for (state, count) in states {
        text.sample(&[("container_state", state)], count as f64);
    }
    let help = "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.";
    text.family("kubelet_desired_pods", GAUGE, help);
    let (all, own) = (server.pods.list().len(), server.pods.own_count());
    text.sample(&[("static", "")], all.saturating_sub(own) as f64);
    text.sample(&[("static", "true")], own as f64);
    let (began, ended) = server.shutdown.times();
    let help = "[ALPHA] Last graceful shutdown start time since unix epoch in seconds";
    text.family("kubelet_graceful_shutdown_start_time_seconds", GAUGE, help);
    text.sample(&[], began);
    let help = "[ALPHA] Last graceful shutdown end time since unix epoch in seconds";
    text.family("kubelet_graceful_shutdown_end_time_seconds", GAUGE, help);
    text.sample(&[], ended);
}

fn doings(text: &mut Text, counted: &Counted) {
    let help =
        "[BETA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run";
    text.family("kubelet_pod_start_duration_seconds", HISTOGRAM, help);
    histogram(text, &[], &counted.pod_starts);
    let help =
        "[ALPHA] Duration in seconds to start a pod, excluding time to pull images and run init containers";
    text.family("kubelet_pod_start_sli_duration_seconds", HISTOGRAM, help);
    histogram(text, &[], &counted.pod_starts);
    let help = "[BETA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync";
    text.family("kubelet_pod_worker_duration_seconds", HISTOGRAM, help);
    histogram(text, &[("operation_type", "sync")], &counted.looks);
    text.family(
        "kubelet_image_pull_duration_seconds",
        HISTOGRAM,
        "[ALPHA] Duration in seconds to pull an image.",
    );
    histogram(text, &[("image_size_in_bytes", "N/A")], &counted.image_pulls);
    let help = "[BETA] Cumulative number of runtime operations by operation type.";
    text.family("kubelet_runtime_operations_total", COUNTER, help);
    for (operation, took) in &counted.operations {
        text.sample(&[("operation_type", operation)], took.count as f64);
    }
    let help = "[BETA] Cumulative number of runtime operation errors by operation type.";
    text.family("kubelet_runtime_operations_errors_total", COUNTER, help);
    for (operation, count) in &counted.operation_errors {
        text.sample(&[("operation_type", operation)], *count as f64);
    }
    let help = "[BETA] Duration in seconds of runtime operations. Broken down by operation type.";
    text.family("kubelet_runtime_operations_duration_seconds", HISTOGRAM, help);
    for (operation, took) in &counted.operations {
        histogram(text, &[("operation_type", operation)], took);
    }
    text.family("kubelet_started_pods_total", COUNTER, "[BETA] Cumulative number of pods started");
    text.sample(&[], counted.started_pods as f64);
    text.family(
        "kubelet_started_containers_total",
        COUNTER,
        "[BETA] Cumulative number of containers started",
    );
    for ([kind], count) in &counted.started_containers {
        text.sample(&[("container_type", kind)], *count as f64);
    }
    let help = "[BETA] Cumulative number of errors when starting containers";
    text.family("kubelet_started_containers_errors_total", COUNTER, help);
    for ([kind, code], count) in &counted.failed_containers {
        text.sample(&[("code", code), ("container_type", kind)], *count as f64);
    }
    text.family("kubelet_evictions", COUNTER, "[BETA] Cumulative number of pod evictions by eviction signal");
    for (signal, count) in &counted.evictions {
        text.sample(&[("eviction_signal", signal)], *count as f64);
    }
    let help = "[ALPHA] Cumulative number of pod preemptions by preemption resource";
    text.family("kubelet_preemptions", COUNTER, help);
    for (signal, count) in &counted.preemptions {
        text.sample(&[("preemption_signal", signal)], *count as f64);
    }
    let help = "[BETA] Total number of images garbage collected by the kubelet, whether through disk usage or image age.";
    text.family("kubelet_image_garbage_collected_total", COUNTER, help);
    for (reason, count) in &counted.images_removed {
        text.sample(&[("reason", reason)], *count as f64);
    }
}

/// Of claims: what their volumes have and what is used of it.
async fn volumes(text: &mut Text, server: &Server) {
    type Field = fn(&Row) -> u64;
    struct Row {
        namespace: String,
        claim: String,
        disk: crate::stats::FileSystem,
        used: crate::stats::Extent,
    }
    let mut rows = Vec::new();
    if let Ok(sample) = server.stats.sample(false).await {
        for pod in &sample.pods {
            let Ok(object) = server.pod(&pod.namespace, &pod.name) else { continue };
            let mut volumes = object.spec.iter().flat_map(|s| s.volumes.iter().flatten());
            if !volumes.any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()) {
                continue;
            }
            for volume in server.disk_of(pod, Some(&object)).await.volumes {
                let used = volume.used();
                let Some(claim) = volume.claim else { continue };
                rows.push(Row { namespace: pod.namespace.clone(), claim, disk: volume.disk, used });
            }
        }
    }
    let families: [(&'static str, &str, Field); 6] = [
        ("kubelet_volume_stats_available_bytes", "[BETA] Number of available bytes in the volume", |r| {
            r.disk.available
        }),
        ("kubelet_volume_stats_capacity_bytes", "[BETA] Capacity in bytes of the volume", |r| {
            r.disk.capacity
        }),
        ("kubelet_volume_stats_inodes", "[BETA] Maximum number of inodes in the volume", |r| r.disk.inodes),
        ("kubelet_volume_stats_inodes_free", "[BETA] Number of free inodes in the volume", |r| {
            r.disk.inodes_free
        }),
        ("kubelet_volume_stats_inodes_used", "[BETA] Number of used inodes in the volume", |r| r.used.inodes),
        ("kubelet_volume_stats_used_bytes", "[BETA] Number of used bytes in the volume", |r| r.used.bytes),
    ];
    for (name, help, field) in families {
        text.family(name, GAUGE, help);
        for row in &rows {
            let labels =
                [("namespace", row.namespace.as_str()), ("persistentvolumeclaim", row.claim.as_str())];
            text.sample(&labels, field(row) as f64);
        }
    }
}

fn process(text: &mut Text, server: &Server) {
    let own = own_usage();
    text.family("process_cpu_seconds_total", COUNTER, "Total user and system CPU time spent in seconds.");
    text.sample(&[], super::seconds(own.cpu_ns));
    text.family("process_resident_memory_bytes", GAUGE, "Resident memory size in bytes.");
    text.sample(&[], own.memory as f64);
    let help = "Start time of the process since unix epoch in seconds.";
    text.family("process_start_time_seconds", GAUGE, help);
    text.sample(&[], super::resource::since_1970(server.began));
}

/// What probes have found, for pods that are still here.
pub(super) fn probes(counted: &Counted) -> String {
    let mut text = Text::default();
    let help =
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
    text.family("prober_probe_total", COUNTER, help);
    for (uid, counts) in &counted.probes {
        for ([probe, result, container, pod, namespace], count) in counts {
            let labels = [
                ("container", container.as_str()),
                ("namespace", namespace.as_str()),
                ("pod", pod.as_str()),
                ("pod_uid", uid.as_str()),
                ("probe_type", probe.as_str()),
                ("result", result.as_str()),
            ];
            text.sample(&labels, *count as f64);
        }
    }
    text.finish()
}

fn histogram(text: &mut Text, labels: &[(&str, &str)], took: &Durations) {
    for (bound, count) in BOUNDS.iter().zip(took.within) {
        let bound = bound.to_string();
        text.part("_bucket", &[labels, &[("le", bound.as_str())]].concat(), count as f64);
    }
    text.part("_bucket", &[labels, &[("le", "+Inf")]].concat(), took.count as f64);
    text.part("_sum", labels, took.sum);
    text.part("_count", labels, took.count as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_by_result() {
        let mut counted = Counted::default();
        let key = ["Readiness", "successful", "c", "p", "n"].map(str::to_owned);
        counted.probes.entry("u".into()).or_default().insert(key, 3);
        let want = "prober_probe_total{container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"Readiness\",result=\"successful\"} 3\n";
        assert!(probes(&counted).ends_with(want), "{}", probes(&counted));
        let mut text = Text::default();
        doings(&mut text, &counted);
        assert!(text.finish().contains("kubelet_pod_start_duration_seconds_bucket{le=\"+Inf\"} 0\n"));
    }
}
