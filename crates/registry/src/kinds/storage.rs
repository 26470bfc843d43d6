//! PersistentVolumes and their claims (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`,
//! `ValidatePersistentVolume`, `ValidatePersistentVolumeClaim`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, at, dns_label, dns_subdomain, ensure_object, set_default};

use super::check::*;
use super::pod_spec::scheduling::node_selector;
use super::pod_spec::sources::{self, Source};
use super::pod_spec::volumes::one_source;
use super::pod_spec::{default_source, default_text};
use super::storage_warnings;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

type Check = fn(&Value, &Source<'_>, &Path<'_>, &mut FieldErrors);

const SOURCES: &[(&str, &str, Check)] = &[
    ("hostPath", "hostPath", sources::host_path),
    ("gcePersistentDisk", "persistentDisk", sources::gce_disk),
    ("awsElasticBlockStore", "awsElasticBlockStore", sources::aws_disk),
    ("glusterfs", "glusterfs", sources::glusterfs),
    ("flocker", "flocker", sources::flocker),
    ("nfs", "nfs", sources::nfs),
    ("rbd", "rbd", sources::rbd),
    ("quobyte", "quobyte", sources::quobyte),
    ("cephfs", "cephfs", sources::cephfs),
    ("iscsi", "iscsi", sources::iscsi),
    ("cinder", "cinder", sources::cinder),
    ("fc", "fc", sources::fc),
    ("flexVolume", "flexVolume", sources::flex_volume),
    ("azureFile", "azureFile", sources::azure_file),
    ("vsphereVolume", "vsphereVolume", sources::vsphere),
    ("photonPersistentDisk", "photonPersistentDisk", sources::photon),
    ("portworxVolume", "portworxVolume", sources::portworx),
    ("azureDisk", "azureDisk", sources::azure_disk),
    ("scaleIO", "scaleIO", sources::scale_io),
    ("local", "local", sources::local),
    ("storageos", "storageos", sources::storage_os),
    ("csi", "csi", sources::csi_volume),
];

