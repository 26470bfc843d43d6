//! How much was waited for CPU, memory and disks (google/cadvisor, `metrics/prometheus.go`, `PressureMetrics`).

use sys::cgroup::{Pressure, Pressures};

use super::COUNTER;
use super::text::Text;

/// One family's value of one cgroup, in seconds; none where the kernel does not say.
type Value<'a> = &'a dyn Fn(&Pressures) -> Option<f64>;

/// Names each family, and has `write` put the values below it.
pub(super) fn tell(text: &mut Text, write: impl Fn(&mut Text, Value<'_>)) {
    type Of = fn(&Pressures) -> Option<Pressure>;
    let all: [(&str, &str, &str, Of); 3] = [
        (
            "container_pressure_cpu_stalled_seconds_total",
            "container_pressure_cpu_waiting_seconds_total",
            "CPU",
            |p| p.cpu,
        ),
        (
            "container_pressure_memory_stalled_seconds_total",
            "container_pressure_memory_waiting_seconds_total",
            "memory",
            |p| p.memory,
        ),
        (
            "container_pressure_io_stalled_seconds_total",
            "container_pressure_io_waiting_seconds_total",
            "IO",
            |p| p.io,
        ),
    ];
    let seconds = |microseconds: u64| microseconds as f64 / 1e6;
    for (stalled, waiting, what, of) in all {
        let help = format!(
            "Total time duration no tasks in the container could make progress due to {what} congestion."
        );
        text.family(stalled, COUNTER, &help);
        write(text, &|pressures| of(pressures).map(|p| seconds(p.full.total_us)));
        let help =
            format!("Total time duration tasks in the container have waited due to {what} congestion.");
        text.family(waiting, COUNTER, &help);
        write(text, &|pressures| of(pressures).map(|p| seconds(p.some.total_us)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::cgroup::Stall;

    #[test]
    fn each_wait_has_two_families() {
        let io = Pressure { some: Stall { total_us: 1_500_000, ..Stall::default() }, full: Stall::default() };
        let pressures = Pressures { io: Some(io), ..Pressures::default() };
        let mut text = Text::default();
        tell(&mut text, |text, value| {
            if let Some(value) = value(&pressures) {
                text.sample(&[("pod", "p")], value);
            }
        });
        let text = text.finish();
        assert!(text.contains("container_pressure_io_waiting_seconds_total{pod=\"p\"} 1.5\n"), "{text}");
        assert!(text.contains("container_pressure_io_stalled_seconds_total{pod=\"p\"} 0\n"), "{text}");
        assert!(!text.contains("container_pressure_cpu_waiting_seconds_total{"), "{text}");
    }
}
