use serde_json::Value as Json;

use crate::ty::{Decl, ListKind, Type};

/// No request is larger, so neither is anything in it (apiserver, `pkg/cel/limits.go`,
/// `DefaultMaxRequestSizeBytes`).
const MOST_BYTES: u64 = 3 * 1024 * 1024;

/// The type that data of a structural schema has in CEL, with bounds from `maxLength`, `maxItems`, `maxProperties`,
/// `enum` and, without those, from the size of requests (apiserver, `pkg/cel/common/schemas.go`, `SchemaDeclType`).
/// `None` for what expressions cannot see. With `root`, the object has `apiVersion`, `kind` and `metadata` too.
/// `name` is the type's name in messages; parts get names below it.
pub fn schema_decl(schema: &Json, name: &str, root: bool) -> Option<Decl> {
    Some(declared(schema, name, root)?.0)
}

/// How many values of this schema one request can hold (apiserver, `pkg/apis/cel/config.go`, `MaxCardinality`).
pub fn most_values(schema: &Json) -> u64 {
    MOST_BYTES / (declared(schema, "", false).map_or(0, |(_, least)| least) + 1)
}

/// The declaration, and how many bytes its JSON has at least.
fn declared(schema: &Json, name: &str, root: bool) -> Option<(Decl, u64)> {
    let number = |key: &str| schema.get(key).and_then(Json::as_u64);
    if schema.get("x-kubernetes-int-or-string") == Some(&Json::Bool(true)) {
        return Some((Decl::new(Type::Dyn).max(MOST_BYTES - 2), 1));
    }
    match schema.get("type")?.as_str()? {
        "array" => {
            let (items, least) = declared(schema.get("items")?, &format!("{name}.@idx"), false)?;
            let max = number("maxItems").unwrap_or((MOST_BYTES - 2) / (least + 1));
            Some((Decl::new(Type::list_of(items, list_kind(schema))).max(max), 2))
        }
        "object" => object(schema, name, root),
        "string" => Some(string(schema, number("maxLength"))),
        "boolean" => Some((Type::Bool.into(), 4)),
        "number" => Some((Type::Double.into(), 1)),
        "integer" => Some((Type::Int.into(), 1)),
        _ => None,
    }
}

fn list_kind(schema: &Json) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            ListKind::Map(keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect())
        }
        _ => ListKind::Atomic,
    }
}

fn object(schema: &Json, name: &str, root: bool) -> Option<(Decl, u64)> {
    let text = || Decl::new(Type::String).max(MOST_BYTES - 2);
    if let Some(values) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        let (values, least) = declared(values, &format!("{name}.@elem"), false)?;
        let max = schema.get("maxProperties").and_then(Json::as_u64);
        let max = max.unwrap_or(MOST_BYTES / (least + 6));
        return Some((Decl::new(Type::map(text(), values)).max(max), 2));
    }
    let required = schema.get("required").and_then(Json::as_array);
    let required = |field: &str| required.is_some_and(|r| r.iter().any(|f| f == field));
    let mut fields = Vec::new();
    let mut least = 2;
    for (field, of) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let Some((decl, size)) = declared(of, &format!("{name}.{field}"), false) else { continue };
        if required(field) && of.get("default").is_none() {
            least += field.len() as u64 + 4 + size;
        }
        fields.push((field.clone(), decl));
    }
    if root || schema.get("x-kubernetes-embedded-resource") == Some(&Json::Bool(true)) {
        fields.retain(|(field, _)| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata"));
        let metadata = Type::structure(
            format!("{name}.metadata"),
            ["name", "generateName"].map(|f| (f.to_owned(), text())),
        );
        fields.extend(["apiVersion", "kind"].map(|f| (f.to_owned(), text())));
        fields.push(("metadata".to_owned(), metadata.into()));
    }
    Some((Type::structure(name, fields).into(), least))
}

fn string(schema: &Json, max: Option<u64>) -> (Decl, u64) {
    let longest = schema
        .get("enum")
        .and_then(Json::as_array)
        .and_then(|values| values.iter().filter_map(Json::as_str).map(|s| s.chars().count() as u64).max());
    let bounded = |ty| Decl::new(ty).max(max.or(longest).unwrap_or(MOST_BYTES - 2));
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => (bounded(Type::Bytes), 2),
        Some("duration") => (Type::Duration.into(), 4),
        Some("date") => (Type::Timestamp.into(), 12),
        Some("date-time") => (Type::Timestamp.into(), 22),
        _ => (bounded(Type::String), 2),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Env;

    #[test]
    fn types_and_bounds() {
        let schema = json!({
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "names": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}},
                        "port": {"x-kubernetes-int-or-string": true},
                        "free": {"type": "array", "items": {"type": "string"}},
                        "mode": {"type": "string", "enum": ["a", "abc"]},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "when": {"type": "string", "format": "date-time"},
                        "raw": {"x-kubernetes-preserve-unknown-fields": true}
                    }
                }
            }
        });
        let env = Env::builder().variable("self", schema_decl(&schema, "selfType", true).unwrap()).build();
        for (source, want) in [
            ("self.spec", "selfType.spec"),
            ("self.spec.names", "list(string)"),
            ("self.spec.port", "dyn"),
            ("self.spec.labels", "map(string, string)"),
            ("self.spec.when", "timestamp"),
            ("self.metadata.name + self.kind", "string"),
        ] {
            assert_eq!(env.compile(source).unwrap().result_type().to_string(), want, "{source}");
        }
        assert!(env.compile("self.spec.raw").is_err());
        let max = |source: &str| env.compile(source).unwrap().estimate().max;
        assert_eq!(max("self.spec.names.all(n, n == 'x')"), 4 + 5 * (2 + 1 + 2));
        assert!(max("self.spec.mode.matches('^a+$')") < 10);
        assert!(max("self.spec.free.all(a, self.spec.free.all(b, a == b))") > crate::ESTIMATED_RULE_LIMIT);
    }
}
