//! What begins: containers, processes in them, and clients of a container's output.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use sys::cgroup::{DeviceRule, Group};
use sys::{Forked, Namespaces};

use super::super::connection::Role;
use super::super::container::{Attached, Container, Kind, Starting};
use super::super::log::Log;
use super::super::sandbox::Entered;
use super::super::{At, ShimError};
use super::{Exec, Refusal, Server, other};
use crate::launch::{self, Child};
use crate::protocol::{Failure, Reply, Start};
use crate::spec::{ExecSpec, PidMode};

/// A container's output may wait in pipes of this size.
const PIPE: i32 = 64 * 1024;
/// A client's output may wait in pipes of this size before it is cut off.
const CLIENT_PIPE: i32 = 1 << 20;

impl Server {
    pub(super) fn start(&mut self, connection: u64, number: u64, start: Start) -> Result<(), Refusal> {
        if self.shutdown.is_some() || self.containers.iter().any(|container| container.id == start.id) {
            return Err((Failure::Other, format!("container {:?} cannot be started (again)", start.id)));
        }
        let group = self.sandbox.groups.group(&start.cgroup);
        let result = self.try_start(connection, number, &start, &group);
        if result.is_err() {
            // The failure itself matters more.
            let _ = group.remove(std::time::Duration::from_millis(100));
        }
        result.map_err(|error| (Failure::Start, error.to_string()))
    }

