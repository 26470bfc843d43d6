//! What autoscalers measure, whoever measures it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::Timestamp;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;

/// What was measured of one pod, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    /// How long it was measured.
    pub(super) window: Duration,
    pub(super) value: i64,
}

/// By pods' names.
pub(super) type Samples = BTreeMap<String, Sample>;

/// Why there is nothing to go by.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetricsError {
    #[error("unable to fetch metrics from {api} metrics API: {why}")]
    Fetch { api: &'static str, why: String },
    #[error("no metrics returned from {api} metrics API")]
    Nothing { api: &'static str },
    #[error(
        "failed to get container metrics: container {container} not present in metrics for pod {namespace}/{pod}"
    )]
    NoContainer { container: String, namespace: String, pod: String },
}

/// Whom autoscalers ask. Selectors are in the form they have in requests.
pub(super) trait Metrics: Send + Sync + 'static {
    /// What pods, or one container of each, use of a resource.
    fn resource<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        resource: &'a str,
        container: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Samples, MetricsError>>;

    /// What pods say of themselves.
    fn pods<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        metric: &'a str,
        of: &'a str,
    ) -> BoxFuture<'a, Result<Samples, MetricsError>>;

    /// What is said of an object.
    fn object<'a>(
        &'a self,
        namespace: &'a str,
        object: &'a CrossVersionObjectReference,
        metric: &'a str,
        of: &'a str,
    ) -> BoxFuture<'a, Result<i64, MetricsError>>;

    /// What somebody outside the cluster says.
    fn external<'a>(
        &'a self,
        namespace: &'a str,
        metric: &'a str,
        of: &'a str,
    ) -> BoxFuture<'a, Result<Vec<i64>, MetricsError>>;
}
