//! Removing trees that somebody else has filled.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A folder on the way down that is not empty yet.
struct Level {
    name: CString,
    device_and_inode: (u64, u64),
    /// What is in it, once all else has been removed.
    folders: Vec<CString>,
}

/// Removes a folder with all in it, or what else is there; links are not followed. However deep the folders lie, it takes two
/// descriptors and no stack: [`std::fs::remove_dir_all`] takes of both for each level, and a pod can make more levels than
/// there is stack.
///
/// # Errors
/// When something cannot be removed; not found, if nothing is there. Nobody may be at work in it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return std::fs::remove_file(path);
    }
    let mut at: OwnedFd = nix::fcntl::open(path, FOLDER, Mode::empty())?;
    let mut levels = vec![enter(CString::default(), at.as_fd())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.folders.pop() {
            match openat(&at, name.as_c_str(), FOLDER, Mode::empty()) {
                Ok(folder) => {
                    levels.push(enter(name, folder.as_fd())?);
                    at = folder;
                }
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last() else { break };
        at = openat(&at, c"..", FOLDER, Mode::empty())?;
        if identity(at.as_fd())? != above.device_and_inode {
            return Err(io::Error::other("a folder was moved while it was removed"));
        }
        gone(unlinkat(&at, done.name.as_c_str(), UnlinkatFlags::RemoveDir))?;
    }
    std::fs::remove_dir(path)
}

/// Removes what is in a folder and is none.
fn enter(name: CString, folder: BorrowedFd<'_>) -> io::Result<Level> {
    let mut folders = Vec::new();
    for entry in Dir::openat(folder, c".", FOLDER, Mode::empty())?.iter() {
        let entry = entry?;
        let own: &CStr = entry.file_name();
        if own == c"." || own == c".." {
            continue;
        }
        if entry.file_type() != Some(Type::Directory) {
            match unlinkat(folder, own, UnlinkatFlags::NoRemoveDir) {
                // Not every file system says what is what.
                Err(Errno::EISDIR) => {}
                removed => {
                    gone(removed)?;
                    continue;
                }
            }
        }
        folders.push(own.to_owned());
    }
    Ok(Level { name, device_and_inode: identity(folder)?, folders })
}

fn identity(folder: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn gone(removed: nix::Result<()>) -> io::Result<()> {
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn everything_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        for path in ["a/b/c", "a/d", "e", "e/f/g/h"] {
            fs::create_dir_all(tree.join(path)).unwrap();
            fs::write(tree.join(path).join("file"), "").unwrap();
        }
        for n in 0..2000 {
            fs::create_dir(tree.join(format!("e/{n}"))).unwrap();
            fs::write(tree.join(format!("a/d/{n}")), "").unwrap();
        }
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(outside.join("file"), tree.join("e/link")).unwrap();
        nix::unistd::mkfifo(&tree.join("fifo"), Mode::S_IRUSR).unwrap();
        fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(remove_tree(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "stays");
        let link = folder.path().join("link");
        symlink(&outside, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(link.symlink_metadata().is_err() && outside.join("file").exists());
    }

    #[test]
    fn no_tree_is_too_deep() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at: OwnedFd = nix::fcntl::open(&tree, FOLDER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&at, c"d", Mode::S_IRWXU).unwrap();
            at = openat(&at, c"d", FOLDER, Mode::empty()).unwrap();
        }
        drop(at);
        // With 50 bytes of stack for each level; the standard library takes more, and ends the process.
        let little = std::thread::Builder::new().stack_size(150_000);
        let own = tree.clone();
        little.spawn(move || remove_tree(&own)).unwrap().join().unwrap().unwrap();
        assert!(!tree.exists());
    }
}
