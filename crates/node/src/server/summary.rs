//! `/stats/summary` (kubernetes/kubernetes, `staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go`,
//! `pkg/kubelet/server/stats/summary.go`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use serde_json::{Map, Value, json};
use sys::cgroup::{Pressure, Pressures, Usage};
use types::{Quantity, Status};

use super::Server;
use crate::stats::{ContainerSample, Extent, FileSystem, Host, Link, PodSample, Sample};

/// How old what is told of folders may be.
const FRESH: Duration = Duration::from_secs(60);

impl Server {
    /// What the node and its pods use.
    pub(super) async fn summary(&self, query: &[(String, String)]) -> Result<Value, Status> {
        let brief = query.iter().any(|(n, v)| n == "only_cpu_and_memory" && streaming::truth(v));
        let sample = self.stats.sample(true).await.map_err(Status::internal)?;
        let mut pods = Vec::with_capacity(sample.pods.len());
        for pod in sample.pods.iter().filter(|p| !p.containers.is_empty()) {
            let object = self.pod(&pod.namespace, &pod.name).ok();
            let object = object.filter(|o| o.metadata.uid.as_ref() == Some(&pod.uid));
            let disk = if brief { None } else { Some(self.disk_of(pod, object.as_deref()).await) };
            pods.push(pod_value(&sample, pod, object.as_deref(), disk));
        }
        Ok(json!({"node": self.node_value(&sample, brief), "pods": pods}))
    }

    fn node_value(&self, sample: &Sample, brief: bool) -> Value {
        let (host, at) = (&sample.host, time(sample.at));
        let memory = &host.memory;
        let mut node = json!({
            "nodeName": self.node,
            "systemContainers": self.system_containers(sample),
            "startTime": Timestamp::from_second(host.booted).map(time).unwrap_or_default(),
            "cpu": cpu(&at, host.cpu_ns, sample.rate),
            "memory": {
                "time": at, "availableBytes": memory.available(), "usageBytes": memory.usage(),
                "workingSetBytes": memory.working_set(), "rssBytes": memory.rss,
                "pageFaults": host.page_faults, "majorPageFaults": host.major_page_faults,
            },
        });
        tell_pressures(&mut node, &at, &Pressures::of_machine(), brief);
        if brief {
            return node;
        }
        let (used, most) = host.processes;
        node["rlimit"] = json!({"time": at, "maxpid": most, "curproc": used});
        node["swap"] = json!({"time": at, "swapAvailableBytes": memory.swap_free,
            "swapUsageBytes": memory.swap_total.saturating_sub(memory.swap_free)});
        node["network"] = network(&at, &sample.links);
        if let Some(disk) = FileSystem::of(&self.data_dir) {
            node["fs"] = filesystem(&at, &disk, None);
            // Images and writable layers lie on the same file system.
            node["runtime"] =
                json!({"imageFs": filesystem(&at, &disk, None), "containerFs": filesystem(&at, &disk, None)});
        }
        node
    }

    fn system_containers(&self, sample: &Sample) -> Value {
        let (pods, shims) = &sample.together;
        let at = time(sample.at);
        let part = |name: &str, usage: &Usage| {
            json!({"name": name, "startTime": time(self.began), "cpu": cpu(&at, usage.cpu_ns, None),
                "memory": memory(&at, usage, None)})
        };
        json!([part("kubelet", &own_usage()), part("runtime", shims), part("pods", pods)])
    }

    /// What a pod takes of the disk.
    pub(super) async fn disk_of(&self, pod: &PodSample, object: Option<&Pod>) -> PodDisk {
        let volumes: Vec<(&Volume, PathBuf)> = object
            .and_then(|o| o.spec.as_ref())
            .into_iter()
            .flat_map(|s| s.volumes.iter().flatten())
            .filter(|v| v.host_path.is_none())
            .map(|v| (v, self.data_dir.join("pods").join(&pod.uid).join("volumes").join(&v.name)))
            .filter(|(_, path)| path.is_dir())
            .collect();
        let layers = pod.containers.iter().map(|c| c.writable.clone());
        let logs = pod.containers.iter().map(|c| c.log.clone().unwrap_or_default());
        let logs = logs.map(|log| log.parent().map(Path::to_owned).unwrap_or_default());
        let paths: Vec<PathBuf> =
            layers.chain(logs).chain(volumes.iter().map(|(_, path)| path.clone())).collect();
        let mut extents = self.stats.folders().measure(paths, FRESH).await;
        for (extent, container) in extents.iter_mut().zip(&pod.containers) {
            *extent = container.layer.unwrap_or(*extent);
        }
        let count = pod.containers.len();
        let (layers, rest) = extents.split_at(count.min(extents.len()));
        let (logs, rest) = rest.split_at(count.min(rest.len()));
        let own = device(&self.data_dir);
        let volumes = volumes.into_iter().zip(rest).filter_map(|((volume, path), extent)| {
            Some(VolumeDisk {
                name: volume.name.clone(),
                claim: claim_of(object, volume),
                on_disk: is_on_disk(volume),
                extent: *extent,
                apart: device(&path) != own,
                disk: FileSystem::of(&path)?,
            })
        });
        PodDisk {
            layers: layers.to_vec(),
            logs: logs.to_vec(),
            volumes: volumes.collect(),
            disk: FileSystem::of(&self.data_dir).unwrap_or_default(),
        }
    }
}

