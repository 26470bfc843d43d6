//! A container as its shim keeps it.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Timestamp;
use serde::Serialize;
use sys::Waited;
use sys::cgroup::Group;

use super::log::{Log, Unfinished};
use super::{At, ShimError};
use crate::protocol::{CONTAINERS, EXIT_FILE, Known, LAUNCH_FILE, OCI_STATE, Running, STARTED_FILE};
use crate::status::Exit;

/// A process on its way to its program: container or exec.
pub(super) struct Starting {
    pub(super) status: UnixStream,
    /// It is not the process itself that speaks, but a helper that makes it: an OCI runtime's, or that of hooks.
    pub(super) by_helper: bool,
    /// Whom to answer.
    pub(super) connection: u64,
    pub(super) number: u64,
}

/// What a process on its way has said.
pub(super) enum Heard {
    /// More will come.
    Nothing,
    /// It made this terminal.
    Terminal(OwnedFd),
    /// A helper has made this process, which is ours now.
    Process(u32),
    /// The program runs.
    Begun,
    /// It could not.
    Failed(String),
}

impl Starting {
    /// Reads what the process says, without waiting.
    pub(super) fn hear(&self) -> Heard {
        let mut buffer = [0; 4096];
        let got = match sys::recv_with_fds(&self.status, &mut buffer[..1]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Heard::Nothing;
            }
            Err(error) => return Heard::Failed(error.to_string()),
            Ok(got) => got,
        };
        match (buffer[0], got.bytes, got.fds.into_iter().next()) {
            (_, 0, _) if self.by_helper => Heard::Failed("the helper that makes it ended too early".into()),
            (_, 0, _) => Heard::Begun,
            (b'S', ..) => Heard::Begun,
            (b'P', ..) => {
                // Written in one piece with its first byte.
                let mut number = [0; 4];
                match sys::read_some(&self.status, &mut number) {
                    Ok(4) => Heard::Process(u32::from_le_bytes(number)),
                    _ => Heard::Failed("the helper that makes it is not understood".into()),
                }
            }
            (b'T', _, Some(terminal)) => Heard::Terminal(terminal),
            _ => {
                // The text was written in one piece just after its first byte, if not with it.
                let rest = sys::read_some(&self.status, &mut buffer).unwrap_or(0);
                Heard::Failed(String::from_utf8_lossy(&buffer[..rest]).into_owned())
            }
        }
    }
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Out,
    Err,
}

/// A stream of output that is read here.
pub(super) struct Output {
    pub(super) kind: Kind,
    pub(super) fd: OwnedFd,
    rest: Unfinished,
}

/// A client that joined.
pub(super) struct Attached {
    pub(super) connection: u64,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Attached {
    pub(super) fn new(connection: u64, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
        Self { connection, stdout, stderr }
    }
}

/// A container.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) group: Group,
    /// Whether all its processes end with the first.
    pub(super) own_pids: bool,
    pub(super) starting: Option<Starting>,
    pub(super) running: Option<Running>,
    pub(super) exit: Option<Exit>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdin_once: bool,
    /// The side of the terminal to read and write.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) outputs: Vec<Output>,
    pub(super) log: Option<Log>,
    pub(super) attached: Vec<Attached>,
    /// For a client that takes the output itself, until the program begins.
    pub(super) direct: Option<(OwnedFd, OwnedFd)>,
    /// The OCI runtime that makes it, if not we ourselves.
    pub(super) oci_runtime: Option<PathBuf>,
    /// Whether we run hooks for it.
    pub(super) hooks: bool,
}

impl Container {
    /// Has its OCI runtime, if there is one, forget it.
    pub(super) fn forget(&self) {
        if let Some(runtime) = &self.oci_runtime {
            crate::launch::delete(runtime, Path::new(OCI_STATE), &self.id);
        }
    }

    /// Its directory in the shim's.
    pub(super) fn dir(id: &str) -> PathBuf {
        Path::new(CONTAINERS).join(id)
    }

    /// What its process reads.
    pub(super) fn launch_file(id: &str) -> PathBuf {
        Self::dir(id).join(LAUNCH_FILE)
    }

    pub(super) fn known(&self) -> Known {
        Known { id: self.id.clone(), running: self.running, exit: self.exit.clone() }
    }

