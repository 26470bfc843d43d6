//! Several servers on one etcd.

use std::time::Duration;

use grpc::Writer;
use store::{EtcdConfig, Expect, Interest, Options, Store, WatchEnd};

use crate::cluster::{Cluster, PATIENCE, delete, put, text, until, valued};

#[test]
fn what_one_server_answered_the_other_one_knows() {
    let cluster = Cluster::start(1, &[]);
    cluster.run(async {
        let (a, b) = (cluster.store().await, cluster.store().await);
        a.index("things", "value");
        b.index("things", "value");
        let mut revision = 0;
        for round in 0..300 {
            let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let expect = if round == 0 { Expect::Absent } else { Expect::Revision(revision) };
            revision = writer.commit(put("k", &round.to_string(), expect).into()).await.unwrap().revision;
            assert!(reader.consistent().await.unwrap() >= revision);
            let read = reader.get("things", "k").unwrap();
            assert_eq!((read.revision, text(&read)), (revision, format!("{round}@{revision}")));
            assert_eq!(valued(reader, &round.to_string()), ["k"]);
            assert_eq!(valued(reader, &(round - 1).to_string()), [""; 0]);
        }
        let gone = a.commit(delete("k", Expect::Any).into()).await.unwrap();
        b.consistent().await.unwrap();
        assert_eq!((b.get("things", "k"), valued(&b, "299")), (None, vec![]));
        assert!(b.revision() >= gone.revision);
    });
}

#[test]
fn strangers_in_the_same_etcd_do_not_hold_up_reads() {
    let cluster = Cluster::start(1, &[]);
    cluster.run(async {
        let store = cluster.store().await;
        for round in 0..5 {
            cluster.put("/elsewhere/key", Some("x")).await;
            let reads = (0..50).map(|_| store.consistent());
            let begun = tokio::time::Instant::now();
            for read in futures::future::join_all(reads).await {
                read.unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "round {round}: {:?}", begun.elapsed());
        }
        // Quiet again: no more ticks.
        let before = store.consistent().await.unwrap();
        assert_eq!(store.consistent().await.unwrap(), before);
    });
}

#[test]
fn one_of_the_servers_compacts() {
    let cluster = Cluster::start(1, &[]);
    cluster.run(async {
        let config = || EtcdConfig { compact_every: Some(Duration::from_millis(200)), ..cluster.config() };
        let a = Store::connect(config(), Options::default()).await.unwrap();
        let b = Store::connect(config(), Options::default()).await.unwrap();
        for n in 0..20 {
            a.commit(put("k", &n.to_string(), Expect::Any).into()).await.unwrap();
        }
        until("the oldest revision is gone", async || {
            let mut old = Writer::new();
            old.bytes(1, b"/registry/things/k").number(4, 2);
            let answer = cluster.call(0, "/etcdserverpb.KV/Range", &old.finish()).await;
            answer.is_err_and(|e| e.to_string().contains("compacted"))
        })
        .await;
        b.consistent().await.unwrap();
        assert_eq!(b.get("things", "k"), a.get("things", "k"));
    });
}

#[test]
fn a_watch_that_missed_what_was_compacted_ends_and_the_store_is_whole_again() {
    let mut cluster = Cluster::start(1, &[]);
    let runtime = cluster.runtime();
    let (store, watches) = runtime.block_on(async {
        let store = cluster.store().await;
        store.index("things", "value");
        for key in ["old", "new"] {
            store.commit(put(key, "1", Expect::Absent).into()).await.unwrap();
        }
        assert_eq!(valued(&store, "1"), ["new", "old"]);
        let watch = |interest| store.watch_only("things", store.revision(), interest).unwrap();
        let watches = [Interest::All, Interest::Key("other"), Interest::Field("value", "1")].map(watch);
        (store, watches)
    });
    let old = store.revision();
    // While this server cannot see it, and over connections that are gone for good …
    cluster.cable(0, false);
    cluster.kill(0);
    cluster.revive(0);
    cluster.run_at(0, || async {
        cluster.leader().await;
        cluster.put("/registry/things/old", None).await;
        for _ in 0..5 {
            cluster.put("/registry/other", Some("x")).await;
        }
        let mut compact = Writer::new();
        compact.number(1, old + 4);
        cluster.call(0, "/etcdserverpb.KV/Compact", &compact.finish()).await.unwrap();
    });
    cluster.cable(0, true);
    runtime.block_on(async {
        until("the store follows", async || store.consistent().await.is_ok()).await;
        assert_eq!(store.get("things", "old"), None);
        assert_eq!(valued(&store, "1"), ["new"]);
        for mut watch in watches {
            let end = loop {
                match tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch ends") {
                    Ok(_) => {}
                    Err(end) => break end,
                }
            };
            assert!(matches!(end, WatchEnd::TooOld(_)), "{end:?}");
        }
        store.commit(put("more", "1", Expect::Absent).into()).await.unwrap();
        store.consistent().await.unwrap();
        assert_eq!(valued(&store, "1"), ["more", "new"]);
        until("it is well again", async || store.failure().is_none()).await;
    });
}
