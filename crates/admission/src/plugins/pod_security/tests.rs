use serde_json::{Value, json};

use super::{Level, Standard, detail, evaluate};

fn said(level: Level, minor: Option<u32>, spec: Value) -> String {
    detail(&evaluate(Standard { level, minor }, &json!({}), &spec))
}

fn restricted(spec: Value) -> String {
    said(Level::Restricted, None, spec)
}

fn baseline(spec: Value) -> String {
    said(Level::Baseline, None, spec)
}

/// A pod with one container that the restricted level allows, with something else added.
fn good(extra: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}]});
    types::patch::merge_patch(&mut spec, extra);
    spec
}

#[test]
fn what_a_bare_pod_lacks() {
    assert_eq!(
        restricted(json!({"containers": [{"name": "nginx"}]})),
        "allowPrivilegeEscalation != false (container \"nginx\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"nginx\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"nginx\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"nginx\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(restricted(good(json!({}))), "");
    assert_eq!(baseline(json!({"containers": [{"name": "nginx"}]})), "");
}

#[test]
fn each_rule_of_the_baseline() {
    for (spec, want) in [
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}, {"name": "b", "securityContext": {"privileged": true}}]}),
            "privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 0}]}]}),
            "hostPort (container \"a\" uses hostPort 80)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}}]}),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "a"}, {"name": "kernel.shm_rmid_forced"}]}}),
            "forbidden sysctls (a)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
    ] {
        assert_eq!(baseline(spec), want);
    }
}

#[test]
fn versions_change_the_rules() {
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    assert_eq!(baseline(sysctl.clone()), "");
    assert_eq!(said(Level::Baseline, Some(31), sysctl), "forbidden sysctls (net.ipv4.tcp_rmem)");
    let root = good(json!({"securityContext": {"runAsUser": 0}}));
    assert_eq!(restricted(root.clone()), "runAsUser=0 (pod must not set runAsUser=0)");
    assert_eq!(said(Level::Restricted, Some(22), root), "");
    assert_eq!(
        restricted(good(json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "n", "nfs": {}}]}))),
        "restricted volume types (volumes \"v\", \"n\" use restricted volume types \"hostPath\", \"nfs\")"
    );
}
