use std::time::Duration;

use auth::User;
use base::{Ids, Timestamp};
use cel::{AuthzDecision, AuthzRequest};
use futures::future::BoxFuture;
use registry::ResourceDef;
use serde_json::Value;
use types::Status;

/// The cluster's objects, as plugins see them.
pub trait Objects: Send + Sync {
    /// One object in its stored version; `namespace` is empty for cluster-wide kinds.
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value>;
    /// Whether an object is being deleted; `None` if there is no such object.
    fn is_going(&self, table: &str, namespace: &str, name: &str) -> Option<bool> {
        self.get(table, namespace, name).map(|object| !object["metadata"]["deletionTimestamp"].is_null())
    }
    /// Every object of a table.
    fn list(&self, table: &str) -> Vec<Value>;
}

/// What became of an attempt to change an object in place.
#[derive(Debug)]
pub enum Swap {
    /// It was changed.
    Done,
    /// Somebody else changed it meanwhile.
    Lost,
}

/// The cluster around admission: its objects, and what plugins need of the server.
pub trait Cluster: Objects {
    /// The revision of a table's latest change; what was made from the table is good while it stays.
    fn last_change(&self, table: &str) -> u64;

    /// Every object of a table in one namespace.
    fn list_in(&self, table: &str, namespace: &str) -> Vec<Value>;

    /// The present moment.
    fn now(&self) -> Timestamp;

    /// Randomness, for names.
    fn ids(&self) -> &dyn Ids;

    /// What somebody may do. What has to be asked elsewhere first is refused meanwhile, and remembered for
    /// [`Cluster::settle`].
    fn authorize(&self, user: &User, request: &AuthzRequest) -> AuthzDecision;

    /// Asks elsewhere what [`Cluster::authorize`] could not tell, if there is any such thing. Who asked has to ask again
    /// then.
    fn settle(&self) -> Option<BoxFuture<'_, ()>>;

    /// Posts to the webhook that a `clientConfig` names. Fails with what clients say of it.
    fn post<'a>(
        &'a self,
        config: &'a Value,
        body: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Value, String>>;

    /// Asks the configured server about images.
    fn review_images<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, String>>;

    /// Brings an object from one version of a kind to another.
    fn convert<'a>(
        &'a self,
        from: &'a ResourceDef,
        to: &'a ResourceDef,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>>;

    /// Makes a changed object fit its schema again: types are checked, defaults filled in.
    fn refit(&self, def: &ResourceDef, object: &mut Value) -> Result<(), Status>;

    /// Writes an object if it is still the one with `old`'s resourceVersion.
    fn swap<'a>(&'a self, table: &'a str, old: &'a Value, new: Value) -> BoxFuture<'a, Result<Swap, Status>>;

    /// Makes a namespace unless it is there.
    fn make_namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Status>>;
}

/// Runs what asks about rights until it has been told everything it asked. An expression learns one thing more in each
/// round, at least, so the rounds are as many as the questions that hang on one another.
pub(crate) async fn settled<T>(cluster: &dyn Cluster, mut run: impl FnMut() -> T) -> T {
    const ROUNDS: usize = 64;
    for _ in 0..ROUNDS {
        let outcome = run();
        match cluster.settle() {
            None => return outcome,
            Some(asking) => asking.await,
        }
    }
    run()
}
