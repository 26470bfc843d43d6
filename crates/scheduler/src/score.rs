//! Which of the nodes that fit is the best (kubernetes/kubernetes, `pkg/scheduler/framework/plugins`:
//! `noderesources`, `nodeaffinity`, `tainttoleration`; weights in `pkg/scheduler/apis/config/v1/default_plugins.go`).

use crate::pod::PodInfo;
use crate::view::{ClusterView, Tolerance};

const FULL: i64 = 100;
const TAINTS: i64 = 3;
const AFFINITY: i64 = 2;

/// The best row; among equals the one with the fewest pods, then the first by name.
pub(crate) fn best(
    pod: &PodInfo,
    view: &ClusterView,
    fitting: &[usize],
    tolerances: &[Tolerance],
) -> Option<usize> {
    let unwelcome = |row: usize| tolerances[view.tainted[row]].unwelcome;
    let most_unwelcome = if tolerances.iter().all(|t| t.unwelcome == 0) {
        0
    } else {
        fitting.iter().map(|row| unwelcome(*row)).max().unwrap_or(0)
    };
    let preferred: Vec<i64> = if pod.wants.preferred.is_empty() {
        Vec::new()
    } else {
        fitting.iter().map(|row| preference(pod, view, *row)).collect()
    };
    let most_preferred = preferred.iter().copied().max().unwrap_or(0);
    let mut best: Option<(i64, usize)> = None;
    for (place, &row) in fitting.iter().enumerate() {
        let mut score = least_allocated(pod, view, row) + balanced(pod, view, row);
        // With no taint of this sort anywhere, every node has the full score.
        if most_unwelcome > 0 {
            score += TAINTS * (FULL - FULL * unwelcome(row) / most_unwelcome);
        }
        if most_preferred > 0 {
            score += AFFINITY * (FULL * preferred[place] / most_preferred);
        }
        let better = match best {
            None => true,
            Some((most, _)) if score != most => score > most,
            Some((_, other)) => {
                let rank = |row: usize| (view.pods.taken[row], &view.names[row]);
                rank(row) < rank(other)
            }
        };
        if better {
            best = Some((score, row));
        }
    }
    best.map(|(_, row)| row)
}

fn preference(pod: &PodInfo, view: &ClusterView, row: usize) -> i64 {
    let (name, labels) = (&view.names[row], &view.labels[row]);
    pod.wants.preferred.iter().filter(|(_, term)| term.holds(name, labels)).map(|(weight, _)| weight).sum()
}

/// The more is free afterwards, the better.
fn least_allocated(pod: &PodInfo, view: &ClusterView, row: usize) -> i64 {
    let free = |has: i64, taken: i64| {
        if has == 0 || taken > has { 0 } else { (has - taken) * FULL / has }
    };
    let (cpu, memory) = view.weight[row];
    let cpu = free(view.cpu.has[row], cpu + pod.wants.weight.0);
    let memory = free(view.memory.has[row], memory + pod.wants.weight.1);
    (cpu + memory) / 2
}

/// The more alike the shares of cores and of memory that are taken, the better.
fn balanced(pod: &PodInfo, view: &ClusterView, row: usize) -> i64 {
    // A pod that asks for nothing tips no balance.
    if pod.wants.requests.cpu == 0 && pod.wants.requests.memory == 0 {
        return 0;
    }
    let share = |has: i64, taken: i64| if has == 0 { 1.0 } else { (taken as f64 / has as f64).min(1.0) };
    let cpu = share(view.cpu.has[row], view.cpu.taken[row] + pod.wants.requests.cpu);
    let memory = share(view.memory.has[row], view.memory.taken[row] + pod.wants.requests.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * FULL as f64) as i64
}
