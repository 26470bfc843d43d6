//! Crashes between two writes, and pods that nobody looks after.

use base::Drain;
use client::Informers;
use client::k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DeleteParams, PostParams};

use super::*;
use crate::Config;
use crate::testing::config;

/// A cluster without controllers, with a job and pods of it that have ended.
async fn stopped(succeeded: usize) -> (Cluster, Job, Vec<Pod>) {
    let cluster = Cluster::start().await;
    let account: ServiceAccount = testkit::object(json!({"metadata": {"name": "default"}}));
    cluster.create("default", &account).await;
    let job = cluster.create("default", &testkit::job("work", json!({"completions": 3}))).await;
    let mut pods = Vec::new();
    for _ in 0..succeeded {
        let pod = super::super::template::pod(&job, job.spec.as_ref().unwrap(), None, None);
        let pod = cluster.create("default", &pod).await;
        let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        let name = pod.metadata.name.clone().unwrap();
        let api = cluster.api::<Pod>("default");
        pods.push(api.patch_status(&name, &PatchParams::default(), &ended).await.unwrap());
    }
    (cluster, job, pods)
}

async fn write(cluster: &Cluster, job: Job, status: Value) {
    let job = Job { status: Some(testkit::object(status)), ..job };
    cluster.api::<Job>("default").replace_status("work", &PostParams::default(), &job).await.unwrap();
}

/// Goes on, and sees that three pods were needed and three counted.
async fn goes_on(cluster: &Cluster) {
    run_kubelet(cluster, |_| Outcome::Exited(0));
    crate::run(&config(cluster));
    let job = over(cluster, "work").await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(3), None));
    assert_eq!(pods(cluster).await.len(), 3);
}

#[tokio::test]
async fn stopped_before_the_pod_was_noted() {
    let (cluster, _, _) = stopped(1).await;
    goes_on(&cluster).await;
}

#[tokio::test]
async fn stopped_before_the_finalizer_was_taken_off() {
    let (cluster, job, pods) = stopped(1).await;
    let noted = json!({"uncountedTerminatedPods": {"succeeded": [pods[0].metadata.uid]}});
    write(&cluster, job, noted).await;
    goes_on(&cluster).await;
}

#[tokio::test]
async fn stopped_before_the_pod_became_a_number() {
    let (cluster, job, pods) = stopped(2).await;
    let uids: Vec<_> = pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
    write(&cluster, job, json!({"uncountedTerminatedPods": {"succeeded": uids}})).await;
    let without = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let api = cluster.api::<Pod>("default");
    let name = pods[0].metadata.name.as_deref().unwrap();
    api.patch(name, &PatchParams::default(), &without).await.unwrap();
    goes_on(&cluster).await;
}

