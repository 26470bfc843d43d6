//! Looks at files of the node that may never come to an end: a file system whose server hangs answers nobody.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::error::Fault;

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose turn it is to look at a path. A look that hangs takes a thread until it ends, so there is one at a time.
#[derive(Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>>);

impl Looks {
    /// Does `work` on `path`, elsewhere, and waits a while for it.
    ///
    /// # Errors
    /// What `work` says, or that the file system does not answer. The work goes on, and until it has ended no other one
    /// begins for this path.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.look_within(PATIENCE, path, work).await
    }

    async fn look_within<T: Send + 'static>(
        &self,
        patience: Duration,
        path: &Path,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let silent = |_| Fault::Silent { path: path.display().to_string(), seconds: patience.as_secs() };
        let lock = self.0.lock().entry(path.to_owned()).or_default().clone();
        let mut turn = Turn { looks: self.clone(), path: path.to_owned(), held: None };
        turn.held = Some(tokio::time::timeout(patience, lock.lock_owned()).await.map_err(silent)?);
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match tokio::time::timeout(patience, looking).await.map_err(silent)? {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// One look's place among those at its path: waiting, or, once it is held, under way.
struct Turn {
    looks: Looks,
    path: PathBuf,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    /// Gives way to the next look; the last one forgets the path. All of it under the lock of the paths: whoever gives
    /// way second then sees that the first has gone, so no path is kept that nobody looks at.
    fn drop(&mut self) {
        let mut turns = self.looks.0.lock();
        self.held = None;
        if turns.get(&self.path).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_path_is_given_up_and_looked_at_once() {
        let looks = Looks::default();
        let (path, soon) = (Path::new("/silent"), Duration::from_millis(50));
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let hang = move || {
            let _ = answered.recv();
            Ok(())
        };
        let said = looks.look_within(soon, path, hang).await.unwrap_err().to_string();
        assert_eq!(said, "the file system of /silent has not answered for 0 s");
        // The second look does not even begin, and others are not held up.
        looks.look_within::<()>(soon, path, || panic!("there is one under way")).await.unwrap_err();
        looks.look(Path::new("/other"), || Ok(())).await.unwrap();
        drop(answer);
        looks.look(path, || Ok(())).await.unwrap();
        assert!(looks.0.lock().is_empty());
    }
}
