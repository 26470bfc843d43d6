use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{TooOld, WatchEnd};
use crate::history::Event;
use crate::record::Revision;
use crate::state::{Shared, State, Table};
use crate::topics::{Interest, Topic};

/// How many events are handed out at once at most.
const BATCH: usize = 256;

/// The events of one table after some revision, or those of an [`Interest`], each exactly once and in order.
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
    /// What of the table is wanted, if not everything.
    topic: Option<u64>,
    /// How many watches were woken together with this one.
    company: usize,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(topic) = self.topic else { return };
        if let Some(table) = self.shared.write().tables.get_mut(&self.table) {
            table.topics.leave(topic);
        }
    }
}

impl Watch {
    /// Watches `table` from the event after `from`.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        name: &str,
        from: Revision,
        interest: Interest<'_>,
    ) -> Result<Self, TooOld> {
        let name: Arc<str> = name.into();
        let mut state = shared.write();
        let table = state.table(&name);
        if from < table.history.floor() {
            return Err(TooOld { revision: from, oldest: table.history.floor() });
        }
        let next = table.history.after(from);
        let topic = interest.topic(&table.indexes);
        let wake = match topic {
            Some(topic) => table.topics.join(topic, next, &table.history, &table.indexes),
            None => table.subscribe(),
        };
        drop(state);
        Ok(Self {
            shared: Arc::clone(shared),
            table: name,
            wake,
            next,
            from,
            progress: from,
            topic,
            company: 1,
        })
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

    /// How many watches there are, this one among them, that the latest events were for.
    pub fn company(&self) -> usize {
        self.company
    }

    /// The revision up to which every event of the table was given: what a bookmark may say.
    pub fn progress(&self) -> Revision {
        self.reached(&self.shared.read(), self.next)
    }

    /// The numbers of the events to be given, from `next` on; nothing if some are lost.
    fn numbers(&self, table: &Table, next: u64) -> Option<impl Iterator<Item = u64>> {
        let history = &table.history;
        let (few, all) = match self.topic {
            Some(topic) => (Some(table.topics.get(topic)?.from(next)?), None),
            None => (None, (next >= history.start()).then_some(next..history.end())),
        };
        if few.is_none() && all.is_none() {
            return None;
        }
        Some(few.into_iter().flatten().chain(all.into_iter().flatten()))
    }

    fn reached(&self, state: &State, next: u64) -> Revision {
        let Some(table) = state.tables.get(&self.table) else { return self.progress };
        let Some(mut numbers) = self.numbers(table, next) else { return self.progress };
        let all_before = match numbers.next().map(|number| table.history.get(number)) {
            None => state.revision,
            Some(Some(event)) => event.revision - 1,
            Some(None) => self.progress,
        };
        self.progress.max(all_before)
    }

    fn take(&mut self, state: &State) -> Result<Vec<Arc<Event>>, TooOld> {
        let Some(table) = state.tables.get(&self.table) else { return Ok(Vec::new()) };
        let history = &table.history;
        let lost = || TooOld { revision: self.progress, oldest: history.floor() };
        let (mut next, mut events) = (self.next, Vec::new());
        for number in self.numbers(table, next).ok_or_else(lost)? {
            let event = history.get(number).ok_or_else(lost)?;
            next = number + 1;
            if event.revision > self.from {
                events.push(Arc::clone(event));
                if events.len() == BATCH {
                    break;
                }
            }
        }
        self.next = next;
        self.company = match self.topic {
            Some(topic) => table.topics.get(topic).map_or(1, Topic::watchers),
            None => table.watchers(),
        };
        self.progress = self.reached(state, next);
        Ok(events)
    }
}
