//! What comes between a pod's node and its binding: its claims get their volumes (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/volumebinding/binder.go`, `BindPodVolumes`).
//!
//! ```text
//! plan ─► assumed ─► written ─► every claim bound ─► the pod is bound
//!            ▲           └────► no, or not in time ─┐
//!            └──────── another look for a node ◄────┘
//! ```

use std::sync::Arc;

use client::Key;
use client::k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::Scheduler;
use super::binding::expect;
use super::input::{Input, Storage};
use crate::hints::uses;
use crate::metrics::{Outcome, Stage};
use crate::pod::PodInfo;
use crate::volumes::{Plan, Progress, progress};

/// How the writing of a plan went.
pub(super) struct Prepared {
    pod: Arc<PodInfo>,
    /// As it was written, if it was.
    outcome: Result<Plan, kube::Error>,
}

/// A pod that waits for its claims.
pub(super) struct Preparing {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    plan: Plan,
    /// Once all is written (upstream: `bindTimeoutSeconds`).
    until: Option<Instant>,
    begun: Instant,
}

impl Scheduler {
    /// Begins to give a pod's claims their volumes; the outcome comes through the channel.
    pub(super) fn prepare(&mut self, pod: Arc<PodInfo>, node: Arc<str>, plan: Plan) {
        self.view.volumes.assume(&plan);
        let begun = Instant::now();
        let preparing =
            Preparing { pod: pod.clone(), node: node.clone(), plan: plan.clone(), until: None, begun };
        self.preparing.insert(pod.uid.clone(), preparing);
        self.bindings.carry_out(pod, node, plan);
    }

    pub(super) fn prepared(&mut self, prepared: Prepared) {
        self.in_flight -= 1;
        let uid = prepared.pod.uid.clone();
        let Some(preparing) = self.preparing.get_mut(&uid) else {
            // The pod is gone meanwhile.
            self.bindings.finished(&uid);
            return;
        };
        match prepared.outcome {
            Ok(plan) => {
                preparing.plan = plan;
                preparing.until = Some(Instant::now() + preparing.pod.profile.bind_timeout);
                self.look_at_claims(&uid);
            }
            Err(error) => {
                self.bindings.finished(&uid);
                self.not_prepared(&uid, &client::message(&error));
            }
        }
    }

    /// Something that has to do with claims has changed.
    pub(super) fn storage(&mut self, storage: Storage) {
        let volumes = &mut self.view.volumes;
        let helps = match storage {
            Storage::Claim(key, claim) => {
                volumes.set_claim(key.clone(), claim);
                self.queue.wake(|pod, stuck| stuck.volumes && uses(pod, &key));
                self.look_at_all(Some(&key));
                return;
            }
            Storage::Volume(key, volume) => {
                let there = volume.is_some();
                volumes.set_volume(key, volume);
                there
            }
            Storage::Class(key, class) => volumes.set_class(key.name(), class),
            Storage::Node(key, node) => volumes.set_node(key.name(), node),
            Storage::Driver(key, driver) => volumes.set_driver(key.name(), driver),
            Storage::Capacity(key, capacity) => volumes.set_capacity(key, capacity),
            Storage::Attachment(key, attachment) => volumes.set_attachment(key.name(), attachment),
        };
        if helps {
            self.queue.wake(|_, stuck| stuck.volumes);
        }
        self.look_at_all(None);
    }

    /// Looks at the pods that wait, or at those that wait for one claim.
    pub(super) fn look_at_all(&mut self, claim: Option<&Key>) {
        let concerned = |p: &Preparing| p.until.is_some() && claim.is_none_or(|claim| uses(&p.pod, claim));
        let mut waiting: Vec<Arc<str>> =
            self.preparing.iter().filter(|(_, p)| concerned(p)).map(|(uid, _)| uid.clone()).collect();
        // The order of the map is none.
        waiting.sort_unstable();
        waiting.iter().for_each(|uid| self.look_at_claims(uid));
    }

    fn look_at_claims(&mut self, uid: &Arc<str>) {
        let Some(preparing) = self.preparing.get(uid) else { return };
        let node = &preparing.node;
        let how_far = match self.view.row(node) {
            Some(row) => progress(&preparing.plan, node, &self.view.labels[row], &self.view.volumes),
            None => Progress::Failed(format!("failed to get node {:?}: node {node:?} not found", &**node)),
        };
        match how_far {
            Progress::NotYet => {}
            Progress::Failed(why) => self.not_prepared(uid, &format!("binding volumes: {why}")),
            Progress::Done => {
                let Some(Preparing { pod, node, begun, .. }) = self.preparing.remove(uid) else { return };
                pod.profile.numbers.stage(Stage::PreBind, begun.elapsed());
                self.in_flight += 1;
                self.go(pod, node, true);
            }
        }
    }

    /// The claims will not get their volumes there.
    fn not_prepared(&mut self, uid: &Arc<str>, why: &str) {
        let Some(Preparing { pod, .. }) = self.preparing.get(uid) else { return };
        let (pod, why) = (pod.clone(), format!("running PreBind plugin \"VolumeBinding\": {why}"));
        tracing::debug!(pod = %pod.key, why, "cannot bind claims");
        pod.profile.numbers.attempt(Outcome::Error, self.queue.tries(uid).begun.elapsed());
        self.give_up(uid);
        self.leave(uid);
        self.say_failed(&pod, &why);
        self.queue.retry(uid);
    }

    /// Whether the pod has been waiting for its claims; it does no longer. Whatever is written stays: it is good for the
    /// next attempt, or for somebody else.
    pub(super) fn give_up(&mut self, uid: &str) -> bool {
        let had_devices = self.give_up_devices(uid);
        let Some(preparing) = self.preparing.remove(uid) else { return had_devices };
        self.view.volumes.forsake(&preparing.plan);
        if preparing.until.is_some() {
            self.bindings.finished(uid);
        }
        self.queue.wake(|_, stuck| stuck.volumes);
        true
    }

    /// When the first pod has waited for long enough.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.preparing.values().filter_map(|preparing| preparing.until).min()
    }

    pub(super) fn lose_patience(&mut self) {
        let now = Instant::now();
        let over = self.preparing.iter().filter(|(_, p)| p.until.is_some_and(|until| until <= now));
        let over: Vec<Arc<str>> = over.map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            self.not_prepared(&uid, "binding volumes: context deadline exceeded");
        }
    }
}

impl super::binding::Bindings {
    fn carry_out(&self, pod: Arc<PodInfo>, node: Arc<str>, plan: Plan) {
        let client = self.client();
        self.tell(async move {
            expect(&client, &pod, &node).await;
            let outcome = write(&client, plan).await;
            Input::Prepared(Prepared { pod, outcome })
        });
    }
}

/// Volumes first: a claim that has begun to be provided for is harder to take back.
async fn write(client: &Client, mut plan: Plan) -> Result<Plan, kube::Error> {
    for binding in plan.bind.iter_mut().filter(|binding| binding.changed) {
        let api: Api<PersistentVolume> = Api::all(client.clone());
        let name = binding.volume.metadata.name.as_deref().unwrap_or_default();
        let written = api.replace(name, &PostParams::default(), &*binding.volume).await?;
        binding.volume = Arc::new(written);
    }
    for wish in plan.provision.iter_mut().filter(|wish| wish.changed) {
        let key = Key::of(&*wish.claim);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), key.namespace());
        let written = api.replace(key.name(), &PostParams::default(), &*wish.claim).await?;
        wish.claim = Arc::new(written);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests;
