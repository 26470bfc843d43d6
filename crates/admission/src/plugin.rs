use serde_json::Value;
use types::Status;

use crate::cluster::Cluster;
use crate::request::{Notes, Request};

/// One rule of the cluster that needs nothing but memory.
pub(crate) trait Plugin: Send + Sync {
    /// Upstream's name for it.
    fn name(&self) -> &'static str;

    /// Changes the object before it is validated, or refuses it. It may be asked twice for one request.
    fn admit(&self, _draft: Draft<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Has the last word on a write whose object is final.
    fn validate(&self, _write: Final<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// A write as a plugin gets it, with what it needs to judge it. Plugins take out the fields that they look at.
pub(crate) struct Write<'a, Object> {
    /// Who wants what.
    pub(crate) request: &'a Request<'a>,
    /// The object as it is to be.
    pub(crate) object: Object,
    /// The object as it is stored, if it is.
    pub(crate) old: Option<&'a Value>,
    /// What else there is.
    pub(crate) cluster: &'a dyn Cluster,
    /// Where to put what is to be said beside yes and no.
    pub(crate) notes: &'a mut Notes,
}

/// A write whose object may still change.
pub(crate) type Draft<'a> = Write<'a, &'a mut Value>;
/// A write whose object is final; a delete has none.
pub(crate) type Final<'a> = Write<'a, Option<&'a Value>>;
