//! The decision.
//!
//! ```text
//! prepare ─► Ask ─┬► obstacle of each node ─► fitting nodes ─► scores ─► the best
//!                 └► WhatIf: the same with pods taken away or put in (promised nodes, preemption)
//! ```

mod ask;
mod others;
mod what_if;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::metrics::Stage;
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
    find(&Ask::new(pod, view), &mut |_| {})
}

/// What extenders have against nodes: why, and whether no eviction would help.
pub(crate) type Vetoes = HashMap<Arc<str>, (String, bool)>;

/// The best node, of a view that is prepared for the pod. `lap` is told when a stage is over.
pub(crate) fn find(ask: &Ask<'_>, lap: &mut dyn FnMut(Stage)) -> Result<Arc<str>, Unschedulable> {
    let view = ask.view;
    if ask.everywhere.is_none()
        && let Some(row) = promised(ask)
    {
        lap(Stage::Filter);
        return Ok(view.names[row].clone());
    }
    let fitting = survey(ask, None);
    lap(Stage::Filter);
    let fitting = fitting?;
    let best = score::best(ask, &fitting);
    lap(Stage::Score);
    match best {
        Some(row) => Ok(view.names[row].clone()),
        // A survey gives one at least.
        None => Err(Unschedulable { nodes: view.len(), ..Unschedulable::default() }),
    }
}

/// The node that is promised to the pod, if it can take it: whoever was promised a node takes it as soon as it can.
fn promised(ask: &Ask<'_>) -> Option<usize> {
    let row = ask.pod.nominated.as_deref().and_then(|node| ask.view.row(node))?;
    let fits = ask.is_in_question(row) && ask.obstacle_with_promises(row, &ask.promised_rows()).is_none();
    fits.then_some(row)
}

/// The rows that fit, or why there are none. The view must be prepared for the pod. With vetoes nothing fits: what would is
/// what they are about.
pub(crate) fn survey(ask: &Ask<'_>, vetoes: Option<&Vetoes>) -> Result<Vec<usize>, Unschedulable> {
    let view = ask.view;
    if let Some(why) = &ask.everywhere
        && !view.is_empty()
    {
        let everywhere = Some(why.clone());
        return Err(Unschedulable { nodes: view.len(), everywhere, ..Unschedulable::default() });
    }
    let promised = ask.promised_rows();
    let mut survey = Survey { ask, vetoes, promised, fitting: Vec::new(), failed: None };
    let mut absent = 0;
    match (ask.pinned_rows(), ask.enough()) {
        (Some(rows), _) => {
            absent = view.len() - rows.len();
            rows.into_iter().for_each(|row| survey.look(row));
        }
        (None, None) => (0..view.len()).for_each(|row| survey.look(row)),
        (None, Some(enough)) => {
            // Where the last one stopped, so that every node gets its turn.
            let (rows, first) = (view.len(), view.turn.load(Ordering::Relaxed));
            let mut looked = 0;
            while looked < rows && survey.fitting.len() < enough {
                survey.look((first + looked) % rows);
                looked += 1;
            }
            view.turn.store((first + looked) % rows, Ordering::Relaxed);
        }
    }
    if !survey.fitting.is_empty() {
        return Ok(survey.fitting);
    }
    let mut why = Unschedulable { nodes: view.len(), ..survey.failed.unwrap_or_default() };
    if absent > 0 {
        why.reasons.insert(Reason::NotNamed, absent);
    }
    Err(why)
}

struct Survey<'a> {
    ask: &'a Ask<'a>,
    vetoes: Option<&'a Vetoes>,
    promised: Vec<(usize, WhatIf)>,
    fitting: Vec<usize>,
    failed: Option<Unschedulable>,
}

impl Survey<'_> {
    fn look(&mut self, row: usize) {
        match (self.ask.obstacle_with_promises(row, &self.promised), self.vetoes) {
            (None, None) => self.fitting.push(row),
            (None, Some(vetoes)) => {
                let failed = self.failed.get_or_insert_default();
                let veto = vetoes.get(&self.ask.view.names[row]);
                if let Some((why, _)) = veto.filter(|(why, _)| !why.is_empty()) {
                    *failed.reasons.entry(Reason::Extender(why.clone())).or_default() += 1;
                }
                if !veto.is_some_and(|(_, lasting)| *lasting) {
                    failed.helpable.push(row);
                }
            }
            // Nobody asks why some nodes do not fit as long as others do.
            (Some(_), _) if !self.fitting.is_empty() => {}
            (Some((obstacle, what_if)), _) => {
                let failed = self.failed.get_or_insert_default();
                let reasons = &mut failed.reasons;
                let tell = &mut |reason| *reasons.entry(reason).or_default() += 1;
                let hopeless = match what_if {
                    Some(what_if) => what_if.tell(obstacle, self.ask, row, tell),
                    None => obstacle.tell(self.ask, row, tell),
                };
                if !hopeless {
                    failed.helpable.push(row);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
