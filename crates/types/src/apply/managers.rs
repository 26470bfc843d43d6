use serde_json::{Map, Value, json};

use super::owned::ListFault;
use super::set::{self, FieldSet, Node};
use super::{Shapes, element};
use crate::status::{Cause, Reason, Status};

/// More managers of plain updates than this are merged into one (`managedfields/internal/capmanagers.go`).
const MOST_UPDATERS: usize = 10;

/// Whom the oldest updates are put down to.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Operation {
    Apply,
    Update,
}

/// An entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    /// Such as `kubectl-client-side-apply`.
    pub name: String,
    /// How.
    pub operation: Operation,
    /// The version that the paths are in.
    pub api_version: String,
    /// Empty for the resource itself.
    pub subresource: String,
    /// When it last took or applied fields, as RFC 3339.
    pub time: String,
    /// What it owns.
    pub fields: FieldSet,
}

impl Manager {
    /// Whether the two are the same party. What was applied belongs to its manager in whatever version.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn display(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
            if !self.time.is_empty() {
                text.push_str(&format!(" at {}", self.time));
            }
        }
        text
    }

    fn read(entry: Value) -> Option<Self> {
        let Value::Object(mut entry) = entry else { return None };
        let mut text = |key: &str| match entry.remove(key) {
            None => Some(String::new()),
            Some(Value::String(text)) => Some(text),
            Some(_) => None,
        };
        let operation = match text("operation")?.as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let (name, api_version) = (text("manager")?, text("apiVersion")?);
        let (subresource, time) = (text("subresource")?, text("time")?);
        let fields = canonical(FieldSet::from_value(entry.remove("fieldsV1")?)?)?;
        Some(Self { name, operation, api_version, subresource, time, fields })
    }

    fn write(self) -> Value {
        let mut entry = Map::new();
        entry.insert("apiVersion".into(), self.api_version.into());
        entry.insert("fieldsType".into(), "FieldsV1".into());
        entry.insert("fieldsV1".into(), self.fields.into_value());
        entry.insert("manager".into(), self.name.into());
        entry.insert("operation".into(), format!("{:?}", self.operation).into());
        if !self.subresource.is_empty() {
            entry.insert("subresource".into(), self.subresource.into());
        }
        if !self.time.is_empty() {
            entry.insert("time".into(), self.time.into());
        }
        Value::Object(entry)
    }
}

/// A set with every element in its canonical spelling, which comparisons rely on.
fn canonical(fields: FieldSet) -> Option<FieldSet> {
    fn is_canonical(node: &Node) -> bool {
        set::children(node).all(|(name, below)| {
            let plain = name.starts_with("f:") || element::canonical(name).as_deref() == Some(name);
            plain && is_canonical(below)
        })
    }
    fn rewritten(node: Node) -> Option<Node> {
        let mut out = Node::new();
        for (name, below) in node {
            let Value::Object(below) = below else { return None };
            let name = if name == "." { name } else { element::canonical(&name)? };
            out.insert(name, Value::Object(rewritten(below)?));
        }
        Some(out)
    }
    if is_canonical(&fields.0) { Some(fields) } else { rewritten(fields.0).map(FieldSet) }
}

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The owner.
    manager: String,
    /// The field, as `.spec.replicas`.
    path: String,
}

/// A configuration that cannot be applied.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyError {
    /// Others own fields that it sets to other values.
    Conflicts(Vec<Conflict>),
    /// A list whose elements cannot be told apart.
    Lists(Vec<ListFault>),
}

impl ApplyError {
    /// As the user gets it; `what` names the object as in `default/web; apps/v1, Kind=Deployment`.
    pub fn status(&self, what: &str) -> Status {
        match self {
            Self::Conflicts(conflicts) => conflict_status(conflicts),
            Self::Lists(faults) => {
                let faults: Vec<String> =
                    faults.iter().map(|fault| format!("{}: {}", fault.path, fault.why)).collect();
                Status::not_typed(what, &faults)
            }
        }
    }
}

fn conflict_status(conflicts: &[Conflict]) -> Status {
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path),
        many => {
            let mut lines = Vec::new();
            for (i, conflict) in many.iter().enumerate() {
                if i == 0 || many[i - 1].manager != conflict.manager {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.clone(),
    });
    Status::new(Reason::Conflict, message).with_causes(causes.collect())
}

