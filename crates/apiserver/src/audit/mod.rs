//! What happened, for those who must know later (kubernetes/kubernetes, `apiserver/pkg/audit` and
//! `apiserver/pkg/endpoints/filters/audit.go`).
//!
//! A request under way has a [`Trail`] in its task, if there is a policy; without one, nothing is done at all. Whoever
//! knows something worth noting says so with [`annotate`].

mod backend;
mod buffered;
mod counts;
mod event;
mod log;
mod policy;
mod webhook;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use auth::{Attributes, User};
use base::{Drain, Ids};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use registry::Verb;
use serde_json::{Value, json};
use types::Status;

pub use backend::{AuditBatch, AuditDelivery, AuditMode};
pub use log::{AuditFormat, AuditLog};
pub use policy::{AuditPolicy, PolicyError};
pub use webhook::AuditWebhook;

use crate::authorize;
use crate::body;
use crate::peer::Peer;
use crate::request::Target;
use crate::respond::{self, Body};
use crate::state::Inner;
use backend::{Backend, Given};
use counts::Counts;
use event::Trail;
use policy::Level;

/// What is noted, and where.
pub struct AuditConfig {
    /// What.
    pub policy: AuditPolicy,
    /// In a file.
    pub log: Option<AuditLog>,
    /// At a server.
    pub webhook: Option<AuditWebhook>,
}

/// The auditor.
pub(crate) struct Audit {
    policy: AuditPolicy,
    backends: Vec<Backend>,
    counts: Arc<Counts>,
}

tokio::task_local! {
    static TRAIL: Arc<Trail>;
}

const ID: HeaderName = HeaderName::from_static("audit-id");
/// Longer ones are not taken over.
const MOST_ID: usize = 64;

/// Notes something on the event of the request under way, if there is one. What was said first stays.
pub(crate) fn annotate(key: &str, value: impl Into<String>) {
    let _ = TRAIL.try_with(|trail| {
        let mut facts = trail.0.lock();
        if facts.level() > Level::None {
            facts.annotations.entry(key.to_owned()).or_insert_with(|| value.into());
        }
    });
}

/// Notes what was decided, and why.
pub(crate) fn decided(outcome: &Result<String, Status>) {
    let _ = TRAIL.try_with(|trail| {
        let mut facts = trail.0.lock();
        let (decision, reason) = match outcome {
            Ok(reason) => ("allow", reason.clone()),
            Err(status) if status.code >= 500 => ("", "internal error".to_owned()),
            // What follows the standing words is the reason.
            Err(status) => ("forbid", status.message.split("\": ").nth(2).unwrap_or_default().to_owned()),
        };
        if !decision.is_empty() {
            facts.annotations.insert("authorization.k8s.io/decision".into(), decision.into());
        }
        facts.annotations.insert("authorization.k8s.io/reason".into(), reason);
    });
}

/// Notes whom the user is taken for.
pub(crate) fn impersonated(user: &User) {
    let _ = TRAIL.try_with(|trail| trail.0.lock().impersonated = Some(user.clone()));
}

