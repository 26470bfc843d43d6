use super::Group;

/// What a cgroup uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory, caches included.
    pub memory: u64,
    /// File pages that can be reclaimed at once.
    pub inactive_file: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Group {
    /// What it and the cgroups below use now; what cannot be read is 0.
    pub fn usage(&self) -> Usage {
        let number = |controller: &str, file: &str| {
            self.read(controller, file).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        let v2 = self.all.is_v2();
        let stat = self.read("memory", "memory.stat").unwrap_or_default();
        let in_stat =
            |v1_name: &str, v2_name: &str| field(&stat, if v2 { v2_name } else { v1_name }).unwrap_or(0);
        Usage {
            cpu_ns: if v2 {
                let text = self.read("", "cpu.stat").unwrap_or_default();
                field(&text, "usage_usec").unwrap_or(0).saturating_mul(1000)
            } else {
                number("cpuacct", "cpuacct.usage")
            },
            memory: number("memory", if v2 { "memory.current" } else { "memory.usage_in_bytes" }),
            inactive_file: in_stat("total_inactive_file", "inactive_file"),
            rss: in_stat("total_rss", "anon"),
            pids: number("pids", "pids.current"),
        }
    }
}

/// The number after `name ` at the beginning of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
