//! Starting sandboxes and containers.

use std::path::PathBuf;
use std::time::Duration;

use image::Image;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerState, NetworkMode, PidMode, SandboxSpec, SandboxState, UserRange};
use tokio::time::Instant;

use crate::classes;
use crate::container::{self, Surroundings};
use crate::cri::{Asked, SandboxExtras};
use crate::engine::{Engine, EngineError};
use crate::env::{Env, Sources, of_services};
use crate::ephemeral;
use crate::error::NodeError;
use crate::handlers::Handler;
use crate::images::{Ask, Found};
use crate::keyring::Keyring;
use crate::names::{check_hostname, hostname};
use crate::plan::STREAK;
use crate::pod_limits;
use crate::ports::host_ports;
use crate::status::user_of;
use crate::userns;
use crate::worker::{Agent, KEY, host_network, uid_of};

/// A container that takes longer to start is told of.
const SLOW: Duration = Duration::from_secs(20);

impl Agent {
    pub(crate) async fn start_sandbox(&self, pod: &Pod) -> Result<(), NodeError> {
        let uid = uid_of(pod);
        // What a lost sandbox left is cleared away first.
        if self.runtime.sandbox(uid).is_some() {
            self.runtime.remove_sandbox(uid).await?;
        }
        self.dra.prepare(pod).await?;
        if let Some(entry) = self.pods.entry(pod) {
            crate::static_pods::notes::write(&self.pod_dir(uid), &entry)?;
        }
        let handler = self.handler(pod).await?;
        let users = match userns::wanted(pod) {
            true => {
                handler.check_users()?;
                Some(self.user_namespaces.of(uid)?)
            }
            false => None,
        };
        let sandbox = self.sandbox_spec(pod, &handler, users)?;
        let made = self.runtime.run_sandbox(sandbox, || SandboxExtras::of(pod, handler.name()));
        let made = self.meters.operation("run_podsandbox", made).await?;
        self.meters.note(|counted| counted.started_pods += 1);
        if let Some(netns) = made.netns
            && let Err(error) = self.join_network(pod, &netns).await
        {
            // A sandbox without a network is none.
            self.runtime.remove_sandbox(uid).await?;
            self.runtime.free_network(uid).await?;
            return Err(error);
        }
        Ok(())
    }

    /// A pod's sandbox as it is to be.
    fn sandbox_spec(
        &self,
        pod: &Pod,
        handler: &Handler,
        users: Option<UserRange>,
    ) -> Result<SandboxSpec, NodeError> {
        let uid = uid_of(pod);
        let empty = k8s_openapi::api::core::v1::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let hostname = hostname(pod, &self.config.cluster_domain);
        check_hostname(&hostname)?;
        let meta = &pod.metadata;
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let parent = classes::folder(pod).map_or(String::new(), |folder| format!("{folder}/"));
        Ok(SandboxSpec {
            id: uid.to_owned(),
            name: name.clone(),
            hostname,
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
            resources: runtime::Resources {
                pids_limit: self.config.kubelet.reservations.pod_pids(),
                ..self.config.kubelet.containers.enforced(pod_limits::of(pod))
            },
            log_dir: Some(self.log_dir(pod)),
            users,
            oci_runtime: handler.program().map(Into::into),
            ..SandboxSpec::default()
        })
    }

    async fn join_network(&self, pod: &Pod, netns: &std::path::Path) -> Result<(), NodeError> {
        let Engine::BuiltIn(own) = &self.runtime else { return Ok(()) };
        own.network.attach(uid_of(pod), netns).await?;
        let ports = host_ports(pod);
        if !ports.is_empty() {
            own.network.publish(uid_of(pod), &ports).await?;
        }
        self.note(uid_of(pod), |known| known.joined = true);
        Ok(())
    }

