//! Which rules go with which resource.

mod admissionregistration;
mod apiregistration;
mod autoscaling;
mod batch;
mod certificates;
mod check;
mod config;
mod devices;
mod event;
mod flow;
mod ingress;
mod limit_range;
mod namespace;
mod network;
mod node;
mod pod;
mod pod_certificates;
mod pod_spec;
mod pod_update;
mod policy;
mod quota;
mod rbac;
mod scheduling;
mod service;
mod storage;
mod storage_classes;
mod storage_migration;
mod storage_warnings;
mod workload;

use jiff::Timestamp;
use serde_json::Value;
use types::FieldErrors;

use crate::def::Gvk;
use crate::strategy::{Convert, Strategy};
use crate::table::Column;

pub use pod::pod_resources;
pub use pod_update::{validate_ephemeral_containers_update, validate_pod_resize};

/// A kind without rules of its own beyond its schema.
struct Plain;

impl Strategy for Plain {}

/// The rules of another version, for objects that are first brought into its shape.
struct Converted(&'static dyn Strategy, &'static dyn Convert);

impl Converted {
    fn within(&self, object: &mut Value, work: impl FnOnce(&mut Value)) {
        self.1.store(object);
        work(object);
        self.1.show(object);
    }

    fn stored(&self, object: &Value) -> Value {
        let mut object = object.clone();
        self.1.store(&mut object);
        object
    }
}

impl Strategy for Converted {
    fn default(&self, object: &mut Value) {
        self.within(object, |object| self.0.default(object));
    }

    fn prepare_create(&self, object: &mut Value) {
        self.within(object, |object| self.0.prepare_create(object));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        self.within(new, |new| self.0.prepare_update(new, &self.stored(old)));
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        self.within(new, |new| self.0.prepare_status_update(new, &self.stored(old)));
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.0.validate_create(&self.stored(object), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.0.validate_update(&self.stored(new), &self.stored(old), errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.0.validate_status_update(&self.stored(new), &self.stored(old), errors);
    }

    fn validate_name(&self, name: &str) -> Option<String> {
        self.0.validate_name(name)
    }

    fn selectable(&self) -> &'static [&'static str] {
        self.0.selectable()
    }

    fn indexed(&self) -> &'static [&'static str] {
        self.0.indexed()
    }

    fn field(&self, object: &Value, name: &str) -> String {
        self.0.field(object, name)
    }

    fn has_generation(&self) -> bool {
        self.0.has_generation()
    }

    fn columns(&self) -> &'static [Column] {
        self.0.columns()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.0.cells(&self.stored(object), now)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        self.0.warnings(&self.stored(object))
    }
}

