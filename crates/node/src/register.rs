//! The node's own object and its heartbeats (kubernetes/kubernetes, `pkg/kubelet/kubelet_node_status.go`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Clock, Drain};
use client::{Informer, Key};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Membership, NodeConfig};
use crate::cri::Health;
use crate::engine::Engine;
use crate::error::NodeError;
use crate::eviction::Pressure;
use crate::managers::Managers;
use crate::reservations::{Amounts, Room, bytes, cpus};
use crate::shutdown::NOT_READY;

/// The longest that a node waits which cannot register.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long to wait after a first failure to register; afterwards longer and longer.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How often the status is written although nothing has changed.
const REFRESH: Duration = Duration::from_secs(300);

/// Says that the cluster's controller attaches the node's volumes, and not the node itself.
const MANAGED_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Makes the node's object, or brings the one that is there up to date.
pub(crate) async fn register(
    client: &Client,
    config: &NodeConfig,
    engine: &Engine,
    managers: &Managers,
    clock: &dyn Clock,
) -> Result<(), NodeError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": config.name, "annotations": {MANAGED_ATTACH: "true"}, "labels": {
            "kubernetes.io/hostname": config.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(),
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch(),
        }},
        "spec": {"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr]},
        "status": status(config, (engine, &managers.room), clock, &[], &State::first(engine)),
    });
    managers.show(&mut node["status"]);
    let mut node: Node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
    if config.membership == Membership::Local {
        // No node may say this of itself, but for the one that is in the API's own process.
        let role = ("node-role.kubernetes.io/control-plane".to_owned(), String::new());
        node.metadata.labels.get_or_insert_default().extend([role]);
    }
    let own = &config.kubelet.registration;
    node.metadata.labels.get_or_insert_default().extend(own.labels.clone());
    let spec = node.spec.get_or_insert_default();
    (spec.taints, spec.provider_id) = (Some(own.taints.clone()), own.provider_id.clone());
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => Ok(()),
        Err(error) if client::is_already_exists(&error) => {
            // An older agent may have made it.
            let patch = Patch::Merge(json!({"metadata": {"annotations": {MANAGED_ATTACH: "true"}}}));
            nodes.patch(&config.name, &PatchParams::default(), &patch).await?;
            write_status(client, config, engine, managers, &State::first(engine), clock).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn write_status(
    client: &Client,
    config: &NodeConfig,
    engine: &Engine,
    managers: &Managers,
    state: &State,
    clock: &dyn Clock,
) -> Result<(), NodeError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let old = nodes.get(&config.name).await?.status.and_then(|s| s.conditions).unwrap_or_default();
    let mut status = status(config, (engine, &managers.room), clock, &old, state);
    managers.show(&mut status);
    if let Some(images) = &state.images {
        status["images"] = images.clone();
    }
    let patch = json!({ "status": status });
    nodes.patch_status(&config.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// What a node says of itself besides what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    pressures: BTreeSet<Pressure>,
    /// Whether it goes down.
    shutdown: bool,
    /// Why its container runtime cannot run pods.
    fault: Option<String>,
    /// The images that it has, if that is known.
    images: Option<Value>,
}

impl State {
    /// Before anything was measured.
    fn first(engine: &Engine) -> Self {
        let fault = match engine {
            Engine::BuiltIn(_) => None,
            Engine::Cri(cri) => cri.health().borrow().fault.clone(),
        };
        Self { fault, ..Self::default() }
    }
}

/// Registers the node if that has not been done, and keeps the lease and the status fresh until `drain` starts.
///
/// The status is written at once when what the node is short of changes, or that it goes down, and with the next renewal
/// when the API has come to doubt it (`own` is the node as the API has it).
pub(crate) async fn heartbeat(
    client: Client,
    (config, engine): (NodeConfig, Engine),
    managers: Arc<Managers>,
    (mut pressures, mut shutdown): (watch::Receiver<BTreeSet<Pressure>>, watch::Receiver<bool>),
    own: Informer<Node>,
    clock: Arc<dyn Clock>,
    drain: Drain,
) {
    if config.membership == Membership::Remote {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        while let Err(error) = register(&client, &config, &engine, &managers, &*clock).await {
            tracing::warn!(%error, "cannot register the node");
            tokio::select! {
                () = tokio::time::sleep(backoff.fail()) => {}
                () = drain.started() => return,
            }
        }
    }
    let lease = Duration::from_secs(config.kubelet.registration.lease_duration_seconds.into());
    // A node is lost after four of them.
    let renewal = lease / 4;
    let mut written = Instant::now();
    // What the API was told last.
    let mut told = State::default();
    let mut devices = managers.devices.changes();
    let mut shown = None;
    let mut health = match &engine {
        Engine::BuiltIn(_) => watch::Sender::new(Health::default()).subscribe(),
        Engine::Cri(cri) => cri.health(),
    };
    loop {
        let outcome = renew(&client, &config, &*clock).await;
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot renew the node's lease");
        }
        let images = crate::shown_images::of(&engine, config.kubelet.registration.status_max_images)
            .await
            .or_else(|| told.images.clone());
        let current = State {
            pressures: pressures.borrow_and_update().clone(),
            shutdown: *shutdown.borrow_and_update(),
            fault: health.borrow_and_update().fault.clone(),
            images,
        };
        let resources = managers.extended();
        let doubted = own.get(&Key::new("", &config.name)).is_some_and(|node| is_doubted(&node));
        let old = written.elapsed() >= REFRESH;
        if current != told || shown.as_ref() != Some(&resources) || doubted || old {
            match write_status(&client, &config, &engine, &managers, &current, &*clock).await {
                Ok(()) => (told, shown, written) = (current, Some(resources), Instant::now()),
                Err(error) => tracing::warn!(%error, "cannot write the node's status"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(renewal) => {}
            // The sender lives as long as the agent.
            Ok(()) = pressures.changed() => {}
            Ok(()) = devices.changed() => {}
            Ok(()) = shutdown.changed() => {}
            // The built-in runtime is as well as the agent; nobody speaks for it.
            Ok(()) = health.changed() => {}
            () = drain.started() => return,
        }
    }
}

/// Whether somebody has said, because nothing was heard of the node, that nothing is known of it.
fn is_doubted(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.status == "Unknown")
}

async fn renew(client: &Client, config: &NodeConfig, clock: &dyn Clock) -> Result<(), NodeError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": config.name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": config.name, "leaseDurationSeconds": config.kubelet.registration.lease_duration_seconds, "renewTime": micro_time(clock)},
    });
    match leases.patch(&config.name, &PatchParams::default(), &Patch::Merge(&lease)).await {
        Err(error) if client::is_not_found(&error) => {
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await?;
            Ok(())
        }
        other => other.map(drop).map_err(Into::into),
    }
}

