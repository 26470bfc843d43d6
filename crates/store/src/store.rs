use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::committer::{Committer, Message};
use crate::embedded::Embedded;
use crate::error::{CommitError, OpenError, Stale, TooOld, WriteFailure};
use crate::etcd::{Engine, EtcdConfig};
use crate::options::Options;
use crate::record::{Record, Revision};
use crate::recover::recover;
use crate::seal::Seal;
use crate::snapshot::Snapshot;
use crate::state::Shared;
use crate::topics::Interest;
use crate::txn::{Committed, Txn};
use crate::watch::Watch;

/// Tables of records under one sequence of revisions. Clones are handles to the same store.
///
/// When the last handle is dropped the committer finishes and lets go of the disk, some moments later;
/// [`Store::close`] waits for it.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    writer: Writer,
    pub(crate) seal: Option<Arc<dyn Seal>>,
}

/// Who decides the order of writes.
#[derive(Clone)]
enum Writer {
    /// A thread of this process.
    Committer(Sender<Message>),
    /// Etcd.
    Etcd(Arc<Engine>),
}

/// Figures about a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The latest revision.
    pub revision: Revision,
    /// Objects in all tables.
    pub records: usize,
    /// Events in all histories.
    pub events: usize,
    /// Bytes that only the histories keep in memory.
    pub history_bytes: usize,
    /// Transactions committed since the store was opened.
    pub commits: u64,
    /// Batches made durable since the store was opened; each took one flush of the disk.
    pub batches: u64,
}

