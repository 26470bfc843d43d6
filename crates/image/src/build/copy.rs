//! Putting sources into a root file system.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, mkdirat, mknodat, openat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::error::StepError;
use super::source::{Node, Source, SourceKind, node_xattrs, open_node};
use crate::fsutil::{dir_in, file_type, lstat_optional, open_in, remove_all, set_xattr, times};

/// How copies look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    /// Owner and group; `None` keeps those of the source.
    pub(super) owner: Option<(u32, u32)>,
    /// Permissions; `None` keeps those of the source.
    pub(super) mode: Option<u32>,
}

/// A path of the image: absolute, `.` and `..` resolved by words alone, as Docker does.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.iter().collect()
}

/// Makes the directory `path` and those above it; symbolic links count as what they point at inside the root.
pub(super) fn make_dirs(root: &OwnedFd, path: &Path, owner: (u32, u32)) -> Result<OwnedFd, StepError> {
    let wrong = || StepError::Destination(format!("/{}", path.display()));
    let mut at = PathBuf::new();
    let mut dir = dir_in(root, &at).map_err(StepError::io("open", "/"))?;
    for part in path {
        at.push(part);
        dir = match dir_in(root, &at) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                match mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                    // A symbolic link into nowhere.
                    Err(Errno::EXIST) => return Err(wrong()),
                    other => other.map_err(StepError::io("create directory", &at))?,
                }
                let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
                chownat(&dir, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(StepError::io("set owner of", &at))?;
                dir_in(root, &at).map_err(StepError::io("open", &at))?
            }
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(wrong()),
            Err(e) => return Err(StepError::io("open", &at)(e)),
        };
    }
    Ok(dir)
}

/// Whether there is a directory at `path`.
pub(super) fn is_dir(root: &OwnedFd, path: &Path) -> bool {
    dir_in(root, path).is_ok()
}

/// Copies `sources` to `destination`, which is a directory if it ends with `/`, if it is one already or if there
/// are `several` sources.
pub(super) fn copy(
    root: &OwnedFd,
    sources: &[&Source],
    several: bool,
    destination: &str,
    looks: Looks,
) -> Result<(), StepError> {
    let target = clean(destination);
    let is_directory = destination.ends_with('/') || destination.ends_with("/.") || is_dir(root, &target);
    let owner = looks.owner.unwrap_or((0, 0));
    if several && !sources.is_empty() && !is_directory {
        return Err(StepError::NotADirectory(destination.to_owned()));
    }
    for source in sources {
        match &source.kind {
            SourceKind::Directory { dir, nodes } => {
                make_dirs(root, &target, owner)?;
                for node in nodes {
                    copy_node(root, &target, dir, node, looks)?;
                }
                directory_times(root, &target, nodes)?;
            }
            SourceKind::File { file, stat } => {
                let path = if is_directory { target.join(&source.name) } else { target.clone() };
                let Some(name) = path.file_name() else {
                    return Err(StepError::Destination(destination.to_owned()));
                };
                let parent = make_dirs(root, path.parent().unwrap_or(Path::new("")), owner)?;
                let file = file.try_clone().map_err(StepError::io("open", &path))?;
                write_file(&parent, name, file, &path)?;
                apply(&parent, name, stat, looks, &path)?;
            }
        }
    }
    Ok(())
}

/// Writes a file whose content the Dockerfile holds.
pub(super) fn write_inline(
    root: &OwnedFd,
    name: &str,
    content: &str,
    destination: &str,
    several: bool,
    looks: Looks,
) -> Result<(), StepError> {
    let target = clean(destination);
    let is_directory = destination.ends_with('/') || is_dir(root, &target);
    if several && !is_directory {
        return Err(StepError::NotADirectory(destination.to_owned()));
    }
    let path = if is_directory { target.join(name) } else { target };
    let Some(name) = path.file_name() else { return Err(StepError::Destination(destination.to_owned())) };
    let owner = looks.owner.unwrap_or((0, 0));
    let parent = make_dirs(root, path.parent().unwrap_or(Path::new("")), owner)?;
    let mut file = fresh_file(&parent, name, &path)?;
    io::Write::write_all(&mut file, content.as_bytes()).map_err(StepError::io("write", &path))?;
    set_owner_and_mode(&parent, name, owner, looks.mode.unwrap_or(0o644), &path)
}

