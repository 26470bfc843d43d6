//! Jobs: so many pods that run to their end (kubernetes/kubernetes, `pkg/controller/job`).
//!
//! A look counts the pods (`tally`), decides whether the job is over (`verdict`) or which pods are missing (`plan`), and
//! notes what has ended (`track`).

mod ask;
mod backoff;
mod conditions;
mod count;
mod indexes;
mod orphans;
mod plan;
mod pods;
mod policy;
mod releases;
mod seen;
mod tally;
mod template;
mod track;
mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Change, Controller, Informer, Key, Next, PodView, Recorder, is_deleting};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use kube::api::PostParams;
use parking_lot::Mutex;

use crate::common::claim::{claim_where, selects};
use crate::common::expectations::{Expectations, PATIENCE};
use crate::common::owned::Owned;
use crate::common::written::Written;
use crate::context::Context;
use crate::error::{Attempt, Error};

pub(crate) use ask::ending;
pub(crate) use conditions::second;

use ask::*;
use backoff::Record;
use conditions::{condition, set};
use count::{count_indexes, why_new};
use plan::{Step, plan};
use releases::Releases;
use seen::Seen;
use tally::{Pods, Tally, tally};
use track::{held, is_settled, positive, settle, track};
use verdict::{is_complete, until_deadline, verdict};

struct State {
    ctx: Context,
    jobs: Informer<Job>,
    owned: Owned<PodView>,
    expectations: Arc<Expectations>,
    releases: Arc<Releases>,
    written: Written<Job>,
    records: Mutex<HashMap<Key, Record>>,
    recorder: Recorder,
}

pub(crate) fn start(ctx: &Context) {
    let (jobs, pods) = (ctx.informers.of::<Job>(), ctx.informers.of::<PodView>());
    let owned = Owned::new(&pods);
    let seen = Seen { jobs: jobs.clone(), expectations: Arc::default(), releases: Arc::default() };
    let state = State {
        ctx: ctx.clone(),
        jobs: jobs.clone(),
        owned,
        expectations: seen.expectations.clone(),
        releases: seen.releases.clone(),
        written: Written::default(),
        records: Mutex::default(),
        recorder: ctx.recorder("job-controller"),
    };
    let controller = Controller::new("job")
        .workers(8)
        .watches(&jobs, |job: &Job| [Key::of(job)])
        .watches_changes(&pods, move |change, queue| seen.pod_changed(change, queue));
    jobs.on_change(|change| {
        let Change::Added(job) = change else { return };
        let elsewhere = job.spec.as_ref().filter(|spec| is_managed_elsewhere(spec));
        if let Some(by) = elsewhere.and_then(|spec| spec.managed_by.as_deref()) {
            crate::metrics::job_managed_by(by);
        }
    });
    ctx.spawn(controller, Arc::new(state), counted_look);
    orphans::start(ctx, &jobs, &pods);
}

/// What a look does besides counting, as metrics name it.
type Action = &'static str;

async fn counted_look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let spec = state.jobs.get(&key).and_then(|job| job.spec.as_ref().map(is_indexed));
    let begun = tokio::time::Instant::now();
    let mut action = "reconciling";
    let outcome = look(state, key, &mut action).await;
    if let Some(indexed) = spec {
        crate::metrics::job_synced(indexed, action, outcome.is_ok(), begun.elapsed());
    }
    outcome
}

