//! Stateful sets: pods with names and claims of their own, made and replaced in order (kubernetes/kubernetes,
//! `pkg/controller/statefulset`).
//!
//! A name is what keeps a pod from being there twice: whatever the cache shows, the server takes no second pod of a name,
//! and a deletion is of one UID only. Until the cache shows what was done, nothing else is.

mod claims;
mod identity;
mod plan;
mod retention;
mod status;

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, Next, PodView, WorkQueue, is_deleting};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::claim::{claim_where, selects};
use crate::common::history::{self, History, Revision, revision_of};
use crate::common::owned::{Owned, on_pods};
use crate::common::pod_control::{PodControl, is_gone, only};
use crate::common::slow_start::slow_start;
use crate::common::status::put_status;
use crate::context::Context;
use crate::error::{Attempt, Error};

use claims::Claims;
use plan::{Revisions, Step, Why};

struct State {
    ctx: Context,
    sets: Informer<StatefulSet>,
    owned: Owned<PodView>,
    history: History,
    claims: Claims,
    control: PodControl,
}

/// A set's templates, between which it may be.
struct Versions {
    all: Vec<Revision>,
    current: Revision,
    update: Revision,
    collisions: Option<i32>,
}

impl Versions {
    fn names(&self) -> Revisions<'_> {
        fn name(revision: &Revision) -> &str {
            revision.metadata.name.as_deref().unwrap_or_default()
        }
        Revisions { current: name(&self.current), update: name(&self.update) }
    }
}

pub(crate) fn start(ctx: &Context) {
    let state = Arc::new(State::new(ctx));
    let seen = state.control.expectations.clone();
    let on_pods =
        on_pods(&state.sets, seen, |set: &StatefulSet| client::selector(&set.spec.as_ref()?.selector).ok());
    let known = state.sets.clone();
    let controller = Controller::new("statefulset")
        .workers(8)
        .watches(&state.sets, |set: &StatefulSet| [Key::of(set)])
        .watches_changes(&ctx.informers.of::<PodView>(), on_pods)
        .watches_changes(&ctx.informers.of(), move |change, queue| on_claims(change, queue, &known))
        .after(&ctx.informers.of::<ControllerRevision>());
    ctx.spawn(controller, state, look);
}

/// A pod may wait for its former claim to go.
fn on_claims(change: &Change<PersistentVolumeClaim>, queue: &WorkQueue<Key>, sets: &Informer<StatefulSet>) {
    let Change::Deleted(claim) = change else { return };
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let near = sets.store().list_in(claim.metadata.namespace.as_deref().unwrap_or_default());
    near.iter().filter(|set| identity::is_claim_of(set, name)).for_each(|set| queue.add(Key::of(&**set)));
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(set) = state.sets.get(&key) else {
        state.control.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    // Asked before the pods are looked at, so that what comes in between is counted.
    let may_manage = state.control.expectations.are_met(&key) && !is_deleting(&set.metadata);
    let selector = client::selector(&spec.selector)
        .map_err(|source| Error::Selector { object: format!("stateful set {key}"), source })?;
    let fits = |pod: &PodView| identity::ordinal(&set, pod).is_some() && selects(&selector, pod);
    let candidates = state.owned.candidates(&set.metadata);
    let pods = claim_where(&state.ctx.client(), &*set, fits, candidates, None).await?;
    if is_deleting(&set.metadata) {
        return state.look_on(&set, &pods).await;
    }
    let all = state.history.of(&*set, &selector).await?;
    let versions = match state.versions(&set, all).await {
        // Nothing new is made in a namespace that goes.
        Err(Error::Api { source, .. }) if client::is_namespace_terminating(&source) => return Ok(Next::Done),
        versions => versions?,
    };
    let now = state.ctx.now();
    let steps = if may_manage { plan::plan(&set, versions.names(), &pods, now) } else { Vec::new() };
    let failure = state.take(&key, &set, &versions, &pods, &steps).await.err();
    let leaving: Vec<Arc<PodView>> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Delete(pod, Why::Updated) if failure.is_none() => Some(pod.clone()),
            _ => None,
        })
        .collect();
    let names = versions.names();
    let wanted = status::status(&set, names, versions.collisions, &pods, &leaving, now);
    let next = status::next(&set, &pods, now);
    state.write_status(&set, wanted).await?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let is_used = |revision: &ControllerRevision| {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        name == names.current || name == names.update || pods.iter().any(|pod| revision_of(pod) == Some(name))
    };
    state.history.truncate(&versions.all, is_used, spec.revision_history_limit).await?;
    Ok(next)
}

