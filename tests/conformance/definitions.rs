//! Kinds that users define: served, discovered, published, converted, and gone again.

use serde_json::{Value, json};

use crate::hooks::Hooks;
use crate::trial::{Trial, count, is};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    come_and_go: "Custom Resource Definition, create";
    are_watched: "Custom Resource Definition, watch";
    are_listed: "Custom Resource Definition, list";
    have_a_status: "Custom Resource Definition, status sub-resource";
    fill_in: "Custom Resource Definition, defaulting";
    are_discovered: "Custom Resource Definition, discovery";
    say_what_fits: "Custom Resource OpenAPI Publish, with validation schema";
    take_anything_at_the_root: "Custom Resource OpenAPI Publish, with x-preserve-unknown-fields at root";
    take_anything_in_an_object: "Custom Resource OpenAPI Publish, with x-preserve-unknown-fields in object";
    take_anything_in_a_nested_object: "Custom Resource OpenAPI Publish, with x-preserve-unknown-fields in embedded object";
    of_several_groups: "Custom Resource OpenAPI Publish, varying groups";
    of_several_versions: "Custom Resource OpenAPI Publish, varying versions";
    of_several_kinds: "Custom Resource OpenAPI Publish, varying kinds";
    of_another_version: "Custom Resource OpenAPI Publish, version rename";
    no_longer_served: "Custom Resource OpenAPI Publish, stop serving version";
    are_converted: "Custom Resource Definition Conversion Webhook, conversion custom resource";
    are_converted_in_lists: "Custom Resource Definition Conversion Webhook, convert mixed version list";
];

/// A version of a kind.
pub struct Version {
    pub name: &'static str,
    pub served: bool,
    pub storage: bool,
    pub schema: Value,
}

fn version(name: &'static str, schema: Value) -> Version {
    Version { name, served: true, storage: false, schema }
}

fn stored(name: &'static str, schema: Value) -> Version {
    Version { storage: true, ..version(name, schema) }
}

/// A definition of a kind whose plural only adds an `s`.
pub fn definition(group: &str, kind: &str, versions: &[Version]) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let versions: Vec<Value> = versions
        .iter()
        .map(|v| {
            json!({"name": v.name, "served": v.served, "storage": v.storage,
                   "schema": {"openAPIV3Schema": v.schema}})
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
                 "versions": versions},
    })
}

/// Makes a definition, and waits until its kind is served.
pub fn establish(t: &Trial, definition: &Value) {
    t.create(std::slice::from_ref(definition));
    t.until(&["crd", &resource(definition)], "to be established", |crd| is(crd, "Established"));
}

