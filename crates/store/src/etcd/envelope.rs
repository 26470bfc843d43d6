//! An object as a value of etcd: its bytes without the revision, which etcd alone knows, and behind them what it
//! can be found by.
//!
//! ```text
//! bytes | hole (4) | labels | fields | owners | length of the last four (4) | 0 'g' 'y' '1'
//! ```
//! So the object comes first, as tools that look into etcd expect it.

use std::sync::Arc;

use crate::codec::{self, DecodeError, Reader};
use crate::record::{Record, Revision, Template, Terms};

const MARK: &[u8; 4] = b"\0gy1";

/// A value that cannot be an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("it was not written by gantry")]
    Foreign,
    #[error(transparent)]
    Terms(#[from] DecodeError),
    #[error("the hole for the revision lies outside the value")]
    Hole,
}

pub(crate) fn close(template: &Template, terms: &Terms) -> Vec<u8> {
    let mut out = Vec::with_capacity(template.bytes.len() + 256);
    out.extend_from_slice(&template.bytes);
    out.extend_from_slice(&u32::try_from(template.at).unwrap_or(Record::UNKNOWN).to_le_bytes());
    codec::terms(&mut out, terms);
    let length = out.len() - template.bytes.len();
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(MARK);
    out
}

fn split(value: &[u8]) -> Result<(&[u8], u32, Terms), EnvelopeError> {
    let value = value.strip_suffix(MARK).ok_or(EnvelopeError::Foreign)?;
    let (value, length) = value.split_last_chunk::<4>().ok_or(EnvelopeError::Foreign)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| EnvelopeError::Foreign)?;
    let at = value.len().checked_sub(length).ok_or(EnvelopeError::Foreign)?;
    let (bytes, trailer) = value.split_at(at);
    let mut trailer = Reader(trailer);
    let hole = u32::from_le_bytes(trailer.array()?);
    Ok((bytes, hole, trailer.terms()?))
}

/// The record that a value is, as of `revision`.
pub(crate) fn open(
    key: Arc<str>,
    value: &[u8],
    revision: Revision,
    created: Revision,
    index: u32,
) -> Result<Record, EnvelopeError> {
    let (bytes, hole, terms) = split(value)?;
    let at = usize::try_from(hole).map_err(|_| EnvelopeError::Hole)?;
    let value = Template { bytes: bytes.to_vec(), at }.splice(revision).ok_or(EnvelopeError::Hole)?;
    Ok(Record { revision, created, key, value, terms, index, hole })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_object_comes_back_with_its_revision(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            at in any::<prop::sample::Index>(),
            label in "[a-z]{0,5}",
            revision: u64,
        ) {
            let at = at.index(bytes.len() + 1);
            let terms = Terms { labels: vec![(label.as_str().into(), "é".into())], fields: vec![], owners: vec!["o".into()] };
            let template = Template { bytes, at };
            let value = close(&template, &terms);
            prop_assert!(value.starts_with(&template.bytes));
            let record = open("k".into(), &value, revision, 3, 0).unwrap();
            prop_assert_eq!(Some(record.value.clone()), template.splice(revision));
            prop_assert_eq!(record.template(), Some(template));
            prop_assert_eq!(record.terms, terms);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let _ = open("k".into(), &bytes, 1, 1, 0);
            bytes.extend_from_slice(MARK);
            let _ = open("k".into(), &bytes, 1, 1, 0);
        }
    }
}
