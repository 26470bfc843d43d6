//! Streams that another container runtime serves: the client's request is passed on to it, and the two connections are
//! joined (kubernetes/kubernetes, `pkg/kubelet/server/server.go`, `proxyStream`).

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use types::Status;

use super::Body;

/// More of a refusal is not passed on.
const MOST: usize = 64 << 10;

fn failed(why: impl std::fmt::Display) -> Status {
    Status::internal(format!("error proxying to the container runtime: {why}"))
}

/// Passes an upgrade on to `url`, and what is then said by either side.
pub(super) async fn pass(url: &str, mut request: Request<Incoming>) -> Result<Response<Body>, Status> {
    let uri: Uri = url.parse().map_err(|e| failed(format!("{url:?} is no URL: {e}")))?;
    if uri.scheme_str() != Some("http") {
        return Err(failed(format!("{url:?} is not served over plain HTTP on this machine")));
    }
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
        return Err(failed(format!("{url:?} names no host and port")));
    };
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(failed)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    parts.headers.remove(header::AUTHORIZATION);
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
    parts.headers.insert(header::HOST, HeaderValue::from_str(authority).map_err(failed)?);
    parts.uri = uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(failed)?;
    let passed = Request::from_parts(parts, Empty::<Bytes>::new());
    let mut response = sender.send_request(passed).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, MOST).collect().await.map_err(failed)?;
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            parts.headers.remove(name);
        }
        return Ok(Response::from_parts(parts, Full::new(body.to_bytes()).boxed_unsync()));
    }
    let runtime = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        if let (Ok(client), Ok(runtime)) = (client.await, runtime.await) {
            let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
            // Either side's end is the end; there is nobody left to tell of an error.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut runtime).await;
        }
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, Empty::new().boxed_unsync()))
}
