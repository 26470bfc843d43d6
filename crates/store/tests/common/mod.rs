//! What the integration tests share.
#![allow(dead_code, reason = "each test uses some of it")]

use std::path::Path;

use store::{Expect, Op, Options, Store, Template, Terms, Txn};

/// The whole of a table as text: key, revision, value.
pub fn dump(store: &Store, table: &str) -> Vec<(String, u64, String)> {
    let snapshot = store.snapshot(table);
    let row = |r: &std::sync::Arc<store::Record>| {
        (r.key.to_string(), r.revision, String::from_utf8_lossy(&r.value).into_owned())
    };
    snapshot.records.values().map(row).collect()
}

pub fn put(table: &str, key: &str, value: &str, expect: Expect) -> Op {
    let value = Template { bytes: format!("{value}@").into_bytes(), at: value.len() + 1 };
    Op::Put { table: table.into(), key: key.into(), value, terms: Terms::default(), expect }
}

pub fn delete(table: &str, key: &str, expect: Expect) -> Op {
    Op::Delete { table: table.into(), key: key.into(), value: None, expect }
}

/// Commits one operation and gives its revision.
pub async fn commit(store: &Store, op: Op) -> u64 {
    store.commit(Txn::from(op)).await.expect("commit").revision
}

pub fn open(path: &Path) -> Store {
    Store::open(path, Options::default()).expect("open")
}

/// Copies a folder; holes stay holes, for the journal is mostly one.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("make a folder");
    for entry in std::fs::read_dir(from).expect("list a folder") {
        let entry = entry.expect("list a folder");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            let bytes = std::fs::read(entry.path()).expect("read a file");
            let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            std::fs::write(&target, &bytes[..end]).expect("write a file");
            let file = std::fs::OpenOptions::new().write(true).open(&target).expect("open a file");
            file.set_len(bytes.len() as u64).expect("lengthen a file");
        }
    }
}
