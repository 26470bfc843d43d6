//! A process that writes is killed at some moment, again and again on the same store.
//!
//! What it writes follows from the task and a number, so the test knows what must be there from the last number
//! that was acknowledged: exactly that, or that and the one transaction the task had under way, whole.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{delete, put};
use store::{Expect, Op, Options, Store, Txn};

const FOLDER: &str = "STORE_CRASH_FOLDER";
const SCALE: &str = "STORE_CRASH_SCALE";
/// How many times each store's writer is killed.
const ROUNDS: u64 = 50;
/// For each store how large its values are. The largest make the journal change files.
const SCALES: [usize; 4] = [25, 25, 250, 2500];
const TASKS: u64 = 4;
const KEYS: u64 = 20;

/// Small, so that flushes and compactions are under way when the end comes.
fn options() -> Options {
    Options {
        history_events: 400,
        garbage: 20,
        write_buffer_bytes: 32 << 10,
        reserve_bytes: 0,
        ..Options::default()
    }
}

fn key(task: u64, number: u64) -> String {
    format!("{task}-{}", number % KEYS)
}

fn value(task: u64, number: u64, scale: usize) -> String {
    format!("{task} {number} {} ", "x".repeat((number % 13) as usize * scale))
}

/// The keys that the task's transaction of that number writes, and perhaps the one it removes.
fn plan(task: u64, number: u64) -> (String, Option<String>) {
    let (written, removed) = (key(task, number * 7), key(task, number * 3 + 1));
    (written.clone(), (number.is_multiple_of(3) && written != removed).then_some(removed))
}

/// Always in two tables at once, and the number in a third.
fn transaction(store: &Store, task: u64, number: u64, scale: usize) -> Txn {
    let value = value(task, number, scale);
    let (written, removed) = plan(task, number);
    let mut ops: Vec<Op> = vec![put("number", &task.to_string(), &value, Expect::Any)];
    for table in ["a", "b"] {
        ops.push(put(table, &written, &value, Expect::Any));
        if let Some(removed) = removed.as_ref().filter(|key| store.get(table, key).is_some()) {
            ops.push(delete(table, removed, Expect::Present));
        }
    }
    Txn { ops }
}

/// Not a test: what the killed process does.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let scale = std::env::var(SCALE).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let say = |line: String| std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        say("\nbegun\n".to_owned());
        let store = Store::open(Path::new(&folder), options()).unwrap();
        say("opened\n".to_owned());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in last(&store, task) + 1.. {
                        let done = store.commit(transaction(&store, task, number, scale)).await.unwrap();
                        say(format!("ack {task} {number} {}\n", done.revision));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// The number of the task's last transaction in the store.
fn last(store: &Store, task: u64) -> u64 {
    let Some(record) = store.get("number", &task.to_string()) else { return 0 };
    let value = String::from_utf8_lossy(&record.value).into_owned();
    value.split(' ').nth(1).unwrap().parse().unwrap()
}

/// For each task and key the number and the revision that wrote it.
type Model = BTreeMap<String, u64>;

#[test]
fn what_was_acknowledged_survives_kill_at_any_moment() {
    let (mut acknowledged, mut under_way) = (0, 0);
    for (seed, scale) in (20_260_501..).zip(SCALES) {
        let (acks, more) = kill_again_and_again(seed, scale);
        acknowledged += acks;
        under_way += more;
    }
    println!("{acknowledged} acknowledged, {under_way} more were there");
    assert!(acknowledged > 5_000 && under_way > 0, "{acknowledged} {under_way}");
}

/// How many transactions were acknowledged, and how many were there though they were not.
fn kill_again_and_again(mut seed: u64, scale: usize) -> (usize, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut numbers) = (Model::new(), [0; TASKS as usize]);
    let (mut acknowledged, mut under_way) = (0, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut revision = 0;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some rounds end while the store is being opened.
        let lines = if round % 10 == 0 { (seed >> 33) % 4 } else { (seed >> 33) % 150 };
        let acks = killed_after(folder.path(), scale, lines as usize, seed >> 50);
        acknowledged += acks.len();

        let store = Store::open(folder.path(), options()).unwrap();
        let mut reached = numbers;
        for (task, number, _) in &acks {
            assert_eq!(*number, reached[*task as usize] + 1, "acknowledged out of order");
            reached[*task as usize] = *number;
        }
        for task in 0..TASKS {
            let (last, acknowledged) = (last(&store, task), reached[task as usize]);
            assert!(last == acknowledged || last == acknowledged + 1, "{last}, acknowledged {acknowledged}");
            under_way += last - acknowledged;
            for number in numbers[task as usize] + 1..=last {
                let (written, removed) = plan(task, number);
                model.insert(written, number);
                removed.map(|key| model.remove(&key));
            }
            numbers[task as usize] = last;
        }
        check(&store, &model, scale);
        check_order(&runtime, &store, revision, &acks);
        revision = store.revision();
        assert_eq!(revision, numbers.iter().sum::<u64>());
        runtime.block_on(store.close());
    }
    (acknowledged, under_way)
}

/// Runs the writer, ends it some moments after it said so many lines, and gives what it acknowledged.
fn killed_after(folder: &Path, scale: usize, lines: usize, moments: u64) -> Vec<(u64, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(SCALE, scale.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut said, mut line) = (Vec::new(), String::new());
    let mut read = |line: &mut String| {
        line.clear();
        output.read_line(line).unwrap() > 0 && line.ends_with('\n')
    };
    while said.len() < lines && read(&mut line) {
        said.push(line.clone());
    }
    for _ in 0..moments * 16 {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while read(&mut line) {
        said.push(line.clone());
    }
    let ack = |line: &String| {
        let mut words = line.strip_prefix("ack ")?.split_whitespace().map(|word| word.parse().unwrap());
        Some((words.next()?, words.next()?, words.next()?))
    };
    said.iter().filter_map(ack).collect()
}

/// Both tables hold what the model says, and what one transaction wrote has one revision.
fn check(store: &Store, model: &Model, scale: usize) {
    let (a, b) = (store.snapshot("a"), store.snapshot("b"));
    assert_eq!((a.records.len(), b.records.len()), (model.len(), model.len()));
    for (key, number) in model {
        let task: u64 = key.split('-').next().unwrap().parse().unwrap();
        let (a, b) = (&a.records[&**key], &b.records[&**key]);
        assert_eq!((a.revision, a.created), (b.revision, b.created), "{key}");
        let expected = format!("{}@{}", value(task, *number, scale), a.revision);
        for record in [a, b] {
            assert!(record.value == expected.as_bytes(), "{key}: {record:?} is not number {number}");
        }
    }
}

/// Since the last round each revision happened once, and those acknowledged were what was acknowledged.
fn check_order(runtime: &tokio::runtime::Runtime, store: &Store, since: u64, acks: &[(u64, u64, u64)]) {
    let mut watch = store.watch("number", since).expect("the history is long enough");
    let mut seen = BTreeMap::new();
    while watch.progress() < store.revision() {
        for event in runtime.block_on(watch.next()).unwrap() {
            assert_eq!(event.revision, since + seen.len() as u64 + 1);
            let text = String::from_utf8_lossy(&event.record.value).into_owned();
            let mut words = text.split(' ').map(|word| word.parse::<u64>());
            let (task, number) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
            seen.insert(event.revision, (task, number));
        }
    }
    for (task, number, revision) in acks {
        assert_eq!(seen.get(revision), Some(&(*task, *number)));
    }
}
