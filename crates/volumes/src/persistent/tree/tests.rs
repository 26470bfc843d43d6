use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use rustix::fs::XattrFlags;
use tempfile::TempDir;

use super::*;

/// A folder with a tree `from`, and what is to become its copy.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self { folder };
        fs::create_dir(world.from()).unwrap();
        world
    }

    /// On a file system of its own, made by `mkfs.KIND`.
    fn on(kind: &'static str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let (image, at) = (world.path("image"), world.path("disk"));
        File::create_new(&image).unwrap().set_len(512 << 20).unwrap();
        let made = std::process::Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output();
        let made = made.unwrap_or_else(|error| panic!("mkfs.{kind}: {error}: `make packages` installs it"));
        assert!(made.status.success(), "{made:?}");
        let device = sys::attach_loop(&image, false, false).unwrap();
        fs::create_dir(&at).unwrap();
        sys::mount_device(device.path(), &at, kind, &[], false).unwrap();
        fs::create_dir(world.from()).unwrap();
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn disk(&self) -> PathBuf {
        let own = self.path("disk");
        if own.exists() { own } else { self.folder.path().to_owned() }
    }

    fn from(&self) -> PathBuf {
        self.disk().join("from")
    }

    fn try_copy(&self) -> Result<PathBuf, String> {
        let to = self.disk().join("to");
        fs::create_dir(&to).unwrap();
        let source = source(&self.from()).map_err(|e| e.to_string())?;
        let target = sys::open_folder(&to).unwrap();
        copy(source.as_fd(), target.as_fd(), &self.from(), &|| false).map(|()| to).map_err(|e| e.to_string())
    }

    fn copy(&self) -> PathBuf {
        self.try_copy().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        crate::unmount_below(self.folder.path()).unwrap();
    }
}

/// All that can be seen of one file, except for when it was made and where it lies.
fn seen(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let mut text = format!(
        "{:o} {}:{} {} {}.{} {}.{} device {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        if kind.is_dir() { 0 } else { meta.nlink() },
        meta.atime(),
        meta.atime_nsec(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.rdev()
    );
    if kind.is_symlink() {
        text += &format!(" to {:?}", fs::read_link(path).unwrap());
    }
    let mut names = vec![0; 65536];
    let length = files::llistxattr(path, &mut *names).unwrap();
    let names: BTreeSet<_> = names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    for name in names {
        let mut value = vec![0; 65536];
        let length = files::lgetxattr(path, name, &mut *value).unwrap();
        text += &format!(" {}={:?}", String::from_utf8_lossy(name), &value[..length]);
    }
    text
}

/// What is in a tree. What files hold is read last: that changes when they were looked at.
fn all(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut all, mut todo) = (BTreeMap::new(), vec![PathBuf::new()]);
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    while let Some(path) = todo.pop() {
        let own = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let mut text = seen(&own);
        let meta = fs::symlink_metadata(&own).unwrap();
        if meta.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&own).unwrap().map(|e| path.join(e.unwrap().file_name())).collect();
            names.sort_by(|a, b| b.cmp(a));
            todo.extend(names);
        } else {
            text += &format!(" the same as {:?}", first.entry(meta.ino()).or_insert_with(|| path.clone()));
        }
        all.insert(path, text);
    }
    for (path, text) in &mut all {
        let path = root.join(path);
        if fs::symlink_metadata(&path).unwrap().is_file() {
            *text += &format!(" {:?}", fs::read(path).unwrap());
        }
    }
    all
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    files::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// An access list as the kernel keeps it (`linux/posix_acl_xattr.h`): owner rwx, user 1234 rw-, group r--, mask rw-, others -.
fn access_list() -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 7u16, u32::MAX), (2, 6, 1234), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