/// Microseconds, as `MicroTime` wants them.
fn micro_time(clock: &dyn Clock) -> String {
    let now = clock.now();
    base::Timestamp::from_microsecond(now.as_microsecond()).map(|t| format!("{t:.6}")).unwrap_or_default()
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Since when the condition has been what it is: the time of a transition changes only when the status does.
fn since(old: &[NodeCondition], kind: &str, status: &str) -> Option<String> {
    let same = old.iter().find(|c| c.type_ == kind && c.status == status)?;
    Some(same.last_transition_time.as_ref()?.0.to_string())
}

/// What the machine's maker has called it; else its own name for itself (`pkg/kubelet/cadvisor`, by way of
/// `google/cadvisor`, `GetSystemUUID`).
fn system_uuid() -> String {
    let made = ["/sys/class/dmi/id/product_uuid", "/proc/device-tree/system-id", "/etc/machine-id"];
    made.iter().map(|path| read(path)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// What this node can do that not every node of this release's neighbours can, for those who place and change pods
/// (`staging/src/k8s.io/component-helpers/nodedeclaredfeatures/features`).
fn declared_features(config: &NodeConfig) -> Vec<&'static str> {
    let shared = config.kubelet.managers.cpu_manager_policy == "none";
    let all = [
        ("GuaranteedQoSPodCPUResize", shared),
        ("InPlacePodLevelResourcesVerticalScaling", true),
        ("RestartAllContainersOnContainerExits", true),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// `old` are the conditions as the API has them.
fn status(
    config: &NodeConfig,
    (engine, room): (&Engine, &Room),
    clock: &dyn Clock,
    old: &[NodeCondition],
    State { pressures, shutdown, fault, .. }: &State,
) -> Value {
    let os = read("/etc/os-release");
    let os = os
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"')
        .to_owned();
    let resources = |amounts: &Amounts| {
        json!({"cpu": cpus(amounts.cpu_millis), "memory": bytes(amounts.memory),
            "ephemeral-storage": bytes(amounts.ephemeral_storage), "pods": config.kubelet.max_pods.to_string()})
    };
    let (mut capacity, mut allocatable) = (resources(&room.capacity), resources(&room.allocatable));
    crate::hugepages::tell(&mut capacity, &mut allocatable);
    let now =
        base::Timestamp::from_second(clock.now().as_second()).map(|t| t.to_string()).unwrap_or_default();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since(old, kind, status).unwrap_or_else(|| now.clone())})
    };
    let pressed = |pressure: Pressure| {
        let (status, reason, message) = match (pressure, pressures.contains(&pressure)) {
            (Pressure::Memory, false) => {
                ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
            }
            (Pressure::Memory, true) => {
                ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            }
            (Pressure::Disk, false) => ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            (Pressure::Disk, true) => ("True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
            (Pressure::Pid, false) => {
                ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available")
            }
            (Pressure::Pid, true) => {
                ("True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
            }
        };
        condition(pressure.name(), status, reason, message)
    };
    let (handlers, features) = crate::handlers::told(engine, &config.kubelet.runtime_handlers);
    let swap = swap_bytes(&read("/proc/meminfo"));
    json!({
        "addresses": [{"type": "InternalIP", "address": config.ip.to_string()}, {"type": "Hostname", "address": config.name}],
        "capacity": capacity, "allocatable": allocatable,
        "runtimeHandlers": handlers,
        "features": features,
        "declaredFeatures": declared_features(config),
        "conditions": [
            pressed(Pressure::Memory), pressed(Pressure::Disk), pressed(Pressure::Pid),
            match (fault, shutdown) {
                (Some(why), _) => condition("Ready", "False", "KubeletNotReady", why),
                (None, true) => condition("Ready", "False", "KubeletNotReady", NOT_READY),
                (None, false) => condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            },
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "nodeInfo": {
            "machineID": read("/etc/machine-id"), "systemUUID": system_uuid(), "bootID": read("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": read("/proc/sys/kernel/osrelease"), "osImage": os, "operatingSystem": "linux",
            "architecture": arch(), "kubeletVersion": "v1.36.0+gantry", "kubeProxyVersion": "",
            "containerRuntimeVersion": engine.version(),
            "swap": swap.map(|capacity| json!({ "capacity": capacity })),
        },
    })
}

/// How much can be swapped out, from `/proc/meminfo`; none where nothing can (`pkg/kubelet/nodestatus/setters.go`).
fn swap_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("SwapTotal:"))?;
    let kib: u64 = total.trim().trim_end_matches(" kB").parse().ok()?;
    (kib > 0).then_some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_told_where_there_is_some() {
        assert_eq!(swap_bytes("MemTotal: 1 kB\nSwapTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!((swap_bytes("SwapTotal:             0 kB\n"), swap_bytes("")), (None, None));
    }

    #[test]
    fn transitions_are_timed_by_changes_of_status() {
        let condition = |kind: &str, status: &str| -> NodeCondition {
            let value = json!({"type": kind, "status": status, "lastTransitionTime": "2025-01-01T00:00:00Z"});
            serde_json::from_value(value).unwrap()
        };
        let old = [condition("Ready", "True"), condition("DiskPressure", "Unknown")];
        assert_eq!(since(&old, "Ready", "True").as_deref(), Some("2025-01-01T00:00:00Z"));
        assert_eq!(since(&old, "DiskPressure", "False"), None);
        assert_eq!(since(&old, "MemoryPressure", "False"), None);
    }
}
