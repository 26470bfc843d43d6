//! Containers made by somebody else's OCI runtime, by its command line (opencontainers/runtime-spec, `runtime.md`;
//! the options are those that containerd/go-runc uses).
//!
//! The process that would become the container becomes a helper instead: it makes the container's files in a mount
//! namespace of its own, writes the bundle, and has the runtime create and start the container. Its processes are
//! orphans then, and the shim is who gets them. It tells the shim `P` with the process's number (four bytes, little end
//! first), `T` with a terminal's descriptor, and `S` when the program runs; or `E` with a text, as everybody does.

mod config;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sys::{Forked, Namespaces};

use super::{At, Child, LaunchError, command, read_launch, rootfs, user, volumes};
use crate::protocol::{Launch, Oci};
use crate::spec::{ExecSpec, MountKind, Propagation};

/// The helper that has a container created and started; ends this process. `shared` is the first of the processes that
/// all containers of the sandbox see.
pub(crate) fn create(child: Child, launch_file: &Path, shared: Option<u32>) -> ! {
    let result = try_create(&child, launch_file, shared);
    end(&child, result)
}

/// The helper that has one more process started in the container whose first one is `init`; ends this process.
pub(crate) fn exec(child: Child, launch_file: &Path, spec: &ExecSpec, init: u32) -> ! {
    let result = try_exec(&child, launch_file, spec, init);
    end(&child, result)
}

/// Has the runtime forget a container that has ended, and what it has made for it.
pub(crate) fn delete(runtime: &Path, state: &Path, id: &str) {
    let mut call = Call::new(runtime, state);
    call.args(["delete", "--force", id]);
    // One that it does not know (any more) is what we want.
    let _ = call.run(None);
}

/// Has the runtime send a signal to a container's first process; true if it says that it has.
pub(crate) fn signal(runtime: &Path, state: &Path, id: &str, signal: i32) -> bool {
    let mut call = Call::new(runtime, state);
    call.args(["kill", id, &signal.to_string()]);
    call.run(None).is_ok()
}

fn end(child: &Child, result: Result<(), LaunchError>) -> ! {
    // Nobody else can be told.
    let _ = match &result {
        Ok(()) => (&child.status).write_all(b"S"),
        Err(error) => (&child.status).write_all(format!("E{error}").as_bytes()),
    };
    sys::exit_now(i32::from(result.is_err()))
}

/// One call of the runtime.
struct Call<'a> {
    runtime: &'a Path,
    args: Vec<OsString>,
    log: Option<PathBuf>,
}

impl<'a> Call<'a> {
    fn new(runtime: &'a Path, state: &Path) -> Self {
        Self { runtime, args: vec!["--root".into(), state.into()], log: None }
    }

    /// Where the runtime says what went wrong.
    fn log(mut self, path: PathBuf) -> Self {
        self.args.extend(["--log".into(), path.clone().into(), "--log-format".into(), "json".into()]);
        self.log = Some(path);
        self
    }

    fn args<T: Into<OsString>>(&mut self, args: impl IntoIterator<Item = T>) {
        self.args.extend(args.into_iter().map(Into::into));
    }

