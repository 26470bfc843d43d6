//! From a container of a pod to what the runtime is told (kubernetes/kubernetes,
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`, `generateContainerConfig`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::Image;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{
    Capabilities, ContainerSpec, DEFAULT_APPARMOR_PROFILE, Device, Mount, MountKind, Propagation, Resources,
    Rootfs, User,
};
use types::Quantity;
use volumes::{Places, Volumes};

use crate::env::{Env, Sources};
use crate::error::NodeError;
use crate::image_volumes::ImageFiles;
use crate::settings::ContainerSettings;
use crate::{hugepages, security};

/// What goes into a container besides the pod and the image.
pub(crate) struct Surroundings<'a> {
    pub(crate) env: Sources<'a>,
    pub(crate) volumes: &'a Volumes,
    pub(crate) places: &'a Places,
    /// Volumes that are images.
    pub(crate) images: BTreeMap<String, ImageFiles>,
    /// What the node's settings say of all containers.
    pub(crate) settings: &'a ContainerSettings,
    /// The node's own seccomp profiles.
    pub(crate) seccomp: PathBuf,
    /// What the image says of its command and environment, the runtime adds.
    pub(crate) image_by_runtime: bool,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) log_path: PathBuf,
    pub(crate) hostname: String,
    /// Files that are mounted into every container: from, to.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
}

/// The runtime's words for a container.
pub(crate) async fn spec(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &Image,
    around: Surroundings<'_>,
) -> Result<ContainerSpec, NodeError> {
    let config = image.config.config();
    let image_env = config.as_ref().and_then(|c| c.env().clone()).unwrap_or_default();
    let own = around.env.environment(container).await?;
    let mut env = Env::default();
    for pair in &image_env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        env.put(name, value.to_owned());
    }
    for (name, value) in own.pairs() {
        env.put(name, value.clone());
    }
    env.put_new("HOSTNAME", around.hostname.clone());
    let expand = |text: &String| own.expand(text);
    let entrypoint = config.as_ref().and_then(|c| c.entrypoint().clone()).unwrap_or_default();
    let default_args = config.as_ref().and_then(|c| c.cmd().clone()).unwrap_or_default();
    let given = |list: &Option<Vec<String>>| list.as_ref().map(|l| l.iter().map(expand).collect::<Vec<_>>());
    let (command, args) = match (given(&container.command), given(&container.args)) {
        (Some(command), args) => (command, args.unwrap_or_default()),
        (None, Some(args)) => (entrypoint, args),
        (None, None) => (entrypoint, default_args),
    };
    let args = [command, args].concat();
    if args.is_empty() && !around.image_by_runtime {
        return Err(NodeError::Config(format!(
            "container {:?}: the image has no command, and none is given",
            container.name
        )));
    }
    let security = container.security_context.clone().unwrap_or_default();
    let capabilities = security.capabilities.unwrap_or_default();
    let privileged = security.privileged.unwrap_or(false);
    let image_user = config.as_ref().and_then(|c| c.user().clone());
    security::check_not_root(pod, container, image_user.as_deref())?;
    // Nothing of `/proc` is hidden or protected (`pkg/securitycontext/util.go`, `ConvertToRuntimeMaskedPaths`).
    let unmasked = (security.proc_mount.as_deref() == Some("Unmasked")).then(Vec::new);
    // Where there is no AppArmor, nobody is confined by it anyway; another runtime has a default profile of its own.
    let (ours, enabled) = (!around.image_by_runtime, runtime::has_apparmor());
    let default = (ours && runtime::has_default_apparmor_profile()).then_some(DEFAULT_APPARMOR_PROFILE);
    let apparmor = security::apparmor_name(pod, container, default).filter(|_| enabled);
    let own_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
    Ok(ContainerSpec {
        keep_unstarted: true,
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        rootfs: Rootfs { layers: around.layers.clone(), ..Rootfs::default() },
        args,
        env: env.pairs().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: container
            .working_dir
            .clone()
            .or_else(|| config.as_ref().and_then(|c| c.working_dir().clone()))
            .unwrap_or_default(),
        user: user(pod, container, image_user),
        mounts: mounts(pod, container, &around, &own).await?,
        devices: devices(container, around.places)?,
        capabilities: Capabilities {
            add: capabilities.add.unwrap_or_default(),
            drop: capabilities.drop.unwrap_or_default(),
        },
        privileged,
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        read_only_rootfs: security.read_only_root_filesystem.unwrap_or(false),
        seccomp: security::seccomp(pod, container, around.settings.seccomp_default, &around.seccomp)?,
        apparmor: apparmor.filter(|_| !privileged),
        masked_paths: unmasked.clone(),
        readonly_paths: unmasked,
        resources: Resources {
            single_process_oom_kill: around.settings.single_process_oom_kill == Some(true),
            ..around.settings.enforced(resources(pod, container, around.env.allocatable.memory))
        },
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        log_path: Some(around.log_path),
        log_max_bytes: Some(around.settings.log_max_size),
        log_max_files: Some(around.settings.log_max_files),
        stop_signal: own_signal.or_else(|| config.as_ref().and_then(|c| c.stop_signal().clone())),
        ..ContainerSpec::default()
    })
}

fn pod_security(pod: &Pod) -> core::PodSecurityContext {
    pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default()
}

fn user(pod: &Pod, container: &Container, image_user: Option<String>) -> User {
    let (pod_level, own) = (pod_security(pod), container.security_context.clone().unwrap_or_default());
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let groups = pod_level.supplemental_groups.into_iter().flatten().chain(pod_level.fs_group);
    User {
        spec: image_user.filter(|u| !u.is_empty()),
        uid: number(own.run_as_user.or(pod_level.run_as_user)),
        gid: number(own.run_as_group.or(pod_level.run_as_group)),
        supplementary: groups.filter_map(|g| u32::try_from(g).ok()).collect(),
        strict_groups: pod_level.supplemental_groups_policy.as_deref() == Some("Strict"),
    }
}

/// Shares and quota as upstream computes them (`pkg/kubelet/cm/helpers_linux.go`).
pub(crate) fn resources(pod: &Pod, container: &Container, node_memory: i64) -> Resources {
    let amount =
        |map: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
         name: &str| { map.and_then(|m| m.get(name)).and_then(|q| q.0.parse::<Quantity>().ok()) };
    let given = container.resources.as_ref();
    let (requests, limits) = (given.and_then(|r| r.requests.as_ref()), given.and_then(|r| r.limits.as_ref()));
    let request = amount(requests, "cpu").or(amount(limits, "cpu"));
    let shares = request.map_or(2, |q| (q.millis() * 1024 / 1000).clamp(2, 262_144) as u64);
    let memory = amount(limits, "memory").map(|q| q.units().max(0) as u64).filter(|m| *m > 0);
    Resources {
        cpu_shares: Some(shares),
        cpu_quota_us: amount(limits, "cpu").map(|q| (q.millis() * 100).max(1000)),
        cpu_period_us: Some(100_000),
        memory_limit: memory,
        oom_score_adj: Some(oom_score(pod, container, node_memory)),
        huge_pages: hugepages::limits(&client::Amounts::of(limits).others),
        ..Resources::default()
    }
}

/// The process group that is killed first when memory runs out (`pkg/kubelet/qos/policy.go`).
fn oom_score(pod: &Pod, container: &Container, memory: i64) -> i32 {
    let class = pod.status.as_ref().and_then(|s| s.qos_class.as_deref());
    let request =
        container.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("memory"));
    let request = request.and_then(|q| q.0.parse::<Quantity>().ok()).map_or(0, Quantity::units);
    match class {
        Some("Guaranteed") => -997,
        Some("Burstable") if memory > 0 => (1000 - 1000 * request / memory).clamp(3, 999) as i32,
        Some("Burstable") => 999,
        _ => 1000,
    }
}

async fn mounts(
    pod: &Pod,
    container: &Container,
    around: &Surroundings<'_>,
    env: &Env,
) -> Result<Vec<Mount>, NodeError> {
    let mut mounts = Vec::new();
    let own: Vec<&str> = container.volume_mounts.iter().flatten().map(|m| m.mount_path.as_str()).collect();
    for (source, destination) in &around.files {
        if !own.iter().any(|path| Path::new(path) == destination) {
            mounts.push(Mount {
                source: source.clone(),
                destination: destination.clone(),
                ..Mount::default()
            });
        }
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let sub = match mount.sub_path_expr.as_deref().filter(|s| !s.is_empty()) {
            Some(text) => env.expand_all(text).map_err(|name| {
                NodeError::Config(format!(
                    "subPathExpr of volume mount {:?}: missing value for {name:?}",
                    mount.name
                ))
            })?,
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        if let Some(image) = around.images.get(&mount.name) {
            mounts.push(Mount {
                kind: MountKind::Layers,
                layers: image.layers.clone(),
                sub_path: sub.into(),
                destination: mount.mount_path.clone().into(),
                readonly: true,
                ..Mount::default()
            });
            continue;
        }
        let place = around.places.get(&mount.name).ok_or_else(|| {
            NodeError::Config(format!("pod {:?} has no volume {:?}", pod.metadata.name, mount.name))
        })?;
        let source = match sub.as_str() {
            "" => place.path.clone(),
            sub => around.volumes.sub_path(uid, place, mount, sub, &container.name, index).await?,
        };
        if mount.mount_propagation.as_deref() == Some("Bidirectional") {
            can_be_shared(&source)?;
        }
        mounts.push(Mount {
            source,
            destination: mount.mount_path.clone().into(),
            readonly: mount.read_only.unwrap_or(false) || place.read_only,
            recursive_readonly: matches!(
                mount.recursive_read_only.as_deref(),
                Some("Enabled" | "IfPossible")
            ),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::None,
            },
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// What a container mounts below a mount that is not shared would be seen by nobody else (containerd/containerd,
/// `pkg/cri/opts/spec_linux_opts.go`, `ensureShared`).
fn can_be_shared(source: &Path) -> Result<(), NodeError> {
    match sys::mount_of(source) {
        Ok((at, false)) => Err(NodeError::Create(format!(
            "path {source:?} is mounted on {at:?} but it is not a shared mount"
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(NodeError::Create(error.to_string())),
    }
}

/// Volumes that are block devices (`pkg/kubelet/kubelet_pods.go`, `makeBlockVolumes`).
fn devices(container: &Container, places: &Places) -> Result<Vec<Device>, NodeError> {
    let found = container.volume_devices.iter().flatten().map(|device| {
        let place = places
            .get(&device.name)
            .ok_or_else(|| NodeError::Config(format!("the pod has no volume {:?}", device.name)))?;
        Ok(Device {
            host_path: place.path.clone(),
            container_path: device.device_path.clone().into(),
            permissions: if place.read_only { "r" } else { "rwm" }.to_owned(),
            ..Device::default()
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_asks_for_memory_is_killed_later() {
        let score = |class: &str, request: &str| {
            let pod = json!({"status": {"qosClass": class}});
            let container = json!({"name": "a", "resources": {"requests": {"memory": request}}});
            let (pod, container) =
                (serde_json::from_value(pod).unwrap(), serde_json::from_value(container).unwrap());
            oom_score(&pod, &container, 1 << 30)
        };
        assert_eq!(score("Guaranteed", "1Mi"), -997);
        assert_eq!(score("BestEffort", "0"), 1000);
        assert_eq!(score("Burstable", "512Mi"), 500);
        assert_eq!((score("Burstable", "0"), score("Burstable", "4Gi")), (999, 3));
    }
}
