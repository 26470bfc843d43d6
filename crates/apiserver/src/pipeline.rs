//! The way of a request.
//!
//! ```text
//! parse ► authenticate ► wait for a seat ► authorize ► the verb (decode ► default ► admit ► validate ► store) ► encode
//!                                                   └► another server, if an APIService says so
//! ```

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use auth::User;
use futures::FutureExt;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use registry::Verb;
use types::Status;

use crate::audit::Audit;
use crate::metrics::{Instead, Label, Metrics};
use crate::peer::Peer;
use crate::request::{ResourceRequest, Target, parse};
use crate::respond::{self, Body};
use crate::state::{ApiServer, Inner};
use crate::{
    admit, aggregation, audit, authenticate, authorize, deadline, discovery, encode, health, openapi,
    reviews, subresources, trace, verbs,
};

/// One request on its way, after parsing and authentication.
pub(crate) struct Call {
    pub(crate) user: User,
    pub(crate) request: Box<ResourceRequest>,
    pub(crate) http: Request<Body>,
}

impl ApiServer {
    /// Answers one request. `connection` is whom the connection itself speaks for: the subject of a client
    /// certificate, or a component of this process.
    ///
    /// Every failure is a response; nothing panics on what comes from outside.
    pub async fn handle(&self, http: Request<Body>, connection: Option<&User>) -> Response<Body> {
        let server = &self.0;
        let begun = Instant::now();
        let target = parse(http.method(), http.uri(), &server.registry(), &server.api_services());
        let gzip = respond::accepts_gzip(http.headers());
        let label = Label::of(http.method(), &target);
        let in_flight = server.metrics.begin(&label);
        let response = if server.audit.is_some() {
            let headers = http.headers().clone();
            let work = answer(server, http, target, connection);
            Ok(Audit::watch_over(server, &headers, work).await)
        } else {
            // One request's fault is not the connection's, which others may share.
            let work = AssertUnwindSafe(answer(server, http, target, connection)).catch_unwind().await;
            work.unwrap_or_else(|_| Err(Status::internal("APIServer panic'd")))
        };
        let mut response = response.unwrap_or_else(|status| respond::status(&status));
        let size = response.body().size_hint().exact();
        if gzip {
            response = respond::compressed(response);
        }
        drop(in_flight);
        server.metrics.end(label, response.status().as_u16(), begun.elapsed(), size);
        response
    }
}

/// Serves a request, and passes on what admission says meanwhile.
async fn answer(
    server: &Arc<Inner>,
    http: Request<Body>,
    target: Target,
    connection: Option<&User>,
) -> Result<Response<Body>, Status> {
    // Boxed, so that the futures of all stages and verbs are not one on the stack.
    let (outcome, said) = admit::listening(Box::pin(serve(server, http, target, connection))).await;
    for (key, value) in &said.annotations {
        audit::annotate(key, value);
    }
    if said.warnings.is_empty() {
        return outcome;
    }
    let mut response = outcome.unwrap_or_else(|status| respond::status(&status));
    encode::warn(&mut response, &said.warnings);
    Ok(response)
}

async fn serve(
    server: &Arc<Inner>,
    mut http: Request<Body>,
    target: Target,
    connection: Option<&User>,
) -> Result<Response<Body>, Status> {
    let peer = http.extensions().get::<Arc<Peer>>().cloned();
    let url_path = http.uri().path().to_owned();
    let user = authenticate::authenticate(server, http.headers_mut(), connection, peer.as_deref(), &url_path)
        .await?;
    audit::received(server, &user, &target, peer.as_deref(), &mut http).await?;
    let user = authenticate::impersonate(server, http.headers_mut(), user).await?;
    let admitted = server.fairness.admit(server, &user, http.method(), &target).await?;
    let allowed = authorize::authorize(server, &user, http.method(), &target).await;
    audit::decided(&allowed);
    allowed?;
    let limit = deadline::of(&target)?;
    let seen = server.tracer.is_some().then(|| trace::Seen::of(&http, &target, &user));
    let work = async {
        audit::keep(&target, &mut http).await?;
        match target {
            Target::Resource(ref request) if let Some(extension) = &request.elsewhere => {
                Ok(Box::pin(aggregation::forward(server, extension, &user, http)).await)
            }
            Target::Resource(request) => {
                latest(server, &request).await?;
                let deprecation = registry::deprecation(&request.def.gvk);
                let mut response = dispatch(server, Call { user, request, http }).await?;
                if let Some(deprecation) = deprecation {
                    encode::warn(&mut response, &[deprecation.to_owned()]);
                }
                Ok(response)
            }
            Target::Path(parts) => match aggregation::claimed(server, &parts) {
                Some(extension) => Ok(Box::pin(aggregation::forward(server, &extension, &user, http)).await),
                None => Box::pin(path(server, &parts, http)).await,
            },
            Target::Unserved(unserved) => Err(unserved.why),
        }
    };
    let work = pin!(work);
    let work = async {
        match limit {
            Some(limit) => {
                tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(deadline::exceeded()))
            }
            None => work.await,
        }
    };
    // Pinned, so that it is not moved to where it is waited for.
    let work = pin!(work);
    let mut response = match (&server.tracer, seen) {
        (Some(tracer), Some(seen)) => tracer.serve(&seen, work, |status: &Status| status.code).await,
        _ => work.await,
    };
    if let (Ok(response), Some(admitted)) = (&mut response, admitted) {
        admitted.stamp(response.headers_mut());
    }
    response
}

