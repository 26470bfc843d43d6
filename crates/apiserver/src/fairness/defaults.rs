//! The priority levels and flow schemas that every cluster has
//! (kubernetes/kubernetes, `apiserver/pkg/apis/flowcontrol/bootstrap/default.go`).

use std::sync::Arc;

use auth::User;
use serde_json::{Value, json};

use crate::state::Inner;
use crate::verbs::{Part, Write, rewrite};

/// Resource and object of each.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    let levels = levels().map(|level| ("prioritylevelconfigurations", level));
    let schemas = schemas().map(|schema| ("flowschemas", schema));
    levels.into_iter().chain(schemas).collect()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec})
}

fn levels() -> [Value; 8] {
    let limited = |name: &str, shares: u32, lendable: u32, queues: u32, hand: u32| {
        let response = match queues {
            0 => json!({"type": "Reject"}),
            _ => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
            }
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": response});
        object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
    };
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    [
        object("PriorityLevelConfiguration", "exempt", exempt),
        limited("catch-all", 5, 0, 0, 0),
        limited("system", 30, 33, 64, 6),
        limited("node-high", 40, 25, 64, 6),
        limited("leader-election", 10, 0, 16, 4),
        limited("workload-high", 40, 50, 128, 6),
        limited("workload-low", 100, 90, 128, 6),
        limited("global-default", 20, 50, 128, 6),
    ]
}

fn schemas() -> [Value; 13] {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let account = |name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}});
    let resources = |verbs: Value, groups: Value, resources: Value, cluster: bool, namespaces: Value| {
        let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
        if cluster {
            rule["clusterScope"] = true.into();
        }
        if namespaces != json!([]) {
            rule["namespaces"] = namespaces;
        }
        rule
    };
    let every = || resources(json!(["*"]), json!(["*"]), json!(["*"]), true, json!(["*"]));
    let every_path = || json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    let anything = |subjects: Value| json!([{"subjects": subjects, "resourceRules": [every()], "nonResourceRules": every_path()}]);
    let schema = |name: &str, level: &str, precedence: u32, by: &str, rules: Value| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": rules});
        if !by.is_empty() {
            spec["distinguisherMethod"] = json!({"type": by});
        }
        object("FlowSchema", name, spec)
    };
    let everybody = json!([group("system:unauthenticated"), group("system:authenticated")]);
    let election = json!(["get", "create", "update"]);
    let leases = json!(["coordination.k8s.io"]);
    [
        schema("exempt", "exempt", 1, "", anything(json!([group("system:masters")]))),
        schema(
            "probes",
            "exempt",
            2,
            "",
            json!([{"subjects": everybody, "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            json!([{
            "subjects": [user("system:kube-controller-manager"), user("system:kube-scheduler"), account("*")],
            "resourceRules": [resources(election.clone(), leases.clone(), json!(["leases"]), false, json!(["kube-system"]))]}]),
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            json!([{
            "subjects": [user("system:kube-controller-manager"), account("endpoint-controller"), account("endpointslicemirroring-controller")],
            "resourceRules": [resources(election.clone(), json!([""]), json!(["endpoints"]), false, json!(["*"]))]}]),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            json!([{
            "subjects": [account("*")],
            "resourceRules": [
                resources(election.clone(), json!([""]), json!(["endpoints", "configmaps"]), false, json!(["*"])),
                resources(election, leases.clone(), json!(["leases"]), false, json!(["*"]))]}]),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            json!([{
            "subjects": [group("system:nodes")],
            "resourceRules": [
                resources(json!(["*"]), json!([""]), json!(["nodes", "nodes/status"]), true, json!(["*"])),
                resources(json!(["*"]), leases, json!(["leases"]), false, json!(["*"]))]}]),
        ),
        schema("system-nodes", "system", 500, "ByUser", anything(json!([group("system:nodes")]))),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            anything(json!([user("system:kube-controller-manager")])),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            anything(json!([user("system:kube-scheduler")])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            anything(json!([account("*")])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            anything(json!([group("system:serviceaccounts")])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", anything(everybody.clone())),
        schema("catch-all", "catch-all", 10000, "ByUser", anything(everybody)),
    ]
}

/// Says in each flow schema's status whether the level it names exists.
pub(super) fn tell_dangling(server: &Arc<Inner>, schemas: &[Value], levels: &[Value]) {
    let outdated: Vec<(String, Value)> = schemas
        .iter()
        .filter_map(|schema| {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
            let exists = levels.iter().any(|l| l["metadata"]["name"] == level);
            let (status, reason, which) = if exists {
                ("False", "Found", "and it exists")
            } else {
                ("True", "NotFound", "but there is no such object")
            };
            let conditions = schema["status"]["conditions"].as_array().into_iter().flatten();
            let known = conditions.into_iter().any(|c| c["type"] == "Dangling" && c["status"] == status);
            let message = format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {which}"
            );
            let condition =
                json!({"type": "Dangling", "status": status, "reason": reason, "message": message});
            (!known).then(|| (schema["metadata"]["name"].as_str().unwrap_or_default().to_owned(), condition))
        })
        .collect();
    if outdated.is_empty() {
        return;
    }
    let server = server.clone();
    tokio::spawn(async move {
        let registry = server.registry();
        let Some(def) = registry.find("flowcontrol.apiserver.k8s.io", "v1", "flowschemas") else { return };
        let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
        let write = Write {
            server: &server,
            registry: &registry,
            def,
            user: &user,
            namespace: "",
            subresource: "status",
            dry_run: false,
            manager: "api-priority-and-fairness-config-consumer-v1",
            options: admission::Options::default(),
            passed: false,
        };
        for (name, mut condition) in outdated {
            condition["lastTransitionTime"] = server.timestamp().into();
            let edit = |old: &Value| {
                let mut new = old.clone();
                new["status"]["conditions"] = json!([condition]);
                Ok(new.into())
            };
            // Whoever changes the object meanwhile causes another look at it.
            let _ = rewrite(&write, &name, Part::Status, edit).await;
        }
    });
}