fn copy_node(
    root: &OwnedFd,
    target: &Path,
    dir: &OwnedFd,
    node: &Node,
    looks: Looks,
) -> Result<(), StepError> {
    let path = target.join(&node.path);
    let Some(name) = path.file_name() else { return Ok(()) };
    // Parents come first in the list, so they are there; links among them are the image's own.
    let parent = dir_in(root, path.parent().unwrap_or(Path::new("")));
    let parent = parent.map_err(|_| StepError::Destination(format!("/{}", path.display())))?;
    match file_type(&node.stat) {
        FileType::Directory => {
            if !is_dir(root, &path) {
                remove_all(&parent, name).map_err(StepError::io("replace", &path))?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755)).map_err(StepError::io("create", &path))?;
            } else if lstat_optional(&parent, name)
                .is_ok_and(|s| s.is_some_and(|s| file_type(&s) == FileType::Symlink))
            {
                // `lib -> usr/lib` of the image stays; what is below goes through it.
                return Ok(());
            }
        }
        FileType::Symlink => {
            remove_all(&parent, name).map_err(StepError::io("replace", &path))?;
            let link = node.link.as_deref().unwrap_or_default();
            symlinkat(link, &parent, name).map_err(StepError::io("create symbolic link", &path))?;
        }
        FileType::Fifo => {
            remove_all(&parent, name).map_err(StepError::io("replace", &path))?;
            mknodat(&parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .map_err(StepError::io("create named pipe", &path))?;
        }
        _ => write_file(&parent, name, open_node(dir, node)?, &path)?,
    }
    apply(&parent, name, &node.stat, looks, &path)?;
    for (key, value) in node_xattrs(dir, node)? {
        set_xattr(&parent, name, &key, &value).map_err(StepError::io("set attributes of", &path))?;
    }
    Ok(())
}

/// Every entry made in a directory changes its time; hence once more at the end.
fn directory_times(root: &OwnedFd, target: &Path, nodes: &[Node]) -> Result<(), StepError> {
    for node in nodes.iter().filter(|node| file_type(&node.stat) == FileType::Directory) {
        let path = target.join(&node.path);
        let dir = open_in(root, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
        // One that the image has as a symbolic link keeps its time.
        let Ok(dir) = dir else { continue };
        let mtime = (node.stat.st_mtime, node.stat.st_mtime_nsec as u32);
        rustix::fs::futimens(&dir, &times(mtime)).map_err(StepError::io("set times of", &path))?;
    }
    Ok(())
}

fn fresh_file(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<File, StepError> {
    remove_all(parent, name).map_err(StepError::io("replace", path))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(StepError::io("create", path))?;
    Ok(File::from(file))
}

fn write_file(parent: &OwnedFd, name: &OsStr, from: OwnedFd, path: &Path) -> Result<(), StepError> {
    let mut from = File::from(from);
    // Its content may have been read before, for the cache.
    from.rewind().map_err(StepError::io("read", path))?;
    io::copy(&mut from, &mut fresh_file(parent, name, path)?).map_err(StepError::io("write", path))?;
    Ok(())
}

fn apply(parent: &OwnedFd, name: &OsStr, stat: &Stat, looks: Looks, path: &Path) -> Result<(), StepError> {
    let owner = looks.owner.unwrap_or((stat.st_uid, stat.st_gid));
    if file_type(stat) == FileType::Symlink {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(StepError::io("set owner of", path))?;
    } else {
        set_owner_and_mode(parent, name, owner, looks.mode.unwrap_or(stat.st_mode & 0o7777), path)?;
    }
    let mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
    utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(StepError::io("set times of", path))
}

fn set_owner_and_mode(
    parent: &OwnedFd,
    name: &OsStr,
    owner: (u32, u32),
    mode: u32,
    path: &Path,
) -> Result<(), StepError> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(StepError::io("set owner of", path))?;
    // Just made by us in a file system that nobody else changes: no symbolic link.
    chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(StepError::io("set mode of", path))
}

/// Where an archive is extracted: the components of a directory that exists now.
pub(super) fn archive_target(root: &OwnedFd, destination: &str) -> Result<Vec<OsString>, StepError> {
    let target = clean(destination);
    make_dirs(root, &target, (0, 0))?;
    Ok(target.iter().map(OsStr::to_owned).collect())
}
