//! Probes: one task for each, which lives as long as one run of a container.
//!
//! [`decide`] says when and what it means, [`check`] asks, the tasks here hold both together and publish
//! [`Health`], which the plan and the status read.

mod check;
mod decide;
mod grpc;
mod http;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(crate) use check::{Outcome, Target};
pub(crate) use decide::Kind;
use decide::{Due, Rules, Seen, due, step};
pub(crate) use http::send;

/// What the probes of one run have found. `None`: not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) started: Option<bool>,
    pub(crate) live: Option<bool>,
    pub(crate) ready: Option<bool>,
}

impl Health {
    /// Before any probe: what is not probed is well.
    pub(crate) fn unprobed(container: &core::Container) -> Self {
        let well = |probe: &Option<core::Probe>| probe.is_none().then_some(true);
        Self {
            started: well(&container.startup_probe),
            live: Some(true),
            ready: well(&container.readiness_probe),
        }
    }

    pub(crate) fn is_started(self) -> bool {
        self.started == Some(true)
    }

    pub(crate) fn is_ready(self) -> bool {
        self.is_started() && self.ready == Some(true)
    }

    /// The probe that says that the container must be replaced.
    pub(crate) fn fatal(self) -> Option<Kind> {
        match self {
            Self { started: Some(false), .. } => Some(Kind::Startup),
            Self { live: Some(false), .. } => Some(Kind::Liveness),
            _ => None,
        }
    }
}

/// By container id.
pub(crate) type Healths = HashMap<String, Health>;

/// One run of a container, to be probed.
pub(crate) struct Run {
    /// Of the pod.
    pub(crate) uid: String,
    pub(crate) target: Target,
    pub(crate) started_at: Timestamp,
    /// What the API's status says of this very run, from an earlier agent.
    pub(crate) before: Health,
}

/// Says what a probe found, in an event.
pub(crate) type Tell = Arc<dyn Fn(Kind, &Outcome) + Send + Sync>;

struct Probed {
    uid: String,
    health: Arc<watch::Sender<Health>>,
    tasks: Vec<(Kind, AbortHandle)>,
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

/// All probes of the node.
#[derive(Default)]
pub(crate) struct Probers(Mutex<HashMap<String, Probed>>);

impl Probers {
    /// What is known of the containers of a pod.
    pub(crate) fn healths(&self, uid: &str) -> Healths {
        let all = self.0.lock();
        all.iter().filter(|(_, p)| p.uid == uid).map(|(id, p)| (id.clone(), *p.health.borrow())).collect()
    }

    /// Ends the probes of a pod's containers that are not in `running`.
    pub(crate) fn keep(&self, uid: &str, running: &[&str]) {
        self.0.lock().retain(|id, p| p.uid != uid || running.contains(&id.as_str()));
    }

    /// A pod that ends is not restarted any more; whether it can still serve stays of interest.
    pub(crate) fn only_readiness(&self, uid: &str) {
        for probed in self.0.lock().values_mut().filter(|p| p.uid == uid) {
            probed.tasks.iter().filter(|(kind, _)| *kind != Kind::Readiness).for_each(|(_, t)| t.abort());
        }
    }

    /// Begins to probe a run, unless it is being probed. `wake` is called whenever its health changes.
    pub(crate) fn begin(&self, run: Run, clock: &dyn Clock, tell: &Tell, wake: &Arc<dyn Fn() + Send + Sync>) {
        let container = &run.target.container;
        let probes = [
            (Kind::Startup, &container.startup_probe, run.before.started),
            (Kind::Liveness, &container.liveness_probe, None),
            (Kind::Readiness, &container.readiness_probe, run.before.ready),
        ];
        let mut all = self.0.lock();
        if probes.iter().all(|(_, probe, _)| probe.is_none()) || all.contains_key(&run.target.id) {
            return;
        }
        let mut health = Health::unprobed(container);
        health.started = health.started.or(run.before.started);
        health.ready = health.ready.or(run.before.ready);
        let health = Arc::new(watch::Sender::new(health));
        let running = clock.now().duration_since(run.started_at).try_into().unwrap_or(Duration::ZERO);
        let tasks = probes.into_iter().filter_map(|(kind, probe, before)| {
            let task = Task {
                kind,
                rules: Rules::of(probe.as_ref()?),
                ask: asker(run.target.clone(), probe.clone()?),
                since: Instant::now().checked_sub(running).unwrap_or_else(Instant::now),
                health: health.clone(),
                tell: tell.clone(),
                wake: wake.clone(),
            };
            Some((kind, tokio::spawn(task.run(Seen::before(before))).abort_handle()))
        });
        let tasks = tasks.collect();
        all.insert(run.target.id.clone(), Probed { uid: run.uid.clone(), health, tasks });
    }
}

type Ask = Box<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>;

fn asker(target: Target, probe: core::Probe) -> Ask {
    let timeout = Rules::of(&probe).timeout;
    Box::new(move || {
        let (target, probe) = (target.clone(), probe.clone());
        async move { target.probe(&probe, timeout).await }.boxed()
    })
}

struct Task {
    kind: Kind,
    rules: Rules,
    ask: Ask,
    /// Since when the container runs.
    since: Instant,
    health: Arc<watch::Sender<Health>>,
    tell: Tell,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// A look that could not be made is tried again so often at once (`maxProbeRetries`).
const TRIES: usize = 3;

impl Task {
    async fn run(self, mut seen: Seen) {
        let mut health = self.health.subscribe();
        let mut last: Option<Instant> = None;
        loop {
            let started = health.borrow().started;
            let due =
                due(self.kind, &seen, &self.rules, started, self.since.elapsed(), last.map(|l| l.elapsed()));
            match due {
                Due::Never => return,
                Due::After(wait) => tokio::time::sleep(wait).await,
                // The sender lives as long as this task.
                Due::WhenStarted => drop(health.wait_for(|h| h.is_started()).await),
                Due::Now => {
                    last = Some(Instant::now());
                    let outcome = self.ask().await;
                    let passed = match &outcome {
                        Outcome::Passed | Outcome::Warned(_) => Some(true),
                        Outcome::Failed(_) => Some(false),
                        Outcome::Errored(_) => None,
                    };
                    (self.tell)(self.kind, &outcome);
                    if let Some(passed) = passed {
                        seen = step(seen, &self.rules, passed);
                        self.publish(seen.verdict);
                    }
                }
            }
        }
    }

