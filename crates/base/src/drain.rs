use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The word that it is time to finish, and the count of those who have not finished yet.
///
/// Every long-running task is spawned through a `Drain` (or watches one) and returns soon after
/// [`Drain::started`] resolves. A child ends with its parent and can be ended alone.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// A drain that nobody has started.
    pub fn new() -> Self {
        Self::default()
    }

    /// A drain that starts with this one, or alone; its tasks count for itself only.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: TaskTracker::new() }
    }

    /// Resolves when draining has started.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Whether draining has started.
    pub fn is_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Runs a task that [`Drain::drain`] will wait for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Runs a task that is dropped at its next await point when draining starts.
    pub fn spawn_until_started<F>(&self, task: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let token = self.token.clone();
        self.tasks.spawn(async move { token.run_until_cancelled_owned(task).await })
    }

    /// Starts draining and does not wait.
    pub fn start(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// Starts draining and waits until every spawned task has returned.
    pub async fn drain(&self) {
        self.start();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_tasks_and_reaches_children() {
        let drain = Drain::new();
        let child = drain.child();
        let seen = child.clone();
        let task = drain.spawn(async move {
            seen.started().await;
            7
        });
        assert!(!child.is_started());
        drain.drain().await;
        assert!(child.is_started());
        assert_eq!(task.await.unwrap(), 7);
    }
}
