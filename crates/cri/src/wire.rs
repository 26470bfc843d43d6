//! Messages and enums as values: what each type of field is on the wire.

use std::collections::BTreeMap;

use grpc::{Reader, Value, WireError, Writer};

/// Bytes that are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no message at all.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// A value that only another version knows.
    #[error("{number} is no {name}")]
    Unknown {
        /// The enum's name.
        name: &'static str,
        /// What came.
        number: u64,
    },
}

/// A message of the interface.
pub trait Message: Default {
    /// Adds all fields that are not as they are by default.
    fn write(&self, to: &mut Writer);

    /// Takes in one field; one that is not known is skipped.
    fn take(&mut self, field: u32, value: Value<'_>) -> Result<(), DecodeError>;

    /// The message's bytes.
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.finish()
    }

    /// Reads a message.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        message.merge(bytes)?;
        Ok(message)
    }

    /// Reads what these bytes say in addition.
    fn merge(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        Reader::new(bytes).fields(|field, value| self.take(field, value))
    }
}

/// What a field may hold.
pub(crate) trait Field {
    fn put(&self, field: u32, to: &mut Writer);
    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError>;
}

impl Field for String {
    fn put(&self, field: u32, to: &mut Writer) {
        to.bytes(field, self.as_bytes());
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        *self = value.text();
        Ok(())
    }
}

impl Field for Vec<u8> {
    fn put(&self, field: u32, to: &mut Writer) {
        to.bytes(field, self);
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        *self = value.bytes().to_vec();
        Ok(())
    }
}

impl Field for bool {
    fn put(&self, field: u32, to: &mut Writer) {
        to.flag(field, *self);
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        *self = value.number() != 0;
        Ok(())
    }
}

impl Field for f64 {
    fn put(&self, field: u32, to: &mut Writer) {
        if *self != 0.0 {
            to.fixed(field, self.to_bits());
        }
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        *self = f64::from_bits(value.number());
        Ok(())
    }
}

/// Numbers are varints; those below zero are extended to 64 bits, whatever their width.
macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn put(&self, field: u32, to: &mut Writer) {
                to.number(field, *self as i64 as u64);
            }

            fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
                *self = value.number() as $type;
                Ok(())
            }
        }

        /// Written one by one, which every reader takes; read that way and packed.
        impl Field for Vec<$type> {
            fn put(&self, field: u32, to: &mut Writer) {
                for number in self {
                    to.present(field, *number as i64 as u64);
                }
            }

            fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
                match value {
                    Value::Number(number) => self.push(number as $type),
                    Value::Bytes(bytes) => {
                        let mut reader = Reader::new(bytes);
                        while let Some(number) = reader.packed()? {
                            self.push(number as $type);
                        }
                    }
                }
                Ok(())
            }
        }
    )*};
}

numbers!(i32, i64, u32);

impl Field for u64 {
    fn put(&self, field: u32, to: &mut Writer) {
        to.number(field, *self);
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        *self = value.number();
        Ok(())
    }
}

impl Field for Vec<String> {
    fn put(&self, field: u32, to: &mut Writer) {
        for text in self {
            to.present_bytes(field, text.as_bytes());
        }
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        self.push(value.text());
        Ok(())
    }
}

impl Field for BTreeMap<String, String> {
    fn put(&self, field: u32, to: &mut Writer) {
        for (key, value) in self {
            to.message(field, |inner| {
                inner.bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
            });
        }
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        let (mut key, mut text) = (String::new(), String::new());
        Reader::new(value.bytes()).fields::<WireError>(|field, value| {
            match field {
                1 => key = value.text(),
                2 => text = value.text(),
                _ => {}
            }
            Ok(())
        })?;
        self.insert(key, text);
        Ok(())
    }
}

impl<M: Message> Field for Option<M> {
    fn put(&self, field: u32, to: &mut Writer) {
        if let Some(message) = self {
            to.message(field, |inner| message.write(inner));
        }
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        self.get_or_insert_default().merge(value.bytes())
    }
}

impl<M: Message> Field for Vec<M> {
    fn put(&self, field: u32, to: &mut Writer) {
        for message in self {
            to.message(field, |inner| message.write(inner));
        }
    }

    fn get(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        self.push(M::decode(value.bytes())?);
        Ok(())
    }
}

