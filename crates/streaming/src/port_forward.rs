//! `/portForward`: connections to a pod's ports over an upgraded connection (kubernetes/kubernetes,
//! `staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward`).

use std::collections::HashMap;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use runtime::Runtime;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use types::Status;

use crate::channels::{Channel, Outgoing};
use crate::{spdy, websocket};

/// Over SPDY, pairs of streams; a client may tunnel that through a WebSocket.
pub(crate) const SPDY: [&str; 1] = ["portforward.k8s.io"];
/// Over WebSockets; the last ones have two channels for each port that the request names.
pub(crate) const WEBSOCKET: [&str; 3] =
    ["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];

/// Speaks SPDY: for each connection, a stream for data and one for an error, with the same request number.
pub(crate) async fn spdy<S>(io: S, runtime: Runtime, sandbox: String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut streams = spdy::serve(io);
    let mut waiting: HashMap<(String, String), Half> = HashMap::new();
    while let Some(opened) = streams.next().await {
        let header = |name| opened.header(name).unwrap_or_default().to_owned();
        // Clients before request numbers use one pair for each port at a time.
        let key = (header("requestid"), header("port"));
        let half = match opened.header("streamtype") {
            Some("data") => Half::Data(opened.channel),
            Some("error") => Half::Error(opened.channel.outgoing),
            _ => continue,
        };
        let port = key.1.parse::<u16>().unwrap_or_default();
        let (data, error) = match (waiting.remove(&key), half) {
            (Some(Half::Error(error)), Half::Data(data)) | (Some(Half::Data(data)), Half::Error(error)) => {
                (data, error)
            }
            (_, half) => {
                waiting.insert(key, half);
                continue;
            }
        };
        let (runtime, sandbox) = (runtime.clone(), sandbox.clone());
        tokio::spawn(async move { connect(runtime, sandbox, port, data, error).await });
    }
}

enum Half {
    Data(Channel),
    Error(Outgoing),
}

/// The ports a WebSocket request names, one after the other or separated by commas.
///
/// # Errors
/// When it names none, too many, or what is no port.
pub fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Status> {
    let named = query.iter().filter(|(name, _)| name == "port" || name == "ports");
    let ports = named.flat_map(|(_, value)| value.split(',')).map(|port| {
        let port = port.trim().parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| Status::bad_request("query parameter \"port\" must be a number from 1 to 65535"))
    });
    let ports = ports.collect::<Result<Vec<u16>, Status>>()?;
    // Two channels for each, and their numbers are bytes.
    if ports.is_empty() || ports.len() > 100 {
        return Err(Status::bad_request("query parameter \"port\" is required, at most 100 times"));
    }
    Ok(ports)
}

/// Two channels for each port, data and error; both begin with the port.
pub(crate) async fn websocket(io: TokioIo<Upgraded>, ports: Vec<u16>, runtime: Runtime, sandbox: String) {
    let (channels, _lost) = websocket::channels(io, (ports.len() * 2) as u8).await;
    let mut channels = channels.into_iter();
    for port in ports {
        let (Some(data), Some(error)) = (channels.next(), channels.next()) else { return };
        let (runtime, sandbox) = (runtime.clone(), sandbox.clone());
        tokio::spawn(async move {
            for channel in [&data.outgoing, &error.outgoing] {
                let _ = channel.send(port.to_le_bytes().to_vec()).await;
            }
            connect(runtime, sandbox, port, data, error.outgoing).await;
        });
    }
}

/// One connection to a port in the pod.
async fn connect(runtime: Runtime, sandbox: String, port: u16, data: Channel, error: Outgoing) {
    let Channel { mut incoming, outgoing } = data;
    let stream = match runtime.dial(&sandbox, port).await {
        Ok(stream) => stream,
        Err(why) => {
            let text = format!("an error occurred forwarding {port} -> {port}: {why}");
            let _ = error.send(text).await;
            error.end().await;
            return outgoing.end().await;
        }
    };
    let (mut from, mut to) = stream.into_split();
    let up = async {
        while let Some(piece) = incoming.next().await {
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    let down = async {
        let sent = outgoing.send_all(&mut from).await;
        (sent.is_ok(), outgoing)
    };
    // When the pod has said all, the connection is over, whatever the client would still like to say.
    tokio::pin!(up, down);
    let (all, outgoing) = tokio::select! {
        said = &mut down => said,
        () = &mut up => down.await,
    };
    if all {
        outgoing.end().await;
        error.end().await;
    }
}
