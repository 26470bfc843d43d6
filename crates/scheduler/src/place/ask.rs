use std::sync::Arc;

use crate::config::{Plugin, Profile};
use crate::dra::DeviceAsk;
use crate::pod::{Amounts, HostPort, PodInfo};
use crate::reason::{Reason, Unschedulable};
use crate::view::{ClusterView, Tolerance, allowed};
use crate::volumes::{Shift, VolumeAsk};

use super::others::Others;
use super::what_if::WhatIf;

/// What cordons a node, as a taint; whoever tolerates it may go there nevertheless.
const CORDON: (&str, &str, &str) = ("node.kubernetes.io/unschedulable", "", "NoSchedule");

/// A pod that looks for a node, with all that is the same for every node.
pub(crate) struct Ask<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) view: &'a ClusterView,
    pub(crate) profile: &'a Profile,
    pub(crate) tolerances: Vec<Tolerance>,
    over_cordon: bool,
    allowed: Option<&'a [bool]>,
    nothing: Extra,
    pub(super) others: Others,
    /// What its claims ask, if it has any.
    volumes: Option<Box<VolumeAsk<'a>>>,
    /// What its claims of devices ask.
    pub(crate) devices: Option<Box<DeviceAsk<'a>>>,
    /// What stands against it on every node.
    pub(crate) everywhere: Option<String>,
}

/// What is on a node besides what is there: pods put in less pods taken away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    pub(super) amounts: Amounts,
    pub(super) pods: i64,
    pub(super) ports: Vec<HostPort>,
    pub(super) ports_gone: Vec<HostPort>,
    /// Those of the pods that use volumes.
    pub(super) users: Vec<Shift>,
}

/// The first thing in the way (kubernetes/kubernetes, `pkg/scheduler/apis/config/v1/default_plugins.go`: the order
/// of the filters).
#[derive(Debug)]
pub(crate) enum Obstacle {
    Plain(Reason),
    /// There may be several; they are told apart only when somebody asks.
    Resources,
    Volumes(Vec<Reason>),
}

impl<'a> Ask<'a> {
    /// The view must be prepared for the pod.
    pub(crate) fn new(pod: &'a PodInfo, view: &'a ClusterView) -> Self {
        let wants = pod.wants();
        let mut ask = Self {
            pod,
            view,
            profile: &pod.profile,
            tolerances: view.taints.tolerances(pod),
            over_cordon: wants.tolerates(CORDON.0, CORDON.1, CORDON.2),
            allowed: view.suits.find(&pod.kind.wants).map(|column| column.allowed.as_slice()),
            nothing: Extra::default(),
            others: Others::default(),
            volumes: None,
            devices: None,
            everywhere: None,
        };
        if !pod.kind.uses.is_empty() {
            match VolumeAsk::new(pod, &view.volumes) {
                Ok(volumes) => ask.volumes = Some(Box::new(volumes)),
                Err(why) if ask.profile.filters(Plugin::VolumeBinding) => ask.everywhere = Some(why),
                Err(_) => {}
            }
        }
        match DeviceAsk::new(pod, &view.devices) {
            Ok(devices) => ask.devices = devices.map(Box::new),
            Err(why) => drop(ask.everywhere.get_or_insert(why)),
        }
        ask.others = Others::count(&ask);
        ask
    }

    /// Whether the pod's node affinity allows a node.
    pub(crate) fn allows(&self, row: usize) -> bool {
        match self.allowed {
            Some(column) => column[row],
            None => suits(self.pod, self.view, row),
        }
    }

    /// Whether the pod tolerates a node's taints.
    pub(crate) fn tolerates(&self, row: usize) -> bool {
        self.tolerances[self.view.tainted[row]].allowed
    }

    /// The nodes in question, if the pod names them.
    pub(super) fn pinned_rows(&self) -> Option<Vec<usize>> {
        let names = self.pinned()?;
        let mut rows: Vec<usize> = names.iter().filter_map(|name| self.view.row(name)).collect();
        rows.sort_unstable();
        Some(rows)
    }

