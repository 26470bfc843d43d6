//! How many volumes of a driver a node takes (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/nodevolumelimits/csi.go`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Key, storage};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::{VolumeAsk, Volumes};
use crate::pod::{PodKind, Use};
use crate::view::ClusterView;

/// Pods put on a node, or (with minus one) taken away.
pub(crate) type Shift = (Arc<PodKind>, i64);

/// A volume by its driver and its handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attached {
    driver: String,
    handle: String,
}

/// What a claim attaches to its node, if a driver does it.
pub(super) fn attached(claim: &PersistentVolumeClaim, volumes: &Volumes) -> Option<Attached> {
    if let Some(volume) = volumes.volume(storage::volume_of(claim)) {
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        return Some(Attached { driver: csi.driver.clone(), handle: csi.volume_handle.clone() });
    }
    let class = volumes.class(storage::class_of_claim(claim))?;
    Some(Attached { driver: class.provisioner.clone(), handle: format!("claim {}", Key::of(claim)) })
}

/// What an attachment attaches.
fn by_hand(attachment: &VolumeAttachment, volumes: &Volumes) -> Option<Attached> {
    let source = &attachment.spec.source;
    let inline = source.inline_volume_spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let named = || volumes.volume(source.persistent_volume_name.as_deref()?)?.spec.as_ref()?.csi.as_ref();
    let csi = inline.or_else(named)?;
    Some(Attached { driver: csi.driver.clone(), handle: csi.volume_handle.clone() })
}

/// What is used on a node, with how many pods use it.
pub(super) fn uses_on<'v>(
    view: &'v ClusterView,
    row: usize,
    extra: &'v [Shift],
) -> HashMap<(&'v str, &'v Use), i64> {
    let there = view.pods_on(&view.names[row]).map(|pod| (&pod.kind, 1));
    let mut all: HashMap<(&str, &Use), i64> = HashMap::new();
    for (kind, times) in there.chain(extra.iter().map(|(kind, times)| (kind, *times))) {
        for used in &kind.uses {
            *all.entry((&*kind.namespace, used)).or_default() += times;
        }
    }
    all.retain(|_, count| *count > 0);
    all
}

impl VolumeAsk<'_> {
    /// Whether a driver would have to attach more than it can.
    pub(super) fn exceeds(&self, view: &ClusterView, row: usize, extra: &[Shift]) -> bool {
        let Some(node) = view.volumes.node(&view.names[row]).filter(|_| !self.attached.is_empty()) else {
            return false;
        };
        let limits = node
            .spec
            .drivers
            .iter()
            .filter_map(|driver| Some((driver.name.as_str(), driver.allocatable.as_ref()?.count?)));
        let limits: Vec<(&str, i32)> =
            limits.filter(|(name, _)| self.attached.iter().any(|a| a.driver == *name)).collect();
        if limits.is_empty() {
            return false;
        }
        let used = uses_on(view, row, extra);
        let mut there: HashSet<Attached> = used
            .keys()
            .filter_map(|(namespace, used)| match used {
                Use::Claim { name, .. } => {
                    attached(view.volumes.claim(&Key::new(namespace, name))?, &view.volumes)
                }
                Use::Disk(_) => None,
            })
            .collect();
        let more: Vec<&Attached> = self.attached.iter().filter(|a| !there.contains(a)).collect();
        // Who brings nothing new needs no room.
        let fresh: HashSet<&str> = more.iter().map(|a| a.driver.as_str()).collect();
        let fresh: HashSet<String> = fresh.into_iter().map(str::to_owned).collect();
        there.extend(more.into_iter().cloned());
        // Some are on their way out, or on their way in.
        there.extend(view.volumes.attachments(&view.names[row]).filter_map(|a| by_hand(a, &view.volumes)));
        limits.into_iter().filter(|(name, _)| fresh.contains(*name)).any(|(name, limit)| {
            there.iter().filter(|a| a.driver == name).count() > usize::try_from(limit).unwrap_or(0)
        })
    }
}
