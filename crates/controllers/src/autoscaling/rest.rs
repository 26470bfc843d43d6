//! Measurements out of the metrics APIs (kubernetes/kubernetes, `pkg/controller/podautoscaler/metrics/client.go`).

use std::time::Duration;

use base::Timestamp;
use client::discover;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use types::Quantity;

use super::metrics::{Metrics, MetricsError, Sample, Samples};

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
/// What custom metrics are measured over if nothing else is said.
const WINDOW: Duration = Duration::from_secs(60);

/// Asks the API.
pub(super) struct Rest(pub(super) Client);

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Name,
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: std::collections::BTreeMap<String, String>,
}

/// A value of a custom or an external metric.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    described_object: Option<Name>,
    timestamp: Option<Timestamp>,
    #[serde(alias = "window")]
    window_seconds: Option<u64>,
    value: String,
}

fn millis(text: &str) -> i64 {
    text.parse().map_or(0, Quantity::millis)
}

/// A span as Go writes it: `1m0s`, `15.5s`.
fn span(text: &str) -> Duration {
    let (mut total, mut rest) = (0.0, text);
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit() && c != '.') {
        let number: f64 = rest[..end].parse().unwrap_or(0.0);
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        total += number
            * match &rest[end..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => 0.0,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).unwrap_or_default()
}

fn sample(pod: &PodMetrics, value: i64) -> (String, Sample) {
    (pod.metadata.name.clone(), Sample { at: pod.timestamp, window: span(&pod.window), value })
}

/// `getPodMetrics`: pods of which all containers were measured.
fn of_pods(all: &[PodMetrics], resource: &str) -> Samples {
    let sum = |pod: &PodMetrics| {
        let used = |c: &ContainerMetrics| c.usage.get(resource).map(|text| millis(text));
        let all =
            pod.containers.iter().map(used).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())?;
        Some(all.into_iter().fold(0, i64::saturating_add))
    };
    all.iter().filter_map(|pod| Some(sample(pod, sum(pod)?))).collect()
}

/// `getContainerMetrics`.
fn of_container(all: &[PodMetrics], resource: &str, name: &str) -> Result<Samples, MetricsError> {
    let mut samples = Samples::new();
    for pod in all {
        let container = pod.containers.iter().find(|c| c.name == name);
        let container = container.ok_or_else(|| MetricsError::NoContainer {
            container: name.to_owned(),
            namespace: pod.metadata.namespace.clone(),
            pod: pod.metadata.name.clone(),
        })?;
        samples.extend(container.usage.get(resource).map(|text| sample(pod, millis(text))));
    }
    Ok(samples)
}

/// A part of a path or a query.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let write = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(write).collect()
}

fn query(path: String, pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={}", escape(value))).collect();
    if pairs.is_empty() { path } else { format!("{path}?{}", pairs.join("&")) }
}

impl Rest {
    async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.0.request(request).await
    }

    async fn list<T: for<'a> Deserialize<'a>>(
        &self,
        api: &'static str,
        path: &str,
        what: &str,
    ) -> Result<Vec<T>, MetricsError> {
        let answer = self.get(path).await.map_err(|error| fetch(api, said(&error, what)))?;
        let list: List<T> = serde_json::from_value(answer).map_err(|error| fetch(api, error.to_string()))?;
        Ok(list.items)
    }

    /// The newest version of custom metrics that somebody serves and we know.
    async fn custom(&self) -> Result<&'static str, MetricsError> {
        let group = self.get(&format!("/apis/{CUSTOM}")).await.unwrap_or_default();
        let versions = group["versions"].as_array().cloned().unwrap_or_default();
        let known = ["v1beta2", "v1beta1"].into_iter().find(|v| versions.iter().any(|x| x["version"] == *v));
        known.ok_or_else(|| fetch("custom", format!("no custom metrics API ({CUSTOM}) registered")))
    }

    /// What objects of a kind are called: `ingresses.networking.k8s.io`.
    async fn plural(&self, object: &CrossVersionObjectReference) -> Result<String, MetricsError> {
        let group = object.api_version.as_deref().unwrap_or_default();
        let group = group.split_once('/').map_or("", |(group, _)| group);
        let (kinds, _) = discover(&self.0).await.map_err(|error| fetch("custom", client::message(&error)))?;
        let kind = kinds.into_iter().find(|d| d.resource.group == group && d.resource.kind == object.kind);
        let kind = kind.ok_or_else(|| {
            let kind = &object.kind;
            let why = format!("unable to map kind {kind}.{group} to resource: no matches for kind {kind:?} in group {group:?}");
            fetch("custom", why)
        })?;
        let dot = if group.is_empty() { "" } else { "." };
        Ok(format!("{}{dot}{group}", kind.resource.plural))
    }
}

fn fetch(api: &'static str, why: String) -> MetricsError {
    MetricsError::Fetch { api, why }
}

/// An API that is not there is told of as client-go does.
fn said(error: &kube::Error, what: &str) -> String {
    let said = client::message(error);
    let nobody = client::is_not_found(error)
        && (said.contains("page not found") || said.contains("requested resource"));
    if nobody { format!("the server could not find the requested resource (get {what})") } else { said }
}

fn some<T>(api: &'static str, items: Vec<T>) -> Result<Vec<T>, MetricsError> {
    if items.is_empty() { Err(MetricsError::Nothing { api }) } else { Ok(items) }
}