    fn pinned(&self) -> Option<&'a Vec<String>> {
        self.pod.wants().pinned.as_ref().filter(|_| self.profile.filters(Plugin::NodeAffinity))
    }

    pub(super) fn is_in_question(&self, row: usize) -> bool {
        let name = &*self.view.names[row];
        self.pinned().is_none_or(|names| names.iter().any(|n| n == name))
    }

    /// How many nodes that fit are enough, if not all are to be looked at (kubernetes/kubernetes,
    /// `pkg/scheduler/schedule_one.go`, `numFeasibleNodesToFind`).
    pub(super) fn enough(&self) -> Option<usize> {
        /// Fewer are never enough.
        const LEAST: usize = 100;
        let (nodes, percentage) = (self.view.len(), self.profile.percentage);
        let some = (1..100).contains(&percentage) && nodes >= LEAST;
        some.then(|| (nodes * percentage / 100).max(LEAST))
    }

    /// Why a node cannot take the pod.
    pub(crate) fn obstacle(&self, row: usize) -> Option<Obstacle> {
        self.obstacle_in(row, &self.nothing, &self.others)
    }

    /// The same, with other pods there than there are.
    pub(super) fn obstacle_in(&self, row: usize, extra: &Extra, others: &Others) -> Option<Obstacle> {
        let (view, profile) = (self.view, self.profile);
        let plain = |reason| Some(Obstacle::Plain(reason));
        if view.cordoned[row] && !self.over_cordon && profile.filters(Plugin::NodeUnschedulable) {
            return plain(Reason::Cordoned);
        }
        if !self.tolerates(row) && profile.filters(Plugin::TaintToleration) {
            return plain(Reason::Taint);
        }
        if profile.filters(Plugin::NodeAffinity) {
            if !enforced(profile, view, row) {
                return plain(Reason::Enforced);
            }
            if !self.allows(row) {
                return plain(Reason::Affinity);
            }
        }
        if !ports_free(self.pod, view, row, extra) {
            return plain(Reason::Ports);
        }
        if !room(self.pod, view, row, extra) {
            return Some(Obstacle::Resources);
        }
        if let Some(volumes) = &self.volumes {
            let reasons = volumes.obstacle(profile, view, row, &extra.users);
            if !reasons.is_empty() {
                return Some(Obstacle::Volumes(reasons));
            }
        }
        let devices = || self.devices.as_ref()?.obstacle(view, row);
        let features = || (!able(self.pod, view, row)).then_some(Reason::Features);
        others.obstacle(view, row).or_else(devices).or_else(features).map(Obstacle::Plain)
    }

    /// What becomes of the pod's claims of devices once it has found no node (`dynamicresources`, `PostFilter`).
    pub(crate) fn freed(&self, why: &Unschedulable) -> &'static str {
        let stuck = || why.reasons.keys().any(Reason::is_of_devices);
        match &self.devices {
            None => "no new claims to deallocate",
            Some(devices) if stuck() && devices.idle(self.view).is_some() => {
                "deallocation of ResourceClaim completed"
            }
            Some(_) => "still not schedulable",
        }
    }

    /// The rows that are promised to other pods that are no less important, with what is to be looked at then.
    pub(super) fn promised_rows(&self) -> Vec<(usize, WhatIf)> {
        let mut rows: Vec<(usize, WhatIf)> = Vec::new();
        for node in self.view.promised_nodes() {
            let Some(row) = self.view.row(node) else { continue };
            let mut what_if: Option<WhatIf> = None;
            for other in self.rivals(node) {
                what_if.get_or_insert_with(|| WhatIf::new(self)).shift(self, row, other, 1);
            }
            rows.extend(what_if.map(|what_if| (row, what_if)));
        }
        rows
    }

    /// The pods that a node is promised to and that come before this one.
    pub(crate) fn rivals(&self, node: &str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        let (uid, priority) = (self.pod.uid.clone(), self.pod.priority);
        self.view.promised(node).filter(move |other| other.priority >= priority && other.uid != uid)
    }

    /// A node must take the pod with those it is promised to, and without them, for they may never come
    /// (kubernetes/kubernetes, `pkg/scheduler/framework/runtime/framework.go`, `RunFilterPluginsWithNominatedPods`).
    pub(super) fn obstacle_with_promises<'b>(
        &self,
        row: usize,
        promised: &'b [(usize, WhatIf)],
    ) -> Option<(Obstacle, Option<&'b WhatIf>)> {
        let with = promised.iter().find(|(other, _)| *other == row);
        let with = with.and_then(|(_, what_if)| Some((what_if.obstacle(self, row)?, Some(what_if))));
        with.or_else(|| Some((self.obstacle(row)?, None)))
    }
}

/// Whether one node could take the pod now, as far as the node alone is concerned.
pub(crate) fn fits_plainly(pod: &PodInfo, view: &ClusterView, row: usize) -> bool {
    let (extra, profile) = (Extra::default(), &*pod.profile);
    let asks = |plugin| profile.filters(plugin);
    (!view.cordoned[row]
        || !asks(Plugin::NodeUnschedulable)
        || pod.wants().tolerates(CORDON.0, CORDON.1, CORDON.2))
        && room(pod, view, row, &extra)
        && ports_free(pod, view, row, &extra)
        && (!asks(Plugin::TaintToleration) || view.taints.tolerance(view.tainted[row], pod).allowed)
        && (!asks(Plugin::NodeAffinity) || enforced(profile, view, row) && suits(pod, view, row))
        && able(pod, view, row)
}

