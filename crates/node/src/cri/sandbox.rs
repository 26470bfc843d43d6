//! Sandboxes (`pkg/kubelet/kuberuntime/kuberuntime_sandbox.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use cri::{NamespaceMode, NamespaceOption, runtime as calls};
use k8s_openapi::api::core::v1::Pod;
use network::{HostPort, Protocol};
use runtime::{IpcMode, NetworkMode, PidMode, Resources, Sandbox, SandboxSpec};
use sys::cgroup::Group;

use super::container::resources;
use super::world::{CGROUP, LOGS, POD_NAME, POD_NAMESPACE, POD_UID};
use super::{Cri, CriError, to_the_end};
use crate::engine::EngineError;
use crate::ports::host_ports;

/// How long a sandbox may take to come about: its network is made meanwhile.
const BIRTH: Duration = Duration::from_secs(240);
/// How long processes that are about to end may hold a cgroup.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// What another runtime is told of a pod besides its sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct SandboxExtras {
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ports: Vec<HostPort>,
    /// A container of it is privileged.
    privileged: bool,
    /// As its RuntimeClass says.
    handler: String,
}

impl SandboxExtras {
    pub(crate) fn of(pod: &Pod, handler: &str) -> Self {
        let spec = pod.spec.as_ref();
        let containers =
            || spec.into_iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
        let privileged = |c: &k8s_openapi::api::core::v1::Container| {
            c.security_context.as_ref().and_then(|s| s.privileged) == Some(true)
        };
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
            ports: host_ports(pod),
            privileged: containers().any(privileged),
            handler: handler.to_owned(),
        }
    }
}

/// Whose namespaces the containers are in.
pub(super) fn namespaces(spec: &SandboxSpec) -> NamespaceOption {
    let of_host = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption {
        network: of_host(spec.network == NetworkMode::Host),
        ipc: of_host(spec.ipc == IpcMode::Host),
        pid: match spec.pid {
            PidMode::Host => NamespaceMode::Node,
            PidMode::Shared => NamespaceMode::Pod,
            PidMode::PerContainer => NamespaceMode::Container,
        },
        ..NamespaceOption::default()
    }
}