fn old(path: &Path) {
    let at = |seconds| files::Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
    let times = files::Timestamps { last_access: at(1_000_000_000), last_modification: at(1_100_000_000) };
    files::utimensat(files::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything.
fn fill(root: &Path) {
    let at = |path: &str| root.join(path);
    let mode = |path: &str, mode: u32| fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/file"), "text").unwrap();
    chown(at("a/file"), Some(1000), Some(2000)).unwrap();
    mode("a/file", 0o6751);
    attribute(&at("a/file"), "user.colour", b"blue");
    attribute(&at("a/file"), "trusted.overlay.opaque", b"y");
    // `cap_net_bind_service`, in the form of `linux/capability.h`.
    attribute(
        &at("a/file"),
        "security.capability",
        &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    fs::hard_link(at("a/file"), at("a/b/again")).unwrap();
    fs::hard_link(at("a/file"), at("0-first")).unwrap();
    fs::write(at("read-only"), "no").unwrap();
    mode("read-only", 0o400);
    fs::write(at("listed"), "who may").unwrap();
    attribute(&at("listed"), "system.posix_acl_access", &access_list());
    fs::create_dir(at("inherits")).unwrap();
    fs::write(at("inherits/plain"), "made before").unwrap();
    attribute(&at("inherits"), "system.posix_acl_default", &access_list());
    attribute(&at("inherits"), "system.posix_acl_access", &access_list());
    fs::write(at("inherits/inherited"), "made after").unwrap();
    symlink("/etc/passwd", at("away")).unwrap();
    symlink("a", at("a-link")).unwrap();
    lchown(at("away"), Some(5), Some(6)).unwrap();
    attribute(&at("away"), "trusted.of-a-link", b"1");
    let node =
        |path: &str, kind, device| files::mknodat(files::CWD, at(path), kind, Mode::from(0o620), device);
    node("fifo", FileType::Fifo, 0).unwrap();
    node("device", FileType::CharacterDevice, files::makedev(10, 130)).unwrap();
    node("disk", FileType::BlockDevice, files::makedev(7, 99)).unwrap();
    fs::hard_link(at("fifo"), at("a/fifo-again")).unwrap();
    fs::write(at(" odd\n\"name\""), "x").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"\xff\xfe")), "bytes").unwrap();
    fs::create_dir(at("nobody-may")).unwrap();
    fs::write(at("nobody-may/file"), "secret").unwrap();
    chown(at("nobody-may"), Some(9), Some(9)).unwrap();
    mode("nobody-may", 0o000);
    mode("a", 0o1777);
    mode("a/b", 0o2750);
    for path in
        ["0-first", "read-only", "away", "fifo", "nobody-may/file", "nobody-may", "a/b", "a", "inherits"]
    {
        old(&at(path));
    }
    old(root);
}

fn everything_is_copied(world: &World) {
    fill(&world.from());
    let copy = world.copy();
    // Looking at the source may change when it was looked at last, so the copy is looked at as it was made.
    let (to, from) = (all(&copy), all(&world.from()));
    assert_eq!(to.len(), from.len());
    for (path, text) in from {
        assert_eq!(to.get(&path), Some(&text), "{}", path.display());
    }
}

#[test]
fn everything_is_copied_on_this_disk() {
    everything_is_copied(&World::new());
}

#[test]
fn everything_is_copied_in_memory() {
    let world = World::new();
    fs::create_dir(world.path("disk")).unwrap();
    crate::mounts::tmpfs(&world.path("disk"), None, "0700").unwrap();
    fs::create_dir(world.from()).unwrap();
    everything_is_copied(&world);
}

#[test]
fn everything_is_copied_where_blocks_are_shared() {
    let world = World::on("xfs");
    fill(&world.from());
    let large = world.from().join("large");
    fs::write(&large, (0..48 << 20).map(|n: u32| (n >> 10) as u8).collect::<Vec<_>>()).unwrap();
    old(&large);
    let free = || {
        sys::sync_fs(&world.disk()).unwrap();
        let stat = files::statvfs(world.disk()).unwrap();
        stat.f_bfree * stat.f_frsize
    };
    let before = free();
    let copy = world.copy();
    let taken = before - free();
    assert!(taken < 4 << 20, "the copy of 48 MiB takes {taken} bytes");
    assert!(fs::read(copy.join("large")).unwrap() == fs::read(&large).unwrap());
    // What is written to one is not seen in the other.
    File::options().write(true).open(&large).unwrap().write_all_at(b"changed", 0).unwrap();
    assert_eq!(fs::read(copy.join("large")).unwrap()[..7], [0; 7]);
    fs::remove_file(&large).unwrap();
    fs::remove_file(copy.join("large")).unwrap();
    let (to, from) = (all(&copy), all(&world.from()));
    assert_eq!(to.keys().collect::<Vec<_>>(), from.keys().collect::<Vec<_>>());
}

#[test]
fn holes_stay_holes_and_sockets_stay_away() {
    let world = World::new();
    let sparse = File::create_new(world.from().join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    sparse.write_all_at(b"middle", 300 << 20).unwrap();
    let _socket = UnixListener::bind(world.from().join("socket")).unwrap();
    let copy = world.copy();
    let file = File::open(copy.join("sparse")).unwrap();
    let mut text = [0; 8];
    file.read_exact_at(&mut text, (300 << 20) - 1).unwrap();
    assert_eq!(&text, b"\0middle\0");
    let meta = file.metadata().unwrap();
    assert!(meta.len() == 1 << 30 && meta.blocks() * 512 < 2 << 20, "{meta:?}");
    assert!(fs::metadata(world.from().join("socket")).unwrap().file_type().is_socket());
    assert!(!copy.join("socket").exists());
}

#[test]
fn what_is_mounted_below_is_not_there() {
    let world = World::new();
    let below = world.from().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("own"), "covered").unwrap();
    crate::mounts::tmpfs(&below, None, "0755").unwrap();
    fs::write(below.join("other"), "of another file system").unwrap();
    let copy = world.copy();
    assert_eq!(fs::read_to_string(copy.join("below/own")).unwrap(), "covered");
    assert!(!copy.join("below/other").exists());
}

