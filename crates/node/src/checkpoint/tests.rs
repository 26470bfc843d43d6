use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

type Data = BTreeMap<String, Vec<u64>>;

fn data(number: u64) -> Data {
    [("a \"b\"".to_owned(), vec![number, 2]), ("c".to_owned(), vec![])].into()
}

/// Fails at the `left`th step, having written only the first `torn` bytes.
struct Failing {
    left: Arc<AtomicUsize>,
    torn: usize,
}

impl Failing {
    fn step(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("the disk is gone")),
            _ => Ok(()),
        }
    }
}

impl Disk for Failing {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            std::fs::write(path, &bytes[..self.torn.min(bytes.len())])?;
            return Err(error);
        }
        RealDisk.write(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = Checkpoint::at(folder.path().join("deep/state"));
    assert_eq!(file.load::<Data>().unwrap(), None);
    for number in 0..3 {
        file.save(&data(number)).unwrap();
        assert_eq!(file.load::<Data>().unwrap(), Some(data(number)));
    }
}

#[test]
fn a_write_that_fails_anywhere_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    Checkpoint::at(path.clone()).save(&data(1)).unwrap();
    for step in 0..2 {
        for torn in [0, 1, 20, 1000] {
            let disk = Failing { left: Arc::new(AtomicUsize::new(step)), torn };
            let file = Checkpoint { path: path.clone(), disk: Box::new(disk) };
            let failed = file.save(&data(2)).unwrap_err();
            assert!(failed.to_string().contains("the disk is gone"), "{failed}");
            assert_eq!(file.load::<Data>().unwrap(), Some(data(1)));
        }
    }
    Checkpoint::at(path.clone()).save(&data(2)).unwrap();
    assert_eq!(Checkpoint::at(path).load::<Data>().unwrap(), Some(data(2)));
}

#[test]
fn a_torn_file_is_never_taken_for_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = Checkpoint::at(folder.path().join("state"));
    file.save(&data(1)).unwrap();
    let whole = std::fs::read(file.path()).unwrap();
    for length in 0..whole.len() {
        std::fs::write(file.path(), &whole[..length]).unwrap();
        let error = file.load::<Data>().unwrap_err();
        assert!(matches!(error, CheckpointError::Corrupt { .. }), "{length}: {error}");
    }
}

proptest! {
    #[test]
    fn a_changed_byte_is_seen(place in any::<prop::sample::Index>(), byte: u8) {
        let folder = tempfile::tempdir().unwrap();
        let file = Checkpoint::at(folder.path().join("state"));
        file.save(&data(1)).unwrap();
        let mut bytes = std::fs::read(file.path()).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        std::fs::write(file.path(), &bytes).unwrap();
        // Space between the fields is no change of what they say.
        match file.load::<Data>() {
            Ok(found) => prop_assert_eq!(found, Some(data(1))),
            Err(error) => prop_assert!(matches!(error, CheckpointError::Corrupt { .. }), "{}", error),
        }
    }
}