#[tokio::test]
async fn stopped_before_the_job_was_over() {
    let (cluster, job, _) = stopped(3).await;
    let met = json!([{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached"}]);
    write(&cluster, job, json!({"conditions": met, "startTime": "2026-01-01T00:00:00Z"})).await;
    goes_on(&cluster).await;
}

#[tokio::test]
async fn a_pod_whose_job_is_gone_is_let_go() {
    let (cluster, _, _) = stopped(2).await;
    cluster.api::<Job>("default").delete("work", &DeleteParams::orphan()).await.unwrap();
    crate::run(&config(&cluster));
    cluster
        .wait_for("finalizers to go", || async {
            let all = pods(&cluster).await;
            let held = |pod: &Pod| pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
            (!all.iter().any(held)).then_some(())
        })
        .await;
    assert_eq!(pods(&cluster).await.len(), 2, "orphans stay");
}

#[tokio::test]
async fn a_deleted_job_takes_its_running_pods_along() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    for how in [DeleteParams::foreground(), DeleteParams::background()] {
        let spec = json!({"parallelism": 3, "completions": 3});
        cluster.create("default", &testkit::job("work", spec)).await;
        cluster.wait_until::<Job>("default", "work", "to run", |job| status(job).ready == Some(3)).await;
        cluster.api::<Job>("default").delete("work", &how).await.unwrap();
        cluster.wait_gone::<Job>("default", "work").await;
        cluster.wait_for("no pods", || async { pods(&cluster).await.is_empty().then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_deleted_pod_is_replaced_and_counts_as_failed() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &testkit::job("work", json!({}))).await;
    let running = |job: &Job| status(job).ready == Some(1);
    cluster.wait_until::<Job>("default", "work", "to run", running).await;
    let name = pods(&cluster).await[0].metadata.name.clone().unwrap();
    cluster.api::<Pod>("default").delete(&name, &DeleteParams::default()).await.unwrap();
    cluster.wait_until::<Job>("default", "work", "to count", |job| status(job).failed == Some(1)).await;
    cluster.wait_gone::<Pod>("default", &name).await;
}

/// Nobody will ever run a pod that is deleted before it has a node; it must not keep its place for ever.
#[tokio::test]
async fn a_pod_that_never_ran_ends_all_the_same() {
    let cluster = cluster().await;
    cluster.create("default", &testkit::job("work", json!({"podReplacementPolicy": "Failed"}))).await;
    let name =
        cluster.wait_for("a pod", || async { pods(&cluster).await.pop() }).await.metadata.name.unwrap();
    cluster.api::<Pod>("default").delete(&name, &DeleteParams::default()).await.unwrap();
    cluster.wait_until::<Job>("default", "work", "to count", |job| status(job).failed == Some(1)).await;
    cluster.wait_gone::<Pod>("default", &name).await;
}

/// The pods show that they were counted before the cache shows the job that was written meanwhile.
#[tokio::test]
async fn no_pod_is_made_once_more_because_the_job_is_seen_late() {
    let cluster = cluster().await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    let names: Vec<String> = (0..25).map(|n| format!("work-{n}")).collect();
    for name in &names {
        cluster.create("default", &testkit::job(name, json!({}))).await;
    }
    for name in &names {
        over(&cluster, name).await;
    }
    assert_eq!(pods(&cluster).await.len(), names.len());
}

/// Controllers that are killed at any await, as by a crash of their process.
#[tokio::test]
async fn killed_again_and_again_it_counts_each_pod_once() {
    let (cluster, _, _) = stopped(0).await;
    run_kubelet(&cluster, |pod| Outcome::Exited(i32::from(number(pod).is_some_and(|n| n % 5 == 4))));
    let many = json!({"completions": 30, "parallelism": 4});
    cluster.create("default", &testkit::job("many", many)).await;
    let lossy =
        json!({"completions": 10, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    cluster.create("default", &testkit::job("lossy", lossy)).await;
    for life in 1..8 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        {
            let _inside = runtime.enter();
            let drain = Drain::new();
            let informers = Informers::new(cluster.client.clone(), drain.clone());
            crate::run(&Config { informers, drain, ..config(&cluster) });
        }
        let enough = life * 5;
        cluster
            .wait_for("some pods", || async { (pods(&cluster).await.len() >= enough).then_some(()) })
            .await;
        // Nothing of it runs any more when this is done.
        tokio::task::spawn_blocking(|| drop(runtime)).await.unwrap();
        // Whatever was on its way is written before this is.
        let map: ConfigMap = testkit::object(json!({"metadata": {"name": format!("life-{life}")}}));
        cluster.create("default", &map).await;
    }
    crate::run(&config(&cluster));
    let (many, lossy) = (status(&over(&cluster, "many").await), status(&over(&cluster, "lossy").await));
    assert_eq!((many.succeeded, many.failed), (Some(30), None));
    assert_eq!(
        (lossy.completed_indexes.as_deref(), lossy.failed_indexes.as_deref()),
        (Some("0-3,5-8"), Some("4,9"))
    );
    assert_eq!((lossy.succeeded, lossy.failed), (Some(8), Some(4)));
    over(&cluster, "work").await;
    assert_eq!(pods(&cluster).await.len(), 30 + 12 + 3);
}
