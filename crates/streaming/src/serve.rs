//! Requests that are upgraded: which protocol, and what is joined with it.

use base::Drain;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use runtime::{ExecSpec, Runtime};
use types::Status;

use crate::remote::{Remote, Wanted};
use crate::{port_forward, remote, spdy, websocket};

/// A process whose input and output a client wants.
pub struct Process {
    /// The container, by id.
    pub container: String,
    /// What to start in it; absent means the container's own process.
    pub exec: Option<ExecSpec>,
    /// Which of its streams.
    pub wanted: Wanted,
}

/// Answers a request for a process's streams, and joins them once the connection is upgraded, until `drain` starts.
///
/// # Errors
/// When the request asks for no upgrade, or for no protocol that is spoken here.
pub fn run<B: Default>(
    mut request: Request<Incoming>,
    runtime: Runtime,
    drain: &Drain,
    process: Process,
) -> Result<Response<B>, Status> {
    let Process { container, exec, wanted } = process;
    let headers = request.headers();
    let (response, protocol, over_spdy) = if websocket::is_asked(headers) {
        let (response, protocol) =
            websocket::accept(headers, &remote::WEBSOCKET).ok_or_else(|| no_protocol(&remote::WEBSOCKET))?;
        (response, protocol, false)
    } else if spdy::is_asked(headers) {
        let (response, protocol) =
            spdy::accept(headers, &remote::SPDY).ok_or_else(|| no_protocol(&remote::SPDY))?;
        (response, protocol, true)
    } else {
        return Err(not_upgraded());
    };
    let upgrade = hyper::upgrade::on(&mut request);
    drain.spawn_until_started(async move {
        let Ok(io) = upgrade.await.map(TokioIo::new) else { return };
        let remote = if over_spdy {
            let Some(remote) = Remote::spdy(io, protocol, wanted).await else { return };
            remote
        } else {
            Remote::websocket(io, protocol, wanted).await
        };
        let owned = exec.is_some();
        let started = match exec {
            Some(spec) => runtime.exec(&container, spec).await,
            None => runtime.attach(&container).await,
        };
        remote.join(started, owned).await;
    });
    Ok(response)
}

/// Answers a request for connections to a sandbox's ports, and makes them until `drain` starts.
///
/// # Errors
/// As [`run`], and when a WebSocket request names no ports.
pub fn forward<B: Default>(
    mut request: Request<Incoming>,
    runtime: Runtime,
    drain: &Drain,
    sandbox: String,
    query: &[(String, String)],
) -> Result<Response<B>, Status> {
    let headers = request.headers();
    if websocket::is_asked(headers) {
        let (response, protocol) = websocket::accept(headers, &port_forward::WEBSOCKET)
            .ok_or_else(|| no_protocol(&port_forward::WEBSOCKET))?;
        let tunnelled = protocol == port_forward::WEBSOCKET[0];
        let ports = if tunnelled { Vec::new() } else { port_forward::ports(query)? };
        let upgrade = hyper::upgrade::on(&mut request);
        drain.spawn_until_started(async move {
            let Ok(io) = upgrade.await.map(TokioIo::new) else { return };
            if tunnelled {
                let io = websocket::tunnel(io).await;
                port_forward::spdy(io, runtime, sandbox).await;
            } else {
                port_forward::websocket(io, ports, runtime, sandbox).await;
            }
        });
        return Ok(response);
    }
    if !spdy::is_asked(headers) {
        return Err(not_upgraded());
    }
    let (response, _) =
        spdy::accept(headers, &port_forward::SPDY).ok_or_else(|| no_protocol(&port_forward::SPDY))?;
    let upgrade = hyper::upgrade::on(&mut request);
    drain.spawn_until_started(async move {
        let Ok(io) = upgrade.await.map(TokioIo::new) else { return };
        port_forward::spdy(io, runtime, sandbox).await;
    });
    Ok(response)
}

fn not_upgraded() -> Status {
    Status::bad_request("unable to upgrade: missing upgrade headers in request")
}

/// What a client hears that speaks none of our protocols.
pub fn no_protocol(ours: &[&str]) -> Status {
    let mut status = Status::forbidden("", "", "", "");
    status.message = format!("unable to negotiate protocol: the server supports {}", ours.join(", "));
    status
}
