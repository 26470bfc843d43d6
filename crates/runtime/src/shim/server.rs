//! The shim's loop: requests, output, ends of processes.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use sys::cgroup::DeviceRule;
use sys::{Forked, Namespaces, Poller, SignalFd};

use super::connection::{Connection, Role};
use super::container::{Attached, Container, Heard, Kind, Starting};
use super::log::Log;
use super::sandbox::Entered;
use super::{At, ShimError};
use crate::launch::{self, Child};
use crate::protocol::{self, Event, Failure, OCI_STATE, Reply, Request, SHM, SOCKET, Start};
use crate::spec::{ExecSpec, PidMode};

/// A container's output may wait in pipes of this size.
const PIPE: i32 = 64 * 1024;
/// A client's output may wait in pipes of this size before it is cut off.
const CLIENT_PIPE: i32 = 1 << 20;

/// A process that runs in a container besides the first.
struct Exec {
    pidfd: OwnedFd,
    starting: Option<Starting>,
    /// The client's ends of input and output, until the program begins.
    ends: [Option<OwnedFd>; 3],
    terminal: Option<OwnedFd>,
    connection: u64,
    number: u64,
}

/// Whether a helper is about to make it.
fn is_made_elsewhere(starting: Option<&Starting>) -> bool {
    starting.is_some_and(|starting| starting.by_helper)
}

/// A failure with its kind.
type Refusal = (Failure, String);

pub(super) struct Server {
    sandbox: Entered,
    signals: SignalFd,
    listener: UnixListener,
    connections: Vec<Connection>,
    containers: Vec<Container>,
    execs: BTreeMap<u32, Exec>,
    /// Ends of processes that nobody has told us of yet.
    strangers: Vec<sys::Waited>,
    /// Containers that have ended but for the hooks of this process.
    ending: BTreeMap<u32, (String, crate::status::Exit)>,
    next_connection: u64,
    /// Whom to tell that all is over.
    shutdown: Option<(u64, u64)>,
}

/// What a place in the poll list is.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Connection(usize),
    ContainerStatus(usize),
    ExecStatus(u32),
    Output(usize, usize),
}

impl Server {
    pub(super) fn new(sandbox: Entered) -> Result<Self, ShimError> {
        let signals = SignalFd::children_and_term()?;
        let path = Path::new(SOCKET);
        let listener = UnixListener::bind(path).at("listen on", path)?;
        listener.set_nonblocking(true).at("listen on", path)?;
        Ok(Self {
            sandbox,
            signals,
            listener,
            connections: Vec::new(),
            containers: Vec::new(),
            execs: BTreeMap::new(),
            strangers: Vec::new(),
            ending: BTreeMap::new(),
            next_connection: 1,
            shutdown: None,
        })
    }

    /// Serves until it is told to end.
    pub(super) fn run(mut self) -> Result<(), ShimError> {
        let (mut poller, mut sources) = (Poller::default(), Vec::new());
        sys::heap_trim();
        loop {
            self.gather(&mut poller, &mut sources);
            poller.wait(None)?;
            let mut busy = false;
            for (place, source) in sources.iter().enumerate().rev() {
                // From the back, so that outputs that end do not move those still to be looked at.
                match *source {
                    Source::Connection(index) => {
                        if poller.writable(place) {
                            self.connections[index].flush();
                        }
                        if poller.readable(place) {
                            self.connections[index].receive();
                            busy = true;
                        }
                    }
                    Source::Output(index, output) if poller.readable(place) => {
                        self.containers[index].pump(output, 8);
                    }
                    Source::ContainerStatus(index) if poller.readable(place) => self.hear_container(index),
                    Source::ExecStatus(pid) if poller.readable(place) => self.hear_exec(pid),
                    _ => {}
                }
            }
            if poller.readable(0) {
                self.reap()?;
                busy = true;
            }
            if poller.readable(1) {
                self.accept();
            }
            self.serve();
            self.clean_up();
            if self.is_over() {
                return Ok(());
            }
            if busy {
                sys::heap_trim();
            }
        }
    }

