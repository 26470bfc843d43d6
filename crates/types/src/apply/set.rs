use serde_json::{Map, Value};

/// One place in a set: an empty map is the place itself; otherwise `.` says whether the place is in the set, and every
/// other key is a path element with what lies below it.
pub(super) type Node = Map<String, Value>;

/// The key that stands for a place itself among what lies below it.
const SELF: &str = ".";

/// A set of paths in the form of `fieldsV1`: `{"f:spec": {"f:replicas": {}}}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(pub(super) Node);

impl FieldSet {
    /// From `fieldsV1`; `None` if it is no object.
    pub fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    /// As `fieldsV1`.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is in `other`.
    pub fn union(&mut self, other: &Self) {
        union_below(&mut self.0, &other.0);
    }

    /// Takes away what is in `other`. What lies below a path of `other` stays.
    pub fn subtract(&mut self, other: &Self) {
        subtract_below(&mut self.0, &other.0);
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(intersect_below(&self.0, &other.0))
    }

    /// Takes away `other` with all that lies below its paths.
    pub fn forget(&mut self, other: &Self) {
        forget_below(&mut self.0, &other.0);
    }

    /// Every path in the set, as the list of its elements.
    pub fn paths(&self) -> Vec<Vec<&str>> {
        let mut all = Vec::new();
        collect(&self.0, &mut Vec::new(), &mut all);
        all
    }
}

fn collect<'a>(node: &'a Node, at: &mut Vec<&'a str>, all: &mut Vec<Vec<&'a str>>) {
    for (key, below) in children(node) {
        at.push(key);
        if is_member(below) {
            all.push(at.clone());
        }
        collect(below, at, all);
        at.pop();
    }
}

/// Whether the place itself is in the set.
pub(super) fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// What lies below a place.
pub(super) fn children(node: &Node) -> impl Iterator<Item = (&String, &Node)> {
    node.iter().filter(|(key, _)| *key != SELF).filter_map(|(key, value)| Some((key, value.as_object()?)))
}

/// The place `key` below `node`.
pub(super) fn below<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.get(key).and_then(Value::as_object)
}

/// A place out of what lies below it; `None` if that is nothing and the place is not in the set itself.
pub(super) fn place(mut below: Node, member: bool) -> Option<Node> {
    if below.is_empty() && !member {
        return None;
    }
    if member && !below.is_empty() {
        below.insert(SELF.to_owned(), Value::Object(Node::new()));
    }
    Some(below)
}

fn union_below(into: &mut Node, other: &Node) {
    for (key, theirs) in children(other) {
        match into.get_mut(key) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                union_below(ours, theirs);
                if member && !ours.is_empty() {
                    ours.insert(SELF.to_owned(), Value::Object(Node::new()));
                }
            }
            _ => {
                into.insert(key.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

fn subtract_below(from: &mut Node, other: &Node) {
    for (key, theirs) in children(other) {
        let Some(Value::Object(ours)) = from.get_mut(key) else { continue };
        let member = is_member(ours) && !is_member(theirs);
        ours.remove(SELF);
        subtract_below(ours, theirs);
        match place(std::mem::take(ours), member) {
            Some(rest) => *ours = rest,
            None => {
                from.remove(key);
            }
        }
    }
}

fn intersect_below(one: &Node, other: &Node) -> Node {
    let mut both = Node::new();
    for (key, ours) in children(one) {
        let Some(theirs) = below(other, key) else { continue };
        if let Some(shared) = place(intersect_below(ours, theirs), is_member(ours) && is_member(theirs)) {
            both.insert(key.clone(), Value::Object(shared));
        }
    }
    both
}

fn forget_below(from: &mut Node, other: &Node) {
    for (key, theirs) in children(other) {
        if is_member(theirs) {
            from.remove(key);
            continue;
        }
        let Some(Value::Object(ours)) = from.get_mut(key) else { continue };
        let member = is_member(ours);
        ours.remove(SELF);
        forget_below(ours, theirs);
        match place(std::mem::take(ours), member) {
            Some(rest) => *ours = rest,
            None => {
                from.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(value).unwrap()
    }

    #[test]
    fn a_place_and_what_lies_below_it_are_different_members() {
        let mut all = set(json!({"f:a": {}}));
        all.union(&set(json!({"f:a": {"f:b": {}}, "f:c": {"f:d": {}}})));
        assert_eq!(all, set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}})));
        assert_eq!(all.intersection(&set(json!({"f:a": {"f:b": {}}}))), set(json!({"f:a": {"f:b": {}}})));
        let mut rest = all.clone();
        rest.subtract(&set(json!({"f:a": {}, "f:c": {"f:d": {}}})));
        assert_eq!(rest, set(json!({"f:a": {"f:b": {}}})));
        let mut rest = all.clone();
        rest.forget(&set(json!({"f:a": {}})));
        assert_eq!(rest, set(json!({"f:c": {"f:d": {}}})));
        assert_eq!(all.paths(), [vec!["f:a"], vec!["f:a", "f:b"], vec!["f:c", "f:d"]]);
    }
}
