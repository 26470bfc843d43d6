//! From etcd into memory: everything once, and then one watch for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpc::RpcError;

use super::engine::{Inside, ValueError};
use super::messages::{self, Changed, KeyValue, Range, Watched};
use crate::backend::Position;
use crate::error::WriteFailure;
use crate::history::Event;
use crate::record::{Record, Revision};
use crate::seal::SealError;
use crate::snapshot::Records;
use crate::stage::delete;
use crate::state::Change;

/// How many records are read at once.
const PAGE: u64 = 1000;
/// How long reading one page may take.
const PAGE_LIMIT: Duration = Duration::from_secs(15);

/// Why memory does not follow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("etcd says what makes no sense: {0}")]
    Wire(#[from] grpc::WireError),
    #[error("etcd ended the watch: {0}")]
    Canceled(String),
    #[error("the revisions after {0} are compacted")]
    Compacted(Revision),
    #[error("etcd does not answer within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Sealed(#[from] SealError),
    #[error("the reading was interrupted")]
    Interrupted,
}

/// Follows for ever. What fails is begun again.
pub(crate) async fn run(inside: Arc<Inside>) {
    let mut turn = 0usize;
    let mut failures = 0u32;
    loop {
        let before = inside.shared.read().revision;
        let error = match session(&inside, turn).await {
            Ok(()) => {
                turn += 1; // Told to try another member.
                continue;
            }
            Err(error) => error,
        };
        if inside.shared.read().revision != before {
            failures = 0;
        }
        failures += 1;
        turn += 1;
        tracing::warn!(%error, "lost the watch of etcd");
        if failures > 2 {
            let failure = WriteFailure { attempt: "follow etcd", reason: error.to_string() };
            inside.shared.fail(Arc::new(failure));
        }
        if matches!(error, FeedError::Compacted(_))
            && let Err(error) = load(&inside, PAGE_LIMIT).await
        {
            tracing::warn!(%error, "cannot read everything from etcd anew");
        }
        tokio::time::sleep(Duration::from_millis(20 << failures.min(5))).await;
    }
}

/// One watch, until it breaks. Ends well when it shall be tried elsewhere.
async fn session(inside: &Arc<Inside>, turn: usize) -> Result<(), FeedError> {
    let from = inside.shared.read().revision;
    // An etcd that was put back to an older state has another past than memory.
    let latest = inside.client.revision(inside.client.limit).await?;
    if latest < from {
        tracing::error!(latest, from, "etcd has gone back; reading everything anew");
        load(inside, PAGE_LIMIT).await?;
        return Ok(());
    }
    let (key, end) = inside.layout.range();
    let mut stream = inside.client.watch(turn, &messages::watch(&key, &end, from + 1)).await?;
    loop {
        let message = tokio::select! {
            message = stream.next() => message?,
            () = inside.kick.notified() => return Ok(()),
        };
        let watched = Watched::decode(&message)?;
        if watched.compacted > 0 {
            return Err(FeedError::Compacted(from));
        }
        if watched.canceled {
            return Err(FeedError::Canceled(watched.reason));
        }
        if watched.created {
            inside.shared.recovered();
        } else if watched.events.is_empty() {
            // It is sent only when nothing is outstanding.
            let now = inside.shared.read().revision;
            if watched.revision > now {
                inside.shared.publish(watched.revision, 0, BTreeMap::new(), &inside.options);
            }
        } else {
            show(inside, watched.events).await?;
        }
    }
}

/// Shows changes to everybody.
async fn show(inside: &Arc<Inside>, events: Vec<Changed>) -> Result<(), FeedError> {
    if inside.options.seal.is_none() {
        apply(inside, events);
        return Ok(());
    }
    // A key may have to be fetched first.
    let inside = Arc::clone(inside);
    tokio::task::spawn_blocking(move || apply(&inside, events)).await.map_err(|_| FeedError::Interrupted)
}

