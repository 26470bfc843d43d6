//! Jobs that have been over for long enough go (kubernetes/kubernetes,
//! `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`).

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Controller, Informer, Key, Next, is_deleting};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions};

use crate::context::Context;
use crate::error::{Attempt, Error};
use crate::job::ending;

struct State {
    ctx: Context,
    jobs: Informer<Job>,
}

pub(crate) fn start(ctx: &Context) {
    let jobs = ctx.informers.of::<Job>();
    let controller =
        Controller::new("ttl-after-finished").watches(&jobs, |job: &Job| expiry(job).map(|_| Key::of(job)));
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), jobs }), look);
}

/// When the job goes, if it does.
fn expiry(job: &Job) -> Option<Timestamp> {
    let lives = job.spec.as_ref()?.ttl_seconds_after_finished.filter(|_| !is_deleting(&job.metadata))?;
    let over = ending(job)?.last_transition_time.as_ref()?.0;
    over.checked_add(Duration::from_secs(lives.max(0).unsigned_abs().into())).ok()
}

/// How long the job stays.
fn remaining(job: &Job, now: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(expiry(job)?.duration_since(now)).unwrap_or(Duration::ZERO))
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let now = state.ctx.now();
    match state.jobs.get(&key).and_then(|job| remaining(&job, now)) {
        None => return Ok(Next::Done),
        Some(left) if !left.is_zero() => return Ok(Next::After(left)),
        Some(_) => {}
    }
    // Somebody may have given it a longer life, and the cache not show it yet.
    let api = state.ctx.api::<Job>(key.namespace());
    let Some(job) = api.get_opt(key.name()).await.attempt(|| format!("look at job {key}"))? else {
        return Ok(Next::Done);
    };
    match remaining(&job, now) {
        None => return Ok(Next::Done),
        Some(left) if !left.is_zero() => return Ok(Next::After(left)),
        Some(_) => {}
    }
    let late = expiry(&job).and_then(|due| Duration::try_from(now.duration_since(due)).ok());
    let only = Preconditions { uid: job.metadata.uid, resource_version: job.metadata.resource_version };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::foreground() };
    match api.delete(key.name(), &params).await {
        Err(error) if client::is_not_found(&error) => Ok(Next::Done),
        outcome => {
            outcome.attempt(|| format!("delete job {key}"))?;
            crate::metrics::job_expired(late.unwrap_or_default());
            Ok(Next::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cluster;
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::ListParams;
    use serde_json::json;
    use testkit::{Outcome, run_kubelet};

    #[test]
    fn lives_on_for_so_many_seconds() {
        let job = |end: &str, ttl: Option<i32>| -> Job {
            testkit::object(json!({"spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": end, "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}}))
        };
        let now = "2026-01-01T00:00:15Z".parse().unwrap();
        assert_eq!(remaining(&job("Complete", Some(7)), now), Some(Duration::from_secs(2)));
        assert_eq!(remaining(&job("Failed", Some(3)), now), Some(Duration::ZERO));
        assert_eq!(remaining(&job("FailureTarget", Some(3)), now), None);
        assert_eq!(remaining(&job("Complete", None), now), None);
    }

    #[tokio::test]
    async fn goes_with_its_pods() {
        let cluster = cluster().await;
        run_kubelet(&cluster, |_| Outcome::Exited(0));
        cluster.create("default", &testkit::job("brief", json!({"ttlSecondsAfterFinished": 0}))).await;
        cluster.wait_gone::<Job>("default", "brief").await;
        assert!(cluster.api::<Pod>("default").list(&ListParams::default()).await.unwrap().items.is_empty());
    }
}
