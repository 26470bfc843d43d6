//! Volumes of CSI drivers are attached to the nodes whose pods need them, and detached afterwards (kubernetes/kubernetes,
//! `pkg/controller/volume/attachdetach`, `pkg/volume/csi/csi_attacher.go`).
//!
//! ```text
//! pod needs ─► VolumeAttachment ─► its driver attaches ─► node.status.volumesAttached ─► the node mounts
//! pod ended ─► not in volumesInUse ─► out of volumesAttached ─► VolumeAttachment is deleted ─► its driver detaches
//! ```
//!
//! A look at a node brings it one step on from wherever it is, by what pods, the node and attachments say.

mod act;
mod memory;
mod names;
mod plan;
mod say;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Index, Informer, Key, Next, PodView, Recorder, is_deleting, storage};
use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::ResourceExt;
use types::local_volumes;

use crate::context::Context;
use crate::error::Error;
use crate::volume::users::pods_by_claim;
use memory::Memory;
use names::{attachment_name, is_ours};
use plan::{Here, Plan, View, Want, csi, has_ended, keeps_ended, plan, reported};

/// A volume that another node was about to get is asked for again after so long: it may not have got it.
const RETRY: Duration = Duration::from_secs(30);

struct State {
    ctx: Context,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods_on: Index<PodView>,
    users: Index<PodView>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
    on_node: Index<VolumeAttachment>,
    of_volume: Index<VolumeAttachment>,
    memory: Memory,
    /// Whether an ill node loses what it says it uses.
    force: bool,
}

/// With `force`, a node that has been ill for long loses the volumes that it says it uses.
pub(crate) fn start(ctx: &Context, force: bool) {
    let pods = ctx.informers.of::<PodView>();
    let attachments = ctx.informers.of::<VolumeAttachment>();
    let state = Arc::new(State {
        ctx: ctx.clone(),
        recorder: ctx.recorder("attachdetach-controller"),
        nodes: ctx.informers.of(),
        pods_on: pods.index("node", |pod: &PodView| pod.node_name.as_deref().map(str::to_owned)),
        users: pods_by_claim(&pods),
        claims: ctx.informers.of(),
        volumes: ctx.informers.of(),
        drivers: ctx.informers.of(),
        on_node: attachments.index("node", |a: &VolumeAttachment| [a.spec.node_name.clone()]),
        of_volume: attachments
            .index("volume", |a: &VolumeAttachment| a.spec.source.persistent_volume_name.clone()),
        attachments,
        memory: Memory::default(),
        force,
    });
    ctx.spawn(wake::controller(&state, &pods), state, look);
}

fn key_of(claim: &ObjectReference) -> Key {
    Key::new(claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default())
}

/// Each step is decided anew by what the one before has brought.
async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let name = key.name();
    let mut node = state.nodes.get(&key);
    let wants = state.wants(name, node.as_deref());
    let here = state.here(name, &wants).await?;
    state.count(name, &wants, &here);
    let mut next = state.plan(name, node.as_deref(), &wants, &here);
    if !next.detach.is_empty() {
        // The cache may be behind: the node may have begun to use a volume, or still be told that it has it.
        node = state.read(name).await?.map(Arc::new);
        next = state.plan(name, node.as_deref(), &wants, &here);
    }
    if let (Some(known), Some(report)) = (&node, &next.report)
        && reported(known) != *report
    {
        let told = state.report(name, report).await?;
        state.say_attached(&wants, &reported(known), report);
        next = state.plan(name, Some(&told), &wants, &here);
    }
    for detach in &next.detach {
        let found = here.iter().find(|here| here.attachment.name_any() == detach.attachment);
        if let Some(Here { attachment, .. }) = found {
            state.delete(name, attachment).await?;
            if let Some(reason) = detach.forced {
                crate::metrics::forced_detach(reason);
            }
        }
    }
    let mut again = state.say_waiting(name, &wants, &here).into_iter().chain(next.again).min();
    let mut outcome = Ok(());
    for (attachment, want) in wants.iter().filter(|(attachment, _)| next.attach.contains(attachment)) {
        // One volume that cannot be attached does not hold up another.
        match state.attach(name, attachment, want).await {
            Ok(true) => {}
            Ok(false) => again = Some(again.map_or(RETRY, |again| again.min(RETRY))),
            Err(error) => outcome = Err(error),
        }
    }
    outcome.map(|()| again.map_or(Next::Done, Next::After))
}

