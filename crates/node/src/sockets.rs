//! Sockets at which plugins and monitors ask the node's agent.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base::Drain;
use bytes::Bytes;
use grpc::Answer;
use tokio::net::UnixListener;

/// Makes room for a socket: its folder is made, and what a dead agent left is removed.
///
/// # Errors
/// If somebody is listening there, or the folder cannot be made.
pub(crate) fn prepare(socket: &Path) -> io::Result<()> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o750))?;
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another kubelet is listening there"));
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Answers calls at a socket until the agent ends; each connection is a task of its own.
///
/// # Errors
/// If the socket cannot be made.
pub(crate) fn serve<H, F>(socket: &Path, drain: &Drain, handle: H) -> io::Result<()>
where
    H: Fn(String, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = UnixListener::bind(socket)?;
    let connections = drain.clone();
    drain.spawn_until_started(async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    connections.spawn_until_started(grpc::answer(connection, handle.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: it passes.
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}
