//! Copies of images: snapshots of volumes, and volumes that begin as a snapshot or as another volume.
//!
//! ```text
//! volumes/<volume>/image ──snapshot──► volumes/.snapshots/<snapshot>/image ──restore──► volumes/<other>/image
//!            └────────────────────────────clone──────────────────────────────────────► volumes/<other>/image
//! ```
//!
//! A mounted image is held still while it is copied. Where files can share blocks that takes no time; elsewhere whoever
//! writes to it waits for as long as its data take to be copied.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::data::{self, Data};
use super::folders;
use super::source::{Kind, Origin, Source, Wanted};
use super::store::Store;
use crate::error::Fault;
use crate::mounts::{is_mounted, is_plain};

/// A snapshot that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) bytes: u64,
    /// When it was taken.
    pub(crate) when: SystemTime,
}

impl Store {
    fn snapshot_data(&self, snapshot: &str) -> Result<Data, Fault> {
        if is_plain(snapshot) && !snapshot.starts_with('.') {
            Ok(Data::of_snapshot(&self.root, snapshot))
        } else {
            Err(Fault::Path(snapshot.to_owned()))
        }
    }

    /// The snapshot of this name, if it is there.
    pub(crate) fn taken(&self, snapshot: &str) -> Result<Option<Taken>, Fault> {
        let data = self.snapshot_data(snapshot)?;
        let image = data.image();
        let meta = match fs::metadata(&image) {
            Err(error) if error.kind() == ErrorKind::NotFound => return folders::taken(&data),
            meta => meta.map_err(Fault::file("look at", &image))?,
        };
        let when = meta.modified().map_err(Fault::file("look at", &image))?;
        Ok(Some(Taken { bytes: meta.len(), when }))
    }

    /// Takes a snapshot of a volume, unless it is there: later looks do not make it younger. `now` is in seconds since
    /// 1970.
    pub(crate) fn take(&self, wanted: &Wanted, snapshot: &str, now: u32) -> Result<Taken, Fault> {
        let Source::Own(kind) = wanted.source else { return Err(Fault::Kind("local".into())) };
        let ends = || self.is_ending();
        let (from, to) = (self.data(&wanted.volume)?, self.snapshot_data(snapshot)?);
        self.make_copy(wanted, now)?;
        // It may be that no pod has come yet.
        self.make_empty(wanted, now)?;
        self.both(&source_lock(&wanted.volume, Some(kind)), &lock_of(snapshot), || {
            if let Some(taken) = self.taken(snapshot)? {
                return Ok(taken);
            }
            match kind {
                Kind::Image => to.make_whole(|new| copy_into(&from, new, wanted.block, now))?,
                Kind::Directory => folders::snapshot(&from, &to, wanted.bytes, now, &ends)?,
            }
            self.taken(snapshot)?
                .ok_or_else(|| Fault::NoOrigin { what: "snapshot", name: snapshot.to_owned() })
        })
    }

    /// Deletes a snapshot.
    pub(crate) fn delete_snapshot(&self, snapshot: &str) -> Result<(), Fault> {
        let data = self.snapshot_data(snapshot)?;
        let lock = self.lock(&lock_of(snapshot));
        let _held = lock.lock();
        data.delete()
    }

    /// Makes the data of a volume that begins as a copy, unless it is there.
    pub(crate) fn make_copy(&self, wanted: &Wanted, now: u32) -> Result<(), Fault> {
        let Some(origin) = &wanted.origin else { return Ok(()) };
        let to = self.data(&wanted.volume)?;
        let Source::Own(kind) = wanted.source else { return Ok(()) };
        if to.is_there(kind) {
            return Ok(());
        }
        let ends = || self.is_ending();
        let (from, what) = match origin {
            Origin::Snapshot(name) => (self.snapshot_data(name)?, "snapshot"),
            Origin::Volume(name) => (self.data(name)?, "volume"),
        };
        let other = match origin {
            Origin::Snapshot(name) => lock_of(name),
            Origin::Volume(name) => source_lock(name, from.kind()),
        };
        self.both(&wanted.volume, &other, || {
            if to.is_there(kind) {
                return Ok(());
            }
            let name = || from.name().to_owned();
            match (from.kind(), kind) {
                (None, _) => Err(Fault::NoOrigin { what, name: name() }),
                (Some(Kind::Image), Kind::Image) => {
                    let image = from.image();
                    let has = fs::metadata(&image).map_err(Fault::file("look at", &image))?.len();
                    if has > wanted.bytes {
                        return Err(Fault::TooLarge { what, name: name(), has, fits: wanted.bytes });
                    }
                    to.make_whole(|new| copy_into(&from, new, wanted.block, now))
                }
                (Some(was), _) => folders::copy(what, &from, was, &to, wanted, now, &ends),
            }
        })
    }

