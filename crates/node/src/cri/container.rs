//! Containers (`pkg/kubelet/kuberuntime/kuberuntime_container.go`, `generateContainerConfig`).

use std::path::Path;
use std::time::Duration;

use cri::{Int64Value, ProfileType, SecurityProfile, runtime as calls};
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerSpec, ContainerState, ContainerStatus, MountKind, Output, Propagation};
use runtime::{MASKED_PATHS, READONLY_PATHS, Resources, SandboxSpec, Seccomp};

use super::sandbox::{SandboxExtras, config as sandbox_config, gone_is_fine, make_dir, namespaces};
use super::world::{CONTAINER_NAME, IMAGE, POD_NAME, POD_NAMESPACE, POD_UID};
use super::{Cri, CriError, LIMIT, to_the_end};
use crate::engine::EngineError;

/// A container, and what it is in.
pub(crate) struct Asked<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) sandbox: SandboxSpec,
    pub(crate) spec: ContainerSpec,
    /// The image's id.
    pub(crate) image: String,
    /// Where the node's own seccomp profiles are.
    pub(crate) profiles: &'a Path,
    /// The CDI devices that have hooks.
    pub(crate) hooked: Vec<String>,
}

/// What the runtime cannot do that the container asks for (`pkg/kubelet/kuberuntime`, `resolveRecursiveReadOnly`).
fn check(asked: &Asked<'_>, recursive_read_only: bool) -> Result<(), CriError> {
    for mount in asked.container.volume_mounts.iter().flatten() {
        if mount.recursive_read_only.as_deref() == Some("Enabled") && !recursive_read_only {
            return Err(CriError::Refused(format!(
                "volume {:?} is requested to be mounted recursively read-only, but the container runtime does not support that",
                mount.name
            )));
        }
    }
    match asked.spec.mounts.iter().find(|m| m.kind != MountKind::Bind) {
        Some(mount) => Err(CriError::Refused(format!(
            "what is mounted at {} can only be had with the built-in container runtime",
            mount.destination.display()
        ))),
        None => Ok(()),
    }
}

/// Limits in the interface's words.
pub(super) fn resources(of: &Resources) -> cri::LinuxContainerResources {
    let big = |n: Option<u64>| n.and_then(|n| i64::try_from(n).ok()).unwrap_or_default();
    let page = |(size, limit): (&String, &u64)| cri::HugepageLimit { page_size: size.clone(), limit: *limit };
    cri::LinuxContainerResources {
        cpu_period: big(of.cpu_period_us),
        cpu_quota: of.cpu_quota_us.unwrap_or_default(),
        cpu_shares: big(of.cpu_shares),
        memory_limit_in_bytes: big(of.memory_limit),
        // No swap on top.
        memory_swap_limit_in_bytes: big(of.memory_limit),
        oom_score_adj: of.oom_score_adj.unwrap_or_default().into(),
        cpuset_cpus: of.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: of.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: of.huge_pages.iter().map(page).collect(),
        ..Default::default()
    }
}

fn security(asked: &Asked<'_>) -> cri::LinuxContainerSecurityContext {
    let spec = &asked.spec;
    let own = |list: &Option<Vec<String>>, usual: &[&str]| match list {
        Some(list) => list.clone(),
        None if spec.privileged => Vec::new(),
        None => usual.iter().map(|path| (*path).to_owned()).collect(),
    };
    let profile = |profile_type, reference: &Path| SecurityProfile {
        profile_type,
        localhost_ref: reference.display().to_string(),
    };
    let nothing = Path::new("");
    let seccomp = match &spec.seccomp {
        _ if spec.privileged => profile(ProfileType::Unconfined, nothing),
        Seccomp::Default => profile(ProfileType::RuntimeDefault, nothing),
        Seccomp::Unconfined => profile(ProfileType::Unconfined, nothing),
        Seccomp::Profile(_) => {
            let name = crate::security::localhost_seccomp(asked.pod, asked.container);
            profile(ProfileType::Localhost, &asked.profiles.join(name.unwrap_or_default()))
        }
    };
    let apparmor = spec.apparmor.as_ref().map(|name| match name.as_str() {
        "unconfined" => profile(ProfileType::Unconfined, nothing),
        name => profile(ProfileType::Localhost, Path::new(name)),
    });
    let number = |n: Option<u32>| n.map(|value| Int64Value { value: value.into() });
    // Without a number of the pod's, the image's user holds.
    let image_user = spec.user.spec.as_deref().unwrap_or_default();
    let of_image = image_user.parse::<i64>().ok().map(|value| Int64Value { value });
    let named = spec.user.uid.is_none() && of_image.is_none();
    let mut namespaces = namespaces(&asked.sandbox);
    if let Some(target) = &spec.pid_of {
        namespaces.pid = cri::NamespaceMode::Target;
        namespaces.target_id.clone_from(target);
    }
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: spec.capabilities.add.clone(),
            drop_capabilities: spec.capabilities.drop.clone(),
            ..Default::default()
        }),
        privileged: spec.privileged,
        namespace_options: Some(namespaces),
        run_as_user: number(spec.user.uid).or(of_image),
        run_as_group: number(spec.user.gid),
        run_as_username: if named { image_user.to_owned() } else { String::new() },
        readonly_rootfs: spec.read_only_rootfs,
        supplemental_groups: spec.user.supplementary.iter().map(|g| i64::from(*g)).collect(),
        supplemental_groups_policy: match spec.user.strict_groups {
            true => cri::SupplementalGroupsPolicy::Strict,
            false => cri::SupplementalGroupsPolicy::Merge,
        },
        no_new_privs: spec.no_new_privileges,
        masked_paths: own(&spec.masked_paths, &MASKED_PATHS),
        readonly_paths: own(&spec.readonly_paths, &READONLY_PATHS),
        seccomp: Some(seccomp),
        apparmor,
        ..Default::default()
    }
}

