//! Disks that are full, read-only or somebody else's. These need root; each runs on a thread with mounts of its own,
//! which go when it ends.

mod common;

use std::path::Path;

use common::{dump, put};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, geteuid, setfsuid};
use store::{CommitError, Expect, OpenError, Options, Store};

/// Runs a test where a small file system of its own is mounted on the folder.
fn mounted(size: &str, test: impl FnOnce(&Path) + Send) {
    if !geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let data = format!("size={size}");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(&*data)).unwrap();
        test(path);
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

fn remount(path: &Path, flags: MsFlags, size: &str) {
    let data = format!("size={size}");
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(&*data)).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Writes 64 KB objects until it is refused, and gives their count and the refusal.
async fn fill(store: &Store) -> (usize, CommitError) {
    let value = "v".repeat(64 << 10);
    for n in dump(store, "t").len().. {
        if let Err(error) = store.commit(put("t", &format!("{n:05}"), &value, Expect::Absent).into()).await {
            return (n, error);
        }
    }
    unreachable!("the disk has an end")
}

#[test]
fn a_disk_that_fills_up_refuses_and_recovers() {
    mounted("24m", |path| {
        runtime().block_on(async {
            let options = Options { reserve_bytes: 8 << 20, ..Options::default() };
            let store = Store::open(path, options).unwrap();
            let (before, error) = fill(&store).await;
            assert!(matches!(error, CommitError::Full { .. }), "{error}");
            assert!(before > 0 && store.failure().is_none());
            remount(path, MsFlags::empty(), "32m");
            let (after, _) = fill(&store).await;
            assert!(after > before);
            store.close().await;
            let store = common::open(path);
            assert_eq!(dump(&store, "t").len(), after);
            store.close().await;
        });
    });
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_loses_nothing_acknowledged() {
    mounted("6m", |path| {
        runtime().block_on(async {
            let options = Options { reserve_bytes: 0, ..Options::default() };
            let store = Store::open(path, options.clone()).unwrap();
            let mut written = 0;
            // The last bytes go to smaller and smaller objects, so that a write ends at the very end of the disk.
            for size in [100_000, 10_000, 1_000, 100] {
                let value = "v".repeat(size);
                loop {
                    let op = put("t", &format!("{written:05}"), &value, Expect::Absent);
                    match store.commit(op.into()).await {
                        Ok(_) => written += 1,
                        Err(CommitError::Full { .. }) => break,
                        Err(CommitError::Io(_) | CommitError::Failed(_)) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            assert_eq!(dump(&store, "t").len(), written);
            store.close().await;
            remount(path, MsFlags::empty(), "64m");
            let store = Store::open(path, options).unwrap();
            let found = dump(&store, "t").len();
            assert!(found == written || found == written + 1, "{found} of {written}");
            assert!(fill(&store).await.0 > written);
            store.close().await;
        });
    });
}

#[test]
fn a_failure_in_the_background_ends_the_writing_and_loses_nothing_acknowledged() {
    // No more files can be made: the journal takes writes until it must be moved into tables.
    mounted("64m,nr_inodes=40", |path| {
        runtime().block_on(async {
            let options = Options { reserve_bytes: 0, write_buffer_bytes: 32 << 10, ..Options::default() };
            let store = Store::open(path, options.clone()).unwrap();
            for n in 0.. {
                if std::fs::write(path.join(n.to_string()), "").is_err() {
                    break;
                }
            }
            let (written, error) = fill(&store).await;
            assert!(matches!(error, CommitError::Io(_)), "{error}");
            let error = store.commit(put("t", "more", "", Expect::Any).into()).await.unwrap_err();
            assert!(matches!(error, CommitError::Failed(_)), "{error}");
            assert!(written > 0 && dump(&store, "t").len() == written);
            store.close().await;
            remount(path, MsFlags::empty(), "64m,nr_inodes=400");
            let store = Store::open(path, options).unwrap();
            let found = dump(&store, "t").len();
            assert!(found == written || found == written + 1, "{found} of {written}");
            store.commit(put("t", "more", "", Expect::Absent).into()).await.unwrap();
            store.close().await;
        });
    });
}

#[test]
fn a_read_only_disk_is_told() {
    mounted("8m", |path| {
        runtime().block_on(async { common::open(path).close().await });
        remount(path, MsFlags::MS_RDONLY, "8m");
        let error = Store::open(path, Options::default()).err().unwrap();
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
        let expected = format!("the store {} is on a read-only file system", path.display());
        assert_eq!(error.to_string(), expected);
        let error = Store::open(&path.join("new"), Options::default()).err().unwrap();
        assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
        remount(path, MsFlags::empty(), "8m");
        runtime().block_on(async { common::open(path).close().await });
    });
}

#[test]
fn a_missing_permission_is_told() {
    mounted("8m", |path| {
        runtime().block_on(async { common::open(&path.join("store")).close().await });
        // For this thread's files only, and with it go root's rights over other users' files.
        setfsuid(Uid::from_raw(65_534));
        let error = Store::open(&path.join("store"), Options::default()).err().unwrap();
        assert!(matches!(error, OpenError::Permission { .. }), "{error}");
        setfsuid(Uid::from_raw(0));
    });
}