    /// Makes the empty data of a volume that another one is to be a copy of, and to which no pod has come yet.
    pub(crate) fn make_empty(&self, wanted: &Wanted, now: u32) -> Result<(), Fault> {
        let data = self.data(&wanted.volume)?;
        let lock = self.lock(&wanted.volume);
        let _held = lock.lock();
        match (&wanted.source, &wanted.origin) {
            (Source::Own(kind), None) => data.make(*kind, wanted.bytes, wanted.block, now),
            _ => Ok(()),
        }
    }

    /// Whether a volume's data is there.
    pub(crate) fn has(&self, wanted: &Wanted) -> Result<bool, Fault> {
        let data = self.data(&wanted.volume)?;
        Ok(matches!(wanted.source, Source::Own(kind) if data.is_there(kind)))
    }

    /// Does something while nobody else works on either; everybody takes two locks in the same order.
    fn both<T>(&self, one: &str, other: &str, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        let first_lock = self.lock(first);
        let _first = first_lock.lock();
        let second_lock = (first != second).then(|| self.lock(second));
        let _second = second_lock.as_ref().map(|lock: &std::sync::Arc<Mutex<()>>| lock.lock());
        work()
    }

    /// Clears away what a killed agent has left of snapshots.
    pub(super) fn sweep_snapshots(&self) -> Result<(), Fault> {
        let root = data::snapshots(&self.root);
        for folder in data::folders(&root)? {
            let (snapshot, is_half) = data::volume_of(&folder);
            if is_half {
                let lock = self.lock(&lock_of(snapshot));
                let _held = lock.lock();
                data::remove(&root.join(&folder))?;
            }
        }
        Ok(())
    }
}

/// No volume is called so.
fn lock_of(snapshot: &str) -> String {
    format!(".snapshots/{snapshot}")
}

/// What whoever copies a volume holds. Copying a directory takes its time, and its pods may come and go meanwhile: only
/// nobody may delete it. Every volume's name comes behind this one, so it is taken first.
pub(super) fn source_lock(volume: &str, kind: Option<Kind>) -> String {
    if kind == Some(Kind::Directory) { format!("!{volume}") } else { volume.to_owned() }
}

/// Copies an image that nobody else works on.
pub(super) fn copy_into(from: &Data, new: &Data, block: bool, now: u32) -> Result<(), Fault> {
    let when = UNIX_EPOCH + Duration::from_secs(now.into());
    new.make_image(when, |file| {
        let still = Still::hold(from, block)?;
        let image = from.image();
        let source = File::open(&image).map_err(Fault::file("open", &image))?;
        if !sys::reflink(&source, file)? {
            sys::copy_sparse(&source, file).map_err(Fault::file("copy", &image))?;
        }
        still.end()
    })
}

/// An image in which nothing moves.
struct Still<'a> {
    data: &'a Data,
    ours: bool,
}

impl<'a> Still<'a> {
    fn hold(data: &'a Data, block: bool) -> Result<Self, Fault> {
        let mut still = Self { data, ours: false };
        let Some(device) = sys::find_loop(&data.image())? else {
            // Nobody has it, nor has had since the last crash.
            data.mend()?;
            return Ok(still);
        };
        if block {
            let path = device.path();
            let flushed = File::open(path).and_then(|file| file.sync_all());
            flushed.map_err(Fault::file("flush", path))?;
            return Ok(still);
        }
        let at = data.mount();
        if !is_mounted(&at) {
            return Err(Fault::Leaving(data.name().to_owned()));
        }
        let mark = data.frozen();
        fs::write(&mark, "").map_err(Fault::file("make", &mark))?;
        still.ours = true;
        if !sys::freeze(&at)? {
            // Somebody else holds it still: that will do, and is not ours to end.
            still.ours = false;
            unmark(data)?;
        }
        Ok(still)
    }

    fn end(mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.ours) { thaw(self.data) } else { Ok(()) }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = thaw(self.data)
        {
            tracing::error!(volume = self.data.name(), %error, "a volume stays frozen");
        }
    }
}

/// Lets an image move again that we, or a killed agent, held still.
pub(super) fn thaw(data: &Data) -> Result<(), Fault> {
    if !data.frozen().exists() {
        return Ok(());
    }
    let at = data.mount();
    if is_mounted(&at) {
        sys::thaw(&at)?;
    }
    unmark(data)
}

fn unmark(data: &Data) -> Result<(), Fault> {
    let mark = data.frozen();
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::file("remove", &mark)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
