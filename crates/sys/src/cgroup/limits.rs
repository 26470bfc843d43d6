use std::collections::BTreeMap;

use super::{DeviceRule, Group, write};
use crate::error::Result;

/// What a cgroup may use. Absent means "leave as it is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight in v1 terms (2 to 262144).
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period; negative is no limit.
    pub cpu_quota_us: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Bytes of memory; on v1 with no swap on top, on v2 see [`Group::deny_swap`].
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPUs.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub mems: Option<String>,
    /// Bytes of huge pages by their size as cgroups write it (`2MB`).
    pub huge_pages: BTreeMap<String, u64>,
}

impl Group {
    /// Sets limits.
    pub fn limit(&self, limits: &Limits) -> Result<()> {
        if self.all.is_v2() { self.limit_v2(limits) } else { self.limit_v1(limits) }
    }

    fn limit_v1(&self, limits: &Limits) -> Result<()> {
        let set = |controller: &str, file: &str, text: &str| match self.file(controller, file) {
            Some(path) => write(&path, text),
            // A controller that this kernel lacks cannot limit.
            None => Ok(()),
        };
        if let Some(shares) = limits.cpu_shares {
            set("cpu", "cpu.shares", &shares.to_string())?;
        }
        if let Some(period) = limits.cpu_period_us {
            set("cpu", "cpu.cfs_period_us", &period.to_string())?;
        }
        if let Some(quota) = limits.cpu_quota_us {
            set("cpu", "cpu.cfs_quota_us", &quota.max(-1).to_string())?;
        }
        if let Some(bytes) = limits.memory {
            let text = bytes.to_string();
            let memory = || set("memory", "memory.limit_in_bytes", &text);
            let with_swap = || match self.file("memory", "memory.memsw.limit_in_bytes") {
                Some(path) if path.exists() => write(&path, &text),
                _ => Ok(()),
            };
            // Memory may never exceed memory with swap, so which comes first depends on the direction.
            match memory() {
                Ok(()) => with_swap()?,
                Err(_) => with_swap().and_then(|()| memory())?,
            }
        }
        if let Some(pids) = limits.pids {
            set("pids", "pids.max", &pids.to_string())?;
        }
        if let Some(cpus) = &limits.cpus {
            set("cpuset", "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = &limits.mems {
            set("cpuset", "cpuset.mems", mems)?;
        }
        for (size, bytes) in &limits.huge_pages {
            let bytes = bytes.to_string();
            set("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), &bytes)?;
            // What is promised counts too, where the kernel counts it (5.7 and later).
            match self.file("hugetlb", &format!("hugetlb.{size}.rsvd.limit_in_bytes")) {
                Some(path) if path.exists() => write(&path, &bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn limit_v2(&self, limits: &Limits) -> Result<()> {
        let set = |file: &str, text: &str| match self.file("", file) {
            Some(path) => write(&path, text),
            None => Ok(()),
        };
        if let Some(shares) = limits.cpu_shares {
            set("cpu.weight", &weight(shares).to_string())?;
        }
        if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
            let quota = limits.cpu_quota_us.filter(|quota| *quota >= 0);
            let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
            set("cpu.max", &format!("{quota} {}", limits.cpu_period_us.unwrap_or(100_000)))?;
        }
        if let Some(bytes) = limits.memory {
            set("memory.max", &bytes.to_string())?;
        }
        if let Some(pids) = limits.pids {
            set("pids.max", &pids.to_string())?;
        }
        if let Some(cpus) = &limits.cpus {
            set("cpuset.cpus", cpus)?;
        }
        if let Some(mems) = &limits.mems {
            set("cpuset.mems", mems)?;
        }
        for (size, bytes) in &limits.huge_pages {
            for file in [format!("hugetlb.{size}.max"), format!("hugetlb.{size}.rsvd.max")] {
                // A tree without the controller cannot limit.
                if self.file("", &file).is_some_and(|path| path.exists()) {
                    set(&file, &bytes.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// When memory runs out here, all processes end together (v2; v1 has no such thing).
    pub fn end_together(&self) -> Result<()> {
        match self.file("", "memory.oom.group") {
            Some(path) if self.all.is_v2() && path.exists() => write(&path, "1"),
            _ => Ok(()),
        }
    }

    /// Lets nothing here be swapped out (v2; v1 has it in the memory limit).
    pub fn deny_swap(&self) -> Result<()> {
        match self.file("", "memory.swap.max") {
            Some(path) if self.all.is_v2() && path.exists() => write(&path, "0"),
            _ => Ok(()),
        }
    }

    /// Allows these devices only.
    pub fn limit_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        if self.all.is_v2() {
            let Some(dir) = self.open_for_fork()? else { return Ok(()) };
            return super::devices::attach(&dir, rules);
        }
        if let Some(deny) = self.file("devices", "devices.deny") {
            write(&deny, "a")?;
            let allow = deny.with_file_name("devices.allow");
            for rule in rules {
                write(&allow, &rule.v1())?;
            }
        }
        Ok(())
    }
}

/// From 2..262144 to 1..10000, with v1's default of 1024 becoming v2's of 100, so that one CPU weighs as much as a service
/// of the machine (opencontainers/cgroups, `utils.go`, `ConvertCPUSharesToCgroupV2Value`).
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::weight;

    /// As upstream's own test has them (`utils_test.go`, `TestConvertCPUSharesToCgroupV2Value`).
    #[test]
    fn shares_become_weights() {
        for (shares, wanted) in [
            (0, 1),
            (2, 1),
            (102, 17),
            (1024, 100),
            (2048, 174),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), wanted, "{shares}");
        }
        let all: Vec<u64> = (2..5000).map(weight).collect();
        assert!(all.is_sorted());
    }
}