    fn gather(&self, poller: &mut Poller, sources: &mut Vec<Source>) {
        poller.clear();
        sources.clear();
        let mut add = |fd: std::os::fd::BorrowedFd<'_>, write: bool, source: Source| {
            poller.add(fd, true, write);
            sources.push(source);
        };
        add(self.signals.as_fd(), false, Source::Signals);
        add(self.listener.as_fd(), false, Source::Listener);
        for (index, connection) in self.connections.iter().enumerate() {
            add(connection.as_fd(), connection.wants_write(), Source::Connection(index));
        }
        for (index, container) in self.containers.iter().enumerate() {
            if let Some(starting) = &container.starting {
                add(starting.status.as_fd(), false, Source::ContainerStatus(index));
            }
            for (output_index, output) in container.outputs.iter().enumerate() {
                add(output.fd.as_fd(), false, Source::Output(index, output_index));
            }
        }
        for (pid, exec) in &self.execs {
            if let Some(starting) = &exec.starting {
                add(starting.status.as_fd(), false, Source::ExecStatus(*pid));
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(self.next_connection, stream) {
                self.next_connection += 1;
                self.connections.push(connection);
            }
        }
    }

    /// Answers all whole requests.
    fn serve(&mut self) {
        for index in 0..self.connections.len() {
            while let Some(request) = self.connections[index].next() {
                let (id, number) = (self.connections[index].id, request.n);
                match self.answer(id, number, request.m) {
                    Ok(Some(reply)) => self.connections[index].send(number, &reply, &[]),
                    Ok(None) => {}
                    Err((kind, message)) => {
                        self.connections[index].send(number, &Reply::Failed { kind, message }, &[]);
                    }
                }
            }
        }
    }

    /// The answer to a request; `None` if it comes later or has been sent.
    fn answer(&mut self, connection: u64, number: u64, request: Request) -> Result<Option<Reply>, Refusal> {
        match request {
            Request::Hello { version: _ } => {
                self.set_role(connection, Role::Agent);
                let containers = self.containers.iter().map(Container::known).collect();
                return Ok(Some(Reply::Hello { version: protocol::VERSION, pid: sys::pid(), containers }));
            }
            Request::Start(start) => {
                self.start(connection, number, *start)?;
                return Ok(None);
            }
            Request::Exec { id, spec } => {
                self.exec(connection, number, &id, &spec)?;
                return Ok(None);
            }
            Request::Attach { id } => {
                self.attach(connection, number, &id)?;
                return Ok(None);
            }
            Request::Kill => {
                if let Some(Role::Exec { pid }) = self.role(connection)
                    && let Some(exec) = self.execs.get(pid)
                {
                    // Not yet reaped, so the number is still its own; and that of its session.
                    let _ = sys::kill_group(*pid, KILL);
                    sys::kill_pidfd(exec.pidfd.as_fd(), KILL).map_err(other)?;
                }
            }
            Request::CloseInput => self.close_input(connection),
            Request::Resize { width, height } => match self.role(connection) {
                Some(Role::Attach { container, .. }) => {
                    let id = container.clone();
                    self.running(&id)?.resize(width, height).map_err(other)?;
                }
                Some(Role::Exec { pid }) => {
                    if let Some(terminal) = self.execs.get(pid).and_then(|exec| exec.terminal.as_ref()) {
                        sys::set_size(terminal, width, height).map_err(other)?;
                    }
                }
                _ => {}
            },
            Request::Signal { id, signal, all } => {
                let container = self.running(&id)?;
                // A runtime may keep the program elsewhere than in the process that we see.
                let told = container.oci_runtime.as_deref().filter(|_| !all);
                if told.is_some_and(|runtime| launch::signal(runtime, Path::new(OCI_STATE), &id, signal)) {
                    return Ok(Some(Reply::Done));
                }
                sys::kill_pidfd(container.pidfd.as_fd(), signal).map_err(other)?;
                if all {
                    container.group.kill_all(std::time::Duration::ZERO);
                }
            }
            Request::ReopenLog { id } => {
                let container = self.running(&id)?;
                if let Some(log) = &mut container.log {
                    log.reopen().map_err(other)?;
                }
            }
            Request::Update { id, resources } => {
                self.running(&id)?.group.limit(&resources.limits()).map_err(other)?;
            }
            Request::Forget { id } => {
                if self.containers.iter().any(|c| c.id == id && c.exit.is_none()) {
                    return Err((Failure::Other, format!("container {id:?} still runs")));
                }
                self.containers.retain(|container| container.id != id);
            }
            Request::Shutdown => {
                for container in self.containers.iter().filter(|container| container.exit.is_none()) {
                    // One that has ended since is what we want.
                    let _ = sys::kill_pidfd(container.pidfd.as_fd(), KILL);
                }
                self.shutdown = Some((connection, number));
                return Ok(None);
            }
        }
        Ok(Some(Reply::Done))
    }

