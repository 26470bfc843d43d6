//! What folders take on disk.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a look at a folder serves.
const FRESH: Duration = Duration::from_secs(30);

/// Bytes and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Remembers what was looked at a moment ago: each look visits every file.
#[derive(Clone, Default)]
pub(crate) struct Extents(Arc<Mutex<HashMap<PathBuf, (Instant, Extent)>>>);

impl Extents {
    /// What folders take, in the order asked for.
    pub(crate) async fn of(&self, folders: Vec<PathBuf>) -> Vec<Extent> {
        let all = self.0.clone();
        let look = move || {
            let one = |folder: PathBuf| {
                let known = all.lock().get(&folder).copied();
                if let Some((_, extent)) = known.filter(|(at, _)| at.elapsed() < FRESH) {
                    return extent;
                }
                let extent = measure(&folder);
                let mut all = all.lock();
                all.retain(|_, (at, _)| at.elapsed() < FRESH);
                all.insert(folder, (Instant::now(), extent));
                extent
            };
            folders.into_iter().map(one).collect()
        };
        // It does not panic, and nobody aborts it.
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// All that lies below a path on the same file system; files with several names count once.
fn measure(path: &Path) -> Extent {
    let mut sum = Extent::default();
    let Ok(top) = path.symlink_metadata() else { return sum };
    let mut seen = HashSet::new();
    let mut add = |meta: &std::fs::Metadata| {
        if meta.is_dir() || meta.nlink() < 2 || seen.insert(meta.ino()) {
            sum.bytes += meta.blocks() * 512;
            sum.inodes += 1;
        }
    };
    add(&top);
    let mut folders = Vec::from_iter(top.is_dir().then(|| path.to_owned()));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            // What goes while it is looked at takes nothing.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() == top.dev() {
                add(&meta);
                folders.extend(meta.is_dir().then(|| entry.path()));
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), vec![1; 5000]).unwrap();
        std::fs::hard_link(folder.path().join("a/b"), folder.path().join("c")).unwrap();
        let extent = measure(folder.path());
        assert_eq!(extent.inodes, 3);
        assert!(extent.bytes >= 5000, "{extent:?}");
        assert_eq!(measure(&folder.path().join("none")), Extent::default());
    }
}
