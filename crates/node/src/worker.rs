//! Doing what [`plan`](crate::plan::plan) says, one pod at a time, and writing what came of it.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::Clock;
use client::{Informer, Key, Next, Queue, Recorder};
use k8s_openapi::api::core::v1::{Container, Node, Pod, Service};
use kube::Client;
use parking_lot::Mutex;
use runtime::{ContainerState, SandboxSpec, SandboxState};
use tokio::sync::{Notify, watch};
use volumes::Volumes;

use crate::admit::{Refusal, Taken};
use crate::config::NodeConfig;
use crate::dra::Dra;
use crate::engine::Engine;
use crate::ephemeral;
use crate::error::NodeError;
use crate::eviction::{Eviction, Pressure};
use crate::images::Images;
use crate::managers::Managers;
use crate::meters::Meters;
use crate::plan::{Action, Plan, View, is_over, plan};
use crate::probe::{Health, Probers, Run, Target, Tell};
use crate::security;
use crate::shutdown::{self, Shutdown};
use crate::static_pods::Pods;
use crate::stats::Stats;
use crate::status::{Ending, Known, Scheme, full_name};
use crate::userns::UserNamespaces;

/// The labels that lead from a sandbox back to its pod.
pub(crate) const KEY: &str = "io.kubernetes.pod.key";

/// A pod that could not go on is looked at again after so long.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

/// One node's agent. What it does is spread over `start.rs`, `stop.rs` and `report.rs`.
pub(crate) struct Agent {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) runtime: Engine,
    pub(crate) images: Images,
    pub(crate) user_namespaces: UserNamespaces,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) pods: Pods,
    /// Whether all is known that the API has said so far; until then only the node's own pods are looked at.
    pub(crate) synced: AtomicBool,
    pub(crate) shutdown: Arc<Shutdown>,
    pub(crate) services: Informer<Service>,
    /// Its own node's object.
    pub(crate) node: Informer<Node>,
    pub(crate) taken: Taken,
    pub(crate) managers: Arc<Managers>,
    pub(crate) volumes: Volumes,
    pub(crate) dra: Dra,
    pub(crate) queue: Queue,
    /// Counts news of pods that are to end, so that whoever is busy with one hears of it.
    pub(crate) endings: watch::Sender<u64>,
    pub(crate) probers: Probers,
    pub(crate) stats: Stats,
    pub(crate) meters: Arc<Meters>,
    /// What the node is short of.
    pub(crate) pressures: watch::Sender<BTreeSet<Pressure>>,
    /// Pods that must go, by UID.
    pub(crate) evictions: Mutex<HashMap<String, Eviction>>,
    /// Why containers wait and what they run, by pod UID: for the status only, made anew after a restart.
    pub(crate) known: Mutex<HashMap<String, Known>>,
    /// A pod has been looked at, which may be new, changed or gone.
    pub(crate) looked: Notify,
}

