//! What a pod can learn about itself.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, sh, sleeps};
use crate::{Check, checks, for_each_source};

pub const CHECKS: &[Check] = checks![
    itself_in_the_environment: "DownwardAPI, environment for name, namespace and ip", "DownwardAPI, environment for host ip",
        "DownwardAPI, environment for Pod UID";
    resources_in_the_environment: "DownwardAPI, environment for CPU and memory limits and requests";
    the_nodes_resources_in_the_environment: "DownwardAPI, environment for default CPU and memory limits and requests";
    itself_in_files: "DownwardAPI volume, pod name", "DownwardAPI volume, volume mode 0400", "DownwardAPI volume, file mode 0400";
    resources_in_files: "DownwardAPI volume, CPU limits", "DownwardAPI volume, CPU request", "DownwardAPI volume, memory limits",
        "DownwardAPI volume, memory request";
    the_nodes_resources_in_files: "DownwardAPI volume, CPU limit, default node allocatable",
        "DownwardAPI volume, memory limit, default node allocatable";
    files_follow: "DownwardAPI volume, update label", "DownwardAPI volume, update annotations";
    itself_in_projected_files: "Projected Volume, DownwardAPI, pod name", "Projected Volume, DownwardAPI, volume mode 0400";
    resources_in_projected_files: "Projected Volume, DownwardAPI, CPU limits", "Projected Volume, DownwardAPI, CPU request",
        "Projected Volume, DownwardAPI, memory limits", "Projected Volume, DownwardAPI, memory request";
    the_nodes_resources_in_projected_files: "Projected Volume, DownwardAPI, CPU limit, node allocatable",
        "Projected Volume, DownwardAPI, memory limit, node allocatable";
    projected_files_follow: "Projected Volume, DownwardAPI, update labels", "Projected Volume, DownwardAPI, update annotation";
];

/// Items as a volume of files.
type Source = fn(Value, Option<u32>) -> Value;

fn plain(items: Value, mode: Option<u32>) -> Value {
    json!({"downwardAPI": {"items": items, "defaultMode": mode}})
}

fn projected(items: Value, mode: Option<u32>) -> Value {
    json!({"projected": {"sources": [{"downwardAPI": {"items": items}}], "defaultMode": mode}})
}

fn field(path: &str) -> Value {
    json!({"fieldRef": {"fieldPath": path}})
}

fn resource(name: &str) -> Value {
    json!({"resourceFieldRef": {"containerName": "c", "resource": name}})
}

/// All resources' names and what they are called here.
const RESOURCES: [(&str, &str); 4] = [
    ("cpu_limit", "limits.cpu"),
    ("cpu_request", "requests.cpu"),
    ("memory_limit", "limits.memory"),
    ("memory_request", "requests.memory"),
];

fn sized(pod: PodShape) -> PodShape {
    pod.with(json!({"resources": {
        "limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"},
    }}))
}

const SIZES: &str = "cpu_limit=2 cpu_request=1 memory_limit=67108864 memory_request=33554432";

