//! Opening: what goes wrong is told in one clear sentence.

mod common;

use std::fs;

use common::{commit, dump, put};
use store::{Expect, OpenError, Options, Store};

#[tokio::test]
async fn a_store_in_use_is_locked_and_free_after_close() {
    let folder = tempfile::tempdir().unwrap();
    let store = common::open(folder.path());
    let error = Store::open(folder.path(), Options::default()).err().unwrap();
    let expected =
        format!("the store {} is in use by process {}", folder.path().display(), std::process::id());
    assert_eq!(error.to_string(), expected);
    store.close().await;
    common::open(folder.path()).close().await;
}

#[tokio::test]
async fn a_dropped_store_lets_go_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = common::open(folder.path());
    commit(&store, put("t", "a", "1", Expect::Absent)).await;
    drop(store);
    let again = loop {
        match Store::open(folder.path(), Options::default()) {
            Ok(store) => break store,
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(dump(&again, "t").len(), 1);
}

#[tokio::test]
async fn a_half_made_store_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/down");
    fs::create_dir_all(path.join("db.new/keyspaces")).unwrap();
    fs::write(path.join("db.new/0.jnl"), "half").unwrap();
    let store = common::open(&path);
    assert_eq!(store.revision(), 0);
    store.close().await;
    assert!(!path.join("db.new").exists());
}

#[tokio::test]
async fn secrets_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    common::open(&path).close().await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn missing_and_foreign_files_are_corruption() {
    for (file, content) in [
        ("version", None),
        ("version", Some("FJL\u{3}")),
        ("version", Some("nonsense")),
        ("keyspaces/1/current", None),
        ("keyspaces/1/current", Some("nonsense")),
        ("keyspaces/0/current", Some("")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        common::open(folder.path()).close().await;
        let path = folder.path().join("db").join(file);
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        match Store::open(folder.path(), Options::default()) {
            Ok(_) => assert_eq!(content, Some("FJL\u{3}"), "{file} {content:?} goes unnoticed"),
            Err(OpenError::Corrupt { .. } | OpenError::Format { .. }) => {}
            Err(error) => panic!("{file} {content:?}: {error}"),
        }
    }
}

#[test]
fn a_path_that_is_no_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Store::open(&path, Options::default()).err().unwrap();
    assert!(error.to_string().starts_with("cannot make the folder of the store"), "{error}");
}
