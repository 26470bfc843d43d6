//! Running hooks (opencontainers/runtime-spec, `runtime.md`, "Lifecycle").
//!
//! A container with hooks has a helper while it starts. It is forked by the shim and forks the container's first process
//! as its own sister, so that the shim is the parent of both. What the new process says goes through the helper:
//!
//! ```text
//! shim ◄─ P number ── helper ◄─ H ── the container has its mounts
//!                       │ prestart, createRuntime (on the host)
//!                       └── G number ─► createContainer, then the root changes, startContainer, program
//! shim ◄─ S ────────── poststart ◄─ end of file
//! ```
//!
//! `poststop` is the shim's own business, for the agent may be away; the helper runs it when the start fails.

use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sys::cgroup::{Group, Hierarchies};
use sys::{Forked, Namespaces, Outside, Poller};

use super::{At, Child, LaunchError, read_launch};
use crate::hooks::Hook;
use crate::protocol::Launch;

/// Where a new process belongs, as the shim's fork would have it.
pub(crate) struct Born<'a> {
    /// Among whose processes it is.
    pub(crate) join: Option<BorrowedFd<'a>>,
    /// Its own namespaces.
    pub(crate) new: Namespaces,
    /// The v2 cgroup to be born into.
    pub(crate) place: Option<BorrowedFd<'a>>,
    /// Its cgroup.
    pub(crate) group: &'a Group,
    pub(crate) groups: &'a Hierarchies,
    pub(crate) few_mounts: Option<&'a fs::File>,
    /// The host's namespaces, which the shim has left.
    pub(crate) host: &'a [OwnedFd],
}

/// How much of what a hook says is told.
const TOLD: usize = 1024;
const KILL: i32 = 9;
/// What a shell says of a program that is not there.
const NO_PROGRAM: i32 = 127;

/// The helper of a container with hooks; ends this process.
pub(crate) fn container(mut child: Child, launch_file: &Path, born: &Born<'_>) -> ! {
    let to_shim = child.status.try_clone();
    let result = match to_shim {
        Ok(to_shim) => help(&to_shim, &mut child, launch_file, born),
        Err(source) => Err(LaunchError::File { attempt: "copy", path: "the shim's socket".into(), source }),
    };
    // Nobody else can be told.
    let _ = match &result {
        Ok(()) => (&child.status).write_all(b"S"),
        Err(error) => (&child.status).write_all(format!("E{error}").as_bytes()),
    };
    sys::exit_now(i32::from(result.is_err()))
}

/// Runs the hooks that come after a container's end; ends this process.
pub(crate) fn after_end(launch_file: &Path, pid: u32, host: &[OwnedFd]) -> ! {
    let _ = sys::reset_signals();
    if let Ok(launch) = read_launch(launch_file) {
        poststop(&launch, pid, host);
    }
    sys::exit_now(0)
}

