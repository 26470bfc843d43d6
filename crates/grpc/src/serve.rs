//! The other side, as small as tests, plugins and sockets for plugins need it: calls on one connection.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{AsciiSet, percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::authority::AnyAuthority;
use crate::error::Code;
use crate::frame::{Frames, frame};

/// The answer to a call: a message, or a no and its reason.
pub type Answer = Result<Vec<u8>, (Code, String)>;

/// The answer to a call that may be answered more than once.
pub enum Reply {
    /// One message.
    One(Vec<u8>),
    /// All that come, until the sender is dropped.
    Many(mpsc::Receiver<Vec<u8>>),
}

/// Serves one connection until it ends: `handle` gets each call's path and message.
pub async fn answer<S, H, F>(socket: S, handle: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(String, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let one = move |path: String, message: Bytes| {
        let answer = handle(path, message);
        async move { answer.await.map(Reply::One) }
    };
    answer_with_streams(socket, one).await;
}

/// The same, where calls may be answered by many messages.
pub async fn answer_with_streams<S, H, F>(socket: S, handle: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(String, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Reply, (Code, String)>> + Send + 'static,
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
            let pieces = match answer {
                Ok(Reply::One(message)) => {
                    Pieces::Few(vec![Frame::data(frame(&message)), end(Code::OK, "")].into_iter())
                }
                Ok(Reply::Many(messages)) => Pieces::Many(messages),
                Err((code, message)) => Pieces::Few(vec![end(code, &message)].into_iter()),
            };
            let mut response = Response::new(pieces);
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
            Ok::<_, Infallible>(response)
        }
    });
    // A broken connection is the caller's business.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(AnyAuthority::new(socket)), service)
        .await;
}

const ESCAPED: &AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// What ends an answer.
fn end(code: Code, message: &str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.0.into());
    // As the protocol has it: all but printable ASCII is escaped.
    if let Ok(message) = percent_encode(message.as_bytes(), ESCAPED).to_string().parse() {
        trailers.insert("grpc-message", message);
    }
    Frame::trailers(trailers)
}

enum Pieces {
    Few(std::vec::IntoIter<Frame<Bytes>>),
    Many(mpsc::Receiver<Vec<u8>>),
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Pieces::Few(frames) => frames.next(),
            Pieces::Many(messages) => match ready!(messages.poll_recv(cx)) {
                Some(message) => Some(Frame::data(frame(&message))),
                None => {
                    *self = Pieces::Few(Vec::new().into_iter());
                    Some(end(Code::OK, ""))
                }
            },
        };
        Poll::Ready(piece.map(Ok))
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
                        "/a.B/Says" => Err((Code::NOT_FOUND, "100 % über\nall".to_owned())),
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
        let said = channel.unary("/a.B/Says", b"x", limit).await.unwrap_err();
        assert!(said.to_string().ends_with("says not found: 100 % über\nall"), "{said}");
        let late = channel.unary("/a.B/Never", b"x", Duration::from_millis(50)).await;
        assert!(matches!(late, Err(RpcError::Timeout { .. })), "{late:?}");
        server.abort();
    }

    #[tokio::test]
    async fn one_question_many_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer_with_streams(socket, |_, message| async move {
                    let (sender, receiver) = mpsc::channel(1);
                    tokio::spawn(async move {
                        for _ in 0..3 {
                            let _ = sender.send(message.to_vec()).await;
                        }
                    });
                    Ok(Reply::Many(receiver))
                }));
            }
        });
        let mut stream = Channel::new(Target::Unix(path)).listen("/a.B/Watch", b"x").await.unwrap();
        for _ in 0..3 {
            assert_eq!(stream.next().await.unwrap(), b"x"[..]);
        }
        assert!(stream.next().await.unwrap_err().to_string().ends_with("it ended"));
        server.abort();
    }
}