/// The rules of a resource.
pub(crate) fn strategy_for(group: &str, version: &str, resource: &str) -> &'static dyn Strategy {
    match (group, resource) {
        ("resource.k8s.io", "resourceclaims") if version == "v1beta1" => {
            &Converted(&devices::ResourceClaim, &devices::DevicesV1Beta1)
        }
        ("resource.k8s.io", "resourceclaimtemplates") if version == "v1beta1" => {
            &Converted(&devices::ResourceClaimTemplate, &devices::DevicesV1Beta1)
        }
        ("resource.k8s.io", "resourceslices") if version == "v1beta1" => {
            &Converted(&devices::ResourceSlice, &devices::DevicesV1Beta1)
        }
        ("", "configmaps") => &config::ConfigMap,
        ("", "secrets") => &config::Secret,
        ("", "serviceaccounts") => &config::ServiceAccount,
        ("", "resourcequotas") => &quota::ResourceQuota,
        ("", "limitranges") => &limit_range::LimitRange,
        ("", "events") | ("events.k8s.io", "events") => &event::Event,
        ("", "namespaces") => &namespace::Namespace,
        ("", "nodes") => &node::Node,
        ("", "pods") => &pod::Pod,
        ("", "podtemplates") => &pod::PodTemplate,
        ("", "services") => &service::Service,
        ("", "endpoints") => &network::Endpoints,
        ("", "persistentvolumes") => &storage::PersistentVolume,
        ("", "persistentvolumeclaims") => &storage::PersistentVolumeClaim,
        ("", "replicationcontrollers") => &workload::ReplicationController,
        ("apps", "deployments") => &workload::Deployment,
        ("apps", "replicasets") => &workload::ReplicaSet,
        ("apps", "statefulsets") => &workload::StatefulSet,
        ("apps", "daemonsets") => &workload::DaemonSet,
        ("apps", "controllerrevisions") => &workload::ControllerRevision,
        ("batch", "jobs") => &batch::Job,
        ("batch", "cronjobs") => &batch::CronJob,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::HorizontalPodAutoscaler,
        ("policy", "poddisruptionbudgets") => &policy::PodDisruptionBudget,
        ("discovery.k8s.io", "endpointslices") => &network::EndpointSlice,
        ("networking.k8s.io", "ingresses") => &ingress::Ingress,
        ("networking.k8s.io", "ingressclasses") => &ingress::IngressClass,
        ("networking.k8s.io", "ipaddresses") => &ingress::IpAddress,
        ("networking.k8s.io", "servicecidrs") => &ingress::ServiceCidr,
        ("networking.k8s.io", "networkpolicies") => &network::NetworkPolicy,
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => {
            &admissionregistration::WebhookConfiguration { mutating: false }
        }
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => {
            &admissionregistration::WebhookConfiguration { mutating: true }
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            &admissionregistration::AdmissionPolicy { mutating: false }
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => {
            &admissionregistration::AdmissionPolicy { mutating: true }
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            &admissionregistration::PolicyBinding { mutating: false }
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => {
            &admissionregistration::PolicyBinding { mutating: true }
        }
        ("apiregistration.k8s.io", "apiservices") => &apiregistration::ApiService,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flow::FlowSchema,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flow::PriorityLevel,
        ("resource.k8s.io", "resourceclaims") => &devices::ResourceClaim,
        ("resource.k8s.io", "resourceclaimtemplates") => &devices::ResourceClaimTemplate,
        ("resource.k8s.io", "deviceclasses") => &devices::DeviceClass,
        ("resource.k8s.io", "resourceslices") => &devices::ResourceSlice,
        ("resource.k8s.io", "devicetaintrules") => &devices::DeviceTaintRule,
        ("coordination.k8s.io", "leases") => &node::Lease,
        ("node.k8s.io", "runtimeclasses") => &node::RuntimeClass,
        ("scheduling.k8s.io", "priorityclasses") => &node::PriorityClass,
        ("scheduling.k8s.io", "podgroups") => &scheduling::PodGroup,
        ("scheduling.k8s.io", "workloads") => &scheduling::Workload,
        ("storage.k8s.io", "storageclasses") => &storage_classes::StorageClass,
        ("storage.k8s.io", "volumeattachments") => &storage_classes::VolumeAttachment,
        ("storage.k8s.io", "csidrivers") => &storage_classes::CsiDriver,
        ("storage.k8s.io", "csinodes") => &storage_classes::CsiNode,
        ("storage.k8s.io", "csistoragecapacities") => &storage_classes::CsiStorageCapacity,
        ("storage.k8s.io", "volumeattributesclasses") => &storage_classes::VolumeAttributesClass,
        ("storagemigration.k8s.io", "storageversionmigrations") => {
            &storage_migration::StorageVersionMigration
        }
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::CertificateSigningRequest,
        ("certificates.k8s.io", "clustertrustbundles") => &certificates::ClusterTrustBundle,
        ("certificates.k8s.io", "podcertificaterequests") => &pod_certificates::PodCertificateRequest,
        ("rbac.authorization.k8s.io", "roles") => &rbac::Role { of_cluster: false },
        ("rbac.authorization.k8s.io", "clusterroles") => &rbac::Role { of_cluster: true },
        ("rbac.authorization.k8s.io", "rolebindings") => &rbac::RoleBinding { of_cluster: false },
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &rbac::RoleBinding { of_cluster: true },
        ("apiextensions.k8s.io", "customresourcedefinitions") => &crate::custom::Definition,
        _ => &Plain,
    }
}

/// The stored version of a kind, and the way to it. One kind that is served under two names is stored once.
pub(crate) fn storage_of(gvk: &Gvk) -> (Gvk, Option<&'static dyn Convert>) {
    match (&*gvk.group, &*gvk.version, &*gvk.kind) {
        ("events.k8s.io", "v1", "Event") => (Gvk::new("", "v1", "Event"), Some(&event::EventsV1)),
        ("autoscaling", "v1", kind) => {
            (Gvk::new("autoscaling", "v2", kind), Some(&autoscaling::AutoscalingV1))
        }
        // Everything below is a version that is off by default; the kind is kept in its most settled version.
        (
            "resource.k8s.io",
            "v1beta1",
            kind @ ("ResourceClaim" | "ResourceClaimTemplate" | "ResourceSlice"),
        ) => (Gvk::new("resource.k8s.io", "v1", kind), Some(&devices::DevicesV1Beta1)),
        ("resource.k8s.io", "v1alpha3", "DeviceTaintRule") => alike(gvk, "v1beta2"),
        ("resource.k8s.io", "v1beta1" | "v1beta2", kind) if kind != "DeviceTaintRule" => alike(gvk, "v1"),
        ("certificates.k8s.io", "v1alpha1", "ClusterTrustBundle") => alike(gvk, "v1beta1"),
        ("coordination.k8s.io", "v1alpha2", "LeaseCandidate") => alike(gvk, "v1beta1"),
        ("admissionregistration.k8s.io", "v1alpha1" | "v1beta1", _)
        | ("networking.k8s.io" | "storage.k8s.io", "v1beta1", _) => alike(gvk, "v1"),
        _ => (gvk.clone(), None),
    }
}

/// The same fields under another version.
struct Alike;

impl Convert for Alike {
    fn store(&self, _object: &mut Value) {}
    fn show(&self, _object: &mut Value) {}
}

fn alike(gvk: &Gvk, version: &str) -> (Gvk, Option<&'static dyn Convert>) {
    (Gvk::new(&gvk.group, version, &gvk.kind), Some(&Alike))
}

/// What users of a deprecated version are told with every answer (upstream's `k8s:prerelease-lifecycle-gen`).
pub fn deprecation(gvk: &Gvk) -> Option<&'static str> {
    match (&*gvk.group, &*gvk.version, &*gvk.kind) {
        ("", "v1", "Endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "v1", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// Short names, as upstream's storages give them (`pkg/registry/*/*/storage`, `ShortNames`).
pub(crate) fn short_names(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "componentstatuses") => &["cs"],
        ("", "configmaps") => &["cm"],
        ("", "endpoints") => &["ep"],
        ("" | "events.k8s.io", "events") => &["ev"],
        ("", "limitranges") => &["limits"],
        ("", "namespaces") => &["ns"],
        ("", "nodes") => &["no"],
        ("", "persistentvolumeclaims") => &["pvc"],
        ("", "persistentvolumes") => &["pv"],
        ("", "pods") => &["po"],
        ("", "replicationcontrollers") => &["rc"],
        ("", "resourcequotas") => &["quota"],
        ("", "serviceaccounts") => &["sa"],
        ("", "services") => &["svc"],
        ("apiextensions.k8s.io", "customresourcedefinitions") => &["crd", "crds"],
        ("apps", "daemonsets") => &["ds"],
        ("apps", "deployments") => &["deploy"],
        ("apps", "replicasets") => &["rs"],
        ("apps", "statefulsets") => &["sts"],
        ("autoscaling", "horizontalpodautoscalers") => &["hpa"],
        ("batch", "cronjobs") => &["cj"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["csr"],
        ("networking.k8s.io", "ingresses") => &["ing"],
        ("networking.k8s.io", "ipaddresses") => &["ip"],
        ("networking.k8s.io", "networkpolicies") => &["netpol"],
        ("policy", "poddisruptionbudgets") => &["pdb"],
        ("scheduling.k8s.io", "priorityclasses") => &["pc"],
        ("storage.k8s.io", "storageclasses") => &["sc"],
        ("storage.k8s.io", "volumeattributesclasses") => &["vac"],
        _ => &[],
    }
}

/// The groups of resources a user can name at once, such as `kubectl get all`.
pub(crate) fn categories(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "pods" | "replicationcontrollers" | "services")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("autoscaling", "horizontalpodautoscalers")
        | ("batch", "cronjobs" | "jobs") => &["all"],
        ("apiextensions.k8s.io", _) | ("apiregistration.k8s.io", _) | ("admissionregistration.k8s.io", _) => {
            &["api-extensions"]
        }
        _ => &[],
    }
}

