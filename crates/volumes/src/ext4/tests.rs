use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::*;

const MIB: u64 = 1 << 20;
const ID: [u8; 16] = *b"0123456789abcdef";

fn image(path: &Path, bytes: u64) {
    let file = File::create_new(path).unwrap();
    file.set_len(bytes).unwrap();
    format(&file, bytes, ID, 1_700_000_000).unwrap();
}

/// Upstream's own checker has nothing to say, where there is one.
fn check(path: &Path) {
    let Ok(said) = Command::new("e2fsck").arg("-fn").arg(path).output() else { return };
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{text}");
}

/// Mounted, and unmounted at the end.
struct Mounted<'a> {
    image: &'a Path,
    at: &'a Path,
}

impl<'a> Mounted<'a> {
    fn new(image: &'a Path, at: &'a Path) -> Self {
        let device = sys::attach_loop(image, false, false).unwrap();
        sys::mount_device(device.path(), at, "ext4", &[], false).unwrap();
        Self { image, at }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        sys::detach(self.at).unwrap();
        crate::testing::let_go(self.image);
    }
}

#[test]
fn all_sizes_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in
        [8 * MIB, 16 * MIB, 100 * MIB, 128 * MIB, 129 * MIB, 1024 * MIB + 4097, 20 << 30, 300 << 30, 2 << 40]
    {
        let path = folder.path().join("image");
        image(&path, bytes);
        check(&path);
        fs::remove_file(path).unwrap();
    }
    let small = File::create(folder.path().join("small")).unwrap();
    assert!(format(&small, MIB, ID, 0).unwrap_err().to_string().contains("8 MiB to 16 TiB"));
}

#[test]
fn the_kernel_reads_writes_and_grows_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = (folder.path().join("image"), folder.path().join("mnt"));
    image(&path, 64 * MIB);
    fs::create_dir(&at).unwrap();
    {
        let _mounted = Mounted::new(&path, &at);
        assert_eq!(
            fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>(),
            ["lost+found"]
        );
        fs::create_dir(at.join("many")).unwrap();
        for i in 0..500 {
            fs::write(at.join(format!("many/{i}")), vec![i as u8; 5000]).unwrap();
        }
        let full = fs::write(at.join("big"), vec![1; 80 << 20]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        // Across the end of the first group, and of the first block of descriptors: 16 GiB.
        File::options().write(true).open(&path).unwrap().set_len(20 << 30).unwrap();
        let device = sys::find_loop(&path).unwrap().unwrap();
        sys::refresh_loop(device.path()).unwrap();
        match sys::grow_ext4(&at, (20 << 30) / BLOCK) {
            // Nobody may do that here.
            Err(error) if error.errno() == Some(1) => {}
            grown => {
                grown.unwrap();
                fs::write(at.join("big"), vec![1; 80 << 20]).unwrap();
            }
        }
    }
    check(&path);
    {
        let _mounted = Mounted::new(&path, &at);
        assert_eq!(fs::read(at.join("many/77")).unwrap(), [77; 5000]);
    }
    check(&path);
}

#[test]
fn it_grows_while_it_is_not_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = (folder.path().join("image"), folder.path().join("mnt"));
    image(&path, 16 * MIB);
    fs::create_dir(&at).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for (i, bytes) in [20 * MIB, 128 * MIB, 129 * MIB, 700 * MIB, 15 << 30].into_iter().enumerate() {
        {
            let _mounted = Mounted::new(&path, &at);
            fs::write(at.join(format!("file-{i}")), vec![i as u8; 1 << 20]).unwrap();
        }
        file.set_len(bytes).unwrap();
        let blocks = || {
            let mut head = [0; 4];
            file.read_exact_at(&mut head, 1028).unwrap();
            u64::from(u32::from_le_bytes(head))
        };
        let before = blocks();
        for (place, text) in prepare_growth(&file, bytes).unwrap() {
            file.write_all_at(&text, place).unwrap();
        }
        file.sync_all().unwrap();
        assert!(blocks() > before || bytes == 129 * MIB);
        check(&path);
        assert!(prepare_growth(&file, bytes).unwrap().is_empty());
    }
    {
        let _mounted = Mounted::new(&path, &at);
        for i in 0..5 {
            assert_eq!(fs::read(at.join(format!("file-{i}"))).unwrap(), vec![i; 1 << 20]);
        }
        fs::write(at.join("big"), vec![9; 300 << 20]).unwrap();
        // Mounted, it is nobody else's to change.
        assert!(prepare_growth(&file, 15 << 30).unwrap_err().to_string().contains("not unmounted cleanly"));
    }
    check(&path);
    file.set_len(17 << 30).unwrap();
    assert!(prepare_growth(&file, 17 << 30).unwrap_err().to_string().contains("table of groups is full"));
}
