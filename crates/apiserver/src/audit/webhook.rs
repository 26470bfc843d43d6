//! Events as lists for a server (kubernetes/kubernetes, `apiserver/plugin/pkg/audit/webhook`).

use std::sync::Arc;
use std::time::Duration;

use base::{Drain, Ids};

use super::backend::AuditDelivery;
use crate::outbound::Remote;

/// A server that is told of events.
#[derive(Clone, Debug)]
pub struct AuditWebhook {
    /// Which.
    pub remote: Remote,
    /// How long it is left alone after the first failure.
    pub initial_backoff: Duration,
    /// Whether requests wait.
    pub delivery: AuditDelivery,
}

impl AuditWebhook {
    /// How long upstream waits after the first failure.
    pub const INITIAL_BACKOFF: Duration = Duration::from_secs(10);
}

/// As often as upstream tries (`apiserver/pkg/util/webhook`, `DefaultRetryBackoffWithInitialDelay`): five times, each
/// wait half as long again as the one before, and up to a fifth longer.
const ATTEMPTS: u32 = 5;

pub(super) struct WebhookSink {
    config: AuditWebhook,
    ids: Arc<dyn Ids>,
    drain: Drain,
}

impl WebhookSink {
    pub(super) fn new(config: AuditWebhook, ids: Arc<dyn Ids>, drain: Drain) -> Self {
        Self { config, ids, drain }
    }

    pub(super) async fn send(&self, events: &[String]) -> Result<(), String> {
        let body = format!(
            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
            events.join(",")
        );
        let body = bytes::Bytes::from(body);
        let mut wait = self.config.initial_backoff;
        let mut attempt = 1;
        loop {
            let leaving = self.drain.is_started();
            let Err(error) = self.config.remote.tell(body.clone()).await else { return Ok(()) };
            if attempt == ATTEMPTS || leaving {
                return Err(error.to_string());
            }
            attempt += 1;
            let jitter = (self.ids.bits() % 1000) as f64 / 5000.0;
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(1.0 + jitter)) => {}
                // Once more, and then it is over.
                () = self.drain.started() => {}
            }
            wait = wait.mul_f64(1.5);
        }
    }
}
