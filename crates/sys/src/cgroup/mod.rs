//! Control groups: one view on the v1 hierarchies and on the v2 tree.
//!
//! A machine with any v1 resource controller is treated as v1 (also the "hybrid" kind, whose v2 tree has no
//! controllers). Files are reached below the mount points found at the start, so tests use a directory of files.

mod devices;
mod hierarchy;
mod limits;
mod pressure;
#[cfg(test)]
mod tests;
mod usage;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use devices::{DeviceRule, default_rules};
pub use hierarchy::{Hierarchies, Hierarchy};
pub use limits::Limits;
pub use pressure::{Pressure, Pressures, Stall};
pub use usage::{Details, Usage};

use crate::error::{Attempt, Result};
use crate::process::kill;

/// One cgroup, in all hierarchies that count.
#[derive(Clone, Debug)]
pub struct Group {
    all: Arc<Hierarchies>,
    path: String,
}

impl Hierarchies {
    /// The cgroup at `path` below the roots; it need not exist.
    pub fn group(self: &Arc<Self>, path: &str) -> Group {
        let clean: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
        Group { all: self.clone(), path: clean.join("/") }
    }

    /// The cgroup that a process is in (v2 only).
    pub fn group_of(self: &Arc<Self>, pid: u32) -> Option<Group> {
        let hierarchy = self.resource().first().filter(|_| self.is_v2())?;
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(self.group(hierarchy.path_in(&text)?))
    }
}

impl Group {
    /// Its path below the roots.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The cgroup `name` in this one.
    pub fn child(&self, name: &str) -> Self {
        self.all.group(&format!("{}/{name}", self.path))
    }

    /// Whether it is there in all hierarchies that limit CPU, memory or processes.
    pub fn exists(&self) -> bool {
        let limits = |h: &&Hierarchy| self.all.is_v2() || ["cpu", "memory", "pids"].iter().any(|c| h.has(c));
        self.all.resource().iter().filter(limits).all(|hierarchy| self.dir(hierarchy).is_dir())
    }

    /// Makes it and its parents where absent.
    pub fn create(&self) -> Result<()> {
        for hierarchy in self.all.resource() {
            self.create_in(hierarchy)?;
        }
        Ok(())
    }

    /// Makes it also where there is nothing to limit, but where a service manager may look for processes to end.
    pub fn create_everywhere(&self) -> Result<()> {
        self.create()?;
        for hierarchy in self.all.tracking() {
            self.create_in(hierarchy)?;
        }
        Ok(())
    }

