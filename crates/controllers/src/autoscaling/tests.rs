use base::ManualClock;
use client::k8s_openapi::api::apps::v1::ReplicaSet;
use client::k8s_openapi::api::core::v1::{Event, Pod};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, Outcome, replica_set, run_kubelet};

use super::metrics::{MetricsError, Sample, Samples};
use super::*;
use crate::testing::config;

/// What everybody uses, as the test says.
#[derive(Clone, Default)]
struct Meter(Arc<Mutex<Read>>);

#[derive(Default)]
struct Read {
    each: Option<i64>,
    external: Option<i64>,
    object: Option<i64>,
    asked: u32,
    pods: Option<Informer<PodView>>,
    clock: Option<Arc<ManualClock>>,
}

impl Meter {
    fn each(&self, namespace: &str) -> Result<Samples, MetricsError> {
        let mut read = self.0.lock();
        read.asked += 1;
        let value = read.each.ok_or(MetricsError::Nothing { api: "resource" })?;
        let at = base::Clock::now(&**read.clock.as_ref().unwrap());
        let sample = Sample { at, window: Duration::from_secs(15), value };
        let pods = read.pods.as_ref().unwrap().store().list_in(namespace);
        Ok(pods.iter().map(|pod| (pod.metadata.name.clone().unwrap(), sample)).collect())
    }

    fn set(&self, change: impl FnOnce(&mut Read)) {
        change(&mut self.0.lock());
    }
}

impl Metrics for Meter {
    fn resource<'a>(
        &'a self,
        namespace: &'a str,
        _: &'a str,
        _: &'a str,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Samples, MetricsError>> {
        async move { self.each(namespace) }.boxed()
    }

    fn pods<'a>(
        &'a self,
        namespace: &'a str,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Samples, MetricsError>> {
        async move { self.each(namespace) }.boxed()
    }

    fn object<'a>(
        &'a self,
        _: &'a str,
        _: &'a CrossVersionObjectReference,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<i64, MetricsError>> {
        async move { self.0.lock().object.ok_or(MetricsError::Nothing { api: "custom" }) }.boxed()
    }

    fn external<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<i64>, MetricsError>> {
        async move { Ok(vec![self.0.lock().external.ok_or(MetricsError::Nothing { api: "external" })?]) }
            .boxed()
    }
}

struct Stage {
    cluster: Cluster,
    meter: Meter,
    clock: Arc<ManualClock>,
}

impl Stage {
    /// A cluster in which nobody but replica sets and autoscalers are at work.
    async fn set() -> Self {
        let clock = Arc::new(ManualClock::new("2026-01-01T01:00:00Z".parse().unwrap()));
        let cluster = Cluster::start_at(clock.clone()).await;
        let ctx = Context::new(&config(&cluster));
        let meter = Meter::default();
        meter.set(|read| {
            read.pods = Some(cluster.informers.of::<PodView>());
            read.clock = Some(clock.clone());
        });
        crate::replicaset::start::<ReplicaSet>(&ctx.acting_as("replicaset-controller"));
        crate::service_account::start(&ctx.acting_as("service-account-controller"));
        start_with(&ctx.acting_as("horizontal-pod-autoscaler"), Default::default(), Arc::new(meter.clone()));
        run_kubelet(&cluster, |_| Outcome::Running);
        let account = "default";
        cluster
            .wait_until::<k8s_openapi::api::core::v1::ServiceAccount>("default", account, "to be", |_| true)
            .await;
        Self { cluster, meter, clock }
    }

