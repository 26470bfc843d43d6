//! Parts of volumes (kubernetes/kubernetes, `pkg/volume/util/subpath/subpath_linux.go`): the path is opened inside
//! the volume, and what was opened is mounted where nobody else can reach, so that nothing changes in between.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Fault;
use crate::mounts::is_plain;

/// The first `most` bytes of the file at `path` in a volume, or less if it is shorter.
///
/// # Errors
/// When it is not there, leads out of the volume, or is no file.
pub fn read_beneath(volume: &Path, path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, ErrorKind, Read};
    use std::os::fd::AsRawFd;
    let of = |error: sys::Error| Error::from_raw_os_error(error.errno().unwrap_or(0));
    let root = sys::open_folder(volume).map_err(of)?;
    let handle = sys::open_beneath(root.as_fd(), path).map_err(of)?;
    // What was opened is looked at before it is read: a FIFO would make us wait.
    let itself = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    if !std::fs::metadata(&itself)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(&itself)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Mounts `sub` of the volume at `volume` on `target`, anew if something is there from an earlier run.
pub(crate) fn bind(volume: &Path, sub: &str, target: PathBuf, writable: bool) -> Result<PathBuf, Fault> {
    let leads_out = |_| Fault::Path(sub.to_owned());
    let root = sys::open_folder(volume)?;
    let handle = if writable {
        // Whoever may write the volume may write its parts.
        let mode = std::fs::metadata(volume).map_err(Fault::file("look at", volume))?.mode() & 0o7777;
        sys::make_beneath(root.as_fd(), Path::new(sub), mode).map_err(leads_out)?
    } else {
        sys::open_beneath(root.as_fd(), Path::new(sub)).map_err(leads_out)?
    };
    while sys::detach(&target)? {}
    // An earlier run may have mounted a file where now is a directory.
    if target.exists() {
        let removed =
            if target.is_dir() { std::fs::remove_dir(&target) } else { std::fs::remove_file(&target) };
        removed.map_err(Fault::file("remove", &target))?;
    }
    sys::bind_handle(handle.as_fd(), &target)?;
    Ok(target)
}

/// Where a part is mounted for a container.
pub(crate) fn target(pod: &Path, volume: &str, container: &str, index: usize) -> Result<PathBuf, Fault> {
    match [volume, container].into_iter().find(|name| !is_plain(name)) {
        Some(name) => Err(Fault::Path(name.to_owned())),
        None => Ok(pod.join("volume-subpaths").join(volume).join(container).join(index.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn parts_are_mounted_and_links_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o2777)).unwrap();
        fs::write(volume.join("a/file"), "inside").unwrap();
        symlink("/etc", volume.join("etc")).unwrap();
        let at = |n: usize| target(&folder.path().join("pod"), "v", "c", n).unwrap();
        let file = bind(&volume, "a/file", at(0), true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "inside");
        let made = bind(&volume, "new/dir", at(1), true).unwrap();
        assert!(made.is_dir() && volume.join("new/dir").is_dir());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode();
        assert_eq!(mode(&made), mode(&volume));
        // Again, and as something else.
        assert!(bind(&volume, "a", at(0), true).unwrap().join("file").exists());
        for bad in ["etc", "etc/passwd", "../x"] {
            assert!(matches!(bind(&volume, bad, at(2), true), Err(Fault::Path(_))), "{bad}");
        }
        assert!(bind(&volume, "absent", at(2), false).is_err());
        assert!(target(folder.path(), "..", "c", 0).is_err());
        crate::unmount_below(folder.path()).unwrap();
        fs::remove_dir_all(folder.path().join("pod")).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a/file")).unwrap(), "inside");
    }

    #[test]
    fn nobody_is_quick_enough_to_lead_us_out() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let (volume, outside) = (folder.path().join("v"), folder.path().join("outside"));
        for (place, text) in [(volume.join("x"), "inside"), (outside.clone(), "outside")] {
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("file"), text).unwrap();
        }
        let (link, aside) = (volume.join("link"), volume.join("aside"));
        symlink(&outside, &link).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The folder and the link take turns in having the name.
                while !stop.load(Ordering::Relaxed) {
                    let _ = fs::rename(volume.join("x"), &aside);
                    let _ = fs::rename(&link, volume.join("x"));
                    let _ = fs::rename(volume.join("x"), &link);
                    let _ = fs::rename(&aside, volume.join("x"));
                }
            });
            for n in 0..300 {
                let at = target(&folder.path().join("pod"), "v", "c", n % 3).unwrap();
                if let Ok(bound) = bind(&volume, "x/file", at, false) {
                    assert_eq!(fs::read_to_string(&bound).unwrap(), "inside");
                }
                let read = read_beneath(&volume, Path::new("x/file"), 100);
                assert!(read.is_err() || read.unwrap() == b"inside");
            }
            stop.store(true, Ordering::Relaxed);
        });
        crate::unmount_below(folder.path()).unwrap();
    }
}
