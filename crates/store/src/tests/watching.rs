use std::collections::BTreeMap;

use super::disk::Disk;
use super::{delete, put, put_in, text, tight, txn};
use crate::{
    CommitError, EventKind, Expect, Interest, Invalid, Op, Options, Store, Template, TooOld, WatchEnd,
};

#[tokio::test]
async fn preconditions_hold_against_the_present_state() {
    let store = Disk::default().open();
    let run = async |op: Op| store.commit(op.into()).await.map(|done| done.revision);
    assert!(matches!(run(put("a", "1", Expect::Present)).await, Err(CommitError::NotFound { .. })));
    assert!(matches!(run(put("a", "1", Expect::Revision(0))).await, Err(CommitError::NotFound { .. })));
    assert!(matches!(run(delete("a", Expect::Any)).await, Err(CommitError::NotFound { .. })));
    assert_eq!(run(put("a", "1", Expect::Absent)).await.unwrap(), 1);
    let Err(CommitError::Exists { current, .. }) = run(put("a", "2", Expect::Absent)).await else { panic!() };
    assert_eq!(text(&current), "1@1");
    assert_eq!(run(put("a", "2", Expect::Revision(1))).await.unwrap(), 2);
    let error = run(put("a", "3", Expect::Revision(1))).await.unwrap_err();
    assert_eq!(error.to_string(), r#"t "a" is at revision 2, not 1"#);
    assert!(matches!(run(delete("a", Expect::Absent)).await, Err(CommitError::Exists { .. })));
    assert_eq!(run(delete("a", Expect::Revision(2))).await.unwrap(), 3);
    assert_eq!(store.get("t", "a"), None);
    assert_eq!(store.tables(), []);
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing_at_one_revision() {
    let store = Disk::default().open();
    let bad = txn([put("a", "1", Expect::Absent), put("b", "1", Expect::Present)]);
    assert!(matches!(store.commit(bad).await, Err(CommitError::NotFound { .. })));
    let twice = txn([put("a", "1", Expect::Absent), put("a", "2", Expect::Any)]);
    assert!(matches!(store.commit(twice).await, Err(CommitError::Invalid { reason: Invalid::Twice, .. })));
    let hole = Op::Put {
        table: "t".into(),
        key: "a".into(),
        value: Template { bytes: vec![], at: 1 },
        terms: Default::default(),
        expect: Expect::Any,
    };
    let holed = txn([put("b", "1", Expect::Absent), hole]);
    assert!(matches!(store.commit(holed).await, Err(CommitError::Invalid { reason: Invalid::Hole, .. })));
    assert_eq!((store.revision(), store.snapshot("t").records.len()), (0, 0));

    let done =
        store.commit(txn([put("a", "1", Expect::Absent), put_in("u", "b", "2", Expect::Any)])).await.unwrap();
    assert_eq!(done.revision, 1);
    assert_eq!(done.records.iter().map(|r| text(r)).collect::<Vec<_>>(), ["1@1", "2@1"]);
    assert_eq!(store.commit(txn([])).await.unwrap().revision, 1);
    assert_eq!(store.tables(), ["t".into(), "u".into()]);
}

#[tokio::test]
async fn a_removal_shows_the_state_the_deleter_left() {
    let store = Disk::default().open();
    store.commit(put("a", "1", Expect::Absent).into()).await.unwrap();
    store.commit(put("b", "1", Expect::Absent).into()).await.unwrap();
    let value = Some(Template { bytes: b"gone@".to_vec(), at: 5 });
    let op = Op::Delete { table: "t".into(), key: "a".into(), value, expect: Expect::Any };
    let done = store.commit(op.into()).await.unwrap();
    assert_eq!(text(&done.records[0]), "gone@3");
    store.commit(delete("b", Expect::Any).into()).await.unwrap();
    let events = store.watch("t", 2).unwrap().next().await.unwrap();
    let told: Vec<_> =
        events.iter().map(|e| (e.revision, e.kind, text(&e.record), e.record.created)).collect();
    assert_eq!(told, [(3, EventKind::Deleted, "gone@3".into(), 1), (4, EventKind::Deleted, "1@2".into(), 2)]);
    assert_eq!(events[0].record.terms.labels.len(), 1);
    assert_eq!(events[0].previous.as_ref().map(|r| text(r)).as_deref(), Some("1@1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_watcher_sees_each_event_once_and_in_order_under_many_writers() {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 150;
    let store = Disk::default().open_with(Options::default());
    let watchers: Vec<_> = (0..6)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                // Some begin in the middle, some at a revision that is yet to come.
                store.wait_for(n * 50).await;
                let from = if n % 2 == 0 { n * 50 } else { n * 50 + 300 };
                let mut watch = store.watch("t", from).unwrap();
                let mut seen = Vec::new();
                while watch.progress() < WRITERS * WRITES || seen.is_empty() {
                    let events = watch.next().await.unwrap();
                    assert!(!events.is_empty());
                    seen.extend(events.iter().map(|event| (event.revision, event.record.index)));
                    assert!(watch.progress() + 1 >= seen.last().unwrap().0);
                }
                (from, seen)
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..WRITES {
                    let key = format!("{writer}-{}", n % 7);
                    let ops = txn([put(&key, "", Expect::Any), put(&format!("{key}-too"), "", Expect::Any)]);
                    store.commit(ops).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for watcher in watchers {
        let (from, seen) = watcher.await.unwrap();
        let expected: Vec<_> = (from + 1..=WRITERS * WRITES).flat_map(|r| [(r, 0), (r, 1)]).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told() {
    let store = Disk::default().open();
    let mut slow = store.watch("t", 0).unwrap();
    let mut idle = store.watch("other", 0).unwrap();
    for n in 1..=20 {
        store.commit(put("a", "", Expect::Any).into()).await.unwrap();
        store.commit(put_in("third", &n.to_string(), "", Expect::Any).into()).await.unwrap();
    }
    // Twelve events are held; the one at revision 15 is the last that went.
    let old = TooOld { revision: 0, oldest: 15 };
    assert_eq!(slow.next().await.unwrap_err(), WatchEnd::TooOld(old));
    assert_eq!(store.watch("t", 0).err(), Some(old));
    assert_eq!(store.watch("t", 14).err(), Some(TooOld { revision: 14, oldest: 15 }));
    assert_eq!(store.watch("t", 15).unwrap().next().await.unwrap().len(), 12);
    assert_eq!(store.snapshot_at("t", 14).err(), Some(TooOld { revision: 14, oldest: 15 }));
    assert_eq!(idle.progress(), 40);
    store.compact(30).await.unwrap();
    assert_eq!(store.watch("t", 29).err(), Some(TooOld { revision: 29, oldest: 30 }));
    assert_eq!(idle.progress(), 40);
    store.commit(put_in("other", "x", "", Expect::Any).into()).await.unwrap();
    assert_eq!(idle.next().await.unwrap()[0].revision, 41);
}

#[tokio::test]
async fn a_reader_can_wait_for_a_revision() {
    let store = Disk::default().open();
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move {
            store.wait_for(2).await;
            store.snapshot("t").records.len()
        })
    };
    store.commit(put("a", "", Expect::Any).into()).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    store.commit(put("b", "", Expect::Any).into()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 2);
    store.wait_for(1).await;
}

#[tokio::test]
async fn a_snapshot_is_read_in_pages() {
    let store = Disk::default().open();
    for key in ["a/1", "b/1", "b/2", "b/3", "c/1"] {
        store.commit(put(key, "", Expect::Any).into()).await.unwrap();
    }
    let snapshot = store.snapshot("t");
    let page = |prefix, after| snapshot.scan(prefix, after).map(|r| &*r.key).collect::<Vec<_>>().join(" ");
    assert_eq!(page("b/", None), "b/1 b/2 b/3");
    assert_eq!(page("b/", Some("b/1")), "b/2 b/3");
    assert_eq!(page("b/", Some("a/1")), "b/1 b/2 b/3");
    assert_eq!(page("", Some("b/3")), "c/1");
    assert_eq!(page("d", None), "");
}

#[tokio::test]
async fn garbage_leaves_the_disk() {
    let disk = Disk::default();
    let store = disk.open_with(tight());
    let mut last = BTreeMap::new();
    for n in 0..400 {
        let key = format!("k{}", n % 10);
        if n % 17 == 3 && last.remove(&key).is_some() {
            store.commit(delete(&key, Expect::Any).into()).await.unwrap();
        } else {
            last.insert(key.clone(), n);
            store.commit(put(&key, &n.to_string(), Expect::Any).into()).await.unwrap();
        }
    }
    assert!(disk.compactions() > 10);
    // The present, the history with the states it superseded, and the garbage that waits.
    assert!(disk.len() <= 10 + 2 * 12 + 2 * 5, "{}", disk.len());
    store.compact(store.revision()).await.unwrap();
    assert_eq!(disk.len(), last.len());
    store.close().await;
    let store = disk.open();
    assert_eq!(store.revision(), 400);
    assert_eq!(store.snapshot("t").records.len(), last.len());
    assert_eq!(store.watch("t", 399).err(), Some(TooOld { revision: 399, oldest: 400 }));
    assert_eq!(store.stats().events, 0);
}

#[tokio::test]
async fn a_closed_store_reads_but_does_not_write() {
    let store: Store = Disk::default().open();
    store.commit(put("a", "1", Expect::Any).into()).await.unwrap();
    let mut watch = store.watch("t", 0).unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.commit(put("a", "2", Expect::Any).into()).await, Err(CommitError::Closed)));
    assert!(matches!(store.compact(1).await, Err(CommitError::Closed)));
    assert_eq!(watch.next().await.unwrap().len(), 1);
    assert_eq!(watch.next().await.unwrap_err(), WatchEnd::Closed);
    assert!(store.get("t", "a").is_some());
}

#[tokio::test]
async fn a_watch_of_little_sleeps_through_the_rest() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let store = Disk::default().open();
    let on = |key: &str, node: &str, expect| {
        let Op::Put { table, key, value, .. } = put(key, "1", expect) else { unreachable!() };
        let terms = crate::Terms { fields: vec![("node".into(), node.into())], ..Default::default() };
        store.commit(Op::Put { table, key, value, terms, expect }.into())
    };
    store.index("t", "node");
    store.index("t", "node");
    let mut node = store.watch_only("t", 0, Interest::Field("node", "a")).unwrap();
    let mut key = store.watch_only("t", 0, Interest::Key("y")).unwrap();
    let wakes = std::sync::Arc::new(Count(Default::default()));
    let waker = wakes.clone().into();
    let mut context = std::task::Context::from_waker(&waker);
    {
        let mut next = std::pin::pin!(async { tokio::join!(node.next(), key.next()) });
        assert!(next.as_mut().poll(&mut context).is_pending());
        for n in 0..20 {
            on(&format!("x{n}"), "b", Expect::Absent).await.unwrap();
        }
        assert_eq!(wakes.0.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing concerns them");
        on("y", "a", Expect::Absent).await.unwrap();
        let (node, key) = next.await;
        let keys = |events: Vec<std::sync::Arc<crate::Event>>| {
            events.iter().map(|e| e.record.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((keys(node.unwrap()), keys(key.unwrap())), (vec!["y".to_owned()], vec!["y".to_owned()]));
    }
    // What was not for them is not lost to them, though the history has forgotten it.
    for _ in 0..40 {
        on("x0", "b", Expect::Any).await.unwrap();
    }
    assert_eq!(node.progress(), store.revision());
    let from = store.revision();
    let (mut all, _idle) = (store.watch("t", from).unwrap(), store.watch("t", from).unwrap());
    on("y", "b", Expect::Any).await.unwrap();
    let moved = node.next().await.unwrap();
    assert_eq!((moved.len(), moved[0].record.terms.field("node")), (1, "b"), "it went away from there");
    all.next().await.unwrap();
    assert_eq!((all.company(), node.company()), (2, 1));
    // What was is.
    for _ in 0..40 {
        on("y", "b", Expect::Any).await.unwrap();
    }
    assert!(matches!(key.next().await, Err(WatchEnd::TooOld(_))));
    assert_eq!(node.progress(), store.revision());
    drop((node, key));
    assert!(store.shared.read().tables["t"].topics.is_empty());
}
