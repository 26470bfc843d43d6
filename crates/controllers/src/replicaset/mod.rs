//! Replica sets: so many pods of one template (kubernetes/kubernetes, `pkg/controller/replicaset/replica_set.go`).

mod plan;
mod status;

use std::sync::Arc;

use client::{
    Change, Controller, Informer, Key, Next, PodView, Recorder, WorkQueue, controller_of, is_deleting,
};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::common::claim::{claim_all, selects};
use crate::common::expectations::Expectations;
use crate::common::owned::{Owned, manager};
use crate::common::pods::is_active;
use crate::common::slow_start::slow_start;
use crate::common::template::pod_of;
use crate::context::Context;
use crate::error::{Attempt, Error};

use plan::{Step, plan};
use status::Failure;

struct State {
    ctx: Context,
    sets: Informer<ReplicaSet>,
    owned: Owned<PodView>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

pub(crate) fn start(ctx: &Context) {
    let (sets, pods) = (ctx.informers.of::<ReplicaSet>(), ctx.informers.of::<PodView>());
    let owned = Owned::new(&pods);
    let expectations = Arc::new(Expectations::default());
    let (seen, all_sets) = (expectations.clone(), sets.clone());
    let controller = Controller::new("replicaset")
        .workers(8)
        .watches(&sets, |set: &ReplicaSet| [Key::of(set)])
        .watches_changes(&pods, move |change, queue| pod_changed(change, queue, &seen, &all_sets));
    let recorder = ctx.recorder("replicaset-controller");
    let state = State { ctx: ctx.clone(), sets, owned, expectations, recorder };
    ctx.spawn(controller, Arc::new(state), look);
}

fn pod_changed(
    change: &Change<PodView>,
    queue: &WorkQueue<Key>,
    seen: &Expectations,
    sets: &Informer<ReplicaSet>,
) {
    let pod = change.object();
    let owner = manager(&pod.metadata, "ReplicaSet");
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let going = matches!(change, Change::Deleted(_)) || is_deleting(&pod.metadata);
    if let Some(owner) = &owner {
        if matches!(change, Change::Added(_)) {
            seen.created(owner);
        }
        if going {
            seen.deleted(owner, uid);
        }
        queue.add(owner.clone());
    }
    if let Change::Updated { old, .. } = change
        && let Some(former) =
            manager(&old.metadata, "ReplicaSet").filter(|former| Some(former) != owner.as_ref())
    {
        queue.add(former);
    }
    // Whoever selects an orphan may adopt it.
    if controller_of(&pod.metadata).is_none() && !going {
        for set in sets.store().list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if client::selector(&set.spec.as_ref().map(|s| s.selector.clone()).unwrap_or_default())
                .is_ok_and(|selector| !selector.is_everything() && selects(&selector, &**pod))
            {
                queue.add(Key::of(&*set));
            }
        }
    }
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(set) = state.sets.get(&key) else {
        state.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    // Asked before the pods are looked at, so that what comes in between is counted.
    let may_manage = state.expectations.are_met(&key) && !is_deleting(&set.metadata);
    let selector = client::selector(&spec.selector)
        .map_err(|source| Error::Selector { object: format!("replica set {key}"), source })?;
    let candidates = state.owned.candidates(&set.metadata);
    let pods = claim_all(&state.ctx.client(), &*set, &selector, candidates).await?;
    let failure = if may_manage { state.manage(&key, &set, &pods).await } else { None };
    let now = state.ctx.now();
    let wanted =
        status::status(&set, &pods, failure.as_ref().map(|(why, error)| (*why, error.to_string())), now);
    state.write_status(&set, wanted).await?;
    match failure {
        Some((_, error)) => Err(error),
        None => Ok(status::next(&set, &pods, now)),
    }
}

impl State {
    /// Creates or deletes pods; gives the first failure.
    async fn manage(&self, key: &Key, set: &ReplicaSet, pods: &[Arc<PodView>]) -> Option<(Failure, Error)> {
        let active: Vec<Arc<PodView>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let siblings = || self.siblings(set);
        match plan(set, &active, siblings, self.ctx.now()) {
            Step::Nothing => None,
            Step::Create(count) => {
                let failure = self.create(key, set, count).await?;
                // Once its namespace is going there is no use in trying again.
                let over =
                    matches!(&failure, Error::Api { source, .. } if client::is_namespace_terminating(source));
                (!over).then_some((Failure::Create, failure))
            }
            Step::Delete(victims) => Some((Failure::Delete, self.delete(key, set, victims).await?)),
        }
    }

