//! The server of streams: whoever has a URL of it may join one process, or one sandbox's ports, once and soon
//! (kubernetes/kubernetes, `staging/src/k8s.io/kubelet/pkg/cri/streaming/{server,request_cache}.go`).
//!
//! It listens on the loopback interface only. The kubelet hands its own clients' connections on to it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use runtime::Runtime;
use streaming::Process;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use types::Status;

use crate::error::CriError;

/// How long a URL is good for.
const LIFE: Duration = Duration::from_secs(60);
/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// What a URL leads to.
pub(crate) enum Target {
    /// A process's input and output.
    Process(Process),
    /// A sandbox's ports: these, or those that the client names.
    Ports { sandbox: String, ports: Vec<u16> },
}

/// What URLs were given out for, by their last part.
type Given = Arc<Mutex<HashMap<String, (Instant, Target)>>>;

/// The server, and what it waits for.
pub(crate) struct Streams {
    address: SocketAddr,
    given: Given,
}

impl Streams {
    /// Listens on a port of the kernel's choice until the drain starts.
    pub(crate) async fn start(runtime: Runtime, drain: &Drain) -> Result<Self, CriError> {
        let failed = |source| CriError::File { attempt: "listen on", path: "127.0.0.1".into(), source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let given = Given::default();
        let server = Server { runtime, given: given.clone(), drain: drain.clone() };
        drain.spawn_until_started(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        _ = server.drain.spawn_until_started(server.clone().connection(stream))
                    }
                    // Out of file descriptors, most likely: others must go first.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Ok(Self { address, given })
    }

    /// A URL that is good once, with this secret in it.
    pub(crate) fn url(&self, token: &str, kind: &str, target: Target) -> String {
        let mut given = self.given.lock();
        given.retain(|_, (at, _)| at.elapsed() < LIFE);
        given.insert(token.to_owned(), (Instant::now(), target));
        format!("http://{}/{kind}/{token}", self.address)
    }
}

#[derive(Clone)]
struct Server {
    runtime: Runtime,
    given: Given,
    drain: Drain,
}

type Body = Full<Bytes>;

impl Server {
    async fn connection(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| {
            let answer = self.answer(request).unwrap_or_else(|status| refusal(&status));
            async move { Ok::<_, Infallible>(answer) }
        });
        // A broken connection is the client's affair.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    }

    fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let token = request.uri().path().rsplit('/').next().unwrap_or_default();
        let given = self.given.lock().remove(token).filter(|(at, _)| at.elapsed() < LIFE);
        let Some((_, target)) = given else { return Err(Status::no_such_resource()) };
        match target {
            Target::Process(process) => streaming::run(request, self.runtime.clone(), &self.drain, process),
            Target::Ports { sandbox, ports } => {
                let mut query = streaming::query(request.uri().query());
                if !query.iter().any(|(name, _)| name == "port" || name == "ports") {
                    query.extend(ports.iter().map(|port| ("port".to_owned(), port.to_string())));
                }
                streaming::forward(request, self.runtime.clone(), &self.drain, sandbox, &query)
            }
        }
    }
}

fn refusal(status: &Status) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(status.message.clone())));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
