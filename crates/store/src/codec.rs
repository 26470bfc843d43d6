//! The bytes of a log entry.
//!
//! ```text
//! kind (1) | created (8) | table | key | hole (4) | labels | fields | owners | value
//! ```
//! What follows the key may be sealed (`seal.rs`), which the kind tells. Older versions wrote no hole.
//! Numbers are little-endian; a text is its length (4) and its bytes, a list its length (4) and its items; the
//! value is the rest. The position is the entry's key, not part of it. A removal has no terms.

use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{Change, Entry, Position};
use crate::record::{Record, Terms};
use crate::seal::{Opened, Seal, SealError};

const PUT_WITHOUT_HOLE: u8 = 0;
const DELETE: u8 = 1;
const DELETE_AS_STORED: u8 = 2;
const PUT: u8 = 3;
const SEALED_PUT: u8 = 4;
const SEALED_DELETE: u8 = 5;

/// What cannot be an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the entry ends too early")]
    Short,
    #[error("a text is not UTF-8")]
    Text,
    #[error("the kind {0} is unknown")]
    Kind(u8),
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// Writes an entry; with a seal, what of it must not be read by others is sealed.
pub(crate) fn encode(entry: &Entry, seal: Option<&dyn Seal>, out: &mut Vec<u8>) -> Result<(), SealError> {
    out.clear();
    let table = &entry.table;
    let given = seal;
    let seal = seal.filter(|seal| seal.covers(table));
    match &entry.change {
        Change::Put(record) => {
            let key = &record.key;
            if let (None, Some(given)) = (seal, given) {
                given.passed(table, key);
            }
            head(out, if seal.is_some() { SEALED_PUT } else { PUT }, record.created, table, key);
            match seal {
                None => put(out, record),
                Some(seal) => {
                    let mut plain = Vec::with_capacity(record.value.len() + 128);
                    put(&mut plain, record);
                    out.extend_from_slice(&seal.seal(table, key, &plain)?);
                }
            }
        }
        Change::Delete { key, value: Some(value) } => {
            head(out, if seal.is_some() { SEALED_DELETE } else { DELETE }, 0, table, key);
            match seal {
                None => out.extend_from_slice(value),
                Some(seal) => out.extend_from_slice(&seal.seal(table, key, value)?),
            }
        }
        Change::Delete { key, value: None } => head(out, DELETE_AS_STORED, 0, table, key),
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, record: &Record) {
    out.extend_from_slice(&record.hole.to_le_bytes());
    terms(out, &record.terms);
    out.extend_from_slice(&record.value);
}

/// Writes what a record can be found by.
pub(crate) fn terms(out: &mut Vec<u8>, terms: &Terms) {
    pairs(out, &terms.labels);
    pairs(out, &terms.fields);
    length(out, terms.owners.len());
    terms.owners.iter().for_each(|owner| text(out, owner));
}

fn head(out: &mut Vec<u8>, kind: u8, created: u64, table: &str, key: &str) {
    out.push(kind);
    out.extend_from_slice(&created.to_le_bytes());
    text(out, table);
    text(out, key);
}

fn length(out: &mut Vec<u8>, length: usize) {
    // `stage.rs` refuses what does not fit.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn pairs(out: &mut Vec<u8>, pairs: &[(Box<str>, Box<str>)]) {
    length(out, pairs.len());
    for (name, value) in pairs {
        text(out, name);
        text(out, value);
    }
}

/// Reads an entry, and opens what is sealed.
pub(crate) fn decode(
    position: Position,
    bytes: &[u8],
    seal: Option<&dyn Seal>,
) -> Result<Entry, DecodeError> {
    let mut rest = Reader(bytes);
    let kind = rest.array::<1>()?[0];
    let created = u64::from_le_bytes(rest.array()?);
    let table: Arc<str> = rest.text()?.into();
    let key: Arc<str> = rest.text()?.into();
    let open = |sealed: &[u8]| match seal {
        Some(seal) => seal.open(&table, &key, sealed).map(|Opened { plain, .. }| plain),
        None => Err(SealError::NoKeys { table: Arc::clone(&table), key: Arc::clone(&key) }),
    };
    let put = |mut rest: Reader<'_>, hole: bool, key| {
        let hole = if hole { u32::from_le_bytes(rest.array()?) } else { Record::UNKNOWN };
        let terms = rest.terms()?;
        let value = Bytes::copy_from_slice(rest.0);
        let Position { revision, index } = position;
        Ok::<_, DecodeError>(Change::Put(Arc::new(Record {
            revision,
            created,
            key,
            value,
            terms,
            index,
            hole,
        })))
    };
    if let (PUT_WITHOUT_HOLE | PUT, Some(seal)) = (kind, seal) {
        seal.passed(&table, &key);
    }
    let change = match kind {
        PUT_WITHOUT_HOLE => put(rest, false, key)?,
        PUT => put(rest, true, key)?,
        SEALED_PUT => put(Reader(&open(rest.0)?), true, key)?,
        DELETE => Change::Delete { key, value: Some(Bytes::copy_from_slice(rest.0)) },
        SEALED_DELETE => {
            let value = Some(open(rest.0)?.into());
            Change::Delete { key, value }
        }
        DELETE_AS_STORED => Change::Delete { key, value: None },
        kind => return Err(DecodeError::Kind(kind)),
    };
    Ok(Entry { position, table, change })
}

