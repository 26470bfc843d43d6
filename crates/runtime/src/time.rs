//! Time stamps on disk and on the wire: nanoseconds since 1970.

use base::Timestamp;

/// For `#[serde(with)]`.
pub(crate) mod nanos {
    use base::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Ok(super::from_nanos(i64::deserialize(from)?))
    }
}

/// Every `i64` of nanoseconds is within what a time stamp can hold.
pub(crate) fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
