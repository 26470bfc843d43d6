//! A look at the database's journal before the database opens it.
//!
//! A power cut can leave the last batch half written: the journal is a preallocated file, and the pages of one
//! write reach the disk in any order. Such a batch was never acknowledged. The database cuts it off when it ends too
//! early, but refuses to open when its checksum is wrong; and where the *middle* of the journal is damaged it may cut
//! off all that follows without a word. So we look first: an end that a power cut can have left is cut off, and any
//! other damage is corruption, which nobody touches. This holds because each batch is flushed before the next one is
//! begun, and because a sector that did not reach the disk is still blank.
//!
//! The format is that of fjall-rs/fjall, `src/journal/entry.rs` (`Entry`) and `src/journal/writer.rs`
//! (`Writer::write_batch`), format version 3.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const MAGIC: &[u8; 4] = b"FJL\x03";

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the journal {file} is damaged at byte {at}, before the end of what was acknowledged")]
    Damaged { file: String, at: u64 },
}

/// Makes the journals in `folder` fit to be opened, or finds that they are not.
pub(crate) fn mend(folder: &Path) -> Result<(), JournalError> {
    if !std::fs::read(folder.join("version"))?.starts_with(MAGIC) {
        return Ok(()); // Another format: for the database to say.
    }
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ext| ext == "jnl")) {
            journals.push((number, path));
        }
    }
    journals.sort();
    let last = journals.pop();
    for (_, path) in journals {
        // Sealed, which it was only after a flush.
        if let End::Damaged { at } = look(&path)? {
            return Err(damaged(&path, at));
        }
    }
    let Some((_, path)) = last else { return Ok(()) };
    if let End::Damaged { at } = look(&path)? {
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        let torn = Torn { rest: &rest, at };
        if !torn.is_likely() || batch_after(&rest)? {
            return Err(damaged(&path, at));
        }
        tracing::warn!(journal = %path.display(), at, "cutting off a write that was interrupted");
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(at)?;
        file.sync_all()?;
    }
    Ok(())
}

fn damaged(path: &Path, at: u64) -> JournalError {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    JournalError::Damaged { file, at }
}

/// How a journal ends.
enum End {
    /// With a whole batch, and perhaps with space that was never written.
    Clean,
    /// With something else at this byte, where a batch should begin.
    Damaged { at: u64 },
}

fn look(path: &Path) -> io::Result<End> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut reader =
        Reader { from: BufReader::with_capacity(64 << 10, file), left: length, hash: Xxh3::new() };
    loop {
        let at = length - reader.left;
        if !reader.batch()? {
            return Ok(if blank(path, at)? { End::Clean } else { End::Damaged { at } });
        }
    }
}

/// Whether nothing but zeros follows. Holes in the file, which is most of it, are not read.
fn blank(path: &Path, mut at: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        match lseek64(&file, offset, Whence::SeekData) {
            Ok(data) => at = u64::try_from(data).map_err(io::Error::other)?,
            Err(Errno::ENXIO) => return Ok(true),
            Err(Errno::EINVAL) => at = file.seek(SeekFrom::Start(at))?,
            Err(error) => return Err(error.into()),
        }
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(true);
        }
        if chunk[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
}

/// The least that a disk writes at once.
const SECTOR: u64 = 512;

/// So many zeros in a row are no part of what is written, which is text.
const LEAST_BLANK: usize = 16;

/// No batch is longer than journals get.
const LARGEST: usize = 64 << 20;

/// What lies where the next batch should begin.
struct Torn<'a> {
    rest: &'a [u8],
    /// Where it is in the file.
    at: u64,
}

