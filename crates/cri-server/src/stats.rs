//! What sandboxes and containers use.

use std::collections::HashMap;

use cri::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ContainerStatsResponse,
    CpuUsage, FilesystemIdentifier, FilesystemUsage, LinuxPodSandboxStats, ListContainerStatsRequest,
    ListContainerStatsResponse, ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, MemoryUsage,
    NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats, PodSandboxStatsFilter,
    PodSandboxStatsRequest, PodSandboxStatsResponse, ProcessUsage, SwapUsage, UInt64Value,
};
use runtime::{ContainerUsage, SandboxUsage};
use sys::cgroup::Usage;

use crate::error::CriError;
use crate::extent::Extent;
use crate::records::ContainerRecord;
use crate::service::CriService;
use crate::status::selected;

impl CriService {
    pub(crate) async fn container_stats(
        &self,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, CriError> {
        let record = self.0.records.container(&request.container_id)?;
        let filter = ContainerStatsFilter { id: record.id.clone(), ..Default::default() };
        let stats = self.all_container_stats(&filter).await?.pop();
        let missing = || CriError::State(format!("container {} is not running", record.id));
        Ok(ContainerStatsResponse { stats: Some(stats.ok_or_else(missing)?) })
    }

    pub(crate) async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, CriError> {
        let stats = self.all_container_stats(&request.filter.unwrap_or_default()).await?;
        Ok(ListContainerStatsResponse { stats })
    }

    pub(crate) async fn all_container_stats(
        &self,
        filter: &ContainerStatsFilter,
    ) -> Result<Vec<ContainerStats>, CriError> {
        let usage = self.0.runtime.usage(false).await?;
        let containers = usage.iter().flat_map(|sandbox| &sandbox.containers);
        let wanted: Vec<_> = containers
            .filter_map(|usage| {
                let record = self.0.records.container(&usage.container.id).ok()?;
                let fits = record.id.starts_with(&filter.id)
                    && record.sandbox.starts_with(&filter.pod_sandbox_id)
                    && selected(&filter.label_selector, &record.config.labels);
                fits.then_some((usage, record))
            })
            .collect();
        Ok(self.measured(wanted.iter().map(|(usage, record)| (*usage, &**record))).await)
    }

    async fn measured<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a ContainerUsage, &'a ContainerRecord)>,
    ) -> Vec<ContainerStats> {
        let wanted: Vec<_> = wanted.collect();
        let layers: Vec<_> =
            wanted.iter().map(|(_, record)| self.0.runtime.writable_layer(&record.id)).collect();
        let extents = self.0.extents.of(layers).await;
        let (place, now) = (self.0.config.data_dir.display().to_string(), self.now());
        let stats = wanted.iter().zip(extents);
        stats.map(|((usage, record), extent)| of_container(now, usage, record, extent, &place)).collect()
    }

    pub(crate) async fn pod_sandbox_stats(
        &self,
        request: PodSandboxStatsRequest,
    ) -> Result<PodSandboxStatsResponse, CriError> {
        let record = self.0.records.sandbox(&request.pod_sandbox_id)?;
        let filter = PodSandboxStatsFilter { id: record.id.clone(), ..Default::default() };
        let stats = self.all_sandbox_stats(&filter).await?.pop();
        let missing = || CriError::State(format!("sandbox {} is not ready", record.id));
        Ok(PodSandboxStatsResponse { stats: Some(stats.ok_or_else(missing)?) })
    }

    pub(crate) async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, CriError> {
        let stats = self.all_sandbox_stats(&request.filter.unwrap_or_default()).await?;
        Ok(ListPodSandboxStatsResponse { stats })
    }

