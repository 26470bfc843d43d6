//! The plugins that upstream compiles in, one file each (kubernetes/kubernetes, `plugin/pkg/admission`).

mod default_tolerations;
mod namespace_lifecycle;
mod priority;
mod service_account;

use crate::chain::Plugin;

/// The plugins that are on by default, in upstream's order (`pkg/kubeapiserver/options/plugins.go`,
/// `AllOrderedPlugins`).
pub(crate) fn defaults() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(service_account::ServiceAccount),
        Box::new(priority::Priority),
        Box::new(default_tolerations::DefaultTolerationSeconds),
    ]
}
