//! What a container runs, as whom, with what around it; and what is told of its end.

use serde_json::{Value, json};

use crate::trial::{Trial, sh, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    the_images_own_words: "Docker containers, without command and arguments", "Docker containers, with arguments",
        "Docker containers, with command", "Docker containers, with command and arguments";
    variables_expand: "Environment variables, expansion", "Environment variables, command expansion",
        "Environment variables, command argument expansion";
    variables_from_a_config_map: "ConfigMap, from environment field", "ConfigMap, from environment variables";
    variables_from_a_secret: "Secrets, pod environment field", "Secrets, pod environment from source";
    keys_have_names: "ConfigMap, with empty-key", "Secrets, with empty-key";
    services_are_in_the_environment: "Pods, service environment variables";
    last_words_of_a_log: "Container Runtime, TerminationMessage, from container's log output of failing container",
        "Container Runtime, TerminationMessage, from log output of succeeding container";
    last_words_of_a_file: "Container Runtime, TerminationMessage, from file of succeeding container",
        "Container Runtime, TerminationMessagePath, non-root user and non-default path";
    restarts_by_policy: "Container Runtime, Restart Policy, Pod Phases";
    a_user_of_its_own: "Security Context, runAsUser=65534";
    no_privileges: "Security Context, privileged=false.";
    the_root_is_read_only: "Kubelet, pod with read only root file system";
    the_root_is_writable: "Security Context, readOnlyRootFilesystem=false.";
    no_privileges_are_gained: "Security Context, allowPrivilegeEscalation=false.";
    hosts_are_managed: "Kubelet, managed etc hosts", "Kubelet, hostAliases";
    both_outputs_are_logged: "Kubelet, log output, default";
    what_failed_can_go: "Kubelet, failed pod, delete", "Kubelet, failed pod, terminated reason";
    classes_of_service: "Pods, QOS";
];

fn the_images_own_words(t: &Trial) {
    let speaks = |name: &str, fields: Value| {
        let mut pod = sh("").named(name).object();
        let container = &mut pod["spec"]["containers"][0];
        container.as_object_mut().expect("an object").remove("command");
        container["image"] = "speaks:1".into();
        crate::trial::merge(container, fields);
        t.create(&[pod]);
        t.until_phase(name, &["Succeeded"]);
        t.kubectl(&["logs", name])
    };
    assert_eq!(speaks("neither", json!({})), "entry command\n");
    assert_eq!(speaks("arguments", json!({"args": ["mine"]})), "entry mine\n");
    assert_eq!(speaks("command", json!({"command": ["/bin/busybox", "echo", "other"]})), "other\n");
    let both = json!({"command": ["/bin/busybox", "echo"], "args": ["both", "mine"]});
    assert_eq!(speaks("both", both), "both mine\n");
}

