use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use flate2::read::GzDecoder;
use serde_json::Value;
use types::Definitions;
use types::protobuf::ProtobufTypes;

use crate::def::{Gvk, ResourceDef, Shared, SubresourceDef, Verbs};
use crate::kinds;
use crate::registry::Registry;
use crate::runtime_config::{RuntimeConfig, RuntimeConfigError};

/// The schema facts: every resource with its verbs and subresources, every type with its fields and merge keys.
const FACTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kubernetes-v1.36.json.gz"));

/// Every type's protobuf field numbers.
const PROTOBUF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protobuf-v1.36.json.gz"));

/// The version of Kubernetes that the facts describe.
pub const KUBERNETES_VERSION: &str = "v1.36.0";

impl Registry {
    /// The stable built-in resources.
    ///
    /// # Panics
    /// Never with the embedded facts; a test reads them.
    pub fn builtin() -> Self {
        Self::of_facts(&facts(), &RuntimeConfig::default())
    }

    /// The built-in resources that the switches let through.
    pub fn serving(config: &RuntimeConfig) -> Result<Self, RuntimeConfigError> {
        let facts = facts();
        let rows = facts["resources"].as_array().map_or(&[][..], Vec::as_slice);
        config.check(rows.iter().map(path))?;
        Ok(Self::of_facts(&facts, config))
    }

    fn of_facts(facts: &Value, config: &RuntimeConfig) -> Self {
        let definitions = Arc::new(Definitions::from_openapi(&facts["definitions"]));
        let gvk_names = definition_names(&facts["definitions"]);
        let rows = facts["resources"].as_array().into_iter().flatten();
        let served = rows.filter(|row| {
            let (group, version, resource) = path(row);
            config.serves(group, version, resource)
        });
        let resources = served.map(|row| Arc::new(read_row(row, &definitions, &gvk_names))).collect();
        Self::new(resources, definitions)
    }
}

/// A row's group, version and plural.
fn path(row: &Value) -> (&str, &str, &str) {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    (text("group"), text("version"), text("resource"))
}

/// The facts themselves; unpacked anew each time, for they are large and seldom asked for.
pub fn facts() -> Value {
    unpack(FACTS)
}

fn unpack(packed: &[u8]) -> Value {
    let mut text = Vec::new();
    let read = GzDecoder::new(packed).read_to_end(&mut text);
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl Registry {
    /// The types' protobuf field numbers; read when the first message comes in.
    pub fn protobuf(&self) -> &'static ProtobufTypes {
        static TYPES: LazyLock<ProtobufTypes> =
            LazyLock::new(|| ProtobufTypes::from_facts(&unpack(PROTOBUF)));
        &TYPES
    }
}

/// Which definition describes which group, version and kind.
fn definition_names(definitions: &Value) -> BTreeMap<(String, String, String), String> {
    let mut names = BTreeMap::new();
    for (name, schema) in definitions.as_object().into_iter().flatten() {
        for gvk in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |key: &str| gvk[key].as_str().unwrap_or_default().to_owned();
            names.entry((text("group"), text("version"), text("kind"))).or_insert_with(|| name.clone());
        }
    }
    names
}

fn owned(names: &[&str]) -> Box<[Box<str>]> {
    names.iter().map(|name| (*name).into()).collect()
}

fn read_row(
    row: &Value,
    definitions: &Definitions,
    names: &BTreeMap<(String, String, String), String>,
) -> ResourceDef {
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let gvk_of = |v: &Value| Gvk::new(&text(v, "group"), &text(v, "version"), &text(v, "kind"));
    let verbs_of =
        |v: &Value| Verbs::parse(v["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str));
    let gvk = gvk_of(row);
    let resource = text(row, "resource");
    let subresources = row["subresources"].as_object().into_iter().flatten().map(|(name, sub)| {
        (name.as_str().into(), SubresourceDef { kind: gvk_of(&sub["kind"]), verbs: verbs_of(sub) })
    });
    let (storage, convert) = kinds::storage_of(&gvk);
    let table =
        if storage.group.is_empty() { resource.clone() } else { format!("{resource}.{}", storage.group) };
    let key = (gvk.group.to_string(), gvk.version.to_string(), gvk.kind.to_string());
    ResourceDef {
        singular: gvk.kind.to_lowercase().into(),
        short_names: owned(kinds::short_names(&gvk.group, &resource)),
        categories: owned(kinds::categories(&gvk.group, &resource)),
        namespaced: row["namespaced"].as_bool().unwrap_or_default(),
        verbs: verbs_of(row),
        subresources: subresources.collect(),
        table: table.into(),
        storage,
        convert: convert.map(Shared::Static),
        schema: names.get(&key).and_then(|name| definitions.find(name)),
        custom: None,
        strategy: Shared::Static(kinds::strategy_for(&gvk.group, &gvk.version, &resource)),
        resource: resource.into(),
        gvk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::Verb;

    #[test]
    fn every_stable_resource_has_a_type() {
        let registry = Registry::builtin();
        assert!(registry.resources().count() > 60);
        for def in registry.resources() {
            assert!(def.schema.is_some(), "{:?} has no type", def.gvk);
        }
        let pods = registry.find("", "v1", "pods").unwrap();
        assert!(pods.verbs.has(Verb::Watch) && pods.has_subresource("log") && pods.namespaced);
        assert_eq!(&*pods.table, "pods");
        let events = registry.find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(&*events.table, "events");
        assert_eq!(registry.groups()[0], ("", vec!["v1"]));
        assert!(registry.groups().contains(&("autoscaling", vec!["v2", "v1"])));
    }
}
