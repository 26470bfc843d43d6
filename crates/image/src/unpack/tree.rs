use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, linkat, mkdirat, mknodat, openat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::{Target, UnpackError};
use crate::fsutil::{
    OPAQUE, components, dir_in, file_type, is_overlay_xattr, is_whiteout, join, lstat, lstat_optional,
    open_in, remove_all, set_xattr, times, xattrs,
};
use crate::tarball::{Entry, Kind};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Beyond this many remembered parent directories start over; layers come in walk order.
const OPEN_PARENTS: usize = 64;

/// A directory tree that grows entry by entry.
pub(super) struct Tree {
    root: OwnedFd,
    lower: Vec<OwnedFd>,
    below: Vec<OsString>,
    is_layer: bool,
    parents: HashMap<PathBuf, Rc<OwnedFd>>,
    /// Times of directories, set last: every entry made in a directory changes them.
    directory_times: HashMap<PathBuf, (i64, u32)>,
}

/// What is needed to say where something failed.
struct Context<'a>(&'a Entry);

impl Context<'_> {
    fn name(&self) -> String {
        String::from_utf8_lossy(&self.0.path).into_owned()
    }

    fn io<E: Into<io::Error>>(&self, attempt: &'static str) -> impl FnOnce(E) -> UnpackError {
        let entry = self.name();
        move |e| UnpackError::Io { attempt, entry, source: e.into() }
    }
}

impl Tree {
    pub(super) fn new(root: OwnedFd, target: Target) -> Self {
        let (lower, below, is_layer) = match target {
            Target::Layer { lower } => (lower, Vec::new(), true),
            Target::Files { below } => (Vec::new(), below, false),
        };
        Self { root, lower, below, is_layer, parents: HashMap::new(), directory_times: HashMap::new() }
    }

