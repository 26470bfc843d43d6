use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use crate::place::{Ask, Obstacle, WhatIf};
use crate::pod::PodInfo;
use crate::reason::Reason;

use super::Budget;
use super::budget::split;

/// A node that the pod could have.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) node: Arc<str>,
    /// Who would have to go, the most important first.
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// How many of them a budget protects.
    pub(crate) violations: usize,
}

/// Who matters more comes first: the higher priority, then who has been running for longer
/// (kubernetes/kubernetes, `pkg/scheduler/util/utils.go`, `MoreImportantPod`).
pub(super) fn by_importance(a: &PodInfo, b: &PodInfo) -> Ordering {
    // Who has not started yet has run for the shortest time. The UID decides what nothing else does.
    let rank = |p: &PodInfo| (Reverse(p.priority), p.started.is_none(), p.started, p.uid.clone());
    rank(a).cmp(&rank(b))
}

/// Node and pods as they would be.
struct Trial<'a> {
    ask: &'a Ask<'a>,
    row: usize,
    bare: WhatIf,
    /// With the pods that the node is promised to.
    promised: Option<WhatIf>,
}

impl<'a> Trial<'a> {
    fn new(ask: &'a Ask<'a>, row: usize) -> Self {
        let mut trial = Self { ask, row, bare: WhatIf::new(ask), promised: None };
        for rival in ask.rivals(&ask.view.names[row]) {
            let promised = trial.promised.get_or_insert_with(|| WhatIf::new(ask));
            promised.shift(ask, row, rival, 1);
        }
        trial
    }

    fn shift(&mut self, pod: &PodInfo, times: i64) {
        self.bare.shift(self.ask, self.row, pod, times);
        if let Some(promised) = &mut self.promised {
            promised.shift(self.ask, self.row, pod, times);
        }
    }

    fn obstacle(&self) -> Option<(Obstacle, &WhatIf)> {
        let of = |what_if: &'_ WhatIf| what_if.obstacle(self.ask, self.row);
        let promised = self.promised.as_ref().and_then(|p| Some((of(p)?, p)));
        promised.or_else(|| Some((of(&self.bare)?, &self.bare)))
    }
}

/// The fewest and least important pods that must leave a node (`SelectVictimsOnNode`), or why that would not do.
pub(super) fn candidate(
    ask: &Ask<'_>,
    row: usize,
    budgets: &[&Budget],
    tell: &mut dyn FnMut(Reason),
) -> Option<Candidate> {
    let node = &ask.view.names[row];
    let lesser = ask.view.pods_on(node).filter(|p| p.priority < ask.pod.priority);
    let mut lesser: Vec<Arc<PodInfo>> = lesser.cloned().collect();
    if lesser.is_empty() {
        tell(Reason::NoVictims);
        return None;
    }
    lesser.sort_by(|a, b| by_importance(a, b));
    let mut trial = Trial::new(ask, row);
    lesser.iter().for_each(|pod| trial.shift(pod, -1));
    if let Some((obstacle, what_if)) = trial.obstacle() {
        what_if.tell(obstacle, ask, row, tell);
        return None;
    }
    let (protected, others) = split(lesser, budgets);
    let mut victims = Vec::new();
    let mut spare = |pods: Vec<Arc<PodInfo>>| {
        let before = victims.len();
        for pod in pods {
            trial.shift(&pod, 1);
            if trial.obstacle().is_some() {
                trial.shift(&pod, -1);
                victims.push(pod);
            }
        }
        victims.len() - before
    };
    let violations = spare(protected);
    spare(others);
    if victims.is_empty() {
        // It is an extender that will not have the pod there.
        tell(Reason::NoVictims);
        return None;
    }
    victims.sort_by(|a, b| by_importance(a, b));
    Some(Candidate { node: node.clone(), victims, violations })
}
