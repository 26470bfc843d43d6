//! Webhooks that admit, change and refuse.

use serde_json::{Value, json};

use crate::definitions::{self, Version};
use crate::hooks::{CONFIG_MAPS, Hooks, Rule};
use crate::trial::{Trial, count, sh, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    slow_ones_are_given_up: "Admission webhook, honor timeout";
    many_that_deny: "Admission webhook, list validating webhooks";
    many_that_change: "Admission webhook, list mutating webhooks";
    one_that_denies_is_changed: "Admission webhook, update validating webhook";
    one_that_changes_is_changed: "Admission webhook, update mutating webhook";
    attaching_is_denied: "Admission webhook, deny attach";
    marked_things_are_denied: "Admission webhook, deny create";
    custom_objects_are_denied: "Admission webhook, deny custom resource create and delete";
    definitions_are_denied: "Admission webhook, deny custom resource definition";
    they_are_discovered: "Admission webhook, discovery document";
    one_after_the_other: "Admission webhook, ordered mutation";
    custom_objects_are_changed: "Admission webhook, mutate custom resource";
    whichever_version_is_stored: "Admission webhook, mutate custom resource with different stored version";
    what_the_schema_lacks_goes: "Admission webhook, mutate custom resource with pruning";
    defaults_come_after_them: "Admission webhook, mutation with defaulting";
    out_of_reach_they_deny: "Admission webhook, fail closed";
    they_do_not_rule_themselves: "Admission webhook, admission control not allowed on webhook configuration objects";
];

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// What a webhook is to find.
fn unwanted() -> Value {
    json!({"webhook-e2e-test": "webhook-disallow"})
}

/// Waits until making something is refused, for the reason given.
fn until_denied(t: &Trial, object: &Value, why: &str) {
    t.wait_for(&format!("{why:?}"), || {
        let said = t.submit("create", std::slice::from_ref(object));
        !said.ok && said.err.contains("admission webhook") && said.err.contains(why)
    });
}

/// Waits until something that is made comes out as it must, and makes it anew each time.
fn until_made(t: &Trial, name: &str, data: &Value, holds: impl Fn(&Value) -> bool) {
    t.wait_for("a ConfigMap to come out as it must", || {
        t.attempt(&["delete", "configmap", name, "--ignore-not-found"]);
        t.submit("create", &[map(name, data.clone())]).ok && holds(&t.get(&["configmap", name])["data"])
    });
}

const DENIES: &str = "this webhook denies all requests";
const FOUND: &str = "the thing contains an unwanted mark";

fn slow_ones_are_given_up(t: &Trial) {
    let hooks = Hooks::start(t);
    for (seconds, policy, made) in
        [(1, "Fail", false), (1, "Ignore", true), (10, "Fail", true), (10, "Ignore", true)]
    {
        let extra = json!({"timeoutSeconds": seconds, "failurePolicy": policy});
        let configuration =
            hooks.configuration("Validating", "one", &[hooks.hook("slow", "/slow", CONFIG_MAPS, extra)]);
        t.apply(&[configuration]);
        let name = format!("of-{seconds}-{}", policy.to_lowercase());
        let said = t.submit("create", &[map(&name, json!({"a": "b"}))]);
        assert_eq!(said.ok, made, "{name}: {said:?}");
        let words = ["failed calling webhook", "context deadline exceeded"];
        assert!(made || words.iter().all(|w| said.err.contains(w)), "{name}: {said:?}");
    }
}

