use crate::pod::PodInfo;
use crate::reason::Reason;

use super::ask::{Ask, Extra, Obstacle};
use super::others::Others;

/// The question of one node with other pods on it than there are.
#[derive(Clone, Debug)]
pub(crate) struct WhatIf {
    extra: Extra,
    others: Others,
}

impl WhatIf {
    pub(crate) fn new(ask: &Ask<'_>) -> Self {
        Self { extra: Extra::default(), others: ask.others.clone() }
    }

    /// Puts a pod on the node, or (with minus one) takes it away.
    pub(crate) fn shift(&mut self, ask: &Ask<'_>, row: usize, other: &PodInfo, times: i64) {
        let wants = other.wants();
        self.extra.pods += times;
        self.extra.amounts.combine(&wants.requests, |a, b| a.saturating_add(times.saturating_mul(b)));
        for port in &wants.ports {
            let (from, to) = match times > 0 {
                true => (&mut self.extra.ports_gone, &mut self.extra.ports),
                false => (&mut self.extra.ports, &mut self.extra.ports_gone),
            };
            match from.iter().position(|p| p == port) {
                Some(place) => drop(from.swap_remove(place)),
                None => to.push(port.clone()),
            }
        }
        if !other.kind.uses.is_empty() {
            self.extra.users.push((other.kind.clone(), times));
        }
        self.others.shift(ask, row, other, times);
    }

    pub(crate) fn obstacle(&self, ask: &Ask<'_>, row: usize) -> Option<Obstacle> {
        ask.obstacle_in(row, &self.extra, &self.others)
    }

    /// Tells the reasons of an obstacle that this found.
    pub(crate) fn tell(
        &self,
        obstacle: Obstacle,
        ask: &Ask<'_>,
        row: usize,
        tell: &mut dyn FnMut(Reason),
    ) -> bool {
        obstacle.tell_in(ask, row, &self.extra, tell)
    }
}