    fn try_start(
        &mut self,
        connection: u64,
        number: u64,
        start: &Start,
        group: &Group,
    ) -> Result<(), ShimError> {
        group.create()?;
        group.limit(&start.resources.limits())?;
        if !start.resources.single_process_oom_kill {
            group.end_together()?;
        }
        group.deny_swap()?;
        if !start.privileged {
            group.limit_devices(&device_rules(start))?;
        }
        let log = match &start.log {
            Some(settings) => Some(Log::open(settings.clone()).at("open log", &settings.path)?),
            None => None,
        };
        let (status, theirs) = status_pair()?;
        let (mut child, mut ours) = pipes(start.tty, start.stdin, theirs)?;
        let by_runtime = start.oci_runtime.is_some();
        child.group = (!self.sandbox.groups.is_v2() && !by_runtime).then(|| group.clone());
        child.users = self.users()?;

        let join = match (&start.pid_of, start.pid) {
            (Some(id), _) => match self.containers.iter().find(|c| c.id == *id && c.exit.is_none()) {
                Some(target) => Some(target.pidfd.as_fd()),
                None => {
                    let text = id.clone();
                    return Err(sys::Error::Invalid {
                        what: "running container to share processes with",
                        text,
                    }
                    .into());
                }
            },
            (None, _) if by_runtime => None,
            (None, PidMode::Shared) => self.sandbox.init.as_ref().map(|(_, pidfd)| pidfd.as_fd()),
            (None, _) => None,
        };
        let own_pids = start.pid == PidMode::PerContainer && start.pid_of.is_none();
        let new = if own_pids && !by_runtime { Namespaces::PID } else { Namespaces::none() };
        let in_group = group.open_for_fork()?.filter(|_| !by_runtime);
        let place = in_group.as_ref().map(AsFd::as_fd);
        let forked =
            if start.hooks { sys::fork(Namespaces::none(), None)? } else { self.fork(join, new, place)? };
        let (pid, pidfd) = match forked {
            Forked::Child if by_runtime => {
                let shared = self.sandbox.init.as_ref().map(|(pid, _)| *pid);
                launch::create(child, &Container::launch_file(&start.id), shared)
            }
            Forked::Child if start.hooks => {
                let Entered { groups, few_mounts, host, .. } = &self.sandbox;
                let few_mounts = few_mounts.as_ref();
                let born = launch::hooks::Born { join, new, place, group, groups, few_mounts, host };
                launch::hooks::container(child, &Container::launch_file(&start.id), &born)
            }
            Forked::Child => {
                let Entered { groups, few_mounts, .. } = &self.sandbox;
                launch::container(child, &Container::launch_file(&start.id), groups, few_mounts.as_ref())
            }
            Forked::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop(child);
        let mut container = Container {
            id: start.id.clone(),
            pid,
            pidfd,
            group: group.clone(),
            own_pids,
            starting: Some(Starting { status, by_helper: by_runtime || start.hooks, connection, number }),
            running: None,
            exit: None,
            stdin: ours[0].take(),
            stdin_once: start.stdin_once,
            terminal: None,
            outputs: Vec::new(),
            log,
            attached: Vec::new(),
            direct: None,
            oci_runtime: start.oci_runtime.clone(),
            hooks: start.hooks,
        };
        if let (Some(stdout), Some(stderr)) = (ours[1].take(), ours[2].take()) {
            if start.direct {
                container.direct = Some((stdout, stderr));
            } else {
                container.watch(Kind::Out, stdout)?;
                container.watch(Kind::Err, stderr)?;
            }
        }
        self.containers.push(container);
        Ok(())
    }

    /// Forks, with the child among the processes of `join`, if given.
    fn fork(
        &self,
        join: Option<BorrowedFd<'_>>,
        new: Namespaces,
        group: Option<BorrowedFd<'_>>,
    ) -> Result<Forked, ShimError> {
        let Some(join) = join else { return Ok(sys::fork(new, group)?) };
        sys::join(join, Namespaces::PID)?;
        let forked = sys::fork(new, group);
        if !matches!(forked, Ok(Forked::Child)) {
            sys::join(&self.sandbox.own_pids, Namespaces::PID)?;
        }
        Ok(forked?)
    }

    pub(super) fn exec(
        &mut self,
        connection: u64,
        number: u64,
        id: &str,
        spec: &ExecSpec,
    ) -> Result<(), Refusal> {
        self.running(id)?;
        self.try_exec(connection, number, id, spec).map_err(|error| (Failure::Start, error.to_string()))
    }

    fn try_exec(&mut self, connection: u64, number: u64, id: &str, spec: &ExecSpec) -> Result<(), ShimError> {
        let Some(container) = self.containers.iter().find(|container| container.id == id) else {
            return Ok(());
        };
        let (status, theirs) = status_pair()?;
        let (mut child, ends) = pipes(spec.tty, spec.stdin, theirs)?;
        let by_runtime = container.oci_runtime.is_some();
        child.group = (!self.sandbox.groups.is_v2() && !by_runtime).then(|| container.group.clone());
        let in_group = container.group.open_for_fork()?.filter(|_| !by_runtime);
        let (init, init_pid) = (container.pidfd.as_fd(), container.pid);
        let join = (!by_runtime).then_some(init);
        let forked = match self.fork(join, Namespaces::none(), in_group.as_ref().map(AsFd::as_fd)) {
            // The container has made cgroups in its own (a container runtime, a service manager), which takes no
            // processes then: where its first one has gone, there is room.
            Err(ShimError::Sys(error)) if error.is_busy() && in_group.is_some() => {
                let first = self.sandbox.groups.group_of(init_pid).map(|group| group.open_for_fork());
                let Some(first) = first.transpose()?.flatten() else { return Err(error.into()) };
                self.fork(join, Namespaces::none(), Some(first.as_fd()))?
            }
            forked => forked?,
        };
        let (pid, pidfd) = match forked {
            Forked::Child if by_runtime => {
                launch::exec_by_runtime(child, &Container::launch_file(id), spec, init_pid)
            }
            Forked::Child => launch::exec(child, &Container::launch_file(id), spec, init),
            Forked::Parent { pid, pidfd } => (pid, pidfd),
        };
        let starting = Some(Starting { status, by_helper: by_runtime, connection, number });
        let exec = Exec { pidfd, starting, ends, terminal: None, connection, number };
        self.execs.insert(pid, exec);
        self.set_role(connection, Role::Exec { pid });
        Ok(())
    }

    pub(super) fn attach(&mut self, connection: u64, number: u64, id: &str) -> Result<(), Refusal> {
        let container = self.running(id)?;
        let tty = container.terminal.is_some();
        let stdin = container.input().map(sys::copy_fd).transpose().map_err(other)?;
        let terminal = container.terminal.as_ref().map(sys::copy_fd).transpose().map_err(other)?;
        let (out_reader, out_writer) = client_pipe().map_err(other)?;
        let err = if tty { None } else { Some(client_pipe().map_err(other)?) };
        let (err_reader, err_writer) = err.unzip();
        container.attached.push(Attached::new(connection, Some(out_writer), err_writer));
        let reply =
            Reply::Session { stdin: stdin.is_some(), stdout: true, stderr: err_reader.is_some(), tty };
        let fds: Vec<_> = [stdin.as_ref(), Some(&out_reader), err_reader.as_ref(), terminal.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect();
        self.set_role(connection, Role::Attach { number, container: id.to_owned() });
        if let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == connection) {
            peer.send(number, &reply, &fds);
        }
        Ok(())
    }

    /// A handle of the sandbox's users for a child.
    fn users(&self) -> Result<Option<OwnedFd>, ShimError> {
        Ok(self.sandbox.users.as_ref().map(sys::copy_fd).transpose()?)
    }
}

/// A socket between the shim and a new process.
fn status_pair() -> Result<(UnixStream, UnixStream), ShimError> {
    let (ours, theirs) = UnixStream::pair().at("make", Path::new("a socket pair"))?;
    ours.set_nonblocking(true).at("make", Path::new("a socket pair"))?;
    Ok((ours, theirs))
}

/// The pipes of a new process: its ends, and the others (input, output, error).
fn pipes(tty: bool, stdin: bool, status: UnixStream) -> Result<(Child, [Option<OwnedFd>; 3]), ShimError> {
    let mut child = Child { status, stdin: None, stdout: None, stderr: None, group: None, users: None };
    let mut ours = [None, None, None];
    if tty {
        return Ok((child, ours));
    }
    if stdin {
        let (reader, writer) = sys::pipe()?;
        (child.stdin, ours[0]) = (Some(reader), Some(writer));
    }
    let (reader, writer) = sys::pipe()?;
    (child.stdout, ours[1]) = (Some(writer), Some(reader));
    let (reader, writer) = sys::pipe()?;
    (child.stderr, ours[2]) = (Some(writer), Some(reader));
    Ok((child, ours))
}

/// A pipe to a client, written without waiting.
fn client_pipe() -> sys::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = sys::pipe()?;
    // Without the privilege for large pipes it is a small one.
    let _ = sys::set_pipe_size(&writer, CLIENT_PIPE).or_else(|_| sys::set_pipe_size(&writer, PIPE));
    sys::set_nonblocking(&writer)?;
    Ok((reader, writer))
}

fn device_rules(start: &Start) -> Vec<DeviceRule> {
    let mut rules = sys::cgroup::default_rules();
    for (kind, major, minor, permissions) in &start.devices {
        rules.push(DeviceRule {
            kind: *kind,
            major: Some(*major),
            minor: Some(*minor),
            read: permissions.contains('r'),
            write: permissions.contains('w'),
            mknod: permissions.contains('m'),
        });
    }
    rules
}