fn help(
    to_shim: &UnixStream,
    child: &mut Child,
    launch_file: &Path,
    born: &Born<'_>,
) -> Result<(), LaunchError> {
    let launch = read_launch(launch_file)?;
    sys::become_session_leader()?;
    sys::reset_signals()?;
    sys::die_with_parent()?;
    write_bundle(&launch)?;
    let socket = Path::new("a socket pair");
    let (ours, theirs) = UnixStream::pair().at("make", socket)?;
    if let Some(join) = born.join {
        sys::join(join, Namespaces::PID)?;
    }
    let (pid, pidfd) = match sys::fork_beside(born.new, born.place)? {
        Forked::Child => {
            drop(ours);
            let child = Child {
                status: theirs,
                stdin: child.stdin.take(),
                stdout: child.stdout.take(),
                stderr: child.stderr.take(),
                group: child.group.take(),
                users: child.users.take(),
            };
            super::container(child, launch_file, born.groups, born.few_mounts)
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    (child.stdin, child.stdout, child.stderr) = (None, None, None);
    let [a, b, c, d] = pid.to_le_bytes();
    say(to_shim, &[b'P', a, b, c, d])?;
    let begun = follow(&launch, &ours, to_shim, pid, born.host);
    if begun.is_err() {
        let _ = sys::kill_pidfd(pidfd.as_fd(), KILL);
        born.group.kill_all(Duration::from_secs(2));
        let _ = sys::wait_pidfd(pidfd.as_fd(), Duration::from_secs(2));
        poststop(&launch, pid, born.host);
    }
    begun
}

fn say(mut to: &UnixStream, bytes: &[u8]) -> Result<(), LaunchError> {
    to.write_all(bytes).at("write to", Path::new("a socket pair"))
}

/// Goes along with the new process until its program runs and what comes after that has been done.
fn follow(
    launch: &Launch,
    from: &UnixStream,
    to_shim: &UnixStream,
    pid: u32,
    host: &[OwnedFd],
) -> Result<(), LaunchError> {
    let socket = Path::new("a socket pair");
    let hooks = &launch.spec.hooks;
    let on_host = |sort: &'static str, hooks: &[Hook], status: &str| {
        run_all(sort, hooks, &state(launch, status, pid), || leave(host))
    };
    loop {
        let mut first = [0; 1];
        let got = sys::recv_with_fds(from, &mut first).at("read from", socket)?;
        match (first[0], got.bytes, got.fds.into_iter().next()) {
            (_, 0, _) => return on_host("poststart", &hooks.poststart, "running"),
            (b'T', _, Some(terminal)) => {
                sys::send_with_fds(to_shim, b"T", &[terminal.as_fd()]).at("write to", socket)?;
            }
            (b'H', ..) => {
                on_host("prestart", &hooks.prestart, "creating")?;
                on_host("createRuntime", &hooks.create_runtime, "creating")?;
                let [a, b, c, d] = pid.to_le_bytes();
                say(from, &[b'G', a, b, c, d])?;
            }
            _ => {
                let mut text = String::new();
                let _ = from.take(4096).read_to_string(&mut text);
                return Err(LaunchError::Said(text));
            }
        }
    }
}

/// The container has its mounts: lets the host's hooks run, then those that see the host's files in its namespaces.
/// Gives the process's number on the host.
pub(super) fn mounted(child: &Child, launch: &Launch, outside: &Outside) -> Result<u32, LaunchError> {
    let socket = Path::new("the helper's socket");
    (&child.status).write_all(b"H").at("write to", socket)?;
    let mut go = [0; 5];
    (&child.status).read_exact(&mut go).at("read from", socket)?;
    let [_, a, b, c, d] = go;
    let pid = u32::from_le_bytes([a, b, c, d]);
    let state = state(launch, "creating", pid);
    run_all("createContainer", &launch.spec.hooks.create_container, &state, || outside.step_out())?;
    Ok(pid)
}

/// All is ready for the container's program.
pub(super) fn before_program(launch: &Launch, pid: u32) -> Result<(), LaunchError> {
    run_all("startContainer", &launch.spec.hooks.start_container, &state(launch, "created", pid), || Ok(()))
}

fn poststop(launch: &Launch, pid: u32, host: &[OwnedFd]) {
    let state = state(launch, "stopped", pid);
    for hook in &launch.spec.hooks.poststop {
        // The others are run whatever becomes of one.
        let _ = run("poststop", hook, &state, || leave(host));
    }
}

/// Back to the host's namespaces.
fn leave(host: &[OwnedFd]) -> sys::Result<()> {
    host.iter().try_for_each(|namespace| sys::join(namespace, Namespaces::none()))
}

/// What a hook reads (`runtime.md`, "State").
fn state(launch: &Launch, status: &str, pid: u32) -> Value {
    json!({"ociVersion": "1.0.2", "id": launch.id, "status": status, "pid": pid, "bundle": launch.writable,
        "annotations": launch.spec.labels})
}

/// Some hooks look into the bundle, for the container's root first of all.
fn write_bundle(launch: &Launch) -> Result<(), LaunchError> {
    let spec = &launch.spec;
    let mounts: Vec<Value> = spec
        .mounts
        .iter()
        .map(|mount| json!({"destination": mount.destination, "source": mount.source, "type": "bind"}))
        .collect();
    let cwd = if spec.cwd.is_empty() { "/" } else { &spec.cwd };
    let config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": launch.writable.join("root"), "readonly": spec.read_only_rootfs},
        "hostname": launch.hostname,
        "process": {"args": spec.args, "env": spec.env, "cwd": cwd, "terminal": spec.tty},
        "mounts": mounts,
        "hooks": spec.hooks,
        "annotations": spec.labels,
    });
    let file = launch.writable.join("config.json");
    fs::create_dir_all(&launch.writable).at("make directory", &launch.writable)?;
    fs::write(&file, config.to_string()).at("write", &file)
}

