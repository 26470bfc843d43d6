//! Giving pods their PersistentVolumes, and taking them away. Everything here waits for the kernel or a disk.
//!
//! ```text
//! volumes/<volume>/data                  a directory
//! volumes/<volume>/image ─loop device─► volumes/<volume>/mnt    mounted once for all pods
//!                                            └ bound to pods/<uid>/volumes/<name>
//! pods/<uid>/claims/<name>               says so (record.rs); the last pod's end takes `mnt` away
//! ```

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::Drain;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::copies;
use super::data::{self, Data};
use super::record::{self, Record};
use super::source::{Kind, Source, Wanted};
use crate::error::Fault;
use crate::ext4;
use crate::host_path;
use crate::mounts::{is_mount_point, is_mounted, is_plain};
use crate::ownership::Ownership;

/// How long a file system may take to be unmounted by all who saw it.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Store {
    pub(super) root: PathBuf,
    pods: PathBuf,
    /// One at a time for each volume.
    locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// Ends what takes long.
    drain: OnceLock<Drain>,
}

/// Who gets a volume.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    /// The pod's UID.
    pub(crate) uid: String,
    /// What the pod calls the volume.
    pub(crate) name: String,
    pub(crate) ownership: Ownership,
    /// Seconds since 1970.
    pub(crate) now: u32,
}

impl Store {
    /// `root` is where the data is, `pods` where the pods' folders are.
    pub(crate) fn new(root: PathBuf, pods: PathBuf) -> Self {
        Self { root, pods, locks: Mutex::default(), drain: OnceLock::new() }
    }

    /// Copies of directories end when `drain` starts, and leave nothing.
    pub(crate) fn end_with(&self, drain: Drain) {
        // Once in a process.
        let _ = self.drain.set(drain);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.drain.get().is_some_and(Drain::is_started)
    }

