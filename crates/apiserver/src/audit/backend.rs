//! Where events go: a file or a webhook, and whether requests wait for it (kubernetes/kubernetes,
//! `apiserver/pkg/server/options/audit.go`, `apiserver/plugin/pkg/audit/{buffered,truncate}`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::{Drain, Ids};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use super::buffered::{self, Buffer};
use super::counts::Counts;
use super::log::{AuditLog, LogSink};
use super::webhook::{AuditWebhook, WebhookSink};

/// Whether requests wait until their events have been delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AuditMode {
    /// They do not; events are collected and delivered many at a time.
    Batch(AuditBatch),
    /// They do.
    Blocking,
    /// They do, and fail if the event of their arrival cannot be delivered.
    BlockingStrict,
}

/// How events are collected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuditBatch {
    /// So many wait at most; more are dropped and counted.
    pub buffer: usize,
    /// So many go out together at most.
    pub most: usize,
    /// None waits longer than this for others.
    pub wait: Duration,
    /// How many batches a second go out on average and at once at most; none for no limit.
    pub throttle: Option<(f32, u32)>,
}

impl AuditBatch {
    /// Upstream's figures for webhooks.
    pub fn webhook() -> Self {
        Self { buffer: 10_000, most: 400, wait: Duration::from_secs(30), throttle: Some((10.0, 15)) }
    }

    /// Upstream's figures for files: what is there is written at once.
    pub fn log() -> Self {
        Self { buffer: 10_000, most: 1, wait: Duration::ZERO, throttle: None }
    }
}

/// How events are delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuditDelivery {
    /// Whether requests wait.
    pub mode: AuditMode,
    /// Longer events lose what was sent and answered; those that are still longer are dropped. None for no limit.
    pub longest: Option<usize>,
}

pub(super) enum Outlet {
    Log(LogSink),
    Webhook(WebhookSink),
}

impl Outlet {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Webhook(_) => "webhook",
        }
    }

    fn render(&self, event: &Value) -> String {
        match self {
            Self::Log(log) => log.line(event),
            Self::Webhook(_) => event.to_string(),
        }
    }

    /// Delivers events; tells why it could not.
    pub(super) async fn deliver(&self, events: &[String]) -> Result<(), String> {
        match self {
            Self::Log(log) => log.write(events).map_err(|e| e.to_string()),
            Self::Webhook(webhook) => webhook.send(events).await,
        }
    }
}

enum Mode {
    Batch(Buffer),
    Blocking { strict: bool },
}

/// What became of an event that was given to a backend.
pub(super) enum Given {
    /// The request may go on, or not.
    Done(bool),
    /// The same, once this has ended.
    UnderWay(BoxFuture<'static, bool>),
}

/// One place that events go to.
pub(super) struct Backend {
    outlet: Arc<Outlet>,
    mode: Mode,
    longest: Option<usize>,
    counts: Arc<Counts>,
}

impl Backend {
    pub(super) fn log(config: &AuditLog, counts: &Arc<Counts>, drain: &Drain) -> io::Result<Self> {
        Ok(Self::over(Outlet::Log(LogSink::open(config)?), config.delivery, counts, drain))
    }

    pub(super) fn webhook(
        config: AuditWebhook,
        ids: &Arc<dyn Ids>,
        counts: &Arc<Counts>,
        drain: &Drain,
    ) -> Self {
        let delivery = config.delivery;
        Self::over(
            Outlet::Webhook(WebhookSink::new(config, ids.clone(), drain.clone())),
            delivery,
            counts,
            drain,
        )
    }

    fn over(outlet: Outlet, delivery: AuditDelivery, counts: &Arc<Counts>, drain: &Drain) -> Self {
        let outlet = Arc::new(outlet);
        let mode = match delivery.mode {
            AuditMode::Batch(batch) => Mode::Batch(buffered::start(&outlet, batch, counts, drain)),
            AuditMode::Blocking => Mode::Blocking { strict: false },
            AuditMode::BlockingStrict => Mode::Blocking { strict: true },
        };
        Self { outlet, mode, longest: delivery.longest, counts: counts.clone() }
    }

    /// Takes an event.
    pub(super) fn give(&self, event: &Value) -> Given {
        let Some(text) = self.fitting(event) else { return Given::Done(true) };
        let strict = match &self.mode {
            Mode::Batch(buffer) => {
                buffer.give(text, &self.counts);
                return Given::Done(true);
            }
            Mode::Blocking { strict } => *strict,
        };
        let (outlet, counts) = (self.outlet.clone(), self.counts.clone());
        let work = async move {
            let outcome = outlet.deliver(&[text]).await;
            if let Err(why) = &outcome {
                counts.failed(outlet.name(), 1, why);
            }
            outcome.is_ok() || !strict
        };
        match &*self.outlet {
            // A file does not keep anybody waiting.
            Outlet::Log(_) => Given::Done(work.now_or_never().unwrap_or(!strict)),
            Outlet::Webhook(_) => Given::UnderWay(work.boxed()),
        }
    }

    fn fitting(&self, event: &Value) -> Option<String> {
        let text = self.outlet.render(event);
        let Some(longest) = self.longest.filter(|longest| text.len() > *longest) else { return Some(text) };
        let mut event = event.clone();
        for field in ["requestObject", "responseObject"] {
            types::object(&mut event).remove(field);
        }
        types::ensure_object(&mut event, "annotations")["audit.k8s.io/truncated"] = "true".into();
        let text = self.outlet.render(&event);
        if text.len() > longest {
            self.counts.failed("truncate", 1, "event is too large even after truncating");
            return None;
        }
        Some(text)
    }
}
