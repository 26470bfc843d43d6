//! Pods that are placed together or not at all (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/gangscheduling/gangscheduling.go`, `pkg/scheduler/schedule_one_podgroup.go`).
//!
//! ```text
//! a pod of a gang ─► held until there are enough of them ─► queue ─► all that wait at once, in one go:
//!                         each assumed where it fits ─┬► enough: all of these are bound
//!                                                     └► too few: none is there any more, all are parked
//! ```
//!
//! A group may have to be in one domain of a topology: the gang is tried in each, and the one where most of it fits is taken
//! (`TopologyAwareWorkloadScheduling`).
//!
//! Nothing is bound, and nothing taken, before the whole gang has its nodes: two gangs cannot wait for each other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;

use super::Scheduler;
use crate::dra::Grant;
use crate::hints::Stuck;
use crate::metrics::{Outcome, decided};
use crate::place::place;
use crate::pod::PodInfo;
use crate::reason::Unschedulable;
use crate::volumes::Plan;

/// The groups that there are, and who belongs to them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    known: HashMap<Key, Group>,
    /// The group of each pod that has one.
    group_of: HashMap<Arc<str>, Key>,
    /// Pods that wait for more of their group.
    held: HashMap<Arc<str>, PodInfo>,
}

#[derive(Debug, Default)]
struct Group {
    /// How many must be placed at once; nothing if each may be by itself.
    least: usize,
    /// The label of nodes whose value must be the same for all.
    topology: Option<String>,
    /// The object is there.
    exists: bool,
    /// Pods that are not finished, with a node or without.
    members: BTreeSet<Arc<str>>,
}

/// Whether a pod may be placed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// By itself.
    Alone,
    /// With these others, if they wait.
    Together { group: Key, least: usize },
    /// Not yet.
    NotYet,
}

impl Groups {
    /// Takes in a group, or that it is gone. Gives the pods that may be placed now.
    fn set(&mut self, key: &Key, group: Option<&PodGroup>) -> Vec<PodInfo> {
        let known = self.known.entry(key.clone()).or_default();
        known.exists = group.is_some();
        let gang = group.and_then(|group| group.spec.scheduling_policy.gang.as_ref());
        known.least = gang.map_or(0, |gang| usize::try_from(gang.min_count).unwrap_or(0));
        let constraints = group.and_then(|group| group.spec.scheduling_constraints.as_ref());
        let topology = constraints.and_then(|all| all.topology.as_ref()?.first());
        known.topology = topology.map(|constraint| constraint.key.clone());
        if known.topology.is_some() {
            // Even those who need no others have to be where they are.
            known.least = known.least.max(1);
        }
        self.tidy(key);
        self.released(key)
    }

    /// A pod is there that is not finished. Gives the pods that may be placed now because of it.
    pub(super) fn join(&mut self, uid: &Arc<str>, group: &Key) -> Vec<PodInfo> {
        if self.group_of.get(uid) == Some(group) {
            return Vec::new();
        }
        self.leave(uid);
        self.group_of.insert(uid.clone(), group.clone());
        self.known.entry(group.clone()).or_default().members.insert(uid.clone());
        self.released(group)
    }

    /// A pod is finished or gone.
    pub(super) fn leave(&mut self, uid: &str) {
        self.held.remove(uid);
        if let Some(group) = self.group_of.remove(uid) {
            if let Some(known) = self.known.get_mut(&group) {
                known.members.remove(uid);
            }
            self.tidy(&group);
        }
    }

    fn tidy(&mut self, key: &Key) {
        if self.known.get(key).is_some_and(|group| !group.exists && group.members.is_empty()) {
            self.known.remove(key);
        }
    }

    /// Whether a pod of this group may be placed.
    pub(super) fn turn(&self, group: &Key) -> Turn {
        match self.known.get(group) {
            Some(known) if known.exists && known.least == 0 => Turn::Alone,
            Some(known) if known.exists && known.members.len() >= known.least => {
                Turn::Together { group: group.clone(), least: known.least }
            }
            _ => Turn::NotYet,
        }
    }

    /// Keeps a pod until there are more of its group.
    pub(super) fn hold(&mut self, pod: PodInfo) {
        self.held.insert(pod.uid.clone(), pod);
    }

