//! Channels over a WebSocket: each binary message begins with the number of its channel (kubernetes/kubernetes,
//! `staging/src/k8s.io/apimachinery/pkg/util/httpstream/wsstream/conn.go`; `remotecommand/websocket.go` for
//! version 5, which can end a channel).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::FAREWELL;
use crate::channels::{Channel, Frame, Lost, WAITING, choose_protocol, header_has};

/// The number that, before another channel's, ends that channel (version 5).
const CLOSE: u8 = 255;
/// No message of a client's is longer.
const MOST: usize = 32 << 20;

/// Whether a request asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    header_has(headers, header::CONNECTION, "upgrade") && header_has(headers, header::UPGRADE, "websocket")
}

/// The answer that switches to WebSocket, and the protocol chosen; `None` when the client offers only others.
///
/// A client that offers none at all gets the last of `ours`.
pub fn accept<B: Default>(headers: &HeaderMap, ours: &[&'static str]) -> Option<(Response<B>, &'static str)> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let name: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
    let offered = headers.contains_key(&name);
    let chosen = if offered { choose_protocol(headers, &name, ours)? } else { ours.last().copied()? };
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?,
    );
    if offered {
        answer.insert(name, HeaderValue::from_static(chosen));
    }
    Some((response, chosen))
}

async fn socket<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Channels `0..count` over an upgraded connection.
pub(crate) async fn channels<S>(io: S, count: u8) -> (Vec<Channel>, Lost)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket(io).await.split();
    let (to, frames) = mpsc::channel(WAITING);
    let lost = Lost::default();
    let made = (0..count).map(|id| Channel::new(id.into(), to.clone()));
    let (gives, channels): (Vec<_>, Vec<_>) = made.map(|(give, channel)| (Some(give), channel)).unzip();
    let reader = tokio::spawn(read(stream, gives, lost.clone()));
    tokio::spawn(async move {
        write(sink, frames).await;
        // The client answers our farewell with its own, and closes.
        let _ = tokio::time::timeout(FAREWELL, reader).await;
    });
    (channels, lost)
}

async fn read<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    mut gives: Vec<Option<mpsc::Sender<Bytes>>>,
    lost: Lost,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = stream.next().await {
        let mut data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => break,
            _ => continue,
        };
        if data.is_empty() {
            continue;
        }
        let id = data.split_to(1)[0];
        if id == CLOSE {
            if let Some(give) = data.first().and_then(|ended| gives.get_mut(usize::from(*ended))) {
                *give = None;
            }
        } else if let Some(Some(give)) = gives.get(usize::from(id)) {
            // Data for a channel that nobody reads is dropped.
            let _ = give.send(data).await;
        }
    }
    lost.tell();
    // Going on to the end lets the farewell through.
    while let Some(Ok(_)) = stream.next().await {}
}

async fn write<S>(mut sink: SplitSink<WebSocketStream<S>, Message>, mut frames: mpsc::Receiver<Frame>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(frame) = frames.recv().await {
        let message = match frame {
            Frame::Data(id, data) => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.put_u8(id as u8);
                message.extend_from_slice(&data);
                message.freeze()
            }
            // Only clients can end a channel by itself; ours end with the connection.
            Frame::End(_) => continue,
            Frame::Ready(bytes) => bytes,
        };
        if sink.send(Message::Binary(message)).await.is_err() {
            return;
        }
    }
    // Clients take a farewell without a reason for a failure.
    let farewell = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let _ = sink.send(Message::Close(Some(farewell))).await;
}

/// Says what comes, piece by piece, and bids farewell; in base64 if the client wants text. What the client says is not
/// listened to.
pub async fn say<S>(io: S, mut pieces: mpsc::Receiver<Bytes>, in_base64: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket(io).await.split();
    let speak = async {
        while let Some(piece) = pieces.recv().await {
            let message = match in_base64 {
                true => Message::text(base64::engine::general_purpose::STANDARD.encode(piece)),
                false => Message::Binary(piece),
            };
            sink.send(message).await?;
        }
        let farewell = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        sink.send(Message::Close(Some(farewell))).await
    };
    // Reading answers pings, and ends when the client has gone.
    let listen = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::select! {
        // Whoever has gone needs to be told nothing.
        _ = speak => {}
        () = listen => {}
    }
}

/// A byte stream over the binary messages of an upgraded connection: what tunnels another protocol.
pub(crate) async fn tunnel<S>(io: S) -> Tunnel<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Tunnel { socket: socket(io).await, rest: Bytes::new() }
}

/// See [`tunnel`].
pub(crate) struct Tunnel<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
}

fn broken(error: tokio_tungstenite::tungstenite::Error) -> io::Error {
    io::Error::other(error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(data))) => self.rest = data,
                Some(Ok(Message::Text(text))) => self.rest = Bytes::from(text),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let len = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(data));
        socket.start_send(message).map_err(broken)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}
