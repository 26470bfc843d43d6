//! Who owns which field of what is written: `metadata.managedFields`
//! (kubernetes/kubernetes, `apimachinery/pkg/util/managedfields/internal/fieldmanager.go`).

use serde_json::Value;
use types::Shape;
use types::apply::{FieldSet, Managers, Operation};

use super::{Part, Write};

/// Gives `new` its owners: `decided` if they are, or else those of `old`, with what changed put down to the writer.
pub(crate) fn settle(
    write: &Write<'_>,
    new: &mut Value,
    old: Option<&Value>,
    part: Part,
    decided: Option<Managers>,
) {
    if let Some(managers) = decided {
        types::object(&mut new["metadata"]).remove("managedFields");
        return managers.put(new);
    }
    // Users may change the owners themselves; what they send back unchanged is the common case.
    let mut managers = Managers::take(new)
        .or_else(|| Managers::take(&mut serde_json::json!({"metadata": old?["metadata"].clone()})))
        .unwrap_or_default();
    if let Some(shapes) = write.shapes() {
        let nothing = Value::Object(serde_json::Map::new());
        let by = write.manager(Operation::Update);
        managers.update(shapes, old.unwrap_or(&nothing), new, by, &ignored(write, part));
    }
    managers.put(new);
}

/// The fields that a write to a part of an object does not set.
pub(super) fn ignored(write: &Write<'_>, part: Part) -> FieldSet {
    match part {
        Part::Main if write.def.has_subresource("status") => FieldSet::top(["status"]),
        Part::Main => FieldSet::default(),
        Part::Status => {
            let shape = write.shapes().map(|s| &s.definitions.resolve(s.root).shape);
            let Some(Shape::Object(fields)) = shape else { return FieldSet::top(["spec"]) };
            let names = fields.iter().map(|(name, _)| name);
            FieldSet::top(names.filter(|name| !matches!(&***name, "metadata" | "status")))
        }
    }
}

/// When nothing but the moments of ownership changed, nothing changed.
pub(crate) fn ignore_times(new: &mut Value, old: &Value) {
    let without_time = |entry: &Value| {
        let mut entry = entry.clone();
        types::object(&mut entry).remove("time");
        entry
    };
    let (Some(ours), Some(theirs)) =
        (new["metadata"]["managedFields"].as_array(), old["metadata"]["managedFields"].as_array())
    else {
        return;
    };
    if ours != theirs && ours.len() == theirs.len() {
        // Entries are sorted by time among other things.
        let mut rest: Vec<Value> = theirs.iter().map(without_time).collect();
        for entry in ours.iter().map(without_time) {
            let Some(at) = rest.iter().position(|other| *other == entry) else { return };
            rest.swap_remove(at);
        }
        new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    }
}
