//! Which of its names a definition gets (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/controller/status/naming_controller.go`, `calculateNamesAndConditions`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The names of a custom kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// In URLs.
    pub plural: Box<str>,
    /// Lower case.
    pub singular: Box<str>,
    /// Of objects.
    pub kind: Box<str>,
    /// Of lists.
    pub list_kind: Box<str>,
    /// For users in haste.
    pub short_names: Vec<Box<str>>,
    /// For users in want of everything.
    pub categories: Vec<Box<str>>,
}

impl Names {
    /// From a definition's `spec.names` or `status.acceptedNames`.
    pub fn of(names: &Value) -> Self {
        let text = |key: &str| names[key].as_str().unwrap_or_default().into();
        let list = |key: &str| {
            names[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
        };
        Self {
            plural: text("plural"),
            singular: text("singular"),
            kind: text("kind"),
            list_kind: text("listKind"),
            short_names: list("shortNames"),
            categories: list("categories"),
        }
    }

    /// As a definition shows them.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("plural".into(), json!(self.plural));
        map.insert("kind".into(), json!(self.kind));
        for (key, text) in [("singular", &self.singular), ("listKind", &self.list_kind)] {
            if !text.is_empty() {
                map.insert(key.into(), json!(text));
            }
        }
        for (key, list) in [("shortNames", &self.short_names), ("categories", &self.categories)] {
            if !list.is_empty() {
                map.insert(key.into(), json!(list));
            }
        }
        Value::Object(map)
    }
}

/// The names that others of the same group hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenNames {
    /// Plurals, singulars and short names.
    pub resources: BTreeSet<Box<str>>,
    /// Kinds and list kinds.
    pub kinds: BTreeSet<Box<str>>,
}

impl TakenNames {
    /// Adds another's names.
    pub fn add(&mut self, names: &Names) {
        self.resources
            .extend([&names.plural, &names.singular].into_iter().filter(|n| !n.is_empty()).cloned());
        self.resources.extend(names.short_names.iter().cloned());
        self.kinds.extend([&names.kind, &names.list_kind].into_iter().filter(|n| !n.is_empty()).cloned());
    }
}

/// The names a definition gets, and the reason and message why not all of those it wants.
pub fn accept(wanted: &Names, held: &Names, taken: &TakenNames) -> (Names, Option<(&'static str, String)>) {
    let mut given = held.clone();
    let mut conflict = None;
    let mut decide = |wanted: &str, held: &str, taken: &BTreeSet<Box<str>>, reason: &'static str| {
        let free = wanted == held || !taken.contains(wanted);
        if !free {
            conflict = Some((reason, format!("{wanted:?} is already in use")));
        }
        free
    };
    if decide(&wanted.plural, &held.plural, &taken.resources, "PluralConflict") {
        given.plural = wanted.plural.clone();
    }
    if decide(&wanted.singular, &held.singular, &taken.resources, "SingularConflict") {
        given.singular = wanted.singular.clone();
    }
    let mut refused = Vec::new();
    for name in &wanted.short_names {
        if !held.short_names.contains(name) && taken.resources.contains(name) {
            refused.push(format!("{name:?} is already in use"));
        }
    }
    if refused.is_empty() {
        given.short_names = wanted.short_names.clone();
    } else {
        let text = match refused.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        conflict = Some(("ShortNamesConflict", text));
    }
    let mut decide = |wanted: &str, held: &str, reason: &'static str| {
        let free = wanted == held || !taken.kinds.contains(wanted);
        if !free {
            conflict = Some((reason, format!("{wanted:?} is already in use")));
        }
        free
    };
    if decide(&wanted.kind, &held.kind, "KindConflict") {
        given.kind = wanted.kind.clone();
    }
    if decide(&wanted.list_kind, &held.list_kind, "ListKindConflict") {
        given.list_kind = wanted.list_kind.clone();
    }
    given.categories = wanted.categories.clone();
    (given, conflict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plural: &str, kind: &str, short: &[&str]) -> Names {
        Names::of(&json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
            "listKind": format!("{kind}List"), "shortNames": short}))
    }

    #[test]
    fn who_comes_first_keeps_the_name() {
        let mut taken = TakenNames::default();
        taken.add(&names("things", "Thing", &["th"]));
        let wanted = names("others", "Other", &["th", "ot"]);
        let (given, conflict) = accept(&wanted, &Names::default(), &taken);
        assert_eq!(conflict, Some(("ShortNamesConflict", "\"th\" is already in use".into())));
        assert_eq!((&*given.plural, given.short_names.len()), ("others", 0));
        let (given, conflict) = accept(&names("thingies", "Thing", &[]), &Names::default(), &taken);
        assert_eq!(conflict.map(|c| c.0), Some("ListKindConflict"));
        assert_eq!((&*given.plural, &*given.kind), ("thingies", ""));
        assert_eq!(
            accept(&wanted, &wanted, &taken),
            (wanted.clone(), None),
            "what is held is not taken away"
        );
        assert_eq!(Names::of(&wanted.to_value()), wanted);
    }
}
