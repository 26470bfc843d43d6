//! `/metrics/cadvisor`: the names and labels that dashboards know (google/cadvisor, `metrics/prometheus.go`;
//! kubernetes/kubernetes, `pkg/kubelet/server/server.go`, `containerPrometheusLabelsFunc`).

use std::borrow::Cow;

use base::Timestamp;
use k8s_openapi::api::core::v1::Container;
use sys::cgroup::{Details, Pressures, Usage};
use types::Quantity;

use super::resource::since_1970;
use super::text::Text;
use super::{COUNTER, GAUGE, seconds};
use crate::server::Server;
use crate::server::summary::PodDisk;
use crate::stats::{FileSystem, Link, Sample};

/// One cgroup: the machine, a pod or a container.
struct Row {
    labels: [(&'static str, String); 6],
    usage: Usage,
    details: Details,
    started: Timestamp,
    /// By interface; of the machine and of pods.
    links: Vec<(String, Link)>,
    /// Of containers: what they write, and its file system.
    disk: Option<(u64, FileSystem)>,
    /// Of containers: as they were asked for.
    spec: Option<Container>,
    is_container: bool,
}

fn labels(
    container: &str,
    id: &str,
    image: &str,
    name: &str,
    namespace: &str,
    pod: &str,
) -> [(&'static str, String); 6] {
    [
        ("container", container.into()),
        ("id", id.into()),
        ("image", image.into()),
        ("name", name.into()),
        ("namespace", namespace.into()),
        ("pod", pod.into()),
    ]
}

/// The numbers of one measurement; `disks` belong to its pods.
pub(super) fn text(server: &Server, sample: &Sample, disks: &[PodDisk]) -> String {
    let rows = rows(server, sample, disks);
    let mut text = Text::default();
    machine(&mut text, sample);
    cpu(&mut text, &rows, sample.at);
    memory(&mut text, &rows, sample.at);
    filesystems(&mut text, &rows, sample.at);
    networks(&mut text, &rows, sample.at);
    others(&mut text, &rows, sample.at);
    super::pressure::tell(&mut text, |text, value| {
        each(text, &rows, Some(sample.at), &[], |row| value(&row.details.pressures));
    });
    specs(&mut text, &rows);
    text.family(
        "container_scrape_error",
        GAUGE,
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    text.sample(&[], 0.0);
    text.finish()
}

fn rows(server: &Server, sample: &Sample, disks: &[PodDisk]) -> Vec<Row> {
    let (host, memory) = (&sample.host, &sample.host.memory);
    let whole = Usage {
        cpu_ns: host.cpu_ns,
        memory: memory.usage(),
        inactive_file: memory.inactive_file,
        rss: memory.rss,
        cache: memory.cache,
        mapped_file: memory.mapped_file,
        swap: memory.swap_total.saturating_sub(memory.swap_free),
        page_faults: host.page_faults,
        major_page_faults: host.major_page_faults,
        pids: host.processes.0,
    };
    let mut rows = vec![Row {
        labels: labels("", "/", "", "", "", ""),
        usage: whole,
        details: Details { pressures: Pressures::of_machine(), ..Details::default() },
        started: Timestamp::from_second(host.booted).unwrap_or_default(),
        links: sample.links.clone(),
        disk: FileSystem::of(&server.data_dir).map(|disk| (disk.used, disk)),
        spec: None,
        is_container: false,
    }];
    for (index, pod) in sample.pods.iter().enumerate() {
        let object = server.pod(&pod.namespace, &pod.name).ok();
        let id = format!("/{}", pod.cgroup);
        rows.push(Row {
            labels: labels("", &id, "", "", &pod.namespace, &pod.name),
            usage: pod.usage,
            details: pod.details.unwrap_or_default(),
            started: pod.created,
            links: pod.link.iter().map(|link| ("eth0".to_owned(), link.clone())).collect(),
            disk: None,
            spec: None,
            is_container: false,
        });
        for (at, container) in pod.containers.iter().enumerate() {
            let spec = object
                .as_ref()
                .and_then(|o| crate::worker::named_container(o, &container.name))
                .map(Cow::into_owned);
            let disk = disks.get(index).and_then(|d| Some((d.layers.get(at)?.bytes, d.disk)));
            let own = format!("{id}/{}", container.id);
            rows.push(Row {
                labels: labels(
                    &container.name,
                    &own,
                    &container.image,
                    &container.id,
                    &pod.namespace,
                    &pod.name,
                ),
                usage: container.usage,
                details: container.details.unwrap_or_default(),
                started: container.started,
                links: Vec::new(),
                disk,
                spec,
                is_container: true,
            });
        }
    }
    rows
}

/// Writes a number of each row, if it has one.
fn each(
    text: &mut Text,
    rows: &[Row],
    at: Option<Timestamp>,
    more: &[(&str, &str)],
    value: impl Fn(&Row) -> Option<f64>,
) {
    for row in rows {
        let Some(value) = value(row) else { continue };
        let mut labels: Vec<(&str, &str)> = row.labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
        labels.extend(more);
        labels.sort_unstable();
        match at {
            Some(at) => text.sample_at(&labels, value, at),
            None => text.sample(&labels, value),
        }
    }
}

fn machine(text: &mut Text, sample: &Sample) {
    let memory = &sample.host.memory;
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let ids = (read("/etc/machine-id"), read("/proc/sys/kernel/random/boot_id"));
    let labels = [("boot_id", ids.1.as_str()), ("machine_id", ids.0.as_str()), ("system_uuid", "")];
    let kernel = read("/proc/sys/kernel/osrelease");
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.";
    text.family("cadvisor_version_info", GAUGE, help);
    let version = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", kernel.as_str()),
        ("osVersion", ""),
    ];
    text.sample(&version, 1.0);
    text.family("machine_cpu_cores", GAUGE, "Number of logical CPU cores.");
    text.sample(&labels, cpus);
    text.family("machine_cpu_physical_cores", GAUGE, "Number of physical CPU cores.");
    text.sample(&labels, cpus);
    text.family("machine_cpu_sockets", GAUGE, "Number of CPU sockets.");
    text.sample(&labels, 1.0);
    text.family("machine_memory_bytes", GAUGE, "Amount of memory installed on the machine.");
    text.sample(&labels, memory.total as f64);
    text.family("machine_swap_bytes", GAUGE, "Amount of swap memory available on the machine.");
    text.sample(&labels, memory.swap_total as f64);
    text.family(
        "machine_scrape_error",
        GAUGE,
        "1 if there was an error while getting machine metrics, 0 otherwise.",
    );
    text.sample(&[], 0.0);
}

fn cpu(text: &mut Text, rows: &[Row], at: Timestamp) {
    let at = Some(at);
    text.family("container_cpu_usage_seconds_total", COUNTER, "Cumulative cpu time consumed in seconds.");
    each(text, rows, at, &[("cpu", "total")], |row| Some(seconds(row.usage.cpu_ns)));
    text.family("container_cpu_user_seconds_total", COUNTER, "Cumulative user cpu time consumed in seconds.");
    each(text, rows, at, &[], |row| Some(seconds(row.details.cpu_user_ns)));
    text.family(
        "container_cpu_system_seconds_total",
        COUNTER,
        "Cumulative system cpu time consumed in seconds.",
    );
    each(text, rows, at, &[], |row| Some(seconds(row.details.cpu_system_ns)));
    // As upstream, only of those that have a quota.
    let limited = |row: &Row| row.details.periods > 0;
    text.family(
        "container_cpu_cfs_periods_total",
        COUNTER,
        "Number of elapsed enforcement period intervals.",
    );
    each(text, rows, at, &[], |row| limited(row).then_some(row.details.periods as f64));
    text.family(
        "container_cpu_cfs_throttled_periods_total",
        COUNTER,
        "Number of throttled period intervals.",
    );
    each(text, rows, at, &[], |row| limited(row).then_some(row.details.throttled_periods as f64));
    let help = "Total time duration the container has been throttled.";
    text.family("container_cpu_cfs_throttled_seconds_total", COUNTER, help);
    each(text, rows, at, &[], |row| limited(row).then_some(seconds(row.details.throttled_ns)));
}

fn memory(text: &mut Text, rows: &[Row], at: Timestamp) {
    type Field = fn(&Row) -> u64;
    let gauges: [(&'static str, &str, Field); 7] = [
        ("container_memory_cache", "Number of bytes of page cache memory.", |r| r.usage.cache),
        ("container_memory_mapped_file", "Size of memory mapped files in bytes.", |r| r.usage.mapped_file),
        ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", |r| {
            r.details.memory_peak
        }),
        ("container_memory_rss", "Size of RSS in bytes.", |r| r.usage.rss),
        ("container_memory_swap", "Container swap usage in bytes.", |r| r.usage.swap),
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |r| r.usage.memory,
        ),
        ("container_memory_working_set_bytes", "Current working set in bytes.", |r| r.usage.working_set()),
    ];
    for (name, help, field) in gauges {
        text.family(name, GAUGE, help);
        each(text, rows, Some(at), &[], |row| Some(field(row) as f64));
    }
    text.family("container_memory_failcnt", COUNTER, "Number of memory usage hits limits");
    each(text, rows, Some(at), &[], |row| Some(row.details.memory_failures as f64));
    text.family(
        "container_memory_failures_total",
        COUNTER,
        "Cumulative count of memory allocation failures.",
    );
    let faults: [(&str, Field); 2] =
        [("pgfault", |r| r.usage.page_faults), ("pgmajfault", |r| r.usage.major_page_faults)];
    for (kind, field) in faults {
        each(text, rows, Some(at), &[("failure_type", kind), ("scope", "hierarchy")], |row| {
            Some(field(row) as f64)
        });
    }
}

fn filesystems(text: &mut Text, rows: &[Row], at: Timestamp) {
    type Field = fn(u64, &FileSystem) -> u64;
    let gauges: [(&'static str, &str, Field); 4] = [
        ("container_fs_inodes_free", "Number of available Inodes", |_, disk| disk.inodes_free),
        ("container_fs_inodes_total", "Number of Inodes", |_, disk| disk.inodes),
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            |_, disk| disk.capacity,
        ),
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            |used, _| used,
        ),
    ];
    for (name, help, field) in gauges {
        text.family(name, GAUGE, help);
        each(text, rows, Some(at), &[("device", "")], |row| {
            row.disk.as_ref().map(|(used, disk)| field(*used, disk) as f64)
        });
    }
}

