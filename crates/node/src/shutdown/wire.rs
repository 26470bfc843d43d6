//! D-Bus messages as bytes (D-Bus Specification, "Marshaling" and "Message Protocol"): as much of it as asking logind takes.

use std::collections::BTreeMap;

/// No message of those that are expected is longer.
const MOST: usize = 1 << 20;

/// A value in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    U32(u32),
    I32(i32),
    U64(u64),
    Bool(bool),
    /// The place of a descriptor among those that came along.
    Fd(u32),
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// A message's header fields, by their codes.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR: u8 = 4;
const REPLY: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
const FDS: u8 = 9;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    /// The name of an error.
    pub(super) error: String,
    /// What it answers.
    pub(super) reply_to: u32,
    pub(super) destination: String,
    /// How many descriptors come along.
    pub(super) fds: u32,
    pub(super) body: Vec<Value>,
}

impl Message {
    pub(super) fn new(kind: Kind) -> Self {
        let text = String::new;
        Self {
            kind,
            serial: 0,
            path: text(),
            interface: text(),
            member: text(),
            error: text(),
            reply_to: 0,
            destination: text(),
            fds: 0,
            body: Vec::new(),
        }
    }

    /// A call of a method.
    pub(super) fn call(
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Self {
        Self {
            path: path.into(),
            interface: interface.into(),
            member: member.into(),
            destination: destination.into(),
            body,
            ..Self::new(Kind::Call)
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        let mut signature = String::new();
        for value in &self.body {
            signature.push(value.code());
            body.value(value);
        }
        let mut out = Writer::default();
        out.0.extend([b'l', self.kind as u8, 0, 1]);
        out.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
        out.u32(self.serial);
        let mut fields = Writer::default();
        let texts = [
            (PATH, 'o', &self.path),
            (INTERFACE, 's', &self.interface),
            (MEMBER, 's', &self.member),
            (ERROR, 's', &self.error),
            (DESTINATION, 's', &self.destination),
        ];
        for (code, kind, text) in texts.into_iter().filter(|(.., text)| !text.is_empty()) {
            fields.field(code, kind);
            fields.text(text);
        }
        for (code, number) in [(REPLY, self.reply_to), (FDS, self.fds)] {
            if number > 0 {
                fields.field(code, 'u');
                fields.u32(number);
            }
        }
        if !signature.is_empty() {
            fields.field(SIGNATURE, 'g');
            fields.signature(&signature);
        }
        out.u32(u32::try_from(fields.0.len()).unwrap_or(u32::MAX));
        // The fields begin at 16, so their own alignment holds here too.
        out.0.extend(fields.0);
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// The message at the beginning of `bytes` and how long it is; nothing if not all of it is there.
    ///
    /// # Errors
    /// When no message begins there.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(head) = bytes.get(..16) else { return Ok(None) };
        if head[0] != b'l' || head[3] != 1 {
            return Err("a message in another byte order or version");
        }
        let kind = match head[1] {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Err("a message of an unknown kind"),
        };
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (body_length, fields_length) = (number(4) as usize, number(12) as usize);
        if body_length > MOST || fields_length > MOST {
            return Err("a message that is too long");
        }
        let fields_end = 16 + fields_length;
        let body_begin = fields_end.next_multiple_of(8);
        let end = body_begin + body_length;
        let Some(whole) = bytes.get(..end) else { return Ok(None) };
        let mut message = Self { serial: number(8), ..Self::new(kind) };
        let mut fields = Reader { bytes: &whole[..fields_end], at: 16 };
        let (mut texts, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        while fields.at < fields_end {
            fields.align(8);
            let code = fields.byte()?;
            let signature = fields.signature()?;
            match fields.value(signature.as_bytes())? {
                Some(Value::Text(text)) => drop(texts.insert(code, text)),
                Some(Value::U32(number)) => drop(numbers.insert(code, number)),
                _ => {}
            }
        }
        let mut text = |code| texts.remove(&code).unwrap_or_default();
        message.path = text(PATH);
        message.interface = text(INTERFACE);
        message.member = text(MEMBER);
        message.error = text(ERROR);
        message.destination = text(DESTINATION);
        let signature = text(SIGNATURE);
        message.reply_to = numbers.get(&REPLY).copied().unwrap_or(0);
        message.fds = numbers.get(&FDS).copied().unwrap_or(0);
        let mut body = Reader { bytes: &whole[body_begin..], at: 0 };
        for code in signature.as_bytes().chunks(1) {
            // What is of no interest is not read on: nothing after it is either.
            let Some(value) = body.value(code)? else { break };
            message.body.push(value);
        }
        Ok(Some((message, end)))
    }
}

impl Value {
    fn code(&self) -> char {
        match self {
            Self::Text(_) => 's',
            Self::U32(_) => 'u',
            Self::I32(_) => 'i',
            Self::U64(_) => 't',
            Self::Bool(_) => 'b',
            Self::Fd(_) => 'h',
        }
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, kind: char) {
        self.align(8);
        self.0.push(code);
        self.signature(kind.encode_utf8(&mut [0; 4]));
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::U32(number) | Value::Fd(number) => self.u32(*number),
            Value::I32(number) => self.u32(number.cast_unsigned()),
            Value::Bool(truth) => self.u32((*truth).into()),
            Value::U64(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
        }
    }
}

const SHORT: &str = "a message that ends too early";

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&[u8], &'static str> {
        let end = self.at.checked_add(length).ok_or(SHORT)?;
        let taken = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.align(4);
        Ok(self.take(4)?.try_into().map_or(0, u32::from_le_bytes))
    }

    fn letters(&mut self, length: usize) -> Result<String, &'static str> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a text that is not UTF-8")?;
        self.byte()?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<String, &'static str> {
        let length = self.byte()?.into();
        self.letters(length)
    }