fn run_all(
    sort: &'static str,
    hooks: &[Hook],
    state: &Value,
    place: impl Fn() -> sys::Result<()>,
) -> Result<(), LaunchError> {
    hooks.iter().try_for_each(|hook| run(sort, hook, state, &place))
}

/// Runs one hook to its end, in the place where `place` brings its process.
fn run(
    sort: &'static str,
    hook: &Hook,
    state: &Value,
    place: impl Fn() -> sys::Result<()>,
) -> Result<(), LaunchError> {
    let failed = |why: String, said: &[u8]| {
        let said = String::from_utf8_lossy(said);
        let said = said.trim();
        let why = if said.is_empty() { why } else { format!("{why}: {said}") };
        LaunchError::Hook { sort, path: hook.path.clone(), why }
    };
    let (input, state_end) = sys::pipe()?;
    let (output_end, output) = sys::pipe()?;
    let text = state.to_string();
    if text.len() > 32 << 10 {
        // Too large for a pipe that nobody reads yet, unless it may be larger.
        sys::set_pipe_size(&state_end, 1 << 20)?;
    }
    fs::File::from(state_end).write_all(text.as_bytes()).at("write", Path::new("a hook's input"))?;
    let (pid, pidfd) = match sys::fork(Namespaces::none(), None)? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            let Err(error) = begin(hook, &input, &output, place);
            let _ = sys::write_some(&output, error.to_string().as_bytes());
            sys::exit_now(NO_PROGRAM)
        }
    };
    drop((input, output));
    sys::set_nonblocking(&output_end)?;
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut said, mut open) = (Vec::new(), true);
    loop {
        let mut poller = Poller::default();
        let ended = poller.add(pidfd.as_fd(), true, false);
        let spoke = open.then(|| poller.add(output_end.as_fd(), true, false));
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        poller.wait(left)?;
        let over = poller.readable(ended);
        if over || spoke.is_some_and(|place| poller.readable(place)) {
            open = hear(&output_end, &mut said);
        }
        if over {
            break;
        }
        if left.is_some_and(|left| left.is_zero()) {
            let _ = sys::kill_pidfd(pidfd.as_fd(), KILL);
            sys::wait_for(pid)?;
            hear(&output_end, &mut said);
            let seconds = hook.timeout.unwrap_or_default();
            return Err(failed(format!("it has not ended within {seconds} s"), &said));
        }
    }
    match sys::wait_for(pid)? {
        sys::Waited { code: 0, .. } => Ok(()),
        sys::Waited { signal: Some(signal), .. } => Err(failed(format!("signal {signal} ended it"), &said)),
        sys::Waited { code, .. } => Err(failed(format!("it ended with {code}"), &said)),
    }
}

/// Becomes the hook's program.
fn begin(
    hook: &Hook,
    input: &OwnedFd,
    output: &OwnedFd,
    place: impl Fn() -> sys::Result<()>,
) -> sys::Result<Infallible> {
    place()?;
    sys::replace_stdio(input.as_fd(), output.as_fd(), output.as_fd())?;
    sys::reset_signals()?;
    sys::close_on_exec_from(3)?;
    let path = hook.path.as_os_str();
    if hook.args.is_empty() {
        return sys::exec(path, &[path], &hook.env);
    }
    sys::exec(path, &hook.args, &hook.env)
}

/// Takes in what there is, the last of it; false if there will be no more.
fn hear(from: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match sys::read_some(from, &mut buffer) {
            Ok(0) => return false,
            Ok(len) => {
                said.extend_from_slice(&buffer[..len]);
                let more = said.len().saturating_sub(TOLD);
                said.drain(..more);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}
