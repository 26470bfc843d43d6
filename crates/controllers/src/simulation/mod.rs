//! All controllers under random faults. Users change what they want, agents run pods, requests and answers get lost or
//! are late, watches lag and break off, and the controllers' process is killed in the middle of whatever it does. Once
//! the faults are over, everything must come to what the objects ask for, and no two pods of one name were alive at once.
//!
//! What users do and which faults strike follows from a seed: `SIMULATION_SEED` chooses the first, `SIMULATION_RUNS` how
//! many are tried.

mod agents;
mod users;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use base::{Drain, Ids, SeededIds};
use client::Informers;
use testkit::{Cluster, Faults};
use tokio::time::{Instant, sleep};

use crate::Config;
use crate::testing::config;
use agents::Agents;
use users::Users;

/// How long faults strike.
const CHAOS: Duration = Duration::from_secs(10);
/// Of a thousand requests, so many are struck.
const RATE: u64 = 80;
/// How long it may take until less is wrong than ever before, on a slow machine. How long all takes says how busy the
/// machine is and nothing of the controllers: with twenty of these at once on two cores it was over a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// A number below `limit`.
fn below(random: &dyn Ids, limit: u64) -> u64 {
    (random.bits() % u128::from(limit.max(1))) as u64
}

/// One life of the controllers' process.
struct Life {
    faults: Faults,
    drain: Drain,
}

impl Life {
    fn begin(cluster: &Cluster, seed: u64, rate: u64) -> Self {
        let (faults, drain) = (Faults::new(seed, rate), Drain::new());
        crate::run(&Config {
            informers: Informers::new(cluster.client_through(&faults), drain.clone()),
            identities: Some(Arc::new(cluster.accounts_through(&faults))),
            drain: drain.clone(),
            ..config(cluster)
        });
        Self { faults, drain }
    }

    /// Ends as a killed process does: what was on its way arrives or does not, and nothing is done any more.
    fn kill(self) {
        self.faults.sever();
        self.drain.start();
    }
}

async fn simulate(seed: u64) {
    let random = SeededIds::new(seed);
    let cluster = Cluster::start().await;
    let agents = Agents::start(&cluster, seed);
    let mut users = Users::begin(&cluster, seed).await;
    let end = Instant::now() + CHAOS;
    let mut lives = 0;
    while Instant::now() < end {
        lives += 1;
        let life = Life::begin(&cluster, seed.wrapping_mul(31).wrapping_add(lives), RATE);
        let until = Instant::now() + Duration::from_millis(500 + below(&random, 3_000));
        while Instant::now() < until {
            users.act().await;
            sleep(Duration::from_millis(below(&random, 60))).await;
        }
        life.kill();
    }
    let _last = Life::begin(&cluster, seed, 0);
    let (mut deadline, mut least) = (Instant::now() + PATIENCE, usize::MAX);
    loop {
        let seen = cluster.api.store().revision();
        // Again and again: what was deleted in the foreground may only now be gone.
        users.settle().await;
        let wrong = verdict::wrong(&cluster, &agents).await;
        if wrong.is_empty() {
            break;
        }
        if wrong.len() < least {
            (least, deadline) = (wrong.len(), Instant::now() + PATIENCE);
        }
        let text = wrong.join("\n  ");
        assert!(Instant::now() < deadline, "seed {seed}, after {lives} lives:\n  {text}");
        let change = cluster.api.store().wait_for(seen + 1);
        let _ = tokio::time::timeout(Duration::from_millis(100), change).await;
    }
    let faults = agents.faults();
    assert!(faults.is_empty(), "seed {seed}, after {lives} lives:\n  {}", faults.join("\n  "));
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_to_what_is_asked_for() {
    let first = setting("SIMULATION_SEED", 1);
    for seed in first..first + setting("SIMULATION_RUNS", 2) {
        simulate(seed).await;
    }
}
