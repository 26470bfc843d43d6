//! Container output as the CRI log format: `<time> <stream> <F|P> <text>`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base::Timestamp;

use crate::protocol::LogFile;

/// Longer lines are cut into partial ones, as containerd does (containerd/containerd,
/// `internal/cri/io/logger.go`).
const MAX_LINE: usize = 16 * 1024;
const KEEP: u32 = 5;

/// A log file.
#[derive(Debug)]
pub(super) struct Log {
    settings: LogFile,
    file: Option<File>,
    size: u64,
}

/// What of one stream is not in the log yet, for want of an end of line.
#[derive(Debug, Default)]
pub(super) struct Unfinished(Vec<u8>);

impl Log {
    pub(super) fn open(settings: LogFile) -> io::Result<Self> {
        let (file, size) = open(&settings.path)?;
        Ok(Self { settings, file: Some(file), size })
    }

    /// Opens the path again: somebody has renamed the file.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let (file, size) = open(&self.settings.path)?;
        (self.file, self.size) = (Some(file), size);
        Ok(())
    }

    /// Adds output; `end` also writes what has no end of line.
    pub(super) fn write(
        &mut self,
        stream: &str,
        rest: &mut Unfinished,
        mut data: &[u8],
        now: Timestamp,
        end: bool,
    ) {
        let mut out = Vec::with_capacity(data.len() + 64);
        while let Some(at) = data.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&data[..at], &data[at + 1..]);
            if rest.0.is_empty() {
                cut(&mut out, now, stream, line, true);
            } else {
                rest.0.extend_from_slice(line);
                cut(&mut out, now, stream, &std::mem::take(&mut rest.0), true);
            }
            data = after;
        }
        rest.0.extend_from_slice(data);
        if rest.0.len() >= MAX_LINE {
            let whole = rest.0.len() / MAX_LINE * MAX_LINE;
            cut(&mut out, now, stream, &rest.0[..whole], false);
            rest.0.drain(..whole);
        }
        if end && !rest.0.is_empty() {
            // No end of line is added to what has none, as with containerd (`internal/cri/io/logger.go`, `redirectLogs`).
            cut(&mut out, now, stream, &std::mem::take(&mut rest.0), false);
        }
        if rest.0.is_empty() {
            // Most containers are silent most of the time, and memory is counted.
            rest.0 = Vec::new();
        }
        self.append(&out);
    }

    fn append(&mut self, out: &[u8]) {
        if out.is_empty() {
            return;
        }
        if self.size > 0 && self.settings.max_bytes.is_some_and(|most| self.size + out.len() as u64 > most) {
            // A log that cannot be rotated still grows: better than losing output.
            let _ = self.rotate();
        }
        // A full disk must not stop the container; what cannot be written is lost, as with any log.
        if let Some(file) = &mut self.file
            && file.write_all(out).is_ok()
        {
            self.size += out.len() as u64;
        }
    }

    /// Renames the file to `<path>.<time>`, as the kubelet does (kubernetes/kubernetes,
    /// `pkg/kubelet/logs/container_log_manager.go`, `rotateLatestLog`), and removes the oldest of such files.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        let time: String = Timestamp::now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        // 20060102T150405… with nine digits of the second's fraction, so that names sort by time.
        let time = format!("{:0<24}", time.trim_end_matches('Z')).replace('T', "-");
        fs::rename(path, with_suffix(path, &time))?;
        self.reopen()?;
        let mut old = rotated(&self.settings.path)?;
        old.sort();
        let keep = self.settings.max_files.unwrap_or(KEEP).max(1) as usize - 1;
        for path in &old[..old.len().saturating_sub(keep)] {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut prefix = name.to_string_lossy().into_owned();
    prefix.push('.');
    let ours = |entry: fs::DirEntry| {
        let found = entry.file_name().to_string_lossy().starts_with(&prefix);
        found.then(|| entry.path())
    };
    Ok(fs::read_dir(dir)?.flatten().filter_map(ours).collect())
}

/// Appends a line in pieces of at most [`MAX_LINE`]; the last is a full one if `full`.
fn cut(out: &mut Vec<u8>, now: Timestamp, stream: &str, line: &[u8], full: bool) {
    let mut rest = line;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(MAX_LINE));
        let tag = if after.is_empty() && full { 'F' } else { 'P' };
        // Writing to memory does not fail.
        let _ = write!(out, "{now} {stream} {tag} ");
        out.extend_from_slice(piece);
        out.push(b'\n');
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(dir: &Path, max_bytes: Option<u64>) -> Log {
        Log::open(LogFile { path: dir.join("sub/0.log"), max_bytes, max_files: Some(3) }).unwrap()
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join("sub/0.log")).unwrap()
    }

    #[test]
    fn lines_partial_lines_and_an_unfinished_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut rest) = (log(dir.path(), None), Unfinished::default());
        let now = Timestamp::UNIX_EPOCH;
        log.write("stdout", &mut rest, b"one\ntw", now, false);
        log.write("stdout", &mut rest, b"o\n\nend", now, false);
        log.write("stdout", &mut rest, b"", now, true);
        let at = "1970-01-01T00:00:00Z stdout";
        assert_eq!(text(dir.path()), format!("{at} F one\n{at} F two\n{at} F \n{at} P end\n"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut rest) = (log(dir.path(), None), Unfinished::default());
        log.write("stderr", &mut rest, &vec![b'x'; MAX_LINE * 2 + 5], Timestamp::UNIX_EPOCH, false);
        log.write("stderr", &mut rest, b"\n", Timestamp::UNIX_EPOCH, false);
        let text = text(dir.path());
        let tags: Vec<_> =
            text.lines().map(|line| (line.split(' ').nth(2).unwrap(), line.len() - 30)).collect();
        assert_eq!(tags, [("P", MAX_LINE), ("P", MAX_LINE), ("F", 5)]);
    }

    #[test]
    fn a_full_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut rest) = (log(dir.path(), Some(100)), Unfinished::default());
        for number in 0..20 {
            let line = format!("line {number}\n");
            log.write("stdout", &mut rest, line.as_bytes(), Timestamp::UNIX_EPOCH, false);
        }
        let files = fs::read_dir(dir.path().join("sub")).unwrap().count();
        assert_eq!(files, 3);
        assert!(text(dir.path()).ends_with("line 19\n"));
        fs::rename(dir.path().join("sub/0.log"), dir.path().join("moved")).unwrap();
        log.reopen().unwrap();
        log.write("stdout", &mut rest, b"new\n", Timestamp::UNIX_EPOCH, false);
        assert_eq!(text(dir.path()).lines().count(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_split(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'a')], 0..20000), 0..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (mut log, mut rest) = (log(dir.path(), None), Unfinished::default());
            for piece in &pieces {
                log.write("stdout", &mut rest, piece, Timestamp::UNIX_EPOCH, false);
            }
            log.write("stdout", &mut rest, b"", Timestamp::UNIX_EPOCH, true);
            let mut got = String::new();
            for line in text(dir.path()).lines() {
                let mut fields = line.splitn(4, ' ').skip(2);
                let full = fields.next() == Some("F");
                got.push_str(fields.next().unwrap());
                if full { got.push('\n'); }
            }
            prop_assert_eq!(got, String::from_utf8(pieces.concat()).unwrap());
        }
    }
}
