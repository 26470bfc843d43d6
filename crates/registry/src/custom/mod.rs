//! Kinds that users define: what a CustomResourceDefinition says becomes rows of the registry.
//!
//! `read.rs` reads a definition, `schema.rs` a schema as the shape of objects (for pruning, defaults and server-side
//! apply), `validator.rs` the same schema as rules; `strategy.rs` is the [`Strategy`](crate::Strategy) of all custom
//! kinds; `definition/` has the rules of the definitions themselves.

mod columns;
mod definition;
mod formats;
mod jsonpath;
mod lists;
mod names;
mod pattern;
mod read;
mod rules;
mod schema;
mod strategy;
mod validator;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use types::{Definitions, FieldSchema, SchemaId};

use columns::Columns;
use validator::Validator;

pub(crate) use definition::Definition;
pub use definition::{CLEANUP, is_true, set_condition};
pub use names::{Names, TakenNames, accept};
pub use read::{custom_resources, head};
pub use rules::SchemaRules;

/// What is particular to one version of a custom kind.
pub struct Custom {
    /// The name of its definition.
    pub crd: Arc<str>,
    /// The kind of lists.
    pub list_kind: Box<str>,
    /// Where a `Scale` finds its parts.
    pub scale: Option<ScalePaths>,
    /// How objects go from one version to another.
    pub conversion: Conversion,
    /// What users of a deprecated version are told.
    pub warning: Option<Box<str>>,
    /// Whether the definition is being deleted: nothing new may be made.
    pub terminating: AtomicBool,
    /// A hash of the definition that this was made from.
    pub fingerprint: u64,
    /// How the bytes of an object in this version begin.
    pub head: Box<str>,
    /// How OpenAPI names the type.
    pub type_name: Box<str>,
    /// Objects that were written before this may lack defaults or have fields too many.
    pub vintage: Vintage,
    /// The schema as it was written, as text: most kinds of a cluster are hardly ever used.
    source: Box<str>,
    base: Arc<Definitions>,
    compiled: OnceLock<Compiled>,
    has_status: bool,
    columns: Columns,
    selectable: Vec<(Box<str>, Vec<Box<str>>)>,
}

/// A schema, readied for use.
struct Compiled {
    definitions: Arc<Definitions>,
    root: Option<SchemaId>,
    validator: Validator,
    rules: Option<Arc<dyn SchemaRules>>,
}

/// Where a `Scale` finds its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Such as `spec`, `replicas`.
    pub spec_replicas: Vec<Box<str>>,
    /// Such as `status`, `replicas`.
    pub status_replicas: Vec<Box<str>>,
    /// To a selector as text.
    pub label_selector: Option<Vec<Box<str>>>,
}

/// How objects go from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// A webhook is asked; this is the definition's `spec.conversion.webhook`.
    Webhook(Arc<Value>),
}

/// Which stored objects fit the schema of a version as they are.
#[derive(Debug, Default)]
pub struct Vintage {
    /// Objects written after this revision went through the schema.
    pub since: u64,
    /// Older objects that were looked at and fit, by the revision that wrote them.
    fitting: Mutex<HashSet<u64>>,
    /// Newer objects that were written under an older schema all the same: their requests were under way when it
    /// changed.
    doubtful: Mutex<HashSet<u64>>,
    any_doubt: AtomicBool,
}

impl Vintage {
    /// Whether the object that was written at `revision` is known to fit.
    pub fn fits(&self, revision: u64) -> bool {
        let has = |set: &Mutex<HashSet<u64>>| set.lock().is_ok_and(|set| set.contains(&revision));
        if revision > self.since && !(self.any_doubt.load(Ordering::Acquire) && has(&self.doubtful)) {
            return true;
        }
        has(&self.fitting)
    }

    /// Notes that the object that was written at `revision` went through an older schema.
    pub fn doubt(&self, revision: u64) {
        if let Ok(mut doubtful) = self.doubtful.lock() {
            doubtful.insert(revision);
            self.any_doubt.store(true, Ordering::Release);
        }
    }

    /// Notes that the object that was written at `revision` fits. Nothing is noted for objects that are not stored.
    pub fn note(&self, revision: u64) {
        if revision > 0
            && let Ok(mut fitting) = self.fitting.lock()
        {
            fitting.insert(revision);
        }
    }
}

/// What was found while an object was made to fit its kind.
#[derive(Debug, Default)]
pub struct Conformed {
    /// Fields that no schema knows; they were dropped.
    pub unknown: Vec<String>,
    /// Why the object cannot be read at all.
    pub mismatch: Option<String>,
}

impl Custom {
    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let schema = self.schema();
            let (definitions, root) = schema::read(&schema, &self.type_name, &self.base);
            let (validator, rules) = (Validator::new(&schema), rules::compile(&schema));
            Compiled { definitions, root, validator, rules }
        })
    }

    /// The schema as it was written.
    pub fn schema(&self) -> Value {
        serde_json::from_str(&self.source).unwrap_or_default()
    }

    /// The types that the kind's shape is written in.
    pub(crate) fn definitions(&self) -> &Arc<Definitions> {
        &self.compiled().definitions
    }

    /// The shape of the kind's objects.
    pub(crate) fn shape(&self) -> Option<(&Definitions, &FieldSchema)> {
        let compiled = self.compiled();
        compiled.root.map(|root| (&*compiled.definitions, &compiled.definitions.get(root).field))
    }

    /// Makes an object that came from a user fit the kind: metadata is checked, unknown fields go, defaults come.
    pub fn conform(&self, object: &mut Value) -> Conformed {
        let mut found = Conformed::default();
        self.check_metadata(object, &mut found);
        if found.mismatch.is_none() {
            self.fit(object, &mut found.unknown);
        }
        found
    }

    /// Makes a stored object fit the schema as it is now. Tells whether that took a change.
    pub fn refresh(&self, object: &mut Value) -> bool {
        let before = object.clone();
        self.fit(object, &mut Vec::new());
        *object != before
    }

    fn fit(&self, object: &mut Value, unknown: &mut Vec<String>) {
        if let Some((definitions, field)) = self.shape() {
            definitions.prune(field, object, unknown);
            definitions.fill(field, object);
        }
    }

    fn check_metadata(&self, object: &mut Value, found: &mut Conformed) {
        let Some(meta) = self.base.find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else {
            return;
        };
        let Some(value) = object.get_mut("metadata") else { return };
        if value.is_null() {
            *value = Value::Object(Default::default());
        }
        let errors = self.base.decode(meta, value);
        found.mismatch = errors.mismatch;
        found.unknown.extend(errors.unknown.iter().map(|field| format!("metadata.{field}")));
    }

    /// The values that a list can be selected by, out of an object.
    pub fn selectable_values(&self, object: &Value) -> Vec<(Box<str>, Box<str>)> {
        let value = |path: &[Box<str>]| match follow(object, path) {
            Some(Value::String(text)) => text.as_str().into(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string().into(),
            _ => "".into(),
        };
        self.selectable.iter().map(|(name, path)| (name.clone(), value(path))).collect()
    }
}

/// The value at a path.
pub(crate) fn follow<'a>(value: &'a Value, path: &[Box<str>]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(&**key)).filter(|v| !v.is_null())
}
