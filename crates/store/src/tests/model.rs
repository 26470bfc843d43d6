//! Random transactions against a model that keeps every version of everything.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::disk::Disk;
use super::{text, tight};
use crate::{
    CommitError, EventKind, Expect, Interest, Op, Options, Revision, Snapshot, Store, Template, Terms, Txn,
    Watch, WatchEnd,
};

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(bool, u8, u8, Wish)>),
    Reopen,
    Compact(u8),
    Check,
}

/// What an operation expects, relative to what is there.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Absent,
    Present,
    Current,
    Stale,
    Any,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wish = prop_oneof![
        1 => Just(Wish::Absent), 1 => Just(Wish::Present), 3 => Just(Wish::Current), 1 => Just(Wish::Stale),
        6 => Just(Wish::Any),
    ];
    let op = (prop::bool::weighted(0.75), 0..2u8, 0..6u8, wish);
    let step = prop_oneof![
        12 => prop::collection::vec(op, 1..4).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        1 => any::<u8>().prop_map(Step::Compact),
        2 => Just(Step::Check),
    ];
    prop::collection::vec(step, 1..60)
}

type Rows = BTreeMap<String, (Revision, Revision, String)>;

/// Every state there ever was, by revision: table, then key, then created, revision, value.
struct Model {
    states: Vec<[Rows; 2]>,
    events: Vec<(usize, Revision, EventKind, String, String)>,
}

const TABLES: [&str; 2] = ["s", "t"];

/// The values of the field that is indexed, and one that nothing has.
const NODES: [&str; 4] = ["", "a", "b", "none"];

/// Where a write of that revision puts an object.
fn node(revision: Revision, key: &str) -> &'static str {
    NODES[(revision as usize / 2 + key.len() + usize::from(key.as_bytes()[4])) % 3]
}

/// What is found by the index is what a walk finds.
fn check_index(snapshot: &Snapshot) {
    for value in NODES {
        for (prefix, after) in
            [("", None), ("key-", None), ("key-", Some("key-2")), ("key-3", None), ("", Some("key-4"))]
        {
            let walked = snapshot.scan(prefix, after).filter(|r| r.terms.field("node") == value);
            let found = snapshot.scan_field("node", value, prefix, after).expect("it is indexed");
            assert!(found.eq(walked), "{value:?} from {prefix:?} after {after:?}");
        }
    }
}

impl Model {
    fn now(&self) -> &[Rows; 2] {
        self.states.last().expect("there is a first state")
    }

    /// What the transaction shall do, or nothing if it shall be refused.
    fn apply(&mut self, ops: &[(bool, u8, u8, Wish)]) -> (Txn, bool) {
        let mut next = self.now().clone();
        let revision = self.states.len() as u64;
        let (mut txn, mut events, mut good) = (Txn::default(), Vec::new(), true);
        let mut seen = Vec::new();
        for (is_put, table, key, wish) in ops {
            let (table, name) = (usize::from(*table), format!("key-{key}"));
            good &= !seen.contains(&(table, name.clone()));
            seen.push((table, name.clone()));
            let current = self.now()[table].get(&name).cloned();
            let (expect, holds) = match (wish, &current) {
                (Wish::Absent, current) => (Expect::Absent, current.is_none()),
                (Wish::Present, current) => (Expect::Present, current.is_some()),
                (Wish::Current, Some((_, revision, _))) => (Expect::Revision(*revision), true),
                (Wish::Current | Wish::Stale, None) => (Expect::Revision(1), false),
                (Wish::Stale, Some((_, revision, _))) => (Expect::Revision(revision + 1), false),
                (Wish::Any, _) => (Expect::Any, true),
            };
            good &= holds && (*is_put || current.is_some());
            let value = format!("{revision}.{}", txn.ops.len());
            let template = Template { at: 2, bytes: format!("r={}{value}", ' ').into_bytes() };
            let written = format!("r={revision} {value}");
            let table_name = TABLES[table].into();
            if *is_put {
                let created = current.as_ref().map_or(revision, |(created, ..)| *created);
                let kind = if current.is_some() { EventKind::Updated } else { EventKind::Created };
                next[table].insert(name.clone(), (created, revision, written.clone()));
                events.push((table, revision, kind, name.clone(), written));
                let node = node(revision, &name);
                let fields = if node.is_empty() { vec![] } else { vec![("node".into(), node.into())] };
                let terms = Terms { owners: vec![value.into()], fields, ..Terms::default() };
                txn.ops.push(Op::Put { table: table_name, key: name.into(), value: template, terms, expect });
            } else {
                next[table].remove(&name);
                // Every other removal tells a last state of its own.
                let own = key % 2 == 0;
                let last = if own { written } else { current.map(|(.., value)| value).unwrap_or_default() };
                events.push((table, revision, EventKind::Deleted, name.clone(), last));
                let value = own.then_some(template);
                txn.ops.push(Op::Delete { table: table_name, key: name.into(), value, expect });
            }
        }
        if good {
            self.states.push(next);
            self.events.extend(events);
        }
        (txn, good)
    }

    fn check(&self, store: &Store) {
        let latest = self.states.len() as u64 - 1;
        assert_eq!(store.revision(), latest);
        for (table, name) in TABLES.iter().enumerate() {
            // For one of the tables it has been there from the start.
            store.index(name, "node");
            check_index(&store.snapshot(name));
            let mut oldest = None;
            for revision in 0..=latest {
                match store.snapshot_at(name, revision) {
                    Ok(snapshot) => {
                        assert_eq!(snapshot.revision, revision);
                        check_index(&snapshot);
                        let found: Rows = snapshot
                            .records
                            .values()
                            .map(|r| (r.key.to_string(), (r.created, r.revision, text(r))))
                            .collect();
                        assert_eq!(found, self.states[revision as usize][table], "{name} at {revision}");
                        oldest = oldest.or(Some(revision));
                    }
                    Err(old) => assert!(oldest.is_none() && old.oldest > revision, "{old}"),
                }
            }
            assert!(oldest.is_some(), "even the present is too old");
        }
    }

