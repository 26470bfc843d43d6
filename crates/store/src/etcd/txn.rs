//! Writes: a transaction of etcd with the preconditions on revisions.

use std::sync::Arc;
use std::time::Duration;

use super::client::WriteError;
use super::engine::{Engine, Inside};
use super::envelope;
use super::messages::{Compare, Range, Step, Transacted, Transaction};
use crate::error::{CommitError, Invalid};
use crate::record::{Record, Revision, Template};
use crate::stage::{MOST_BYTES, check, distinct};
use crate::txn::{Committed, Expect, Op, Txn};

/// How long an answer waits for memory to show what was written. Reads that must not be old wait themselves.
const GRACE: Duration = Duration::from_secs(2);

impl Engine {
    /// Commits a transaction. When it returns, most members have it on disk, and readers of this server see it.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let inside = &self.inside;
        if txn.ops.is_empty() {
            let revision = inside.shared.read().revision;
            return Ok(Committed { revision, records: Vec::new() });
        }
        distinct(&txn)?;
        let sealed: Vec<Option<Vec<u8>>> = match inside.options.seal {
            None => values(inside, &txn)?,
            Some(_) => {
                let (inside, txn) = (Arc::clone(inside), txn.clone());
                let values = tokio::task::spawn_blocking(move || values(&inside, &txn)).await;
                values.map_err(|_| CommitError::Closed)??
            }
        };
        let mut transaction = Transaction::default();
        for (op, value) in txn.ops.iter().zip(sealed) {
            let key = inside.layout.key(op.table(), op.key());
            match (op.expect(), value.is_some()) {
                (Expect::Absent, _) => transaction.compare.push(Compare::Modified(key.clone(), 0)),
                (Expect::Revision(at), _) => transaction.compare.push(Compare::Modified(key.clone(), at)),
                (Expect::Any, true) => {}
                (Expect::Present, _) | (Expect::Any, false) => {
                    transaction.compare.push(Compare::Present(key.clone()));
                }
            }
            let read = Range { key: key.clone(), ..Range::default() };
            transaction.failure.push(Step::Range(read));
            transaction.success.push(match value {
                Some(value) => Step::Put(key, value),
                None => Step::Delete(key),
            });
        }
        let done = inside.client.transact(&transaction).await.map_err(|error| match error {
            WriteError::Refused(why) => CommitError::Unavailable { why },
            WriteError::Unknown(why) => CommitError::Unknown { why },
        })?;
        if done.succeeded {
            inside.succeeded(txn, &done).await
        } else {
            Err(inside.refused(&txn, &done).await)
        }
    }
}

/// What etcd is to keep for each operation; nothing for a removal.
fn values(inside: &Inside, txn: &Txn) -> Result<Vec<Option<Vec<u8>>>, CommitError> {
    let value = |op: &Op| {
        let invalid = |reason| CommitError::Invalid {
            table: Arc::clone(op.table()),
            key: Arc::clone(op.key()),
            reason,
        };
        let fits = |value: &Template| match value {
            value if value.bytes.len() > MOST_BYTES => Err(invalid(Invalid::TooLong)),
            value if value.at > value.bytes.len() => Err(invalid(Invalid::Hole)),
            _ => Ok(()),
        };
        match op {
            Op::Delete { value, .. } => value.as_ref().map_or(Ok(()), fits).map(|()| None),
            Op::Put { table, key, value, terms, .. } => {
                fits(value)?;
                let plain = envelope::close(value, terms);
                match &inside.options.seal {
                    Some(seal) if seal.covers(table) => {
                        seal.seal(table, key, &plain).map(Some).map_err(CommitError::Sealing)
                    }
                    Some(seal) => {
                        seal.passed(table, key);
                        Ok(Some(plain))
                    }
                    None => Ok(Some(plain)),
                }
            }
        }
    };
    txn.ops.iter().map(value).collect()
}

impl Inside {
    async fn succeeded(&self, txn: Txn, done: &Transacted) -> Result<Committed, CommitError> {
        let revision = done.revision;
        if !self.reaches(revision, GRACE).await {
            // It is written all the same.
            tracing::warn!(revision, "the watch of etcd does not bring what was written");
            self.kick.notify_one();
        }
        let mut records = Vec::with_capacity(txn.ops.len());
        for (index, op) in (0..).zip(txn.ops) {
            let found = done.found.get(index as usize).and_then(|kvs| kvs.first());
            let current = self.current(op.table(), op.key());
            records.push(match op {
                Op::Put { .. } if current.as_ref().is_some_and(|c| c.revision == revision) => {
                    current.ok_or(CommitError::Closed)?
                }
                Op::Put { table, key, value, terms, .. } => {
                    let created = current.map_or(revision, |c| c.created);
                    let hole = u32::try_from(value.at).unwrap_or(Record::UNKNOWN);
                    let value = value.splice(revision).ok_or(CommitError::Invalid {
                        table,
                        key: Arc::clone(&key),
                        reason: Invalid::Hole,
                    })?;
                    Arc::new(Record { revision, created, key, value, terms, index, hole })
                }
                Op::Delete { table, key, value, .. } => {
                    let previous = found.and_then(|kv| self.record(&table, Arc::clone(&key), kv, 0).ok());
                    let mut last = previous.unwrap_or_else(|| {
                        Record::unstored(Arc::clone(&key), Default::default(), Default::default())
                    });
                    let template = value.or_else(|| last.template());
                    if let Some(bytes) = template.and_then(|t| t.splice(revision)) {
                        last.value = bytes;
                    }
                    (last.revision, last.index, last.hole) = (revision, index, Record::UNKNOWN);
                    Arc::new(last)
                }
            });
        }
        Ok(Committed { revision, records })
    }

    fn current(&self, table: &str, key: &str) -> Option<Arc<Record>> {
        self.shared.read().tables.get(table)?.records.get(key).cloned()
    }

    /// Which precondition did not hold.
    async fn refused(&self, txn: &Txn, done: &Transacted) -> CommitError {
        // Whoever tries again must not see what it saw before.
        let caught_up = tokio::time::timeout(GRACE, self.catch_up(done.revision)).await;
        if !matches!(caught_up, Ok(Ok(()))) {
            tracing::warn!(revision = done.revision, "the watch of etcd does not bring what is there");
        }
        for (index, op) in txn.ops.iter().enumerate() {
            let kv = done.found.get(index).and_then(|kvs| kvs.first());
            let current = match kv {
                None => None,
                Some(kv) => match self.record(op.table(), Arc::clone(op.key()), kv, 0) {
                    Ok(record) => Some(Arc::new(record)),
                    Err(error) => {
                        let (table, key) = (op.table(), op.key());
                        return CommitError::Unavailable {
                            why: format!("what is stored as {table} {key:?} cannot be read: {error}"),
                        };
                    }
                },
            };
            let missing = matches!(op, Op::Delete { .. }) && current.is_none();
            if missing {
                return CommitError::NotFound { table: Arc::clone(op.table()), key: Arc::clone(op.key()) };
            }
            if let Err(error) = check(op, current.as_ref()) {
                return error;
            }
        }
        let revision: Revision = done.revision;
        CommitError::Unavailable {
            why: format!("etcd refused a write at revision {revision} without a reason"),
        }
    }
}
