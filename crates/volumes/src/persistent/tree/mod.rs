//! A copy of a tree of files that pods may be at work in.
//!
//! What pods do meanwhile leads nowhere else: each name is opened once, as a mere handle, by the folder it was listed in;
//! links are never followed; and what the handle turns out to be is what is copied. The source is seen through a mount of
//! its own, on which nothing else is mounted, so nothing below is ever another file system, be it one that hangs.
//! A file that goes while the tree is walked is not in the copy, one that changes is in it as it was read.

mod attributes;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self as files, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sys::{MountAttr, MountPropagation, MountTree};

use crate::error::Fault;
use attributes::{Attributes, Identity, Reader};

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The kernel takes no longer path at a time (`PATH_MAX`, with room to spare).
const PIECE: usize = 3072;

/// What is in the folder at `path`, to be copied: nothing that is mounted below, and nothing can be written.
pub(super) fn source(path: &Path) -> Result<OwnedFd, Fault> {
    let tree = MountTree::of(path, false)?;
    // Also not what is mounted from now on.
    let attr = MountAttr { readonly: true, ..MountAttr::default() };
    tree.set(attr, Some(MountPropagation::Private), false)?;
    Ok(tree.into())
}

/// Copies what is in the folder `from` into the empty folder `to`, which nobody else knows of, and makes that folder like
/// the first. `shown` is what errors call `from`. Once `ends` says so, nothing more is copied.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    shown: &Path,
    ends: &dyn Fn() -> bool,
) -> Result<(), Fault> {
    let (reader, links) = (Reader::default(), HashMap::new());
    let mut copier = Copier { from, to, shown, ends, reader, links, todo: vec![] };
    let root = copier.reader.read(from).map_err(copier.failed("look at", Path::new("")))?;
    copier.todo.push(Folder { path: PathBuf::new(), attributes: root, filled: false });
    while let Some(folder) = copier.todo.pop() {
        if folder.filled {
            copier.finish(&folder)?;
        } else {
            copier.fill(folder)?;
        }
    }
    Ok(())
}

/// A folder that has been made. It is made like its source last: whatever comes into it changes its times.
struct Folder {
    path: PathBuf,
    attributes: Attributes,
    filled: bool,
}

struct Copier<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    shown: &'a Path,
    ends: &'a dyn Fn() -> bool,
    reader: Reader,
    /// The first copy of each file that has more names.
    links: HashMap<Identity, PathBuf>,
    todo: Vec<Folder>,
}