    pub(super) fn release(&mut self, uid: &str) {
        self.held.remove(uid);
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// The pods of a gang that is complete.
    pub(super) fn members_if_together(&self, group: &Key) -> Vec<Arc<str>> {
        match self.turn(group) {
            Turn::Together { .. } => self.members(group),
            _ => Vec::new(),
        }
    }

    fn members(&self, group: &Key) -> Vec<Arc<str>> {
        self.known.get(group).map(|known| known.members.iter().cloned().collect()).unwrap_or_default()
    }

    /// The label of nodes whose value must be the same for all of a group.
    fn topology(&self, group: &Key) -> Option<String> {
        self.known.get(group)?.topology.clone()
    }

    /// The pods of a group that need not be held any longer.
    fn released(&mut self, group: &Key) -> Vec<PodInfo> {
        if self.turn(group) == Turn::NotYet {
            return Vec::new();
        }
        self.members(group).iter().filter_map(|uid| self.held.remove(uid)).collect()
    }
}

/// What became of one pod of a gang.
enum Member {
    Placed(Arc<PodInfo>, Arc<str>, Plan, Option<Grant>),
    Failed(Arc<PodInfo>, Unschedulable),
}

fn count_placed(members: &[Member]) -> usize {
    members.iter().filter(|member| matches!(member, Member::Placed(..))).count()
}

impl Scheduler {
    /// A group has come, changed or gone.
    pub(super) fn group(&mut self, key: &Key, group: Option<&PodGroup>) {
        let condition = group.and_then(|g| g.status.as_ref()?.conditions.as_ref());
        let scheduled = condition
            .is_some_and(|all| all.iter().any(|c| c.type_ == "PodGroupScheduled" && c.status == "True"));
        match group {
            Some(_) if scheduled => {
                self.groups_scheduled.insert(key.clone());
            }
            Some(_) => {}
            None => {
                self.groups_scheduled.remove(key);
                self.known_groups.remove(key);
            }
        }
        let released = self.groups.set(key, group);
        released.into_iter().for_each(|pod| self.queue.offer(pod));
        // Fewer may be enough now.
        let members = self.groups.members(key);
        self.queue.wake_these(&members);
    }

    /// Tries to place all pods of a gang that wait; `first` is the one whose turn it is.
    pub(super) fn decide_together(&mut self, first: Arc<PodInfo>, group: &Key, least: usize) {
        let begun = tokio::time::Instant::now();
        // Those of the group that wait are tried with it.
        self.groups.members(group).iter().for_each(|uid| self.blame.lift(uid));
        let (mut waiting, mut there) = (vec![first], 0);
        for uid in self.groups.members(group) {
            if self.view.placed(&uid).is_some() {
                there += 1;
            } else if uid != waiting[0].uid && !self.bindings.is_under_way(&uid) {
                waiting.extend(self.queue.pop_this(&uid));
            }
        }
        waiting.sort_by(|a, b| {
            // By name last: that is the same whenever the scheduler looks.
            let rank = |p: &PodInfo| (std::cmp::Reverse(p.priority), p.created, p.key.clone());
            rank(a).cmp(&rank(b))
        });
        let members = match self.groups.topology(group) {
            None => self.try_all(waiting, None),
            Some(key) => self.try_domains(group, waiting, &key),
        };
        decided(begun.elapsed());
        let placed = count_placed(&members);
        let enough = placed > 0 && there + placed >= least;
        // What was assumed for the sake of the others is taken back; what goes on, assumes it again.
        self.forsake(&members, !enough);
        self.tell_group(group, enough, || {
            format!("{least} pods of the group must be placed at once, and only {} can be", there + placed)
        });
        for member in members {
            match member {
                Member::Placed(pod, node, plan, grant) if enough => self.begin(pod, node, plan, grant),
                Member::Placed(pod, ..) => {
                    let why = format!(
                        "pod group {:?} is unschedulable: {least} of its pods must be placed at once, and only {} can be",
                        group.name(),
                        there + placed
                    );
                    pod.profile.numbers.attempt(Outcome::Unschedulable, begun.elapsed());
                    self.say(&pod, &why, None);
                    // The others wait for something; this one for them.
                    self.queue.park(&pod.uid, Stuck::default());
                }
                Member::Failed(pod, why) => {
                    pod.profile.numbers.attempt(Outcome::Unschedulable, begun.elapsed());
                    self.say(&pod, &why.to_string(), None);
                    self.blame.put(&pod, &why);
                    self.queue.park(&pod.uid, Stuck::of(&why));
                }
            }
        }
    }

