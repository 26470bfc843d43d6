use super::*;
use crate::testing::let_go;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A data directory; whatever is mounted in it goes with it.
pub(in crate::persistent) struct World {
    folder: TempDir,
    pub(in crate::persistent) store: Store,
}

impl World {
    pub(in crate::persistent) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("volumes"), folder.path().join("pods"));
        Self { folder, store }
    }

    /// Another agent on the same disk.
    pub(in crate::persistent) fn restart(&mut self) {
        self.store = Store::new(self.folder.path().join("volumes"), self.folder.path().join("pods"));
        self.store.sweep().unwrap();
    }

    pub(in crate::persistent) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(in crate::persistent) fn set_up(&self, wanted: &Wanted, uid: &str) -> Result<Record, String> {
        self.store.set_up(wanted, &holder(uid, json!({}))).map_err(|e| e.to_string())
    }

    pub(in crate::persistent) fn end(&self, uid: &str) {
        crate::unmount_below(&self.path("pods").join(uid)).unwrap();
        self.store.tear_down(uid).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        release_all(self.folder.path()).unwrap();
    }
}

fn holder(uid: &str, security: Value) -> Holder {
    let pod =
        serde_json::from_value(json!({"spec": {"containers": [], "securityContext": security}})).unwrap();
    Holder { uid: uid.into(), name: "data".into(), ownership: Ownership::of(&pod), now: 1_700_000_000 }
}

pub(in crate::persistent) fn wanted(volume: &str, source: Source, bytes: u64) -> Wanted {
    Wanted {
        volume: volume.into(),
        source,
        origin: None,
        bytes,
        block: false,
        read_only: false,
        alone: false,
        options: vec![],
    }
}

fn local(path: &Path) -> Source {
    Source::Local { path: path.to_owned(), fs_type: None }
}

#[test]
fn local_directories_are_given_as_they_are() {
    let world = World::new();
    let disk = world.path("disk");
    let volume = wanted("pv", local(&disk), 0);
    let missing = format!("path {:?} does not exist", disk.display().to_string());
    assert_eq!(world.set_up(&volume, "a").unwrap_err(), missing);
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("kept"), "1").unwrap();
    let record = world.store.set_up(&volume, &holder("a", json!({"fsGroup": 77}))).unwrap();
    assert_eq!(record.path, world.path("pods/a/volumes/data"));
    assert_eq!(fs::read_to_string(record.path.join("kept")).unwrap(), "1");
    assert_eq!(fs::metadata(disk.join("kept")).unwrap().gid(), 77);
    // Nobody gives away what another pod works in.
    world.store.set_up(&volume, &holder("b", json!({"fsGroup": 78}))).unwrap();
    assert_eq!(fs::metadata(disk.join("kept")).unwrap().gid(), 77);
    assert_eq!(world.store.find("a", "data").unwrap(), Some(record));
    world.end("a");
    assert_eq!(world.store.find("a", "data").unwrap(), None);
    assert_eq!(record::users(&world.path("pods"), "pv").unwrap(), ["b"]);
    world.end("b");
    assert!(disk.join("kept").exists());
    let file = wanted("pv", local(&disk.join("kept")), 0);
    assert!(world.set_up(&file, "a").unwrap_err().contains("is not a directory or a block device"));
}

#[test]
fn only_one_pod_at_a_time() {
    let world = World::new();
    let volume = Wanted { alone: true, ..wanted("pv", Source::Own(Kind::Directory), MIB) };
    world.set_up(&volume, "a").unwrap();
    world.set_up(&volume, "a").unwrap();
    let why = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
    assert_eq!(world.set_up(&volume, "b").unwrap_err(), why);
    world.end("a");
    world.set_up(&volume, "b").unwrap();
}

