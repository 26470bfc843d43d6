//! What agent and shim say to each other over the shim's Unix socket.
//!
//! Each message is its length (four bytes, little end first) and that many bytes of JSON. Requests carry a number
//! that the answer repeats; events carry 0. A connection begins with [`Request::Hello`], which also asks for
//! events; connections for `Exec`, `Attach` and `Start` with direct output skip it, and their answer carries
//! descriptors. Both sides ignore fields that they do not know, so that a newer agent finds older shims.

use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{
    ContainerSpec, ExecSpec, IpcMode, NetworkMode, PidMode, Resources, SandboxSpec, UserRange,
};
use crate::status::Exit;

/// Raised when an old peer could not understand.
pub(crate) const VERSION: u32 = 2;
/// Shims run hooks from this version on.
pub(crate) const HOOKS: u32 = 2;
/// No message is longer.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;
/// The socket's name in the shim's directory.
pub(crate) const SOCKET: &str = "s";
/// The file with the sandbox in the shim's directory.
pub(crate) const SANDBOX_FILE: &str = "sandbox.json";
/// The file with the shim's process in its directory.
pub(crate) const PROCESS_FILE: &str = "process.json";
/// The directory of containers' directories in the shim's directory.
pub(crate) const CONTAINERS: &str = "c";
/// The file with what to start, in a container's directory.
pub(crate) const LAUNCH_FILE: &str = "launch.json";
/// The file that says that a container began, in its directory.
pub(crate) const STARTED_FILE: &str = "started.json";
/// The file that says how a container ended, in its directory.
pub(crate) const EXIT_FILE: &str = "exit.json";
/// The sandbox's `/dev/shm`, in the shim's directory.
pub(crate) const SHM: &str = "shm";

/// A request or answer with its number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    pub(crate) n: u64,
    pub(crate) m: T,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered by [`Reply::Hello`].
    Hello { version: u32 },
    /// Start what `c/<id>/launch.json` says. Answered by [`Reply::Started`].
    Start(Box<Start>),
    /// Run one more process. Answered by [`Reply::Session`], later by [`Reply::Ended`].
    Exec { id: String, spec: Box<ExecSpec> },
    /// Join input and output. Answered by [`Reply::Session`], later by [`Reply::Ended`].
    Attach { id: String },
    /// On a connection of `Exec`: kill the process.
    Kill,
    /// On a connection of `Attach`: the client will send no more input.
    CloseInput,
    /// On a connection of `Attach` or `Exec`: the terminal's size.
    Resize { width: u16, height: u16 },
    /// Send a signal to the first process, or `SIGKILL` to all.
    Signal { id: String, signal: i32, all: bool },
    /// Open the log again.
    ReopenLog { id: String },
    /// Change limits.
    Update { id: String, resources: Box<Resources> },
    /// An ended container will not be asked for again.
    Forget { id: String },
    /// Kill all containers, then end.
    Shutdown,
}

/// What the shim itself must know to start a container; the rest is read by the new process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Start {
    pub(crate) id: String,
    pub(crate) cgroup: String,
    pub(crate) resources: Resources,
    pub(crate) privileged: bool,
    pub(crate) devices: Vec<(char, u32, u32, String)>,
    pub(crate) pid: PidMode,
    pub(crate) pid_of: Option<String>,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log: Option<LogFile>,
    /// Hand the output to whoever asks instead of writing a log.
    pub(crate) direct: bool,
    /// The OCI runtime that makes it, if not we ourselves.
    pub(crate) oci_runtime: Option<PathBuf>,
    /// Whether it has hooks that we have to run.
    pub(crate) hooks: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_files: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Hello {
        version: u32,
        pid: u32,
        containers: Vec<Known>,
    },
    Started {
        id: String,
        pid: u32,
        at: i64,
    },
    /// Descriptors come along: those of these that are true, in this order, and the terminal if `tty`.
    Session {
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    },
    Ended {
        code: i32,
    },
    Done,
    Failed {
        kind: Failure,
        message: String,
    },
    Event(Event),
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// The process could not be started.
    Start,
    /// No such container.
    Unknown,
    /// The container does not run.
    NotRunning,
    /// Anything else.
    Other,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    Exited {
        id: String,
        exit: Exit,
    },
    /// What an agent that is gone has asked for could not be started.
    NotStarted {
        id: String,
        message: String,
    },
}

