//! Doing what [`plan`](crate::plan::plan) says, one pod at a time, and writing what came of it.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Drain};
use client::{Controller, Informer, Informers, Key, Next, Queue, Recorder, Selection};
use image::ImageStore;
use k8s_openapi::api::core::v1::{Container, Node, Pod, Service};
use kube::Client;
use network::Network;
use parking_lot::Mutex;
use runtime::{ContainerEvent, ContainerState, Runtime, SandboxState};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;
use volumes::Volumes;

use crate::admit::{Refusal, Taken};
use crate::config::NodeConfig;
use crate::ephemeral;
use crate::error::NodeError;
use crate::eviction::{self, Eviction, Pressure};
use crate::images::Images;
use crate::meters::Meters;
use crate::plan::{Action, Plan, View, is_over, plan};
use crate::probe::{Health, Probers, Run, Target, Tell};
use crate::register;
use crate::security;
use crate::server::Server;
use crate::stats::Stats;
use crate::status::{Ending, Known, SCHEME};
use crate::userns::UserNamespaces;

/// The labels that lead from a sandbox back to its pod.
pub(crate) const KEY: &str = "io.kubernetes.pod.key";

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
    let thresholds = config.kubelet.thresholds()?;
    register::register(&client, &config, &*clock).await?;
    let pressures = watch::Sender::new(BTreeSet::new());
    let told = pressures.subscribe();
    drain.spawn(register::heartbeat(client.clone(), config.clone(), told, clock.clone(), drain.clone()));
    let informers = Informers::new(client.clone(), drain.clone());
    let pods: Informer<Pod> = informers.select(Selection::fields(format!("spec.nodeName={}", config.name)));
    let services = informers.of::<Service>();
    let controller = Controller::new("node").workers(WORKERS).watches(&pods, |pod: &Pod| [Key::of(pod)]);
    let node = informers.select::<Node>(Selection::fields(format!("metadata.name={}", config.name)));
    let controller = controller.after(&services).after(&node);
    let queue = controller.queue();
    let wake = queue.clone();
    let recorder = Recorder::start(client.clone(), "kubelet", &config.name, clock.clone(), &drain);
    let volumes = Volumes::new(volumes::Options {
        client: client.clone(),
        pods: config.data_dir.join("pods"),
        data: config.data_dir.join("volumes"),
        node: config.name.clone(),
        recorder: recorder.clone(),
        allocatable: config.allocatable(),
        clock: clock.clone(),
        drain: drain.clone(),
        wake: Arc::new(move |key| wake.add(key.clone())),
    });
    volumes.follow(&informers, &drain);
    let endings = watch::Sender::new(0);
    let ended = endings.clone();
    pods.on_change(move |change| {
        let gone = matches!(change, client::Change::Deleted(_));
        if gone || change.object().metadata.deletion_timestamp.is_some() {
            ended.send_modify(|count| *count += 1);
        }
    });
    let stats = Stats::new(runtime.clone(), network.clone(), clock.clone());
    let agent = Arc::new(Agent {
        stats,
        meters: Arc::default(),
        pressures: pressures.clone(),
        evictions: Mutex::default(),
        client,
        runtime: runtime.clone(),
        images: Images::new(images, &config.kubelet, &config.data_dir),
        user_namespaces: UserNamespaces::open(config.data_dir.join("pods")),
        config,
        network,
        clock,
        recorder,
        pods,
        services,
        node,
        taken: Taken::default(),
        volumes,
        queue: queue.clone(),
        endings,
        probers: Probers::default(),
        known: Mutex::default(),
    });
    let server = Server {
        node: agent.config.name.clone(),
        client: agent.client.clone(),
        pods: agent.pods.clone(),
        runtime: runtime.clone(),
        clock: agent.clock.clone(),
        drain: drain.clone(),
        stats: agent.stats.clone(),
        meters: agent.meters.clone(),
        data_dir: agent.config.data_dir.clone(),
        began: agent.clock.now(),
        settings: Arc::new(agent.config.kubelet.shown()),
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
    drain.spawn_until_started(eviction::watch(agent.clone(), thresholds));
    let cleaner = agent.clone();
    drain.spawn_until_started(async move { cleaner.clear_orphans().await });
    let until = drain.clone();
    drain.spawn(controller.run(until, move |key| {
        let agent = agent.clone();
        async move {
            let begun = Instant::now();
            let next = agent.look(key).await;
            agent.meters.looked(begun.elapsed());
            next
        }
    }));
    Ok(())
}

