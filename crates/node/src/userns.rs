//! Which of the host's users and groups the pods have that want users of their own (kubernetes/kubernetes,
//! `pkg/kubelet/userns/userns_manager.go`): 65536 each, from 65536 on, noted in the pod's folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use runtime::UserRange;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// How many numbers each pod has.
const COUNT: u32 = 65_536;
/// The note's name in the pod's folder.
const FILE: &str = "userns";

/// What the pods of a node have, by UID.
pub(crate) struct UserNamespaces {
    pods: PathBuf,
    taken: Mutex<BTreeMap<String, u32>>,
}

/// The note.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Whether a pod wants users of its own.
pub(crate) fn wanted(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_users) == Some(false)
}

impl UserNamespaces {
    /// Reads what is noted below `pods`, where each pod has a folder.
    pub(crate) fn open(pods: PathBuf) -> Self {
        let mut taken = BTreeMap::new();
        for entry in fs::read_dir(&pods).into_iter().flatten().flatten() {
            if let (Some(uid), Ok(Some(first))) = (entry.file_name().to_str(), read(&entry.path())) {
                taken.insert(uid.to_owned(), first);
            }
        }
        Self { pods, taken: Mutex::new(taken) }
    }

    /// What a pod has, chosen and noted if it has none yet.
    ///
    /// # Errors
    /// When the note cannot be read or written, or nothing is left.
    pub(crate) fn of(&self, uid: &str) -> Result<UserRange, NodeError> {
        let folder = self.pods.join(uid);
        let mut taken = self.taken.lock();
        let first = match read(&folder)? {
            Some(first) => first,
            None => {
                let free = (1..u32::MAX / COUNT).map(|n| n * COUNT).find(|f| !taken.values().any(|t| t == f));
                let first = free.ok_or_else(|| {
                    let why =
                        "create user namespace: could not find an empty slot to allocate a user namespace";
                    NodeError::Sandbox(why.to_owned())
                })?;
                write(&folder, first)?;
                first
            }
        };
        taken.insert(uid.to_owned(), first);
        Ok(UserRange { first, count: COUNT })
    }

    /// A pod that is gone needs none.
    pub(crate) fn release(&self, uid: &str) {
        self.taken.lock().remove(uid);
    }
}

fn fault<'a>(attempt: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> NodeError + 'a {
    move |source| NodeError::File { attempt, path: path.display().to_string(), source }
}

/// The first of the numbers noted in a folder, if there is a note.
fn read(folder: &Path) -> Result<Option<u32>, NodeError> {
    let path = folder.join(FILE);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fault("read", &path))?,
    };
    let noted = serde_json::from_slice::<Mappings>(&text).ok();
    let only = noted.and_then(|noted| noted.uid_mappings.into_iter().next());
    match only {
        Some(Mapping { host_id, container_id: 0, length: COUNT })
            if host_id >= COUNT && host_id % COUNT == 0 =>
        {
            Ok(Some(host_id))
        }
        _ => Err(NodeError::Sandbox(format!("invalid user namespace mappings file: {}", path.display()))),
    }
}

/// The note is on disk before anybody uses the numbers: another pod must never get them after a power cut.
fn write(folder: &Path, first: u32) -> Result<(), NodeError> {
    let mapping = vec![Mapping { host_id: first, container_id: 0, length: COUNT }];
    let noted = Mappings { uid_mappings: mapping.clone(), gid_mappings: mapping };
    let text = serde_json::to_vec(&noted).map_err(kube::Error::SerdeError)?;
    let (path, new) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
    fs::create_dir_all(folder).map_err(fault("make directory", folder))?;
    let written = || {
        fs::write(&new, text)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &path)?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(fault("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_remembered_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let open = || UserNamespaces::open(folder.path().to_owned());
        let first = |all: &UserNamespaces, uid: &str| all.of(uid).unwrap().first;
        let all = open();
        assert_eq!((first(&all, "a"), first(&all, "b"), first(&all, "a")), (65_536, 131_072, 65_536));
        // Another agent.
        let all = open();
        assert_eq!((first(&all, "c"), first(&all, "b")), (196_608, 131_072));
        all.release("a");
        fs::remove_dir_all(folder.path().join("a")).unwrap();
        assert_eq!(first(&all, "d"), 65_536);
        fs::write(folder.path().join("b").join(FILE), "{}").unwrap();
        assert!(all.of("b").is_err());
    }
}
