//! Members die, freeze, lose their cable or their disk's last bytes.

use std::time::Duration;

use grpc::Writer;
use store::{CommitError, Expect, Store};
use tokio::time::Instant;

use crate::cluster::{self, Cluster, delete, put, until};

/// Writes until it works; says how long that took. Whatever fails meanwhile must fail soon, and clearly.
async fn write(store: &Store, key: &str) -> u64 {
    let ends = Instant::now() + Duration::from_secs(60);
    loop {
        let begun = Instant::now();
        let error = match store.commit(put(key, "x", Expect::Any).into()).await {
            Ok(done) => return done.revision,
            Err(error) => error,
        };
        assert!(begun.elapsed() < Duration::from_secs(15), "{error} only after {:?}", begun.elapsed());
        assert!(
            matches!(error, CommitError::Unknown { .. } | CommitError::Unavailable { .. }),
            "{error:?} is no answer to a fault"
        );
        assert!(Instant::now() < ends, "no recovery: {error}");
    }
}

async fn read(store: &Store, key: &str) -> u64 {
    let ends = Instant::now() + Duration::from_secs(60);
    loop {
        match store.consistent().await {
            Ok(_) => return store.get("things", key).map_or(0, |record| record.revision),
            Err(error) => assert!(Instant::now() < ends, "no recovery: {error}"),
        }
    }
}

#[test]
fn a_leader_dies_and_comes_back() {
    let mut cluster = Cluster::start(3, &[]);
    let runtime = cluster.runtime();
    let (a, b) = runtime.block_on(async { (cluster.store().await, cluster.store().await) });
    for round in 0..2 {
        let leader = runtime.block_on(cluster.leader());
        cluster.kill(leader);
        runtime.block_on(async {
            let key = format!("k{round}");
            let written = write(&a, &key).await;
            assert!(read(&b, &key).await >= written);
            assert!(read(&a, &key).await >= written);
        });
        cluster.revive(leader);
    }
}

#[test]
fn all_members_die_and_come_back() {
    let mut cluster = Cluster::start(3, &[]);
    let runtime = cluster.runtime();
    let store = runtime.block_on(cluster.store());
    let before = runtime.block_on(write(&store, "before"));
    (0..3).for_each(|member| cluster.kill(member));
    runtime.block_on(async {
        let begun = Instant::now();
        let write = store.commit(put("meanwhile", "x", Expect::Any).into()).await.unwrap_err();
        assert!(matches!(write, CommitError::Unavailable { .. } | CommitError::Unknown { .. }), "{write:?}");
        let stale = store.consistent().await.unwrap_err().to_string();
        assert!(
            stale.starts_with("cannot tell whether what is known is the latest: cannot reach http"),
            "{stale}"
        );
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        assert_eq!(store.get("things", "before").map(|r| r.revision), Some(before), "memory is still there");
        until("the failure is told", async || store.failure().is_some()).await;
    });
    (0..3).for_each(|member| cluster.revive(member));
    runtime.block_on(async {
        let after = write(&store, "after").await;
        assert_eq!(read(&store, "after").await, after);
        assert_eq!(read(&store, "before").await, before);
        until("all is well", async || store.failure().is_none()).await;
    });
}

#[test]
fn a_frozen_or_unplugged_or_isolated_leader_is_left() {
    let cluster = Cluster::start(3, &[]);
    cluster.run(async {
        let (a, b) = (cluster.store().await, cluster.store().await);
        type Fault = fn(&Cluster, usize, bool);
        let faults: [(&str, Fault); 3] = [
            ("frozen", |c, m, on| if on { c.freeze(m) } else { c.thaw(m) }),
            ("unplugged", |c, m, on| c.cable(m, !on)),
            ("isolated", Cluster::isolate),
        ];
        for (name, fault) in faults {
            let leader = cluster.leader().await;
            fault(&cluster, leader, true);
            let written = write(&a, name).await;
            assert!(read(&b, name).await >= written, "{name}");
            fault(&cluster, leader, false);
            let written = write(&b, name).await;
            assert!(read(&a, name).await >= written, "{name}");
        }
    });
}

#[test]
fn a_full_etcd_refuses_clearly_and_serves_reads() {
    let cluster = Cluster::start(1, &["--quota-backend-bytes=6000000"]);
    cluster.run(async {
        let store = cluster.store().await;
        let large = "x".repeat(400_000);
        let mut last = 0;
        let refusal = loop {
            match store.commit(put("big", &large, Expect::Any).into()).await {
                Ok(done) => last = done.revision,
                Err(error) => break error,
            }
        };
        assert!(matches!(refusal, CommitError::Unavailable { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains("database space exceeded"), "{refusal}");
        // Reads go on; removals, too.
        assert_eq!(read(&store, "big").await, last);
        store.commit(delete("big", Expect::Revision(last)).into()).await.unwrap();
        assert_eq!(read(&store, "big").await, 0);
        // What an administrator does then.
        let mut compact = Writer::new();
        compact.number(1, store.revision()).flag(2, true);
        cluster.call(0, "/etcdserverpb.KV/Compact", &compact.finish()).await.unwrap();
        cluster.call(0, "/etcdserverpb.Maintenance/Defragment", &[]).await.unwrap();
        let alarms = cluster.call(0, "/etcdserverpb.Maintenance/Alarm", &[]).await.unwrap();
        let mut disarm = Writer::new();
        disarm.number(1, 2).number(2, cluster::member_of(&alarms)).number(3, 1);
        cluster.call(0, "/etcdserverpb.Maintenance/Alarm", &disarm.finish()).await.unwrap();
        let written = write(&store, "small").await;
        assert_eq!(read(&store, "small").await, written);
    });
}
