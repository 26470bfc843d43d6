use std::cmp::Reverse;

use base::Timestamp;

use super::victims::Candidate;

/// The candidate that hurts least (`pickOneNodeForPreemption`): the fewest broken budgets; the lowest of the highest
/// priorities; the smallest sum of priorities; the fewest victims; those that started last; the first by name.
pub(crate) fn best(candidates: Vec<Candidate>) -> Candidate {
    let rank = |c: &Candidate| {
        let highest = c.victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
        // So that fewer pods of a negative priority are less than more of them.
        let sum: i64 = c.victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
        let eldest = c.victims.iter().filter(|v| v.priority == highest);
        let eldest = eldest.map(|v| v.started.unwrap_or(Timestamp::MAX)).min();
        (c.violations, highest, sum, c.victims.len(), Reverse(eldest), c.node.clone())
    };
    let best = candidates.into_iter().min_by_key(rank);
    best.unwrap_or_else(|| unreachable!("asked of at least one candidate"))
}
