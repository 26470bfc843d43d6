//! Histories of two servers under random faults, held against what etcd says happened.
//!
//! Revisions are the order of things, so no search is needed: an acknowledged write must be in etcd's history at its
//! revision, a refused one nowhere; a read gives what that history says of its revision; and nothing that began
//! after something else had ended may be of an earlier revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use store::{CommitError, EventKind, Expect, Op, Store};
use tokio::time::Instant;

use crate::cluster::{Cluster, PATIENCE, delete, put, text};

const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug)]
enum Outcome {
    Wrote(u64),
    Removed(u64),
    Refused,
    Unknown,
    /// The state as of a revision: the one that wrote it and the value.
    Read(u64, Option<(u64, String)>),
    NotRead,
}

#[derive(Debug)]
struct Done {
    begun: Instant,
    ended: Instant,
    key: &'static str,
    value: String,
    outcome: Outcome,
}

/// One client: reads, writes, removes, and writes upon what it has read.
async fn client(
    store: Store,
    number: usize,
    plan: Vec<(u8, usize)>,
    ends: Instant,
    log: Arc<Mutex<Vec<Done>>>,
) {
    for (step, (kind, key)) in plan.into_iter().cycle().enumerate() {
        if Instant::now() >= ends {
            return;
        }
        let key = KEYS[key];
        let value = format!("c{number}s{step}");
        let begun = Instant::now();
        let op = match kind {
            0..=3 => {
                let outcome = match store.consistent().await {
                    Err(_) => Outcome::NotRead,
                    Ok(_) => {
                        let snapshot = store.snapshot("things");
                        let record = snapshot.records.get(key).map(|r| (r.revision, text(r)));
                        Outcome::Read(snapshot.revision, record)
                    }
                };
                log.lock().push(Done { begun, ended: Instant::now(), key, value, outcome });
                continue;
            }
            4..=5 => put(key, &value, Expect::Any),
            6..=8 => {
                let expect =
                    store.get("things", key).map_or(Expect::Absent, |r| Expect::Revision(r.revision));
                put(key, &value, expect)
            }
            _ => delete(key, Expect::Any),
        };
        let removal = matches!(op, Op::Delete { .. });
        let outcome = match store.commit(op.into()).await {
            Ok(done) if removal => Outcome::Removed(done.revision),
            Ok(done) => Outcome::Wrote(done.revision),
            Err(CommitError::Unknown { .. }) => Outcome::Unknown,
            Err(
                CommitError::Unavailable { .. }
                | CommitError::Conflict { .. }
                | CommitError::Exists { .. }
                | CommitError::NotFound { .. },
            ) => Outcome::Refused,
            Err(other) => panic!("{other:?} is no answer"),
        };
        let ended = Instant::now();
        assert!(ended - begun < Duration::from_secs(20), "{:?} took {:?}", outcome, ended - begun);
        log.lock().push(Done { begun, ended, key, value, outcome });
    }
}

/// What etcd says happened: for each key, revision by revision, the value.
type Truth = BTreeMap<&'static str, BTreeMap<u64, Option<String>>>;

