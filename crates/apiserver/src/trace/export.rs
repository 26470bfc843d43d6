//! Spans on their way to a collector (opentelemetry-proto, `collector/trace/v1/trace_service.proto`,
//! `trace/v1/trace.proto`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::Drain;
use grpc::{Channel, Target, Writer};
use tokio::sync::mpsc;

use super::{Kind, TraceConfig, Value};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// As the batch processor of upstream's SDK has it.
const QUEUE: usize = 2_048;
const BATCH: usize = 512;
const WAIT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);

/// A span that has ended.
pub(super) struct Done {
    pub(super) context: super::Context,
    pub(super) parent: Option<[u8; 8]>,
    /// A caller that is not believed, so that it is mentioned only.
    pub(super) link: Option<super::Context>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) begun: SystemTime,
    pub(super) took: Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) failed: bool,
}

/// Begins to send what comes through the sender, until the server drains. What comes faster than it goes is dropped.
pub(super) fn start(config: &TraceConfig, drain: &Drain) -> mpsc::Sender<Done> {
    let (sender, mut inbox) = mpsc::channel(QUEUE);
    let (host, port) = (config.endpoint.host(), config.endpoint.port_u16().unwrap_or(4317));
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let channel = Arc::new(Channel::new(Target::Tcp { host, port, tls: None }));
    let ends = drain.clone();
    drain.spawn(async move {
        let mut silent = false;
        let mut batch = Vec::new();
        loop {
            let full = async {
                while batch.len() < BATCH {
                    let Some(span) = inbox.recv().await else { return };
                    batch.push(span);
                }
            };
            tokio::select! {
                () = full => {}
                () = tokio::time::sleep(WAIT) => {}
                () = ends.started() => while let Ok(span) = inbox.try_recv() { batch.push(span) },
            }
            if !batch.is_empty() {
                let sent = channel.unary(EXPORT, &request(&batch), LIMIT).await;
                if let (Err(error), false) = (&sent, silent) {
                    tracing::warn!(%error, collector = channel.name(), "spans are lost until the collector answers");
                }
                silent = sent.is_err();
                batch.clear();
            }
            if ends.is_started() {
                return;
            }
        }
    });
    sender
}

fn request(batch: &[Done]) -> Vec<u8> {
    let mut out = Writer::new();
    out.message(1, |spans| {
        spans.message(1, |resource| attribute(resource, 1, "service.name", &Value::Text("apiserver".into())));
        spans.message(2, |scope| {
            scope.message(1, |library| {
                library.bytes(1, b"k8s.io/apiserver");
            });
            for done in batch {
                scope.message(2, |out| span(out, done));
            }
        });
    });
    out.finish()
}

fn span(out: &mut Writer, done: &Done) {
    let nanoseconds = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    out.bytes(1, &done.context.trace).bytes(2, &done.context.span);
    if let Some(parent) = &done.parent {
        out.bytes(4, parent);
    }
    out.bytes(5, done.name.as_bytes());
    out.number(6, done.kind as u64);
    out.fixed(7, nanoseconds(done.begun)).fixed(8, nanoseconds(done.begun + done.took));
    for (key, value) in &done.attributes {
        attribute(out, 9, key, value);
    }
    if let Some(link) = &done.link {
        out.message(13, |out| {
            out.bytes(1, &link.trace).bytes(2, &link.span);
        });
    }
    if done.failed {
        out.message(15, |status| {
            status.number(3, 2);
        });
    }
}

fn attribute(out: &mut Writer, field: u32, key: &str, value: &Value) {
    out.message(field, |pair| {
        pair.bytes(1, key.as_bytes()).message(2, |any| match value {
            // Part of a `oneof`: an empty text is left out, which reads as none.
            Value::Text(text) => drop(any.bytes(1, text.as_bytes())),
            Value::Number(number) => drop(any.present(3, *number)),
        });
    });
}
