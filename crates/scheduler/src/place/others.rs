//! What the other pods of the cluster have against a node: topology spread, affinity and anti-affinity
//! (kubernetes/kubernetes, `pkg/scheduler/framework/plugins/podtopologyspread/filtering.go` and
//! `interpodaffinity/filtering.go`).

use std::sync::Arc;

use crate::config::Plugin;
use crate::pod::{Matcher, PodInfo, PodKind, Spread};
use crate::reason::Reason;
use crate::view::{ClusterView, NOWHERE, Question};

use super::ask::Ask;

/// Sums over domains, made for one pod out of the counts of each node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    hard: Vec<Hard>,
    /// All columns that `hard` is about.
    keys: Vec<usize>,
    near: Option<Near>,
    apart: Vec<Sums>,
    /// Pods that will not have this one in their domain.
    barred: Vec<Sums>,
}

/// So many pods in each domain of a column.
#[derive(Clone, Debug)]
struct Sums {
    column: usize,
    of: Vec<i64>,
}

#[derive(Clone, Debug)]
struct Hard {
    spread: Spread,
    column: usize,
    /// The pod counts itself.
    own: i64,
    /// Below zero where no node counts.
    of: Vec<i64>,
    /// How many domains have so many pods.
    levels: Vec<u32>,
    least: usize,
    domains: i64,
}

#[derive(Clone, Debug)]
struct Near {
    matcher: Arc<Matcher>,
    sums: Vec<Sums>,
    total: i64,
    /// The pod is one of those it wants to be near, so it may be the first.
    own: bool,
}

impl Sums {
    fn of(view: &ClusterView, column: usize, counts: &[u32]) -> Self {
        let topology = view.topologies.get(column);
        let mut of = vec![0; topology.domains()];
        for (domain, count) in topology.of.iter().zip(counts) {
            if *count > 0 && *domain != NOWHERE {
                of[*domain as usize] += i64::from(*count);
            }
        }
        Self { column, of }
    }

    fn at(&self, view: &ClusterView, row: usize) -> Option<i64> {
        let domain = view.topologies.get(self.column).of[row];
        (domain != NOWHERE).then(|| self.of[domain as usize])
    }

    fn add(&mut self, view: &ClusterView, row: usize, more: i64) -> bool {
        let domain = view.topologies.get(self.column).of[row];
        if domain != NOWHERE {
            self.of[domain as usize] += more;
        }
        domain != NOWHERE
    }
}

impl Others {
    /// Counts for a pod that the view is prepared for.
    pub(super) fn count(ask: &Ask<'_>) -> Self {
        let (view, kind) = (ask.view, &ask.pod.kind);
        let (hard, keys) = hard(ask, kind);
        if !ask.profile.filters(Plugin::InterPodAffinity) {
            return Self { hard, keys, ..Self::default() };
        }
        let mut barred: Vec<Sums> = Vec::new();
        for said in view.said.about(kind).filter(|said| !said.against.is_empty()) {
            let sums = column_of(&mut barred, view, said.topology);
            for (row, count) in &said.against {
                sums.add(view, *row as usize, i64::from(*count));
            }
        }
        let rules = &kind.rules;
        let counts = |matcher: &Arc<Matcher>| counts(view, matcher, false);
        let near = rules.near.as_ref().map(|(matcher, places)| {
            let columns = places.iter().filter_map(|key| view.topologies.find(key));
            let sums: Vec<Sums> = columns.map(|column| Sums::of(view, column, counts(matcher))).collect();
            let total = sums.iter().flat_map(|s| &s.of).sum();
            Near { matcher: matcher.clone(), sums, total, own: view.meant(matcher, kind) }
        });
        let apart = rules.apart.iter().filter_map(|term| {
            let column = view.topologies.find(&term.topology)?;
            Some(Sums::of(view, column, counts(&term.matcher)))
        });
        let apart = apart.collect();
        Self { hard, keys, near, apart, barred }
    }

    /// What is in the way of the pod on a node.
    pub(super) fn obstacle(&self, view: &ClusterView, row: usize) -> Option<Reason> {
        for hard in &self.hard {
            let domain = view.topologies.get(hard.column).of[row];
            if domain == NOWHERE {
                return Some(Reason::SpreadLabel);
            }
            let there = hard.of[domain as usize].max(0);
            if there + hard.own - hard.least() > hard.spread.max_skew {
                return Some(Reason::Spread);
            }
        }
        if let Some(near) = &self.near {
            let mut all = true;
            for sums in &near.sums {
                match sums.at(view, row) {
                    None => return Some(Reason::Near),
                    Some(count) => all &= count > 0,
                }
            }
            if !(all || near.total == 0 && near.own) {
                return Some(Reason::Near);
            }
        }
        let any = |sums: &[Sums]| sums.iter().any(|s| s.at(view, row).is_some_and(|count| count > 0));
        if any(&self.apart) {
            return Some(Reason::Apart);
        }
        any(&self.barred).then_some(Reason::Barred)
    }

