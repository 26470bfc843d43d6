use std::fmt;

use serde_json::Value;

use crate::names::{label_value, qualified_name};

/// A selector that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Text that does not follow the grammar.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// An operator that no requirement has.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// A field that objects of this kind cannot be selected by.
    #[error("field label not supported: {0}")]
    UnsupportedField(String),
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A character in a field's value that needs a backslash.
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(char),
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Requirement {
    Exists(String),
    NotExists(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    /// The label's value is a whole number above the bound.
    Gt(String, i64),
    /// The label's value is a whole number below the bound.
    Lt(String, i64),
}

impl Requirement {
    /// Whether labels, seen through `label`, satisfy the condition.
    pub fn matches<'a>(&self, label: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| label(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::Exists(key) => label(key).is_some(),
            Self::NotExists(key) => label(key).is_none(),
            Self::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => label(key).is_none_or(|v| !values.iter().any(|w| w == v)),
            Self::Gt(key, bound) => number(key).is_some_and(|n| n > *bound),
            Self::Lt(key, bound) => number(key).is_some_and(|n| n < *bound),
        }
    }
}

/// Conditions on labels that must all hold (kubernetes/kubernetes, `apimachinery/pkg/labels/selector.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects what satisfies every requirement.
    pub fn of(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Parses the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text.trim() };
        let mut requirements = Vec::new();
        while !parser.rest.is_empty() {
            requirements.push(parser.requirement()?);
            if !parser.rest.is_empty() && (!parser.eat(",") || parser.rest.is_empty()) {
                return Err(parser.fault("expected ',' or end of selector, then a requirement"));
            }
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `metav1.LabelSelector` (`matchLabels`, `matchExpressions`); absent selects nothing, empty
    /// selects everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = Self::from_map(selector.get("matchLabels")).requirements;
        for e in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = e.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
            let values = || -> Vec<String> {
                let list = e.get("values").and_then(Value::as_array).into_iter().flatten();
                list.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            requirements.push(match e.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Requirement::In(key, values()),
                "NotIn" => Requirement::NotIn(key, values()),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::NotExists(key),
                other => return Err(SelectorError::Operator(other.to_owned())),
            });
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a plain map such as a Service's selector; every entry must match.
    pub fn from_map(map: Option<&Value>) -> Self {
        let entries = map.and_then(Value::as_object).into_iter().flatten();
        let requirements = entries
            .map(|(k, v)| Requirement::In(k.clone(), vec![v.as_str().unwrap_or_default().to_owned()]))
            .collect();
        Self { requirements, nothing: false }
    }

    /// Whether labels, seen through `label`, are selected.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(&label))
    }

    /// Whether an object's `metadata.labels` are selected.
    pub fn matches_labels(&self, labels: Option<&Value>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match r {
                Requirement::Exists(k) => write!(f, "{k}")?,
                Requirement::NotExists(k) => write!(f, "!{k}")?,
                Requirement::In(k, v) if v.len() == 1 => write!(f, "{k}={}", v[0])?,
                Requirement::In(k, v) => write!(f, "{k} in ({})", v.join(","))?,
                Requirement::NotIn(k, v) if v.len() == 1 => write!(f, "{k}!={}", v[0])?,
                Requirement::NotIn(k, v) => write!(f, "{k} notin ({})", v.join(","))?,
                Requirement::Gt(k, n) => write!(f, "{k}>{n}")?,
                Requirement::Lt(k, n) => write!(f, "{k}<{n}")?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn fault(&self, why: &str) -> SelectorError {
        SelectorError::Syntax(format!("{why}, found {:?}", self.rest))
    }

    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn word(&mut self) -> &'a str {
        let special = |c: char| c.is_whitespace() || "=!,()<>".contains(c);
        let end = self.rest.find(special).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        let key = self.word();
        match qualified_name(key).first() {
            Some(fault) => Err(SelectorError::Syntax(format!("<nil>: Invalid value: {key:?}: {fault}"))),
            None => Ok(key.to_owned()),
        }
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        let value = self.word();
        match label_value(value).first() {
            Some(fault) => {
                Err(SelectorError::Syntax(format!("values[0][{value}]: Invalid value: {value:?}: {fault}")))
            }
            None => Ok(value.to_owned()),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.eat("(") {
            return Err(self.fault("expected '('"));
        }
        if self.rest.starts_with(')') {
            return Err(self.fault("for 'in', 'notin' operators, values set can't be empty"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if self.eat(")") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(self.fault("expected ',' or ')'"));
            }
        }
    }

    fn bound(&mut self) -> Result<i64, SelectorError> {
        let word = self.word();
        word.parse().map_err(|_| {
            SelectorError::Syntax(format!(
                "values[0]: Invalid value: {word:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        })
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.eat("!") {
            return Ok(Requirement::NotExists(self.key()?));
        }
        let key = self.key()?;
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement::Exists(key));
        }
        if self.eat("!=") {
            return Ok(Requirement::NotIn(key, vec![self.value()?]));
        }
        if self.eat("==") || self.eat("=") {
            return Ok(Requirement::In(key, vec![self.value()?]));
        }
        if self.eat(">") {
            return Ok(Requirement::Gt(key, self.bound()?));
        }
        if self.eat("<") {
            return Ok(Requirement::Lt(key, self.bound()?));
        }
        match self.word() {
            "in" => Ok(Requirement::In(key, self.values()?)),
            "notin" => Ok(Requirement::NotIn(key, self.values()?)),
            _ => Err(self.fault("expected one of '!', '=', '==', '!=', '<', '>', 'in', 'notin'")),
        }
    }
}

/// Conditions on fields that must all hold: `a=b,c!=d` (kubernetes/kubernetes,
/// `apimachinery/pkg/fields/selector.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Parses the text form; `\\` escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let (at, len, equal) = ["!=", "==", "="]
                .iter()
                .filter_map(|op| term.find(op).map(|at| (at, op.len(), *op != "!=")))
                .min_by_key(|&(at, len, _)| (at, std::cmp::Reverse(len)))
                .ok_or_else(|| {
                    SelectorError::Syntax(format!("invalid selector: '{text}'; can't understand '{term}'"))
                })?;
            terms.push((term[..at].to_owned(), equal, unescape(&term[at + len..])?));
        }
        Ok(Self(terms))
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the fields that occur.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(field, ..)| field.as_str())
    }

    /// Every condition: the field, whether it must equal the value or must not, and the value.
    pub fn requirements(&self) -> impl Iterator<Item = (&str, bool, &str)> {
        self.0.iter().map(|(field, equal, value)| (field.as_str(), *equal, value.as_str()))
    }

    /// The value that `field` must have, if it must equal one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(f, equal, _)| f == field && *equal).map(|(.., v)| v.as_str())
    }

    /// Whether an object is selected whose fields are seen through `field`; an absent field is empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|(name, equal, value)| (field(name) == value) == *equal)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => escaped,
                other => return Err(SelectorError::Escape(std::iter::once(c).chain(other).collect())),
            },
            ',' | '=' => return Err(SelectorError::Unescaped(c)),
            other => other,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn selects(selector: &str, labels: &Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches_labels(Some(labels))
    }

    #[test]
    fn selects_by_labels() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for yes in [
            "",
            "app=web",
            "app==web",
            "app in (web,db)",
            "app",
            "!x",
            "x!=y",
            "x notin (y)",
            "app=web,tier",
            "n>4",
            "n < 6",
            " app = web , tier ",
        ] {
            assert!(selects(yes, &labels), "{yes}");
        }
        for no in ["app=db", "!app", "x", "app notin (web)", "app!=web", "n>5", "x>1"] {
            assert!(!selects(no, &labels), "{no}");
        }
        for bad in
            ["=", "app=web,", "a b", "app in web", "app in (web", "a===b", ",a", "n>x", "a=b c", "a in ()"]
        {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_selector_objects() {
        let labels = json!({"app": "web"});
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
        assert!(LabelSelector::from_object(Some(&selector)).unwrap().matches_labels(Some(&labels)));
        assert!(!LabelSelector::from_object(None).unwrap().matches_labels(Some(&labels)));
        assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches_labels(None));
    }

    #[test]
    fn selects_by_fields() {
        let s = FieldSelector::parse("metadata.name=a,status.phase!=Failed").unwrap();
        let field = |name: &str| if name == "metadata.name" { "a" } else { "Running" };
        assert!(s.matches(field));
        assert_eq!(s.required("metadata.name"), Some("a"));
        assert!(FieldSelector::parse("x").is_err());
        assert_eq!(FieldSelector::parse("a=b\\,c").unwrap().required("a"), Some("b,c"));
        assert_eq!(FieldSelector::parse("a=b=c"), Err(SelectorError::Unescaped('=')));
        assert_eq!(FieldSelector::parse("a=b\\x"), Err(SelectorError::Escape("\\x".into())));
        assert_eq!(FieldSelector::parse("a=b\\"), Err(SelectorError::Escape("\\".into())));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn text_form_parses_back(text in "[a-c](=[a-c]|!=[a-c]| in \\([a-c],[a-c]\\)|>1)?(,!?[x-z]){0,3}") {
            let parsed = LabelSelector::parse(&text).unwrap();
            prop_assert_eq!(LabelSelector::parse(&parsed.to_string()).unwrap(), parsed);
        }

        #[test]
        fn whatever_parses_has_a_text_form(text in "([!(]?[ab.9/-]{0,3}(=|==|!=|<|>| in | notin | )?[(,)ab1 -]{0,5}){1,3}") {
            if let Ok(parsed) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&parsed.to_string()), Ok(parsed));
            }
        }

        #[test]
        fn selectors_mean_what_they_say(
            conditions in proptest::collection::vec(("[a-c]", 0..8usize, proptest::collection::vec("[0-3]", 1..3)), 0..4),
            labels in proptest::collection::btree_map("[a-c]", "[0-3]?", 0..3),
        ) {
            let (mut texts, mut expected) = (Vec::new(), true);
            for (key, operator, values) in &conditions {
                let (first, label) = (&values[0], labels.get(key));
                let (listed, number) = (label.is_some_and(|l| values.contains(l)), label.and_then(|l| l.parse::<i64>().ok()));
                let bound: i64 = first.parse().unwrap();
                let (text, holds) = match operator {
                    0 => (key.clone(), label.is_some()),
                    1 => (format!("!{key}"), label.is_none()),
                    2 => (format!("{key}={first}"), label == Some(first)),
                    3 => (format!("{key} != {first}"), label != Some(first)),
                    4 => (format!("{key} in ({})", values.join(", ")), listed),
                    5 => (format!("{key} notin({})", values.join(",")), !listed),
                    6 => (format!("{key}>{first}"), number.is_some_and(|n| n > bound)),
                    _ => (format!("{key} < {first}"), number.is_some_and(|n| n < bound)),
                };
                texts.push(text);
                expected &= holds;
            }
            let parsed = LabelSelector::parse(&texts.join(" , ")).unwrap();
            prop_assert_eq!(parsed.matches_labels(Some(&json!(labels))), expected, "{:?}", texts);
        }

        #[test]
        fn field_values_survive_escaping(
            terms in proptest::collection::vec(("[a-z.]{1,8}", any::<bool>(), "[a-z,=!\\\\é ]{0,6}"), 0..4),
        ) {
            let text = |(field, equal, value): &(String, bool, String)| {
                let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
                format!("{field}{}{value}", if *equal { "=" } else { "!=" })
            };
            let whole = terms.iter().map(text).collect::<Vec<_>>().join(",");
            prop_assert_eq!(FieldSelector::parse(&whole), Ok(FieldSelector(terms)), "{}", whole);
        }
    }
}
