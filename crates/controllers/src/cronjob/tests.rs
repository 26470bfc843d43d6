use std::sync::Arc;
use std::time::Duration;

use base::{Clock, ManualClock};
use client::k8s_openapi::api::batch::v1::{CronJob, Job};
use client::k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{Cluster, Outcome, run_kubelet};

use super::*;
use crate::testing::{cluster_at, config};

/// A cluster in which it is half a minute past midnight.
async fn night() -> (Cluster, ManualClock) {
    let clock = ManualClock::new("2026-02-01T00:00:30Z".parse().unwrap());
    (cluster_at(Arc::new(clock.clone())).await, clock)
}

fn cron(more: Value) -> CronJob {
    let job = testkit::job("x", json!({}));
    let mut spec = json!({"schedule": "*/10 * * * *", "jobTemplate": {"spec": job.spec}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    testkit::object(json!({"metadata": {"name": "tick"}, "spec": spec}))
}

/// Makes the controller look, as it would when the time comes.
async fn change(cluster: &Cluster, patch: Value) {
    let api = cluster.api::<CronJob>("default");
    api.patch("tick", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn pass(cluster: &Cluster, clock: &ManualClock, minutes: u64) {
    clock.advance(Duration::from_secs(minutes * 60));
    let now = clock.now().to_string();
    change(cluster, json!({"metadata": {"annotations": {"look": now}}})).await;
}

async fn jobs(cluster: &Cluster) -> Vec<String> {
    let all = cluster.api::<Job>("default").list(&ListParams::default()).await.unwrap().items;
    all.iter().map(kube::ResourceExt::name_any).collect()
}

async fn wait_jobs(cluster: &Cluster, names: &[&str]) {
    let what = format!("the jobs {names:?}");
    cluster.wait_for(&what, || async { (jobs(cluster).await == names).then_some(()) }).await;
}

async fn wait_status(cluster: &Cluster, what: &str, wish: impl Fn(&CronJobStatus) -> bool) -> CronJobStatus {
    let wish = |cron: &CronJob| wish(&cron.status.clone().unwrap_or_default());
    cluster.wait_until::<CronJob>("default", "tick", what, wish).await.status.unwrap_or_default()
}

fn active(status: &CronJobStatus) -> Vec<&str> {
    status.active.iter().flatten().filter_map(|job| job.name.as_deref()).collect()
}

async fn said(cluster: &Cluster, reason: &str, message: &str) {
    let events = cluster.api::<Event>("default");
    let fits = |e: &&Event| e.reason.as_deref() == Some(reason) && e.message.as_deref() == Some(message);
    cluster
        .wait_for(&format!("the event {reason}: {message}"), || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().find(fits).map(drop)
        })
        .await;
}

/// Minutes since the epoch at ten, twenty and thirty past midnight.
const RUNS: [&str; 3] = ["tick-29498410", "tick-29498420", "tick-29498430"];

#[tokio::test]
async fn a_job_at_each_time_and_a_short_history() {
    let (cluster, clock) = night().await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    cluster.create("default", &cron(json!({"successfulJobsHistoryLimit": 1}))).await;
    for run in RUNS {
        pass(&cluster, &clock, 10).await;
        cluster.wait_until::<Job>("default", run, "to be over", |job| ending(job).is_some()).await;
        let is = wait_status(&cluster, "the end to be seen", |s| {
            s.active.is_none() && s.last_schedule_time.is_some()
        })
        .await;
        assert!(is.last_successful_time.is_some());
    }
    wait_jobs(&cluster, &RUNS[2..]).await;
    let is = wait_status(&cluster, "the last run", |_| true).await;
    assert_eq!(is.last_schedule_time.unwrap().0.to_string(), "2026-02-01T00:30:00Z");
    said(&cluster, "SuccessfulCreate", "Created job tick-29498410").await;
    said(&cluster, "SawCompletedJob", "Saw completed job: tick-29498410, status: Complete").await;
    said(&cluster, "SuccessfulDelete", "Deleted job tick-29498410").await;
}

#[tokio::test]
async fn several_runs_at_a_time_or_one() {
    for (policy, left, running) in [
        ("Allow", &RUNS[..2], &RUNS[..2]),
        ("Forbid", &RUNS[..1], &RUNS[..1]),
        ("Replace", &RUNS[1..2], &RUNS[1..2]),
    ] {
        let (cluster, clock) = night().await;
        run_kubelet(&cluster, |_| Outcome::Running);
        cluster.create("default", &cron(json!({"concurrencyPolicy": policy}))).await;
        pass(&cluster, &clock, 10).await;
        wait_status(&cluster, "the first run", |s| active(s) == RUNS[..1]).await;
        pass(&cluster, &clock, 10).await;
        wait_jobs(&cluster, left).await;
        wait_status(&cluster, "the second run", |s| active(s) == running).await;
        if policy == "Forbid" {
            let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
            said(&cluster, "JobAlreadyActive", why).await;
        }
    }
}

#[tokio::test]
async fn what_is_too_late_is_missed() {
    let (cluster, clock) = night().await;
    cluster.create("default", &cron(json!({"startingDeadlineSeconds": 60, "suspend": true}))).await;
    pass(&cluster, &clock, 15).await;
    change(&cluster, json!({"spec": {"suspend": false}})).await;
    pass(&cluster, &clock, 5).await;
    wait_jobs(&cluster, &RUNS[1..2]).await;
}

#[tokio::test]
async fn only_the_latest_of_many_missed_runs_is_made_up_for() {
    let (cluster, clock) = night().await;
    cluster.create("default", &cron(json!({}))).await;
    pass(&cluster, &clock, 10 * 150 + 5).await;
    wait_jobs(&cluster, &["tick-29499900"]).await;
    let why =
        "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    said(&cluster, "TooManyMissedTimes", why).await;
}

#[tokio::test]
async fn a_missing_job_is_forgotten() {
    let (cluster, clock) = night().await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &cron(json!({}))).await;
    pass(&cluster, &clock, 10).await;
    wait_status(&cluster, "the run", |s| active(s) == RUNS[..1]).await;
    cluster.api::<Job>("default").delete(RUNS[0], &DeleteParams::background()).await.unwrap();
    wait_status(&cluster, "the job to be missed", |s| s.active.is_none()).await;
    said(&cluster, "MissingJob", "Active job went missing: tick-29498410").await;
    assert!(jobs(&cluster).await.is_empty(), "its time has been");
}

#[tokio::test]
async fn stopped_before_the_run_was_noted() {
    let clock = ManualClock::new("2026-02-01T00:00:30Z".parse().unwrap());
    let cluster = Cluster::start_at(Arc::new(clock.clone())).await;
    let made = cluster.create("default", &cron(json!({}))).await;
    clock.advance(Duration::from_secs(600));
    let time = "2026-02-01T00:10:00Z".parse().unwrap();
    cluster.create("default", &template::job(&made, time, &TimeZone::UTC)).await;
    crate::run(&config(&cluster));
    let is = wait_status(&cluster, "the run to be noted", |s| active(s) == RUNS[..1]).await;
    assert_eq!(is.last_schedule_time.unwrap().0, time);
    assert_eq!(jobs(&cluster).await.len(), 1);
}

#[tokio::test]
async fn a_new_schedule_begins_with_its_next_time() {
    let (cluster, clock) = night().await;
    cluster.create("default", &cron(json!({"schedule": "0 12 * * *", "timeZone": "Asia/Tokyo"}))).await;
    clock.advance(Duration::from_secs(3600));
    change(&cluster, json!({"spec": {"schedule": "*/10 * * * *"}})).await;
    pass(&cluster, &clock, 130).await;
    // Ten past three: noon in Tokyo, and ten minutes.
    wait_jobs(&cluster, &["tick-29498590"]).await;
    let job = cluster.api::<Job>("default").get("tick-29498590").await.unwrap();
    let at = &job.metadata.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(at, "2026-02-01T12:10:00+09:00");
}

/// A job is made, run, and gone; all by controllers with their own roles.
#[tokio::test]
async fn needs_no_more_rights_than_it_has() {
    let clock = ManualClock::new("2026-02-01T00:00:30Z".parse().unwrap());
    let cluster = cluster_at(Arc::new(clock.clone())).await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    let job = testkit::job("x", json!({"ttlSecondsAfterFinished": 0, "completions": 2}));
    cluster.create("default", &cron(json!({"jobTemplate": {"spec": job.spec}}))).await;
    pass(&cluster, &clock, 10).await;
    wait_status(&cluster, "a success", |s| s.last_schedule_time.is_some() && s.active.is_none()).await;
    wait_jobs(&cluster, &[]).await;
    said(&cluster, "SuccessfulCreate", "Created job tick-29498410").await;
}

#[tokio::test]
async fn a_clock_that_steps_repeats_nothing() {
    let (cluster, clock) = night().await;
    run_kubelet(&cluster, |_| Outcome::Exited(0));
    cluster.create("default", &cron(json!({}))).await;
    pass(&cluster, &clock, 10).await;
    cluster.wait_until::<Job>("default", RUNS[0], "to be over", |job| ending(job).is_some()).await;
    // Two hours back: what has been run is not due again, neither on the way.
    clock.set("2026-01-31T22:05:00Z".parse().unwrap());
    pass(&cluster, &clock, 10).await;
    pass(&cluster, &clock, 110).await;
    // Ten past midnight again is not another one; twenty past is.
    pass(&cluster, &clock, 6).await;
    assert_eq!(jobs(&cluster).await, RUNS[..1]);
    pass(&cluster, &clock, 10).await;
    wait_jobs(&cluster, &RUNS[..2]).await;
    // Five hours forward: one run for all that was missed.
    clock.set("2026-02-01T05:25:00Z".parse().unwrap());
    pass(&cluster, &clock, 0).await;
    wait_jobs(&cluster, &[RUNS[0], RUNS[1], "tick-29498720"]).await;
}
