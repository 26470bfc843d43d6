//! How much is free, and how evenly (`noderesources/resource_allocation.go`, `least_allocated.go`, `most_allocated.go`,
//! `requested_to_capacity_ratio.go` and `balanced_allocation.go`).

use crate::config::{Plugin, Profile, ShapePoint, Strategy};
use crate::place::Ask;

use super::FULL;

pub(super) fn add(ask: &Ask<'_>, fitting: &[usize], total: &mut [i64]) {
    let profile = ask.profile;
    let weight = profile.weight(Plugin::NodeResourcesFit);
    let usual = profile.strategy == Strategy::Least && Profile::is_usual(&profile.resources);
    for (total, row) in total.iter_mut().zip(fitting).filter(|_| weight != 0) {
        *total += weight * if usual { least_allocated(ask, *row) } else { allocated(ask, *row) };
    }
    let weight = profile.weight(Plugin::NodeResourcesBalancedAllocation);
    // A pod that asks for nothing tips no balance.
    if weight == 0 || !profile.balanced.iter().any(|name| asked(ask, name) != 0) {
        return;
    }
    let usual = matches!(profile.balanced.as_slice(), [cpu, memory] if cpu == "cpu" && memory == "memory");
    for (total, row) in total.iter_mut().zip(fitting) {
        *total += weight * if usual { balanced(ask, *row) } else { balance(ask, *row) };
    }
}

/// The more is free afterwards, of cores and memory alike, the better.
fn least_allocated(ask: &Ask<'_>, row: usize) -> i64 {
    let (view, wants) = (ask.view, ask.pod.wants());
    let (cpu, memory) = view.weight[row];
    match (view.cpu.has[row], view.memory.has[row]) {
        (0, 0) => 0,
        (0, has) => free(has, memory + wants.weight.1),
        (has, 0) => free(has, cpu + wants.weight.0),
        (cores, bytes) => (free(cores, cpu + wants.weight.0) + free(bytes, memory + wants.weight.1)) / 2,
    }
}

fn free(has: i64, taken: i64) -> i64 {
    if taken > has { 0 } else { (has - taken) * FULL / has }
}

/// By the profile's strategy, of the resources that it names.
fn allocated(ask: &Ask<'_>, row: usize) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for spec in &ask.profile.resources {
        let Some((has, taken)) = share(ask, row, &spec.name, true) else { continue };
        let score = match &ask.profile.strategy {
            Strategy::Least => free(has, taken),
            Strategy::Most => taken.min(has) * FULL / has,
            Strategy::Ratio(shape) => on_shape(shape, if taken > has { FULL } else { taken * FULL / has }),
        };
        // What a shape says nothing of does not count.
        if score > 0 || !matches!(ask.profile.strategy, Strategy::Ratio(_)) {
            sum += score * spec.weight;
            weights += spec.weight;
        }
    }
    match (&ask.profile.strategy, weights) {
        (_, 0) => 0,
        (Strategy::Ratio(_), _) => (sum as f64 / weights as f64).round() as i64,
        _ => sum / weights,
    }
}

/// Where a line through the points is at so much of a hundred.
fn on_shape(shape: &[ShapePoint], at: i64) -> i64 {
    let Some(n) = shape.iter().position(|point| at <= point.utilization) else {
        return shape.last().map_or(0, |point| point.score);
    };
    let to = shape[n];
    let Some(from) = n.checked_sub(1).map(|before| shape[before]) else { return to.score };
    from.score + (to.score - from.score) * (at - from.utilization) / (to.utilization - from.utilization)
}

/// What the pod asks for of a resource.
fn asked(ask: &Ask<'_>, name: &str) -> i64 {
    let r = &ask.pod.wants().requests;
    match name {
        "cpu" => r.cpu,
        "memory" => r.memory,
        "ephemeral-storage" => r.storage,
        other => r.others.get(other).copied().unwrap_or(0),
    }
}

/// What a node has of a resource, and what is taken of it with the pod there, if the node has any. With `little`, pods
/// that ask for no cores or memory count for a little of them.
fn share(ask: &Ask<'_>, row: usize, name: &str, little: bool) -> Option<(i64, i64)> {
    let (view, weight) = (ask.view, ask.pod.wants().weight);
    let more = asked(ask, name);
    let (has, taken) = match name {
        "cpu" if little => (view.cpu.has[row], view.weight[row].0 + weight.0),
        "memory" if little => (view.memory.has[row], view.weight[row].1 + weight.1),
        "cpu" => (view.cpu.has[row], view.cpu.taken[row] + more),
        "memory" => (view.memory.has[row], view.memory.taken[row] + more),
        "ephemeral-storage" => (view.storage.has[row], view.storage.taken[row] + more),
        // What the pod does not ask for is left out of account.
        _ if more == 0 => return None,
        other => {
            let column = view.others.get(other)?;
            (column.has[row], column.taken[row] + more)
        }
    };
    (has != 0).then_some((has, taken))
}

/// The more alike the shares of cores and of memory that are taken, the better.
fn balanced(ask: &Ask<'_>, row: usize) -> i64 {
    let (view, r) = (ask.view, &ask.pod.wants().requests);
    let (cores, bytes) = (view.cpu.has[row], view.memory.has[row]);
    // One share alone is balanced.
    if cores == 0 || bytes == 0 {
        return FULL;
    }
    let share = |has: i64, taken: i64| (taken as f64 / has as f64).min(1.0);
    let cpu = share(cores, view.cpu.taken[row] + r.cpu);
    let memory = share(bytes, view.memory.taken[row] + r.memory);
    ((1.0 - ((cpu - memory) / 2.0).abs()) * FULL as f64) as i64
}

/// The same for the resources that the profile names.
fn balance(ask: &Ask<'_>, row: usize) -> i64 {
    let shares = ask.profile.balanced.iter().filter_map(|name| share(ask, row, name, false));
    let shares: Vec<f64> = shares.map(|(has, taken)| (taken as f64 / has as f64).min(1.0)).collect();
    let spread = match shares.as_slice() {
        [] | [_] => 0.0,
        [one, other] => ((one - other) / 2.0).abs(),
        all => {
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let squares: f64 = all.iter().map(|share| (share - mean) * (share - mean)).sum();
            (squares / all.len() as f64).sqrt()
        }
    };
    ((1.0 - spread) * FULL as f64) as i64
}
