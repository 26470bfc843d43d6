//! Protobuf as a client would write it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use registry::{Registry, ResourceDef};
use serde_json::Value;
use types::protobuf::envelope;

static FACTS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../registry/schema/protobuf-v1.36.json")).unwrap()
});

/// An object in its envelope. Fields without a number are left out.
pub(super) fn encode(registry: &Registry, def: &ResourceDef, object: &Value) -> Vec<u8> {
    let name = &registry.definitions().get(def.schema.unwrap()).name;
    if !registry.protobuf().has(name) {
        return envelope::<()>(&def.api_version(), &def.gvk.kind, |_| Ok(())).unwrap();
    }
    let json = object.to_string();
    envelope(&def.api_version(), &def.gvk.kind, |out| {
        registry.protobuf().encode(name, json.as_bytes(), false, out)
    })
    .unwrap()
}

/// The JSON names of a type's fields.
pub(super) fn names(name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in FACTS[name].as_array().into_iter().flatten() {
        match row[1].as_str() {
            Some("") => names.extend(self::names(row[4].as_str().unwrap())),
            Some(name) => drop(names.insert(name.to_owned())),
            None => {}
        }
    }
    names
}
