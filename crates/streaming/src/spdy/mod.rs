//! Channels over SPDY/3.1, which `kubectl` before 1.31 and other older clients speak, and which newer ones tunnel for
//! port-forwarding (kubernetes/kubernetes, `staging/src/k8s.io/streaming/pkg/httpstream/spdy`).
//!
//! The client opens the streams; their headers say what they are for. Flow control is TCP's: the clients there are
//! never send window updates.

mod frame;
mod headers;

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use self::frame::{Control, Head};
use self::headers::{Decoder, Encoder};
use crate::channels::{Channel, Frame, Lost, WAITING, choose_protocol, header_has};

/// The header that names what is spoken over the streams.
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Data is handed on in pieces no longer than this.
const PIECE: usize = 32 * 1024;
/// How many streams a connection may have at once.
const MOST_STREAMS: usize = 1024;

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpdyError {
    #[error("a frame of SPDY version {0}")]
    Version(u16),
    #[error("a control frame of {0} bytes")]
    Long(u32),
    #[error("a frame that is cut short")]
    Short,
    #[error("headers: {0}")]
    Headers(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether a request asks for SPDY.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    header_has(headers, header::CONNECTION, "upgrade") && header_has(headers, header::UPGRADE, "spdy/3.1")
}

/// The answer that switches to SPDY, and the protocol chosen; `None` when the client offers only others.
pub(crate) fn accept<B: Default>(
    headers: &HeaderMap,
    ours: &[&'static str],
) -> Option<(Response<B>, &'static str)> {
    let chosen = choose_protocol(headers, &PROTOCOL, ours)?;
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    answer.insert(PROTOCOL, HeaderValue::from_static(chosen));
    Some((response, chosen))
}

/// A stream that the client has opened.
pub(crate) struct Opened {
    headers: Vec<(String, String)>,
    pub(crate) channel: Channel,
}

impl Opened {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The streams that a client opens, as they come.
pub(crate) struct Streams {
    opened: mpsc::Receiver<Opened>,
    pub(crate) lost: Lost,
}

impl Streams {
    /// The next one; nothing more when the client has gone.
    pub(crate) async fn next(&mut self) -> Option<Opened> {
        self.opened.recv().await
    }
}

/// Speaks SPDY over an upgraded connection.
pub(crate) fn serve<S>(io: S) -> Streams
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (from, to) = tokio::io::split(io);
    let (frames_to, frames) = mpsc::channel(WAITING);
    let (open, opened) = mpsc::channel(WAITING);
    let lost = Lost::default();
    let told = lost.clone();
    // Channels keep the writer going, the reader alone does not: it may wait for the client for ever.
    let (weak, first) = (frames_to.downgrade(), frames_to);
    let reader = tokio::spawn(async move {
        let mut reader = Reader {
            from,
            frames: weak,
            open: Some((open, first)),
            streams: HashMap::new(),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
        };
        if let Err(error) = reader.run().await {
            tracing::debug!(%error, "a client's SPDY connection ends");
        }
        reader.streams.clear();
        reader.open = None;
        told.tell();
        // Going on to the end lets the farewell through.
        let _ = tokio::io::copy(&mut reader.from, &mut tokio::io::sink()).await;
    });
    let abort = reader.abort_handle();
    tokio::spawn(async move {
        write(to, frames).await;
        let _ = tokio::time::timeout(crate::FAREWELL, reader).await;
        abort.abort();
    });
    Streams { opened, lost }
}

struct Reader<S> {
    from: ReadHalf<S>,
    frames: mpsc::WeakSender<Frame>,
    /// Where new streams go, while anybody wants them.
    open: Option<(mpsc::Sender<Opened>, mpsc::Sender<Frame>)>,
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
    decoder: Decoder,
    encoder: Encoder,
}

impl<S: AsyncRead + Unpin + Send> Reader<S> {
    async fn run(&mut self) -> Result<(), SpdyError> {
        loop {
            let (mut head, mut filled) = ([0; 8], 0);
            while filled < head.len() {
                tokio::select! {
                    read = self.from.read(&mut head[filled..]) => match read? {
                        0 => return Ok(()),
                        len => filled += len,
                    },
                    // Whoever took the streams wants no more of them.
                    () = unwanted(&self.open) => self.open = None,
                }
            }
            match Head::parse(head)? {
                Head::Data { id, last, len } => self.data(id, last, len as usize).await?,
                Head::Control { kind, last, len } => {
                    let mut payload = vec![0; len as usize];
                    self.from.read_exact(&mut payload).await?;
                    match Control::parse(kind, &payload)? {
                        Control::SynStream { id, headers } => self.open(id, last, headers).await?,
                        Control::Reset { id } => drop(self.streams.remove(&id)),
                        Control::Ping { id } => answer(&self.frames, frame::ping(id)).await,
                        Control::GoAway | Control::Other => {}
                    }
                }
            }
        }
    }

    async fn open(&mut self, id: u32, last: bool, headers: &[u8]) -> Result<(), SpdyError> {
        // Even of a refused stream: the compression goes on from it.
        let headers = self.decoder.decode(headers)?;
        self.streams.retain(|_, give| !give.is_closed());
        let Some((open, frames)) = self.open.as_ref().filter(|_| self.streams.len() < MOST_STREAMS) else {
            answer(&self.frames, frame::refuse(id)).await;
            return Ok(());
        };
        let (give, channel) = Channel::new(id, frames.clone());
        let reply = self.encoder.encode(&[]);
        if !last {
            self.streams.insert(id, give);
        }
        let open = open.clone();
        answer(&self.frames, frame::syn_reply(id, &reply)).await;
        let _ = open.send(Opened { headers, channel }).await;
        Ok(())
    }

    async fn data(&mut self, id: u32, last: bool, mut len: usize) -> Result<(), SpdyError> {
        let give = self.streams.get(&id);
        while len > 0 {
            let mut piece = vec![0; len.min(PIECE)];
            self.from.read_exact(&mut piece).await?;
            len -= piece.len();
            if let Some(give) = give {
                // Data for a channel that nobody reads any more is dropped.
                let _ = give.send(piece.into()).await;
            }
        }
        if last {
            self.streams.remove(&id);
        }
        Ok(())
    }
}

async fn answer(frames: &mpsc::WeakSender<Frame>, frame: Bytes) {
    if let Some(frames) = frames.upgrade() {
        // A writer that has ended takes the reader with it.
        let _ = frames.send(Frame::Ready(frame)).await;
    }
}

async fn unwanted(open: &Option<(mpsc::Sender<Opened>, mpsc::Sender<Frame>)>) {
    match open {
        Some((open, _)) => open.closed().await,
        None => std::future::pending().await,
    }
}

async fn write<S: AsyncWrite>(mut to: WriteHalf<S>, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        let written = match frame {
            Frame::Data(id, data) => write_data(&mut to, id, &data).await,
            Frame::End(id) => to.write_all(&frame::data_head(id, 0, true)).await,
            Frame::Ready(bytes) => to.write_all(&bytes).await,
        };
        let flushed = if frames.is_empty() && written.is_ok() { to.flush().await } else { written };
        if flushed.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn write_data<S: AsyncWrite>(to: &mut WriteHalf<S>, id: u32, data: &[u8]) -> io::Result<()> {
    // A frame's length has 24 bits; pieces are shorter anyway.
    for piece in data.chunks(1 << 20) {
        to.write_all(&frame::data_head(id, piece.len(), false)).await?;
        to.write_all(piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
