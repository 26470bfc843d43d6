use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{PodView, is_deleting};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::set_allowed;
use crate::common::pods::is_ready;
use crate::common::scaled::scaled;

/// How long a pod that was to go counts as gone before it is (upstream: `DeletionTimeout`).
pub(super) const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// Pods that were evicted and are still there.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Those that are still expected to go, with the time of their eviction.
    pub(super) pods: BTreeMap<String, Time>,
    /// Those that did not go in time.
    pub(super) overdue: Vec<Arc<PodView>>,
    /// When the next one will be overdue.
    pub(super) look_again: Option<Duration>,
}

/// Whether it takes the owners of the pods to say how many there should be.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// How many of the expected pods have to be healthy.
fn desired(budget: &PodDisruptionBudget, expected: i32) -> i32 {
    let Some(spec) = &budget.spec else { return 0 };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(missing), _) => (expected - scaled(missing, expected, f64::ceil)).max(0),
        (None, Some(available)) => scaled(available, expected, f64::ceil),
        (None, None) => 0,
    }
}

/// Which of the pods that were evicted are still to go.
pub(super) fn waiting(budget: &PodDisruptionBudget, pods: &[Arc<PodView>], now: Timestamp) -> Waiting {
    let evicted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let mut waiting = Waiting::default();
    let Some(evicted) = evicted else { return waiting };
    for pod in pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(at) = evicted.get(&name) else { continue };
        let passed = Duration::try_from(now.duration_since(at.0)).unwrap_or_default();
        let left = PATIENCE.saturating_sub(passed);
        if left.is_zero() {
            waiting.overdue.push(pod.clone());
        } else {
            waiting.look_again = Some(waiting.look_again.map_or(left, |next| next.min(left)));
            waiting.pods.insert(name, at.clone());
        }
    }
    waiting
}

/// How many pods are ready and stay.
pub(super) fn healthy(pods: &[Arc<PodView>], leaving: &BTreeMap<String, Time>) -> i32 {
    let stays = |pod: &PodView| {
        !is_deleting(&pod.metadata)
            && !pod.metadata.name.as_ref().is_some_and(|name| leaving.contains_key(name))
            && is_ready(pod)
    };
    i32::try_from(pods.iter().filter(|pod| stays(pod)).count()).unwrap_or(i32::MAX)
}

pub(super) fn status(
    budget: &PodDisruptionBudget,
    healthy: i32,
    expected: i32,
    waiting: &Waiting,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let desired = desired(budget, expected);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        conditions: budget.status.as_ref().and_then(|status| status.conditions.clone()),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!waiting.pods.is_empty()).then(|| waiting.pods.clone()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    set_allowed(&mut status, if allowed > 0 { "SufficientPods" } else { "InsufficientPods" }, "", now);
    status
}