/// Makes sure that a request is not answered from what is older than its client knows, when other servers write to
/// the store, too. Reads that name a resource version say themselves how old the answer may be.
async fn latest(server: &Inner, request: &ResourceRequest) -> Result<(), Status> {
    if !server.store.is_shared() {
        return Ok(());
    }
    if let (Verb::Get | Verb::List | Verb::Watch, Some(version)) =
        (request.verb, &request.query.resource_version)
    {
        return match (request.verb, version.parse()) {
            (Verb::Get, Ok(revision)) => verbs::wait_for(server, revision).await,
            // The others look themselves; a text that is no number is theirs to refuse.
            _ => Ok(()),
        };
    }
    match server.store.consistent().await {
        Ok(_) => Ok(()),
        Err(error) => Err(crate::object::unavailable(format!("the store cannot be read: {error}"))),
    }
}

async fn dispatch(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    let custom = r.def.custom.clone();
    if custom.as_ref().is_some_and(|c| r.verb == Verb::Create && c.terminating.load(Ordering::Acquire)) {
        let mut status = Status::method_not_allowed();
        status.message = "create not allowed while custom resource definition is terminating".into();
        return Err(status);
    }
    let mut response = dispatch_to(server, call).await?;
    if let Some(warning) = custom.as_ref().and_then(|c| c.warning.as_deref()) {
        encode::warn(&mut response, &[warning.to_owned()]);
    }
    Ok(response)
}

async fn dispatch_to(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    let allowed = match r.subresource.as_str() {
        "" => r.def.verbs,
        name => r.def.subresources.get(name).ok_or_else(Status::no_such_resource)?.verbs,
    };
    if !allowed.has(r.verb) {
        return Err(Status::method_not_allowed());
    }
    // Each is boxed by itself: one future for all of them is as large as the largest, for every request.
    match (r.subresource.as_str(), r.verb) {
        _ if reviews::is_review(&r.def) => Box::pin(reviews::create(server, call)).await,
        ("", Verb::Get) => Box::pin(verbs::get(server, call)).await,
        ("", Verb::List) => Box::pin(verbs::list(server, call)).await,
        ("", Verb::Watch) => Box::pin(verbs::watch(server, call)).await,
        ("", Verb::Create) if &*r.def.resource == "bindings" => {
            Box::pin(subresources::bind(server, call)).await
        }
        ("", Verb::Create) => Box::pin(verbs::create(server, call)).await,
        ("", Verb::Update) => Box::pin(verbs::update(server, call, verbs::Part::Main)).await,
        ("", Verb::Patch) => Box::pin(verbs::patch(server, call, verbs::Part::Main)).await,
        ("", Verb::Delete) => Box::pin(verbs::delete(server, call)).await,
        ("", Verb::DeleteCollection) => Box::pin(verbs::delete_collection(server, call)).await,
        ("", Verb::Connect) => Err(Status::method_not_allowed()),
        (_, _) => Box::pin(subresources::dispatch(server, call)).await,
    }
}

/// Everything that is no resource.
async fn path(server: &Arc<Inner>, parts: &[String], http: Request<Body>) -> Result<Response<Body>, Status> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => Ok(discovery::paths(server)),
        ["api"] => Ok(discovery::core_versions(server, &http)),
        ["api", version] => discovery::resources(server, "", version),
        ["apis"] => Ok(discovery::groups(server, &http)),
        ["apis", group] => discovery::group(server, group),
        ["apis", group, version] => discovery::resources(server, group, version),
        ["openapi", "v2"] => openapi::version_2(server, &http),
        ["openapi", "v3"] => Ok(openapi::index(server)),
        ["openapi", "v3", "api", version] => openapi::document(server, "", version, &http),
        ["openapi", "v3", "apis", group, version] => match server.api_services().extension(group, version) {
            Some(extension) => aggregation::description(server, extension, http).await,
            None => openapi::document(server, group, version, &http),
        },
        [".well-known", "openid-configuration"] => {
            let (address, port) = server.config.advertise;
            let own = format!("https://{address}:{port}");
            Ok(respond::public(respond::JSON, server.config.tokens.discovery(&own).to_string()))
        }
        ["openid", "v1", "jwks"] => {
            Ok(respond::public("application/jwk-set+json", server.config.tokens.jwks().to_string()))
        }
        ["version"] => Ok(health::version()),
        [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
            Ok(health::check(server, check, rest, http.uri().query().unwrap_or_default()))
        }
        ["gantry", "backup"] => health::backup(server),
        ["metrics"] => Ok(respond::with_type(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            http.extensions().get::<Instead>().map_or_else(|| Metrics::text(server), Instead::text),
        )),
        _ => Err(Status::no_such_resource()),
    }
}