#[test]
fn directories_stay_until_they_are_deleted() {
    let mut world = World::new();
    let volume = wanted("pvc-1", Source::Own(Kind::Directory), MIB);
    let place = world.set_up(&volume, "a").unwrap().path;
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o777);
    fs::write(place.join("file"), "data").unwrap();
    assert!(world.store.delete("pvc-1").unwrap_err().to_string().contains("still in use"));
    world.restart();
    assert_eq!(world.store.find("a", "data").unwrap().unwrap().path, place);
    world.end("a");
    let place = world.set_up(&volume, "b").unwrap().path;
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "data");
    world.end("b");
    world.store.delete("pvc-1").unwrap();
    world.store.delete("pvc-1").unwrap();
    assert!(!world.path("volumes/pvc-1").exists());
    for bad in ["", "..", ".new-x", "a/b"] {
        assert!(world.store.delete(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn images_have_a_size_and_grow() {
    let world = World::new();
    let mut volume = wanted("pvc-1", Source::Own(Kind::Image), 16 * MIB);
    volume.options = vec!["noatime".into()];
    let first = world.set_up(&volume, "a").unwrap().path;
    let second = world.set_up(&volume, "b").unwrap().path;
    assert_eq!(fs::read_dir(&first).unwrap().count(), 0, "no lost+found to trip over");
    let full = fs::write(first.join("big"), vec![1; 20 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    // It is written on the disk only in part, and is seen by both.
    assert!(fs::metadata(second.join("big")).unwrap().len() < 20 << 20);
    volume.bytes = 200 * MIB;
    fs::write(first.join("big"), vec![1; 1 << 20]).unwrap();
    // Not everywhere may the kernel be asked.
    if world.store.grow(&volume).unwrap() {
        world.store.grow(&volume).unwrap();
        fs::write(first.join("big"), vec![1; 20 << 20]).unwrap();
    }
    world.end("a");
    assert!(is_mounted(&world.path("volumes/pvc-1/mnt")));
    world.end("b");
    assert!(!is_mounted(&world.path("volumes/pvc-1/mnt")));
    let_go(&world.path("volumes/pvc-1/image"));
    // Grown while nobody had it.
    volume.bytes = 300 * MIB;
    let place = world.set_up(&volume, "c").unwrap().path;
    assert!(fs::metadata(place.join("big")).unwrap().len() >= 1 << 20);
    fs::write(place.join("bigger"), vec![1; 220 << 20]).unwrap();
    assert!(world.store.delete("pvc-1").is_err());
    world.end("c");
    world.store.delete("pvc-1").unwrap();
    assert_eq!(fs::read_dir(world.path("volumes")).unwrap().count(), 0);
}

#[test]
fn a_crash_at_any_point_is_mended() {
    let mut world = World::new();
    let volume = wanted("pvc-1", Source::Own(Kind::Image), 16 * MIB);
    // While it was made.
    fs::create_dir_all(world.path("volumes/.new-pvc-1")).unwrap();
    fs::write(world.path("volumes/.new-pvc-1/image"), "half").unwrap();
    let place = world.set_up(&volume, "a").unwrap().path;
    fs::write(place.join("file"), "data").unwrap();
    // Between making it and mounting it, and between mounting and noting: the same from here on.
    crate::unmount_below(&world.path("pods")).unwrap();
    world.restart();
    assert_eq!(world.store.find("a", "data").unwrap(), None, "noted, but not mounted");
    let place = world.set_up(&volume, "a").unwrap().path;
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "data");
    // Between forgetting the pod and taking the mount away.
    crate::unmount_below(&world.path("pods")).unwrap();
    record::remove(&world.path("pods"), "a").unwrap();
    assert!(is_mounted(&world.path("volumes/pvc-1/mnt")));
    world.restart();
    assert!(!is_mounted(&world.path("volumes/pvc-1/mnt")));
    // While it grew.
    let data = Data::new(&world.path("volumes"), "pvc-1");
    let_go(&data.image());
    let head = || fs::read(data.image()).unwrap()[..8192].to_vec();
    let (before, larger) = (head(), Wanted { bytes: 200 * MIB, ..volume.clone() });
    data.enlarge(larger.bytes).unwrap();
    data.grow_unmounted(larger.bytes).unwrap();
    assert_ne!(head(), before);
    let mut undo = 0u64.to_le_bytes().to_vec();
    undo.extend(8192u64.to_le_bytes());
    undo.extend(&before);
    fs::write(world.path("volumes/pvc-1/undo"), undo).unwrap();
    data.mend().unwrap();
    assert_eq!(head(), before);
    let place = world.set_up(&larger, "a").unwrap().path;
    fs::write(place.join("large"), vec![1; 100 << 20]).unwrap();
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "data");
    world.end("a");
    // While it was deleted.
    fs::rename(world.path("volumes/pvc-1"), world.path("volumes/.gone-pvc-1")).unwrap();
    world.restart();
    assert_eq!(fs::read_dir(world.path("volumes")).unwrap().count(), 0);
}

#[test]
fn images_can_be_devices() {
    let world = World::new();
    let mut volume = Wanted { block: true, ..wanted("pvc-1", Source::Own(Kind::Image), MIB) };
    let record = world.set_up(&volume, "a").unwrap();
    assert!(record.device && !record.mounted && record.path.starts_with("/dev"));
    fs::write(&record.path, [5; 4096]).unwrap();
    assert_eq!(world.set_up(&volume, "b").unwrap().path, record.path);
    assert_eq!(world.store.find("a", "data").unwrap(), Some(record.clone()));
    volume.bytes = 2 * MIB;
    world.store.grow(&volume).unwrap();
    assert_eq!(fs::read(&record.path).unwrap().len() as u64, 2 * MIB);
    world.end("a");
    assert!(sys::find_loop(&world.path("volumes/pvc-1/image")).unwrap().is_some());
    world.end("b");
    let_go(&world.path("volumes/pvc-1/image"));
    assert_eq!(fs::read(world.path("volumes/pvc-1/image")).unwrap()[..4096], [5; 4096]);
    let folder = Wanted { block: true, ..wanted("pvc-2", Source::Own(Kind::Directory), MIB) };
    assert!(world.set_up(&folder, "a").unwrap_err().contains("unsupported volumeMode of a directory"));
}

#[test]
fn local_devices_are_mounted_once_or_given_raw() {
    let world = World::new();
    let image = world.path("disk");
    let file = fs::File::create_new(&image).unwrap();
    file.set_len(16 * MIB).unwrap();
    ext4::format(&file, 16 * MIB, [9; 16], 0).unwrap();
    let device = sys::attach_loop(&image, false, false).unwrap();
    let volume = wanted("pv", local(device.path()), 0);
    let (a, b) = (world.set_up(&volume, "a").unwrap().path, world.set_up(&volume, "b").unwrap().path);
    fs::write(a.join("file"), "seen").unwrap();
    assert_eq!(fs::read_to_string(b.join("file")).unwrap(), "seen");
    world.end("a");
    world.end("b");
    assert!(!is_mounted(&world.path("volumes/pv/mnt")));
    let raw = Wanted { block: true, ..wanted("raw", local(device.path()), 0) };
    let record = world.set_up(&raw, "a").unwrap();
    assert_eq!((record.path.as_path(), record.device), (device.path(), false));
    world.end("a");
    assert!(sys::find_loop(&image).unwrap().is_some(), "not ours to take away");
    let raw = Wanted { block: true, ..wanted("raw", local(world.folder.path()), 0) };
    assert!(world.set_up(&raw, "a").unwrap_err().contains("is not a block device"));
}