fn apply(inside: &Inside, events: Vec<Changed>) {
    let mut changes: BTreeMap<Arc<str>, Change> = BTreeMap::new();
    let known = inside.shared.read().revision;
    let (mut last, mut index, mut commits) = (known, 0, 0);
    for Changed { deleted, kv } in events {
        let revision = kv.modified;
        if revision <= known {
            continue; // Seen before.
        }
        if revision != last {
            (last, index, commits) = (revision, 0, commits + 1);
        }
        let position = Position { revision, index };
        index += 1;
        let Some((table, key)) = inside.layout.parse(&kv.key) else { continue };
        let change = match changes.get_mut(table) {
            Some(change) => change,
            None => {
                let records = inside.shared.snapshot(table).records;
                changes.entry(table.into()).or_insert(Change { records, events: Vec::new() })
            }
        };
        let event = if deleted {
            // What was never understood cannot go either.
            let Some(previous) = change.records.remove(key) else { continue };
            removal(position, previous)
        } else {
            let previous = change.records.get(key).cloned();
            let key = previous.as_ref().map_or_else(|| key.into(), |p| Arc::clone(&p.key));
            match inside.record(table, key, &kv, position.index) {
                Ok(record) => written(record, previous, &mut change.records),
                Err(error) => {
                    unreadable(&kv, &error);
                    continue;
                }
            }
        };
        change.events.push(Arc::new(event));
    }
    inside.shared.publish(last, commits, changes, &inside.options);
}

/// The last state, as of the removal.
fn removal(position: Position, previous: Arc<Record>) -> Event {
    let last = previous.template().and_then(|template| template.splice(position.revision));
    delete(position, previous, last)
}

fn written(record: Record, previous: Option<Arc<Record>>, records: &mut Records) -> Event {
    let record = Arc::new(record);
    records.insert(Arc::clone(&record.key), Arc::clone(&record));
    // A key that was removed and made anew while nobody looked is an update to those who watch.
    let kind = match &previous {
        Some(_) => crate::history::EventKind::Updated,
        None => crate::history::EventKind::Created,
    };
    Event { revision: record.revision, kind, record, previous }
}

fn unreadable(kv: &KeyValue, error: &impl std::fmt::Display) {
    let key = String::from_utf8_lossy(&kv.key);
    tracing::error!(%key, revision = kv.modified, %error, "a value in etcd cannot be read and is left out");
}

/// Reads everything, however often it takes.
pub(crate) async fn load_patiently(inside: &Arc<Inside>, patience: Duration) -> Result<(), FeedError> {
    let mut pause = Duration::from_millis(50);
    let ends = tokio::time::Instant::now() + patience;
    loop {
        let left = ends.saturating_duration_since(tokio::time::Instant::now());
        match load(inside, left.mul_f32(0.8)).await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() + pause * 2 >= ends => return Err(error),
            Err(error) => tracing::debug!(%error, "etcd cannot be read yet"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Reads everything as of one revision, and shows that.
async fn load(inside: &Arc<Inside>, limit: Duration) -> Result<(), FeedError> {
    let (mut key, end) = inside.layout.range();
    let mut revision = 0;
    let mut tables: BTreeMap<Arc<str>, Records> = BTreeMap::new();
    loop {
        let range = Range { key, end: end.clone(), limit: PAGE, revision, keys_only: false };
        let page = inside.client.range(&range, limit).await?;
        if revision == 0 {
            revision = page.revision;
        }
        let next = page.kvs.last().map(|kv| after(&kv.key));
        let worker = Arc::clone(inside);
        let (kvs, held) = (page.kvs, tables);
        tables = tokio::task::spawn_blocking(move || gather(&worker, kvs, held))
            .await
            .map_err(|_| FeedError::Interrupted)??;
        match next {
            Some(next) if page.more => key = next,
            _ => break,
        }
    }
    inside.shared.replace(revision, tables);
    Ok(())
}

fn gather(
    inside: &Inside,
    kvs: Vec<KeyValue>,
    mut tables: BTreeMap<Arc<str>, Records>,
) -> Result<BTreeMap<Arc<str>, Records>, SealError> {
    for kv in kvs {
        let Some((table, key)) = inside.layout.parse(&kv.key) else { continue };
        match inside.record(table, key.into(), &kv, 0) {
            Ok(record) => {
                let records = match tables.get_mut(table) {
                    Some(records) => records,
                    None => tables.entry(table.into()).or_default(),
                };
                records.insert(Arc::clone(&record.key), Arc::new(record));
            }
            // Not to be taken for absent: the keys will be found.
            Err(ValueError::Sealed(error)) => return Err(error),
            Err(error) => unreadable(&kv, &error),
        }
    }
    Ok(tables)
}

/// The least key that is greater.
fn after(key: &Bytes) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
