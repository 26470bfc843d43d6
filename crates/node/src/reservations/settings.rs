use std::collections::{BTreeMap, BTreeSet};

use types::Quantity;

use super::Amounts;

/// What may be kept back (`cmd/kubelet/app/server.go`, `parseResourceList`).
const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];

/// What limits the pods together.
pub(crate) const PODS: &str = "pods";
const NONE: &str = "none";
const SYSTEM: &str = "system-reserved";
const KUBE: &str = "kube-reserved";
const SYSTEM_COMPRESSIBLE: &str = "system-reserved-compressible";
const KUBE_COMPRESSIBLE: &str = "kube-reserved-compressible";

/// What of the node is not the pods', by the names of upstream's `KubeletConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationSettings {
    /// For the node agent and the like, by resource: `cpu`, `memory`, `ephemeral-storage`, `pid`.
    pub kube_reserved: BTreeMap<String, String>,
    /// For everything else that the machine runs.
    pub system_reserved: BTreeMap<String, String>,
    /// The cgroup whose limits `kube_reserved` become, if that is enforced; below the hierarchies' roots.
    pub kube_reserved_cgroup: Option<String>,
    /// The same for `system_reserved`.
    pub system_reserved_cgroup: Option<String>,
    /// `none`, or of `pods`, `system-reserved`, `kube-reserved` and the latter two with `-compressible` behind.
    pub enforce_node_allocatable: Vec<String>,
    /// How many processes and threads a pod may have; 0 or less: as many as all pods together.
    pub pod_pids_limit: i64,
}

impl Default for ReservationSettings {
    fn default() -> Self {
        Self {
            kube_reserved: BTreeMap::new(),
            system_reserved: BTreeMap::new(),
            kube_reserved_cgroup: None,
            system_reserved_cgroup: None,
            enforce_node_allocatable: vec![PODS.into()],
            pod_pids_limit: -1,
        }
    }
}

/// A cgroup of the system's whose limits are what is reserved for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enforced<'a> {
    /// As events name it.
    pub(crate) name: &'static str,
    pub(crate) cgroup: &'a str,
    pub(crate) reserved: Amounts,
    /// Only CPU shares, which can be taken back at any time.
    pub(crate) compressible: bool,
}

impl ReservationSettings {
    fn enforces(&self, what: &str) -> bool {
        self.enforce_node_allocatable.iter().any(|one| one == what)
    }

    /// Whether the pods together are limited to what is not reserved.
    pub(crate) fn limits_pods(&self) -> bool {
        self.enforces(PODS)
    }

    /// How many processes and threads a pod may have, if that is limited.
    pub(crate) fn pod_pids(&self) -> Option<u64> {
        u64::try_from(self.pod_pids_limit).ok().filter(|limit| *limit > 0)
    }

    /// What is kept back by both. `cpus` are the CPUs that are kept back as such; if there are any, nothing else is said
    /// of CPUs (`cmd/kubelet/app/server.go`, `run`).
    ///
    /// # Errors
    /// With what is wrong.
    pub(crate) fn reserved(&self, cpus: usize) -> Result<Amounts, String> {
        let mut sum = read(&self.kube_reserved)?.plus(read(&self.system_reserved)?);
        if cpus > 0 {
            sum.cpu_millis = (cpus as u64).saturating_mul(1000);
        }
        Ok(sum)
    }

    /// The cgroups of the system's that get limits.
    pub(crate) fn enforced(&self, cpus: usize) -> Result<Vec<Enforced<'_>>, String> {
        let mut all = Vec::new();
        let (mut system, mut kube) = (read(&self.system_reserved)?, read(&self.kube_reserved)?);
        if cpus > 0 {
            (system.cpu_millis, kube.cpu_millis) = ((cpus as u64).saturating_mul(1000), 0);
        }
        for (what, name, compressible, cgroup, reserved) in [
            (SYSTEM, "system", false, &self.system_reserved_cgroup, system),
            (SYSTEM_COMPRESSIBLE, "system", true, &self.system_reserved_cgroup, system),
            (KUBE, "kube", false, &self.kube_reserved_cgroup, kube),
            (KUBE_COMPRESSIBLE, "kube", true, &self.kube_reserved_cgroup, kube),
        ] {
            if let Some(cgroup) = cgroup.as_deref().filter(|_| self.enforces(what)) {
                all.push(Enforced { name, cgroup, reserved, compressible });
            }
        }
        Ok(all)
    }

    /// What does not go together (`pkg/kubelet/apis/config/validation/validation.go`).
    pub(crate) fn faults(&self, cpus: usize) -> Vec<String> {
        const FIELD: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";
        let mut faults = Vec::new();
        for (flag, list) in
            [("kube-reserved", &self.kube_reserved), ("system-reserved", &self.system_reserved)]
        {
            faults.extend(read(list).err().map(|why| format!("--{flag} value failed to parse: {why}")));
        }
        let mut seen = BTreeSet::new();
        for what in &self.enforce_node_allocatable {
            if !seen.insert(what.as_str()) {
                faults.push(format!("invalid configuration: duplicated enforcements {what:?} in {FIELD}"));
                continue;
            }
            let cgroup = match what.as_str() {
                NONE if self.enforce_node_allocatable.len() > 1 => {
                    faults.push(format!(
                        "invalid configuration: {FIELD} may not contain additional enforcements when {NONE:?} is specified"
                    ));
                    continue;
                }
                NONE | PODS => continue,
                SYSTEM | SYSTEM_COMPRESSIBLE => {
                    (&self.system_reserved_cgroup, "systemReservedCgroup (--system-reserved-cgroup)")
                }
                KUBE | KUBE_COMPRESSIBLE => {
                    (&self.kube_reserved_cgroup, "kubeReservedCgroup (--kube-reserved-cgroup)")
                }
                other => {
                    faults.push(format!(
                        "invalid configuration: option {other:?} specified for {FIELD}. Valid options are {PODS:?}, {SYSTEM:?}, {SYSTEM_COMPRESSIBLE:?}, {KUBE:?}, {KUBE_COMPRESSIBLE:?} and {NONE:?}"
                    ));
                    continue;
                }
            };
            if cgroup.0.is_none() {
                faults.push(format!(
                    "invalid configuration: {} must be specified when {what:?} contained in {FIELD}",
                    cgroup.1
                ));
            }
        }
        for (whole, part) in [(SYSTEM, SYSTEM_COMPRESSIBLE), (KUBE, KUBE_COMPRESSIBLE)] {
            if self.enforces(whole) && self.enforces(part) {
                faults.push(format!(
                    "invalid configuration: both {whole:?} and {part:?} cannot be specified together in {FIELD}"
                ));
            }
        }
        if cpus > 0 && (self.system_reserved_cgroup.is_some() || self.kube_reserved_cgroup.is_some()) {
            faults.push(
                "invalid configuration: reservedSystemCPUs (--reserved-cpus) cannot be used with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)".into(),
            );
        }
        faults
    }
}

