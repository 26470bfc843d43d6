//! What the new process does between its birth and the container's program.
//!
//! The shim forks (it has one thread, so the copy is whole and may do anything), and the copy turns itself into the
//! container: cgroups, mounts, root, terminal, user, capabilities, seccomp, program. The root is changed *before*
//! anything is mounted into it: sources are taken as detached trees first, so that a symbolic link in the image
//! can lead nowhere but into the container itself.
//!
//! It tells the shim over a socket: `T` with a terminal's descriptor, `E` with a text if it failed. The socket
//! closes when the program begins.

mod command;
mod filesystem;
pub(crate) mod hooks;
mod identity;
mod oci;
mod owners;
mod rootfs;
mod seccomp;
mod seccomp_default;
mod user;
mod volumes;

pub(crate) use filesystem::device_numbers;
pub use filesystem::{MASKED_PATHS, READONLY_PATHS};
pub(crate) use oci::{create, delete, exec as exec_by_runtime, signal};
pub(crate) use owners::make as make_users;

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use sys::cgroup::{Group, Hierarchies};
use sys::{MountTree, Namespaces};

use crate::protocol::Launch;
use crate::spec::{ExecSpec, Seccomp};
use owners::Owners;

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    Sys(#[from] sys::Error),
    #[error("{attempt} {path}: {source}", path = path.display())]
    File { attempt: &'static str, path: PathBuf, source: std::io::Error },
    #[error("read {path}: {source}", path = path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("root file system without layers")]
    NoLayers,
    #[error("{0} of the image is a symbolic link")]
    LinkedMountPoint(&'static str),
    #[error("mount on {0}: inside the proc file system")]
    MountOnProc(PathBuf),
    #[error("mount on {0}: not an absolute path inside the container")]
    BadDestination(PathBuf),
    #[error("no user {0:?} in /etc/passwd")]
    NoUser(String),
    #[error("no group {0:?} in /etc/group")]
    NoGroup(String),
    #[error("no command given")]
    NoCommand,
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(String),
    #[error("exec: {name:?}: {source}")]
    Exec { name: String, source: sys::Error },
    #[error("apparmor profile not found {0}")]
    NoAppArmorProfile(String),
    #[error("seccomp profile: {0}")]
    Seccomp(#[from] seccomp::SeccompError),
    #[error("no {0:?} in the image that is mounted as a volume")]
    NoSubPath(PathBuf),
    #[error("the OCI runtime {program}: {message}", program = program.display())]
    Runtime { program: PathBuf, message: String },
    #[error("{0} is not possible with an OCI runtime")]
    NotByRuntime(&'static str),
    #[error("the {sort} hook {path}: {why}", path = path.display())]
    Hook { sort: &'static str, path: PathBuf, why: String },
    #[error("{0}")]
    Said(String),
}

/// The part of starting that both sides of the fork know.
pub(crate) struct Child {
    /// To the shim.
    pub(crate) status: UnixStream,
    /// For the program; those of a terminal are made by the child.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Where it belongs, unless the fork put it there.
    pub(crate) group: Option<Group>,
    /// The sandbox's own users.
    pub(crate) users: Option<OwnedFd>,
}

/// Becomes a container's first process; ends this one.
pub(crate) fn container(
    child: Child,
    launch_file: &Path,
    groups: &Hierarchies,
    few_mounts: Option<&File>,
) -> ! {
    let result = start_container(&child, launch_file, groups, few_mounts);
    fail(&child, result)
}

/// Becomes one more process of a container whose first process `init` is; ends this one.
pub(crate) fn exec(child: Child, launch_file: &Path, spec: &ExecSpec, init: BorrowedFd<'_>) -> ! {
    let result = start_exec(&child, launch_file, spec, init);
    fail(&child, result)
}

fn fail(child: &Child, result: Result<Infallible, LaunchError>) -> ! {
    let Err(error) = result;
    // Nobody else can be told.
    let _ = (&child.status).write_all(format!("E{error}").as_bytes());
    sys::exit_now(125)
}

fn start_container(
    child: &Child,
    launch_file: &Path,
    groups: &Hierarchies,
    few_mounts: Option<&File>,
) -> Result<Infallible, LaunchError> {
    let launch = read_launch(launch_file)?;
    let spec = &launch.spec;
    enter_own_session(child, spec.resources.oom_score_adj)?;

    let owners = Owners::of(child, launch.users);
    let owners = owners.as_ref();
    let devices = filesystem::host_devices(spec)?;
    let mut volumes = volumes::take(&spec.mounts, owners)?;
    let shm = MountTree::of(&launch.shm, false)?;
    // All that is mounted for other pods is left here: a new namespace copies every mount of the one it comes from.
    if let Some(namespace) = few_mounts {
        sys::join(namespace, Namespaces::MOUNT)?;
    }
    sys::unshare(Namespaces::MOUNT.and(Namespaces::CGROUP))?;
    sys::make_root_slave()?;
    volumes::separate(&volumes)?;
    volumes::take_layers(&mut volumes, &spec.mounts, &launch.writable.join("volumes"), owners)?;
    let root = rootfs::mount(&spec.rootfs, &launch.writable, owners)?;
    let place = launch.writable.join("root");
    let outside = if spec.hooks.is_empty() {
        sys::pivot_into(root, &place)?;
        None
    } else {
        Some(sys::step_into(root, &place)?)
    };

    filesystem::mount_kernel(spec.privileged, groups, owners)?;
    filesystem::make_devices(&devices, owners)?;
    filesystem::mount_shm(shm)?;
    volumes::mount(volumes, &spec.mounts, owners)?;
    if !spec.privileged {
        filesystem::mask(spec.masked_paths.as_deref(), spec.readonly_paths.as_deref())?;
    }
    let hooked = match outside {
        Some(outside) => {
            let pid = hooks::mounted(child, &launch, &outside)?;
            outside.leave(&place)?;
            Some(pid)
        }
        None => None,
    };

    let who = user::resolve(&spec.user)?;
    if owners.is_none() {
        command::enter_directory(&spec.cwd)?;
    }
    let terminal = connect(child, spec.tty, owners.map_or(who.uid, |owners| owners.host(who.uid)))?;
    if terminal {
        filesystem::mount_console()?;
    }
    if let Some(owners) = owners {
        // Made here if at all, since the root may be read-only from here on; whether it may be entered shows below.
        let _ = owners.as_root(|| command::enter_directory(&spec.cwd));
    }
    if spec.read_only_rootfs {
        sys::set_root_readonly()?;
    }
    apparmor(spec.apparmor.as_deref())?;
    if let Some(owners) = owners {
        owners.become_root()?;
        command::enter_directory(&spec.cwd)?;
    }
    for (name, (soft, hard)) in &spec.rlimits {
        sys::set_rlimit(name, *soft, *hard)?;
    }
    let seccomp = if spec.privileged { &Seccomp::Unconfined } else { &spec.seccomp };
    identity::assume(&who, &spec.capabilities, spec.privileged, spec.no_new_privileges, seccomp)?;
    // If the shim dies, nobody could tell how the container ends, so it ends too.
    sys::die_with_parent()?;
    if let Some(pid) = hooked {
        hooks::before_program(&launch, pid)?;
    }
    command::run(&spec.args, &command::environment(&spec.env, &[], spec.tty, &launch.hostname, &who))
}

fn start_exec(
    child: &Child,
    launch_file: &Path,
    exec: &ExecSpec,
    init: BorrowedFd<'_>,
) -> Result<Infallible, LaunchError> {
    let launch = read_launch(launch_file)?;
    let spec = &launch.spec;
    enter_own_session(child, spec.resources.oom_score_adj)?;
    let shared = Namespaces::MOUNT.and(Namespaces::CGROUP);
    match launch.users {
        None => sys::join(init, shared)?,
        Some(range) => {
            owners::give_pipes(child, range)?;
            sys::join(init, shared.and(Namespaces::USER))?;
            sys::set_ids(0, 0, &[])?;
        }
    }
    apparmor(spec.apparmor.as_deref())?;

    let who = user::resolve(exec.user.as_ref().unwrap_or(&spec.user))?;
    command::enter_directory(exec.cwd.as_deref().unwrap_or(&spec.cwd))?;
    connect(child, exec.tty, who.uid)?;
    for (name, (soft, hard)) in &spec.rlimits {
        sys::set_rlimit(name, *soft, *hard)?;
    }
    let privileged = spec.privileged || exec.privileged;
    let seccomp = if privileged { &Seccomp::Unconfined } else { &spec.seccomp };
    identity::assume(&who, &spec.capabilities, privileged, spec.no_new_privileges, seccomp)?;
    sys::die_with_parent()?;
    command::run(&exec.argv, &command::environment(&spec.env, &exec.env, exec.tty, &launch.hostname, &who))
}

/// The program that follows runs under this profile.
fn apparmor(profile: Option<&str>) -> Result<(), LaunchError> {
    let Some(profile) = profile else { return Ok(()) };
    // Kernels before 5.8 have one place for all modules of that kind.
    let own = Path::new("/proc/self/attr/apparmor/exec");
    let path = if own.exists() { own } else { Path::new("/proc/self/attr/exec") };
    match fs::write(path, format!("exec {profile}")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.exists() => {
            Err(LaunchError::NoAppArmorProfile(profile.to_owned()))
        }
        written => written.at("set the AppArmor profile in", path),
    }
}

fn read_launch(path: &Path) -> Result<Launch, LaunchError> {
    let text = fs::read(path).at("read", path)?;
    serde_json::from_slice(&text).map_err(|source| LaunchError::Record { path: path.to_owned(), source })
}

fn enter_own_session(child: &Child, oom_score_adj: Option<i32>) -> Result<(), LaunchError> {
    // Containers may look at this process as soon as they share its process numbers; nothing of the host that it
    // still has open may be reached through it. The program begins with a clean slate.
    sys::set_dumpable(false)?;
    if let Some(group) = &child.group {
        group.join_self()?;
    }
    // Zero unless asked for otherwise: the shim itself is protected.
    let path = Path::new("/proc/self/oom_score_adj");
    match fs::write(path, oom_score_adj.unwrap_or(0).clamp(-1000, 1000).to_string()) {
        // Where the agent itself lacks CAP_SYS_RESOURCE (it runs in a container), the score can only rise, and a
        // container with a worse score is better than none.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        result => result.at("write", path)?,
    }
    sys::become_session_leader()?;
    sys::reset_signals()?;
    sys::set_umask(0o022);
    Ok(())
}

/// Puts the program's input and output in place; true if they are a terminal.
fn connect(child: &Child, tty: bool, uid: u32) -> Result<bool, LaunchError> {
    if tty {
        let (master, slave) = sys::open_terminal(Path::new("/dev/pts/ptmx"))?;
        std::os::unix::fs::fchown(&slave, Some(uid), None).at("give away", Path::new("/dev/pts"))?;
        sys::send_with_fds(&child.status, b"T", &[master.as_fd()]).at("send", Path::new("/dev/pts/ptmx"))?;
        sys::set_controlling(&slave)?;
        sys::replace_stdio(slave.as_fd(), slave.as_fd(), slave.as_fd())?;
        return Ok(true);
    }
    let null = Path::new("/dev/null");
    let null_fd = File::options().read(true).write(true).open(null).at("open", null)?;
    let mut ends = [null_fd.as_fd(); 3];
    for (end, given) in ends.iter_mut().zip([&child.stdin, &child.stdout, &child.stderr]) {
        if let Some(given) = given {
            // So that it can be opened again as /dev/stdout by whoever the program runs as.
            std::os::unix::fs::fchown(given, Some(uid), None).at("give away", Path::new("a pipe"))?;
            *end = given.as_fd();
        }
    }
    let [stdin, stdout, stderr] = ends;
    sys::replace_stdio(stdin, stdout, stderr)?;
    Ok(false)
}

/// Names the file of an I/O failure.
trait At<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T, LaunchError>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T, LaunchError> {
        self.map_err(|source| LaunchError::File { attempt, path: path.to_owned(), source })
    }
}
