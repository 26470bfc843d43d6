//! The machine's own logs: the files below `/var/log`, and the agent's own by query (kubernetes/kubernetes,
//! `pkg/kubelet/kubelet_server_journal.go`).
//!
//! There is no journal to ask: the agent runs no other programs.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use base::Timestamp;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use percent_encoding::percent_decode_str;
use types::Status;

use super::{Body, Server, streamed, text};

/// What is shown.
const FOLDER: &str = "/var/log";
const MOST_LINES: usize = 100_000;
const MOST_SERVICES: usize = 4;
const MOST_NAME: usize = 256;
/// What of the agent's own log is looked at, from its end.
const MOST_BYTES: u64 = 64 << 20;

/// What a query asks for.
#[derive(Debug, Default)]
struct Query {
    files: Vec<String>,
    services: Vec<String>,
    filter: Filter,
}

/// Which lines.
#[derive(Debug, Default)]
struct Filter {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail: Option<usize>,
    boot: Option<i64>,
    pattern: Option<regex::Regex>,
}

impl Filter {
    fn is_any(&self) -> bool {
        self.since.is_some()
            || self.until.is_some()
            || self.tail.is_some()
            || self.boot.is_some()
            || self.pattern.is_some()
    }

    /// The lines that are wanted. Those without a time belong to the one before.
    fn apply(&self, log: &str) -> String {
        let mut within = self.since.is_none();
        let lines = log.lines().filter(|line| {
            if let Some(at) = time_of(line) {
                within =
                    self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until);
            }
            within && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(line))
        });
        let mut lines: Vec<&str> = lines.collect();
        if let Some(tail) = self.tail {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        lines.iter().flat_map(|line| [line, "\n"]).collect()
    }
}

/// When a line of the agent's own log was written.
fn time_of(line: &str) -> Option<Timestamp> {
    let plain = line.trim_start_matches("\u{1b}[2m");
    let word = plain.split([' ', '\u{1b}']).next()?;
    word.parse().ok()
}

impl Query {
    /// Every fault at once, in upstream's words.
    fn parse(query: &[(String, String)]) -> Result<Self, Status> {
        let (mut parsed, mut faults) = (Self::default(), Vec::new());
        let mut fault = |field: &str, value: &str, why: &str| {
            faults.push(format!("{field}: Invalid value: {value:?}: {why}"));
        };
        for (name, value) in query {
            let value = value.as_str();
            match name.as_str() {
                "query" if value.contains(['/', '\\']) => parsed.files.push(value.to_owned()),
                "query" if !value.trim().is_empty() => parsed.services.push(value.to_owned()),
                _ if value.is_empty() => {}
                "sinceTime" | "untilTime" => match (name.as_str(), value.parse()) {
                    ("sinceTime", Ok(at)) => parsed.filter.since = Some(at),
                    (_, Ok(at)) => parsed.filter.until = Some(at),
                    (_, Err(_)) => fault(name, value, "invalid time format"),
                },
                "boot" => match value.parse() {
                    Ok(boot) if boot <= 0 => parsed.filter.boot = Some(boot),
                    Ok(_) => fault("boot", value, "must be less than 1"),
                    Err(_) => fault("boot", value, "invalid syntax"),
                },
                "tailLines" => match value.parse() {
                    Ok(lines) if lines <= MOST_LINES => parsed.filter.tail = Some(lines),
                    _ => fault("tailLines", value, "must be between 0 and 100000, inclusive"),
                },
                "pattern" => match regex::Regex::new(value) {
                    Ok(pattern) => parsed.filter.pattern = Some(pattern),
                    Err(error) => fault("pattern", value, &error.to_string()),
                },
                _ => {}
            }
        }
        let (files, services) = (&parsed.files, &parsed.services);
        for service in services {
            if service.len() > MOST_NAME {
                fault("query", service, "length must be less than 100");
            }
            if !service.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@')) {
                fault("query", service, "input contains unsupported characters");
            }
        }
        if services.len() > MOST_SERVICES {
            faults.push(format!(
                "query: Too many: {}: must have at most {MOST_SERVICES} items",
                services.len()
            ));
        }
        match (files.as_slice(), services.as_slice()) {
            ([], []) => faults.push("query: Required value: cannot be empty with options".into()),
            ([_, ..], [_, ..]) => {
                faults.push("query: Invalid value: cannot specify a file and service".into())
            }
            ([_, _, ..], _) => faults.push("query: Invalid value: cannot specify more than one file".into()),
            ([_], _) if parsed.filter.is_any() => {
                faults.push("query: Invalid value: cannot specify file with options".into());
            }
            _ => {}
        }
        if let (Some(since), Some(until)) = (parsed.filter.since, parsed.filter.until)
            && since > until
        {
            faults.push(format!("untilTime: Invalid value: \"{until}\": must be after `sinceTime`"));
        }
        match faults.as_slice() {
            [] => Ok(parsed),
            [one] => Err(Status::bad_request(one)),
            all => Err(Status::bad_request(format!("[{}]", all.join(", ")))),
        }
    }
}

