use std::fs;

use tempfile::TempDir;

use super::*;
use crate::testing::{Tar, docker_archive};

fn store() -> (TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    (dir, store)
}

fn import(store: &ImageStore, tag: &str, file: &str) -> Image {
    store.import(&docker_archive(tag, &[Tar::new().file(file, "").done()])[..]).unwrap().remove(0)
}

#[test]
fn finds_images_by_every_name() {
    let (_dir, store) = store();
    let a = import(&store, "me/app:1", "a");
    let b = import(&store, "nginx", "b");
    let (id, short) = (a.id.to_string(), a.id.short());
    for name in [
        "me/app:1",
        "docker.io/me/app:1",
        "index.docker.io/me/app:1",
        &id,
        &id[7..],
        &short,
        &a.manifest.to_string(),
    ] {
        assert_eq!(store.resolve(name).map(|image| image.id), Some(a.id), "{name}");
    }
    assert_eq!(store.resolve("nginx").unwrap().id, b.id);
    for name in
        ["me/app", "me/app:2", "app:1", "", "sha256:", "../x", "zzzz", &format!("me/app@{}", b.manifest)]
    {
        assert!(store.resolve(name).is_none(), "{name}");
    }
}

#[test]
fn one_configuration_is_one_image() {
    let (_dir, store) = store();
    let layer = Tar::new().file("a", "").done();
    let plain = store.import(&docker_archive("plain", std::slice::from_ref(&layer))[..]).unwrap().remove(0);
    let packed =
        store.import(&docker_archive("packed", &[crate::testing::gzip(&layer)])[..]).unwrap().remove(0);
    assert_eq!((plain.id, plain.manifest), (packed.id, packed.manifest));
    assert_eq!(packed.names, ["docker.io/library/packed:latest", "docker.io/library/plain:latest"]);
    assert_eq!(store.list().len(), 1);
    // Its first blob goes, it comes again in the other form: that one serves from now on.
    fs::remove_file(store.content().path(&plain.layers[0].digest)).unwrap();
    let again =
        store.import(&docker_archive("packed", &[crate::testing::gzip(&layer)])[..]).unwrap().remove(0);
    assert_ne!(again.manifest, plain.manifest);
}

#[test]
fn a_tag_belongs_to_one_image() {
    let (_dir, store) = store();
    let old = import(&store, "app", "a");
    let new = import(&store, "app", "b");
    assert_eq!(store.resolve("app").unwrap().id, new.id);
    assert_eq!(store.resolve(&old.id.to_string()).unwrap().names, Vec::<String>::new());
    store.tag(&old.id.to_string(), "app:old").unwrap();
    store.tag("app:old", "app").unwrap();
    assert_eq!(
        store.resolve("app").unwrap().names,
        ["docker.io/library/app:latest", "docker.io/library/app:old"]
    );
    assert!(matches!(store.tag("none", "x"), Err(StoreError::NotFound(_))));
    assert!(matches!(store.tag("app", "Upper"), Err(StoreError::Reference(_))));
    assert!(matches!(store.tag("app", &format!("x@{}", old.id)), Err(StoreError::NotTaggable(_))));
}

#[test]
fn removes_names_then_images_then_content() {
    let (dir, store) = store();
    let image = import(&store, "app", "a");
    import(&store, "other", "b");
    store.tag("app", "second").unwrap();
    assert_eq!(
        store.remove("second").unwrap(),
        Removed { untagged: vec!["docker.io/library/second:latest".into()], deleted: None }
    );
    assert_eq!(store.remove(&image.id.short()).unwrap().deleted, Some(image.id));
    assert!(store.resolve("app").is_none());
    assert!(matches!(store.remove("app"), Err(StoreError::NotFound(_))));
    let report = store.gc().unwrap();
    assert_eq!(report.layers, 1);
    assert!(report.blobs >= 3, "{report:?}");
    assert_eq!(store.gc().unwrap(), GcReport::default());
    assert!(!store.snapshots().path(&image.layers[0].chain_id).exists());
    let other = store.resolve("other").unwrap();
    assert!(store.layer_dirs(&other).unwrap()[0].join("b").exists());
    // Nothing but what one image needs: manifest, configuration, layer.
    assert_eq!(fs::read_dir(dir.path().join("content/blobs/sha256")).unwrap().count(), 3);
}

