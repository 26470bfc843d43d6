//! What works in a pod but should be said (kubernetes/kubernetes, `pkg/api/pod/warnings.go`,
//! `pkg/api/node/util.go`).

use serde_json::Value;
use types::{Path, at};

use super::super::check::*;
use super::super::storage_warnings::claim_spec;
use super::containers::each_container;

/// What is to be said of a label of nodes that has a newer name.
pub(in super::super) fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => {
            r#"beta.kubernetes.io/arch is deprecated since v1.14; use "kubernetes.io/arch" instead"#
        }
        "beta.kubernetes.io/os" => {
            r#"beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead"#
        }
        "failure-domain.beta.kubernetes.io/region" => {
            r#"failure-domain.beta.kubernetes.io/region is deprecated since v1.17; use "topology.kubernetes.io/region" instead"#
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            r#"failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#
        }
        "beta.kubernetes.io/instance-type" => {
            r#"beta.kubernetes.io/instance-type is deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#
        }
        _ => return None,
    })
}

/// The same without the label's name in front.
fn deprecated(key: &str) -> Option<&'static str> {
    deprecated_label(key).and_then(|m| m.split_once(" is ")).map(|(_, rest)| rest)
}

/// Labels with old names in terms that choose nodes.
pub(in super::super) fn node_selector_terms(selector: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    for (i, term) in list(selector, "nodeSelectorTerms").enumerate() {
        node_selector_term(term, &path.index(i), found);
    }
}

fn node_selector_term(term: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    let path = path.child("matchExpressions");
    for (i, e) in list(term, "matchExpressions").enumerate() {
        let key = text(e, "key");
        if let Some(why) = deprecated(key) {
            found.push(format!("{}: {key} is {why}", path.index(i).child("key")));
        }
    }
}

/// Of a pod.
pub(in super::super) fn pod(pod: &Value) -> Vec<String> {
    let root = Path::new("spec");
    of(pod, &root, &Path::new("metadata"), false)
}

/// Of a template that stands at `path`.
pub(in super::super) fn template(template: &Value, path: &Path<'_>) -> Vec<String> {
    of(template, &path.child("spec"), &path.child("metadata"), true)
}

fn of(owner: &Value, path: &Path<'_>, meta: &Path<'_>, is_template: bool) -> Vec<String> {
    let mut found = Vec::new();
    let spec = &owner["spec"];
    scheduling(spec, path, &mut found);
    let annotations = meta.child("annotations");
    for (key, why) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            r#"non-functional in v1.11+; use the "sysctls" field instead"#,
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            r#"non-functional in v1.11+; use the "sysctls" field instead"#,
        ),
    ] {
        if annotation(owner, key).is_some() {
            found.push(format!("{}: {why}", annotations.key(key)));
        }
    }
    volumes(spec, path, &mut found);
    lists(spec, path, &mut found);
    let overhead = path.child("overhead");
    for name in ["memory", "ephemeral-storage"] {
        fraction(get(spec, "overhead").and_then(|o| o.get(name)), &overhead.key(name), &mut found);
    }
    const SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
    let pod_key = "seccomp.security.alpha.kubernetes.io/pod";
    if at(spec, &["securityContext", "seccompProfile"]).is_none() && annotation(owner, pod_key).is_some() {
        found.push(format!("{}: {SECCOMP}", annotations.key(pod_key)));
    }
    let pod_profile = at(spec, &["securityContext", "appArmorProfile"]).is_some();
    let annotated = at(owner, &["metadata", "annotations"]).is_some();
    each_container(spec, path, |c, path| {
        if annotated {
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", text(c, "name"));
            if at(c, &["securityContext", "seccompProfile"]).is_none() && annotation(owner, &key).is_some() {
                found.push(format!("{}: {SECCOMP}", annotations.key(&key)));
            }
            let key = format!("container.apparmor.security.beta.kubernetes.io/{}", text(c, "name"));
            let profile = pod_profile || at(c, &["securityContext", "appArmorProfile"]).is_some();
            if is_template && !profile && annotation(owner, &key).is_some() {
                found.push(format!(
                    r#"{}: deprecated since v1.30; use the "appArmorProfile" field instead"#,
                    annotations.key(&key)
                ));
            }
        }
        container(c, path, &mut found);
    });
    ports(spec, path, &mut found);
    if int(spec, "terminationGracePeriodSeconds") < 0 {
        found.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
    affinity(spec, path, &mut found);
    found
}

fn scheduling(spec: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    let selector = path.child("nodeSelector");
    for (key, _) in entries(spec, "nodeSelector") {
        if let Some(why) = deprecated(key) {
            found.push(format!("{}: {why}", selector.key(key)));
        }
    }
    if let Some(node) = at(spec, &["affinity", "nodeAffinity"]) {
        let path = path.child("affinity");
        let path = path.child("nodeAffinity");
        if let Some(hard) = get(node, "requiredDuringSchedulingIgnoredDuringExecution") {
            let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
            node_selector_terms(hard, &path.child("nodeSelectorTerms"), found);
        }
        let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in list(node, "preferredDuringSchedulingIgnoredDuringExecution").enumerate() {
            node_selector_term(&term["preference"], &path.index(i).child("preference"), found);
        }
    }
    let path = path.child("topologySpreadConstraints");
    for (i, constraint) in list(spec, "topologySpreadConstraints").enumerate() {
        let path = path.index(i);
        let key = text(constraint, "topologyKey");
        if let Some(why) = deprecated(key) {
            found.push(format!("{}: {key} is {why}", path.child("topologyKey")));
        }
        if !has(constraint, "labelSelector") {
            found.push(format!(
                "{}: a null labelSelector results in matching no pod",
                path.child("labelSelector")
            ));
        }
    }
}

