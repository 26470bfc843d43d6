//! Values at random: whatever a schema allows, and a little of what it does not.

use serde_json::{Map, Value, json};
use types::{Definitions, FieldSchema, Shape};

/// Random choices out of one seed, so that a seed names a case.
pub(crate) struct Dice(u64);

const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "web",
    "c-1",
    "A",
    "-",
    "..",
    "a/b",
    "a.b",
    "x/y",
    "0",
    "-1",
    "80",
    "50%",
    "101%",
    "1Gi",
    "100m",
    "-3",
    "1e30",
    "9223372036854775808",
    "*",
    "*/5 * * * *",
    "@daily",
    "61 * * * *",
    "10.43.0.9",
    "10.0.0.0/8",
    "256.1.1.1",
    "::1",
    "fd00::/8",
    "None",
    "TCP",
    "UDP",
    "SCTP",
    "Always",
    "Never",
    "OnFailure",
    "RollingUpdate",
    "Recreate",
    "OnDelete",
    "Exists",
    "In",
    "DoesNotExist",
    "NoExecute",
    "ClusterIP",
    "NodePort",
    "LoadBalancer",
    "ExternalName",
    "Headless",
    "ReadWriteOnce",
    "Retain",
    "Delete",
    "WaitForFirstConsumer",
    "kubernetes.io/tls",
    "2026-01-01T00:00:00Z",
    "tomorrow",
    "é",
    "\u{0}",
    "$(A)",
    "app=web",
    "foregroundDeletion",
    "kubernetes",
    "YQ==",
    "YQ",
    "Running",
    "True",
    "Unknown",
    "default",
    "http",
    "v1",
    "apps/v1",
    "Pod",
    "null",
    "{}",
];
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    5,
    50,
    80,
    100,
    101,
    3600,
    30000,
    65535,
    65536,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
];

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Never zero, which would stay so.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn text(&mut self) -> String {
        match self.below(30) {
            0 => "x".repeat(300),
            1 => "a-".repeat(40),
            _ => (*self.pick(TEXTS)).to_owned(),
        }
    }

    /// Anything at all.
    pub(crate) fn anything(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => Value::Null,
            1 => self.one_in(2).into(),
            2 => (*self.pick(NUMBERS)).into(),
            3 => json!(1.5),
            4 | 5 => self.text().into(),
            6 => (0..self.below(3)).map(|_| self.anything(depth - 1)).collect(),
            _ => {
                let names = ["name", "key", "$patch", "a", "value", "$retainKeys", "metadata"];
                let entries =
                    (0..self.below(4)).map(|_| ((*self.pick(&names)).to_owned(), self.anything(depth - 1)));
                Value::Object(entries.collect())
            }
        }
    }

    /// A value of the field's type.
    pub(crate) fn value(&mut self, definitions: &Definitions, field: &FieldSchema, depth: usize) -> Value {
        if self.one_in(40) {
            return self.anything(1);
        }
        match &definitions.resolve(field).shape {
            Shape::Any => self.anything(2),
            Shape::String => self.text().into(),
            Shape::Bytes => (*self.pick(&["", "YQ==", "YQ", "é"])).into(),
            Shape::Time | Shape::MicroTime => {
                (*self.pick(&["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456+02:00", "now", ""])).into()
            }
            Shape::Integer32 | Shape::Integer64 => (*self.pick(NUMBERS)).into(),
            Shape::Number => json!(0.5),
            Shape::Boolean => self.one_in(2).into(),
            Shape::IntOrString if self.one_in(2) => (*self.pick(NUMBERS)).into(),
            Shape::IntOrString => self.text().into(),
            Shape::Quantity if self.one_in(3) => (*self.pick(NUMBERS)).into(),
            Shape::Quantity => {
                (*self.pick(&["1", "100m", "1Gi", "0", "-1", "1e30", "", "much", "0.1Ki"])).into()
            }
            Shape::List(_) | Shape::Map(_) if depth == 0 => {
                if matches!(definitions.resolve(field).shape, Shape::List(_)) { json!([]) } else { json!({}) }
            }
            Shape::List(items) => {
                (0..self.below(3)).map(|_| self.value(definitions, items, depth - 1)).collect()
            }
            Shape::Map(values) => {
                let entries =
                    (0..self.below(3)).map(|_| (self.text(), self.value(definitions, values, depth - 1)));
                Value::Object(entries.collect())
            }
            Shape::Object(fields) => {
                let mut map = Map::new();
                for _ in 0..if depth == 0 { 0 } else { self.below(4) } {
                    if !fields.is_empty() {
                        let (name, field) = &fields[self.below(fields.len())];
                        map.insert(name.to_string(), self.value(definitions, field, depth - 1));
                    }
                }
                Value::Object(map)
            }
            // Already resolved.
            Shape::Ref(_) => Value::Null,
        }
    }

    /// Changes something somewhere in a value of the field's type.
    pub(crate) fn mutate(
        &mut self,
        definitions: &Definitions,
        field: Option<&FieldSchema>,
        value: &mut Value,
    ) {
        let typed = |dice: &mut Self, field: Option<&FieldSchema>| match field {
            Some(field) => dice.value(definitions, field, 4),
            None => dice.anything(2),
        };
        match value {
            Value::Object(map) if !self.one_in(12) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                match self.below(6) {
                    0 => {
                        // Another field of the type.
                        let shape = field.map(|f| &definitions.resolve(f).shape);
                        let (name, of) = match shape {
                            Some(Shape::Object(fields)) if !fields.is_empty() && !self.one_in(8) => {
                                let (name, of) = &fields[self.below(fields.len())];
                                (name.to_string(), Some(of))
                            }
                            Some(Shape::Map(values)) => (self.text(), Some(&**values)),
                            _ => ("extra".to_owned(), None),
                        };
                        map.insert(name, typed(self, of));
                    }
                    1 if !keys.is_empty() => drop(map.remove(self.pick(&keys))),
                    _ if keys.is_empty() => *value = typed(self, field),
                    _ => {
                        let key = self.pick(&keys);
                        let below = field.and_then(|f| definitions.field(f, key));
                        if let Some(child) = map.get_mut(key) {
                            self.mutate(definitions, below, child);
                        }
                    }
                }
            }
            Value::Array(list) if !self.one_in(12) => {
                let items = field.and_then(|f| definitions.items(f));
                let at = self.below(list.len());
                match self.below(5) {
                    0 => list.push(typed(self, items)),
                    1 if !list.is_empty() => list.push(list[at].clone()),
                    2 if !list.is_empty() => drop(list.remove(at)),
                    _ if list.is_empty() => list.push(typed(self, items)),
                    _ => self.mutate(definitions, items, &mut list[at]),
                }
            }
            _ => *value = if self.one_in(10) { Value::Null } else { typed(self, field) },
        }
    }
}
