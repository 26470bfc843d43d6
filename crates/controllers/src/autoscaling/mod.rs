//! HorizontalPodAutoscalers: as many pods as what is measured of them asks for (kubernetes/kubernetes,
//! `pkg/controller/podautoscaler/horizontal.go`).
//!
//! ```text
//! scale ─► metrics ─► calculate (how many each asks for) ─► the largest ─► limits ─► scale
//! ```

mod calculate;
mod count;
mod limits;
mod metrics;
mod propose;
mod requests;
mod rest;
mod settings;
mod status;
mod target;
mod why;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Controller, Informer, Key, Next, PodView, Recorder};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::time::Instant;
use types::LabelSelector;

use crate::common::claim::selects;
use crate::context::Context;
use crate::error::{Attempt, Error};

use calculate::Tolerance;
use limits::{History, Wish};
use metrics::Metrics;
use propose::About;
pub use settings::AutoscalingSettings;
use status::{ABLE, ACTIVE, LIMITED, set};
use target::{Target, TargetError, Targets};
use why::Why;

struct State {
    ctx: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<PodView>,
    targets: Targets,
    metrics: Arc<dyn Metrics>,
    settings: AutoscalingSettings,
    recorder: Recorder,
    known: Mutex<HashMap<Key, Known>>,
}

/// What is remembered of an autoscaler.
#[derive(Default)]
struct Known {
    uid: Option<String>,
    history: History,
    /// Which pods it scales, as far as that is known.
    selector: Option<LabelSelector>,
    /// What it was when it was looked at last, and when the next look is due unless that changes.
    seen: Option<(HorizontalPodAutoscalerSpec, Instant)>,
}

pub(crate) fn start(ctx: &Context, settings: AutoscalingSettings) {
    start_with(ctx, settings, Arc::new(rest::Rest(ctx.client())));
}

