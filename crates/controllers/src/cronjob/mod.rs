//! Cron jobs: a job at each moment of a schedule (kubernetes/kubernetes, `pkg/controller/cronjob`).

mod history;
mod schedule;
mod template;
mod times;

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::{Change, Controller, Informer, Key, Next, Recorder, is_deleting, reference};
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::common::owned::{Owned, manager};
use crate::common::written::Written;
use crate::context::Context;
use crate::error::{Attempt, Error};
use crate::job::ending;

use schedule::{parse, time_zone};
use times::{deadline, missed, until_next};

struct State {
    ctx: Context,
    crons: Informer<CronJob>,
    jobs: Owned<Job>,
    written: Written<CronJob>,
    recorder: Recorder,
}

pub(crate) fn start(ctx: &Context) {
    let (crons, jobs) = (ctx.informers.of::<CronJob>(), ctx.informers.of::<Job>());
    let owned = Owned::new(&jobs);
    let clock = ctx.clock.clone();
    let controller = Controller::new("cronjob")
        .workers(5)
        .watches_changes(&crons, move |change, queue| {
            let cron = change.object();
            let delay = match change {
                Change::Updated { old, .. } => after_change(old, cron, clock.now()),
                _ => Duration::ZERO,
            };
            queue.add_after(Key::of(&**cron), delay);
        })
        .watches(&jobs, |job: &Job| manager(&job.metadata, "CronJob"));
    let recorder = ctx.recorder("cronjob-controller");
    let state = State { ctx: ctx.clone(), crons, jobs: owned, written: Written::default(), recorder };
    ctx.spawn(controller, Arc::new(state), look);
}

/// A new schedule begins with its next time: what it would have been due at before counts for nothing.
fn after_change(old: &CronJob, new: &CronJob, now: Timestamp) -> Duration {
    if (&old.spec.schedule, &old.spec.time_zone) == (&new.spec.schedule, &new.spec.time_zone) {
        return Duration::ZERO;
    }
    let zone = time_zone(new.spec.time_zone.as_deref().unwrap_or_default());
    let schedule = zone.and_then(|zone| parse(&new.spec.schedule, zone).ok());
    schedule.and_then(|schedule| until_next(new, &schedule, now)).unwrap_or(Duration::ZERO)
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(cached) = state.crons.get(&key) else {
        state.written.forget(&key);
        return Ok(Next::Done);
    };
    let cron = state.written.newest(&key, cached);
    let spec = &cron.spec;
    let jobs = state.jobs.of(cron.metadata.uid.as_deref().unwrap_or_default());
    let mut status = cron.status.clone().unwrap_or_default();
    state.clean_up(&cron, spec, &jobs, &mut status).await;
    state.follow(&cron, &jobs, &mut status).await?;
    let outcome = state.run(&cron, spec, &mut status).await;
    state.write(&key, &cron, status).await?;
    outcome
}

impl State {
    /// Deletes the oldest of the jobs that are over, beyond what is to be kept.
    async fn clean_up(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) {
        for job in history::too_many(spec, jobs) {
            let _ = self.delete(cron, &job, status).await;
        }
    }

    /// Brings what the status says of jobs to what has become of them.
    async fn follow(
        &self,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let api = self.ctx.api::<Job>(&cron.namespace().unwrap_or_default());
        for job in jobs {
            let active = history::is_active(status, job);
            match ending(job) {
                None if !active => {
                    let why =
                        format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
                    self.recorder.warning(cron, "UnexpectedJob", why);
                }
                Some(end) if active => {
                    history::remove(status, job);
                    let said = format!("Saw completed job: {}, status: {}", job.name_any(), end.type_);
                    self.recorder.normal(cron, "SawCompletedJob", said);
                }
                _ => {}
            }
            history::note_success(status, job);
        }
        for active in status.active.clone().unwrap_or_default() {
            if jobs.iter().any(|job| job.metadata.uid == active.uid) {
                continue;
            }
            // The cache may not show it yet.
            let name = active.name.clone().unwrap_or_default();
            let there = api.get_opt(&name).await.attempt(|| format!("look at job {name}"))?;
            if there.is_none_or(|job| job.metadata.uid != active.uid) {
                self.recorder.normal(cron, "MissingJob", format!("Active job went missing: {name}"));
                history::remove_uid(status, active.uid.as_deref());
            }
        }
        Ok(())
    }

