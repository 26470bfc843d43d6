//! Secrets, ConfigMaps and projections of them as volumes; empty directories; parts of volumes.

use serde_json::{Value, json};

use crate::trial::{PodShape, Trial, merge, sh, sleeps};
use crate::{Check, checks, for_each_source};

pub const CHECKS: &[Check] = checks![
    files_of_a_secret: "Secrets Volume, default";
    modes_of_a_secret: "Secrets Volume, volume mode 0400";
    a_secret_for_a_group: "Secrets Volume, volume mode 0440, fsGroup 1001 and uid 1000";
    mapped_secrets: "Secrets Volume, mapping", "Secrets Volume, mapping, volume mode 0400";
    a_secret_twice: "Secrets Volume, mapping multiple volume paths";
    secrets_follow: "Secrets Volume, create, update and delete";
    secrets_of_two_namespaces: "Secrets Volume, volume mode default, secret with same name in different namespace";
    files_of_a_config_map: "ConfigMap Volume, without mapping";
    modes_of_a_config_map: "ConfigMap Volume, without mapping, volume mode set";
    a_config_map_for_a_user: "ConfigMap Volume, without mapping, non-root user";
    mapped_config_maps: "ConfigMap Volume, with mapping", "ConfigMap Volume, with mapping, volume mode set";
    a_mapped_config_map_for_a_user: "ConfigMap Volume, with mapping, non-root user";
    a_config_map_twice: "ConfigMap Volume, multiple volume maps";
    config_maps_follow: "ConfigMap Volume, create, update and delete", "ConfigMap Volume, update";
    bytes_of_a_config_map: "ConfigMap Volume, text data, binary data";
    files_of_a_projected_secret: "Projected Volume, Secrets, volume mode default";
    modes_of_a_projected_secret: "Projected Volume, Secrets, volume mode 0400";
    a_projected_secret_for_a_group: "Project Volume, Secrets, non-root, custom fsGroup";
    mapped_projected_secrets: "Projected Volume, Secrets, mapped", "Projected Volume, Secrets, mapped, volume mode 0400";
    a_projected_secret_twice: "Projected Volume, Secrets, mapped, multiple paths";
    projected_secrets_follow: "Projected Volume, Secrets, create, update delete";
    files_of_a_projected_config_map: "Projected Volume, ConfigMap, volume mode default";
    modes_of_a_projected_config_map: "Projected Volume, ConfigMap, volume mode 0400";
    a_projected_config_map_for_a_user: "Projected Volume, ConfigMap, non-root user";
    mapped_projected_config_maps: "Projected Volume, ConfigMap, mapped", "Projected Volume, ConfigMap, mapped, volume mode 0400";
    a_mapped_projected_config_map_for_a_user: "Projected Volume, ConfigMap, mapped, non-root user";
    a_projected_config_map_twice: "Projected Volume, ConfigMap, multiple volume paths";
    projected_config_maps_follow: "Projected Volume, ConfigMap, create, update and delete", "Projected Volume, ConfigMap, update";
    several_sources_in_one: "Projected Volume, multiple projections";
    modes_of_files_on_disk: "EmptyDir, medium default, volume mode 0644", "EmptyDir, medium default, volume mode 0666",
        "EmptyDir, medium default, volume mode 0777";
    modes_of_files_in_memory: "EmptyDir, medium memory, volume mode 0644", "EmptyDir, medium memory, volume mode 0666",
        "EmptyDir, medium memory, volume mode 0777";
    modes_of_files_in_memory_for_a_user: "EmptyDir, medium memory, volume mode 0644, non-root user",
        "EmptyDir, medium memory, volume mode 0666,, non-root user",
        "EmptyDir, medium memory, volume mode 0777, non-root user";
    an_empty_directory_is_everyones: "EmptyDir, medium default, volume mode default", "EmptyDir, medium memory, volume mode default";
    containers_share_a_directory: "EmptyDir, Shared volumes between containers";
    volumes_lie_side_by_side: "EmptyDir Wrapper Volume, Secret and ConfigMap volumes, no conflict";
    many_config_maps_in_many_pods: "EmptyDir Wrapper Volume, ConfigMap volumes, no race";
    parts_of_a_config_map: "SubPath: Reading content from a configmap volume.";
    a_part_of_a_secret: "SubPath: Reading content from a secret volume.";
    a_part_of_a_projection: "SubPath: Reading content from a projected volume.";
    a_part_of_the_downward_api: "SubPath: Reading content from a downwardAPI volume.";
    a_part_named_by_the_environment: "VolumeSubpathEnvExpansion, subpath expansion";
    a_part_must_not_begin_at_the_root: "VolumeSubpathEnvExpansion, subpath with absolute path";
    a_part_is_not_run: "VolumeSubpathEnvExpansion, subpath with backticks";
    parts_are_written_to: "VolumeSubpathEnvExpansion, subpath test writes";
    a_part_is_mended: "VolumeSubpathEnvExpansion, subpath ready from failed state";
];

