//! Extension servers that live in this process: groups and versions that a component serves, as if it were a server of its
//! own. Whoever registers another server for one of them (an APIService with a service) replaces it.

use std::fmt;
use std::sync::Arc;

use auth::User;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::respond::Body;
use crate::state::ApiServer;

/// Answers requests for one group and version, which have been authenticated and authorized.
pub type LocalServer = dyn Fn(User, Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// A version that is served in this process.
#[derive(Clone)]
pub(crate) struct Local {
    pub(super) group: Box<str>,
    pub(super) version: Box<str>,
    /// How much the group and the version are to be preferred.
    pub(super) priority: (i64, i64),
    server: Arc<LocalServer>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({}.{})", self.version, self.group)
    }
}

impl Local {
    /// The name of its APIService.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }

    pub(super) fn answer(&self, user: User, http: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        (self.server)(user, http)
    }
}

impl ApiServer {
    /// Has requests for a group and version answered by a component of this process, and registers an APIService that
    /// says so, unless there is one: then it stays as it is, and if it names a service, that answers.
    pub fn serve_beside(&self, group: &str, version: &str, priority: (i64, i64), server: Arc<LocalServer>) {
        let aggregation = &self.0.aggregation;
        aggregation.locals.write().push(Local {
            group: group.into(),
            version: version.into(),
            priority,
            server,
        });
        // What is known of the APIServices is known without it.
        aggregation.services.write().0 = store::Revision::MAX;
        aggregation.extended.send_modify(|count| *count += 1);
        aggregation.again.notify_one();
    }
}
