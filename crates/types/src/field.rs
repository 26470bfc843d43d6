use std::fmt;

use serde_json::Value;

use crate::status::Cause;

/// The way to a field inside an object: `spec.containers[0].name`.
///
/// Cheap to extend on the way down; text is made only when there is something to say.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path of one field.
    pub const fn new(name: &'a str) -> Self {
        Self { parent: None, step: Step::Name(name) }
    }

    /// The field `name` below this one.
    pub const fn child<'b>(&'b self, name: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Name(name) }
    }

    /// The element `index` of this list.
    pub const fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// The entry `key` of this map.
    pub const fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Name(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with one field.
///
/// Wording follows kubernetes/kubernetes, `apimachinery/pkg/util/validation/field/errors.go`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Machine-readable, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// The field's path.
    pub field: String,
    /// For people, without the path.
    pub message: String,
}

/// All that is wrong with one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors {
    list: Vec<FieldError>,
    /// How long the messages are together.
    bytes: usize,
}

/// What is said of one object has an end: a message may show a whole list, and there may be one for each of its elements.
const MOST_BYTES: usize = 4 << 20;

impl FieldErrors {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much is wrong.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The errors in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.list.iter()
    }

    /// Adds another's errors.
    pub fn extend(&mut self, other: FieldErrors) {
        self.bytes += other.bytes;
        self.list.extend(other.list);
    }

    fn push(&mut self, reason: &'static str, path: &Path<'_>, message: String) {
        if self.bytes > MOST_BYTES {
            return;
        }
        self.bytes += message.len();
        self.list.push(FieldError { reason, field: path.to_string(), message });
    }

    /// The field must be set.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        let message =
            if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        self.push("FieldValueRequired", path, message);
    }

    /// The field's value is not allowed.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: &str) {
        let value = shown(&value.into());
        self.push("FieldValueInvalid", path, with_detail(format!("Invalid value: {value}"), detail));
    }

    /// The field's value, which is not worth showing, is not allowed.
    pub fn invalid_unshown(&mut self, path: &Path<'_>, detail: &str) {
        self.push("FieldValueInvalid", path, format!("Invalid value: {detail}"));
    }

    /// The field's value has a type that does not fit here.
    pub fn type_invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: &str) {
        let value = shown(&value.into());
        self.push("FieldValueTypeInvalid", path, with_detail(format!("Invalid value: {value}"), detail));
    }

    /// The value is none of a list.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let value = shown(&value.into());
        self.push(
            "FieldValueNotSupported",
            path,
            format!("Unsupported value: {value}: supported values: {list}"),
        );
    }

    /// The value occurs twice.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        let value = shown(&value.into());
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {value}"));
    }

    /// The value occurs twice, with a word on what counts as twice.
    pub fn duplicate_of(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: &str) {
        let value = shown(&value.into());
        self.push("FieldValueDuplicate", path, with_detail(format!("Duplicate value: {value}"), detail));
    }

    /// The field must not be set or changed.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push("FieldValueForbidden", path, with_detail("Forbidden".into(), detail));
    }

    /// What the field names does not exist.
    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        let value = shown(&value.into());
        self.push("FieldValueNotFound", path, format!("Not found: {value}"));
    }

    /// The same, with a word on what there is.
    pub fn not_found_among(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: &str) {
        let value = shown(&value.into());
        self.push("FieldValueNotFound", path, with_detail(format!("Not found: {value}"), detail));
    }

    /// The list or map has more than `most` entries.
    pub fn too_many(&mut self, path: &Path<'_>, count: usize, most: usize) {
        let items = if most == 1 { "item" } else { "items" };
        self.push("FieldValueTooMany", path, format!("Too many: {count}: must have at most {most} {items}"));
    }

    /// Something went wrong while looking at the field.
    pub fn internal(&mut self, path: &Path<'_>, why: &str) {
        self.push("InternalError", path, format!("Internal error: {why}"));
    }

    /// The value has more than `most` bytes.
    pub fn too_long(&mut self, path: &Path<'_>, most: usize) {
        self.push("FieldValueTooLong", path, format!("Too long: may not be more than {most} bytes"));
    }

    /// An error whose path and message are made already; `reason` is machine-readable, such as `FieldValueInvalid`.
    pub fn add(&mut self, reason: &'static str, field: impl Into<String>, message: impl Into<String>) {
        self.list.push(FieldError { reason, field: field.into(), message: message.into() });
    }

    /// The field may not change; `value` is the new one.
    pub fn immutable(&mut self, path: &Path<'_>, value: &Value) {
        self.invalid(path, value.clone(), "field is immutable");
    }

    /// The causes of a `Status`.
    pub fn causes(&self) -> Vec<Cause> {
        let cause = |e: &FieldError| Cause {
            reason: e.reason.into(),
            message: e.message.clone(),
            field: e.field.clone(),
        };
        self.list.iter().map(cause).collect()
    }
}

/// Strings stand in quotes, structures as compact JSON, and nothing as the word in quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".into(),
        other => other.to_string(),
    }
}

fn with_detail(what: String, detail: &str) -> String {
    if detail.is_empty() { what } else { format!("{what}: {detail}") }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> =
            self.list.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        // There may be as many as a client likes.
        let mut seen = std::collections::HashSet::new();
        let first: Vec<bool> = lines.iter().map(|line| seen.insert(line.as_str())).collect();
        let mut first = first.into_iter();
        lines.retain(|_| first.next().unwrap_or(true));
        match lines.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_has_an_end() {
        let mut errors = FieldErrors::new();
        let long = Value::from("x".repeat(1000));
        for _ in 0..100_000 {
            errors.invalid(&Path::new("a"), long.clone(), "no");
        }
        assert!(errors.len() > 1000 && errors.len() < 10_000, "{}", errors.len());
        assert_eq!(errors.to_string().matches("xxx: ").count(), 0);
        assert!(errors.to_string().len() < 2000, "one line for what is said many times");
    }

    #[test]
    fn shows_path_and_value() {
        let mut errors = FieldErrors::new();
        let spec = Path::new("spec");
        errors.invalid(&spec.child("replicas"), -1, "must be greater than or equal to 0");
        assert_eq!(
            errors.to_string(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        let containers = spec.child("containers");
        errors.required(&containers.index(0).child("name"), "");
        assert!(errors.to_string().ends_with(", spec.containers[0].name: Required value]"));
        assert_eq!(errors.causes()[1].field, "spec.containers[0].name");
    }
}