    pub(super) fn apply(&mut self, entry: &Entry, data: &mut impl Read) -> Result<(), UnpackError> {
        let cx = Context(entry);
        let own =
            components(&entry.path).map_err(|problem| UnpackError::Path { entry: cx.name(), problem })?;
        let below = self.below.clone();
        let parts: Vec<&OsStr> = below.iter().map(OsString::as_os_str).chain(own.iter().copied()).collect();
        if own.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(UnpackError::Root { entry: cx.name() });
            }
            // The directory into which an archive is added keeps its own looks.
            return if self.is_layer { self.root_directory(entry) } else { Ok(()) };
        }
        let Some((name, parents)) = parts.split_last() else { return Ok(()) };
        if self.is_layer && name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&cx, parents, name);
        }
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            // No layer of ours holds a device node. Every container gets a /dev of its own over the image's, so those
            // that old base images carry there would never be seen; anywhere else one is a way to the host's disks.
            return if own.first().is_some_and(|first| *first == "dev") && own.len() > 1 {
                Ok(())
            } else {
                Err(UnpackError::Device { entry: cx.name() })
            };
        }
        let dir = self.parent(&cx, parents)?;
        let was_whiteout = self.make_room(&cx, &dir, name, entry.kind)?;
        match entry.kind {
            Kind::Directory => {
                match mkdirat(&*dir, *name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(cx.io("create directory")(e)),
                }
                if was_whiteout {
                    set_xattr(&*dir, name, OPAQUE.as_bytes(), b"y").map_err(cx.io("mark as opaque"))?;
                }
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    openat(&*dir, *name, flags, Mode::from_raw_mode(0o600)).map_err(cx.io("create"))?;
                io::copy(&mut data.take(entry.size), &mut File::from(file)).map_err(cx.io("write"))?;
            }
            Kind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                symlinkat(target, &*dir, *name).map_err(cx.io("create symbolic link"))?;
            }
            // The link shares owner, mode and times with its target.
            Kind::HardLink => return self.hard_link(&cx, &dir, name),
            Kind::Fifo => {
                mknodat(&*dir, *name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(cx.io("create named pipe"))?;
            }
            Kind::CharDevice | Kind::BlockDevice => return Err(UnpackError::Device { entry: cx.name() }),
        }
        self.looks(&cx, &dir, name, &parts)
    }

    /// Sets the times of all directories.
    pub(super) fn finish(self) -> Result<(), UnpackError> {
        for (path, mtime) in &self.directory_times {
            let failed = |e: Errno| UnpackError::Io {
                attempt: "set times of directory",
                entry: path.display().to_string(),
                source: e.into(),
            };
            let dir = match open_in(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(failed)?,
            };
            rustix::fs::futimens(&dir, &times(*mtime)).map_err(failed)?;
        }
        Ok(())
    }

    fn root_directory(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let cx = Context(entry);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::fchown(&self.root, Some(uid), Some(gid)).map_err(cx.io("set owner of"))?;
        rustix::fs::fchmod(&self.root, Mode::from_raw_mode(entry.mode)).map_err(cx.io("set mode of"))?;
        self.directory_times.insert(PathBuf::new(), entry.mtime);
        Ok(())
    }

    /// Owner first (a change of owner clears set-user-id), then mode, attributes, times.
    fn looks(
        &mut self,
        cx: &Context,
        dir: &OwnedFd,
        name: &OsStr,
        parts: &[&OsStr],
    ) -> Result<(), UnpackError> {
        let entry = cx.0;
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(cx.io("set owner of"))?;
        if entry.kind != Kind::Symlink {
            // Nobody else writes here, so `name` is what was just made and no symbolic link.
            chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(cx.io("set mode of"))?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| !is_overlay_xattr(key)) {
            match set_xattr(dir, name, key, value) {
                // A file system without them, or a label of a security module that is not here. What carries
                // privileges must not be lost silently.
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) if key != b"security.capability" => {
                    tracing::debug!(entry = cx.name(), key = %String::from_utf8_lossy(key), "attribute not kept");
                }
                other => other.map_err(cx.io("set attributes of"))?,
            }
        }
        if entry.kind == Kind::Directory {
            self.directory_times.insert(join(parts), entry.mtime);
            return Ok(());
        }
        utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(cx.io("set times of"))
    }

    /// Removes what stands where the entry goes, unless both are directories. Tells whether it was a whiteout.
    fn make_room(
        &mut self,
        cx: &Context,
        dir: &OwnedFd,
        name: &OsStr,
        kind: Kind,
    ) -> Result<bool, UnpackError> {
        let Some(stat) = lstat_optional(dir, name).map_err(cx.io("look up"))? else { return Ok(false) };
        if kind == Kind::Directory && file_type(&stat) == FileType::Directory {
            return Ok(false);
        }
        self.parents.clear();
        remove_all(dir, name).map_err(cx.io("replace"))?;
        Ok(self.is_layer && is_whiteout(&stat))
    }

    fn hard_link(&mut self, cx: &Context, dir: &OwnedFd, name: &OsStr) -> Result<(), UnpackError> {
        let target = || String::from_utf8_lossy(&cx.0.link).into_owned();
        let own = components(&cx.0.link).map_err(|problem| UnpackError::LinkPath {
            entry: cx.name(),
            target: target(),
            problem,
        })?;
        let missing = || UnpackError::LinkTarget { entry: cx.name(), target: target() };
        let Some((target_name, own_parents)) = own.split_last() else { return Err(missing()) };
        let parents: PathBuf =
            self.below.iter().map(OsString::as_os_str).chain(own_parents.iter().copied()).collect();
        let target_dir = match dir_in(&self.root, &parents) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            other => other.map_err(cx.io("look up the target of hard link"))?,
        };
        let stat =
            lstat_optional(&target_dir, target_name).map_err(cx.io("look up the target of hard link"))?;
        if stat.is_none_or(|stat| file_type(&stat) == FileType::Directory || is_whiteout(&stat)) {
            return Err(missing());
        }
        linkat(&target_dir, *target_name, dir, name, AtFlags::empty()).map_err(cx.io("create hard link"))
    }

    fn whiteout(&mut self, cx: &Context, parents: &[&OsStr], name: &OsStr) -> Result<(), UnpackError> {
        let name = name.as_bytes();
        if name == WHITEOUT_OPAQUE {
            if !self.exists_below(parents) {
                return Ok(());
            }
            let dir = self.parent(cx, parents)?;
            return set_xattr(&*dir, OsStr::new("."), OPAQUE.as_bytes(), b"y")
                .map_err(cx.io("mark as opaque"));
        }
        if name.starts_with(WHITEOUT_META) {
            // Bookkeeping of AUFS that some old layers carry.
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout { entry: cx.name() });
        }
        let path: Vec<&OsStr> = parents.iter().copied().chain([hidden]).collect();
        // A whiteout of nothing would show as a device in listings of a directory that no lower layer has.
        if !self.exists_below(&path) {
            return Ok(());
        }
        let dir = self.parent(cx, parents)?;
        match lstat_optional(&*dir, hidden).map_err(cx.io("look up"))? {
            // It hides only what lower layers have: beside a directory of this layer, their part of it.
            Some(stat) if file_type(&stat) == FileType::Directory => {
                set_xattr(&*dir, hidden, OPAQUE.as_bytes(), b"y").map_err(cx.io("mark as opaque"))
            }
            Some(_) => Ok(()),
            None => mknodat(&*dir, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(cx.io("create whiteout")),
        }
    }

    /// Whether any lower layer has something at this path.
    fn exists_below(&self, parts: &[&OsStr]) -> bool {
        let path = join(parts);
        self.lower.iter().any(|layer| open_in(layer, &path, OFlags::PATH | OFlags::NOFOLLOW).is_ok())
    }

    /// The directory that the entry goes into, made if it is not there.
    fn parent(&mut self, cx: &Context, parts: &[&OsStr]) -> Result<Rc<OwnedFd>, UnpackError> {
        let path = join(parts);
        if let Some(dir) = self.parents.get(&path) {
            return Ok(dir.clone());
        }
        let dir = match dir_in(&self.root, &path) {
            Ok(dir) => dir,
            Err(Errno::NOENT) if !parts.is_empty() => self.make_parent(cx, parts, &path)?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Err(UnpackError::Parent { entry: cx.name() });
            }
            Err(e) => return Err(cx.io("look up the parent of")(e)),
        };
        if self.parents.len() >= OPEN_PARENTS {
            self.parents.clear();
        }
        let dir = Rc::new(dir);
        self.parents.insert(path, dir.clone());
        Ok(dir)
    }

    /// A directory that the layer implies but does not list looks like the one below it.
    fn make_parent(&mut self, cx: &Context, parts: &[&OsStr], path: &Path) -> Result<OwnedFd, UnpackError> {
        let Some((name, above)) = parts.split_last() else {
            return Err(UnpackError::Parent { entry: cx.name() });
        };
        let dir = self.parent(cx, above)?;
        match mkdirat(&*dir, *name, Mode::from_raw_mode(0o755)) {
            // Something is there, yet the lookup found no directory: a symbolic link into nowhere. Whatever it
            // points at, this layer does not write through it.
            Err(Errno::EXIST) => return Err(UnpackError::Parent { entry: cx.name() }),
            other => other.map_err(cx.io("create the parent of"))?,
        }
        self.copy_looks(cx, &dir, name, path)?;
        dir_in(&*dir, Path::new(name)).map_err(cx.io("open the parent of"))
    }

    /// containerd, `pkg/archive/tar.go`, `mkparent`: the nearest lower layer that has the name decides.
    fn copy_looks(
        &mut self,
        cx: &Context,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        for layer in &self.lower {
            let Ok(layer_dir) = dir_in(layer, parent) else { continue };
            let Ok(stat) = lstat(&layer_dir, name) else { continue };
            if file_type(&stat) != FileType::Directory {
                break;
            }
            let failed = "copy the looks of the parent of";
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(cx.io(failed))?;
            chmodat(dir, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty()).map_err(cx.io(failed))?;
            for (key, value) in xattrs(layer_dir.as_fd(), name).map_err(cx.io(failed))? {
                set_xattr(dir, name, &key, &value).map_err(cx.io(failed))?;
            }
            self.directory_times.insert(path.to_owned(), (stat.st_mtime, stat.st_mtime_nsec as u32));
            break;
        }
        Ok(())
    }
}
