//! What a pod asks for, in all.

use client::{Amounts, PodSpecView, pod_requests};
use k8s_openapi::api::core::v1::Pod;

/// What a pod needs at most at any one time, as the scheduler counts it.
pub(crate) fn requests(pod: &Pod) -> Amounts {
    let view = pod.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok());
    let view: Option<PodSpecView> = view.and_then(|value| serde_json::from_value(value).ok());
    view.as_ref().map(pod_requests).unwrap_or_default()
}
