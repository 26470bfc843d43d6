//! Who has to go so that a more important pod finds room (kubernetes/kubernetes,
//! `pkg/scheduler/framework/preemption/preemption.go` and `plugins/defaultpreemption/default_preemption.go`).
//!
//! ```text
//! no node fits ─► may it? ─► each node that others could leave: all less important pods away ─► does it fit?
//!                                 the most important ones back, as long as it still fits ◄───────┘
//!                                 └► candidates ─► the one that hurts least
//! ```

mod budget;
mod pick;
mod victims;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::place::{Ask, find};
use crate::pod::PodInfo;
use crate::reason::{Reason, Unschedulable};
use crate::view::ClusterView;

pub(crate) use budget::Budget;
use victims::{Candidate, candidate};

/// At least so many candidates are looked for, or this share of the nodes in percent.
const CANDIDATES: usize = 100;
const SHARE: usize = 10;

/// What is to be done with a pod.
#[derive(Debug)]
pub(crate) enum Decision {
    Node(Arc<str>),
    /// It is promised a node, which these must leave.
    Preempt {
        node: Arc<str>,
        victims: Vec<Arc<PodInfo>>,
        why: Unschedulable,
    },
    Nowhere {
        why: Unschedulable,
        /// What was promised to it cannot be held.
        forsaken: bool,
    },
}

/// The best node for a pod, or those who must make room for it.
pub(crate) fn decide(
    pod: &PodInfo,
    view: &mut ClusterView,
    budgets: &[&Budget],
    may_preempt: bool,
) -> Decision {
    view.prepare(pod);
    let ask = Ask::new(pod, view);
    let mut why = match find(&ask) {
        Ok(node) => return Decision::Node(node),
        Err(why) => why,
    };
    if why.nodes == 0 {
        return Decision::Nowhere { why, forsaken: false };
    }
    let refused = match may_preempt {
        false => Some("waiting for the preemption for this pod to be finished"),
        true => not_eligible(&ask, &why),
    };
    if let Some(refused) = refused {
        why.preemption = Some(refused.to_owned());
        return Decision::Nowhere { why, forsaken: false };
    }
    match candidates(&ask, &why.helpable, budgets) {
        Ok(candidates) => {
            let Candidate { row, victims, .. } = pick::best(view, candidates);
            Decision::Preempt { node: view.names[row].clone(), victims, why }
        }
        Err(reasons) => {
            let said = Unschedulable { nodes: why.nodes, reasons, ..Unschedulable::default() };
            why.preemption = Some(said.to_string());
            Decision::Nowhere { why, forsaken: pod.nominated.is_some() }
        }
    }
}

/// Why a pod may not have others evicted (`PodEligibleToPreemptOthers`).
fn not_eligible(ask: &Ask<'_>, why: &Unschedulable) -> Option<&'static str> {
    if !ask.pod.wants().preempts() {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = ask.pod.nominated.as_deref()?;
    let row = ask.view.row(node)?;
    // A node that has become unfit for good is not waited for.
    if !why.helpable.contains(&row) {
        return None;
    }
    let leaving = |p: &Arc<PodInfo>| p.priority < ask.pod.priority && p.deleting && p.preempted;
    let waits = ask.view.pods_on(node).any(leaving);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The nodes that could be made to fit, or how many of them cannot be for which reasons.
fn candidates(
    ask: &Ask<'_>,
    rows: &[usize],
    budgets: &[&Budget],
) -> Result<Vec<Candidate>, BTreeMap<Reason, usize>> {
    let wanted = (rows.len() * SHARE / 100).max(CANDIDATES);
    let mut found = Vec::new();
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    for row in rows {
        let tell = &mut |reason| *reasons.entry(reason).or_default() += 1;
        found.extend(candidate(ask, *row, budgets, tell));
        if found.len() >= wanted {
            break;
        }
    }
    if found.is_empty() {
        let others = ask.view.len() - rows.len();
        if others > 0 {
            reasons.insert(Reason::Hopeless, others);
        }
        return Err(reasons);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
