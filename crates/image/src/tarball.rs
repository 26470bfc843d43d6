use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::fsutil::Xattrs;

const BLOCK: u64 = 512;
/// Long names and extended attributes of one entry; they are read into memory.
const LARGEST_EXTENSION: u64 = 1 << 20;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ended or failed.
    #[error("read tar stream: {0}")]
    Io(#[from] io::Error),
    /// A header does not have the checksum it states.
    #[error("tar header at byte {0} has a wrong checksum")]
    Checksum(u64),
    /// A number of a header is malformed or out of range.
    #[error("tar header at byte {at}: invalid {field}")]
    Field {
        /// Where the header starts.
        at: u64,
        /// Which field.
        field: &'static str,
    },
    /// An extension of a header is too big, malformed, or belongs to no entry.
    #[error("tar header at byte {at}: {problem} extension")]
    Extension {
        /// Where the header starts.
        at: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An entry of a kind that no layer needs.
    #[error("tar entry {path:?} has the unsupported type {kind:?}")]
    Kind {
        /// The entry.
        path: String,
        /// The type byte.
        kind: char,
    },
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// The header of one entry with its extensions applied.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    pub(crate) xattrs: Xattrs,
}

/// Reads a tar stream entry by entry; as a `Read` it gives the data of the entry just returned.
///
/// The `tar` crate's own reader keeps extensions of any length in memory and splits extended attributes at newlines,
/// which binary ones contain; hence this one, on that crate's header type.
pub(crate) struct TarReader<R> {
    inner: R,
    at: u64,
    left: u64,
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    any: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Xattrs,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, at: 0, left: 0, padding: 0 }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let at = self.at;
            let Some(header) = self.header(at)? else {
                return if extensions.any {
                    Err(TarError::Extension { at, problem: "orphaned" })
                } else {
                    Ok(None)
                };
            };
            let size = or_blank(header.entry_size(), &header.as_old().size)
                .map_err(|_| TarError::Field { at, field: "size" })?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => {
                    let data = self.extension(at, size)?;
                    extensions.parse(&data, at)?;
                }
                EntryType::GNULongName => extensions.long_name(self.extension(at, size)?),
                EntryType::GNULongLink => extensions.long_link(self.extension(at, size)?),
                // Defaults for all entries; nobody relies on them (Docker ignores them too). `V` is a volume label.
                EntryType::XGlobalHeader => drop(self.extension(at, size)?),
                _ if kind.as_byte() == b'V' => self.set_data(at, size)?,
                _ => return self.entry(&header, extensions, at, size).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, ext: Extensions, at: u64, size: u64) -> Result<Entry, TarError> {
        let field = |field| TarError::Field { at, field };
        let path = ext.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = ext.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let kind = match header.entry_type() {
            // The oldest format marks directories by a slash only.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            other => {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Err(TarError::Kind { path, kind: char::from(other.as_byte()) });
            }
        };
        // Only files have data; some writers state the size of a hard link's target.
        let size = if kind == Kind::File { ext.size.unwrap_or(size) } else { 0 };
        self.set_data(at, size)?;
        let id = |stated: Option<u64>, own: io::Result<u64>, name| -> Result<u32, TarError> {
            let id = stated.map_or(own, Ok).map_err(|_| field(name))?;
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| field(name))
        };
        Ok(Entry {
            kind,
            path,
            link,
            mode: or_blank(header.mode(), &header.as_old().mode).map_err(|_| field("mode"))? & 0o7777,
            uid: id(ext.uid, or_blank(header.uid(), &header.as_old().uid), "user id")?,
            gid: id(ext.gid, or_blank(header.gid(), &header.as_old().gid), "group id")?,
            mtime: ext.mtime.unwrap_or_else(|| {
                // Times before 1970 and beyond the kernel's range do not matter enough to refuse a layer.
                (header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0), 0)
            }),
            size,
            xattrs: ext.xattrs,
        })
    }

    fn header(&mut self, at: u64) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 =
            block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(TarError::Checksum(at));
        }
        Ok(Some(header))
    }

    fn set_data(&mut self, at: u64, size: u64) -> Result<(), TarError> {
        if size > u64::MAX / 4 || self.at > u64::MAX / 4 {
            return Err(TarError::Field { at, field: "size" });
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    fn extension(&mut self, at: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > LARGEST_EXTENSION {
            return Err(TarError::Extension { at, problem: "oversized" });
        }
        self.set_data(at, size)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        io::copy(self, &mut io::sink())?;
        let mut padding = (&mut self.inner).take(self.padding);
        let skipped = io::copy(&mut padding, &mut io::sink())?;
        if skipped < self.padding {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.at += self.padding;
        self.padding = 0;
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut into[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        self.at += n as u64;
        Ok(n)
    }
}

impl Extensions {
    fn long_name(&mut self, data: Vec<u8>) {
        self.any = true;
        self.path.get_or_insert(until_nul(data));
    }

    fn long_link(&mut self, data: Vec<u8>) {
        self.any = true;
        self.link.get_or_insert(until_nul(data));
    }

    /// Records are `<length> <key>=<value>\n`; the length counts all of it, and values may hold any byte.
    fn parse(&mut self, mut data: &[u8], at: u64) -> Result<(), TarError> {
        let malformed = || TarError::Extension { at, problem: "malformed" };
        self.any = true;
        while !data.is_empty() && data[0] != 0 {
            let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length: usize = number(&data[..space]).ok_or_else(malformed)?;
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(malformed());
            }
            let record = &data[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..], at)?;
            data = &data[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8], at: u64) -> Result<(), TarError> {
        let malformed = || TarError::Extension { at, problem: "malformed" };
        match key {
            b"path" => self.path = Some(no_nul(value).ok_or_else(malformed)?),
            b"linkpath" => self.link = Some(no_nul(value).ok_or_else(malformed)?),
            b"size" => self.size = Some(number(value).ok_or_else(malformed)?),
            b"uid" => self.uid = Some(number(value).ok_or_else(malformed)?),
            b"gid" => self.gid = Some(number(value).ok_or_else(malformed)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(malformed)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Extension { at, problem: "unsupported sparse file" });
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((no_nul(name).ok_or_else(malformed)?, value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// An empty number is zero, as in Go's reader.
fn or_blank<T: Default>(parsed: io::Result<T>, raw: &[u8]) -> io::Result<T> {
    if raw.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { parsed }
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

fn no_nul(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.to_vec())
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `[-]seconds[.fraction]`
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(match (text.starts_with('-'), nanos) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanos),
        _ => (seconds, nanos),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
        let mut reader = TarReader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut data = Vec::new();
            reader.read_to_end(&mut data)?;
            found.push((entry, data));
        }
        Ok(found)
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o4755);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(77);
        builder
            .append_pax_extensions([
                ("SCHILY.xattr.user.x", &b"a\nb\0=c"[..]),
                ("mtime", &b"12.5"[..]),
                ("uid", &b"70000"[..]),
            ])
            .unwrap();
        builder.append_data(&mut header, "d/".to_owned() + &"n".repeat(150), &b"hello"[..]).unwrap();
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", "t".repeat(300)).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn applies_extensions() {
        let found = entries(&sample()).unwrap();
        let (file, data) = &found[0];
        assert_eq!(file.path.len(), 152);
        assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o4755, 70000, 4, (12, 500_000_000)));
        assert_eq!(file.xattrs, [(b"user.x".to_vec(), b"a\nb\0=c".to_vec())]);
        assert_eq!(data, b"hello");
        assert_eq!((found[1].0.kind, found[1].0.link.len()), (Kind::Symlink, 300));
    }

    #[test]
    fn refuses_truncation_and_wrong_checksums() {
        let sample = sample();
        assert!(matches!(entries(&sample[..3 * 512 + 100]), Err(TarError::Io(_))));
        let mut wrong = sample;
        wrong[0] ^= 1;
        assert!(matches!(entries(&wrong), Err(TarError::Checksum(0))));
    }

    #[test]
    fn refuses_huge_extensions() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(u64::MAX >> 2);
        header.set_cksum();
        let result = entries(header.as_bytes());
        assert!(matches!(result, Err(TarError::Extension { problem: "oversized", .. })), "{result:?}");
    }

    #[test]
    fn reads_times() {
        assert_eq!(time(b"1.25"), Some((1, 250_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"1.2.3"), None);
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = entries(&bytes);
        }

        #[test]
        fn never_panics_on_damage(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8), fix in any::<bool>()) {
            let mut bytes = sample();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
                if fix {
                    // Make the header's checksum right again, or hardly any damage gets past it.
                    let block = at / 512 * 512;
                    let header = Header::from_byte_slice(&bytes[block..block + 512]).clone();
                    let mut header = header;
                    header.set_cksum();
                    bytes[block..block + 512].copy_from_slice(header.as_bytes());
                }
            }
            let _ = entries(&bytes);
        }
    }
}
