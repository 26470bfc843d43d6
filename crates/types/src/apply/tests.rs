use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn definitions() -> Definitions {
    let map_list = |of: &str, keys: Value| {
        json!({"type": "array", "items": {"$ref": of}, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": keys})
    };
    Definitions::from_openapi(&json!({
        "Web": {"type": "object", "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"$ref": "Meta"}, "spec": {"$ref": "Spec"}, "status": {"$ref": "Status"}}},
        "Meta": {"type": "object", "properties": {
            "name": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}}},
        "Spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "format": "int32"},
            "command": {"type": "array", "items": {"type": "string"}},
            "selector": {"$ref": "Selector"},
            "strategy": {"$ref": "Strategy"},
            "containers": map_list("Container", json!(["name"])),
            "ports": map_list("Port", json!(["port", "protocol"])),
            "extra": {"type": "object"}}},
        "Selector": {"type": "object", "x-kubernetes-map-type": "atomic",
            "properties": {"app": {"type": "string"}, "tier": {"type": "string"}}},
        "Strategy": {"type": "object", "properties": {"kind": {"type": "string"}, "max": {"type": "integer"}}},
        "Container": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"},
            "ports": map_list("Port", json!(["port", "protocol"]))}},
        "Port": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string"},
            "name": {"type": "string"}}},
        "Status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    }))
}

/// One object and its managers, as an API server would keep them.
struct Object {
    definitions: Definitions,
    live: Value,
    managers: Managers,
    clock: u32,
}

impl Object {
    fn new() -> Self {
        Self { definitions: definitions(), live: json!({}), managers: Managers::default(), clock: 0 }
    }

    fn by(&mut self, name: &str, operation: Operation) -> Manager {
        self.clock += 1;
        Manager {
            name: name.into(),
            operation,
            api_version: "v1".into(),
            subresource: String::new(),
            time: format!("2026-01-01T00:00:{:02}Z", self.clock % 60),
            fields: FieldSet::default(),
        }
    }

    fn update(&mut self, name: &str, new: Value) {
        let by = self.by(name, Operation::Update);
        let root = &self.definitions.get(self.definitions.find("Web").unwrap()).field;
        let shapes = Shapes { definitions: &self.definitions, root };
        self.managers.update(shapes, &self.live, &new, by, &FieldSet::top(["status"]));
        self.live = new;
    }

    fn apply(&mut self, name: &str, config: Value, force: bool) -> Result<(), ApplyError> {
        let by = self.by(name, Operation::Apply);
        let root = &self.definitions.get(self.definitions.find("Web").unwrap()).field;
        let shapes = Shapes { definitions: &self.definitions, root };
        let managers = self.managers.clone();
        let applied = managers.apply(shapes, &self.live, &config, by, &FieldSet::top(["status"]), force)?;
        (self.live, self.managers) = (applied.object, applied.managers);
        Ok(())
    }

    fn owned_by(&self, name: &str) -> Value {
        let found = self.managers.0.iter().find(|m| m.name == name);
        found.map_or(Value::Null, |m| m.fields.clone().into_value())
    }
}

fn message(error: &ApplyError) -> String {
    error.status("default/web; v1, Kind=Web").message
}

#[test]
fn an_applier_owns_what_its_configuration_names() {
    let mut object = Object::new();
    let config = json!({"kind": "Web", "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {
        "replicas": 1, "selector": {"app": "x"}, "command": ["a"], "strategy": {"max": 1},
        "containers": [{"name": "c", "image": "i", "ports": [{"port": 80}]}], "extra": {"x": {"y": 1}}},
        "status": {"ready": true}});
    object.apply("me", config.clone(), false).unwrap();
    assert_eq!(object.live, config);
    assert_eq!(
        object.owned_by("me"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {
            "f:replicas": {}, "f:selector": {}, "f:command": {}, "f:strategy": {"f:max": {}},
            "f:containers": {r#"k:{"name":"c"}"#: {".": {}, "f:name": {}, "f:image": {}, "f:ports": {
                r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}}}}},
            "f:extra": {"f:x": {".": {}, "f:y": {}}}}})
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let mut object = Object::new();
    let first = json!({"spec": {"replicas": 1, "command": ["a"], "strategy": {"kind": "r"},
        "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
    object.apply("one", first, false).unwrap();
    object.apply("two", json!({"spec": {"replicas": 1}}), false).unwrap();
    let mut new = object.live.clone();
    new["spec"]["strategy"]["max"] = json!(2);
    new["spec"]["containers"][1]["ports"] = json!([{"port": 1, "protocol": "TCP"}]);
    object.update("three", new);
    object.apply("one", json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}), false).unwrap();
    // A list's element goes with all that others added to it; a type's field stays for its other parts.
    assert_eq!(
        object.live,
        json!({"spec": {"replicas": 1, "strategy": {"max": 2}, "containers": [{"name": "a", "image": "2"}]}})
    );
}

