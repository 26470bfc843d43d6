//! Copies of what is kept in directories, and from directories to images and back.
//!
//! ```text
//! volumes/<volume>/data ──snapshot──► volumes/.snapshots/<snapshot>/data, about ──restore──► volumes/<other>/data
//! ```
//!
//! Nobody can hold a directory still: its files are copied one after the other while pods go on writing.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::copies::{self, Taken};
use super::data::{self, Data};
use super::source::{Kind, Source, Wanted};
use super::tree;
use crate::error::Fault;

/// Whether the agent ends.
type Ends<'a> = &'a dyn Fn() -> bool;

/// What a directory does not say of itself.
#[derive(Serialize, Deserialize)]
struct About {
    /// What its volume had been promised.
    bytes: u64,
    /// Since 1970.
    seconds: u64,
}

fn about(snapshot: &Data) -> PathBuf {
    snapshot.folder().join("about")
}

/// What there is to say of a snapshot of a directory, if it is there.
pub(super) fn taken(snapshot: &Data) -> Result<Option<Taken>, Fault> {
    let path = about(snapshot);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Fault::file("read", &path))?,
    };
    let about: About = serde_json::from_slice(&text)
        .map_err(|error| Fault::file("read", &path)(std::io::Error::new(ErrorKind::InvalidData, error)))?;
    Ok(Some(Taken { bytes: about.bytes, when: UNIX_EPOCH + Duration::from_secs(about.seconds) }))
}

/// Takes a snapshot of a directory that was promised `bytes`.
pub(super) fn snapshot(from: &Data, to: &Data, bytes: u64, now: u32, ends: Ends<'_>) -> Result<(), Fault> {
    to.make_whole(|new| {
        copy_folder(from, new, ends)?;
        let (path, text) = (about(new), About { bytes, seconds: now.into() });
        fs::write(&path, serde_json::to_vec(&text).unwrap_or_default())
            .map_err(Fault::file("write", &path))?;
        Ok(sys::sync_fs(&new.folder())?)
    })
}

/// Lets a volume begin as a copy, where one of the two is a directory. `what` and `from` are what errors name.
pub(super) fn copy(
    what: &'static str,
    from: &Data,
    kind: Kind,
    to: &Data,
    wanted: &Wanted,
    now: u32,
    ends: Ends<'_>,
) -> Result<(), Fault> {
    let name = || from.name().to_owned();
    match kind {
        Kind::Directory if wanted.block => Err(Fault::NoDevice { what, name: name() }),
        Kind::Directory if wanted.source == Source::Own(Kind::Directory) => to.make_whole(|new| {
            copy_folder(from, new, ends)?;
            Ok(sys::sync_fs(&new.folder())?)
        }),
        Kind::Directory => to.make_whole(|new| {
            new.make_file_system(wanted.bytes, now)?;
            match into_image(from, new, ends) {
                Err(Fault::File { source, .. }) if source.kind() == ErrorKind::StorageFull => {
                    Err(Fault::TooMuch { what, name: name(), fits: wanted.bytes })
                }
                copied => copied,
            }
        }),
        // Its journal may have to be read, and a snapshot does not change: hence by way of a copy.
        Kind::Image => to.make_whole(|new| {
            copies::copy_into(from, new, wanted.block, now)?;
            out_of_image(new, ends)?;
            fs::remove_file(new.image()).map_err(Fault::file("remove", &new.image()))?;
            Ok(sys::sync_fs(&new.folder())?)
        }),
    }
}

fn copy_folder(from: &Data, new: &Data, ends: Ends<'_>) -> Result<(), Fault> {
    let (path, copy) = (from.directory(), new.directory());
    let source = tree::source(&path)?;
    data::make_open(&copy)?;
    tree::copy(source.as_fd(), sys::open_folder(&copy)?.as_fd(), &path, ends)
}

fn into_image(from: &Data, new: &Data, ends: Ends<'_>) -> Result<(), Fault> {
    let path = from.directory();
    let source = tree::source(&path)?;
    let (_mounted, inside) = open_image(new)?;
    tree::copy(source.as_fd(), sys::open_folder(&inside)?.as_fd(), &path, ends)?;
    sys::sync_fs(&inside)?;
    Ok(())
}

fn out_of_image(new: &Data, ends: Ends<'_>) -> Result<(), Fault> {
    let copy = new.directory();
    let (_mounted, inside) = open_image(new)?;
    let source = sys::open_folder(&inside)?;
    data::make_open(&copy)?;
    tree::copy(source.as_fd(), sys::open_folder(&copy)?.as_fd(), &inside, ends)
}

/// What pods see of an image, mounted where nobody finds it, and for as long as the first value lives: a killed agent leaves
/// neither mount nor device.
fn open_image(data: &Data) -> Result<(sys::MountTree, PathBuf), Fault> {
    let device = sys::attach_loop(&data.image(), false, false)?;
    let mounted =
        sys::FsBuilder::new("ext4")?.option("source", device.path())?.mount(sys::MountAttr::default())?;
    let inside = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_fd().as_raw_fd())).join(data::INSIDE);
    if !inside.exists() {
        data::make_open(&inside)?;
    }
    Ok((mounted, inside))
}
