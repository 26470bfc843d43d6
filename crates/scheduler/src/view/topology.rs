use std::collections::HashMap;
use std::sync::Arc;

/// A node's domain when it has none.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// The labels that divide the nodes into domains: a column for each, made when a pod first speaks of it.
#[derive(Debug, Default)]
pub(crate) struct Topologies {
    columns: Vec<Topology>,
    known: HashMap<Arc<str>, usize>,
}

/// One such label.
#[derive(Debug)]
pub(crate) struct Topology {
    name: Arc<str>,
    values: HashMap<String, u32>,
    /// Each node's domain.
    pub(crate) of: Vec<u32>,
}

impl Topologies {
    /// The column of a label, if a pod has spoken of it.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.known.get(name).copied()
    }

    pub(crate) fn get(&self, column: usize) -> &Topology {
        &self.columns[column]
    }

    /// The column of a label; `values` are the nodes' in case it is new.
    pub(crate) fn ensure<'a>(
        &mut self,
        name: &Arc<str>,
        values: impl Iterator<Item = Option<&'a String>>,
    ) -> usize {
        if let Some(known) = self.find(name) {
            return known;
        }
        let mut column = Topology { name: name.clone(), values: HashMap::new(), of: Vec::new() };
        values.for_each(|value| column.push(value));
        self.columns.push(column);
        self.known.insert(name.clone(), self.columns.len() - 1);
        self.columns.len() - 1
    }

    pub(crate) fn push(&mut self) {
        self.columns.iter_mut().for_each(|column| column.push(None));
    }

    pub(crate) fn set<'a>(&mut self, row: usize, value: impl Fn(&str) -> Option<&'a String>) {
        for column in &mut self.columns {
            let domain = column.domain(value(&column.name.clone()));
            column.of[row] = domain;
        }
    }

    pub(crate) fn remove(&mut self, row: usize) {
        for column in &mut self.columns {
            column.of.swap_remove(row);
            column.tidy();
        }
    }
}

impl Topology {
    /// How many domains there are or have been.
    pub(crate) fn domains(&self) -> usize {
        self.values.len()
    }

    fn push(&mut self, value: Option<&String>) {
        let domain = self.domain(value);
        self.of.push(domain);
    }

    fn domain(&mut self, value: Option<&String>) -> u32 {
        let Some(value) = value else { return NOWHERE };
        if let Some(domain) = self.values.get(value) {
            return *domain;
        }
        // There cannot be as many as that.
        let domain = u32::try_from(self.values.len()).unwrap_or(NOWHERE);
        self.values.insert(value.clone(), domain);
        domain
    }

    /// Forgets values that no node has any more, once they are the greater part.
    fn tidy(&mut self) {
        const FEW: usize = 64;
        if self.values.len() <= 2 * self.of.len() + FEW {
            return;
        }
        let mut fresh: HashMap<u32, u32> = HashMap::new();
        for domain in self.of.iter_mut().filter(|domain| **domain != NOWHERE) {
            let next = u32::try_from(fresh.len()).unwrap_or(NOWHERE);
            *domain = *fresh.entry(*domain).or_insert(next);
        }
        self.values.retain(|_, domain| match fresh.get(domain) {
            Some(now) => {
                *domain = *now;
                true
            }
            None => false,
        });
    }
}
