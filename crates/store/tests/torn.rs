//! What a power cut or a bad disk leaves of the journal.
//!
//! The last write may be cut off, or lack sectors: it was not acknowledged and vanishes whole. Any other damage is told,
//! and nothing is touched.

mod common;

use std::fs::{OpenOptions, read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{commit, copy, dump, put};
use store::{Expect, OpenError, Options, Store};

const WRITES: usize = 8;

fn journal(store: &Path) -> PathBuf {
    store.join("db/0.jnl")
}

/// A store of some writes, and where in the journal each of them ends; first of all the end of the empty store.
async fn written(place: &Path) -> Vec<usize> {
    let end = || read(journal(place)).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let store = common::open(place);
    let mut ends = vec![end()];
    for n in 0..WRITES {
        commit(&store, put("t", &format!("k{n}"), &"v".repeat(600), Expect::Absent)).await;
        ends.push(end());
    }
    store.close().await;
    ends
}

async fn count(place: &Path) -> Result<usize, OpenError> {
    let store = Store::open(place, Options::default())?;
    let count = dump(&store, "t").len();
    assert_eq!(store.revision(), count as u64);
    // And it goes on from there.
    commit(&store, put("t", "more", "", Expect::Absent)).await;
    store.close().await;
    let again = common::open(place);
    assert_eq!(dump(&again, "t").len(), count + 1);
    again.close().await;
    Ok(count)
}

#[tokio::test]
async fn a_torn_last_write_vanishes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let ends = written(&whole).await;
    let (begin, end) = (ends[WRITES - 1], ends[WRITES]);
    let length = read(journal(&whole)).unwrap().len() as u64;
    for (n, at) in (begin..end).step_by(29).chain(end - 20..end).enumerate() {
        for how in ["cut", "zeros", "sector", "page"] {
            let place = folder.path().join(format!("{how}-{n}"));
            copy(&whole, &place);
            let file = OpenOptions::new().write(true).open(journal(&place)).unwrap();
            let hole = |size: usize| {
                let to = (at / size + 1) * size;
                file.write_all_at(
                    &vec![0; to - (at / size * size).max(begin)],
                    (at / size * size).max(begin) as u64,
                )
            };
            match how {
                "cut" => file.set_len(at as u64).unwrap(),
                "zeros" => file.set_len(at as u64).and_then(|()| file.set_len(length)).unwrap(),
                "sector" => hole(512).unwrap(),
                _ => hole(4096).unwrap(),
            }
            assert_eq!(count(&place).await.unwrap(), WRITES - 1, "{how} at {at} of {begin}..{end}");
            std::fs::remove_dir_all(&place).unwrap();
        }
    }
}

#[tokio::test]
async fn a_journal_that_ends_early_gives_what_came_before() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let ends = written(&whole).await;
    for at in (ends[0]..=ends[WRITES]).step_by(211) {
        let place = folder.path().join(at.to_string());
        copy(&whole, &place);
        let file = OpenOptions::new().write(true).open(journal(&place)).unwrap();
        file.set_len(at as u64).unwrap();
        let expected = ends.iter().filter(|end| **end <= at).count() - 1;
        assert_eq!(count(&place).await.unwrap(), expected, "cut at {at}");
    }
}

#[tokio::test]
async fn damage_before_the_end_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let ends = written(&whole).await;
    // A flipped sequence number (bytes 5 to 12 of a batch) is not covered by the checksum.
    let covered = |at: usize| ends.iter().all(|begin| !(begin + 5..begin + 13).contains(&at));
    for at in (ends[0]..ends[WRITES - 1]).step_by(61).filter(|at| covered(*at)) {
        let place = folder.path().join(at.to_string());
        copy(&whole, &place);
        let byte = read(journal(&place)).unwrap()[at];
        let file = OpenOptions::new().write(true).open(journal(&place)).unwrap();
        file.write_all_at(&[byte ^ 0x41], at as u64).unwrap();
        let before = read(journal(&place)).unwrap();
        let error = Store::open(&place, Options::default()).err().expect("damage goes unnoticed");
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("is corrupt: the journal 0.jnl is damaged at byte"), "{error}");
        assert!(read(journal(&place)).unwrap() == before, "the journal was changed");
        std::fs::remove_dir_all(&place).unwrap();
    }
}

#[tokio::test]
async fn what_no_power_cut_can_leave_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let ends = written(&whole).await;
    // Garbage from somewhere in a batch to behind the last one, or in the last one alone.
    for at in (ends[1]..ends[WRITES] - 20).step_by(53) {
        let place = folder.path().join(at.to_string());
        copy(&whole, &place);
        let file = OpenOptions::new().write(true).open(journal(&place)).unwrap();
        let junk: Vec<u8> = (0..ends[WRITES] + 1000 - at).map(|i| (i * 131 + 17) as u8 | 1).collect();
        file.write_all_at(&junk[..if at < ends[WRITES - 1] { junk.len() } else { 20 }], at as u64).unwrap();
        let error = Store::open(&place, Options::default()).err();
        // Bytes 5 to 12 of a batch say nothing that is checked.
        let unchecked = at >= ends[WRITES - 1] && at < ends[WRITES - 1] + 13;
        assert!(
            unchecked || matches!(error, Some(OpenError::Corrupt { .. })),
            "at {at} of {ends:?}: {error:?}"
        );
        std::fs::remove_dir_all(&place).unwrap();
    }
}