/// What limits are said to be when there are none: all that the node can give.
fn of_the_node(t: &Trial) -> String {
    let node = &t.get(&["node", "node-1"])["status"]["allocatable"];
    let cpu: f64 = match node["cpu"].as_str().expect("a quantity") {
        text if text.ends_with('m') => {
            text.trim_end_matches('m').parse::<f64>().expect("millicores") / 1000.0
        }
        text => text.parse().expect("cores"),
    };
    let memory = node["memory"].as_str().expect("a quantity");
    let memory: u64 = memory.trim_end_matches("Ki").parse::<u64>().expect("kibibytes") * 1024;
    format!("cpu_limit={} memory_limit={memory}", cpu.ceil())
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn itself_in_the_environment(t: &Trial) {
    let paths = [
        ("MY_NAME", "metadata.name"),
        ("MY_NAMESPACE", "metadata.namespace"),
        ("MY_IP", "status.podIP"),
        ("MY_HOST", "status.hostIP"),
        ("MY_UID", "metadata.uid"),
        ("MY_NODE", "spec.nodeName"),
    ];
    let env: Vec<Value> =
        paths.iter().map(|(name, path)| json!({"name": name, "valueFrom": field(path)})).collect();
    let said = t.says(&sh("busybox env | busybox grep MY_ | busybox sort").with(json!({"env": env})));
    let pod = t.get(&["pod", "p"]);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut wanted: Vec<String> = [
        ("MY_NAME", text(&pod["metadata"]["name"])),
        ("MY_NAMESPACE", text(&pod["metadata"]["namespace"])),
        ("MY_IP", text(&pod["status"]["podIP"])),
        ("MY_HOST", text(&pod["status"]["hostIP"])),
        ("MY_UID", text(&pod["metadata"]["uid"])),
        ("MY_NODE", "node-1".to_owned()),
    ]
    .iter()
    .map(|(name, value)| format!("{name}={value}"))
    .collect();
    wanted.sort();
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
}

fn told_by_environment(only: &str) -> PodShape {
    let all = RESOURCES.iter().filter(|(name, _)| name.contains(only));
    let env: Vec<Value> =
        all.map(|(name, what)| json!({"name": name, "valueFrom": resource(what)})).collect();
    sh("busybox env | busybox grep -e ^cpu_ -e ^memory_ | busybox sort").with(json!({"env": env}))
}

fn resources_in_the_environment(t: &Trial) {
    assert_eq!(words(&t.says(&sized(told_by_environment("")))), SIZES);
}

fn the_nodes_resources_in_the_environment(t: &Trial) {
    assert_eq!(words(&t.says(&told_by_environment("limit"))), of_the_node(t));
}

fn itself(t: &Trial, source: Source) {
    let mut strict = field("metadata.name");
    crate::trial::merge(&mut strict, json!({"path": "strict", "mode": 0o400}));
    let mut name = field("metadata.name");
    name["path"] = "name".into();
    let script = "for f in a/name b/name b/strict; do busybox cat /$f; busybox stat -L -c ' %a' /$f; done";
    let pod = sh(script).volume("/a", source(json!([name]), Some(0o400)));
    assert_eq!(t.says(&pod.volume("/b", source(json!([name, strict]), None))), "p 400\np 644\np 400\n");
}

fn told_by_files(source: Source, only: &str) -> PodShape {
    let all = RESOURCES.iter().filter(|(name, _)| name.contains(only));
    let items: Vec<Value> = all
        .map(|(name, what)| {
            let mut item = resource(what);
            item["path"] = (*name).into();
            item
        })
        .collect();
    sh("cd /v; for f in *; do echo $f=$(busybox cat $f); done").volume("/v", source(items.into(), None))
}

fn resources(t: &Trial, source: Source) {
    assert_eq!(words(&t.says(&sized(told_by_files(source, "")))), SIZES);
}

fn the_nodes(t: &Trial, source: Source) {
    assert_eq!(words(&t.says(&told_by_files(source, "limit"))), of_the_node(t));
}

fn follow(t: &Trial, source: Source) {
    let items = json!([
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
    ]);
    let meta = json!({"labels": {"key1": "value1"}, "annotations": {"builder": "bar"}});
    t.ready(&sleeps().meta(meta).volume("/v", source(items, None)));
    let cat = |file: &str, wanted: &str| {
        t.until_inside("p", &format!("busybox cat /v/{file}"), |said| {
            said.lines().any(|line| line == wanted)
        });
    };
    cat("labels", "key1=\"value1\"");
    cat("annotations", "builder=\"bar\"");
    t.kubectl(&["label", "pod", "p", "key3=value3"]);
    cat("labels", "key3=\"value3\"");
    t.kubectl(&["annotate", "--overwrite", "pod", "p", "builder=foo"]);
    cat("annotations", "builder=\"foo\"");
}

for_each_source! {
    itself_in_files = itself(plain);
    itself_in_projected_files = itself(projected);
    resources_in_files = resources(plain);
    resources_in_projected_files = resources(projected);
    the_nodes_resources_in_files = the_nodes(plain);
    the_nodes_resources_in_projected_files = the_nodes(projected);
    files_follow = follow(plain);
    projected_files_follow = follow(projected);
}
