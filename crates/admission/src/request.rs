use std::sync::Arc;

use auth::User;
use registry::{Gvk, Registry, ResourceDef};
use serde_json::{Map, Value, json};
use types::{Reason, Status, str_at};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// The options that came with a request; made into JSON only when somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Such as `PatchOptions`; empty for what the operation implies.
    pub kind: &'static str,
    /// Who is to own the changed fields, if the request says so.
    pub field_manager: &'a str,
    /// `Strict`, `Warn` or `Ignore`, if the request says so.
    pub field_validation: &'a str,
    /// Whether applying takes fields over.
    pub force: Option<bool>,
    /// The options themselves, where they came as an object.
    pub given: Option<&'a Value>,
}

impl Options<'_> {
    fn json(&self, operation: Operation, dry_run: bool) -> Value {
        let kind = match (self.kind, operation) {
            ("", Operation::Create) => "CreateOptions",
            ("", Operation::Update) => "UpdateOptions",
            ("", Operation::Delete) => "DeleteOptions",
            ("", Operation::Connect) => return Value::Null,
            (kind, _) => kind,
        };
        let mut map = match self.given {
            Some(Value::Object(map)) => map.clone(),
            _ => Map::new(),
        };
        map.insert("kind".into(), kind.into());
        map.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        for (key, value) in [("fieldManager", self.field_manager), ("fieldValidation", self.field_validation)]
        {
            if !value.is_empty() {
                map.insert(key.into(), value.into());
            }
        }
        if let Some(force) = self.force {
            map.insert("force".into(), force.into());
        }
        if dry_run {
            map.insert("dryRun".into(), json!(["All"]));
        }
        Value::Object(map)
    }
}

/// What plugins know of a request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is served.
    pub registry: &'a Arc<Registry>,
    /// The resource.
    pub def: &'a ResourceDef,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// What it does.
    pub operation: Operation,
    /// Empty for cluster-wide kinds.
    pub namespace: &'a str,
    /// Empty while a new object has no name.
    pub name: &'a str,
    /// Who is asking.
    pub user: &'a User,
    /// Whether everything happens but the writing.
    pub dry_run: bool,
    /// The options that came along.
    pub options: Options<'a>,
}

impl<'a> Request<'a> {
    /// A request for a resource itself, neither named nor in a namespace.
    pub fn new(
        registry: &'a Arc<Registry>,
        def: &'a ResourceDef,
        operation: Operation,
        user: &'a User,
    ) -> Self {
        let options = Options::default();
        Self {
            registry,
            def,
            subresource: "",
            operation,
            namespace: "",
            name: "",
            user,
            dry_run: false,
            options,
        }
    }

    /// The same for an object.
    #[must_use]
    pub fn object(self, namespace: &'a str, name: &'a str) -> Self {
        Self { namespace, name, ..self }
    }

    /// The same for a subresource.
    #[must_use]
    pub fn subresource(self, subresource: &'a str) -> Self {
        Self { subresource, ..self }
    }

    /// The kind of the object that is sent: the subresource's own, where it has one.
    pub fn kind(&self) -> &'a Gvk {
        kind_of(self.def, self.subresource)
    }

    /// The options as JSON.
    pub fn options_json(&self) -> Value {
        self.options.json(self.operation, self.dry_run)
    }

    /// The namespace as upstream's attributes have it: that of a Namespace is itself, once it has a name in the URL.
    pub fn own_namespace(&self) -> &'a str {
        if &*self.def.table == "namespaces" && self.operation != Operation::Create {
            self.name
        } else {
            self.namespace
        }
    }

    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.is_part(group, resource, "")
    }

    pub(crate) fn is_part(&self, group: &str, resource: &str, subresource: &str) -> bool {
        *self.def.gvk.group == *group && *self.def.resource == *resource && self.subresource == subresource
    }

    /// A refusal in upstream's words (`apiserver/pkg/admission/errors.go`, `NewForbidden`).
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.def.gvk.group, &self.def.resource, self.name, why)
    }

    /// The same for an object that may not have its name yet.
    pub fn forbidden_of(&self, object: Option<&Value>, why: &str) -> Status {
        let meta = |field| object.and_then(|o| str_at(o, &["metadata", field]));
        let name = Some(self.name).filter(|n| !n.is_empty());
        let name = name.or_else(|| meta("name")).or_else(|| meta("generateName")).unwrap_or("Unknown");
        Status::forbidden(&self.def.gvk.group, &self.def.resource, name, why)
    }

    /// An internal error.
    pub fn internal(&self, why: impl std::fmt::Display) -> Status {
        Status::internal(why)
    }

    /// A refusal for another reason than `Forbidden`.
    pub fn refused(&self, reason: Reason, why: &str) -> Status {
        let mut status = self.forbidden(why);
        (status.reason, status.code) = (Some(reason), reason.code());
        status
    }
}

/// The kind of objects that a resource or its subresource takes.
pub(crate) fn kind_of<'a>(def: &'a ResourceDef, subresource: &str) -> &'a Gvk {
    def.subresources.get(subresource).map_or(&def.gvk, |sub| &sub.kind)
}

/// What admission has to say beside yes and no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// For the user.
    pub warnings: Vec<String>,
    /// For the audit log, by key.
    pub annotations: Vec<(String, String)>,
}

impl Notes {
    /// Adds a warning, once.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() && !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// Adds an annotation; the first word on a key stays.
    pub fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        if !self.annotations.iter().any(|(k, _)| *k == key) {
            self.annotations.push((key, value.into()));
        }
    }

    /// Takes over another's.
    pub fn extend(&mut self, other: Self) {
        other.warnings.into_iter().for_each(|w| self.warn(w));
        other.annotations.into_iter().for_each(|(k, v)| self.annotate(k, v));
    }
}
