//! `/metrics/resource` (kubernetes/kubernetes, `pkg/kubelet/metrics/collectors/resource_metrics.go`).

use base::Timestamp;

use super::text::Text;
use super::{COUNTER, GAUGE, seconds};
use crate::stats::{ContainerSample, PodSample, Sample};

/// What autoscalers and `kubectl top` look at; each number says when it was so.
pub(super) fn text(sample: &Sample) -> String {
    let mut text = Text::default();
    let (host, at) = (&sample.host, sample.at);
    let labels = |pod: &PodSample, container: &ContainerSample| {
        [
            ("container", container.name.clone()),
            ("namespace", pod.namespace.clone()),
            ("pod", pod.name.clone()),
        ]
    };
    let each_container = |text: &mut Text, value: &dyn Fn(&ContainerSample) -> f64| {
        for pod in &sample.pods {
            for container in &pod.containers {
                let labels = labels(pod, container);
                let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
                text.sample_at(&labels, value(container), at);
            }
        }
    };
    let each_pod = |text: &mut Text, value: &dyn Fn(&PodSample) -> f64| {
        for pod in sample.pods.iter().filter(|p| !p.containers.is_empty()) {
            text.sample_at(&[("namespace", &pod.namespace), ("pod", &pod.name)], value(pod), at);
        }
    };
    let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
    text.family("container_cpu_usage_seconds_total", COUNTER, help);
    each_container(&mut text, &|c| seconds(c.usage.cpu_ns));
    let help = "[STABLE] Current working set of the container in bytes";
    text.family("container_memory_working_set_bytes", GAUGE, help);
    each_container(&mut text, &|c| c.usage.working_set() as f64);
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    text.family("container_start_time_seconds", GAUGE, help);
    for pod in &sample.pods {
        for container in &pod.containers {
            let labels = labels(pod, container);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
            text.sample(&labels, since_1970(container.started));
        }
    }
    let help = "[ALPHA] Current amount of the container swap limit in bytes";
    text.family("container_swap_limit_bytes", GAUGE, help);
    each_container(&mut text, &|_| 0.0);
    let help =
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems";
    text.family("container_swap_usage_bytes", GAUGE, help);
    each_container(&mut text, &|c| c.usage.swap as f64);
    let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
    text.family("node_cpu_usage_seconds_total", COUNTER, help);
    text.sample_at(&[], seconds(host.cpu_ns), at);
    let help = "[STABLE] Current working set of the node in bytes";
    text.family("node_memory_working_set_bytes", GAUGE, help);
    text.sample_at(&[], host.memory.working_set() as f64, at);
    let help = "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems";
    text.family("node_swap_usage_bytes", GAUGE, help);
    text.sample_at(&[], host.memory.swap_total.saturating_sub(host.memory.swap_free) as f64, at);
    let help = "[STABLE] Cumulative cpu time consumed by the pod in core-seconds";
    text.family("pod_cpu_usage_seconds_total", COUNTER, help);
    each_pod(&mut text, &|p| seconds(p.usage.cpu_ns));
    let help = "[STABLE] Current working set of the pod in bytes";
    text.family("pod_memory_working_set_bytes", GAUGE, help);
    each_pod(&mut text, &|p| p.usage.working_set() as f64);
    let help = "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
    text.family("pod_swap_usage_bytes", GAUGE, help);
    each_pod(&mut text, &|p| p.usage.swap as f64);
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    text.family("resource_scrape_error", GAUGE, help);
    text.sample(&[], 0.0);
    text.finish()
}

pub(super) fn since_1970(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}