/// A way to have an object's data as files: fields of the source (`items`, `defaultMode`, `optional`) to a volume.
type Source = fn(&str, Value) -> Value;

fn secret(name: &str, fields: Value) -> Value {
    let mut inner = json!({"secretName": name});
    merge(&mut inner, fields);
    json!({"secret": inner})
}

fn config_map(name: &str, fields: Value) -> Value {
    let mut inner = json!({"name": name});
    merge(&mut inner, fields);
    json!({"configMap": inner})
}

fn projected(kind: &str, name: &str, mut fields: Value) -> Value {
    let mode = fields.as_object_mut().and_then(|all| all.remove("defaultMode"));
    let mut inner = json!({"name": name});
    merge(&mut inner, fields);
    let mut volume = json!({"sources": [{kind: inner}]});
    if let Some(mode) = mode {
        volume["defaultMode"] = mode;
    }
    json!({"projected": volume})
}

fn projected_secret(name: &str, fields: Value) -> Value {
    projected("secret", name, fields)
}

fn projected_config_map(name: &str, fields: Value) -> Value {
    projected("configMap", name, fields)
}

/// Makes the object such a source is about.
fn make(t: &Trial, source: Source, name: &str, data: Value) {
    if source("", json!({})).to_string().contains("ecret") {
        t.secret(name, data);
    } else {
        t.config_map(name, data);
    }
}

/// What a file says, and its mode.
const LOOK: &str = "cat() { busybox cat $1; busybox stat -L -c ' %a %u:%g' $1; }; cat";

fn look(path: &str) -> PodShape {
    sh(&format!("{LOOK} {path}"))
}

fn as_user() -> Value {
    json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 1000}})
}

fn files(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1"}));
    assert_eq!(t.says(&look("/v/data-1").volume("/v", source("o", json!({})))), "value-1 644 0:0\n");
}

fn modes(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1"}));
    let pod = look("/v/data-1").volume("/v", source("o", json!({"defaultMode": 0o400})));
    assert_eq!(t.says(&pod), "value-1 400 0:0\n");
}