    /// Joins a sandbox once more that an earlier agent has made: it may have been killed when it had given the address
    /// and not yet the interface, or have given that to a sandbox that was lost.
    pub(crate) async fn rejoin_network(&self, pod: &Pod) -> Result<(), NodeError> {
        if host_network(pod) || self.known(pod).joined || self.pod_ip(pod).is_none() {
            return Ok(());
        }
        let ours = self.runtime.sandbox(uid_of(pod)).filter(|sandbox| sandbox.state == SandboxState::Ready);
        match ours.and_then(|sandbox| sandbox.netns) {
            Some(netns) => self.join_network(pod, &netns).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn start_container(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
        streak: u32,
    ) -> Result<(), NodeError> {
        let uid = uid_of(pod).to_owned();
        let name = &container.name;
        let image_name = container.image.clone().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        // What waits for its volumes pulls nothing, and says nothing of images.
        let ready = self.volumes.set_up(pod).await?;
        let found = self.get_image(pod, container, &image_name, policy).await?;
        let layers = self.layers(&uid, &found.image, &image_name).await?;
        let images = self.image_volumes(pod, container).await?;
        let ip = self.pod_ip(pod).unwrap_or_default();
        let log_path = self.log_dir(pod).join(&container.name).join(format!("{attempt}.log"));
        let mut files = self.name_files(pod, &ip)?;
        files.extend(self.words_mount(&uid, container, attempt)?);
        let profiles = self.config.data_dir.join("seccomp");
        let around = Surroundings {
            env: Sources {
                client: &self.client,
                pod,
                pod_ip: &ip,
                host_ip: &self.config.ip.to_string(),
                allocatable: &self.managers.room.allocatable.into(),
                services: self.service_env(pod),
                places: &ready.places,
            },
            volumes: &self.volumes,
            places: &ready.places,
            images,
            settings: &self.config.kubelet.containers,
            seccomp: profiles.clone(),
            image_by_runtime: matches!(self.runtime, Engine::Cri(_)),
            hostname: hostname(pod, &self.config.cluster_domain),
            layers,
            log_path,
            files,
        };
        let target = ephemeral::target(pod, name, &self.runtime.containers(&uid))?;
        let mut spec = container::spec(pod, container, attempt, &found.image, around).await?;
        spec.labels.insert(STREAK.to_owned(), streak.to_string());
        spec.pid_of = target;
        let mut edits = self.managers.edits(pod, container).await?;
        edits.extend(self.dra.edits(pod, container)?);
        let hooked = std::mem::take(&mut edits.hooked);
        edits.apply(&mut spec);
        let started = async {
            match &self.runtime {
                Engine::BuiltIn(own) => {
                    Ok(own.runtime.start_container(&uid, spec).await.map_err(EngineError::from)?)
                }
                Engine::Cri(cri) => {
                    let sandbox = self.sandbox_spec(pod, &Handler::BuiltIn, None)?;
                    let (image, profiles) = (found.image.id.to_string(), profiles.as_path());
                    Ok(cri
                        .start_container(Asked { pod, container, sandbox, spec, image, profiles, hooked })
                        .await?)
                }
            }
        };
        let started = self.meters.operation("start_container", started);
        tokio::pin!(started);
        let started: Result<_, NodeError> = match tokio::time::timeout(SLOW, &mut started).await {
            Ok(started) => started,
            Err(_) => {
                let what = format!(
                    "Error: container {name} has not started for {} s; a file system that it mounts may hang",
                    SLOW.as_secs()
                );
                self.warn(pod, container, "Failed", what);
                started.await
            }
        };
        self.count_start(pod, name, started.is_ok());
        let run = match started {
            Ok(run) => run,
            Err(error) => {
                if error.is_unstarted() {
                    self.note_unstarted(pod, container, &uid).await;
                }
                return Err(error);
            }
        };
        // Whoever shares CPUs may share fewer since.
        self.managers.cpus_changed.notify_one();
        let users = userns::wanted(pod).then(|| self.user_namespaces.of(&uid)).transpose()?;
        let began_as = match run.state {
            ContainerState::Running { pid, .. } => user_of(pid, users),
            _ => None,
        };
        self.say(pod, container, "Created", format!("Container created: {name}"));
        self.say(pod, container, "Started", format!("Container started: {name}"));
        self.note(&uid, |known| {
            known.waiting.remove(name);
            began_as.into_iter().for_each(|user| drop(known.users.insert(run.id.clone(), user)));
            let resources = container.resources.clone().unwrap_or_default();
            known.sizes.running.insert(run.id.clone(), resources);
            let digest = found.image.digests.first().cloned();
            known.image_ids.insert(name.clone(), digest.unwrap_or_else(|| found.image.id.to_string()));
        });
        self.prune(&uid, name, &run.id).await;
        self.post_start(pod, container, &run.id, &ip).await
    }

    /// An image, pulled if need be, and said in events about the container.
    pub(crate) async fn get_image(
        &self,
        pod: &Pod,
        container: &Container,
        image_name: &str,
        policy: &str,
    ) -> Result<Found, NodeError> {
        let pulling = || self.say(pod, container, "Pulling", format!("Pulling image {image_name:?}"));
        let keys = || async {
            let (ring, missing) = Keyring::of(&self.client, pod).await;
            if !missing.is_empty() {
                let names = missing.join(", ");
                let why = format!(
                    "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
                );
                self.recorder.warning(pod, "FailedToRetrieveImagePullSecret", why);
            }
            ring
        };
        let begun = Instant::now();
        let found =
            self.images.get(Ask { uid: uid_of(pod), name: image_name, policy }, keys, pulling).await?;
        if found.pulled {
            self.meters.pulled(begun.elapsed());
        }
        let said = if found.pulled {
            format!("Successfully pulled image {image_name:?}")
        } else {
            format!("Container image {image_name:?} already present on machine")
        };
        self.say(pod, container, "Pulled", said);
        Ok(found)
    }

    /// The unpacked layers of an image, which stay as long as the pod does.
    pub(crate) async fn layers(
        &self,
        uid: &str,
        image: &Image,
        image_name: &str,
    ) -> Result<Vec<PathBuf>, NodeError> {
        self.images.layers(image, uid).await.map_err(|why| NodeError::Image {
            reason: "ErrImagePull",
            message: format!("failed to unpack image {image_name:?}: {why}"),
        })
    }

    /// A container that could not be started is one that has ended, of which the last is kept as of any other.
    async fn note_unstarted(&self, pod: &Pod, container: &Container, uid: &str) {
        self.say(pod, container, "Created", format!("Container created: {}", container.name));
        self.note(uid, |known| drop(known.waiting.remove(&container.name)));
        if let Some(run) = crate::plan::latest(&self.runtime.containers(uid), &container.name) {
            self.prune(uid, &container.name, &run.id).await;
        }
    }

    fn count_start(&self, pod: &Pod, name: &str, good: bool) {
        let mut inits = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
        let kind = if inits.any(|c| c.name == name) { "init_container" } else { "container" }.to_owned();
        self.meters.note(|counted| match good {
            true => *counted.started_containers.entry([kind]).or_default() += 1,
            false => {
                let code = "CreateContainerError".to_owned();
                *counted.failed_containers.entry([kind, code]).or_default() += 1;
            }
        });
    }

    /// The Services of the pod's namespace, if it wants to know them, and always the API's own.
    fn service_env(&self, pod: &Pod) -> Env {
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
        let mut services: Vec<_> = self
            .services
            .store()
            .list()
            .into_iter()
            .filter(|s| {
                let (namespace, name) = (s.metadata.namespace.as_deref(), s.metadata.name.as_deref());
                (namespace, name) == (Some("default"), Some("kubernetes"))
                    || (links && namespace == pod.metadata.namespace.as_deref())
            })
            .collect();
        services.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        of_services(services.iter().map(|s| &**s))
    }

    /// Clears away the runs before the last one; the last one's log can still be read
    /// (`pkg/kubelet/kuberuntime/kuberuntime_gc.go`).
    async fn prune(&self, uid: &str, name: &str, current: &str) {
        let mut old: Vec<_> = self
            .runtime
            .containers(uid)
            .into_iter()
            .filter(|c| c.name == name && c.id != current && matches!(c.state, ContainerState::Exited(_)))
            .collect();
        old.sort_by_key(|c| c.attempt);
        old.pop();
        for run in old {
            if let Err(error) = self.runtime.remove_container(&run.id).await {
                tracing::warn!(container = run.id, %error, "cannot clear an ended container away");
                continue;
            }
            if let Some(log) = &run.log_path {
                remove_log(log);
            }
            self.note(uid, |known| {
                known.replaced.remove(&run.id);
                known.last_words.remove(&run.id);
                known.users.remove(&run.id);
            });
        }
    }
}

/// Removes a log and what was rotated out of it.
fn remove_log(log: &std::path::Path) {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else { return };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|n| n == name || n.starts_with(&format!("{name}."))) {
            // A log that stays does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