/// What a pod takes of the disk.
pub(super) struct PodDisk {
    /// Writable layers and logs, in the order of the containers.
    pub(super) layers: Vec<Extent>,
    pub(super) logs: Vec<Extent>,
    pub(super) volumes: Vec<VolumeDisk>,
    /// The node's own file system.
    pub(super) disk: FileSystem,
}

pub(super) struct VolumeDisk {
    pub(super) name: String,
    /// The claim, if it is one's.
    pub(super) claim: Option<String>,
    /// Whether it counts as the pod's share of the node's disk.
    pub(super) on_disk: bool,
    pub(super) extent: Extent,
    /// Whether it is a file system of its own.
    pub(super) apart: bool,
    pub(super) disk: FileSystem,
}

impl VolumeDisk {
    /// What is used of a file system of its own is what that says; of the node's own, what was counted.
    pub(super) fn used(&self) -> Extent {
        let disk = &self.disk;
        if self.apart {
            return Extent { bytes: disk.used, inodes: disk.inodes.saturating_sub(disk.inodes_free) };
        }
        self.extent
    }
}

fn device(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))
}

impl PodDisk {
    /// Layers, logs, and volumes that are no claims and not in memory.
    fn ephemeral(&self) -> Extent {
        let volumes = self.volumes.iter().filter(|v| v.on_disk).map(|v| v.extent);
        self.layers.iter().chain(&self.logs).copied().chain(volumes).fold(Extent::default(), Extent::plus)
    }
}

fn is_on_disk(volume: &Volume) -> bool {
    match &volume.empty_dir {
        Some(source) => source.medium.as_deref().unwrap_or_default().is_empty(),
        None => volume.config_map.is_some() || volume.downward_api.is_some(),
    }
}

/// The claim behind a volume; generic ephemeral volumes have one by a name of their own.
fn claim_of(pod: Option<&Pod>, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    named.or_else(|| {
        volume.ephemeral.as_ref()?;
        Some(format!("{}-{}", pod?.metadata.name.as_deref()?, volume.name))
    })
}

fn pod_value(sample: &Sample, pod: &PodSample, object: Option<&Pod>, disk: Option<PodDisk>) -> Value {
    let at = time(sample.at);
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": time(pod.created),
        "cpu": cpu(&at, pod.usage.cpu_ns, pod.rate),
        "memory": memory(&at, &pod.usage, None),
    });
    let limit = |c: &ContainerSample| {
        let containers = object.and_then(|o| o.spec.as_ref()).map(|s| &s.containers)?;
        let container = containers.iter().find(|own| own.name == c.name)?;
        let limit = container.resources.as_ref()?.limits.as_ref()?.get("memory")?;
        u64::try_from(limit.0.parse::<Quantity>().ok()?.units()).ok()
    };
    let containers = pod.containers.iter().enumerate().map(|(index, container)| {
        let mut value = json!({
            "name": container.name, "startTime": time(container.started),
            "cpu": cpu(&at, container.usage.cpu_ns, container.rate),
            "memory": memory(&at, &container.usage, limit(container)),
        });
        let pressures = container.details.unwrap_or_default().pressures;
        tell_pressures(&mut value, &at, &pressures, disk.is_none());
        if let Some(disk) = &disk {
            value["rootfs"] = filesystem(&at, &disk.disk, disk.layers.get(index).copied());
            value["logs"] = filesystem(&at, &disk.disk, disk.logs.get(index).copied());
            value["swap"] = swap(&at, &sample.host, &container.usage);
        }
        value
    });
    value["containers"] = containers.collect();
    tell_pressures(&mut value, &at, &pod.details.unwrap_or_default().pressures, disk.is_none());
    let Some(disk) = disk else { return value };
    let volumes = disk.volumes.iter().map(|volume| {
        let mut value = filesystem(&at, &volume.disk, Some(volume.used()));
        value["name"] = volume.name.clone().into();
        if let Some(claim) = &volume.claim {
            value["pvcRef"] = json!({"name": claim, "namespace": pod.namespace});
        }
        value
    });
    value["volume"] = volumes.collect();
    value["ephemeral-storage"] = filesystem(&at, &disk.disk, Some(disk.ephemeral()));
    value["process_stats"] = json!({"process_count": pod.usage.pids});
    value["swap"] = swap(&at, &sample.host, &pod.usage);
    if let Some(link) = &pod.link {
        value["network"] = network(&at, &[("eth0".to_owned(), link.clone())]);
    }
    value
}