async fn look(state: Arc<State>, key: Key, action: &mut Action) -> Result<Next, Error> {
    let Some(cached) = state.jobs.get(&key) else {
        state.expectations.forget(&key);
        state.written.forget(&key);
        state.forget(&key);
        return Ok(Next::Done);
    };
    let job = state.written.newest(&key, cached);
    let Some(spec) = job.spec.as_ref().filter(|spec| !is_managed_elsewhere(spec)) else {
        return Ok(Next::Done);
    };
    if ending(&job).is_some() {
        state.forget(&key);
        return Ok(Next::Done);
    }
    // Asked before the pods are looked at, so that what comes in between is counted.
    let settled = state.expectations.are_met(&key);
    let released = state.releases.of(&key);
    let selector = client::selector(&spec.selector.clone().unwrap_or_default())
        .map_err(|source| Error::Selector { object: format!("job {key}"), source })?;
    let candidates = state.owned.candidates(&job.metadata);
    let fits = |pod: &PodView| selects(&selector, pod);
    let pods = claim_where(&state.ctx.client(), &*job, fits, candidates, Some(FINALIZER)).await?;

    let now = state.ctx.now();
    let mut status = job.status.clone().unwrap_or_default();
    status.uncounted_terminated_pods.get_or_insert_default();
    if status.start_time.is_none() && !is_suspended(spec) {
        status.start_time = Some(second(now));
    }
    let record = state.records.lock().get(&key).copied().unwrap_or_default();
    let tally = tally(spec, &status, &pods, &released, record);
    let ended = verdict(&job, spec, &status, &pods, &tally, now);
    let look = Look { key: &key, job: &job, spec, pods: &pods, tally: &tally, now, settled };
    let mut done =
        if ended.is_some() { state.end(&look, ended).await } else { state.manage(&look, &mut status).await };
    *action = done.action;
    status.active = positive(done.active);
    status.ready = Some(done.ready);
    status.terminating = Some(done.terminating);

    let tracked = track(&job, spec, &mut status, &pods, &released, &tally, done.ended.as_ref());
    let last = done.ended.take().map(|ended| announce(&mut status, ended, now));
    let job = state.write(&key, &job, &status).await?;
    tracked.policy.iter().for_each(|action| crate::metrics::job_policy_applied(action));
    state.records.lock().insert(key.clone(), tally.record);
    for (reason, message) in done.said {
        state.recorder.normal(&*job, reason, message);
    }
    let mut held = held(&pods, &released);
    if !tracked.release.is_empty() {
        let (without, failure) = state.release_all(&key, &tracked.release).await;
        held.retain(|uid| !without.contains(uid));
        settle(&mut status, &held);
        if let Some(failure) = failure {
            state.write(&key, &job, &status).await?;
            return Err(failure);
        }
    }
    let over = last.filter(|_| !tracked.more && is_settled(&status) && done.terminating == 0);
    if let Some(last) = &over {
        if last.type_ == "Complete" {
            status.completion_time = last.last_transition_time.clone();
        }
        set(&mut status, last.clone());
    }
    let job = state.write(&key, &job, &status).await?;
    if let Some(last) = over {
        state.say_over(&job, &last);
        return Ok(Next::Done);
    }
    match (done.failure, done.next) {
        (Some(failure), _) => Err(failure),
        _ if tracked.more => Ok(Next::After(Duration::ZERO)),
        (None, Some(delay)) => Ok(Next::After(delay)),
        (None, None) => Ok(Next::Done),
    }
}

/// What a look sees.
struct Look<'a> {
    key: &'a Key,
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a Pods,
    tally: &'a Tally,
    now: Timestamp,
    /// Whether the cache shows all pods that we made, and none that we deleted.
    settled: bool,
}

/// What became of the pods.
struct Done {
    active: i32,
    ready: i32,
    terminating: i32,
    /// Why the job is over, if it is.
    ended: Option<JobCondition>,
    next: Option<Duration>,
    said: Vec<(&'static str, &'static str)>,
    failure: Option<Error>,
    action: Action,
}

impl Done {
    fn nothing(tally: &Tally) -> Self {
        Self {
            active: tally.active.len() as i32,
            ready: tally.ready,
            terminating: tally.terminating,
            ended: None,
            next: None,
            said: Vec::new(),
            failure: None,
            action: "reconciling",
        }
    }

    fn deleted(&mut self, deleted: pods::Deleted) {
        self.active -= deleted.pods;
        self.terminating += deleted.pods;
        self.ready -= deleted.ready;
        self.failure = deleted.failure;
        self.action = "pods_deleted";
    }
}

/// Notes in the status that the job is about to end; gives the condition that says that it has.
fn announce(status: &mut JobStatus, ended: JobCondition, now: Timestamp) -> JobCondition {
    let last = if ended.type_ == "SuccessCriteriaMet" { "Complete" } else { "Failed" };
    let (reason, message) =
        (ended.reason.clone().unwrap_or_default(), ended.message.clone().unwrap_or_default());
    let last = condition(last, &reason, &message, now);
    let noted = status.conditions.iter().flatten().any(|c| c.type_ == ended.type_ && c.status == "True");
    if !noted && ended.type_ != "Failed" {
        set(status, ended);
    }
    last
}

impl State {
    /// The job is over. That it is must not be forgotten before the cache shows it.
    fn forget(&self, key: &Key) {
        self.records.lock().remove(key);
        self.releases.forget(key);
    }

    /// The job is over: its pods go.
    async fn end(&self, look: &Look<'_>, ended: Option<JobCondition>) -> Done {
        let mut done = Done::nothing(look.tally);
        let all = done.active;
        let deleted = self.delete_counted(look.job, &look.tally.active).await;
        // While pods remain, or may come that the cache does not show yet, the job is not over.
        done.ended = ended.filter(|_| deleted.pods == all && look.settled);
        done.deleted(deleted);
        done
    }