    /// Runs it to its end, with these as its standard streams.
    fn run(&self, streams: Option<[BorrowedFd<'_>; 3]>) -> Result<(), LaunchError> {
        let failed = |message: String| LaunchError::Runtime { program: self.runtime.to_owned(), message };
        let null = Path::new("/dev/null");
        let null = File::options().read(true).write(true).open(null).at("open", null)?;
        let [stdin, stdout, stderr] = streams.unwrap_or([null.as_fd(); 3]);
        let (pid, _pidfd) = match sys::fork(Namespaces::none(), None)? {
            Forked::Parent { pid, pidfd } => (pid, pidfd),
            Forked::Child => {
                let argv: Vec<OsString> = [self.runtime.as_os_str().to_owned()]
                    .into_iter()
                    .chain(self.args.iter().cloned())
                    .collect();
                let ready = sys::replace_stdio(stdin, stdout, stderr)
                    .and_then(|()| sys::reset_signals())
                    .and_then(|()| sys::close_on_exec_from(3));
                let env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
                let _ = ready.and_then(|()| sys::exec(self.runtime.as_os_str(), &argv, &env));
                sys::exit_now(NO_PROGRAM)
            }
        };
        match sys::wait_for(pid)?.code {
            0 => Ok(()),
            NO_PROGRAM => Err(failed("it cannot be run".into())),
            code => Err(failed(self.complaint().unwrap_or_else(|| format!("it ended with {code}")))),
        }
    }

    /// The last that the runtime wrote into its log.
    fn complaint(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Line {
            level: Option<String>,
            msg: String,
        }
        let text = fs::read_to_string(self.log.as_ref()?).ok()?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let lines: Vec<Line> = lines.collect();
        let worst = lines.iter().rev().find(|line| line.level.as_deref() == Some("error"));
        Some(worst.or(lines.last())?.msg.clone())
    }
}

/// What a shell says of a program that is not there.
const NO_PROGRAM: i32 = 127;

fn try_create(child: &Child, launch_file: &Path, shared: Option<u32>) -> Result<(), LaunchError> {
    let launch = read_launch(launch_file)?;
    let oci = of(&launch)?;
    let spec = &launch.spec;
    if spec.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional) {
        // Mounts in the bundle's own namespace do not travel to the host's.
        return Err(LaunchError::NotByRuntime("mount propagation Bidirectional"));
    }
    if launch.users.is_some() {
        return Err(LaunchError::NotByRuntime("a user namespace"));
    }
    if spec.pid_of.is_some() {
        return Err(LaunchError::NotByRuntime("to see the processes of another container"));
    }
    begin()?;
    sys::unshare(Namespaces::MOUNT)?;
    sys::make_root_slave()?;
    let bundle = &launch.writable;
    let root = bundle.join("root");
    let tree = rootfs::mount(&spec.rootfs, bundle, None)?;
    tree.attach(sys::open_target(&root, true)?.as_fd())?;
    let mut sources = Vec::new();
    for (number, mount) in spec.mounts.iter().enumerate() {
        sources.push(match mount.kind {
            MountKind::Bind | MountKind::Tmpfs => mount.source.clone(),
            MountKind::Layers => {
                let folder = bundle.join("volumes").join(number.to_string());
                layers_source(mount, &folder)?
            }
        });
    }
    let who = user::resolve_in(&spec.user, sys::open_folder(&root)?.as_fd())?;
    let env = command::environment(&spec.env, &[], spec.tty, &launch.hostname, &who);
    let config = config::bundle(&launch, oci, &who, &env, &config::Around { sources: &sources, shared })?;
    let file = bundle.join("config.json");
    fs::write(&file, config.to_string()).at("write", &file)?;

    fs::create_dir_all(&oci.state).at("make directory", &oci.state)?;
    let console = Console::listen(spec.tty)?;
    let pid_file = bundle.join("pid");
    let mut call = Call::new(&oci.runtime, &oci.state).log(bundle.join("oci.log"));
    call.args([OsString::from("create"), "--bundle".into(), bundle.into()]);
    call.args([OsString::from("--pid-file"), pid_file.clone().into()]);
    call.args(console.option());
    call.args([&launch.id]);
    let created = run_for(child, &call, who.uid).and_then(|()| tell(child, &pid_file, &console));
    let mut start = Call::new(&oci.runtime, &oci.state).log(bundle.join("oci.log"));
    start.args(["start", &launch.id]);
    created.and_then(|()| start.run(None)).inspect_err(|_| delete(&oci.runtime, &oci.state, &launch.id))
}

fn try_exec(child: &Child, launch_file: &Path, exec: &ExecSpec, init: u32) -> Result<(), LaunchError> {
    let launch = read_launch(launch_file)?;
    let oci = of(&launch)?;
    begin()?;
    let root = PathBuf::from(format!("/proc/{init}/root"));
    let root = sys::open_folder(&root)?;
    let who = user::resolve_in(exec.user.as_ref().unwrap_or(&launch.spec.user), root.as_fd())?;
    let env = command::environment(&launch.spec.env, &exec.env, exec.tty, &launch.hostname, &who);
    let process = config::exec(&launch, exec, &who, &env)?;
    let own = |name: &str| launch.writable.join(format!("exec-{}-{name}", sys::pid()));
    let (file, pid_file, log) = (own("process.json"), own("pid"), own("log"));
    fs::write(&file, process.to_string()).at("write", &file)?;
    let console = Console::listen(exec.tty)?;
    let mut call = Call::new(&oci.runtime, &oci.state).log(log.clone());
    call.args([OsString::from("exec"), "--detach".into(), "--process".into(), file.clone().into()]);
    call.args([OsString::from("--pid-file"), pid_file.clone().into()]);
    call.args(console.option());
    call.args([&launch.id]);
    let begun = run_for(child, &call, who.uid).and_then(|()| tell(child, &pid_file, &console));
    for path in [&file, &pid_file, &log] {
        // They go with the container at the latest.
        let _ = fs::remove_file(path);
    }
    begun
}

