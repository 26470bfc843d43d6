//! How much is free, and how evenly (`noderesources/least_allocated.go` and `balanced_allocation.go`).

use crate::place::Ask;

use super::FULL;

pub(super) fn add(ask: &Ask<'_>, fitting: &[usize], total: &mut [i64]) {
    let wants = ask.pod.wants();
    for (total, row) in total.iter_mut().zip(fitting) {
        *total += least_allocated(ask, *row);
    }
    // A pod that asks for nothing tips no balance.
    if wants.requests.cpu != 0 || wants.requests.memory != 0 {
        for (total, row) in total.iter_mut().zip(fitting) {
            *total += balanced(ask, *row);
        }
    }
}

/// The more is free afterwards, the better.
fn least_allocated(ask: &Ask<'_>, row: usize) -> i64 {
    let (view, wants) = (ask.view, ask.pod.wants());
    let free = |has: i64, taken: i64| if taken > has { 0 } else { (has - taken) * FULL / has };
    let (cpu, memory) = view.weight[row];
    match (view.cpu.has[row], view.memory.has[row]) {
        (0, 0) => 0,
        (0, has) => free(has, memory + wants.weight.1),
        (has, 0) => free(has, cpu + wants.weight.0),
        (cores, bytes) => (free(cores, cpu + wants.weight.0) + free(bytes, memory + wants.weight.1)) / 2,
    }
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
