use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sys::WatchedFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::Line;
use crate::error::{Error, Result};
use crate::protocol::{Reply, Request};

/// A process's input and output, by [`exec`](crate::Runtime::exec) or [`attach`](crate::Runtime::attach).
///
/// The streams can be taken out and used elsewhere. Dropping a session of `exec` leaves the process alone; its
/// closed pipes will tell it.
#[derive(Debug)]
pub struct Session {
    /// Its standard input; `None` when none was asked for.
    pub stdin: Option<Stdio>,
    /// Its standard output, or all output of a terminal.
    pub stdout: Option<Stdio>,
    /// Its standard error; `None` with a terminal.
    pub stderr: Option<Stdio>,
    terminal: Option<OwnedFd>,
    line: Arc<Line>,
}

impl Session {
    pub(crate) fn new(line: Line, reply: &Reply, fds: Vec<OwnedFd>) -> Result<Self> {
        let &Reply::Session { stdin, stdout, stderr, tty } = reply else {
            return Err(Error::Start(format!("unexpected answer of the shim: {reply:?}")));
        };
        let line = Arc::new(line);
        let mut fds = fds.into_iter();
        let mut next = |there: bool, input: bool| -> Result<Option<Stdio>> {
            let Some(fd) = there.then(|| fds.next()).flatten() else { return Ok(None) };
            Ok(Some(Stdio::new(fd, input.then(|| line.clone()))?))
        };
        let (stdin, stdout, stderr) = (next(stdin, true)?, next(stdout, false)?, next(stderr, false)?);
        let terminal = if tty { fds.next() } else { None };
        Ok(Self { stdin, stdout, stderr, terminal, line })
    }

    /// Tells the terminal its size; without a terminal, nothing happens.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        match &self.terminal {
            Some(terminal) => Ok(sys::set_size(terminal, width, height)?),
            None => Ok(()),
        }
    }

    /// Waits for the end of the process and gives its exit code (128 plus the signal).
    pub async fn wait(&self) -> Result<i32> {
        self.line.ended().await
    }

    /// Kills the process of an `exec`.
    pub fn kill(&self) {
        self.line.tell(&Request::Kill);
    }
}

/// One end of a process's input or output. Shutting down or dropping an input closes it.
#[derive(Debug)]
pub struct Stdio {
    fd: Option<WatchedFd>,
    /// Who is told when an input closes.
    line: Option<Arc<Line>>,
}

impl Stdio {
    fn new(fd: OwnedFd, line: Option<Arc<Line>>) -> Result<Self> {
        let failed = |source| Error::File { attempt: "watch", path: "a pipe of the shim".into(), source };
        let fd = WatchedFd::new(fd).map_err(failed)?;
        Ok(Self { fd: Some(fd), line })
    }

    /// Appends what can be read now to `to`, up to `most` bytes in it.
    pub(crate) fn read_now(&mut self, to: &mut Vec<u8>, most: usize) {
        let mut buffer = [0; 16 * 1024];
        while let Some(fd) = &self.fd
            && let Ok(len) = sys::read_some(fd, &mut buffer)
            && len > 0
        {
            let room = most.saturating_sub(to.len());
            to.extend_from_slice(&buffer[..len.min(room)]);
        }
    }

    fn close(&mut self) {
        if self.fd.take().is_some()
            && let Some(line) = self.line.take()
        {
            line.tell(&Request::CloseInput);
        }
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for Stdio {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(fd) = &self.fd else { return Poll::Ready(Ok(())) };
        let len = ready!(fd.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.fd else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        fd.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}