impl Server {
    /// A file, the list of a folder, or what a query asks for.
    pub(super) async fn node_logs(
        &self,
        path: &str,
        query: &[(String, String)],
    ) -> Result<Response<Body>, Status> {
        let asked = ["query", "sinceTime", "untilTime", "tailLines", "pattern", "boot"];
        if query.iter().any(|(name, _)| asked.contains(&name.as_str())) {
            let (query, own) = (Query::parse(query)?, self.data_dir.join("server.log"));
            let told = tokio::task::spawn_blocking(move || tell(&query, &own)).await;
            return told.map_err(Status::internal)?.map(text);
        }
        let rest = path.strip_prefix("/logs").unwrap_or_default().trim_start_matches('/');
        let rest = percent_decode_str(rest).decode_utf8_lossy().into_owned();
        let found = tokio::task::spawn_blocking(move || find(Path::new(FOLDER), &rest)).await;
        match found.map_err(Status::internal)? {
            Ok(Found::Folder(names)) => {
                let lines = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escape(name)));
                let mut response = text(format!("<pre>\n{}</pre>\n", lines.collect::<String>()));
                let media = HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, media);
                Ok(response)
            }
            Ok(Found::File(file)) => Ok(Self::send(file)),
            Err(_) => Err(Status::no_such_resource()),
        }
    }

    /// The whole of a file, piece by piece.
    fn send(mut file: std::fs::File) -> Response<Body> {
        let (send, body) = streamed();
        // It ends with the file, or with whoever reads.
        tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = file.read(&mut buffer) {
                if send.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(body);
        let media = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        response
    }
}

enum Found {
    Folder(Vec<String>),
    File(std::fs::File),
}