    fn create_in(&self, hierarchy: &Hierarchy) -> Result<()> {
        let leaf = hierarchy.root.join(&self.path);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => hierarchy.prepare(&leaf),
            Ok(()) => {
                // Whoever made the parent may not have come to opening it, or been killed before.
                leaf.parent().map_or(Ok(()), |parent| hierarchy.open_to_children(parent))?;
                hierarchy.prepare(&leaf)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut at = hierarchy.root.clone();
                hierarchy.open_to_children(&at)?;
                let parts: Vec<&str> = self.path.split('/').collect();
                for (depth, part) in parts.iter().enumerate() {
                    at.push(part);
                    match fs::create_dir(&at) {
                        Ok(()) => hierarchy.prepare(&at)?,
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(error).attempt("make cgroup", || at.display().to_string()),
                    }
                    if depth + 1 < parts.len() {
                        hierarchy.open_to_children(&at)?;
                    }
                }
                Ok(())
            }
            Err(error) => Err(error).attempt("make cgroup", || leaf.display().to_string()),
        }
    }

    /// Lets cgroups in this one have limits of their own (v2 only; on v1 always so).
    pub fn open_to_children(&self) -> Result<()> {
        self.all.resource().iter().try_for_each(|hierarchy| hierarchy.open_to_children(&self.dir(hierarchy)))
    }

    /// Moves this process, which must have one thread, into the cgroup.
    ///
    /// On v1 it writes `0` to `tasks`: moving oneself as a thread spares the kernel's lock on all processes' forks,
    /// which `cgroup.procs` waits for (measured: 0.9 instead of 15 ms in eight hierarchies).
    pub fn join_self(&self) -> Result<()> {
        for hierarchy in self.all.resource() {
            self.write(hierarchy, if self.all.is_v2() { "cgroup.procs" } else { "tasks" }, "0")?;
        }
        Ok(())
    }

    /// Moves this process, which must have one thread, also where there is nothing to limit, unless it is in the
    /// root there: no service manager looks for processes to end in the root, and moving costs 10 ms on v2.
    pub fn join_self_everywhere(&self) -> Result<()> {
        self.join_self()?;
        let path = "/proc/self/cgroup";
        let text = fs::read_to_string(path).attempt("read", || path.into())?;
        for hierarchy in self.all.tracking() {
            if hierarchy.path_in(&text) == Some("/") {
                continue;
            }
            self.write(
                hierarchy,
                if hierarchy.controllers.is_empty() { "cgroup.procs" } else { "tasks" },
                "0",
            )?;
        }
        Ok(())
    }

    /// The directory to give to a fork, so that the child begins in the cgroup (v2 only).
    pub fn open_for_fork(&self) -> Result<Option<OwnedFd>> {
        let [only] = self.all.resource() else { return Ok(None) };
        if !self.all.is_v2() {
            return Ok(None);
        }
        let dir = self.dir(only);
        Ok(Some(File::open(&dir).attempt("open", || dir.display().to_string())?.into()))
    }

    /// The processes in it, without those in cgroups below.
    pub fn pids(&self) -> Vec<u32> {
        self.all.counting().map(|hierarchy| pids_in(&self.dir(hierarchy))).unwrap_or_default()
    }

    /// Sends `SIGKILL` to all processes in it and below until there are none, at most for `limit`. True if none
    /// are left.
    pub fn kill_all(&self, limit: Duration) -> bool {
        let Some(hierarchy) = self.all.counting() else { return true };
        let (dir, begin) = (self.dir(hierarchy), Instant::now());
        loop {
            let mut pids = Vec::new();
            walk(&dir, &mut |dir| pids.extend(pids_in(dir)));
            if pids.is_empty() {
                return true;
            }
            if !self.all.is_v2() || fs::write(dir.join("cgroup.kill"), "1").is_err() {
                for pid in pids {
                    // One that has ended since is what we want.
                    let _ = kill(pid, libc::SIGKILL);
                }
            }
            if begin.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes it and all cgroups below; waits up to `limit` for processes that are about to end.
    pub fn remove(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        for hierarchy in self.all.resource().iter().chain(self.all.tracking()) {
            let dir = self.dir(hierarchy);
            if dir == hierarchy.root {
                continue;
            }
            loop {
                let mut result = Ok(());
                walk(&dir, &mut |dir| {
                    if let Err(error) = fs::remove_dir(dir)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        result = Err(error);
                    }
                });
                match result {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && begin.elapsed() < limit => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    result => break result.attempt("remove cgroup", || dir.display().to_string())?,
                }
            }
        }
        Ok(())
    }

    /// How often the kernel killed a process in it for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let (controller, file) =
            if self.all.is_v2() { ("", "memory.events") } else { ("memory", "memory.oom_control") };
        self.read(controller, file).and_then(|text| usage::field(&text, "oom_kill")).unwrap_or(0)
    }

    fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.root.join(&self.path)
    }

    /// The file of the hierarchy that has `controller` (v2: the only one).
    fn file(&self, controller: &str, file: &str) -> Option<PathBuf> {
        let hierarchy = self.all.resource().iter().find(|h| self.all.is_v2() || h.has(controller))?;
        Some(self.dir(hierarchy).join(file))
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.file(controller, file)?).ok()
    }

    fn write(&self, hierarchy: &Hierarchy, file: &str, text: &str) -> Result<()> {
        write(&self.dir(hierarchy).join(file), text)
    }
}

/// Writes a setting in one go, without creating a file.
fn write(path: &Path, text: &str) -> Result<()> {
    use io::Write;
    let file = File::options().write(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .attempt("set cgroup", || format!("{} to {text}", path.display()))
}

fn pids_in(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process outside this process's PID namespace.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}

/// Calls `visit` for all directories below `dir` and then for `dir` itself.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), visit);
            }
        }
        visit(dir);
    }
}