/// Amounts by resource.
fn read(list: &BTreeMap<String, String>) -> Result<Amounts, String> {
    let mut all = Amounts::default();
    for (name, text) in list {
        if !RESOURCES.contains(&name.as_str()) {
            return Err(format!("cannot reserve {name:?} resource"));
        }
        let amount: Quantity =
            text.parse().map_err(|_| format!("failed to parse quantity {text:?} for {name:?} resource"))?;
        let number = if name == "cpu" { amount.millis() } else { amount.units() };
        let number = u64::try_from(number)
            .map_err(|_| format!("resource quantity for {name:?} cannot be negative: {text}"))?;
        *match name.as_str() {
            "cpu" => &mut all.cpu_millis,
            "memory" => &mut all.memory,
            "ephemeral-storage" => &mut all.ephemeral_storage,
            _ => &mut all.pids,
        } = number;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn both_reservations_count_and_reserved_cpus_instead_of_theirs() {
        let settings = ReservationSettings {
            kube_reserved: list(&[("cpu", "100m"), ("memory", "1Gi"), ("pid", "1k")]),
            system_reserved: list(&[("cpu", "1"), ("ephemeral-storage", "1Gi"), ("pid", "500")]),
            ..ReservationSettings::default()
        };
        let both = Amounts { cpu_millis: 1100, memory: 1 << 30, ephemeral_storage: 1 << 30, pids: 1500 };
        assert_eq!(settings.reserved(0), Ok(both));
        assert_eq!(settings.reserved(2), Ok(Amounts { cpu_millis: 2000, ..both }));
        assert_eq!(settings.faults(2), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_is_said() {
        let faults = |change: fn(&mut ReservationSettings)| {
            let mut settings = ReservationSettings::default();
            change(&mut settings);
            settings.faults(1).join("; ")
        };
        assert_eq!(faults(|_| {}), "");
        let of = |field: fn(&mut ReservationSettings)| faults(field);
        assert_eq!(
            of(|s| s.kube_reserved = list(&[("gpu", "1")])),
            "--kube-reserved value failed to parse: cannot reserve \"gpu\" resource"
        );
        assert!(of(|s| s.system_reserved = list(&[("cpu", "-1")])).contains("cannot be negative: -1"));
        assert!(of(|s| s.system_reserved = list(&[("cpu", "many")])).contains("failed to parse quantity"));
        assert!(
            of(|s| s.enforce_node_allocatable = vec!["none".into(), "pods".into()])
                .contains("may not contain additional enforcements")
        );
        assert!(
            of(|s| s.enforce_node_allocatable = vec!["pods".into(), "pods".into()])
                .contains("duplicated enforcements \"pods\"")
        );
        assert!(of(|s| s.enforce_node_allocatable = vec!["all".into()]).contains("option \"all\" specified"));
        assert!(
            of(|s| s.enforce_node_allocatable = vec!["kube-reserved".into()])
                .contains("kubeReservedCgroup (--kube-reserved-cgroup) must be specified")
        );
        assert!(of(|s| s.kube_reserved_cgroup = Some("/kube".into())).contains("reservedSystemCPUs"));
    }

    #[test]
    fn cgroups_of_the_system_are_limited_if_wished() {
        let settings = ReservationSettings {
            system_reserved: list(&[("cpu", "500m"), ("memory", "1Gi")]),
            system_reserved_cgroup: Some("/system".into()),
            kube_reserved_cgroup: Some("/kube".into()),
            enforce_node_allocatable: vec!["system-reserved-compressible".into()],
            ..ReservationSettings::default()
        };
        let all = settings.enforced(0).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].cgroup, all[0].compressible, all[0].reserved.cpu_millis), ("/system", true, 500));
        assert!(!settings.limits_pods());
    }
}
