//! What structural schemas do to objects: pruning and defaulting (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}/algorithm.go`).

use serde_json::{Map, Value};

use crate::field::Path;
use crate::schema::{Definitions, FieldSchema, Shape};

/// The fields of every object, which belong to no schema.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Definitions {
    /// Takes out every field that the schema does not name, except where it is open, and tells their paths.
    pub fn prune(&self, field: &FieldSchema, value: &mut Value, unknown: &mut Vec<String>) {
        self.prune_at(Some(field), value, false, None, unknown);
    }

    /// `kept`: unknown fields stay, because of what is above.
    fn prune_at(
        &self,
        field: Option<&FieldSchema>,
        value: &mut Value,
        kept: bool,
        path: Option<&Path<'_>>,
        unknown: &mut Vec<String>,
    ) {
        let field = field.map(|f| self.resolve(f));
        let kept = kept || field.is_some_and(|f| f.open);
        match value {
            Value::Object(map) => map.retain(|key, child| {
                if field.is_some_and(|f| f.embedded) && META.contains(&key.as_str()) {
                    return true;
                }
                let known = field.and_then(|f| self.known(f, key));
                let below = path.map_or(Path::new(key), |p| p.child(key));
                match known {
                    Some(known) => self.prune_at(Some(known), child, false, Some(&below), unknown),
                    None if kept => {}
                    None => unknown.push(below.to_string()),
                }
                kept || known.is_some()
            }),
            Value::Array(items) => {
                let schema = field.and_then(|f| self.items(f));
                let root = Path::new("");
                for (i, item) in items.iter_mut().enumerate() {
                    // Inside an open list whose items have no schema there is nothing to prune.
                    if kept && schema.is_none() {
                        continue;
                    }
                    self.prune_at(schema, item, kept, Some(&path.unwrap_or(&root).index(i)), unknown);
                }
            }
            _ => {}
        }
    }

    /// Fills in defaults, and drops nulls from fields that can neither be null nor have a default.
    pub fn fill(&self, field: &FieldSchema, value: &mut Value) {
        let field = self.resolve(field);
        match value {
            Value::Object(map) => {
                self.fill_fields(field, map);
                for (key, child) in map.iter_mut() {
                    if let Some(known) = self.known(field, key) {
                        self.fill(known, child);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = self.items(field) else { return };
                for item in items {
                    if item.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *item = (**default).clone();
                    }
                    self.fill(schema, item);
                }
            }
            _ => {}
        }
    }

    fn fill_fields(&self, field: &FieldSchema, map: &mut Map<String, Value>) {
        map.retain(|key, child| {
            !child.is_null()
                || self.known(field, key).is_none_or(|known| known.nullable || known.default.is_some())
        });
        match &field.shape {
            Shape::Object(fields) => {
                for (name, schema) in fields {
                    let Some(default) = &schema.default else { continue };
                    let absent = map.get(&**name).is_none_or(|value| value.is_null() && !schema.nullable);
                    if absent {
                        map.insert(name.to_string(), (**default).clone());
                    }
                }
            }
            Shape::Map(values) => {
                if let Some(default) = &values.default {
                    for value in map.values_mut().filter(|v| v.is_null() && !values.nullable) {
                        *value = (**default).clone();
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a default stands anywhere below a field.
    pub fn has_defaults(&self, field: &FieldSchema) -> bool {
        field.default.is_some()
            || match &field.shape {
                Shape::Object(fields) => fields.iter().any(|(_, f)| self.has_defaults(f)),
                Shape::Map(values) => self.has_defaults(values),
                Shape::List(items) => self.has_defaults(items),
                _ => false,
            }
    }

    fn known<'a>(&'a self, field: &'a FieldSchema, key: &str) -> Option<&'a FieldSchema> {
        self.field(field, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn string() -> FieldSchema {
        FieldSchema { shape: Shape::String, ..FieldSchema::default() }
    }

    fn object(fields: Vec<(&str, FieldSchema)>) -> FieldSchema {
        let mut fields: Vec<(Box<str>, FieldSchema)> =
            fields.into_iter().map(|(n, f)| (n.into(), f)).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        FieldSchema { shape: Shape::Object(fields.into()), ..FieldSchema::default() }
    }

    fn schema() -> FieldSchema {
        let color = FieldSchema { default: Some(Box::new(json!("red"))), ..string() };
        let open = FieldSchema { open: true, ..object(vec![("known", object(vec![("a", string())]))]) };
        let items =
            FieldSchema { shape: Shape::List(Box::new(object(vec![("c", color.clone())]))), ..string() };
        let maybe = FieldSchema { nullable: true, ..string() };
        FieldSchema {
            embedded: true,
            ..object(vec![(
                "spec",
                object(vec![("color", color), ("open", open), ("items", items), ("maybe", maybe)]),
            )])
        }
    }

    #[test]
    fn unknown_fields_go_except_where_it_is_open() {
        let mut value = json!({"apiVersion": "v1", "metadata": {"x": 1}, "junk": 1, "spec": {
            "color": "blue", "odd": {}, "open": {"any": {"b": 1}, "known": {"a": "", "b": 2}},
            "items": [{"c": "x", "d": 1}]}});
        let mut unknown = Vec::new();
        Definitions::default().prune(&schema(), &mut value, &mut unknown);
        assert_eq!(unknown, ["junk", "spec.items[0].d", "spec.odd", "spec.open.known.b"]);
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "metadata": {"x": 1}, "spec": {"color": "blue",
                "open": {"any": {"b": 1}, "known": {"a": ""}}, "items": [{"c": "x"}]}})
        );
    }

    #[test]
    fn defaults_fill_what_is_absent_or_null_in_vain() {
        let mut value =
            json!({"spec": {"color": null, "items": [{}, {"c": "x"}], "open": null, "maybe": null}});
        Definitions::default().fill(&schema(), &mut value);
        assert_eq!(
            value,
            json!({"spec": {"color": "red", "items": [{"c": "red"}, {"c": "x"}], "maybe": null}})
        );
        let mut value = json!({});
        Definitions::default().fill(&schema(), &mut value);
        assert_eq!(value, json!({}), "no object is made for the sake of a default inside");
        assert!(Definitions::default().has_defaults(&schema()));
    }

    mod random {
        use super::*;
        use proptest::prelude::*;

        fn values() -> impl Strategy<Value = Value> {
            let leaf = prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::from),
                "[a-z]{0,3}".prop_map(Value::from)
            ];
            leaf.prop_recursive(5, 40, 5, |inner| {
                let keys = prop_oneof![
                    Just("spec"),
                    Just("color"),
                    Just("open"),
                    Just("known"),
                    Just("items"),
                    Just("a"),
                    Just("c"),
                    Just("maybe"),
                    Just("metadata"),
                    Just("zz")
                ];
                prop_oneof![
                    prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                    prop::collection::btree_map(keys.prop_map(str::to_owned), inner, 0..5)
                        .prop_map(|map| Value::Object(map.into_iter().collect())),
                ]
            })
        }

        proptest! {
            #[test]
            fn pruning_and_defaulting_twice_is_once(value in values()) {
                let (definitions, schema) = (Definitions::default(), schema());
                let (mut once, mut unknown) = (value, Vec::new());
                definitions.prune(&schema, &mut once, &mut unknown);
                definitions.fill(&schema, &mut once);
                let (mut twice, mut none) = (once.clone(), Vec::new());
                definitions.prune(&schema, &mut twice, &mut none);
                definitions.fill(&schema, &mut twice);
                prop_assert_eq!(once, twice);
                prop_assert!(none.is_empty());
            }
        }
    }
}
