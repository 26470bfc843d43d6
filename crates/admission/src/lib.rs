//! Admission: what the cluster adds to a write, and which writes it refuses, beyond the rules of the kind itself.
//!
//! Plugins run in the order of [`Chain::default_plugins`], which is upstream's
//! (kubernetes/kubernetes, `pkg/kubeapiserver/options/plugins.go`, `AllOrderedPlugins`).

mod default_tolerations;
mod namespace_lifecycle;
mod priority;
mod service_account;

use base::Ids;
use registry::ResourceDef;
use serde_json::Value;
use types::Status;

/// The cluster's objects, as plugins see them.
pub trait Objects: Send + Sync {
    /// One object in its stored version; `namespace` is empty for cluster-wide kinds.
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value>;
    /// Every object of a table.
    fn list(&self, table: &str) -> Vec<Value>;
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What plugins know of a request.
pub struct Request<'a> {
    /// The resource.
    pub def: &'a ResourceDef,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// What it does.
    pub operation: Operation,
    /// Empty for cluster-wide kinds.
    pub namespace: &'a str,
    /// Empty while a new object has no name.
    pub name: &'a str,
    /// The user's name.
    pub user: &'a str,
}

impl Request<'_> {
    fn is(&self, group: &str, resource: &str) -> bool {
        *self.def.gvk.group == *group && *self.def.resource == *resource && self.subresource.is_empty()
    }

    fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.def.gvk.group, &self.def.resource, self.name, why)
    }
}

/// One rule of the cluster.
pub trait Plugin: Send + Sync {
    /// Upstream's name for it.
    fn name(&self) -> &'static str;
    /// Changes the object before it is validated, or refuses it.
    fn admit(
        &self,
        _request: &Request<'_>,
        _object: &mut Value,
        _objects: &dyn Objects,
        _ids: &dyn Ids,
    ) -> Result<(), Status> {
        Ok(())
    }
    /// Has the last word on a write whose object is final; a delete has no object.
    fn validate(
        &self,
        _request: &Request<'_>,
        _object: Option<&Value>,
        _objects: &dyn Objects,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// All plugins, in order.
pub struct Chain(Vec<Box<dyn Plugin>>);

impl Chain {
    /// The plugins that are always on.
    pub fn default_plugins() -> Self {
        Self(vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(service_account::ServiceAccount),
            Box::new(default_tolerations::DefaultTolerationSeconds),
            Box::new(priority::Priority),
        ])
    }

    /// Runs every plugin's [`Plugin::admit`].
    pub fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        objects: &dyn Objects,
        ids: &dyn Ids,
    ) -> Result<(), Status> {
        self.0.iter().try_for_each(|plugin| plugin.admit(request, object, objects, ids))
    }

    /// Runs every plugin's [`Plugin::validate`].
    pub fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        objects: &dyn Objects,
    ) -> Result<(), Status> {
        self.0.iter().try_for_each(|plugin| plugin.validate(request, object, objects))
    }
}

#[cfg(test)]
mod tests;
