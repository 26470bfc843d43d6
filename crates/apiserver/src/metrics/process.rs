//! What the kernel knows of this process (prometheus/client_golang, `prometheus/process_collector.go`).

use super::Text;

/// Clock ticks and pages are these on every architecture that Linux shows them on.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// Adds the numbers; where `/proc` is not mounted there are none.
pub(super) fn text(out: &mut Text) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // The name in parentheses may hold anything; fields are counted from behind it, the first one being number 3.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> = after.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    let booted = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
    });
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            (field(14) + field(15)) / TICKS_PER_SECOND,
        ),
        ("process_open_fds", "gauge", "Number of open file descriptors.", open as f64),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", field(24) * PAGE_BYTES),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23)),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            booted.unwrap_or(0.0) + field(22) / TICKS_PER_SECOND,
        ),
    ] {
        out.family(name, kind, help);
        out.sample("", value);
    }
}