/// What a definition's objects are called, with their group.
pub fn resource(definition: &Value) -> String {
    definition["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// Deletes a definition with all that is made of it.
pub fn remove(t: &Trial, definition: &Value) {
    t.kubectl(&["delete", "crd", &resource(definition), "--timeout=60s"]);
}

/// A group that only this check has.
fn group(t: &Trial) -> String {
    format!("{}.example.com", t.ns)
}

fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn raw(t: &Trial, path: &str) -> Value {
    serde_json::from_str(&t.kubectl(&["get", "--raw", path])).expect("JSON")
}

fn come_and_go(t: &Trial) {
    let definition = definition(&group(t), "Thing", &[stored("v1", anything())]);
    establish(t, &definition);
    remove(t, &definition);
    t.until_gone(&["crd", &resource(&definition)]);
}

fn are_watched(t: &Trial) {
    let definition = definition(&group(t), "Thing", &[stored("v1", anything())]);
    establish(t, &definition);
    let things = resource(&definition);
    let template = "jsonpath={.type} {.object.metadata.name}{\"\\n\"}";
    let watch = t.start(&["get", &things, "-w", "--output-watch-events", "-o", template]);
    for name in ["a", "b"] {
        t.create(&[thing(&definition, "v1", name, json!({}))]);
        watch.until(|told| told.contains(&format!("ADDED {name}")));
        t.kubectl(&["label", &things, name, "seen=yes"]);
        watch.until(|told| told.contains(&format!("MODIFIED {name}")));
    }
    for name in ["a", "b"] {
        t.kubectl(&["delete", &things, name]);
        watch.until(|told| told.contains(&format!("DELETED {name}")));
    }
    remove(t, &definition);
}

/// An object of the kind.
fn thing(definition: &Value, version: &str, name: &str, fields: Value) -> Value {
    let group = definition["spec"]["group"].as_str().expect("a group");
    let mut object = json!({"apiVersion": format!("{group}/{version}"), "metadata": {"name": name},
                            "kind": definition["spec"]["names"]["kind"]});
    crate::trial::merge(&mut object, fields);
    object
}

fn are_listed(t: &Trial) {
    let labelled = |i: usize, label: &str| {
        let mut one = definition(&group(t), &format!("Thing{i}"), &[stored("v1", anything())]);
        one["metadata"]["labels"] = json!({"of": label});
        one
    };
    let other = format!("{}-other", t.ns);
    let mut all: Vec<Value> = (0..10).map(|i| labelled(i, &t.ns)).collect();
    all.push(labelled(10, &other));
    t.create(&all);
    let count_of = |label: &str| count(&t.get(&["crd", "-l", &format!("of={label}")]));
    assert_eq!((count_of(&t.ns), count_of(&other)), (10, 1));
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    t.kubectl(&["delete", "--raw", &format!("{path}?labelSelector=of%3D{}", t.ns)]);
    t.wait_for("the labelled definitions to go", || count_of(&t.ns) == 0);
    assert_eq!(count_of(&other), 1);
    t.kubectl(&["delete", "crd", "-l", &format!("of={other}")]);
}

fn have_a_status(t: &Trial) {
    let definition = definition(&group(t), "Thing", &[stored("v1", anything())]);
    establish(t, &definition);
    let name = resource(&definition);
    let of = ["crd", name.as_str(), "--subresource=status"];
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from a check"});
    let has = |kind: &str| is(&t.get(&of), kind);
    assert!(has("Established"));
    t.wait_for("an update of the status", || {
        let mut found = t.get(&of);
        found["status"]["conditions"].as_array_mut().expect("conditions").push(condition("Updated"));
        let mut command = t.kubectl_command(&t.ns, &["replace", "--subresource=status", "-f", "-"]);
        t.told(&mut command, &found.to_string()).ok
    });
    assert!(has("Updated"));
    let mut all = t.get(&of)["status"]["conditions"].clone();
    all.as_array_mut().expect("conditions").push(condition("Patched"));
    let patch = json!({"status": {"conditions": all}}).to_string();
    t.kubectl(&["patch", "crd", &name, "--subresource=status", "--type=merge", "-p", &patch]);
    assert!(has("Patched") && has("Updated"));
    remove(t, &definition);
}

fn fill_in(t: &Trial) {
    let with = |field: &str| {
        let mut properties = json!({"a": {"type": "string"}, "b": {"type": "string"}});
        if !field.is_empty() {
            properties[field]["default"] = field.to_uppercase().into();
        }
        definition(&group(t), "Thing", &[stored("v1", json!({"type": "object", "properties": properties}))])
    };
    let bare = with("");
    establish(t, &bare);
    let things = resource(&bare);
    let change = |to: &Value| {
        let patch = json!({"spec": {"versions": to["spec"]["versions"]}}).to_string();
        t.kubectl(&["patch", "crd", &things, "--type=merge", "-p", &patch]);
    };
    let fields = |object: &Value| (object["a"].clone(), object["b"].clone());
    t.create(&[thing(&bare, "v1", "first", json!({}))]);
    assert_eq!(fields(&t.get(&[&things, "first"])), (Value::Null, Value::Null));
    change(&with("a"));
    // From storage: the object has not been written since.
    t.until(&[&things, "first"], "to have a's default", |o| fields(o) == ("A".into(), Value::Null));
    // From a request: what has been filled in is stored.
    t.create(&[thing(&bare, "v1", "second", json!({}))]);
    change(&with("b"));
    t.until(&[&things, "second"], "to have both", |o| fields(o) == ("A".into(), "B".into()));
    t.until(&[&things, "first"], "to have b's only", |o| fields(o) == (Value::Null, "B".into()));
    remove(t, &bare);
}

fn are_discovered(t: &Trial) {
    let group = "apiextensions.k8s.io";
    let groups = raw(t, "/apis");
    let one = groups["groups"].as_array().into_iter().flatten().find(|g| g["name"] == group);
    let wanted = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
    for found in [one.expect("the group"), &raw(t, &format!("/apis/{group}"))] {
        assert!(found["versions"].as_array().expect("versions").contains(&wanted), "{found}");
    }
    let resources = raw(t, &format!("/apis/{group}/v1"));
    let all = resources["resources"].as_array().expect("resources");
    assert!(all.iter().any(|r| r["name"] == "customresourcedefinitions"), "{resources}");
}

/// What `/openapi/v2` calls a kind.
fn published_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// Waits until both documents say that a kind is there, or that it is not.
fn until_published(t: &Trial, definition: &Value, version: &str, there: bool) {
    let group = definition["spec"]["group"].as_str().expect("a group");
    let kind = definition["spec"]["names"]["kind"].as_str().expect("a kind");
    let name = published_name(group, version, kind);
    t.wait_for(&format!("{name} to be published: {there}"), || {
        let older = raw(t, "/openapi/v2")["definitions"].get(&name).is_some();
        let said = t.attempt(&["get", "--raw", &format!("/openapi/v3/apis/{group}/{version}")]);
        let newer: Value = serde_json::from_str(&said.out).unwrap_or_default();
        older == there && newer["components"]["schemas"].get(&name).is_some() == there
    });
}

fn publish(t: &Trial, definition: &Value) {
    establish(t, definition);
    for version in definition["spec"]["versions"].as_array().expect("versions") {
        until_published(t, definition, version["name"].as_str().expect("a name"), true);
    }
}

/// Waits until kubectl explains a field or a kind with all of these words.
fn explains(t: &Trial, what: &str, words: &[&str]) {
    t.wait_for(&format!("kubectl explain {what} to say {words:?}"), || {
        let said = t.attempt(&["explain", what]);
        words.iter().all(|word| said.out.contains(word))
    });
}

fn schema() -> Value {
    let bar = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "description": "Name of Bar."},
        "age": {"type": "string", "description": "Age of Bar."},
        "bazs": {"type": "array", "items": {"type": "string"}, "description": "List of Bazs."}}});
    json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {
            "bars": {"type": "array", "description": "List of Bars and their specs.", "items": bar}}},
        "status": {"type": "object", "description": "Status of Foo"}}})
}

