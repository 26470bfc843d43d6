//! From an overlay upper directory to the tar of a layer: the way back of `unpack`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, openat, readlinkat};
use tar::{EntryType, Header};

use crate::fsutil::{file_type, is_opaque, is_whiteout, lstat, names, subdir, xattrs};

/// What the container had there was not the image's.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];

/// Why a changed directory is no layer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The file system refused.
    #[error("{attempt} {}: {source}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On which path of the layer.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tar could not be written.
    #[error("write layer: {0}")]
    Write(#[source] io::Error),
    /// A device node, which a layer must not have.
    #[error("{} is a device node, which a layer cannot contain", .0.display())]
    Device(PathBuf),
    /// A name that would read as a whiteout.
    #[error("{} has a name that layers reserve for removed files", .0.display())]
    Reserved(PathBuf),
}

/// Writes what `upper` adds, changes and hides. Gives the number of entries; with none there is no layer.
pub(crate) fn write_layer(upper: &OwnedFd, out: impl Write) -> Result<u64, DiffError> {
    let mut writer = Writer { tar: tar::Builder::new(out), links: HashMap::new(), entries: 0 };
    // Depth first with names in order: the same directory always gives the same tar.
    let mut stack = vec![(PathBuf::new(), upper.try_clone().map_err(failed("open", Path::new("/")))?, None)];
    while let Some((path, dir, pending)) = stack.last_mut() {
        let pending: &mut Vec<OsString> = match pending {
            Some(pending) => pending,
            None => {
                let mut all = names(&*dir).map_err(failed("list", path))?;
                all.reverse();
                pending.insert(all)
            }
        };
        let Some(name) = pending.pop() else {
            stack.pop();
            continue;
        };
        let own = path.join(&name);
        let stat = lstat(&*dir, &name).map_err(|e| failed("look up", &own)(e.into()))?;
        writer.entry(dir, &name, &own, &stat)?;
        let is_mount_point = MOUNT_POINTS.iter().any(|point| own == Path::new(point));
        if file_type(&stat) == FileType::Directory && !is_mount_point {
            let below = subdir(&*dir, &name).map_err(|e| failed("open", &own)(e.into()))?;
            stack.push((own, below, None));
        }
    }
    writer.tar.into_inner().map_err(DiffError::Write)?;
    Ok(writer.entries)
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiffError {
    let path = path.to_owned();
    move |source| DiffError::Io { attempt, path, source }
}

struct Writer<W: Write> {
    tar: tar::Builder<W>,
    /// The first path of each file with several names.
    links: HashMap<(u64, u64), PathBuf>,
    entries: u64,
}

impl<W: Write> Writer<W> {
    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path, stat: &Stat) -> Result<(), DiffError> {
        if name.as_bytes().starts_with(b".wh.") {
            return Err(DiffError::Reserved(path.to_owned()));
        }
        if is_whiteout(stat) {
            return self.marker(&with_prefix(path, name), stat);
        }
        let kind = match file_type(stat) {
            FileType::RegularFile => EntryType::Regular,
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            // Nobody listens on it in a new container.
            FileType::Socket => return Ok(()),
            _ => return Err(DiffError::Device(path.to_owned())),
        };
        if kind != EntryType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let first = first.clone();
                return self.append(
                    stat,
                    EntryType::Link,
                    path,
                    first.as_os_str().as_bytes(),
                    &[],
                    0,
                    io::empty(),
                );
            }
            self.links.insert(inode, path.to_owned());
        }
        let attributes =
            xattrs(dir.as_fd(), name).map_err(|e| failed("read attributes of", path)(e.into()))?;
        match kind {
            EntryType::Regular => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    openat(dir, name, flags, Mode::empty()).map_err(|e| failed("open", path)(e.into()))?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.append(stat, kind, path, b"", &attributes, size, File::from(file))
            }
            EntryType::Symlink => {
                let target =
                    readlinkat(dir, name, Vec::new()).map_err(|e| failed("read link", path)(e.into()))?;
                self.append(stat, kind, path, target.as_bytes(), &attributes, 0, io::empty())
            }
            EntryType::Directory => {
                self.append(stat, kind, path, b"", &attributes, 0, io::empty())?;
                if is_opaque(dir.as_fd(), name) {
                    self.marker(&path.join(".wh..wh..opq"), stat)?;
                }
                Ok(())
            }
            _ => self.append(stat, kind, path, b"", &attributes, 0, io::empty()),
        }
    }

    /// An empty file that stands for something that is gone.
    fn marker(&mut self, path: &Path, stat: &Stat) -> Result<(), DiffError> {
        let mut plain = *stat;
        plain.st_mode = 0o600;
        (plain.st_uid, plain.st_gid) = (0, 0);
        self.append(&plain, EntryType::Regular, path, b"", &[], 0, io::empty())
    }

    #[allow(clippy::too_many_arguments)]
    fn append(
        &mut self,
        stat: &Stat,
        kind: EntryType,
        path: &Path,
        link: &[u8],
        attributes: &[(Vec<u8>, Vec<u8>)],
        size: u64,
        data: impl io::Read,
    ) -> Result<(), DiffError> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(size);
        let mut extensions: Vec<(String, &[u8])> = Vec::new();
        let old = header.as_old_mut();
        for (key, value, field) in [("path", &name[..], &mut old.name), ("linkpath", link, &mut old.linkname)]
        {
            let fits = value.len().min(field.len());
            field[..fits].copy_from_slice(&value[..fits]);
            if fits < value.len() {
                extensions.push((key.to_owned(), value));
            }
        }
        for (key, value) in attributes {
            // The kernel allows any bytes in a name, tar's extension only text.
            if let Ok(key) = std::str::from_utf8(key) {
                extensions.push((format!("SCHILY.xattr.{key}"), value));
            }
        }
        header.set_cksum();
        self.entries += 1;
        self.tar
            .append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), *value)))
            // A file that is growing must not shift what follows.
            .and_then(|()| self.tar.append(&header, data.take(size)))
            .map_err(DiffError::Write)
    }
}

