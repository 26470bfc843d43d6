use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use types::{Definitions, at, str_at};

use super::columns::Columns;
use super::{Conversion, Custom, Names, ScalePaths, Vintage};
use crate::def::{Gvk, ResourceDef, Shared, SubresourceDef, Verbs};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The resources that a definition brings, one for each version that is served, under the names that were accepted.
///
/// `base` has the common types; `since` is the revision after which everything written has gone through this schema,
/// `fingerprint` a hash of the definition.
pub fn custom_resources(
    crd: &Value,
    base: &Arc<Definitions>,
    since: u64,
    fingerprint: u64,
) -> Vec<Arc<ResourceDef>> {
    let spec = &crd["spec"];
    let versions = || spec["versions"].as_array().into_iter().flatten();
    let Some(storage) = versions().find(|v| v["storage"] == true) else { return Vec::new() };
    let served = versions().filter(|v| v["served"] == true);
    served.map(|version| Arc::new(read_version(crd, version, storage, base, since, fingerprint))).collect()
}

fn read_version(
    crd: &Value,
    version: &Value,
    storage: &Value,
    base: &Arc<Definitions>,
    since: u64,
    fingerprint: u64,
) -> ResourceDef {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let spec = &crd["spec"];
    let (group, version_name) = (text(spec, "group"), text(version, "name"));
    let names = Names::of(&crd["status"]["acceptedNames"]);
    let gvk = Gvk::new(&group, &version_name, &names.kind);
    let status = at(version, &["subresources", "status"]).is_some();
    let scale = at(version, &["subresources", "scale"]).map(scale_paths);
    let mut subresources = BTreeMap::new();
    let part = || Verbs::parse(["get", "patch", "update"].into_iter());
    if status {
        subresources.insert("status".into(), SubresourceDef { kind: gvk.clone(), verbs: part() });
    }
    if scale.is_some() {
        let kind = Gvk::new("autoscaling", "v1", "Scale");
        subresources.insert("scale".into(), SubresourceDef { kind, verbs: part() });
    }
    let written = at(version, &["schema", "openAPIV3Schema"]).cloned().unwrap_or_default();
    let plain = |path: &str| -> Vec<Box<str>> { split(path) };
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    let custom = Arc::new(Custom {
        crd: text(&crd["metadata"], "name").into(),
        list_kind: names.list_kind.clone(),
        scale,
        conversion: match str_at(spec, &["conversion", "strategy"]) {
            Some("Webhook") => Conversion::Webhook(Arc::new(spec["conversion"]["webhook"].clone())),
            _ => Conversion::None,
        },
        warning: (version["deprecated"] == true).then(|| {
            let default = || format!("{} {} is deprecated", gvk.api_version(), gvk.kind);
            str_at(version, &["deprecationWarning"]).map_or_else(default, str::to_owned).into()
        }),
        terminating: at(crd, &["metadata", "deletionTimestamp"]).is_some().into(),
        fingerprint,
        head: head(&gvk.api_version()).into(),
        vintage: Vintage { since, ..Vintage::default() },
        type_name: type_name(&gvk).into(),
        source: written.to_string().into(),
        base: base.clone(),
        compiled: OnceLock::new(),
        has_status: status,
        columns: Columns::new(version["additionalPrinterColumns"].as_array()),
        selectable: selectable
            .filter_map(|field| field["jsonPath"].as_str())
            .map(|path| (path.trim_start_matches('.').into(), plain(path)))
            .collect(),
    });
    ResourceDef {
        resource: (&*names.plural).into(),
        singular: names.singular.clone(),
        short_names: names.short_names.clone().into(),
        categories: names.categories.clone().into(),
        namespaced: str_at(spec, &["scope"]) == Some("Namespaced"),
        verbs: Verbs::parse(VERBS.into_iter()),
        subresources,
        table: custom.crd.clone(),
        storage: Gvk::new(&group, &text(storage, "name"), &names.kind),
        convert: None,
        schema: None,
        strategy: Shared::Counted(custom.clone()),
        custom: Some(custom),
        gvk,
    }
}

/// How the bytes of a stored object of a version begin: objects are written with their keys in order.
pub fn head(api_version: &str) -> String {
    format!("{{\"apiVersion\":\"{api_version}\",")
}

/// `com.example.v1.Thing`, as OpenAPI names it.
fn type_name(gvk: &Gvk) -> String {
    let group: Vec<&str> = gvk.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let path = |key: &str| scale[key].as_str().map(split);
    ScalePaths {
        spec_replicas: path("specReplicasPath").unwrap_or_default(),
        status_replicas: path("statusReplicasPath").unwrap_or_default(),
        label_selector: path("labelSelectorPath").filter(|p| !p.is_empty()),
    }
}

/// The names of a simple path such as `.spec.replicas`.
fn split(path: &str) -> Vec<Box<str>> {
    path.split('.').filter(|part| !part.is_empty()).map(Into::into).collect()
}
