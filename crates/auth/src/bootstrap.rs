//! The roles and bindings that every cluster starts with (kubernetes/kubernetes,
//! `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`).

use serde_json::{Value, json};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];

fn rule(verbs: &[&[&str]], groups: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs.concat()})
}

fn paths(verbs: &[&str], paths: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": verbs})
}

fn cluster_role(name: &str, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": rules,
    })
}

const WORKLOADS: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/rollback",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
    "controllerrevisions",
];
const CORE_CONFIG: &[&str] = &[
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
    "endpoints",
];
const NETWORKING: &[&str] = &["ingresses", "networkpolicies"];

fn view_rules() -> Vec<Value> {
    let core = [
        CORE_CONFIG,
        &[
            "pods",
            "pods/log",
            "pods/status",
            "namespaces",
            "namespaces/status",
            "bindings",
            "limitranges",
            "resourcequotas",
            "resourcequotas/status",
            "services/status",
            "persistentvolumeclaims/status",
            "replicationcontrollers/status",
        ],
    ]
    .concat();
    vec![
        rule(&[READ], &[""], &core),
        rule(&[READ], &["apps"], WORKLOADS),
        rule(
            &[READ],
            &["apps"],
            &["daemonsets/status", "deployments/status", "replicasets/status", "statefulsets/status"],
        ),
        rule(&[READ], &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        rule(&[READ], &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
        rule(&[READ], &["discovery.k8s.io"], &["endpointslices"]),
        rule(&[READ], &["events.k8s.io"], &["events"]),
        rule(&[READ], &["networking.k8s.io"], NETWORKING),
        rule(&[READ], &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        rule(&[READ], &["metrics.k8s.io"], &["pods", "nodes"]),
    ]
}

fn edit_rules() -> Vec<Value> {
    let mut rules = view_rules();
    rules.extend([
        rule(
            &[READ, WRITE],
            &[""],
            &[
                "pods",
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
                "secrets",
                "services/proxy",
            ],
        ),
        rule(&[&["create"]], &[""], &["pods/eviction", "serviceaccounts/token"]),
        rule(&[&["impersonate"]], &[""], &["serviceaccounts"]),
        rule(&[WRITE], &[""], CORE_CONFIG),
        rule(&[WRITE], &["apps"], WORKLOADS),
        rule(&[WRITE], &["autoscaling"], &["horizontalpodautoscalers"]),
        rule(&[WRITE], &["batch"], &["cronjobs", "jobs"]),
        rule(&[WRITE], &["networking.k8s.io"], NETWORKING),
        rule(&[WRITE], &["policy"], &["poddisruptionbudgets"]),
        rule(&[READ, WRITE], &["coordination.k8s.io"], &["leases"]),
    ]);
    rules
}

fn admin_rules() -> Vec<Value> {
    let mut rules = edit_rules();
    rules.push(rule(&[READ, WRITE], &["rbac.authorization.k8s.io"], &["roles", "rolebindings"]));
    rules.push(rule(&[&["create"]], &["authorization.k8s.io"], &["localsubjectaccessreviews"]));
    rules
}

fn node_rules() -> Vec<Value> {
    vec![
        rule(&[&["create"]], &["authentication.k8s.io"], &["tokenreviews"]),
        rule(
            &[&["create"]],
            &["authorization.k8s.io"],
            &["subjectaccessreviews", "localsubjectaccessreviews"],
        ),
        rule(
            &[READ],
            &[""],
            &[
                "services",
                "configmaps",
                "secrets",
                "persistentvolumeclaims",
                "persistentvolumes",
                "serviceaccounts",
                "namespaces",
            ],
        ),
        rule(&[READ, WRITE], &[""], &["nodes", "nodes/status"]),
        rule(&[READ, WRITE], &[""], &["pods", "pods/status"]),
        rule(&[&["create"]], &[""], &["pods/eviction", "serviceaccounts/token"]),
        rule(&[&["create", "patch", "update"]], &["", "events.k8s.io"], &["events"]),
        rule(&[READ, WRITE], &["coordination.k8s.io"], &["leases"]),
        rule(&[READ, WRITE], &["storage.k8s.io"], &["csinodes"]),
        rule(&[READ], &["storage.k8s.io"], &["csidrivers", "volumeattachments"]),
        rule(&[READ], &["node.k8s.io"], &["runtimeclasses"]),
        rule(&[READ, &["create"]], &["certificates.k8s.io"], &["certificatesigningrequests"]),
    ]
}

/// The ClusterRoles.
pub fn cluster_roles() -> Vec<Value> {
    let aggregated = |name: &str, rules: Vec<Value>, into: &str| {
        let mut role = cluster_role(name, rules);
        if !into.is_empty() {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] =
                "true".into();
        }
        role
    };
    vec![
        cluster_role("cluster-admin", vec![rule(&[ALL], &["*"], &["*"]), paths(ALL, &["*"])]),
        aggregated("admin", admin_rules(), ""),
        aggregated("edit", edit_rules(), "admin"),
        aggregated("view", view_rules(), "edit"),
        cluster_role(
            "system:discovery",
            vec![paths(
                &["get"],
                &[
                    "/api",
                    "/api/*",
                    "/apis",
                    "/apis/*",
                    "/healthz",
                    "/livez",
                    "/openapi",
                    "/openapi/*",
                    "/readyz",
                    "/version",
                    "/version/",
                ],
            )],
        ),
        cluster_role(
            "system:basic-user",
            vec![
                rule(
                    &[&["create"]],
                    &["authorization.k8s.io"],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                ),
                rule(&[&["create"]], &["authentication.k8s.io"], &["selfsubjectreviews"]),
            ],
        ),
        cluster_role(
            "system:public-info-viewer",
            vec![paths(&["get"], &["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        cluster_role(
            "system:monitoring",
            vec![paths(
                &["get"],
                &[
                    "/healthz",
                    "/healthz/*",
                    "/livez",
                    "/livez/*",
                    "/metrics",
                    "/metrics/slis",
                    "/readyz",
                    "/readyz/*",
                ],
            )],
        ),
        cluster_role("system:node", node_rules()),
        cluster_role(
            "system:kube-scheduler",
            vec![
                rule(&[&["create", "patch", "update"]], &["", "events.k8s.io"], &["events"]),
                rule(&[READ, WRITE], &["coordination.k8s.io"], &["leases"]),
                rule(
                    &[READ],
                    &[""],
                    &[
                        "nodes",
                        "namespaces",
                        "pods",
                        "persistentvolumeclaims",
                        "persistentvolumes",
                        "replicationcontrollers",
                        "services",
                    ],
                ),
                rule(&[&["delete"]], &[""], &["pods"]),
                rule(&[&["create"]], &[""], &["bindings", "pods/binding"]),
                rule(&[&["patch", "update"]], &[""], &["pods/status"]),
                rule(&[READ], &["apps"], &["replicasets", "statefulsets"]),
                rule(&[READ], &["policy"], &["poddisruptionbudgets"]),
                rule(
                    &[READ],
                    &["storage.k8s.io"],
                    &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses"],
                ),
                rule(&[READ], &["scheduling.k8s.io"], &["priorityclasses"]),
            ],
        ),
        // Upstream gives each controller an account of its own; ours share one identity until they run apart.
        cluster_role(
            "system:kube-controller-manager",
            vec![rule(&[ALL], &["*"], &["*"]), paths(&["get"], &["*"])],
        ),
        cluster_role(
            "system:node-proxier",
            vec![
                rule(&[READ], &[""], &["services", "endpoints", "nodes"]),
                rule(&[READ], &["discovery.k8s.io"], &["endpointslices"]),
                rule(&[READ], &["networking.k8s.io"], &["servicecidrs", "networkpolicies"]),
                rule(&[&["create", "patch", "update"]], &["", "events.k8s.io"], &["events"]),
            ],
        ),
        cluster_role(
            "system:kube-dns",
            vec![
                rule(&[READ], &[""], &["endpoints", "services", "pods", "namespaces"]),
                rule(&[READ], &["discovery.k8s.io"], &["endpointslices"]),
            ],
        ),
        cluster_role(
            "system:kubelet-api-admin",
            vec![
                rule(&[READ, &["proxy"]], &[""], &["nodes"]),
                rule(
                    &[ALL],
                    &[""],
                    &[
                        "nodes/log",
                        "nodes/metrics",
                        "nodes/proxy",
                        "nodes/stats",
                        "nodes/configz",
                        "nodes/healthz",
                        "nodes/pods",
                    ],
                ),
            ],
        ),
    ]
}

/// The ClusterRoleBindings.
pub fn cluster_role_bindings() -> Vec<Value> {
    let binding = |name: &str, role: &str, subjects: &[(&str, &str)]| {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|(kind, name)| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}))
            .collect();
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            },
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        })
    };
    let group = |name| ("Group", name);
    let user = |name| ("User", name);
    vec![
        binding("cluster-admin", "cluster-admin", &[group("system:masters")]),
        binding("system:discovery", "system:discovery", &[group("system:authenticated")]),
        binding("system:basic-user", "system:basic-user", &[group("system:authenticated")]),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &[group("system:authenticated"), group("system:unauthenticated")],
        ),
        binding("system:monitoring", "system:monitoring", &[group("system:monitoring")]),
        binding("system:node", "system:node", &[group("system:nodes")]),
        binding("system:kube-scheduler", "system:kube-scheduler", &[user("system:kube-scheduler")]),
        binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            &[user("system:kube-controller-manager")],
        ),
        binding("system:node-proxier", "system:node-proxier", &[user("system:kube-proxy")]),
        binding("system:kube-dns", "system:kube-dns", &[user("system:kube-dns")]),
        binding(
            "system:kubelet-api-admin",
            "system:kubelet-api-admin",
            &[user("kube-apiserver-kubelet-client")],
        ),
    ]
}

/// The Roles.
pub fn roles() -> Vec<Value> {
    vec![json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {
            "name": "extension-apiserver-authentication-reader", "namespace": "kube-system",
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": READ,
            "resourceNames": ["extension-apiserver-authentication"]}],
    })]
}

/// The RoleBindings.
pub fn role_bindings() -> Vec<Value> {
    vec![json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {
            "name": "system::extension-apiserver-authentication-reader", "namespace": "kube-system",
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-controller-manager"},
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-scheduler"},
        ],
    })]
}
