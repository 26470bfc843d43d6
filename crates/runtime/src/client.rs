//! The agent's side of a shim's socket.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::protocol::{self, Failure, Numbered, Reply, Request, SOCKET};
use crate::records::At;

type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>>;

/// A connection for requests and events.
#[derive(Clone)]
pub(crate) struct Client {
    sandbox: String,
    next: Arc<AtomicU64>,
    pending: Pending,
    messages: mpsc::UnboundedSender<Vec<u8>>,
}

/// What arrives besides answers.
pub(crate) enum Arrival<'a> {
    /// Every answer and event, before whoever asked gets it.
    Reply(&'a Reply),
    /// The connection is over.
    Closed,
}

/// Connects to the shim whose directory is `dir`.
pub(crate) async fn connect(dir: &Path) -> Result<UnixStream> {
    const O_PATH: i32 = 0o10_000_000;
    // The name of a socket has room for 108 bytes only, which `dir` may fill; a descriptor's name is short.
    let open = OpenOptions::new().read(true).custom_flags(O_PATH).open(dir).at("open", dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
    UnixStream::connect(&path).await.at("connect to the shim in", dir)
}

impl Client {
    /// Takes over a connection. `arrive` sees all that comes in, in order.
    pub(crate) fn new(
        sandbox: &str,
        stream: UnixStream,
        arrive: impl FnMut(Arrival<'_>) + Send + 'static,
    ) -> Self {
        let (reader, writer) = stream.into_split();
        let (messages, queue) = mpsc::unbounded_channel();
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(write_all(writer, queue));
        tokio::spawn(read_all(reader, pending.clone(), arrive));
        Self { sandbox: sandbox.to_owned(), next: Arc::new(AtomicU64::new(1)), pending, messages }
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply> {
        let gone = || Error::ShimGone(self.sandbox.clone());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(pending) => pending.insert(number, answer),
            None => return Err(gone()),
        };
        self.messages.send(protocol::encode(number, request)).map_err(|_| gone())?;
        accept(&self.sandbox, answered.await.map_err(|_| gone())?)
    }
}

/// Makes a failure of an answer.
pub(crate) fn accept(sandbox: &str, reply: Reply) -> Result<Reply> {
    match reply {
        Reply::Failed { kind, message } => Err(match kind {
            Failure::Start => Error::Start(message),
            Failure::Unknown | Failure::NotRunning | Failure::Other => {
                Error::Shim { sandbox: sandbox.to_owned(), message }
            }
        }),
        reply => Ok(reply),
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(message) = queue.recv().await {
        if writer.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn read_all(mut reader: OwnedReadHalf, pending: Pending, mut arrive: impl FnMut(Arrival<'_>)) {
    let mut buffer = Vec::new();
    'connection: while matches!(reader.read_buf(&mut buffer).await, Ok(read) if read > 0) {
        loop {
            match protocol::decode::<Reply>(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Numbered { n, m })) => {
                    arrive(Arrival::Reply(&m));
                    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(answer) = pending.as_mut().and_then(|pending| pending.remove(&n)) {
                        // Whoever asked may have given up.
                        let _ = answer.send(m);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "shim speaks nonsense");
                    break 'connection;
                }
            }
        }
        if buffer.is_empty() {
            buffer = Vec::new();
        }
    }
    // Who still waits learns that the shim is gone by the loss of the sender.
    drop(pending.lock().unwrap_or_else(PoisonError::into_inner).take());
    arrive(Arrival::Closed);
}

/// A connection of its own for one process's input and output.
#[derive(Debug)]
pub(crate) struct Line {
    sandbox: String,
    stream: UnixStream,
    input: tokio::sync::Mutex<Vec<u8>>,
}

impl Line {
    /// Connects, asks, and gives the first answer with its descriptors.
    pub(crate) async fn open(
        sandbox: &str,
        dir: &Path,
        request: &Request,
    ) -> Result<(Self, Reply, Vec<OwnedFd>)> {
        let mut stream = connect(dir).await?;
        stream.write_all(&protocol::encode(1, request)).await.at("write to the shim in", dir)?;
        let (mut input, mut fds) = (Vec::new(), Vec::new());
        let reply = loop {
            if let Some(Numbered { m, .. }) = decode(sandbox, &mut input)? {
                break accept(sandbox, m)?;
            }
            let mut buffer = [0; 4096];
            let receive = || sys::recv_with_fds(&stream, &mut buffer);
            let got = stream.async_io(Interest::READABLE, receive).await.at("read from the shim in", dir)?;
            if got.bytes == 0 {
                return Err(Error::ShimGone(sandbox.to_owned()));
            }
            input.extend_from_slice(&buffer[..got.bytes]);
            fds.extend(got.fds);
        };
        let line = Self { sandbox: sandbox.to_owned(), stream, input: tokio::sync::Mutex::new(input) };
        Ok((line, reply, fds))
    }

    /// Says something that needs no answer; small enough to fit at once.
    pub(crate) fn tell(&self, request: &Request) {
        // If the shim is gone, so is what this is about.
        let _ = self.stream.try_write(&protocol::encode(2, request));
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&self) -> Result<i32> {
        let mut input = self.input.lock().await;
        loop {
            while let Some(Numbered { m, .. }) = decode(&self.sandbox, &mut input)? {
                if let Reply::Ended { code } = accept(&self.sandbox, m)? {
                    return Ok(code);
                }
            }
            let gone = |_| Error::ShimGone(self.sandbox.clone());
            self.stream.readable().await.map_err(gone)?;
            match self.stream.try_read_buf(&mut *input) {
                Ok(0) => return Err(Error::ShimGone(self.sandbox.clone())),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }
}

fn decode(sandbox: &str, input: &mut Vec<u8>) -> Result<Option<Numbered<Reply>>> {
    protocol::decode(input)
        .map_err(|error| Error::Shim { sandbox: sandbox.to_owned(), message: error.to_string() })
}
