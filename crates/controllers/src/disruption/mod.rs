//! Disruption budgets: how many of the pods that a budget selects may go just now (kubernetes/kubernetes,
//! `pkg/controller/disruption/disruption.go`). Evictions are paid for by the API server; this counts what is left.

mod count;
mod scale;
mod stale;

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, Next, PodView, Recorder, WorkQueue};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::api::PostParams;
use types::LabelSelector;

use crate::common::claim::selects;
use crate::context::Context;
use crate::error::{Attempt, Error};

use scale::Scales;

struct State {
    ctx: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<PodView>,
    scales: Scales,
    recorder: Recorder,
}

pub(crate) fn start(ctx: &Context) {
    let (budgets, pods) = (ctx.informers.of::<PodDisruptionBudget>(), ctx.informers.of::<PodView>());
    let sets = ctx.informers.of::<ReplicaSet>();
    let all = budgets.clone();
    let controller = Controller::new("disruption")
        .watches(&budgets, |budget: &PodDisruptionBudget| [Key::of(budget)])
        .watches_changes(&pods, move |change, queue| pod_changed(change, queue, &all))
        .after(&sets);
    let recorder = ctx.recorder("controllermanager");
    let scales = Scales::new(ctx.client(), sets);
    let state = State { ctx: ctx.clone(), budgets, pods: pods.clone(), scales, recorder };
    ctx.spawn(controller, Arc::new(state), look);
    stale::start(ctx, pods);
}

fn pod_changed(change: &Change<PodView>, queue: &WorkQueue<Key>, budgets: &Informer<PodDisruptionBudget>) {
    let pod = change.object();
    let old = if let Change::Updated { old, .. } = change { Some(old) } else { None };
    for budget in budgets.store().list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        let Ok(selector) = selector(&budget) else { continue };
        if selects(&selector, &**pod) || old.is_some_and(|old| selects(&selector, &**old)) {
            queue.add(Key::of(&*budget));
        }
    }
}

/// What a budget selects. Without a selector that is nothing; an empty one selects everything.
fn selector(budget: &PodDisruptionBudget) -> Result<LabelSelector, Error> {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return Ok(LabelSelector::nothing());
    };
    client::selector(selector).map_err(|source| Error::Selector {
        object: format!("disruption budget {}", budget.name_any()),
        source,
    })
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(budget) = state.budgets.get(&key) else { return Ok(Next::Done) };
    match state.count(&key, &budget).await {
        Ok(next) => Ok(next),
        Err(error) => {
            // Nobody may go while nobody knows how many are needed.
            state.write(&budget, failed(&budget, &error.to_string(), state.ctx.now())).await?;
            Err(error)
        }
    }
}

impl State {
    async fn count(&self, key: &Key, budget: &PodDisruptionBudget) -> Result<Next, Error> {
        let selector = selector(budget)?;
        let mut pods = self.pods.store().list_in(key.namespace());
        pods.retain(|pod| selects(&selector, &**pod));
        if pods.is_empty() {
            self.recorder.normal(budget, "NoPods", "No matching pods found");
        }
        let mut unmanaged = false;
        let expected = if count::needs_scale(budget) {
            let scale = self.scales.expected(&pods).await.inspect_err(|error| {
                let why = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.warning(budget, "CalculateExpectedPodCountFailed", why);
            })?;
            unmanaged = scale.unmanaged;
            scale.expected
        } else {
            i32::try_from(pods.len()).unwrap_or(i32::MAX)
        };
        if unmanaged {
            self.recorder.warning(budget, "UnmanagedPods", format!(
                "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the \
                 status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
                 these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
            ));
        }
        let now = self.ctx.now();
        let waiting = count::waiting(budget, &pods, now);
        for pod in &waiting.overdue {
            let why = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.warning(&**pod, "NotDeleted", why);
        }
        let healthy = count::healthy(&pods, &waiting.pods);
        let status = count::status(budget, healthy, expected, &waiting, now);
        self.write(budget, status).await?;
        Ok(waiting.look_again.map_or(Next::Done, Next::After))
    }

    /// Only over the state that was counted from: an eviction may have been paid for meanwhile.
    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let name = budget.name_any();
        let api =
            self.ctx.api::<PodDisruptionBudget>(budget.metadata.namespace.as_deref().unwrap_or_default());
        let new = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        match api.replace_status(&name, &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            // The change that came between will wake us.
            Err(error) if client::is_conflict(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("write the status of disruption budget {name}")),
        }
    }
}

/// The status of a budget that cannot be counted.
fn failed(budget: &PodDisruptionBudget, why: &str, now: base::Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.observed_generation = budget.metadata.generation;
    set_allowed(&mut status, "SyncFailed", why, now);
    status
}

/// Says in the conditions whether disruptions are allowed.
fn set_allowed(status: &mut PodDisruptionBudgetStatus, reason: &str, message: &str, now: base::Timestamp) {
    const KIND: &str = "DisruptionAllowed";
    let value = if status.disruptions_allowed > Some(0) { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|c| c.type_ == KIND);
    let since = old.map(|at| &conditions[at]).filter(|c| c.status == value);
    let condition = Condition {
        type_: KIND.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or(Time(now), |c| c.last_transition_time.clone()),
        observed_generation: status.observed_generation,
    };
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests;