    /// A value of the type with this signature; nothing if it is of no interest.
    fn value(&mut self, signature: &[u8]) -> Result<Option<Value>, &'static str> {
        Ok(Some(match signature {
            b"s" | b"o" => {
                let length = self.u32()? as usize;
                Value::Text(self.letters(length)?)
            }
            b"g" => Value::Text(self.signature()?),
            b"u" => Value::U32(self.u32()?),
            b"i" => Value::I32(self.u32()?.cast_signed()),
            b"b" => Value::Bool(self.u32()? != 0),
            b"h" => Value::Fd(self.u32()?),
            b"t" => {
                self.align(8);
                Value::U64(self.take(8)?.try_into().map_or(0, u64::from_le_bytes))
            }
            // One that says what it is. Within another it is of no interest.
            b"v" => {
                let inner = self.signature()?;
                return if inner == "v" { Ok(None) } else { self.value(inner.as_bytes()) };
            }
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_message_of_everybody() {
        // As `dbus-send` and every other client says it, byte for byte.
        let mut hello = Message::call(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "Hello",
            vec![],
        );
        hello.serial = 1;
        let bytes = hello.encode();
        let begin = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00";
        assert_eq!(&bytes[..begin.len()], begin);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(Message::decode(&bytes).unwrap(), Some((hello, bytes.len())));
    }

    #[test]
    fn variants_are_looked_into() {
        // A body of one variant with a 64-bit number, as properties are answered.
        let mut bytes =
            Message { reply_to: 7, body: vec![Value::U64(5)], ..Message::new(Kind::Return) }.encode();
        let place = bytes.windows(6).position(|w| w == b"\x01g\x00\x01t\x00").unwrap();
        bytes[place + 4] = b'v';
        let at = bytes.len() - 8;
        bytes.truncate(at);
        bytes.extend(b"\x01t\x00\x00\x00\x00\x00\x00");
        bytes.extend(5_000_000_u64.to_le_bytes());
        bytes[4] = 16;
        let (message, _) = Message::decode(&bytes).unwrap().unwrap();
        assert_eq!((message.reply_to, message.body), (7, vec![Value::U64(5_000_000)]));
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[a-z/]{0,9}".prop_map(Value::Text),
            any::<u32>().prop_map(Value::U32),
            any::<i32>().prop_map(Value::I32),
            any::<u64>().prop_map(Value::U64),
            any::<bool>().prop_map(Value::Bool),
            any::<u32>().prop_map(Value::Fd),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            member in "[A-Z][a-z]{0,9}", path in "/[a-z]{0,20}", serial in any::<u32>(), fds in 0u32..3,
            reply_to in any::<u32>(), body in prop::collection::vec(values(), 0..6),
        ) {
            let message = Message { serial, fds, reply_to, ..Message::call("d", &path, "i", &member, body) };
            let mut bytes = message.encode();
            let length = bytes.len();
            for end in 0..length {
                prop_assert_eq!(Message::decode(&bytes[..end]).unwrap(), None);
            }
            bytes.extend(b"more");
            prop_assert_eq!(Message::decode(&bytes).unwrap(), Some((message, length)));
        }

        #[test]
        fn no_bytes_are_too_odd(mut bytes in prop::collection::vec(any::<u8>(), 0..200), sane in any::<bool>()) {
            if sane && bytes.len() >= 16 {
                bytes[..4].copy_from_slice(b"l\x04\0\x01");
                (bytes[5], bytes[6], bytes[7]) = (0, 0, 0);
                (bytes[13], bytes[14], bytes[15]) = (0, 0, 0);
            }
            let _ = Message::decode(&bytes);
        }
    }
}