impl State {
    fn new(ctx: &Context) -> Self {
        let control = PodControl::new(ctx, "statefulset-controller");
        Self {
            ctx: ctx.clone(),
            sets: ctx.informers.of(),
            owned: Owned::new(&ctx.informers.of()),
            history: History::new(ctx, &ctx.informers.of(), "controller.kubernetes.io/hash"),
            claims: Claims::new(ctx, ctx.informers.of(), control.recorder.clone()),
            control,
        }
    }

    /// A set that goes only counts its pods.
    async fn look_on(&self, set: &StatefulSet, pods: &[Arc<PodView>]) -> Result<Next, Error> {
        let Some(old) = &set.status else { return Ok(Next::Done) };
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let (current, update) = (name(&old.current_revision), name(&old.update_revision));
        let names = Revisions { current: &current, update: &update };
        let status = status::status(set, names, old.collision_count, pods, &[], self.ctx.now());
        self.write_status(set, status).await?;
        Ok(Next::Done)
    }

    async fn versions(&self, set: &StatefulSet, all: Vec<Revision>) -> Result<Versions, Error> {
        let status = set.status.as_ref();
        let mut collisions = status.and_then(|s| s.collision_count);
        let template = &set.spec.clone().unwrap_or_default().template;
        let update = self.history.present(set, template, &all, &mut collisions).await?;
        let name = status.and_then(|s| s.current_revision.as_ref());
        let current = all.iter().find(|r| name.is_some() && r.metadata.name.as_ref() == name);
        let current = current.cloned().unwrap_or_else(|| update.clone());
        Ok(Versions { all, current, update, collisions })
    }

    /// Does what was planned; gives the first failure.
    async fn take(
        &self,
        key: &Key,
        set: &StatefulSet,
        versions: &Versions,
        pods: &[Arc<PodView>],
        steps: &[Step],
    ) -> Result<(), Error> {
        if is_deleting(&set.metadata) {
            return Ok(());
        }
        let (_, condemned) = plan::sort(set, pods);
        for pod in pods {
            let Some(ordinal) = identity::ordinal(set, pod) else { continue };
            self.claims.hand_over(set, pod, ordinal, condemned.contains_key(&ordinal)).await?;
        }
        let (mut create, mut delete, mut failure) = (Vec::new(), Vec::new(), None);
        for step in steps {
            let outcome = match step {
                Step::Create { ordinal, current } => {
                    if !self.claims.are_stale(set, *ordinal) {
                        create.push((*ordinal, if *current { &versions.current } else { &versions.update }));
                    }
                    Ok(())
                }
                Step::Provide(ordinal) => self.claims.provide(set, *ordinal).await,
                Step::Label(pod) => self.label(set, pod).await,
                Step::Delete(pod, _) => {
                    delete.push(pod);
                    Ok(())
                }
            };
            failure = failure.or(outcome.err());
        }
        if create.is_empty() && delete.is_empty() {
            return failure.map_or(Ok(()), Err);
        }
        let uids = delete.iter().map(|pod| pod.metadata.uid.clone().unwrap_or_default());
        self.control.expectations.expect(key, create.len(), uids);
        let mut waiting = create.into_iter();
        let (_, untried, uncreated) = slow_start(waiting.len(), || {
            let next = waiting.next();
            async move {
                let Some((ordinal, revision)) = next else { return Ok(()) };
                let outcome = self.create(set, ordinal, revision).await;
                if outcome.is_err() {
                    self.control.expectations.created(key);
                }
                outcome
            }
        })
        .await;
        (0..untried).for_each(|_| self.control.expectations.created(key));
        let deletions = delete.into_iter().map(|pod| self.delete(key, set, pod));
        let undeleted = join_all(deletions).await.into_iter().find_map(Result::err);
        failure.or(uncreated).or(undeleted).map_or(Ok(()), Err)
    }