    pub(crate) async fn all_sandbox_stats(
        &self,
        filter: &PodSandboxStatsFilter,
    ) -> Result<Vec<PodSandboxStats>, CriError> {
        let usage = self.0.runtime.usage(false).await?;
        let attached = self.0.network.current()?.attached().await;
        let pairs: HashMap<String, String> = attached.into_iter().map(|a| (a.id, a.host_if)).collect();
        let links = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
        let mut all = Vec::new();
        for SandboxUsage { sandbox, usage, containers, .. } in &usage {
            let Ok(record) = self.0.records.sandbox(&sandbox.spec.id) else { continue };
            if !record.id.starts_with(&filter.id) || !selected(&filter.label_selector, &record.config.labels)
            {
                continue;
            }
            let records: Vec<_> = containers
                .iter()
                .filter_map(|usage| Some((usage, self.0.records.container(&usage.container.id).ok()?)))
                .collect();
            let containers = self.measured(records.iter().map(|(usage, record)| (*usage, &**record))).await;
            let now = self.now();
            let link = pairs.get(&record.id).and_then(|name| link(&links, name));
            all.push(PodSandboxStats {
                attributes: Some(PodSandboxAttributes {
                    id: record.id.clone(),
                    metadata: record.config.metadata.clone(),
                    labels: record.config.labels.clone(),
                    annotations: record.config.annotations.clone(),
                }),
                linux: Some(LinuxPodSandboxStats {
                    cpu: Some(cpu(now, usage)),
                    memory: Some(memory(now, usage, None)),
                    network: link.map(|link| NetworkUsage {
                        timestamp: now,
                        default_interface: Some(link),
                        interfaces: Vec::new(),
                    }),
                    process: Some(ProcessUsage { timestamp: now, process_count: number(usage.pids) }),
                    containers,
                    io: None,
                }),
            });
        }
        Ok(all)
    }
}

fn number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// The rate is left for whoever asks twice.
fn cpu(timestamp: i64, usage: &Usage) -> CpuUsage {
    CpuUsage { timestamp, usage_core_nano_seconds: number(usage.cpu_ns), usage_nano_cores: None, psi: None }
}

fn memory(timestamp: i64, usage: &Usage, limit: Option<u64>) -> MemoryUsage {
    let working_set = usage.working_set();
    MemoryUsage {
        timestamp,
        working_set_bytes: number(working_set),
        available_bytes: limit.and_then(|limit| number(limit.saturating_sub(working_set))),
        usage_bytes: number(usage.memory),
        rss_bytes: number(usage.rss),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: None,
    }
}

fn of_container(
    now: i64,
    found: &ContainerUsage,
    record: &ContainerRecord,
    layer: Extent,
    place: &str,
) -> ContainerStats {
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        cpu: Some(cpu(now, &found.usage)),
        memory: Some(memory(now, &found.usage, record.spec.resources.memory_limit)),
        writable_layer: Some(FilesystemUsage {
            timestamp: now,
            fs_id: Some(FilesystemIdentifier { mountpoint: place.to_owned() }),
            used_bytes: number(layer.bytes),
            inodes_used: number(layer.inodes),
        }),
        swap: Some(SwapUsage {
            timestamp: now,
            swap_available_bytes: None,
            swap_usage_bytes: number(found.usage.swap),
        }),
        io: None,
    }
}

/// What went through a sandbox's interface, by the node's end of its pair, where in is out.
fn link(dev: &str, name: &str) -> Option<NetworkInterfaceUsage> {
    let counts = dev.lines().find_map(|line| {
        let (found, counts) = line.split_once(':')?;
        (found.trim() == name).then_some(counts)
    })?;
    let counts: Vec<u64> = counts.split_whitespace().map_while(|count| count.parse().ok()).collect();
    let at = |at: usize| counts.get(at).copied().and_then(number);
    Some(NetworkInterfaceUsage {
        name: "eth0".to_owned(),
        rx_bytes: at(8),
        rx_errors: at(10),
        tx_bytes: at(0),
        tx_errors: at(2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_receives_the_sandbox_has_sent() {
        let dev = "Inter-|   Receive\n face |bytes\n  veth1: 100 1 2 0 0 0 0 0 700 7 3 0 0 0 0 0\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n";
        let found = link(dev, "veth1").unwrap();
        assert_eq!((found.rx_bytes, found.tx_bytes), (number(700), number(100)));
        assert_eq!((found.rx_errors, found.tx_errors), (number(3), number(2)));
        assert_eq!(link(dev, "veth"), None);
    }

    #[test]
    fn memory_that_is_left_is_below_a_limit() {
        let usage = Usage { memory: 100, inactive_file: 30, ..Usage::default() };
        let told = memory(1, &usage, Some(90));
        assert_eq!((told.working_set_bytes, told.available_bytes), (number(70), number(20)));
        assert_eq!(memory(1, &usage, None).available_bytes, None);
    }
}
