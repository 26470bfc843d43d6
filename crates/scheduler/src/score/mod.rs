//! Which of the nodes that fit is the best (kubernetes/kubernetes, `pkg/scheduler/framework/plugins`). How much each sort
//! of score counts is the profile's affair.

mod devices;
mod images;
mod others;
mod resources;
mod spread;
#[cfg(test)]
mod tests;

use crate::config::Plugin;
use crate::place::Ask;

/// The highest score of one sort.
pub(crate) const FULL: i64 = 100;

/// The best row; among equals the one with the fewest pods, then the first by name.
pub(crate) fn best(ask: &Ask<'_>, fitting: &[usize]) -> Option<usize> {
    if fitting.len() <= 1 {
        return fitting.first().copied();
    }
    best_of(ask, fitting, scores(ask, fitting))
}

/// The best row by scores that are known.
pub(crate) fn best_of(ask: &Ask<'_>, fitting: &[usize], scores: Vec<i64>) -> Option<usize> {
    let view = ask.view;
    let rank = |row: usize| (view.pods.taken[row], view.order[row]);
    let mut best: Option<(i64, usize)> = None;
    for (score, row) in scores.into_iter().zip(fitting.iter().copied()) {
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
    // What counts for nothing is not looked at.
    let weight = |plugin| Some(ask.profile.weight(plugin)).filter(|weight| *weight != 0);
    if let Some(weight) = weight(Plugin::ImageLocality) {
        images::add(ask, fitting, &mut total, weight);
    }
    // With no taint of this sort anywhere, every node has the full score, and nothing is told apart.
    if let Some(weight) = weight(Plugin::TaintToleration)
        && ask.tolerances.iter().any(|t| t.unwelcome > 0)
    {
        let unwelcome = |row: &usize| ask.tolerances[ask.view.tainted[*row]].unwelcome;
        let most = fitting.iter().map(unwelcome).max().unwrap_or(0);
        add(&mut total, weight, |place| match most {
            0 => FULL,
            _ => FULL - FULL * unwelcome(&fitting[place]) / most,
        });
    }
    if let Some(weight) = weight(Plugin::NodeAffinity) {
        affinity(ask, fitting, &mut total, weight);
    }
    if let Some(weight) = weight(Plugin::PodTopologySpread) {
        spread::add(ask, fitting, &mut total, weight);
    }
    if let Some(weight) = weight(Plugin::InterPodAffinity) {
        others::add(ask, fitting, &mut total, weight);
    }
    if let (Some(weight), Some(devices)) = (weight(Plugin::DynamicResources), &ask.devices) {
        devices::add(ask.view, devices, fitting, &mut total, weight);
    }
    total
}

/// How much the pod, and its profile, would like a node (`nodeaffinity/node_affinity.go`, `Score`).
fn affinity(ask: &Ask<'_>, fitting: &[usize], total: &mut [i64], weight: i64) {
    let view = ask.view;
    let own = view.suits.find(&ask.pod.kind.wants).map(|s| &s.liked).filter(|liked| !liked.is_empty());
    let added = ask.profile.added.as_ref().map(|added| &added.preferred).filter(|terms| !terms.is_empty());
    if own.is_none() && added.is_none() {
        return;
    }
    let liked = |row: &usize| {
        let terms = added.into_iter().flatten();
        let holding = terms.filter(|(_, term)| term.holds(&view.names[*row], &view.labels[*row]));
        holding.map(|(weight, _)| weight).sum::<i64>() + own.map_or(0, |liked| liked[*row])
    };
    let liked: Vec<i64> = fitting.iter().map(liked).collect();
    if let Some(most) = liked.iter().max().copied().filter(|most| *most > 0) {
        add(total, weight, |place| FULL * liked[place] / most);
    }
}

fn add(total: &mut [i64], weight: i64, score: impl Fn(usize) -> i64) {
    total.iter_mut().enumerate().for_each(|(place, total)| *total += weight * score(place));
}
