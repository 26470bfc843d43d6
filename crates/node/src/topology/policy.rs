//! From what each manager would like to what all of them do (kubernetes/kubernetes, `pkg/kubelet/cm/topologymanager`,
//! `policy.go`, `policy_best_effort.go`, `policy_restricted.go`, `policy_single_numa_node.go`, `numa_info.go`).

use std::collections::BTreeMap;

use super::{Machine, Mask};

/// One way to give what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// From these nodes; absent means from any.
    pub(crate) affinity: Option<Mask>,
    /// Nothing better could be had if the machine were empty.
    pub(crate) preferred: bool,
}

impl Hint {
    /// Whatever the others like.
    pub(crate) const ANY: Self = Self { affinity: None, preferred: true };
}

/// What one manager says, by resource: no list means no wish, an empty one that nothing suits.
pub(crate) type Wishes = BTreeMap<String, Option<Vec<Hint>>>;

/// How closely what a pod gets must lie together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyPolicy {
    /// Nobody asks.
    #[default]
    None,
    /// As closely as can be.
    BestEffort,
    /// As closely as on an empty machine, or not at all.
    Restricted,
    /// On one NUMA node, or not at all.
    SingleNumaNode,
}

/// For what a decision is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyScope {
    /// Each container.
    #[default]
    Container,
    /// The pod as a whole.
    Pod,
}

impl TopologyPolicy {
    /// Reads upstream's name for it.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "best-effort" => Self::BestEffort,
            "restricted" => Self::Restricted,
            "single-numa-node" => Self::SingleNumaNode,
            _ => return None,
        })
    }

    /// Upstream's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::BestEffort => "best-effort",
            Self::Restricted => "restricted",
            Self::SingleNumaNode => "single-numa-node",
        }
    }
}

impl TopologyScope {
    /// Reads upstream's name for it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "container" => Some(Self::Container),
            "pod" => Some(Self::Pod),
            _ => None,
        }
    }

    /// Upstream's name for it.
    pub fn name(self) -> &'static str {
        if self == Self::Pod { "pod" } else { "container" }
    }
}

/// Finds the best common hint, and whether the policy lets the pod in with it. `closest` prefers nodes that are near each
/// other to those with low numbers.
pub(crate) fn decide(
    policy: TopologyPolicy,
    closest: bool,
    machine: &Machine,
    wishes: &[Wishes],
) -> (Hint, bool) {
    let all = Mask::of(machine.node_numbers());
    let mut lists: Vec<Vec<Hint>> = Vec::new();
    for wish in wishes {
        if wish.is_empty() {
            lists.push(vec![Hint::ANY]);
        }
        for hints in wish.values() {
            lists.push(match hints {
                None => vec![Hint::ANY],
                Some(hints) if hints.is_empty() => vec![Hint { affinity: None, preferred: false }],
                Some(hints) => hints.clone(),
            });
        }
    }
    let single = policy == TopologyPolicy::SingleNumaNode;
    if single {
        let suits = |hint: &Hint| hint.preferred && hint.affinity.is_none_or(|mask| mask.count() == 1);
        lists.iter_mut().for_each(|hints| hints.retain(suits));
    }
    let merger = Merger { machine, all, closest: closest && !single, most_of_least: most_of_least(&lists) };
    let mut best = merger.merge(&lists).unwrap_or(Hint { affinity: Some(all), preferred: false });
    if single && best.affinity == Some(all) {
        best.affinity = None;
    }
    let admits = match policy {
        TopologyPolicy::None | TopologyPolicy::BestEffort => true,
        TopologyPolicy::Restricted | TopologyPolicy::SingleNumaNode => best.preferred,
    };
    (best, admits)
}

/// How many nodes the manager needs that needs most: hints that are not preferred should come close to that.
fn most_of_least(lists: &[Vec<Hint>]) -> usize {
    let least = |hints: &Vec<Hint>| hints.iter().filter_map(|h| h.affinity).map(Mask::count).min();
    lists.iter().filter_map(least).max().unwrap_or(0)
}

struct Merger<'a> {
    machine: &'a Machine,
    all: Mask,
    closest: bool,
    most_of_least: usize,
}

impl Merger<'_> {
    fn merge(&self, lists: &[Vec<Hint>]) -> Option<Hint> {
        let mut best = None;
        let mut chosen = Vec::with_capacity(lists.len());
        self.each(lists, &mut chosen, &mut |chosen| {
            let candidate = self.joined(chosen);
            if candidate.affinity.is_some_and(|mask| mask.count() > 0) {
                best = Some(best.map_or(candidate, |best| self.better(best, candidate)));
            }
        });
        best
    }

    /// Every choice of one hint from each list.
    fn each(&self, lists: &[Vec<Hint>], chosen: &mut Vec<Hint>, found: &mut dyn FnMut(&[Hint])) {
        let Some(hints) = lists.get(chosen.len()) else { return found(chosen) };
        for hint in hints {
            chosen.push(*hint);
            self.each(lists, chosen, found);
            chosen.pop();
        }
    }

    /// What all of them have in common; preferred if all are, and mean the same.
    fn joined(&self, hints: &[Hint]) -> Hint {
        let masks: Vec<Mask> = hints.iter().filter_map(|hint| hint.affinity).collect();
        let same = masks.windows(2).all(|pair| pair[0] == pair[1]);
        Hint {
            affinity: Some(masks.iter().fold(self.all, |all, mask| all.and(*mask))),
            preferred: same && hints.iter().all(|hint| hint.preferred),
        }
    }

    /// (`HintMerger.compare`)
    fn better(&self, current: Hint, candidate: Hint) -> Hint {
        let count = |hint: Hint| hint.affinity.map_or(0, Mask::count);
        match (current.preferred, candidate.preferred) {
            (false, true) => return candidate,
            (true, false) => return current,
            (true, true) => return self.fitter(current, candidate),
            (false, false) => {}
        }
        let (now, then, goal) = (count(current), count(candidate), self.most_of_least);
        if now > goal || (now == goal && then == goal) {
            return self.fitter(current, candidate);
        }
        // Up to the goal and no further.
        if now == goal || then > goal || then < now {
            current
        } else if then > now {
            candidate
        } else {
            self.fitter(current, candidate)
        }
    }

    fn fitter(&self, current: Hint, candidate: Hint) -> Hint {
        let (Some(now), Some(then)) = (current.affinity, candidate.affinity) else { return current };
        let far = |mask| self.machine.mean_distance(mask);
        let near = self.closest && now.count() == then.count();
        let other = match near {
            true if far(then) != far(now) => far(then) < far(now),
            _ => then.is_narrower_than(now),
        };
        if other { candidate } else { current }
    }
}
