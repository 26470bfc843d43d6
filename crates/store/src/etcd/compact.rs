//! Giving up old revisions, by one server at a time.
//!
//! The way of kubernetes/kubernetes, `apiserver/pkg/storage/etcd3/compact.go` (`compact`), and its key, so that servers
//! of both kinds would take turns: who raises the key's version in time compacts up to what it read the last time.

use std::sync::Arc;
use std::time::Duration;

use super::client::WriteError;
use super::engine::Inside;
use super::messages::{self, Compare, Range, Step, Transaction};
use crate::record::Revision;

const KEY: &[u8] = b"compact_rev_key";

pub(crate) async fn run(inside: Arc<Inside>, every: Duration) {
    let (mut version, mut revision) = (0, 0);
    loop {
        tokio::time::sleep(every).await;
        match turn(&inside, version, revision).await {
            Ok(next) => (version, revision) = next,
            Err(why) => tracing::warn!(why, "cannot compact etcd"),
        }
    }
}

/// One turn; gives the key's version and the revision to compact up to the next time.
async fn turn(inside: &Inside, version: u64, revision: Revision) -> Result<(u64, Revision), String> {
    let read = Range { key: KEY.to_vec(), ..Range::default() };
    let transaction = Transaction {
        compare: vec![Compare::Version(KEY.to_vec(), version)],
        success: vec![Step::Put(KEY.to_vec(), revision.to_string().into_bytes())],
        failure: vec![Step::Range(read)],
    };
    let done = inside.client.transact(&transaction).await.map_err(|error| match error {
        WriteError::Refused(why) | WriteError::Unknown(why) => why,
    })?;
    if !done.succeeded {
        // Another one was first.
        let version = done.found.first().and_then(|kvs| kvs.first()).map_or(0, |kv| kv.version);
        return Ok((version, done.revision));
    }
    if revision > 0 {
        let answer =
            inside.client.ask(messages::COMPACT, &messages::compact(revision), inside.client.limit).await;
        match answer {
            Ok(_) => tracing::info!(revision, "compacted etcd"),
            // Somebody else went further.
            Err(error) if error.to_string().contains("compacted") => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok((version + 1, done.revision))
}