    pub(super) fn lock(&self, volume: &str) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock();
        // Nobody waits for a lock that nobody else holds a reference to.
        locks.retain(|name, lock| name == volume || Arc::strong_count(lock) > 1);
        locks.entry(volume.to_owned()).or_default().clone()
    }

    pub(super) fn data(&self, volume: &str) -> Result<Data, Fault> {
        if is_plain(volume) && !volume.starts_with('.') {
            Ok(Data::new(&self.root, volume))
        } else {
            Err(Fault::Path(volume.to_owned()))
        }
    }

    /// What a pod has already, as an earlier agent left it.
    pub(crate) fn find(&self, uid: &str, name: &str) -> Result<Option<Record>, Fault> {
        let Some(record) = record::read(&self.pods, uid, name) else { return Ok(None) };
        // The machine may have been started anew since.
        let ready = if record.mounted {
            is_mount_point(&record.path)?
        } else if record.device {
            let device = sys::find_loop(&self.data(&record.volume)?.image())?;
            device.is_some_and(|d| d.path() == record.path)
        } else {
            record.path.exists()
        };
        Ok(ready.then_some(record))
    }

    /// Gives a pod a volume.
    pub(crate) fn set_up(&self, wanted: &Wanted, holder: &Holder) -> Result<Record, Fault> {
        let data = self.data(&wanted.volume)?;
        self.make_copy(wanted, holder.now)?;
        let lock = self.lock(&wanted.volume);
        let _held = lock.lock();
        let users = record::users(&self.pods, &wanted.volume)?;
        let others = users.iter().any(|user| *user != holder.uid);
        if wanted.alone && others {
            return Err(Fault::InUseAlone);
        }
        let (from, device) = match &wanted.source {
            Source::HostPath(_) if wanted.block => {
                return Err(Fault::Unsupported {
                    what: "volumeMode of a hostPath volume",
                    text: "Block".into(),
                });
            }
            Source::HostPath(host) => {
                let path = host_path::set_up(host)?;
                return self.note(wanted, holder, path, false, false);
            }
            Source::Local { path, fs_type } => (self.local(&data, wanted, path, fs_type.as_deref())?, false),
            Source::Own(kind) => {
                // An empty one instead of a copy would be worse than none.
                if wanted.origin.is_some() && !data.is_there(*kind) {
                    return Err(Fault::NoOrigin { what: "the data of volume", name: wanted.volume.clone() });
                }
                data.make(*kind, wanted.bytes, wanted.block, holder.now)?;
                (self.own(&data, wanted, *kind)?, wanted.block)
            }
        };
        if wanted.block {
            return self.note(wanted, holder, from, false, device);
        }
        // Others may be at work in it: a local volume is given away only once.
        let given = others && matches!(wanted.source, Source::Local { .. });
        if !wanted.read_only && !given {
            holder.ownership.apply(&from)?;
        }
        let target = self.pods.join(&holder.uid).join("volumes").join(&holder.name);
        let record = self.note(wanted, holder, target.clone(), true, false)?;
        if !is_mount_point(&target)? {
            fs::create_dir_all(&target).map_err(Fault::file("make directory", &target))?;
            let from = sys::open_folder(&from)?;
            sys::bind_handle(from.as_fd(), &target)?;
        }
        Ok(record)
    }

    fn note(
        &self,
        wanted: &Wanted,
        holder: &Holder,
        path: PathBuf,
        mounted: bool,
        device: bool,
    ) -> Result<Record, Fault> {
        let (volume, read_only) = (wanted.volume.clone(), wanted.read_only);
        let record = Record { volume, path, read_only, mounted, device };
        record::write(&self.pods, &holder.uid, &holder.name, &record)?;
        Ok(record)
    }

    /// A directory as it is; a device, mounted (kubernetes/kubernetes, `pkg/volume/local/local.go`).
    fn local(
        &self,
        data: &Data,
        wanted: &Wanted,
        path: &Path,
        fs_type: Option<&str>,
    ) -> Result<PathBuf, Fault> {
        let Ok(meta) = fs::metadata(path) else { return Err(Fault::NoPath(path.display().to_string())) };
        let is_device = meta.file_type().is_block_device();
        if (wanted.block && is_device) || (!wanted.block && meta.is_dir()) {
            return Ok(path.to_owned());
        }
        if !is_device {
            let what = if wanted.block { "a block device" } else { "a directory or a block device" };
            return Err(Fault::NotA { path: path.display().to_string(), what });
        }
        data::make_root(&self.root)?;
        let at = data.mount();
        fs::create_dir_all(&at).map_err(Fault::file("make directory", &at))?;
        if !is_mounted(&at) {
            let kind = fs_type.filter(|f| !f.is_empty()).unwrap_or("ext4");
            sys::mount_device(path, &at, kind, &wanted.options, wanted.read_only)?;
        }
        Ok(at)
    }

    fn own(&self, data: &Data, wanted: &Wanted, kind: Kind) -> Result<PathBuf, Fault> {
        if kind == Kind::Directory {
            return if wanted.block {
                Err(Fault::Unsupported { what: "volumeMode of a directory", text: "Block".into() })
            } else {
                Ok(data.directory())
            };
        }
        let image = data.image();
        data.enlarge(wanted.bytes)?;
        if wanted.block {
            // After a restart of the machine nothing is attached, and somebody's device may have this number.
            if let Some(device) = sys::find_loop(&image)? {
                sys::refresh_loop(device.path())?;
                return Ok(device.path().to_owned());
            }
            return Ok(sys::attach_loop(&image, false, true)?.path().to_owned());
        }
        let fresh = self.mount(data, wanted)?;
        // One that nobody has yet can be grown in either way.
        if !self.fill(data, wanted.bytes)? && fresh && self.unmount(data)? {
            if let Err(error) = data.grow_unmounted(wanted.bytes) {
                tracing::warn!(volume = wanted.volume, %error, "a volume keeps its old size");
            }
            self.mount(data, wanted)?;
        }
        data.make_inside()
    }

    /// Mounts an image, if it is not.
    fn mount(&self, data: &Data, wanted: &Wanted) -> Result<bool, Fault> {
        let (at, image) = (data.mount(), data.image());
        fs::create_dir_all(&at).map_err(Fault::file("make directory", &at))?;
        if is_mounted(&at) {
            return Ok(false);
        }
        // One that a container still sees is the same file system, and must not be mounted by another device.
        let device = match sys::find_loop(&image)? {
            Some(device) => device,
            None => {
                data.mend()?;
                sys::attach_loop(&image, false, false)?
            }
        };
        // What is deleted inside is given back to the disk.
        let mut options = vec!["discard".to_owned()];
        options.extend(wanted.options.iter().cloned());
        sys::mount_device(device.path(), &at, "ext4", &options, false)?;
        Ok(true)
    }

    /// Takes an image's mount away; true once nobody at all sees it any more.
    fn unmount(&self, data: &Data) -> Result<bool, Fault> {
        copies::thaw(data)?;
        while sys::detach(&data.mount())? {}
        let deadline = Instant::now() + PATIENCE;
        while sys::find_loop(&data.image())?.is_some() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(true)
    }

    /// Lets a mounted image's file system take all of its file; false where the kernel does not let us.
    fn fill(&self, data: &Data, bytes: u64) -> Result<bool, Fault> {
        let wanted = ext4::blocks(bytes);
        if data.blocks()? >= wanted {
            return Ok(true);
        }
        if let Some(device) = sys::find_loop(&data.image())? {
            sys::refresh_loop(device.path())?;
        }
        match sys::grow_ext4(&data.mount(), wanted) {
            // Not even root may in some containers.
            Err(error) if error.is_refused() => Ok(false),
            grown => grown.map(|()| true).map_err(Into::into),
        }
    }

    /// Gives a volume that some pod has so many bytes; false if that has to wait until no pod has it.
    pub(crate) fn grow(&self, wanted: &Wanted) -> Result<bool, Fault> {
        let data = self.data(&wanted.volume)?;
        let lock = self.lock(&wanted.volume);
        let _held = lock.lock();
        if wanted.source != Source::Own(Kind::Image) {
            return Ok(true);
        }
        data.enlarge(wanted.bytes)?;
        if wanted.block {
            if let Some(device) = sys::find_loop(&data.image())? {
                sys::refresh_loop(device.path())?;
            }
            return Ok(true);
        }
        self.fill(&data, wanted.bytes)
    }

    /// Forgets what a pod had, of which nothing is mounted any more, and takes away what nobody else has.
    pub(crate) fn tear_down(&self, uid: &str) -> Result<(), Fault> {
        let mut volumes: Vec<_> = record::of_pod(&self.pods, uid)?.into_iter().map(|r| r.volume).collect();
        volumes.sort();
        volumes.dedup();
        let locks: Vec<_> = volumes.iter().map(|v| self.lock(v)).collect();
        // Always in the same order.
        let _held: Vec<_> = locks.iter().map(|l| l.lock()).collect();
        record::remove(&self.pods, uid)?;
        for volume in &volumes {
            if record::users(&self.pods, volume)?.is_empty() {
                self.release(&self.data(volume)?)?;
            }
        }
        Ok(())
    }

    /// Takes a volume's mount and its device away.
    fn release(&self, data: &Data) -> Result<(), Fault> {
        copies::thaw(data)?;
        while sys::detach(&data.mount())? {}
        if let Some(device) = sys::find_loop(&data.image())? {
            sys::detach_loop(device.path())?;
        }
        Ok(())
    }

    /// Deletes a volume's data, which no pod may have.
    pub(crate) fn delete(&self, volume: &str) -> Result<(), Fault> {
        let data = self.data(volume)?;
        let copied = self.lock(&copies::source_lock(volume, Some(Kind::Directory)));
        let _copied = copied.lock();
        let lock = self.lock(volume);
        let _held = lock.lock();
        if !record::users(&self.pods, volume)?.is_empty() {
            return Err(Fault::InUse(volume.to_owned()));
        }
        self.release(&data)?;
        if is_mounted(&data.mount()) {
            return Err(Fault::Mounted(data.mount().display().to_string()));
        }
        data.delete()
    }

    /// Puts in order what an agent left that was killed.
    pub(crate) fn sweep(&self) -> Result<(), Fault> {
        for folder in data::folders(&self.root)? {
            let (volume, is_half) = data::volume_of(&folder);
            // Pods may be at work already.
            let lock = self.lock(volume);
            let _held = lock.lock();
            if is_half {
                data::remove(&self.root.join(&folder))?;
                continue;
            }
            let data = self.data(volume)?;
            copies::thaw(&data)?;
            if record::users(&self.pods, volume)?.is_empty() {
                self.release(&data)?;
            }
        }
        self.sweep_snapshots()
    }
}

/// Takes away all mounts and devices of the volumes below a data directory, whoever has them; the data stays.
///
/// # Errors
/// When something stays: what is below must not be deleted then.
pub fn release_all(data_dir: &Path) -> Result<(), Fault> {
    let (root, pods) = (data_dir.join("volumes"), data_dir.join("pods"));
    for volume in data::folders(&root)? {
        // What is held still would stay for good, and seen by nobody.
        copies::thaw(&Data::new(&root, &volume))?;
    }
    crate::unmount_below(&pods)?;
    crate::unmount_below(&root)?;
    for volume in data::folders(&root)? {
        if let Some(device) = sys::find_loop(&Data::new(&root, &volume).image())? {
            sys::detach_loop(device.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(super) mod tests;