fn for_a_group(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1"}));
    let pod = look("/v/data-1").volume("/v", source("o", json!({"defaultMode": 0o440})));
    let pod = pod.spec(json!({"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}));
    assert_eq!(t.says(&pod), "value-1 440 0:1001\n");
}

fn for_a_user(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1"}));
    let pod = look("/v/data-1").volume("/v", source("o", json!({}))).spec(as_user());
    assert_eq!(t.says(&pod), "value-1 644 0:0\n");
}

fn mapped(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1", "data-2": "value-2"}));
    let items = json!([{"key": "data-2", "path": "path/to/data"}, {"key": "data-1", "path": "strict", "mode": 0o400}]);
    let script = format!("{LOOK} /v/path/to/data; cat /v/strict; busybox ls /v");
    let pod = sh(&script).volume("/v", source("o", json!({"items": items})));
    assert_eq!(t.says(&pod), "value-2 644 0:0\nvalue-1 400 0:0\npath\nstrict\n");
}

fn mapped_for_a_user(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1"}));
    let items = json!([{"key": "data-1", "path": "path/to/data"}]);
    let pod = look("/v/path/to/data").volume("/v", source("o", json!({"items": items}))).spec(as_user());
    assert_eq!(t.says(&pod), "value-1 644 0:0\n");
}

fn twice(t: &Trial, source: Source) {
    make(t, source, "o", json!({"data-1": "value-1"}));
    let script = format!("{LOOK} /a/data-1; cat /b/data-1");
    let pod = sh(&script).volume("/a", source("o", json!({}))).volume("/b", source("o", json!({})));
    assert_eq!(t.says(&pod), "value-1 644 0:0\nvalue-1 644 0:0\n");
}

/// What is made, changed and deleted while the pod runs.
fn follow(t: &Trial, source: Source) {
    make(t, source, "changed", json!({"data-1": "value-1"}));
    make(t, source, "deleted", json!({"data-1": "value-1"}));
    let optional = || json!({"optional": true});
    let mut pod = sleeps();
    for name in ["made", "changed", "deleted"] {
        pod = pod.volume(&format!("/{name}"), source(name, optional()));
    }
    t.ready(&pod);
    let all = "cd /; busybox cat made/data-1 || echo none; echo; busybox cat changed/data-1; echo; \
               busybox cat deleted/data-1 || echo none";
    let says = |wanted: &'static str| {
        t.until_inside("p", all, |said| said.split_whitespace().collect::<Vec<_>>().join(" ") == wanted);
    };
    says("none value-1 value-1");
    make(t, source, "made", json!({"data-1": "value-3"}));
    says("value-3 value-1 value-1");
    let kind = if source("", json!({})).to_string().contains("ecret") { "secret" } else { "configmap" };
    // "value-2", as a Secret keeps it and as a ConfigMap does.
    let data = if kind == "secret" { "dmFsdWUtMg==" } else { "value-2" };
    t.kubectl(&["patch", kind, "changed", "-p", &json!({"data": {"data-1": data}}).to_string()]);
    t.kubectl(&["delete", kind, "deleted"]);
    says("value-3 value-2 none");
}

for_each_source! {
    files_of_a_secret = files(secret);
    files_of_a_config_map = files(config_map);
    files_of_a_projected_secret = files(projected_secret);
    files_of_a_projected_config_map = files(projected_config_map);
    modes_of_a_secret = modes(secret);
    modes_of_a_config_map = modes(config_map);
    modes_of_a_projected_secret = modes(projected_secret);
    modes_of_a_projected_config_map = modes(projected_config_map);
    a_secret_for_a_group = for_a_group(secret);
    a_projected_secret_for_a_group = for_a_group(projected_secret);
    a_config_map_for_a_user = for_a_user(config_map);
    a_projected_config_map_for_a_user = for_a_user(projected_config_map);
    mapped_secrets = mapped(secret);
    mapped_config_maps = mapped(config_map);
    mapped_projected_secrets = mapped(projected_secret);
    mapped_projected_config_maps = mapped(projected_config_map);
    a_mapped_config_map_for_a_user = mapped_for_a_user(config_map);
    a_mapped_projected_config_map_for_a_user = mapped_for_a_user(projected_config_map);
    a_secret_twice = twice(secret);
    a_config_map_twice = twice(config_map);
    a_projected_secret_twice = twice(projected_secret);
    a_projected_config_map_twice = twice(projected_config_map);
    secrets_follow = follow(secret);
    config_maps_follow = follow(config_map);
    projected_secrets_follow = follow(projected_secret);
    projected_config_maps_follow = follow(projected_config_map);
}

fn secrets_of_two_namespaces(t: &Trial) {
    let other = format!("{}-other", t.ns);
    t.namespace(&other);
    t.secret("o", json!({"data-1": "mine"}));
    t.cluster_kubectl(&other, &["create", "secret", "generic", "o", "--from-literal=data-1=theirs"]);
    assert_eq!(t.says(&look("/v/data-1").volume("/v", secret("o", json!({})))), "mine 644 0:0\n");
}

fn bytes_of_a_config_map(t: &Trial) {
    t.create(&[json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o"},
        "data": {"text": "value"}, "binaryData": {"dump.bin": "3q2+7w=="},
    })]);
    let script = "busybox cat /v/text; echo; busybox hexdump -v -e '1/1 \"%02x\"' /v/dump.bin";
    assert_eq!(t.says(&sh(script).volume("/v", config_map("o", json!({})))), "value\ndeadbeef");
}