fn networks(text: &mut Text, rows: &[Row], at: Timestamp) {
    type Field = fn(&Link) -> u64;
    let counters: [(&'static str, &str, Field); 8] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |l| l.rx_bytes),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |l| l.rx_errors,
        ),
        (
            "container_network_receive_packets_dropped_total",
            "Cumulative count of packets dropped while receiving",
            |l| l.rx_dropped,
        ),
        ("container_network_receive_packets_total", "Cumulative count of packets received", |l| l.rx_packets),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |l| l.tx_bytes),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |l| l.tx_errors,
        ),
        (
            "container_network_transmit_packets_dropped_total",
            "Cumulative count of packets dropped while transmitting",
            |l| l.tx_dropped,
        ),
        ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |l| {
            l.tx_packets
        }),
    ];
    for (name, help, field) in counters {
        text.family(name, COUNTER, help);
        for row in rows {
            for (interface, link) in &row.links {
                let one = std::slice::from_ref(row);
                each(text, one, Some(at), &[("interface", interface)], |_| Some(field(link) as f64));
            }
        }
    }
}

/// A metric's name, what it says, and what it says of one.
type Count = (&'static str, &'static str, fn(&Details) -> u64);

fn others(text: &mut Text, rows: &[Row], at: Timestamp) {
    text.family("container_last_seen", GAUGE, "Last time a container was seen by the exporter");
    each(text, rows, Some(at), &[], |_| Some(at.as_second() as f64));
    text.family(
        "container_oom_events_total",
        COUNTER,
        "Count of out of memory events observed for the container",
    );
    each(text, rows, Some(at), &[], |row| Some(row.details.oom_kills as f64));
    text.family("container_threads", GAUGE, "Number of threads running inside the container");
    each(text, rows, Some(at), &[], |row| Some(row.usage.pids as f64));
    // Of the machine upstream tells of those that are in no cgroup, which nobody asks for.
    let counts: [Count; 3] = [
        ("container_processes", "Number of processes running inside the container.", |d| d.processes),
        ("container_file_descriptors", "Number of open file descriptors for the container.", |d| {
            d.file_descriptors
        }),
        ("container_sockets", "Number of open sockets for the container.", |d| d.sockets),
    ];
    for (name, help, count) in counts {
        text.family(name, GAUGE, help);
        each(text, &rows[1..], Some(at), &[], |row| Some(count(&row.details) as f64));
    }
    text.family(
        "container_start_time_seconds",
        GAUGE,
        "Start time of the container since unix epoch in seconds.",
    );
    each(text, rows, Some(at), &[], |row| Some(since_1970(row.started)));
}