/// What lies at a path below `folder`, which nothing leads out of.
fn find(folder: &Path, path: &str) -> std::io::Result<Found> {
    let file = open_below(folder, path)?;
    if !file.metadata()?.is_dir() {
        return Ok(Found::File(file));
    }
    // By descriptor: the path may lead elsewhere by now.
    let own = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    let mut names: Vec<String> = std::fs::read_dir(own)?
        .flatten()
        .map(|entry| {
            let slash = if entry.file_type().is_ok_and(|t| t.is_dir()) { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    Ok(Found::Folder(names))
}

fn open_below(folder: &Path, path: &str) -> std::io::Result<std::fs::File> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
    use nix::sys::stat::Mode;
    let top = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    // A link is followed as if the folder were the root. What waits for a writer is not waited for.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(&top, path, how)?.into())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

/// The answer to a query; what cannot be had is said in it, as upstream does. `own` is the agent's own log.
fn tell(query: &Query, own: &Path) -> Result<String, Status> {
    let mut told = String::new();
    if let [file] = query.files.as_slice() {
        let read = || -> std::io::Result<String> {
            content(open_below(Path::new(FOLDER), file.trim_start_matches('/'))?)
        };
        return read()
            .map_err(|error| Status::bad_request(format!("query: Invalid value: {file:?}: {error}")));
    }
    for service in &query.services {
        if matches!(service.as_str(), "kubelet" | "gantry") {
            // One boot's worth is all there is.
            match std::fs::File::open(own).and_then(content) {
                Ok(log) => told += &query.filter.apply(&log),
                Err(error) => told += &format!("\nerror getting log for {service}: {error}\n"),
            }
            continue;
        }
        if query.filter.is_any() {
            told += &format!(
                "\noptions present and query resolved to log files for [{service}]\ntry without specifying options\n"
            );
            continue;
        }
        let names = [service.clone(), format!("{service}.log"), format!("{service}/{service}.log")];
        let found = names.iter().find_map(|name| {
            let file = open_below(Path::new(FOLDER), name).ok()?;
            file.metadata().ok()?.is_file().then_some(file)
        });
        match found.map(content) {
            Some(Ok(log)) => told += &log,
            Some(Err(error)) => told += &format!("\nerror getting log for {service}: {error}\n"),
            None => told += &format!("\nlog not found for {service}\n"),
        }
    }
    Ok(told)
}

/// What a file says, of a very long one its end.
fn content(mut file: std::fs::File) -> std::io::Result<String> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(MOST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Query, String> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Query::parse(&pairs).map_err(|status| status.message)
    }

    #[test]
    fn queries() {
        let query = parse(&[("query", "kubelet"), ("tailLines", "2"), ("pattern", "b.d")]).unwrap();
        assert_eq!(query.services, ["kubelet"]);
        let log = "2026-01-01T00:00:00Z bad\n2026-01-01T00:00:01Z good\n2026-01-01T00:00:02Z bed\n2026-01-01T00:00:03Z bid\n";
        assert_eq!(query.filter.apply(log), "2026-01-01T00:00:02Z bed\n2026-01-01T00:00:03Z bid\n");
        let query = parse(&[("query", "kubelet"), ("sinceTime", "2026-01-01T00:00:02Z")]).unwrap();
        assert_eq!(
            query.filter.apply("old\n2026-01-01T00:00:01Z a\n b\n2026-01-01T00:00:02Z c\n d\n"),
            "2026-01-01T00:00:02Z c\n d\n"
        );
        for (pairs, want) in [
            (&[("query", " ")][..], "query: Required value: cannot be empty with options"),
            (&[("query", "a;b")], "query: Invalid value: \"a;b\": input contains unsupported characters"),
            (&[("query", "a"), ("query", "/b")], "query: Invalid value: cannot specify a file and service"),
            (
                &[("query", "/b"), ("tailLines", "1")],
                "query: Invalid value: cannot specify file with options",
            ),
            (
                &[("query", "a"), ("tailLines", "-1")],
                "tailLines: Invalid value: \"-1\": must be between 0 and 100000, inclusive",
            ),
            (&[("query", "a"), ("boot", "1")], "boot: Invalid value: \"1\": must be less than 1"),
            (&[("query", "a"), ("sinceTime", "x")], "sinceTime: Invalid value: \"x\": invalid time format"),
        ] {
            assert_eq!(parse(pairs).unwrap_err(), want);
        }
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("log")).unwrap();
        std::fs::write(at("secret"), "no").unwrap();
        std::fs::write(at("log/a"), "yes").unwrap();
        std::os::unix::fs::symlink("../secret", at("log/out")).unwrap();
        std::os::unix::fs::symlink("a", at("log/in")).unwrap();
        let top = at("log");
        let read = |path: &str| match find(&top, path) {
            Ok(Found::File(file)) => content(file).ok(),
            Ok(Found::Folder(names)) => Some(names.join(" ")),
            Err(_) => None,
        };
        assert_eq!(read("a").as_deref(), Some("yes"));
        assert_eq!(read("in").as_deref(), Some("yes"));
        assert_eq!(read("").as_deref(), Some("a in out"));
        assert_eq!((read("out"), read("../secret"), read("nothing")), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_log_is_filtered(log in "([0-9TZ:. -]|a|\n){0,80}", tail in 0usize..5) {
            let filter = Filter { tail: Some(tail), since: Some(Timestamp::UNIX_EPOCH), ..Filter::default() };
            prop_assert!(filter.apply(&log).lines().count() <= tail);
        }
    }
}
