//! What is counted of looks at autoscalers (kubernetes/kubernetes, `pkg/controller/podautoscaler/monitor`).

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec,
};

use super::Look;
use super::propose::{Proposal, Refusal};
use super::status::{ABLE, ACTIVE};
use super::why::Why;

impl Look<'_> {
    /// Notes what came of asking one metric (`computeReplicasForMetric`).
    pub(super) fn count_metric(&self, spec: &MetricSpec, asked: &Result<Proposal, Refusal>, took: Duration) {
        let current = self.autoscaler.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
        let (action, error) = match asked {
            Ok(proposal) if proposal.replicas > current => ("scale_up", "none"),
            Ok(proposal) if proposal.replicas < current => ("scale_down", "none"),
            Ok(_) => ("none", "none"),
            Err(Refusal { why: Why::UnknownType(_), .. }) => ("none", "spec"),
            Err(_) => ("none", "internal"),
        };
        crate::metrics::metric_computed(action, error, &spec.type_, took);
    }

    /// Notes what came of the look; `wrong` if its specification says what cannot be.
    pub(super) fn count(&self, status: &HorizontalPodAutoscalerStatus, wrong: bool, took: Duration) {
        let before = self.autoscaler.status.as_ref().and_then(|s| s.last_scale_time.as_ref());
        let scaled = status.last_scale_time.as_ref() != before;
        let action = match status.desired_replicas.cmp(&status.current_replicas.unwrap_or(0)) {
            std::cmp::Ordering::Greater if scaled => "scale_up",
            std::cmp::Ordering::Less if scaled => "scale_down",
            _ => "none",
        };
        let failed = |c: &HorizontalPodAutoscalerCondition| {
            let off = c.reason.as_deref() == Some("ScalingDisabled");
            (c.type_ == ABLE || c.type_ == ACTIVE) && c.status == "False" && !off
        };
        let error = match status.conditions.iter().flatten().any(failed) {
            _ if wrong => "spec",
            true => "internal",
            false => "none",
        };
        crate::metrics::autoscaler(action, error, took);
        let all = self.state.known.lock().len();
        let (namespace, name) = (self.key.namespace(), self.key.name());
        crate::metrics::autoscaler_wishes(namespace, name, status.desired_replicas, all);
    }
}
