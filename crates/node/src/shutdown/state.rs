//! What is noted of the last shutdown (kubernetes/kubernetes, `pkg/kubelet/nodeshutdown/storage.go`).

use std::io::ErrorKind;
use std::path::Path;

use base::Timestamp;
use serde_json::{Value, json};

use crate::error::NodeError;

pub(super) const FILE: &str = "graceful_node_shutdown_state";

/// When it began, and when all pods had ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) start_time: Option<Timestamp>,
    pub(super) end_time: Option<Timestamp>,
}

fn failed(attempt: &'static str, path: &Path, source: std::io::Error) -> NodeError {
    NodeError::File { attempt, path: path.display().to_string(), source }
}

/// What was noted last; nothing if there never was a shutdown.
pub(super) fn load(path: &Path) -> Result<State, NodeError> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
        text => text.map_err(|source| failed("read", path, source))?,
    };
    let state: Value = serde_json::from_slice(&text).map_err(|e| failed("read", path, e.into()))?;
    let time = |field: &str| state[field].as_str().and_then(|at| at.parse().ok());
    Ok(State { start_time: time("startTime"), end_time: time("endTime") })
}

/// Notes it, as a whole or not at all.
pub(super) fn store(path: &Path, state: &State) -> Result<(), NodeError> {
    let mut note = json!({});
    for (field, time) in [("startTime", state.start_time), ("endTime", state.end_time)] {
        if let Some(time) = time {
            note[field] = time.to_string().into();
        }
    }
    let beside = path.with_extension("new");
    let written = std::fs::write(&beside, note.to_string()).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| failed("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(load(&path).unwrap(), State::default());
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut state = State { start_time: Some(at), end_time: None };
        store(&path, &state).unwrap();
        assert_eq!(load(&path).unwrap(), state);
        state.end_time = Some(at);
        store(&path, &state).unwrap();
        assert_eq!(load(&path).unwrap(), state);
        std::fs::write(&path, "rubbish").unwrap();
        assert!(load(&path).is_err());
    }
}
