use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::client::Client;
use super::config::EtcdConfig;
use super::envelope::{self, EnvelopeError};
use super::layout::Layout;
use super::messages::KeyValue;
use super::{barrier, compact, feed};
use crate::error::{OpenError, Stale};
use crate::options::Options;
use crate::record::{Record, Revision};
use crate::seal::SealError;
use crate::state::Shared;

/// What all the tasks of a store in etcd share.
pub(crate) struct Inside {
    pub(crate) client: Client,
    pub(crate) layout: Layout,
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: Options,
    /// Makes the feed begin its watch anew, at another member.
    pub(crate) kick: Notify,
    /// The revision of the latest tick.
    pub(crate) ticked: tokio::sync::Mutex<Revision>,
}

/// A value that is no record of ours.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ValueError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Sealed(#[from] SealError),
}

impl Inside {
    /// Opens a value.
    pub(crate) fn record(
        &self,
        table: &str,
        key: Arc<str>,
        kv: &KeyValue,
        index: u32,
    ) -> Result<Record, ValueError> {
        let open = |value: &[u8], key| Ok(envelope::open(key, value, kv.modified, kv.created, index)?);
        match &self.options.seal {
            // Also what was written before there was a seal: its identity provider lets it pass.
            Some(seal) => {
                let opened = seal.open(table, &key, &kv.value)?;
                open(&opened.plain, key)
            }
            None if kv.value.starts_with(b"k8s:enc:") => {
                Err(SealError::NoKeys { table: table.into(), key }.into())
            }
            None => open(&kv.value, key),
        }
    }
}

/// A store in etcd: its tasks end with it.
pub(crate) struct Engine {
    pub(crate) inside: Arc<Inside>,
    questions: mpsc::UnboundedSender<barrier::Question>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Engine {
    /// Reads everything and begins to follow.
    pub(crate) async fn start(config: EtcdConfig, options: Options) -> Result<Self, OpenError> {
        if config.endpoints.is_empty() {
            return Err(OpenError::Etcd { why: "no endpoint is given".to_owned() });
        }
        let inside = Arc::new(Inside {
            client: Client::new(config.targets(), config.limit),
            layout: Layout::new(&config.prefix),
            shared: Arc::new(Shared::new(0, BTreeMap::new())),
            options,
            kick: Notify::new(),
            ticked: tokio::sync::Mutex::new(0),
        });
        let loaded =
            tokio::time::timeout(config.patience, feed::load_patiently(&inside, config.patience)).await;
        let late = || feed::FeedError::Late(config.patience);
        loaded.unwrap_or_else(|_| Err(late())).map_err(|error| OpenError::Etcd { why: error.to_string() })?;
        let (questions, asked) = mpsc::unbounded_channel();
        let mut tasks = vec![
            tokio::spawn(feed::run(Arc::clone(&inside))).abort_handle(),
            tokio::spawn(barrier::run(Arc::clone(&inside), asked)).abort_handle(),
        ];
        if let Some(every) = config.compact_every {
            tasks.push(tokio::spawn(compact::run(Arc::clone(&inside), every)).abort_handle());
        }
        Ok(Self { inside, questions, tasks: Mutex::new(tasks) })
    }

    /// Waits until memory is as new as etcd is now.
    pub(crate) async fn consistent(&self) -> Result<Revision, Stale> {
        let (reply, answer) = oneshot::channel();
        let closed = || Stale { why: "the store is closed".to_owned() };
        self.questions.send(reply).map_err(|_| closed())?;
        // The ones who answer have their limits; this one is for the case that they are wrong.
        let limit = self.inside.client.limit * 3 + Duration::from_secs(5);
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(Stale { why: format!("no answer within {limit:?}") }),
        }
    }

    /// Ends everything; reads of memory still work.
    pub(crate) fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.inside.shared.close();
    }
}
