//! What COPY and ADD take from a build context, a stage or an image.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat};

use super::error::StepError;
use super::ignore::{Ignore, glob, is_pattern};
use crate::digest::Hasher;
use crate::fsutil::{Xattrs, dir_in, file_type, lstat, names, open_in, subdir, xattrs};

/// One source, looked up: a file, or a directory whose contents are meant.
pub(super) struct Source {
    pub(super) kind: SourceKind,
    /// The last component of what was asked for.
    pub(super) name: OsString,
}

pub(super) enum SourceKind {
    File { file: OwnedFd, stat: Box<Stat> },
    Directory { dir: OwnedFd, nodes: Vec<Node> },
}

/// Something below a source directory.
pub(super) struct Node {
    /// Relative to the source directory; parents come before their children.
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
    pub(super) link: Option<OsString>,
}

/// Finds what `pattern` names below `root`.
pub(super) fn find(root: &OwnedFd, pattern: &str, ignore: &Ignore) -> Result<Vec<Source>, StepError> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop().ok_or_else(|| StepError::Outside(pattern.to_owned()))?,
            part => parts.push(part),
        }
    }
    let mut found = vec![PathBuf::new()];
    for part in parts {
        if !is_pattern(part) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut next = Vec::new();
        for dir in found {
            let Ok(fd) = dir_in(root, &dir) else { continue };
            let all = names(&fd).map_err(StepError::io("list", &dir))?;
            next.extend(
                all.iter().filter(|name| glob(part, &name.to_string_lossy())).map(|name| dir.join(name)),
            );
        }
        found = next;
    }
    let mut sources = Vec::new();
    for path in found {
        if path.as_os_str().is_empty() || !ignore.is_ignored(&path) || ignore.has_exceptions() {
            sources.extend(open(root, &path, ignore)?);
        }
    }
    if sources.is_empty() { Err(StepError::NotFound(pattern.to_owned())) } else { Ok(sources) }
}

/// Opens a source, following a symbolic link that it is itself, but never out of the root.
fn open(root: &OwnedFd, path: &Path, ignore: &Ignore) -> Result<Option<Source>, StepError> {
    let name = path.file_name().unwrap_or_default().to_owned();
    let Ok(fd) = open_in(root, path, OFlags::PATH) else { return Ok(None) };
    let stat = fstat(&fd).map_err(StepError::io("look up", path))?;
    let kind = match file_type(&stat) {
        FileType::Directory => {
            let dir = openat(&fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(StepError::io("open", path))?;
            let nodes = walk(&dir, path, ignore)?;
            if ignore.is_ignored(path) && nodes.is_empty() {
                return Ok(None);
            }
            SourceKind::Directory { dir, nodes }
        }
        FileType::RegularFile => {
            if ignore.is_ignored(path) {
                return Ok(None);
            }
            let file = open_in(root, path, OFlags::RDONLY).map_err(StepError::io("open", path))?;
            SourceKind::File { file, stat: Box::new(stat) }
        }
        _ => return Err(StepError::Unsupported(format!("copying {}, a special file,", path.display()))),
    };
    Ok(Some(Source { kind, name }))
}

fn walk(dir: &OwnedFd, base: &Path, ignore: &Ignore) -> Result<Vec<Node>, StepError> {
    let mut nodes: Vec<Node> = Vec::new();
    let first = dir.try_clone().map_err(StepError::io("open", base))?;
    let mut stack = vec![(PathBuf::new(), first)];
    while let Some((at, fd)) = stack.pop() {
        for name in names(&fd).map_err(StepError::io("list", base.join(&at)))? {
            let path = at.join(&name);
            let stat = lstat(&fd, &name).map_err(StepError::io("look up", base.join(&path)))?;
            let kind = file_type(&stat);
            let ignored = ignore.is_ignored(&base.join(&path));
            if ignored && !(kind == FileType::Directory && ignore.has_exceptions()) {
                continue;
            }
            let link = match kind {
                FileType::Directory => {
                    let below = subdir(&fd, &name).map_err(StepError::io("open", base.join(&path)))?;
                    stack.push((path.clone(), below));
                    None
                }
                FileType::Symlink => {
                    let target = readlinkat(&fd, &name, Vec::new());
                    let target = target.map_err(StepError::io("read link", base.join(&path)))?;
                    Some(OsStr::from_bytes(target.as_bytes()).to_owned())
                }
                FileType::Socket => continue,
                FileType::RegularFile | FileType::Fifo => None,
                _ => return Err(StepError::Device(base.join(&path))),
            };
            nodes.push(Node { path, stat, link });
        }
    }
    nodes.sort_by(|a, b| a.path.cmp(&b.path));
    // An ignored directory stays only for the exceptions below it.
    let kept: Vec<bool> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            !ignore.is_ignored(&base.join(&node.path))
                || nodes[at + 1..]
                    .iter()
                    .take_while(|other| other.path.starts_with(&node.path))
                    .any(|other| !ignore.is_ignored(&base.join(&other.path)))
        })
        .collect();
    let mut kept = kept.into_iter();
    nodes.retain(|_| kept.next().unwrap_or(true));
    Ok(nodes)
}

