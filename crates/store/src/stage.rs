use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{self, Entry, Position};
use crate::error::{CommitError, Invalid};
use crate::history::{Event, EventKind};
use crate::record::{Record, Revision, Template, Terms};
use crate::snapshot::Records;
use crate::state::{Change, Shared};
use crate::txn::{Committed, Expect, Op, Txn};

/// A batch in the making: the state as it will be once it is durable, seen by nobody else yet.
pub(crate) struct Stage<'a> {
    shared: &'a Shared,
    staged: Staged,
}

/// A batch of transactions that passed their preconditions.
pub(crate) struct Staged {
    /// The last one's revision.
    pub(crate) revision: Revision,
    pub(crate) commits: u64,
    /// What to make durable.
    pub(crate) entries: Vec<Entry>,
    /// What to show then.
    pub(crate) changes: BTreeMap<Arc<str>, Change>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let revision = shared.read().revision;
        Self {
            shared,
            staged: Staged { revision, commits: 0, entries: Vec::new(), changes: BTreeMap::new() },
        }
    }

    pub(crate) fn finish(self) -> Staged {
        self.staged
    }

    /// Adds a transaction, or leaves everything as it was and says why not.
    pub(crate) fn add(&mut self, txn: Txn) -> Result<Committed, CommitError> {
        if txn.ops.is_empty() {
            return Ok(Committed { revision: self.staged.revision, records: Vec::new() });
        }
        distinct(&txn)?;
        let revision = self.staged.revision + 1;
        // All that can fail comes first.
        let mut steps = Vec::with_capacity(txn.ops.len());
        for (index, op) in (0..).zip(txn.ops) {
            let current = self.records(op.table()).get(&**op.key()).cloned();
            check(&op, current.as_ref())?;
            steps.push(step(op, Position { revision, index }, current)?);
        }
        let mut records = Vec::with_capacity(steps.len());
        for (entry, event) in steps {
            records.push(Arc::clone(&event.record));
            self.apply(entry, event);
        }
        self.staged.revision = revision;
        self.staged.commits += 1;
        Ok(Committed { revision, records })
    }

    fn table(&mut self, table: &Arc<str>) -> &mut Change {
        let shared = self.shared;
        self.staged.changes.entry(Arc::clone(table)).or_insert_with(|| {
            let records = shared.read().tables.get(table).map(|t| t.records.clone()).unwrap_or_default();
            Change { records, events: Vec::new() }
        })
    }

    fn records(&mut self, table: &Arc<str>) -> &Records {
        &self.table(table).records
    }

    fn apply(&mut self, entry: Entry, event: Event) {
        let change = self.table(&entry.table);
        match event.kind {
            EventKind::Deleted => change.records.remove(&*event.record.key),
            _ => change.records.insert(Arc::clone(&event.record.key), Arc::clone(&event.record)),
        };
        change.events.push(Arc::new(event));
        self.staged.entries.push(entry);
    }
}

/// The backend's lengths are 32 bits wide; this leaves ample room for keys and terms.
pub(crate) const MOST_BYTES: usize = 1 << 30;

/// Whether each object is named once only.
pub(crate) fn distinct(txn: &Txn) -> Result<(), CommitError> {
    if txn.ops.len() < 2 {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for op in &txn.ops {
        if !seen.insert((op.table(), op.key())) {
            let (table, key) = (Arc::clone(op.table()), Arc::clone(op.key()));
            return Err(CommitError::Invalid { table, key, reason: Invalid::Twice });
        }
    }
    Ok(())
}

/// Holds the precondition against the present state.
pub(crate) fn check(op: &Op, current: Option<&Arc<Record>>) -> Result<(), CommitError> {
    let (table, key) = (Arc::clone(op.table()), Arc::clone(op.key()));
    match (op.expect(), current) {
        (Expect::Absent, Some(current)) => {
            Err(CommitError::Exists { table, key, current: Arc::clone(current) })
        }
        (Expect::Present | Expect::Revision(_), None) => Err(CommitError::NotFound { table, key }),
        (Expect::Revision(expected), Some(current)) if current.revision != expected => {
            Err(CommitError::Conflict { table, key, expected, current: Arc::clone(current) })
        }
        _ => Ok(()),
    }
}

/// What an operation writes to the log and tells the watchers.
fn step(op: Op, position: Position, previous: Option<Arc<Record>>) -> Result<(Entry, Event), CommitError> {
    let invalid = |table: &Arc<str>, key: &Arc<str>, reason| CommitError::Invalid {
        table: Arc::clone(table),
        key: Arc::clone(key),
        reason,
    };
    let splice = |table: &Arc<str>, key: &Arc<str>, value: Template| {
        if value.bytes.len() > MOST_BYTES {
            return Err(invalid(table, key, Invalid::TooLong));
        }
        value.splice(position.revision).ok_or_else(|| invalid(table, key, Invalid::Hole))
    };
    match op {
        Op::Put { table, key, value, terms, .. } => {
            let hole = u32::try_from(value.at).unwrap_or(Record::UNKNOWN);
            let value = splice(&table, &key, value)?;
            let event = put(position, previous, key, (value, hole), terms);
            let change = backend::Change::Put(Arc::clone(&event.record));
            Ok((Entry { position, table, change }, event))
        }
        Op::Delete { table, key, value, .. } => {
            let value = value.map(|value| splice(&table, &key, value)).transpose()?;
            let Some(previous) = previous else { return Err(CommitError::NotFound { table, key }) };
            let event = delete(position, previous, value.clone());
            Ok((Entry { position, table, change: backend::Change::Delete { key, value } }, event))
        }
    }
}

/// The event of an object's creation or replacement.
pub(crate) fn put(
    Position { revision, index }: Position,
    previous: Option<Arc<Record>>,
    key: Arc<str>,
    (value, hole): (Bytes, u32),
    terms: Terms,
) -> Event {
    let created = previous.as_ref().map_or(revision, |p| p.created);
    // One allocation for a key, however often its object is written.
    let key = previous.as_ref().map_or(key, |p| Arc::clone(&p.key));
    let kind = if previous.is_some() { EventKind::Updated } else { EventKind::Created };
    let record = Arc::new(Record { revision, created, key, value, terms, index, hole });
    Event { revision, kind, record, previous }
}

/// The event of an object's removal.
pub(crate) fn delete(
    Position { revision, index }: Position,
    previous: Arc<Record>,
    value: Option<Bytes>,
) -> Event {
    let value = value.unwrap_or_else(|| previous.value.clone());
    let (created, key, terms) = (previous.created, Arc::clone(&previous.key), previous.terms.clone());
    let hole = Record::UNKNOWN;
    let record = Arc::new(Record { revision, created, key, value, terms, index, hole });
    Event { revision, kind: EventKind::Deleted, record, previous: Some(previous) }
}
