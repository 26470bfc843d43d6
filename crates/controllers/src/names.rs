//! Upstream's names for controllers beyond those of [`crate::context::CONTROLLERS`] (kubernetes/kubernetes,
//! `cmd/kube-controller-manager/names/controller_names.go`, and the aliases in `app/*.go`).

/// Writes the older form of slices; here a part of the controller of slices.
pub(crate) const ENDPOINTS: &str = "endpoints-controller";
/// Keeps slices.
pub(crate) const SLICES: &str = "endpointslice-controller";
/// Drives pods away from tainted nodes; here a part of the controller of nodes.
pub(crate) const EVICTION: &str = "taint-eviction-controller";
/// Watches over nodes.
pub(crate) const NODES: &str = "node-lifecycle-controller";
/// Collects what has lost its owners.
pub(crate) const GARBAGE: &str = "garbage-collector-controller";

/// What the API server does here, because it takes what only that has. It is never switched off.
pub(crate) const IN_SERVER: [&str; 4] = [
    "clusterrole-aggregation-controller",
    "resourcequota-controller",
    "serviceaccount-token-controller",
    "validatingadmissionpolicy-status-controller",
];

/// Those that do nothing here, of a cloud's or behind gates. Whoever says that they are off says what is so.
pub(crate) const ABSENT: [&str; 7] = [
    "cloud-node-lifecycle-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "node-route-controller",
    "podcertificaterequest-cleaner-controller",
    "selinux-warning-controller",
    "service-lb-controller",
    "storageversion-garbage-collector-controller",
];

/// Former names, which upstream takes for ever.
const ALIASES: [(&str, &str); 41] = [
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("cloud-node-lifecycle", "cloud-node-lifecycle-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", ENDPOINTS),
    ("endpointslice", SLICES),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("garbagecollector", GARBAGE),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", NODES),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("route", "node-route-controller"),
    ("service", "service-lb-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("storage-version-gc", "storageversion-garbage-collector-controller"),
    ("tokencleaner", "token-cleaner-controller"),
    ("ttl", "ttl-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
];

/// The present name of a controller that is called by a former one.
pub(crate) fn present(name: &str) -> &str {
    ALIASES.iter().find(|(former, _)| *former == name).map_or(name, |(_, present)| present)
}