    async fn ask(&self) -> Outcome {
        let mut outcome = Outcome::Errored(String::new());
        for _ in 0..TRIES {
            outcome = (self.ask)().await;
            if !matches!(outcome, Outcome::Errored(_)) {
                break;
            }
        }
        outcome
    }

    fn publish(&self, verdict: Option<bool>) {
        let Some(verdict) = verdict else { return };
        let changed = self.health.send_if_modified(|health| {
            let old = *health;
            match self.kind {
                Kind::Startup => health.started = Some(verdict),
                Kind::Liveness => health.live = Some(verdict),
                Kind::Readiness => health.ready = Some(verdict),
            }
            old != *health
        });
        if changed {
            (self.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What the tasks of one container did: at which second, which probe.
    type Log = Arc<Mutex<Vec<(u64, Kind)>>>;

    struct World {
        begun: Instant,
        health: Arc<watch::Sender<Health>>,
        log: Log,
        woken: Arc<Mutex<u32>>,
    }

    impl World {
        fn new(container: &core::Container) -> Self {
            Self {
                begun: Instant::now(),
                health: Arc::new(watch::Sender::new(Health::unprobed(container))),
                log: Arc::default(),
                woken: Arc::default(),
            }
        }

        /// Runs one probe, which passes from second `well` to second `sick`.
        fn probe(&self, kind: Kind, probe: &Option<core::Probe>, well: u64, sick: u64) {
            let (begun, log, woken) = (self.begun, self.log.clone(), self.woken.clone());
            let ask: Ask = Box::new(move || {
                let at = begun.elapsed().as_secs();
                log.lock().push((at, kind));
                let outcome =
                    if (well..sick).contains(&at) { Outcome::Passed } else { Outcome::Failed("no".into()) };
                async move { outcome }.boxed()
            });
            let task = Task {
                kind,
                rules: Rules::of(probe.as_ref().unwrap()),
                ask,
                since: self.begun,
                health: self.health.clone(),
                tell: Arc::new(|_, _| {}),
                wake: Arc::new(move || *woken.lock() += 1),
            };
            tokio::spawn(task.run(Seen::default()));
        }

        async fn at(&self, second: u64) -> Health {
            tokio::time::sleep_until(self.begun + Duration::from_millis(second * 1000 + 500)).await;
            *self.health.borrow()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn startup_comes_first_and_liveness_ends_with_a_failure() {
        let container: core::Container = serde_json::from_value(json!({"name": "a",
            "startupProbe": {"periodSeconds": 2, "failureThreshold": 10},
            "livenessProbe": {"periodSeconds": 5, "failureThreshold": 2},
            "readinessProbe": {"periodSeconds": 1, "initialDelaySeconds": 8}}))
        .unwrap();
        let world = World::new(&container);
        world.probe(Kind::Startup, &container.startup_probe, 4, 100);
        world.probe(Kind::Liveness, &container.liveness_probe, 0, 12);
        world.probe(Kind::Readiness, &container.readiness_probe, 0, 100);
        assert_eq!(world.at(3).await, Health { started: None, live: Some(true), ready: None });
        assert_eq!(world.at(4).await, Health { started: Some(true), live: Some(true), ready: None });
        assert!(!world.at(7).await.is_ready() && world.at(8).await.is_ready());
        assert_eq!(world.at(16).await.fatal(), None);
        assert_eq!(world.at(19).await.fatal(), Some(Kind::Liveness));
        world.at(60).await;
        let times = |kind: Kind| -> Vec<u64> {
            world.log.lock().iter().filter(|(_, k)| *k == kind).map(|(at, _)| *at).collect()
        };
        assert_eq!(times(Kind::Startup), [0, 2, 4]);
        assert_eq!(times(Kind::Liveness), [4, 9, 14, 19]);
        assert_eq!(times(Kind::Readiness)[..3], [8, 9, 10]);
        // Started, ready, not live.
        assert_eq!(*world.woken.lock(), 3);
    }
}
