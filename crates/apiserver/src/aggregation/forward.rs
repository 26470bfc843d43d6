use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auth::User;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use types::Status;

use super::connections::{Place, Trust};
use super::headers::{introduce, wants_upgrade, without_hops};
use super::services::Extension;
use super::stream::Stream;
use crate::peer::Peer;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::subresources::service_addresses;

/// Takes a request to the server that is responsible for it, and brings back its answer as it comes
/// (kubernetes/kubernetes, `kube-aggregator/pkg/apiserver/handler_proxy.go`).
///
/// What goes wrong on the way is told in plain text, as upstream does; clients make a `Status` of the code.
pub(crate) async fn forward(
    server: &Arc<Inner>,
    extension: &Extension,
    user: &User,
    http: Request<Body>,
) -> Response<Body> {
    if let Some(local) = &extension.local {
        return local.answer(user.clone(), http).await;
    }
    if !extension.available {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let Some(place) = place(server, extension) else {
        tracing::warn!(service = &*extension.name, "an extension server has no address");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    };
    match exchange(server, &place, user, http).await {
        Ok(response) => response,
        Err(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {why}")),
    }
}

/// An error in the form of Go's `http.Error`.
fn refuse(code: StatusCode, why: &str) -> Response<Body> {
    let mut response = respond::text(code, format!("{why}\n"));
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// One of the addresses behind an extension server's Service, each in its turn.
fn place(server: &Inner, extension: &Extension) -> Option<Place> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let addresses =
        service_addresses(server, &extension.namespace, &extension.service, &extension.port.to_string())
            .ok()?;
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let address = addresses.get(turn % addresses.len().max(1))?.clone();
    Some(place_at(extension, address, extension.trust.clone()))
}

/// The server at one address.
pub(super) fn place_at(extension: &Extension, address: String, trust: Trust) -> Place {
    Place { address, name: format!("{}.{}.svc", extension.service, extension.namespace), trust }
}

async fn exchange(
    server: &Arc<Inner>,
    place: &Place,
    user: &User,
    mut http: Request<Body>,
) -> Result<Response<Body>, super::connections::ReachError> {
    let upgrade = wants_upgrade(http.headers());
    let client = upgrade.then(|| hyper::upgrade::on(&mut http));
    let request = outgoing(http, place, user, upgrade);
    let (connections, cluster) = (&server.aggregation.connections, &server.config.ca_pem);
    let (mut response, sender) = match upgrade {
        true => connections.send_alone(place, cluster, request).await?,
        false => connections.send(place, cluster, request).await?,
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        let theirs = hyper::upgrade::on(&mut response);
        let ending = server.drain.clone();
        tokio::spawn(async move {
            if let (Ok(client), Ok(theirs)) = (client.await, theirs.await) {
                let (mut client, mut theirs) = (TokioIo::new(client), TokioIo::new(theirs));
                // Either side's end is the end; there is nobody left to tell of an error.
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut theirs) => {}
                    () = ending.started() => {}
                }
            }
        });
        return Ok(response.map(|_| respond::empty()));
    }
    if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
        // A client that followed it would show its credentials to whomever.
        let why = "the backend attempted to redirect this request, which is not permitted";
        return Ok(respond::text(StatusCode::BAD_GATEWAY, why));
    }
    let (mut parts, body) = response.into_parts();
    parts.version = http::Version::default();
    without_hops(&mut parts.headers, false);
    let drain = server.drain.clone();
    let until = async move { drain.started().await }.boxed();
    let body = Stream::body(body, connections.clone(), place.clone(), sender, Some(until));
    Ok(Response::from_parts(parts, body))
}

/// The request as the other server gets it.
fn outgoing(http: Request<Body>, place: &Place, user: &User, upgrade: bool) -> Request<Body> {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    let (mut parts, body) = http.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let origin = path.parse::<Uri>().unwrap_or_default();
    let headers = &mut parts.headers;
    without_hops(headers, upgrade);
    introduce(headers, user);
    let host = headers.remove(header::HOST).or_else(|| {
        let authority = parts.uri.authority()?;
        HeaderValue::from_str(authority.as_str()).ok()
    });
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    headers.insert(PROTO, HeaderValue::from_static("https"));
    if let Ok(path) = HeaderValue::from_str(origin.path()) {
        headers.insert(URI, path);
    }
    let from = parts.extensions.get::<Arc<Peer>>().and_then(|peer| peer.address);
    if let Some(from) = from {
        let before = headers.get(FOR).and_then(|v| v.to_str().ok());
        let chain = before.map_or_else(|| from.to_string(), |before| format!("{before}, {from}"));
        if let Ok(chain) = HeaderValue::from_str(&chain) {
            headers.insert(FOR, chain);
        }
    }
    if let Ok(name) = HeaderValue::from_str(&place.name) {
        headers.insert(header::HOST, name);
    }
    parts.uri = origin;
    parts.version = http::Version::HTTP_11;
    Request::from_parts(parts, if upgrade { respond::empty() } else { body })
}

/// A question of this server's own: code, headers and body of the answer.
pub(super) async fn ask(
    server: &Arc<Inner>,
    extension: &Extension,
    place: &Place,
    path: &str,
    headers: &[(HeaderName, &str)],
    patience: Duration,
) -> Result<Response<Bytes>, String> {
    // Allowed everything, so that rights never stand between a server and its availability.
    let user =
        User { name: "system:kube-aggregator".into(), groups: vec![User::MASTERS.into()], ..User::default() };
    let mut request = Request::new(respond::empty());
    *request.uri_mut() = path.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
    for (name, value) in headers {
        request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|e| e.to_string())?);
    }
    let work = async {
        let response = match &extension.local {
            Some(local) => local.answer(user.clone(), request).await,
            None => exchange(server, place, &user, request).await.map_err(|e| e.to_string())?,
        };
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|e| e.to_string())?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > MOST_BYTES {
                return Err(format!("the answer is longer than {MOST_BYTES} bytes"));
            }
        }
        Ok(Response::from_parts(parts, Bytes::from(bytes)))
    };
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
    })
}

/// The most that is read of an answer to a question of our own.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// How an extension server describes its version (OpenAPI version 3), in its own words.
pub(crate) async fn description(
    server: &Arc<Inner>,
    extension: &Extension,
    mut http: Request<Body>,
) -> Result<Response<Body>, Status> {
    let learned = server.learned(extension);
    let path =
        learned.as_ref().and_then(|l| l.openapi.version_3.as_deref()).ok_or_else(Status::no_such_resource)?;
    *http.uri_mut() = path.parse().map_err(Status::internal)?;
    let user =
        User { name: "system:aggregator".into(), groups: vec![User::MASTERS.into()], ..User::default() };
    Ok(forward(server, extension, &user, http).await)
}
