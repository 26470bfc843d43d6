//! One peer on the shim's socket.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::protocol::{self, Numbered, Reply, Request};

/// What a connection is for besides requests.
#[derive(Debug, Default)]
pub(super) enum Role {
    /// Nothing yet.
    #[default]
    Plain,
    /// It said hello and gets events.
    Agent,
    /// It waits for the end of this process.
    Exec { pid: u32 },
    /// It joined this container's input and output.
    Attach { number: u64, container: String },
}

/// A peer.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) role: Role,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    broken: bool,
}

impl Connection {
    pub(super) fn new(id: u64, stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { id, role: Role::Plain, stream, input: Vec::new(), output: Vec::new(), broken: false })
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Reads what is there. Whole messages come out of [`Connection::next`].
    pub(super) fn receive(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.broken = true,
                Ok(len) => {
                    self.input.extend_from_slice(&buffer[..len]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.broken = true,
            }
            return;
        }
    }

    /// The next whole request. Nonsense ends the connection.
    pub(super) fn next(&mut self) -> Option<Numbered<Request>> {
        match protocol::decode(&mut self.input) {
            Ok(Some(message)) => Some(message),
            Ok(None) => {
                if self.input.is_empty() {
                    self.input = Vec::new();
                }
                None
            }
            Err(error) => {
                let message = error.to_string();
                self.send(0, &Reply::Failed { kind: protocol::Failure::Other, message }, &[]);
                self.broken = true;
                None
            }
        }
    }

    /// Sends a message, with descriptors if given; what does not fit waits for [`Connection::flush`].
    pub(super) fn send(&mut self, number: u64, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        let bytes = protocol::encode(number, reply);
        if fds.is_empty() {
            self.output.extend_from_slice(&bytes);
            self.flush();
            return;
        }
        // Descriptors go with the first answer on their connection, so nothing waits before them.
        match sys::send_with_fds(&self.stream, &bytes, fds) {
            Ok(sent) => self.output.extend_from_slice(&bytes[sent..]),
            Err(_) => self.broken = true,
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => self.broken = true,
                Ok(sent) => {
                    self.output.drain(..sent);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.broken = true,
            }
            return;
        }
        self.output = Vec::new();
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
