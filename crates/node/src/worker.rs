//! Doing what [`plan`](crate::plan::plan) says, one pod at a time, and writing what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Drain};
use client::{Controller, Informer, Informers, Key, Next, Recorder, Selection};
use image::ImageStore;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use network::Network;
use parking_lot::Mutex;
use runtime::{ContainerEvent, ContainerState, NetworkMode, PidMode, Runtime, SandboxSpec, SandboxState};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::config::NodeConfig;
use crate::container::{self, Surroundings};
use crate::error::NodeError;
use crate::images::Images;
use crate::plan::{Action, phase_of, plan};
use crate::server::Server;
use crate::status::{Known, status_of};
use crate::{register, volumes};

/// The labels that lead from a sandbox back to its pod.
const KEY: &str = "io.kubernetes.pod.key";

/// How many pods are worked on at once.
const WORKERS: usize = 64;

/// A pod that could not go on is looked at again after so long.
const RETRY: Duration = Duration::from_secs(5);

/// Registers the node and runs its pods until `drain` starts. Containers go on without it.
///
/// # Errors
/// Only when the node cannot be registered.
pub async fn run(
    config: NodeConfig,
    client: Client,
    runtime: Runtime,
    images: ImageStore,
    network: Network,
    clock: Arc<dyn Clock>,
    drain: Drain,
) -> Result<(), NodeError> {
    register::register(&client, &config, &*clock).await?;
    drain.spawn(register::heartbeat(client.clone(), config.clone(), clock.clone(), drain.clone()));
    let informers = Informers::new(client.clone(), drain.clone());
    let pods: Informer<Pod> = informers.select(Selection::fields(format!("spec.nodeName={}", config.name)));
    let controller = Controller::new("node").workers(WORKERS).watches(&pods, |pod: &Pod| [Key::of(pod)]);
    let queue = controller.queue();
    let recorder = Recorder::start(client.clone(), "kubelet", &config.name, clock.clone(), &drain);
    let agent = Arc::new(Agent {
        config,
        client,
        runtime: runtime.clone(),
        images: Images::new(images),
        network,
        clock,
        recorder,
        pods,
        known: Mutex::default(),
    });
    let server = Server {
        node: agent.config.name.clone(),
        client: agent.client.clone(),
        pods: agent.pods.clone(),
        runtime: runtime.clone(),
        clock: agent.clock.clone(),
        drain: drain.clone(),
    };
    server.start((agent.config.ip, agent.config.port).into(), &agent.config.tls).await?;
    // Containers that end wake their pod; so do sandboxes whose pod went while nobody looked.
    let mut events = runtime.events();
    let (watcher, until) = (agent.clone(), drain.clone());
    let wake = queue.clone();
    drain.spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = until.started() => return,
            };
            match event {
                Ok(
                    ContainerEvent::Started { sandbox_id, .. }
                    | ContainerEvent::Exited { sandbox_id, .. }
                    | ContainerEvent::SandboxLost { sandbox_id },
                ) => watcher.key_of(&sandbox_id).into_iter().for_each(|key| wake.add(key)),
                Err(RecvError::Lagged(_)) => watcher.all_keys().into_iter().for_each(|key| wake.add(key)),
                Err(RecvError::Closed) => return,
            }
        }
    });
    agent.all_keys().into_iter().for_each(|key| queue.add(key));
    let until = drain.clone();
    drain.spawn(controller.run(until, move |key| {
        let agent = agent.clone();
        async move { agent.look(key).await }
    }));
    Ok(())
}

struct Agent {
    config: NodeConfig,
    client: Client,
    runtime: Runtime,
    images: Images,
    network: Network,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    pods: Informer<Pod>,
    /// Why containers wait and what they run, by pod UID: for the status only, made anew after a restart.
    known: Mutex<std::collections::HashMap<String, Known>>,
}

fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn named_container(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|c| c.name == name).cloned()
}

/// What the container asks for and does not get; it must not go unsaid.
fn not_yet(container: &Container) -> Option<&'static str> {
    let probed = container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
        || container.startup_probe.is_some();
    match (probed, container.lifecycle.is_some()) {
        (true, _) => Some("probing"),
        (false, true) => Some("a lifecycle hook"),
        (false, false) => None,
    }
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

