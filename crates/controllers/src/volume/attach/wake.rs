//! Which changes make us look at which nodes.

use std::sync::Arc;

use client::{Change, Controller, Informer, Key, PodView, WorkQueue, storage};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;

use super::State;

pub(super) fn controller(state: &Arc<State>, pods: &Informer<PodView>) -> Controller {
    let (by_claim, by_volume, by_driver, by_attachment) =
        (state.clone(), state.clone(), state.clone(), state.clone());
    Controller::new("attach-detach")
        .watches(&state.nodes, |node: &Node| [Key::of(node)])
        .watches(pods, |pod: &PodView| pod.claims().next().and_then(|_| node_of(pod)))
        .watches(&state.claims, move |claim| by_claim.nodes_of_users(&Key::of(claim)))
        .watches(&state.volumes, move |volume| by_volume.nodes_that_want(volume))
        .watches_changes(&state.drivers, move |_, queue| {
            by_driver.nodes.store().keys().into_iter().for_each(|node| queue.add(node));
        })
        .watches_changes(&state.attachments, move |change, queue| by_attachment.on_attachment(change, queue))
}

fn node_of(pod: &PodView) -> Option<Key> {
    pod.node_name.as_deref().map(|node| Key::new("", node))
}

impl State {
    fn nodes_of_users(&self, claim: &Key) -> Vec<Key> {
        self.users.get(claim.as_str()).iter().filter_map(|pod| node_of(pod)).collect()
    }

    fn nodes_that_want(&self, volume: &PersistentVolume) -> Vec<Key> {
        storage::claim_of(volume).map(|claim| self.nodes_of_users(&super::key_of(claim))).unwrap_or_default()
    }

    fn on_attachment(&self, change: &Change<VolumeAttachment>, queue: &WorkQueue<Key>) {
        let attachment = change.object();
        self.memory.release(&attachment.name_any());
        queue.add(Key::new("", &attachment.spec.node_name));
        if let (Change::Deleted(_), Some(volume)) = (change, &attachment.spec.source.persistent_volume_name) {
            // Another node may have waited for it.
            let volume = self.volumes.store().by_name("", volume);
            let waiting = volume.map(|volume| self.nodes_that_want(&volume)).unwrap_or_default();
            waiting.into_iter().for_each(|node| queue.add(node));
        }
    }
}
