//! Reading a container's log, rotated files and all, and following it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sys::WatchedFd;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// A log: the file of a path, and before it those that were put aside as `<path>.<time>`.
pub(super) struct Log {
    path: PathBuf,
    /// What is still to be read, the next one last.
    files: Vec<File>,
    /// The identity of the youngest file that was opened.
    youngest: Option<u64>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Log {
    /// Opens the log at its beginning, or before its `tail` last lines.
    pub(super) fn open(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut log = Self { path: path.to_owned(), files: Vec::new(), youngest: None, rest: Vec::new() };
        let mut wanted = tail;
        // From the youngest to the oldest, so that the oldest is read first.
        for path in files(path)? {
            let Ok(mut file) = File::open(&path) else { continue };
            log.youngest.get_or_insert(file.metadata()?.ino());
            let whole = match &mut wanted {
                None => true,
                Some(lines) => seek_to_tail(&mut file, lines)?,
            };
            log.files.push(file);
            if !whole {
                break;
            }
        }
        Ok(log)
    }

    /// More whole lines, each with its end; none when everything was read that is there now.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut data = std::mem::take(&mut self.rest);
        while let Some(file) = self.files.last_mut() {
            let before = data.len();
            data.resize(before + PIECE, 0);
            let len = file.read(&mut data[before..])?;
            data.truncate(before + len);
            if len == 0 {
                if self.files.len() > 1 || self.next_file()? {
                    self.files.pop();
                    continue;
                }
                break;
            }
            if data[before..].contains(&b'\n') {
                break;
            }
        }
        let end = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = data.split_off(end);
        Ok(data)
    }

    /// Whether the path leads to another file than the one that was read to its end; then that one comes next.
    fn next_file(&mut self) -> io::Result<bool> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let inode = file.metadata()?.ino();
        if self.youngest == Some(inode) {
            return Ok(false);
        }
        self.youngest = Some(inode);
        self.files.insert(0, file);
        Ok(true)
    }

    /// Tells when the log's folder changes.
    pub(super) fn watch(&self) -> io::Result<Changes> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, flags)?;
        Ok(Changes(WatchedFd::new(OwnedFd::from(inotify))?))
    }
}

/// See [`Log::watch`].
pub(super) struct Changes(WatchedFd);

impl Changes {
    /// Resolves after a change since the last call.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        std::future::poll_fn(|cx| self.0.poll_read(cx, &mut events)).await.map(drop)
    }
}

/// The log's files, the youngest first.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let ours =
        |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix).then(|| entry.path());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.flatten().filter_map(ours).collect();
    // The names end with times, so they sort by age.
    files.sort_unstable_by(|a, b| b.cmp(a));
    files.insert(0, path.to_owned());
    Ok(files)
}

/// Goes to the beginning of the `lines` last lines. If there are not so many, goes to the beginning of the file, takes
/// those there are from `lines`, and says true.
fn seek_to_tail(file: &mut File, lines: &mut u64) -> io::Result<bool> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if *lines == 0 {
        return Ok(false);
    }
    let mut buffer = vec![0; PIECE];
    let (mut found, mut first) = (0, true);
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let piece = &mut buffer[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        for (at, byte) in piece.iter().enumerate().rev() {
            // The end of the last line begins no other.
            let last = std::mem::take(&mut first);
            if *byte == b'\n' && !last {
                found += 1;
                if found == *lines {
                    file.seek(SeekFrom::Start(start + at as u64 + 1))?;
                    return Ok(false);
                }
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    // The first line has no end of another before it.
    let lines_here = if first { 0 } else { found + 1 };
    *lines -= lines_here.min(*lines);
    Ok(*lines > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(log: &mut Log) -> String {
        let mut text = Vec::new();
        loop {
            let more = log.read().unwrap();
            if more.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(more);
        }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(folder.path().join("0.log.20260101-000000"), "a\nb\n").unwrap();
        fs::write(folder.path().join("0.log.20260102-000000"), "c\n").unwrap();
        fs::write(&path, "d\ne\nunfinish").unwrap();
        (folder, path)
    }

    #[test]
    fn old_files_come_first() {
        let (_folder, path) = folder();
        assert_eq!(all(&mut Log::open(&path, None).unwrap()), "a\nb\nc\nd\ne\n");
    }

    #[test]
    fn tails_reach_into_old_files() {
        let (_folder, path) = folder();
        fs::write(&path, "d\ne\n").unwrap();
        for (lines, text) in [(0, ""), (1, "e\n"), (2, "d\ne\n"), (3, "c\nd\ne\n"), (4, "b\nc\nd\ne\n")] {
            assert_eq!(all(&mut Log::open(&path, Some(lines)).unwrap()), text, "{lines}");
        }
        assert_eq!(all(&mut Log::open(&path, Some(99)).unwrap()), "a\nb\nc\nd\ne\n");
        let long = "x".repeat(PIECE) + "\n";
        fs::write(&path, long.repeat(3)).unwrap();
        assert_eq!(all(&mut Log::open(&path, Some(2)).unwrap()), long.repeat(2));
    }

    #[tokio::test]
    async fn follows_over_a_rotation() {
        let (_folder, path) = folder();
        let mut log = Log::open(&path, Some(1)).unwrap();
        let changes = log.watch().unwrap();
        all(&mut log);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"ed\n").unwrap();
        changes.next().await.unwrap();
        assert_eq!(all(&mut log), "unfinished\n");
        file.write_all(b"last\n").unwrap();
        fs::rename(&path, path.with_extension("log.20260103-000000")).unwrap();
        fs::write(&path, "new\n").unwrap();
        changes.next().await.unwrap();
        assert_eq!(all(&mut log), "last\nnew\n");
    }
}
