//! Spans of requests for an OpenTelemetry collector (kubernetes/kubernetes,
//! `staging/src/k8s.io/apiserver/pkg/endpoints/filters/traces.go`).
//!
//! A span is of the task that serves the request: whatever is called on the way adds its own with [`timed`], and tells
//! other processes with [`inject`]. Without a configuration, or for a request that is not noted, both do nothing.

mod config;
mod context;
mod export;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use auth::User;
use base::{Drain, Ids};
use http::{HeaderMap, Method, Request, Response};
use tokio::sync::mpsc;

use crate::request::Target;
use crate::respond::Body;
pub use config::{TraceConfig, TraceConfigError};
use context::Context;

/// Whose word about the trace that a request belongs to is believed.
const TRUSTED: [&str; 2] = [User::MASTERS, "system:monitoring"];

tokio::task_local! {
    static CURRENT: Current;
}

#[derive(Clone)]
struct Current {
    tracer: Tracer,
    context: Context,
}

/// What a span is to the process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Server = 2,
    Client = 3,
}

/// An attribute's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Number(u64),
}

/// Decides what is noted, and sends it off.
#[derive(Clone)]
pub(crate) struct Tracer {
    per_million: u32,
    ids: Arc<dyn Ids>,
    done: mpsc::Sender<export::Done>,
}

impl Tracer {
    pub(crate) fn start(config: &TraceConfig, ids: Arc<dyn Ids>, drain: &Drain) -> Self {
        Self { per_million: config.per_million, ids, done: export::start(config, drain) }
    }

    /// Does a request's work within a span of its own, if it is one to note.
    pub(crate) async fn serve<E>(
        &self,
        request: &Seen,
        work: impl Future<Output = Result<Response<Body>, E>>,
        code: impl Fn(&E) -> u16,
    ) -> Result<Response<Body>, E> {
        let (parent, link) = if request.is_trusted { (request.caller, None) } else { (None, request.caller) };
        let trace = parent.map_or_else(|| random(&*self.ids), |parent| parent.trace);
        let sampled = parent.is_some_and(|parent| parent.sampled) || self.chooses(&trace);
        let context = Context { trace, span: random(&*self.ids), sampled };
        let (begun, clock) = (SystemTime::now(), Instant::now());
        let outcome = CURRENT.scope(Current { tracer: self.clone(), context }, work).await;
        if sampled {
            let status = match &outcome {
                Ok(response) => response.status().as_u16(),
                Err(error) => code(error),
            };
            let attributes = vec![
                ("http.request.method", Value::Text(request.method.to_string())),
                ("url.path", Value::Text(request.path.clone())),
                ("user_agent.original", Value::Text(request.agent.clone())),
                ("http.response.status_code", Value::Number(status.into())),
            ];
            // A full queue loses spans, not requests.
            let _ = self.done.try_send(export::Done {
                context,
                parent: parent.map(|parent| parent.span),
                link,
                name: request.name.clone(),
                kind: Kind::Server,
                begun,
                took: clock.elapsed(),
                attributes,
                failed: status >= 500,
            });
        }
        outcome
    }

    /// Whether a trace is one of the chosen; every process decides the same of it.
    fn chooses(&self, trace: &[u8; 16]) -> bool {
        let low = trace[8..].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte)) >> 1;
        u128::from(low) < (u128::from(self.per_million) << 63) / 1_000_000
    }
}

/// Up to 16 random bytes.
fn random<const N: usize>(ids: &dyn Ids) -> [u8; N] {
    let bytes = ids.bits().to_be_bytes();
    std::array::from_fn(|i| bytes[i])
}

/// What a span says of its request.
pub(crate) struct Seen {
    caller: Option<Context>,
    /// Whether the caller's word counts.
    is_trusted: bool,
    name: String,
    method: Method,
    path: String,
    agent: String,
}

impl Seen {
    pub(crate) fn of(http: &Request<Body>, target: &Target, user: &User) -> Self {
        let agent = http.headers().get(http::header::USER_AGENT).and_then(|v| v.to_str().ok());
        Self {
            caller: Context::of(http.headers()),
            is_trusted: user.groups.iter().any(|group| TRUSTED.contains(&group.as_str())),
            name: format!("{} {}", http.method(), pattern(target, http.uri().path())),
            method: http.method().clone(),
            path: http.uri().path().to_owned(),
            agent: agent.unwrap_or_default().to_owned(),
        }
    }
}

/// The path without what is of this one object, so that alike requests have one name.
fn pattern(target: &Target, path: &str) -> String {
    let Target::Resource(r) = target else { return path.to_owned() };
    let mut pattern = match &*r.def.gvk.group {
        "" => format!("/api/{}", r.def.gvk.version),
        group => format!("/apis/{group}/{}", r.def.gvk.version),
    };
    if !r.namespace.is_empty() {
        pattern.push_str("/namespaces/{:namespace}");
    }
    pattern.push('/');
    pattern.push_str(&r.def.resource);
    if !r.name.is_empty() {
        pattern.push_str("/{:name}");
    }
    if !r.subresource.is_empty() {
        pattern.push('/');
        pattern.push_str(&r.subresource);
    }
    pattern
}

/// Does a part of a request's work within a span of its own.
pub(crate) async fn timed<T, E>(
    name: &'static str,
    kind: Kind,
    attributes: impl FnOnce() -> Vec<(&'static str, Value)>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(current) = CURRENT.try_with(Clone::clone).ok().filter(|current| current.context.sampled) else {
        return work.await;
    };
    let parent = current.context.span;
    let context = Context { span: random(&*current.tracer.ids), ..current.context };
    let (begun, clock) = (SystemTime::now(), Instant::now());
    let done = current.tracer.done.clone();
    let outcome = CURRENT.scope(Current { context, ..current }, work).await;
    let _ = done.try_send(export::Done {
        context,
        parent: Some(parent),
        link: None,
        name: name.to_owned(),
        kind,
        begun,
        took: clock.elapsed(),
        attributes: attributes(),
        failed: outcome.is_err(),
    });
    outcome
}

/// Tells whoever is called which trace the call belongs to.
pub(crate) fn inject(headers: &mut HeaderMap) {
    let _ = CURRENT.try_with(|current| {
        if let Some(value) = current.context.header() {
            headers.insert(context::TRACEPARENT, value);
        }
    });
}
