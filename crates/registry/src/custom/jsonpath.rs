//! JSONPath as columns use it (kubernetes/client-go, `util/jsonpath`): fields, indices, slices, wildcards, descent
//! and filters.

use serde_json::Value;

/// A path, readied.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(Box<str>),
    Every,
    Slice { from: Option<i64>, to: Option<i64>, by: i64 },
    Index(i64),
    Names(Vec<Box<str>>),
    Descend(Box<str>),
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Exists(Vec<Step>),
    Compare(Operand, Op, Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Equal,
    Differs,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text.strip_prefix('$').unwrap_or(text) };
        let steps = reader.steps(&[])?;
        reader.rest.is_empty().then_some(Self(steps))
    }

    /// The first value that the path leads to.
    pub(super) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        select(&self.0, value).into_iter().next()
    }
}

fn select<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut now = vec![value];
    for step in steps {
        now = now.into_iter().flat_map(|value| step.select(value)).collect();
        if now.is_empty() {
            break;
        }
    }
    now
}

impl Step {
    fn select<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(&**name).into_iter().collect(),
            Self::Names(names) => names.iter().filter_map(|name| value.get(&**name)).collect(),
            Self::Every => children(value),
            Self::Index(index) => {
                let list = value.as_array();
                list.and_then(|l| place(*index, l.len()).and_then(|i| l.get(i))).into_iter().collect()
            }
            Self::Slice { from, to, by } => {
                let Some(list) = value.as_array() else { return Vec::new() };
                let bound = |n: i64| {
                    let n = if n < 0 { n + list.len() as i64 } else { n };
                    usize::try_from(n.clamp(0, list.len() as i64)).unwrap_or(0)
                };
                let (from, to) = (from.map_or(0, bound), to.map_or(list.len(), bound));
                let by = usize::try_from(*by).unwrap_or(1).max(1);
                list.get(from..to.max(from)).into_iter().flatten().step_by(by).collect()
            }
            Self::Descend(name) => {
                let mut found = Vec::new();
                descend(value, name, &mut found);
                found
            }
            Self::Filter(filter) => {
                let list = value.as_array().into_iter().flatten();
                list.filter(|item| filter.holds(item)).collect()
            }
        }
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    usize::try_from(if index < 0 { index.checked_add_unsigned(length as u64)? } else { index }).ok()
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    found.extend(value.get(name));
    for child in children(value) {
        descend(child, name, found);
    }
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        match self {
            Self::Exists(steps) => !select(steps, item).is_empty(),
            Self::Compare(left, op, right) => {
                let (Some(left), Some(right)) = (left.value(item), right.value(item)) else { return false };
                let order = match (left, right) {
                    (Value::String(a), Value::String(b)) => a.partial_cmp(b),
                    (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
                    (a, b) if a == b => Some(std::cmp::Ordering::Equal),
                    _ => None,
                };
                match op {
                    Op::Equal => order.is_some_and(|o| o.is_eq()),
                    Op::Differs => order.is_none_or(|o| o.is_ne()),
                    Op::Less => order.is_some_and(|o| o.is_lt()),
                    Op::AtMost => order.is_some_and(|o| o.is_le()),
                    Op::More => order.is_some_and(|o| o.is_gt()),
                    Op::AtLeast => order.is_some_and(|o| o.is_ge()),
                }
            }
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(steps) => select(steps, item).into_iter().next(),
            Self::Literal(value) => Some(value),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn takes(&mut self, text: &str) -> bool {
        let found = self.rest.strip_prefix(text);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// Steps up to the end, or up to one of the characters in `until`.
    fn steps(&mut self, until: &[char]) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.rest.is_empty() || self.rest.starts_with(until) {
                return Some(steps);
            }
            if self.takes("..") {
                steps.push(Step::Descend(self.name(until)?));
            } else if self.takes("[") {
                steps.push(self.brackets()?);
            } else {
                self.takes(".");
                if self.takes("*") {
                    steps.push(Step::Every);
                } else if self.rest.is_empty() && steps.is_empty() {
                    return Some(steps);
                } else if !self.rest.starts_with('[') {
                    steps.push(Step::Field(self.name(until)?));
                }
            }
        }
    }

    /// A field's name, in which a backslash takes the next character as it is.
    fn name(&mut self, until: &[char]) -> Option<Box<str>> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => name.push(chars.next()?.1),
                '.' | '[' => {
                    end = i;
                    break;
                }
                c if until.contains(&c) => {
                    end = i;
                    break;
                }
                ']' | '}' | '{' => return None,
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        (!name.is_empty()).then(|| name.into())
    }

    fn brackets(&mut self) -> Option<Step> {
        if self.takes("?(") {
            let filter = self.filter()?;
            return (self.takes(")") && self.takes("]")).then_some(Step::Filter(filter));
        }
        let end = self.closing()?;
        let inner = self.rest[..end].trim();
        self.rest = &self.rest[end + 1..];
        if inner == "*" {
            return Some(Step::Every);
        }
        if inner.starts_with(['\'', '"']) {
            let names = inner.split(',').map(|part| {
                let part = part.trim();
                let quote = part.chars().next()?;
                let name = part.strip_prefix(quote)?.strip_suffix(quote)?;
                Some(name.replace("\\.", ".").into())
            });
            return names.collect::<Option<Vec<Box<str>>>>().map(Step::Names);
        }
        if let Some((from, rest)) = inner.split_once(':') {
            let (to, by) = rest.split_once(':').unwrap_or((rest, ""));
            let number = |text: &str| match text.trim() {
                "" => Some(None),
                text => text.parse::<i64>().ok().map(Some),
            };
            return Some(Step::Slice { from: number(from)?, to: number(to)?, by: number(by)?.unwrap_or(1) });
        }
        inner.parse().ok().map(Step::Index)
    }

    /// Where the bracket that is open closes, quotes apart.
    fn closing(&self) -> Option<usize> {
        let mut quote = None;
        for (i, c) in self.rest.char_indices() {
            match (quote, c) {
                (None, ']') => return Some(i),
                (None, '\'' | '"') => quote = Some(c),
                (Some(q), c) if c == q => quote = None,
                _ => {}
            }
        }
        None
    }

    fn filter(&mut self) -> Option<Filter> {
        let left = self.operand()?;
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(')') {
            return match left {
                Operand::Path(steps) => Some(Filter::Exists(steps)),
                Operand::Literal(_) => None,
            };
        }
        let ops = [
            ("==", Op::Equal),
            ("!=", Op::Differs),
            ("<=", Op::AtMost),
            (">=", Op::AtLeast),
            ("<", Op::Less),
            (">", Op::More),
        ];
        let op = ops.into_iter().find(|(text, _)| self.takes(text))?.1;
        let right = self.operand()?;
        self.rest = self.rest.trim_start();
        Some(Filter::Compare(left, op, right))
    }

    fn operand(&mut self) -> Option<Operand> {
        self.rest = self.rest.trim_start();
        if self.takes("@") {
            return self.steps(&[')', '=', '!', '<', '>', ' ']).map(Operand::Path);
        }
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let end = self.rest[1..].find(quote)? + 1;
            let text = self.rest[1..end].to_owned();
            self.rest = &self.rest[end + 1..];
            return Some(Operand::Literal(text.into()));
        }
        let end = self.rest.find([')', '=', '!', '<', '>', ' ']).unwrap_or(self.rest.len());
        let value = serde_json::from_str(&self.rest[..end]).ok()?;
        self.rest = &self.rest[end..];
        Some(Operand::Literal(value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leads_to_what_it_names() {
        let object = json!({"spec": {"a": 1, "l": [1, 2, 3], "x.y/z": "dot"}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False", "n": 5}]}});
        for (path, want) in [
            (".spec.a", json!(1)),
            ("$.spec.a", json!(1)),
            (".spec.l[0]", json!(1)),
            (".spec.l[-1]", json!(3)),
            (".spec.l[1:]", json!(2)),
            (".spec.l[*]", json!(1)),
            (".spec['a']", json!(1)),
            (r".spec.x\.y/z", json!("dot")),
            (".spec['x.y/z']", json!("dot")),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
            (".status.conditions[?(@.type == 'Other')].n", json!(5)),
            (".status.conditions[?(@.n>1)].type", json!("Other")),
            (".status.conditions[?(@.n)].type", json!("Ready")),
            ("..n", json!(1)),
            (".status.conditions[1].status", json!("False")),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(parsed.first(&object), Some(&want), "{path}");
        }
        for path in [".spec.none", ".spec.a.b", ".spec.l[7]", ".spec.l.x"] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), None, "{path}");
        }
        for bad in [".a[", ".a[?(@.b==)]", ".a]b", ".a[x]", "..", ".a["] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in "[.\\[\\]a-c0-9@?()='*:\\\\\"<>!-]{0,24}") {
            if let Some(path) = JsonPath::parse(&path) {
                let _ = path.first(&json!({"a": [{"b": 1}, {"c": [1]}], "b": {"a": 2}}));
            }
        }
    }
}
