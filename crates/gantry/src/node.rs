//! The node side of a server: the containers' runtime and its places.

use runtime::RuntimeConfig;

use crate::config::ServerArgs;

/// Where this node's containers live.
pub fn runtime_config(args: &ServerArgs) -> RuntimeConfig {
    RuntimeConfig {
        data_dir: args.data_dir.clone(),
        run_dir: args.run_dir.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        shim: vec!["/proc/self/exe".into(), "shim".into()],
    }
}

/// Removes what joins pods to networks.
pub async fn remove_networks(_args: &ServerArgs) {}
