//! Ending containers and pods (kubernetes/kubernetes, `pkg/kubelet/kuberuntime/kuberuntime_container.go`,
//! `killContainer`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Next;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use runtime::{ContainerEvent, ContainerState, ContainerStatus, SandboxState};
use tokio::time::Instant;

use crate::error::NodeError;
use crate::eviction::Eviction;
use crate::plan::{grace_of, is_sidecar};
use crate::status::Ending;
use crate::worker::{Agent, RETRY, named_container, uid_of};

/// However long a hook took, the container is asked before it is killed.
const LEAST_GRACE: Duration = Duration::from_secs(2);

impl Agent {
    /// Hook, turn, signal, kill. `after` are the containers that end first, if they do so in time.
    pub(crate) async fn kill(
        &self,
        pod: &Pod,
        container: Option<&Container>,
        id: &str,
        message: &str,
        grace: u64,
        after: &[String],
    ) -> Result<(), NodeError> {
        let (begun, whole) = (Instant::now(), Duration::from_secs(grace));
        if let Some(container) = container {
            self.say(pod, container, "Killing", message);
            if grace > 0 {
                self.pre_stop(pod, container, id, whole).await;
            }
        }
        let left = || whole.saturating_sub(begun.elapsed());
        for other in after {
            let _ = tokio::time::timeout(left(), self.runtime.wait_container(other)).await;
        }
        let left = if grace == 0 { whole } else { left().max(LEAST_GRACE.min(whole)) };
        match self.runtime.stop_container(id, left).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Ends everything that runs in a pod: first what is not a sidecar, then these from the last to the first.
    pub(crate) async fn stop_all(&self, pod: &Pod, grace: u64) -> Result<(), NodeError> {
        let running: Vec<ContainerStatus> = self
            .runtime
            .containers(uid_of(pod))
            .into_iter()
            .filter(|c| !matches!(c.state, ContainerState::Exited(_)))
            .collect();
        let place = |name: &str| {
            let inits = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
            inits.filter(|c| is_sidecar(c)).position(|c| c.name == name)
        };
        let stops = running.iter().map(|run| {
            let own = place(&run.name);
            let earlier = running.iter().filter(|other| match (own, place(&other.name)) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(own), Some(other)) => other > own,
            });
            let after: Vec<String> = earlier.map(|c| c.id.clone()).collect();
            let message = format!("Stopping container {}", run.name);
            async move {
                let container = named_container(pod, &run.name);
                self.kill(pod, container.as_deref(), &run.id, &message, grace, &after).await
            }
        });
        // Each is ended, whatever becomes of the others.
        futures::future::join_all(stops).await.into_iter().collect()
    }

    /// A deleted pod: its containers end, its status says how, its things go, and then it does.
    pub(crate) async fn end(&self, pod: &Pod, grace: u64) -> Result<Next, NodeError> {
        let uid = uid_of(pod);
        self.probers.only_readiness(uid);
        self.stop_patiently(pod, grace).await;
        self.hear_last_words(pod, &self.runtime.containers(uid));
        // Before anybody learns that its devices are free.
        self.dra.unprepare(uid).await?;
        self.note(uid, |known| known.ending = Some(known.ending.take().unwrap_or_default()));
        self.write_status(pod).await?;
        if let Err(error) = self.tear_down(uid, 0).await {
            // Something of it lives on, or hangs: its name is not given away.
            tracing::warn!(pod = uid, %error, "a pod cannot be cleared away");
            self.recorder.warning(pod, "FailedKillPod", format!("error killing pod: {error}"));
            return Ok(Next::After(RETRY));
        }
        if self.pods.is_own(pod) {
            self.pods.ended(pod);
            self.endings.send_modify(|count| *count += 1);
            // Another may have waited for the name.
            self.queue.add(client::Key::of(pod));
            return Ok(Next::Done);
        }
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

    /// Ends everything in a pod within its grace period, which may become shorter meanwhile, and shows what ends.
    async fn stop_patiently(&self, pod: &Pod, mut grace: u64) {
        let uid = uid_of(pod);
        let mut events = self.runtime.events();
        'patience: loop {
            let stopping = self.stop_all(pod, grace);
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    stopped = &mut stopping => {
                        if let Err(error) = stopped {
                            self.recorder.warning(pod, "FailedKillPod", format!("error killing pod: {error}"));
                            tracing::warn!(pod = uid, %error, "a container does not end; its sandbox is killed");
                        }
                        break 'patience;
                    }
                    // Somebody has lost patience.
                    () = self.told_to_end(pod, grace), if grace > 0 => {
                        let now = self.pods.get(&client::Key::of(pod)).filter(|p| uid_of(p) == uid);
                        let given = now.and_then(|p| p.metadata.deletion_grace_period_seconds);
                        grace = given.map_or(0, |s| s.max(0) as u64);
                        continue 'patience;
                    }
                    // The runtime, and with it the sender, lives as long as `self`.
                    event = events.recv() => {
                        let ours = matches!(&event, Ok(ContainerEvent::Exited { sandbox_id, .. }) if sandbox_id == uid);
                        if ours && let Err(error) = self.write_status(pod).await {
                            tracing::debug!(pod = uid, %error, "cannot show how a pod ends");
                        }
                    }
                }
            }
        }
    }

    /// The pod has run for as long as it may.
    pub(crate) async fn expire(&self, pod: &Pod) -> Result<(), NodeError> {
        const WHY: &str = "Pod was active on the node longer than the specified deadline";
        self.recorder.normal(pod, "DeadlineExceeded", WHY);
        self.probers.only_readiness(uid_of(pod));
        self.stop_all(pod, pod.spec.as_ref().map_or(0, grace_of)).await?;
        self.note(uid_of(pod), |known| {
            known.ending = Some(Ending {
                failed: true,
                reason: Some("DeadlineExceeded".into()),
                message: Some(WHY.into()),
                disrupted: false,
            });
        });
        Ok(())
    }

    /// The node needs room.
    pub(crate) async fn evict(&self, pod: &Pod, eviction: &Eviction) -> Result<(), NodeError> {
        let uid = uid_of(pod);
        self.probers.only_readiness(uid);
        self.stop_all(pod, eviction.grace).await?;
        self.hear_last_words(pod, &self.runtime.containers(uid));
        self.note(uid, |known| {
            known.ending = Some(Ending {
                failed: true,
                reason: Some(eviction.reason.into()),
                message: Some(eviction.message.clone()),
                disrupted: true,
            });
        });
        self.endings.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Gives back what a pod that is over does not need any more. Its logs stay until it is deleted.
    pub(crate) async fn stop_sandbox(&self, pod: &Pod) -> Result<(), NodeError> {
        let uid = uid_of(pod);
        self.stop_all(pod, pod.spec.as_ref().map_or(0, grace_of)).await?;
        self.dra.unprepare(uid).await?;
        self.runtime.leave_network(uid).await?;
        match self.runtime.stop_sandbox(uid).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.volumes.tear_down(uid).await?;
        self.managers.release(uid);
        self.note(uid, |known| known.released = true);
        self.wake_deferred();
        self.endings.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Gives back the claims of pods that went while nobody looked, as soon as their drivers are there.
    pub(crate) fn free_orphans(&self) {
        for uid in self.dra.users() {
            let known = self.pods.list().iter().any(|pod| uid_of(pod) == uid);
            if known || self.runtime.sandbox(&uid).is_some() {
                continue;
            }
            self.dra.unprepare_patiently(uid);
        }
    }

    /// Removes everything of a pod.
    pub(crate) async fn tear_down(&self, uid: &str, grace: u64) -> Result<(), NodeError> {
        let sandbox = self.runtime.sandbox(uid);
        if sandbox.as_ref().is_some_and(|s| s.state == SandboxState::Ready) {
            let stops = self.runtime.containers(uid).into_iter().map(|c| async move {
                // Whatever does not end in time is killed with its sandbox.
                let _ = self.runtime.stop_container(&c.id, Duration::from_secs(grace)).await;
            });
            futures::future::join_all(stops).await;
        }
        self.probers.keep(uid, &[]);
        self.dra.unprepare(uid).await?;
        if sandbox.is_some() {
            self.runtime.remove_sandbox(uid).await?;
        }
        self.runtime.free_network(uid).await?;
        // Nobody can ask for the logs of a pod that is gone. They are found by its UID: the sandbox that knew of them may
        // have been lost, or removed by an agent that was killed then. The pod's folder, which goes last, brings us back.
        for logs in logs_of(&self.config.log_dir, uid) {
            remove(&logs)?;
        }
        if let Err(error) = self.images.release(uid) {
            tracing::warn!(pod = uid, %error, "cannot release the pod's images");
        }
        // What is mounted below the folder may be anybody's: it goes first, or nothing does.
        self.volumes.tear_down(uid).await?;
        remove(&self.pod_dir(uid))?;
        self.managers.release(uid);
        self.user_namespaces.release(uid);
        self.images.forget(uid);
        self.known.lock().remove(uid);
        self.meters.forget_pod(uid);
        self.evictions.lock().remove(uid);
        Ok(())
    }
}

/// The folders of a pod's logs, whose names end with its UID.
fn logs_of(folder: &Path, uid: &str) -> Vec<PathBuf> {
    let ending = format!("_{uid}");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_pod = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(&ending))
    };
    entries.map(|entry| entry.path()).filter(of_pod).collect()
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<(), NodeError> {
    match sys::remove_tree(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(NodeError::File { attempt: "remove", path: folder.display().to_string(), source })
        }
        _ => Ok(()),
    }
}
