//! The decision.
//!
//! ```text
//! prepare ─► Ask ─┬► obstacle of each node ─► fitting nodes ─► scores ─► the best
//!                 └► WhatIf: the same with pods taken away or put in (promised nodes, preemption)
//! ```

mod ask;
mod others;
mod what_if;

use std::sync::Arc;

use crate::pod::PodInfo;
use crate::reason::{Reason, Unschedulable};
use crate::score;
use crate::view::ClusterView;

pub(crate) use ask::{Ask, Obstacle, fits_plainly};
pub(crate) use others::{counts, has_all, is_eligible};
pub(crate) use what_if::WhatIf;

/// The best node for a pod, or why there is none. The same question has the same answer.
///
/// The view is changed in so far as it remembers what it had to count.
pub fn place(pod: &PodInfo, view: &mut ClusterView) -> Result<Arc<str>, Unschedulable> {
    view.prepare(pod);
    find(&Ask::new(pod, view))
}

/// The best node, of a view that is prepared for the pod.
pub(crate) fn find(ask: &Ask<'_>) -> Result<Arc<str>, Unschedulable> {
    let view = ask.view;
    if let Some(why) = &ask.everywhere
        && !view.is_empty()
    {
        let everywhere = Some(why.clone());
        return Err(Unschedulable { nodes: view.len(), everywhere, ..Unschedulable::default() });
    }
    let promised = ask.promised_rows();
    let obstacle = |row: usize| ask.obstacle_with_promises(row, &promised);
    // Who was promised a node takes it as soon as it can.
    if let Some(row) = ask.pod.nominated.as_deref().and_then(|node| view.row(node))
        && ask.is_in_question(row)
        && obstacle(row).is_none()
    {
        return Ok(view.names[row].clone());
    }
    let mut fitting = Vec::new();
    let mut failed: Option<Unschedulable> = None;
    let mut look = |row: usize| match obstacle(row) {
        None => fitting.push(row),
        // Nobody asks why some nodes do not fit as long as others do.
        Some(_) if !fitting.is_empty() => {}
        Some((obstacle, what_if)) => {
            let failed = failed.get_or_insert_default();
            let reasons = &mut failed.reasons;
            let tell = &mut |reason| *reasons.entry(reason).or_default() += 1;
            let hopeless = match what_if {
                Some(what_if) => what_if.tell(obstacle, ask, row, tell),
                None => obstacle.tell(ask, row, tell),
            };
            if !hopeless {
                failed.helpable.push(row);
            }
        }
    };
    let absent = match ask.pinned_rows() {
        Some(rows) => {
            rows.iter().copied().for_each(&mut look);
            view.len() - rows.len()
        }
        None => {
            (0..view.len()).for_each(&mut look);
            0
        }
    };
    match score::best(ask, &fitting) {
        Some(row) => Ok(view.names[row].clone()),
        None => {
            let mut why = Unschedulable { nodes: view.len(), ..failed.unwrap_or_default() };
            if absent > 0 {
                why.reasons.insert(Reason::NotNamed, absent);
            }
            Err(why)
        }
    }
}

#[cfg(test)]
mod tests;
