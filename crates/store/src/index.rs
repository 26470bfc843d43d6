use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdSet;

use crate::history::{Event, EventKind};
use crate::record::Record;
use crate::snapshot::Records;

/// Where the objects are that have some value in a selectable field.
///
/// It is as persistent as the records themselves, so a snapshot takes its own along; an entry holds the record's
/// own key and a digest of the value, 24 bytes. Whoever looks something up compares the values themselves.
#[derive(Clone, Debug)]
struct Index {
    field: Arc<str>,
    entries: OrdSet<Entry>,
}

/// Entries of one value stand together, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    value: u64,
    key: Arc<str>,
}

/// A short name for some texts. Others may have the same.
pub(crate) fn digest(texts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    hasher.finish()
}

/// The indexes of one table; most have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexes(Option<Arc<Vec<Index>>>);

/// The value that an event found in a field, and the one that it left there.
pub(crate) fn values<'a>(event: &'a Event, field: &str) -> (Option<&'a str>, Option<&'a str>) {
    let before = event.previous.as_ref().map(|record| record.terms.field(field));
    let after = (event.kind != EventKind::Deleted).then(|| event.record.terms.field(field));
    (before, after)
}

impl Indexes {
    /// The fields that are indexed.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().flat_map(|indexes| indexes.iter()).map(|index| &index.field)
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.fields().any(|indexed| **indexed == *field)
    }

    /// The same with one more field.
    pub(crate) fn with(&self, field: &str, records: &Records) -> Self {
        let mut indexes = self.0.as_deref().cloned().unwrap_or_default();
        indexes.push(Index::new(field.into(), records));
        Self(Some(Arc::new(indexes)))
    }

    /// The same fields of other records.
    pub(crate) fn over(&self, records: &Records) -> Self {
        let rebuilt = |indexes: &Arc<Vec<Index>>| {
            indexes.iter().map(|index| Index::new(Arc::clone(&index.field), records)).collect::<Vec<_>>()
        };
        Self(self.0.as_ref().map(|indexes| Arc::new(rebuilt(indexes))))
    }

    /// Follows the records through an event.
    pub(crate) fn follow(&mut self, event: &Event) {
        self.each(event, |index, before, after| index.shift(&event.record.key, before, after));
    }

    /// Goes back to before an event.
    pub(crate) fn undo(&mut self, event: &Event) {
        self.each(event, |index, before, after| index.shift(&event.record.key, after, before));
    }

    fn each(&mut self, event: &Event, act: impl Fn(&mut Index, Option<&str>, Option<&str>)) {
        let Some(indexes) = &mut self.0 else { return };
        for at in 0..indexes.len() {
            // Hardly any write changes an indexed field.
            let (before, after) = values(event, &indexes[at].field);
            if before != after {
                act(&mut Arc::make_mut(indexes)[at], before, after);
            }
        }
    }

    /// The keys of the records that may have that value, in order: those that begin with `prefix`, after `after`.
    pub(crate) fn keys<'a, P: AsRef<str> + 'a>(
        &'a self,
        field: &str,
        value: &str,
        prefix: P,
        after: Option<&str>,
    ) -> Option<impl Iterator<Item = &'a Arc<str>> + use<'a, P>> {
        let index = self.0.as_ref()?.iter().find(|index| *index.field == *field)?;
        let value = digest(&[value]);
        let entry = |key: &str| Entry { value, key: key.into() };
        let from = match after {
            Some(after) if after >= prefix.as_ref() => Bound::Excluded(entry(after)),
            _ => Bound::Included(entry(prefix.as_ref())),
        };
        let entries = index.entries.range((from, Bound::Unbounded)).take_while(move |e| e.value == value);
        Some(entries.map(|entry| &entry.key).take_while(move |key| key.starts_with(prefix.as_ref())))
    }
}

impl Index {
    fn new(field: Arc<str>, records: &Records) -> Self {
        let entry = |record: &Arc<Record>| Entry {
            value: digest(&[record.terms.field(&field)]),
            key: Arc::clone(&record.key),
        };
        let mut entries: Vec<Entry> = records.values().map(entry).collect();
        // In order they come in faster, and lie closer. The keys of a value are in order already.
        entries.sort_by_key(|entry| entry.value);
        Self { entries: entries.into_iter().collect(), field }
    }

    fn shift(&mut self, key: &Arc<str>, from: Option<&str>, to: Option<&str>) {
        let entry = |value: &str| Entry { value: digest(&[value]), key: Arc::clone(key) };
        if let Some(from) = from {
            self.entries.remove(&entry(from));
        }
        if let Some(to) = to {
            self.entries.insert(entry(to));
        }
    }
}
