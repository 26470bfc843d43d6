//! What the runtime tells about sandboxes and containers.

use std::path::PathBuf;
use std::sync::Arc;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{Labels, SandboxSpec};

/// A sandbox that runs.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// The process that keeps it.
    pub shim_pid: u32,
    /// Its network namespace; absent with the host's network.
    pub netns: Option<PathBuf>,
}

/// What is known of a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxStatus {
    /// As it was asked for.
    pub spec: Arc<SandboxSpec>,
    /// Whether it can hold containers.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its network namespace; absent with the host's network.
    pub netns: Option<PathBuf>,
    /// The process that keeps it, while it lives.
    pub shim_pid: Option<u32>,
}

/// Whether a sandbox can hold containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// It can.
    Ready,
    /// It was stopped, or its shim died; what its containers left can still be read.
    Stopped,
}

/// What is known of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// As it was asked for.
    pub name: String,
    /// As it was asked for.
    pub attempt: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it does now.
    pub state: ContainerState,
    /// As it was asked for.
    pub image: String,
    /// As they were asked for.
    pub labels: Labels,
    /// As it was asked for.
    pub log_path: Option<PathBuf>,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// It is being started.
    Created,
    /// It runs.
    Running {
        /// Its first process, as the host numbers it.
        pid: u32,
        /// When it began.
        started_at: Timestamp,
    },
    /// It ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What it returned, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it began.
    #[serde(with = "crate::time::nanos")]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(with = "crate::time::nanos")]
    pub finished_at: Timestamp,
    /// Why the code is not its own word, if so (its shim died, or it never began).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

impl Exit {
    /// Of a container that could not be started (the numbers are containerd's, whose clients know them).
    pub(crate) fn of_unstarted(why: &str, now: Timestamp) -> Self {
        let lost = Some(why.to_owned());
        Self { code: 128, signal: None, oom_killed: false, started_at: now, finished_at: now, lost }
    }

    /// Whether its program never began.
    pub fn is_unstarted(&self) -> bool {
        self.code == 128 && self.signal.is_none() && self.lost.is_some()
    }
}

/// Something happened without being asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerEvent {
    /// A container runs.
    Started {
        /// The sandbox.
        sandbox_id: String,
        /// The container.
        id: String,
    },
    /// A container ended; its log is complete.
    Exited {
        /// The sandbox.
        sandbox_id: String,
        /// The container.
        id: String,
        /// How.
        exit: Exit,
    },
    /// The shim of a sandbox ended without being told to; its containers are gone.
    SandboxLost {
        /// The sandbox.
        sandbox_id: String,
    },
}

/// What a short command left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// What it returned, or 128 plus the signal.
    pub code: i32,
    /// At most 16 MiB.
    pub stdout: Vec<u8>,
    /// At most 16 MiB.
    pub stderr: Vec<u8>,
}
