use std::sync::Arc;

use client::Labels;
use client::storage::{self, annotate, annotation, bound_volume};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::ask::{Delayed, VolumeAsk};
use crate::reason::Reason;

/// What a claim gets on a node.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    Bind(&'a Arc<PersistentVolume>, &'a Arc<PersistentVolumeClaim>),
    Provision(&'a Arc<PersistentVolumeClaim>),
}

/// What has to be written, and to come about, before a pod can be bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) bind: Vec<Binding>,
    pub(crate) provision: Vec<Wish>,
}

/// A volume, as it is when it is set aside for a claim.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) volume: Arc<PersistentVolume>,
    pub(crate) claim: client::Key,
    /// It has to be written.
    pub(crate) changed: bool,
}

/// A claim that names the node where its volume is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) claim: Arc<PersistentVolumeClaim>,
    pub(crate) changed: bool,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

impl VolumeAsk<'_> {
    /// What each delayed claim would get on a node, or why the node will not do (`FindPodVolumes`).
    pub(super) fn choose(&self, node: &str, labels: &Labels) -> Result<Vec<Choice<'_>>, Vec<Reason>> {
        let mut reasons = Vec::new();
        if self.bound.iter().any(|reach| !reach.nodes.admit(labels)) {
            reasons.push(Reason::VolumeElsewhere);
        }
        if self.absent {
            reasons.push(Reason::NoVolume);
        }
        match self.choose_delayed(node, labels) {
            Ok(choices) if reasons.is_empty() => Ok(choices),
            Ok(_) => Err(reasons),
            Err(reason) => {
                reasons.push(reason);
                Err(reasons)
            }
        }
    }

    fn choose_delayed(&self, node: &str, labels: &Labels) -> Result<Vec<Choice<'_>>, Reason> {
        let selected = |d: &Delayed| annotation(&d.claim.metadata, storage::SELECTED_NODE).map(str::to_owned);
        if self.delayed.iter().any(|d| selected(d).is_some_and(|selected| selected != node)) {
            return Err(Reason::NothingToBind);
        }
        let mut choices = Vec::with_capacity(self.delayed.len());
        let mut taken: Vec<&Arc<PersistentVolume>> = Vec::new();
        for delayed in &self.delayed {
            let free = |v: &PersistentVolume| taken.iter().any(|t| t.metadata.name == v.metadata.name);
            // What is being made for this node already is not looked for any more.
            let found = match selected(delayed) {
                Some(_) => None,
                None => delayed.candidates.on(labels, free),
            };
            match found {
                Some(volume) => {
                    taken.push(volume);
                    choices.push(Choice::Bind(volume, &delayed.claim));
                }
                None => {
                    delayed.can_be_made(labels)?;
                    choices.push(Choice::Provision(&delayed.claim));
                }
            }
        }
        Ok(choices)
    }

    /// What is to be done for a pod on its node (`AssumePodVolumes`).
    pub(crate) fn plan(&self, node: &str, labels: &Labels) -> Plan {
        let mut plan = Plan::default();
        for choice in self.choose(node, labels).unwrap_or_default() {
            match choice {
                Choice::Bind(volume, claim) => {
                    let new = bound_volume(volume, claim);
                    let changed = new.is_some();
                    let volume = new.map_or_else(|| volume.clone(), Arc::new);
                    plan.bind.push(Binding { volume, claim: client::Key::of(&**claim), changed });
                }
                Choice::Provision(claim) => {
                    let mut new = PersistentVolumeClaim::clone(claim);
                    annotate(&mut new.metadata, storage::SELECTED_NODE, node);
                    let changed = new != **claim;
                    plan.provision.push(Wish { claim: Arc::new(new), changed });
                }
            }
        }
        plan
    }
}

impl Delayed {
    /// `checkVolumeProvisions`.
    fn can_be_made(&self, labels: &Labels) -> Result<(), Reason> {
        let Some(made) = &self.made else { return Err(Reason::NothingToBind) };
        if !made.near.admit(labels) {
            return Err(Reason::NothingToBind);
        }
        let reaches = |s: &types::LabelSelector| s.matches(|key| labels.get(key).map(String::as_str));
        match &made.room {
            Some(room) if !room.iter().any(reaches) => Err(Reason::NoSpace),
            _ => Ok(()),
        }
    }
}