impl State {
    fn plan(&self, name: &str, node: Option<&Node>, wants: &BTreeMap<String, Want>, here: &[Here]) -> Plan {
        let unwanted = |attachment: &str| self.memory.unwanted(name, attachment);
        plan(&View { name, node, wants, here, unwanted: &unwanted, force: self.force })
    }

    /// What the pods of a node need attached, by the name of the attachment.
    fn wants(&self, name: &str, node: Option<&Node>) -> BTreeMap<String, Want> {
        let keeps = node.is_some_and(keeps_ended);
        let mut wants: BTreeMap<String, Want> = BTreeMap::new();
        for pod in self.pods_on.get(name).into_iter().filter(|pod| keeps || !has_ended(pod)) {
            for (claim, own) in pod.claims() {
                let Some(volume) = self.volume_behind(&pod, &claim, own) else { continue };
                let Some(csi) = csi(&volume).filter(|csi| self.is_attachable(&csi.driver)) else { continue };
                let attachment = attachment_name(&csi.driver, &csi.volume_handle, name);
                let want = wants.entry(attachment).or_insert_with(|| Want { volume, pods: Vec::new() });
                if want.pods.last().is_none_or(|last| last.metadata.uid != pod.metadata.uid) {
                    want.pods.push(pod.clone());
                }
            }
        }
        wants
    }

    /// The volume that a pod uses by a claim, if both have agreed on it.
    fn volume_behind(&self, pod: &PodView, claim: &str, own: bool) -> Option<Arc<PersistentVolume>> {
        let claim = self.claims.store().by_name(pod.metadata.namespace.as_deref()?, claim)?;
        if storage::claim_phase(&claim) != "Bound" || (own && pod.disowns(&claim).is_some()) {
            return None;
        }
        let volume = self.volumes.store().by_name("", storage::volume_of(&claim))?;
        storage::claim_of(&volume).is_some_and(|known| known.uid == claim.metadata.uid).then_some(volume)
    }

    /// Whether the volumes of a driver are attached at all: those of one that says nothing of itself are.
    fn is_attachable(&self, driver: &str) -> bool {
        let known = self.drivers.store().by_name("", driver);
        driver != local_volumes::DRIVER && known.is_none_or(|known| known.spec.attach_required != Some(false))
    }

    /// The attachments of a node that are ours. One that we may have asked to delete without an answer is asked for again:
    /// until that is sure, nobody knows whether its driver detaches it.
    async fn here(&self, name: &str, wants: &BTreeMap<String, Want>) -> Result<Vec<Here>, Error> {
        let mut all = self.on_node.get(name);
        all.retain(|attachment| is_ours(&attachment.name_any()));
        self.memory.refresh(name, wants, &all);
        let mut here = Vec::with_capacity(all.len());
        for attachment in all {
            let asked = self.memory.is_deleting(name, &attachment.name_any());
            let deleting = is_deleting(&attachment.metadata);
            if asked == Some(false) && !deleting {
                self.delete(name, &attachment).await?;
            }
            here.push(Here { going: deleting || asked.is_some(), attachment });
        }
        Ok(here)
    }

    fn count(&self, name: &str, wants: &BTreeMap<String, Want>, here: &[Here]) {
        let desired = wants.values().filter_map(|want| csi(&want.volume)).map(|csi| csi.driver.as_str());
        let actual = here.iter().map(|here| here.attachment.spec.attacher.as_str());
        crate::metrics::volumes_on(name, desired, actual);
    }
}
