use store::{CommitError, EventKind, Expect, Options, Store, Txn, WatchEnd};

use crate::cluster::{Cluster, delete, put, text};

#[test]
fn it_is_a_store_as_any_other() {
    let cluster = Cluster::start(1, &[]);
    cluster.run(async {
        let store = cluster.store().await;
        let start = store.revision();
        let mut watch = store.watch("things", start).unwrap();
        let made = store.commit(put("ns/a", "1", Expect::Absent).into()).await.unwrap();
        assert_eq!(made.revision, start + 1);
        let record = store.get("things", "ns/a").expect("what was written is there");
        assert_eq!((record.revision, record.created), (made.revision, made.revision));
        assert_eq!(text(&record), format!("1@{}", made.revision));
        assert_eq!(record.terms.labels[0].1.as_ref(), "ns/a");
        assert!(cluster.raw("/registry/things/ns/a").await.starts_with(b"1@"));

        let twice = store.commit(put("ns/a", "2", Expect::Absent).into()).await;
        assert!(
            matches!(twice, Err(CommitError::Exists { ref current, .. }) if **current == *record),
            "{twice:?}"
        );
        let wrong = store.commit(put("ns/a", "2", Expect::Revision(1)).into()).await;
        assert!(matches!(wrong, Err(CommitError::Conflict { expected: 1, .. })), "{wrong:?}");
        for gone in
            [put("b", "", Expect::Present), put("b", "", Expect::Revision(9)), delete("b", Expect::Any)]
        {
            let outcome = store.commit(gone.into()).await;
            assert!(matches!(outcome, Err(CommitError::NotFound { .. })), "{outcome:?}");
        }
        assert_eq!(store.revision(), made.revision, "what is refused leaves no trace");

        let both =
            Txn { ops: vec![put("ns/a", "2", Expect::Revision(made.revision)), put("b", "3", Expect::Any)] };
        let both = store.commit(both).await.unwrap();
        assert_eq!(both.records[0].created, made.revision);
        assert_eq!(both.records[1].created, both.revision);
        let half = Txn { ops: vec![put("c", "", Expect::Absent), put("b", "", Expect::Absent)] };
        assert!(matches!(store.commit(half).await, Err(CommitError::Exists { .. })));
        assert!(store.get("things", "c").is_none());
        let gone = store.commit(delete("b", Expect::Revision(both.revision)).into()).await.unwrap();
        assert_eq!(text(&gone.records[0]), format!("3@{}", gone.revision));

        let mut events = Vec::new();
        while events.len() < 4 {
            events.extend(watch.next().await.unwrap());
        }
        let seen: Vec<_> = events.iter().map(|e| (e.kind, e.revision, text(&e.record))).collect();
        let (r1, r2, r3) = (made.revision, both.revision, gone.revision);
        let expected = [
            (EventKind::Created, r1, format!("1@{r1}")),
            (EventKind::Updated, r2, format!("2@{r2}")),
            (EventKind::Created, r2, format!("3@{r2}")),
            (EventKind::Deleted, r3, format!("3@{r3}")),
        ];
        assert_eq!(seen, expected);
        assert_eq!(store.snapshot_at("things", r1).unwrap().records.len(), 1);
        assert!(store.snapshot_at("things", start - 1).is_err() || start == 0);

        // A new server knows everything but what happened before it came.
        let other = cluster.store().await;
        assert_eq!(other.revision(), store.revision());
        assert_eq!(other.get("things", "ns/a"), store.get("things", "ns/a"));
        assert!(other.watch("things", r1).is_err());
        store.close().await;
        assert_eq!(watch.next().await.unwrap_err(), WatchEnd::Closed);
        assert!(store.consistent().await.is_err());
    });
}

#[test]
fn many_records_are_read_page_by_page_and_foreign_ones_left_out() {
    let cluster = Cluster::start(1, &[]);
    cluster.run(async {
        let store = cluster.store().await;
        let writes = (0..2_300).map(|n| store.commit(put(&format!("k{n:05}"), "x", Expect::Absent).into()));
        futures::future::join_all(writes).await.into_iter().for_each(|done| drop(done.unwrap()));
        cluster.put("/registry/things/foreign", Some("no record of ours")).await;
        cluster.put("/registry/things/foreign", None).await;
        cluster.put("/registry/things/foreign", Some("no record of ours")).await;
        store.consistent().await.unwrap();
        assert_eq!(store.snapshot("things").records.len(), 2_300);
        let other = cluster.store().await;
        assert_eq!(other.snapshot("things").records, store.snapshot("things").records);
    });
}

#[test]
fn an_etcd_that_does_not_answer_is_one_sentence() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let endpoints = vec!["http://127.0.0.1:1".parse().unwrap()];
        let mut config = store::EtcdConfig::new(endpoints);
        config.patience = std::time::Duration::from_millis(400);
        let error = Store::connect(config, Options::default()).await.err().expect("nobody is there");
        let text = error.to_string();
        assert!(
            text.starts_with("cannot open the store in etcd: cannot reach http://127.0.0.1:1: "),
            "{text}"
        );
        assert!(!text.contains('\n'));
    });
}
