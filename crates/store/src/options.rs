use std::sync::Arc;

use crate::seal::Seal;

/// Limits of a store, and its seal.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many events each table's history holds at most.
    pub history_events: usize,
    /// How many bytes of superseded and deleted states each table's history holds at most.
    pub history_bytes: usize,
    /// How many transactions are made durable together at most.
    pub batch_txns: usize,
    /// How many bytes are made durable together at most (one transaction may be larger).
    pub batch_bytes: usize,
    /// How many superseded states may wait on disk before they are removed.
    pub garbage: usize,
    /// Free space to leave on the file system: with less, writes are refused and nothing breaks.
    pub reserve_bytes: u64,
    /// How many bytes of recent writes the backend keeps in memory besides the journal. A store keeps the figure it
    /// was begun with.
    pub write_buffer_bytes: u64,
    /// What encrypts records at rest.
    pub seal: Option<Arc<dyn Seal>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_events: 16_384,
            history_bytes: 4 << 20,
            batch_txns: 1_024,
            batch_bytes: 4 << 20,
            garbage: 1_024,
            reserve_bytes: 16 << 20,
            write_buffer_bytes: 2 << 20,
            seal: None,
        }
    }
}