impl Agent {
    fn key_of(&self, sandbox: &str) -> Option<Key> {
        let found = self.runtime.sandboxes().into_iter().find(|s| s.spec.id == sandbox)?;
        let (namespace, name) = found.spec.labels.get(KEY)?.split_once('/')?;
        Some(Key::new(namespace, name))
    }

    fn all_keys(&self) -> Vec<Key> {
        self.runtime.sandboxes().iter().filter_map(|s| self.key_of(&s.spec.id)).collect()
    }

    /// One look at one pod.
    async fn look(&self, key: Key) -> Result<Next, NodeError> {
        let pod = self.pods.get(&key);
        let uid = pod.as_deref().map(uid_of).unwrap_or_default().to_owned();
        for sandbox in self.runtime.sandboxes() {
            if sandbox.spec.labels.get(KEY).map(String::as_str) == Some(key.as_str())
                && sandbox.spec.id != uid
            {
                self.tear_down(&sandbox.spec.id, 0).await?;
            }
        }
        let Some(pod) = pod else { return Ok(Next::Done) };
        let sandbox =
            self.runtime.sandboxes().iter().any(|s| s.spec.id == uid && s.state == SandboxState::Ready);
        let plan = plan(&pod, sandbox, &self.runtime.containers(&uid), self.clock.now());
        let mut again = plan.again;
        for action in &plan.actions {
            if let Action::Terminate { grace } = action {
                return self.end(&pod, *grace).await;
            }
            if let Err(error) = self.act(&pod, action).await {
                self.note_failure(&pod, action, &error);
                again = Some(again.map_or(RETRY, |wait| wait.min(RETRY)));
                break;
            }
        }
        self.write_status(&pod).await?;
        Ok(again.map_or(Next::Done, Next::After))
    }

    async fn act(&self, pod: &Pod, action: &Action) -> Result<(), NodeError> {
        match action {
            Action::StartSandbox => self.start_sandbox(pod).await,
            Action::Start { container, attempt } => match named_container(pod, container) {
                Some(found) => self.start_container(pod, &found, *attempt).await,
                None => Ok(()),
            },
            Action::Terminate { .. } => Ok(()),
        }
    }