fn access_modes(spec: &Value, missing: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let path = path.child("accessModes");
    if count(spec, "accessModes") == 0 {
        errors.required(&path, missing);
    }
    for mode in texts(spec, "accessModes").filter(|m| !MODES.contains(m)) {
        errors.not_supported(&path, mode, MODES);
    }
    let alone = |m: &str| m == "ReadWriteOncePod";
    if texts(spec, "accessModes").any(alone)
        && texts(spec, "accessModes").any(|m| !alone(m) && MODES.contains(&m))
    {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Checks a volume's spec; `inline` if it stands in a VolumeAttachment.
pub(super) fn validate_volume_spec(
    spec: &Value,
    name: &str,
    inline: bool,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if inline {
        for field in ["claimRef", "capacity"].iter().filter(|f| has(spec, f)) {
            errors.forbidden(&path.child(field), INLINE);
        }
        if !has(spec, "csi") {
            errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
        }
    }
    access_modes(spec, "", path, errors);
    if !inline {
        validate_capacity(spec, &path.child("capacity"), errors);
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    let policy_path = path.child("persistentVolumeReclaimPolicy");
    if inline && !matches!(policy, "" | "Retain") {
        errors.forbidden(&policy_path, "may only be Retain in the context of inline volumes");
    } else if !inline && !policy.is_empty() {
        one_of(spec, "persistentVolumeReclaimPolicy", path, &["Delete", "Recycle", "Retain"], errors);
    }
    if let Some(affinity) = get(spec, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        match get(affinity, "required") {
            _ if inline => errors.forbidden(&path, INLINE),
            Some(selector) => node_selector(selector, &path.child("required"), errors),
            None => errors.required(&path.child("required"), "must specify required node constraints"),
        }
    }
    one_source(spec, SOURCES, &Source { name, pod: "", is_pod: false, persistent: true }, path, errors);
    if has(spec, "local") && !has(spec, "nodeAffinity") {
        errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
    let is_root = |p: &str| !p.is_empty() && p.split('/').all(|part| matches!(part, "" | "."));
    if get(spec, "hostPath").is_some_and(|h| is_root(text(h, "path"))) && policy == "Recycle" {
        errors.forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'");
    }
    match text(spec, "storageClassName") {
        "" => {}
        _ if inline => errors.forbidden(&path.child("storageClassName"), INLINE),
        class => name_is(class, dns_subdomain, &path.child("storageClassName"), errors),
    }
    if inline && !matches!(text(spec, "volumeMode"), "" | "Filesystem") {
        let why = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(&path.child("volumeMode"), why);
    } else if !inline {
        one_of(spec, "volumeMode", path, &["Block", "Filesystem"], errors);
    }
    if let Some(class) = spec.get("volumeAttributesClassName").and_then(Value::as_str) {
        match class {
            "" => errors.required(&path.child("volumeAttributesClassName"), "an empty string is disallowed"),
            class => name_is(class, dns_subdomain, &path.child("volumeAttributesClassName"), errors),
        }
        if !has(spec, "csi") {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn validate_capacity(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let capacity = get(spec, "capacity").cloned().unwrap_or_else(|| json!({}));
    if count(spec, "capacity") == 0 {
        errors.required(path, "");
    }
    if !has(&capacity, "storage") || count(spec, "capacity") > 1 {
        errors.not_supported(path, capacity, &["storage"]);
    }
    for (name, value) in entries(spec, "capacity") {
        positive(value, &path.key(name), errors);
    }
}

fn positive(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let n = quantity(value);
    if n.is_negative() || n.is_zero() {
        errors.invalid(path, value.clone(), "must be greater than zero");
    }
}

pub(super) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        set_default(spec, "volumeMode", "Filesystem");
        default_source(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let name = text(&object["metadata"], "name");
        validate_volume_spec(&object["spec"], name, false, &SPEC, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        let (spec, before) = (&new["spec"], &old["spec"]);
        let same_source = SOURCES.iter().all(|(field, ..)| match *field {
            // A secret for growing may come later.
            "csi" => same_csi(get(spec, "csi"), get(before, "csi")),
            field => same_field(spec, before, field),
        });
        if !same_source {
            let of = |spec: &Value| -> Value {
                let sources =
                    SOURCES.iter().filter_map(|(f, ..)| Some(((*f).to_owned(), get(spec, f)?.clone())));
                Value::Object(sources.collect())
            };
            let why = format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                diff(&of(before), &of(spec))
            );
            errors.forbidden(&SPEC.child("persistentvolumesource"), &why);
        }
        if !same_field(spec, before, "volumeMode") {
            errors.invalid(&Path::new("volumeMode"), spec["volumeMode"].clone(), IMMUTABLE);
        }
        if has(before, "nodeAffinity") && !same_affinity(spec.get("nodeAffinity"), before.get("nodeAffinity"))
        {
            let why = "field is immutable, except for updating from beta label to GA";
            errors.invalid(&Path::new("nodeAffinity"), spec["nodeAffinity"].clone(), why);
        }
        if has(before, "volumeAttributesClassName") && !has(spec, "volumeAttributesClassName") {
            let why = "update from non-nil value to nil is forbidden";
            errors.forbidden(&SPEC.child("volumeAttributesClassName"), why);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        storage_warnings::volume(object)
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::PERSISTENT_VOLUME
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::persistent_volume_cells(object, now)
    }
}

fn same_csi(new: Option<&Value>, old: Option<&Value>) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return new.is_none() && old.is_none() };
    let names = new.as_object().into_iter().chain(old.as_object()).flat_map(|m| m.keys());
    names
        .filter(|f| *f != "controllerExpandSecretRef" || has(old, "controllerExpandSecretRef"))
        .all(|f| same_field(new, old, f))
}

/// Whether two affinities differ at most in labels that have got their final names.
fn same_affinity(new: Option<&Value>, old: Option<&Value>) -> bool {
    const FINAL: &[(&str, &str)] = &[
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    match (new, old) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.len() == b.len() && a.iter().all(|(k, v)| same_affinity(Some(v), b.get(k)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_affinity(Some(a), Some(b)))
        }
        (Some(Value::String(a)), Some(Value::String(b))) => {
            a == b || FINAL.contains(&(b.as_str(), a.as_str()))
        }
        (a, b) => same(a, b),
    }
}

/// Checks a claim's spec, also in templates of claims.
pub(super) fn validate_claim_spec(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if count(spec, "accessModes") == 0 {
        access_modes(spec, "at least 1 access mode is required", path, errors);
    }
    label_selector(get(spec, "selector"), &path.child("selector"), errors);
    if count(spec, "accessModes") > 0 {
        access_modes(spec, "", path, errors);
    }
    let resources = path.child("resources");
    let storage = resources.key("storage");
    match at(spec, &["resources", "requests", "storage"]) {
        None => errors.required(&storage, ""),
        Some(size) => positive(size, &storage, errors),
    }
    optional_name(spec, "storageClassName", dns_subdomain, path, errors);
    one_of(spec, "volumeMode", path, &["Block", "Filesystem"], errors);
    let (source, reference) = (get(spec, "dataSource"), get(spec, "dataSourceRef"));
    for (given, field) in [(source, "dataSource"), (reference, "dataSourceRef")] {
        let Some(given) = given else { continue };
        let path = path.child(field);
        required(given, "name", &path, errors);
        required(given, "kind", &path, errors);
        match text(given, "apiGroup") {
            "" if text(given, "kind") != "PersistentVolumeClaim" => {
                let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
                errors.invalid(&path, text(given, "kind"), why);
            }
            "" => {}
            group => name_is(group, dns_subdomain, &path.child("apiGroup"), errors),
        }
        if field == "dataSourceRef" {
            optional_name(given, "namespace", dns_label, &path, errors);
        }
    }
    if let (Some(source), Some(reference)) = (source, reference) {
        let shown = path.child("dataSource").to_string();
        if !text(reference, "namespace").is_empty() {
            let why = "may not be specified when dataSourceRef.namespace is specified";
            errors.invalid(path, shown, why);
        } else if ["apiGroup", "kind", "name"].iter().any(|f| text(source, f) != text(reference, f)) {
            errors.invalid(path, shown, "must match dataSourceRef");
        }
    }
    optional_name(spec, "volumeAttributesClassName", dns_subdomain, path, errors);
}

/// The two ways to name where a claim's data come from are kept alike (`pkg/api/persistentvolumeclaim/util.go`,
/// `NormalizeDataSources`, `EnforceDataSourceBackwardsCompatibility`).
fn normalize_sources(spec: &mut Value) {
    let known = |v: &Value| {
        matches!(
            (text(v, "apiGroup"), text(v, "kind")),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    };
    match (get(spec, "dataSource").cloned(), get(spec, "dataSourceRef").cloned()) {
        (Some(source), None) if known(&source) => spec["dataSourceRef"] = source,
        (Some(_), None) => drop(types::object(spec).remove("dataSource")),
        (None, Some(reference)) if text(&reference, "namespace").is_empty() => {
            let mut source = reference;
            types::object(&mut source).remove("namespace");
            spec["dataSource"] = source;
        }
        _ => {}
    }
}

pub(super) struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        let spec = ensure_object(object, "spec");
        set_default(spec, "volumeMode", "Filesystem");
        normalize_sources(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        validate_claim_spec(&object["spec"], &SPEC, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        let (spec, before) = (&new["spec"], &old["spec"]);
        let class = |o: &Value| o.get("storageClassName").and_then(Value::as_str).map(str::to_owned);
        let (was, is) = (annotation(old, BETA_CLASS), annotation(new, BETA_CLASS));
        // The class may move from the annotation into the field, and may be set once.
        let from_annotation = was.is_some()
            && class(before).is_none()
            && class(spec).as_deref() == was
            && (is.is_none() || is == was);
        if !from_annotation && is != was {
            let meta = Path::new("metadata");
            errors.invalid(&meta.child("annotations").child(BETA_CLASS), is.unwrap_or_default(), IMMUTABLE);
        }
        let class_may_change = class(before).is_none()
            && class(spec).is_some()
            && (was.is_none() || class(spec).as_deref() == was);
        let bound = text(&new["status"], "phase") == "Bound";
        let names = spec.as_object().into_iter().chain(before.as_object()).flat_map(|m| m.keys());
        let changed = names.into_iter().any(|field| match field.as_str() {
            "volumeName" if text(before, "volumeName").is_empty() => false,
            "storageClassName" if class_may_change || from_annotation => false,
            "volumeAttributesClassName" if bound => false,
            "resources" if bound => !same_but_storage(get(spec, field), get(before, field)),
            field => !same_field(spec, before, field),
        });
        if changed {
            let why = format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
                diff(before, spec)
            );
            errors.forbidden(&SPEC, &why);
        }
        let size = |v: &Value, way: &[&str]| at(v, way).map(quantity).unwrap_or_default();
        let wanted = size(spec, &["resources", "requests", "storage"]);
        if wanted < size(before, &["resources", "requests", "storage"])
            && wanted <= size(&old["status"], &["capacity", "storage"])
        {
            let path = SPEC.child("resources");
            let path = path.child("requests");
            errors.forbidden(&path.child("storage"), "field can not be less than status.capacity");
        }
        if !same_field(spec, before, "volumeMode") {
            errors.invalid(&Path::new("volumeMode"), spec["volumeMode"].clone(), IMMUTABLE);
        }
        // One that has never been reached may be given up.
        let reached = has(&old["status"], "currentVolumeAttributesClassName");
        if reached && !same_field(spec, before, "volumeAttributesClassName") {
            let what = match spec.get("volumeAttributesClassName").and_then(Value::as_str) {
                None => "nil",
                Some("") => "empty string",
                Some(_) => return,
            };
            let why = format!(
                "update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
            );
            errors.forbidden(&SPEC.child("volumeAttributesClassName"), &why);
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        const RESIZES: &[&str] = &[
            "ControllerResizeInProgress",
            "ControllerResizeInfeasible",
            "NodeResizePending",
            "NodeResizeInProgress",
            "NodeResizeInfeasible",
        ];
        let status = Path::new("status");
        for field in ["capacity", "allocatedResources"] {
            let path = status.child(field);
            for (name, value) in entries(&new["status"], field) {
                if quantity(value).is_negative() {
                    let why = "must be a valid resource quantity";
                    errors.invalid(&path.key(name), quantity(value).units(), why);
                }
            }
        }
        for (name, value) in entries(&new["status"], "allocatedResourceStatuses") {
            if !RESIZES.contains(&value.as_str().unwrap_or_default()) {
                errors.not_supported(&status.child("allocatedResourceStatus"), name, RESIZES);
            }
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        storage_warnings::claim(object)
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::PERSISTENT_VOLUME_CLAIM
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::persistent_volume_claim_cells(object, now)
    }
}

/// Whether resources differ at most in how much is asked for.
fn same_but_storage(new: Option<&Value>, old: Option<&Value>) -> bool {
    let empty = json!({});
    let (new, old) = (new.unwrap_or(&empty), old.unwrap_or(&empty));
    let requests = |v: &Value| entries(v, "requests").filter(|(n, _)| *n != "storage").count();
    let rest = entries(new, "requests")
        .filter(|(n, _)| *n != "storage")
        .all(|(n, v)| old.get("requests").and_then(|r| r.get(n)) == Some(v));
    rest && requests(new) == requests(old) && same_field(new, old, "limits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_attributes_is_given_up_until_it_is_reached() {
        let claim = |class: Value, reached: Value| {
            let mut claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}});
            let more = json!({"spec": {"volumeAttributesClassName": class},
                "status": {"currentVolumeAttributesClassName": reached}});
            types::patch::merge_patch(&mut claim, more);
            claim
        };
        let said = |class: Value, reached: Value| {
            let mut errors = FieldErrors::new();
            let (new, old) = (claim(class, reached.clone()), claim(json!("gold"), reached));
            PersistentVolumeClaim.validate_update(&new, &old, &mut errors);
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
        };
        for class in [Value::Null, json!("silver"), json!("gold")] {
            assert_eq!(said(class, Value::Null), Vec::<String>::new());
        }
        assert!(said(json!("silver"), json!("gold")).is_empty());
        let why = "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when \
                   status.currentVolumeAttributesClassName is not nil";
        assert_eq!(said(Value::Null, json!("gold")), [why]);
    }
}
