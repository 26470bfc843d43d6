//! Puts an agent together out of its parts, and sets it going.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Clock, Drain};
use client::{Change, Controller, Informer, Informers, Key, Recorder, Selection};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Client;
use parking_lot::Mutex;
use runtime::ContainerEvent;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use volumes::Volumes;

use crate::admit::Taken;
use crate::config::{Membership, NodeConfig};
use crate::dra::Dra;
use crate::engine::Engine;
use crate::error::NodeError;
use crate::eviction;
use crate::images::Images;
use crate::probe::Probers;
use crate::register;
use crate::server::{Access, Server};
use crate::shutdown::{self, Shutdown};
use crate::static_pods::{self, Pods};
use crate::stats::Stats;
use crate::userns::UserNamespaces;
use crate::worker::Agent;

/// How many pods are worked on at once.
const WORKERS: usize = 64;

/// The agent of a node that runs.
#[derive(Clone)]
pub struct NodeHandle(Arc<Agent>);

impl NodeHandle {
    /// Ends all pods in the order of their priority, and takes no others. Gives false if that was called off.
    ///
    /// # Errors
    /// When no setting says how long pods get.
    pub async fn shut_down(&self) -> Result<bool, NodeError> {
        self.0.shut_down().await
    }
}

/// Registers the node and runs its pods until `drain` starts. Containers go on without it.
///
/// # Errors
/// When the node cannot be registered with an API that is in this process, or the agent's server has no place.
pub async fn run(
    config: NodeConfig,
    client: Client,
    engine: Engine,
    clock: Arc<dyn Clock>,
    drain: Drain,
) -> Result<NodeHandle, NodeError> {
    config.kubelet.check()?;
    let thresholds = eviction::with_allocatable(config.kubelet.thresholds()?);
    let managers = Arc::new(crate::managers::open(&config, &drain)?);
    let pressures = watch::Sender::new(BTreeSet::new());
    let shutdown = Arc::new(Shutdown::new(&config.kubelet.shutdown, &config.data_dir));
    let alone = config.membership == Membership::Alone;
    if config.membership == Membership::Local {
        register::register(&client, &config, &engine, &managers, &*clock).await?;
    }
    let informers = Informers::new(client.clone(), drain.clone());
    let node = informers.select::<Node>(Selection::fields(format!("metadata.name={}", config.name)));
    if !alone {
        let told = (pressures.subscribe(), shutdown.news());
        let (beats, known) = ((config.clone(), engine.clone()), managers.clone());
        let (client, own, until) = (client.clone(), node.clone(), drain.clone());
        let beats = register::heartbeat(client, beats, known, told, own, clock.clone(), until);
        // An API that does not answer is not waited for.
        match config.membership {
            Membership::Remote => drop(drain.spawn_until_started(beats)),
            _ => drop(drain.spawn(beats)),
        }
    }
    let api: Informer<Pod> = informers.select(Selection::fields(format!("spec.nodeName={}", config.name)));
    let services = informers.of::<Service>();
    // The node's own pods do not wait for the API's.
    let controller = Controller::new("node").workers(WORKERS);
    let queue = controller.queue();
    let wake = queue.clone();
    api.on_change(move |change| wake.add(Key::of(&**change.object())));
    let pods = Pods::new((!alone).then(|| api.clone()));
    pods.adopt(static_pods::notes::read_all(&config.data_dir.join("pods")));
    let wake = queue.clone();
    let recorder = Recorder::start(client.clone(), "kubelet", &config.name, clock.clone(), &drain);
    let volumes = Volumes::new(volumes::Options {
        client: client.clone(),
        pods: config.data_dir.join("pods"),
        data: config.data_dir.join("volumes"),
        node: config.name.clone(),
        recorder: recorder.clone(),
        allocatable: managers.room.allocatable.into(),
        clock: clock.clone(),
        drain: drain.clone(),
        wake: Arc::new(move |key| wake.add(key.clone())),
    });
    volumes.follow(&informers, &drain);
    let (root, cdi) = (managers.kubelet_dir(), managers.cdi.clone());
    let dra = Dra::new(client.clone(), &config.name, root, cdi, drain.clone())?;
    dra.start();
    let endings = watch::Sender::new(0);
    let ended = endings.clone();
    api.on_change(move |change| {
        let gone = matches!(change, Change::Deleted(_));
        if gone || change.object().metadata.deletion_timestamp.is_some() {
            ended.send_modify(|count| *count += 1);
        }
    });
    if let Engine::Cri(cri) = &engine {
        cri.follow(&config.kubelet.containers, &drain);
    }
    let stats = Stats::new(engine.clone(), clock.clone());
    let agent = Arc::new(Agent {
        stats,
        meters: Arc::default(),
        pressures: pressures.clone(),
        evictions: Mutex::default(),
        client,
        runtime: engine.clone(),
        images: Images::new(&engine, &config.kubelet, &config.data_dir),
        user_namespaces: UserNamespaces::open(config.data_dir.join("pods")),
        config,
        clock,
        recorder,
        pods,
        synced: AtomicBool::new(alone),
        shutdown,
        services,
        node,
        taken: Taken::default(),
        managers: managers.clone(),
        volumes,
        dra,
        queue: queue.clone(),
        endings,
        probers: Probers::default(),
        known: Mutex::default(),
        looked: Notify::new(),
    });
    let server = Server {
        node: agent.config.name.clone(),
        client: agent.client.clone(),
        pods: agent.pods.clone(),
        runtime: engine.clone(),
        clock: agent.clock.clone(),
        drain: drain.clone(),
        stats: agent.stats.clone(),
        meters: agent.meters.clone(),
        data_dir: agent.config.data_dir.clone(),
        began: agent.clock.now(),
        settings: Arc::new(agent.config.kubelet.shown()),
        access: Access {
            anonymous: agent.config.kubelet.anonymous,
            authorization: agent.config.kubelet.authorization,
        },
        shutdown: agent.shutdown.clone(),
    };
    server.start((agent.config.ip, agent.config.port).into(), &agent.config.tls).await?;
    shutdown::start(&agent, &agent.config.shutdown, &drain)?;
    static_pods::follow(&agent, &drain);
    if !alone {
        static_pods::start_mirrors(
            agent.client.clone(),
            &agent.pods,
            &api,
            &agent.node,
            &agent.config.name,
            &drain,
        );
    }
    // Containers that end wake their pod; so do sandboxes whose pod went while nobody looked.
    let mut events = engine.events();
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
    agent.enforce_allocatable(&managers.room, &drain).await?;
    agent.all_keys().into_iter().for_each(|key| queue.add(key));
    let syncing = agent.clone();
    drain.spawn_until_started(async move {
        if !alone {
            tokio::join!(api.ready(), syncing.services.ready(), syncing.node.ready());
        }
        syncing.synced.store(true, Ordering::Release);
        // What was not looked at until now.
        let listed = api.store().keys();
        listed.into_iter().chain(syncing.all_keys()).for_each(|key| syncing.queue.add(key));
    });
    drain.spawn_until_started(eviction::watch(agent.clone(), thresholds));
    crate::managers::start(&agent, &drain);
    drain.spawn_until_started(agent.clone().weigh_classes());
    drain.spawn_until_started(agent.clone().follow_device_health());
    let cleaner = agent.clone();
    drain.spawn_until_started(async move { cleaner.clear_orphans().await });
    let until = drain.clone();
    let handle = NodeHandle(agent.clone());
    drain.spawn(controller.run(until, move |key| {
        let agent = agent.clone();
        async move {
            let begun = Instant::now();
            let next = agent.look(key).await;
            agent.meters.looked(begun.elapsed());
            next
        }
    }));
    Ok(handle)
}