impl Audit {
    pub(crate) fn open(config: AuditConfig, ids: &Arc<dyn Ids>, drain: &Drain) -> std::io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let log = config.log.map(|log| Backend::log(&log, &counts, drain)).transpose()?;
        let webhook = config.webhook.map(|webhook| Backend::webhook(webhook, ids, &counts, drain));
        Ok(Self { policy: config.policy, backends: log.into_iter().chain(webhook).collect(), counts })
    }

    /// Gives an event to all backends. What is left to do, if anything, tells whether the request may go on.
    fn send(&self, event: &Value) -> Given {
        self.counts.event();
        let mut go_on = true;
        let mut under_way = Vec::new();
        for backend in &self.backends {
            match backend.give(event) {
                Given::Done(ok) => go_on &= ok,
                Given::UnderWay(work) => under_way.push(work),
            }
        }
        if under_way.is_empty() {
            return Given::Done(go_on);
        }
        let all =
            async move { futures::future::join_all(under_way).await.into_iter().fold(go_on, |a, b| a & b) };
        Given::UnderWay(all.boxed())
    }

    /// What was counted, for the metrics.
    pub(crate) fn metrics(&self, out: &mut crate::metrics::Text) {
        self.counts.text(out);
    }

    /// Answers a request under the eyes of the auditor.
    pub(crate) async fn watch_over(
        server: &Arc<Inner>,
        headers: &HeaderMap,
        work: impl Future<Output = Result<Response<Body>, Status>>,
    ) -> Response<Body> {
        let trail = Arc::new(Trail::default());
        let given =
            headers.get(&ID).and_then(|v| v.to_str().ok()).filter(|v| v.len() <= MOST_ID && !v.is_empty());
        let id = given.map_or_else(|| server.config.ids.uid(), str::to_owned);
        {
            let mut facts = trail.0.lock();
            facts.id.clone_from(&id);
            facts.received = Some(server.config.clock.now());
        }
        let answered = AssertUnwindSafe(TRAIL.scope(trail.clone(), work)).catch_unwind().await;
        let mut response = match answered {
            Ok(answer) => {
                let response = answer.unwrap_or_else(|status| respond::status(&status));
                finish(server, &trail, response).await
            }
            Err(_) => {
                let status = Status::internal("APIServer panic'd");
                let said = event::Response::of(500, serde_json::from_slice(&status.to_json()).ok());
                note(server, &trail, "Panic", Some(&said)).await;
                respond::status(&status)
            }
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(ID, id);
        }
        response
    }
}

/// Notes a stage of a request. Tells whether the request may go on.
fn give(server: &Inner, trail: &Trail, stage: &str, response: Option<&event::Response>) -> Given {
    let Some(audit) = &server.audit else { return Given::Done(true) };
    let event = {
        let facts = trail.0.lock();
        facts.wants(stage).then(|| facts.event(stage, server.config.clock.now(), response))
    };
    event.map_or(Given::Done(true), |event| audit.send(&event))
}

/// The same, and waits until it is noted.
async fn note(server: &Inner, trail: &Trail, stage: &str, response: Option<&event::Response>) -> bool {
    match give(server, trail, stage, response) {
        Given::Done(ok) => ok,
        Given::UnderWay(work) => work.await,
    }
}

/// The request's user is known: the policy says how much is noted of it, and it is received.
pub(crate) async fn received(
    server: &Inner,
    user: &User,
    target: &Target,
    peer: Option<&Peer>,
    http: &mut Request<Body>,
) -> Result<(), Status> {
    let (Some(audit), Ok(trail)) = (&server.audit, TRAIL.try_with(Arc::clone)) else { return Ok(()) };
    let verb;
    let path;
    let attributes = match target {
        Target::Resource(r) => {
            verb = authorize::verbs_of(r, http.method())[0].to_owned();
            Attributes { verb: &verb, ..authorize::attributes_of(r, None) }
        }
        Target::Unserved(unserved) => authorize::attributes_of_unserved(unserved),
        Target::Path(parts) => {
            (verb, path) = (http.method().as_str().to_lowercase(), authorize::path_of(parts));
            Attributes { verb: &verb, path: &path, ..Attributes::default() }
        }
    };
    let verdict = audit.policy.verdict(user, &attributes);
    let level = verdict.level;
    audit.counts.level(level);
    {
        let mut facts = trail.0.lock();
        facts.verdict = verdict;
        if level == Level::None {
            return Ok(());
        }
        facts.uri = http.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        facts.verb = attributes.verb.to_owned();
        facts.user = user.clone();
        facts.source = event::source_ips(http.headers(), peer.and_then(|p| p.address));
        let agent = http.headers().get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        agent.chars().take(1024).collect::<String>().clone_into(&mut facts.agent);
        if attributes.is_resource() {
            facts.object = object_ref(&attributes);
        }
        facts.lasts = matches!(target, Target::Resource(r) if matches!(r.verb, Verb::Watch | Verb::Connect)
            || (r.subresource == "log" && r.query.get("follow").is_some()));
    }
    if !note(server, &trail, "RequestReceived", None).await {
        audit.counts.rejected();
        return Err(Status::internal("failed to store audit event"));
    }
    Ok(())
}

