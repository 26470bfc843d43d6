//! What a container says when it ends (kubernetes/kubernetes,
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`, `getTerminationMessage`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerState, ContainerStatus};

use crate::error::NodeError;
use crate::worker::{Agent, named_container, uid_of};

/// `MaxContainerTerminationMessageLength`.
const MOST: u64 = 4096;
/// Of all containers of a pod together (`MaxPodTerminationMessageLogLength`).
const MOST_OF_POD: u64 = 12 << 10;
/// Of the log (`MaxContainerTerminationMessageLogLength` and `…LogLines`).
const MOST_OF_LOG: usize = 2048;
const MOST_LINES: usize = 80;
/// More of a log's end than this is not looked at.
const LOG_TAIL: u64 = 64 << 10;

impl Agent {
    fn words_file(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// The file for a run's last words, and where the container sees it.
    pub(crate) fn words_mount(
        &self,
        uid: &str,
        container: &Container,
        attempt: u32,
    ) -> Result<Option<(PathBuf, PathBuf)>, NodeError> {
        let Some(inside) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) else {
            return Ok(None);
        };
        let path = self.words_file(uid, &container.name, attempt);
        let fault = |source| NodeError::File { attempt: "make", path: path.display().to_string(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fault)?;
        }
        std::fs::write(&path, "").map_err(fault)?;
        // Whoever the container runs as may write it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).map_err(fault)?;
        Ok(Some((path, inside.into())))
    }

    /// Notes the last words of all runs that have ended since the last look.
    pub(crate) fn hear_last_words(&self, pod: &Pod, runs: &[ContainerStatus]) {
        let uid = uid_of(pod);
        let known = self.known(pod);
        let count =
            pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers)).count();
        for run in runs {
            let ContainerState::Exited(exit) = &run.state else { continue };
            if known.last_words.contains_key(&run.id) {
                continue;
            }
            let Some(container) = named_container(pod, &run.name) else { continue };
            let path = self.words_file(uid, &run.name, run.attempt);
            let mut words = tail_of(&path, MOST.min(MOST_OF_POD / count.max(1) as u64));
            let from_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
            if words.is_empty() && from_log && exit.code != 0 {
                words = run.log_path.as_deref().map(log_end).unwrap_or_default();
            }
            let words = String::from_utf8_lossy(&words).into_owned();
            self.note(uid, |known| drop(known.last_words.insert(run.id.clone(), words)));
        }
    }
}

/// The last bytes of a file; none if it cannot be read.
fn tail_of(path: &Path, most: u64) -> Vec<u8> {
    let read = || {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    read().unwrap_or_default()
}

/// The last of what a container wrote to its log.
fn log_end(path: &Path) -> Vec<u8> {
    said_at_the_end(&tail_of(path, LOG_TAIL))
}

/// The output in the last lines of a log in the CRI format.
fn said_at_the_end(log: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = log.split_inclusive(|b| *b == b'\n').collect();
    let mut said = Vec::new();
    for line in &lines[lines.len().saturating_sub(MOST_LINES)..] {
        // `<time> <stream> <P|F> <text>`; the first may be cut.
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(_), Some(_), Some(tag), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let text = if tag.starts_with(b"P") { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        said.extend_from_slice(text);
    }
    said.split_off(said.len().saturating_sub(MOST_OF_LOG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_text() {
        let log = b"2026-01-01T00:00:00Z stdout F one two\n2026-01-01T00:00:00Z stderr P half\n2026-01-01T00:00:00Z stderr F  whole\n";
        assert_eq!(said_at_the_end(log), b"one two\nhalf whole\n");
        assert_eq!(said_at_the_end(b""), b"");
        assert_eq!(said_at_the_end(b"nonsense"), b"");
    }

    #[test]
    fn no_more_than_so_many_lines_and_bytes() {
        let short = "t stdout F x\n".repeat(200);
        assert_eq!(said_at_the_end(short.as_bytes()), "x\n".repeat(80).as_bytes());
        let long = format!("t stdout F {}\n", "y".repeat(5000));
        assert_eq!(said_at_the_end(long.as_bytes()).len(), MOST_OF_LOG);
    }

    #[test]
    fn tails_of_files() {
        let folder = std::env::temp_dir().join(format!("gantry-words-{}", std::process::id()));
        std::fs::write(&folder, "0123456789").unwrap();
        assert_eq!((tail_of(&folder, 4), tail_of(&folder, 100)), (b"6789".to_vec(), b"0123456789".to_vec()));
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(tail_of(&folder, 4), b"");
    }
}
