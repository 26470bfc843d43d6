use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use tar::EntryType;
use tempfile::TempDir;

use super::*;
use crate::fsutil::{OPAQUE, is_whiteout, open_root};
use crate::testing::Tar;

const LIMITS: Limits = Limits { bytes: 10 << 20, entries: 1000 };

/// A directory for layers, and beside it something that no layer may touch.
struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn layer(&self, name: &str, lower: &[&str], tar: &[u8]) -> Result<(), UnpackError> {
        fs::create_dir_all(self.path(name)).unwrap();
        let lower = lower.iter().map(|name| open_root(&self.path(name)).unwrap()).collect();
        unpack(open_root(&self.path(name)).unwrap(), Target::Layer { lower }, tar, LIMITS)
    }

    fn untouched(&self) -> bool {
        let names: Vec<_> = fs::read_dir(self.path("outside"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        let meta = fs::metadata(self.path("outside/secret")).unwrap();
        names == ["secret"]
            && meta.nlink() == 1
            && meta.mode() & 0o7777 == 0o644
            && fs::read(self.path("outside/secret")).unwrap() == b"secret"
            && fs::read_dir(self.dir.path()).unwrap().count() <= 4
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn whiteout(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|stat| is_whiteout(&stat))
}

fn opaque(path: &Path) -> bool {
    xattr(path, OPAQUE) == Some(b"y".to_vec())
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn keeps_what_files_look_like() {
    let world = World::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .dir("./", 0o711)
        .dir("d", 0o1777)
        .raw(EntryType::Regular, "d/suid", "", b"x", 0o4755)
        .symlink("d/link", "/etc/passwd")
        .hard_link("d/hard", "d/suid")
        .raw(EntryType::Fifo, "pipe", "", b"", 0o620)
        .xattr("user.note", b"line\nline")
        .file("noted", "")
        .xattr("security.capability", &capability)
        .file("capable", "")
        .with(|tar| {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o600);
            header.set_uid(1234);
            header.set_gid(70_000);
            header.set_mtime(99);
            tar.append_data(&mut header, "owned", &b""[..]).unwrap();
        })
        .done();
    world.layer("l", &[], &tar).unwrap();
    let l = world.path("l");
    assert_eq!((mode(&l), mode(&l.join("d")), mode(&l.join("d/suid"))), (0o711, 0o1777, 0o4755));
    assert_eq!(fs::read_link(l.join("d/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(l.join("d/hard")).unwrap().ino(), fs::metadata(l.join("d/suid")).unwrap().ino());
    assert!(fs::metadata(l.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(mode(&l.join("pipe")), 0o620);
    let owned = fs::metadata(l.join("owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.mtime()), (1234, 70_000, 99));
    assert_eq!(xattr(&l.join("noted"), "user.note").unwrap(), b"line\nline");
    assert_eq!(xattr(&l.join("capable"), "security.capability").unwrap(), capability);
    for path in [l.clone(), l.join("d"), l.join("d/suid")] {
        assert_eq!(fs::symlink_metadata(&path).unwrap().mtime(), 1_000_000_000, "{}", path.display());
    }
}

#[test]
fn hides_what_lower_layers_have() {
    let world = World::new();
    let base = Tar::new()
        .file("gone", "")
        .file("keep", "")
        .dir("d", 0o755)
        .file("d/old", "")
        .dir("e", 0o755)
        .file("e/old", "")
        .dir("f", 0o755);
    world.layer("base", &[], &base.done()).unwrap();
    let tar = Tar::new()
        .file(".wh.gone", "")
        .file(".wh.never", "")
        .file("d/.wh..wh..opq", "")
        .file("d/new", "")
        .file(".wh.e", "")
        .dir("e", 0o755)
        .file("e/new", "")
        .dir("f", 0o755)
        .file(".wh.f", "")
        .file(".wh..wh.plnk", "");
    world.layer("l", &["base"], &tar.done()).unwrap();
    let l = world.path("l");
    assert!(whiteout(&l.join("gone")));
    assert!(!l.join("never").exists() && !l.join(".wh.never").exists() && !l.join(".wh..wh.plnk").exists());
    for name in ["d", "e", "f"] {
        assert!(opaque(&l.join(name)), "{name}");
    }
    assert!(l.join("d/new").exists() && l.join("e/new").exists());
}

#[test]
fn whiteouts_without_anything_below_leave_no_trace() {
    let world = World::new();
    world.layer("l", &[], &Tar::new().file(".wh.x", "").file("d/.wh..wh..opq", "").done()).unwrap();
    assert_eq!(fs::read_dir(world.path("l")).unwrap().count(), 0);
}

#[test]
fn implied_directories_look_like_those_below() {
    let world = World::new();
    let base = Tar::new().dir("a", 0o700).xattr("user.x", b"1").dir("a/b", 0o1777);
    world.layer("base", &[], &base.done()).unwrap();
    world.layer("l", &["base"], &Tar::new().file("a/b/c/file", "").done()).unwrap();
    let l = world.path("l");
    assert_eq!((mode(&l.join("a")), mode(&l.join("a/b")), mode(&l.join("a/b/c"))), (0o700, 0o1777, 0o755));
    assert_eq!(xattr(&l.join("a/b"), "user.x").unwrap(), b"1");
    assert_eq!(fs::metadata(l.join("a/b")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let world = World::new();
    let tar = Tar::new()
        .file("a", "old")
        .file("a", "new")
        .dir("d", 0o755)
        .file("d/x", "")
        .file("d", "file")
        .symlink("s", "a")
        .file("s", "own");
    world.layer("l", &[], &tar.done()).unwrap();
    let read = |name: &str| fs::read_to_string(world.path("l").join(name)).unwrap();
    assert_eq!((read("a").as_str(), read("d").as_str(), read("s").as_str()), ("new", "file", "own"));
}

/// Each of these is refused with the reason, and nothing beside the layer changes.
#[test]
fn attacks_are_refused() {
    use UnpackError as E;
    let path = |problem| move |e: &E| matches!(e, E::Path { problem: p, .. } if *p == problem);
    let link = |problem| move |e: &E| matches!(e, E::LinkPath { problem: p, .. } if *p == problem);
    type Check = Box<dyn Fn(&E) -> bool>;
    let attacks: Vec<(&str, Tar, Check)> = vec![
        ("parent", Tar::new().file("../outside/evil", "x"), Box::new(path(PathProblem::Parent))),
        ("inner parent", Tar::new().file("a/../../outside/evil", "x"), Box::new(path(PathProblem::Parent))),
        ("trailing parent", Tar::new().dir("a/..", 0o777), Box::new(path(PathProblem::Parent))),
        ("absolute", Tar::new().file("/tmp/evil", "x"), Box::new(path(PathProblem::Absolute))),
        (
            "hard link parent",
            Tar::new().hard_link("h", "../outside/secret"),
            Box::new(link(PathProblem::Parent)),
        ),
        (
            "hard link absolute",
            Tar::new().hard_link("h", "/etc/passwd"),
            Box::new(link(PathProblem::Absolute)),
        ),
        (
            "hard link through a link",
            Tar::new().symlink("s", "../outside").hard_link("h", "s/secret"),
            Box::new(|e| matches!(e, E::LinkTarget { .. })),
        ),
        (
            "hard link to a directory",
            Tar::new().dir("d", 0o755).hard_link("h", "d"),
            Box::new(|e| matches!(e, E::LinkTarget { .. })),
        ),
        (
            "write through an outward link",
            Tar::new().symlink("s", "../outside").file("s/evil", "x"),
            Box::new(|e| matches!(e, E::Parent { .. })),
        ),
        (
            "write through a link chain",
            Tar::new().symlink("a", "..").symlink("b", "a/outside").file("b/evil", "x"),
            Box::new(|e| matches!(e, E::Parent { .. })),
        ),
        (
            "write through proc",
            Tar::new().symlink("s", "/proc/self/cwd").file("s/evil", "x"),
            Box::new(|e| matches!(e, E::Parent { .. })),
        ),
        (
            "below a file",
            Tar::new().file("f", "").file("f/evil", "x"),
            Box::new(|e| matches!(e, E::Parent { .. })),
        ),
        (
            "whiteout of the parent",
            Tar::new().file(".wh...", ""),
            Box::new(|e| matches!(e, E::Whiteout { .. })),
        ),
        ("whiteout of itself", Tar::new().file("a/.wh..", ""), Box::new(|e| matches!(e, E::Whiteout { .. }))),
        ("whiteout of nothing", Tar::new().file(".wh.", ""), Box::new(|e| matches!(e, E::Whiteout { .. }))),
        ("root as a link", Tar::new().symlink("./", "/"), Box::new(|e| matches!(e, E::Root { .. }))),
        (
            "character device",
            Tar::new().raw(EntryType::Char, "mem", "", b"", 0o666),
            Box::new(|e| matches!(e, E::Device { .. })),
        ),
        (
            "block device",
            Tar::new().raw(EntryType::Block, "a/sda", "", b"", 0o666),
            Box::new(|e| matches!(e, E::Device { .. })),
        ),
        (
            "device in another dev",
            Tar::new().raw(EntryType::Char, "a/dev/mem", "", b"", 0o666),
            Box::new(|e| matches!(e, E::Device { .. })),
        ),
    ];
    for (name, tar, expected) in attacks {
        let world = World::new();
        let error = world.layer("l", &[], &tar.done()).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
        assert!(world.untouched(), "{name}");
    }
}

#[test]
fn links_that_a_layer_carries_lead_nowhere_else() {
    let world = World::new();
    // The base has a link outwards; the layer above writes "through" it and gets a directory of its own.
    let base = Tar::new().symlink("s", "../outside").symlink("abs", world.path("outside").to_str().unwrap());
    world.layer("base", &[], &base.done()).unwrap();
    world.layer("l", &["base"], &Tar::new().file("s/evil", "x").file("abs/evil", "x").done()).unwrap();
    assert!(world.path("l/s/evil").is_file() && world.path("l/abs/evil").is_file());
    assert!(world.untouched());
    // Within one layer an absolute link means the layer's own directory.
    let tar = Tar::new()
        .dir("etc", 0o755)
        .symlink("conf", "/etc")
        .symlink("up", "../../etc")
        .file("conf/a", "")
        .file("up/b", "");
    world.layer("m", &[], &tar.done()).unwrap();
    assert!(world.path("m/etc/a").is_file() && world.path("m/etc/b").is_file());
    assert!(!Path::new("/etc/a").exists());
}

#[test]
fn a_file_never_writes_through_what_it_replaces() {
    let world = World::new();
    let secret = world.path("outside/secret");
    let tar = Tar::new()
        .symlink("s", secret.to_str().unwrap())
        .file("s", "evil")
        .symlink("t", secret.to_str().unwrap())
        .dir("t", 0o700);
    world.layer("l", &[], &tar.done()).unwrap();
    assert!(world.untouched());
    assert_eq!(fs::read(world.path("l/s")).unwrap(), b"evil");
}

#[test]
fn devices_under_dev_are_left_out() {
    let world = World::new();
    let tar = Tar::new()
        .dir("dev", 0o755)
        .raw(EntryType::Char, "./dev/null", "", b"", 0o666)
        .file("dev/readme", "");
    world.layer("l", &[], &tar.done()).unwrap();
    assert!(!world.path("l/dev/null").exists() && world.path("l/dev/readme").exists());
}

#[test]
fn overlay_attributes_of_a_layer_are_dropped() {
    let world = World::new();
    let tar = Tar::new()
        .xattr("trusted.overlay.redirect", b"/../outside")
        .dir("d", 0o755)
        .xattr("trusted.overlay.opaque", b"y")
        .dir("e", 0o755);
    world.layer("l", &[], &tar.done()).unwrap();
    assert_eq!(xattr(&world.path("l/d"), "trusted.overlay.redirect"), None);
    assert!(!opaque(&world.path("l/e")));
}

#[test]
fn limits_hold() {
    let world = World::new();
    let mut many = Tar::new();
    for n in 0..1001 {
        many = many.file(&format!("f{n}"), "");
    }
    let error = world.layer("a", &[], &many.done()).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { what: "entries", .. }), "{error}");
    let big = Tar::new().file("big", &"x".repeat(11 << 20)).done();
    let error = world.layer("b", &[], &big).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { what: "bytes", .. }), "{error}");
    let mut trailing = Tar::new().file("f", "").done();
    trailing.resize(11 << 20, 0);
    let error = world.layer("c", &[], &trailing).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { what: "bytes", .. }), "{error}");
}

/// What a random tar may contain: few names, so that entries meet.
fn entry() -> impl Strategy<Value = (u8, String, String)> {
    let name = || {
        proptest::collection::vec(
            proptest::sample::select(vec![
                "a",
                "b",
                "c",
                "..",
                ".",
                "",
                ".wh.a",
                ".wh..wh..opq",
                "outside",
                "secret",
            ]),
            1..4,
        )
        .prop_map(|parts| parts.join("/"))
    };
    (proptest::sample::select(b"01234567gS".to_vec()), name(), name())
}

/// Everything below `dir` with its kind, to see whether anything changed.
fn listing(dir: &Path) -> BTreeMap<std::path::PathBuf, (u32, u64, u64)> {
    let mut found = BTreeMap::new();
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                stack.push(path.clone());
            }
            found.insert(path, (meta.mode(), meta.nlink(), meta.len()));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_layers_never_leave_their_directory(
        base in proptest::collection::vec(entry(), 0..6),
        entries in proptest::collection::vec(entry(), 1..10),
    ) {
        let world = World::new();
        let before = listing(&world.path("outside"));
        for (name, lower, entries) in [("base", &[][..], base), ("l", &["base"][..], entries)] {
            // One by one, so that a refused entry does not shield the following ones.
            fs::create_dir_all(world.path(name)).unwrap();
            for (kind, path, link) in entries {
                let data = if kind == b'0' { "x" } else { "" };
                let tar = Tar::new().raw(EntryType::new(kind), &path, &link, data.as_bytes(), 0o755).done();
                let _ = world.layer(name, lower, &tar);
            }
        }
        prop_assert_eq!(listing(&world.path("outside")), before);
        prop_assert!(world.untouched());
        prop_assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 3);
        for (path, (mode, ..)) in listing(&world.path("l")) {
            let kind = mode & 0o170000;
            prop_assert!(kind != 0o060000, "block device {}", path.display());
            prop_assert!(kind != 0o020000 || whiteout(&path), "character device {}", path.display());
        }
    }

    #[test]
    fn damaged_layers_never_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let world = World::new();
        let mut tar = Tar::new().dir("d", 0o755).file("d/f", "data").xattr("user.a", b"b").symlink("d/s", "f").hard_link("h", "d/f").done();
        for (at, value) in changes {
            let at = at.index(tar.len());
            tar[at] = value;
        }
        tar.truncate(cut.index(tar.len()) + 1);
        let _ = world.layer("l", &[], &tar);
        prop_assert!(world.untouched());
    }

    #[test]
    fn random_archives_never_leave_their_directory(
        base in proptest::collection::vec(entry(), 0..8),
        entries in proptest::collection::vec((entry(), any::<bool>()), 1..16),
        files: bool,
        planted in proptest::collection::vec(("[ab]", "(\\.\\./outside|/|/proc/self/cwd|b|\\.\\.)(/(a|secret|outside))?"), 0..3),
    ) {
        let world = World::new();
        let before = listing(&world.path("outside"));
        let mut below = Tar::new();
        for (kind, path, link) in base {
            below = below.raw(EntryType::new(kind), &path, &link, b"", 0o755);
        }
        let _ = world.layer("base", &[], &below.done());
        let root = world.path("l");
        fs::create_dir_all(&root).unwrap();
        let mut tar = Tar::new();
        for ((kind, path, link), long) in entries {
            let data: &[u8] = if kind == b'0' { b"x" } else { b"" };
            // The name again, in the extension that overrules the header.
            tar = if long { tar.extended(&path, &link) } else { tar };
            tar = tar.raw(EntryType::new(kind), if long { "harmless" } else { &path }, &link, data, 0o755);
        }
        let tar = tar.done();
        let _ = if files {
            for (name, target) in planted {
                let target = target.replace("/outside", &world.path("outside").display().to_string());
                let _ = std::os::unix::fs::symlink(target, root.join(name));
            }
            unpack(open_root(&root).unwrap(), Target::Files { below: Vec::new() }, &tar[..], LIMITS)
        } else {
            world.layer("l", &["base"], &tar)
        };
        prop_assert_eq!(listing(&world.path("outside")), before);
        prop_assert!(world.untouched());
        for (path, (mode, ..)) in listing(&root) {
            let kind = mode & 0o170000;
            prop_assert!(kind != 0o060000 && (kind != 0o020000 || whiteout(&path)), "device {}", path.display());
        }
    }

    #[test]
    fn damaged_archives_with_right_checksums_never_leave_their_directory(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..10),
        swap in proptest::option::of((0..6usize, 0..6usize)),
    ) {
        let world = World::new();
        let before = listing(&world.path("outside"));
        let mut tar = Tar::new()
            .symlink("up", "../outside")
            .dir("d", 0o755)
            .extended("d/../../outside/secret", "../outside/secret")
            .file("short", "data")
            .symlink("d/s", "/")
            .hard_link("h", "d/s")
            .file("up/secret", "changed")
            .done();
        if let Some((a, b)) = swap {
            for i in 0..512 {
                tar.swap(a * 512 + i, b * 512 + i);
            }
        }
        for (at, value) in changes {
            let at = at.index(tar.len());
            tar[at] = value;
            let block = &mut tar[at / 512 * 512..][..512];
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let _ = world.layer("l", &[], &tar);
        prop_assert_eq!(listing(&world.path("outside")), before);
        prop_assert!(world.untouched());
    }
}
