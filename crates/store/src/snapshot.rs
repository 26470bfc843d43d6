use std::ops::Bound;
use std::sync::Arc;

use crate::index::Indexes;
use crate::record::{Record, Revision};

/// The objects of a table in key order. Cloning is cheap: clones share what they have in common.
pub type Records = imbl::OrdMap<Arc<str>, Arc<Record>>;

/// A table as it was at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision.
    pub revision: Revision,
    /// Every object there was.
    pub records: Records,
    pub(crate) indexes: Indexes,
}

impl Snapshot {
    /// The records whose keys begin with `prefix`, in key order, beginning after the key `after` if there is one.
    pub fn scan<'a, P: AsRef<str> + 'a>(
        &'a self,
        prefix: P,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Record>> + use<'a, P> {
        let from = match after {
            Some(after) if after >= prefix.as_ref() => Bound::Excluded(after),
            _ => Bound::Included(prefix.as_ref()),
        };
        let range = self.records.range::<_, str>((from, Bound::Unbounded));
        range.map(|(_, record)| record).take_while(move |record| record.key.starts_with(prefix.as_ref()))
    }

    /// Those of the same records that have a value in a selectable field, without a walk over all; nothing if the
    /// field is not indexed ([`crate::Store::index`]).
    pub fn scan_field<'a, P: AsRef<str> + 'a>(
        &'a self,
        field: &'a str,
        value: &'a str,
        prefix: P,
        after: Option<&str>,
    ) -> Option<impl Iterator<Item = &'a Arc<Record>> + use<'a, P>> {
        let keys = self.indexes.keys(field, value, prefix, after)?;
        let found = keys.filter_map(|key| self.records.get(key));
        Some(found.filter(move |record| record.terms.field(field) == value))
    }
}
