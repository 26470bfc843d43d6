use std::fs;
use std::path::{Path, PathBuf};

use super::{pids_in, write};
use serde::{Deserialize, Serialize};

use crate::error::{Attempt, Error, Result};

/// One mounted cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Its v1 controllers or v1 name (`name=systemd`); empty for v2.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|has| has == controller)
    }

    /// The mount option that shows this hierarchy elsewhere too; empty for v2.
    pub fn option(&self) -> String {
        self.controllers.join(",")
    }

    /// The path of a process's cgroup in this hierarchy; `text` is its `/proc/<pid>/cgroup`.
    pub(super) fn path_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        let option = self.option();
        text.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            (names == option).then_some(path)
        })
    }

    /// Makes a cgroup usable: a v1 cpuset has no CPUs until it is told. Does nothing to one that is usable.
    ///
    /// Its parent may have been made a moment ago, by somebody who has not come to this yet.
    pub(super) fn prepare(&self, dir: &Path) -> Result<()> {
        if self.has("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                self.inherit(dir, file)?;
            }
        }
        Ok(())
    }

    /// What the file says, after it was told what the parent's says if it said nothing.
    fn inherit(&self, dir: &Path, file: &str) -> Result<String> {
        let path = dir.join(file);
        let own = fs::read_to_string(&path).attempt("read", || path.display().to_string())?;
        match dir.parent() {
            Some(parent) if own.trim().is_empty() && dir != self.root => {
                let text = self.inherit(parent, file)?;
                write(&path, &text)?;
                Ok(text)
            }
            _ => Ok(own.trim().to_owned()),
        }
    }

    /// Lets the cgroups in `dir` have limits of their own.
    pub(super) fn open_to_children(&self, dir: &Path) -> Result<()> {
        if !self.controllers.is_empty() {
            return Ok(());
        }
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let missing: Vec<String> = available
            .split_ascii_whitespace()
            .filter(|name| V2_CONTROLLERS.contains(name))
            .filter(|name| !enabled.split_ascii_whitespace().any(|have| have == *name))
            .map(|name| format!("+{name}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let open = || write(&dir.join("cgroup.subtree_control"), &missing.join(" "));
        match open() {
            Err(error) if error.errno() == Some(libc::EBUSY) && dir == self.root => {
                self.leave_root()?;
                open()
            }
            other => other,
        }
    }

    /// Moves all processes out of the root. In a container that is a cgroup like any other, whose children have no
    /// controllers as long as there are processes in itself.
    fn leave_root(&self) -> Result<()> {
        let aside = self.root.join("init");
        match fs::create_dir(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).attempt("make cgroup", || aside.display().to_string());
            }
            _ => {}
        }
        let file = aside.join("cgroup.procs");
        // Those that are there may start others meanwhile.
        for _ in 0..100 {
            let pids = pids_in(&self.root);
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                match write(&file, &pid.to_string()) {
                    // It has ended.
                    Err(error) if error.errno() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

/// Those that limits need.
const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];
/// Those that limits need; others (`net_cls`, `perf_event`, …) are left out, since each costs at every start.
const V1_CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];

/// The cgroup trees of this machine. Can be written down, for processes that start often: to look for them takes the
/// longer, the more is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchies {
    resource: Vec<Hierarchy>,
    tracking: Vec<Hierarchy>,
    v2: bool,
}

impl Hierarchies {
    /// Those that this process sees.
    pub fn detect() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        Self::from_mountinfo(&fs::read_to_string(path).attempt("read", || path.into())?)
    }

    /// Those in a text of the form of `/proc/self/mountinfo`.
    pub fn from_mountinfo(text: &str) -> Result<Self> {
        let (mut v1, mut named, mut unified) = (Vec::<Hierarchy>::new(), Vec::<Hierarchy>::new(), None);
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(root) = before.split(' ').nth(4).map(unescape) else { continue };
            let mut after = after.split(' ');
            let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup2") if unified.is_none() => {
                    unified = Some(Hierarchy { root, controllers: Vec::new() });
                }
                Some("cgroup") => {
                    let with = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
                        options.split(',').filter(|option| wanted(option)).map(str::to_owned).collect()
                    };
                    let controllers = with(&|option| V1_CONTROLLERS.contains(&option));
                    let names = with(&|option| option.starts_with("name="));
                    let known =
                        |seen: &[Hierarchy], new: &[String]| seen.iter().any(|h| h.controllers == new);
                    if !controllers.is_empty() && !known(&v1, &controllers) {
                        v1.push(Hierarchy { root, controllers });
                    } else if !names.is_empty() && !known(&named, &names) {
                        named.push(Hierarchy { root, controllers: names });
                    }
                }
                _ => {}
            }
        }
        match (v1.is_empty(), unified) {
            (false, unified) => {
                named.extend(unified);
                Ok(Self { resource: v1, tracking: named, v2: false })
            }
            (true, Some(unified)) => Ok(Self { resource: vec![unified], tracking: named, v2: true }),
            (true, None) => Err(Error::Invalid {
                what: "list of mounts (no cgroup tree in it)",
                text: "/proc/self/mountinfo".into(),
            }),
        }
    }

    /// Whether limits are set in the v2 tree.
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// Those with limits.
    pub fn resource(&self) -> &[Hierarchy] {
        &self.resource
    }

    /// Those that only group processes.
    pub fn tracking(&self) -> &[Hierarchy] {
        &self.tracking
    }

    /// One in which all our processes are.
    pub(super) fn counting(&self) -> Option<&Hierarchy> {
        let v1 = ["pids", "freezer", "memory"];
        v1.iter().find_map(|name| self.resource.iter().find(|h| h.has(name))).or(self.resource.first())
    }
}

/// `mountinfo` writes blanks and backslashes in octal.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(
        text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"),
    )
}
