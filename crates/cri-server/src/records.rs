//! What is known of sandboxes and containers beside what the engine knows: in memory, and in one file for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::{ContainerConfig, LinuxContainerUser, PodSandboxConfig};
use parking_lot::Mutex;
use runtime::ContainerSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::CriError;

/// A sandbox as it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    #[serde(with = "as_base64")]
    pub(crate) config: PodSandboxConfig,
    pub(crate) handler: String,
}

/// A container as it was asked for, and how far it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    #[serde(with = "as_base64")]
    pub(crate) config: ContainerConfig,
    /// What the engine is told when it is started.
    pub(crate) spec: ContainerSpec,
    /// `sha256:…` of the image's configuration.
    pub(crate) image_id: String,
    /// The repository and digest that it was pulled by, else its id.
    pub(crate) image_ref: String,
    /// The name that people know it by.
    pub(crate) image_name: String,
    /// Who holds the images that it needs.
    pub(crate) holds: Vec<String>,
    /// Its start was asked for.
    pub(crate) begun: bool,
    /// Why it did not start, and when that was.
    pub(crate) failure: Option<(i64, String)>,
    /// Who its first process was in the beginning.
    pub(crate) user: Option<User>,
}

/// See [`LinuxContainerUser`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) groups: Vec<i64>,
}

impl From<User> for LinuxContainerUser {
    fn from(user: User) -> Self {
        Self { uid: user.uid, gid: user.gid, supplemental_groups: user.groups }
    }
}

/// All of them.
pub(crate) struct Records {
    folder: PathBuf,
    sandboxes: Mutex<BTreeMap<String, Arc<SandboxRecord>>>,
    containers: Mutex<BTreeMap<String, Arc<ContainerRecord>>>,
}

const FILE: &str = "record.json";

impl Records {
    /// Reads what lies in the folder. What never came to be is removed.
    pub(crate) fn open(folder: &Path) -> Result<Self, CriError> {
        let sandboxes = load(&folder.join("sandboxes"), |record: &SandboxRecord| record.id.clone())?;
        let containers = load(&folder.join("containers"), |record: &ContainerRecord| record.id.clone())?;
        Ok(Self {
            folder: folder.to_owned(),
            sandboxes: Mutex::new(sandboxes),
            containers: Mutex::new(containers),
        })
    }

    /// Where a sandbox's files lie.
    pub(crate) fn sandbox_folder(&self, id: &str) -> PathBuf {
        self.folder.join("sandboxes").join(id)
    }

    fn container_folder(&self, id: &str) -> PathBuf {
        self.folder.join("containers").join(id)
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<SandboxRecord>> {
        self.sandboxes.lock().values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<ContainerRecord>> {
        self.containers.lock().values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<ContainerRecord>> {
        self.containers.lock().values().filter(|c| c.sandbox == sandbox).cloned().collect()
    }

    /// The sandbox of this id, or of the one that begins like it.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<SandboxRecord>, CriError> {
        find(&self.sandboxes.lock(), id)?.ok_or_else(|| CriError::NoSandbox(id.to_owned()))
    }

    /// The container of this id, or of the one that begins like it.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<ContainerRecord>, CriError> {
        find(&self.containers.lock(), id)?.ok_or_else(|| CriError::NoContainer(id.to_owned()))
    }

    pub(crate) fn put_sandbox(&self, record: SandboxRecord) -> Result<(), CriError> {
        write(&self.sandbox_folder(&record.id), &record)?;
        self.sandboxes.lock().insert(record.id.clone(), Arc::new(record));
        Ok(())
    }

    /// Adds a container unless its name and attempt are taken in its sandbox.
    pub(crate) fn add_container(&self, record: ContainerRecord) -> Result<(), CriError> {
        let name = |record: &ContainerRecord| record.config.metadata.clone().unwrap_or_default();
        let mut all = self.containers.lock();
        if let Some(other) = all.values().find(|c| c.sandbox == record.sandbox && name(c) == name(&record)) {
            let cri::ContainerMetadata { name, attempt } = name(&record);
            return Err(CriError::Exists(format!(
                "container {name:?} (attempt {attempt}) exists in the sandbox already: {}",
                other.id
            )));
        }
        write(&self.container_folder(&record.id), &record)?;
        all.insert(record.id.clone(), Arc::new(record));
        Ok(())
    }

    /// Changes a container, if `change` lets it be.
    pub(crate) fn change_container<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerRecord) -> Result<T, CriError>,
    ) -> Result<T, CriError> {
        let mut all = self.containers.lock();
        let place = all.get_mut(id).ok_or_else(|| CriError::NoContainer(id.to_owned()))?;
        let mut record = ContainerRecord::clone(place);
        let value = change(&mut record)?;
        write(&self.container_folder(id), &record)?;
        *place = Arc::new(record);
        Ok(value)
    }

    pub(crate) fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        remove(&self.sandbox_folder(id))?;
        self.sandboxes.lock().remove(id);
        Ok(())
    }

    pub(crate) fn remove_container(&self, id: &str) -> Result<(), CriError> {
        remove(&self.container_folder(id))?;
        self.containers.lock().remove(id);
        Ok(())
    }
}