    /// Reads output from `fd` from now on.
    pub(super) fn watch(&mut self, kind: Kind, fd: OwnedFd) -> Result<(), ShimError> {
        sys::set_nonblocking(&fd)?;
        self.outputs.push(Output { kind, fd, rest: Unfinished::default() });
        Ok(())
    }

    /// The program runs.
    pub(super) fn begun(&mut self) -> Running {
        let running = Running { pid: self.pid, at: nanos(Timestamp::now()) };
        self.running = Some(running);
        // Only lost if the shim dies too; the container is told to end then.
        let _ = write_record(&Self::dir(&self.id).join(STARTED_FILE), &running);
        running
    }

    /// Passes on what output `place` has: to the log and to clients. At most `rounds` buffers, so that a chatty
    /// container leaves time for others. False at its end.
    pub(super) fn pump(&mut self, place: usize, rounds: usize) -> bool {
        let mut buffer = [0; 8192];
        for _ in 0..rounds {
            let Some(output) = self.outputs.get_mut(place) else { return false };
            let len = match sys::read_some(&output.fd, &mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => 0,
            };
            let data = &buffer[..len];
            if let Some(log) = &mut self.log {
                let stream = if output.kind == Kind::Out { "stdout" } else { "stderr" };
                log.write(stream, &mut output.rest, data, Timestamp::now(), len == 0);
            }
            let kind = output.kind;
            if len == 0 {
                self.outputs.remove(place);
                return false;
            }
            for client in &mut self.attached {
                let end = if kind == Kind::Out { &mut client.stdout } else { &mut client.stderr };
                // A client whose (large) pipe is full does not read; it is cut off rather than the container
                // slowed down, and its end of file tells it.
                if let Some(fd) = end
                    && !sys::write_some(&*fd, data).is_ok_and(|sent| sent == data.len())
                {
                    *end = None;
                }
            }
        }
        true
    }

    /// The first process ended: ends the rest, gathers the last output, and records it all.
    pub(super) fn ended(&mut self, waited: Waited) -> Exit {
        if !self.own_pids {
            // What does not end within this time hangs in the kernel; it cannot hold up everything else.
            self.group.kill_all(Duration::from_secs(2));
        }
        while !self.outputs.is_empty() {
            // What is in a pipe by now is all: at most 1 MiB.
            self.pump(0, 256);
            if let Some(output) = self.outputs.first_mut() {
                // Somebody else holds the other end (a process that hangs); what it says now is not heard.
                if let Some(log) = &mut self.log {
                    let stream = if output.kind == Kind::Out { "stdout" } else { "stderr" };
                    log.write(stream, &mut output.rest, b"", Timestamp::now(), true);
                }
                self.outputs.remove(0);
            }
        }
        let finished_at = Timestamp::now();
        let exit = Exit {
            code: waited.code,
            signal: waited.signal,
            oom_killed: waited.code != 0 && self.group.oom_kills() > 0,
            started_at: self.running.map_or(finished_at, |running| crate::time::from_nanos(running.at)),
            finished_at,
            lost: None,
        };
        // Only lost if the shim dies before it tells the agent.
        let _ = write_record(&Self::dir(&self.id).join(EXIT_FILE), &exit);
        self.running = None;
        self.exit = Some(exit.clone());
        (self.stdin, self.terminal, self.log, self.direct) = (None, None, None, None);
        self.attached = Vec::new();
        self.outputs = Vec::new();
        exit
    }

    /// The end of the container's input, to write to.
    pub(super) fn input(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref().or(self.stdin.as_ref())
    }

    /// Tells the terminal its size, if there is one.
    pub(super) fn resize(&self, width: u16, height: u16) -> sys::Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| sys::set_size(terminal.as_fd(), width, height))
    }
}

/// Writes a file so that nobody sees half of it.
pub(super) fn write_record<T: Serialize>(path: &Path, value: &T) -> Result<(), ShimError> {
    let text =
        serde_json::to_vec(value).map_err(|source| ShimError::Record { path: path.to_owned(), source })?;
    let new = path.with_extension("new");
    fs::write(&new, text).at("write", &new)?;
    fs::rename(&new, path).at("rename", &new)
}

pub(super) fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}
