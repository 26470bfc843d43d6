//! What pods would like to be near, or not (`interpodaffinity/scoring.go`).

use crate::place::{Ask, counts};
use crate::view::NOWHERE;

use super::FULL;

pub(super) fn add(ask: &Ask<'_>, fitting: &[usize], total: &mut [i64], weight: i64) {
    let (view, kind) = (ask.view, &ask.pod.kind);
    if ask.profile.ignores_liking && kind.rules.preferred.is_empty() {
        return;
    }
    // What each domain of a column is worth.
    let mut worth: Vec<(usize, Vec<i64>)> = Vec::new();
    let mut note = |column: usize, row: usize, more: i64| {
        let topology = view.topologies.get(column);
        let place = worth.iter().position(|(c, _)| *c == column).unwrap_or_else(|| {
            worth.push((column, vec![0; topology.domains()]));
            worth.len() - 1
        });
        let domain = topology.of[row];
        if domain != NOWHERE {
            worth[place].1[domain as usize] += more;
        }
    };
    for (term, weight) in &kind.rules.preferred {
        let Some(column) = view.topologies.find(&term.topology) else { continue };
        for (row, count) in counts(view, &term.matcher, false).iter().enumerate().filter(|(_, n)| **n > 0) {
            note(column, row, weight * i64::from(*count));
        }
    }
    for said in view.said.about(kind) {
        for (row, liking) in &said.liking {
            note(said.topology, *row as usize, *liking);
        }
        for (row, pods) in said.needing.iter().filter(|_| ask.profile.hard_affinity > 0) {
            note(said.topology, *row as usize, ask.profile.hard_affinity * i64::from(*pods));
        }
    }
    if worth.is_empty() {
        return;
    }
    let score = |row: usize| -> i64 {
        let of = |(column, worth): &(usize, Vec<i64>)| match view.topologies.get(*column).of[row] {
            NOWHERE => 0,
            domain => worth[domain as usize],
        };
        worth.iter().map(of).sum()
    };
    let scores: Vec<i64> = fitting.iter().map(|row| score(*row)).collect();
    let (least, most) = (scores.iter().min().copied(), scores.iter().max().copied());
    let (Some(least), Some(most)) = (least, most) else { return };
    if most > least {
        let share = |score: i64| (score - least) as f64 / (most - least) as f64;
        super::add(total, weight, |place| (FULL as f64 * share(scores[place])) as i64);
    }
}