    /// Makes a pod, its claims first.
    async fn create(&self, set: &StatefulSet, ordinal: i32, revision: &Revision) -> Result<(), Error> {
        let name = identity::pod_name(set, ordinal);
        if let Err(error) = self.claims.provide(set, ordinal).await {
            self.say(set, "create", &name, Some(error.to_string()));
            return Err(error);
        }
        let template = history::template(revision)
            .or_else(|| set.spec.as_ref().map(|s| s.template.clone()))
            .unwrap_or_default();
        let pod = identity::pod(set, &template, &revision.name_any(), ordinal);
        let api = self.ctx.api::<Pod>(set.metadata.namespace.as_deref().unwrap_or_default());
        match api.create(&PostParams::default(), &pod).await {
            Ok(_) => {
                self.say(set, "create", &name, None);
                Ok(())
            }
            Err(error) => {
                // One that the cache does not show yet, or somebody else's.
                if !client::is_already_exists(&error) {
                    self.say(set, "create", &name, Some(client::message(&error)));
                }
                Err(error).attempt(|| format!("create pod {name}"))
            }
        }
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &PodView) -> Result<(), Error> {
        let name = pod.name_any();
        let api = self.ctx.api::<Pod>(key.namespace());
        match api.delete(&name, &only(pod)).await {
            Ok(_) => {
                self.say(set, "delete", &name, None);
                Ok(())
            }
            Err(error) => {
                self.control.expectations.deleted(key, pod.metadata.uid.as_deref().unwrap_or_default());
                if is_gone(&error) {
                    return Ok(());
                }
                self.say(set, "delete", &name, Some(client::message(&error)));
                Err(error).attempt(|| format!("delete pod {name}"))
            }
        }
    }

    /// Gives an adopted pod the labels of its identity.
    async fn label(&self, set: &StatefulSet, pod: &PodView) -> Result<(), Error> {
        let name = pod.name_any();
        let index = identity::ordinal(set, pod).unwrap_or_default().to_string();
        let labels = json!({identity::POD_NAME: name, identity::POD_INDEX: index});
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}}));
        let api = self.ctx.api::<Pod>(set.metadata.namespace.as_deref().unwrap_or_default());
        match api.patch(&name, &PatchParams::default(), &patch).await {
            Err(error) if is_gone(&error) => Ok(()),
            outcome => {
                self.say(set, "update", &name, outcome.as_ref().err().map(client::message));
                outcome.map(drop).attempt(|| format!("label pod {name}"))
            }
        }
    }

    /// Says what was done to a pod, or why not.
    fn say(&self, set: &StatefulSet, verb: &str, pod: &str, failure: Option<String>) {
        let title = match verb {
            "create" => "Create",
            "delete" => "Delete",
            _ => "Update",
        };
        let about = format!("{verb} Pod {pod} in StatefulSet {}", identity::set_name(set));
        let recorder = &self.control.recorder;
        match failure {
            None => recorder.normal(set, &format!("Successful{title}"), format!("{about} successful")),
            Some(why) => {
                recorder.warning(set, &format!("Failed{title}"), format!("{about} failed error: {why}"));
            }
        }
    }

    async fn write_status(&self, set: &StatefulSet, wanted: StatefulSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        put_status(&self.ctx, &StatefulSet { status: Some(wanted), ..set.clone() }).await
    }
}

#[cfg(test)]
mod tests;
