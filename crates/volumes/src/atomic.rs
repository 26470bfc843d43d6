//! Files that change all at once (kubernetes/kubernetes, `pkg/volume/util/atomic_writer.go`).
//!
//! ```text
//! volume/
//!   ..2026_01_01_00_00_00.1f3a/key    the files
//!   ..data ─► ..2026_01_01_00_00_00.1f3a    replaced by a rename
//!   key ─► ..data/key
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use crate::error::Fault;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file: content, mode and, if not root, owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: Option<u32>,
}

/// Files by path inside the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// Makes `folder` show `files` and nothing else. `version` names the new state; `group` owns it, if given.
pub(crate) fn write(folder: &Path, files: &Payload, version: &str, group: Option<u32>) -> Result<(), Fault> {
    files.keys().try_for_each(|path| check(path))?;
    let (data, new_data) = (folder.join(DATA), folder.join(NEW_DATA));
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| shows(&folder.join(old), files)) {
        return Ok(());
    }
    let version = format!("..{version}");
    let fresh = folder.join(&version);
    make_dir(&fresh, group)?;
    for (path, file) in files {
        write_file(&fresh, Path::new(path), file, group)?;
    }
    remove(&new_data)?;
    symlink(&version, &new_data).map_err(Fault::file("link", &new_data))?;
    fs::rename(&new_data, &data).map_err(Fault::file("replace", &data))?;
    let tops: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for top in &tops {
        let link = folder.join(top);
        let target = Path::new(DATA).join(top);
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            remove(&link)?;
            symlink(&target, &link).map_err(Fault::file("link", &link))?;
        }
    }
    for entry in fs::read_dir(folder).map_err(Fault::file("list", folder))?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let keep = if name.starts_with("..") { name == DATA || name == version } else { tops.contains(name) };
        if !keep {
            remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Paths stay inside, and do not look like our own.
fn check(path: &str) -> Result<(), Fault> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if plain && !path.is_empty() && !path.starts_with("..") && path.len() < 4096 {
        Ok(())
    } else {
        Err(Fault::Path(path.to_owned()))
    }
}

fn make_dir(path: &Path, group: Option<u32>) -> Result<(), Fault> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Fault::file("make", path)(error));
        }
        _ => {}
    }
    if group.is_some() {
        chown(path, None, group).map_err(Fault::file("give away", path))?;
    }
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Fault::file("set the mode of", path))
}

fn write_file(root: &Path, path: &Path, file: &File, group: Option<u32>) -> Result<(), Fault> {
    let mut folder = root.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        make_dir(&folder, group)?;
    }
    let path = root.join(path);
    fs::write(&path, &file.bytes).map_err(Fault::file("write", &path))?;
    if file.owner.is_some() || group.is_some() {
        chown(&path, file.owner, group).map_err(Fault::file("give away", &path))?;
    }
    // A volume that nobody writes: the group may read what the owner may.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))
        .map_err(Fault::file("set the mode of", &path))
}

fn remove(path: &Path) -> Result<(), Fault> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.map_err(Fault::file("remove", path))
}

/// Whether a folder holds exactly these files.
fn shows(folder: &Path, files: &Payload) -> bool {
    fn list(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                list(root, &path, found)?;
            } else {
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    list(folder, folder, &mut found).is_ok()
        && found.len() == files.len()
        && files.iter().all(|(path, file)| fs::read(folder.join(path)).is_ok_and(|bytes| bytes == file.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.into(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn seen(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.filter(|n| !n.starts_with("..2")).collect();
        names.sort();
        names
    }

    #[test]
    fn files_change_together() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        write(at, &payload(&[("a", "1"), ("d/b", "2")]), "2026.1", None).unwrap();
        assert_eq!(seen(at), ["..data", "a", "d"]);
        assert_eq!(fs::read_to_string(at.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(at.join("a")).unwrap().permissions().mode() & 0o7777, 0o640);
        let old = fs::read_link(at.join("..data")).unwrap();
        // Whoever has the old folder open still reads the old state.
        let held = fs::File::open(at.join("a")).unwrap();
        write(at, &payload(&[("a", "3"), ("c", "4")]), "2026.2", None).unwrap();
        assert_eq!(seen(at), ["..data", "a", "c"]);
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(!at.join(old).exists());
        assert_eq!(std::io::read_to_string(held).unwrap(), "1");
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let files = payload(&[("a", "1")]);
        write(folder.path(), &files, "2026.1", None).unwrap();
        write(folder.path(), &files, "2026.2", None).unwrap();
        assert_eq!(fs::read_link(folder.path().join("..data")).unwrap(), Path::new("..2026.1"));
        write(folder.path(), &Payload::new(), "2026.3", None).unwrap();
        assert_eq!(seen(folder.path()), ["..data"]);
    }

    #[test]
    fn a_group_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = payload(&[("a", "1")]);
        files.get_mut("a").unwrap().mode = 0o400;
        write(folder.path(), &files, "2026.1", Some(1234)).unwrap();
        let meta = fs::metadata(folder.path().join("a")).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((meta.gid(), meta.mode() & 0o7777), (1234, 0o440));
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_volume(path in "[./a-c]{0,12}") {
            let folder = tempfile::tempdir().unwrap();
            let volume = folder.path().join("v");
            fs::create_dir(&volume).unwrap();
            // Whether it is taken or refused, there is nothing beside the volume.
            let _ = write(&volume, &payload(&[(&path, "x")]), "2026.1", None);
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
