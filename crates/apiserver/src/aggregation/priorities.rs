/// The groups that upstream puts into an order, the first one first (kubernetes/kubernetes,
/// `pkg/controlplane/apiserver/aggregator.go`, `DefaultGenericAPIServicePriorities`; `cmd/kube-apiserver/app/aggregator.go`).
const GROUPS: &[(&str, i64)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("admissionregistration.k8s.io", 16700),
    ("apiextensions.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("internal.apiserver.k8s.io", 16000),
    ("storagemigration.k8s.io", 15800),
];

/// Versions whose number is not what their name lets expect.
const VERSIONS: &[(&str, &str, i64)] = &[
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("flowcontrol.apiserver.k8s.io", "v1beta3", 18),
    ("admissionregistration.k8s.io", "v1beta1", 12),
    ("admissionregistration.k8s.io", "v1alpha1", 9),
    ("coordination.k8s.io", "v1beta1", 13),
    ("coordination.k8s.io", "v1alpha2", 12),
    ("discovery.k8s.io", "v1beta1", 12),
    ("events.k8s.io", "v1beta1", 5),
    ("internal.apiserver.k8s.io", "v1alpha1", 9),
];

/// Custom kinds come after the built-in ones; their versions are ordered by their names (`crdregistration_controller.go`).
pub(super) const CUSTOM: (i64, i64) = (1000, 100);

/// How much a group and version that is served here is to be preferred to others.
pub(crate) fn of(group: &str, version: &str, custom: bool) -> (i64, i64) {
    if custom {
        return CUSTOM;
    }
    let of_group = GROUPS.iter().find(|(name, _)| *name == group).map_or(15_700, |(_, priority)| *priority);
    let of_version = VERSIONS.iter().find(|(g, v, _)| *g == group && *v == version);
    let usual = match version {
        v if v.contains("alpha") => 1,
        v if v.contains("beta") => 9,
        _ => 15,
    };
    (of_group, of_version.map_or(usual, |(_, _, priority)| *priority))
}
