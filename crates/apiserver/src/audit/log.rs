//! Events as lines of a file that is turned over (kubernetes/kubernetes, `apiserver/plugin/pkg/audit/log`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base::Timestamp;
use parking_lot::Mutex;

/// Where lines go, and how long they are kept.
#[derive(Clone, Debug)]
pub struct AuditLog {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// How long it may become; 0 means 100 MB.
    pub max_bytes: u64,
    /// How long full files are kept; 0 is for ever.
    pub max_age: Duration,
    /// How many full files are kept; 0 is all of them.
    pub max_backups: usize,
}

const DEFAULT_BYTES: u64 = 100 * 1024 * 1024;

enum Out {
    Stdout,
    File { file: File, size: u64 },
}

/// The open file.
pub(crate) struct LogSink {
    config: AuditLog,
    out: Mutex<Out>,
}

impl LogSink {
    pub(crate) fn open(config: &AuditLog) -> io::Result<Self> {
        let out = if config.path == Path::new("-") {
            Out::Stdout
        } else {
            if let Some(folder) = config.path.parent().filter(|p| !p.as_os_str().is_empty()) {
                fs::create_dir_all(folder)?;
            }
            open(&config.path)?
        };
        let mut config = config.clone();
        if config.max_bytes == 0 {
            config.max_bytes = DEFAULT_BYTES;
        }
        Ok(Self { config, out: Mutex::new(out) })
    }

    /// Writes a line as one piece.
    pub(crate) fn write(&self, line: &str, now: Timestamp) -> io::Result<()> {
        let mut out = self.out.lock();
        let bytes = format!("{line}\n");
        if let Out::File { size, .. } = &*out
            && *size > 0
            && *size + bytes.len() as u64 > self.config.max_bytes
        {
            self.turn_over(now)?;
            *out = open(&self.config.path)?;
        }
        match &mut *out {
            Out::Stdout => io::stdout().lock().write_all(bytes.as_bytes()),
            Out::File { file, size } => {
                file.write_all(bytes.as_bytes())?;
                *size += bytes.len() as u64;
                Ok(())
            }
        }
    }

    fn stem(&self) -> (String, String) {
        let name = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let extension = name(self.config.path.extension()).map(|e| format!(".{e}")).unwrap_or_default();
        (format!("{}-", name(self.config.path.file_stem()).unwrap_or_default()), extension)
    }

    fn turn_over(&self, now: Timestamp) -> io::Result<()> {
        let (stem, extension) = self.stem();
        let time = now.strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        let mut to = self.config.path.with_file_name(format!("{stem}{time}{extension}"));
        let mut again = 1;
        while to.exists() {
            to = self.config.path.with_file_name(format!("{stem}{time}.{again}{extension}"));
            again += 1;
        }
        fs::rename(&self.config.path, &to)?;
        self.tidy(&stem, &extension)
    }

    fn tidy(&self, stem: &str, extension: &str) -> io::Result<()> {
        let folder =
            self.config.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let time = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
            // Only names of our own making: a date first.
            if time.is_some_and(|t| t.len() >= 23 && t.as_bytes()[4] == b'-' && t.as_bytes()[10] == b'T') {
                old.push(path);
            }
        }
        old.sort();
        let surplus = match self.config.max_backups {
            0 => 0,
            most => old.len().saturating_sub(most),
        };
        for (i, path) in old.iter().enumerate() {
            let aged = !self.config.max_age.is_zero()
                && fs::metadata(path)?.modified()? + self.config.max_age < SystemTime::now();
            if i < surplus || aged {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Out> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok(Out::File { file, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/audit.log");
        let config = AuditLog { path: path.clone(), max_bytes: 30, max_age: Duration::ZERO, max_backups: 2 };
        let sink = LogSink::open(&config).unwrap();
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        fs::write(folder.path().join("logs/audit-mine.log"), "x").unwrap();
        for i in 0..10 {
            sink.write(&format!("line number {i}"), now).unwrap();
            now += Duration::from_secs(1);
        }
        let mut names: Vec<String> = fs::read_dir(folder.path().join("logs"))
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names[0].starts_with("audit-2026-01-01T00-00-0"), "{names:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "line number 8\nline number 9\n");
        // What is there is gone on with.
        LogSink::open(&config).unwrap().write("x", now).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line number 8\nline number 9\nx\n");
    }
}