    fn start(&mut self, connection: u64, number: u64, start: Start) -> Result<(), Refusal> {
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
        group: &sys::cgroup::Group,
    ) -> Result<(), ShimError> {
        group.create()?;
        group.limit(&start.resources.limits())?;
        group.end_together()?;
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
        join: Option<std::os::fd::BorrowedFd<'_>>,
        new: Namespaces,
        group: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> Result<Forked, ShimError> {
        let Some(join) = join else { return Ok(sys::fork(new, group)?) };
        sys::join(join, Namespaces::PID)?;
        let forked = sys::fork(new, group);
        if !matches!(forked, Ok(Forked::Child)) {
            sys::join(&self.sandbox.own_pids, Namespaces::PID)?;
        }
        Ok(forked?)
    }

    fn exec(&mut self, connection: u64, number: u64, id: &str, spec: &ExecSpec) -> Result<(), Refusal> {
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

    fn attach(&mut self, connection: u64, number: u64, id: &str) -> Result<(), Refusal> {
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

    /// What a new container says.
    fn hear_container(&mut self, index: usize) {
        let Some(container) = self.containers.get_mut(index) else { return };
        while let Some(starting) = &container.starting {
            match starting.hear() {
                Heard::Nothing => return,
                Heard::Terminal(terminal) => {
                    let watched = sys::copy_fd(&terminal).map_err(ShimError::from);
                    // Without it there is no output; the container itself is not harmed.
                    let _ = watched.and_then(|fd| container.watch(Kind::Out, fd));
                    container.terminal = Some(terminal);
                }
                Heard::Process(pid) => {
                    // The helper ends soon, and is nobody's business from here on.
                    if let Ok(Some(pidfd)) = sys::pidfd_open(pid) {
                        (container.pid, container.pidfd) = (pid, pidfd);
                    }
                }
                Heard::Begun => {
                    let running = container.begun();
                    let Some(starting) = container.starting.take() else { return };
                    let direct = container.direct.take();
                    let asked = self.connections.iter().any(|peer| peer.id == starting.connection);
                    if !asked {
                        // The agent that asked is gone; one that has come since waits for it, too.
                        let id = container.id.clone();
                        let reply = Reply::Started { id, pid: running.pid, at: running.at };
                        self.tell_agents(&reply);
                    } else if let Some(peer) =
                        self.connections.iter_mut().find(|peer| peer.id == starting.connection)
                    {
                        if let Some((stdout, stderr)) = direct {
                            let reply =
                                Reply::Session { stdin: false, stdout: true, stderr: true, tty: false };
                            peer.send(starting.number, &reply, &[stdout.as_fd(), stderr.as_fd()]);
                            let container = container.id.clone();
                            peer.role = Role::Attach { number: starting.number, container };
                        } else {
                            let id = container.id.clone();
                            let reply = Reply::Started { id, pid: running.pid, at: running.at };
                            peer.send(starting.number, &reply, &[]);
                        }
                    }
                    if let Some(waited) = self.stranger(running.pid) {
                        self.end_container(index, waited);
                    }
                    return;
                }
                Heard::Failed(message) => {
                    let Some(starting) = container.starting.take() else { return };
                    // It ends by itself; nothing of it is kept.
                    let _ = sys::wait_for(container.pid);
                    container.forget();
                    let _ = container.group.remove(std::time::Duration::from_millis(100));
                    let id = self.containers.remove(index).id;
                    if self.connections.iter().any(|peer| peer.id == starting.connection) {
                        self.fail(&starting, message);
                    } else {
                        self.tell_agents(&Reply::Event(Event::NotStarted { id, message }));
                    }
                    return;
                }
            }
        }
    }

    /// What a new process in a container says.
    fn hear_exec(&mut self, mut pid: u32) {
        while let Some((exec, starting)) =
            self.execs.get_mut(&pid).and_then(|exec| exec.starting.take().map(|starting| (exec, starting)))
        {
            let heard = starting.hear();
            exec.starting = Some(starting);
            match heard {
                Heard::Nothing => return,
                Heard::Process(other) => {
                    // The helper ends soon, and is nobody's business from here on.
                    let Some(mut exec) = self.execs.remove(&pid) else { return };
                    if let Ok(Some(pidfd)) = sys::pidfd_open(other) {
                        exec.pidfd = pidfd;
                    }
                    let connection = exec.connection;
                    self.execs.insert(other, exec);
                    self.set_role(connection, Role::Exec { pid: other });
                    pid = other;
                }
                Heard::Terminal(terminal) => {
                    exec.ends = [sys::copy_fd(&terminal).ok(), sys::copy_fd(&terminal).ok(), None];
                    exec.terminal = Some(terminal);
                }
                Heard::Begun => {
                    exec.starting = None;
                    let tty = exec.terminal.is_some();
                    let [stdin, stdout, stderr] = std::mem::take(&mut exec.ends);
                    let reply = Reply::Session {
                        stdin: stdin.is_some(),
                        stdout: stdout.is_some(),
                        stderr: stderr.is_some(),
                        tty,
                    };
                    let fds: Vec<_> = [&stdin, &stdout, &stderr, &exec.terminal]
                        .into_iter()
                        .flatten()
                        .map(AsFd::as_fd)
                        .collect();
                    if let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == exec.connection) {
                        peer.send(exec.number, &reply, &fds);
                    }
                    if let Some(waited) = self.stranger(pid) {
                        self.tell_exec_ended(waited);
                    }
                    return;
                }
                Heard::Failed(message) => {
                    let _ = sys::wait_for(pid);
                    if let Some(starting) = self.execs.remove(&pid).and_then(|exec| exec.starting) {
                        self.fail(&starting, message);
                    }
                    return;
                }
            }
        }
    }

    fn fail(&mut self, starting: &Starting, message: String) {
        if let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == starting.connection) {
            // The agent goes on hearing of the others.
            if !matches!(peer.role, Role::Agent) {
                peer.role = Role::Plain;
            }
            peer.send(starting.number, &Reply::Failed { kind: Failure::Start, message }, &[]);
        }
    }

    /// Learns which processes have ended.
    fn reap(&mut self) -> Result<(), ShimError> {
        while self.signals.next()?.is_some() {}
        while let Some(waited) = sys::wait_any()? {
            self.hear_helpers(waited.pid);
            if let Some((id, exit)) = self.ending.remove(&waited.pid) {
                self.tell_ended(&id, &exit);
            } else if let Some(index) =
                self.containers.iter().position(|c| c.pid == waited.pid && c.exit.is_none())
            {
                // It may have begun and ended at once.
                self.hear_container(index);
                let found = self.containers.get(index).filter(|c| c.pid == waited.pid);
                match found.map(|container| is_made_elsewhere(container.starting.as_ref())) {
                    None => {}
                    Some(false) => self.end_container(index, waited),
                    // Its helper has not said yet that it has begun.
                    Some(true) => self.strangers.push(waited),
                }
            } else if self.execs.contains_key(&waited.pid) {
                self.hear_exec(waited.pid);
                let found = self.execs.get(&waited.pid);
                match found.map(|exec| is_made_elsewhere(exec.starting.as_ref())) {
                    None => {}
                    Some(false) => self.tell_exec_ended(waited),
                    Some(true) => self.strangers.push(waited),
                }
            } else if self.has_helpers() {
                self.strangers.push(waited);
            }
        }
        if !self.has_helpers() {
            self.strangers.clear();
        }
        Ok(())
    }

    fn end_container(&mut self, index: usize, waited: sys::Waited) {
        let Some(container) = self.containers.get_mut(index) else { return };
        let exit = container.ended(waited);
        let (id, group) = (container.id.clone(), container.group.clone());
        container.forget();
        let after = container.hooks.then_some(container.pid);
        match after.and_then(|pid| self.after_end(&id, pid)) {
            Some(hooks) => drop(self.ending.insert(hooks, (id, exit))),
            None => self.tell_ended(&id, &exit),
        }
        // Memory and inodes of the kernel; the agent does it again when the container is removed.
        let _ = group.remove(std::time::Duration::from_millis(20));
    }

    /// Has the hooks run that come after a container's end, by a process that is given.
    fn after_end(&self, id: &str, pid: u32) -> Option<u32> {
        match sys::fork(Namespaces::none(), None).ok()? {
            Forked::Child => launch::hooks::after_end(&Container::launch_file(id), pid, &self.sandbox.host),
            Forked::Parent { pid, .. } => Some(pid),
        }
    }

    /// Whether helpers may still tell of processes.
    fn has_helpers(&self) -> bool {
        self.execs.values().any(|exec| is_made_elsewhere(exec.starting.as_ref()))
            || self.containers.iter().any(|container| is_made_elsewhere(container.starting.as_ref()))
    }

    /// Takes the end of a process that ended before we were told that it had begun.
    fn stranger(&mut self, pid: u32) -> Option<sys::Waited> {
        let place = self.strangers.iter().position(|waited| waited.pid == pid)?;
        Some(self.strangers.remove(place))
    }

    /// Learns from helpers whose process has ended, unless that is known.
    fn hear_helpers(&mut self, pid: u32) {
        if self.execs.contains_key(&pid) || self.containers.iter().any(|c| c.pid == pid) {
            return;
        }
        for index in (0..self.containers.len()).rev() {
            if is_made_elsewhere(self.containers[index].starting.as_ref()) {
                self.hear_container(index);
            }
        }
        let made = self.execs.iter().filter(|(_, exec)| is_made_elsewhere(exec.starting.as_ref()));
        let made: Vec<u32> = made.map(|(pid, _)| *pid).collect();
        made.into_iter().for_each(|pid| self.hear_exec(pid));
    }

    fn tell_exec_ended(&mut self, waited: sys::Waited) {
        if let Some(exec) = self.execs.remove(&waited.pid)
            && let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == exec.connection)
        {
            peer.send(exec.number, &Reply::Ended { code: waited.code }, &[]);
        }
    }