fn of(launch: &Launch) -> Result<&Oci, LaunchError> {
    launch.oci.as_ref().ok_or(LaunchError::NoCommand)
}

/// A slate as clean as any program's.
fn begin() -> Result<(), LaunchError> {
    sys::become_session_leader()?;
    sys::reset_signals()?;
    sys::set_umask(0o022);
    // Without a shim nobody would learn of what the runtime makes.
    Ok(sys::die_with_parent()?)
}

/// An image's files, or the part of them that is asked for, as a path of this mount namespace.
fn layers_source(mount: &crate::spec::Mount, folder: &Path) -> Result<PathBuf, LaunchError> {
    let place = volumes::layers_at(mount, folder, None)?;
    if mount.sub_path.as_os_str().is_empty() {
        return Ok(place);
    }
    let root = sys::open_folder(&place)?;
    let shown = sys::open_in_root(root.as_fd(), &mount.sub_path)
        .map_err(|_| LaunchError::NoSubPath(mount.sub_path.clone()))?;
    let part = folder.join("part");
    sys::bind_handle(shown.as_fd(), &part)?;
    Ok(part)
}

/// Runs the runtime with the container's streams as its own, which the container inherits.
fn run_for(child: &Child, call: &Call<'_>, uid: u32) -> Result<(), LaunchError> {
    let null = Path::new("/dev/null");
    let null = File::options().read(true).write(true).open(null).at("open", null)?;
    let mut streams = [null.as_fd(); 3];
    for (stream, given) in streams.iter_mut().zip([&child.stdin, &child.stdout, &child.stderr]) {
        if let Some(given) = given {
            std::os::unix::fs::fchown(given, Some(uid), None).at("give away", Path::new("a pipe"))?;
            *stream = given.as_fd();
        }
    }
    call.run(Some(streams))
}

/// Tells the shim of the process that the runtime has made, and hands it the terminal.
fn tell(child: &Child, pid_file: &Path, console: &Console) -> Result<(), LaunchError> {
    let text = fs::read_to_string(pid_file).at("read", pid_file)?;
    let invalid = || sys::Error::Invalid { what: "process number", text: text.clone() };
    let pid: u32 = text.trim().parse().map_err(|_| invalid())?;
    let [a, b, c, d] = pid.to_le_bytes();
    let socket = Path::new("the shim's socket");
    (&child.status).write_all(&[b'P', a, b, c, d]).at("write to", socket)?;
    if let Some(terminal) = console.terminal()? {
        sys::send_with_fds(&child.status, b"T", &[terminal.as_fd()]).at("write to", socket)?;
    }
    Ok(())
}

/// Where the runtime sends the terminal that it has made.
struct Console(Option<(UnixListener, PathBuf)>);

impl Console {
    /// In the shim's directory, whose path is short enough for a socket's.
    fn listen(wanted: bool) -> Result<Self, LaunchError> {
        if !wanted {
            return Ok(Self(None));
        }
        let here = std::env::current_dir().at("find", Path::new("."))?;
        let path = here.join(format!("t{}", sys::pid()));
        let listener = UnixListener::bind(&path).at("listen on", &path)?;
        listener.set_nonblocking(true).at("listen on", &path)?;
        Ok(Self(Some((listener, path))))
    }

    fn option(&self) -> Vec<OsString> {
        self.0.iter().flat_map(|(_, path)| [OsString::from("--console-socket"), path.into()]).collect()
    }

    /// By now the runtime has ended, and has sent it before.
    fn terminal(&self) -> Result<Option<std::os::fd::OwnedFd>, LaunchError> {
        let Some((listener, path)) = &self.0 else { return Ok(None) };
        let (stream, _) = listener.accept().at("accept on", path)?;
        let mut name = [0; 4096];
        let got = sys::recv_with_fds(&stream, &mut name).at("read from", path)?;
        Ok(got.fds.into_iter().next())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.0 {
            // It goes with the shim's directory at the latest.
            let _ = fs::remove_file(path);
        }
    }
}
