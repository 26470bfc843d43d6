//! Deployments: a replica set for each template, and the way from one to the next (kubernetes/kubernetes,
//! `pkg/controller/deployment`).

mod revision;
mod sizes;
mod status;

use std::sync::Arc;

use client::{Controller, Informer, Key, Next, PodView, Recorder, controller_of, is_deleting};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::common::claim::{claim_all, selects};
use crate::common::owned::{Owned, manager};
use crate::common::pods::is_finished;
use crate::common::status::put_status;
use crate::context::Context;
use crate::error::{Attempt, Error};

use revision::{Sets, annotated, next_revision};
use sizes::{Resize, replicas, wanted};

struct State {
    ctx: Context,
    deployments: Informer<Deployment>,
    owned_sets: Owned<ReplicaSet>,
    owned_pods: Owned<PodView>,
    recorder: Recorder,
}

pub(crate) fn start(ctx: &Context) {
    let (deployments, sets) = (ctx.informers.of::<Deployment>(), ctx.informers.of::<ReplicaSet>());
    let pods = ctx.informers.of::<PodView>();
    let (owned_sets, owned_pods) = (Owned::new(&sets), Owned::new(&pods));
    let (all, known_sets) = (deployments.clone(), sets.clone());
    let controller = Controller::new("deployment")
        .workers(8)
        .watches(&deployments, |deployment: &Deployment| [Key::of(deployment)])
        .watches(&sets, move |set: &ReplicaSet| keys_of_set(set, &all))
        // A deployment that recreates waits for its old pods to end.
        .watches(&pods, move |pod: &PodView| {
            let over = is_finished(pod) || is_deleting(&pod.metadata);
            let set = manager(&pod.metadata, "ReplicaSet").filter(|_| over);
            set.and_then(|set| manager(&known_sets.get(&set)?.metadata, "Deployment"))
        });
    let recorder = ctx.recorder("deployment-controller");
    let state = State { ctx: ctx.clone(), deployments, owned_sets, owned_pods, recorder };
    ctx.spawn(controller, Arc::new(state), look);
}

fn keys_of_set(set: &ReplicaSet, deployments: &Informer<Deployment>) -> Vec<Key> {
    if controller_of(&set.metadata).is_some() {
        return manager(&set.metadata, "Deployment").into_iter().collect();
    }
    let near = deployments.store().list_in(set.metadata.namespace.as_deref().unwrap_or_default());
    let may_adopt = |d: &&Arc<Deployment>| {
        let selector = d.spec.as_ref().map(|s| s.selector.clone()).unwrap_or_default();
        client::selector(&selector).is_ok_and(|s| !s.is_everything() && selects(&s, &set.metadata))
    };
    near.iter().filter(may_adopt).map(|d| Key::of(&**d)).collect()
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(deployment) = state.deployments.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &deployment.spec else { return Ok(Next::Done) };
    let selector = client::selector(&spec.selector)
        .map_err(|source| Error::Selector { object: format!("deployment {key}"), source })?;
    let candidates = state.owned_sets.candidates(&deployment.metadata);
    let all = claim_all(&state.ctx.client(), &*deployment, &selector, candidates).await?;
    let sets = Sets::of(&deployment, all);
    if is_deleting(&deployment.metadata) {
        let status = status::status(&deployment, &sets, state.ctx.now());
        state.write_status(&deployment, status).await?;
        return Ok(Next::Done);
    }
    if let Some(status) = status::paused(&deployment, state.ctx.now()) {
        // The change wakes us again.
        state.write_status(&deployment, status).await?;
        return Ok(Next::Done);
    }
    let rescaled = sets
        .all()
        .filter(|s| replicas(s) > 0)
        .any(|s| annotated(s, revision::DESIRED).is_some_and(|desired| desired != wanted(&deployment)));
    if spec.paused == Some(true) || rescaled {
        let Some(sets) = state.in_step(&deployment, sets).await? else { return Ok(Next::Done) };
        let sizes = sizes::scale(&deployment, &sets);
        let sets = state.resize(&deployment, sets, sizes).await?;
        if spec.paused == Some(true) {
            state.clean_up(&deployment, &sets).await?;
        }
        let status = status::status(&deployment, &sets, state.ctx.now());
        state.write_status(&deployment, status).await?;
        return Ok(Next::Done);
    }
    if sizes::is_rolling(&deployment) {
        state.roll(&deployment, sets).await
    } else {
        state.recreate(&deployment, sets).await
    }
}

