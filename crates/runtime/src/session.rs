use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, Result};

/// A process's input and output, by [`exec`](crate::Runtime::exec) or [`attach`](crate::Runtime::attach).
///
/// Dropping a session of `exec` leaves the process alone; its closed pipes will tell it.
#[derive(Debug)]
pub struct Session {
    /// Its standard input; `None` when none was asked for.
    pub stdin: Option<Stdio>,
    /// Its standard output, or all output of a terminal.
    pub stdout: Option<Stdio>,
    /// Its standard error; `None` with a terminal.
    pub stderr: Option<Stdio>,
}

/// One end of a process's input or output.
#[derive(Debug)]
pub struct Stdio(());

impl Session {
    /// Tells the terminal its size.
    pub fn resize(&self, _width: u16, _height: u16) -> Result<()> {
        Err(Error::NotRunning(String::new()))
    }

    /// Waits for the end of the process and gives its exit code (128 plus the signal).
    pub async fn wait(&mut self) -> Result<i32> {
        Err(Error::NotRunning(String::new()))
    }
}

impl AsyncRead for Stdio {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
