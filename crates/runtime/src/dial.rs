//! Connections to what listens inside a sandbox, on its loopback interface too.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sys::Namespaces;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::records::At;
use crate::runtime::Runtime;

/// Whoever listens on a loopback interface answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Connects to a port of the sandbox's own loopback interface: to 127.0.0.1, else to ::1.
    ///
    /// # Errors
    /// When there is no such sandbox, or nobody listens.
    pub async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream> {
        let entry = self.inner.sandbox(sandbox)?;
        let netns = entry.status().netns;
        let (tell, told) = oneshot::channel();
        // A thread of its own, since it ends in another network namespace than the others.
        let thread = std::thread::Builder::new().name("dial".into()).spawn(move || {
            // Whoever asked may have stopped waiting.
            let _ = tell.send(connect(netns, port));
        });
        let failed = |source| Error::Connect { port, source };
        thread.map_err(failed)?;
        let stream = told.await.map_err(|_| Error::SandboxStopped(sandbox.to_owned()))??;
        stream.set_nonblocking(true).map_err(failed)?;
        TcpStream::from_std(stream).map_err(failed)
    }
}

fn connect(netns: Option<PathBuf>, port: u16) -> Result<std::net::TcpStream> {
    if let Some(path) = netns {
        let file = File::open(&path).at("open", &path)?;
        sys::join(file, Namespaces::NET)?;
    }
    let connect = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, PATIENCE);
    connect((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|first| connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| first))
        .map_err(|source| Error::Connect { port, source })
}
