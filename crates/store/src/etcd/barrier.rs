//! Reads that are never older than what anybody was told before, by whichever server.
//!
//! Upstream does the same (kubernetes/kubernetes, `apiserver/pkg/storage/cacher`, "consistent reads from cache"), with
//! the watch's progress notifications to learn that nothing is missing. Etcd before 3.4.25 and 3.5.8 may send such
//! a notification ahead of the events it speaks of; so we write a key of our own instead when the watch is silent,
//! and wait until we see it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::client::WriteError;
use super::engine::Inside;
use super::messages::{Step, Transaction};
use crate::error::Stale;
use crate::record::Revision;

pub(crate) type Question = oneshot::Sender<Result<Revision, Stale>>;

/// How long the watch may take to bring what etcd has, before we help.
const USUAL: Duration = Duration::from_millis(40);
/// How long it may stand still before it is begun anew.
const SILENT: Duration = Duration::from_millis(700);

/// Answers questions until the engine is gone: those that come while etcd is being asked wait for the next time.
pub(crate) async fn run(inside: Arc<Inside>, mut asked: mpsc::UnboundedReceiver<Question>) {
    while let Some(first) = asked.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = asked.try_recv() {
            waiting.push(next);
        }
        let answer = |waiting: Vec<Question>, answer: Result<Revision, Stale>| {
            // Whoever is gone needs no answer.
            waiting.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
        };
        match inside.client.revision(inside.client.limit).await {
            Err(error) => answer(waiting, Err(Stale { why: error.to_string() })),
            Ok(revision) if inside.shared.read().revision >= revision => answer(waiting, Ok(revision)),
            Ok(revision) => {
                let inside = Arc::clone(&inside);
                tokio::spawn(async move {
                    let caught_up = inside.catch_up(revision).await;
                    answer(waiting, caught_up.map(|()| revision));
                });
            }
        }
    }
}

impl Inside {
    /// Waits until memory has come as far as `revision`, which etcd has reached.
    pub(crate) async fn catch_up(&self, revision: Revision) -> Result<(), Stale> {
        if self.reaches(revision, USUAL).await {
            return Ok(());
        }
        let ends = Instant::now() + self.client.limit;
        let mut ticked = false;
        let mut seen = self.shared.read().revision;
        while Instant::now() < ends {
            // Somebody may have written outside our prefix, which the watch does not tell.
            ticked = ticked || self.tick(revision).await;
            let wait = if ticked { SILENT } else { USUAL };
            if self.reaches(revision, wait).await {
                return Ok(());
            }
            let now = self.shared.read().revision;
            if now == seen {
                self.kick.notify_one();
            }
            seen = now;
        }
        Err(Stale { why: format!("etcd is at revision {revision}, and its watch has come to {seen} only") })
    }

    pub(crate) async fn reaches(&self, revision: Revision, wait: Duration) -> bool {
        let mut revisions = self.shared.revisions();
        timeout(wait, revisions.wait_for(|reached| *reached >= revision)).await.is_ok_and(|r| r.is_ok())
    }

    /// Writes a key that the watch will bring, after everything up to `revision`. One tick serves all who wait.
    async fn tick(&self, revision: Revision) -> bool {
        let mut ticked = self.ticked.lock().await;
        if *ticked > revision {
            return true;
        }
        let put = Step::Put(self.layout.tick(), b"1".to_vec());
        let transaction = Transaction { success: vec![put], ..Transaction::default() };
        match self.client.transact(&transaction).await {
            Ok(done) => {
                *ticked = done.revision;
                true
            }
            Err(WriteError::Refused(why) | WriteError::Unknown(why)) => {
                tracing::debug!(why, "cannot make the watch of etcd speak");
                false
            }
        }
    }
}
