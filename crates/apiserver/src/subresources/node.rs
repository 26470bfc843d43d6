use std::sync::Arc;

use admission::Objects;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use types::{Reason, Status, str_at};

use crate::admit;
use crate::pipeline::Call;
use crate::request::ResourceRequest;
use crate::respond::{Body, BoxError};
use crate::state::Inner;

/// Logs, exec, attach and port-forward: the request goes on to the agent of the pod's node, and what comes back
/// goes to the client as it is, upgraded connections too (kubernetes/kubernetes,
/// `pkg/registry/core/pod/rest/subresources.go`, `pkg/registry/core/pod/strategy.go`, `streamLocation`).
pub(super) async fn forward(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    let pod = server.get("pods", &r.namespace, &r.name).ok_or_else(|| r.not_found())?;
    if r.subresource != "log" {
        admit::connect(server, r, &call.user).await?;
    }
    let path = agent_path(r, &pod)?;
    let node = str_at(&pod, &["spec", "nodeName"])
        .ok_or_else(|| Status::bad_request(format!("pod {} does not have a host assigned", r.name)))?;
    to_node(server, node, &path, call.http).await
}

/// The agent's own path for a request.
fn agent_path(r: &ResourceRequest, pod: &Value) -> Result<String, Status> {
    let (namespace, name) = (&r.namespace, &r.name);
    let query = if r.query.raw.is_empty() { String::new() } else { format!("?{}", r.query.raw) };
    if r.subresource == "portforward" {
        return Ok(format!("/portForward/{namespace}/{name}{query}"));
    }
    let container = container_of(r, pod)?;
    let verb = match r.subresource.as_str() {
        "log" => "containerLogs",
        other => other,
    };
    Ok(format!("/{verb}/{namespace}/{name}/{container}{query}"))
}

/// The container a request names, or the only one there is.
fn container_of(r: &ResourceRequest, pod: &Value) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match r.query.get("container").filter(|c| !c.is_empty()) {
        Some(asked) if main.iter().chain(&init).chain(&ephemeral).any(|n| n == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {}", r.name))),
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let shown = |list: &[String]| format!("[{}]", list.join(" "));
            let mut why = format!(
                "a container name must be specified for pod {}, choose one of: {}",
                r.name,
                shown(&main)
            );
            if !init.is_empty() {
                why += &format!(" or one of the init containers: {}", shown(&init));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// Sends a request to a node's agent and brings back its answer.
pub(super) async fn to_node(
    server: &Inner,
    node: &str,
    path: &str,
    http: Request<Body>,
) -> Result<Response<Body>, Status> {
    let unreachable = |why: String| {
        let mut status = Status::internal(format_args!("error dialing backend: node {node}: {why}"));
        status.reason = Some(Reason::InternalError);
        status
    };
    let client = server
        .config
        .node_client
        .as_ref()
        .ok_or_else(|| unreachable("this server has no credentials for nodes".into()))?;
    let (host, port) = address_of(server, node).ok_or_else(|| unreachable("it has no address yet".into()))?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| unreachable(e.to_string()))?;
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(host).map_err(|e| unreachable(e.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(client.tls.clone());
    let stream = connector.connect(name, stream).await.map_err(|e| unreachable(e.to_string()))?;
    exchange(stream, path.to_owned(), http).await.map_err(|e| unreachable(e.to_string()))
}

fn address_of(server: &Inner, name: &str) -> Option<(String, u16)> {
    let node = server.get("nodes", "", name)?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(10250);
    Some((internal_address(&node)?.to_owned(), u16::try_from(port).ok()?))
}

/// Where other parts of the cluster reach a node.
pub(super) fn internal_address(node: &Value) -> Option<&str> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").or(addresses.first())?;
    internal["address"].as_str()
}

/// One request over a connection of its own. If the other side switches protocols, so does the client's
/// connection, and bytes flow both ways until either side ends.
///
/// Boxed, because the compiler cannot see through the connection's future from the outside.
pub(super) fn exchange<S>(
    stream: S,
    path: String,
    http: Request<Body>,
) -> BoxFuture<'static, Result<Response<Body>, BoxError>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    exchange_once(stream, path, http).boxed()
}

async fn exchange_once<S>(
    stream: S,
    path: String,
    mut http: Request<Body>,
) -> Result<Response<Body>, BoxError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let upgraded_client = http.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut http));
    let (mut parts, body) = http.into_parts();
    parts.uri = path.parse::<Uri>()?;
    parts.version = http::Version::HTTP_11;
    // The user's own credentials are for this server only.
    for name in [header::AUTHORIZATION, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.entry(header::HOST).or_insert(HeaderValue::from_static("node"));
    let body = if upgraded_client.is_some() { crate::respond::empty() } else { body };
    let mut response = sender.send_request(Request::from_parts(parts, body)).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = upgraded_client
    {
        let agent = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(client), Ok(agent)) = (client.await, agent.await) {
                let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
                // Either side's end is the end; there is nobody left to tell of an error.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut agent).await;
            }
        });
        let (parts, _) = response.into_parts();
        return Ok(Response::from_parts(parts, crate::respond::empty()));
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    // The sender must live as long as the body is read.
    let body = body.map_frame(move |frame| {
        let _alive = &sender;
        frame.map_data(|data: Bytes| data)
    });
    Ok(Response::from_parts(parts, body.map_err(|e| Box::new(e) as BoxError).boxed_unsync()))
}