/// A container as its shim knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) id: String,
    pub(crate) running: Option<Running>,
    pub(crate) exit: Option<Exit>,
}

/// A container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) at: i64,
}

/// [`SANDBOX_FILE`] as the shim reads it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShimFile<F, H> {
    #[serde(flatten)]
    pub(crate) sandbox: F,
    /// The machine's cgroup trees, which a shim of many would take long to find by itself.
    pub(crate) hierarchies: H,
    /// The namespace with the mounts that starts of containers see, if not all: a descriptor of the agent's.
    pub(crate) few_mounts: Option<PathBuf>,
}

/// [`SANDBOX_FILE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxFile {
    #[serde(with = "shared")]
    pub(crate) spec: Arc<SandboxSpec>,
    pub(crate) created_at: i64,
    /// Of the sandbox, below the hierarchies' roots.
    pub(crate) cgroup: String,
    /// Of all shims, below the hierarchies' roots.
    pub(crate) shim_cgroup: String,
    pub(crate) netns: Option<PathBuf>,
}

/// Whoever asks for the state of all sandboxes shall not copy what was asked for each.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        T::serialize(value, to)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(from).map(Arc::new)
    }
}

/// [`PROCESS_FILE`]: number and start time name a process for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessFile {
    pub(crate) pid: u32,
    pub(crate) start: u64,
}

/// [`LAUNCH_FILE`]: what the new process reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) id: String,
    pub(crate) created_at: i64,
    pub(crate) spec: ContainerSpec,
    pub(crate) network: NetworkMode,
    pub(crate) ipc: IpcMode,
    pub(crate) hostname: String,
    /// The directory with `upper`, `work` and `root` of this container.
    pub(crate) writable: PathBuf,
    /// What to mount on `/dev/shm`.
    pub(crate) shm: PathBuf,
    /// The sandbox's own users.
    #[serde(default)]
    pub(crate) users: Option<UserRange>,
    /// For an OCI runtime.
    #[serde(default)]
    pub(crate) oci: Option<Oci>,
}

/// What an OCI runtime must know besides the container's own description.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Oci {
    /// Its program.
    pub(crate) runtime: PathBuf,
    /// Where it keeps its own records.
    pub(crate) state: PathBuf,
    /// The container's cgroup below the hierarchies' roots.
    pub(crate) cgroup: String,
    /// Whose processes the container sees.
    pub(crate) pid: PidMode,
    /// The devices that its processes may use.
    pub(crate) devices: Vec<(char, u32, u32, String)>,
}

/// The directory of the OCI runtimes' own records in the shim's directory.
pub(crate) const OCI_STATE: &str = "oci";

/// The bytes of a message.
pub(crate) fn encode<T: Serialize>(n: u64, m: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Borrowed<'a, T> {
        n: u64,
        m: &'a T,
    }
    let mut bytes = vec![0; 4];
    // These types have no maps with keys that JSON lacks, and writing to memory does not fail.
    if serde_json::to_writer(&mut bytes, &Borrowed { n, m }).is_err() {
        bytes.truncate(4);
    }
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// Takes the first whole message out of `buffer`; `None` if there is none yet.
pub(crate) fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<Numbered<T>>, BadMessage> {
    let Some(len) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_MESSAGE {
        return Err(BadMessage::TooLong(len));
    }
    if buffer.len() < 4 + len {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + len]);
    buffer.drain(..4 + len);
    Ok(Some(message?))
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("a message is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_arrive_in_pieces() {
        let whole = [encode(1, &Request::Shutdown), encode(2, &Request::Attach { id: "x".into() })].concat();
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in whole {
            buffer.push(byte);
            if let Some(message) = decode::<Request>(&mut buffer).unwrap() {
                seen.push(message.n);
            }
        }
        assert_eq!((seen, buffer.len()), (vec![1, 2], 0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<Request>(&mut bytes);
        }
    }
}
