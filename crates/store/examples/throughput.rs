//! Measures the store: `throughput FOLDER [WRITERS] [SECONDS]`, and `throughput FOLDER rss [RECORDS]`.
//!
//! The first prints commits and bytes a second of 1 KB creates by many writers at once, the second what a store of
//! that many 1 KB records keeps in memory, and how long opening it takes.

use std::path::Path;
use std::time::{Duration, Instant};

use store::{Expect, Op, Options, Store, Template, Terms, Txn};

fn create(writer: usize, number: u64) -> Txn {
    let text = |text: &str| -> Box<str> { text.into() };
    Txn::from(Op::Put {
        table: "configmaps".into(),
        key: format!("default/writer-{writer}-{number}").into(),
        value: Template { bytes: vec![b'x'; 1024], at: 512 },
        terms: Terms { labels: vec![(text("app"), text("bench"))], ..Terms::default() },
        expect: Expect::Absent,
    })
}

fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

async fn write(store: &Store, writers: usize, until: impl Fn(u64) -> bool + Clone + Send + 'static) -> u64 {
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, until) = (store.clone(), until.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !until(done) {
                    store.commit(create(writer, done)).await.expect("commit");
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.expect("writer");
    }
    total
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.first() else {
        eprintln!("usage: throughput FOLDER [WRITERS] [SECONDS] | throughput FOLDER rss [RECORDS]");
        std::process::exit(2);
    };
    let number = |at: usize, or: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(or);
    let before = memory("VmRSS");
    let begun = Instant::now();
    let store = Store::open(Path::new(folder), Options::default()).expect("open");
    println!("open: {:.1?}, rss {} KB before, {} KB after", begun.elapsed(), before, memory("VmRSS"));

    if arguments.get(1).is_some_and(|word| word == "rss") {
        let records = number(2, 10_000);
        write(&store, 32, move |done| done >= records.div_ceil(32)).await;
        println!("{:?}, rss {} KB, peak {} KB", store.stats(), memory("VmRSS"), memory("VmHWM"));
    } else {
        let (writers, seconds) = (number(1, 32) as usize, number(2, 5));
        let begun = Instant::now();
        let until = begun + Duration::from_secs(seconds);
        let total = write(&store, writers, move |_| Instant::now() >= until).await;
        let stats = store.stats();
        println!(
            "{writers} writers: {:.0} commits/s, {:.1} a batch, rss {} KB",
            total as f64 / begun.elapsed().as_secs_f64(),
            stats.commits as f64 / stats.batches.max(1) as f64,
            memory("VmRSS")
        );
    }
    let begun = Instant::now();
    store.close().await;
    println!("close: {:.1?}", begun.elapsed());
}
