use serde_json::Value;

use crate::images::ImagePolicyConfig;
use crate::plugins;

/// Which plugins run, beside those that do by default (upstream: `--enable-admission-plugins`,
/// `--disable-admission-plugins`, `--admission-control-config-file`).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Names of plugins to run as well.
    pub enable: Vec<String>,
    /// Names of plugins not to run.
    pub disable: Vec<String>,
    /// An `AdmissionConfiguration`: `plugins` with `name` and `configuration`.
    pub config: Value,
}

/// Settings that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no such plugin.
    #[error("unknown admission plugin {0:?}")]
    Unknown(String),
    /// A plugin cannot be both.
    #[error("admission plugin {0:?} is in both enabled and disabled plugins")]
    Both(String),
    /// A plugin's own settings make no sense.
    #[error("admission plugin {plugin:?}: {why}")]
    Plugin {
        /// Which.
        plugin: &'static str,
        /// Why.
        why: String,
    },
}

/// Everything that can run, in upstream's order (kubernetes/kubernetes, `pkg/kubeapiserver/options/plugins.go`,
/// `AllOrderedPlugins`), and whether it does unless somebody says otherwise.
pub(crate) const ALL: [(&str, bool); 36] = [
    ("NamespaceAutoProvision", false),
    ("NamespaceLifecycle", true),
    ("NamespaceExists", false),
    ("LimitPodHardAntiAffinityTopology", false),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", false),
    ("TaintNodesByCondition", true),
    ("AlwaysPullImages", false),
    ("ImagePolicyWebhook", false),
    ("PodSecurity", true),
    ("PodNodeSelector", false),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("PodTolerationRestriction", false),
    ("EventRateLimit", false),
    ("ExtendedResourceToleration", false),
    ("DefaultStorageClass", true),
    ("StorageObjectInUseProtection", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("PersistentVolumeClaimResize", true),
    ("RuntimeClass", true),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("ClusterTrustBundleAttest", true),
    ("CertificateSubjectRestriction", true),
    ("DefaultIngressClass", true),
    ("DenyServiceExternalIPs", false),
    ("PodTopologyLabels", true),
    ("NodeDeclaredFeatureValidator", true),
    ("PodResizeValidator", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
    ("ResourceQuota", true),
];

impl Settings {
    /// The names of the plugins that run, in order.
    pub(crate) fn running(&self) -> Result<Vec<&'static str>, SettingsError> {
        let known = |name: &String| ALL.iter().any(|(n, _)| n == name);
        for name in self.enable.iter().chain(&self.disable) {
            if !known(name) {
                return Err(SettingsError::Unknown(name.clone()));
            }
        }
        if let Some(name) = self.enable.iter().find(|name| self.disable.contains(name)) {
            return Err(SettingsError::Both(name.clone()));
        }
        let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
        let runs = |(name, default): &(&'static str, bool)| {
            (*default || has(&self.enable, name)) && !has(&self.disable, name)
        };
        Ok(ALL.iter().filter(|plugin| runs(plugin)).map(|(name, _)| *name).collect())
    }

    /// Whom to ask about images, if anybody.
    pub fn image_policy(&self) -> Result<Option<ImagePolicyConfig>, SettingsError> {
        let runs = self.running()?.contains(&"ImagePolicyWebhook");
        runs.then(|| ImagePolicyConfig::read(&self.of("ImagePolicyWebhook"))).transpose()
    }

    /// The configuration of a plugin.
    pub(crate) fn of(&self, plugin: &str) -> Value {
        plugins::common::list(&self.config, &["plugins"])
            .find(|p| p["name"] == plugin)
            .map(|p| p["configuration"].clone())
            .unwrap_or_default()
    }
}
