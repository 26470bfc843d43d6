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

use crate::metrics::Stage;
use crate::place::{Ask, Vetoes, find, survey};
use crate::pod::PodInfo;
use crate::reason::{Reason, Unschedulable};
use crate::view::ClusterView;

pub(crate) use budget::Budget;
use victims::candidate;

pub(crate) use pick::best;
pub(crate) use victims::Candidate;

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
    /// It could have one of these; extenders have a say first.
    Bargain {
        candidates: Vec<Candidate>,
        why: Unschedulable,
    },
    Nowhere {
        why: Unschedulable,
        /// What was promised to it cannot be held.
        forsaken: bool,
    },
}

/// What a decision goes by besides pod and view.
pub(crate) struct Terms<'a> {
    pub(crate) budgets: &'a [&'a Budget],
    /// Nobody is leaving for it yet.
    pub(crate) may_preempt: bool,
    /// Extenders have a say in who leaves.
    pub(crate) bargains: bool,
}

/// The best node for a pod, or those who must make room for it. `lap` is told when a stage is over.
pub(crate) fn decide(
    pod: &PodInfo,
    view: &mut ClusterView,
    terms: &Terms<'_>,
    lap: &mut dyn FnMut(Stage),
) -> Decision {
    view.prepare(pod);
    let ask = Ask::new(pod, view);
    lap(Stage::PreFilter);
    match find(&ask, lap) {
        Ok(node) => Decision::Node(node),
        Err(why) => make_room(&ask, why, terms, lap),
    }
}

/// The same for a pod that extenders will have on none of the nodes that would take it.
pub(crate) fn decide_vetoed(
    pod: &PodInfo,
    view: &mut ClusterView,
    vetoes: &Vetoes,
    terms: &Terms<'_>,
    lap: &mut dyn FnMut(Stage),
) -> Decision {
    view.prepare(pod);
    let ask = Ask::new(pod, view);
    let why = survey(&ask, Some(vetoes)).err().unwrap_or_default();
    make_room(&ask, why, terms, lap)
}

/// Who must leave for a pod that no node can take.
fn make_room(
    ask: &Ask<'_>,
    mut why: Unschedulable,
    terms: &Terms<'_>,
    lap: &mut dyn FnMut(Stage),
) -> Decision {
    let pod = ask.pod;
    if why.nodes == 0 {
        return Decision::Nowhere { why, forsaken: pod.nominated.is_some() };
    }
    why.claims = ask.profile.deallocates().then(|| ask.freed(&why));
    if !ask.profile.preempts() {
        let forsaken = why.claims.is_none() && pod.nominated.is_some();
        return Decision::Nowhere { why, forsaken };
    }
    let refused = match terms.may_preempt {
        false => Some("waiting for the preemption for this pod to be finished"),
        true => not_eligible(ask, &why),
    };
    if let Some(refused) = refused {
        why.preemption = Some(refused.to_owned());
        return Decision::Nowhere { why, forsaken: false };
    }
    crate::metrics::tried_preemption();
    let candidates = candidates(ask, &why.helpable, terms.budgets);
    lap(Stage::PostFilter);
    match candidates {
        Ok(candidates) if terms.bargains => Decision::Bargain { candidates, why },
        Ok(candidates) => {
            // Where something helps, nothing is said of what does not.
            why.claims = None;
            let Candidate { node, victims, .. } = pick::best(candidates);
            Decision::Preempt { node, victims, why }
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
    let (share, least) = ask.profile.candidates;
    let wanted = (rows.len() * share / 100).max(least).max(1);
    let mut found: Vec<Candidate> = Vec::new();
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    for row in rows {
        let tell = &mut |reason| *reasons.entry(reason).or_default() += 1;
        found.extend(candidate(ask, *row, budgets, tell));
        // There may be one that breaks no budget, and it would be the better one.
        if found.len() >= wanted && found.iter().any(|candidate| candidate.violations == 0) {
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
