//! The data of the built-in storage on disk: one folder for each volume. It appears whole, under its final name, or not
//! at all, and it is renamed before it is deleted, so that no crash leaves half of one to be taken for a whole.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base::{Ids, RandomIds};

use super::source::Kind;
use crate::error::Fault;
use crate::ext4;

/// A folder under this name is being made.
const NEW: &str = ".new-";
/// One under this name is being deleted.
const GONE: &str = ".gone-";
/// The folder of snapshots, beside those of volumes.
const SNAPSHOTS: &str = ".snapshots";
/// What an image's pods see is a folder in its file system, so that no program trips over `lost+found`.
pub(crate) const INSIDE: &str = "volume";

/// The paths of one volume.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    root: PathBuf,
    volume: String,
}

impl Data {
    pub(crate) fn new(root: &Path, volume: &str) -> Self {
        Self { root: root.to_owned(), volume: volume.to_owned() }
    }

    /// A snapshot's; it has an image and nothing else.
    pub(crate) fn of_snapshot(root: &Path, snapshot: &str) -> Self {
        Self::new(&snapshots(root), snapshot)
    }

    pub(crate) fn name(&self) -> &str {
        &self.volume
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join(&self.volume)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder().join("image")
    }

    /// Where the image, or a device, is mounted once for all pods.
    pub(crate) fn mount(&self) -> PathBuf {
        self.folder().join("mnt")
    }

    /// What pods see of the mounted image.
    pub(crate) fn inside(&self) -> PathBuf {
        self.mount().join(INSIDE)
    }

    pub(crate) fn is_there(&self, kind: Kind) -> bool {
        match kind {
            Kind::Directory => self.directory().exists(),
            Kind::Image => self.image().exists(),
        }
    }

    /// What is there.
    pub(crate) fn kind(&self) -> Option<Kind> {
        [Kind::Directory, Kind::Image].into_iter().find(|kind| self.is_there(*kind))
    }

    /// Makes the data unless it is there.
    pub(crate) fn make(&self, kind: Kind, bytes: u64, block: bool, now: u32) -> Result<(), Fault> {
        if self.is_there(kind) {
            return Ok(());
        }
        self.make_whole(|new| match kind {
            Kind::Directory => make_open(&new.directory()),
            Kind::Image if block => new.make_file(bytes).map(drop),
            Kind::Image => new.make_file_system(bytes, now),
        })
    }