    /// A pod comes to a node, or leaves it.
    pub(super) fn shift(&mut self, ask: &Ask<'_>, row: usize, other: &PodInfo, times: i64) {
        let (view, kind) = (ask.view, &ask.pod.kind);
        let counts = !self.hard.is_empty() && !other.deleting && has_all(view, &self.keys, row);
        for hard in self.hard.iter_mut().filter(|_| counts) {
            if view.meant(&hard.spread.matcher, &other.kind) && is_eligible(ask, &hard.spread, row) {
                hard.shift(view, row, times);
            }
        }
        if let Some(near) = &mut self.near
            && view.meant(&near.matcher, &other.kind)
        {
            for sums in &mut near.sums {
                near.total += if sums.add(view, row, times) { times } else { 0 };
            }
        }
        for (sums, term) in self.apart.iter_mut().zip(&kind.rules.apart) {
            if view.meant(&term.matcher, &other.kind) {
                sums.add(view, row, times);
            }
        }
        let others = other.kind.rules.apart.iter().filter(|_| ask.profile.filters(Plugin::InterPodAffinity));
        for term in others {
            if view.meant(&term.matcher, kind)
                && let Some(column) = view.topologies.find(&term.topology)
            {
                column_of(&mut self.barred, view, column).add(view, row, times);
            }
        }
    }
}

fn column_of<'a>(all: &'a mut Vec<Sums>, view: &ClusterView, column: usize) -> &'a mut Sums {
    let place = all.iter().position(|s| s.column == column).unwrap_or_else(|| {
        all.push(Sums { column, of: vec![0; view.topologies.get(column).domains()] });
        all.len() - 1
    });
    &mut all[place]
}

/// The counts that the view was prepared with.
pub(crate) fn counts<'a>(view: &'a ClusterView, matcher: &Arc<Matcher>, staying: bool) -> &'a [u32] {
    let question = Question { matcher: matcher.clone(), staying };
    view.counts.find(&question).unwrap_or_default()
}

/// Whether a node has all of these labels.
pub(crate) fn has_all(view: &ClusterView, columns: &[usize], row: usize) -> bool {
    columns.iter().all(|column| view.topologies.get(*column).of[row] != NOWHERE)
}

/// Whether the pods of a node count for a constraint.
pub(crate) fn is_eligible(ask: &Ask<'_>, spread: &Spread, row: usize) -> bool {
    (!spread.honors_affinity || ask.allows(row)) && (!spread.honors_taints || ask.tolerates(row))
}

fn hard(ask: &Ask<'_>, kind: &PodKind) -> (Vec<Hard>, Vec<usize>) {
    let view = ask.view;
    let musts = view.musts(ask.pod);
    let columns = musts.iter().filter(|_| ask.profile.filters(Plugin::PodTopologySpread));
    let columns = columns.filter_map(|s| Some((s, view.topologies.find(&s.topology)?)));
    let columns: Vec<(&Spread, usize)> = columns.collect();
    let keys: Vec<usize> = columns.iter().map(|(_, column)| *column).collect();
    let all = columns.into_iter().map(|(spread, column)| {
        let topology = view.topologies.get(column);
        let mut of: Vec<i64> = vec![-1; topology.domains()];
        for (row, count) in counts(view, &spread.matcher, true).iter().enumerate() {
            if has_all(view, &keys, row) && is_eligible(ask, spread, row) {
                let sum = &mut of[topology.of[row] as usize];
                *sum = (*sum).max(0) + i64::from(*count);
            }
        }
        Hard::new(spread, column, i64::from(view.meant(&spread.matcher, kind)), of)
    });
    let all = all.collect();
    (all, keys)
}

impl Hard {
    fn new(spread: &Spread, column: usize, own: i64, of: Vec<i64>) -> Self {
        let mut levels = Vec::new();
        let mut domains = 0;
        for level in of.iter().filter_map(|sum| usize::try_from(*sum).ok()) {
            domains += 1;
            if levels.len() <= level {
                levels.resize(level + 1, 0);
            }
            levels[level] += 1;
        }
        let least = levels.iter().position(|domains| *domains > 0).unwrap_or(0);
        Self { spread: spread.clone(), column, own, of, levels, least, domains }
    }

    /// What the emptiest domain has; with too few of them, it is as if there were an empty one.
    fn least(&self) -> i64 {
        if self.domains < self.spread.min_domains { 0 } else { self.least as i64 }
    }

    fn shift(&mut self, view: &ClusterView, row: usize, times: i64) {
        let sum = &mut self.of[view.topologies.get(self.column).of[row] as usize];
        let (Ok(before), Ok(now)) = (usize::try_from(*sum), usize::try_from(*sum + times)) else { return };
        *sum += times;
        if self.levels.len() <= now {
            self.levels.resize(now + 1, 0);
        }
        self.levels[before] -= 1;
        self.levels[now] += 1;
        self.least = self.least.min(now);
        while self.levels[self.least] == 0 {
            self.least += 1;
        }
    }
}