/// What is wrong with a new object of that spec.
#[cfg(test)]
fn refused(strategy: &dyn Strategy, spec: Value) -> Vec<String> {
    let mut object = serde_json::json!({"metadata": {"name": "a"}, "spec": spec});
    strategy.default(&mut object);
    let mut errors = FieldErrors::new();
    strategy.validate_create(&object, &mut errors);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Registry;

    /// Defaults must only name fields that exist: a defaulted object decodes without an unknown field.
    #[test]
    fn defaults_fit_the_schema() {
        let registry = Registry::serving(&"api/all=true".parse().unwrap()).unwrap();
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}],
                "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 1}}, "readinessProbe": {"exec": {"command": ["a"]}},
                "lifecycle": {"preStop": {"httpGet": {"port": 1}}},
                "resources": {"limits": {"cpu": "1"}}}],
            "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}},
                {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {"name": "d", "hostPath": {"path": "/"}}, {"name": "e", "downwardAPI": {"items": [{"path": "x",
                    "fieldRef": {"fieldPath": "metadata.name"}}]}}],
        }});
        for def in registry.resources() {
            let spec = match &*def.resource {
                "pods" => template["spec"].clone(),
                "services" => {
                    json!({"type": "LoadBalancer", "ports": [{"port": 1}], "sessionAffinity": "ClientIP"})
                }
                "cronjobs" => json!({"jobTemplate": {"spec": {"template": template}}}),
                "statefulsets" => json!({"template": template, "volumeClaimTemplates": [{"spec": {}}]}),
                "networkpolicies" => json!({"ingress": [{"ports": [{"port": 1}]}], "egress": []}),
                "deployments" | "replicasets" | "daemonsets" | "jobs" | "replicationcontrollers" => {
                    json!({"template": template})
                }
                _ => json!({}),
            };
            let mut object = json!({"apiVersion": def.api_version(), "kind": &*def.gvk.kind,
                "metadata": {"name": "x", "uid": "u"}, "spec": spec});
            def.strategy.default(&mut object);
            let mut again = object.clone();
            def.strategy.default(&mut again);
            assert_eq!(again, object, "{} is not settled by its defaults", def.resource);
            def.strategy.prepare_create(&mut object);
            if object["spec"] == json!({})
                && let Value::Object(map) = &mut object
            {
                map.remove("spec");
            }
            let errors = registry.definitions().decode(def.schema.unwrap(), &mut object);
            assert_eq!(errors.mismatch, None, "{}", def.resource);
            assert!(errors.unknown.is_empty(), "{}: {:?}", def.resource, errors.unknown);
        }
    }
}
