//! A node that goes down in order (kubernetes/kubernetes, `pkg/kubelet/nodeshutdown`).
//!
//! ```text
//! ready ─► logind's signal, a command or a signal to the process ─► not ready, new pods are refused
//!   ▲                                     pods end, the least important first, each group in its time
//!   └─ called off ◄───────────────────────┴─► done: logind may go on
//! ```
//!
//! `groups.rs` decides who goes when; `logind.rs` holds the machine's shutdown up over D-Bus (`bus.rs`, `wire.rs`);
//! `control.rs` is for those who have no logind.

mod bus;
mod control;
mod groups;
mod logind;
mod state;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Drain, Timestamp};
use client::{EventKind, Key};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use runtime::SandboxState;
use tokio::sync::watch;

pub use control::{NodeControl, ask};
pub use groups::{Share, ShutdownSettings};
use state::State;

use crate::error::NodeError;
use crate::eviction::Eviction;
use crate::plan::{grace_of, is_over};
use crate::worker::{Agent, uid_of};

/// What pods say that were ended.
const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// What pods say that came too late.
pub(crate) const REFUSED: &str = "NodeShutdown";
pub(crate) const REFUSED_MESSAGE: &str = "Pod was rejected as the node is shutting down.";
/// What the node says of itself.
pub(crate) const NOT_READY: &str = "node is shutting down";

/// Where a shutdown can come from, and where it is noted.
#[derive(Clone, Debug)]
pub struct ShutdownPlaces {
    /// The system's message bus, where logind is.
    pub bus: PathBuf,
    /// Where logind's settings are added to, if it does not wait long enough.
    pub logind_conf: PathBuf,
    /// A socket for `gantry node shutdown`.
    pub control: PathBuf,
}

/// Whether the node is going down.
pub(crate) struct Shutdown {
    under_way: watch::Sender<bool>,
    shares: Vec<Share>,
    file: PathBuf,
    state: Mutex<State>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Shutdown {
    /// `folder` is where it is noted when there was one.
    pub(crate) fn new(settings: &ShutdownSettings, folder: &std::path::Path) -> Self {
        let file = folder.join(state::FILE);
        let state = state::load(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read what was noted of the last shutdown");
            State::default()
        });
        Self {
            under_way: watch::Sender::new(false),
            shares: settings.shares(),
            file,
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        *self.under_way.borrow()
    }

    /// Tells whether it is under way, as that changes.
    pub(crate) fn news(&self) -> watch::Receiver<bool> {
        self.under_way.subscribe()
    }

    /// When the last one began and when it was over, in seconds since 1970; 0 for never.
    pub(crate) fn times(&self) -> (f64, f64) {
        let state = self.state.lock().clone();
        let seconds = |at: Option<Timestamp>| at.map_or(0.0, |at| at.as_second() as f64);
        (seconds(state.start_time), seconds(state.end_time))
    }

    fn note(&self, state: State) {
        *self.state.lock() = state.clone();
        if let Err(error) = state::store(&self.file, &state) {
            tracing::error!(%error, "Failed to store graceful shutdown state");
        }
    }

    /// How long all groups take together.
    fn whole(&self) -> Duration {
        Duration::from_secs(self.shares.iter().map(|share| share.seconds).sum())
    }
}

/// Begins to listen for shutdowns.
pub(crate) fn start(agent: &Arc<Agent>, places: &ShutdownPlaces, drain: &Drain) -> Result<(), NodeError> {
    control::serve(agent, &places.control, drain)?;
    if !agent.shutdown.shares.is_empty() && places.bus.exists() {
        drain.spawn_until_started(logind::follow(agent.clone(), places.clone()));
    }
    Ok(())
}

impl Agent {
    /// Ends all pods in their order. Gives false if it was called off.
    ///
    /// # Errors
    /// When nothing says how long pods get.
    pub(crate) async fn shut_down(&self) -> Result<bool, NodeError> {
        if self.shutdown.shares.is_empty() {
            return Err(NodeError::NoShutdown);
        }
        self.shutdown.under_way.send_replace(true);
        let _turn = self.shutdown.turn.lock().await;
        self.say_shutdown("Shutdown manager detected shutdown event");
        let begun = self.clock.now();
        self.shutdown.note(State { start_time: Some(begun), end_time: None });
        let mut news = self.shutdown.news();
        let finished = tokio::select! {
            () = self.end_all() => true,
            // The sender lives as long as `self`.
            _ = news.wait_for(|under_way| !under_way) => false,
        };
        self.shutdown.note(State { start_time: Some(begun), end_time: Some(self.clock.now()) });
        tracing::info!(finished, "the node's pods have been ended for its shutdown");
        Ok(finished)
    }

    /// The machine stays up after all. Pods that were ended are not begun again: they have failed.
    pub(crate) fn call_shutdown_off(&self) {
        if self.shutdown.under_way.send_replace(false) {
            self.say_shutdown("Shutdown manager detected shutdown cancellation");
        }
    }

    async fn end_all(&self) {
        let pods = self.pods.list().into_iter().filter(|pod| !is_over(pod));
        let priority = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let pods = pods.map(|pod| (priority(&pod), pod)).collect();
        for (share, pods) in groups::groups(&self.shutdown.shares, pods) {
            for pod in &pods {
                self.begin_end(pod, share);
            }
            let all = async {
                for pod in &pods {
                    self.has_ended(pod).await;
                }
            };
            let within = Duration::from_secs(share.seconds);
            if tokio::time::timeout(within, all).await.is_err() {
                tracing::warn!(share.priority, share.seconds, "Shutdown manager pod killing time out");
            }
        }
    }

    fn begin_end(&self, pod: &Pod, share: Share) {
        let grace = pod.spec.as_ref().map_or(0, grace_of).min(share.seconds);
        tracing::info!(pod = %Key::of(pod), grace, "Shutdown manager killing pod");
        let ending = Eviction { reason: REASON, message: MESSAGE.to_owned(), grace };
        self.evictions.lock().insert(uid_of(pod).to_owned(), ending);
        self.endings.send_modify(|count| *count += 1);
        self.queue.add(Key::of(pod));
    }

    /// Resolves when nothing of a pod runs any more and its volumes are put away.
    async fn has_ended(&self, pod: &Pod) {
        let uid = uid_of(pod);
        let mut news = self.endings.subscribe();
        let is_there = || {
            let wanted = self.pods.get(&Key::of(pod)).is_some_and(|now| uid_of(&now) == uid);
            let runs = |s: runtime::SandboxStatus| s.state == SandboxState::Ready;
            wanted && (self.known(pod).ending.is_none() || self.runtime.sandbox(uid).is_some_and(runs))
        };
        while is_there() {
            // The sender lives as long as `self`.
            let _ = news.changed().await;
        }
    }

    fn say_shutdown(&self, message: &str) {
        tracing::info!("{message}");
        let node = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.config.name.clone()),
            uid: Some(self.config.name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.say(node, EventKind::Normal, "NodeShutdown", message);
    }
}
