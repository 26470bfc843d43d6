//! The agent's HTTPS server: what the API server asks of a node on behalf of `kubectl logs`, `exec`, `attach`, `cp` and
//! `port-forward`, and what tells of the node itself (kubernetes/kubernetes, `pkg/kubelet/server/server.go`).
//!
//! Connections are TLS with HTTP/1.1, which can be upgraded; clients show a certificate of the cluster's.

mod about;
mod access;
mod checkpoint;
mod elsewhere;
mod logs;
mod metrics;
mod node_logs;
mod summary;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth::User;
use base::{Clock, Drain, Timestamp};
use bytes::Bytes;
use client::Key;
use futures::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use runtime::ContainerState;
use streaming::{Process, Wanted};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use types::Status;

use crate::cri::Cri;
use crate::engine::{BuiltIn, Engine};
use crate::error::NodeError;
use crate::meters::Meters;
use crate::shutdown::Shutdown;
use crate::static_pods::Pods;
use crate::stats::Stats;
pub(crate) use access::Access;

/// How long a client may take to shake hands, or to send a request's head.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server answers from.
#[derive(Clone)]
pub(crate) struct Server {
    /// The node's name.
    pub(crate) node: String,
    pub(crate) client: Client,
    pub(crate) pods: Pods,
    pub(crate) runtime: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
    pub(crate) stats: Stats,
    pub(crate) meters: Arc<Meters>,
    /// Volumes lie below it.
    pub(crate) data_dir: PathBuf,
    /// When the agent began.
    pub(crate) began: Timestamp,
    /// The agent's settings, as `/configz` shows them.
    pub(crate) settings: Arc<serde_json::Value>,
    /// Who may ask.
    pub(crate) access: Access,
    pub(crate) shutdown: Arc<Shutdown>,
}

