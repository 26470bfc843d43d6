//! Which pods have which PersistentVolumes: a small file in a pod's folder for each, written before anything is mounted
//! and removed after nothing is any more. So an agent that starts again knows without asking anybody.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Fault;

/// What a pod has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The PersistentVolume.
    pub(crate) volume: String,
    /// Where it is for this pod.
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// It is mounted at `path` for this pod alone.
    pub(crate) mounted: bool,
    /// `path` is the device of an image.
    pub(crate) device: bool,
}

fn folder(pods: &Path, uid: &str) -> PathBuf {
    pods.join(uid).join("claims")
}

/// Writes what a pod has under the name `name`.
pub(crate) fn write(pods: &Path, uid: &str, name: &str, record: &Record) -> Result<(), Fault> {
    let folder = folder(pods, uid);
    fs::create_dir_all(&folder).map_err(Fault::file("make directory", &folder))?;
    let (draft, path) = (folder.join(format!(".{name}")), folder.join(name));
    let text = serde_json::to_vec(record).unwrap_or_default();
    fs::write(&draft, text).map_err(Fault::file("write", &draft))?;
    fs::rename(&draft, &path).map_err(Fault::file("write", &path))
}

/// What a pod has under a name.
pub(crate) fn read(pods: &Path, uid: &str, name: &str) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder(pods, uid).join(name)).ok()?).ok()
}

/// All that a pod has.
pub(crate) fn of_pod(pods: &Path, uid: &str) -> Result<Vec<Record>, Fault> {
    let folder = folder(pods, uid);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Fault::file("list", &folder))?,
    };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    Ok(names.filter(|n| !n.starts_with('.')).filter_map(|name| read(pods, uid, &name)).collect())
}

/// Forgets all that a pod had.
pub(crate) fn remove(pods: &Path, uid: &str) -> Result<(), Fault> {
    let folder = folder(pods, uid);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::file("remove", &folder)(error)),
        _ => Ok(()),
    }
}

/// The pods that have a volume, by UID.
pub(crate) fn users(pods: &Path, volume: &str) -> Result<Vec<String>, Fault> {
    let entries = match fs::read_dir(pods) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Fault::file("list", pods))?,
    };
    let mut users = Vec::new();
    for uid in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        if of_pod(pods, &uid)?.iter().any(|record| record.volume == volume) {
            users.push(uid);
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_who_have_it() {
        let pods = tempfile::tempdir().unwrap();
        let pods = pods.path();
        let record = |volume: &str| Record { volume: volume.into(), ..Record::default() };
        write(pods, "a", "data", &record("v")).unwrap();
        write(pods, "b", "data", &record("v")).unwrap();
        write(pods, "b", "more", &record("w")).unwrap();
        let sorted = |volume: &str| {
            let mut users = users(pods, volume).unwrap();
            users.sort();
            users
        };
        assert_eq!((sorted("v"), sorted("w")), (vec!["a".to_owned(), "b".into()], vec!["b".to_owned()]));
        assert_eq!(read(pods, "b", "more"), Some(record("w")));
        remove(pods, "b").unwrap();
        remove(pods, "b").unwrap();
        assert_eq!((sorted("v"), sorted("w")), (vec!["a".to_owned()], vec![]));
    }
}