    /// A handle of the sandbox's users for a child.
    fn users(&self) -> Result<Option<OwnedFd>, ShimError> {
        Ok(self.sandbox.users.as_ref().map(sys::copy_fd).transpose()?)
    }

    /// Tells every agent what none of them has asked for.
    fn tell_agents(&mut self, reply: &Reply) {
        for peer in self.connections.iter_mut().filter(|peer| matches!(peer.role, Role::Agent)) {
            peer.send(0, reply, &[]);
        }
    }

    fn tell_ended(&mut self, id: &str, exit: &crate::status::Exit) {
        for peer in &mut self.connections {
            match &peer.role {
                Role::Agent => {
                    let event = Event::Exited { id: id.to_owned(), exit: exit.clone() };
                    peer.send(0, &Reply::Event(event), &[]);
                }
                Role::Attach { number, container } if container == id => {
                    let number = *number;
                    peer.send(number, &Reply::Ended { code: exit.code }, &[]);
                }
                _ => {}
            }
        }
    }

    /// Forgets peers that have left.
    fn clean_up(&mut self) {
        let gone: Vec<u64> =
            self.connections.iter().filter(|peer| peer.is_broken()).map(|peer| peer.id).collect();
        for id in gone {
            self.close_input(id);
            for container in &mut self.containers {
                container.attached.retain(|client| client.connection != id);
            }
            self.connections.retain(|peer| peer.id != id);
        }
    }

