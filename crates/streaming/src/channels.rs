//! Several byte streams over one upgraded connection, as `kubectl exec`, `attach` and `port-forward` need them: over
//! WebSockets, and over SPDY for older clients.
//!
//! Both give [`Channel`]s. A connection has two tasks, one that reads frames and hands their data to the channels, and
//! one that writes what the channels send; it ends when all of its channels have been dropped, or the client goes.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many pieces of data wait in each direction before whoever makes them has to wait too.
pub(crate) const WAITING: usize = 16;

/// What is asked of the task that writes.
pub(crate) enum Frame {
    Data(u32, Bytes),
    /// No more data on this channel.
    End(u32),
    /// Bytes that are a frame already.
    Ready(Bytes),
}

/// One stream of a connection.
pub(crate) struct Channel {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

impl Channel {
    pub(crate) fn new(id: u32, to: mpsc::Sender<Frame>) -> (mpsc::Sender<Bytes>, Self) {
        let (give, take) = mpsc::channel(WAITING);
        (give, Self { incoming: Incoming(take), outgoing: Outgoing { id, to } })
    }
}

/// What comes from the client on one channel.
pub(crate) struct Incoming(mpsc::Receiver<Bytes>);

impl Incoming {
    /// The next piece; nothing more after the client has ended the channel, or gone.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// The client has gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// What goes to the client on one channel.
#[derive(Clone)]
pub(crate) struct Outgoing {
    id: u32,
    to: mpsc::Sender<Frame>,
}

impl Outgoing {
    pub(crate) async fn send(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.to.send(Frame::Data(self.id, data.into())).await.map_err(|_| Gone)
    }

    /// Tells the client that there will be no more.
    pub(crate) async fn end(self) {
        // A client that has gone needs no telling.
        let _ = self.to.send(Frame::End(self.id)).await;
    }

    /// Sends all that can be read, and not that it has ended.
    pub(crate) async fn send_all(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Gone> {
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
pub(crate) struct Lost(CancellationToken);

impl Lost {
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }

    pub(crate) fn tell(&self) {
        self.0.cancel();
    }
}

/// Whether one of the words of a header, comma-separated, is this one.
pub(crate) fn header_has(headers: &http::HeaderMap, name: http::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
}

/// The first of the protocols we speak, in the order of `ours`, that the client offers in this header.
pub(crate) fn choose_protocol(
    headers: &http::HeaderMap,
    name: &http::HeaderName,
    ours: &[&'static str],
) -> Option<&'static str> {
    ours.iter().find(|protocol| header_has(headers, name.clone(), protocol)).copied()
}
