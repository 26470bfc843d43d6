//! What callers say about sandboxes and containers.
//!
//! These values are also what lies on disk next to each shim, so fields are only ever added, with a default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::hooks::{Hook, Hooks};

/// Opaque pairs that are kept and given back.
pub type Labels = BTreeMap<String, String>;

/// One pod: the namespaces that its containers share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Unique on this node; also a file name (letters, digits, `-`, `_`, `.`; at most 128).
    pub id: String,
    /// For people.
    pub name: String,
    /// The host name inside; ignored with the host's network.
    pub hostname: String,
    /// Given back unchanged.
    pub labels: Labels,
    /// Whose network.
    pub network: NetworkMode,
    /// Whose processes are visible.
    pub pid: PidMode,
    /// Whose System V and POSIX IPC objects.
    pub ipc: IpcMode,
    /// Namespaced kernel settings (`net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`, `fs.mqueue.*`).
    pub sysctls: BTreeMap<String, String>,
    /// The sandbox's cgroup under the runtime's parent, e.g. `burstable/pod1234`; with a slash in front, below the
    /// hierarchies' roots instead, where it must be this sandbox's alone; empty means `sandbox-<id>`.
    pub cgroup_path: String,
    /// Limits on all containers together.
    pub resources: Resources,
    /// Where the caller keeps this pod's logs; given back, not used.
    pub log_dir: Option<PathBuf>,
    /// Size of the shared `/dev/shm` in bytes (64 MiB when absent).
    pub shm_size: Option<u64>,
    /// A user namespace of its own, with these numbers of the host.
    pub users: Option<UserRange>,
    /// The program that makes the containers, by the command line of OCI runtimes; absent means this crate does.
    pub oci_runtime: Option<PathBuf>,
}

/// The host's numbers of users and groups that a sandbox's own ones, from 0 on, stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserRange {
    /// What 0 is on the host.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

impl UserRange {
    /// What a number of the sandbox's is on the host; numbers beyond the range are nobody there.
    pub(crate) fn host(self, id: u32) -> u32 {
        const NOBODY: u32 = 65_534;
        if id < self.count { self.first.saturating_add(id) } else { NOBODY }
    }
}

/// Whose network a sandbox uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A namespace of its own, with nothing but loopback until somebody adds links.
    #[default]
    Own,
    /// The host's.
    Host,
}

/// Which processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PidMode {
    /// Each container its own.
    #[default]
    PerContainer,
    /// All containers of the sandbox together.
    Shared,
    /// All processes of the host.
    Host,
}

/// Whose IPC objects a sandbox uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// Its own.
    #[default]
    Own,
    /// The host's.
    Host,
}

/// Limits. Absent means "leave as the kernel has it".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight in v1 terms (2 to 262144; 1024 is one CPU).
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period.
    pub cpu_quota_us: Option<i64>,
    /// Length of the period (100 ms when absent).
    pub cpu_period_us: Option<u64>,
    /// Bytes of memory; swap is not given on top.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids_limit: Option<u64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// CPUs, e.g. `0-1,3`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, e.g. `0`.
    pub cpuset_mems: Option<String>,
    /// Bytes of huge pages by their size as cgroups write it (`2MB`).
    pub huge_pages: BTreeMap<String, u64>,
    /// When memory runs out, only the process that wanted more ends, and not all of the container. It is always so with
    /// cgroup v1.
    pub single_process_oom_kill: bool,
}

impl Resources {
    /// In the words of cgroups.
    pub fn limits(&self) -> sys::cgroup::Limits {
        sys::cgroup::Limits {
            cpu_shares: self.cpu_shares,
            cpu_quota_us: self.cpu_quota_us,
            cpu_period_us: self.cpu_period_us,
            memory: self.memory_limit,
            pids: self.pids_limit,
            cpus: self.cpuset_cpus.clone(),
            mems: self.cpuset_mems.clone(),
            huge_pages: self.huge_pages.clone(),
        }
    }
}

/// The files a container sees before its mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// Unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// Where changes go; absent means a directory of the runtime that is removed with the container.
    pub upper: Option<PathBuf>,
    /// The overlay's scratch directory, on the same file system as `upper`; must be given with it.
    pub work: Option<PathBuf>,
}

