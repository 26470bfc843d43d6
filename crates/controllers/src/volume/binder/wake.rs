//! Which changes make us look at what.

use client::storage::{self, annotation};
use client::{Change, Controller, Index, Informer, Key, PodView, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::State;
use super::world::{by_claim, key_of, volume_key};

/// What may end the waiting of a claim: a volume, or something of its class.
fn waits_for(claim: &PersistentVolumeClaim) -> Option<String> {
    match storage::volume_of(claim) {
        "" if annotation(&claim.metadata, storage::BIND_COMPLETED).is_some() => None,
        "" => Some(of_class(storage::class_of_claim(claim))),
        volume => Some(of_volume(volume)),
    }
}

fn of_class(class: &str) -> String {
    format!("class:{class}")
}

fn of_volume(volume: &str) -> String {
    format!("volume:{volume}")
}

pub(super) fn controller(state: &State, pods: &Informer<PodView>) -> Controller {
    let waiting = state.claims.index("waits-for", waits_for);
    let wanted = state.wanted.clone();
    let (by_volume, by_classes) = (waiting.clone(), waiting.clone());
    let claims = state.claims.clone();
    Controller::new("persistent-volume-binder")
        .workers(1)
        .watches_changes(&state.classes, move |change, queue| on_class(change, &by_classes, queue))
        .watches_changes(&state.volumes, move |change, queue| on_volume(change, &by_volume, queue))
        .watches_changes(&state.claims, move |change, queue| {
            let claim = change.object();
            let key = Key::of(&**claim);
            // Those that were set aside for it may be its own now, or free.
            wanted.keys(&by_claim(&key)).into_iter().for_each(|volume| queue.add(volume));
            match storage::volume_of(claim) {
                "" => {}
                volume => queue.add(volume_key(volume)),
            }
            queue.add(key);
        })
        .watches_changes(pods, move |change, queue| on_pod(change, &claims, queue))
}

fn add_all(waiting: &Index<PersistentVolumeClaim>, value: &str, queue: &WorkQueue<Key>) {
    waiting.keys(value).into_iter().for_each(|claim| queue.add(claim));
}

fn on_class(change: &Change<StorageClass>, waiting: &Index<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
    let class = change.object().metadata.name.as_deref().unwrap_or_default();
    add_all(waiting, &of_class(class), queue);
    // It may be the default from now on.
    add_all(waiting, &of_class(""), queue);
}

fn on_volume(
    change: &Change<PersistentVolume>,
    waiting: &Index<PersistentVolumeClaim>,
    queue: &WorkQueue<Key>,
) {
    let volume = change.object();
    let key = Key::of(&**volume);
    add_all(waiting, &of_volume(key.name()), queue);
    match storage::claim_of(volume) {
        Some(claim) => queue.add(key_of(claim)),
        None if storage::volume_phase(volume) == "Available" && !matches!(change, Change::Deleted(_)) => {
            add_all(waiting, &of_class(storage::class_of_volume(volume)), queue);
        }
        None => {}
    }
    if let Change::Updated { old, .. } = change
        && let Some(former) = storage::claim_of(old)
    {
        queue.add(key_of(former));
    }
    queue.add(key);
}

/// What a claim waits for, people are told.
fn on_pod(change: &Change<PodView>, claims: &Informer<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
    let pod = change.object();
    if pod.volumes.is_none() || pod.node_name.is_some() || matches!(change, Change::Updated { .. }) {
        return;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for (name, _) in pod.claims() {
        let claim = claims.store().by_name(namespace, &name);
        if claim.is_some_and(|claim| !storage::is_fully_bound(&claim)) {
            queue.add(Key::new(namespace, &name));
        }
    }
}