impl Store {
    /// Opens the store in the folder `path` of this machine, or begins a new one there.
    ///
    /// It reads the whole log and therefore blocks for a while.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let backend = Embedded::open(path, &options)?;
        Self::with_backend(Box::new(backend), options).map_err(|error| match error {
            Start::Open(error) => error,
            Start::Thread(source) => {
                OpenError::Io { path: path.to_owned(), attempt: "start the committer of", source }
            }
        })
    }

    pub(crate) fn with_backend(mut backend: Box<dyn Backend>, options: Options) -> Result<Self, Start> {
        let (shared, garbage) = recover(&mut *backend, &options).map_err(Start::Open)?;
        let shared = Arc::new(shared);
        let seal = options.seal.clone();
        let (committer, inbox) = channel();
        let worker = Committer {
            shared: Arc::clone(&shared),
            backend: Some(backend),
            inbox,
            options,
            garbage,
            failure: None,
        };
        std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || worker.run())
            .map_err(Start::Thread)?;
        Ok(Self { shared, writer: Writer::Committer(committer), seal })
    }

    /// Opens the store that several servers share in etcd.
    pub async fn connect(config: EtcdConfig, options: Options) -> Result<Self, OpenError> {
        let seal = options.seal.clone();
        let engine = Arc::new(Engine::start(config, options).await?);
        Ok(Self { shared: Arc::clone(&engine.inside.shared), writer: Writer::Etcd(engine), seal })
    }

    /// Whether other servers may write to the same store.
    pub fn is_shared(&self) -> bool {
        matches!(self.writer, Writer::Etcd(_))
    }

    /// Waits until reads are as new as anything that anybody was told before this was asked, by whichever server.
    /// Gives the revision that they are at least of.
    pub async fn consistent(&self) -> Result<Revision, Stale> {
        match &self.writer {
            Writer::Committer(_) => Ok(self.revision()),
            Writer::Etcd(engine) => Box::pin(engine.consistent()).await,
        }
    }

    /// Commits a transaction. When it returns, the change survives a power cut and everybody sees it.
    ///
    /// If the future is dropped the transaction may still happen.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let committer = match &self.writer {
            Writer::Committer(committer) => committer,
            // Boxed, as all that talks to others: a caller's future would be many times as large with it, and futures are
            // moved about.
            Writer::Etcd(engine) => return Box::pin(engine.commit(txn)).await,
        };
        let (reply, answer) = oneshot::channel();
        committer.send(Message::Commit(txn, reply)).map_err(|_| CommitError::Closed)?;
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// The record of that key, if there is one.
    pub fn get(&self, table: &str, key: &str) -> Option<Arc<Record>> {
        self.shared.read().tables.get(table)?.records.get(key).cloned()
    }

    /// Whether the record of that key is sealed otherwise than it would be today: with an older key, or not at all.
    pub fn is_stale(&self, table: &str, key: &str) -> bool {
        self.seal.as_ref().is_some_and(|seal| seal.is_stale(table, key))
    }

    /// A table as it is now, whatever its size at the cost of a clone of an `Arc`.
    pub fn snapshot(&self, table: &str) -> Snapshot {
        self.shared.snapshot(table)
    }

    /// A table as it was at `revision`, made by undoing what happened since. A revision that is yet to come gives
    /// the table as it is now.
    pub fn snapshot_at(&self, table: &str, revision: Revision) -> Result<Snapshot, TooOld> {
        self.shared.snapshot_at(table, revision)
    }

    /// The latest revision that is durable and visible.
    pub fn revision(&self) -> Revision {
        self.shared.read().revision
    }

    /// The revision of a table's latest change, or one before which nothing is known of it: equal answers mean
    /// that the table has not changed in between.
    pub fn last_change(&self, table: &str) -> Revision {
        self.shared.read().tables.get(table).map_or(0, |table| table.history.last_change())
    }

    /// Waits until the store has reached `revision`.
    pub async fn wait_for(&self, revision: Revision) {
        // The sender lives in `shared`, so this ends only with the revision.
        let _ = self.shared.revisions().wait_for(|reached| *reached >= revision).await;
    }

    /// Watches a table: every event after the revision `from`, which may be yet to come.
    pub fn watch(&self, table: &str, from: Revision) -> Result<Watch, TooOld> {
        Watch::open(&self.shared, table, from, Interest::All)
    }

    /// Watches only some of a table's events. Others may come along: whoever reads them must look.
    pub fn watch_only(&self, table: &str, from: Revision, interest: Interest<'_>) -> Result<Watch, TooOld> {
        Watch::open(&self.shared, table, from, interest)
    }

    /// Keeps an index of a table's records by their value of a selectable field, from now on:
    /// [`Snapshot::scan_field`] and [`Interest::Field`] use it.
    pub fn index(&self, table: &str, field: &str) {
        self.shared.index(table, field);
    }

    /// The tables that hold records.
    pub fn tables(&self) -> Vec<Arc<str>> {
        let state = self.shared.read();
        state
            .tables
            .iter()
            .filter(|(_, table)| !table.records.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Figures about the store.
    pub fn stats(&self) -> Stats {
        let state = self.shared.read();
        let mut stats = Stats {
            revision: state.revision,
            commits: state.commits,
            batches: state.batches,
            ..Stats::default()
        };
        for table in state.tables.values() {
            stats.records += table.records.len();
            stats.events += table.history.len();
            stats.history_bytes += table.history.bytes();
        }
        stats
    }

    /// What ended the writing, if something did. Reads and watches still work; opening anew is the mend.
    pub fn failure(&self) -> Option<Arc<WriteFailure>> {
        self.shared.read().failure.clone()
    }

    /// Forgets the history of all tables up to and including `revision`. Histories are bounded anyway
    /// ([`Options`]); this is for those who want to bound them by age.
    pub async fn compact(&self, revision: Revision) -> Result<(), CommitError> {
        let committer = match &self.writer {
            Writer::Committer(committer) => committer,
            Writer::Etcd(_) => {
                self.shared.forget(revision);
                return Ok(());
            }
        };
        let (reply, answer) = oneshot::channel();
        committer.send(Message::Compact(revision, reply)).map_err(|_| CommitError::Closed)?;
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// Finishes all commits that were begun, and lets go of the disk. Watches end once they have read everything;
    /// reads still work.
    pub async fn close(&self) {
        let committer = match &self.writer {
            Writer::Committer(committer) => committer,
            Writer::Etcd(engine) => return engine.stop(),
        };
        let (reply, done) = oneshot::channel();
        if committer.send(Message::Close(reply)).is_ok() {
            // Without an answer the committer is gone already, which is as good.
            let _ = done.await;
        }
    }
}

/// Why a store could not be started.
#[derive(Debug)]
pub(crate) enum Start {
    Open(OpenError),
    Thread(std::io::Error),
}
