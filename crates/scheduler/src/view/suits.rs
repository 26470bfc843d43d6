use std::collections::HashMap;
use std::sync::Arc;

use client::Labels;

use crate::pod::Wants;

/// When there are more columns than this, those not asked for lately go.
const MANY: usize = 256;

/// Which nodes suit the pods of a specification, by labels and names: asked once of each node, and again when the node
/// has changed.
#[derive(Debug, Default)]
pub(crate) struct Suitability {
    columns: HashMap<usize, Suits>,
    asked: u64,
}

/// One column for one specification.
#[derive(Debug)]
pub(crate) struct Suits {
    wants: Arc<Wants>,
    /// Whether pods may go there.
    pub(crate) allowed: Vec<bool>,
    /// How much they would like to; empty without preferences.
    pub(crate) liked: Vec<i64>,
    asked: u64,
}

impl Suits {
    fn look(&mut self, row: usize, labels: &Labels, name: &str) {
        self.allowed[row] = allowed(&self.wants, labels, name);
        if !self.wants.preferred.is_empty() {
            self.liked[row] = liked(&self.wants, labels, name);
        }
    }

    fn resize(&mut self, rows: usize) {
        self.allowed.resize(rows, false);
        if !self.wants.preferred.is_empty() {
            self.liked.resize(rows, 0);
        }
    }
}

impl Suitability {
    pub(crate) fn find(&self, wants: &Arc<Wants>) -> Option<&Suits> {
        self.columns.get(&(Arc::as_ptr(wants) as usize))
    }

    /// Gets ready to be asked about a specification.
    pub(crate) fn prepare(&mut self, wants: &Arc<Wants>, labels: &[Labels], names: &[Arc<str>]) {
        if wants.needs.is_none() && wants.preferred.is_empty() {
            return;
        }
        self.asked += 1;
        let asked = self.asked;
        if let Some(known) = self.columns.get_mut(&(Arc::as_ptr(wants) as usize)) {
            known.asked = asked;
            return;
        }
        if self.columns.len() >= MANY {
            let mut times: Vec<u64> = self.columns.values().map(|c| c.asked).collect();
            times.sort_unstable();
            let bound = times[times.len() / 2];
            self.columns.retain(|_, column| column.asked >= bound);
        }
        let mut column = Suits { wants: wants.clone(), allowed: Vec::new(), liked: Vec::new(), asked };
        column.resize(labels.len());
        for (row, labels) in labels.iter().enumerate() {
            column.look(row, labels, &names[row]);
        }
        self.columns.insert(Arc::as_ptr(wants) as usize, column);
    }

    /// A node is new or has changed.
    pub(crate) fn look(&mut self, row: usize, rows: usize, labels: &Labels, name: &str) {
        for column in self.columns.values_mut() {
            column.resize(rows);
            column.look(row, labels, name);
        }
    }

    pub(crate) fn remove(&mut self, row: usize) {
        for column in self.columns.values_mut() {
            column.allowed.swap_remove(row);
            if !column.liked.is_empty() {
                column.liked.swap_remove(row);
            }
        }
    }
}

/// Whether a node is of the kind that the pod must have.
pub(crate) fn allowed(wants: &Wants, labels: &Labels, name: &str) -> bool {
    wants.needs.admit(name, labels)
}

pub(crate) fn liked(wants: &Wants, labels: &Labels, name: &str) -> i64 {
    let holding = wants.preferred.iter().filter(|(_, term)| term.holds(name, labels));
    holding.map(|(weight, _)| weight).sum()
}