    async fn start_sandbox(&self, pod: &Pod) -> Result<(), NodeError> {
        let uid = uid_of(pod);
        // What a lost sandbox left is cleared away first.
        if self.runtime.sandboxes().iter().any(|s| s.spec.id == uid) {
            self.runtime.remove_sandbox(uid).await?;
        }
        let spec = pod.spec.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let class = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()).unwrap_or("BestEffort");
        let parent = match class {
            "Guaranteed" => String::new(),
            other => format!("{}/", other.to_lowercase()),
        };
        let sandbox = SandboxSpec {
            id: uid.to_owned(),
            name: name.clone(),
            hostname: spec.hostname.clone().unwrap_or_else(|| name.clone()).chars().take(63).collect(),
            labels: [(KEY.to_owned(), format!("{namespace}/{name}"))].into(),
            network: if host_network(pod) { NetworkMode::Host } else { NetworkMode::Own },
            pid: match (spec.host_pid, spec.share_process_namespace) {
                (Some(true), _) => PidMode::Host,
                (_, Some(true)) => PidMode::Shared,
                _ => PidMode::PerContainer,
            },
            ipc: if spec.host_ipc == Some(true) { runtime::IpcMode::Host } else { runtime::IpcMode::Own },
            sysctls: spec
                .security_context
                .iter()
                .flat_map(|s| s.sysctls.iter().flatten())
                .map(|s| (s.name.clone(), s.value.clone()))
                .collect(),
            cgroup_path: format!("{parent}pod{uid}"),
            log_dir: Some(self.log_dir(pod)),
            ..SandboxSpec::default()
        };
        let made = self.runtime.run_sandbox(sandbox).await?;
        if let Some(netns) = made.netns {
            self.network.attach(uid, &netns).await?;
        }
        Ok(())
    }

    async fn start_container(&self, pod: &Pod, container: &Container, attempt: u32) -> Result<(), NodeError> {
        if let Some(what) = not_yet(container) {
            let text = format!(
                "container {}: {what} is not available in this version and is left out",
                container.name
            );
            self.recorder.warning(pod, "NotAvailable", text);
        }
        let uid = uid_of(pod).to_owned();
        let name = container.image.clone().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let found = self.images.get(&name, policy).await?;
        let said = if found.pulled {
            format!("Successfully pulled image {name:?}")
        } else {
            format!("Container image {name:?} already present on machine")
        };
        self.recorder.normal(pod, "Pulled", said);
        let store = self.images.store().clone();
        let (image, owner) = (found.image.clone(), uid.clone());
        let layers = tokio::task::spawn_blocking(move || {
            store.hold(&image, &owner)?;
            store.layer_dirs(&image).map_err(image_error)
        });
        let unpack = |why: String| NodeError::Image {
            reason: "ErrImagePull",
            message: format!("failed to unpack image {name:?}: {why}"),
        };
        let layers = layers
            .await
            .map_err(|e| unpack(e.to_string()))?
            .map_err(|e: Box<dyn std::error::Error + Send + Sync>| unpack(e.to_string()))?;
        let places = volumes::set_up(&self.client, pod, &self.pod_dir(&uid).join("volumes")).await?;
        let ip = self.pod_ip(pod).await.unwrap_or_default();
        let log_path = self.log_dir(pod).join(&container.name).join(format!("{attempt}.log"));
        let around = Surroundings {
            client: &self.client,
            pod_ip: &ip,
            host_ip: &self.config.ip.to_string(),
            volumes: &places,
            layers,
            log_path,
            files: self.name_files(pod, &ip)?,
        };
        let spec = container::spec(pod, container, attempt, &found.image, around).await?;
        self.runtime.start_container(&uid, spec).await?;
        self.recorder.normal(pod, "Created", format!("Container created: {}", container.name));
        self.recorder.normal(pod, "Started", format!("Container started: {}", container.name));
        let mut known = self.known.lock();
        let known = known.entry(uid).or_default();
        known.waiting.remove(&container.name);
        known.image_ids.insert(
            container.name.clone(),
            found.image.digests.first().cloned().unwrap_or_else(|| found.image.id.to_string()),
        );
        Ok(())
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    fn log_dir(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        self.config.log_dir.join(format!(
            "{}_{}_{}",
            text(&meta.namespace),
            text(&meta.name),
            text(&meta.uid)
        ))
    }

    async fn pod_ip(&self, pod: &Pod) -> Option<String> {
        if host_network(pod) {
            return Some(self.config.ip.to_string());
        }
        let uid = uid_of(pod);
        self.network.attached().await.into_iter().find(|a| a.id == uid).map(|a| a.ip.to_string())
    }

    /// `/etc/hosts` and `/etc/resolv.conf` (`pkg/kubelet/network/dns/dns.go`).
    fn name_files(&self, pod: &Pod, ip: &str) -> Result<Vec<(PathBuf, PathBuf)>, NodeError> {
        let folder = self.pod_dir(uid_of(pod));
        let spec = pod.spec.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let hostname = spec.hostname.clone().unwrap_or(name);
        let mut hosts = format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{ip}\t{hostname}\n"
        );
        for alias in spec.host_aliases.iter().flatten() {
            hosts += &format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
        }
        let cluster = match spec.dns_policy.as_deref() {
            Some("Default" | "None") => false,
            Some("ClusterFirstWithHostNet") => true,
            _ => !host_network(pod),
        };
        let mut resolv = if cluster {
            let (namespace, domain) =
                (pod.metadata.namespace.clone().unwrap_or_default(), &self.config.cluster_domain);
            format!(
                "search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver {}\noptions ndots:5\n",
                self.config.cluster_dns
            )
        } else if spec.dns_policy.as_deref() == Some("None") {
            String::new()
        } else {
            std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
        };
        if let Some(dns) = &spec.dns_config {
            dns.nameservers.iter().flatten().for_each(|s| resolv += &format!("nameserver {s}\n"));
            if let Some(searches) = dns.searches.as_ref().filter(|s| !s.is_empty()) {
                resolv += &format!("search {}\n", searches.join(" "));
            }
        }
        let write = |file: &str, text: String| {
            let path = folder.join(file);
            let fault =
                |source| NodeError::File { attempt: "write", path: path.display().to_string(), source };
            std::fs::create_dir_all(&folder).map_err(fault)?;
            std::fs::write(&path, text).map_err(fault)?;
            Ok::<_, NodeError>(path.clone())
        };
        Ok(vec![
            (write("etc-hosts", hosts)?, "/etc/hosts".into()),
            (write("resolv.conf", resolv)?, "/etc/resolv.conf".into()),
        ])
    }

    /// Remembers for the status why a container waits, and says it in an event.
    fn note_failure(&self, pod: &Pod, action: &Action, error: &NodeError) {
        let message = error.to_string();
        let reason = error.waiting_reason();
        match error {
            NodeError::Image { reason: "ImagePullBackOff", .. } => {
                self.recorder.normal(pod, "BackOff", &*message)
            }
            NodeError::Volume { .. } => self.recorder.warning(pod, "FailedMount", &*message),
            _ if *action == Action::StartSandbox => {
                self.recorder.warning(pod, "FailedCreatePodSandBox", &*message)
            }
            _ => self.recorder.warning(pod, "Failed", format!("Error: {message}")),
        }
        if let Action::Start { container, .. } = action {
            let mut known = self.known.lock();
            let waiting = &mut known.entry(uid_of(pod).to_owned()).or_default().waiting;
            waiting.insert(container.clone(), (reason.to_owned(), message));
        }
    }

    async fn write_status(&self, pod: &Pod) -> Result<(), NodeError> {
        let uid = uid_of(pod).to_owned();
        let ip = self.pod_ip(pod).await;
        let known = {
            let mut known = self.known.lock();
            let known = known.entry(uid.clone()).or_default();
            known.pod_ip = ip;
            known.host_ip = self.config.ip.to_string();
            known.clone()
        };
        if matches!(phase_of(pod), Some("Succeeded" | "Failed")) {
            return Ok(());
        }
        let status = status_of(pod, &self.runtime.containers(&uid), &known, self.clock.now());
        if pod.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<Pod> =
            Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let patch = json!({"metadata": {"uid": uid}, "status": status});
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    /// A deleted pod: its containers end, its things go, and then it does.
    async fn end(&self, pod: &Pod, grace: u64) -> Result<Next, NodeError> {
        let uid = uid_of(pod);
        for container in self.runtime.containers(uid) {
            if matches!(container.state, ContainerState::Running { .. }) {
                self.recorder.normal(pod, "Killing", format!("Stopping container {}", container.name));
            }
        }
        self.tear_down(uid, grace).await?;
        let api: Api<Pod> =
            Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let how = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(pod.metadata.name.as_deref().unwrap_or_default(), &how).await {
            Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => Err(error.into()),
            _ => Ok(Next::Done),
        }
    }

    async fn tear_down(&self, uid: &str, grace: u64) -> Result<(), NodeError> {
        let stops = self.runtime.containers(uid).into_iter().map(|c| async move {
            // Whatever does not end in time is killed with its sandbox.
            let _ = self.runtime.stop_container(&c.id, Duration::from_secs(grace), None).await;
        });
        futures::future::join_all(stops).await;
        self.network.detach(uid).await?;
        if self.runtime.sandboxes().iter().any(|s| s.spec.id == uid) {
            self.runtime.remove_sandbox(uid).await?;
        }
        if let Err(error) = self.images.store().release(uid) {
            tracing::warn!(pod = uid, %error, "cannot release the pod's images");
        }
        let folder = self.pod_dir(uid);
        match std::fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(NodeError::File {
                    attempt: "remove",
                    path: folder.display().to_string(),
                    source,
                });
            }
            _ => {}
        }
        self.known.lock().remove(uid);
        Ok(())
    }
}

fn image_error(
    error: impl std::error::Error + Send + Sync + 'static,
) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(error)
}
