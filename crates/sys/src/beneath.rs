//! Paths that somebody else chose, inside a folder that they must not leave.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use crate::error::{Attempt, Error, Result};
use crate::mount::{MountTree, open_target};

/// A folder that was made just now, and nothing that somebody has put in its place.
const OWN_FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a folder of our own, to look things up in.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    Ok(opened.attempt("open", || path.display().to_string())?.into())
}

/// Opens `path` below `root` as a mere handle. Links that lead out of it, and `..` that do, are refused by the
/// kernel, whatever happens to the folder meanwhile.
pub fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match openat2(root, path, how) {
            // Something was renamed while the kernel walked.
            Err(nix::Error::EAGAIN) => {}
            other => return other.attempt("open", || path.display().to_string()),
        }
    }
}

/// Opens `path` to read it, as it looks to who has `root` as root directory: links and `..` lead nowhere else.
/// Does not wait for anybody (a FIFO), and does not become anybody's terminal.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root, path, how) {
            // Something was renamed while the kernel walked.
            Err(nix::Error::EAGAIN) => {}
            other => return Ok(other.attempt("open", || path.display().to_string())?.into()),
        }
    }
}

/// Opens `path` below `root`, making the folders that are not there, with exactly this mode.
pub fn make_beneath(root: BorrowedFd<'_>, path: &Path, mode: u32) -> Result<OwnedFd> {
    let mut done = PathBuf::new();
    let mut here = open_beneath(root, &done)?;
    for part in path.components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => {
                return Err(Error::Invalid {
                    what: "path inside a folder",
                    text: path.display().to_string(),
                });
            }
        };
        done.push(name);
        here = match open_beneath(root, &done) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                let operand = || done.display().to_string();
                match mkdirat(here.as_fd(), name, Mode::from_bits_truncate(mode)) {
                    // Whatever the mode mask says.
                    Ok(()) => {
                        let made = openat(here.as_fd(), name, OWN_FOLDER, Mode::empty());
                        let made = made.attempt("open", operand)?;
                        fchmod(made, Mode::from_bits_truncate(mode)).attempt("set the mode of", operand)?;
                    }
                    Err(nix::Error::EEXIST) => {}
                    Err(errno) => return Err(errno).attempt("make directory", operand),
                }
                open_beneath(root, &done)?
            }
            other => other?,
        };
    }
    Ok(here)
}

/// Makes `target` show what `handle` stands for, be it a file or a directory.
pub fn bind_handle(handle: BorrowedFd<'_>, target: &Path) -> Result<()> {
    let stat = nix::sys::stat::fstat(handle).attempt("look at", || target.display().to_string())?;
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let place = open_target(target, directory)?;
    MountTree::of(Path::new(&format!("/proc/self/fd/{}", handle.as_raw_fd())), true)?.attach(place.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let root_path = folder.path().join("root");
        fs::create_dir_all(root_path.join("in")).unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        symlink("../out", root_path.join("relative")).unwrap();
        symlink(folder.path().join("out"), root_path.join("absolute")).unwrap();
        symlink("in", root_path.join("inside")).unwrap();
        let root = open_folder(&root_path).unwrap();
        let tried = |path: &str| make_beneath(root.as_fd(), Path::new(path), 0o750).is_ok();
        assert!(tried("in") && tried("inside/new/deep") && root_path.join("in/new/deep").is_dir());
        for path in ["relative", "absolute", "relative/x", "absolute/x", "../out", "/", "in/../../out"] {
            assert!(!tried(path), "{path}");
        }
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
    }
}
