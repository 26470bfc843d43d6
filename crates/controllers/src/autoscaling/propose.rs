//! What each metric of an autoscaler asks for (kubernetes/kubernetes, `pkg/controller/podautoscaler/horizontal.go`,
//! `computeReplicasForMetrics`).

use std::sync::Arc;

use base::Timestamp;
use client::PodView;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource,
    PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::calculate::{Asked, Tolerance, by_average, by_share, by_total, by_utilization};
use super::metrics::{Metrics, MetricsError};
use super::requests::Requests;
use super::settings::AutoscalingSettings;
use super::why::Why;

/// Whom is asked about.
pub(super) struct About<'a> {
    pub(super) namespace: &'a str,
    /// Which pods, as requests say it.
    pub(super) selector: &'a str,
    pub(super) pods: &'a [Arc<PodView>],
    /// How many pods are wished for at present, and how many there are.
    pub(super) wished: i32,
    pub(super) there: i32,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
    pub(super) settings: AutoscalingSettings,
}

/// What one metric asks for.
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// What the metric is called before people.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric asks for nothing: the reason and the sentence of condition and event, and what was tried on the whole.
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) why: Why,
    /// Without any, the sentence is all there is to say.
    pub(super) attempt: Option<String>,
}

fn refuse(reason: &'static str, attempt: String) -> impl FnOnce(Why) -> Refusal {
    move |why| Refusal { reason, why, attempt: Some(attempt) }
}

fn millis(quantity: &Quantity) -> i64 {
    quantity.0.parse().map_or(0, types::Quantity::millis)
}

fn quantity(millis: i64) -> Option<Quantity> {
    Some(Quantity(types::Quantity::from_millis(millis).to_string()))
}

fn average(millis: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: quantity(millis), ..Default::default() }
}

fn value(millis: i64) -> MetricValueStatus {
    MetricValueStatus { value: quantity(millis), ..Default::default() }
}

/// A selector as requests say it; none selects everything nowhere but here.
fn selector(metric: &MetricIdentifier) -> Result<String, Why> {
    let Some(selector) = &metric.selector else { return Ok(String::new()) };
    client::selector(selector).map(|s| s.to_string()).map_err(Why::Selector)
}

/// A selector as upstream shows it in messages.
fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let more = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
    });
    let more: String = more.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{more}}},}}"
    )
}