    /// An attached client sends no more input.
    fn close_input(&mut self, connection: u64) {
        if let Some(Role::Attach { container, .. }) = self.role(connection) {
            let id = container.clone();
            if let Some(container) = self.containers.iter_mut().find(|c| c.id == id && c.stdin_once) {
                container.stdin = None;
            }
        }
    }

    /// Whether the shim was told to end and everything has.
    fn is_over(&mut self) -> bool {
        let Some((connection, number)) = self.shutdown else { return false };
        if self.containers.iter().any(|container| container.exit.is_none()) || !self.ending.is_empty() {
            return false;
        }
        // The agent does it again; a second time is no error.
        let _ = sys::detach(Path::new(SHM));
        if let Some(netns) = &self.sandbox.netns {
            let _ = sys::detach(netns);
            let _ = fs::remove_file(netns);
        }
        if let Some((pid, pidfd)) = &self.sandbox.init {
            let _ = sys::kill_pidfd(pidfd.as_fd(), KILL);
            let _ = sys::wait_for(*pid);
        }
        if let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == connection) {
            peer.send(number, &Reply::Done, &[]);
        }
        true
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        match self.containers.iter_mut().find(|container| container.id == id) {
            None => Err((Failure::Unknown, format!("no container {id:?}"))),
            Some(container) if container.running.is_none() => {
                Err((Failure::NotRunning, format!("container {id:?} does not run")))
            }
            Some(container) => Ok(container),
        }
    }

    fn role(&self, connection: u64) -> Option<&Role> {
        self.connections.iter().find(|peer| peer.id == connection).map(|peer| &peer.role)
    }

    fn set_role(&mut self, connection: u64, role: Role) {
        if let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == connection) {
            peer.role = role;
        }
    }
}

const KILL: i32 = 9;

fn other(error: impl std::fmt::Display) -> Refusal {
    (Failure::Other, error.to_string())
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
