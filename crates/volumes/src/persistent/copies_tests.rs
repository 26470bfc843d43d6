use std::path::Path;

use super::*;
use crate::persistent::store::tests::{World, wanted};
use crate::testing::let_go;

const MIB: u64 = 1 << 20;
const NOW: u32 = 1_700_000_000;

fn image(volume: &str) -> Wanted {
    wanted(volume, Source::Own(Kind::Image), 16 * MIB)
}

fn copy_of(volume: &str, origin: Origin) -> Wanted {
    Wanted { origin: Some(origin), ..image(volume) }
}

fn snapshot(name: &str) -> Origin {
    Origin::Snapshot(name.into())
}

/// Whether nobody can write: a freeze of ours says so by being the second one.
fn is_frozen(at: &Path) -> bool {
    let first = sys::freeze(at).unwrap();
    if first {
        assert!(sys::thaw(at).unwrap());
    }
    !first
}

fn entries(folder: &Path) -> Vec<String> {
    let mut all = data::folders(folder).unwrap();
    all.sort();
    all
}

#[test]
fn a_snapshot_shows_its_moment() {
    let world = World::new();
    let place = world.set_up(&image("v"), "a").unwrap().path;
    fs::write(place.join("before"), vec![1; 3 << 20]).unwrap();
    let taken = world.store.take(&image("v"), "s", NOW).unwrap();
    assert_eq!(taken, Taken { bytes: 16 * MIB, when: UNIX_EPOCH + Duration::from_secs(NOW.into()) });
    fs::write(place.join("after"), "2").unwrap();
    fs::write(place.join("before"), "changed").unwrap();
    assert!(!is_frozen(&world.path("volumes/v/mnt")) && !world.path("volumes/v/frozen").exists());
    // A later look does not take it anew.
    assert_eq!(world.store.take(&image("v"), "s", NOW + 9).unwrap(), taken);
    assert_eq!(world.store.taken("s").unwrap(), Some(taken));
    // Two volumes begin with it, one of them larger.
    let same = world.set_up(&copy_of("same", snapshot("s")), "b").unwrap().path;
    let larger = Wanted { bytes: 64 * MIB, ..copy_of("larger", snapshot("s")) };
    let larger = world.set_up(&larger, "c").unwrap().path;
    for place in [&same, &larger] {
        assert_eq!(fs::read(place.join("before")).unwrap(), vec![1; 3 << 20]);
        assert!(!place.join("after").exists());
    }
    fs::write(larger.join("much"), vec![3; 32 << 20]).unwrap();
    let full = fs::write(same.join("much"), vec![3; 32 << 20]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(fs::read_to_string(place.join("before")).unwrap(), "changed");
    // Copies outlive it, also when an agent has started again.
    world.store.delete_snapshot("s").unwrap();
    world.store.delete_snapshot("s").unwrap();
    assert_eq!(world.store.taken("s").unwrap(), None);
    assert!(entries(&world.path("volumes/.snapshots")).is_empty());
    world.end("b");
    let same = world.set_up(&copy_of("same", snapshot("s")), "d").unwrap().path;
    assert!(same.join("before").exists());
    let late = world.set_up(&copy_of("late", snapshot("s")), "e").unwrap_err();
    assert_eq!(late, "snapshot \"s\" is not on this node");
    assert!(!world.path("volumes/late").exists());
}

#[test]
fn clones_go_ways_of_their_own() {
    let world = World::new();
    let clone = |of: &str, name: &str| copy_of(name, Origin::Volume(of.into()));
    assert_eq!(world.set_up(&clone("v", "w"), "b").unwrap_err(), "volume \"v\" is not on this node");
    let source = world.set_up(&image("v"), "a").unwrap().path;
    fs::write(source.join("file"), "both").unwrap();
    let copy = world.set_up(&clone("v", "w"), "b").unwrap().path;
    fs::write(source.join("file"), "source").unwrap();
    fs::write(copy.join("own"), "copy").unwrap();
    assert_eq!(fs::read_to_string(copy.join("file")).unwrap(), "both");
    assert!(!source.join("own").exists());
    // Of one that nobody has at the moment, and of one that nobody had yet.
    world.end("b");
    let third = world.set_up(&clone("w", "x"), "c").unwrap().path;
    assert_eq!(fs::read_to_string(third.join("own")).unwrap(), "copy");
    world.store.make_empty(&image("new"), NOW).unwrap();
    let empty = world.set_up(&clone("new", "y"), "d").unwrap().path;
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
    let small = Wanted { bytes: 8 * MIB, ..clone("v", "small") };
    let why = world.set_up(&small, "e").unwrap_err();
    assert_eq!(why, "volume \"v\" has 16777216 bytes, more than the volume's 8388608");
}

#[test]
fn devices_are_copied_with_what_was_written_last() {
    let world = World::new();
    let block = |wanted: Wanted| Wanted { block: true, bytes: MIB, ..wanted };
    let device = world.set_up(&block(image("v")), "a").unwrap().path;
    fs::write(&device, [5; 4096]).unwrap();
    world.store.take(&block(image("v")), "s", NOW).unwrap();
    fs::write(&device, [6; 4096]).unwrap();
    let copy = world.set_up(&block(copy_of("w", snapshot("s"))), "b").unwrap().path;
    assert_eq!(fs::read(copy).unwrap()[..4096], [5; 4096]);
}

fn folder(volume: &str) -> Wanted {
    wanted(volume, Source::Own(Kind::Directory), MIB)
}

fn from(origin: Origin, wanted: Wanted) -> Wanted {
    Wanted { origin: Some(origin), ..wanted }
}

#[test]
fn directories_have_snapshots_and_clones() {
    let mut world = World::new();
    let place = world.set_up(&folder("v"), "a").unwrap().path;
    fs::write(place.join("file"), "before").unwrap();
    let taken = world.store.take(&folder("v"), "s", NOW).unwrap();
    assert_eq!(taken, Taken { bytes: MIB, when: UNIX_EPOCH + Duration::from_secs(NOW.into()) });
    fs::write(place.join("file"), "after").unwrap();
    assert_eq!(world.store.take(&folder("v"), "s", NOW + 9).unwrap(), taken);
    assert_eq!(world.store.taken("s").unwrap(), Some(taken));
    let restored = world.set_up(&from(snapshot("s"), folder("w")), "b").unwrap().path;
    assert_eq!(fs::read_to_string(restored.join("file")).unwrap(), "before");
    let clone = from(Origin::Volume("v".into()), folder("x"));
    let cloned = world.set_up(&clone, "c").unwrap().path;
    assert_eq!(fs::read_to_string(cloned.join("file")).unwrap(), "after");
    // All go ways of their own, and stay what they are.
    fs::write(cloned.join("file"), "clone").unwrap();
    fs::remove_file(place.join("file")).unwrap();
    world.restart();
    world.store.delete_snapshot("s").unwrap();
    assert!(entries(&world.path("volumes/.snapshots")).is_empty());
    assert_eq!(fs::read_to_string(restored.join("file")).unwrap(), "before");
    assert_eq!(world.set_up(&clone, "d").unwrap().path, world.path("pods/d/volumes/data"));
    assert_eq!(fs::read_to_string(cloned.join("file")).unwrap(), "clone");
    // Of one to which no pod has come, and of none.
    world.store.take(&folder("new"), "empty", NOW).unwrap();
    let empty = world.set_up(&from(snapshot("empty"), folder("y")), "e").unwrap().path;
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
    let why = world.set_up(&from(snapshot("s"), folder("late")), "f").unwrap_err();
    assert_eq!(why, "snapshot \"s\" is not on this node");
    for bad in ["", "..", ".new-x", "a/b", "!v"] {
        assert!(world.store.take(&folder("v"), bad, NOW).is_err() || bad == "!v", "{bad:?}");
    }
}

#[test]
fn directories_become_images_and_images_directories() {
    let world = World::new();
    let owner = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().uid()
    };
    let fill = |place: &Path| {
        fs::write(place.join("file"), vec![7; 2 << 20]).unwrap();
        std::os::unix::fs::chown(place.join("file"), Some(77), Some(78)).unwrap();
    };
    let check = |place: &Path| {
        assert_eq!(fs::read(place.join("file")).unwrap(), vec![7; 2 << 20]);
        assert_eq!((owner(&place.join("file")), fs::read_dir(place).unwrap().count()), (77, 1));
    };
    fill(&world.set_up(&folder("d"), "a").unwrap().path);
    fill(&world.set_up(&image("i"), "b").unwrap().path);
    world.store.take(&folder("d"), "of-d", NOW).unwrap();
    let taken = world.store.take(&image("i"), "of-i", NOW).unwrap();
    check(&world.set_up(&from(snapshot("of-d"), image("i1")), "c").unwrap().path);
    check(&world.set_up(&from(Origin::Volume("d".into()), image("i2")), "e").unwrap().path);
    check(&world.set_up(&from(snapshot("of-i"), folder("d1")), "f").unwrap().path);
    check(&world.set_up(&from(Origin::Volume("i".into()), folder("d2")), "g").unwrap().path);
    assert_eq!(world.store.taken("of-i").unwrap(), Some(taken), "a snapshot does not change");
    assert!(!is_frozen(&world.path("volumes/i/mnt")));
    assert!(!world.path("volumes/d1/image").exists());
    // One that no pod has ever had.
    world.store.make_empty(&image("new"), NOW).unwrap();
    let empty = world.set_up(&from(Origin::Volume("new".into()), folder("d3")), "h").unwrap().path;
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
    // Nobody has held a directory to its size.
    fs::write(world.path("volumes/d/data/more"), vec![8; 20 << 20]).unwrap();
    let why = world.set_up(&from(Origin::Volume("d".into()), image("i3")), "j").unwrap_err();
    assert_eq!(why, "what is in volume \"d\" does not fit into the volume's 16777216 bytes");
    let device = Wanted { block: true, ..from(snapshot("of-d"), image("i4")) };
    let why = world.set_up(&device, "k").unwrap_err();
    assert_eq!(why, "snapshot \"of-d\" is kept in a directory, which cannot become a block device");
    assert!(entries(&world.path("volumes")).iter().all(|name| !name.starts_with('.')));
}