impl Copier<'_> {
    fn failed<E: Into<io::Error>>(&self, attempt: &'static str, path: &Path) -> impl Fn(E) -> Fault + use<E> {
        let path = if path.as_os_str().is_empty() { self.shown.to_owned() } else { self.shown.join(path) };
        let path = path.display().to_string();
        move |error| Fault::File { attempt, path: path.clone(), source: error.into() }
    }

    fn fill(&mut self, folder: Folder) -> Result<(), Fault> {
        let path = folder.path.clone();
        let was = folder.attributes.identity;
        self.todo.push(Folder { filled: true, ..folder });
        let source = match open_deep(self.from, &path) {
            Err(error) if has_gone(error) => return Ok(()),
            opened => opened.map_err(self.failed("open", &path))?,
        };
        // Another one under its name may not be for everybody's eyes.
        if self.reader.identity(source.as_fd()).map_err(self.failed("look at", &path))? != was {
            return Ok(());
        }
        let target = open_deep(self.to, &path).map_err(self.failed("open the copy of", &path))?;
        let listed = Dir::read_from(&source).map_err(self.failed("list", &path))?;
        for entry in listed {
            let entry = match entry {
                Err(error) if has_gone(error) => break,
                entry => entry.map_err(self.failed("list", &path))?,
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.child(&path, source.as_fd(), target.as_fd(), name)?;
            }
        }
        Ok(())
    }

    fn finish(&self, folder: &Folder) -> Result<(), Fault> {
        let copy = open_deep(self.to, &folder.path).map_err(self.failed("open the copy of", &folder.path))?;
        let done = folder.attributes.give(copy.as_fd(), OsStr::new("."));
        done.map_err(self.failed("set the attributes of the copy of", &folder.path))
    }

    fn child(
        &mut self,
        folder: &Path,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Fault> {
        if (self.ends)() {
            return Err(Fault::Ending);
        }
        let path = folder.join(name);
        let handle = match open(source, Path::new(name), HANDLE) {
            Err(error) if has_gone(error) => return Ok(()),
            opened => opened.map_err(self.failed("open", &path))?,
        };
        let attributes = match self.reader.read(handle.as_fd()) {
            Err(error) if has_gone(error) => return Ok(()),
            read => read.map_err(self.failed("look at", &path))?,
        };
        let copied = self.failed("copy", &path);
        if attributes.kind == FileType::Directory {
            if is_new(files::mkdirat(target, name, Mode::RWXU)).map_err(copied)? {
                self.todo.push(Folder { path, attributes, filled: false });
            }
            return Ok(());
        }
        if let Some(first) = self.links.get(&attributes.identity) {
            let at = open_deep(self.to, first.parent().unwrap_or(Path::new(""))).map_err(copied)?;
            let own = first.file_name().unwrap_or_default();
            is_new(files::linkat(at, own, target, name, AtFlags::empty()))
                .map_err(self.failed("link", &path))?;
            return Ok(());
        }
        let made = match attributes.kind {
            FileType::RegularFile => {
                copy_file(handle.as_fd(), target, name).map_err(self.failed("copy", &path))?
            }
            FileType::Symlink => {
                let points =
                    files::readlinkat(&handle, "", Vec::new()).map_err(self.failed("read", &path))?;
                is_new(files::symlinkat(points, target, name)).map_err(copied)?
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let (kind, device) = (attributes.kind, attributes.device);
                is_new(files::mknodat(target, name, kind, Mode::RUSR, device)).map_err(copied)?
            }
            // Nobody will ever answer on a socket's copy.
            FileType::Socket | FileType::Unknown | FileType::Directory => return Ok(()),
        };
        if !made {
            return Ok(());
        }
        let given = attributes.give(target, name);
        given.map_err(self.failed("set the attributes of the copy of", &path))?;
        if attributes.links > 1 {
            self.links.insert(attributes.identity, path);
        }
        Ok(())
    }
}

/// `false` if there is a copy under this name already: a folder that changes while it is listed may tell of one twice.
fn is_new(made: rustix::io::Result<()>) -> rustix::io::Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies what is in a file without its holes, or shares it where the file system can.
fn copy_file(handle: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let to = match files::openat(target, name, NEW_FILE, Mode::RUSR | Mode::WUSR) {
        Err(Errno::EXIST) => return Ok(false),
        opened => File::from(opened?),
    };
    // It is known to be a file: no FIFO that makes us wait, no device that does something when it is opened.
    let from = File::open(itself(handle))?;
    if from.metadata()?.len() == 0 || matches!(sys::reflink(&from, &to), Ok(true)) {
        return Ok(true);
    }
    match sys::copy_sparse(&from, &to) {
        // It was cut short meanwhile.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            to.set_len(from.metadata()?.len().min(to.metadata()?.len()))?;
        }
        copied => copied?,
    }
    Ok(true)
}

/// A path to what was opened, whatever its name means by now.
fn itself(handle: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    loop {
        match files::openat2(root, path, flags, Mode::empty(), INSIDE) {
            // Something was renamed while the kernel walked.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// Opens a folder below `root`, however deep it lies. Only what is looked at is open: trees may be deeper than a process may
/// have descriptors.
fn open_deep(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let (mut at, mut piece): (Option<OwnedFd>, _) = (None, PathBuf::new());
    for part in path {
        if piece.as_os_str().len() + part.len() > PIECE {
            at = Some(open(at.as_ref().map_or(root, AsFd::as_fd), &piece, HANDLE)?);
            piece.clear();
        }
        piece.push(part);
    }
    let rest = if piece.as_os_str().is_empty() { Path::new(".") } else { &piece };
    open(at.as_ref().map_or(root, AsFd::as_fd), rest, FOLDER)
}

/// Whether something is not there any more, is a link now, or has been mounted upon.
fn has_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE | Errno::XDEV)
}

#[cfg(test)]
mod tests;