/// A sandbox in the interface's words. `cgroup` is its own, below the roots of the hierarchies.
pub(super) fn config(spec: &SandboxSpec, more: &SandboxExtras, cgroup: &str) -> cri::PodSandboxConfig {
    let text = str::to_owned;
    let mut labels = more.labels.clone();
    labels.extend([
        (text(POD_NAME), spec.name.clone()),
        (text(POD_NAMESPACE), more.namespace.clone()),
        (text(POD_UID), spec.id.clone()),
    ]);
    let logs = spec.log_dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default();
    let mut annotations = more.annotations.clone();
    annotations.extend([(text(CGROUP), spec.cgroup_path.clone()), (text(LOGS), logs.clone())]);
    let port = |port: &HostPort| cri::PortMapping {
        protocol: match port.protocol {
            Protocol::Tcp => cri::Protocol::Tcp,
            Protocol::Udp => cri::Protocol::Udp,
            Protocol::Sctp => cri::Protocol::Sctp,
        },
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    };
    let security = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        privileged: more.privileged,
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: spec.name.clone(),
            uid: spec.id.clone(),
            namespace: more.namespace.clone(),
            attempt: 0,
        }),
        // With the host's network, the host's name holds.
        hostname: if spec.network == NetworkMode::Host { String::new() } else { spec.hostname.clone() },
        log_directory: logs,
        port_mappings: more.ports.iter().map(port).collect(),
        labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{cgroup}"),
            security_context: Some(security),
            sysctls: spec.sysctls.clone(),
            resources: Some(resources(&spec.resources)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Cri {
    /// A sandbox's own cgroup.
    pub(super) fn group(&self, cgroup_path: &str) -> Group {
        self.0.parent.child(cgroup_path)
    }

    pub(crate) async fn run_sandbox(
        &self,
        spec: &SandboxSpec,
        more: SandboxExtras,
    ) -> Result<Sandbox, EngineError> {
        let group = self.group(&spec.cgroup_path);
        let (made, limits) = (group.clone(), spec.resources.limits());
        blocking(move || {
            made.create()?;
            Ok(made.limit(&limits)?)
        })
        .await?;
        if let Some(dir) = &spec.log_dir {
            make_dir(dir)?;
        }
        let config = config(spec, &more, group.path());
        let question = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: more.handler };
        let own = self.clone();
        let made: Result<_, CriError> = to_the_end(async move {
            let made = own.ask_within(&calls::RUN_POD_SANDBOX, question, BIRTH).await;
            // One that was not asked for in time is there all the same.
            own.look().await?;
            made
        })
        .await;
        let id = made?.pod_sandbox_id;
        Ok(Sandbox { id, shim_pid: 0, netns: None })
    }

    /// The ids that the runtime has given a pod's sandboxes.
    fn ids(&self, uid: &str) -> Result<Vec<String>, CriError> {
        let world = self.0.world.lock();
        let place = world.sandboxes.get(uid).ok_or_else(|| CriError::NoSandbox(uid.to_owned()))?;
        Ok(place.ids.clone())
    }

    /// What the runtime calls a pod's present sandbox.
    pub(super) fn id(&self, uid: &str) -> Result<String, CriError> {
        self.ids(uid)?.into_iter().next().ok_or_else(|| CriError::NoSandbox(uid.to_owned()))
    }

    pub(crate) async fn stop_sandbox(&self, uid: &str) -> Result<(), EngineError> {
        let (own, ids) = (self.clone(), self.ids(uid)?);
        Ok(to_the_end(async move {
            for id in &ids {
                own.stop(id).await?;
            }
            own.look().await
        })
        .await?)
    }

    async fn stop(&self, id: &str) -> Result<(), CriError> {
        let question = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.ask(&calls::STOP_POD_SANDBOX, question).await.map(drop))
    }

    pub(crate) async fn remove_sandbox(&self, uid: &str) -> Result<(), EngineError> {
        let (own, ids) = (self.clone(), self.ids(uid)?);
        let cgroup = self.0.world.lock().sandboxes.get(uid).map(|p| p.status.spec.cgroup_path.clone());
        let group = cgroup.filter(|path| !path.is_empty()).map(|path| self.group(&path));
        Ok(to_the_end(async move {
            for id in ids {
                own.stop(&id).await?;
                let question = cri::RemovePodSandboxRequest { pod_sandbox_id: id };
                gone_is_fine(own.ask(&calls::REMOVE_POD_SANDBOX, question).await.map(drop))?;
            }
            if let Some(group) = group {
                blocking(move || Ok(group.remove(LAST_BREATH)?)).await?;
            }
            own.look().await
        })
        .await?)
    }

    /// The limits are on the cgroup that the agent made, around those of the containers.
    pub(crate) async fn limit_sandbox(&self, uid: &str, resources: &Resources) -> Result<(), EngineError> {
        let path = {
            let world = self.0.world.lock();
            let place = world.sandboxes.get(uid).ok_or_else(|| CriError::NoSandbox(uid.to_owned()))?;
            place.status.spec.cgroup_path.clone()
        };
        let (group, limits) = (self.group(&path), resources.limits());
        Ok(blocking(move || Ok(group.limit(&limits)?)).await?)
    }

    /// Changes the limits on all sandboxes together.
    pub(crate) async fn limit_together(&self, resources: &Resources) -> Result<(), EngineError> {
        let (group, limits) = (self.0.parent.clone(), resources.limits());
        Ok(blocking(move || Ok(group.limit(&limits)?)).await?)
    }

    /// Makes a cgroup for some of the sandboxes, below that of all, and changes its limits.
    pub(crate) async fn limit_class(&self, name: &str, resources: &Resources) -> Result<(), EngineError> {
        let (group, limits) = (self.0.parent.child(name), resources.limits());
        let limit = move || {
            group.create()?;
            group.open_to_children()?;
            Ok(group.limit(&limits)?)
        };
        Ok(blocking(limit).await?)
    }

    /// Changes the limits of a cgroup that is somebody else's; gives false if there is none at `path`.
    pub(crate) async fn limit_cgroup(&self, path: &str, resources: &Resources) -> Result<bool, EngineError> {
        let (group, limits) = (self.0.groups.group(path), resources.limits());
        let limit = move || match group.exists() {
            true => Ok(group.limit(&limits).map(|()| true)?),
            false => Ok(false),
        };
        Ok(blocking(limit).await?)
    }

    /// Ends everything that this agent has made, as `gantry down` does.
    ///
    /// # Errors
    /// At the first thing that stays.
    pub async fn remove_all(&self, grace: Duration, logs_too: bool) -> Result<(), EngineError> {
        // Others may use the runtime too; theirs is nobody's business here.
        let ours = self.sandboxes().into_iter().filter(|s| !s.spec.cgroup_path.is_empty());
        let ends = ours.map(|sandbox| async move {
            let stops = self.containers(&sandbox.spec.id).into_iter().map(|container| async move {
                // Whatever does not end in time is killed with its sandbox.
                let _ = self.stop_container(&container.id, grace).await;
            });
            futures::future::join_all(stops).await;
            self.remove_sandbox(&sandbox.spec.id).await?;
            let logs = sandbox.spec.log_dir.as_deref().filter(|_| logs_too);
            match logs.map(|dir| (std::fs::remove_dir_all(dir), dir)) {
                Some((Err(source), dir)) if source.kind() != std::io::ErrorKind::NotFound => {
                    let path = dir.display().to_string();
                    Err(CriError::File { attempt: "remove", path, source }.into())
                }
                _ => Ok(()),
            }
        });
        let ended: Result<Vec<()>, EngineError> = futures::future::join_all(ends).await.into_iter().collect();
        ended?;
        let parent = self.0.parent.clone();
        Ok(blocking(move || Ok(parent.remove(LAST_BREATH)?)).await?)
    }
}