impl About<'_> {
    fn asked(&self) -> Asked<'_> {
        Asked {
            pods: self.pods,
            current: self.wished,
            tolerance: self.tolerance,
            now: self.now,
            settings: self.settings,
        }
    }

    pub(super) async fn ask(&self, metrics: &dyn Metrics, spec: &MetricSpec) -> Result<Proposal, Refusal> {
        match (spec.type_.as_str(), spec) {
            ("Resource", MetricSpec { resource: Some(source), .. }) => {
                let attempt = format!("failed to get {} resource metric value", source.name);
                let (replicas, name, current) = self
                    .resource(metrics, &source.name, None, &source.target)
                    .await
                    .map_err(refuse("FailedGetResourceMetric", attempt))?;
                let resource = Some(ResourceMetricStatus { name: source.name.clone(), current });
                Ok(proposal(spec, replicas, name, MetricStatus { resource, ..Default::default() }))
            }
            ("ContainerResource", MetricSpec { container_resource: Some(source), .. }) => {
                let attempt = format!("failed to get {} container metric value", source.container);
                let (replicas, name, current) = self
                    .resource(metrics, &source.name, Some(&source.container), &source.target)
                    .await
                    .map_err(refuse("FailedGetContainerResourceMetric", attempt))?;
                let (name_of, container) = (source.name.clone(), source.container.clone());
                let container_resource =
                    Some(ContainerResourceMetricStatus { name: name_of, container, current });
                Ok(proposal(spec, replicas, name, MetricStatus { container_resource, ..Default::default() }))
            }
            ("Pods", MetricSpec { pods: Some(source), .. }) => {
                let refuse = refuse("FailedGetPodsMetric", "failed to get pods metric value".into());
                let (replicas, status) = self.pods(metrics, source).await.map_err(refuse)?;
                let name = format!("pods metric {}", source.metric.name);
                Ok(proposal(spec, replicas, name, MetricStatus { pods: Some(status), ..Default::default() }))
            }
            ("Object", MetricSpec { object: Some(source), .. }) => {
                let refuse = refuse("FailedGetObjectMetric", "failed to get object metric value".into());
                let (replicas, name, status) = self.object(metrics, source).await.map_err(refuse)?;
                Ok(proposal(
                    spec,
                    replicas,
                    name,
                    MetricStatus { object: Some(status), ..Default::default() },
                ))
            }
            ("External", MetricSpec { external: Some(source), .. }) => {
                let attempt = format!("failed to get {} external metric value", source.metric.name);
                let refuse = refuse("FailedGetExternalMetric", attempt);
                let (replicas, status) = self.external(metrics, source).await.map_err(refuse)?;
                let name = external_name(&source.metric);
                Ok(proposal(
                    spec,
                    replicas,
                    name,
                    MetricStatus { external: Some(status), ..Default::default() },
                ))
            }
            (other, _) => Err(Refusal {
                reason: "InvalidMetricSourceType",
                why: Why::UnknownType(other.to_owned()),
                attempt: None,
            }),
        }
    }

    async fn resource(
        &self,
        metrics: &dyn Metrics,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(i32, String, MetricValueStatus), Why> {
        let fetch = async || {
            let found = metrics.resource(self.namespace, self.selector, resource, container).await;
            found
                .map_err(|e| Why::Metrics(e).during(format!("unable to get metrics for resource {resource}")))
        };
        if let Some(target) = &target.average_value {
            let usage =
                async { by_average(&self.asked(), fetch().await?, resource == "cpu", millis(target)) };
            let (replicas, usage) =
                usage.await.map_err(|why| why.during(format!("failed to get {resource} usage")))?;
            return Ok((replicas, format!("{resource} resource"), average(usage)));
        }
        let Some(target) = target.average_utilization else {
            return Err(Why::NoTarget { what: "resource" });
        };
        let requests = Requests { resource, container };
        let usage = async { by_utilization(&self.asked(), fetch().await?, &requests, target) };
        let (replicas, usage) =
            usage.await.map_err(|why| why.during(format!("failed to get {resource} utilization")))?;
        let whose = if container.is_some() { "container resource" } else { "resource" };
        let name = format!("{resource} {whose} utilization (percentage of request)");
        let current =
            MetricValueStatus { average_utilization: Some(usage.percent), ..average(usage.average) };
        Ok((replicas, name, current))
    }

    async fn pods(
        &self,
        metrics: &dyn Metrics,
        source: &PodsMetricSource,
    ) -> Result<(i32, PodsMetricStatus), Why> {
        let metric = &source.metric;
        let of = selector(metric)?;
        let found = metrics.pods(self.namespace, self.selector, &metric.name, &of).await;
        let samples = found.map_err(unable(&metric.name))?;
        let target = source.target.average_value.as_ref().map_or(0, millis);
        let (replicas, usage) = by_average(&self.asked(), samples, false, target)?;
        Ok((replicas, PodsMetricStatus { metric: metric.clone(), current: average(usage) }))
    }

    async fn object(
        &self,
        metrics: &dyn Metrics,
        source: &ObjectMetricSource,
    ) -> Result<(i32, String, ObjectMetricStatus), Why> {
        let (metric, object) = (&source.metric, &source.described_object);
        let of = selector(metric)?;
        let fetch = async || {
            let found = metrics.object(self.namespace, object, &metric.name, &of).await;
            found.map_err(|why| {
                let whose = format!("{} {}/{}", object.kind, self.namespace, object.name);
                Why::Unable { metric: metric.name.clone(), why, whose }
            })
        };
        let status = |current| ObjectMetricStatus {
            described_object: object.clone(),
            metric: metric.clone(),
            current,
        };
        let target = &source.target;
        match (target.type_.as_str(), &target.value, &target.average_value) {
            ("Value", Some(target), _) => {
                let usage = fetch().await?;
                let replicas = by_total(&self.asked(), usage, millis(target))?;
                Ok((replicas, format!("{} metric {}", object.kind, metric.name), status(value(usage))))
            }
            ("AverageValue", _, Some(target)) => {
                let usage = fetch()
                    .await
                    .map_err(|why| why.during(format!("failed to get {} object metric", metric.name)))?;
                let (replicas, share) = by_share(self.there, usage, millis(target), self.tolerance);
                Ok((replicas, external_name(metric), status(average(share))))
            }
            _ => Err(Why::NoTarget { what: "object" }),
        }
    }

    async fn external(
        &self,
        metrics: &dyn Metrics,
        source: &ExternalMetricSource,
    ) -> Result<(i32, ExternalMetricStatus), Why> {
        let metric = &source.metric;
        let fetch = async || {
            let of = selector(metric)?;
            let found = metrics.external(self.namespace, &metric.name, &of).await.map_err(|e| {
                let which = format!("{}/{}/{}", self.namespace, metric.name, shown(metric.selector.as_ref()));
                Why::Metrics(e).during(format!("unable to get external metric {which}"))
            })?;
            Ok(found.into_iter().fold(0_i64, i64::saturating_add))
        };
        let status = |current| ExternalMetricStatus { metric: metric.clone(), current };
        if let Some(target) = &source.target.average_value {
            let usage: Result<i64, Why> = fetch().await;
            let usage =
                usage.map_err(|why| why.during(format!("failed to get {} external metric", metric.name)))?;
            let (replicas, share) = by_share(self.there, usage, millis(target), self.tolerance);
            return Ok((replicas, status(average(share))));
        }
        let Some(target) = &source.target.value else { return Err(Why::NoTarget { what: "external" }) };
        let counted = async {
            let usage: i64 = fetch().await?;
            Ok((by_total(&self.asked(), usage, millis(target))?, usage))
        };
        let (replicas, usage) = counted
            .await
            .map_err(|why: Why| why.during(format!("failed to get external metric {}", metric.name)))?;
        Ok((replicas, status(value(usage))))
    }
}

fn external_name(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, shown(metric.selector.as_ref()))
}

fn unable(metric: &str) -> impl FnOnce(MetricsError) -> Why {
    move |error| Why::Metrics(error).during(format!("unable to get metric {metric}"))
}

fn proposal(spec: &MetricSpec, replicas: i32, name: String, status: MetricStatus) -> Proposal {
    Proposal { replicas, name, status: MetricStatus { type_: spec.type_.clone(), ..status } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_shown_as_upstream_shows_them() {
        assert_eq!(shown(None), "nil");
        let selector: LabelSelector = testkit::object(json!({"matchLabels": {"queue": "q", "a": "b"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}));
        assert_eq!(
            shown(Some(&selector)),
            "&LabelSelector{MatchLabels:map[string]string{a: b,queue: q,},MatchExpressions:\
             []LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
        assert_eq!(
            Why::NoTarget { what: "external" }.to_string(),
            "invalid external metric source: neither a \
            value target nor an average value target was set"
        );
        assert_eq!(
            Why::NoTarget { what: "resource" }.to_string(),
            "invalid resource metric source: neither an \
            average utilization target nor an average value (usage) target was set"
        );
    }
}
