//! Who gives rights away must have them (kubernetes/kubernetes, `pkg/registry/rbac/validation/policy_comparator.go`
//! and `policy_compact.go`).

use std::collections::BTreeSet;

use super::rule::{Rule, quoted};
use crate::user::User;

/// Those of `asked` that `owned` does not cover, each about one verb of one resource or path.
pub fn missing_rules(owned: &[Rule], asked: &[Rule]) -> Vec<Rule> {
    let parts = asked.iter().flat_map(break_down);
    parts.filter(|part| !owned.iter().any(|rule| covers(rule, part))).collect()
}

/// The refusal, if `owned` does not cover `asked`.
pub fn escalation(user: &User, owned: &[Rule], asked: &[Rule]) -> Option<String> {
    let missing = missing_rules(owned, asked);
    if missing.is_empty() {
        return None;
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(Rule::compact).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    Some(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        lines.join("\n")
    ))
}

/// Rules about one thing each, which are easily compared.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut parts = Vec::new();
    for group in &rule.groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = Rule {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.names.is_empty() {
                    parts.push(part);
                } else {
                    parts.extend(rule.names.iter().map(|name| Rule { names: one(name), ..part.clone() }));
                }
            }
        }
    }
    for path in &rule.paths {
        for verb in &rule.verbs {
            parts.push(Rule { verbs: one(verb), paths: one(path), ..Rule::default() });
        }
    }
    parts
}

/// Whether an owner's rule covers one that [`break_down`] made.
fn covers(owner: &Rule, part: &Rule) -> bool {
    let has = |list: &[String], wanted: &[String]| {
        list.iter().any(|l| l == "*") || wanted.iter().all(|w| list.contains(w))
    };
    let resources = || {
        part.resources.iter().all(|wanted| {
            let any_parent = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            owner.resources.iter().any(|r| r == "*" || r == wanted || Some(r) == any_parent.as_ref())
        })
    };
    let names = || match (owner.names.is_empty(), part.names.is_empty()) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => part.names.iter().all(|n| owner.names.contains(n)),
    };
    // Only what the path's own wildcard covers; a rule for `/a/*` covers one for `/a/b*`.
    let paths = || {
        part.paths.iter().all(|wanted| {
            owner
                .paths
                .iter()
                .any(|p| p == wanted || p.strip_suffix('*').is_some_and(|front| wanted.starts_with(front)))
        })
    };
    has(&owner.verbs, &part.verbs) && has(&owner.groups, &part.groups) && resources() && names() && paths()
}

