//! Custom resources: the kinds that users define at run time.
//!
//! `controller.rs` follows the table of definitions and keeps the registry in step with it: names, conditions, what is
//! served. `cleanup.rs` deletes a definition's objects with it. `convert.rs` shows objects in the version that is asked
//! for, `webhook.rs` asks a conversion webhook. Everything else custom objects do goes through the generic verbs.

mod cleanup;
mod controller;
mod convert;
mod openapi;
mod status;
mod webhook;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use registry::Names;
use tokio::sync::watch;

pub(crate) use controller::start;
pub(crate) use convert::{convert_to, is_current, note_write};
pub(crate) use openapi::{Readers, schemas, tag};

/// Where definitions are stored.
pub(crate) const TABLE: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// How long the writer of a definition waits for it to be served. It is there at once; this is for the worst.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the server knows of definitions beside the registry.
pub(crate) struct Crds {
    /// How far the table has been followed.
    followed: watch::Sender<u64>,
    /// Rings when kinds came, changed or went.
    changed: watch::Sender<()>,
    known: Mutex<BTreeMap<Arc<str>, Known>>,
    /// Definitions whose objects are being deleted.
    going: Mutex<HashSet<Arc<str>>>,
}

/// What is known of one definition.
struct Known {
    group: Box<str>,
    accepted: Names,
    has_conflict: bool,
    /// Tells whether what is served must be made anew.
    fingerprint: Option<u64>,
}

impl Default for Crds {
    fn default() -> Self {
        // Until somebody follows the table there is nothing to wait for.
        Self {
            followed: watch::Sender::new(u64::MAX),
            changed: watch::Sender::new(()),
            known: Mutex::default(),
            going: Mutex::default(),
        }
    }
}

impl Crds {
    /// Waits until the definitions that were written at `revision` are served.
    pub(crate) async fn follow(&self, revision: u64) {
        let mut followed = self.followed.subscribe();
        let reached = followed.wait_for(|reached| *reached >= revision);
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            tracing::warn!(revision, "a definition is not served yet");
        }
    }

    /// Wakes whenever kinds came, changed or went.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