    /// What a watch from there gives.
    fn after(&self, table: usize, from: Revision) -> Vec<(Revision, EventKind, String, String)> {
        self.some_after(table, from, Interest::All)
    }

    fn some_after(
        &self,
        table: usize,
        from: Revision,
        interest: Interest<'_>,
    ) -> Vec<(Revision, EventKind, String, String)> {
        let concerns = |revision: Revision, kind: EventKind, name: &str| {
            let before = self.states[revision as usize - 1][table].get(name);
            match interest {
                Interest::All => true,
                Interest::Key(key) => key == name,
                Interest::Field(_, value) => {
                    before.is_some_and(|(_, before, _)| node(*before, name) == value)
                        || (kind != EventKind::Deleted && node(revision, name) == value)
                }
            }
        };
        let of = self.events.iter().filter(|(t, revision, kind, key, _)| {
            *t == table && *revision > from && concerns(*revision, *kind, key)
        });
        of.map(|(_, r, kind, key, value)| (*r, *kind, key.clone(), value.clone())).collect()
    }
}

/// All that a watch has to give until the present.
async fn drain(
    watch: &mut Watch,
    until: Revision,
) -> Result<Vec<(Revision, EventKind, String, String)>, WatchEnd> {
    let mut seen = Vec::new();
    while watch.progress() < until {
        for event in watch.next().await? {
            assert_eq!(event.record.revision, event.revision);
            assert_eq!(event.previous.is_none(), event.kind == EventKind::Created);
            seen.push((event.revision, event.kind, event.record.key.to_string(), text(&event.record)));
        }
    }
    Ok(seen)
}

async fn run(steps: Vec<Step>, open: impl Fn() -> Store) {
    let mut model = Model { states: vec![Default::default()], events: Vec::new() };
    let mut store = open();
    // A watch that lives on, and how far it has read.
    let mut live = store.watch("t", 0).unwrap();
    let mut read = 0;
    // The same of watches that want little.
    let few = [Interest::Field("node", "a"), Interest::Field("node", ""), Interest::Key("key-1")];
    let watch_few = |store: &Store, from| few.map(|want| store.watch_only("t", from, want).unwrap());
    store.index("t", "node");
    let mut live_few = watch_few(&store, 0);
    let mut read_few = 0;
    for step in steps {
        match step {
            Step::Commit(ops) => {
                let (txn, good) = model.apply(&ops);
                let outcome = store.commit(txn).await;
                match outcome {
                    Ok(done) => {
                        assert!(good, "{ops:?} should have been refused");
                        assert_eq!((done.revision, done.records.len()), (store.revision(), ops.len()));
                    }
                    Err(CommitError::Io(error)) => panic!("{error}"),
                    Err(error) => assert!(!good, "{ops:?}: {error}"),
                }
            }
            Step::Reopen => {
                store.close().await;
                store = open();
                store.index("t", "node");
                model.check(&store);
                read_few = store.revision();
                live_few = watch_few(&store, read_few);
                live = match store.watch("t", read) {
                    Ok(watch) => watch,
                    Err(_) => {
                        read = store.revision();
                        store.watch("t", read).unwrap()
                    }
                };
            }
            Step::Compact(back) => {
                store.compact(store.revision().saturating_sub(u64::from(back) % 16)).await.unwrap();
            }
            Step::Check => {
                let latest = store.revision();
                match drain(&mut live, latest).await {
                    Ok(seen) => assert_eq!(seen, model.after(1, read)),
                    Err(WatchEnd::TooOld(_)) => live = store.watch("t", latest).unwrap(),
                    Err(WatchEnd::Closed) => panic!("closed"),
                }
                read = latest;
                for (watch, want) in live_few.iter_mut().zip(few) {
                    let wanted = model.some_after(1, read_few, want);
                    match drain(watch, latest).await {
                        Ok(seen) => assert_eq!(seen, wanted),
                        Err(WatchEnd::TooOld(_)) => {
                            assert!(!wanted.is_empty(), "nothing was lost");
                            *watch = store.watch_only("t", latest, want).unwrap();
                        }
                        Err(WatchEnd::Closed) => panic!("closed"),
                    }
                }
                read_few = latest;
                for (table, name) in TABLES.iter().enumerate() {
                    for from in 0..=latest {
                        let Ok(mut watch) = store.watch(name, from) else { continue };
                        assert_eq!(drain(&mut watch, latest).await, Ok(model.after(table, from)));
                        let wants =
                            few.into_iter().filter(|want| table == 1 || matches!(want, Interest::Key(_)));
                        for want in wants {
                            let mut watch = store.watch_only(name, from, want).unwrap();
                            assert_eq!(
                                drain(&mut watch, latest).await,
                                Ok(model.some_after(table, from, want))
                            );
                        }
                    }
                }
            }
        }
    }
    model.check(&store);
    store.close().await;
    let store = open();
    model.check(&store);
    store.close().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open_at(path: &Path, options: Options) -> Store {
    Store::open(path, options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in steps()) {
        let disk = Disk::default();
        runtime().block_on(run(steps, || disk.open()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, failure_persistence: None, max_shrink_iters: 50, ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_on_disk_does_what_the_model_does(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        runtime().block_on(run(steps, || open_at(folder.path(), tight())));
    }
}