/// How much was waited for CPU, memory and disks, where the kernel says so (`PSIStats`).
fn tell_pressures(value: &mut Value, at: &str, pressures: &Pressures, brief: bool) {
    let tell = |p: &Pressure| {
        let [full, some] = [p.full, p.some].map(|stall| {
            let share = |hundredths: u64| hundredths as f64 / 100.0;
            json!({"total": stall.total_us, "avg10": share(stall.avg10), "avg60": share(stall.avg60),
                "avg300": share(stall.avg300)})
        });
        json!({"full": full, "some": some})
    };
    if let Some(cpu) = &pressures.cpu {
        value["cpu"]["psi"] = tell(cpu);
    }
    if let Some(memory) = &pressures.memory {
        value["memory"]["psi"] = tell(memory);
    }
    if let Some(io) = pressures.io.as_ref().filter(|_| !brief) {
        value["io"] = json!({"time": at, "psi": tell(io)});
    }
}

/// Times are told in whole seconds.
fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).map(|t| t.to_string()).unwrap_or_default()
}

fn cpu(at: &str, used: u64, rate: Option<u64>) -> Value {
    let mut value = json!({"time": at, "usageCoreNanoSeconds": used});
    if let Some(rate) = rate {
        value["usageNanoCores"] = rate.into();
    }
    value
}