/// Limits of a container in the interface's words, on a machine whose limits are in a tree of cgroup v2, or not.
fn container_resources(of: &Resources, cgroup_v2: bool) -> cri::LinuxContainerResources {
    let together = cgroup_v2 && !of.single_process_oom_kill;
    let unified = together.then(|| ("memory.oom.group".to_owned(), "1".to_owned()));
    cri::LinuxContainerResources { unified: unified.into_iter().collect(), ..resources(of) }
}

/// A container in the interface's words.
fn config(asked: &Asked<'_>, recursive_read_only: bool, cgroup_v2: bool) -> cri::ContainerConfig {
    let spec = &asked.spec;
    let meta = &asked.pod.metadata;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let mut labels = spec.labels.clone();
    labels.extend([
        (POD_NAME.to_owned(), text(&meta.name)),
        (POD_NAMESPACE.to_owned(), text(&meta.namespace)),
        (POD_UID.to_owned(), text(&meta.uid)),
        (CONTAINER_NAME.to_owned(), spec.name.clone()),
    ]);
    // What the pod names as a command replaces the image's own; arguments alone follow the image's command.
    let (command, args) = match asked.container.command {
        Some(_) => (spec.args.clone(), Vec::new()),
        None => (Vec::new(), spec.args.clone()),
    };
    let path = |path: &Path| path.display().to_string();
    let env = |pair: &String| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        cri::KeyValue { key: key.to_owned(), value: value.to_owned() }
    };
    let mount = |mount: &runtime::Mount| cri::Mount {
        container_path: path(&mount.destination),
        host_path: path(&mount.source),
        readonly: mount.readonly,
        propagation: match mount.propagation {
            Propagation::None => cri::MountPropagation::Private,
            Propagation::HostToContainer => cri::MountPropagation::HostToContainer,
            Propagation::Bidirectional => cri::MountPropagation::Bidirectional,
        },
        recursive_read_only: mount.recursive_readonly && recursive_read_only,
        ..Default::default()
    };
    let device = |device: &runtime::Device| cri::Device {
        container_path: match device.container_path.as_os_str().is_empty() {
            true => path(&device.host_path),
            false => path(&device.container_path),
        },
        host_path: path(&device.host_path),
        permissions: device.permissions.clone(),
    };
    let image = cri::ImageSpec {
        image: asked.image.clone(),
        user_specified_image: spec.image.clone(),
        ..Default::default()
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: spec.attempt }),
        image: Some(image),
        command,
        args,
        working_dir: spec.cwd.clone(),
        envs: spec.env.iter().map(env).collect(),
        mounts: spec.mounts.iter().map(mount).collect(),
        devices: spec.devices.iter().map(device).collect(),
        labels,
        annotations: [(IMAGE.to_owned(), spec.image.clone())].into(),
        log_path: format!("{}/{}.log", spec.name, spec.attempt),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(container_resources(&spec.resources, cgroup_v2)),
            security_context: Some(security(asked)),
        }),
        stop_signal: spec.stop_signal.as_deref().map(cri::Signal::of).unwrap_or_default(),
        cdi_devices: cdi_devices(&asked.hooked),
    }
}

