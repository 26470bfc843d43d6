//! What ends, and who is told.

use sys::{Forked, Namespaces};

use super::super::ShimError;
use super::super::connection::Role;
use super::super::container::Container;
use super::Server;
use super::hear::is_made_elsewhere;
use crate::launch;
use crate::protocol::{Event, Reply};
use crate::status::Exit;

impl Server {
    /// Learns which processes have ended.
    pub(super) fn reap(&mut self) -> Result<(), ShimError> {
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

    pub(super) fn end_container(&mut self, index: usize, waited: sys::Waited) {
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

    pub(super) fn tell_exec_ended(&mut self, waited: sys::Waited) {
        if let Some(exec) = self.execs.remove(&waited.pid)
            && let Some(peer) = self.connections.iter_mut().find(|peer| peer.id == exec.connection)
        {
            peer.send(exec.number, &Reply::Ended { code: waited.code }, &[]);
        }
    }

    /// Tells every agent what none of them has asked for.
    pub(super) fn tell_agents(&mut self, reply: &Reply) {
        for peer in self.connections.iter_mut().filter(|peer| matches!(peer.role, Role::Agent)) {
            peer.send(0, reply, &[]);
        }
    }

    fn tell_ended(&mut self, id: &str, exit: &Exit) {
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
}
