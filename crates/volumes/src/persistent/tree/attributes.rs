//! What a file is besides its contents: owner, mode, times, and extended attributes, of which POSIX ACLs are some.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::fs::{
    self as files, AtFlags, Dev, FileType, Gid, Mode, Statx, StatxFlags, StatxTimestamp, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::itself;

/// The kernel gives no more at a time: names of attributes, or one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LARGEST: usize = 64 << 10;

/// Which file it is. Numbers are given anew to other files, hence also when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

/// What a file is.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) identity: Identity,
    pub(super) kind: FileType,
    pub(super) links: u32,
    /// Of a device node.
    pub(super) device: Dev,
    mode: Mode,
    owner: (Uid, Gid),
    times: Timestamps,
    extended: Vec<(CString, Vec<u8>)>,
}

/// Reads attributes of one file after the other.
pub(super) struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { names: vec![0; LARGEST], value: vec![0; LARGEST] }
    }
}

impl Reader {
    /// Those of what was opened, be it as a mere handle.
    pub(super) fn read(&mut self, handle: BorrowedFd<'_>) -> rustix::io::Result<Attributes> {
        let stat = stat(handle)?;
        let mode = stat.stx_mode.into();
        Ok(Attributes {
            identity: identity(&stat),
            kind: FileType::from_raw_mode(mode),
            links: stat.stx_nlink,
            device: files::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            mode: Mode::from_raw_mode(mode),
            owner: (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid)),
            times: Timestamps {
                last_access: time(&stat.stx_atime),
                last_modification: time(&stat.stx_mtime),
            },
            extended: self.extended(handle)?,
        })
    }

    pub(super) fn identity(&self, handle: BorrowedFd<'_>) -> rustix::io::Result<Identity> {
        Ok(identity(&stat(handle)?))
    }

    fn extended(&mut self, handle: BorrowedFd<'_>) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
        let path = itself(handle);
        let length = match files::listxattr(&path, &mut *self.names) {
            // Not every file system has them.
            Err(Errno::OPNOTSUPP) => 0,
            length => length?,
        };
        let mut all = Vec::new();
        for name in self.names[..length].split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            match files::getxattr(&path, name, &mut *self.value) {
                Ok(length) => all.push((name.to_owned(), self.value[..length].to_vec())),
                // It was taken away meanwhile.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

impl Attributes {
    /// Gives them to what is called `name` in a folder that nobody else knows of.
    pub(super) fn give(&self, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        // A new owner takes away capabilities and set-user-id bits, and an access list changes the mode: hence in this order.
        let (owner, group) = (Some(self.owner.0), Some(self.owner.1));
        files::chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        let path: PathBuf = itself(folder).join(name);
        for (attribute, value) in &self.extended {
            match files::lsetxattr(&path, attribute, value, XattrFlags::empty()) {
                Err(Errno::OPNOTSUPP) if is_label(attribute) => {}
                set => set?,
            }
        }
        if self.kind != FileType::Symlink {
            files::chmodat(folder, name, self.mode, AtFlags::empty())?;
        }
        Ok(files::utimensat(folder, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Whether an attribute is a security module's, which other file systems need not have.
fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.") && name != c"security.capability"
}

fn stat(handle: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    files::statx(handle, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn identity(stat: &Statx) -> Identity {
    Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        born: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
    }
}

fn time(at: &StatxTimestamp) -> Timespec {
    Timespec { tv_sec: at.tv_sec, tv_nsec: at.tv_nsec.into() }
}