fn affinity(spec: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    const HARD: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const SOFT: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let path = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(given) = at(spec, &["affinity", kind]) else { continue };
        let path = path.child(kind);
        let (hard, soft) = (path.child(HARD), path.child(SOFT));
        let mut say = |term: &Value, path: &Path<'_>| {
            if !has(term, "labelSelector") {
                found.push(format!(
                    "{}: a null labelSelector results in matching no pod",
                    path.child("labelSelector")
                ));
            }
        };
        for (i, term) in list(given, HARD).enumerate() {
            say(term, &hard.index(i));
        }
        for (i, term) in list(given, SOFT).enumerate() {
            say(&term["podAffinityTerm"], &soft.index(i).child("podAffinityTerm"));
        }
    }
}

fn volumes(spec: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    let path = path.child("volumes");
    for (i, volume) in list(spec, "volumes").enumerate() {
        let path = path.index(i);
        for (field, why) in [
            ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
            ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
            ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if has(volume, field) {
                let shown = if field == "storageos" { "storageOS" } else { field };
                found.push(format!("{}: {why}", path.child(shown)));
            }
        }
        if let Some(claim) = at(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
            let path = path.child("ephemeral");
            let path = path.child("volumeClaimTemplate");
            claim_spec(claim, &path.child("spec"), found);
        }
    }
}

fn lists(spec: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    let aliases = path.child("hostAliases");
    for (i, alias) in list(spec, "hostAliases").enumerate() {
        let ip = text(alias, "ip");
        if repeats(list(spec, "hostAliases").take(i).map(|a| text(a, "ip")), ip) {
            found.push(format!("{}: duplicate ip {ip:?}", aliases.index(i).child("ip")));
        }
    }
    let secrets = path.child("imagePullSecrets");
    for (i, secret) in list(spec, "imagePullSecrets").enumerate() {
        let name = text(secret, "name");
        if repeats(list(spec, "imagePullSecrets").take(i).map(|s| text(s, "name")), name) {
            found.push(format!("{}: duplicate name {name:?}", secrets.index(i).child("name")));
        }
    }
    for (i, secret) in list(spec, "imagePullSecrets").enumerate() {
        if text(secret, "name").is_empty() {
            found.push(format!("{}: invalid empty name \"\"", secrets.index(i).child("name")));
        }
    }
}

fn fraction(amount: Option<&Value>, path: &Path<'_>, found: &mut Vec<String>) {
    if let Some(amount) = amount.filter(|a| quantity(a).millis() % 1000 != 0) {
        let shown = amount.as_str().unwrap_or_default();
        found.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

fn container(c: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    let resources = path.child("resources");
    for name in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            fraction(at(c, &["resources", kind, name]), &resources.child(kind).key(name), found);
        }
    }
    let path = path.child("env");
    for (i, var) in list(c, "env").enumerate() {
        let name = text(var, "name");
        if !repeats(list(c, "env").take(i).map(|v| text(v, "name")), name) {
            continue;
        }
        let (value, reference) = (text(var, "value"), format!("$({name})"));
        if has(var, "valueFrom") || value == reference || !value.contains(&reference) {
            found.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                path.index(i)
            ));
        }
    }
}

fn ports(spec: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    struct Seen {
        at: String,
        host: (String, i64),
        of: (i64, String),
    }
    let mut seen: Vec<Seen> = Vec::new();
    each_container(spec, path, |c, path| {
        let path = path.child("ports");
        for (i, port) in list(c, "ports").enumerate() {
            let here = path.index(i);
            let host = (text(port, "hostIP").to_owned(), int(port, "hostPort"));
            let of = (int(port, "containerPort"), text(port, "protocol").to_owned());
            if !host.0.is_empty() && host.1 == 0 {
                found.push(format!("{here}: hostIP set without hostPort: {port}"));
            }
            for other in seen.iter().filter(|s| s.of == of) {
                let how = if other.host == host {
                    "duplicate"
                } else if host.1 == 0
                    || other.host.1 == 0
                    || (host.1 == other.host.1 && (host.0.is_empty() || other.host.0.is_empty()))
                {
                    "overlapping"
                } else {
                    continue;
                };
                found.push(format!("{here}: {how} port definition with {}", other.at));
            }
            seen.push(Seen { at: here.to_string(), host, of });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said() {
        let odd = json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}}, "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"}, "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
            "terminationGracePeriodSeconds": -1,
            "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"}],
                "resources": {"limits": {"memory": "100m"}}, "ports": [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 1, "protocol": "TCP"}]}]}});
        assert_eq!(
            pod(&odd),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
                "spec.imagePullSecrets[1].name: duplicate name \"a\"",
                "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
        let old = json!({"spec": {"volumes": [{"name": "v", "gitRepo": {}}], "containers": []}});
        assert_eq!(
            template(&old, &Path::new("template")),
            ["template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"]
        );
    }
}