/// One container of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Who has to know the container's id before it is made chooses it (64 hexadecimal digits); empty means a random one.
    pub id: String,
    /// Unique in the sandbox together with `attempt`.
    pub name: String,
    /// Counts restarts.
    pub attempt: u32,
    /// What the image is called; given back only.
    pub image: String,
    /// Given back unchanged.
    pub labels: Labels,
    /// Its files.
    pub rootfs: Rootfs,
    /// The command and its arguments (entry point and command already joined).
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, created if absent; empty means `/`.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Changes to the default capability set.
    pub capabilities: Capabilities,
    /// All capabilities, all devices, nothing masked, no seccomp.
    pub privileged: bool,
    /// Programs cannot gain privileges.
    pub no_new_privileges: bool,
    /// The root file system cannot be written.
    pub read_only_rootfs: bool,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// The AppArmor profile, loaded in the kernel, that the program runs under.
    pub apparmor: Option<String>,
    /// Replaces the default list of hidden paths.
    pub masked_paths: Option<Vec<String>>,
    /// Replaces the default list of read-only paths.
    pub readonly_paths: Option<Vec<String>>,
    /// Limits.
    pub resources: Resources,
    /// Resource limits of the process, by name (`nofile`): soft and hard.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep a standard input open for [`attach`](crate::Runtime::attach).
    pub stdin: bool,
    /// Close the standard input when the first attached client leaves.
    pub stdin_once: bool,
    /// The file for output in the CRI log format; absent means output is only for attached clients.
    pub log_path: Option<PathBuf>,
    /// Rotate the log when it would grow beyond this many bytes (absent: only when asked).
    pub log_max_bytes: Option<u64>,
    /// How many log files are kept, the current one included (5 when absent).
    pub log_max_files: Option<u32>,
    /// Host devices to add.
    pub devices: Vec<Device>,
    /// The signal that asks it to end (`SIGTERM` when absent).
    pub stop_signal: Option<String>,
    /// See the processes of this container (by id) instead of what the sandbox says.
    pub pid_of: Option<String>,
    /// One that cannot be started is kept as one that has ended, with code 128 and what was wrong.
    pub keep_unstarted: bool,
    /// Programs that are run beside it.
    #[serde(skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
}

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// `name`, `uid`, `name:group`, `uid:gid` as an image says it, looked up inside the root file system.
    pub spec: Option<String>,
    /// Wins over `spec`.
    pub uid: Option<u32>,
    /// Wins over `spec` and the user's primary group.
    pub gid: Option<u32>,
    /// Additional groups.
    pub supplementary: Vec<u32>,
    /// Leave out the groups that `/etc/group` gives the user.
    pub strict_groups: bool,
}

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// A path on the host for a bind mount; ignored otherwise.
    pub source: PathBuf,
    /// An absolute path inside.
    pub destination: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Nothing below can be written.
    pub readonly: bool,
    /// Nested mounts become read-only too.
    pub recursive_readonly: bool,
    /// What later mounts travel.
    pub propagation: Propagation,
    /// For tmpfs: `size=64m`, `mode=1777`; for all: `noexec`, `nosuid`, `nodev`.
    pub options: Vec<String>,
    /// For layers: the unpacked layers of an image, the topmost first.
    pub layers: Vec<PathBuf>,
    /// For layers: what of them is shown (all when empty); links in it lead nowhere else.
    pub sub_path: PathBuf,
}

/// What a mount shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or directory of the host, with what is mounted below it.
    #[default]
    Bind,
    /// Memory.
    Tmpfs,
    /// An image's files, which cannot be written.
    Layers,
}

/// What later mounts travel between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// None.
    #[default]
    None,
    /// Those of the host come in.
    HostToContainer,
    /// In both directions.
    Bidirectional,
}

/// Changes to the default capabilities; names with or without `CAP_`, `ALL` for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Given in addition.
    pub add: Vec<String>,
    /// Taken away; wins over the default, `add` wins over `ALL` here.
    pub drop: Vec<String>,
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// The default profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// A profile in the OCI runtime format.
    Profile(serde_json::Value),
}

/// A host device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// On the host.
    pub host_path: PathBuf,
    /// Inside.
    pub container_path: PathBuf,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
    /// The node's mode inside (the host's when absent).
    pub mode: Option<u32>,
    /// Whose it is inside (as on the host when absent).
    pub uid: Option<u32>,
    /// Whose group's it is inside (as on the host when absent).
    pub gid: Option<u32>,
}

/// A process to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`, in addition to the container's.
    pub env: Vec<String>,
    /// Working directory (the container's when absent).
    pub cwd: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Open a standard input.
    pub stdin: bool,
    /// Who it runs as (the container's user when absent).
    pub user: Option<User>,
    /// All capabilities, no seccomp.
    pub privileged: bool,
}

/// A command to run once over given files, as image builds do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnceSpec {
    /// Its files; `upper` and `work` keep what it changes.
    pub rootfs: Rootfs,
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// The host's network, or none.
    pub network: OnceNetwork,
    /// More mounts (caches, secrets).
    pub mounts: Vec<Mount>,
}

/// Which network a [`OnceSpec`] gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnceNetwork {
    /// The host's.
    #[default]
    Host,
    /// Loopback only.
    None,
}
