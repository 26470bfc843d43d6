//! A socket by which the machine's administrator has the node shut down where there is no logind.
//!
//! One word comes in (`shutdown`, `cancel`), and one line goes out when it is done: `ok`, or what went wrong. Who may open
//! the socket may do so: it belongs to root.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base::Drain;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::error::NodeError;
use crate::worker::Agent;

/// What can be asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeControl {
    /// End all pods in their order, and take no others.
    Shutdown,
    /// Go on after all.
    Cancel,
}

impl NodeControl {
    fn word(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Cancel => "cancel",
        }
    }
}

/// Asks the node whose socket is at `path`, and waits until it has done it.
///
/// # Errors
/// When there is nobody to ask, or with what the node says.
pub fn ask(path: &Path, what: NodeControl) -> io::Result<()> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    writeln!(stream, "{}", what.word())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.trim() {
        "ok" => Ok(()),
        "" => Err(io::Error::other("the agent ended before it was done")),
        why => Err(io::Error::other(why.to_owned())),
    }
}

/// Listens until `drain` starts.
pub(super) fn serve(agent: &Arc<Agent>, path: &Path, drain: &Drain) -> Result<(), NodeError> {
    let failed = |source| NodeError::File { attempt: "listen at", path: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (agent, until) = (agent.clone(), drain.clone());
    drain.spawn_until_started(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(until.spawn_until_started(answer(agent.clone(), stream))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the control socket");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(agent: Arc<Agent>, mut stream: UnixStream) {
    let mut word = String::new();
    let read = BufReader::new((&mut stream).take(64)).read_line(&mut word).await;
    let said = match (read, word.trim()) {
        (Err(_), _) => return,
        (Ok(_), "shutdown") => match agent.shut_down().await {
            Ok(true) => "ok".to_owned(),
            Ok(false) => "the shutdown was called off".to_owned(),
            Err(error) => error.to_string(),
        },
        (Ok(_), "cancel") => {
            agent.call_shutdown_off();
            "ok".to_owned()
        }
        (Ok(_), other) => format!("{other:?} is nothing that can be asked: shutdown or cancel"),
    };
    // Who has gone does not want to know.
    let _ = stream.write_all(format!("{said}\n").as_bytes()).await;
}
