//! The decision.

use std::sync::Arc;

use crate::pod::PodInfo;
use crate::reason::{Reason, Unschedulable};
use crate::score;
use crate::view::{ClusterView, Tolerance};

/// What cordons a node, as a taint; whoever tolerates it may go there nevertheless.
const CORDON: (&str, &str, &str) = ("node.kubernetes.io/unschedulable", "", "NoSchedule");

/// The best node for a pod, or why there is none. The same question has the same answer.
pub fn place(pod: &PodInfo, view: &ClusterView) -> Result<Arc<str>, Unschedulable> {
    let tolerances = view.taints.tolerances(pod);
    let over_cordon = pod.wants.tolerates(CORDON.0, CORDON.1, CORDON.2);
    let mut fitting = Vec::new();
    let mut failed: Option<Unschedulable> = None;
    for row in 0..view.len() {
        match obstacle(pod, view, row, tolerances[view.tainted[row]], over_cordon) {
            None => fitting.push(row),
            // Nobody asks why some nodes do not fit as long as others do.
            Some(_) if !fitting.is_empty() => {}
            Some(obstacle) => obstacle.count(pod, view, row, failed.get_or_insert_default()),
        }
    }
    match score::best(pod, view, &fitting, &tolerances) {
        Some(row) => Ok(view.names[row].clone()),
        None => Err(Unschedulable { nodes: view.len(), ..failed.unwrap_or_default() }),
    }
}

/// Whether one node could take the pod now.
pub(crate) fn fits(pod: &PodInfo, view: &ClusterView, row: usize) -> bool {
    let tolerance = view.taints.tolerance(view.tainted[row], pod);
    let over_cordon = view.cordoned[row] && pod.wants.tolerates(CORDON.0, CORDON.1, CORDON.2);
    obstacle(pod, view, row, tolerance, over_cordon).is_none()
}

/// The first thing in the way (kubernetes/kubernetes, `pkg/scheduler/apis/config/v1/default_plugins.go`: the order
/// of the filters).
enum Obstacle {
    Plain(Reason),
    /// There may be several; they are told apart only when somebody asks.
    Resources,
}

fn obstacle(
    pod: &PodInfo,
    view: &ClusterView,
    row: usize,
    tolerance: Tolerance,
    over_cordon: bool,
) -> Option<Obstacle> {
    if view.cordoned[row] && !over_cordon {
        return Some(Obstacle::Plain(Reason::Cordoned));
    }
    if !tolerance.allowed {
        return Some(Obstacle::Plain(Reason::Taint));
    }
    if !pod.wants.node.admit(&view.names[row], &view.labels[row]) {
        return Some(Obstacle::Plain(Reason::Affinity));
    }
    if pod.wants.ports.iter().any(|wanted| view.ports[row].iter().any(|taken| wanted.clashes(taken))) {
        return Some(Obstacle::Plain(Reason::Ports));
    }
    let r = &pod.wants.requests;
    let fits = view.pods.fits(row, 1)
        && view.cpu.fits(row, r.cpu)
        && view.memory.fits(row, r.memory)
        && view.storage.fits(row, r.storage)
        && r.others.iter().all(|(name, more)| view.others.get(name).is_some_and(|c| c.fits(row, *more)));
    (!fits).then_some(Obstacle::Resources)
}

impl Obstacle {
    fn count(self, pod: &PodInfo, view: &ClusterView, row: usize, failed: &mut Unschedulable) {
        let mut hopeless = false;
        let mut count = |reason: Reason| *failed.reasons.entry(reason).or_default() += 1;
        match self {
            Self::Plain(reason) => {
                // Other pods can leave, and take their ports along; the rest is the node's own nature.
                hopeless = reason != Reason::Ports;
                count(reason);
            }
            Self::Resources => {
                let r = &pod.wants.requests;
                if !view.pods.fits(row, 1) {
                    count(Reason::TooManyPods);
                }
                let named = [("cpu", &view.cpu, r.cpu), ("memory", &view.memory, r.memory)];
                let storage = [("ephemeral-storage", &view.storage, r.storage)];
                for (name, column, more) in named.into_iter().chain(storage) {
                    if !column.fits(row, more) {
                        hopeless |= more > column.has[row];
                        count(Reason::Insufficient(name.into()));
                    }
                }
                for (name, more) in &r.others {
                    let has = view.others.get(name).map_or(0, |c| c.has[row]);
                    if !view.others.get(name).is_some_and(|c| c.fits(row, *more)) {
                        hopeless |= *more > has;
                        count(Reason::Insufficient(name.clone()));
                    }
                }
            }
        }
        failed.hopeless += usize::from(hopeless);
    }
}

#[cfg(test)]
mod tests;
