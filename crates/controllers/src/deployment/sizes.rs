//! How many replicas each replica set of a deployment should have (kubernetes/kubernetes,
//! `pkg/controller/deployment/util/deployment_util.go` and `pkg/controller/deployment/rolling.go`).

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{self, Sets};
use crate::common::scaled::scaled;

/// One replica set and the size it should have.
pub(super) type Resize = (Arc<ReplicaSet>, i32);

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// How many pods there may be beyond the number wished for, and how many may be missing.
///
/// Percentages are rounded up for the former and down for the latter; both at zero would allow no progress.
pub(super) fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let total = wanted(deployment);
    let rolling = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()?.rolling_update.as_ref());
    let part = |value: Option<&IntOrString>, round: fn(f64) -> f64| match value {
        None => round(f64::from(total) * 0.25) as i32,
        Some(value) => scaled(value, total, round),
    };
    let surge = part(rolling.and_then(|r| r.max_surge.as_ref()), f64::ceil);
    let unavailable = part(rolling.and_then(|r| r.max_unavailable.as_ref()), f64::floor);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods may be missing, which is never more than all.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 { 0 } else { fenceposts(deployment).1.min(wanted(deployment)) }
}

/// The size of the new set in the next step (upstream: `NewRSNewReplicas`).
pub(super) fn next_new_size(deployment: &Deployment, total_now: i32, new_now: i32) -> i32 {
    if !is_rolling(deployment) {
        return wanted(deployment);
    }
    let most = wanted(deployment) + fenceposts(deployment).0;
    if total_now >= most {
        return new_now;
    }
    new_now + (most - total_now).min(wanted(deployment) - new_now)
}

/// The next step of a rolling update: the new set grows, or the old ones shrink.
pub(super) fn roll(deployment: &Deployment, sets: &Sets) -> Vec<Resize> {
    let Some(new) = &sets.new else { return Vec::new() };
    let total: i32 = sets.all().map(|s| replicas(s)).sum();
    let size = if replicas(new) > wanted(deployment) {
        wanted(deployment)
    } else {
        next_new_size(deployment, total, replicas(new))
    };
    if size != replicas(new) {
        return vec![(new.clone(), size)];
    }
    shrink_old(deployment, sets, new, total)
}

/// Old sets shrink by their unavailable pods first, and then as far as enough pods stay available.
fn shrink_old(deployment: &Deployment, sets: &Sets, new: &ReplicaSet, total: i32) -> Vec<Resize> {
    let least = wanted(deployment) - max_unavailable(deployment);
    let new_unavailable = replicas(new) - available(new);
    let most = total - least - new_unavailable;
    if most <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<Resize> =
        revision::oldest_first(&sets.old).into_iter().map(|set| (set.clone(), replicas(&set))).collect();
    let mut unhealthy = 0;
    for (set, size) in &mut sizes {
        let broken = (*size - available(set)).max(0).min(most - unhealthy);
        *size -= broken;
        unhealthy += broken;
    }
    let all_available: i32 = sets.all().map(|s| available(s)).sum();
    let mut spare = (all_available - least).max(0);
    for (_, size) in &mut sizes {
        let healthy = spare.min(*size);
        *size -= healthy;
        spare -= healthy;
    }
    sizes.retain(|(set, size)| *size != replicas(set));
    sizes
}

/// Whether the new set has all that the deployment wishes for.
fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let desired = revision::annotated(new, revision::DESIRED);
    let all = wanted(deployment);
    replicas(new) == all && desired == Some(all) && available(new) == all
}

/// The sizes after the deployment's own size was changed: the one set that counts takes it all; in the middle of a
/// rollout each takes its share (upstream: `DeploymentController.scale`).
pub(super) fn scale(deployment: &Deployment, sets: &Sets) -> Vec<Resize> {
    let all = wanted(deployment);
    if let Some(only) = sets.active_or_latest() {
        return if replicas(&only) == all { Vec::new() } else { vec![(only, all)] };
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        let old = sets.old.iter().filter(|s| replicas(s) > 0);
        return old.map(|s| (s.clone(), 0)).collect();
    }
    if !is_rolling(deployment) {
        return Vec::new();
    }
    share(deployment, sets)
}

fn share(deployment: &Deployment, sets: &Sets) -> Vec<Resize> {
    let mut active: Vec<Arc<ReplicaSet>> = sets.all().filter(|s| replicas(s) > 0).cloned().collect();
    let total: i32 = active.iter().map(|s| replicas(s)).sum();
    let allowed = if wanted(deployment) > 0 { wanted(deployment) + fenceposts(deployment).0 } else { 0 };
    let to_add = allowed - total;
    // The biggest take the most; among equals the newer grow and the older shrink.
    active.sort_by_key(|s| {
        let created = s.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()).unwrap_or(0);
        (Reverse(replicas(s)), if to_add > 0 { -created } else { created })
    });
    let mut added = 0;
    let mut sizes: Vec<Resize> = active
        .into_iter()
        .map(|set| {
            let share = if to_add == 0 { 0 } else { proportion(deployment, &set, to_add, added) };
            added += share;
            let size = replicas(&set) + share;
            (set, size)
        })
        .collect();
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + to_add - added).max(0);
    }
    // Unchanged sizes stay in the list: what they are a share of has changed, and they must note that.
    sizes
}

/// One set's share of what is added or taken away.
fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if replicas(set) == 0 {
        return 0;
    }
    let most_now = wanted(deployment) + fenceposts(deployment).0;
    let fraction = if wanted(deployment) == 0 {
        -replicas(set)
    } else {
        let most_then = revision::annotated(set, revision::MAX)
            .filter(|n| *n > 0)
            .or_else(|| deployment.status.as_ref().and_then(|s| s.replicas).filter(|n| *n > 0))
            .unwrap_or(most_now);
        let size = f64::from(replicas(set)) * f64::from(most_now) / f64::from(most_then.max(1));
        size.round() as i32 - replicas(set)
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

#[cfg(test)]
mod tests;