fn check(log: &[Done], truth: &Truth) {
    let mut values: BTreeSet<&str> = BTreeSet::new();
    for (_, value) in truth.values().flatten() {
        values.extend(value.as_deref().and_then(|v| v.split('@').next()));
    }
    // Ended by then, and at which revision.
    let mut points: Vec<(Instant, Instant, u64, &Done)> = Vec::new();
    for done in log {
        let key = &truth[done.key];
        let revision = match &done.outcome {
            Outcome::Wrote(revision) => {
                let expected = Some(format!("{}@{revision}", done.value));
                assert_eq!(key.get(revision), Some(&expected), "an acknowledged write is lost: {done:?}");
                *revision
            }
            Outcome::Removed(revision) => {
                assert_eq!(key.get(revision), Some(&None), "an acknowledged removal is lost: {done:?}");
                *revision
            }
            Outcome::Refused => {
                assert!(!values.contains(done.value.as_str()), "a refused write happened: {done:?}");
                continue;
            }
            Outcome::Read(at, found) => {
                let last = key.range(..=at).next_back();
                let expected = last.and_then(|(revision, value)| Some((*revision, value.clone()?)));
                assert_eq!(found, &expected, "a read of what was not so: {done:?}");
                *at
            }
            Outcome::Unknown | Outcome::NotRead => continue,
        };
        points.push((done.begun, done.ended, revision, done));
    }
    // Whatever ended before something began is not of a later revision.
    let mut by_end: Vec<_> = points.iter().map(|point| (point.1, point.2)).collect();
    by_end.sort();
    points.sort_by_key(|point| point.0);
    let (mut ended, mut highest) = (0, 0);
    for (begun, _, revision, done) in &points {
        while by_end.get(ended).is_some_and(|point| point.0 < *begun) {
            highest = highest.max(by_end[ended].1);
            ended += 1;
        }
        assert!(*revision >= highest, "older than what was known at {highest}: {done:?}");
    }
}

#[test]
fn two_servers_are_one_register_whatever_breaks() {
    let strategy = (
        prop::collection::vec(prop::collection::vec((0u8..10, 0..KEYS.len()), 40), 6),
        prop::collection::vec((0u8..5, 0usize..3, 200u64..1200), 40),
    );
    let mut runner = TestRunner::default();
    let (plans, faults) = strategy.new_tree(&mut runner).unwrap().current();
    let mut cluster = Cluster::start(3, &[]);
    let runtime = cluster.runtime();
    let log = Arc::new(Mutex::new(Vec::new()));
    let stores = runtime.block_on(async { [cluster.store().await, cluster.store().await] });
    let start = stores[0].revision();
    let observer = runtime.block_on(cluster.store());
    let mut watch = observer.watch("things", start).unwrap();
    let ends = Instant::now() + Duration::from_secs(12);
    let clients: Vec<_> = plans
        .into_iter()
        .enumerate()
        .map(|(n, plan)| runtime.spawn(client(stores[n % 2].clone(), n, plan, ends, log.clone())))
        .collect();
    // One fault at a time, so that most members live.
    for (kind, member, lasts) in faults.iter().copied() {
        if Instant::now() >= ends {
            break;
        }
        let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
        match kind {
            0 => {
                cluster.kill(member);
                pause(lasts);
                cluster.revive(member);
            }
            1 => {
                cluster.freeze(member);
                pause(lasts);
                cluster.thaw(member);
            }
            2 => {
                cluster.cable(member, false);
                pause(lasts);
                cluster.cable(member, true);
            }
            3 => {
                cluster.isolate(member, true);
                pause(lasts);
                cluster.isolate(member, false);
            }
            _ => {}
        }
        pause(lasts / 2);
    }
    let truth = runtime.block_on(async {
        for client in clients {
            client.await.expect("a client");
        }
        let last = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(revision) = observer.consistent().await {
                    break revision;
                }
            }
        });
        let last = last.await.expect("etcd is back");
        let mut truth: Truth = KEYS.into_iter().map(|key| (key, BTreeMap::new())).collect();
        while watch.progress() < last {
            for event in watch.next().await.expect("the observer missed nothing") {
                let value = (event.kind != EventKind::Deleted).then(|| text(&event.record));
                let key = KEYS.into_iter().find(|key| **key == *event.record.key).unwrap();
                truth.get_mut(key).unwrap().insert(event.revision, value);
            }
        }
        truth
    });
    let log = log.lock();
    let count = |of: fn(&Outcome) -> bool| log.iter().filter(|done| of(&done.outcome)).count();
    let (wrote, read) =
        (count(|o| matches!(o, Outcome::Wrote(_))), count(|o| matches!(o, Outcome::Read(..))));
    assert!(wrote > 20 && read > 20, "{wrote} writes and {read} reads are too few to mean anything");
    check(&log, &truth);
}