/// Whether a node says that it can do what the pod needs.
fn able(pod: &PodInfo, view: &ClusterView, row: usize) -> bool {
    pod.wants().features.are_in(view.declared[row]) || !pod.profile.filters(Plugin::NodeDeclaredFeatures)
}

/// Whether a node is one that the configuration leaves to the pods of a profile.
fn enforced(profile: &Profile, view: &ClusterView, row: usize) -> bool {
    profile.added.as_ref().is_none_or(|added| added.needs.admit(&view.names[row], &view.labels[row]))
}

fn suits(pod: &PodInfo, view: &ClusterView, row: usize) -> bool {
    let wants = pod.wants();
    wants.needs.is_none() || allowed(wants, &view.labels[row], &view.names[row])
}

fn ports_free(pod: &PodInfo, view: &ClusterView, row: usize, extra: &Extra) -> bool {
    if pod.wants().ports.is_empty() || !pod.profile.filters(Plugin::NodePorts) {
        return true;
    }
    pod.wants().ports.iter().all(|wanted| {
        let gone = |taken: &HostPort| extra.ports_gone.contains(taken);
        let mut taken = view.ports[row].iter().filter(|taken| !gone(taken)).chain(&extra.ports);
        !taken.any(|taken| wanted.clashes(taken))
    })
}

fn room(pod: &PodInfo, view: &ClusterView, row: usize, extra: &Extra) -> bool {
    if !pod.profile.filters(Plugin::NodeResourcesFit) {
        return true;
    }
    let (r, e) = (&pod.wants().requests, &extra.amounts);
    let other = |name: &str| e.others.get(name).copied().unwrap_or(0);
    view.pods.fits_with(row, 1, extra.pods)
        && view.cpu.fits_with(row, r.cpu, e.cpu)
        && view.memory.fits_with(row, r.memory, e.memory)
        && view.storage.fits_with(row, r.storage, e.storage)
        && (r.others.is_empty()
            || r.others.iter().all(|(name, more)| {
                view.others.get(name).is_some_and(|c| c.fits_with(row, *more, other(name)))
                    || view.comes_as_devices(name, row)
                    || pod.profile.ignores(name)
            }))
}

impl Obstacle {
    /// Tells the reasons, and whether the node could not take the pod even if it were empty.
    pub(crate) fn tell(self, ask: &Ask<'_>, row: usize, tell: &mut dyn FnMut(Reason)) -> bool {
        self.tell_in(ask, row, &Extra::default(), tell)
    }

    pub(super) fn tell_in(
        self,
        ask: &Ask<'_>,
        row: usize,
        extra: &Extra,
        tell: &mut dyn FnMut(Reason),
    ) -> bool {
        let reason = match self {
            Self::Resources => return tell_lacking(ask, row, extra, tell),
            Self::Volumes(reasons) => {
                let hopeless = reasons.iter().any(Reason::is_lasting);
                reasons.into_iter().for_each(tell);
                return hopeless;
            }
            Self::Plain(reason) => reason,
        };
        let hopeless = reason.is_lasting();
        tell(reason);
        hopeless
    }
}

fn tell_lacking(ask: &Ask<'_>, row: usize, extra: &Extra, tell: &mut dyn FnMut(Reason)) -> bool {
    let (view, r, e) = (ask.view, &ask.pod.wants().requests, &extra.amounts);
    let mut hopeless = false;
    if !view.pods.fits_with(row, 1, extra.pods) {
        tell(Reason::TooManyPods);
    }
    let named = [
        ("cpu", &view.cpu, r.cpu, e.cpu),
        ("memory", &view.memory, r.memory, e.memory),
        ("ephemeral-storage", &view.storage, r.storage, e.storage),
    ];
    for (name, column, more, there) in named {
        if !column.fits_with(row, more, there) {
            hopeless |= more > column.has[row];
            tell(Reason::Insufficient(name.into()));
        }
    }
    for (name, more) in r.others.iter().filter(|(name, _)| !ask.profile.ignores(name)) {
        let there = e.others.get(name).copied().unwrap_or(0);
        let column = view.others.get(name);
        if !column.is_some_and(|c| c.fits_with(row, *more, there)) && !view.comes_as_devices(name, row) {
            hopeless |= *more > column.map_or(0, |c| c.has[row]);
            tell(Reason::Insufficient(name.clone()));
        }
    }
    hopeless
}