type Pairs = Vec<(Box<str>, Box<str>)>;

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Short)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| DecodeError::Short)
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Text)
    }

    /// A list; its claimed length is not trusted with memory.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        let length = self.length()?;
        let mut list = Vec::with_capacity(length.min(self.0.len() / 4));
        for _ in 0..length {
            list.push(item(self)?);
        }
        Ok(list)
    }

    pub(crate) fn terms(&mut self) -> Result<Terms, DecodeError> {
        Ok(Terms { labels: self.pairs()?, fields: self.pairs()?, owners: self.texts()? })
    }

    fn pairs(&mut self) -> Result<Pairs, DecodeError> {
        self.list(|rest| Ok((rest.text()?.into(), rest.text()?.into())))
    }

    fn texts(&mut self) -> Result<Vec<Box<str>>, DecodeError> {
        self.list(|rest| Ok(rest.text()?.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words() -> impl Strategy<Value = Vec<(Box<str>, Box<str>)>> {
        prop::collection::vec(("[a-z/.é]{0,9}", ".{0,5}"), 0..4)
            .prop_map(|v| v.into_iter().map(|(a, b)| (a.into(), b.into())).collect())
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let value = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let put = (words(), words(), value(), any::<u64>());
        let change = prop_oneof![put.prop_map(Ok), prop::option::of(value()).prop_map(Err)];
        (any::<u64>(), any::<u32>(), ".{0,9}", ".{0,9}", change).prop_map(
            |(revision, index, table, key, change)| {
                let key: Arc<str> = key.into();
                let change = match change {
                    Ok((labels, fields, value, created)) => {
                        let owners = labels.iter().map(|(name, _)| name.clone()).collect();
                        let terms = Terms { labels, fields, owners };
                        let hole = index % 7;
                        Change::Put(Arc::new(Record { revision, created, key, value, terms, index, hole }))
                    }
                    Err(value) => Change::Delete { key, value },
                };
                Entry { position: Position { revision, index }, table: table.into(), change }
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(entry in entries()) {
            let mut bytes = vec![9];
            encode(&entry, None, &mut bytes).unwrap();
            prop_assert_eq!(decode(entry.position, &bytes, None), Ok(entry));
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Position { revision: 1, index: 0 }, &bytes, None);
        }

        #[test]
        fn a_cut_entry_never_panics(entry in entries(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&entry, None, &mut bytes).unwrap();
            let _ = decode(entry.position, &bytes[..cut.index(bytes.len())], None);
        }
    }
}
