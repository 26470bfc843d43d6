//! Replica sets and ReplicationControllers: so many pods of one template (kubernetes/kubernetes,
//! `pkg/controller/replicaset/replica_set.go`).

mod kinds;
mod plan;
mod status;

use std::iter::repeat_n;
use std::sync::Arc;

use client::{Controller, Informer, Key, Next, PodView, controller_of, is_deleting};
use k8s_openapi::api::apps::v1::ReplicaSetStatus;

use crate::common::claim::claim_all;
use crate::common::owned::{Owned, on_pods};
use crate::common::pod_control::{Failure, PodControl};
use crate::common::pods::is_active;
use crate::common::status::put_status;
use crate::common::template::pod_of;
use crate::context::Context;
use crate::error::Error;

use kinds::Replicating;
use plan::{Step, plan};

struct State<K> {
    ctx: Context,
    sets: Informer<K>,
    owned: Owned<PodView>,
    control: PodControl,
}

pub(crate) fn start<K: Replicating>(ctx: &Context) {
    let (sets, pods) = (ctx.informers.of::<K>(), ctx.informers.of::<PodView>());
    let owned = Owned::new(&pods);
    let control = PodControl::new(ctx, K::CONTROLLER);
    let on_pods = on_pods(&sets, control.expectations.clone(), |set: &K| set.selector().ok());
    let controller = Controller::new(K::CONTROLLER)
        .workers(8)
        .watches(&sets, |set: &K| [Key::of(set)])
        .watches_changes(&pods, on_pods);
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), sets, owned, control }), look);
}

async fn look<K: Replicating>(state: Arc<State<K>>, key: Key) -> Result<Next, Error> {
    let Some(set) = state.sets.get(&key) else {
        state.control.expectations.forget(&key);
        return Ok(Next::Done);
    };
    // Asked before the pods are looked at, so that what comes in between is counted.
    let may_manage = state.control.expectations.are_met(&key) && !is_deleting(set.meta());
    let selector = set
        .selector()
        .map_err(|source| Error::Selector { object: format!("{} {key}", K::kind(&())), source })?;
    let candidates = state.owned.candidates(set.meta());
    let pods = claim_all(&state.ctx.client(), &*set, &selector, candidates).await?;
    let failure = if may_manage { state.manage(&key, &set, &pods).await } else { None };
    let now = state.ctx.now();
    state.write_status(&set, status::status(&*set, &pods, failure.as_ref(), now)).await?;
    match failure {
        Some(failure) => Err(failure.into_error()),
        None => Ok(status::next(&*set, &pods, now)),
    }
}

impl<K: Replicating> State<K> {
    /// Creates or deletes pods.
    async fn manage(&self, key: &Key, set: &K, pods: &[Arc<PodView>]) -> Option<Failure> {
        let active: Vec<Arc<PodView>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        match plan(set, &active, || self.siblings(set), self.ctx.now()) {
            Step::Nothing => None,
            Step::Create(count) => {
                let pod = pod_of(set, set.template()?);
                self.control.apply(key, set, repeat_n(&pod, count), &[]).await
            }
            Step::Delete(victims) => {
                for ratio in plan::age_ratios(&active, &victims, self.ctx.now()) {
                    crate::metrics::deletion_age_ratio(ratio);
                }
                self.control.apply(key, set, [].iter(), &victims).await
            }
        }
    }

    /// The pods of all sets under the same owner: where they crowd on a node, one may go first.
    fn siblings(&self, set: &K) -> Vec<Arc<PodView>> {
        let uid = set.meta().uid.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(set.meta()) else { return self.owned.of(uid) };
        let sets = self.sets.store().list_in(set.meta().namespace.as_deref().unwrap_or_default());
        let related = sets.iter().filter(|s| client::is_controlled_by(s.meta(), &owner.uid));
        related.flat_map(|s| self.owned.of(s.meta().uid.as_deref().unwrap_or_default())).collect()
    }

    async fn write_status(&self, set: &K, wanted: ReplicaSetStatus) -> Result<(), Error> {
        let new = set.with_status(wanted);
        if new.status() == set.status() {
            return Ok(());
        }
        put_status(&self.ctx, &new).await
    }
}

#[cfg(test)]
mod tests;
