use std::path::Path;

use super::{delete, dump, put, put_in};
use crate::{Backup, BackupError, Expect, OpenError, Options, Store};

fn options() -> Options {
    Options { reserve_bytes: 0, ..Options::default() }
}

async fn filled(path: &Path) -> Store {
    let store = Store::open(path, options()).unwrap();
    for n in 0..40 {
        store.commit(put(&format!("k{}", n % 30), &n.to_string(), Expect::Any).into()).await.unwrap();
    }
    store.commit(delete("k7", Expect::Any).into()).await.unwrap();
    store.commit(put_in("u", "a", "x", Expect::Any).into()).await.unwrap();
    store
}

#[tokio::test]
async fn a_store_comes_back_with_its_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder.path().join("a")).await;
    let mut file = Vec::new();
    let made = store.backup(&mut file).unwrap();
    let read = Backup::read(&file, None).unwrap();
    assert_eq!(read.records.len(), 30);
    let place = folder.path().join("b");
    read.place(&place, &options(), false).unwrap();
    let back = Store::open(&place, options()).unwrap();
    assert_eq!(
        (back.revision(), dump(&back, "t"), dump(&back, "u")),
        (made.revision, dump(&store, "t"), dump(&store, "u"))
    );
    let next = back.commit(put("new", "", Expect::Absent).into()).await.unwrap();
    assert_eq!(next.revision, made.revision + 1);
    back.close().await;
    let refused = read.place(&place, &options(), false).unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(31)), "{refused}");
    read.place(&place, &options(), true).unwrap();
    let back = Store::open(&place, options()).unwrap();
    assert_eq!(back.export().records.len(), 30);
    let third = Store::open(&folder.path().join("c"), options()).unwrap();
    third.import(&read).await.unwrap();
    let keys = |s: &Store| s.snapshot("t").records.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&third), keys(&store));
    assert!(matches!(third.import(&read).await, Err(BackupError::NotEmpty(30))));
    third.clear().await.unwrap();
    assert_eq!(third.stats().records, 0);
    let running = read.place(&folder.path().join("a"), &options(), true).unwrap_err();
    assert!(matches!(running, BackupError::Open(OpenError::Locked { .. })), "{running}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_wherever_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder.path().join("a")).await;
    let mut file = Vec::new();
    store.backup(&mut file).unwrap();
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert!(matches!(Backup::read(&bad, None), Err(BackupError::Damaged(_))), "byte {at}");
        assert!(matches!(Backup::read(&file[..at], None), Err(BackupError::Damaged(_))), "cut at {at}");
    }
}