/// One node's agent. What it does is spread over `start.rs`, `stop.rs` and `report.rs`.
pub(crate) struct Agent {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) images: Images,
    pub(crate) user_namespaces: UserNamespaces,
    pub(crate) network: Network,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) pods: Informer<Pod>,
    pub(crate) services: Informer<Service>,
    /// Its own node's object.
    node: Informer<Node>,
    pub(crate) taken: Taken,
    pub(crate) volumes: Volumes,
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
    fn key_of(&self, sandbox: &str) -> Option<Key> {
        let found = self.runtime.sandboxes().into_iter().find(|s| s.spec.id == sandbox)?;
        let (namespace, name) = found.spec.labels.get(KEY)?.split_once('/')?;
        Some(Key::new(namespace, name))
    }

    fn all_keys(&self) -> Vec<Key> {
        self.runtime.sandboxes().iter().filter_map(|s| self.key_of(&s.spec.id)).collect()
    }

    /// Takes away what pods left that went while no agent looked, and that have no sandbox to be found by.
    async fn clear_orphans(&self) {
        self.pods.ready().await;
        let Ok(entries) = std::fs::read_dir(self.config.data_dir.join("pods")) else { return };
        for uid in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
            let known = self.pods.store().list().iter().any(|pod| uid_of(pod) == uid);
            if known || self.runtime.sandboxes().iter().any(|s| s.spec.id == uid) {
                continue;
            }
            if let Err(error) = self.tear_down(&uid, 0).await {
                tracing::warn!(pod = uid, %error, "cannot clear away what a pod left");
            }
        }
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
        let Some(pod) = pod else {
            self.wake_deferred();
            return Ok(Next::Done);
        };
        let pod = self.allocate(pod);
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
        }
        let plan = self.plan(&pod).await;
        let (restarts, wait) = self.resize(&pod).await;
        let mut again = plan.again.into_iter().chain(wait).min();
        if !restarts.is_empty() {
            // They may take their time to end.
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
                // The others do not depend on these.
                if !matches!(action, Action::Start { container, .. } if ephemeral::find(&pod, container).is_some())
                {
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
        match self.volumes.set_up(pod).await {
            Ok(ready) => ready.again,
            Err(error) => {
                // What was there stays.
                self.recorder.warning(pod, "FailedMount", error.to_string());
                Some(Duration::from_secs(60))
            }
        }
    }

    /// Whether a pod is taken; one that was taken once is not asked again.
    fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        if !is_new(pod) {
            return Ok(());
        }
        if let Some(message) = self.refusal(pod) {
            return Err(Refusal { reason: "Evicted".to_owned(), message });
        }
        let sysctl = security::refused_sysctl(pod, &self.config.kubelet.allowed_unsafe_sysctls);
        if let Some(why) = sysctl.or_else(|| security::refused_apparmor(pod, security::has_apparmor())) {
            return Err(why);
        }
        let Some(node) = self.node.get(&Key::new("", &self.config.name)) else { return Ok(()) };
        let pods = self.pods.store().list();
        pods.iter().filter(|other| !is_new(other)).for_each(|other| self.taken.note(other));
        self.taken.admit(pod, &pods, &node)
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
        let (replaced, now) = (&known.replaced, self.clock.now());
        plan(pod, &View { sandbox, containers: &containers, healths: &healths, replaced, now })
    }

    /// Whether there is a sandbox, and it has its place in the network.
    pub(crate) async fn is_sandbox_ready(&self, pod: &Pod) -> bool {
        let ready = |s: &runtime::SandboxStatus| s.spec.id == uid_of(pod) && s.state == SandboxState::Ready;
        self.runtime.sandboxes().iter().any(ready) && self.pod_ip(pod).await.is_some()
    }

    pub(crate) fn known(&self, pod: &Pod) -> Known {
        self.known.lock().entry(uid_of(pod).to_owned()).or_default().clone()
    }

    /// Changes what is known of a pod.
    pub(crate) fn note(&self, uid: &str, change: impl FnOnce(&mut Known)) {
        change(self.known.lock().entry(uid.to_owned()).or_default());
    }

    async fn act(&self, pod: &Pod, action: &Action) -> Result<(), NodeError> {
        match action {
            Action::StartSandbox => match self.admit(pod) {
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
        let containers = self.runtime.containers(uid);
        self.hear_last_words(pod, &containers);
        let mut running = Vec::new();
        let ip = self.pod_ip(pod).await;
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
            let run = Run { uid: uid.to_owned(), target, started_at, before: before(pod, &run.id) };
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

    pub(crate) async fn pod_ip(&self, pod: &Pod) -> Option<String> {
        if host_network(pod) {
            return Some(self.config.ip.to_string());
        }
        let uid = uid_of(pod);
        self.network.attached().await.into_iter().find(|a| a.id == uid).map(|a| a.ip.to_string())
    }
}

/// What the API says of this very run: an agent that starts again must not take a ready container for one that is
/// not.
fn before(pod: &Pod, id: &str) -> Health {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses));
    let id = format!("{SCHEME}{id}");
    match all.flatten().find(|c| c.container_id.as_ref() == Some(&id)) {
        Some(found) => {
            Health { started: found.started.filter(|s| *s), live: None, ready: found.ready.then_some(true) }
        }
        None => Health::default(),
    }
}
