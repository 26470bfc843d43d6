//! Choosing CPUs evenly from several NUMA nodes (`pkg/kubelet/cm/cpumanager/cpu_assignment.go`,
//! `takeByTopologyNUMADistributed`).

use std::collections::BTreeMap;

use super::take::{NotEnough, packed};
use crate::topology::{CpuSet, Machine, Mask};

/// Takes `count` of the `free` ones, in groups of `group`, as evenly as can be from as few nodes as can be; packed together
/// if that does not work out.
pub(super) fn spread(
    machine: &Machine,
    free: &CpuSet,
    count: usize,
    group: usize,
) -> Result<CpuSet, NotEnough> {
    if count > free.len() {
        return Err(NotEnough { requested: count, available: free.len() });
    }
    let pack = |free: &CpuSet, count| packed(machine, free, count, false);
    if count == 0 || !count.is_multiple_of(group) {
        return pack(free, count);
    }
    let in_node = |node: usize, free: &CpuSet| free.and(&machine.in_node(node));
    let nodes: BTreeMap<usize, usize> =
        machine.cpu_nodes().into_iter().map(|n| (n, in_node(n, free).len())).filter(|(_, n)| *n > 0).collect();
    let numbers: Vec<usize> = nodes.keys().copied().collect();
    let masks = Mask::all_of(&numbers);
    for size in 1..=numbers.len() {
        let candidates = masks.iter().filter(|mask| mask.count() == size);
        let found = candidates.filter_map(|mask| plan(&nodes, *mask, count, group));
        // The first of the best.
        let Some(best) = found.reduce(|best, other| if other.imbalance < best.imbalance { other } else { best }) else {
            continue;
        };
        let mut taken = CpuSet::default();
        for (node, amount) in best.amounts {
            taken = taken.or(&pack(&in_node(node, free), amount)?);
        }
        return Ok(taken);
    }
    pack(free, count)
}

struct Plan {
    amounts: BTreeMap<usize, usize>,
    imbalance: f64,
}

/// How many CPUs each node of `mask` gives, so that what stays free is as even as can be.
fn plan(nodes: &BTreeMap<usize, usize>, mask: Mask, count: usize, group: usize) -> Option<Plan> {
    let size = mask.count();
    let groups: usize = mask.nodes().map(|n| nodes[&n] / group).sum();
    let each = count / size / group * group;
    if groups * group < count || mask.nodes().any(|n| nodes[&n] < each) {
        return None;
    }
    let mut left = nodes.clone();
    mask.nodes().for_each(|n| *left.entry(n).or_default() -= each);
    let rest = count - each * size;
    let able: Vec<usize> = mask.nodes().filter(|n| left[n] >= group).collect();
    let choices = if rest == 0 { vec![Mask::default()] } else { Mask::all_of(&able) };
    let mut best: Option<Plan> = None;
    for choice in choices {
        let (mut left, mut rest) = (left.clone(), rest);
        while rest > 0 {
            let before = rest;
            for node in choice.nodes() {
                let free = left.entry(node).or_default();
                if rest > 0 && *free >= group {
                    *free -= group;
                    rest -= group;
                }
            }
            if rest == before {
                break;
            }
        }
        if rest > 0 {
            continue;
        }
        let imbalance = deviation(&left);
        if best.as_ref().is_none_or(|best| imbalance < best.imbalance) {
            let amounts = mask.nodes().map(|n| (n, nodes[&n] - left[&n])).collect();
            best = Some(Plan { amounts, imbalance });
        }
    }
    best
}

/// The standard deviation, to three places so that equal ones are equal.
fn deviation(values: &BTreeMap<usize, usize>) -> f64 {
    let count = values.len() as f64;
    let mean = values.values().sum::<usize>() as f64 / count;
    let variance = values.values().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / count;
    (variance.sqrt() * 1000.0).round() / 1000.0
}
