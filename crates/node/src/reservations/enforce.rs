//! Making limits of what is said (`enforceNodeAllocatableCgroups`).

use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use client::EventKind;
use k8s_openapi::api::core::v1::ObjectReference;
use runtime::Resources;

use super::{Amounts, Room};
use crate::error::NodeError;
use crate::worker::Agent;

/// When a limit is tried again that pods exceed already; evictions bring them below it.
const AGAIN: Duration = Duration::from_secs(60);
const DONE: &str = "NodeAllocatableEnforced";
const FAILED: &str = "FailedNodeAllocatableEnforcement";

fn shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// Limits; of what is nothing there is no word.
fn limits(amounts: Amounts, compressible: bool) -> Resources {
    let said = |amount: u64| Some(amount).filter(|amount| *amount > 0);
    let mut all = Resources { cpu_shares: said(amounts.cpu_millis).map(shares), ..Resources::default() };
    if !compressible {
        (all.memory_limit, all.pids_limit) = (said(amounts.memory), said(amounts.pids));
    }
    all
}

impl Agent {
    /// Limits the pods together, and the system's own cgroups where that is wished.
    ///
    /// # Errors
    /// When a cgroup of the system's is not there, or does not take its limits.
    pub(crate) async fn enforce_allocatable(
        self: &Arc<Self>,
        room: &Room,
        drain: &Drain,
    ) -> Result<(), NodeError> {
        let settings = &self.config.kubelet.reservations;
        let together = if settings.limits_pods() { room.pods } else { room.capacity };
        let limits_of_pods = limits(together, false);
        if !self.limit_pods(&limits_of_pods).await {
            let agent = self.clone();
            drain.spawn_until_started(async move {
                loop {
                    tokio::time::sleep(AGAIN).await;
                    if agent.limit_pods(&limits_of_pods).await {
                        return;
                    }
                }
            });
        }
        let cpus = self.config.kubelet.managers.reserved_system_cpus.len();
        for enforced in settings.enforced(cpus).map_err(NodeError::Config)? {
            let (name, cgroup) = (enforced.name, enforced.cgroup);
            let limits = limits(enforced.reserved, enforced.compressible);
            let outcome = match self.runtime.limit_cgroup(cgroup, &limits).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!("{cgroup:?} cgroup does not exist")),
                Err(error) => Err(error.to_string()),
            };
            match outcome {
                Ok(()) => self.say_enforced(
                    EventKind::Normal,
                    DONE,
                    format!("Updated limits on {name} reserved cgroup {cgroup}"),
                ),
                Err(why) => {
                    let why = format!("Failed to enforce {name} reserved cgroup limits on {cgroup:?}: {why}");
                    self.say_enforced(EventKind::Warning, FAILED, why.clone());
                    return Err(NodeError::Config(why));
                }
            }
        }
        Ok(())
    }

    async fn limit_pods(&self, limits: &Resources) -> bool {
        match self.runtime.limit_together(limits).await {
            Ok(()) => {
                let done = "Updated Node Allocatable limit across pods";
                self.say_enforced(EventKind::Normal, DONE, done.to_owned());
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the pods cannot be limited to what is allocatable");
                let why = format!("Failed to update Node Allocatable Limits: {error}");
                self.say_enforced(EventKind::Warning, FAILED, why);
                false
            }
        }
    }

    fn say_enforced(&self, kind: EventKind, reason: &str, what: String) {
        let node = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.config.name.clone()),
            uid: Some(self.config.name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.say(node, kind, reason, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_becomes_limits() {
        let amounts = Amounts { cpu_millis: 500, memory: 1 << 30, ephemeral_storage: 9, pids: 0 };
        let all = limits(amounts, false);
        assert_eq!((all.cpu_shares, all.memory_limit, all.pids_limit), (Some(512), Some(1 << 30), None));
        let soft = limits(amounts, true);
        assert_eq!((soft.cpu_shares, soft.memory_limit), (Some(512), None));
        assert_eq!(limits(Amounts::default(), false), Resources::default());
    }
}