#[test]
fn a_list_element_that_nobody_else_touched_goes() {
    let mut object = Object::new();
    object
        .apply(
            "me",
            json!({"metadata": {"finalizers": ["x", "y"]}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "image": "1"}]}}),
            false,
        )
        .unwrap();
    object
        .apply(
            "me",
            json!({"metadata": {"finalizers": ["y"]}, "spec": {"containers": [{"name": "b"}]}}),
            false,
        )
        .unwrap();
    assert_eq!(
        object.live,
        json!({"metadata": {"finalizers": ["y"]}, "spec": {"containers": [{"name": "b"}]}})
    );
}

#[test]
fn conflicts_name_the_owner_and_the_field() {
    let mut object = Object::new();
    object.update(
        "kubectl-create",
        json!({"spec": {"replicas": 3, "containers": [{"name": "c", "image": "1"}]}}),
    );
    let error = object.apply("me", json!({"spec": {"replicas": 4}}), false).unwrap_err();
    assert_eq!(
        message(&error),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using v1 at 2026-01-01T00:00:01Z: .spec.replicas"
    );
    let config = json!({"spec": {"replicas": 4, "containers": [{"name": "c", "image": "2"}]}});
    let error = object.apply("me", config.clone(), false).unwrap_err();
    assert_eq!(
        message(&error),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using v1 at 2026-01-01T00:00:01Z:\n\
         - .spec.containers[name=\"c\"].image\n- .spec.replicas"
    );
    let status = error.status("");
    assert_eq!((status.code, status.details.unwrap().causes.len()), (409, 2));
    object.apply("me", config.clone(), true).unwrap();
    assert_eq!(object.live, config);
    assert_eq!(
        object.owned_by("kubectl-create"),
        json!({"f:spec": {"f:containers": {".": {}, r#"k:{"name":"c"}"#: {".": {}, "f:name": {}}}}})
    );
    // The same value is no conflict: both own it from then on.
    object.apply("you", json!({"spec": {"replicas": 4}}), false).unwrap();
    let error = object.apply("you", json!({"spec": {"replicas": 5}}), false).unwrap_err();
    assert_eq!(message(&error), "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
}

#[test]
fn a_plain_write_takes_what_it_changes() {
    let mut object = Object::new();
    object.apply("me", json!({"spec": {"replicas": 1, "strategy": {"max": 1}}}), false).unwrap();
    object.update("scaler", json!({"spec": {"replicas": 2}, "status": {"ready": true}}));
    assert_eq!(object.owned_by("me"), Value::Null);
    assert_eq!(object.owned_by("scaler"), json!({"f:spec": {"f:replicas": {}}}));
    // Removing the field from the configuration leaves the scaler's value alone.
    object.apply("me", json!({"spec": {"command": ["x"]}}), false).unwrap();
    assert_eq!(object.live["spec"]["replicas"], 2);
}

#[test]
fn lists_whose_elements_cannot_be_told_apart_are_refused() {
    let mut object = Object::new();
    let config = json!({"spec": {"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}});
    assert_eq!(
        message(&object.apply("me", config, false).unwrap_err()),
        "failed to create typed patch object (default/web; v1, Kind=Web): \
         .spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]"
    );
}

#[test]
fn too_many_updaters_become_one() {
    let mut object = Object::new();
    for i in 0..25 {
        let mut new = object.live.clone();
        types_object(&mut new, "metadata")["labels"][format!("l{i}")] = json!("x");
        object.update(&format!("m{i}"), new);
    }
    assert_eq!(object.managers.0.len(), 10);
    let fields = object.owned_by("ancient-changes");
    assert_eq!(fields["f:metadata"]["f:labels"].as_object().unwrap().len(), 17);
}

fn types_object<'v>(value: &'v mut Value, key: &str) -> &'v mut Value {
    crate::ensure_object(value, key)
}

#[test]
fn merged_lists_keep_everybodys_order() {
    let cases = [
        ("abc", "abc", "abc"),
        ("ab", "ba", "ba"),
        ("xayb", "ba", "xyba"),
        ("axb", "cab", "caxb"),
        ("abc", "d", "abcd"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("abcdef", "fa", "bcdefa"),
    ];
    let definitions = definitions();
    let root = &definitions.get(definitions.find("Meta").unwrap()).field;
    let shapes = Shapes { definitions: &definitions, root };
    let list = |text: &str| json!({"finalizers": text.chars().map(String::from).collect::<Vec<_>>()});
    for (live, config, merged) in cases {
        assert_eq!(shapes.merge(&list(live), &list(config)), list(merged), "{live} + {config}");
    }
}

#[test]
fn managers_survive_the_way_through_the_object() {
    let mut object = Object::new();
    object.apply("me", json!({"spec": {"replicas": 1}}), false).unwrap();
    object.update("you", json!({"spec": {"replicas": 1, "command": []}}));
    let mut live = json!({"metadata": {"name": "x"}});
    object.managers.clone().put(&mut live);
    assert_eq!(live["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(Managers::take(&mut live), Some(object.managers));
    assert_eq!(live, json!({"metadata": {"name": "x"}}));
    let mut reset = json!({"metadata": {"managedFields": [{}]}});
    assert_eq!(Managers::take(&mut reset), Some(Managers::default()));
    let mut bad = json!({"metadata": {"managedFields": [{"operation": "Steal", "fieldsV1": {}}]}});
    assert_eq!(Managers::take(&mut bad), None);
}

prop_compose! {
    fn container()(name in "[abc]", image in proptest::option::of("[12]"), ports in proptest::collection::btree_set(0..3u8, 0..3))
        -> Value {
        let ports: Vec<Value> = ports.into_iter().map(|p| json!({"port": p, "protocol": "TCP"})).collect();
        let mut value = json!({"name": name, "ports": ports});
        if let Some(image) = image { value["image"] = image.into(); }
        value
    }
}

prop_compose! {
    fn web()(
        replicas in proptest::option::of(0..3u8),
        labels in proptest::collection::btree_map("[ab]", "[xy]", 0..3),
        finalizers in proptest::collection::btree_set("[ab]", 0..3),
        containers in proptest::collection::vec(container(), 0..4),
        command in proptest::option::of(proptest::collection::vec("[ab]", 0..2)),
        max in proptest::option::of(0..2u8),
        extra in proptest::option::of(proptest::collection::btree_map("[ab]", proptest::collection::btree_map("[ab]", 0..2u8, 0..2), 0..2)),
    ) -> Value {
        let mut seen = std::collections::BTreeSet::new();
        let containers: Vec<Value> =
            containers.into_iter().filter(|c| seen.insert(c["name"].to_string())).collect();
        let mut object = json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}});
        if let Some(n) = replicas { object["spec"]["replicas"] = n.into(); }
        if let Some(n) = max { object["spec"]["strategy"] = json!({"max": n}); }
        if let Some(c) = command { object["spec"]["command"] = json!(c); }
        if let Some(e) = extra { object["spec"]["extra"] = json!(e); }
        without_empties(&mut object);
        object
    }
}

/// As Go's types are written, which leave out what is empty.
fn without_empties(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| without_empties(child));
            !map.is_empty()
        }
        Value::Array(list) => {
            list.iter_mut().for_each(|child| {
                without_empties(child);
            });
            !list.is_empty()
        }
        _ => true,
    }
}

/// Everything that both hold is in `object` too: every leaf of `part` is found there.
fn holds(shapes: Shapes<'_>, object: &Value, part: &Value) -> bool {
    let mut lacking = shapes.owned(part, &mut Vec::new());
    lacking.subtract(&shapes.owned(object, &mut Vec::new()));
    lacking.is_empty()
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(before in web(), config in web()) {
        let mut object = Object::new();
        object.update("before", before);
        object.apply("me", config.clone(), true).unwrap();
        let (live, managers) = (object.live.clone(), object.managers.clone());
        object.apply("me", config, false).unwrap();
        prop_assert_eq!(&object.live, &live);
        prop_assert!(object.managers.same_owners(&managers));
    }

    #[test]
    fn what_was_applied_is_there_and_owned(first in web(), second in web(), third in web()) {
        let mut object = Object::new();
        object.apply("one", first, true).unwrap();
        object.apply("two", second.clone(), true).unwrap();
        object.apply("one", third.clone(), true).unwrap();
        let definitions = definitions();
        let root = &definitions.get(definitions.find("Web").unwrap()).field;
        let shapes = Shapes { definitions: &definitions, root };
        prop_assert!(holds(shapes, &object.live, &third));
        // Nothing is left that nobody owns.
        let mut orphans = shapes.owned(&object.live, &mut Vec::new());
        for manager in &object.managers.0 {
            orphans.subtract(&manager.fields);
        }
        prop_assert!(orphans.is_empty(), "{:?}", orphans);
    }

    #[test]
    fn with_a_single_manager_the_object_is_what_it_applied_last(configs in proptest::collection::vec(web(), 1..4)) {
        let mut object = Object::new();
        for config in &configs {
            object.apply("me", config.clone(), false).unwrap();
        }
        let definitions = definitions();
        let root = &definitions.get(definitions.find("Web").unwrap()).field;
        let shapes = Shapes { definitions: &definitions, root };
        let owned = |value: &Value| shapes.owned(value, &mut Vec::new());
        prop_assert_eq!(owned(&object.live), owned(configs.last().unwrap()));
    }

    #[test]
    fn a_difference_tells_all_that_differs(old in web(), new in web()) {
        let definitions = definitions();
        let root = &definitions.get(definitions.find("Web").unwrap()).field;
        let shapes = Shapes { definitions: &definitions, root };
        let difference = shapes.compare(&old, &new);
        // Taking the changes and removals out of both leaves the same fields.
        let (mut one, mut two) = (shapes.owned(&old, &mut Vec::new()), shapes.owned(&new, &mut Vec::new()));
        for set in [&mut one, &mut two] {
            set.subtract(&difference.changed);
            set.subtract(&difference.removed);
        }
        prop_assert_eq!(one, two);
    }

    #[test]
    fn sets_of_any_form_are_read_or_refused(text in "\\PC{0,40}") {
        let mut object = json!({"metadata": {"managedFields": [
            {"operation": "Update", "manager": "m", "apiVersion": "v1", "fieldsV1": {text.as_str(): {"f:a": {}}}}]}});
        let _ = Managers::take(&mut object);
    }
}