impl Source {
    /// Adds everything that copying it would change in an image, but no times: a checkout makes new ones.
    pub(super) fn hash(&self, hasher: &mut Hasher, with_owner: bool) -> Result<(), StepError> {
        hasher.field(self.name.as_bytes());
        match &self.kind {
            SourceKind::File { file, stat } => {
                hash_looks(hasher, stat, with_owner);
                hash_file(hasher, file, Path::new(&self.name))
            }
            SourceKind::Directory { dir, nodes } => {
                hasher.field(b"directory");
                for node in nodes {
                    hasher.field(node.path.as_os_str().as_bytes());
                    hash_looks(hasher, &node.stat, with_owner);
                    hash_xattrs(hasher, dir, node)?;
                    if let Some(link) = &node.link {
                        hasher.field(link.as_bytes());
                    }
                    if file_type(&node.stat) == FileType::RegularFile {
                        hash_file(hasher, &open_node(dir, node)?, &node.path)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn hash_looks(hasher: &mut Hasher, stat: &Stat, with_owner: bool) {
    hasher.field(&stat.st_mode.to_be_bytes());
    if with_owner {
        hasher.field(&stat.st_uid.to_be_bytes());
        hasher.field(&stat.st_gid.to_be_bytes());
    }
}

fn hash_xattrs(hasher: &mut Hasher, dir: &OwnedFd, node: &Node) -> Result<(), StepError> {
    for (key, value) in node_xattrs(dir, node)? {
        hasher.field(&key);
        hasher.field(&value);
    }
    Ok(())
}

fn hash_file(hasher: &mut Hasher, file: &OwnedFd, path: &Path) -> Result<(), StepError> {
    use std::io::Read;
    let failed = |e| StepError::io::<std::io::Error>("read", path)(e);
    let mut file = File::from(file.try_clone().map_err(failed)?);
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let mut own = Hasher::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => own.update(&buffer[..n]),
        }
    }
    hasher.field(own.finish().hex().as_bytes());
    Ok(())
}

/// The attributes that a copy takes along.
pub(super) fn node_xattrs(dir: &OwnedFd, node: &Node) -> Result<Xattrs, StepError> {
    let parent = dir_in(dir, node.path.parent().unwrap_or(Path::new("")));
    let parent = parent.map_err(StepError::io("open the parent of", &node.path))?;
    let name = node.path.file_name().unwrap_or(OsStr::new("."));
    let mut all = xattrs(parent.as_fd(), name).map_err(StepError::io("read attributes of", &node.path))?;
    all.retain(|(key, _)| key.starts_with(b"user.") || key == b"security.capability");
    Ok(all)
}

/// Opens a regular file below a source directory, through no symbolic link.
pub(super) fn open_node(dir: &OwnedFd, node: &Node) -> Result<OwnedFd, StepError> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat2(dir, &node.path, flags, Mode::empty(), resolve).map_err(StepError::io("open", &node.path))
}
