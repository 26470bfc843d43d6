use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::testing::{Tar, config, docker_archive, docker_archive_with, gzip};
use crate::{Digest, Image, ImageStore, SnapshotError, StoreError};

fn store() -> (TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    (dir, store)
}

fn layer(name: &str) -> Vec<u8> {
    Tar::new().dir("d", 0o755).file(&format!("d/{name}"), name).done()
}

fn top_names(store: &ImageStore, image: &Image) -> Vec<String> {
    let top = &store.layer_dirs(image).unwrap()[0];
    let entries = fs::read_dir(top.join("d")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn imports_what_docker_saves() {
    let (_dir, store) = store();
    let archive = docker_archive(
        "app:1",
        &[layer("a"), gzip(&layer("b")), zstd::encode_all(&layer("c")[..], 1).unwrap()],
    );
    for archive in [archive.clone(), gzip(&archive)] {
        let images = store.import(&archive[..]).unwrap();
        assert_eq!(images[0].names, ["docker.io/library/app:1"]);
        assert_eq!(images[0].layers.len(), 3);
        assert_eq!(top_names(&store, &images[0]), ["c"]);
    }
    assert_eq!(store.list().len(), 1);
}

#[test]
fn every_form_comes_back_the_same() {
    let (_dir, from) = store();
    let image =
        from.import(&docker_archive("app:1", &[gzip(&layer("a")), layer("b")])[..]).unwrap().remove(0);
    from.tag("app:1", "other.io/x:2").unwrap();
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let mut archive = Vec::new();
        from.export(&["app:1", "other.io/x:2"], format, &mut archive).unwrap();
        let (_dir, to) = store();
        let back = to.import(&archive[..]).unwrap();
        assert_eq!(back[0].id, image.id, "{format:?}");
        assert_eq!(back[0].names, ["docker.io/library/app:1", "other.io/x:2"], "{format:?}");
        assert_eq!(top_names(&to, &back[0]), ["b"]);
        if format == ArchiveFormat::Oci {
            assert_eq!(back[0].manifest, image.manifest);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    from.export_directory(&[&image.id.to_string()], &dir.path().join("layout")).unwrap();
    let (_dir, to) = store();
    let back = to.import_path(&dir.path().join("layout")).unwrap();
    assert_eq!((back[0].id, back[0].names.len()), (image.id, 0));
    assert!(matches!(from.export(&["none"], ArchiveFormat::Oci, Vec::new()), Err(ExportError::Store(_))));
}

#[test]
fn exports_what_docker_reads() {
    let (_dir, store) = store();
    let plain = layer("a");
    store.import(&docker_archive("app:1", &[gzip(&plain)])[..]).unwrap();
    let mut archive = Vec::new();
    store.export(&["app:1"], ArchiveFormat::Docker, &mut archive).unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), data);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "app:1");
    assert_eq!(files[manifest[0]["Layers"][0].as_str().unwrap()], plain);
    assert!(files.contains_key(manifest[0]["Config"].as_str().unwrap()));
}

#[test]
fn shared_layers_are_stored_once() {
    let (dir, store) = store();
    let (a, b) = (layer("a"), layer("b"));
    store.import(&docker_archive("one", &[a.clone(), b.clone()])[..]).unwrap();
    store.import(&docker_archive("two", &[a.clone(), layer("c")])[..]).unwrap();
    let unpacked = fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    assert_eq!(unpacked, 1 + 3); // with the directory for what is on its way in
    let (one, two) = (store.resolve("one").unwrap(), store.resolve("two").unwrap());
    assert_eq!(store.layer_dirs(&one).unwrap()[1], store.layer_dirs(&two).unwrap()[1]);
}

#[test]
fn says_what_is_wrong_with_an_archive() {
    let (_dir, store) = store();
    let wrong = |archive: &[u8]| store.import(archive).unwrap_err();
    assert!(matches!(wrong(b""), ImportError::Unknown));
    assert!(matches!(wrong(&[7; 600]), ImportError::Tar(_)));
    assert!(matches!(wrong(&Tar::new().file("manifest.json", "{").done()), ImportError::Json { .. }));
    let missing =
        Tar::new().file("manifest.json", r#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#).done();
    assert!(matches!(wrong(&missing), ImportError::Missing(name) if name == "c.json"));
    let count = Tar::new()
        .file("manifest.json", r#"[{"Config":"c.json","Layers":[]}]"#)
        .file("c.json", &config(&[Digest::of(b"")]))
        .done();
    assert!(matches!(wrong(&count), ImportError::Malformed(_)));
    let name = docker_archive("Upper", &[]);
    assert!(matches!(wrong(&name), ImportError::Reference(_)));
    // A layer that is not the one of the configuration gets no name.
    let other = docker_archive_with("evil:1", &[layer("a")], |_| Digest::of(b"other"));
    let error = wrong(&other);
    assert!(
        matches!(error, ImportError::Store(StoreError::Snapshot(SnapshotError::DiffId { .. }))),
        "{error:?}"
    );
    assert!(store.resolve("evil:1").is_none());
    let hostile = docker_archive("evil:1", &[Tar::new().file("../evil", "").done()]);
    assert!(wrong(&hostile).to_string().contains("contains ..: refused"));
    assert_eq!(store.list().len(), 0);
}

#[test]
fn a_layout_with_wrong_blobs_is_refused() {
    let (_dir, from) = store();
    from.import(&docker_archive("app:1", &[layer("a")])[..]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    from.export_directory(&["app:1"], dir.path()).unwrap();
    for blob in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let honest = fs::read(&path).unwrap();
        fs::write(&path, "other").unwrap();
        let (_dir, to) = store();
        let error = to.import_path(dir.path()).unwrap_err();
        assert!(matches!(error, ImportError::Malformed(_)), "{error:?}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(to.import_path(dir.path()), Err(ImportError::Missing(_))));
        // A link to the right content somewhere else is not followed.
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, &honest).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(to.import_path(dir.path()), Err(ImportError::Missing(_))));
        fs::remove_file(&path).unwrap();
        fs::write(&path, honest).unwrap();
    }
    let missing = from.import_path(Path::new("/nonexistent")).unwrap_err();
    assert!(matches!(missing, ImportError::Open { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_archives_never_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12)) {
        let (_dir, store) = store();
        let mut archive = docker_archive("app:1", &[layer("a")]);
        for (at, value) in changes {
            let at = at.index(archive.len());
            archive[at] = value;
        }
        let _ = store.import(&archive[..]);
    }

    #[test]
    fn any_manifest_is_survived(manifest in "\\PC{0,60}", index in "[\\[\\]{}\":,a-z0-9]{0,60}") {
        let (_dir, store) = store();
        let _ = store.import(&Tar::new().file("manifest.json", &manifest).done()[..]);
        let _ = store.import(&Tar::new().file("index.json", &index).done()[..]);
    }
}
