//! Measures the store: `commits FOLDER create|update [WRITERS] [SECONDS]`, `commits FOLDER rss|nodes [RECORDS]`.
//!
//! The first prints commits a second and their latency, for 1 KB objects written by many writers at once (new ones,
//! or the same hundred of each writer again and again); the second what a store of that many 1 KB records keeps in
//! memory. The third puts that many records on nodes, 30 on each, and prints what an index of them costs, how fast it
//! finds those of a node, and how fast all nodes follow their own. All print how long opening took.

use std::path::Path;
use std::time::{Duration, Instant};

use store::{Expect, Interest, Op, Options, Store, Template, Terms, Txn};

fn put(writer: usize, number: u64, expect: Expect) -> Txn {
    let text = |text: &str| -> Box<str> { text.into() };
    Txn::from(Op::Put {
        table: "configmaps".into(),
        key: format!("default/writer-{writer}-{number}").into(),
        value: Template { bytes: vec![b'x'; 1024], at: 512 },
        terms: Terms { labels: vec![(text("app"), text("bench"))], ..Terms::default() },
        expect,
    })
}

fn create(writer: usize, number: u64) -> Txn {
    put(writer, number, Expect::Absent)
}

fn update(writer: usize, number: u64) -> Txn {
    put(writer, number % 100, Expect::Any)
}

fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

/// Writes with many writers at once and gives the time each commit took.
async fn write(
    store: &Store,
    writers: usize,
    txn: fn(usize, u64) -> Txn,
    until: impl Fn(u64) -> bool + Clone + Send + 'static,
) -> Vec<Duration> {
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, until) = (store.clone(), until.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !until(took.len() as u64) {
                    let begun = Instant::now();
                    store.commit(txn(writer, took.len() as u64)).await.expect("commit");
                    took.push(begun.elapsed());
                }
                took
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("writer"));
    }
    all.sort();
    all
}

const TABLE: &str = "pods";
const FIELD: &str = "spec.nodeName";

fn node(number: u64) -> String {
    format!("node-{number}")
}

fn place(number: u64, nodes: u64) -> Op {
    Op::Put {
        table: TABLE.into(),
        key: format!("namespace-{}/deployment-{}-{number}", number % 100, number % 1000).into(),
        value: Template { bytes: vec![b'x'; 1024], at: 512 },
        terms: Terms {
            labels: vec![("app".into(), "bench".into())],
            fields: vec![
                (FIELD.into(), node(number % nodes).into()),
                ("status.phase".into(), "Running".into()),
            ],
            ..Terms::default()
        },
        expect: Expect::Any,
    }
}

/// The objects of nodes: by a walk, by the index, and as every node follows its own.
async fn nodes(store: &Store, records: u64) {
    let nodes = records.div_ceil(30);
    for from in (0..records).step_by(500) {
        let ops = (from..records.min(from + 500)).map(|number| place(number, nodes)).collect();
        store.commit(Txn { ops }).await.expect("commit");
    }
    let (before, begun) = (memory("VmRSS"), Instant::now());
    store.index(TABLE, FIELD);
    println!("index: {:.1?}, {} KB", begun.elapsed(), memory("VmRSS").saturating_sub(before));
    let snapshot = store.snapshot(TABLE);
    let begun = Instant::now();
    let walked = snapshot.scan("", None).filter(|record| record.terms.field(FIELD) == node(7)).count();
    let walk = begun.elapsed();
    let begun = Instant::now();
    let found = snapshot.scan_field(FIELD, &node(7), "", None).map_or(0, Iterator::count);
    println!("{walked} by a walk: {walk:.1?}; {found} by the index: {:.1?}", begun.elapsed());
    for watch_all in [false, true] {
        let tasks: Vec<_> = (0..nodes)
            .map(|number| {
                let name = node(number);
                let interest = if watch_all { Interest::All } else { Interest::Field(FIELD, &name) };
                let mut watch = store.watch_only(TABLE, store.revision(), interest).expect("watch");
                tokio::spawn(async move {
                    let mut seen = 0;
                    while seen == 0 {
                        let events = watch.next().await.expect("events");
                        seen += events.iter().filter(|e| e.record.terms.field(FIELD) == name).count();
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        for number in 0..nodes {
            store.commit(place(number, nodes).into()).await.expect("commit");
        }
        for task in tasks {
            task.await.expect("watcher");
        }
        let what = if watch_all { "everything" } else { "its own" };
        println!("{nodes} events, each node watches {what}: {:.1?}", begun.elapsed());
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, mode, ..] = &arguments[..] else {
        eprintln!(
            "usage: commits FOLDER create|update [WRITERS] [SECONDS] | commits FOLDER rss|nodes [RECORDS]"
        );
        std::process::exit(2);
    };
    let number = |at: usize, or: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(or);
    let before = memory("VmRSS");
    let begun = Instant::now();
    let store = Store::open(Path::new(folder), Options::default()).expect("open");
    println!("open: {:.1?}, rss {before} KB before, {} KB after", begun.elapsed(), memory("VmRSS"));

    if mode == "nodes" {
        nodes(&store, number(2, 150_000)).await;
    } else if mode == "rss" {
        let records = number(2, 10_000);
        write(&store, 32, create, move |done| done >= records.div_ceil(32)).await;
        println!("{:?}", store.stats());
    } else {
        let (writers, seconds) = (number(2, 32), number(3, 5));
        let txn = if mode == "update" { update } else { create };
        let begun = Instant::now();
        let until = begun + Duration::from_secs(seconds);
        let took = write(&store, writers as usize, txn, move |_| Instant::now() >= until).await;
        let (stats, elapsed) = (store.stats(), begun.elapsed());
        let percentile = |of: usize| took.get(took.len() * of / 1000).copied().unwrap_or_default();
        println!(
            "{writers} writers: {:.0} commits/s, {:.1} a batch; p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, most {:.1?}",
            took.len() as f64 / elapsed.as_secs_f64(),
            stats.commits as f64 / stats.batches.max(1) as f64,
            percentile(500),
            percentile(990),
            percentile(999),
            took.last().copied().unwrap_or_default(),
        );
    }
    println!("rss {} KB, peak {} KB", memory("VmRSS"), memory("VmHWM"));
    let begun = Instant::now();
    store.close().await;
    println!("close: {:.1?}", begun.elapsed());
}