fn find<T>(all: &BTreeMap<String, Arc<T>>, id: &str) -> Result<Option<Arc<T>>, CriError> {
    if let Some(found) = all.get(id) {
        return Ok(Some(found.clone()));
    }
    let mut like = all.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
    match (like.next().filter(|_| !id.is_empty()), like.next()) {
        (Some(_), Some(_)) => Err(CriError::Ambiguous(id.to_owned())),
        (found, _) => Ok(found.map(|(_, record)| record.clone())),
    }
}

/// Names the file of a failure.
pub(crate) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CriError {
    let path = path.to_owned();
    move |source| CriError::File { attempt, path, source }
}

fn load<T: DeserializeOwned>(
    folder: &Path,
    id: impl Fn(&T) -> String,
) -> Result<BTreeMap<String, Arc<T>>, CriError> {
    fs::create_dir_all(folder).map_err(file("make folder", folder))?;
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(file("list", folder))? {
        let below = entry.map_err(file("list", folder))?.path();
        let path = below.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let record: T = serde_json::from_slice(&bytes)
                    .map_err(|e| CriError::Record { path: path.clone(), why: e.to_string() })?;
                all.insert(id(&record), Arc::new(record));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => remove(&below)?,
            Err(error) => return Err(file("read", &path)(error)),
        }
    }
    Ok(all)
}

/// Writes a record so that nobody sees half of it.
fn write<T: Serialize>(folder: &Path, record: &T) -> Result<(), CriError> {
    let path = folder.join(FILE);
    let bytes = serde_json::to_vec(record)
        .map_err(|e| CriError::Record { path: path.clone(), why: e.to_string() })?;
    write_file(&path, &bytes)
}

/// Replaces a file in one step, and makes its folder.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CriError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file("make folder", folder))?;
    }
    let new = path.with_extension("new");
    fs::write(&new, bytes).map_err(file("write", &new))?;
    fs::rename(&new, path).map_err(file("rename", &new))
}

/// Removes a folder; absent is fine.
pub(crate) fn remove(folder: &Path) -> Result<(), CriError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Messages in files: their bytes, as text.
mod as_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use cri::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<M: Message, S: Serializer>(message: &M, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(message.encode()))
    }

    pub(super) fn deserialize<'de, M: Message, D: Deserializer<'de>>(from: D) -> Result<M, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        M::decode(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str) -> ContainerRecord {
        let metadata = Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 });
        ContainerRecord {
            id: id.to_owned(),
            sandbox: "s".to_owned(),
            created_at: 7,
            config: ContainerConfig { metadata, log_path: "a/0.log".to_owned(), ..Default::default() },
            spec: ContainerSpec::default(),
            image_id: String::new(),
            image_ref: String::new(),
            image_name: String::new(),
            holds: Vec::new(),
            begun: false,
            failure: None,
            user: None,
        }
    }

    #[test]
    fn what_is_put_is_found_after_a_restart_by_the_beginning_of_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        records.add_container(container("abc1", "one")).unwrap();
        records.add_container(container("abd2", "two")).unwrap();
        assert!(matches!(records.add_container(container("e", "one")), Err(CriError::Exists(_))));
        let begin = |c: &mut ContainerRecord| {
            c.begun = true;
            Ok(())
        };
        records.change_container("abc1", begin).unwrap();
        // One that never came to be.
        fs::create_dir_all(folder.path().join("sandboxes/half")).unwrap();

        let records = Records::open(folder.path()).unwrap();
        assert!(!folder.path().join("sandboxes/half").exists());
        let found = records.container("abc").unwrap();
        assert_eq!(
            (found.id.as_str(), found.begun, found.config.log_path.as_str()),
            ("abc1", true, "a/0.log")
        );
        assert!(matches!(records.container("ab"), Err(CriError::Ambiguous(_))));
        assert!(matches!(records.container(""), Err(CriError::NoContainer(_))));
        records.remove_container("abc1").unwrap();
        assert!(Records::open(folder.path()).unwrap().container("abc1").is_err());
    }
}