fn memory(at: &str, usage: &Usage, limit: Option<u64>) -> Value {
    let mut value = json!({
        "time": at, "usageBytes": usage.memory, "workingSetBytes": usage.working_set(), "rssBytes": usage.rss,
        "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    });
    if let Some(limit) = limit.filter(|limit| *limit > 0) {
        value["availableBytes"] = limit.saturating_sub(usage.working_set()).into();
    }
    value
}

/// Containers get no swap.
fn swap(at: &str, host: &Host, usage: &Usage) -> Value {
    let available = if host.memory.swap_total == 0 { 0 } else { host.memory.swap_free };
    let mut value = json!({"time": at, "swapUsageBytes": usage.swap});
    if available == 0 {
        value["swapAvailableBytes"] = 0.into();
    }
    value
}

fn network(at: &str, links: &[(String, Link)]) -> Value {
    let one = |(name, link): &(String, Link)| -> Map<String, Value> {
        let value = json!({"name": name, "rxBytes": link.rx_bytes, "rxErrors": link.rx_errors,
            "txBytes": link.tx_bytes, "txErrors": link.tx_errors});
        value.as_object().cloned().unwrap_or_default()
    };
    let mut value = links.first().map(one).unwrap_or_default();
    value.insert("time".into(), at.into());
    value.insert("interfaces".into(), links.iter().map(|link| Value::Object(one(link))).collect());
    Value::Object(value)
}

/// A file system, of which somebody uses a part if `used` says so.
fn filesystem(at: &str, disk: &FileSystem, used: Option<Extent>) -> Value {
    let used =
        used.unwrap_or(Extent { bytes: disk.used, inodes: disk.inodes.saturating_sub(disk.inodes_free) });
    json!({
        "time": at, "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": used.bytes,
        "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": used.inodes,
    })
}

/// What this process uses.
pub(super) fn own_usage() -> Usage {
    const PAGE: u64 = 4096;
    const TICK_NS: u64 = 10_000_000;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, statm) = (read("/proc/self/stat"), read("/proc/self/statm"));
    // The program's name, in brackets, may hold anything.
    let rest: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |at: usize| rest.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let resident = statm.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * PAGE;
    Usage {
        cpu_ns: (number(11) + number(12)).saturating_mul(TICK_NS),
        memory: resident,
        rss: resident,
        page_faults: number(7),
        major_page_faults: number(9),
        pids: number(17),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::cgroup::{Details, Stall};

    #[test]
    fn a_pod_as_upstream_tells_it() {
        let at: Timestamp = "2026-01-01T00:00:10.5Z".parse().unwrap();
        let usage = Usage { cpu_ns: 5, memory: 100, inactive_file: 40, rss: 30, pids: 2, ..Usage::default() };
        let pod = PodSample {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            cgroup: "g/podu".into(),
            created: at,
            usage,
            details: Some(Details {
                pressures: Pressures {
                    cpu: Some(Pressure {
                        some: Stall { total_us: 9, avg10: 129, ..Stall::default() },
                        ..Pressure::default()
                    }),
                    io: Some(Pressure::default()),
                    ..Pressures::default()
                },
                ..Details::default()
            }),
            rate: Some(7),
            link: Some(Link { rx_bytes: 1, tx_bytes: 2, ..Link::default() }),
            containers: vec![ContainerSample {
                id: "c".into(),
                name: "a".into(),
                image: "i".into(),
                started: at,
                usage,
                details: None,
                rate: None,
                log: None,
                writable: "/w".into(),
                layer: None,
            }],
        };
        let sample = Sample {
            at,
            host: Host::default(),
            rate: None,
            links: vec![],
            together: Default::default(),
            pods: vec![],
        };
        let object: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a",
            "resources": {"limits": {"memory": "1Ki"}}}]}}))
        .unwrap();
        let disk = FileSystem { capacity: 1000, available: 500, used: 400, inodes: 50, inodes_free: 20 };
        let volume = |name: &str, claim: Option<&str>, on_disk| VolumeDisk {
            name: name.into(),
            claim: claim.map(str::to_owned),
            on_disk,
            extent: Extent { bytes: 8, inodes: 1 },
            apart: claim.is_some(),
            disk,
        };
        let pod_disk = PodDisk {
            layers: vec![Extent { bytes: 16, inodes: 2 }],
            logs: vec![Extent { bytes: 4, inodes: 1 }],
            volumes: vec![volume("v", None, true), volume("w", Some("claim"), false)],
            disk,
        };
        let value = pod_value(&sample, &pod, Some(&object), Some(pod_disk));
        assert_eq!(value["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
        assert_eq!(value["memory"]["workingSetBytes"], 60);
        assert_eq!(value["cpu"]["usageNanoCores"], 7);
        assert_eq!(value["cpu"]["time"], "2026-01-01T00:00:10Z");
        assert_eq!(
            value["cpu"]["psi"]["some"],
            json!({"total": 9, "avg10": 1.29, "avg60": 0.0, "avg300": 0.0})
        );
        assert_eq!(value["io"]["psi"]["full"]["total"], 0);
        assert!(value["memory"]["psi"].is_null(), "what the kernel does not say is left out");
        let container = &value["containers"][0];
        assert!(container["io"].is_null());
        assert_eq!(container["memory"]["availableBytes"], 1024 - 60);
        assert!(container["cpu"]["usageNanoCores"].is_null());
        assert_eq!(
            (&container["rootfs"]["usedBytes"], &container["logs"]["inodesUsed"]),
            (&json!(16), &json!(1))
        );
        assert_eq!(value["ephemeral-storage"]["usedBytes"], 28);
        assert_eq!(
            (&value["volume"][0]["usedBytes"], &value["volume"][1]["usedBytes"]),
            (&json!(8), &json!(400))
        );
        assert_eq!(value["volume"][1]["pvcRef"], json!({"name": "claim", "namespace": "ns"}));
        assert_eq!(value["network"]["interfaces"][0]["txBytes"], 2);
        assert_eq!(value["network"]["name"], "eth0");
        assert_eq!(value["process_stats"]["process_count"], 2);
        let brief = pod_value(&sample, &pod, None, None);
        assert!(brief["network"].is_null() && brief["containers"][0]["rootfs"].is_null());
    }

    #[test]
    fn this_process_uses_something() {
        let own = own_usage();
        assert!(own.memory > 0 && own.pids > 0, "{own:?}");
    }
}
