use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{TooOld, WatchEnd};
use crate::history::Event;
use crate::record::Revision;
use crate::state::{Shared, State};

/// How many events are handed out at once at most.
const BATCH: usize = 256;

/// The events of one table after some revision, each exactly once and in order.
///
/// It holds no events of its own, only its place in the table's history. One that is read too slowly loses its
/// place and ends with [`WatchEnd::TooOld`].
pub struct Watch {
    shared: Arc<Shared>,
    table: Arc<str>,
    wake: watch::Receiver<()>,
    /// The number of the next event.
    next: u64,
    /// Only events after it are given; it may be yet to come.
    from: Revision,
    progress: Revision,
}

impl Watch {
    /// Watches `table` from the event after `from`.
    pub(crate) fn open(shared: &Arc<Shared>, name: &str, from: Revision) -> Result<Self, TooOld> {
        let table: Arc<str> = name.into();
        shared.ensure(&table);
        let state = shared.read();
        // Tables never go away.
        let (history, wake) = match state.tables.get(name) {
            Some(found) => (&found.history, found.subscribe()),
            None => return Err(TooOld { revision: from, oldest: state.revision }),
        };
        if from < history.floor() {
            return Err(TooOld { revision: from, oldest: history.floor() });
        }
        let next = history.after(from);
        drop(state);
        Ok(Self { shared: Arc::clone(shared), table, wake, next, from, progress: from })
    }

    /// Waits for the next events and gives them, oldest first. It never gives an empty list, and nothing is lost
    /// if the future is dropped before it is done.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchEnd> {
        loop {
            // Before looking, so that what comes after the look wakes us.
            self.wake.mark_unchanged();
            let closed = {
                let shared = Arc::clone(&self.shared);
                let state = shared.read();
                let events = self.take(&state)?;
                if !events.is_empty() {
                    return Ok(events);
                }
                state.closed
            };
            if closed || self.wake.changed().await.is_err() {
                return Err(WatchEnd::Closed);
            }
        }
    }

    /// The revision up to which every event of the table was given: what a bookmark may say.
    pub fn progress(&self) -> Revision {
        self.reached(&self.shared.read(), self.next)
    }

    fn reached(&self, state: &State, next: u64) -> Revision {
        let Some(table) = state.tables.get(&self.table) else { return self.progress };
        if next < table.history.start() {
            return self.progress;
        }
        let all_before = table.history.get(next).map_or(state.revision, |event| event.revision - 1);
        self.progress.max(all_before)
    }

    fn take(&mut self, state: &State) -> Result<Vec<Arc<Event>>, TooOld> {
        let Some(table) = state.tables.get(&self.table) else { return Ok(Vec::new()) };
        let history = &table.history;
        if self.next < history.start() {
            return Err(TooOld { revision: self.progress, oldest: history.floor() });
        }
        while history.get(self.next).is_some_and(|event| event.revision <= self.from) {
            self.next += 1;
        }
        let events: Vec<_> = history.from(self.next).take(BATCH).cloned().collect();
        self.next += events.len() as u64;
        self.progress = self.reached(state, self.next);
        Ok(events)
    }
}
