use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The number of a change. Each committed transaction takes the next one.
pub type Revision = u64;

/// An object's bytes with a hole for its revision: `bytes[..at]`, the revision in decimal, `bytes[at..]`.
///
/// The revision is known only once the committer has accepted the write, so the writer leaves room for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The bytes around the hole.
    pub bytes: Vec<u8>,
    /// Where the hole is; at most `bytes.len()`.
    pub at: usize,
}

impl Template {
    /// The finished bytes, or nothing if the hole lies outside.
    pub(crate) fn splice(&self, revision: Revision) -> Option<Bytes> {
        let (head, tail) = self.bytes.split_at_checked(self.at)?;
        let digits = revision.to_string();
        let mut out = Vec::with_capacity(self.bytes.len() + digits.len());
        out.extend_from_slice(head);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(tail);
        Some(out.into())
    }
}

/// What a record can be found by, without decoding it. Each list is sorted by whoever makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Labels: name and value.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Selectable fields: path and value.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// Identities of the owners.
    pub owners: Vec<Box<str>>,
}

impl Terms {
    /// The value of a selectable field; the empty text where there is none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| **field == *name).map_or("", |(_, value)| value)
    }
}

/// One object at one revision.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The revision that wrote this state.
    pub revision: Revision,
    /// The revision that created the object.
    pub created: Revision,
    /// The key within the table.
    pub key: Arc<str>,
    /// The object, its revision spliced in.
    pub value: Bytes,
    /// What it can be found by.
    pub terms: Terms,
    /// Which operation of its transaction wrote it: with the revision, the place of this state on disk.
    pub(crate) index: u32,
    /// Where in the value its revision is; [`Record::UNKNOWN`] if it is not known.
    pub(crate) hole: u32,
}

impl Record {
    /// A state that is in no store, at revision 0: what a write would have made.
    pub fn unstored(key: Arc<str>, value: Bytes, terms: Terms) -> Self {
        Self { revision: 0, created: 0, key, value, terms, index: 0, hole: Self::UNKNOWN }
    }

    pub(crate) const UNKNOWN: u32 = u32::MAX;

    /// The value with a hole in place of its revision; nothing if nobody remembers where that is.
    pub fn template(&self) -> Option<Template> {
        let digits = self.revision.to_string();
        let at = match self.hole {
            Self::UNKNOWN => {
                // What older versions wrote.
                let before = b"\"resourceVersion\":\"";
                let sought = [before, digits.as_bytes(), b"\""].concat();
                let found = self.value.windows(sought.len()).position(|window| window == sought);
                found? + before.len()
            }
            hole => usize::try_from(hole).ok()?,
        };
        let (head, tail) = self.value.split_at_checked(at)?;
        let tail = tail.strip_prefix(digits.as_bytes())?;
        Some(Template { bytes: [head, tail].concat(), at })
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("revision", &self.revision)
            .field("created", &self.created)
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_its_revision_anywhere() {
        let with = |at| Template { bytes: b"ab".to_vec(), at }.splice(70);
        assert_eq!(with(0).as_deref(), Some(&b"70ab"[..]));
        assert_eq!(with(1).as_deref(), Some(&b"a70b"[..]));
        assert_eq!(with(2).as_deref(), Some(&b"ab70"[..]));
        assert_eq!(with(3), None);
    }
}
