//! How full file systems and folders are.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a file system has and what is left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

impl FileSystem {
    /// The one that a path lies on.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = nix::sys::statvfs::statvfs(path).ok()?;
        let size = found.fragment_size();
        Some(Self {
            capacity: found.blocks().saturating_mul(size),
            available: found.blocks_available().saturating_mul(size),
            used: found.blocks().saturating_sub(found.blocks_free()).saturating_mul(size),
            inodes: found.files(),
            inodes_free: found.files_free(),
        })
    }
}

/// What a folder takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Extent {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, inodes: self.inodes + other.inodes }
    }

    /// Looks at all that lies below a path on the same file system. Files with several names count once.
    pub(crate) fn of(path: &Path) -> Self {
        let mut sum = Self::default();
        let Ok(top) = path.symlink_metadata() else { return sum };
        let mut seen = std::collections::HashSet::new();
        let mut folders = Vec::new();
        sum.add(&top, &mut seen);
        if top.is_dir() {
            folders.push(path.to_owned());
        }
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                // What goes while it is looked at takes nothing.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.dev() != top.dev() {
                    continue;
                }
                sum.add(&meta, &mut seen);
                if meta.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        sum
    }

    fn add(&mut self, meta: &std::fs::Metadata, seen: &mut std::collections::HashSet<u64>) {
        if !meta.is_dir() && meta.nlink() > 1 && !seen.insert(meta.ino()) {
            return;
        }
        self.bytes += meta.blocks() * 512;
        self.inodes += 1;
    }
}

/// What was measured of a folder, and when.
#[derive(Clone, Copy)]
struct Measured {
    extent: Extent,
    at: Instant,
    /// How long it took.
    cost: Duration,
}

/// Folders' extents, measured anew only now and then: to look at every file takes its time.
#[derive(Clone, Default)]
pub(crate) struct Folders(Arc<Mutex<HashMap<PathBuf, Measured>>>);

/// A folder is not looked at for more than a hundredth of the time.
const SHARE: u32 = 100;

impl Folders {
    /// What folders take, in the order asked for. What was measured within `fresh` is not looked at again, and what
    /// takes long to measure stays for longer.
    pub(crate) async fn measure(&self, paths: Vec<PathBuf>, fresh: Duration) -> Vec<Extent> {
        let this = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            paths.into_iter().map(|path| this.measure_one(path, fresh)).collect()
        });
        // It does not panic, and nobody aborts it.
        work.await.unwrap_or_default()
    }

    fn measure_one(&self, path: PathBuf, fresh: Duration) -> Extent {
        let known = self.0.lock().get(&path).copied();
        if let Some(known) = known
            && known.at.elapsed() < fresh.max(known.cost * SHARE)
        {
            return known.extent;
        }
        let begun = Instant::now();
        let extent = Extent::of(&path);
        let measured = Measured { extent, at: begun, cost: begun.elapsed() };
        self.0.lock().insert(path, measured);
        extent
    }

    /// Forgets what was measured long ago.
    pub(crate) fn forget(&self, age: Duration) {
        self.0.lock().retain(|_, measured| measured.at.elapsed() < age.max(measured.cost * SHARE * 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_all_that_lies_below() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let empty = Extent::of(folder.path());
        assert_eq!(empty.inodes, 1);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("sub/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(at("sub/file"), at("again")).unwrap();
        std::os::unix::fs::symlink("/etc", at("link")).unwrap();
        let full = Extent::of(folder.path());
        // The folder, the one below, a file with two names, and a link that is not followed.
        assert_eq!(full.inodes, 4);
        assert!((100_000..130_000).contains(&(full.bytes - empty.bytes)), "{full:?}");
        assert_eq!(Extent::of(&at("nothing")), Extent::default());
    }

    #[tokio::test]
    async fn what_was_measured_is_kept_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::default();
        let ask = |fresh| folders.measure(vec![folder.path().to_owned()], fresh);
        let first = ask(Duration::from_secs(60)).await[0];
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert_eq!(ask(Duration::from_secs(60)).await[0], first);
        assert_eq!(first.inodes, 1);
        let mut now = first;
        let deadline = Instant::now() + Duration::from_secs(30);
        while now.inodes == 1 && Instant::now() < deadline {
            now = ask(Duration::ZERO).await[0];
        }
        assert_eq!(now.inodes, 2);
        assert!(FileSystem::of(folder.path()).unwrap().capacity > 0);
    }
}
