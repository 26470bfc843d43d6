//! What an autoscaler says of itself.

use base::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerCondition as Condition, HorizontalPodAutoscalerStatus as Status, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const ABLE: &str = "AbleToScale";
pub(super) const ACTIVE: &str = "ScalingActive";
pub(super) const LIMITED: &str = "ScalingLimited";

/// Says in a condition how things are (`setConditionInList`).
pub(super) fn set(status: &mut Status, kind: &str, is: bool, reason: &str, message: String, now: Timestamp) {
    let all = status.conditions.get_or_insert_default();
    let at = all.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
        all.push(Condition { type_: kind.to_owned(), ..Default::default() });
        all.len() - 1
    });
    let (condition, value) = (&mut all[at], if is { "True" } else { "False" });
    if condition.status != value {
        condition.last_transition_time = Some(Time(now));
        condition.status = value.to_owned();
    }
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message);
}

/// The numbers that go with the conditions (`setStatus`).
pub(super) fn count(status: &mut Status, current: i32, desired: i32, metrics: Option<Vec<MetricStatus>>) {
    *status = Status {
        conditions: status.conditions.take(),
        current_metrics: metrics.filter(|all| !all.is_empty()),
        current_replicas: Some(current),
        desired_replicas: desired,
        last_scale_time: status.last_scale_time.take(),
        observed_generation: None,
    };
}
