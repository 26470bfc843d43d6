use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::{Backend, Change, Compaction, Entry, Floors, Position, Senseless};
use crate::committer::superseded;
use crate::error::OpenError;
use crate::history::{Event, EventKind};
use crate::options::Options;
use crate::record::Revision;
use crate::stage::delete;
use crate::state::{Evicted, Shared, Table};

/// Builds the state out of the log, and tells what of the log is not needed any more.
pub(crate) fn recover(
    backend: &mut dyn Backend,
    options: &Options,
) -> Result<(Shared, Compaction), OpenError> {
    let floors = backend.floors()?;
    let highest = floors.values().copied().max().unwrap_or(0);
    let last = Position { revision: highest, index: 0 };
    let tables = floors.iter().map(|(name, floor)| (Arc::clone(name), Table::new(*floor))).collect();
    let mut replay = Replay { floors, highest, last, tables, options, garbage: Compaction::default() };
    backend.replay(&mut |entry| replay.entry(entry))?;
    Ok((Shared::new(replay.last.revision, replay.tables), replay.garbage))
}

struct Replay<'a> {
    floors: Floors,
    /// After the highest floor no event of any table was forgotten, so there no revision is missing.
    highest: Revision,
    last: Position,
    tables: BTreeMap<Arc<str>, Table>,
    options: &'a Options,
    garbage: Compaction,
}

impl Replay<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Senseless> {
        let Entry { position, table: name, change } = entry;
        self.follows(position)?;
        let floor = self.floors.get(&name).copied().unwrap_or(0);
        let revision = position.revision;
        let table = self.tables.entry(Arc::clone(&name)).or_insert_with(|| Table::new(floor));
        let event = match change {
            Change::Put(record) => {
                let previous = table.records.insert(Arc::clone(&record.key), Arc::clone(&record));
                if previous.is_none() && record.created != revision && revision > floor {
                    return Err(Senseless::Replaced { revision, table: name, key: Arc::clone(&record.key) });
                }
                let kind = if previous.is_some() { EventKind::Updated } else { EventKind::Created };
                Event { revision, kind, record, previous }
            }
            Change::Delete { key, value } => match table.records.remove(&*key) {
                Some(previous) => delete(position, previous, value),
                None if revision <= floor => {
                    self.garbage.forget.push(position);
                    return Ok(());
                }
                None => return Err(Senseless::Removed { revision, table: name, key }),
            },
        };
        if revision <= floor {
            superseded(&event, &mut self.garbage.forget);
            return Ok(());
        }
        table.history.push(Arc::new(event));
        let mut evicted = Evicted::default();
        table.history.trim(self.options, &mut evicted.events);
        if !evicted.events.is_empty() {
            evicted.events.iter().for_each(|event| superseded(event, &mut self.garbage.forget));
            self.garbage.floors.insert(name, table.history.floor());
        }
        Ok(())
    }

    fn follows(&mut self, found: Position) -> Result<(), Senseless> {
        let Position { revision, index } = self.last;
        let next = Position { revision: revision + 1, index: 0 };
        let same = Position { revision, index: index + 1 };
        if found.revision > self.highest && found != next && found != same {
            let expected = if found.revision == revision { same } else { next };
            return Err(Senseless::Gap { expected, found });
        }
        self.last = self.last.max(found);
        Ok(())
    }
}
