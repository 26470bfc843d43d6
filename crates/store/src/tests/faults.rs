use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use super::disk::{Disk, Fault};
use super::{dump, put, txn};
use crate::backend::Backend;
use crate::{CommitError, Expect, OpenError, Options, Store, Txn, WatchEnd};

/// Starts a commit and runs it as far as it gets without the disk.
fn begin(store: &Store, txn: Txn) -> tokio::task::JoinHandle<Result<crate::Committed, CommitError>> {
    let store = store.clone();
    tokio::spawn(async move { store.commit(txn).await })
}

async fn arrived(keeper: &super::disk::Keeper) -> usize {
    loop {
        match keeper.arrived.try_recv() {
            Ok(count) => return count,
            Err(TryRecvError::Empty) => tokio::task::yield_now().await,
            Err(TryRecvError::Disconnected) => panic!("the committer is gone"),
        }
    }
}

#[tokio::test]
async fn nothing_shows_before_it_is_durable_and_the_next_batch_gathers_meanwhile() {
    let disk = Disk::default();
    let store = disk.open_with(Options::default());
    let mut watch = store.watch("t", 0).unwrap();
    let keeper = disk.gate();
    let first = begin(&store, put("a", "1", Expect::Absent).into());
    assert_eq!(arrived(&keeper).await, 1);

    // The first one is at the disk now.
    let others: Vec<_> =
        (0..50).map(|n| begin(&store, put(&format!("b{n:02}"), "", Expect::Absent).into())).collect();
    let waited = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    assert!(!first.is_finished());
    assert_eq!(store.get("t", "a"), None);
    assert_eq!((store.revision(), store.snapshot("t").records.len(), watch.progress()), (0, 0, 0));

    keeper.go.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap().revision, 1);
    assert_eq!(store.revision(), 1);
    assert_eq!(watch.next().await.unwrap().len(), 1);
    assert_eq!(arrived(&keeper).await, 50, "all that waited are one batch");
    keeper.go.send(()).unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(disk.appends(), [1, 50]);
    let stats = store.stats();
    assert_eq!((stats.commits, stats.batches, stats.revision), (51, 2, 51));
}

#[tokio::test]
async fn a_failed_flush_fails_all_that_waited_and_all_that_come() {
    for fault in [Fault::Lost, Fault::Kept] {
        let disk = Disk::default();
        disk.plan([Fault::None, Fault::None, fault]);
        let store = disk.open();
        store.commit(put("a", "1", Expect::Absent).into()).await.unwrap();
        let mut watch = store.watch("t", 1).unwrap();

        let keeper = disk.gate();
        let holder = begin(&store, put("b", "1", Expect::Absent).into());
        arrived(&keeper).await;
        let doomed = [
            begin(&store, put("a", "2", Expect::Revision(1)).into()),
            // Refused on the ground of a write that does not become durable: no conflict may be told.
            begin(&store, put("a", "3", Expect::Revision(1)).into()),
            begin(&store, txn([put("c", "1", Expect::Absent), put("d", "1", Expect::Absent)])),
        ];
        tokio::task::yield_now().await;
        keeper.go.send(()).unwrap();
        holder.await.unwrap().unwrap();
        assert_eq!(arrived(&keeper).await, 3);
        keeper.go.send(()).unwrap();
        for one in doomed {
            let error = one.await.unwrap().unwrap_err();
            assert!(matches!(error, CommitError::Io(_)), "{error}");
        }
        let error = store.commit(put("e", "1", Expect::Any).into()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the store takes no writes since an earlier one failed: flush: input/output error"
        );
        assert!(store.failure().is_some());
        // Reading goes on, without any of it.
        let acknowledged = [("a".to_owned(), "1@1".to_owned()), ("b".to_owned(), "1@2".to_owned())];
        assert_eq!(dump(&store, "t"), acknowledged);
        assert_eq!(watch.next().await.unwrap().len(), 1);
        store.close().await;
        assert_eq!(watch.next().await.unwrap_err(), WatchEnd::Closed);

        drop(keeper);
        // Opened again: all of the failed batch, or nothing of it.
        let store = disk.open();
        let found = dump(&store, "t");
        match fault {
            Fault::Lost => assert_eq!(found, acknowledged),
            _ => assert_eq!(
                found.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "),
                "a=2@3 b=1@2 c=1@4 d=1@4"
            ),
        }
        store.commit(put("e", "1", Expect::Absent).into()).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_passes() {
    let disk = Disk::default();
    disk.plan([Fault::Full, Fault::Full]);
    let store = disk.open();
    for _ in 0..2 {
        let error = store.commit(put("a", "1", Expect::Absent).into()).await.unwrap_err();
        assert!(matches!(error, CommitError::Full { available: 1, needed: 2 }), "{error}");
        assert_eq!((store.revision(), store.failure().is_none()), (0, true));
    }
    assert_eq!(store.commit(put("a", "1", Expect::Absent).into()).await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_without_breaking() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { reserve_bytes: u64::MAX / 2, ..Options::default() };
    let store = Store::open(folder.path(), options).unwrap();
    let error = store.commit(put("a", "1", Expect::Absent).into()).await.unwrap_err();
    assert!(matches!(error, CommitError::Full { .. }), "{error}");
    store.close().await;
    let store = Store::open(folder.path(), Options::default()).unwrap();
    assert_eq!(store.commit(put("a", "1", Expect::Absent).into()).await.unwrap().revision, 1);
    store.close().await;
}

#[tokio::test]
async fn a_dead_committer_ends_commits_and_watches() {
    let disk = Disk::default();
    disk.plan([Fault::Panic]);
    let store = disk.open();
    let mut watch = store.watch("t", 0).unwrap();
    let error = store.commit(put("a", "1", Expect::Absent).into()).await.unwrap_err();
    assert!(matches!(error, CommitError::Closed), "{error}");
    assert_eq!(watch.next().await.unwrap_err(), WatchEnd::Closed);
    store.close().await;
}

#[tokio::test]
async fn a_missing_entry_is_corruption() {
    let disk = Disk::default();
    let store = disk.open();
    for n in 0..5 {
        store.commit(put(&format!("k{n}"), "", Expect::Absent).into()).await.unwrap();
    }
    store.close().await;
    disk.remove(3);
    let mut backend = disk.clone();
    let error = crate::recover::recover(&mut backend as &mut dyn Backend, &Options::default()).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }));
    assert!(error.to_string().ends_with("an entry at revision 3 is missing before revision 4"), "{error}");
}
