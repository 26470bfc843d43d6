//! Which of the nodes that fit is the best (kubernetes/kubernetes, `pkg/scheduler/framework/plugins`; weights in
//! `pkg/scheduler/apis/config/v1/default_plugins.go`).

mod images;
mod others;
mod resources;
mod spread;

use crate::place::Ask;

/// The highest score of one sort.
const FULL: i64 = 100;
const TAINTS: i64 = 3;
const AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const OTHERS: i64 = 2;

/// The best row; among equals the one with the fewest pods, then the first by name.
pub(crate) fn best(ask: &Ask<'_>, fitting: &[usize]) -> Option<usize> {
    if fitting.len() <= 1 {
        return fitting.first().copied();
    }
    let view = ask.view;
    let rank = |row: usize| (view.pods.taken[row], view.order[row]);
    let mut best: Option<(i64, usize)> = None;
    for (score, row) in scores(ask, fitting).into_iter().zip(fitting.iter().copied()) {
        let better = match best {
            None => true,
            Some((most, _)) if score != most => score > most,
            Some((_, other)) => rank(row) < rank(other),
        };
        if better {
            best = Some((score, row));
        }
    }
    best.map(|(_, row)| row)
}

/// The sum of all sorts, for each fitting row.
pub(crate) fn scores(ask: &Ask<'_>, fitting: &[usize]) -> Vec<i64> {
    let mut total = vec![0; fitting.len()];
    resources::add(ask, fitting, &mut total);
    images::add(ask, fitting, &mut total);
    // With no taint of this sort anywhere, every node has the full score, and nothing is told apart.
    if ask.tolerances.iter().any(|t| t.unwelcome > 0) {
        let unwelcome = |row: &usize| ask.tolerances[ask.view.tainted[*row]].unwelcome;
        let most = fitting.iter().map(unwelcome).max().unwrap_or(0);
        add(&mut total, TAINTS, |place| match most {
            0 => FULL,
            _ => FULL - FULL * unwelcome(&fitting[place]) / most,
        });
    }
    if let Some(liked) = ask.view.suits.find(&ask.pod.kind.wants).map(|s| &s.liked)
        && let Some(most) = fitting.iter().filter_map(|row| liked.get(*row)).max().filter(|most| **most > 0)
    {
        add(&mut total, AFFINITY, |place| FULL * liked[fitting[place]] / most);
    }
    spread::add(ask, fitting, &mut total, SPREAD);
    others::add(ask, fitting, &mut total, OTHERS);
    total
}

fn add(total: &mut [i64], weight: i64, score: impl Fn(usize) -> i64) {
    total.iter_mut().enumerate().for_each(|(place, total)| *total += weight * score(place));
}