/// An object's `managedFields`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub(super) Vec<Manager>);

/// What applying a configuration gives.
pub struct Applied {
    /// The object, without `managedFields`.
    pub object: Value,
    /// Its new managers.
    pub managers: Managers,
}

impl Managers {
    /// Reads `metadata.managedFields` and takes it out of the object. `None` if there is none or if it is malformed.
    pub fn take(object: &mut Value) -> Option<Self> {
        let Value::Object(metadata) = object.get_mut("metadata")? else { return None };
        let Value::Array(entries) = metadata.remove("managedFields")? else { return None };
        // A single empty entry is how users say that they want none.
        if let [Value::Object(only)] = entries.as_slice()
            && only.is_empty()
        {
            return Some(Self::default());
        }
        if entries.is_empty() {
            return None;
        }
        entries.into_iter().map(Manager::read).collect::<Option<_>>().map(Self)
    }

    /// Writes `metadata.managedFields`.
    pub fn put(mut self, object: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        self.0.sort_by(|a, b| {
            let key = |m: &Manager| (m.operation, m.time.clone(), m.name.clone(), m.api_version.clone());
            key(a).cmp(&key(b)).then_with(|| a.subresource.cmp(&b.subresource))
        });
        let entries = self.0.into_iter().map(Manager::write).collect();
        crate::ensure_object(object, "metadata")["managedFields"] = Value::Array(entries);
    }

