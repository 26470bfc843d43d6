//! A whole object of each kind that has rules: what random changes begin with.

use serde_json::{Value, json};

/// Group, version, plural, and an object.
pub(crate) fn samples() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let spec = json!({"containers": [{"name": "c", "image": "i:v1", "command": ["a"], "ports": [{"containerPort": 80, "name": "http"}],
        "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1"}},
        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x"}}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}}},
        "securityContext": {"runAsUser": 1}, "nodeSelector": {"a": "b"}});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    let selector = json!({"matchLabels": {"app": "web"}});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    let (apps, net) = ("apps", "networking.k8s.io");
    let kinds = vec![
        ("", "v1", "pods", json!({"spec": spec})),
        ("", "v1", "podtemplates", json!({"template": template})),
        ("", "v1", "configmaps", json!({"data": {"a": "b"}, "binaryData": {"c": "YQ=="}})),
        ("", "v1", "secrets", json!({"type": "Opaque", "data": {"a": "YQ=="}, "stringData": {"b": "c"}})),
        ("", "v1", "serviceaccounts", json!({"secrets": [{"name": "x"}]})),
        ("", "v1", "namespaces", json!({"spec": {"finalizers": ["kubernetes"]}})),
        (
            "",
            "v1",
            "nodes",
            json!({"spec": {"podCIDR": "10.42.0.0/24", "taints": [{"key": "k", "effect": "NoSchedule"}]}}),
        ),
        (
            "",
            "v1",
            "services",
            json!({"spec": {"selector": {"app": "web"}, "type": "NodePort",
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30001}]}}),
        ),
        (
            "",
            "v1",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "",
            "v1",
            "events",
            json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "R", "message": "m", "type": "Normal", "firstTimestamp": "2026-01-01T00:00:00Z"}),
        ),
        (
            "",
            "v1",
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"}}}),
        ),
        (
            "",
            "v1",
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        ("", "v1", "resourcequotas", json!({"spec": {"hard": {"pods": "10"}}})),
        (
            "",
            "v1",
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}}),
        ),
        (
            "",
            "v1",
            "replicationcontrollers",
            json!({"spec": {"replicas": 1, "selector": {"app": "web"}, "template": template}}),
        ),
        (
            apps,
            "v1",
            "deployments",
            json!({"spec": {"replicas": 2, "selector": selector, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}),
        ),
        (
            apps,
            "v1",
            "replicasets",
            json!({"spec": {"replicas": 2, "selector": selector, "template": template}}),
        ),
        (
            apps,
            "v1",
            "statefulsets",
            json!({"spec": {"serviceName": "s", "selector": selector, "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}}),
        ),
        (apps, "v1", "daemonsets", json!({"spec": {"selector": selector, "template": template}})),
        (apps, "v1", "controllerrevisions", json!({"revision": 1, "data": {"a": 1}})),
        ("batch", "v1", "jobs", json!({"spec": {"template": job, "backoffLimit": 3}})),
        (
            "batch",
            "v1",
            "cronjobs",
            json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": job}}}}),
        ),
        ("autoscaling", "v2", "horizontalpodautoscalers", autoscaler()),
        (
            "autoscaling",
            "v1",
            "horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}}),
        ),
        (
            "policy",
            "v1",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": "50%", "selector": selector}}),
        ),
        (
            "discovery.k8s.io",
            "v1",
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]}),
        ),
        (
            net,
            "v1",
            "ingresses",
            json!({"spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}], "tls": [{"hosts": ["a.b"], "secretName": "t"}]}}),
        ),
        (net, "v1", "ingressclasses", json!({"spec": {"controller": "a.b/c"}})),
        (
            net,
            "v1",
            "networkpolicies",
            json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80, "protocol": "TCP"}]}]}}),
        ),
        (
            "coordination.k8s.io",
            "v1",
            "leases",
            json!({"spec": {"holderIdentity": "n", "leaseDurationSeconds": 40,
            "renewTime": "2026-01-01T00:00:00.000000Z"}}),
        ),
        ("node.k8s.io", "v1", "runtimeclasses", json!({"handler": "h"})),
        ("scheduling.k8s.io", "v1", "priorityclasses", json!({"value": 10})),
        ("storage.k8s.io", "v1", "storageclasses", json!({"provisioner": "a.b/c", "parameters": {"a": "b"}})),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "roles",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "clusterroles",
            json!({"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]}),
        ),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "rolebindings",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "default"}]}),
        ),
        (
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            json!({"spec": {"request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KWVE9PQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K", "signerName": "a.b/c",
            "usages": ["client auth"]}}),
        ),
        (
            "events.k8s.io",
            "v1",
            "events",
            json!({"regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R",
            "action": "A", "type": "Normal", "reportingController": "c", "reportingInstance": "i",
            "eventTime": "2026-01-01T00:00:00.000000Z"}),
        ),
    ];
    kinds
}

fn autoscaler() -> Value {
    json!({"spec": {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}})
}
