//! A connection to the system's message bus: calls, signals, descriptors (D-Bus Specification, "Authentication Protocol").

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::wire::{Kind, Message, Value};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(25);

/// What has gone wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("cannot talk to the message bus: {0}")]
    Connection(#[from] io::Error),
    #[error("the message bus sent {0}")]
    Message(&'static str),
    #[error("the message bus refused {attempt}: {why}")]
    Refused { attempt: String, why: String },
    #[error("{attempt} was not answered in time")]
    Late { attempt: String },
    #[error("{attempt} was answered with something else than expected")]
    Odd { attempt: &'static str },
}

/// A connection.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    read: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects as the user that this process belongs to.
    pub(super) async fn connect(path: &Path) -> Result<Self, BusError> {
        let stream = UnixStream::connect(path).await?;
        let mut bus =
            Self { stream, serial: 0, read: Vec::new(), fds: VecDeque::new(), signals: VecDeque::new() };
        let user: String = nix::unistd::geteuid().to_string().bytes().map(|b| format!("{b:02x}")).collect();
        bus.line(&format!("\0AUTH EXTERNAL {user}\r\n"), "OK").await?;
        bus.line("NEGOTIATE_UNIX_FD\r\n", "AGREE_UNIX_FD").await?;
        bus.write(b"BEGIN\r\n").await?;
        let daemon = "org.freedesktop.DBus";
        bus.call(Message::call(daemon, "/org/freedesktop/DBus", daemon, "Hello", Vec::new())).await?;
        Ok(bus)
    }

    /// Says a line, and expects one that begins like this.
    async fn line(&mut self, said: &str, expected: &str) -> Result<(), BusError> {
        self.write(said.as_bytes()).await?;
        let answered = async {
            loop {
                if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                    let line: Vec<u8> = self.read.drain(..end + 2).collect();
                    return Ok::<_, BusError>(String::from_utf8_lossy(&line).trim().to_owned());
                }
                self.fill().await?;
            }
        };
        let attempt = || "authentication".to_owned();
        let late = |_| BusError::Late { attempt: attempt() };
        let answer = tokio::time::timeout(PATIENCE, answered).await.map_err(late)??;
        match answer.split_whitespace().next() {
            Some(word) if word == expected => Ok(()),
            _ => Err(BusError::Refused { attempt: attempt(), why: answer }),
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BusError> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for more bytes, and descriptors with them.
    async fn fill(&mut self) -> Result<(), BusError> {
        let mut buffer = [0; 4096];
        let stream = &self.stream;
        let got = stream.async_io(Interest::READABLE, || sys::recv_with_fds(stream, &mut buffer)).await?;
        if got.bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.read.extend_from_slice(&buffer[..got.bytes]);
        self.fds.extend(got.fds);
        Ok(())
    }

    /// The next message, with its descriptors.
    async fn next(&mut self) -> Result<(Message, Vec<OwnedFd>), BusError> {
        loop {
            if let Some((message, length)) = Message::decode(&self.read).map_err(BusError::Message)? {
                self.read.drain(..length);
                let count = (message.fds as usize).min(self.fds.len());
                return Ok((message, self.fds.drain(..count).collect()));
            }
            self.fill().await?;
        }
    }

    /// Calls a method and gives what it answers.
    pub(super) async fn call(&mut self, mut message: Message) -> Result<(Message, Vec<OwnedFd>), BusError> {
        self.serial += 1;
        message.serial = self.serial;
        let attempt = format!("{}.{}", message.interface, message.member);
        self.write(&message.encode()).await?;
        let serial = self.serial;
        let answered = async {
            loop {
                let (message, fds) = self.next().await?;
                match message.kind {
                    Kind::Return | Kind::Error if message.reply_to == serial => {
                        return Ok::<_, BusError>((message, fds));
                    }
                    Kind::Signal => self.signals.push_back(message),
                    _ => {}
                }
            }
        };
        let late = |_| BusError::Late { attempt: attempt.clone() };
        let (answer, fds) = tokio::time::timeout(PATIENCE, answered).await.map_err(late)??;
        if answer.kind == Kind::Error {
            let why = match answer.body.first() {
                Some(Value::Text(text)) => format!("{}: {text}", answer.error),
                _ => answer.error,
            };
            return Err(BusError::Refused { attempt, why });
        }
        Ok((answer, fds))
    }

    /// The next signal that comes.
    pub(super) async fn signal(&mut self) -> Result<Message, BusError> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let (message, _) = self.next().await?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }
}