/// Ten configurations that do the same, listed and deleted together.
fn many(t: &Trial, kind: &str, path: &str, works: impl Fn(&Trial), no_more: impl Fn(&Trial)) {
    let hooks = Hooks::start(t);
    let one = |i| {
        let hook = hooks.hook(&format!("of-{i}"), path, CONFIG_MAPS, json!({}));
        hooks.configuration(kind, &format!("of-{i}"), &[hook])
    };
    t.create(&(0..10).map(one).collect::<Vec<_>>());
    let resource = format!("{}webhookconfigurations", kind.to_lowercase());
    assert_eq!(count(&t.get(&[&resource, "-l", &hooks.selector()])), 10);
    works(t);
    let all = format!(
        "/apis/admissionregistration.k8s.io/v1/{resource}?labelSelector={}",
        hooks.selector().replace('=', "%3D")
    );
    t.kubectl(&["delete", "--raw", &all]);
    assert_eq!(count(&t.get(&[&resource, "-l", &hooks.selector()])), 0);
    no_more(t);
}

fn many_that_deny(t: &Trial) {
    let bad = map("marked", unwanted());
    many(
        t,
        "Validating",
        "/deny-marked",
        |t| until_denied(t, &bad, FOUND),
        |t| {
            t.wait_for("a map to be made", || t.submit("create", std::slice::from_ref(&bad)).ok);
        },
    );
}

fn many_that_change(t: &Trial) {
    let start = json!({"mutation-start": "yes"});
    let changed = |data: &Value| data["mutation-stage-1"] == "yes";
    many(
        t,
        "Mutating",
        "/stages",
        |t| until_made(t, "m", &start, changed),
        |t| {
            until_made(t, "m", &start, |data| !changed(data));
        },
    );
}

/// Sets which operations a webhook is asked about, by `replace` and by `patch`.
fn operations(t: &Trial, hooks: &Hooks, kind: &str, by: &str, operations: &[&str]) {
    let (resource, name) = (format!("{}webhookconfigurations", kind.to_lowercase()), hooks.name("one"));
    if by == "patch" {
        let step = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": operations}]);
        t.kubectl(&["patch", &resource, &name, "--type=json", "-p", &step.to_string()]);
    } else {
        let mut found = t.get(&[&resource, &name]);
        found["webhooks"][0]["rules"][0]["operations"] = json!(operations);
        let said = t.submit("replace", &[found]);
        assert!(said.ok, "{said:?}");
    }
}

fn one_that_denies_is_changed(t: &Trial) {
    let hooks = Hooks::start(t);
    hooks.register("Validating", hooks.hook("marked", "/deny-marked", CONFIG_MAPS, json!({})));
    let bad = map("marked", unwanted());
    until_denied(t, &bad, FOUND);
    operations(t, &hooks, "Validating", "replace", &["UPDATE"]);
    t.wait_for("a map to be made", || t.submit("create", std::slice::from_ref(&bad)).ok);
    operations(t, &hooks, "Validating", "patch", &["CREATE"]);
    until_denied(t, &map("other", unwanted()), FOUND);
}

fn one_that_changes_is_changed(t: &Trial) {
    let hooks = Hooks::start(t);
    hooks.register("Mutating", hooks.hook("stages", "/stages", CONFIG_MAPS, json!({})));
    let start = json!({"mutation-start": "yes"});
    let changed = |data: &Value| data["mutation-stage-1"] == "yes";
    until_made(t, "m", &start, changed);
    operations(t, &hooks, "Mutating", "replace", &["UPDATE"]);
    until_made(t, "m", &start, |data| !changed(data));
    operations(t, &hooks, "Mutating", "patch", &["CREATE"]);
    until_made(t, "m", &start, changed);
}

fn attaching_is_denied(t: &Trial) {
    let hooks = Hooks::start(t);
    t.ready(&sleeps());
    let rule = Rule { operations: &["CONNECT"], group: "", resource: "pods/attach" };
    hooks.register("Validating", hooks.hook("attach", "/deny", rule, json!({})));
    t.wait_for("attaching to be denied", || {
        let said = t.attempt(&["attach", "p", "-i", "--pod-running-timeout=5s"]);
        !said.ok && said.err.contains(DENIES)
    });
}

