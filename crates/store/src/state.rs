use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

use crate::error::{TooOld, WriteFailure};
use crate::history::{Event, EventKind, History};
use crate::index::Indexes;
use crate::options::Options;
use crate::record::Revision;
use crate::snapshot::{Records, Snapshot};
use crate::topics::Topics;

/// What everybody sees: all that is durable, and nothing else.
///
/// The lock is held for moments only: readers clone the root of a map, and the committer brings finished maps.
pub(crate) struct Shared {
    state: RwLock<State>,
    /// Held by whoever brings other records or indexes, while these are made.
    turn: Mutex<()>,
    /// The revision of `state`, for those who wait for it.
    revision: watch::Sender<Revision>,
}

pub(crate) struct State {
    pub(crate) revision: Revision,
    /// Before it nothing is known of any table.
    pub(crate) base: Revision,
    pub(crate) tables: BTreeMap<Arc<str>, Table>,
    /// No more writes, and watches end when they have read everything.
    pub(crate) closed: bool,
    pub(crate) failure: Option<Arc<WriteFailure>>,
    pub(crate) commits: u64,
    pub(crate) batches: u64,
}

pub(crate) struct Table {
    pub(crate) records: Records,
    /// Always those of `records`.
    pub(crate) indexes: Indexes,
    pub(crate) history: History,
    /// The watches that not every event wakes.
    pub(crate) topics: Topics,
    wake: Arc<watch::Sender<()>>,
}

impl State {
    /// The table of that name, if only an empty one to watch.
    pub(crate) fn table(&mut self, name: &Arc<str>) -> &mut Table {
        let base = self.base;
        self.tables.entry(Arc::clone(name)).or_insert_with(|| Table::new(base))
    }
}

impl Table {
    pub(crate) fn new(floor: Revision) -> Self {
        Self {
            records: Records::new(),
            indexes: Indexes::default(),
            history: History::with_floor(floor),
            topics: Topics::default(),
            wake: Arc::new(watch::Sender::new(())),
        }
    }

    fn contents(&self) -> (Records, Indexes) {
        (self.records.clone(), self.indexes.clone())
    }

    /// How many watch everything.
    pub(crate) fn watchers(&self) -> usize {
        self.wake.receiver_count()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.wake.subscribe()
    }
}

/// What one batch does to one table.
pub(crate) struct Change {
    pub(crate) records: Records,
    pub(crate) events: Vec<Arc<Event>>,
}

/// What left the histories: the floors they have now, and the events given up.
#[derive(Default)]
pub(crate) struct Evicted {
    pub(crate) floors: BTreeMap<Arc<str>, Revision>,
    pub(crate) events: Vec<Arc<Event>>,
}