fn say_what_fits(t: &Trial) {
    let definition = definition(&group(t), "Foo", &[stored("v1", schema())]);
    publish(t, &definition);
    let foos = resource(&definition);
    let one = |bar: Value| thing(&definition, "v1", "o", json!({"spec": {"bars": [bar]}}));
    for verb in ["create", "apply"] {
        let said = t.submit(verb, &[one(json!({"name": "test-bar", "age": "10"}))]);
        assert!(said.ok, "{verb}: {said:?}");
        t.kubectl(&["delete", &foos, "o"]);
        let unknown = t.submit(verb, &[one(json!({"name": "test-bar", "unknown": "x"}))]);
        assert!(!unknown.ok && unknown.err.contains("unknown field \"unknown\""), "{unknown:?}");
        let missing = t.submit(verb, &[one(json!({"age": "10"}))]);
        assert!(!missing.ok && missing.err.contains("missing required field \"name\""), "{missing:?}");
    }
    explains(
        t,
        &foos,
        &["Foo", "Foo CRD for Testing", "apiVersion\t<string>", "spec\t<Object>", "status\t<Object>"],
    );
    explains(t, &format!("{foos}.metadata"), &["Standard object's metadata", "creationTimestamp\t<string>"]);
    explains(
        t,
        &format!("{foos}.spec"),
        &["Specification of Foo", "bars\t<[]Object>", "List of Bars and their specs."],
    );
    explains(
        t,
        &format!("{foos}.spec.bars"),
        &["bazs\t<[]string>", "List of Bazs.", "name\t<string> -required-"],
    );
    let none = t.attempt(&["explain", &format!("{foos}.spec.bars2")]);
    assert!(!none.ok && none.err.contains("field \"bars2\" does not exist"), "{none:?}");
    remove(t, &definition);
}

/// Takes what nobody has described.
fn take_anything(t: &Trial, schema: Value, fields: &Value, words: &[&str]) {
    let definition = definition(&group(t), "Thing", &[stored("v1", schema)]);
    publish(t, &definition);
    let things = resource(&definition);
    for verb in ["create", "apply"] {
        let said = t.submit(verb, &[thing(&definition, "v1", "o", fields.clone())]);
        assert!(said.ok, "{verb}: {said:?}");
        let found = t.get(&[&things, "o"]);
        for (field, value) in fields.as_object().expect("fields") {
            assert_eq!(&found[field], value, "{verb}");
        }
        t.kubectl(&["delete", &things, "o"]);
    }
    explains(t, &things, words);
    remove(t, &definition);
}

fn take_anything_at_the_root(t: &Trial) {
    take_anything(t, anything(), &json!({"a": {"b": ["c"]}, "d": 1}), &["KIND:", "Thing"]);
}

fn take_anything_in_an_object(t: &Trial) {
    let schema = json!({"type": "object", "properties": {"spec": anything(), "status": anything()}});
    take_anything(t, schema, &json!({"spec": {"b": [{"c": "d"}]}}), &["DESCRIPTION:", "<empty>"]);
}