fn marked_things_are_denied(t: &Trial) {
    let hooks = Hooks::start(t);
    let pods = Rule { operations: &["CREATE"], group: "", resource: "pods" };
    let slow = json!({"timeoutSeconds": 1,
                      "objectSelector": {"matchLabels": {"webhook-e2e-test": "webhook-hangs"}}});
    t.create(&[
        hooks.configuration(
            "Validating",
            "maps",
            &[hooks.hook("maps", "/deny-marked", CONFIG_MAPS, json!({}))],
        ),
        hooks.configuration(
            "Validating",
            "pods",
            &[hooks.hook("pods", "/deny-marked", pods, json!({})), hooks.hook("hangs", "/slow", pods, slow)],
        ),
    ]);
    until_denied(t, &map("bad", unwanted()), FOUND);
    until_denied(t, &sh("true").meta(json!({"labels": unwanted()})).object(), FOUND);
    let hangs =
        sh("true").named("hangs").meta(json!({"labels": {"webhook-e2e-test": "webhook-hangs"}})).object();
    let said = t.submit("create", &[hangs]);
    assert!(!said.ok && said.err.contains("deadline"), "{said:?}");
    assert!(!t.attempt(&["get", "pod", "hangs"]).ok);

    t.create(&[map("good", json!({"a": "b"}))]);
    let replaced = t.submit("replace", &[map("good", unwanted())]);
    assert!(!replaced.ok && replaced.err.contains(FOUND), "{replaced:?}");
    let patch = json!({"data": unwanted()}).to_string();
    let patched = t.attempt(&["patch", "configmap", "good", "--type=merge", "-p", &patch]);
    assert!(!patched.ok && patched.err.contains(FOUND), "{patched:?}");

    // Another namespace is none of its business.
    let other = format!("{}-other", t.ns);
    t.namespace(&other);
    let made = t.with_manifest(&other, &["create"], &map("bad", unwanted()).to_string());
    assert!(made.ok, "{made:?}");
    t.cluster_kubectl("default", &["delete", "namespace", &other, "--wait=false"]);
}

/// A definition of things with `data`, of the check's own group, and what is made of it.
fn custom(t: &Trial, schema: &Value) -> (Value, impl Fn(&str, Value) -> Value + use<>) {
    let group = format!("{}.example.com", t.ns);
    let version = Version { name: "v1", served: true, storage: true, schema: schema.clone() };
    let definition = definitions::definition(&group, "Thing", &[version]);
    let make = move |name: &str, data: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": {"name": name}, "data": data});
    (definition, make)
}