/// Messages, each with its fields: `number name: type`.
macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident { $($number:literal $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl $crate::wire::Message for $name {
            #[allow(unused_variables)]
            fn write(&self, to: &mut grpc::Writer) {
                $($crate::wire::Field::put(&self.$field, $number, to);)*
            }

            #[allow(unused_variables)]
            fn take(&mut self, field: u32, value: grpc::Value<'_>) -> Result<(), $crate::wire::DecodeError> {
                match field {
                    $($number => $crate::wire::Field::get(&mut self.$field, value),)*
                    _ => Ok(()),
                }
            }
        }
    )*};
}

/// Enums, each with its values: `Name = number`. The first is what is meant where nothing is said.
macro_rules! enums {
    ($($(#[$meta:meta])* $name:ident { $first:ident $(, $value:ident = $number:literal)* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            #[default]
            $first = 0,
            $($value = $number,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[Self::$first $(, Self::$value)*];
        }

        impl $crate::wire::Field for $name {
            fn put(&self, field: u32, to: &mut grpc::Writer) {
                to.number(field, *self as u64);
            }

            fn get(&mut self, value: grpc::Value<'_>) -> Result<(), $crate::wire::DecodeError> {
                *self = match value.number() {
                    0 => Self::$first,
                    $($number => Self::$value,)*
                    number => {
                        return Err($crate::wire::DecodeError::Unknown { name: stringify!($name), number });
                    }
                };
                Ok(())
            }
        }
    )*};
}

pub(crate) use {enums, messages};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ContainerConfig, ContainerMetadata, ExecSyncResponse, Int64Value, KeyValue, LinuxContainerConfig,
        LinuxContainerSecurityContext, Mount, MountPropagation, PortForwardRequest, PsiData, Signal,
    };

    fn config(texts: Vec<String>, numbers: Vec<i64>, labels: BTreeMap<String, String>) -> ContainerConfig {
        let security = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value::default()),
            supplemental_groups: numbers,
            privileged: true,
            ..Default::default()
        };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 3 }),
            envs: texts.iter().map(|t| KeyValue { key: t.clone(), value: t.clone() }).collect(),
            mounts: vec![Mount { propagation: MountPropagation::Bidirectional, ..Default::default() }],
            args: texts,
            labels,
            linux: Some(LinuxContainerConfig { security_context: Some(security), resources: None }),
            stop_signal: Signal::SigRtMinPlus3,
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            texts in prop::collection::vec("[a-zß]{0,4}", 0..5),
            numbers in prop::collection::vec(any::<i64>(), 0..5),
            labels in prop::collection::btree_map("[a-z]{0,3}", "[a-z]{0,3}", 0..5),
        ) {
            let message = config(texts, numbers, labels);
            prop_assert_eq!(ContainerConfig::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ContainerConfig::decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_are_those_of_upstreams_generator() {
        // As google.golang.org/protobuf writes them.
        let answer = ExecSyncResponse { stdout: b"hi".to_vec(), stderr: Vec::new(), exit_code: -1 };
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(answer.encode(), [&[0x0a, 2, b'h', b'i', 0x18][..], &minus_one].concat());
        assert_eq!(ExecSyncResponse::decode(&answer.encode()), Ok(answer));
        // Repeated numbers come packed.
        let packed = [0x0a, 1, b's', 0x12, 3, 80, 0xbb, 3];
        let ports = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: vec![80, 443] };
        assert_eq!(PortForwardRequest::decode(&packed), Ok(ports));
        let average = PsiData { avg10: 1.5, ..Default::default() };
        assert_eq!(average.encode(), [&[0x11][..], &1.5f64.to_le_bytes()].concat());
        assert_eq!(PsiData::decode(&average.encode()), Ok(average));
    }

    #[test]
    fn fields_of_later_versions_are_skipped_and_unknown_values_are_an_error() {
        assert_eq!(KeyValue::decode(&[0xf8, 1, 7]), Ok(KeyValue::default()));
        let error = Mount::decode(&[0x28, 9]).unwrap_err();
        assert_eq!(error.to_string(), "9 is no MountPropagation");
    }

    #[test]
    fn signals_have_the_kernels_names() {
        assert_eq!(Signal::SigRtMaxMinus14.name().as_deref(), Some("SIGRTMAX-14"));
        assert_eq!(Signal::SigTerm.name().as_deref(), Some("SIGTERM"));
        assert_eq!(Signal::RuntimeDefault.name(), None);
        assert_eq!(Signal::of("usr1"), Signal::SigUsr1);
        assert_eq!(Signal::of("SIGRTMIN+3"), Signal::SigRtMinPlus3);
        assert_eq!(Signal::of("nonsense"), Signal::RuntimeDefault);
    }
}