/// What containers were asked for.
fn specs(text: &mut Text, rows: &[Row]) {
    let amount = |row: &Row, limit: bool, name: &str| -> Option<Quantity> {
        let resources = row.spec.as_ref()?.resources.as_ref()?;
        let map = if limit {
            resources.limits.as_ref()
        } else {
            resources.requests.as_ref().or(resources.limits.as_ref())
        };
        map?.get(name)?.0.parse().ok()
    };
    let containers = |row: &Row| row.is_container.then_some(());
    text.family("container_spec_cpu_period", GAUGE, "CPU period of the container.");
    each(text, rows, None, &[], |row| containers(row).map(|()| 100_000.0));
    text.family("container_spec_cpu_quota", GAUGE, "CPU quota of the container.");
    each(text, rows, None, &[], |row| {
        containers(row)?;
        Some((amount(row, true, "cpu")?.millis() * 100).max(1000) as f64)
    });
    text.family("container_spec_cpu_shares", GAUGE, "CPU share of the container.");
    each(text, rows, None, &[], |row| {
        containers(row)?;
        let millis = amount(row, false, "cpu").map_or(0, |q| q.millis());
        Some((millis * 1024 / 1000).clamp(2, 262_144) as f64)
    });
    text.family("container_spec_memory_limit_bytes", GAUGE, "Memory limit for the container.");
    each(text, rows, None, &[], |row| {
        containers(row).map(|()| amount(row, true, "memory").map_or(0.0, |q| q.units() as f64))
    });
}