    async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }

    /// A replica set whose pods ask for next to no memory each, of which much can be used.
    async fn replicas(&self, name: &str, count: i32) {
        let mut set = replica_set(name, count);
        let spec = set.spec.as_mut().unwrap().template.as_mut().unwrap().spec.as_mut().unwrap();
        spec.containers[0].resources = testkit::object(json!({"requests": {"memory": "1"}}));
        self.cluster.create("default", &set).await;
        self.size(name, count).await;
    }

    /// Waits until so many pods are ready.
    async fn size(&self, name: &str, count: i32) {
        let is = |set: &ReplicaSet| {
            let status = set.status.as_ref();
            set.spec.as_ref().unwrap().replicas == Some(count)
                && status.is_some_and(|s| s.replicas == count && s.ready_replicas.unwrap_or(0) == count)
        };
        self.cluster.wait_until("default", name, &format!("to have {count} pods"), is).await;
        let seen = self.cluster.informers.of::<PodView>();
        self.cluster
            .wait_for("the pods to be seen", || async {
                let all = seen.store().list_in("default");
                let ready = all.iter().filter(|pod| crate::common::pods::is_ready(pod)).count();
                let mine = all.iter().filter(|pod| {
                    client::Labelled::labels(&***pod).is_some_and(|l| l.get("app").is_some_and(|a| a == name))
                });
                (mine.count() == count as usize && ready == all.len()).then_some(())
            })
            .await;
    }

    async fn scaler(&self, name: &str, target: &str, spec: Value) {
        let mut whole = json!({"maxReplicas": 10, "scaleTargetRef":
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": target}});
        for (field, value) in spec.as_object().unwrap() {
            whole[field] = value.clone();
        }
        let scaler: HorizontalPodAutoscaler =
            testkit::object(json!({"metadata": {"name": name}, "spec": whole}));
        self.cluster.create("default", &scaler).await;
    }

    async fn until(
        &self,
        name: &str,
        what: &str,
        wish: impl Fn(&HorizontalPodAutoscalerStatus) -> bool,
    ) -> HorizontalPodAutoscalerStatus {
        let is = |scaler: &HorizontalPodAutoscaler| scaler.status.as_ref().is_some_and(&wish);
        self.cluster.wait_until("default", name, what, is).await.status.unwrap()
    }

    /// The sentence of a condition, once it has this reason.
    async fn said(&self, name: &str, kind: &str, reason: &str) -> String {
        let status = self.until(name, reason, |status| find(status, kind, reason).is_some()).await;
        find(&status, kind, reason).unwrap()
    }

    async fn event(&self, reason: &str) -> String {
        let events = self.cluster.api::<Event>("default");
        self.cluster
            .wait_for(reason, || async {
                let all = events.list(&Default::default()).await.unwrap().items;
                all.into_iter().find(|e| e.reason.as_deref() == Some(reason))?.message
            })
            .await
    }

    /// How often was measured: nothing is looked at more often than need be.
    fn asked(&self) -> u32 {
        self.meter.0.lock().asked
    }
}

fn find(status: &HorizontalPodAutoscalerStatus, kind: &str, reason: &str) -> Option<String> {
    let all = status.conditions.as_deref().unwrap_or_default();
    all.iter().find(|c| c.type_ == kind && c.reason.as_deref() == Some(reason))?.message.clone()
}

fn by_memory(percent: i32) -> Value {
    json!([{"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

#[tokio::test]
async fn pods_come_with_the_load_and_go_when_it_has_gone_for_long() {
    let stage = Stage::set().await;
    stage.replicas("web", 2).await;
    stage.meter.set(|read| read.each = Some(900));
    stage.scaler("h-web", "web", json!({"metrics": by_memory(60)})).await;
    stage.size("web", 3).await;
    assert_eq!(
        stage.event("SuccessfulRescale").await,
        "New size: 3; reason: memory resource utilization (percentage of request) above target"
    );
    let status = stage.until("h-web", "the new size", |s| s.desired_replicas == 3).await;
    assert_eq!(
        find(&status, ABLE, "SucceededRescale").unwrap(),
        "the HPA controller was able to update the target scale to 3"
    );
    assert_eq!(
        find(&status, ACTIVE, "ValidMetricFound").unwrap(),
        "the HPA was able to successfully calculate a replica count from memory resource utilization (percentage of request)"
    );
    assert!(find(&status, LIMITED, "DesiredWithinRange").is_some());
    let used = status.current_metrics.as_ref().unwrap()[0].resource.as_ref().unwrap();
    assert_eq!(used.current.average_utilization, Some(90));
    assert_eq!(used.current.average_value.as_ref().unwrap().0, "900m");
    assert!(status.last_scale_time.is_some());

    // The load goes; for five minutes nothing does.
    stage.meter.set(|read| read.each = Some(100));
    stage.pass(15).await;
    stage.said("h-web", ABLE, "ScaleDownStabilized").await;
    let asked = stage.asked();
    stage.pass(14).await;
    assert_eq!(stage.asked(), asked, "it is looked at every fifteen seconds, however often it is written");
    for _ in 0..21 {
        stage.pass(15).await;
        let asked = stage.asked();
        let _ = tokio::time::timeout(Duration::from_millis(20), async {
            while stage.asked() == asked {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    stage.size("web", 1).await;
}

#[tokio::test]
async fn what_cannot_be_measured_is_said_and_nothing_done() {
    let stage = Stage::set().await;
    stage.replicas("web", 2).await;
    stage.scaler("h-web", "web", json!({"metrics": by_memory(50)})).await;
    let why = "failed to get memory utilization: unable to get metrics for resource memory: no metrics returned from \
        resource metrics API";
    assert_eq!(stage.event("FailedGetResourceMetric").await, why);
    assert_eq!(
        stage.said("h-web", ACTIVE, "FailedGetResourceMetric").await,
        format!("the HPA was unable to compute the replica count: {why}")
    );
    assert_eq!(
        stage.event("FailedComputeMetricsReplicas").await,
        format!(
            "invalid metrics (1 invalid out of 1), first error is: failed to get memory resource metric value: {why}"
        )
    );
    // One that answers is enough to grow, but not to shrink.
    let spec = json!({"spec": {"metrics": [by_memory(50)[0], {"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "AverageValue", "averageValue": "30"}}}]}});
    stage.meter.set(|read| read.external = Some(20_000));
    let api = stage.cluster.api::<HorizontalPodAutoscaler>("default");
    api.patch("h-web", &PatchParams::default(), &Patch::Merge(spec)).await.unwrap();
    let many = "2 metrics";
    stage.until("h-web", many, |s| s.current_metrics.as_ref().is_some_and(|m| m.len() == 2)).await;
    stage.size("web", 2).await;
    stage.meter.set(|read| read.external = Some(100_000));
    stage.pass(15).await;
    stage.size("web", 4).await;
    let from = stage.said("h-web", ACTIVE, "ValidMetricFound").await;
    assert!(from.ends_with("a replica count from external metric queue(nil)"), "{from}");
}

#[tokio::test]
async fn targets_that_cannot_be_scaled_are_told_of() {
    let stage = Stage::set().await;
    stage.scaler("gone", "nothing", json!({"metrics": by_memory(50)})).await;
    assert_eq!(
        stage.said("gone", ABLE, "FailedGetScale").await,
        "the HPA controller was unable to get the target's current scale: replicasets.apps \"nothing\" not found"
    );
    let unknown = json!({"scaleTargetRef": {"apiVersion": "x.org/v1", "kind": "Thing", "name": "t"}});
    stage.scaler("unknown", "t", unknown).await;
    assert_eq!(
        stage.said("unknown", ABLE, "FailedGetScale").await,
        "the HPA controller was unable to get the target's current scale: no matches for kind \"Thing\" in group \"x.org\""
    );
    stage.replicas("off", 0).await;
    stage.scaler("h-off", "off", json!({})).await;
    stage.said("h-off", ACTIVE, "ScalingDisabled").await;
    stage.replicas("large", 3).await;
    stage.scaler("h-large", "large", json!({"maxReplicas": 2})).await;
    stage.size("large", 2).await;
    assert_eq!(
        stage.event("SuccessfulRescale").await,
        "New size: 2; reason: Current number of replicas above Spec.MaxReplicas"
    );
    let status = stage.until("h-large", "its size", |s| s.desired_replicas == 2).await;
    assert_eq!(status.current_replicas, Some(3));
}

#[tokio::test]
async fn two_that_scale_the_same_pods_stop() {
    let stage = Stage::set().await;
    stage.replicas("web", 2).await;
    stage.meter.set(|read| read.each = Some(500));
    stage.scaler("a", "web", json!({"metrics": by_memory(50)})).await;
    stage.said("a", ACTIVE, "ValidMetricFound").await;
    stage.scaler("b", "web", json!({"metrics": by_memory(10)})).await;
    let why = stage.said("b", ACTIVE, "AmbiguousSelector").await;
    assert_eq!(why, "pods by selector app=web are controlled by multiple HPAs: [default/a default/b]");
    stage.pass(15).await;
    stage.said("a", ACTIVE, "AmbiguousSelector").await;
    let api = stage.cluster.api::<HorizontalPodAutoscaler>("default");
    api.delete("b", &DeleteParams::default()).await.unwrap();
    let seen = stage.cluster.informers.of::<HorizontalPodAutoscaler>();
    stage
        .cluster
        .wait_for("it to be gone", || async { seen.store().by_name("default", "b").is_none().then_some(()) })
        .await;
    stage.pass(15).await;
    stage.said("a", ACTIVE, "ValidMetricFound").await;
    stage.size("web", 2).await;
}

#[tokio::test]
async fn values_of_objects_and_pods_count_and_policies_slow_down() {
    let stage = Stage::set().await;
    stage.replicas("web", 2).await;
    stage.meter.set(|read| read.object = Some(90_000));
    let rules = json!({
        "metrics": [{"type": "Object", "object": {"metric": {"name": "hits"}, "target": {"type": "Value", "value": "10"},
            "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "i"}}}],
        "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
    });
    stage.scaler("h-web", "web", rules).await;
    stage.size("web", 3).await;
    assert_eq!(
        stage.event("SuccessfulRescale").await,
        "New size: 3; reason: Ingress metric hits above target"
    );
    stage.pass(15).await;
    let limited = stage.said("h-web", LIMITED, "ScaleUpLimit").await;
    assert_eq!(limited, "the desired replica count is increasing faster than the maximum scale rate");
    let api = stage.cluster.api::<ReplicaSet>("default");
    assert_eq!(api.get("web").await.unwrap().spec.unwrap().replicas, Some(3));
    stage.pass(46).await;
    stage.size("web", 4).await;
    let pods = stage.cluster.api::<Pod>("default").list(&Default::default()).await.unwrap();
    assert_eq!(pods.items.len(), 4);
}

#[tokio::test]
async fn without_a_metrics_server_the_message_is_the_known_one() {
    let stage = Stage::set().await;
    let real = rest::Rest(stage.cluster.accounts()("horizontal-pod-autoscaler"));
    let error = real.resource("default", "app=web", "cpu", None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to fetch metrics from resource metrics API: the server could not find the requested resource \
         (get pods.metrics.k8s.io)"
    );
    let error = real.pods("default", "", "hits", "").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
    );
    let error = real.external("default", "queue", "").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to fetch metrics from external metrics API: the server could not find the requested resource \
         (get queue.external.metrics.k8s.io)"
    );
}
