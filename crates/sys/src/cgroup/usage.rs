use std::fs;

use super::{Group, Pressures};

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
    /// File pages.
    pub cache: u64,
    /// File pages that are mapped.
    pub mapped_file: u64,
    /// Memory that was swapped out.
    pub swap: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that had to wait for a disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Usage {
    /// Memory that cannot be reclaimed at once.
    pub fn working_set(&self) -> u64 {
        self.memory.saturating_sub(self.inactive_file)
    }
}

/// What few ask of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// CPU time in programs, in nanoseconds.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, in nanoseconds.
    pub cpu_system_ns: u64,
    /// Periods in which it had a quota of CPU time.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// How long it had to wait then, in nanoseconds.
    pub throttled_ns: u64,
    /// The most memory it ever used.
    pub memory_peak: u64,
    /// How often it was denied more memory.
    pub memory_failures: u64,
    /// How often the kernel killed a process of it for want of memory.
    pub oom_kills: u64,
    /// How much its processes waited.
    pub pressures: Pressures,
    /// Processes in it, without those in cgroups below.
    pub processes: u64,
    /// What these have open.
    pub file_descriptors: u64,
    /// Sockets among it.
    pub sockets: u64,
}

/// Of `USER_HZ`, which is the same on all machines that programs see.
const TICK_NS: u64 = 10_000_000;

/// How many files a process has open, and how many of them are sockets; a process that is gone has none.
fn open_files(pid: u32) -> (u64, u64) {
    let listed = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    listed.fold((0, 0), |(files, sockets), entry| {
        let target = fs::read_link(entry.path());
        let is_socket = target.is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        (files + 1, sockets + u64::from(is_socket))
    })
}

impl Group {
    /// What it and the cgroups below use now; nothing if it is not there. What cannot be read is 0.
    pub fn usage(&self) -> Option<Usage> {
        let stat = match self.read("memory", "memory.stat") {
            Some(stat) => stat,
            // A kernel without a memory controller counts the rest all the same.
            None if self.all.counting().is_some_and(|h| self.dir(h).is_dir()) => String::new(),
            None => return None,
        };
        Some(if self.all.is_v2() { self.usage_v2(&stat) } else { self.usage_v1(&stat) })
    }

    fn usage_v1(&self, stat: &str) -> Usage {
        let mut usage = Usage {
            cpu_ns: self.number("cpuacct", "cpuacct.usage"),
            memory: self.number("memory", "memory.usage_in_bytes"),
            pids: self.number("pids", "pids.current"),
            ..Usage::default()
        };
        each(stat, |name, value| match name {
            "total_inactive_file" => usage.inactive_file = value,
            "total_rss" => usage.rss = value,
            "total_cache" => usage.cache = value,
            "total_mapped_file" => usage.mapped_file = value,
            "total_swap" => usage.swap = value,
            "total_pgfault" => usage.page_faults = value,
            "total_pgmajfault" => usage.major_page_faults = value,
            _ => {}
        });
        usage
    }

    fn usage_v2(&self, stat: &str) -> Usage {
        let cpu = self.read("", "cpu.stat").unwrap_or_default();
        let mut usage = Usage {
            cpu_ns: field(&cpu, "usage_usec").unwrap_or(0).saturating_mul(1000),
            memory: self.number("", "memory.current"),
            swap: self.number("", "memory.swap.current"),
            pids: self.number("", "pids.current"),
            ..Usage::default()
        };
        each(stat, |name, value| match name {
            "inactive_file" => usage.inactive_file = value,
            "anon" => usage.rss = value,
            "file" => usage.cache = value,
            "file_mapped" => usage.mapped_file = value,
            "pgfault" => usage.page_faults = value,
            "pgmajfault" => usage.major_page_faults = value,
            _ => {}
        });
        usage
    }

    /// What few ask of it; what cannot be read is 0.
    pub fn details(&self) -> Details {
        let oom_kills = self.oom_kills();
        let pids = self.pids();
        let processes = pids.len() as u64;
        let (file_descriptors, sockets) = pids.into_iter().fold((0, 0), |(files, sockets), pid| {
            let (more, of_them) = open_files(pid);
            (files + more, sockets + of_them)
        });
        if self.all.is_v2() {
            let cpu = self.read("", "cpu.stat").unwrap_or_default();
            let events = self.read("", "memory.events").unwrap_or_default();
            let micros = |name: &str| field(&cpu, name).unwrap_or(0).saturating_mul(1000);
            return Details {
                cpu_user_ns: micros("user_usec"),
                cpu_system_ns: micros("system_usec"),
                periods: field(&cpu, "nr_periods").unwrap_or(0),
                throttled_periods: field(&cpu, "nr_throttled").unwrap_or(0),
                throttled_ns: micros("throttled_usec"),
                memory_peak: self.number("", "memory.peak"),
                memory_failures: field(&events, "max").unwrap_or(0),
                oom_kills,
                pressures: self.pressures(),
                processes,
                file_descriptors,
                sockets,
            };
        }
        let (cpu, account) = (self.read("cpu", "cpu.stat"), self.read("cpuacct", "cpuacct.stat"));
        let (cpu, account) = (cpu.unwrap_or_default(), account.unwrap_or_default());
        Details {
            cpu_user_ns: field(&account, "user").unwrap_or(0).saturating_mul(TICK_NS),
            cpu_system_ns: field(&account, "system").unwrap_or(0).saturating_mul(TICK_NS),
            periods: field(&cpu, "nr_periods").unwrap_or(0),
            throttled_periods: field(&cpu, "nr_throttled").unwrap_or(0),
            throttled_ns: field(&cpu, "throttled_time").unwrap_or(0),
            memory_peak: self.number("memory", "memory.max_usage_in_bytes"),
            memory_failures: self.number("memory", "memory.failcnt"),
            oom_kills,
            pressures: Pressures::default(),
            processes,
            file_descriptors,
            sockets,
        }
    }

    fn number(&self, controller: &str, file: &str) -> u64 {
        self.read(controller, file).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

/// Calls `visit` for each line of the form `name number`.
fn each(text: &str, mut visit: impl FnMut(&str, u64)) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(' ')
            && let Ok(value) = value.trim().parse()
        {
            visit(name, value);
        }
    }
}

/// The number after `name ` at the beginning of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