impl Server {
    /// Listens, and serves until the drain starts.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn start(
        self,
        address: SocketAddr,
        tls: &Arc<rustls::ServerConfig>,
    ) -> Result<(), NodeError> {
        let listener =
            TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })?;
        let mut tls = rustls::ServerConfig::clone(tls);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        self.drain.clone().spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        // Out of file descriptors, most likely: others must go first.
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a connection");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    },
                    () = self.drain.started() => return,
                };
                let connection = self.clone().connection(stream, acceptor.clone());
                self.drain.spawn_until_started(connection);
            }
        });
        Ok(())
    }

    async fn connection(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let user = certificate.and_then(|c| auth::user_of_certificate(c)).map(Arc::new);
        let service = service_fn(move |request| {
            let (server, user) = (self.clone(), user.clone());
            async move { Ok::<_, Infallible>(server.answer(user.as_deref(), request).await) }
        });
        // A broken connection is the client's affair.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    }

    async fn answer(&self, user: Option<&User>, request: Request<Incoming>) -> Response<Body> {
        self.route(user, request).await.unwrap_or_else(|status| refusal(&status))
    }

    async fn route(&self, user: Option<&User>, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let path = request.uri().path().to_owned();
        self.access.check(&self.client, &self.node, user, request.method(), &path).await?;
        let query = streaming::query(request.uri().query());
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let reads = request.method() == Method::GET;
        match parts.as_slice() {
            ["healthz", rest @ ..] if reads => about::health(rest),
            ["configz"] if reads => Ok(json(&serde_json::json!({"kubeletconfig": *self.settings}))),
            ["pods"] | ["pods", ""] if reads => Ok(self.list()),
            ["runningpods"] | ["runningpods", ""] if reads => Ok(json(&self.running_pods())),
            ["stats", "summary"] if reads => Ok(json(&self.summary(&query).await?)),
            ["metrics", rest @ ..] if reads => Ok(numbers(self.metrics(rest).await?)),
            ["logs", ..] if reads => self.node_logs(&path, &query).await,
            ["containerLogs", namespace, pod, container] if reads => {
                let pod = self.pod(namespace, pod)?;
                logs::serve(self, request, &pod, container, &query)
            }
            [kind @ ("exec" | "attach"), namespace, pod, container] => {
                let pod = self.pod(namespace, pod)?;
                self.run(request, *kind == "exec", &pod, container, &query).await
            }
            ["checkpoint", namespace, pod, container] if request.method() == Method::POST => {
                let pod = self.pod(namespace, pod)?;
                self.checkpoint(&pod, container, &query).await
            }
            ["portForward", namespace, pod] => {
                let pod = self.pod(namespace, pod)?;
                self.forward(request, &pod, &query).await
            }
            _ => Err(Status::no_such_resource()),
        }
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Status> {
        self.pods.get(&Key::new(namespace, name)).ok_or_else(|| {
            let mut status = Status::not_found("", "pods", name);
            status.message = format!("pod {name:?} does not exist on this node");
            status
        })
    }

    fn list(&self) -> Response<Body> {
        let items = self.pods.list().iter().map(|pod| Pod::clone(pod)).collect();
        json(&List::<Pod> { items, ..List::default() })
    }

    /// `exec` or `attach`.
    async fn run(
        &self,
        request: Request<Incoming>,
        exec: bool,
        pod: &Pod,
        container: &str,
        query: &[(String, String)],
    ) -> Result<Response<Body>, Status> {
        let wanted = Wanted::parse(query)
            .ok_or_else(|| Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"))?;
        let id = self.running(pod, container)?;
        let spec = wanted.command(query);
        if exec && spec.argv.is_empty() {
            return Err(Status::bad_request("you must specify a command to run"));
        }
        let runtime = match &self.runtime {
            Engine::BuiltIn(BuiltIn { runtime, .. }) => runtime.clone(),
            Engine::Cri(cri) => {
                let url = match exec {
                    true => cri.exec_url(&id, spec, wanted).await,
                    false => cri.attach_url(&id, wanted).await,
                };
                return elsewhere::pass(&url.map_err(Status::internal)?, request).await;
            }
        };
        let process = Process { container: id, exec: exec.then_some(spec), wanted };
        streaming::run(request, runtime, &self.drain, process)
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        pod: &Pod,
        query: &[(String, String)],
    ) -> Result<Response<Body>, Status> {
        let sandbox = pod.metadata.uid.clone().unwrap_or_default();
        let runtime = match &self.runtime {
            Engine::BuiltIn(BuiltIn { runtime, .. }) => runtime.clone(),
            Engine::Cri(cri) => return forward_elsewhere(cri, &sandbox, request, query).await,
        };
        streaming::forward(request, runtime, &self.drain, sandbox, query)
    }

    /// The id of the container's run that is on.
    fn running(&self, pod: &Pod, container: &str) -> Result<String, Status> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut runs = self.runtime.containers(uid).into_iter();
        let found =
            runs.find(|run| run.name == container && matches!(run.state, ContainerState::Running { .. }));
        found.map(|run| run.id).ok_or_else(|| {
            let mut status = Status::not_found("", "pods", container);
            status.message = format!("container not found ({container:?})");
            status
        })
    }
}

/// Another runtime is told the ports that a WebSocket names; over SPDY they are said later.
async fn forward_elsewhere(
    cri: &Cri,
    sandbox: &str,
    request: Request<Incoming>,
    query: &[(String, String)],
) -> Result<Response<Body>, Status> {
    let named = query.iter().any(|(name, _)| name == "port" || name == "ports");
    let ports = if named { streaming::ports(query)? } else { Vec::new() };
    let url = cri.port_forward_url(sandbox, &ports).await.map_err(Status::internal)?;
    elsewhere::pass(&url, request).await
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    // What was read as JSON, or made of it, can be written as JSON.
    let mut response = text(serde_json::to_vec(value).unwrap_or_default());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What Prometheus reads.
fn numbers(lines: String) -> Response<Body> {
    let mut response = text(lines);
    let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}

fn refusal(status: &Status) -> Response<Body> {
    let mut response = text(status.to_json());
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that is sent piece by piece; it ends when the sender is dropped.
fn streamed() -> (mpsc::Sender<Bytes>, Body) {
    let (send, receive) = mpsc::channel(16);
    let pieces = futures::stream::unfold(receive, |mut receive| async move {
        let piece = receive.recv().await?;
        Some((piece, receive))
    });
    (send, StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync())
}