fn several_sources_in_one(t: &Trial) {
    t.secret("s", json!({"secret": "hidden"}));
    t.config_map("c", json!({"config": "open"}));
    let resource = |path: &str, resource: &str| json!({"path": path, "resourceFieldRef": {"containerName": "c", "resource": resource}});
    let items = json!([
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        resource("cpu-limit", "limits.cpu"), resource("cpu-request", "requests.cpu"),
        resource("memory-limit", "limits.memory"), resource("memory-request", "requests.memory"),
    ]);
    let sources =
        json!([{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}, {"downwardAPI": {"items": items}}]);
    let script = "cd /v; for f in *; do echo $f=$(busybox cat $f); done";
    let pod = sh(script).volume("/v", json!({"projected": {"sources": sources}})).with(json!({
        "resources": {"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}},
    }));
    let wanted = "config=open cpu-limit=2 cpu-request=1 memory-limit=67108864 memory-request=33554432 name=p secret=hidden";
    assert_eq!(t.says(&pod).split_whitespace().collect::<Vec<_>>().join(" "), wanted);
}

fn empty(medium: &str) -> Value {
    json!({"emptyDir": {"medium": medium}})
}

/// Files of all modes, written by the container's own user, and the file system they are in.
fn written(t: &Trial, name: &str, medium: &str, spec: Value) {
    let script = "for m in 644 666 777; do echo content > /v/$m; busybox chmod $m /v/$m; \
                  busybox cat /v/$m; busybox stat -c '%a %u' /v/$m; done; busybox grep ' /v ' /proc/mounts | busybox wc -l";
    let user = spec["securityContext"]["runAsUser"].as_i64().unwrap_or(0);
    let wanted: String =
        ["644", "666", "777"].iter().map(|mode| format!("content\n{mode} {user}\n")).collect();
    let said = t.says(&sh(script).named(name).spec(spec).volume("/v", empty(medium)));
    assert_eq!(said, format!("{wanted}1\n"));
}

fn modes_of_files_on_disk(t: &Trial) {
    written(t, "root", "", json!({}));
    written(t, "user", "", as_user());
}

fn modes_of_files_in_memory(t: &Trial) {
    written(t, "root", "Memory", json!({}));
}

fn modes_of_files_in_memory_for_a_user(t: &Trial) {
    written(t, "user", "Memory", as_user());
}

fn an_empty_directory_is_everyones(t: &Trial) {
    let script = "busybox stat -c %a /v; busybox stat -c %a /m; \
                  busybox awk '$2 == \"/m\" { print $3 }' /proc/mounts";
    let said = t.says(&sh(script).volume("/v", empty("")).volume("/m", empty("Memory")));
    assert_eq!(said, "777\n777\ntmpfs\n");
}

fn containers_share_a_directory(t: &Trial) {
    let pod = sh("until busybox test -s /v/file; do busybox usleep 10000; done; busybox cat /v/file");
    let mut pod = pod.volume("/v", empty("")).object();
    let mut other = pod["spec"]["containers"][0].clone();
    other["name"] = "other".into();
    other["command"][3] = "echo from the other > /v/.new; busybox mv /v/.new /v/file".into();
    pod["spec"]["containers"].as_array_mut().expect("a list").push(other);
    t.create(&[pod]);
    t.until_phase("p", &["Succeeded"]);
    assert_eq!(t.kubectl(&["logs", "p", "-c", "c"]), "from the other\n");
}

fn volumes_lie_side_by_side(t: &Trial) {
    t.secret("s", json!({"data-1": "secret"}));
    t.config_map("c", json!({"data-1": "config"}));
    let script = "busybox cat /v/a/data-1 /v/b/data-1; echo > /v/file && echo . ";
    let pod = sh(script).volume("/v", empty("")).volume("/v/a", secret("s", json!({})));
    assert_eq!(t.says(&pod.volume("/v/b", config_map("c", json!({})))), "secretconfig.\n");
}

fn many_config_maps_in_many_pods(t: &Trial) {
    let names: Vec<String> = (0..50).map(|n| format!("racey-{n}")).collect();
    let maps: Vec<Value> = names
        .iter()
        .map(|n| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}, "data": {"data-1": n}}))
        .collect();
    t.create(&maps);
    let mut pod = sh("busybox cat /v/*/data-1 | busybox wc -c; exec busybox sleep 1000000");
    for name in &names {
        pod = pod.volume(&format!("/v/{name}"), config_map(name, json!({})));
    }
    let template = pod.template("racey");
    t.create(&[json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "racey"},
        "spec": {"replicas": 5, "selector": {"app": "racey"}, "template": template},
    })]);
    t.until_ready("app=racey", 5);
    let said = t.kubectl(&["logs", "-l", "app=racey"]);
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["390"; 5], "every file is there");
    t.kubectl(&["delete", "rc", "racey"]);
}

fn parts_of_a_config_map(t: &Trial) {
    t.config_map("o", json!({"data-1": "value-1"}));
    let pod = sh("busybox cat /f; echo; busybox cat /etc/motd")
        .mount(json!({"mountPath": "/f", "subPath": "data-1"}), config_map("o", json!({})))
        // Upon a file that the image has.
        .mount(json!({"mountPath": "/etc/motd", "subPath": "data-1"}), config_map("o", json!({})));
    assert_eq!(t.says(&pod), "value-1\nvalue-1");
}