pub(crate) fn uid_of(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether no agent has said anything of it yet.
fn is_new(pod: &Pod) -> bool {
    pod.status.as_ref().is_none_or(|status| status.start_time.is_none())
}

/// A container of any sort.
pub(crate) fn named_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let spec = pod.spec.as_ref()?;
    let found = spec.init_containers.iter().flatten().chain(&spec.containers).find(|c| c.name == name);
    let other = || ephemeral::find(pod, name).map(|c| Cow::Owned(ephemeral::as_container(c)));
    found.map(Cow::Borrowed).or_else(other)
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

impl Agent {
    pub(crate) fn key_of(&self, sandbox: &str) -> Option<Key> {
        let Some(found) = self.runtime.sandbox(sandbox) else {
            // Somebody else has removed it.
            return self.pods.list().iter().find(|pod| uid_of(pod) == sandbox).map(|pod| Key::of(&**pod));
        };
        let (namespace, name) = found.spec.labels.get(KEY)?.split_once('/')?;
        Some(Key::new(namespace, name))
    }

    pub(crate) fn all_keys(&self) -> Vec<Key> {
        let own = self.pods.list().into_iter().map(|pod| Key::of(&*pod));
        self.runtime.sandboxes().iter().filter_map(|s| self.key_of(&s.spec.id)).chain(own).collect()
    }

    /// Takes away what pods left that went while no agent looked, and that have no sandbox to be found by.
    pub(crate) async fn clear_orphans(&self) {
        self.pods.ready().await;
        self.release_ended();
        self.free_orphans();
        loop {
            let Ok(entries) = std::fs::read_dir(self.config.data_dir.join("pods")) else { return };
            let mut failed = false;
            for uid in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
                let known = self.pods.list().iter().any(|pod| uid_of(pod) == uid);
                if known || self.runtime.sandbox(&uid).is_some() {
                    continue;
                }
                if let Err(error) = self.tear_down(&uid, 0).await {
                    tracing::warn!(pod = uid, %error, "cannot clear away what a pod left");
                    failed = true;
                }
            }
            if !failed {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One look at one pod.
    pub(crate) async fn look(&self, key: Key) -> Result<Next, NodeError> {
        let pod = self.pods.get(&key);
        if !self.synced.load(Ordering::Acquire) && !pod.as_deref().is_some_and(|pod| self.pods.is_own(pod)) {
            return Ok(Next::Done);
        }
        let uid = pod.as_deref().map(uid_of).unwrap_or_default().to_owned();
        let former = |spec: &SandboxSpec| {
            spec.labels.get(KEY).map(String::as_str) == Some(key.as_str()) && spec.id != uid
        };
        for sandbox in self.runtime.sandboxes_where(former) {
            self.tear_down(&sandbox.spec.id, 0).await?;
        }
        let Some(pod) = pod else {
            self.wake_deferred();
            self.looked.notify_one();
            return Ok(Next::Done);
        };
        let pod = self.allocate(pod);
        self.looked.notify_one();
        self.observe(&pod).await;
        if pod.metadata.deletion_timestamp.is_none() && !is_over(&pod) {
            let eviction = self.evictions.lock().get(&uid).cloned();
            if let Some(eviction) = eviction {
                self.evict(&pod, &eviction).await?;
            }
            // What has failed as a whole does not begin anew, even if the API's word of it takes a while to come back.
            if self.known(&pod).ending.is_some_and(|ending| ending.failed) {
                self.write_status(&pod).await?;
                return Ok(Next::Done);
            }
            self.rejoin_network(&pod).await?;
        }
        let plan = self.plan(&pod).await;
        for container in plan.held_back.iter().filter_map(|name| named_container(&pod, name)) {
            let what =
                format!("Back-off restarting failed container {} in pod {}", container.name, full_name(&pod));
            self.warn(&pod, &container, "BackOff", what);
        }
        let (restarts, wait) = self.resize(&pod).await;
        let mut again = plan.again.into_iter().chain(wait).min();
        let kills = |action: &Action| matches!(action, Action::Kill { .. });
        if plan.actions.iter().chain(&restarts).any(kills) {
            // They may take their time to end, which is shown while what else has ended is not waited for.
            self.write_status(&pod).await?;
        }
        for action in plan.actions.iter().chain(&restarts) {
            if let Action::Terminate { grace } = action {
                return self.end(&pod, *grace).await;
            }
            let done = tokio::select! {
                biased;
                // What is under way is of no use any more; the change itself has queued the next look.
                () = self.told_to_end(&pod, u64::MAX) => return Ok(Next::Done),
                done = self.act(&pod, action) => done,
            };
            if self.known(&pod).ending.is_some_and(|ending| ending.failed) {
                break;
            }
            if let Err(error) = done {
                self.note_failure(&pod, action, &error);
                again = Some(again.map_or(RETRY, |wait| wait.min(RETRY)));
                // The other containers do not depend on one that cannot be started; on the pod's volumes they all do.
                if !matches!(action, Action::Start { .. }) || error.is_mount() {
                    break;
                }
            }
        }
        if let Some(wait) = self.refresh_volumes(&pod).await {
            again = Some(again.map_or(wait, |other| other.min(wait)));
        }
        self.observe(&pod).await;
        self.write_status(&pod).await?;
        Ok(again.map_or(Next::Done, Next::After))
    }

    /// Volumes follow their sources while something runs; gives when they are to be looked at again.
    async fn refresh_volumes(&self, pod: &Pod) -> Option<Duration> {
        let live = |c: &runtime::ContainerStatus| !matches!(c.state, ContainerState::Exited(_));
        if !self.runtime.containers(uid_of(pod)).iter().any(live) {
            return None;
        }
        let ready = tokio::select! {
            biased;
            () = self.told_to_end(pod, u64::MAX) => return None,
            ready = self.volumes.set_up(pod) => ready,
        };
        match ready {
            Ok(ready) => ready.again,
            Err(error) => {
                // What was there stays.
                self.recorder.warning(pod, "FailedMount", error.to_string());
                Some(Duration::from_secs(60))
            }
        }
    }

    /// Whether a pod is taken; one that was taken once is not asked again.
    async fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        if !is_new(pod) {
            return Ok(());
        }
        if self.shutdown.is_under_way() {
            let (reason, message) = (shutdown::REFUSED.to_owned(), shutdown::REFUSED_MESSAGE.to_owned());
            return Err(Refusal { reason, message });
        }
        if let Some(message) = self.refusal(pod) {
            return Err(Refusal { reason: "Evicted".to_owned(), message });
        }
        let sysctl = security::refused_sysctl(pod, &self.config.kubelet.allowed_unsafe_sysctls);
        let by_runtime = match &self.runtime {
            Engine::BuiltIn(_) => {
                let (enabled, default) = (runtime::has_apparmor(), runtime::has_default_apparmor_profile());
                security::refused_apparmor(pod, enabled, default)
            }
            Engine::Cri(cri) => cri.refused(pod),
        };
        if let Some(why) = sysctl.or(by_runtime) {
            return Err(why);
        }
        // Who has ended since has nothing any more, even if nobody has cleared up after him yet.
        self.release_ended();
        self.managers.admit(pod).await?;
        let Some(node) = self.node.get(&Key::new("", &self.config.name)) else { return Ok(()) };
        let pods = self.pods.list();
        pods.iter().filter(|other| !is_new(other)).for_each(|other| self.taken.note(other));
        let node = self.managers.with_devices(&node);
        let admitted = match self.taken.take(pod, &pods, &node) {
            Ok(()) => Ok(()),
            Err(denied) => self.preempt(pod, &pods, &node, denied).await,
        };
        if admitted.is_err() {
            self.managers.release(uid_of(pod));
        }
        admitted
    }

    /// A pod is not taken (`pkg/kubelet/kubelet.go`, `rejectPod`).
    fn refuse(&self, pod: &Pod, why: Refusal) {
        let Refusal { reason, message } = why;
        self.recorder.warning(pod, &reason, &message);
        let ending = Ending {
            failed: true,
            reason: Some(reason),
            message: Some(format!("Pod was rejected: {message}")),
            disrupted: false,
        };
        self.note(uid_of(pod), |known| known.ending = Some(ending));
    }

    async fn plan(&self, pod: &Pod) -> Plan {
        let sandbox = self.is_sandbox_ready(pod).await;
        let (containers, known) = (self.runtime.containers(uid_of(pod)), self.known(pod));
        let healths = self.probers.healths(uid_of(pod));
        let (replaced, now, held) = (&known.replaced, self.clock.now(), !known.released);
        let longest = self.config.kubelet.containers.max_restart_period;
        plan(pod, &View { sandbox, held, containers: &containers, healths: &healths, replaced, now, longest })
    }

    /// Whether there is a sandbox, and it has its place in the network.
    pub(crate) async fn is_sandbox_ready(&self, pod: &Pod) -> bool {
        let sandbox = self.runtime.sandbox(uid_of(pod));
        sandbox.is_some_and(|s| s.state == SandboxState::Ready) && self.pod_ip(pod).is_some()
    }

    pub(crate) fn known(&self, pod: &Pod) -> Known {
        self.known.lock().entry(uid_of(pod).to_owned()).or_insert_with(|| self.nothing_known()).clone()
    }

    /// Changes what is known of a pod.
    pub(crate) fn note(&self, uid: &str, change: impl FnOnce(&mut Known)) {
        change(self.known.lock().entry(uid.to_owned()).or_insert_with(|| self.nothing_known()));
    }

    /// What is known of a pod that was never looked at.
    pub(crate) fn nothing_known(&self) -> Known {
        let recursive = !matches!(&self.runtime, Engine::Cri(cri) if !cri.recursive_read_only());
        Known {
            scheme: Scheme::new(self.runtime.scheme()),
            no_recursive_read_only: !recursive,
            ..Known::default()
        }
    }

    async fn act(&self, pod: &Pod, action: &Action) -> Result<(), NodeError> {
        match action {
            Action::StartSandbox => match self.admit(pod).await {
                Err(why) => {
                    self.refuse(pod, why);
                    Ok(())
                }
                Ok(()) => self.start_sandbox(pod).await,
            },
            Action::Start { container, attempt, streak } => match named_container(pod, container) {
                Some(found) => self.start_container(pod, &found, *attempt, *streak).await,
                None => Ok(()),
            },
            Action::Kill { id, container, message, grace } => {
                self.note(uid_of(pod), |known| {
                    known.replaced.insert(id.clone());
                });
                self.kill(pod, named_container(pod, container).as_deref(), id, message, *grace, &[]).await
            }
            Action::RestartAll { container } => self.restart_all(pod, container).await,
            Action::Expire => self.expire(pod).await,
            Action::StopSandbox => self.stop_sandbox(pod).await,
            Action::Terminate { .. } => Ok(()),
        }
    }

    /// Resolves when the pod is gone, or must be so within fewer than `grace` seconds.
    pub(crate) async fn told_to_end(&self, pod: &Pod, grace: u64) {
        let mut news = self.endings.subscribe();
        let key = Key::of(pod);
        loop {
            match self.pods.get(&key) {
                Some(now) if uid_of(&now) == uid_of(pod) => {
                    let left = now.metadata.deletion_grace_period_seconds.unwrap_or(30).max(0) as u64;
                    if now.metadata.deletion_timestamp.is_some() && left < grace {
                        return;
                    }
                    let evicted = self.evictions.lock().get(uid_of(pod)).map(|e| e.grace);
                    if grace == u64::MAX && evicted.is_some() && self.known(pod).ending.is_none() {
                        return;
                    }
                }
                _ => return,
            }
            // The sender lives as long as `self`.
            let _ = news.changed().await;
        }
    }

    /// Begins to probe what runs, stops probing what does not, and hears what it said last.
    async fn observe(&self, pod: &Pod) {
        let uid = uid_of(pod);
        let (containers, known) = (self.runtime.containers(uid), self.known(pod));
        self.hear_last_words(pod, &containers);
        let mut running = Vec::new();
        let ip = self.pod_ip(pod);
        for run in &containers {
            let ContainerState::Running { started_at, .. } = run.state else { continue };
            running.push(run.id.as_str());
            let (Some(container), Some(ip)) = (named_container(pod, &run.name), ip.clone()) else {
                continue;
            };
            let target = Target {
                runtime: self.runtime.clone(),
                id: run.id.clone(),
                container: container.clone().into_owned(),
                pod_ip: ip,
            };
            let (tell, wake) = (self.tell(pod, &container), self.wake(pod));
            let run = Run {
                uid: uid.to_owned(),
                target,
                started_at,
                before: before(pod, &known.scheme.of(&run.id)),
            };
            self.probers.begin(run, &*self.clock, &tell, &wake);
        }
        self.probers.keep(uid, &running);
    }

    fn wake(&self, pod: &Pod) -> Arc<dyn Fn() + Send + Sync> {
        let (queue, key) = (self.queue.clone(), Key::of(pod));
        Arc::new(move || queue.add(key.clone()))
    }

    fn tell(&self, pod: &Pod, container: &Container) -> Tell {
        let (recorder, about) = (self.recorder.clone(), crate::report::about(pod, container));
        let (meters, uid) = (self.meters.clone(), uid_of(pod).to_owned());
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let key = [container.name.clone(), name(&pod.metadata.name), name(&pod.metadata.namespace)];
        Arc::new(move |kind, outcome| {
            let [container, pod, namespace] = key.clone();
            let labels = [kind.title().to_owned(), outcome.label().to_owned(), container, pod, namespace];
            meters.note(|counted| {
                *counted.probes.entry(uid.clone()).or_default().entry(labels).or_default() += 1;
            });
            crate::report::tell_probe(&recorder, &about, kind, outcome);
        })
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    pub(crate) fn log_dir(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        self.config.log_dir.join(format!(
            "{}_{}_{}",
            text(&meta.namespace),
            text(&meta.name),
            text(&meta.uid)
        ))
    }

    pub(crate) fn pod_ip(&self, pod: &Pod) -> Option<String> {
        if host_network(pod) {
            return Some(self.config.ip.to_string());
        }
        let uid = uid_of(pod);
        self.runtime.pod_ip(uid)
    }
}

/// What the API says of this very run: an agent that starts again must not take a ready container for one that is
/// not.
fn before(pod: &Pod, id: &str) -> Health {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses));
    match all.flatten().find(|c| c.container_id.as_deref() == Some(id)) {
        Some(found) => {
            Health { started: found.started.filter(|s| *s), live: None, ready: found.ready.then_some(true) }
        }
        None => Health::default(),
    }
}
