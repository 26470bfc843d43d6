use std::sync::Arc;

use crate::record::{Record, Revision, Template, Terms};

/// What must be true of an object for an operation to go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It exists, at whatever revision.
    Present,
    /// It exists and was last written at this revision.
    Revision(Revision),
    /// Nothing. (A delete still needs something to delete.)
    Any,
}

/// One change to one object.
#[derive(Clone, Debug)]
pub enum Op {
    /// Creates or replaces an object.
    Put {
        /// The table.
        table: Arc<str>,
        /// The key within the table.
        key: Arc<str>,
        /// The new state.
        value: Template,
        /// What it can be found by.
        terms: Terms,
        /// The precondition.
        expect: Expect,
    },
    /// Removes an object.
    Delete {
        /// The table.
        table: Arc<str>,
        /// The key within the table.
        key: Arc<str>,
        /// The last state, as watchers shall see it. Without it they see the state that was stored.
        value: Option<Template>,
        /// The precondition.
        expect: Expect,
    },
}

impl Op {
    pub(crate) fn table(&self) -> &Arc<str> {
        match self {
            Op::Put { table, .. } | Op::Delete { table, .. } => table,
        }
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        match self {
            Op::Put { key, .. } | Op::Delete { key, .. } => key,
        }
    }

    pub(crate) fn expect(&self) -> Expect {
        match self {
            Op::Put { expect, .. } | Op::Delete { expect, .. } => *expect,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Op::Put { value, .. } => value.bytes.len(),
            Op::Delete { value, .. } => value.as_ref().map_or(0, |v| v.bytes.len()),
        }
    }
}

/// Operations that happen all together, at one revision, or not at all. They name each object at most once.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// The operations. With none of them nothing happens and no revision is used up.
    pub ops: Vec<Op>,
}

impl From<Op> for Txn {
    fn from(op: Op) -> Self {
        Self { ops: vec![op] }
    }
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its revision.
    pub revision: Revision,
    /// For each operation the new state, or for a delete the last one as watchers see it.
    pub records: Vec<Arc<Record>>,
}