impl Shared {
    pub(crate) fn new(revision: Revision, tables: BTreeMap<Arc<str>, Table>) -> Self {
        let state = State { revision, base: 0, tables, closed: false, failure: None, commits: 0, batches: 0 };
        Self { state: RwLock::new(state), turn: Mutex::new(()), revision: watch::Sender::new(revision) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    pub(crate) fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Has a table's records indexed by a selectable field from now on.
    pub(crate) fn index(&self, name: &str, field: &str) {
        let name: Arc<str> = name.into();
        let _turn = self.turn.lock();
        let (records, indexes) = self.write().table(&name).contents();
        if !indexes.has(field) {
            let indexes = indexes.with(field, &records);
            self.write().table(&name).indexes = indexes;
        }
    }

    /// Shows other tables instead of the ones there were, whose histories are lost. Watches of them end.
    pub(crate) fn replace(&self, revision: Revision, records: BTreeMap<Arc<str>, Records>) {
        let _turn = self.turn.lock();
        let mut old = Vec::new();
        let none = Records::new();
        let rebuilt = |(name, table): (&Arc<str>, &Table)| {
            (Arc::clone(name), table.indexes.over(records.get(name).unwrap_or(&none)))
        };
        let mut indexes: BTreeMap<Arc<str>, Indexes> = self.read().tables.iter().map(rebuilt).collect();
        {
            let mut state = self.state.write();
            state.base = revision;
            for (name, table) in &mut state.tables {
                old.push(std::mem::take(&mut table.records));
                table.indexes = indexes.remove(name).unwrap_or_default();
                table.history.restart(revision);
                table.topics.restart(table.history.start());
                table.wake.send_replace(());
            }
            for (name, records) in records {
                state.table(&name).records = records;
            }
            state.revision = revision;
        }
        self.revision.send_replace(revision);
    }

    /// Shows a durable batch to everybody, all of it at once.
    pub(crate) fn publish(
        &self,
        revision: Revision,
        commits: u64,
        changes: BTreeMap<Arc<str>, Change>,
        options: &Options,
    ) -> Evicted {
        let mut evicted = Evicted::default();
        // Old maps are let go and watchers woken only after the lock.
        let mut old = Vec::with_capacity(changes.len());
        let mut wake = Vec::with_capacity(changes.len());
        let _turn = self.turn.lock();
        let mut indexes = self.indexes(changes.keys());
        for (indexes, change) in indexes.iter_mut().zip(changes.values()) {
            change.events.iter().for_each(|event| indexes.follow(event));
        }
        {
            let mut state = self.state.write();
            for ((name, change), indexes) in changes.into_iter().zip(indexes) {
                let table = state.table(&name);
                old.push(std::mem::replace(&mut table.records, change.records));
                table.indexes = indexes;
                let oldest = table.history.start();
                for event in change.events {
                    table.topics.note(table.history.end(), &event, &table.indexes, oldest, &mut wake);
                    table.history.push(event);
                }
                let before = table.history.floor();
                table.history.trim(options, &mut evicted.events);
                if table.history.floor() != before {
                    evicted.floors.insert(name, table.history.floor());
                }
                wake.push(Arc::clone(&table.wake));
            }
            state.revision = revision;
            state.commits += commits;
            state.batches += 1;
        }
        self.revision.send_replace(revision);
        for watchers in wake {
            watchers.send_replace(());
        }
        evicted
    }

    fn indexes<'a>(&self, tables: impl Iterator<Item = &'a Arc<str>>) -> Vec<Indexes> {
        let state = self.read();
        tables.map(|name| state.tables.get(name).map(|t| t.indexes.clone()).unwrap_or_default()).collect()
    }

    /// Gives up the history of all tables up to `revision`.
    pub(crate) fn forget(&self, revision: Revision) -> Evicted {
        let mut evicted = Evicted::default();
        let mut state = self.state.write();
        let revision = revision.min(state.revision);
        for (name, table) in &mut state.tables {
            if table.history.floor() < revision {
                table.history.forget(revision, &mut evicted.events);
                evicted.floors.insert(Arc::clone(name), revision);
                table.wake.send_replace(());
            }
        }
        evicted
    }

    pub(crate) fn fail(&self, failure: Arc<WriteFailure>) {
        self.state.write().failure = Some(failure);
    }

    /// What failed works again.
    pub(crate) fn recovered(&self) {
        self.state.write().failure = None;
    }

    pub(crate) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        for table in state.tables.values() {
            table.wake.send_replace(());
            table.topics.wake();
        }
    }

    pub(crate) fn snapshot(&self, table: &str) -> Snapshot {
        let state = self.state.read();
        let (records, indexes) = state.tables.get(table).map(Table::contents).unwrap_or_default();
        Snapshot { revision: state.revision, records, indexes }
    }

    /// Takes the present state and undoes what happened since `revision`.
    pub(crate) fn snapshot_at(&self, table: &str, revision: Revision) -> Result<Snapshot, TooOld> {
        let ((mut records, mut indexes), later) = {
            let state = self.state.read();
            let at = revision.min(state.revision);
            let Some(table) = state.tables.get(table) else {
                if at < state.base {
                    return Err(TooOld { revision, oldest: state.base });
                }
                return Ok(Snapshot { revision: at, records: Records::new(), indexes: Indexes::default() });
            };
            let history = &table.history;
            if at < history.floor() {
                return Err(TooOld { revision, oldest: history.floor() });
            }
            if at == state.revision {
                let (records, indexes) = table.contents();
                return Ok(Snapshot { revision: at, records, indexes });
            }
            let later: Vec<_> = history.from(history.after(at)).cloned().collect();
            (table.contents(), later)
        };
        for event in later.iter().rev() {
            indexes.undo(event);
            let key = &event.record.key;
            match (&event.kind, &event.previous) {
                (EventKind::Created, _) | (_, None) => records.remove(&**key),
                (_, Some(previous)) => records.insert(Arc::clone(key), Arc::clone(previous)),
            };
        }
        Ok(Snapshot { revision, records, indexes })
    }
}