impl Torn<'_> {
    /// Whether it can be a batch some of whose sectors did not reach the disk: as far as it can be read it is one, and
    /// behind it is nothing.
    fn is_likely(&self) -> bool {
        let mut i = 0;
        let Some([tag, n0, n1, n2, n3, ..]) = self.known::<13>(i) else { return self.has_start(i, START) };
        if tag != START {
            return false;
        }
        i += 13;
        for _ in 0..u32::from_le_bytes([n0, n1, n2, n3]) {
            let Some(head) = self.known::<21>(i) else { return self.has_start(i, ITEM) };
            let [tag, _, compression, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
            if tag != ITEM || compression != 0 {
                return false;
            }
            i += 21 + usize::from(u16::from_le_bytes([k0, k1]));
            i = i.saturating_add(u32::from_le_bytes([v0, v1, v2, v3]) as usize);
            if i > LARGEST {
                return false;
            }
        }
        let Some([tag, .., m0, m1, m2, m3]) = self.known::<13>(i) else { return self.has_start(i, END) };
        // All of it is there, and its sum is wrong: only bytes that never came can be the reason.
        let behind = i + 13;
        let sectors = (0..behind).filter(|byte| (self.at + *byte as u64).is_multiple_of(SECTOR));
        let mut ends = sectors.filter(|end| *end >= LEAST_BLANK);
        tag == END
            && [m0, m1, m2, m3] == *MAGIC
            && ends.any(|end| self.is_blank(end - LEAST_BLANK))
            && self.rest[behind..].iter().all(|byte| *byte == 0)
    }

    /// Bytes none of which is missing.
    fn known<const N: usize>(&self, from: usize) -> Option<[u8; N]> {
        let bytes = self.rest.get(from..from.checked_add(N)?)?.try_into().ok()?;
        (!self.is_blank(from) && !self.is_blank(from + N - 1)).then_some(bytes)
    }

    /// Whether a part that is not wholly there begins as it should, if its beginning is there. Where the file ends
    /// before it, the file must have been cut off: never written space is blank.
    fn has_start(&self, at: usize, tag: u8) -> bool {
        let cut = || !self.rest.ends_with(&[0; LEAST_BLANK]);
        self.rest.get(at).map_or_else(cut, |byte| *byte == tag || self.is_blank(at))
    }

    /// Whether a byte is zero, and all that follow it in its sector. A sector may have been taken while it was being
    /// filled.
    fn is_blank(&self, byte: usize) -> bool {
        let place = self.at + byte as u64;
        let to = byte + (SECTOR - place % SECTOR) as usize;
        self.rest[byte..to.min(self.rest.len())].iter().all(|byte| *byte == 0)
    }
}

/// Whether a whole batch begins anywhere after the first byte.
fn batch_after(rest: &[u8]) -> io::Result<bool> {
    for begin in 1..rest.len() {
        if rest[begin] == START && rest.get(begin + 13) == Some(&ITEM) {
            let from = &rest[begin..];
            let mut reader = Reader { from, left: from.len() as u64, hash: Xxh3::new() };
            if reader.batch()? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

struct Reader<R> {
    from: R,
    left: u64,
    hash: Xxh3,
}

impl<R: Read> Reader<R> {
    /// Reads a batch, or says that there is none.
    fn batch(&mut self) -> io::Result<bool> {
        match self.try_batch() {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            other => other,
        }
    }

    fn try_batch(&mut self) -> io::Result<bool> {
        let [tag, items @ .., _, _, _, _, _, _, _, _] = self.array::<13>()?;
        if tag != START {
            return Ok(false);
        }
        self.hash.reset();
        for _ in 0..u32::from_le_bytes(items) {
            let head = self.array::<21>()?;
            let [tag, _kind, compression, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
            if tag != ITEM || compression != 0 {
                return Ok(false);
            }
            self.hash.update(&head);
            let body =
                u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
            self.body(body)?;
        }
        let [tag, hash @ .., m0, m1, m2, m3] = self.array::<13>()?;
        Ok(tag == END && u64::from_le_bytes(hash) == self.hash.digest() && [m0, m1, m2, m3] == *MAGIC)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(ErrorKind::UnexpectedEof)?;
        self.from.read_exact(bytes)
    }

    fn body(&mut self, mut length: u64) -> io::Result<()> {
        if length > self.left {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut chunk = [0; 4096];
        while length > 0 {
            let now = usize::try_from(length).unwrap_or(usize::MAX).min(chunk.len());
            self.take(&mut chunk[..now])?;
            self.hash.update(&chunk[..now]);
            length -= now as u64;
        }
        Ok(())
    }
}