    /// Begins the run that is due, if there is one and it may begin.
    async fn run(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
    ) -> Result<Next, Error> {
        if is_deleting(&cron.metadata) {
            return Ok(Next::Done);
        }
        let name = spec.time_zone.as_deref().unwrap_or_default();
        let Some(zone) = time_zone(name) else {
            let why = format!("invalid timeZone: {name:?}: unknown time zone {name}");
            self.recorder.warning(cron, "UnknownTimeZone", why);
            return Ok(Next::Done);
        };
        if spec.suspend == Some(true) {
            return Ok(Next::Done);
        }
        if spec.schedule.contains("TZ") {
            let why = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.recorder.warning(cron, "UnsupportedSchedule", why);
        }
        let schedule = match parse(&spec.schedule, zone.clone()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let why = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.recorder.warning(cron, "UnparseableSchedule", why);
                return Ok(Next::Done);
            }
        };
        let now = self.ctx.now();
        let missed = match missed(cron, &schedule, now, true) {
            Ok(missed) => missed,
            Err(error) => {
                let why = format!("invalid schedule: {} : {error}", spec.schedule);
                self.recorder.warning(cron, "InvalidSchedule", why);
                return Ok(Next::Done);
            }
        };
        if let Some(time) = missed.latest {
            if missed.are_many() {
                let why = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                self.recorder.warning(cron, "TooManyMissedTimes", why);
            }
            self.run_at(cron, spec, status, time, &zone, now).await?;
        }
        // The run that was begun just now counts as the last one.
        let cron = CronJob { status: Some(status.clone()), ..cron.clone() };
        Ok(until_next(&cron, &schedule, now).map_or(Next::Done, Next::After))
    }

    async fn run_at(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        time: Timestamp,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<(), Error> {
        if deadline(cron).is_some_and(|late| time.checked_add(late).is_ok_and(|last| last < now)) {
            let due = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let why = format!("Missed scheduled time to start a job: {due}");
            self.recorder.warning(cron, "MissSchedule", why);
            return Ok(());
        }
        let name = template::name(cron, time);
        let active = status.active.clone().unwrap_or_default();
        let begun = active.iter().any(|job| job.name.as_ref() == Some(&name));
        if begun || status.last_schedule_time.as_ref().is_some_and(|last| last.0 == time) {
            return Ok(());
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let why =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.normal(cron, "JobAlreadyActive", why);
                return Ok(());
            }
            Some("Replace") => self.replace(cron, &active, status).await?,
            _ => {}
        }
        if let Some(job) = self.begin(cron, &template::job(cron, time, zone)).await? {
            let late = Duration::try_from(now.duration_since(time)).unwrap_or_default();
            crate::metrics::cron_job_begun(late);
            if !history::is_active(status, &job) {
                status.active.get_or_insert_default().push(reference(&job));
            }
            status.last_schedule_time = Some(Time(time));
        }
        Ok(())
    }

    async fn replace(
        &self,
        cron: &CronJob,
        active: &[ObjectReference],
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let api = self.ctx.api::<Job>(&cron.namespace().unwrap_or_default());
        for old in active {
            let name = old.name.as_deref().unwrap_or_default();
            match api.get_opt(name).await {
                Ok(Some(job)) => self.delete(cron, &job, status).await?,
                Ok(None) => history::remove_uid(status, old.uid.as_deref()),
                Err(error) => {
                    let why = format!("Get job: {}", client::message(&error));
                    self.recorder.warning(cron, "FailedGet", why);
                    return Err(error).attempt(|| format!("look at job {name}"));
                }
            }
        }
        Ok(())
    }

    /// Makes the job of a run. If it is there already, we may have been stopped before we could note it.
    async fn begin(&self, cron: &CronJob, job: &Job) -> Result<Option<Job>, Error> {
        let api = self.ctx.api::<Job>(&cron.namespace().unwrap_or_default());
        let name = job.name_any();
        match api.create(&PostParams::default(), job).await {
            Ok(job) => {
                self.recorder.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                Ok(Some(job))
            }
            Err(error) if client::is_already_exists(&error) => {
                let there = api.get_opt(&name).await.attempt(|| format!("look at job {name}"))?;
                let uid = cron.metadata.uid.as_deref().unwrap_or_default();
                Ok(there.filter(|job| client::is_controlled_by(&job.metadata, uid)))
            }
            Err(error) if client::is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let why = format!("Error creating job: {}", client::message(&error));
                self.recorder.warning(cron, "FailedCreate", why);
                Err(error).attempt(|| format!("create job {name}"))
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Job, status: &mut CronJobStatus) -> Result<(), Error> {
        let name = job.name_any();
        let only = Preconditions { uid: job.metadata.uid.clone(), ..Default::default() };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
        let api = self.ctx.api::<Job>(&cron.namespace().unwrap_or_default());
        match api.delete(&name, &params).await {
            Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                let why = format!("Deleted job: {}", client::message(&error));
                self.recorder.warning(cron, "FailedDelete", why);
                Err(error).attempt(|| format!("delete job {name}"))
            }
            outcome => {
                history::remove(status, job);
                if outcome.is_ok() {
                    self.recorder.normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
                }
                Ok(())
            }
        }
    }

    async fn write(&self, key: &Key, cron: &CronJob, mut status: CronJobStatus) -> Result<(), Error> {
        status.active = status.active.filter(|active| !active.is_empty());
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let new = CronJob { status: Some(status), ..cron.clone() };
        let api = self.ctx.api::<CronJob>(key.namespace());
        match api.replace_status(key.name(), &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => {
                let written = outcome.attempt(|| format!("write the status of cron job {key}"))?;
                self.written.note(key, Arc::new(written));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