fn a_part_of_a_secret(t: &Trial) {
    t.secret("o", json!({"data-1": "value-1"}));
    let mount = json!({"mountPath": "/f", "subPath": "data-1"});
    assert_eq!(t.says(&sh("busybox cat /f").mount(mount, secret("o", json!({})))), "value-1");
}

fn a_part_of_a_projection(t: &Trial) {
    t.config_map("o", json!({"data-1": "value-1"}));
    let items = json!({"items": [{"key": "data-1", "path": "deep/down"}]});
    let mount = json!({"mountPath": "/f", "subPath": "deep"});
    assert_eq!(t.says(&sh("busybox cat /f/down").mount(mount, projected_config_map("o", items))), "value-1");
}

fn a_part_of_the_downward_api(t: &Trial) {
    let items = json!([{"path": "deep/name", "fieldRef": {"fieldPath": "metadata.name"}}]);
    let mount = json!({"mountPath": "/f", "subPath": "deep/name"});
    let source = json!({"downwardAPI": {"items": items}});
    assert_eq!(t.says(&sh("busybox cat /f").mount(mount, source)), "p");
}

fn own_name() -> Value {
    json!({"env": [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ANNOTATION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mypath']"}}},
    ]})
}

fn a_part_named_by_the_environment(t: &Trial) {
    let script = "echo x > /part/file; busybox find /whole -type f";
    let pod = sh(script).with(own_name()).volume("/whole", empty("")).object();
    let mut pod = pod;
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().expect("a list");
    mounts.push(json!({"name": "v0", "mountPath": "/part", "subPathExpr": "$(POD_NAME)"}));
    t.create(&[pod]);
    t.until_phase("p", &["Succeeded"]);
    assert_eq!(t.kubectl(&["logs", "p"]), "/whole/p/file\n");
}

/// A part that is not to be had: the container waits, and says why.
fn refused(t: &Trial, annotation: &str) {
    let pod = sh("echo").with(own_name()).meta(json!({"annotations": {"mypath": annotation}}));
    let mount = json!({"mountPath": "/part", "subPathExpr": "$(ANNOTATION)"});
    t.create(&[pod.mount(mount, empty("")).object()]);
    t.until(&["pod", "p"], "to wait with a reason", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError"
    });
    t.kubectl(&["delete", "pod", "p"]);
}

fn a_part_must_not_begin_at_the_root(t: &Trial) {
    refused(t, "/tmp");
}

fn a_part_is_not_run(t: &Trial) {
    refused(t, "..");
    let pod = sh("echo").with(own_name()).meta(json!({"annotations": {"mypath": "`hostname`"}}));
    let mount = json!({"mountPath": "/part", "subPathExpr": "`echo $(POD_NAME)`"});
    let mut pod = pod.volume("/whole", empty("")).mount(mount, empty("")).object();
    pod["spec"]["containers"][0]["volumeMounts"][1]["name"] = "v0".into();
    pod["spec"]["containers"][0]["command"][3] = "busybox ls /whole".into();
    t.create(&[pod]);
    t.until_phase("p", &["Succeeded"]);
    assert_eq!(t.kubectl(&["logs", "p"]), "`echo p`\n", "a name like any other");
}

fn parts_are_written_to(t: &Trial) {
    let pod = sleeps().with(own_name()).meta(json!({"annotations": {"mypath": "mypath"}}));
    let mut pod = pod.volume("/whole", empty("")).object();
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().expect("a list");
    mounts.push(json!({"name": "v0", "mountPath": "/part", "subPathExpr": "$(ANNOTATION)/$(POD_NAME)"}));
    t.create(&[pod]);
    t.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    assert!(t.inside_pod("p", "echo x > /whole/mypath/p/file && busybox test -f /part/file").ok);
    // What the path was made of may go: the pod ends all the same.
    t.kubectl(&["annotate", "pod", "p", "mypath-"]);
    t.kubectl(&["delete", "pod", "p", "--timeout=60s"]);
}

fn a_part_is_mended(t: &Trial) {
    let pod = sleeps().with(own_name()).meta(json!({"annotations": {"other": "x"}}));
    let mount = json!({"mountPath": "/part", "subPathExpr": "$(ANNOTATION)/$(POD_NAME)"});
    t.create(&[pod.mount(mount, empty("")).object()]);
    t.until(&["pod", "p"], "to wait with a reason", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError"
    });
    t.kubectl(&["annotate", "pod", "p", "mypath=mypath"]);
    t.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=90s"]);
}