    /// Tries all of a gang in each domain of a topology, or in the one where some of it are already; what comes back is
    /// assumed in the one where most of them fit.
    fn try_domains(&mut self, group: &Key, waiting: Vec<Arc<PodInfo>>, key: &str) -> Vec<Member> {
        let members = self.groups.members(group);
        let nodes = members.iter().filter_map(|uid| self.view.placed(uid)).map(|(node, _)| node);
        let taken: BTreeSet<String> = nodes.filter_map(|node| self.view.label(node, key).cloned()).collect();
        let domains = if taken.is_empty() { self.view.label_values(key) } else { taken };
        let mut best: Option<(usize, String)> = None;
        for domain in domains {
            let members = self.try_all(waiting.clone(), Some((key, &domain)));
            self.forsake(&members, true);
            let placed = count_placed(&members);
            if best.as_ref().is_none_or(|(most, _)| placed > *most) {
                best = Some((placed, domain));
            }
        }
        match best {
            Some((_, domain)) => self.try_all(waiting, Some((key, &domain))),
            None => {
                let why = Unschedulable {
                    nodes: self.view.len(),
                    everywhere: Some(format!(
                        "no node has the label {key:?} that the pod group's topology constraint names"
                    )),
                    ..Unschedulable::default()
                };
                waiting.into_iter().map(|pod| Member::Failed(pod, why.clone())).collect()
            }
        }
    }

    /// Places pods one after the other, each of them assumed where it fits; within a domain, if one is given.
    fn try_all(&mut self, waiting: Vec<Arc<PodInfo>>, domain: Option<(&str, &str)>) -> Vec<Member> {
        let mut members = Vec::new();
        for pod in waiting {
            let outcome = match self.extenders.any_interested(&pod) {
                // They would have to be waited for in the middle of the gang.
                true => Err(Unschedulable {
                    nodes: self.view.len(),
                    everywhere: Some(
                        "an extender has a say in a pod of a gang, which is not supported".into(),
                    ),
                    ..Unschedulable::default()
                }),
                false => match domain {
                    None => place(&pod, &mut self.view),
                    Some((key, value)) => place(&Arc::new(pod.within(key, value)), &mut self.view),
                },
            };
            members.push(match outcome {
                Ok(node) => {
                    let (plan, grant) = (self.plan(&pod, &node), self.view.grant(&pod, &node));
                    self.view.volumes.assume(&plan);
                    if let Some(grant) = &grant {
                        self.view.devices.assume_grant(grant);
                    }
                    self.view.add_pod(&node, &pod);
                    Member::Placed(pod, node, plan, grant)
                }
                Err(why) => Member::Failed(pod, why),
            });
        }
        members
    }

    /// Takes back what was assumed of volumes and devices, and also of nodes if `all`.
    fn forsake(&mut self, members: &[Member], all: bool) {
        for member in members {
            if let Member::Placed(pod, _, plan, grant) = member {
                self.view.volumes.forsake(plan);
                if let Some(grant) = grant {
                    self.view.devices.forsake_grant(grant);
                }
                if all {
                    self.view.remove_pod(&pod.uid);
                }
            }
        }
    }

    /// Says in the group's conditions how it went. A group that was placed once stays so.
    fn tell_group(&mut self, group: &Key, placed: bool, why: impl FnOnce() -> String) {
        if self.groups_scheduled.contains(group) {
            return;
        }
        let (status, reason, message) = match placed {
            true => ("True", "Scheduled", String::new()),
            false => ("False", "Unschedulable", why()),
        };
        let news = self.known_groups.insert(group.clone(), message.clone()).as_ref() != Some(&message);
        if placed {
            self.groups_scheduled.insert(group.clone());
            self.known_groups.remove(group);
        }
        if placed || news {
            self.bindings.explain_group(group.clone(), status, reason, message);
        }
    }
}

#[cfg(test)]
mod tests;