/// Notes what an allowed request brings. Of those who are refused nothing is read.
pub(crate) async fn keep(target: &Target, http: &mut Request<Body>) -> Result<(), Status> {
    let Ok(trail) = TRAIL.try_with(Arc::clone) else { return Ok(()) };
    let level = trail.0.lock().level();
    if let Target::Resource(r) = target
        && level >= Level::Request
        && matches!(r.verb, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection)
    {
        keep_body(&trail, r, http).await?;
    }
    Ok(())
}

fn object_ref(a: &Attributes<'_>) -> Value {
    let mut reference = json!({});
    for (field, value) in [
        ("resource", a.resource),
        ("namespace", a.namespace),
        ("name", a.name),
        ("apiGroup", a.group),
        ("apiVersion", a.version),
        ("subresource", a.subresource),
    ] {
        if !value.is_empty() {
            reference[field] = value.into();
        }
    }
    reference
}

/// Reads the body, notes what it says, and puts it back.
async fn keep_body(
    trail: &Trail,
    r: &crate::request::ResourceRequest,
    http: &mut Request<Body>,
) -> Result<(), Status> {
    let taken = std::mem::replace(http, Request::new(respond::empty()));
    let (parts, rest) = taken.into_parts();
    let mut again = Request::builder().method(parts.method.clone()).uri(parts.uri.clone()).body(rest);
    if let Ok(again) = &mut again {
        *again.headers_mut() = parts.headers.clone();
    }
    let (headers, bytes) = body::read(again.map_err(Status::internal)?).await?;
    let parsed = match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => Some(value),
        Err(_) if bytes.is_empty() => None,
        Err(_) => body::parse(&r.registry, &headers, &bytes).ok().map(|given| given.object),
    };
    let mut facts = trail.0.lock();
    if let Some(object) = &parsed {
        let text = |path: &[&str]| types::str_at(object, path).unwrap_or_default().to_owned();
        for (field, path) in [
            ("name", ["metadata", "name"]),
            ("uid", ["metadata", "uid"]),
            ("resourceVersion", ["metadata", "resourceVersion"]),
        ] {
            let value = text(&path);
            if facts.object[field].is_null() && !value.is_empty() {
                facts.object[field] = value.into();
            }
        }
    }
    facts.request = parsed;
    drop(facts);
    let mut parts = parts;
    // What was compressed is plain now.
    parts.headers = headers;
    parts.headers.remove(header::CONTENT_ENCODING);
    *http = Request::from_parts(parts, respond::full(bytes));
    Ok(())
}

/// Notes the answer: at once if it is all there, else when it has ended.
async fn finish(server: &Arc<Inner>, trail: &Arc<Trail>, response: Response<Body>) -> Response<Body> {
    let (level, lasts) = {
        let facts = trail.0.lock();
        (facts.level(), facts.lasts)
    };
    if level == Level::None {
        return response;
    }
    let code = response.status().as_u16();
    let whole = response.body().size_hint().exact().is_some() && code != 101;
    if lasts && code < 400 {
        let said = event::Response::of(code, None);
        note(server, trail, "ResponseStarted", Some(&said)).await;
    }
    if !whole {
        let last = Last { server: server.clone(), trail: trail.clone(), code };
        return response.map(|body| respond::guarded(body, last));
    }
    let wanted = level == Level::RequestResponse || code >= 400;
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if !wanted || !is_json {
        note(server, trail, "ResponseComplete", Some(&event::Response::of(code, None))).await;
        return response;
    }
    let (parts, rest) = response.into_parts();
    match rest.collect().await {
        Ok(collected) => {
            let bytes = collected.to_bytes();
            let said = event::Response::of(code, serde_json::from_slice(&bytes).ok());
            note(server, trail, "ResponseComplete", Some(&said)).await;
            Response::from_parts(parts, respond::full(bytes))
        }
        Err(_) => respond::status(&Status::internal("the response's body could not be read")),
    }
}

/// Notes the end of a response when it goes.
struct Last {
    server: Arc<Inner>,
    trail: Arc<Trail>,
    code: u16,
}

impl Drop for Last {
    fn drop(&mut self) {
        let said = event::Response::of(self.code, None);
        if let Given::UnderWay(work) = give(&self.server, &self.trail, "ResponseComplete", Some(&said)) {
            // Nobody waits for the end of a stream.
            tokio::spawn(work);
        }
    }
}
