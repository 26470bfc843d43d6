//! What the kernel says of the whole machine, out of the texts below `/proc`.

use std::collections::HashMap;

/// What the machine uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// CPU time since the machine started, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// When the machine started, in seconds since 1970.
    pub(crate) booted: i64,
    pub(crate) memory: Memory,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    /// Processes and threads: how many there are, and how many there may be.
    pub(crate) processes: (u64, u64),
}

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) inactive_file: u64,
    /// Anonymous memory.
    pub(crate) rss: u64,
    pub(crate) cache: u64,
    pub(crate) mapped_file: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
}

impl Memory {
    /// As the root cgroup of v2 counts (opencontainers/cgroups, `fs2/memory.go`, `rootStatsFromMeminfo`).
    pub(crate) fn usage(&self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    /// What cannot be reclaimed at once.
    pub(crate) fn working_set(&self) -> u64 {
        self.usage().saturating_sub(self.inactive_file)
    }

    /// What more could be used.
    pub(crate) fn available(&self) -> u64 {
        self.total.saturating_sub(self.working_set())
    }

    pub(super) fn parse(meminfo: &str) -> Self {
        let mut memory = Self::default();
        for line in meminfo.lines() {
            let Some((name, rest)) = line.split_once(':') else { continue };
            let Some(kilobytes) = rest.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            let field = match name {
                "MemTotal" => &mut memory.total,
                "MemFree" => &mut memory.free,
                "Inactive(file)" => &mut memory.inactive_file,
                "AnonPages" => &mut memory.rss,
                "Cached" => &mut memory.cache,
                "Mapped" => &mut memory.mapped_file,
                "SwapTotal" => &mut memory.swap_total,
                "SwapFree" => &mut memory.swap_free,
                _ => continue,
            };
            *field = kilobytes.saturating_mul(1024);
        }
        memory
    }
}

/// Of `USER_HZ`, which is the same on all machines that programs see.
const TICK_NS: u64 = 10_000_000;

impl Host {
    /// As it is now; what cannot be read is 0.
    pub(crate) fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse::<u64>().unwrap_or(0);
        let (cpu_ns, booted) = cpu(&text("/proc/stat"));
        let (page_faults, major_page_faults) = faults(&text("/proc/vmstat"));
        let limits = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
        let most = limits.into_iter().filter(|n| *n > 0).min().unwrap_or(0);
        Self {
            cpu_ns,
            booted,
            memory: Memory::parse(&text("/proc/meminfo")),
            page_faults,
            major_page_faults,
            processes: (processes(&text("/proc/loadavg")), most),
        }
    }
}

/// Time that was not idle, and the start of the machine, out of `/proc/stat`.
fn cpu(stat: &str) -> (u64, i64) {
    let numbers =
        |line: &str| -> Vec<u64> { line.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect() };
    let mut found = (0, 0);
    for line in stat.lines() {
        if line.starts_with("cpu ") {
            // user nice system idle iowait irq softirq steal; guests are in the first two.
            let ticks = numbers(line);
            let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at));
            found.0 = busy.fold(0u64, |sum, n| sum.saturating_add(*n)).saturating_mul(TICK_NS);
        } else if line.starts_with("btime ") {
            found.1 = numbers(line).first().and_then(|n| i64::try_from(*n).ok()).unwrap_or(0);
        }
    }
    found
}

fn faults(vmstat: &str) -> (u64, u64) {
    let field = |name: &str| {
        vmstat.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
    };
    (field("pgfault"), field("pgmajfault"))
}

/// `0.00 0.01 0.05 1/371 4711`: the number behind the slash.
fn processes(loadavg: &str) -> u64 {
    let fraction = loadavg.split_whitespace().nth(3).and_then(|f| f.split_once('/'));
    fraction.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

/// What went through a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_errors: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_errors: u64,
    pub(crate) tx_dropped: u64,
}

impl Link {
    /// The same seen from the other end of a pair.
    pub(super) fn mirrored(self) -> Self {
        Self {
            rx_bytes: self.tx_bytes,
            rx_packets: self.tx_packets,
            rx_errors: self.tx_errors,
            rx_dropped: self.tx_dropped,
            tx_bytes: self.rx_bytes,
            tx_packets: self.rx_packets,
            tx_errors: self.rx_errors,
            tx_dropped: self.rx_dropped,
        }
    }
}

/// All interfaces of a `/proc/net/dev`, by name.
pub(super) fn links(dev: &str) -> HashMap<String, Link> {
    let link = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let at = |at: usize| counts.get(at).copied();
        let link = Link {
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        };
        Some((name.trim().to_owned(), link))
    };
    dev.lines().filter_map(link).collect()
}

/// The interface that the default route leads to, out of `/proc/net/route`.
pub(super) fn default_link(route: &str) -> Option<String> {
    route.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, destination) = (words.next()?, words.next()?);
        (destination == "00000000").then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_is_counted_as_in_the_root_cgroup() {
        let text = "MemTotal:       24684092 kB\nMemFree:         7685672 kB\nMemAvailable:   22621460 kB\n\
            Cached:         14091764 kB\nInactive(file):  9000000 kB\nAnonPages: 100 kB\nSwapTotal: 4 kB\nSwapFree: 1 kB\n";
        let memory = Memory::parse(text);
        assert_eq!(memory.usage(), (24_684_092 - 7_685_672) * 1024);
        assert_eq!(memory.working_set(), (24_684_092 - 7_685_672 - 9_000_000) * 1024);
        assert_eq!(memory.available(), (7_685_672 + 9_000_000) * 1024);
        assert_eq!((memory.rss, memory.swap_total, memory.swap_free), (102_400, 4096, 1024));
    }

    #[test]
    fn cpu_time_is_what_is_not_idle() {
        let text = "cpu  100 20 30 9999 888 7 6 5 50 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nbtime 1700000000\n";
        assert_eq!(cpu(text), ((100 + 20 + 30 + 7 + 6 + 5) * TICK_NS, 1_700_000_000));
        assert_eq!(processes("0.00 0.01 0.05 1/371 4711\n"), 371);
        assert_eq!(faults("nr_free_pages 1\npgfault 5\npgmajfault 3\n"), (5, 3));
    }

    #[test]
    fn interfaces_by_name() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs drop|bytes\n\
            lo: 16 2    1    3    0     0          0         0 17 4    5    6    0     0       0          0\n";
        let all = links(text);
        assert_eq!(all.len(), 1);
        let lo = all["lo"].clone();
        assert_eq!((lo.rx_bytes, lo.rx_dropped, lo.tx_bytes, lo.tx_errors), (16, 3, 17, 5));
        assert_eq!((lo.clone().mirrored().tx_bytes, lo.mirrored().rx_packets), (16, 4));
        let route = "Iface Destination Gateway\neth1 000200C0 0\neth0 00000000 010200C0\n";
        assert_eq!(default_link(route).as_deref(), Some("eth0"));
        assert_eq!(default_link(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(cpu |btime |MemTotal: |lo:|[0-9 :/]|\n){0,60}") {
            let _ = (cpu(&text), Memory::parse(&text), links(&text), processes(&text), default_link(&text));
        }
    }
}