/// A runtime runs hooks that it finds in CDI files itself. What else these say has been given already, and is the same.
fn cdi_devices(names: &[String]) -> Vec<cri::CdiDevice> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| cri::CdiDevice { name }).collect()
}

/// Whether a runtime is known to take no notice of CDI devices.
fn overlooks_cdi(name: &str, version: &str) -> bool {
    let mut numbers =
        version.trim_start_matches('v').split(['.', '-', '+', '~']).map(|n| n.parse::<u32>().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    name == "containerd" && version.is_some_and(|version| version < (1, 7))
}

impl Cri {
    /// Makes a container and starts it.
    pub(crate) async fn start_container(&self, asked: Asked<'_>) -> Result<ContainerStatus, EngineError> {
        let recursive = self.recursive_read_only();
        check(&asked, recursive)?;
        if let Some(device) = asked.hooked.first()
            && overlooks_cdi(self.name(), self.version())
        {
            let (name, version) = (self.name(), self.version());
            return Err(CriError::Refused(format!(
                "CDI device {device} has hooks, of which {name} {version} takes no notice; it does from 1.7 on"
            ))
            .into());
        }
        let uid = asked.sandbox.id.as_str();
        if let Some(folder) = asked.spec.log_path.as_deref().and_then(Path::parent) {
            make_dir(folder)?;
        }
        let group = self.group(&asked.sandbox.cgroup_path);
        let extras = SandboxExtras::of(asked.pod, "");
        let question = cri::CreateContainerRequest {
            pod_sandbox_id: self.id(uid)?,
            config: Some(config(&asked, recursive, self.0.groups.is_v2())),
            sandbox_config: Some(sandbox_config(&asked.sandbox, &extras, group.path())),
        };
        let own = self.clone();
        let started: Result<String, CriError> = to_the_end(async move {
            let id = own.ask(&calls::CREATE_CONTAINER, question).await?.container_id;
            let question = cri::StartContainerRequest { container_id: id.clone() };
            let started = own.ask(&calls::START_CONTAINER, question).await;
            own.look().await?;
            if started.is_err() && own.container(&id).is_some_and(|c| c.state == ContainerState::Created) {
                // What was never started never ran.
                let question = cri::RemoveContainerRequest { container_id: id.clone() };
                gone_is_fine(own.ask(&calls::REMOVE_CONTAINER, question).await.map(drop))?;
                own.look().await?;
            }
            started.map(|_| id)
        })
        .await;
        let id = started?;
        let gone = || CriError::Refused(format!("container {id:?} went while it was started"));
        Ok(self.container(&id).ok_or_else(gone)?)
    }

    /// Has the runtime write a container into a file.
    pub(crate) async fn checkpoint(
        &self,
        id: &str,
        file: &Path,
        limit: Option<Duration>,
    ) -> Result<(), CriError> {
        let question = cri::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: file.display().to_string(),
            timeout: limit.map_or(0, |limit| i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)),
        };
        let limit = limit.unwrap_or(LIMIT);
        self.ask_within(&calls::CHECKPOINT_CONTAINER, question, limit).await.map(drop)
    }

    /// Whether mounts below a mount can be made read-only too.
    pub(crate) fn recursive_read_only(&self) -> bool {
        let health = self.0.health.borrow();
        health.handlers.iter().any(|h| h.name.is_empty() && h.recursive_read_only)
    }

    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let question = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let own = self.clone();
        Ok(to_the_end(async move {
            let stopped = own.ask_within(&calls::STOP_CONTAINER, question, grace + LIMIT).await;
            own.look().await?;
            stopped.map(drop)
        })
        .await?)
    }

    pub(crate) async fn wait_container(&self, id: &str) {
        let mut events = self.events();
        let runs = |c: ContainerStatus| !matches!(c.state, ContainerState::Exited(_));
        while self.container(id).is_some_and(runs) {
            // The sender lives as long as `self`; whoever lags looks again.
            let _ = events.recv().await;
        }
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let question = cri::RemoveContainerRequest { container_id: id.to_owned() };
        let own = self.clone();
        Ok(to_the_end(async move {
            gone_is_fine(own.ask(&calls::REMOVE_CONTAINER, question).await.map(drop))?;
            own.look().await
        })
        .await?)
    }

    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        argv: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<Output, EngineError> {
        let seconds = timeout.map_or(0, |t| t.as_secs().max(1));
        let question = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: argv,
            timeout: i64::try_from(seconds).unwrap_or_default(),
        };
        // The runtime ends it; only one that does not is given up.
        let limit = timeout.unwrap_or(Duration::from_secs(24 * 3600)) + Duration::from_secs(5);
        let told = self.ask_within(&calls::EXEC_SYNC, question, limit).await?;
        Ok(Output { code: told.exit_code, stdout: told.stdout, stderr: told.stderr })
    }

    pub(crate) async fn update_resources(&self, id: &str, new: &Resources) -> Result<(), EngineError> {
        let question = cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources(new)),
            ..Default::default()
        };
        self.ask(&calls::UPDATE_CONTAINER_RESOURCES, question).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::{Mount, User};
    use serde_json::json;

    fn asked<'a>(pod: &'a Pod, spec: ContainerSpec) -> Asked<'a> {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let sandbox = SandboxSpec { id: "u".into(), ..SandboxSpec::default() };
        let (image, profiles) = ("sha256:1".into(), Path::new("/seccomp"));
        Asked { pod, container, sandbox, spec, image, profiles, hooked: vec!["v/c=b".into(), "v/c=a".into()] }
    }

    fn pod(container: serde_json::Value) -> Pod {
        let meta = json!({"name": "p", "namespace": "n", "uid": "u"});
        serde_json::from_value(json!({"metadata": meta, "spec": {"containers": [container]}})).unwrap()
    }

    #[test]
    fn commands_and_arguments_stay_apart() {
        let spec = ContainerSpec { args: vec!["a".into(), "b".into()], ..ContainerSpec::default() };
        let own = pod(json!({"name": "c", "command": ["a"], "args": ["b"]}));
        let told = config(&asked(&own, spec.clone()), false, false);
        assert_eq!((told.command.len(), told.args.len()), (2, 0));
        let images = pod(json!({"name": "c", "args": ["a", "b"]}));
        let told = config(&asked(&images, spec), false, false);
        assert_eq!((told.command.len(), told.args.len()), (0, 2));
    }

    #[test]
    fn devices_with_hooks_are_named() {
        let pod = pod(json!({"name": "c"}));
        let told = config(&asked(&pod, ContainerSpec::default()), false, false).cdi_devices;
        assert_eq!(told.iter().map(|device| &*device.name).collect::<Vec<_>>(), ["v/c=a", "v/c=b"]);
        for (name, version, overlooks) in [
            ("containerd", "1.6.20~ds1", true),
            ("containerd", "v1.7.0", false),
            ("containerd", "2.1", false),
            ("containerd", "?", false),
            ("cri-o", "1.6.0", false),
        ] {
            assert_eq!(overlooks_cdi(name, version), overlooks, "{name} {version}");
        }
    }

    #[test]
    fn users_masks_and_profiles() {
        let pod = pod(json!({"name": "c", "securityContext":
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}}));
        let user = User { spec: Some("web".into()), ..User::default() };
        let spec = ContainerSpec { user, seccomp: Seccomp::Profile(json!({})), ..ContainerSpec::default() };
        let told = security(&asked(&pod, spec.clone()));
        assert_eq!((told.run_as_username.as_str(), &told.run_as_user), ("web", &None));
        assert_eq!(told.masked_paths.len(), MASKED_PATHS.len());
        assert_eq!(told.seccomp.unwrap().localhost_ref, "/seccomp/a.json");
        let user = User { uid: Some(7), ..spec.user.clone() };
        let told = security(&asked(&pod, ContainerSpec { user, privileged: true, ..spec }));
        assert_eq!((told.run_as_username.as_str(), told.run_as_user.unwrap().value), ("", 7));
        assert!(told.masked_paths.is_empty());
        assert_eq!(told.seccomp.unwrap().profile_type, ProfileType::Unconfined);
    }

    #[test]
    fn what_the_runtime_cannot_do_is_refused() {
        let pod = pod(json!({"name": "c", "volumeMounts":
            [{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"}]}));
        let plain = || asked(&pod, ContainerSpec::default());
        assert!(check(&plain(), true).is_ok());
        assert!(check(&plain(), false).unwrap_err().to_string().contains("recursively read-only"));
        let layers = Mount { kind: MountKind::Layers, destination: "/i".into(), ..Mount::default() };
        let spec = ContainerSpec { mounts: vec![layers], ..ContainerSpec::default() };
        assert!(check(&asked(&pod, spec), true).unwrap_err().to_string().contains("/i can only be had"));
    }
}
