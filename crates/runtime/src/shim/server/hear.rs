//! What new processes and their helpers say until their program begins.

use std::os::fd::AsFd;

use super::super::ShimError;
use super::super::connection::Role;
use super::super::container::{Heard, Kind, Starting};
use super::Server;
use crate::protocol::{Event, Failure, Reply};

/// Whether a helper is about to make it.
pub(super) fn is_made_elsewhere(starting: Option<&Starting>) -> bool {
    starting.is_some_and(|starting| starting.by_helper)
}

impl Server {
    /// What a new container says.
    pub(super) fn hear_container(&mut self, index: usize) {
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
    pub(super) fn hear_exec(&mut self, mut pid: u32) {
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

    /// Whether helpers may still tell of processes.
    pub(super) fn has_helpers(&self) -> bool {
        self.execs.values().any(|exec| is_made_elsewhere(exec.starting.as_ref()))
            || self.containers.iter().any(|container| is_made_elsewhere(container.starting.as_ref()))
    }

    /// Takes the end of a process that ended before we were told that it had begun.
    fn stranger(&mut self, pid: u32) -> Option<sys::Waited> {
        let place = self.strangers.iter().position(|waited| waited.pid == pid)?;
        Some(self.strangers.remove(place))
    }

    /// Learns from helpers whose process has ended, unless that is known.
    pub(super) fn hear_helpers(&mut self, pid: u32) {
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
}
