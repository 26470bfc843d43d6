//! Measures the store: `throughput FOLDER create|update [WRITERS] [SECONDS]`, `throughput FOLDER rss [RECORDS]`.
//!
//! The first prints commits a second and their latency, for 1 KB objects written by many writers at once (new ones,
//! or the same hundred of each writer again and again); the second what a store of that many 1 KB records keeps in
//! memory. Both print how long opening took.

use std::path::Path;
use std::time::{Duration, Instant};

use store::{Expect, Op, Options, Store, Template, Terms, Txn};

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

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, mode, ..] = &arguments[..] else {
        eprintln!(
            "usage: throughput FOLDER create|update [WRITERS] [SECONDS] | throughput FOLDER rss [RECORDS]"
        );
        std::process::exit(2);
    };
    let number = |at: usize, or: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(or);
    let before = memory("VmRSS");
    let begun = Instant::now();
    let store = Store::open(Path::new(folder), Options::default()).expect("open");
    println!("open: {:.1?}, rss {before} KB before, {} KB after", begun.elapsed(), memory("VmRSS"));

    if mode == "rss" {
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