/// Joins rules that differ in the verb alone.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = out.iter_mut().find(|o| {
            rule.resources.len() == 1
                && (&o.groups, &o.resources, &o.names, &o.paths)
                    == (&rule.groups, &rule.resources, &rule.names, &rule.paths)
        });
        match same {
            Some(same) => same
                .verbs
                .extend(rule.verbs.into_iter().filter(|v| !same.verbs.contains(v)).collect::<Vec<_>>()),
            None => out.push(rule),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let texts = |l: &[&str]| l.iter().map(|t| (*t).to_owned()).collect();
        Rule {
            verbs: texts(verbs),
            groups: texts(groups),
            resources: texts(resources),
            names: texts(names),
            paths: vec![],
        }
    }

    fn paths(verbs: &[&str], paths: &[&str]) -> Rule {
        let texts = |l: &[&str]| l.iter().map(|t| (*t).to_owned()).collect();
        Rule { verbs: texts(verbs), paths: texts(paths), ..Rule::default() }
    }

    /// Facts of upstream's `policy_comparator_test.go`.
    #[test]
    fn covers_what_upstream_says_it_covers() {
        let v1 = &["v1"][..];
        let table = [
            (
                vec![rule(&["get", "list"], v1, &["builds"], &[])],
                vec![rule(&["get"], v1, &["builds"], &[])],
                true,
            ),
            (
                vec![rule(&["get"], v1, &["builds"], &[])],
                vec![rule(&["get", "list"], v1, &["builds"], &[])],
                false,
            ),
            (
                vec![rule(&["*"], v1, &["roles"], &[])],
                vec![rule(&["get", "list"], v1, &["roles"], &[])],
                true,
            ),
            (vec![rule(&["get"], v1, &["*"], &[])], vec![rule(&["get"], v1, &["*"], &[])], true),
            (vec![rule(&["get"], v1, &["a", "b"], &[])], vec![rule(&["get"], v1, &["*"], &[])], false),
            (
                vec![rule(&["get"], v1, &["*/scale"], &[])],
                vec![rule(&["get"], v1, &["pods/scale"], &[])],
                true,
            ),
            (vec![rule(&["get"], v1, &["*/scale"], &[])], vec![rule(&["get"], v1, &["pods"], &[])], false),
            (vec![rule(&["get"], v1, &["a"], &["x"])], vec![rule(&["get"], v1, &["a"], &["x"])], true),
            (vec![rule(&["get"], v1, &["a"], &[])], vec![rule(&["get"], v1, &["a"], &["x"])], true),
            (vec![rule(&["get"], v1, &["a"], &["x"])], vec![rule(&["get"], v1, &["a"], &[])], false),
            (vec![rule(&["get"], &["*"], &["a"], &[])], vec![rule(&["get"], &["g"], &["a"], &[])], true),
            (vec![paths(&["get"], &["*"])], vec![paths(&["get"], &["/api*", "/x"])], true),
            (vec![paths(&["get"], &["/api/*"])], vec![paths(&["get"], &["/api/v1"])], true),
            (vec![paths(&["get"], &["/api/v1"])], vec![paths(&["get"], &["/api/*"])], false),
            (vec![Rule::every_resource()], vec![paths(&["get"], &["/a"])], false),
        ];
        for (owned, asked, covered) in table {
            assert_eq!(missing_rules(&owned, &asked).is_empty(), covered, "{owned:?} {asked:?}");
        }
    }

    #[test]
    fn says_what_is_missing() {
        let user = User { name: "eve".into(), groups: vec!["a".into(), "b".into()], ..User::default() };
        let asked = [rule(&["get", "list"], &[""], &["secrets", "pods"], &[]), paths(&["get"], &["/x"])];
        let owned = [rule(&["get"], &[""], &["pods"], &[])];
        assert_eq!(
            escalation(&user, &owned, &asked).unwrap(),
            "user \"eve\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}\n\
             {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}"
        );
        assert_eq!(escalation(&user, &asked, &asked), None);
    }

    proptest! {
        /// What is covered is allowed: giving a right away never gives more than one has.
        #[test]
        fn covered_rules_allow_nothing_new(
            owned in proptest::collection::vec(any_rule(), 0..4),
            asked in any_rule(),
            request in (0..3usize, 0..3usize, 0..3usize, 0..3usize, 0..3usize),
        ) {
            let pick = |from: &[&'static str], i: usize| from[i];
            let attributes = crate::Attributes {
                verb: pick(&["get", "list", "x"], request.0),
                group: pick(&["", "apps", "z"], request.1),
                resource: pick(&["pods", "deployments", "q"], request.2),
                subresource: pick(&["", "scale", "log"], request.3),
                name: pick(&["", "a", "b"], request.4),
                ..crate::Attributes::default()
            };
            if missing_rules(&owned, std::slice::from_ref(&asked)).is_empty() && asked.allows(&attributes) {
                prop_assert!(owned.iter().any(|r| r.allows(&attributes)), "{attributes:?}");
            }
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let some = |from: Vec<&'static str>, least: usize| {
            let from: Vec<String> = from.into_iter().map(str::to_owned).collect();
            let most = from.len();
            proptest::sample::subsequence(from, least..=most)
        };
        (
            some(vec!["get", "list", "*"], 1),
            some(vec!["", "apps", "*"], 1),
            some(vec!["pods", "deployments", "*", "*/scale", "pods/log"], 1),
            some(vec!["a", "b"], 0),
        )
            .prop_map(|(verbs, groups, resources, names)| Rule {
                verbs,
                groups,
                resources,
                names,
                paths: vec![],
            })
    }
}
