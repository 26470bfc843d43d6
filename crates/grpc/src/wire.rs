//! Protobuf's wire format.

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length points past the end, or a number does not end.
    #[error("the message ends too early")]
    Truncated,
    /// A wire type that no longer exists or never did.
    #[error("field {field} has the unknown wire type {wire}")]
    WireType {
        /// The field's number.
        field: u32,
        /// The wire type.
        wire: u8,
    },
    /// A text that is none.
    #[error("field {0} is not UTF-8")]
    Text(u32),
}

/// A message in the making.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The finished message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire));
    }

    /// Adds a number, zero too: what is part of a `oneof` must be there.
    pub fn present(&mut self, field: u32, value: u64) -> &mut Self {
        self.tag(field, 0);
        self.varint(value);
        self
    }

    /// Adds a number unless it is zero.
    pub fn number(&mut self, field: u32, value: u64) -> &mut Self {
        if value != 0 {
            self.present(field, value);
        }
        self
    }

    /// Adds a number of eight bytes.
    pub fn fixed(&mut self, field: u32, value: u64) -> &mut Self {
        self.tag(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a truth unless it is false.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        self.number(field, value.into())
    }

    /// Adds bytes, even none: what is one of many must be there.
    pub fn present_bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds bytes unless there are none.
    pub fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        if !value.is_empty() {
            self.present_bytes(field, value);
        }
        self
    }

    /// Adds a message, an empty one too.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::new();
        write(&mut inner);
        self.tag(field, 2);
        self.varint(inner.0.len() as u64);
        self.0.extend_from_slice(&inner.0);
        self
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number of whatever width.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number; zero for bytes, as for a field of another version.
    pub fn number(self) -> u64 {
        match self {
            Value::Number(value) => value,
            Value::Bytes(_) => 0,
        }
    }

    /// The bytes; none for a number.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Number(_) => &[],
            Value::Bytes(bytes) => bytes,
        }
    }

    /// The text, what is no UTF-8 replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// Reads a message, field by field.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins a message.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Truncated)
    }

    /// The next of numbers that are packed one after the other, or nothing at the end.
    pub fn packed(&mut self) -> Result<Option<u64>, WireError> {
        if self.0.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next field, or nothing at the end.
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (field, wire) = ((tag >> 3) as u32, (tag & 7) as u8);
        let little = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let value = match wire {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(little(self.take(8)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(little(self.take(4)?)),
            wire => return Err(WireError::WireType { field, wire }),
        };
        Ok(Some((field, value)))
    }

    /// Gives each field to `each`.
    pub fn fields<E: From<WireError>>(
        mut self,
        mut each: impl FnMut(u32, Value<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((field, value)) = self.field()? {
            each(field, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, bytes in prop::collection::vec(any::<u8>(), 0..300), field in 1u32..5000) {
            let mut writer = Writer::new();
            writer.present(field, number).message(field, |inner| { inner.bytes(1, &bytes); }).number(7, 0);
            let message = writer.finish();
            let mut reader = Reader::new(&message);
            prop_assert_eq!(reader.field(), Ok(Some((field, Value::Number(number)))));
            let (found, inner) = reader.field().unwrap().unwrap();
            prop_assert_eq!(found, field);
            let inner = Reader::new(inner.bytes()).field().unwrap();
            prop_assert_eq!(inner, (!bytes.is_empty()).then_some((1, Value::Bytes(&bytes))));
            prop_assert_eq!(reader.field(), Ok(None));
        }

        #[test]
        fn any_bytes_are_fields_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reader::new(&bytes).fields::<WireError>(|_, _| Ok(()));
        }
    }
}