    /// The pods of all replica sets under the same owner: where they crowd on a node, one may go first.
    fn siblings(&self, set: &ReplicaSet) -> Vec<Arc<PodView>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(&set.metadata) else { return self.owned.of(uid) };
        let sets = self.sets.store().list_in(set.metadata.namespace.as_deref().unwrap_or_default());
        let related = sets.iter().filter(|s| client::is_controlled_by(&s.metadata, &owner.uid));
        related.flat_map(|s| self.owned.of(s.metadata.uid.as_deref().unwrap_or_default())).collect()
    }

    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> Option<Error> {
        let template = set.spec.as_ref()?.template.as_ref()?;
        let pod = pod_of(set, template);
        let api = self.ctx.api::<Pod>(key.namespace());
        self.expectations.expect(key, count, std::iter::empty());
        let (_, untried, failure) = slow_start(count, || async {
            match api.create(&PostParams::default(), &pod).await {
                Ok(pod) => {
                    self.recorder.normal(set, "SuccessfulCreate", format!("Created pod: {}", pod.name_any()));
                    Ok(())
                }
                Err(error) => {
                    self.expectations.created(key);
                    if !client::is_namespace_terminating(&error) {
                        let why = format!("Error creating: {}", client::message(&error));
                        self.recorder.warning(set, "FailedCreate", why);
                    }
                    Err(error)
                }
            }
        })
        .await;
        (0..untried).for_each(|_| self.expectations.created(key));
        failure.map(|source| Error::Api { attempt: format!("create a pod of {key}"), source })
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet, victims: Vec<Arc<PodView>>) -> Option<Error> {
        let uid = |pod: &PodView| pod.metadata.uid.clone().unwrap_or_default();
        self.expectations.expect(key, 0, victims.iter().map(|pod| uid(pod)));
        let api = self.ctx.api::<Pod>(key.namespace());
        let deletions = victims.iter().map(|pod| {
            let api = &api;
            async move {
                let name = pod.name_any();
                let only = Preconditions { uid: pod.metadata.uid.clone(), ..Default::default() };
                let params = DeleteParams { preconditions: Some(only), ..Default::default() };
                match api.delete(&name, &params).await {
                    Ok(_) => {
                        self.recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
                        None
                    }
                    Err(error) => {
                        self.expectations.deleted(key, &uid(pod));
                        // Gone already, or another one of the same name by now.
                        if client::is_not_found(&error) || client::is_conflict(&error) {
                            return None;
                        }
                        let why = format!("Error deleting: {}", client::message(&error));
                        self.recorder.warning(set, "FailedDelete", why);
                        Some(Error::Api { attempt: format!("delete pod {name}"), source: error })
                    }
                }
            }
        });
        join_all(deletions).await.into_iter().flatten().next()
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        wanted: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Result<(), Error> {
        if set.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let new = ReplicaSet { status: Some(wanted), ..set.clone() };
        let name = set.name_any();
        let api = self.ctx.api::<ReplicaSet>(set.metadata.namespace.as_deref().unwrap_or_default());
        match api.replace_status(&name, &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).attempt(|| format!("write the status of replica set {name}")),
        }
    }
}

#[cfg(test)]
mod tests;
