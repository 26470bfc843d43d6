//! The gRPC health protocol (grpc/grpc, `src/proto/grpc/health/v1/health.proto`), as far as a probe needs it: one
//! call with one string in it, one number out.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::check::{Outcome, dial};
use super::http::AbortOnDrop;

const UNIMPLEMENTED: &str = "12";
const SERVING: u64 = 1;

/// Calls `Check` (upstream: `pkg/probe/grpc/grpc.go`).
pub(crate) async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let limit = format!("{}s", timeout.as_secs());
    let stream = match dial(host, port, timeout).await {
        Ok(stream) => stream,
        Err(why) if why.ends_with("i/o timeout") => {
            return Outcome::Failed(format!(
                "timeout: failed to connect service \"{host}:{port}\" within {limit}: context deadline exceeded"
            ));
        }
        Err(why) => {
            return Outcome::Failed(format!("error: failed to connect service at \"{host}:{port}\": {why}"));
        }
    };
    let authority = format!("{host}:{port}");
    match tokio::time::timeout(timeout, call(&authority, service, stream)).await {
        Err(_) => Outcome::Failed(format!("timeout: health rpc did not complete within {limit}")),
        Ok(Err(error)) => Outcome::Failed(format!("error: health rpc probe failed: {error}")),
        Ok(Ok(Reply { code, message, .. })) if code == UNIMPLEMENTED => Outcome::Failed(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(Reply { code, message, .. })) if code != "0" => {
            Outcome::Failed(format!("error: health rpc probe failed: code {code}: {message}"))
        }
        Ok(Ok(Reply { status: SERVING, .. })) => Outcome::Passed,
        Ok(Ok(Reply { status, .. })) => {
            let name = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let name = usize::try_from(status).ok().and_then(|n| name.get(n)).copied().unwrap_or("UNKNOWN");
            Outcome::Failed(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

struct Reply {
    code: String,
    message: String,
    status: u64,
}

async fn call(
    authority: &str,
    service: &str,
    stream: tokio::net::TcpStream,
) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    let connection = AbortOnDrop(tokio::spawn(async move {
        // Its failure shows in the answer.
        let _ = connection.await;
    }));
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(frame(service))))?;
    let response = sender.send_request(request).await?;
    let headers = response.headers().clone();
    let body = response.into_body().collect().await?;
    let trailers = body.trailers().cloned().unwrap_or(headers);
    drop(connection);
    let text = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Reply { code: text("grpc-status"), message: text("grpc-message"), status: status(&body.to_bytes()) })
}

/// A message with field 1 set to a string, in gRPC's frame: one byte for compression, four for the length.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut len = service.len();
        while len >= 0x80 {
            message.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        message.push(len as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// Field 1 of the answer, a number; the default when it is absent.
fn status(body: &[u8]) -> u64 {
    match body.get(5..) {
        Some([0x08, rest @ ..]) => {
            let end = rest.iter().position(|b| b & 0x80 == 0).unwrap_or(0);
            rest.iter().take(end + 1).take(9).rev().fold(0, |n, b| (n << 7) | u64::from(b & 0x7f))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_protocol_wants_them() {
        assert_eq!(frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(frame(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), 1);
        assert_eq!(status(&[0, 0, 0, 0, 0]), 0);
        assert_eq!(status(&[]), 0);
    }

    #[tokio::test]
    async fn a_server_without_the_protocol_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|_| async {
                let answer =
                    http::Response::builder().header("grpc-status", "12").header("grpc-message", "no");
                answer.body(Full::new(Bytes::new()))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(stream), service).await
        });
        let Outcome::Failed(why) = probe("127.0.0.1", port, "", Duration::from_secs(5)).await else {
            panic!()
        };
        assert!(why.contains("does not implement the grpc health protocol"), "{why}");
    }
}
