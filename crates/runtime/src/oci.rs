//! What an OCI runtime knows of containers whose shim can no longer tell it that they are gone.

use std::path::Path;
use std::process::{Command, Stdio};

/// Has the runtime forget a container, and remove what it has made for it. One that it does not know is fine.
pub(crate) fn forget(runtime: &Path, state: &Path, id: &str) {
    if !state.join(id).exists() {
        return;
    }
    let mut command = Command::new(runtime);
    command.arg("--root").arg(state).args(["delete", "--force", id]).current_dir("/");
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(container = id, %status, "the OCI runtime cannot delete a container"),
        Err(error) => tracing::warn!(container = id, %error, "the OCI runtime cannot be run"),
    }
}

/// The same for all containers that it has in `state`.
pub(crate) fn forget_all(runtime: &Path, state: &Path) {
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        if let Some(id) = entry.file_name().to_str() {
            forget(runtime, state, id);
        }
    }
}
