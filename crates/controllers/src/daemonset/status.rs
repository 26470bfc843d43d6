//! What a set says about itself (kubernetes/kubernetes, `pkg/controller/daemon/daemon_controller.go`,
//! `updateDaemonSetStatus`).

use std::time::Duration;

use client::Next;
use k8s_openapi::api::apps::v1::DaemonSetStatus;

use super::fit::Verdict;
use super::plan::Scene;
use crate::common::pods::{available_in, is_ready};

/// `observed` is whether what the set asks for has been acted on.
pub(super) fn status(scene: &Scene<'_>, collisions: Option<i32>, observed: bool) -> DaemonSetStatus {
    let old = scene.set.status.clone().unwrap_or_default();
    let mut new = DaemonSetStatus {
        collision_count: collisions,
        conditions: old.conditions,
        observed_generation: if observed { scene.set.metadata.generation } else { old.observed_generation },
        ..Default::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, verdict) in &scene.nodes {
        let first = scene.pods.get(node).and_then(|pods| pods.first());
        if *verdict != Verdict::Run {
            new.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        new.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        new.current_number_scheduled += 1;
        new.number_ready += i32::from(is_ready(pod));
        available += i32::from(scene.is_available(pod));
        updated += i32::from(scene.is_new(pod));
    }
    let positive = |count: i32| (count != 0).then_some(count);
    new.updated_number_scheduled = positive(updated);
    new.number_available = positive(available);
    new.number_unavailable = positive(new.desired_number_scheduled - available);
    new
}

/// When the set must be looked at again though nothing changes: pods become available by being ready long enough.
pub(super) fn next(scene: &Scene<'_>) -> Option<Duration> {
    let wait = scene.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let delays = scene.pods.values().flatten().filter_map(|pod| available_in(pod, wait, scene.now));
    delays.filter(|delay| !delay.is_zero()).min()
}

/// The sooner of two moments to look again.
pub(super) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Next {
    one.into_iter().chain(other).min().map_or(Next::Done, Next::After)
}
