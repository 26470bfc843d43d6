//! The shim's loop: requests, output, ends of processes.

mod begin;
mod hear;
mod reap;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use sys::{Poller, SignalFd};

use super::connection::{Connection, Role};
use super::container::{Container, Starting};
use super::sandbox::Entered;
use super::{At, ShimError};
use crate::launch;
use crate::protocol::{self, Failure, OCI_STATE, Reply, Request, SHM, SOCKET};
use crate::status::Exit;

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
    ending: BTreeMap<u32, (String, Exit)>,
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
