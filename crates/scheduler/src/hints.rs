//! What can have helped a pod that found no node (kubernetes/kubernetes, the `QueueingHintFn`s of
//! `pkg/scheduler/framework/plugins`): a pod is tried again only then.

use client::Key;

use crate::pod::{DeviceUse, PodInfo, Use};
use crate::reason::{Reason, Unschedulable};
use crate::view::ClusterView;

/// What sorts of reasons a pod met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stuck {
    /// What a node has, or has not got left.
    pub(crate) room: bool,
    /// How pods are spread.
    pub(crate) spread: bool,
    /// What pods have against each other, or for each other.
    pub(crate) others: bool,
    /// What its claims and volumes are, and who else uses them.
    pub(crate) volumes: bool,
    /// What its claims of devices are, and what devices there are.
    pub(crate) devices: bool,
}

impl Stuck {
    pub(crate) fn of(why: &Unschedulable) -> Self {
        let volumes = why.everywhere.is_some();
        // What stands against it everywhere may be either.
        let mut stuck =
            Self { room: why.reasons.is_empty() && !volumes, volumes, devices: volumes, ..Self::default() };
        for reason in why.reasons.keys() {
            match reason {
                Reason::Spread | Reason::SpreadLabel => stuck.spread = true,
                Reason::Near | Reason::Apart | Reason::Barred => stuck.others = true,
                // Only a node that is new or has changed helps, and that is looked at anyway.
                Reason::Features => {}
                reason if reason.is_of_devices() => stuck.devices = true,
                // A pod that leaves may take a volume along.
                reason if reason.is_of_volumes() => {
                    stuck.volumes = true;
                    stuck.room |= !reason.is_lasting();
                }
                _ => stuck.room = true,
            }
        }
        stuck
    }
}

/// Whether it matters to a waiting pod that another one comes, goes or changes.
pub(crate) fn concerns(waiting: &PodInfo, stuck: Stuck, other: &PodInfo, view: &ClusterView) -> bool {
    let (rules, kind) = (&waiting.kind.rules, &other.kind);
    let spread = || view.musts(waiting).iter().any(|s| view.meant(&s.matcher, kind));
    let others = || {
        rules.near.as_ref().is_some_and(|(matcher, _)| view.meant(matcher, kind))
            || rules.apart.iter().any(|term| view.meant(&term.matcher, kind))
            || kind.rules.apart.iter().any(|term| view.meant(&term.matcher, &waiting.kind))
    };
    let volumes = || waiting.kind.uses.iter().any(|used| other.kind.uses.contains(used));
    (stuck.spread && spread()) || (stuck.others && others()) || (stuck.volumes && volumes())
}

/// Whether a waiting pod uses a claim of devices.
pub(crate) fn uses_devices(waiting: &PodInfo, claim: &Key) -> bool {
    waiting.key.namespace() == claim.namespace()
        && waiting.kind.devices.iter().any(|used| match used {
            DeviceUse::Named(name) | DeviceUse::Made(name) => **name == *claim.name(),
            DeviceUse::Awaited => false,
        })
}

/// Whether a waiting pod uses a claim.
pub(crate) fn uses(waiting: &PodInfo, claim: &Key) -> bool {
    waiting.key.namespace() == claim.namespace()
        && waiting.kind.uses.iter().any(|used| match used {
            Use::Claim { name, .. } => **name == *claim.name(),
            Use::Disk(_) => false,
        })
}