fn any_data() -> Value {
    json!({"type": "object", "properties": {"data": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
}

fn custom_objects_are_denied(t: &Trial) {
    let hooks = Hooks::start(t);
    let (definition, thing) = custom(t, &any_data());
    definitions::establish(t, &definition);
    let resource = definitions::resource(&definition);
    let group = definition["spec"]["group"].as_str().expect("a group");
    let rule = Rule { operations: &["CREATE", "UPDATE", "DELETE"], group, resource: "things" };
    hooks.register("Validating", hooks.hook("things", "/deny-marked", rule, json!({})));
    until_denied(t, &thing("bad", unwanted()), FOUND);
    t.create(&[thing("good", json!({"a": "b"}))]);
    let mark = json!({"data": unwanted()}).to_string();
    let said = t.attempt(&["patch", &resource, "good", "--type=merge", "-p", &mark]);
    assert!(!said.ok && said.err.contains(FOUND), "{said:?}");

    // One that came by the mark while nobody looked cannot be deleted until it has lost it.
    operations(t, &hooks, "Validating", "patch", &["DELETE"]);
    t.wait_for("the mark", || t.attempt(&["patch", &resource, "good", "--type=merge", "-p", &mark]).ok);
    let said = t.attempt(&["delete", &resource, "good"]);
    assert!(!said.ok && said.err.contains(FOUND), "{said:?}");
    let mend = json!({"data": {"webhook-e2e-test": "webhook-allow"}}).to_string();
    t.kubectl(&["patch", &resource, "good", "--type=merge", "-p", &mend]);
    t.kubectl(&["delete", &resource, "good"]);
    definitions::remove(t, &definition);
}

fn definitions_are_denied(t: &Trial) {
    let hooks = Hooks::start(t);
    let rule = Rule {
        operations: &["CREATE"],
        group: "apiextensions.k8s.io",
        resource: "customresourcedefinitions",
    };
    let only = json!({"namespaceSelector": {}, "objectSelector": {"matchLabels": {"of": t.ns}}});
    hooks.register("Validating", hooks.hook("definitions", "/deny", rule, only));
    let (mut definition, _) = custom(t, &any_data());
    definition["metadata"]["labels"] = json!({"of": t.ns});
    until_denied(t, &definition, DENIES);
    assert!(!t.attempt(&["get", "crd", &definitions::resource(&definition)]).ok);
}

fn they_are_discovered(t: &Trial) {
    let raw =
        |path: &str| -> Value { serde_json::from_str(&t.kubectl(&["get", "--raw", path])).expect("JSON") };
    let group = "admissionregistration.k8s.io";
    let named = |list: &Value, field: &str, name: &str| {
        list.as_array().into_iter().flatten().find(|entry| entry[field] == name).cloned()
    };
    let found = named(&raw("/apis")["groups"], "name", group).expect("the group");
    assert!(named(&found["versions"], "version", "v1").is_some(), "{found}");
    assert!(named(&raw(&format!("/apis/{group}"))["versions"], "version", "v1").is_some());
    let resources = raw(&format!("/apis/{group}/v1"));
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        assert!(named(&resources["resources"], "name", kind).is_some(), "{resources}");
    }
}

fn both_stages(hooks: &Hooks, rule: Rule) -> [Value; 2] {
    [1, 2].map(|i| hooks.hook(&format!("stage-{i}"), "/stages", rule, json!({})))
}

fn one_after_the_other(t: &Trial) {
    let hooks = Hooks::start(t);
    t.create(&[hooks.configuration("Mutating", "one", &both_stages(&hooks, CONFIG_MAPS))]);
    let all = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    until_made(t, "m", &json!({"mutation-start": "yes"}), |data| *data == all);
}

/// Makes a custom object before two webhooks, and gives its data.
fn through_both_stages(t: &Trial, schema: &Value) -> Value {
    let hooks = Hooks::start(t);
    let (definition, thing) = custom(t, schema);
    definitions::establish(t, &definition);
    let group = definition["spec"]["group"].as_str().expect("a group");
    let rule = Rule { operations: &["CREATE", "UPDATE"], group, resource: "things" };
    t.create(&[hooks.configuration("Mutating", "one", &both_stages(&hooks, rule))]);
    let resource = definitions::resource(&definition);
    let mut data = Value::Null;
    t.wait_for("a thing to be changed", || {
        t.attempt(&["delete", &resource, "o", "--ignore-not-found"]);
        t.create(&[thing("o", json!({"mutation-start": "yes"}))]);
        data = t.get(&[&resource, "o"])["data"].clone();
        data["mutation-stage-1"] == "yes"
    });
    definitions::remove(t, &definition);
    data
}

fn custom_objects_are_changed(t: &Trial) {
    let data = through_both_stages(t, &any_data());
    let wanted = json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(data, wanted);
}

fn what_the_schema_lacks_goes(t: &Trial) {
    let text = json!({"type": "string"});
    let known = json!({"mutation-start": text, "mutation-stage-1": text});
    let data = through_both_stages(
        t,
        &json!({"type": "object", "properties": {"data": {"type": "object", "properties": known}}}),
    );
    assert_eq!(data, json!({"mutation-start": "yes", "mutation-stage-1": "yes"}));
}

fn whichever_version_is_stored(t: &Trial) {
    let hooks = Hooks::start(t);
    let group = format!("{}.example.com", t.ns);
    let versions = |stored: &str| {
        let version = |name| Version { name, served: true, storage: name == stored, schema: any_data() };
        [version("v1"), version("v2")]
    };
    let definition = definitions::definition(&group, "Thing", &versions("v1"));
    definitions::establish(t, &definition);
    let rule = Rule { operations: &["CREATE", "UPDATE"], group: &group, resource: "things" };
    hooks.register("Mutating", hooks.hook("stages", "/stages", rule, json!({})));
    t.create(&[json!({"apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": {"name": "o"},
                      "data": {"a": "b"}})]);
    let both = definitions::definition(&group, "Thing", &versions("v2"));
    let patch = json!({"spec": {"versions": both["spec"]["versions"]}}).to_string();
    let resource = definitions::resource(&definition);
    t.kubectl(&["patch", "crd", &resource, "--type=merge", "-p", &patch]);
    t.until(&["crd", &resource], "to store v2", |crd| crd["status"]["storedVersions"] == json!(["v1", "v2"]));
    let change = json!({"data": {"mutation-start": "yes"}}).to_string();
    t.kubectl(&["patch", &resource, "o", "--type=merge", "-p", &change]);
    let found = t.get(&[&format!("things.v1.{group}"), "o"]);
    assert_eq!(found["data"], json!({"a": "b", "mutation-start": "yes", "mutation-stage-1": "yes"}));
    definitions::remove(t, &definition);
}

fn defaults_come_after_them(t: &Trial) {
    let hooks = Hooks::start(t);
    let rule = Rule { operations: &["CREATE"], group: "", resource: "pods" };
    hooks.register("Mutating", hooks.hook("pods", "/init-container", rule, json!({})));
    let mut added = Value::Null;
    t.wait_for("a container to be added", || {
        t.attempt(&["delete", "pod", "p", "--ignore-not-found"]);
        t.create(&[sleeps().object()]);
        added = t.get(&["pod", "p"])["spec"]["initContainers"].clone();
        added.is_array()
    });
    assert_eq!(
        (&added[0]["name"], &added[0]["terminationMessagePolicy"]),
        (&"webhook-added".into(), &"File".into())
    );
}

fn out_of_reach_they_deny(t: &Trial) {
    let hooks = Hooks::start(t);
    let mut hook = hooks.hook("unreachable", "/deny", CONFIG_MAPS, json!({"failurePolicy": "Fail"}));
    hook["clientConfig"].as_object_mut().expect("an object").remove("caBundle");
    hooks.register("Validating", hook);
    t.wait_for("maps to be refused", || {
        let said = t.submit("create", &[map("never", json!({"a": "b"}))]);
        t.attempt(&["delete", "configmap", "never", "--ignore-not-found"]);
        !said.ok && said.err.contains("failed calling webhook \"unreachable.e2e.example\"")
    });
}

fn they_do_not_rule_themselves(t: &Trial) {
    let hooks = Hooks::start(t);
    let all = Rule { operations: &["*"], group: "admissionregistration.k8s.io", resource: "*" };
    let only = json!({"namespaceSelector": {}, "objectSelector": {"matchLabels": {"of": t.ns}}});
    t.create(&[
        hooks.configuration("Validating", "denies", &[hooks.hook("denies", "/deny", all, only.clone())]),
        hooks.configuration("Mutating", "labels", &[hooks.hook("labels", "/label", all, only)]),
    ]);
    for (kind, resource) in
        [("Validating", "validatingwebhookconfigurations"), ("Mutating", "mutatingwebhookconfigurations")]
    {
        let name = format!("dummy-{}", kind.to_lowercase());
        let dummy =
            hooks.configuration(kind, &name, &[hooks.hook("dummy", "/deny-marked", CONFIG_MAPS, json!({}))]);
        t.create(&[dummy]);
        let found = t.get(&[resource, &hooks.name(&name)]);
        assert_eq!(found["metadata"]["labels"], json!({"of": t.ns}), "it must not be changed");
        t.kubectl(&["delete", resource, &hooks.name(&name)]);
    }
}