    /// Makes and deletes pods.
    async fn manage(&self, look: &Look<'_>, status: &mut JobStatus) -> Done {
        let mut done = Done::nothing(look.tally);
        done.next = until_deadline(look.spec, status, look.now);
        if !look.settled {
            done.next = Some(done.next.map_or(PATIENCE, |next| next.min(PATIENCE)));
            return done;
        }
        let managed = !is_deleting(&look.job.metadata);
        if managed {
            match plan(look.spec, look.pods, look.tally, look.now) {
                Step::Nothing => {}
                Step::Wait(delay) => done.next = Some(done.next.map_or(delay, |next| next.min(delay))),
                Step::Create(count) => {
                    let pods = vec![template::pod(look.job, look.spec, None, None); count];
                    self.add(look, pods, &mut done).await;
                }
                Step::CreateIndexes(indexes) => {
                    let replaced =
                        |index| look.tally.indexed.as_ref()?.to_replace.get(&index).map(|pod| &**pod);
                    let pod = |index| template::pod(look.job, look.spec, Some(index), replaced(index));
                    self.add(look, indexes.into_iter().map(pod).collect(), &mut done).await;
                }
                Step::Delete(pods) => done.deleted(self.delete_uncounted(look.key, look.job, &pods).await),
            }
        }
        if is_complete(look.spec, look.tally, done.active) {
            let why = "Reached expected number of succeeded pods";
            done.ended = Some(condition("SuccessCriteriaMet", "CompletionsReached", why, look.now));
        } else if managed {
            suspend_or_resume(look, status, &mut done);
        }
        done
    }

    async fn add(&self, look: &Look<'_>, pods: Vec<k8s_openapi::api::core::v1::Pod>, done: &mut Done) {
        let (made, failure) = self.create(look.key, look.job, pods).await;
        let reason = why_new(look);
        crate::metrics::job_pods_created(reason, true, made.into());
        crate::metrics::job_pods_created(reason, false, failure.is_some().into());
        done.active += made;
        done.failure = failure;
        done.action = "pods_created";
    }

    /// Gives the job as it is then.
    async fn write(&self, key: &Key, job: &Arc<Job>, status: &JobStatus) -> Result<Arc<Job>, Error> {
        if job.status.as_ref() == Some(status) {
            return Ok(job.clone());
        }
        let new = Job { status: Some(status.clone()), ..(**job).clone() };
        let api = self.ctx.api::<Job>(key.namespace());
        let written = api.replace_status(key.name(), &PostParams::default(), &new).await;
        let written = Arc::new(written.attempt(|| format!("write the status of job {key}"))?);
        let indexed = job.spec.as_ref().is_some_and(is_indexed);
        count_indexes(job, status);
        let before = |count: fn(&JobStatus) -> Option<i32>| job.status.as_ref().and_then(count).unwrap_or(0);
        let (succeeded, failed) = (before(|s| s.succeeded), before(|s| s.failed));
        crate::metrics::job_pods_finished(indexed, true, status.succeeded.unwrap_or(0) - succeeded);
        crate::metrics::job_pods_finished(indexed, false, status.failed.unwrap_or(0) - failed);
        self.written.note(key, written.clone());
        Ok(written)
    }

    fn say_over(&self, job: &Job, last: &JobCondition) {
        let indexed = job.spec.as_ref().is_some_and(is_indexed);
        let reason = last.reason.as_deref().unwrap_or_default();
        crate::metrics::job_finished(indexed, last.type_ == "Complete", reason);
        if last.type_ == "Complete" {
            let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
            if job.spec.as_ref().and_then(|s| s.completions).is_some_and(|wanted| succeeded > wanted) {
                let why = "Too many succeeded pods running after completion count reached";
                self.recorder.warning(job, "TooManySucceededPods", why);
            }
            self.recorder.normal(job, "Completed", "Job completed");
        } else {
            let reason = last.reason.as_deref().unwrap_or_default();
            self.recorder.warning(job, reason, last.message.clone().unwrap_or_default());
        }
    }
}

fn suspend_or_resume(look: &Look<'_>, status: &mut JobStatus, done: &mut Done) {
    if is_suspended(look.spec) {
        if set(status, condition("Suspended", "JobSuspended", "Job suspended", look.now)) {
            done.said.push(("Suspended", "Job suspended"));
        }
        return;
    }
    let resumed = condition("Suspended", "JobResumed", "Job resumed", look.now);
    if set(status, JobCondition { status: "False".into(), ..resumed }) {
        done.said.push(("Resumed", "Job resumed"));
        // The deadline is about the time that the job is active without a break.
        status.start_time = Some(second(look.now));
    }
}

#[cfg(test)]
mod tests;
