//! A small memory of upstream's answers.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::wire::{self, Ttls};

/// Most answers kept.
const ENTRIES: usize = 2048;
/// Largest answer kept.
const LARGEST: usize = 4096;
/// Longest time an answer is kept, whatever it says.
const LONGEST: Duration = Duration::from_secs(30);

/// Answers by request, everything but its id. So an answer goes only to who would have got it from upstream, bit for
/// bit, with flags, options and spelling.
#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<HashMap<Box<[u8]>, Entry>>,
}

struct Entry {
    reply: Box<[u8]>,
    ttls: Ttls,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The answer to `request`, with its id, and as much older as it is.
    pub(super) fn get(&self, request: &[u8]) -> Option<Vec<u8>> {
        let now = Instant::now();
        let entries = self.entries.lock();
        let entry = entries.get(request.get(2..)?).filter(|e| e.until > now)?;
        let mut reply = entry.reply.to_vec();
        wire::age(&mut reply, &entry.ttls, u32::try_from((now - entry.since).as_secs()).unwrap_or(u32::MAX));
        reply.get_mut(..2)?.copy_from_slice(&request[..2]);
        Some(reply)
    }

    /// Keeps an answer, if it may be kept.
    pub(super) fn put(&self, request: &[u8], reply: &[u8]) {
        let keep = matches!(wire::code(reply), 0 | 3) && !wire::is_truncated(reply) && reply.len() <= LARGEST;
        let (true, Some(key), Some(ttls)) = (keep, request.get(2..), wire::ttls(reply)) else { return };
        let Some(least @ 1..) = ttls.least else { return };
        let since = Instant::now();
        let until = since + LONGEST.min(Duration::from_secs(u64::from(least)));
        let mut entries = self.entries.lock();
        if entries.len() >= ENTRIES {
            entries.retain(|_, e| e.until > since);
        }
        if entries.len() >= ENTRIES {
            // All fresh: make room anyhow, rather than stay full of yesterday's favourites.
            entries.clear();
        }
        entries.insert(key.into(), Entry { reply: reply.into(), ttls, since, until });
    }
}
