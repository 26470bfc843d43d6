use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use crate::history::{Event, History};
use crate::index::{Indexes, digest, values};

/// Which of a table's events a watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest<'a> {
    /// All.
    All,
    /// Those of the object with that key.
    Key(&'a str),
    /// Those of objects that have a value in a selectable field, or had it before: the field and the value.
    Field(&'a str, &'a str),
}

/// The watches of a table that want few of its events, by what they want (upstream: `indexedTrigger` in
/// `apiserver/pkg/storage/cacher`).
///
/// Thousands of agents each watch the objects of their own node: an event finds those that it concerns, and the
/// others neither wake up nor look at it.
#[derive(Debug, Default)]
pub(crate) struct Topics(HashMap<u64, Topic>);

/// What some watches want.
#[derive(Debug)]
pub(crate) struct Topic {
    /// The numbers in the history of the events that are wanted, oldest first: from `complete` on, all of them.
    numbers: VecDeque<u64>,
    complete: u64,
    watchers: usize,
    wake: Arc<watch::Sender<()>>,
}

impl Interest<'_> {
    /// The topic, unless it is everything.
    pub(crate) fn topic(&self, indexes: &Indexes) -> Option<u64> {
        match self {
            Self::Key(key) => Some(of_key(key)),
            Self::Field(field, value) if indexes.has(field) => Some(of_field(field, value)),
            Self::Field(..) | Self::All => None,
        }
    }
}

fn of_key(key: &str) -> u64 {
    digest(&[key])
}

fn of_field(field: &str, value: &str) -> u64 {
    digest(&[field, value])
}

/// The topics that an event belongs to.
fn topics<'a>(event: &'a Event, indexes: &'a Indexes) -> impl Iterator<Item = u64> + 'a {
    let fields = indexes.fields().flat_map(|field| {
        let (before, after) = values(event, field);
        let before = before.filter(|_| before != after);
        before.into_iter().chain(after).map(|value| of_field(field, value))
    });
    std::iter::once(of_key(&event.record.key)).chain(fields)
}

impl Topics {
    pub(crate) fn get(&self, topic: u64) -> Option<&Topic> {
        self.0.get(&topic)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more watch of a topic, for the events from the number `next` on; the history holds them.
    pub(crate) fn join(
        &mut self,
        topic: u64,
        next: u64,
        history: &History,
        indexes: &Indexes,
    ) -> watch::Receiver<()> {
        let found = self.0.entry(topic).or_insert_with(|| Topic {
            numbers: VecDeque::new(),
            complete: history.end(),
            watchers: 0,
            wake: Arc::new(watch::Sender::new(())),
        });
        let missing = (next..found.complete).rev();
        for number in missing {
            if history.get(number).is_some_and(|event| topics(event, indexes).any(|t| t == topic)) {
                found.numbers.push_front(number);
            }
        }
        found.complete = found.complete.min(next);
        found.watchers += 1;
        found.wake.subscribe()
    }

    /// One watch less.
    pub(crate) fn leave(&mut self, topic: u64) {
        let Some(found) = self.0.get_mut(&topic) else { return };
        found.watchers -= 1;
        if found.watchers == 0 {
            self.0.remove(&topic);
        }
    }

    /// Takes note of the event of that number; whom to wake goes to `wake`.
    pub(crate) fn note(
        &mut self,
        number: u64,
        event: &Event,
        indexes: &Indexes,
        oldest: u64,
        wake: &mut Vec<Arc<watch::Sender<()>>>,
    ) {
        if self.0.is_empty() {
            return;
        }
        for topic in topics(event, indexes) {
            let Some(topic) = self.0.get_mut(&topic) else { continue };
            while let Some(gone) = topic.numbers.pop_front_if(|first| *first < oldest) {
                topic.complete = gone + 1;
            }
            if topic.numbers.back() != Some(&number) {
                topic.numbers.push_back(number);
                wake.push(Arc::clone(&topic.wake));
            }
        }
    }

    /// After a gap: all events before `start` are lost to whoever has not read them.
    pub(crate) fn restart(&mut self, start: u64) {
        for topic in self.0.values_mut() {
            topic.numbers.clear();
            topic.complete = start;
        }
        self.wake();
    }

    /// Wakes everybody.
    pub(crate) fn wake(&self) {
        for topic in self.0.values() {
            topic.wake.send_replace(());
        }
    }
}

impl Topic {
    pub(crate) fn watchers(&self) -> usize {
        self.watchers
    }

    /// The numbers of the wanted events from `next` on; nothing if some of them are not known any more.
    pub(crate) fn from(&self, next: u64) -> Option<impl Iterator<Item = u64>> {
        let skip = self.numbers.partition_point(|number| *number < next);
        (next >= self.complete).then(|| self.numbers.range(skip..).copied())
    }
}
