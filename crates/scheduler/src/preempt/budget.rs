use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::pod::PodInfo;

/// A PodDisruptionBudget, as far as it protects pods from being preempted. It is a wish, not a wall.
#[derive(Debug)]
pub(crate) struct Budget {
    namespace: String,
    selector: types::LabelSelector,
    allowed: i32,
    /// Pods whose eviction has been counted already.
    disrupted: BTreeSet<String>,
}

impl Budget {
    /// Reads a budget; one whose selector is empty protects nothing here.
    pub(crate) fn new(budget: &PodDisruptionBudget) -> Option<Self> {
        let selector = budget.spec.as_ref()?.selector.as_ref()?;
        let selector = client::selector(selector).ok().filter(|s| !s.is_everything())?;
        let status = budget.status.as_ref();
        Some(Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector,
            allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: status
                .and_then(|s| s.disrupted_pods.as_ref())
                .map(|pods| pods.keys().cloned().collect())
                .unwrap_or_default(),
        })
    }

    fn protects(&self, pod: &PodInfo) -> bool {
        let Some(labels) = pod.kind.labels.as_ref().filter(|l| !l.is_empty()) else { return false };
        *self.namespace == *pod.kind.namespace
            && self.selector.matches(|key| labels.get(key).map(String::as_str))
            && !self.disrupted.contains(pod.key.name())
    }
}

/// Those whose eviction would break a budget, and the others; the order stays
/// (`filterPodsWithPDBViolation`).
pub(super) fn split(pods: Vec<Arc<PodInfo>>, budgets: &[&Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (_, allowed) in budgets.iter().zip(&mut allowed).filter(|(b, _)| b.protects(pod)) {
            *allowed -= 1;
            breaks |= *allowed < 0;
        }
        breaks
    })
}
