//! What a deployment says about itself (kubernetes/kubernetes, `pkg/controller/deployment/{sync,progress}.go`).

use std::time::Duration;

use base::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::revision::Sets;
use super::sizes::{available, max_unavailable, replicas, wanted};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// The new set could not be made.
pub(super) const NOT_CREATED: &str = "ReplicaSetCreateError";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// The status and conditions that follow from the sets.
pub(super) fn status(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let mut status = counts(deployment, sets);
    let missing = wanted(deployment) - max_unavailable(deployment);
    let enough = status.available_replicas.unwrap_or(0) >= missing;
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, condition(AVAILABLE, state, reason, message.into(), now));
    status
}

fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| -> Option<i32> {
        Some(sets.all().map(|s| of(s)).sum()).filter(|n| *n != 0)
    };
    let of_status = |s: &ReplicaSet| s.status.as_ref().map_or(0, |s| s.replicas);
    let total: i32 = sets.all().map(|s| replicas(s)).sum();
    let available = sum(&available);
    let terminating = |s: &ReplicaSet| s.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sum(&of_status),
        updated_replicas: sets.new.as_deref().map(of_status).filter(|n| *n != 0),
        ready_replicas: sum(&|s| s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)),
        available_replicas: available,
        unavailable_replicas: Some((total - available.unwrap_or(0)).max(0)).filter(|n| *n != 0),
        terminating_replicas: Some(sets.all().map(|s| terminating(s)).sum()),
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

fn condition(kind: &str, state: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: state.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Puts a condition in, unless it says nothing new.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    replace(status, new);
}

fn replace(status: &mut DeploymentStatus, new: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds)?;
    (seconds != i32::MAX).then(|| Duration::from_secs(seconds.max(0) as u64))
}

/// Whether all pods are of the present template, available, and no others are left.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let all = wanted(deployment);
    let is_all = |count: Option<i32>| count.unwrap_or(0) == all;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn progresses(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |n: Option<i32>| n.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| of(s.replicas) - of(s.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || outdated(new) < outdated(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

/// Whether nothing has moved for as long as the deployment allows.
fn is_late(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(current) = find(status, PROGRESSING) else { return false };
    match current.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => remaining(deployment, current, now).is_some_and(|left| left.is_zero()),
    }
}

fn remaining(deployment: &Deployment, current: &DeploymentCondition, now: Timestamp) -> Option<Duration> {
    let since = current.last_update_time.as_ref()?.0;
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(deadline(deployment)?.saturating_sub(passed))
}

/// Adds how the rollout is getting on.
pub(super) fn progress(deployment: &Deployment, sets: &Sets, status: &mut DeploymentStatus, now: Timestamp) {
    let current = find(status, PROGRESSING).cloned();
    let rested = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(COMPLETE));
    if deadline(deployment).is_some() && !rested {
        let subject = match &sets.new {
            Some(new) => format!("ReplicaSet {:?}", new.metadata.name.as_deref().unwrap_or_default()),
            None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        let old = deployment.status.clone().unwrap_or_default();
        if is_complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set(status, condition(PROGRESSING, "True", COMPLETE, message, now));
        } else if progresses(&old, status) {
            let message = format!("{subject} is progressing.");
            let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            // It must be renewed even if it says the same: the deadline counts from here.
            if let Some(current) = current.filter(|c| c.status == "True") {
                new.last_transition_time = current.last_transition_time;
            }
            replace(status, new);
        } else if is_late(deployment, status, now) {
            let message = format!("{subject} has timed out progressing.");
            set(status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
        }
    }
    if deadline(deployment).is_none() {
        // Nobody measures progress, so nothing is said of it.
        status.conditions.get_or_insert_default().retain(|c| c.type_ != PROGRESSING);
    }
    let failure = sets.new.iter().chain(&sets.old).find_map(|s| {
        let conditions = s.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == REPLICA_FAILURE)
    });
    match failure {
        Some(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            let message = failure.message.clone().unwrap_or_default();
            set(status, condition(REPLICA_FAILURE, &failure.status, &reason, message, now));
        }
        None => status.conditions.get_or_insert_default().retain(|c| c.type_ != REPLICA_FAILURE),
    }
}

/// The rollout begins, or goes back to a set that is there.
pub(super) fn begun(
    deployment: &Deployment,
    new: &ReplicaSet,
    created: bool,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let name = new.metadata.name.as_deref().unwrap_or_default();
    if created {
        let message = format!("Created new replica set {name:?}");
        set(&mut status, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now));
    } else if find(&status, PROGRESSING).is_none() {
        let message = format!("Found new replica set {name:?}");
        set(&mut status, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, now));
    }
    (deployment.status.as_ref() != Some(&status)).then_some(status)
}

/// There is no new set, because nobody makes it (upstream: `getNewReplicaSet`).
pub(super) fn refused(deployment: &Deployment, why: &str, now: Timestamp) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    set(&mut status, condition(PROGRESSING, "False", NOT_CREATED, why.to_owned(), now));
    Some(status)
}

/// While a deployment is paused its deadline rests (upstream: `checkPausedConditions`).
pub(super) fn paused(deployment: &Deployment, now: Timestamp) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let current = find(&status, PROGRESSING).and_then(|c| c.reason.as_deref());
    if current == Some(TIMED_OUT) {
        return None;
    }
    let is_paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let (reason, message) = match (is_paused, current == Some(PAUSED)) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => (RESUMED, "Deployment is resumed"),
        _ => return None,
    };
    set(&mut status, condition(PROGRESSING, "Unknown", reason, message.into(), now));
    Some(status)
}

/// When to look whether the rollout is late.
pub(super) fn next_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let current = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || matches!(current.reason.as_deref(), Some(TIMED_OUT | PAUSED)) {
        return None;
    }
    // Times are written in whole seconds, so one more makes sure.
    Some(remaining(deployment, current, now)? + Duration::from_secs(1))
}