#[tokio::test]
async fn an_agent_that_ends_does_not_finish_a_copy() {
    let world = World::new();
    let place = world.set_up(&folder("v"), "a").unwrap().path;
    fs::write(place.join("file"), "text").unwrap();
    let drain = base::Drain::new();
    world.store.end_with(drain.clone());
    world.store.take(&folder("v"), "before", NOW).unwrap();
    drain.start();
    let why = world.store.take(&folder("v"), "s", NOW).unwrap_err().to_string();
    assert_eq!(why, "this node's agent is ending");
    let why = world.set_up(&from(Origin::Volume("v".into()), folder("w")), "b").unwrap_err();
    assert_eq!(why, "this node's agent is ending");
    assert_eq!(entries(&world.path("volumes/.snapshots")), ["before"]);
    assert_eq!(entries(&world.path("volumes")), ["v"]);
}

#[test]
fn pods_of_a_directory_do_not_wait_for_its_copy_and_nobody_deletes_it_meanwhile() {
    let world = World::new();
    world.set_up(&folder("v"), "a").unwrap();
    let copying = world.store.lock(&source_lock("v", Some(Kind::Directory)));
    let held = copying.lock();
    world.set_up(&folder("v"), "b").unwrap();
    world.end("a");
    world.end("b");
    std::thread::scope(|scope| {
        let deleted = scope.spawn(|| world.store.delete("v"));
        // It comes as far as the lock.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while std::sync::Arc::strong_count(&copying) < 3 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(world.path("volumes/v/data").exists());
        drop(held);
        deleted.join().unwrap().unwrap();
    });
    assert!(!world.path("volumes/v").exists());
}

