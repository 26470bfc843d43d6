//! CDI: what a container needs for a device, as files in well-known folders say it
//! (cncf-tags/container-device-interface, `SPEC.md`, `pkg/cdi/cache.go`).
//!
//! The files are read when a container asks for a device: that is seldom, and they may change at any time.

mod name;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::edits::Edits;

pub(crate) use name::DeviceName;
use spec::{Spec, read};

/// Why CDI devices cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CdiError {
    /// A name that is not `vendor/class=device`.
    #[error("CDI device {name:?}: {why}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody describes it.
    #[error("unresolvable CDI devices {}{}", names.join(", "), because(faults))]
    Unresolvable {
        /// Those that were not found.
        names: Vec<String>,
        /// Files that cannot be used, which might have described them.
        faults: Vec<String>,
    },
    /// Something that cannot be given here.
    #[error("CDI device {device} asks for {what}, which containers do not get here")]
    Beyond {
        /// Whose device.
        device: String,
        /// What it asks for.
        what: &'static str,
    },
}

fn because(faults: &[String]) -> String {
    if faults.is_empty() { String::new() } else { format!(" ({})", faults.join("; ")) }
}

/// The devices that files describe.
#[derive(Clone, Debug)]
pub(crate) struct Cdi {
    /// The folders of the files; a later one wins over an earlier one.
    folders: Vec<PathBuf>,
}

impl Cdi {
    /// Devices described in these folders; one that is not there is an empty one.
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// What has to be done to a container that gets these devices (`vendor/class=device`): for each, what its file says for
    /// all of its devices, once, and what it says for this one.
    ///
    /// # Errors
    /// If one has no proper name, is described nowhere or more than once in one folder, or asks for what there is not.
    pub(crate) fn edits(&self, names: &[String]) -> Result<Edits, CdiError> {
        let mut edits = Edits::default();
        if names.is_empty() {
            return Ok(edits);
        }
        let known = Known::read(&self.folders);
        let mut unknown = Vec::new();
        let mut used = Vec::new();
        for name in names {
            let parsed = DeviceName::parse(name)?;
            let Some(Found::One { spec, device }) = known.devices.get(&parsed) else {
                unknown.push(name.clone());
                continue;
            };
            let spec_of = &known.specs[*spec];
            if !used.contains(spec) {
                used.push(*spec);
                edits.extend(spec_of.edits.resolve(name)?);
            }
            edits.extend(spec_of.devices[*device].edits.resolve(name)?);
        }
        if unknown.is_empty() {
            Ok(edits)
        } else {
            Err(CdiError::Unresolvable { names: unknown, faults: known.faults })
        }
    }
}

/// All that is described.
struct Known {
    specs: Vec<Spec>,
    devices: BTreeMap<DeviceName, Found>,
    faults: Vec<String>,
}

enum Found {
    One {
        spec: usize,
        device: usize,
    },
    /// Two files of one folder describe it: neither is right.
    Conflict,
}

impl Known {
    fn read(folders: &[PathBuf]) -> Self {
        let mut known = Self { specs: Vec::new(), devices: BTreeMap::new(), faults: Vec::new() };
        for folder in folders {
            let mut own = BTreeMap::new();
            for path in files(folder) {
                let spec = match read(&path) {
                    Ok(spec) => spec,
                    Err(why) => {
                        known.faults.push(format!("{}: {why}", path.display()));
                        continue;
                    }
                };
                let number = known.specs.len();
                for (place, device) in spec.devices.iter().enumerate() {
                    let name = spec.name_of(device);
                    let here = Found::One { spec: number, device: place };
                    if own.insert(name.clone(), here).is_some() {
                        known.faults.push(format!("{}: conflicting device {name}", path.display()));
                        own.insert(name, Found::Conflict);
                    }
                }
                known.specs.push(spec);
            }
            known.devices.extend(own);
        }
        known
    }
}

/// The files of a folder that may describe devices, by name.
fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let suits = |path: &PathBuf| path.extension().is_some_and(|e| e == "json" || e == "yaml");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(suits).collect();
    paths.sort();
    paths
}