impl State {
    async fn roll(&self, deployment: &Deployment, sets: Sets) -> Result<Next, Error> {
        let Some(sets) = self.with_new(deployment, sets).await? else { return Ok(Next::Done) };
        let sizes = sizes::roll(deployment, &sets);
        let sets = self.resize(deployment, sets, sizes).await?;
        self.finish(deployment, &sets).await
    }

    async fn recreate(&self, deployment: &Deployment, sets: Sets) -> Result<Next, Error> {
        let Some(sets) = self.in_step(deployment, sets).await? else { return Ok(Next::Done) };
        let down: Vec<Resize> = sets.old.iter().filter(|s| replicas(s) > 0).map(|s| (s.clone(), 0)).collect();
        if !down.is_empty() {
            let sets = self.resize(deployment, sets, down).await?;
            return self.finish(deployment, &sets).await;
        }
        // Their own word counts too: the cache may not show pods yet that they have just made.
        if sets.old.iter().any(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0)) {
            return self.finish(deployment, &sets).await;
        }
        let mut old_pods =
            sets.old.iter().flat_map(|s| self.owned_pods.of(s.metadata.uid.as_deref().unwrap_or_default()));
        if old_pods.any(|pod| !is_finished(&pod)) {
            return self.finish(deployment, &sets).await;
        }
        let Some(sets) = self.with_new(deployment, sets).await? else { return Ok(Next::Done) };
        let up = sets.new.iter().filter(|s| replicas(s) != wanted(deployment));
        let up = up.map(|s| (s.clone(), wanted(deployment))).collect();
        let sets = self.resize(deployment, sets, up).await?;
        self.finish(deployment, &sets).await
    }

    /// Makes sure that the set for the present template, if there is one, and the deployment bear its revision. `None`
    /// means that the deployment itself was changed, which wakes us again.
    async fn in_step(&self, deployment: &Deployment, sets: Sets) -> Result<Option<Sets>, Error> {
        let Some(new) = &sets.new else { return Ok(Some(sets)) };
        let new = self.annotate(deployment, new, next_revision(&sets.old)).await?;
        let noted = self.note(deployment, &new, false).await?;
        Ok((!noted).then_some(Sets { new: Some(new), old: sets.old }))
    }

    /// The same, and makes the set that is missing.
    async fn with_new(&self, deployment: &Deployment, sets: Sets) -> Result<Option<Sets>, Error> {
        match &sets.new {
            Some(_) => self.in_step(deployment, sets).await,
            None => self.create(deployment, sets).await,
        }
    }

    async fn create(&self, deployment: &Deployment, sets: Sets) -> Result<Option<Sets>, Error> {
        let total = sets.old.iter().map(|s| replicas(s)).sum();
        let size = sizes::next_new_size(deployment, total, 0);
        let Some(new) = revision::new_set(deployment, &sets, size) else { return Ok(None) };
        let name = new.name_any();
        let api = self.ctx.api::<ReplicaSet>(deployment.metadata.namespace.as_deref().unwrap_or_default());
        let created = match api.create(&PostParams::default(), &new).await {
            Ok(created) => created,
            Err(error) if client::is_already_exists(&error) => {
                return self.resolve_collision(deployment, sets, &name).await;
            }
            Err(error) if client::is_namespace_terminating(&error) => return Ok(None),
            Err(error) => {
                let why = format!("Failed to create new replica set {name:?}: {}", client::message(&error));
                if let Some(status) = status::refused(deployment, &why, self.ctx.now()) {
                    // What hinders us is worth more than that it cannot be noted.
                    let _ = self.write_status(deployment, status).await;
                }
                self.recorder.warning(deployment, status::NOT_CREATED, why);
                return Err(error).attempt(|| format!("create replica set {name}"));
            }
        };
        if size > 0 {
            self.recorder.normal(
                deployment,
                "ScalingReplicaSet",
                format!("Scaled up replica set {name} from 0 to {size}"),
            );
        }
        self.note(deployment, &created, true).await?;
        Ok(None)
    }

    /// The name is taken: by our own set that the cache does not show yet, or by somebody else's.
    async fn resolve_collision(
        &self,
        deployment: &Deployment,
        sets: Sets,
        name: &str,
    ) -> Result<Option<Sets>, Error> {
        let api = self.ctx.api::<ReplicaSet>(deployment.metadata.namespace.as_deref().unwrap_or_default());
        let Some(taken) = api.get_opt(name).await.attempt(|| format!("look at replica set {name}"))? else {
            return Ok(None);
        };
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let ours = client::is_controlled_by(&taken.metadata, uid);
        let taken = Arc::new(taken);
        if ours && Sets::of(deployment, vec![taken.clone()]).new.is_some() {
            return Ok(Some(Sets { new: Some(taken), old: sets.old }));
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(deployment, status).await?;
        Ok(None)
    }

    async fn annotate(
        &self,
        deployment: &Deployment,
        new: &Arc<ReplicaSet>,
        next: i64,
    ) -> Result<Arc<ReplicaSet>, Error> {
        let annotations = revision::annotations(deployment, Some(new), next);
        let wait = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let same = new.metadata.annotations.as_ref() == Some(&annotations)
            && new.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) == wait.unwrap_or(0);
        if same {
            return Ok(new.clone());
        }
        let change = json!({"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": wait}});
        self.patch(new, change).await
    }

    /// The deployment bears the revision of its new set, and says that it is being rolled out. Tells whether
    /// anything had to be written.
    async fn note(&self, deployment: &Deployment, new: &ReplicaSet, created: bool) -> Result<bool, Error> {
        let is = revision::revision(&new.metadata);
        let begun = status::begun(deployment, new, created, self.ctx.now());
        if revision::revision(&deployment.metadata) == is && begun.is_none() {
            return Ok(false);
        }
        let mut changed = deployment.clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(revision::REVISION.into(), is.to_string());
        // A write to the status carries annotations along; so it is one write.
        let status = begun.or_else(|| deployment.status.clone()).unwrap_or_default();
        put_status(&self.ctx, &Deployment { status: Some(status), ..changed }).await?;
        Ok(true)
    }

    /// Gives sets their new sizes; the result has them as they then are.
    async fn resize(
        &self,
        deployment: &Deployment,
        mut sets: Sets,
        sizes: Vec<Resize>,
    ) -> Result<Sets, Error> {
        for (set, size) in sizes {
            let noted = revision::size_annotations(deployment);
            let from = replicas(&set);
            let same = noted
                .iter()
                .all(|(k, v)| set.metadata.annotations.as_ref().and_then(|a| a.get(k)) == Some(v));
            if from == size && same {
                continue;
            }
            let noted: std::collections::BTreeMap<_, _> = noted.into_iter().collect();
            let change = json!({"metadata": {"annotations": noted}, "spec": {"replicas": size}});
            let changed = self.patch(&set, change).await?;
            if from != size {
                let way = if size > from { "up" } else { "down" };
                let name = set.name_any();
                let message = format!("Scaled {way} replica set {name} from {from} to {size}");
                self.recorder.normal(deployment, "ScalingReplicaSet", message);
            }
            for known in sets.old.iter_mut().chain(&mut sets.new) {
                if known.metadata.uid == changed.metadata.uid {
                    *known = changed.clone();
                }
            }
        }
        Ok(sets)
    }

    /// Changes a set that is still as we know it.
    async fn patch(&self, set: &ReplicaSet, mut change: Value) -> Result<Arc<ReplicaSet>, Error> {
        change["metadata"]["resourceVersion"] = json!(set.metadata.resource_version);
        let name = set.name_any();
        let api = self.ctx.api::<ReplicaSet>(set.metadata.namespace.as_deref().unwrap_or_default());
        let changed = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await;
        changed.map(Arc::new).attempt(|| format!("change replica set {name}"))
    }

    async fn finish(&self, deployment: &Deployment, sets: &Sets) -> Result<Next, Error> {
        let now = self.ctx.now();
        let mut status = status::status(deployment, sets, now);
        status::progress(deployment, sets, &mut status, now);
        if status::is_complete(deployment, &status) {
            self.clean_up(deployment, sets).await?;
        }
        let next = status::next_check(deployment, &status, now);
        self.write_status(deployment, status).await?;
        Ok(next.map_or(Next::Done, Next::After))
    }

    async fn clean_up(&self, deployment: &Deployment, sets: &Sets) -> Result<(), Error> {
        for set in revision::superfluous(deployment, sets) {
            let name = set.name_any();
            let only = Preconditions { uid: set.metadata.uid.clone(), ..Default::default() };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
            let api = self.ctx.api::<ReplicaSet>(set.metadata.namespace.as_deref().unwrap_or_default());
            match api.delete(&name, &params).await {
                Err(error) if client::is_not_found(&error) => {}
                outcome => drop(outcome.attempt(|| format!("delete replica set {name}"))?),
            }
        }
        Ok(())
    }

    async fn write_status(&self, deployment: &Deployment, mut status: DeploymentStatus) -> Result<(), Error> {
        status.conditions = status.conditions.filter(|c| !c.is_empty());
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        put_status(&self.ctx, &Deployment { status: Some(status), ..deployment.clone() }).await
    }
}

#[cfg(test)]
mod tests;
