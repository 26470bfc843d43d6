//! Loop devices, and file systems on block devices.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::error::{Attempt, Error, Result};
use crate::mount::make_node;

// `linux/loop.h`.
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LOOP_MAJOR: u64 = 7;
// `fs/ext4/ext4.h`: `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
// `linux/fs.h`: `_IOW(0x94, 9, int)`.
const FICLONE: libc::c_ulong = 0x4004_9409;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A block device that shows a file. It stays while this value lives, while it is mounted, and, if it was attached to
/// stay, until [`detach_loop`].
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Such as `/dev/loop0`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Shows the file `image` as a block device, which goes with its last user unless it is to `stay`.
pub fn attach_loop(image: &Path, readonly: bool, stay: bool) -> Result<LoopDevice> {
    let file = OpenOptions::new().read(true).write(!readonly).open(image);
    let file = file.attempt("open", || image.display().to_string())?;
    let control = Path::new("/dev/loop-control");
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(control)
        .attempt("open", || control.display().to_string())?;
    let flags = if readonly { LO_FLAGS_READ_ONLY } else { 0 } | if stay { 0 } else { LO_FLAGS_AUTOCLEAR };
    loop {
        // SAFETY: LOOP_CTL_GET_FREE takes nothing and gives a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(Error::last("find", "a free loop device"));
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        if !path.exists() {
            match make_node(&path, 'b', LOOP_MAJOR, number as u64, 0o660) {
                // The kernel was faster.
                Err(error) if error.errno() == Some(libc::EEXIST) => {}
                made => made?,
            }
        }
        let device = OpenOptions::new().read(true).write(!readonly).open(&path);
        let device = device.attempt("open", || path.display().to_string())?;
        let config = LoopConfig {
            fd: file.as_raw_fd() as u32,
            block_size: 0,
            info: LoopInfo { flags, ..NO_INFO },
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads a `struct loop_config`.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok(LoopDevice { path, _open: device });
        }
        let error = Error::last("attach", format!("{} to {}", image.display(), path.display()));
        // Somebody else has taken it in between.
        if error.errno() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
}

/// The block device that shows the file `image`, if one does. It stays at least as long as the answer.
pub fn find_loop(image: &Path) -> Result<Option<LoopDevice>> {
    let meta = match fs::metadata(image) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        meta => meta.attempt("look at", || image.display().to_string())?,
    };
    let listed = fs::read_dir("/sys/block").attempt("list", || "/sys/block".into())?;
    for entry in listed.flatten() {
        // Only those that show something have it.
        if !entry.file_name().as_encoded_bytes().starts_with(b"loop") || !entry.path().join("loop").exists() {
            continue;
        }
        let path = Path::new("/dev").join(entry.file_name());
        let Ok(device) = File::open(&path) else { continue };
        let mut info = NO_INFO;
        // SAFETY: LOOP_GET_STATUS64 writes a `struct loop_info64`.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) } == 0
            && (info.device, info.inode) == (meta.dev(), meta.ino())
        {
            return Ok(Some(LoopDevice { path, _open: device }));
        }
    }
    Ok(None)
}

/// Tells a loop device that its file has grown.
pub fn refresh_loop(device: &Path) -> Result<()> {
    let file = File::open(device).attempt("open", || device.display().to_string())?;
    // SAFETY: LOOP_SET_CAPACITY takes nothing.
    if unsafe { libc::ioctl(file.as_raw_fd(), LOOP_SET_CAPACITY, 0) } == 0 {
        return Ok(());
    }
    Err(Error::last("grow", device.display().to_string()))
}

/// Ends a loop device; one that is still open goes with its last user.
pub fn detach_loop(device: &Path) -> Result<()> {
    let file = File::open(device).attempt("open", || device.display().to_string())?;
    // SAFETY: LOOP_CLR_FD takes nothing.
    if unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CLR_FD, 0) } == 0 {
        return Ok(());
    }
    let error = Error::last("detach", device.display().to_string());
    // Nothing was attached.
    if error.errno() == Some(libc::ENXIO) { Ok(()) } else { Err(error) }
}

/// Mounts the file system `kind` of the block device `source` on `target`. Options are those of `mount -o`.
pub fn mount_device(
    source: &Path,
    target: &Path,
    kind: &str,
    options: &[String],
    readonly: bool,
) -> Result<()> {
    let mut flags = if readonly { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let mut data: Vec<&str> = Vec::new();
    for option in options.iter().flat_map(|o| o.split(',')).filter(|o| !o.is_empty()) {
        match flag_of(option) {
            Some((flag, on)) => flags.set(flag, on),
            None => data.push(option),
        }
    }
    let data = data.join(",");
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(source), target, Some(kind), flags, data)
        .attempt("mount", || format!("{} ({kind}) on {}", source.display(), target.display()))
}

/// Options that are flags of the call, not of the file system: which, and whether on or off.
fn flag_of(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "lazytime" => (MsFlags::MS_LAZYTIME, true),
        "defaults" => (MsFlags::empty(), true),
        _ => return None,
    })
}

/// Lets the ext4 file system that is mounted on `at` take `blocks` of its blocks.
pub fn grow_ext4(at: &Path, blocks: u64) -> Result<()> {
    let file = File::open(at).attempt("open", || at.display().to_string())?;
    // SAFETY: EXT4_IOC_RESIZE_FS reads a `__u64`.
    if unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) } == 0 {
        return Ok(());
    }
    Err(Error::last("grow the file system on", at.display().to_string()))
}

/// Lets the empty file `to` share all blocks of `from`; `false` where the file system cannot.
pub fn reflink(from: &File, to: &File) -> Result<bool> {
    // SAFETY: FICLONE takes a descriptor.
    if unsafe { libc::ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) } == 0 {
        return Ok(true);
    }
    let error = Error::last("clone", "a file");
    match error.errno() {
        Some(libc::EOPNOTSUPP | libc::EXDEV | libc::EINVAL | libc::ENOTTY) => Ok(false),
        _ => Err(error),
    }
}

/// Opens a folder and flushes the whole file system that it is on.
pub fn sync_fs(at: &Path) -> Result<()> {
    let file = File::open(at).attempt("open", || at.display().to_string())?;
    // SAFETY: takes a descriptor.
    if unsafe { libc::syncfs(file.as_raw_fd()) } == 0 {
        return Ok(());
    }
    Err(Error::last("flush the file system of", at.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_the_kernel_has_them() {
        assert_eq!((size_of::<LoopInfo>(), size_of::<LoopConfig>()), (232, 304));
    }

    #[test]
    fn devices_show_files() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, [7; 8192]).unwrap();
        assert!(find_loop(&image).unwrap().is_none());
        let device = attach_loop(&image, false, false).unwrap();
        let found = find_loop(&image).unwrap().unwrap();
        assert_eq!(found.path(), device.path());
        assert_eq!(fs::read(device.path()).unwrap(), [7; 8192]);
        OpenOptions::new().write(true).open(&image).unwrap().set_len(16384).unwrap();
        refresh_loop(device.path()).unwrap();
        assert_eq!(fs::read(device.path()).unwrap().len(), 16384);
        drop((device, found));
        let kept = attach_loop(&image, true, true).unwrap().path().to_owned();
        assert_eq!(find_loop(&image).unwrap().unwrap().path(), kept);
        let mounted = mount_device(&kept, folder.path(), "ext4", &["noatime,discard".into()], true);
        assert!(mounted.unwrap_err().to_string().contains("(ext4) on"));
        detach_loop(&kept).unwrap();
        assert!(find_loop(&folder.path().join("absent")).unwrap().is_none());
    }
}
