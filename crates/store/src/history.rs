use std::collections::VecDeque;
use std::sync::Arc;

use crate::options::Options;
use crate::record::{Record, Revision};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It came into being.
    Created,
    /// It was replaced.
    Updated,
    /// It was removed.
    Deleted,
}

/// One change to one object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The new state, or the last one as the deleter left it. Its revision is the event's.
    pub record: Arc<Record>,
    /// The state before, unless the object was created.
    pub previous: Option<Arc<Record>>,
}

impl Event {
    /// What the history alone keeps in memory because of this event.
    fn weight(&self) -> usize {
        const OVERHEAD: usize = 256;
        let previous = self.previous.as_ref().map_or(0, |r| r.value.len() + OVERHEAD);
        let last = if self.kind == EventKind::Deleted { self.record.value.len() + OVERHEAD } else { 0 };
        64 + previous + last
    }
}

/// The latest events of one table, oldest first, shared by all its watchers.
///
/// Events are counted through from the first one ever held; a watcher remembers only the number of the next event
/// it wants. Events of one revision come and go together.
#[derive(Debug, Default)]
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event held.
    start: u64,
    /// Every event after this revision is held.
    floor: Revision,
    bytes: usize,
}

impl History {
    pub(crate) fn with_floor(floor: Revision) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    /// The revision of the latest event ever held, as far as is known.
    pub(crate) fn last_change(&self) -> Revision {
        self.events.back().map_or(self.floor, |event| event.revision)
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the first event held.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The number that the next event will get.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.events.len() as u64
    }

    /// The event of that number, if it is held.
    pub(crate) fn get(&self, number: u64) -> Option<&Arc<Event>> {
        self.events.get(usize::try_from(number.checked_sub(self.start)?).ok()?)
    }

    /// The number of the first event after `revision`.
    pub(crate) fn after(&self, revision: Revision) -> u64 {
        self.start + self.events.partition_point(|event| event.revision <= revision) as u64
    }

    /// The events from that number on.
    pub(crate) fn from(&self, number: u64) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let skip = usize::try_from(number.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.events.range(skip.min(self.events.len())..)
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.weight();
        self.events.push_back(event);
    }

    /// Gives up the oldest events until the limits hold; the evicted ones go to `evicted`.
    pub(crate) fn trim(&mut self, options: &Options, evicted: &mut Vec<Arc<Event>>) {
        while self.events.len() > options.history_events || self.bytes > options.history_bytes {
            let Some(front) = self.events.front() else { break };
            let revision = front.revision;
            self.forget(revision, evicted);
        }
    }

    /// Begins anew after a gap: whoever waits for an event has lost its place.
    pub(crate) fn restart(&mut self, floor: Revision) {
        self.start += self.events.len() as u64 + 1;
        self.events.clear();
        self.bytes = 0;
        self.floor = floor;
    }

    /// Gives up every event up to and including `revision`.
    pub(crate) fn forget(&mut self, revision: Revision, evicted: &mut Vec<Arc<Event>>) {
        while let Some(event) = self.events.pop_front_if(|event| event.revision <= revision) {
            self.bytes -= event.weight();
            self.start += 1;
            evicted.push(event);
        }
        self.floor = self.floor.max(revision);
    }
}