impl Metrics for Rest {
    fn resource<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        resource: &'a str,
        container: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Samples, MetricsError>> {
        async move {
            let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
            let path = query(path, &[("labelSelector", selector)]);
            let all: Vec<PodMetrics> =
                some("resource", self.list("resource", &path, "pods.metrics.k8s.io").await?)?;
            match container {
                Some(container) => of_container(&all, resource, container),
                None => Ok(of_pods(&all, resource)),
            }
        }
        .boxed()
    }

    fn pods<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        metric: &'a str,
        of: &'a str,
    ) -> BoxFuture<'a, Result<Samples, MetricsError>> {
        async move {
            let version = self.custom().await?;
            let path = format!("/apis/{CUSTOM}/{version}/namespaces/{namespace}/pods/*/{}", escape(metric));
            // Without a selector all pods count.
            let path = query(path, &[("labelSelector", selector), ("metricLabelSelector", of)]);
            let all: Vec<Measured> =
                some("custom", self.list("custom", &path, &format!("pods.{CUSTOM}")).await?)?;
            let samples = all.into_iter().filter_map(|measured| {
                let window = measured.window_seconds.map_or(WINDOW, Duration::from_secs);
                let at = measured.timestamp.unwrap_or(Timestamp::UNIX_EPOCH);
                Some((measured.described_object?.name, Sample { at, window, value: millis(&measured.value) }))
            });
            Ok(samples.collect())
        }
        .boxed()
    }

    fn object<'a>(
        &'a self,
        namespace: &'a str,
        object: &'a CrossVersionObjectReference,
        metric: &'a str,
        of: &'a str,
    ) -> BoxFuture<'a, Result<i64, MetricsError>> {
        async move {
            let is_core = object.api_version.as_deref().is_none_or(|v| !v.contains('/'));
            let version = self.custom().await?;
            let metric = escape(metric);
            // Nobody looks out of their own namespace, whatever name is written there.
            let (what, path) = if is_core && object.kind == "Namespace" {
                ("metrics".to_owned(), format!("metrics/{metric}"))
            } else {
                let plural = self.plural(object).await?;
                let path = format!("{plural}/{}/{metric}", escape(&object.name));
                (plural, path)
            };
            let path = format!("/apis/{CUSTOM}/{version}/namespaces/{namespace}/{path}");
            let path = query(path, &[("metricLabelSelector", of)]);
            let all: Vec<Measured> = self.list("custom", &path, &format!("{what}.{CUSTOM}")).await?;
            match &all[..] {
                [one] => Ok(millis(&one.value)),
                others => Err(fetch(
                    "custom",
                    format!(
                        "the custom metrics API server returned {} results when we asked for exactly one",
                        others.len()
                    ),
                )),
            }
        }
        .boxed()
    }

    fn external<'a>(
        &'a self,
        namespace: &'a str,
        metric: &'a str,
        of: &'a str,
    ) -> BoxFuture<'a, Result<Vec<i64>, MetricsError>> {
        async move {
            let path = format!("/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{}", escape(metric));
            let path = query(path, &[("labelSelector", of)]);
            let all: Vec<Measured> = self.list("external", &path, &format!("{metric}.{EXTERNAL}")).await?;
            Ok(some("external", all)?.iter().map(|measured| millis(&measured.value)).collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_count_when_all_their_containers_were_measured() {
        let pod = |name: &str, containers: Value| {
            json!({"metadata": {"name": name, "namespace": "n"}, "timestamp": "2026-01-01T00:00:00Z",
                "window": "1m30.5s", "containers": containers})
        };
        let all: List<PodMetrics> = testkit::object(json!({"kind": "PodMetricsList", "items": [
            pod("a", json!([{"name": "x", "usage": {"cpu": "100m", "memory": "1Mi"}}, {"name": "y", "usage": {"cpu": "5000001n"}}])),
            pod("b", json!([{"name": "x", "usage": {"cpu": "1"}}, {"name": "y", "usage": {}}])),
            pod("c", json!([])),
        ]}));
        let found = of_pods(&all.items, "cpu");
        assert_eq!(found.len(), 1);
        assert_eq!((found["a"].value, found["a"].window), (106, Duration::from_millis(90_500)));
        let found = of_container(&all.items[..2], "cpu", "x").unwrap();
        assert_eq!((found["a"].value, found["b"].value), (100, 1000));
        assert_eq!(
            of_container(&all.items, "cpu", "x").unwrap_err().to_string(),
            "failed to get container metrics: container x not present in metrics for pod n/c"
        );
    }

    #[test]
    fn both_versions_of_custom_metrics_are_read() {
        for window in ["window", "windowSeconds"] {
            let one: Measured =
                testkit::object(json!({"describedObject": {"kind": "Pod", "name": "a"}, window: 30,
                "metric": {"name": "m"}, "timestamp": "2026-01-01T00:00:00Z", "value": "1500m"}));
            assert_eq!((one.window_seconds, millis(&one.value)), (Some(30), 1500));
        }
    }

    #[test]
    fn selectors_travel_in_one_piece() {
        let path = query("/p".into(), &[("labelSelector", "app in (a,b)"), ("metricLabelSelector", "")]);
        assert_eq!(path, "/p?labelSelector=app%20in%20%28a%2Cb%29");
        assert_eq!(query("/p".into(), &[]), "/p");
    }
}