    fn make_file(&self, bytes: u64) -> Result<File, Fault> {
        let path = self.image();
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Fault::file("make", &path))?;
        file.set_len(bytes).map_err(Fault::file("size", &path))?;
        file.sync_all().map_err(Fault::file("flush", &path))?;
        Ok(file)
    }

    /// Makes an image with an empty file system.
    pub(crate) fn make_file_system(&self, bytes: u64, now: u32) -> Result<(), Fault> {
        let (file, path) = (self.make_file(bytes)?, self.image());
        let id = RandomIds.bits().to_le_bytes();
        ext4::format(&file, bytes, id, now).map_err(Fault::file("make a file system in", &path))?;
        file.sync_all().map_err(Fault::file("flush", &path))
    }

    /// Makes an image by filling an empty file. Its time is `when`.
    pub(crate) fn make_image(
        &self,
        when: SystemTime,
        fill: impl FnOnce(&File) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (file, path) = (self.make_file(0)?, self.image());
        fill(&file)?;
        file.set_modified(when).map_err(Fault::file("set the time of", &path))?;
        file.sync_all().map_err(Fault::file("flush", &path))
    }

    /// Makes the data by filling and flushing a folder under another name, of which nothing is left if that fails.
    pub(crate) fn make_whole(&self, fill: impl FnOnce(&Self) -> Result<(), Fault>) -> Result<(), Fault> {
        make_root(&self.root)?;
        let new = Self::new(&self.root, &format!("{NEW}{}", self.volume));
        remove(&new.folder())?;
        let made = make_folder(&new.folder(), 0o700).and_then(|()| {
            fill(&new)?;
            flush(&new.folder())?;
            let folder = self.folder();
            fs::rename(new.folder(), &folder).map_err(Fault::file("make", &folder))?;
            flush(&self.root)
        });
        if made.is_err() {
            // What is left may be what filled the disk.
            remove(&new.folder())?;
        }
        made
    }

    /// Says, for whoever comes after a crash, that the mounted image may be held still by us.
    pub(crate) fn frozen(&self) -> PathBuf {
        self.folder().join("frozen")
    }

    /// Makes the folder that pods see in a mounted image.
    pub(crate) fn make_inside(&self) -> Result<PathBuf, Fault> {
        let inside = self.inside();
        if !inside.exists() {
            make_open(&inside)?;
        }
        Ok(inside)
    }

    /// Lets the image's file have at least so many bytes.
    pub(crate) fn enlarge(&self, bytes: u64) -> Result<(), Fault> {
        let path = self.image();
        let file = File::options().read(true).write(true).open(&path).map_err(Fault::file("open", &path))?;
        if file.metadata().map_err(Fault::file("look at", &path))?.len() < bytes {
            file.set_len(bytes).map_err(Fault::file("size", &path))?;
            file.sync_all().map_err(Fault::file("flush", &path))?;
        }
        Ok(())
    }

    /// The blocks of the file system in the image.
    pub(crate) fn blocks(&self) -> Result<u64, Fault> {
        let path = self.image();
        let mut number = [0; 4];
        let file = File::open(&path).map_err(Fault::file("open", &path))?;
        file.read_exact_at(&mut number, 1024 + 4).map_err(Fault::file("read", &path))?;
        Ok(u32::from_le_bytes(number).into())
    }

    /// Lets the file system take all of its file, without the kernel's help: it must not be mounted. What is overwritten is
    /// kept in a file meanwhile, so that a crash can be undone.
    pub(crate) fn grow_unmounted(&self, bytes: u64) -> Result<(), Fault> {
        let path = self.image();
        let file = File::options().read(true).write(true).open(&path).map_err(Fault::file("open", &path))?;
        let failed = || Fault::file("grow the file system in", &path);
        let writes = ext4::prepare_growth(&file, bytes).map_err(failed())?;
        let mut before: Vec<ext4::Write> = Vec::new();
        for (at, text) in &writes {
            let mut old = vec![0; text.len()];
            file.read_exact_at(&mut old, *at).map_err(failed())?;
            before.push((*at, old));
        }
        let undo = self.undo();
        let draft = undo.with_extension("new");
        let kept = File::create(&draft).map_err(Fault::file("make", &draft))?;
        let mut text = Vec::new();
        for (at, old) in &before {
            text.extend(at.to_le_bytes());
            text.extend((old.len() as u64).to_le_bytes());
            text.extend(old);
        }
        let written = kept.write_all_at(&text, 0).and_then(|()| kept.sync_all());
        written.and_then(|()| fs::rename(&draft, &undo)).map_err(Fault::file("write", &undo))?;
        flush(&self.folder())?;
        for (at, text) in &writes {
            file.write_all_at(text, *at).map_err(failed())?;
        }
        file.sync_all().map_err(failed())?;
        fs::remove_file(&undo).map_err(Fault::file("remove", &undo))
    }

    fn undo(&self) -> PathBuf {
        self.folder().join("undo")
    }

    /// Takes back a growth that a crash cut short. The image must not be mounted.
    pub(crate) fn mend(&self) -> Result<(), Fault> {
        let undo = self.undo();
        let text = match fs::read(&undo) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            text => text.map_err(Fault::file("read", &undo))?,
        };
        let path = self.image();
        let file = File::options().write(true).open(&path).map_err(Fault::file("open", &path))?;
        let mut rest = text.as_slice();
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
        while let Some((head, tail)) = rest.split_at_checked(16) {
            let Some((old, next)) = tail.split_at_checked(number(&head[8..]) as usize) else { break };
            file.write_all_at(old, number(&head[..8])).map_err(Fault::file("mend", &path))?;
            rest = next;
        }
        file.sync_all().map_err(Fault::file("mend", &path))?;
        fs::remove_file(&undo).map_err(Fault::file("remove", &undo))
    }

    /// Deletes everything. Nothing must be mounted.
    pub(crate) fn delete(&self) -> Result<(), Fault> {
        let (folder, gone) = (self.folder(), self.root.join(format!("{GONE}{}", self.volume)));
        remove(&gone)?;
        match fs::rename(&folder, &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(Fault::file("remove", &folder))?,
        }
        flush(&self.root)?;
        remove(&gone)
    }
}

/// Where snapshots are.
pub(crate) fn snapshots(root: &Path) -> PathBuf {
    root.join(SNAPSHOTS)
}

/// The folders of volumes or snapshots, whole or not.
pub(crate) fn folders(root: &Path) -> Result<Vec<String>, Fault> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Fault::file("list", root))?,
    };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    Ok(names.filter(|name| name != SNAPSHOTS).collect())
}

/// The volume of a folder, and whether a crash left it half made or half deleted.
pub(crate) fn volume_of(folder: &str) -> (&str, bool) {
    match folder.strip_prefix(NEW).or_else(|| folder.strip_prefix(GONE)) {
        Some(volume) => (volume, true),
        None => (folder, false),
    }
}

/// The folder of all volumes. Nobody but root may pass: what is inside has whatever modes its pods give it.
pub(crate) fn make_root(root: &Path) -> Result<(), Fault> {
    if root.exists() { Ok(()) } else { make_folder(root, 0o700) }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Fault> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(Fault::file("make directory", path))
}

/// A folder that whoever gets to see it may write.
pub(crate) fn make_open(path: &Path) -> Result<(), Fault> {
    make_folder(path, 0o777)?;
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(path, open).map_err(Fault::file("set the mode of", path))
}

pub(crate) fn remove(path: &Path) -> Result<(), Fault> {
    match sys::remove_tree(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn flush(folder: &Path) -> Result<(), Fault> {
    let flushed = File::open(folder).and_then(|f| f.sync_all());
    flushed.map_err(Fault::file("flush", folder))
}
