//! Events as lines of a file that is turned over (kubernetes/kubernetes, `apiserver/plugin/pkg/audit/log`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::backend::{AuditDelivery, AuditMode};

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
    /// Whether full files are compressed.
    pub compress: bool,
    /// How a line is written.
    pub format: AuditFormat,
    /// Whether requests wait.
    pub delivery: AuditDelivery,
}

impl AuditLog {
    /// A file as upstream keeps it, if nothing else is said.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_bytes: 0,
            max_age: Duration::ZERO,
            max_backups: 0,
            compress: false,
            format: AuditFormat::Json,
            delivery: AuditDelivery { mode: AuditMode::Blocking, longest: None },
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFormat {
    /// The whole event.
    Json,
    /// A few words of it.
    Legacy,
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

    /// An event as a line.
    pub(super) fn line(&self, event: &Value) -> String {
        match self.config.format {
            AuditFormat::Legacy => legacy(event),
            AuditFormat::Json => {
                let text = event.to_string();
                format!(r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1",{}"#, text.get(1..).unwrap_or("}"))
            }
        }
    }

    /// Writes lines, each as one piece.
    pub(super) fn write(&self, lines: &[String]) -> io::Result<()> {
        // Only to name files by.
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        lines.iter().try_for_each(|line| self.write_line(line, now))
    }

    fn write_line(&self, line: &str, now: Timestamp) -> io::Result<()> {
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
        if self.config.compress {
            // Nobody waits for that.
            std::thread::Builder::new().name("audit-log".into()).spawn(move || {
                if let Err(error) = compress(&to) {
                    tracing::error!(%error, "cannot compress an audit log");
                }
            })?;
        }
        self.tidy(&stem, &extension)
    }

    fn tidy(&self, stem: &str, extension: &str) -> io::Result<()> {
        let folder =
            self.config.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let time = plain.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
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
                match fs::remove_file(path) {
                    // It has become a compressed one meanwhile, which the next round sees.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    outcome => outcome?,
                }
            }
        }
        Ok(())
    }
}

/// Replaces a file by a compressed one.
fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let to = PathBuf::from(name);
    let half = to.with_extension("gz.new");
    let out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half)?;
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&half, &to)?;
    fs::remove_file(path)
}

/// The short form (kubernetes/kubernetes, `apiserver/pkg/audit/format.go`, `EventString`).
fn legacy(event: &Value) -> String {
    let text = |path: &[&str], default: &'static str| -> String {
        types::str_at(event, path).unwrap_or(default).to_owned()
    };
    let list = |value: &Value, default: &'static str| -> String {
        match value.as_array() {
            None => default.to_owned(),
            Some(list) => list.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        }
    };
    let response = match event["responseStatus"]["code"].as_i64() {
        Some(code) => code.to_string(),
        None => "<deferred>".into(),
    };
    format!(
        "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={:?} groups={:?} as={:?} asgroups={:?} user-agent={:?} namespace={:?} uri={:?} response=\"{response}\"",
        text(&["requestReceivedTimestamp"], ""),
        text(&["auditID"], ""),
        text(&["stage"], ""),
        event["sourceIPs"][0].as_str().unwrap_or("<unknown>"),
        text(&["verb"], ""),
        text(&["user", "username"], "<none>"),
        list(&event["user"]["groups"], "<none>"),
        text(&["impersonatedUser", "username"], "<self>"),
        list(&event["impersonatedUser"]["groups"], "<lookup>"),
        text(&["userAgent"], ""),
        text(&["objectRef", "namespace"], "<none>"),
        text(&["requestURI"], ""),
    )
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
        let config = AuditLog { max_bytes: 30, max_backups: 2, ..AuditLog::new(path.clone()) };
        let sink = LogSink::open(&config).unwrap();
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        fs::write(folder.path().join("logs/audit-mine.log"), "x").unwrap();
        for i in 0..10 {
            sink.write_line(&format!("line number {i}"), now).unwrap();
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
        LogSink::open(&config).unwrap().write_line("x", now).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line number 8\nline number 9\nx\n");
    }
    #[test]
    fn full_files_are_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let config = AuditLog { max_bytes: 10, compress: true, ..AuditLog::new(path.clone()) };
        let sink = LogSink::open(&config).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for line in ["first line", "second line"] {
            sink.write_line(line, now).unwrap();
        }
        let packed = folder.path().join("audit-2026-01-01T00-00-00.000.log.gz");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !packed.exists() || fs::read_dir(folder.path()).unwrap().count() != 2 {
            assert!(std::time::Instant::now() < deadline, "the full file is not compressed");
            std::thread::yield_now();
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(File::open(packed).unwrap()), &mut text)
            .unwrap();
        assert_eq!(text, "first line\n");
    }

    #[test]
    fn the_short_form_is_upstreams() {
        let event = serde_json::json!({"requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "auditID": "a",
            "stage": "ResponseComplete", "verb": "get", "user": {"username": "eve", "groups": ["x", "y"]},
            "sourceIPs": ["1.2.3.4"], "requestURI": "/api", "responseStatus": {"code": 200}});
        assert_eq!(
            legacy(&event),
            r#"2026-01-01T00:00:00.000000Z AUDIT: id="a" stage="ResponseComplete" ip="1.2.3.4" method="get" user="eve" groups="\"x\",\"y\"" as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="/api" response="200""#
        );
    }
}
