//! Asking any member of etcd that answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use grpc::{Channel, Code, RpcError, Stream, Target};
use tokio::time::Instant;

use super::messages::{self, Range, Ranged, Transacted, Transaction};
use crate::record::Revision;

/// How long one member has to answer a read before another one is asked.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// The members, and which of them answered last.
pub(crate) struct Client {
    channels: Vec<Channel>,
    preferred: AtomicUsize,
    pub(crate) limit: Duration,
}

/// Why a write did not succeed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// It did not happen and will not.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

impl Client {
    pub(crate) fn new(targets: Vec<Target>, limit: Duration) -> Self {
        // A member that has lost the others says so instead of keeping silent.
        let channel = |target| Channel::new(target).with_headers(&[("hasleader", "true")]);
        let channels = targets.into_iter().map(channel).collect();
        Self { channels, preferred: AtomicUsize::new(0), limit }
    }

    fn channel(&self, turn: usize) -> &Channel {
        &self.channels[turn % self.channels.len()]
    }

    /// Makes the next question go to another member than that of `turn`.
    fn avoid(&self, turn: usize) {
        let _ = self.preferred.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks until somebody answers or the time is over. For questions only: they may be asked twice.
    pub(crate) async fn ask(&self, path: &str, message: &[u8], limit: Duration) -> Result<Bytes, RpcError> {
        let ends = Instant::now() + limit;
        let mut pause = Pause::default();
        loop {
            let turn = self.preferred.load(Ordering::Relaxed);
            let left = ends.saturating_duration_since(Instant::now());
            let channel = self.channel(turn);
            let error = match channel.unary(path, message, left.min(ATTEMPT)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !is_passing(&error) {
                return Err(error);
            }
            if matches!(error, RpcError::Timeout { .. }) {
                channel.hang_up();
            }
            self.avoid(turn);
            if !pause.until(ends, self.channels.len()).await {
                return Err(error);
            }
        }
    }

    /// Sends a transaction. It is sent again only if it is certain that it did not happen.
    pub(crate) async fn transact(&self, transaction: &Transaction) -> Result<Transacted, WriteError> {
        let message = transaction.encode();
        let ends = Instant::now() + self.limit;
        let mut pause = Pause::default();
        loop {
            let turn = self.preferred.load(Ordering::Relaxed);
            let left = ends.saturating_duration_since(Instant::now());
            let channel = self.channel(turn);
            let error = match channel.unary(messages::TXN, &message, left).await {
                Ok(answer) => {
                    return Transacted::decode(&answer).map_err(|e| WriteError::Unknown(e.to_string()));
                }
                Err(error) => error,
            };
            if matches!(error, RpcError::Timeout { .. }) {
                channel.hang_up();
            }
            if !is_refusal(&error) {
                self.avoid(turn);
                return Err(WriteError::Unknown(error.to_string()));
            }
            if !is_passing(&error) {
                return Err(WriteError::Refused(error.to_string()));
            }
            self.avoid(turn);
            if !pause.until(ends, self.channels.len()).await {
                return Err(WriteError::Refused(error.to_string()));
            }
        }
    }

    pub(crate) async fn range(&self, range: &Range, limit: Duration) -> Result<Ranged, RpcError> {
        let answer = self.ask(messages::RANGE, &range.encode(), limit).await?;
        let name = self.channel(self.preferred.load(Ordering::Relaxed)).name();
        Ranged::decode(&answer)
            .map_err(|e| RpcError::Malformed { target: name.to_owned(), why: e.to_string() })
    }

    /// The latest revision, agreed upon by most members now.
    pub(crate) async fn revision(&self, limit: Duration) -> Result<Revision, RpcError> {
        // No such key; the answer's header is what matters.
        let range = Range { key: b"\0".to_vec(), limit: 1, keys_only: true, ..Range::default() };
        Ok(self.range(&range, limit).await?.revision)
    }

    /// Begins a watch at the member of that turn.
    pub(crate) async fn watch(&self, turn: usize, first: &[u8]) -> Result<Stream, RpcError> {
        self.channel(turn).stream(messages::WATCH, first, ATTEMPT).await
    }
}

/// Whether another member, or the same one later, may do better.
fn is_passing(error: &RpcError) -> bool {
    match error {
        RpcError::Status { code, message, .. } => {
            (*code == Code::UNAVAILABLE
                || *code == Code::DEADLINE_EXCEEDED
                || *code == Code::RESOURCE_EXHAUSTED
                || *code == Code::UNKNOWN)
                && !message.contains("space exceeded")
        }
        RpcError::Malformed { .. } => false,
        RpcError::Unreachable { .. } | RpcError::Timeout { .. } | RpcError::Broken { .. } => true,
    }
}

/// Whether it is certain that a write did not happen (etcd-io/etcd, `server/etcdserver/v3_server.go`,
/// `processInternalRaftRequestOnce`: all that is refused before it is proposed).
fn is_refusal(error: &RpcError) -> bool {
    match error {
        RpcError::Unreachable { .. } => true,
        RpcError::Status { code, message, .. } => {
            matches!(*code, Code::RESOURCE_EXHAUSTED | Code::INVALID_ARGUMENT | Code::FAILED_PRECONDITION)
                || *code == Code::OUT_OF_RANGE
                || *code == Code::UNIMPLEMENTED
                || message.ends_with("etcdserver: no leader")
        }
        RpcError::Timeout { .. } | RpcError::Broken { .. } | RpcError::Malformed { .. } => false,
    }
}

/// Pauses between attempts: none as long as there are members that were not asked yet.
#[derive(Default)]
struct Pause {
    attempts: usize,
}

impl Pause {
    /// Whether there is time for another attempt.
    async fn until(&mut self, ends: Instant, members: usize) -> bool {
        self.attempts += 1;
        let rounds = u32::try_from(self.attempts / members.max(1)).unwrap_or(u32::MAX);
        let pause = match self.attempts.is_multiple_of(members.max(1)) {
            true => Duration::from_millis(25).saturating_mul(rounds).min(Duration::from_millis(250)),
            false => Duration::ZERO,
        };
        if Instant::now() + pause >= ends {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}