#[test]
fn a_killed_agent_leaves_nothing_half_and_nothing_frozen() {
    let mut world = World::new();
    let place = world.set_up(&image("v"), "a").unwrap().path;
    fs::write(place.join("file"), "data").unwrap();
    world.store.take(&image("v"), "whole", NOW).unwrap();
    // Killed while it copied.
    let (at, mark) = (world.path("volumes/v/mnt"), world.path("volumes/v/frozen"));
    fs::write(&mark, "").unwrap();
    assert!(sys::freeze(&at).unwrap() && is_frozen(&at));
    for half in ["volumes/.snapshots/.new-s", "volumes/.snapshots/.gone-t", "volumes/.new-w"] {
        fs::create_dir_all(world.path(half).join("data/half")).unwrap();
        fs::write(world.path(half).join("image"), "half").unwrap();
    }
    world.restart();
    assert!(!is_frozen(&at) && !mark.exists());
    fs::write(place.join("file"), "more").unwrap();
    assert_eq!(entries(&world.path("volumes/.snapshots")), ["whole"]);
    assert_eq!(entries(&world.path("volumes")), ["v"]);
    world.store.take(&image("v"), "s", NOW).unwrap();
    // Killed between the freeze and the end of its pod: what is let go is let go for good.
    fs::write(&mark, "").unwrap();
    assert!(sys::freeze(&at).unwrap());
    world.end("a");
    let_go(&world.path("volumes/v/image"));
    // What a machine that went down has left says nothing.
    fs::write(&mark, "").unwrap();
    world.restart();
    assert!(!mark.exists());
    // Somebody else's freeze will do for a copy, and is not ended.
    world.set_up(&image("v"), "b").unwrap();
    assert!(sys::freeze(&at).unwrap());
    world.store.take(&image("v"), "theirs", NOW).unwrap();
    assert!(is_frozen(&at));
    sys::thaw(&at).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_left_on_it() {
    let world = World::new();
    let root = world.path("volumes");
    fs::create_dir_all(&root).unwrap();
    crate::mounts::tmpfs(&root, Some(18 * MIB), "0700").unwrap();
    let place = world.set_up(&image("v"), "a").unwrap().path;
    fs::write(place.join("large"), vec![7; 10 << 20]).unwrap();
    let why = world.store.take(&image("v"), "s", NOW).unwrap_err().to_string();
    assert!(why.starts_with("cannot copy ") && why.contains("No space left on device"), "{why}");
    assert!(entries(&root.join(".snapshots")).is_empty());
    let why = world.set_up(&copy_of("w", Origin::Volume("v".into())), "b").unwrap_err();
    assert!(why.contains("No space left on device"), "{why}");
    let tree = world.set_up(&folder("d"), "c").unwrap().path;
    fs::write(tree.join("large"), vec![7; 5 << 20]).unwrap();
    let why = world.store.take(&folder("d"), "s", NOW).unwrap_err().to_string();
    assert!(why.starts_with("cannot copy ") && why.contains("data/large: No space left on device"), "{why}");
    assert!(entries(&root.join(".snapshots")).is_empty());
    world.end("c");
    world.store.delete("d").unwrap();
    assert_eq!(entries(&root), ["v"]);
    // Whoever uses the volume notices nothing, and when there is room again all is well.
    assert!(!is_frozen(&root.join("v/mnt")));
    fs::remove_file(place.join("large")).unwrap();
    sys::sync_fs(&root.join("v/mnt")).unwrap();
    // The kernel gives room back when it finds the time.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while let Err(error) = world.store.take(&image("v"), "s", NOW) {
        assert!(std::time::Instant::now() < deadline, "{error}");
    }
}
