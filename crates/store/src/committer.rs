use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use crate::backend::{AppendError, Backend, Compaction, Position};
use crate::error::{CommitError, WriteFailure};
use crate::history::{Event, EventKind};
use crate::options::Options;
use crate::record::Revision;
use crate::stage::Stage;
use crate::state::{Evicted, Shared};
use crate::txn::{Committed, Op, Txn};

pub(crate) type Reply<T> = oneshot::Sender<T>;
type Answer = Result<Committed, CommitError>;

/// What the committer is asked to do.
pub(crate) enum Message {
    Commit(Txn, Reply<Answer>),
    /// Give up the history of all tables up to a revision.
    Compact(Revision, Reply<Result<(), CommitError>>),
    Close(Reply<()>),
}

/// The only one who writes. It owns the backend and runs on a thread of its own.
///
/// While a batch is being made durable the next one gathers in the inbox: batches are as large as the disk is slow.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backend: Option<Box<dyn Backend>>,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) options: Options,
    /// What left the histories and is still on disk.
    pub(crate) garbage: Compaction,
    pub(crate) failure: Option<Arc<WriteFailure>>,
}

impl Committer {
    /// Works until it is told to close or nobody is left to ask anything.
    pub(crate) fn run(mut self) {
        let mut done = None;
        while done.is_none() {
            let Ok(message) = self.inbox.recv() else { break };
            done = self.turn(message);
        }
        if self.failure.is_none() {
            self.compact();
        }
        self.release();
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// Does one message, and with a commit all the commits that wait behind it. Gives back the wish to close.
    fn turn(&mut self, first: Message) -> Option<Reply<()>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        let after = loop {
            match next {
                Some(Message::Commit(txn, reply)) => {
                    bytes += txn.ops.iter().map(Op::bytes).sum::<usize>();
                    batch.push((txn, reply));
                }
                other => break other,
            }
            if batch.len() >= self.options.batch_txns || bytes >= self.options.batch_bytes {
                break None;
            }
            next = self.inbox.try_recv().ok();
        };
        if !batch.is_empty() {
            self.commit(batch);
        }
        match after {
            Some(Message::Compact(revision, reply)) => {
                let evicted = self.shared.forget(revision);
                self.discard(evicted);
                self.compact();
                let _ = reply.send(self.refusal().map_or(Ok(()), Err));
            }
            Some(Message::Close(reply)) => return Some(reply),
            Some(Message::Commit(..)) | None => {}
        }
        None
    }

    fn refusal(&self) -> Option<CommitError> {
        self.failure.as_ref().map(|failure| CommitError::Failed(Arc::clone(failure)))
    }

    /// One batch: check, make durable, show, answer, in this order.
    fn commit(&mut self, batch: Vec<(Txn, Reply<Answer>)>) {
        if let Some(refusal) = self.refusal() {
            return batch.into_iter().for_each(|(_, reply)| drop(reply.send(Err(refusal.clone()))));
        }
        let mut stage = Stage::new(&self.shared);
        let answers: Vec<_> = batch.into_iter().map(|(txn, reply)| (reply, stage.add(txn))).collect();
        let staged = stage.finish();
        if !staged.entries.is_empty() {
            if let Err(error) = self.append(&staged.entries) {
                // Even a refused precondition may have been refused because of what is not durable now.
                return answers.into_iter().for_each(|(reply, _)| drop(reply.send(Err(error.clone()))));
            }
            drop(staged.entries);
            let evicted = self.shared.publish(staged.revision, staged.commits, staged.changes, &self.options);
            self.discard(evicted);
        }
        answers.into_iter().for_each(|(reply, answer)| drop(reply.send(answer)));
        if self.garbage.forget.len() >= self.options.garbage {
            self.compact();
        }
    }

    fn append(&mut self, entries: &[crate::backend::Entry]) -> Result<(), CommitError> {
        let Some(backend) = &mut self.backend else { return Err(CommitError::Closed) };
        backend.append(entries).map_err(|error| match error {
            AppendError::Full { available, needed } => CommitError::Full { available, needed },
            AppendError::Sealing(error) => CommitError::Sealing(error),
            AppendError::Broken(failure) => CommitError::Io(self.fail(failure)),
        })
    }

    fn fail(&mut self, failure: WriteFailure) -> Arc<WriteFailure> {
        tracing::error!(%failure, "the store takes no more writes");
        let failure = Arc::new(failure);
        self.failure = Some(Arc::clone(&failure));
        self.shared.fail(Arc::clone(&failure));
        failure
    }

    fn discard(&mut self, evicted: Evicted) {
        self.garbage.floors.extend(evicted.floors);
        for event in &evicted.events {
            superseded(event, &mut self.garbage.forget);
        }
    }

    /// Removes the garbage from the log.
    fn compact(&mut self) {
        if self.failure.is_some() || (self.garbage.forget.is_empty() && self.garbage.floors.is_empty()) {
            return;
        }
        let Some(backend) = &mut self.backend else { return };
        let garbage = std::mem::take(&mut self.garbage);
        if let Err(failure) = backend.compact(&garbage) {
            self.fail(failure);
        }
    }

    fn release(&mut self) {
        if let Some(backend) = self.backend.take() {
            backend.close();
        }
        self.shared.close();
    }
}

impl Drop for Committer {
    /// Also when the thread unwinds: watchers must not wait for ever.
    fn drop(&mut self) {
        self.release();
    }
}

/// The entries that nobody can ask for once this event is forgotten.
///
/// The state an event wrote is needed as long as it is the present one, or as long as the event that superseded it
/// is held (as that event's `previous`). So an event that goes takes along the state before it, and a removal
/// itself.
pub(crate) fn superseded(event: &Event, forget: &mut Vec<Position>) {
    forget.extend(event.previous.as_deref().map(Position::of));
    if event.kind == EventKind::Deleted {
        forget.push(Position::of(&event.record));
    }
}
