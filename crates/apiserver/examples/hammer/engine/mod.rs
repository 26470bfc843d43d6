//! Seeded sessions of mutated requests against one API server, and a watch over what comes of them.
//!
//! A session is one object's life, told by its seed: create, then reads, changes of all sorts, reviews and paths, then
//! delete. Most of its requests are damaged on the way. What no answer may be is in [`verdict`].

pub(crate) mod arbitrary;
mod corpus;
mod mutate;
pub(crate) mod samples;
mod server;
mod session;
mod shot;
mod verdict;

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use server::Target;

/// What is to be done.
pub struct Settings {
    pub requests: u64,
    pub threads: usize,
    pub seed: u64,
    /// Print every request.
    pub show: bool,
    /// The seeds under way are written here, for what takes the whole process down.
    pub trace: Option<PathBuf>,
    /// The store's parent folder.
    pub folder: Option<PathBuf>,
    /// How long one request may take.
    pub most: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            requests: 100_000,
            threads: 1,
            seed: 1,
            show: false,
            trace: None,
            folder: None,
            most: Duration::from_secs(1),
        }
    }
}

/// What came of it.
pub struct Report {
    pub requests: u64,
    pub mutated: u64,
    pub taken: u64,
    pub took: Duration,
    pub slowest: (Duration, String),
    pub rss: (u64, u64),
    pub codes: Vec<(u16, u64)>,
    pub failures: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests ({} of them damaged, {} sent in vain) in {:.1} s: {:.0}/s",
            self.requests,
            self.mutated,
            self.requests - self.taken,
            self.took.as_secs_f64(),
            self.requests as f64 / self.took.as_secs_f64().max(0.001)
        )?;
        writeln!(f, "slowest: {:.1} ms: {}", self.slowest.0.as_secs_f64() * 1e3, self.slowest.1)?;
        writeln!(f, "least RSS: {} kB early, {} kB late", self.rss.0, self.rss.1)?;
        writeln!(f, "answers: {:?}", self.codes)?;
        for failure in &self.failures {
            writeln!(f, "FAILURE {failure}")?;
        }
        write!(f, "{} failures", self.failures.len())
    }
}

/// What all threads share.
pub(crate) struct Run<'a> {
    settings: &'a Settings,
    target: Target,
    corpus: corpus::Corpus,
    next: AtomicU64,
    requests: AtomicU64,
    mutated: AtomicU64,
    taken: AtomicU64,
    slowest: Mutex<(Duration, String)>,
    failures: Mutex<Vec<String>>,
    codes: Mutex<std::collections::BTreeMap<u16, u64>>,
    /// Sessions hold it shared; whoever clears up, alone.
    clearing: RwLock<()>,
    trace: Option<File>,
    /// The least resident memory after a clearing: early, once all is warm, and late. In between it comes and goes.
    least: [AtomicU64; 2],
    begun: Instant,
    /// Counts up for as long as the process may run.
    ticks: AtomicU32,
}

/// Sessions between two clearings.
const CLEAR_EVERY: u64 = 2_000;
/// More are not told.
const MOST_FAILURES: usize = 40;

