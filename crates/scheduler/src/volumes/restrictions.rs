//! Who may not be on a node, or anywhere, together with others (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/volumerestrictions/volume_restrictions.go`).

use client::Key;

use super::VolumeAsk;
use super::limits::{Shift, uses_on};
use crate::pod::Use;
use crate::view::ClusterView;

impl VolumeAsk<'_> {
    pub(super) fn restricted(&self, view: &ClusterView, row: usize, extra: &[Shift]) -> bool {
        self.is_taken(view, extra) || self.clashes(view, row, extra)
    }

    /// A claim for one pod has a pod, wherever that is.
    pub(super) fn is_taken(&self, view: &ClusterView, extra: &[Shift]) -> bool {
        let namespace = self.pod.key.namespace();
        self.once.iter().any(|name| {
            let uses = |used: &Use| matches!(used, Use::Claim { name: other, .. } if other == *name);
            let shifted = extra.iter().filter(|(kind, _)| *kind.namespace == *namespace);
            let shifted = shifted.filter(|(kind, _)| kind.uses.iter().any(uses)).map(|(_, times)| times);
            view.users(&Key::new(namespace, name)) + shifted.sum::<i64>() > 0
        })
    }

    /// A disk is there already, and one of the two writes.
    fn clashes(&self, view: &ClusterView, row: usize, extra: &[Shift]) -> bool {
        if self.disks.is_empty() {
            return false;
        }
        let used = uses_on(view, row, extra);
        used.keys().any(|(_, used)| match used {
            Use::Disk(there) => {
                self.disks.iter().any(|disk| disk.id == there.id && !(disk.read_only && there.read_only))
            }
            Use::Claim { .. } => false,
        })
    }
}