fn start_with(ctx: &Context, settings: AutoscalingSettings, metrics: Arc<dyn Metrics>) {
    let autoscalers = ctx.informers.of::<HorizontalPodAutoscaler>();
    let pods = ctx.informers.of::<PodView>();
    let controller = Controller::new("horizontal-pod-autoscaler")
        .watches(&autoscalers, |autoscaler: &HorizontalPodAutoscaler| [Key::of(autoscaler)])
        .after(&pods);
    let state = State {
        ctx: ctx.clone(),
        autoscalers,
        pods,
        targets: Targets::new(ctx.client()),
        metrics,
        settings,
        recorder: ctx.recorder("horizontal-pod-autoscaler"),
        known: Mutex::default(),
    };
    ctx.spawn(controller, Arc::new(state), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(autoscaler) = state.autoscalers.get(&key) else {
        let left = {
            let mut known = state.known.lock();
            known.remove(&key);
            known.len()
        };
        crate::metrics::autoscaler_gone(key.namespace(), key.name(), left);
        return Ok(Next::Done);
    };
    let spec = &autoscaler.spec;
    if let Some(left) = state.due_in(&key, &autoscaler, spec) {
        return Ok(Next::After(left));
    }
    let mut status = autoscaler.status.clone().unwrap_or_default();
    let look = Look { state: &state, key: &key, autoscaler: &autoscaler, spec };
    let begun = Instant::now();
    let wrong = look.reconcile(&mut status).await;
    look.count(&status, wrong, begun.elapsed());
    look.write(status).await?;
    Ok(Next::After(state.settings.sync_period))
}

impl State {
    /// How long the next look can wait. If it cannot, the one after it is put down.
    fn due_in(
        &self,
        key: &Key,
        autoscaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Option<Duration> {
        let mut all = self.known.lock();
        let known = all.entry(key.clone()).or_default();
        if known.uid != autoscaler.metadata.uid {
            *known = Known { uid: autoscaler.metadata.uid.clone(), ..Known::default() };
        }
        let now = Instant::now();
        if let Some((seen, due)) = &known.seen
            && seen == spec
            && *due > now
        {
            return Some(*due - now);
        }
        known.seen = Some((spec.clone(), now + self.settings.sync_period));
        None
    }

    fn with<T>(&self, key: &Key, act: impl FnOnce(&mut Known) -> T) -> T {
        act(self.known.lock().entry(key.clone()).or_default())
    }

    /// Everybody in this namespace who scales one of these pods.
    fn scalers(&self, namespace: &str, pods: &[Arc<PodView>]) -> Vec<String> {
        let all = self.known.lock();
        let theirs = all.iter().filter(|(key, known)| {
            let selector = known.selector.as_ref().filter(|_| key.namespace() == namespace);
            selector.is_some_and(|selector| pods.iter().any(|pod| selects(selector, &**pod)))
        });
        let mut names: Vec<_> = theirs.map(|(key, _)| key.to_string()).collect();
        names.sort();
        names
    }
}

/// One look at one autoscaler.
struct Look<'a> {
    state: &'a State,
    key: &'a Key,
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
}

/// What all metrics together ask for.
struct Answer {
    replicas: i32,
    metric: String,
    metrics: Vec<MetricStatus>,
}

impl Look<'_> {
    fn warn(&self, reason: &str, message: impl Into<String>) {
        self.state.recorder.warning(self.autoscaler, reason, message);
    }

    /// Gives whether the specification says what cannot be (upstream's `errSpec`).
    async fn reconcile(&self, status: &mut HorizontalPodAutoscalerStatus) -> bool {
        let (state, spec) = (self.state, self.spec);
        match state.targets.find(self.key.namespace(), &spec.scale_target_ref).await {
            Ok(target) => {
                self.scale(target, status).await;
                false
            }
            Err(error) => {
                self.warn("FailedGetScale", error.to_string());
                let why = format!("the HPA controller was unable to get the target's current scale: {error}");
                set(status, ABLE, false, "FailedGetScale", why, state.ctx.now());
                matches!(error, TargetError::Version(_) | TargetError::NoKind { .. })
            }
        }
    }

    async fn scale(&self, mut target: Target, status: &mut HorizontalPodAutoscalerStatus) {
        let (state, spec) = (self.state, self.spec);
        let now = state.ctx.now();
        let able = "the HPA controller was able to get the target's current scale".to_owned();
        set(status, ABLE, true, "SucceededGetScale", able, now);
        let current = target.wished();
        let window = state.settings.downscale_stabilization;
        state.with(self.key, |known| known.history.begin(current, window, Instant::now()));

        let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let mut metrics = None;
        let (desired, reason) = if current == 0 && min != 0 {
            let why = "scaling is disabled since the replica count of the target is zero".to_owned();
            set(status, ACTIVE, false, "ScalingDisabled", why, now);
            (current, String::new())
        } else if current > max {
            (max, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            match self.ask(&target, status, &mut metrics).await {
                Ok(answer) => {
                    let wish = Wish { current, desired: answer.replicas.max(0), min, max };
                    self.grant(wish, &answer.metric, status)
                }
                Err(why) => {
                    self.warn("FailedComputeMetricsReplicas", why.to_string());
                    let desired = status.desired_replicas;
                    return status::count(status, current, desired, metrics);
                }
            }
        };
        if desired == current {
            return status::count(status, current, desired, metrics);
        }
        if let Err(error) = target.resize(desired).await {
            let error = client::message(&error);
            self.warn("FailedRescale", format!("New size: {desired}; reason: {reason}; error: {error}"));
            let why = format!("the HPA controller was unable to update the target scale: {error}");
            set(status, ABLE, false, "FailedUpdateScale", why, now);
            let before = status.desired_replicas;
            return status::count(status, current, before, metrics);
        }
        let done = format!("the HPA controller was able to update the target scale to {desired}");
        set(status, ABLE, true, "SucceededRescale", done, now);
        let said = format!("New size: {desired}; reason: {reason}");
        state.recorder.normal(self.autoscaler, "SuccessfulRescale", said);
        let behavior = spec.behavior.as_ref();
        state.with(self.key, |known| known.history.note(behavior, current, desired, Instant::now()));
        status::count(status, current, desired, metrics);
        status.last_scale_time = Some(Time(now));
    }

    /// What comes true of a wish, and why it was made.
    fn grant(&self, wish: Wish, metric: &str, status: &mut HorizontalPodAutoscalerStatus) -> (i32, String) {
        let reason = if wish.desired > wish.current {
            format!("{metric} above target")
        } else {
            "All metrics below target".to_owned()
        };
        let behavior = self.spec.behavior.as_ref();
        let granted = self.state.with(self.key, |known| known.history.grant(wish, behavior, Instant::now()));
        let now = self.state.ctx.now();
        set(status, ABLE, true, granted.stabilized.0, granted.stabilized.1.to_owned(), now);
        set(status, LIMITED, granted.limited, granted.limit.0, granted.limit.1.to_owned(), now);
        (granted.replicas, reason)
    }

    /// The pods that are scaled, if it is clear which they are (`validateAndParseSelector`).
    fn select(
        &self,
        target: &Target,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> Result<(LabelSelector, Vec<Arc<PodView>>), Why> {
        let mut refuse = |event: &str, reason: &str, why: Why, said: Option<&str>| {
            self.warn(event, why.to_string());
            let said = said.map_or_else(|| why.to_string(), str::to_owned);
            set(status, ACTIVE, false, reason, said, self.state.ctx.now());
            Err(why)
        };
        let text = target.selector();
        if text.is_empty() {
            let said = "the HPA target's scale is missing a selector";
            return refuse("SelectorRequired", "InvalidSelector", Why::NoSelector, Some(said));
        }
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(error) => return refuse("InvalidSelector", "InvalidSelector", Why::BadSelector(error), None),
        };
        self.state.with(self.key, |known| known.selector = Some(selector.clone()));
        let namespace = self.key.namespace();
        let mut pods = self.state.pods.store().list_in(namespace);
        pods.retain(|pod| selects(&selector, &**pod));
        let all = self.state.scalers(namespace, &pods);
        if all.len() > 1 {
            let why = Why::Ambiguous { selector: text.to_owned(), all };
            return refuse("AmbiguousSelector", "AmbiguousSelector", why, None);
        }
        Ok((selector, pods))
    }

    /// Asks every metric; the largest answer counts. While one does not answer, nothing is made smaller.
    async fn ask(
        &self,
        target: &Target,
        status: &mut HorizontalPodAutoscalerStatus,
        metrics: &mut Option<Vec<MetricStatus>>,
    ) -> Result<Answer, Why> {
        let (selector, pods) = self.select(target, status)?;
        let selector = selector.to_string();
        let settings = &self.state.settings;
        let about = About {
            namespace: self.key.namespace(),
            selector: &selector,
            pods: &pods,
            wished: target.wished(),
            there: target.there(),
            tolerance: tolerance(self.spec, settings.tolerance),
            settings: *settings,
            now: self.state.ctx.now(),
        };
        let specs = self.spec.metrics.as_deref().unwrap_or_default();
        let mut answer = Answer { replicas: 0, metric: String::new(), metrics: Vec::new() };
        let mut refused = Vec::new();
        for spec in specs {
            let begun = Instant::now();
            let asked = about.ask(&*self.state.metrics, spec).await;
            self.count_metric(spec, &asked, begun.elapsed());
            match asked {
                Ok(proposal) => {
                    if answer.replicas == 0 || proposal.replicas > answer.replicas {
                        (answer.replicas, answer.metric) = (proposal.replicas, proposal.name);
                    }
                    answer.metrics.push(proposal.status);
                }
                Err(refusal) => {
                    self.warn(refusal.reason, refusal.why.to_string());
                    // Its place in the list stays empty.
                    answer.metrics.push(MetricStatus::default());
                    refused.push(refusal);
                }
            }
        }
        *metrics = Some(std::mem::take(&mut answer.metrics));
        let invalid = refused.len();
        let now = self.state.ctx.now();
        let would_shrink = answer.replicas < about.wished;
        match refused.into_iter().next() {
            Some(first) if invalid >= specs.len() || would_shrink => {
                let why = format!("the HPA was unable to compute the replica count: {}", first.why);
                set(status, ACTIVE, false, first.reason, why, now);
                let first = match first.attempt {
                    Some(attempt) => first.why.during(attempt),
                    None => first.why,
                };
                Err(Why::Invalid { invalid, all: specs.len(), first: Box::new(first) })
            }
            _ => {
                let from = &answer.metric;
                let why = format!("the HPA was able to successfully calculate a replica count from {from}");
                set(status, ACTIVE, true, "ValidMetricFound", why, now);
                Ok(answer)
            }
        }
    }

    async fn write(&self, status: HorizontalPodAutoscalerStatus) -> Result<(), Error> {
        if self.autoscaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let name = self.key.name();
        let new = HorizontalPodAutoscaler { status: Some(status), ..self.autoscaler.clone() };
        let api = self.state.ctx.api::<HorizontalPodAutoscaler>(self.key.namespace());
        match api.replace_status(name, &PostParams::default(), &new).await {
            // The change that came between will be looked at in its turn.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            outcome => outcome
                .map(drop)
                .inspect_err(|error| self.warn("FailedUpdateStatus", client::message(error)))
                .attempt(|| format!("write the status of horizontal pod autoscaler {name}")),
        }
    }
}

/// How far measurements may stray, as the rules say or as everybody's may.
fn tolerance(spec: &HorizontalPodAutoscalerSpec, usual: f64) -> Tolerance {
    let of = |rules: Option<&HPAScalingRules>| {
        let said = rules.and_then(|rules| rules.tolerance.as_ref());
        said.and_then(|text| text.0.parse().ok()).map_or(usual, types::Quantity::as_f64)
    };
    let behavior = spec.behavior.as_ref();
    Tolerance {
        down: of(behavior.and_then(|b| b.scale_down.as_ref())),
        up: of(behavior.and_then(|b| b.scale_up.as_ref())),
    }
}

#[cfg(test)]
mod tests;
