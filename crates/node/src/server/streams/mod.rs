//! Several byte streams over one upgraded connection, as `kubectl exec`, `attach` and `port-forward` need them: over
//! [WebSockets](websocket), and over [SPDY](spdy) for older clients.
//!
//! Both give [`Channel`]s. A connection has two tasks, one that reads frames and hands their data to the channels, and
//! one that writes what the channels send; it ends when all of its channels have been dropped, or the client goes.

pub(super) mod spdy;
pub(super) mod websocket;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many pieces of data wait in each direction before whoever makes them has to wait too.
const WAITING: usize = 16;

/// What is asked of the task that writes.
pub(super) enum Frame {
    Data(u32, Bytes),
    /// No more data on this channel.
    End(u32),
    /// Bytes that are a frame already.
    Ready(Bytes),
}

/// One stream of a connection.
pub(super) struct Channel {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
}

impl Channel {
    fn new(id: u32, to: mpsc::Sender<Frame>) -> (mpsc::Sender<Bytes>, Self) {
        let (give, take) = mpsc::channel(WAITING);
        (give, Self { incoming: Incoming(take), outgoing: Outgoing { id, to } })
    }
}

/// What comes from the client on one channel.
pub(super) struct Incoming(mpsc::Receiver<Bytes>);

impl Incoming {
    /// The next piece; nothing more after the client has ended the channel, or gone.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// The client has gone.
#[derive(Debug)]
pub(super) struct Gone;

/// What goes to the client on one channel.
#[derive(Clone)]
pub(super) struct Outgoing {
    id: u32,
    to: mpsc::Sender<Frame>,
}

impl Outgoing {
    pub(super) async fn send(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.to.send(Frame::Data(self.id, data.into())).await.map_err(|_| Gone)
    }

    /// Tells the client that there will be no more.
    pub(super) async fn end(self) {
        // A client that has gone needs no telling.
        let _ = self.to.send(Frame::End(self.id)).await;
    }

    /// Sends all that can be read, and not that it has ended.
    pub(super) async fn send_all(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Gone> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from.read(&mut buffer).await {
                // A terminal whose processes have ended fails with EIO.
                Ok(0) | Err(_) => return Ok(()),
                Ok(len) => self.send(Bytes::copy_from_slice(&buffer[..len])).await?,
            }
        }
    }
}

/// Resolves when the connection can carry nothing any more.
#[derive(Clone, Default)]
pub(super) struct Lost(CancellationToken);

impl Lost {
    pub(super) async fn wait(&self) {
        self.0.cancelled().await;
    }

    fn tell(&self) {
        self.0.cancel();
    }
}

/// Whether one of the words of a header, comma-separated, is this one.
pub(super) fn header_has(headers: &http::HeaderMap, name: http::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
}

/// The first of the protocols we speak, in the order of `ours`, that the client offers in this header.
pub(super) fn choose_protocol(
    headers: &http::HeaderMap,
    name: &http::HeaderName,
    ours: &[&'static str],
) -> Option<&'static str> {
    ours.iter().find(|protocol| header_has(headers, name.clone(), protocol)).copied()
}
