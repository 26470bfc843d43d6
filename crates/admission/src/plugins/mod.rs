//! The plugins that upstream compiles in (kubernetes/kubernetes, `plugin/pkg/admission`).

mod bound_pods;
mod certificates;
mod cluster_rules;
pub(crate) mod common;
mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod pods;
mod priority;
mod runtime_class;
mod service_account;
mod storage;

use crate::plugin::Plugin;
use crate::settings::Settings;

/// A plugin by its name; nothing for those that the chain itself runs.
pub(crate) fn named(name: &str, settings: &Settings) -> Option<Box<dyn Plugin>> {
    Some(match name {
        "NamespaceLifecycle" => Box::new(namespace_lifecycle::NamespaceLifecycle),
        "NamespaceExists" => Box::new(cluster_rules::NamespaceExists),
        "LimitPodHardAntiAffinityTopology" => Box::new(pods::LimitPodHardAntiAffinityTopology),
        "LimitRanger" => Box::new(limit_ranger::LimitRanger),
        "ServiceAccount" => Box::new(service_account::ServiceAccount),
        "NodeRestriction" => Box::new(node_restriction::NodeRestriction),
        "TaintNodesByCondition" => Box::new(storage::TaintNodesByCondition),
        "AlwaysPullImages" => Box::new(pods::AlwaysPullImages),
        "PodSecurity" => Box::new(pod_security::PodSecurity),
        "PodNodeSelector" => {
            let config = settings.of(name)["podNodeSelectorPluginConfig"].clone();
            Box::new(pods::PodNodeSelector { config })
        }
        "Priority" => Box::new(priority::Priority::default()),
        "DefaultTolerationSeconds" => Box::new(default_tolerations::DefaultTolerationSeconds),
        "PodTolerationRestriction" => Box::new(pods::PodTolerationRestriction),
        "EventRateLimit" => Box::new(cluster_rules::EventRateLimit::new(&settings.of(name))),
        "ExtendedResourceToleration" => Box::new(pods::ExtendedResourceToleration),
        "DefaultStorageClass" => Box::new(storage::DefaultStorageClass),
        "StorageObjectInUseProtection" => Box::new(storage::StorageObjectInUseProtection),
        "OwnerReferencesPermissionEnforcement" => {
            Box::new(cluster_rules::OwnerReferencesPermissionEnforcement)
        }
        "PersistentVolumeClaimResize" => Box::new(storage::PersistentVolumeClaimResize),
        "RuntimeClass" => Box::new(runtime_class::RuntimeClass),
        "CertificateApproval" => Box::new(certificates::CertificateApproval),
        "CertificateSigning" => Box::new(certificates::CertificateSigning),
        "ClusterTrustBundleAttest" => Box::new(certificates::ClusterTrustBundleAttest),
        "CertificateSubjectRestriction" => Box::new(certificates::CertificateSubjectRestriction),
        "DefaultIngressClass" => Box::new(storage::DefaultIngressClass),
        "DenyServiceExternalIPs" => Box::new(cluster_rules::DenyServiceExternalIPs),
        "PodTopologyLabels" => Box::new(storage::PodTopologyLabels),
        "NodeDeclaredFeatureValidator" => Box::new(bound_pods::NodeDeclaredFeatureValidator),
        "PodResizeValidator" => Box::new(bound_pods::PodResizeValidator),
        _ => return None,
    })
}
