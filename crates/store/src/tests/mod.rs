//! Tests of the whole store: over a backend whose disk obeys the test (`disk.rs`), and over the real one.

mod backup;
mod disk;
mod faults;
mod model;
mod watching;

use std::sync::Arc;

use crate::{Expect, Op, Options, Record, Store, Template, Terms, Txn};

fn put(key: &str, value: &str, expect: Expect) -> Op {
    put_in("t", key, value, expect)
}

/// The value ends with the revision.
fn put_in(table: &str, key: &str, value: &str, expect: Expect) -> Op {
    let value = Template { bytes: format!("{value}@").into_bytes(), at: value.len() + 1 };
    let terms = Terms { labels: vec![("key".into(), key.into())], ..Terms::default() };
    Op::Put { table: table.into(), key: key.into(), value, terms, expect }
}

fn delete(key: &str, expect: Expect) -> Op {
    Op::Delete { table: "t".into(), key: key.into(), value: None, expect }
}

fn txn<const N: usize>(ops: [Op; N]) -> Txn {
    Txn { ops: ops.into() }
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}

/// The table's keys and values.
fn dump(store: &Store, table: &str) -> Vec<(String, String)> {
    let snapshot = store.snapshot(table);
    snapshot.records.values().map(|record: &Arc<Record>| (record.key.to_string(), text(record))).collect()
}

/// Limits so small that histories and garbage overflow all the time.
fn tight() -> Options {
    Options {
        history_events: 12,
        history_bytes: 1 << 20,
        garbage: 5,
        reserve_bytes: 0,
        write_buffer_bytes: 4096,
        ..Options::default()
    }
}
