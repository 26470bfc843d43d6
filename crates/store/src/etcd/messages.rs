//! The few messages of etcd that are needed (etcd-io/etcd, `api/etcdserverpb/rpc.proto`, `api/mvccpb/kv.proto`).

use bytes::Bytes;
use grpc::{Reader, Value, WireError, Writer};

use crate::record::Revision;

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct KeyValue {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    /// How often it was written since it was made.
    pub(crate) version: u64,
}

/// Keys to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Range {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Vec<u8>,
    pub(crate) limit: u64,
    pub(crate) revision: Revision,
    pub(crate) keys_only: bool,
}

impl Range {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.bytes(1, &self.key).bytes(2, &self.end).number(3, self.limit).number(4, self.revision);
        out.flag(8, self.keys_only);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.finish()
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranged {
    pub(crate) revision: Revision,
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) more: bool,
    pub(crate) count: u64,
}

impl Ranged {
    /// Reads the answer; the values share its memory.
    pub(crate) fn decode(message: &Bytes) -> Result<Self, WireError> {
        let mut out = Self::default();
        Reader::new(message).fields(|field, value| {
            match field {
                1 => out.revision = revision(value)?,
                2 => out.kvs.push(key_value(message, value)?),
                3 => out.more = value.number() != 0,
                4 => out.count = value.number(),
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        Ok(out)
    }
}

/// The revision in an answer's header.
fn revision(header: Value<'_>) -> Result<Revision, WireError> {
    let mut revision = 0;
    Reader::new(header.bytes()).fields(|field, value| {
        if field == 3 {
            revision = value.number();
        }
        Ok::<_, WireError>(())
    })?;
    Ok(revision)
}

fn key_value(message: &Bytes, value: Value<'_>) -> Result<KeyValue, WireError> {
    let mut out = KeyValue::default();
    Reader::new(value.bytes()).fields(|field, value| {
        match field {
            1 => out.key = message.slice_ref(value.bytes()),
            2 => out.created = value.number(),
            3 => out.modified = value.number(),
            4 => out.version = value.number(),
            5 => out.value = message.slice_ref(value.bytes()),
            _ => {}
        }
        Ok::<_, WireError>(())
    })?;
    Ok(out)
}

/// What must be true of a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Compare {
    /// It was last written at that revision; zero for a key that is not there.
    Modified(Vec<u8>, Revision),
    /// It is there.
    Present(Vec<u8>),
    /// It was written that many times since it was made.
    Version(Vec<u8>, u64),
}

impl Compare {
    fn write(&self, out: &mut Writer) {
        const EQUAL: u64 = 0;
        const GREATER: u64 = 1;
        match self {
            Compare::Modified(key, revision) => {
                out.number(1, EQUAL).number(2, 2).bytes(3, key).present(6, *revision);
            }
            Compare::Present(key) => {
                out.number(1, GREATER).number(2, 2).bytes(3, key).present(6, 0);
            }
            Compare::Version(key, version) => {
                out.number(1, EQUAL).number(2, 0).bytes(3, key).present(4, *version);
            }
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Range(Range),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

impl Step {
    fn write(&self, out: &mut Writer) {
        match self {
            Step::Range(range) => out.message(1, |out| range.write(out)),
            Step::Put(key, value) => out.message(2, |out| {
                out.bytes(1, key).bytes(2, value);
            }),
            Step::Delete(key) => out.message(3, |out| {
                out.bytes(1, key).flag(3, true);
            }),
        };
    }
}

/// A transaction: if all comparisons hold, the one steps, else the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) compare: Vec<Compare>,
    pub(crate) success: Vec<Step>,
    pub(crate) failure: Vec<Step>,
}

impl Transaction {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        for compare in &self.compare {
            out.message(1, |out| compare.write(out));
        }
        for step in &self.success {
            out.message(2, |out| step.write(out));
        }
        for step in &self.failure {
            out.message(3, |out| step.write(out));
        }
        out.finish()
    }
}

/// What a transaction did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transacted {
    pub(crate) revision: Revision,
    pub(crate) succeeded: bool,
    /// For each step what was read, or for a removal what was there before.
    pub(crate) found: Vec<Vec<KeyValue>>,
}

impl Transacted {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, WireError> {
        let mut out = Self::default();
        Reader::new(message).fields(|field, value| {
            match field {
                1 => out.revision = revision(value)?,
                2 => out.succeeded = value.number() != 0,
                3 => out.found.push(step_answer(message, value)?),
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        Ok(out)
    }
}

fn step_answer(message: &Bytes, answer: Value<'_>) -> Result<Vec<KeyValue>, WireError> {
    let mut found = Vec::new();
    Reader::new(answer.bytes()).fields(|step, value| {
        // A range has its keys in field 2, a removal in field 3.
        Reader::new(value.bytes()).fields(|field, value| {
            if (step == 1 && field == 2) || (step == 3 && field == 3) {
                found.push(key_value(message, value)?);
            }
            Ok::<_, WireError>(())
        })
    })?;
    Ok(found)
}

/// Asks for all changes to the keys of a range, from a revision on.
pub(crate) fn watch(key: &[u8], end: &[u8], start: Revision) -> Vec<u8> {
    let mut out = Writer::new();
    out.message(1, |out| {
        out.bytes(1, key).bytes(2, end).number(3, start).flag(4, true);
    });
    out.finish()
}

/// Asks to give up what is older than a revision.
pub(crate) fn compact(revision: Revision) -> Vec<u8> {
    let mut out = Writer::new();
    out.number(1, revision);
    out.finish()
}

/// A change to a key.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) deleted: bool,
    pub(crate) kv: KeyValue,
}

/// Some changes, or news of the watch itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) revision: Revision,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    /// Set if the watch began before what etcd has given up.
    pub(crate) compacted: Revision,
    pub(crate) reason: String,
    pub(crate) events: Vec<Changed>,
}

impl Watched {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, WireError> {
        let mut out = Self::default();
        Reader::new(message).fields(|field, value| {
            match field {
                1 => out.revision = revision(value)?,
                3 => out.created = value.number() != 0,
                4 => out.canceled = value.number() != 0,
                5 => out.compacted = value.number(),
                6 => out.reason = value.text(),
                11 => out.events.push(event(message, value)?),
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        Ok(out)
    }
}

fn event(message: &Bytes, value: Value<'_>) -> Result<Changed, WireError> {
    let mut out = Changed { deleted: false, kv: KeyValue::default() };
    Reader::new(value.bytes()).fields(|field, value| {
        match field {
            1 => out.deleted = value.number() == 1,
            2 => out.kv = key_value(message, value)?,
            _ => {}
        }
        Ok::<_, WireError>(())
    })?;
    Ok(out)
}