pub(super) fn gone_is_fine(outcome: Result<(), CriError>) -> Result<(), CriError> {
    match outcome {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn make_dir(dir: &std::path::Path) -> Result<(), CriError> {
    std::fs::create_dir_all(dir).map_err(|source| CriError::File {
        attempt: "make",
        path: dir.display().to_string(),
        source,
    })
}

/// Runs what waits for the kernel away from the asynchronous threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CriError> + Send + 'static,
) -> Result<T, CriError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sandbox_is_told_all_of_its_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "securityContext": {"privileged": true},
                "ports": [{"containerPort": 80, "hostPort": 8080}]}]}}))
        .unwrap();
        let spec = SandboxSpec {
            id: "u".into(),
            name: "p".into(),
            hostname: "h".into(),
            cgroup_path: "besteffort/podu".into(),
            log_dir: Some("/logs/n_p_u".into()),
            pid: PidMode::PerContainer,
            ..SandboxSpec::default()
        };
        let told = config(&spec, &SandboxExtras::of(&pod, "runc"), "gantry/besteffort/podu");
        assert_eq!((told.hostname.as_str(), told.log_directory.as_str()), ("h", "/logs/n_p_u"));
        assert_eq!(told.labels[POD_UID], "u");
        assert_eq!(
            (&told.labels["app"], &told.annotations[CGROUP]),
            (&"web".into(), &"besteffort/podu".into())
        );
        assert_eq!(told.port_mappings[0].host_port, 8080);
        let linux = told.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/gantry/besteffort/podu");
        let security = linux.security_context.unwrap();
        assert!(security.privileged);
        let namespaces = security.namespace_options.unwrap();
        assert_eq!((namespaces.pid, namespaces.network), (NamespaceMode::Container, NamespaceMode::Pod));
    }
}
