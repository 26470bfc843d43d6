//! The other side, as small as tests and plugins need it: unary calls on one connection.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Code;
use crate::frame::{Frames, frame};

/// The answer to a call: a message, or a no and its reason.
pub type Answer = Result<Vec<u8>, (Code, String)>;

/// Serves one connection until it ends: `handle` gets each call's path and message.
pub async fn answer<S, H, F>(socket: S, handle: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(String, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handle = handle.clone();
        async move {
            let path = request.uri().path().to_owned();
            let answer = match request.into_body().collect().await {
                Ok(body) => {
                    let mut frames = Frames::default();
                    frames.push(&body.to_bytes());
                    match frames.next() {
                        Ok(Some(message)) => handle(path, message).await,
                        _ => Err((Code::INVALID_ARGUMENT, "no message".to_owned())),
                    }
                }
                Err(error) => Err((Code::UNKNOWN, error.to_string())),
            };
            let mut trailers = HeaderMap::new();
            let (data, code, message) = match answer {
                Ok(message) => (Some(frame(&message)), Code::OK, String::new()),
                Err((code, message)) => (None, code, message),
            };
            trailers.insert("grpc-status", code.0.into());
            if let Ok(message) = message.parse() {
                trailers.insert("grpc-message", message);
            }
            let frames = data.map(Frame::data).into_iter().chain([Frame::trailers(trailers)]);
            let mut response = Response::new(Pieces(frames.collect::<Vec<_>>().into_iter()));
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
            Ok::<_, Infallible>(response)
        }
    });
    // A broken connection is the caller's business.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

struct Pieces(std::vec::IntoIter<Frame<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;

    use super::*;
    use crate::{Channel, RpcError, Target};

    #[tokio::test]
    async fn a_call_is_answered_or_refused_and_a_dead_socket_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let channel = Channel::new(Target::Unix(path.clone()));
        let limit = Duration::from_secs(20);
        let none = channel.unary("/a.B/C", b"x", limit).await;
        assert!(matches!(none, Err(RpcError::Unreachable { .. })), "{none:?}");

        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, |path, message| async move {
                    match path.as_str() {
                        "/a.B/Echo" => Ok(message.to_vec()),
                        "/a.B/Never" => std::future::pending().await,
                        _ => Err((Code::UNIMPLEMENTED, "no such thing".to_owned())),
                    }
                }));
            }
        });
        let large = vec![7; 3_000_000];
        assert_eq!(channel.unary("/a.B/Echo", &large, limit).await.unwrap(), large);
        let refused = channel.unary("/a.B/C", b"x", limit).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::UNIMPLEMENTED));
        assert!(refused.to_string().ends_with("says unimplemented: no such thing"), "{refused}");
        let late = channel.unary("/a.B/Never", b"x", Duration::from_millis(50)).await;
        assert!(matches!(late, Err(RpcError::Timeout { .. })), "{late:?}");
        server.abort();
    }
}
