//! Keeping containers' logs short: the runtime writes them, and begins a new file when it is asked to
//! (`pkg/kubelet/logs/container_log_manager.go`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::runtime as calls;
use runtime::ContainerState;

use super::{Cri, CriError};
use crate::settings::ContainerSettings;

/// How often they are looked at (`containerLogMonitorInterval`).
const EVERY: Duration = Duration::from_secs(10);

impl Cri {
    /// Puts aside what has become too long, until it is dropped.
    pub(super) async fn keep_logs_short(&self, settings: &ContainerSettings) {
        loop {
            tokio::time::sleep(EVERY).await;
            let world = self.0.world.lock().clone();
            let running =
                world.containers.into_values().filter(|c| matches!(c.state, ContainerState::Running { .. }));
            for run in running {
                let Some(log) = run.log_path else { continue };
                if std::fs::metadata(&log).is_ok_and(|meta| meta.len() > settings.log_max_size)
                    && let Err(error) = self.rotate(&run.id, &log, settings.log_max_files).await
                {
                    tracing::warn!(container = run.id, %error, "cannot rotate a log");
                }
            }
        }
    }

    async fn rotate(&self, id: &str, log: &Path, most: u32) -> Result<(), CriError> {
        let fault = |source| CriError::File { attempt: "rename", path: log.display().to_string(), source };
        let aside = aside(log, &base::Timestamp::now().to_string());
        std::fs::rename(log, &aside).map_err(fault)?;
        let question = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        if let Err(error) = self.ask(&calls::REOPEN_CONTAINER_LOG, question).await {
            // It goes on with the old one, which gets its name back.
            std::fs::rename(&aside, log).map_err(fault)?;
            return Err(error);
        }
        for old in surplus(log, most) {
            // One that stays does no harm but for its room.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }
}

/// Names that sort by age.
fn aside(log: &Path, now: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{:0<24}", now.trim_end_matches('Z')).replace('T', "-"));
    name.into()
}

/// What was put aside and is too much, so that with the present one there are `most`.
fn surplus(log: &Path, most: u32) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix));
    let mut old: Vec<PathBuf> = ours.map(|entry| entry.path()).collect();
    old.sort_unstable();
    old.truncate(old.len().saturating_sub((most as usize).saturating_sub(1)));
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let names: Vec<PathBuf> =
            (0..6).map(|day| aside(&log, &format!("2026-01-0{}T00:00:00Z", day + 1))).collect();
        assert!(names[0].to_string_lossy().ends_with("0.log.2026-01-01-00:00:0000000"), "{:?}", names[0]);
        names.iter().for_each(|name| std::fs::write(name, "").unwrap());
        assert_eq!(surplus(&log, 5), names[..2]);
    }
}
