//! The runtime as a whole: its version, how it is, and what it and the kubelet tell each other of themselves.

use cri::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeCondition, RuntimeConfigRequest, RuntimeConfigResponse,
    RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest, StatusResponse,
    UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse, VersionResponse,
};
use serde_json::json;

use crate::error::CriError;
use crate::sandboxes::BUILT_IN;
use crate::service::CriService;

impl CriService {
    pub(crate) fn version(&self) -> VersionResponse {
        VersionResponse {
            // The only one that kubelets take.
            version: "0.1.0".to_owned(),
            runtime_name: "gantry".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }
    }

    pub(crate) async fn status(&self, request: StatusRequest) -> Result<StatusResponse, CriError> {
        let network = self.0.network.current();
        let condition = |name: &str, fault: Option<(&str, String)>| RuntimeCondition {
            r#type: name.to_owned(),
            status: fault.is_none(),
            reason: fault.as_ref().map(|(reason, _)| (*reason).to_owned()).unwrap_or_default(),
            message: fault.map(|(_, message)| message).unwrap_or_default(),
        };
        let no_network = network.as_ref().err().map(|error| ("NetworkPluginNotReady", error.to_string()));
        let conditions = vec![condition("RuntimeReady", None), condition("NetworkReady", no_network)];
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            let config = &self.0.config;
            let about = json!({
                "dataDir": config.data_dir,
                "bridge": config.bridge,
                "podCIDR": network.ok().map(|network| network.config().pod_cidr.to_string()),
                "handlers": config.handlers,
            });
            info.insert("config".to_owned(), about.to_string());
        }
        let handler = |name: &str, users: bool| RuntimeHandler {
            name: name.to_owned(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: true,
                user_namespaces: users,
            }),
        };
        let named = &self.0.config.handlers;
        let own = ["", BUILT_IN].into_iter().filter(|name| !named.contains_key(*name));
        let handlers =
            own.map(|name| handler(name, true)).chain(named.keys().map(|name| handler(name, false)));
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info,
            runtime_handlers: handlers.collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        })
    }

    pub(crate) async fn runtime_config(
        &self,
        _: RuntimeConfigRequest,
    ) -> Result<RuntimeConfigResponse, CriError> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    pub(crate) async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, CriError> {
        let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        if !network.pod_cidr.is_empty() {
            self.0.network.change(&network.pod_cidr).await?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    }
}