fn variables_expand(t: &Trial) {
    let env = json!({
        "env": [
            {"name": "FOO", "value": "foo"},
            {"name": "BAR", "value": "bar"},
            {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"},
            {"name": "ESCAPED", "value": "$$(FOO) $(LATER)"},
            {"name": "LATER", "value": "x"},
        ],
        "command": ["/bin/busybox", "sh", "-c", "echo \"$FOOBAR $ESCAPED $(FOO) $0 $1\""],
        "args": ["$(BAR)", "$(NOBODY) $$(BAR)"],
    });
    assert_eq!(t.says(&sh("").with(env)), "foo;;bar $(FOO) $(LATER) foo bar $(NOBODY) $(BAR)\n");
}

const ALL_VALUES: [&str; 5] =
    ["ONE=value-1", "data-1=value-1", "data_2=value-2", "p_data-1=value-1", "p_data_2=value-2"];

/// The variables with such values. A shell would hide those with a dash in their names.
fn values(environment: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = environment.lines().filter(|line| line.contains("=value-")).collect();
    lines.sort_unstable();
    lines
}

fn variables_from_a_config_map(t: &Trial) {
    t.config_map("o", json!({"data-1": "value-1", "data_2": "value-2"}));
    let pod = sh("").with(json!({
        "command": ["/bin/busybox", "env"],
        "env": [{"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "o", "key": "data-1"}}}],
        "envFrom": [{"configMapRef": {"name": "o"}}, {"prefix": "p_", "configMapRef": {"name": "o"}}],
    }));
    assert_eq!(values(&t.says(&pod)), ALL_VALUES);
}

fn variables_from_a_secret(t: &Trial) {
    t.secret("o", json!({"data-1": "value-1", "data_2": "value-2"}));
    let pod = sh("").with(json!({
        "command": ["/bin/busybox", "env"],
        "env": [{"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "o", "key": "data-1"}}}],
        "envFrom": [{"secretRef": {"name": "o"}}, {"prefix": "p_", "secretRef": {"name": "o"}}],
    }));
    assert_eq!(values(&t.says(&pod)), ALL_VALUES);
}

fn keys_have_names(t: &Trial) {
    for (kind, data) in [("ConfigMap", "value-1"), ("Secret", "dmFsdWUtMQ==")] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "o"}, "data": {"": data}});
        let said = t.submit("create", &[object]);
        assert!(!said.ok && said.err.contains("data"), "{said:?}");
    }
}

fn services_are_in_the_environment(t: &Trial) {
    t.create(&[json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "fooservice"},
        "spec": {"selector": {"app": "foo"}, "ports": [{"port": 8765, "targetPort": 8080}]},
    })]);
    let address = t.get(&["service", "fooservice"])["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let said = t.says(&sh("busybox env | busybox grep FOOSERVICE | busybox sort"));
    let wanted = [
        format!("FOOSERVICE_PORT=tcp://{address}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP=tcp://{address}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP_ADDR={address}"),
        "FOOSERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
        "FOOSERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
        format!("FOOSERVICE_SERVICE_HOST={address}"),
        "FOOSERVICE_SERVICE_PORT=8765".to_owned(),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
}

/// What is told of a container that has ended.
fn ended(t: &Trial, pod: &str) -> Value {
    let pod = t.until_phase(pod, &["Succeeded", "Failed"]);
    pod["status"]["containerStatuses"][0]["state"]["terminated"].clone()
}

fn last_words_of_a_log(t: &Trial) {
    let policy = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    t.create(&[
        sh("echo -n DONE; exit 1").named("fails").with(policy.clone()).object(),
        sh("echo -n DONE").named("succeeds").with(policy).object(),
    ]);
    assert_eq!(ended(t, "fails")["message"], "DONE");
    assert_eq!(ended(t, "succeeds")["message"], Value::Null);
}

fn last_words_of_a_file(t: &Trial) {
    t.create(&[
        sh("echo -n OK > /dev/termination-log; echo log")
            .named("root")
            .with(json!({"terminationMessagePolicy": "FallbackToLogsOnError"}))
            .object(),
        sh("echo -n DONE > /dev/custom-log")
            .named("user")
            .with(json!({"terminationMessagePath": "/dev/custom-log", "securityContext": {"runAsUser": 1000}}))
            .object(),
    ]);
    assert_eq!(ended(t, "root")["message"], "OK");
    assert_eq!(ended(t, "user")["message"], "DONE");
}

/// Fails once, and runs on then: the log is told by a volume that outlives the container.
fn restarts_by_policy(t: &Trial) {
    let shape = |name: &str, script: &str| {
        sh(script).named(name).volume("/v", json!({"emptyDir": {}})).spec(json!({"restartPolicy": match name {
            "always" => "Always",
            "on-failure" => "OnFailure",
            _ => "Never",
        }}))
    };
    // The first two runs end.
    let thrice = "echo >> /v/runs; busybox test $(busybox wc -l < /v/runs) -lt 3";
    t.create(&[
        shape("always", &format!("{thrice} && exit 0; exec busybox sleep 1000000")).object(),
        shape("on-failure", &format!("{thrice} && exit 1; exit 0")).object(),
        shape("never", "exit 1").object(),
    ]);
    let state = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    let never = state(&t.until_phase("never", &["Failed"]));
    assert_eq!(never["restartCount"], 0);
    assert_eq!(never["state"]["terminated"]["exitCode"], 1);
    let failed = state(&t.until_phase("on-failure", &["Succeeded"]));
    assert_eq!(failed["restartCount"], 2);
    let always = t.until(&["pod", "always"], "to run for the third time", |pod| {
        let state = state(pod);
        state["restartCount"] == 2 && state["ready"] == true
    });
    assert_eq!(always["status"]["phase"], "Running");
    assert!(state(&always)["state"]["running"].is_object(), "{always}");
}

fn a_user_of_its_own(t: &Trial) {
    let pod = sh("busybox id -u").with(json!({"securityContext": {"runAsUser": 65534}}));
    assert_eq!(t.says(&pod), "65534\n");
}

fn no_privileges(t: &Trial) {
    let script = "busybox mount -t tmpfs x /mnt 2>/dev/null && echo mounted || echo refused";
    let context = |privileged: bool| json!({"securityContext": {"privileged": privileged}});
    let pod = |name: &str, privileged| {
        sh(&format!("busybox mkdir /mnt; {script}")).named(name).with(context(privileged))
    };
    assert_eq!(t.says(&pod("plain", false)), "refused\n");
    assert_eq!(t.says(&pod("privileged", true)), "mounted\n");
}

fn the_root_is_read_only(t: &Trial) {
    let script = "echo x > /file && echo written || echo refused";
    let pod = sh(script).with(json!({"securityContext": {"readOnlyRootFilesystem": true}}));
    assert!(t.says(&pod).ends_with("refused\n"));
}

fn the_root_is_writable(t: &Trial) {
    let pod = sh("echo written > /file; busybox cat /file");
    assert_eq!(t.says(&pod.with(json!({"securityContext": {"readOnlyRootFilesystem": false}}))), "written\n");
}

fn no_privileges_are_gained(t: &Trial) {
    let script = "busybox id -u; busybox grep NoNewPrivs /proc/self/status";
    let context = json!({"securityContext": {"allowPrivilegeEscalation": false, "runAsUser": 1000}});
    assert_eq!(t.says(&sh(script).with(context)), "1000\nNoNewPrivs:\t1\n");
}

fn hosts_are_managed(t: &Trial) {
    let aliases = json!([{"ip": "123.45.67.89", "hostnames": ["foo.local", "bar.local"]}]);
    let managed = sleeps().named("managed").spec(json!({"hostAliases": aliases}));
    t.ready(&managed);
    let hosts = t.inside_pod("managed", "busybox cat /etc/hosts").out;
    assert!(hosts.starts_with("# Kubernetes-managed hosts file."), "{hosts}");
    let alias = hosts.lines().find(|l| l.starts_with("123.45.67.89")).unwrap_or_default();
    assert_eq!(alias.split_whitespace().collect::<Vec<_>>(), ["123.45.67.89", "foo.local", "bar.local"]);

    // Whoever mounts something there has that; and a pod of the host's network has the host's.
    t.config_map("own", json!({"hosts": "127.0.0.1 mine\n"}));
    let mount = json!({"mountPath": "/etc/hosts", "subPath": "hosts"});
    let own = sh("busybox cat /etc/hosts").named("own").mount(mount, json!({"configMap": {"name": "own"}}));
    assert_eq!(t.says(&own), "127.0.0.1 mine\n");
    let host = sh("busybox cat /etc/hosts").named("host").spec(json!({"hostNetwork": true}));
    let said = t.says(&host);
    assert!(!said.starts_with("# Kubernetes-managed hosts file.\n"), "{said}");
    assert!(said.contains("localhost"), "{said}");
}

fn both_outputs_are_logged(t: &Trial) {
    let said = t.says(&sh("echo out; echo err >&2"));
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}

fn what_failed_can_go(t: &Trial) {
    t.create(&[sh("exit 3").object()]);
    let state = ended(t, "p");
    assert_eq!((&state["reason"], &state["exitCode"]), (&"Error".into(), &3.into()));
    t.kubectl(&["delete", "pod", "p", "--timeout=30s"]);
    // One that fails again and again goes as well.
    t.create(&[sh("exit 1").named("again").spec(json!({"restartPolicy": "Always"})).object()]);
    t.until(&["pod", "again"], "to have failed", |pod| pod["status"]["containerStatuses"][0]["restartCount"] != 0);
    t.kubectl(&["delete", "pod", "again", "--timeout=30s"]);
}

fn classes_of_service(t: &Trial) {
    let pod = |name: &str, resources: Value| sh("").named(name).with(json!({"resources": resources})).object();
    let same = json!({"cpu": "100m", "memory": "100Mi"});
    t.create(&[
        pod("guaranteed", json!({"requests": same, "limits": same})),
        pod("burstable", json!({"requests": same})),
        pod("best-effort", json!({})),
    ]);
    let class = |name: &str| t.get(&["pod", name])["status"]["qosClass"].clone();
    assert_eq!(class("guaranteed"), "Guaranteed");
    assert_eq!(class("burstable"), "Burstable");
    assert_eq!(class("best-effort"), "BestEffort");
}
