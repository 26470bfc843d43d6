//! What it takes to copy a file system that is in use: to hold it still, and to copy a file without its holes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::unistd::{Whence, lseek};

use crate::error::{Attempt, Error, Result};

// `linux/fs.h`: `_IOWR('X', 119, int)` and the next.
const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;

/// How much is copied at a time.
const PIECE: usize = 1 << 20;

/// Writes out the file system that is mounted on `at` and lets all who write to it wait until [`thaw`]. `false` if
/// somebody holds it still already. Its freeze outlives this process.
pub fn freeze(at: &Path) -> Result<bool> {
    let file = File::open(at).attempt("open", || at.display().to_string())?;
    // SAFETY: FIFREEZE looks at no argument.
    if unsafe { libc::ioctl(file.as_raw_fd(), FIFREEZE, 0) } == 0 {
        return Ok(true);
    }
    let error = Error::last("freeze the file system on", at.display().to_string());
    if error.errno() == Some(libc::EBUSY) { Ok(false) } else { Err(error) }
}

/// Ends a freeze; `false` if there was none.
pub fn thaw(at: &Path) -> Result<bool> {
    let file = File::open(at).attempt("open", || at.display().to_string())?;
    // SAFETY: FITHAW looks at no argument.
    if unsafe { libc::ioctl(file.as_raw_fd(), FITHAW, 0) } == 0 {
        return Ok(true);
    }
    let error = Error::last("thaw the file system on", at.display().to_string());
    if error.errno() == Some(libc::EINVAL) { Ok(false) } else { Err(error) }
}

/// Copies what is in a file into an empty one, and leaves its holes out. Both end up equally long.
pub fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while let Some(data) = seek(from, at, Whence::SeekData)? {
        let hole = seek(from, data, Whence::SeekHole)?.unwrap_or(length).min(length);
        at = data;
        while at < hole {
            let most = usize::try_from(hole - at).map_or(PIECE, |left| left.min(PIECE));
            let read = from.read_at(&mut buffer[..most], at)?;
            if read == 0 {
                // It was cut short meanwhile.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}

/// The next place of the kind; none behind the last one.
fn seek(file: &File, from: u64, what: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match lseek(file, from, what) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(nix::Error::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn holes_stay_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut from = File::create_new(path("from")).unwrap();
        from.set_len(64 << 20).unwrap();
        // More than a piece, not at its border, and the very end.
        for (at, len) in [(0, 1), (8 << 20, PIECE + 12345), ((64 << 20) - 5, 5)] {
            from.seek(SeekFrom::Start(at as u64)).unwrap();
            from.write_all(&vec![7; len]).unwrap();
        }
        let from = File::open(path("from")).unwrap();
        copy_sparse(&from, &File::create_new(path("to")).unwrap()).unwrap();
        assert!(fs::read(path("from")).unwrap() == fs::read(path("to")).unwrap());
        let taken = fs::metadata(path("to")).unwrap().blocks() * 512;
        assert!(taken < 8 << 20, "{taken} bytes on the disk");
        copy_sparse(&File::create_new(path("empty")).unwrap(), &File::create_new(path("none")).unwrap())
            .unwrap();
        assert_eq!(fs::metadata(path("none")).unwrap().len(), 0);
    }
}
