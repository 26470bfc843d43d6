//! Programs that are run at certain points of a container's life (opencontainers/runtime-spec, `config.md`,
//! "POSIX-platform Hooks").

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All hooks of a container, each sort in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// On the host, when the container's namespaces and mounts are there; before those of the next sort.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// The same, under the name that replaces it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root becomes the only one: programs of the host, with the container's
    /// files at the bundle's root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// Programs of the container, just before its own one, as the same user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// On the host, when the program runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// On the host, when the container has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// An absolute path.
    pub path: PathBuf,
    /// Its arguments, the first of which is its name; only its path when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its whole environment: `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds after which it is killed and has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

impl Hooks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The list of a sort, by the specification's name for it.
    pub fn of(&mut self, sort: &str) -> Option<&mut Vec<Hook>> {
        Some(match sort {
            "prestart" => &mut self.prestart,
            "createRuntime" => &mut self.create_runtime,
            "createContainer" => &mut self.create_container,
            "startContainer" => &mut self.start_container,
            "poststart" => &mut self.poststart,
            "poststop" => &mut self.poststop,
            _ => return None,
        })
    }

    /// Adds what comes after.
    pub fn extend(&mut self, later: Self) {
        self.prestart.extend(later.prestart);
        self.create_runtime.extend(later.create_runtime);
        self.create_container.extend(later.create_container);
        self.start_container.extend(later.start_container);
        self.poststart.extend(later.poststart);
        self.poststop.extend(later.poststop);
    }
}