impl Run<'_> {
    fn fail(&self, what: String) {
        let mut failures = self.failures.lock();
        // One of each kind says enough.
        let kind = |text: &str| text.split(" | ").next().unwrap_or_default().to_owned();
        if failures.len() < MOST_FAILURES && !failures.iter().any(|other| kind(other) == kind(&what)) {
            eprintln!("FAILURE {what}");
            failures.push(what);
        }
    }

    fn work(&self, thread: usize, runtime: &tokio::runtime::Handle) {
        while self.requests.load(Ordering::Relaxed) < self.settings.requests {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(trace) = &self.trace {
                let _ = trace.write_all_at(format!("{seed:20}\n").as_bytes(), 21 * thread as u64);
            }
            verdict::UNDER_WAY.set(seed);
            let before = self.requests.load(Ordering::Relaxed);
            {
                let _shared = self.clearing.read();
                runtime.block_on(session::live(self, seed));
            }
            if (seed - self.settings.seed) % CLEAR_EVERY == CLEAR_EVERY - 1 {
                let _alone = self.clearing.write();
                runtime.block_on(self.target.clear());
                self.note_memory();
            }
            let after = self.requests.load(Ordering::Relaxed);
            if before / 100_000 != after / 100_000 && thread == 0 {
                self.tell(after);
            }
        }
    }

    fn note_memory(&self) {
        let (done, all) = (self.requests.load(Ordering::Relaxed), self.settings.requests);
        // What is loaded and remembered once is there after the first tenth.
        let early = (all / 10..all * 3 / 10).contains(&done);
        if early || done >= all * 8 / 10 {
            self.least[usize::from(!early)].fetch_min(rss(), Ordering::Relaxed);
        }
    }

    fn tell(&self, requests: u64) {
        let (rss, stats) = (rss(), self.target.api.store().stats());
        println!(
            "{requests} requests, {:.0}/s, RSS {rss} kB, {} records, {} events, slowest {:.1} ms",
            requests as f64 / self.begun.elapsed().as_secs_f64(),
            stats.records,
            stats.events,
            self.slowest.lock().0.as_secs_f64() * 1e3
        );
    }
}

/// Resident memory in kB.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// Runs it all.
pub fn run(settings: &Settings) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    verdict::listen_to_panics();
    let target = runtime.block_on(Target::start(settings.folder.as_deref()));
    let run = Run {
        settings,
        corpus: corpus::Corpus::new(),
        target,
        next: AtomicU64::new(settings.seed),
        requests: AtomicU64::new(0),
        mutated: AtomicU64::new(0),
        taken: AtomicU64::new(0),
        slowest: Mutex::default(),
        failures: Mutex::default(),
        codes: Mutex::default(),
        clearing: RwLock::new(()),
        trace: settings.trace.as_ref().map(|path| File::create(path).expect("the trace")),
        least: [const { AtomicU64::new(u64::MAX) }; 2],
        begun: Instant::now(),
        ticks: AtomicU32::new(0),
    };
    std::thread::scope(|scope| {
        let (working, ended) = mpsc::channel::<()>();
        let ticks = &run.ticks;
        scope.spawn(move || {
            while ended.recv_timeout(verdict::TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                ticks.fetch_add(1, Ordering::Relaxed);
            }
        });
        for thread in 0..settings.threads {
            let (run, handle, working) = (&run, runtime.handle(), working.clone());
            let worker = std::thread::Builder::new().stack_size(8 << 20);
            let work = move || {
                run.work(thread, handle);
                drop(working);
            };
            worker.spawn_scoped(scope, work).expect("a thread");
        }
        drop(working);
    });
    runtime.block_on(run.target.clear());
    let took = run.begun.elapsed();
    for left in runtime.block_on(run.target.under_way()) {
        run.fail(format!("something is still under way | {left}"));
    }
    for panic in verdict::panics() {
        run.fail(format!("panic {panic}"));
    }
    run.note_memory();
    let known = |least: &AtomicU64| Some(least.load(Ordering::Relaxed)).filter(|kb| *kb < u64::MAX);
    let rss: (u64, u64) = run.least.each_ref().map(|least| known(least).unwrap_or(0)).into();
    // Room for what the allocator keeps; a leak of 100 bytes a request shows after some millions.
    if rss.0 > 0 && rss.1 > rss.0 + rss.0 / 4 + 32 * 1024 {
        run.fail(format!("memory grows | from {} kB to {} kB", rss.0, rss.1));
    }
    Report {
        requests: run.requests.into_inner(),
        mutated: run.mutated.into_inner(),
        taken: run.taken.into_inner(),
        took,
        slowest: run.slowest.into_inner(),
        rss,
        codes: run.codes.into_inner().into_iter().collect(),
        failures: run.failures.into_inner(),
    }
}