#[test]
fn held_images_outlive_their_names() {
    let (dir, store) = store();
    let image = import(&store, "app", "a");
    store.hold(&image, "container-1").unwrap();
    store.remove("app").unwrap();
    store.gc().unwrap();
    let again = ImageStore::open(dir.path()).unwrap();
    again.gc().unwrap();
    assert!(again.layer_dirs(&image).unwrap()[0].join("a").exists());
    again.release("container-1").unwrap();
    again.release("container-1").unwrap();
    assert_eq!(again.gc().unwrap().layers, 1);
    for owner in ["", "../x", "a/b", ".x"] {
        assert!(matches!(store.hold(&image, owner), Err(StoreError::HoldName(_))), "{owner}");
    }
}

#[test]
fn unfinished_holds_go_when_they_are_old() {
    let (dir, store) = store();
    let holds = dir.path().join("content/holds");
    for (name, age) in [(".tmpold", 3600), (".tmpnew", 0)] {
        let file = fs::File::create(holds.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
    }
    drop(store);
    ImageStore::open(dir.path()).unwrap();
    assert!(holds.join(".tmpnew").exists() && !holds.join(".tmpold").exists());
}

#[test]
fn nothing_is_collected_while_something_comes_in() {
    let (_dir, store) = store();
    let lease = store.locks().ingest().unwrap();
    assert!(matches!(store.gc(), Err(StoreError::Busy)));
    drop(lease);
    store.gc().unwrap();
}

#[test]
fn processes_see_each_other() {
    let (dir, one) = store();
    let two = ImageStore::open(dir.path()).unwrap();
    let image = import(&one, "app", "a");
    assert_eq!(two.resolve("app").unwrap().id, image.id);
    two.tag("app", "b").unwrap();
    assert_eq!(one.list()[0].names.len(), 2);
    two.remove(&image.id.to_string()).unwrap();
    assert!(one.list().is_empty());
}

#[test]
fn what_a_crash_leaves_is_cleared() {
    let (dir, store) = store();
    let image = import(&store, "app", "a");
    fs::write(dir.path().join("content/incoming/.tmpX"), "half").unwrap();
    fs::create_dir_all(dir.path().join("snapshots/incoming/.tmpY/layer")).unwrap();
    // As if it had happened before the rename: the layer is made again.
    fs::remove_dir_all(store.snapshots().path(&image.layers[0].chain_id)).unwrap();
    drop(store);
    let store = ImageStore::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("content/incoming")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("snapshots/incoming")).unwrap().count(), 0);
    assert!(store.layer_dirs(&image).unwrap()[0].join("a").exists());
}

#[test]
fn damage_is_named_and_mended_by_another_import() {
    let (dir, store) = store();
    let image = import(&store, "app", "a");
    fs::write(store.content().path(&image.id), "{}").unwrap();
    drop(store);
    let store = ImageStore::open(dir.path()).unwrap();
    assert!(store.resolve("app").is_none());
    import(&store, "app", "a");
    assert_eq!(store.resolve("app").unwrap().id, image.id);
    fs::write(dir.path().join("content/index.json"), "{").unwrap();
    let error = ImageStore::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("index.json is malformed"), "{error}");
}

#[test]
fn many_threads_unpack_one_layer_once() {
    let (_dir, store) = store();
    let image = import(&store, "app", "a");
    fs::remove_dir_all(store.snapshots().path(&image.layers[0].chain_id)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(store.layer_dirs(&image).unwrap()[0].join("a").exists()));
        }
    });
}
