mod ends;
mod races;

use client::k8s_openapi::api::batch::v1::{Job, JobStatus};
use client::k8s_openapi::api::core::v1::{Event, Pod};
use client::{controller_of, is_controlled_by};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, Outcome, run_kubelet};

use super::ask::*;
use super::track::is_settled;
use crate::testing::cluster;

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

/// Types and reasons of the conditions that hold.
fn conditions(job: &Job) -> Vec<String> {
    let all = status(job).conditions.unwrap_or_default();
    let holding = all.into_iter().filter(|c| c.status == "True");
    holding.map(|c| format!("{} {}", c.type_, c.reason.unwrap_or_default())).collect()
}

async fn over(cluster: &Cluster, name: &str) -> Job {
    cluster.wait_until::<Job>("default", name, "to be over", |job| ending(job).is_some()).await
}

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items
}

async fn said(cluster: &Cluster, reason: &str, message: &str) {
    let events = cluster.api::<Event>("default");
    let what = format!("the event {reason}: {message}");
    let fits = |e: &&Event| e.reason.as_deref() == Some(reason) && e.message.as_deref() == Some(message);
    cluster
        .wait_for(&what, || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().find(fits).map(drop)
        })
        .await;
}

async fn change(cluster: &Cluster, name: &str, patch: Value) {
    let api = cluster.api::<Job>("default");
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

fn number(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

#[tokio::test]
async fn a_plain_job_runs_to_its_end() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    cluster.create("default", &testkit::job("work", json!({"completions": 40, "parallelism": 7}))).await;
    let job = over(&cluster, "work").await;
    let is = status(&job);
    assert_eq!((is.succeeded, is.failed, is.active), (Some(40), None, None));
    assert_eq!((is.ready, is.terminating), (Some(0), Some(0)));
    assert!(is.start_time.is_some() && is.completion_time.is_some() && is_settled(&is));
    assert_eq!(conditions(&job), ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"]);
    let pods = pods(&cluster).await;
    assert_eq!(pods.len(), 40, "none was made twice");
    assert!(pods.iter().all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)));
}

#[tokio::test]
async fn an_indexed_job_has_a_pod_for_each_index() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    cluster.create("default", &testkit::job("work", spec)).await;
    let is = status(&over(&cluster, "work").await);
    assert_eq!((is.succeeded, is.completed_indexes.as_deref()), (Some(4), Some("0-3")));
    let mut pods = pods(&cluster).await;
    pods.sort_by_key(number);
    for (index, pod) in pods.iter().enumerate() {
        let name = format!("work-{index}");
        assert!(pod.metadata.name.as_ref().unwrap().starts_with(&format!("{name}-")));
        assert_eq!(pod.metadata.labels.as_ref().unwrap()[INDEX], index.to_string());
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.hostname.as_deref(), Some(name.as_str()));
        assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
        said(&cluster, "SuccessfulCreate", &format!("Created pod: {}", pod.metadata.name.as_ref().unwrap()))
            .await;
    }
    said(&cluster, "Completed", "Job completed").await;
}

#[tokio::test]
async fn parallelism_may_change() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::job("work", json!({"completions": 9, "parallelism": 5}))).await;
    let counts = |job: &Job| (status(job).active.unwrap_or(0), status(job).ready.unwrap_or(0));
    cluster.wait_until::<Job>("default", "work", "5 ready", |job| counts(job) == (5, 5)).await;
    change(&cluster, "work", json!({"spec": {"parallelism": 2}})).await;
    let job = cluster
        .wait_until::<Job>("default", "work", "2 left", |job| {
            counts(job) == (2, 2) && status(job).terminating == Some(0)
        })
        .await;
    assert_eq!(status(&job).failed, None, "what was too much has not failed");
    change(&cluster, "work", json!({"spec": {"parallelism": 3}})).await;
    cluster.wait_until::<Job>("default", "work", "3 ready", |job| counts(job) == (3, 3)).await;
}

#[tokio::test]
async fn a_suspended_job_has_no_pods() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::job("work", json!({"suspend": true}))).await;
    let is_suspended = |job: &Job| holding(job, "Suspended").is_some() && status(job).active.is_none();
    let job = cluster.wait_until::<Job>("default", "work", "to be suspended", is_suspended).await;
    assert_eq!((status(&job).start_time, conditions(&job)), (None, vec!["Suspended JobSuspended".into()]));
    said(&cluster, "Suspended", "Job suspended").await;
    change(&cluster, "work", json!({"spec": {"suspend": false}})).await;
    let job =
        cluster.wait_until::<Job>("default", "work", "to run", |job| status(job).active == Some(1)).await;
    assert!(status(&job).start_time.is_some() && conditions(&job).is_empty());
    said(&cluster, "Resumed", "Job resumed").await;
    change(&cluster, "work", json!({"spec": {"suspend": true}})).await;
    cluster.wait_until::<Job>("default", "work", "to be suspended", is_suspended).await;
    cluster.wait_for("no pods", || async { pods(&cluster).await.is_empty().then_some(()) }).await;
    assert_eq!(status(&cluster.api::<Job>("default").get("work").await.unwrap()).failed, None);
}

#[tokio::test]
async fn adopts_orphans_and_lets_go_of_misfits() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::pod("orphan", "work")).await;
    let spec = json!({"manualSelector": true, "selector": {"matchLabels": {"app": "work"}}});
    let job = cluster.create("default", &testkit::job("work", spec)).await;
    let uid = job.metadata.uid.unwrap();
    let adopted = |pod: &Pod| {
        let finalizers = pod.metadata.finalizers.iter().flatten();
        is_controlled_by(&pod.metadata, &uid) && finalizers.into_iter().any(|f| f == FINALIZER)
    };
    cluster.wait_until::<Pod>("default", "orphan", "to be adopted", adopted).await;
    cluster.wait_until::<Job>("default", "work", "a pod", |job| status(job).active == Some(1)).await;
    assert_eq!(pods(&cluster).await.len(), 1);
    let other = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    let api = cluster.api::<Pod>("default");
    api.patch("orphan", &PatchParams::default(), &other).await.unwrap();
    let released = |pod: &Pod| {
        controller_of(&pod.metadata).is_none() && pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
    };
    cluster.wait_until::<Pod>("default", "orphan", "to be released", released).await;
    cluster
        .wait_for("another pod", || async {
            pods(&cluster).await.iter().any(|pod| is_controlled_by(&pod.metadata, &uid)).then_some(())
        })
        .await;
}

#[tokio::test]
async fn jobs_of_other_controllers_are_left_alone() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    cluster.create("default", &testkit::job("theirs", json!({"managedBy": "example.com/queue"}))).await;
    let spec = json!({"managedBy": "kubernetes.io/job-controller"});
    cluster.create("default", &testkit::job("ours", spec)).await;
    over(&cluster, "ours").await;
    let theirs = cluster.api::<Job>("default").get("theirs").await.unwrap();
    assert_eq!(status(&theirs), JobStatus::default());
    assert_eq!(pods(&cluster).await.len(), 1);
}