#[test]
fn trees_may_be_deeper_than_paths_are_long() {
    let world = World::new();
    let name = "n".repeat(200);
    let depth = 60;
    let mut at: OwnedFd = sys::open_folder(&world.from()).unwrap();
    for _ in 0..depth {
        files::mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = files::openat(&at, &name, FOLDER, Mode::empty()).unwrap();
    }
    drop(files::openat(&at, "bottom", NEW_FILE, Mode::RUSR).unwrap());
    let mut at: OwnedFd = sys::open_folder(&world.copy()).unwrap();
    for _ in 0..depth {
        at = files::openat(&at, &name, FOLDER, Mode::empty()).unwrap();
    }
    files::statat(&at, "bottom", AtFlags::empty()).unwrap();
}

#[test]
fn a_full_disk_is_told() {
    let world = World::new();
    fs::create_dir(world.path("disk")).unwrap();
    crate::mounts::tmpfs(&world.path("disk"), Some(12 << 20), "0700").unwrap();
    fs::create_dir_all(world.from().join("a")).unwrap();
    fs::write(world.from().join("a/large"), vec![7; 8 << 20]).unwrap();
    let why = world.try_copy().unwrap_err();
    let large = world.from().join("a/large");
    assert_eq!(why, format!("cannot copy {}: No space left on device (os error 28)", large.display()));
}

#[test]
fn nobody_is_quick_enough_to_lead_us_out_and_nothing_that_changes_is_an_error() {
    let world = World::new();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "outside").unwrap();
    let from = world.from();
    fs::create_dir_all(from.join("x/deep")).unwrap();
    fs::write(from.join("x/file"), "inside").unwrap();
    fs::write(from.join("x/deep/file"), "inside").unwrap();
    fs::write(from.join("grows"), "inside").unwrap();
    symlink(&outside, from.join("link")).unwrap();
    symlink(outside.join("file"), from.join("file-link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Folder and link, file and link take turns in having a name.
                let swap = |a: &str, b: &str| {
                    let flags = files::RenameFlags::EXCHANGE;
                    let _ = files::renameat_with(files::CWD, from.join(a), files::CWD, from.join(b), flags);
                };
                swap("x", "link");
                swap("x", "link");
                swap("x/file", "file-link");
                swap("x/file", "file-link");
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(from.join("grows"), vec![1; 3 << 20]).unwrap();
                fs::write(from.join("comes"), "and goes").unwrap();
                fs::create_dir_all(from.join("folder/below")).unwrap();
                let _ = fs::remove_file(from.join("comes"));
                let _ = fs::remove_dir_all(from.join("folder"));
            }
        });
        for _ in 0..100 {
            let copy = world.copy();
            let mut files: Vec<_> = vec![copy.clone()];
            while let Some(path) = files.pop() {
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    files.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                } else if meta.is_file() {
                    assert_ne!(fs::read(&path).unwrap(), b"outside", "{}", path.display());
                }
            }
            fs::remove_dir_all(copy).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "outside");
}

/// What a random tree is made of.
#[derive(Clone, Debug)]
enum Part {
    File {
        text: Vec<u8>,
        hole: u16,
    },
    Folder,
    Link(String),
    Fifo,
    /// Another name of the file of this number.
    Again(prop::sample::Index),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..200), any::<u16>()).prop_map(|(text, hole)| Part::File { text, hole }),
        3 => Just(Part::Folder),
        1 => "[a-z/.]{1,20}".prop_map(Part::Link),
        1 => Just(Part::Fifo),
        2 => any::<prop::sample::Index>().prop_map(Part::Again),
    ]
}

type Made = (prop::sample::Index, Part, u32, u32, u32);

fn make(root: &Path, parts: &[Made]) {
    let (mut folders, mut plain) = (vec![root.to_owned()], Vec::<PathBuf>::new());
    for (number, (place, part, mode, owner, time)) in parts.iter().enumerate() {
        let path = place.get(&folders).join(number.to_string());
        match part {
            Part::File { text, hole } => {
                let file = File::create_new(&path).unwrap();
                file.write_all_at(text, u64::from(*hole) * 7).unwrap();
                file.set_times(
                    FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_millis((*time).into())),
                )
                .unwrap();
                attribute(&path, "user.number", number.to_string().as_bytes());
                plain.push(path.clone());
            }
            Part::Folder => {
                fs::create_dir(&path).unwrap();
                folders.push(path.clone());
            }
            Part::Link(to) => symlink(to, &path).unwrap(),
            Part::Fifo => files::mknodat(files::CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            Part::Again(which) => match plain.as_slice() {
                [] => continue,
                plain => {
                    fs::hard_link(which.get(plain), &path).unwrap();
                    continue;
                }
            },
        }
        lchown(&path, Some(*owner), Some(owner / 2)).unwrap();
        if !matches!(part, Part::Link(_)) {
            fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_is_copied_equal(
        parts in prop::collection::vec(
            (any::<prop::sample::Index>(), part(), 0u32..0o10000, 0u32..70000, any::<u32>()), 0..40)
    ) {
        let world = World::new();
        make(&world.from(), &parts);
        let copy = world.copy();
        let (to, from) = (all(&copy), all(&world.from()));
        prop_assert_eq!(to, from);
    }
}