fn take_anything_in_a_nested_object(t: &Trial) {
    let mut embedded = anything();
    embedded["x-kubernetes-embedded-resource"] = true.into();
    let schema = json!({"type": "object", "description": "preserve-unknown-properties in nested field for Testing",
        "properties": {"spec": {"type": "object", "properties": {"template": embedded}}}});
    let inner =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inner"}, "other": {"a": "b"}});
    take_anything(
        t,
        schema,
        &json!({"spec": {"template": inner}}),
        &["preserve-unknown-properties in nested field"],
    );
}

fn of_several_groups(t: &Trial) {
    let both = [("one", "v1"), ("two", "v2")].map(|(first, version)| {
        definition(&format!("{first}-{}", group(t)), "Thing", &[stored(version, schema())])
    });
    both.iter().for_each(|d| publish(t, d));
    both.iter().for_each(|d| remove(t, d));
    until_published(t, &both[0], "v1", false);
}

fn of_several_versions(t: &Trial) {
    let definition = definition(&group(t), "Thing", &[stored("v2", schema()), version("v3", schema())]);
    publish(t, &definition);
    remove(t, &definition);
}

fn of_several_kinds(t: &Trial) {
    let both = ["First", "Second"].map(|kind| definition(&group(t), kind, &[stored("v1", schema())]));
    both.iter().for_each(|d| publish(t, d));
    both.iter().for_each(|d| remove(t, d));
}

fn of_another_version(t: &Trial) {
    let definition = definition(&group(t), "Thing", &[stored("v2", schema()), version("v3", schema())]);
    publish(t, &definition);
    let patch = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
                       {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    t.kubectl(&["patch", "crd", &resource(&definition), "--type=json", "-p", &patch.to_string()]);
    until_published(t, &definition, "v4", true);
    until_published(t, &definition, "v3", false);
    until_published(t, &definition, "v2", true);
    remove(t, &definition);
}

fn no_longer_served(t: &Trial) {
    let definition = definition(&group(t), "Thing", &[stored("v5", schema()), version("v6alpha1", schema())]);
    publish(t, &definition);
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    t.kubectl(&["patch", "crd", &resource(&definition), "--type=json", "-p", &patch.to_string()]);
    until_published(t, &definition, "v6alpha1", false);
    until_published(t, &definition, "v5", true);
    remove(t, &definition);
}

/// A kind whose `hostPort` became `host` and `port`.
fn converted(t: &Trial, hooks: &Hooks) -> Value {
    let text = json!({"type": "string"});
    let older = json!({"type": "object", "properties": {"hostPort": text}});
    let newer = json!({"type": "object", "properties": {"host": text, "port": text}});
    let mut definition = definition(&group(t), "Thing", &[stored("v1", older), version("v2", newer)]);
    let webhook = json!({"clientConfig": hooks.client("/convert"), "conversionReviewVersions": ["v1"]});
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": webhook});
    establish(t, &definition);
    definition
}

fn are_converted(t: &Trial) {
    let hooks = Hooks::start(t);
    let definition = converted(t, &hooks);
    t.create(&[thing(&definition, "v1", "o", json!({"hostPort": "localhost:8080"}))]);
    let found = t.get(&[&format!("things.v2.{}", group(t)), "o"]);
    assert_eq!((&found["host"], &found["port"]), (&"localhost".into(), &"8080".into()), "{found}");
    assert!(found.get("hostPort").is_none(), "{found}");
    remove(t, &definition);
}

fn are_converted_in_lists(t: &Trial) {
    let hooks = Hooks::start(t);
    let definition = converted(t, &hooks);
    t.create(&[thing(&definition, "v1", "first", json!({"hostPort": "localhost:8080"}))]);
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
                       {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    t.kubectl(&["patch", "crd", &resource(&definition), "--type=json", "-p", &patch.to_string()]);
    t.create(&[thing(&definition, "v1", "second", json!({"hostPort": "localhost:8081"}))]);
    let of = |version: &str| t.get(&[&format!("things.{version}.{}", group(t))])["items"].clone();
    let newer = of("v2");
    let ports: Vec<&str> =
        newer.as_array().expect("items").iter().filter_map(|o| o["port"].as_str()).collect();
    assert_eq!(ports, ["8080", "8081"], "{newer}");
    let older = of("v1");
    let both: Vec<&str> =
        older.as_array().expect("items").iter().filter_map(|o| o["hostPort"].as_str()).collect();
    assert_eq!(both, ["localhost:8080", "localhost:8081"], "{older}");
    remove(t, &definition);
}
