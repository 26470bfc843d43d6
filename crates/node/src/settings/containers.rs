//! How containers are run, whatever their pods say.

use std::path::PathBuf;
use std::time::Duration;

use runtime::Resources;

/// The shortest and the longest that the longest wait of a container that fails may be.
const RESTARTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Logs, restarts and limits of containers, by the names of upstream's `KubeletConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSettings {
    /// A log begins a new file when it has so many bytes (`containerLogMaxSize`).
    pub log_max_size: u64,
    /// How many files of a log are kept (`containerLogMaxFiles`).
    pub log_max_files: u32,
    /// The longest that a container which fails waits for its next run (`crashLoopBackOff.maxContainerRestartPeriod`).
    pub max_restart_period: Duration,
    /// Containers that say nothing of system calls have the runtime's own filter (`seccompDefault`).
    pub seccomp_default: bool,
    /// When memory runs out only the process that wanted more ends, and not all of the container
    /// (`singleProcessOOMKill`). Cgroup v1 has no other way, and v2 has both; nothing said means the latter.
    pub single_process_oom_kill: Option<bool>,
    /// Limits of CPU are enforced (`cpuCFSQuota`).
    pub cpu_cfs_quota: bool,
    /// Where a pod that asks whom the node asks finds the name servers (`resolvConf`); none: it has none.
    pub resolv_conf: Option<PathBuf>,
}

impl Default for ContainerSettings {
    fn default() -> Self {
        Self {
            log_max_size: 10 << 20,
            log_max_files: 5,
            max_restart_period: RESTARTS.1,
            seccomp_default: false,
            single_process_oom_kill: None,
            cpu_cfs_quota: true,
            resolv_conf: Some("/etc/resolv.conf".into()),
        }
    }
}

impl ContainerSettings {
    /// What is enforced of the limits of a container or a pod.
    pub(crate) fn enforced(&self, limits: Resources) -> Resources {
        if self.cpu_cfs_quota { limits } else { Resources { cpu_quota_us: None, ..limits } }
    }

    /// What cannot be, on a node with this version of cgroups.
    pub(super) fn faults(&self, cgroup_v2: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if self.log_max_files < 2 {
            faults.push(format!(
                "invalid configuration: containerLogMaxFiles (--container-log-max-files) {} must be greater than 1",
                self.log_max_files
            ));
        }
        if self.log_max_size == 0 {
            faults.push("invalid configuration: containerLogMaxSize (--container-log-max-size) must be greater than 0".into());
        }
        if !(RESTARTS.0..=RESTARTS.1).contains(&self.max_restart_period) {
            faults.push(format!(
                "invalid configuration: CrashLoopBackOff.MaxContainerRestartPeriod (got: {} seconds) must be set between 1s and 300s",
                self.max_restart_period.as_secs()
            ));
        }
        if !cgroup_v2 && self.single_process_oom_kill == Some(false) {
            faults.push("invalid configuration: singleProcessOOMKill must not be explicitly set to false when using cgroup v1".into());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_said() {
        assert_eq!(ContainerSettings::default().faults(false), Vec::<String>::new());
        let wrong = ContainerSettings {
            log_max_size: 0,
            log_max_files: 1,
            max_restart_period: Duration::from_secs(301),
            single_process_oom_kill: Some(false),
            ..ContainerSettings::default()
        };
        let faults = wrong.faults(false);
        for (fault, word) in
            faults.iter().zip(["containerLogMaxFiles", "containerLogMaxSize", "got: 301", "cgroup v1"])
        {
            assert!(fault.contains(word), "{fault}");
        }
        assert_eq!((faults.len(), wrong.faults(true).len()), (4, 3));
    }
}