    /// Whether the two say the same of who owns what.
    pub fn same_owners(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|m| other.0.iter().any(|o| o.is(m) && o.fields == m.fields))
    }

    /// After a plain write: `by` owns what it changed, and nobody owns what is gone. `by.fields` is ignored; its time is now.
    /// `ignored` are fields that this write does not set.
    pub fn update(
        &mut self,
        shapes: Shapes<'_>,
        old: &Value,
        new: &Value,
        mut by: Manager,
        ignored: &FieldSet,
    ) {
        let mut difference = shapes.compare(old, new);
        for fields in [&mut difference.changed, &mut difference.removed] {
            strip(fields, ignored);
        }
        if difference.is_empty() {
            return;
        }
        for manager in &mut self.0 {
            manager.fields.subtract(&difference.changed);
            manager.fields.subtract(&difference.removed);
        }
        if !difference.changed.is_empty() {
            by.fields = difference.changed;
            match self.0.iter_mut().find(|m| m.is(&by)) {
                Some(known) => {
                    known.fields.union(&by.fields);
                    known.time = by.time;
                }
                None => self.0.push(by),
            }
        }
        self.0.retain(|manager| !manager.fields.is_empty());
        self.cap();
    }

    /// Applies `config` to `live` for `by`, whose fields are ignored and whose time is now. With `force`, fields that
    /// others own are taken over.
    pub fn apply(
        mut self,
        shapes: Shapes<'_>,
        live: &Value,
        config: &Value,
        mut by: Manager,
        ignored: &FieldSet,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let mut faults = Vec::new();
        let mut fields = shapes.owned(config, &mut faults);
        if !faults.is_empty() {
            return Err(ApplyError::Lists(faults));
        }
        strip(&mut fields, ignored);
        let mut object = shapes.merge(live, config);
        let last = self.0.iter().position(|m| m.is(&by)).map(|i| self.0.swap_remove(i).fields);
        by.fields = fields;
        if let Some(last) = last {
            self.prune(shapes, &mut object, &last, &by.fields);
        }
        let mut difference = shapes.compare(live, &object);
        for fields in [&mut difference.changed, &mut difference.removed] {
            strip(fields, ignored);
        }
        let mut conflicts = Vec::new();
        self.0.sort_by_cached_key(Manager::display);
        for manager in &mut self.0 {
            let contested = manager.fields.intersection(&difference.changed);
            if !contested.is_empty() {
                let paths = contested.paths();
                let of =
                    |path: &Vec<&str>| Conflict { manager: manager.display(), path: element::display(path) };
                conflicts.extend(paths.iter().map(of));
                manager.fields.subtract(&contested);
            }
            manager.fields.subtract(&difference.removed);
        }
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        self.0.push(by);
        self.0.retain(|manager| !manager.fields.is_empty());
        Ok(Applied { object, managers: self })
    }

    /// Takes out of `merged` what the manager applied the last time and no longer does, unless others own it.
    fn prune(&self, shapes: Shapes<'_>, merged: &mut Value, last: &FieldSet, now: &FieldSet) {
        let mut dropped = last.clone();
        dropped.subtract(now);
        if dropped.is_empty() {
            return;
        }
        let everything = |object: &Value| shapes.with_named_parents(&shapes.owned(object, &mut Vec::new()));
        let last = shapes.with_named_parents(last);
        let mut pruned = merged.clone();
        shapes.remove(&mut pruned, &last);
        let all = everything(merged);
        // What somebody owns comes back.
        let mut kept = everything(&pruned);
        let mut owned = now.clone();
        for manager in &self.0 {
            owned.union(&manager.fields);
        }
        kept.union(&shapes.with_named_parents(&owned));
        let mut gone = all.clone();
        gone.subtract(&kept);
        let mut restored = merged.clone();
        shapes.remove(&mut restored, &gone);
        // So does what went only because something above it went: nobody ever applied it.
        let mut gone = all;
        gone.subtract(&everything(&restored));
        shapes.remove(merged, &gone.intersection(&last));
    }

    /// Merges the oldest updaters into one when there are too many.
    fn cap(&mut self) {
        let updaters = self.0.iter().filter(|m| m.operation == Operation::Update).count();
        if updaters <= MOST_UPDATERS {
            return;
        }
        self.0.sort_by(|a, b| (a.operation, &a.time).cmp(&(b.operation, &b.time)));
        let first = self.0.iter().position(|m| m.operation == Operation::Update).unwrap_or(0);
        let mut surplus = updaters - MOST_UPDATERS;
        let mut ancient: Vec<Manager> = Vec::new();
        while surplus > 0 && first < self.0.len() {
            let old = self.0.remove(first);
            match ancient.iter_mut().find(|a| a.api_version == old.api_version) {
                Some(bucket) => {
                    bucket.name = ANCIENT.to_owned();
                    bucket.subresource.clear();
                    bucket.fields.union(&old.fields);
                    bucket.time = old.time;
                    surplus -= 1;
                }
                None => ancient.push(old),
            }
        }
        self.0.extend(ancient);
    }

    /// The conflicts of an [`ApplyError`] that are not about fields in `allowed`.
    pub fn remaining(conflicts: &[Conflict], allowed: &FieldSet) -> Vec<Conflict> {
        let allowed: Vec<String> = allowed.paths().iter().map(|path| element::display(path)).collect();
        conflicts.iter().filter(|c| !allowed.contains(&c.path)).cloned().collect()
    }
}

impl Shapes<'_> {
    /// The fields of `applied` that are still so in `live`.
    pub fn unchanged_since(&self, applied: &Value, live: &Value) -> FieldSet {
        let mut fields = self.owned(applied, &mut Vec::new());
        let difference = self.compare(applied, live);
        fields.subtract(&difference.changed);
        fields.subtract(&difference.removed);
        fields
    }
}

/// Takes away what no user owns: the server's own fields, and those that this write does not set.
fn strip(fields: &mut FieldSet, ignored: &FieldSet) {
    for field in ["f:apiVersion", "f:kind"] {
        fields.0.remove(field);
    }
    let emptied = match fields.0.get_mut("f:metadata") {
        Some(Value::Object(metadata)) => {
            for field in [
                ".",
                "f:name",
                "f:namespace",
                "f:creationTimestamp",
                "f:selfLink",
                "f:uid",
                "f:generation",
                "f:managedFields",
                "f:resourceVersion",
            ] {
                metadata.remove(field);
            }
            metadata.is_empty()
        }
        _ => false,
    };
    if emptied {
        fields.0.remove("f:metadata");
    }
    fields.forget(ignored);
}

impl FieldSet {
    /// The set of whole top-level fields.
    pub fn top(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self(names.into_iter().map(|name| (element::field(name.as_ref()), json!({}))).collect())
    }
}
