use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

/// Stacks `upper` over `lower` (the top first) and gives the root of the result.
///
/// The mount hangs nowhere: no other process sees it, and it is gone with the descriptor, even after a crash.
pub(crate) fn mount(lower: &[impl AsRef<Path>], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    set_lower(&fs, lower)?;
    fsconfig_set_string(&fs, "upperdir", upper)?;
    fsconfig_set_string(&fs, "workdir", work)?;
    // What a layer cannot carry must not end up in it.
    for (option, value) in [("redirect_dir", "off"), ("index", "off"), ("metacopy", "off")] {
        fsconfig_set_string(&fs, option, value)?;
    }
    fsconfig_create(&fs)?;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn set_lower(fs: &OwnedFd, lower: &[impl AsRef<Path>]) -> io::Result<()> {
    for (at, dir) in lower.iter().enumerate() {
        match fsconfig_set_string(fs, "lowerdir+", dir.as_ref()) {
            // Kernels before 6.5 take all of them in one string, of at most 255 bytes.
            Err(Errno::INVAL) if at == 0 => return set_lower_at_once(fs, lower),
            other => other?,
        }
    }
    Ok(())
}

fn set_lower_at_once(fs: &OwnedFd, lower: &[impl AsRef<Path>]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let dirs =
        lower.iter().map(|dir| crate::fsutil::open_root(dir.as_ref())).collect::<io::Result<Vec<_>>>()?;
    let short: Vec<String> = dirs.iter().map(|dir| format!("/proc/self/fd/{}", dir.as_raw_fd())).collect();
    Ok(fsconfig_set_string(fs, "lowerdir", short.join(":"))?)
}