fn with_prefix(path: &Path, name: &OsStr) -> PathBuf {
    let mut hidden = OsString::from(".wh.");
    hidden.push(name);
    path.with_file_name(hidden)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fsutil::open_root;
    use crate::testing::Tar;
    use crate::unpack::{Limits, Target, unpack};

    fn unpacked(dir: &Path, lower: &[&Path], tar: &[u8]) {
        fs::create_dir(dir).unwrap();
        let lower = lower.iter().map(|path| open_root(path).unwrap()).collect();
        unpack(open_root(dir).unwrap(), Target::Layer { lower }, tar, Limits::default()).unwrap();
    }

    fn layer(dir: &Path) -> Vec<u8> {
        let mut tar = Vec::new();
        write_layer(&open_root(dir).unwrap(), &mut tar).unwrap();
        tar
    }

    #[test]
    fn survives_the_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let base = Tar::new().file("gone", "").dir("d", 0o755).file("d/old", "").done();
        unpacked(&path("base"), &[], &base);
        let long = "n".repeat(90);
        let tar = Tar::new()
            .file(".wh.gone", "")
            .dir("d", 0o1700)
            .file("d/.wh..wh..opq", "")
            .file("d/file", "data")
            .hard_link("hard", "d/file")
            .symlink("link", "/absolute/../x")
            .xattr("user.bin", b"\n\0\n")
            .raw(EntryType::Regular, &long, "", b"x", 0o4711)
            .raw(EntryType::Fifo, "pipe", "", b"", 0o600)
            .dir("deep", 0o755);
        let mut tar = tar;
        let mut deep = "deep".to_owned();
        for _ in 0..3 {
            deep = format!("{deep}/{}", "m".repeat(20));
            tar = tar.dir(&deep, 0o755);
        }
        unpacked(&path("a"), &[&path("base")], &tar.done());
        let first = layer(&path("a"));
        unpacked(&path("b"), &[&path("base")], &first);
        assert_eq!(layer(&path("b")), first);
        assert_eq!(fs::read_link(path("b/link")).unwrap(), Path::new("/absolute/../x"));
        assert!(is_whiteout(&rustix::fs::lstat(path("b/gone")).unwrap()));
        assert!(is_opaque(open_root(&path("b")).unwrap(), OsStr::new("d")));
        let mut value = [0; 8];
        assert_eq!(rustix::fs::lgetxattr(path("b").join(long), "user.bin", &mut value[..]).unwrap(), 3);
        assert_eq!(
            fs::metadata(path("b/hard")).map(|m| std::os::unix::fs::MetadataExt::nlink(&m)).unwrap(),
            2
        );
    }

    #[test]
    fn leaves_out_what_was_mounted_and_refuses_devices() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("dev/pts")).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert_eq!(write_layer(&root, io::sink()).unwrap(), 2);
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(&root, "a/null", FileType::CharacterDevice, Mode::empty(), device).unwrap();
        assert!(matches!(write_layer(&root, io::sink()), Err(DiffError::Device(_))));
        fs::remove_file(dir.path().join("a/null")).unwrap();
        fs::write(dir.path().join("a/.wh.x"), "").unwrap();
        assert!(matches!(write_layer(&root, io::sink()), Err(DiffError::Reserved(_))));
    }
}
