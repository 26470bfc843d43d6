//! What is noted of which requests (kubernetes/kubernetes, `apiserver/pkg/audit/policy`).

use auth::{Attributes, User};
use serde_json::Value;

/// How much is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [Self::None, Self::Metadata, Self::Request, Self::RequestResponse]
            .into_iter()
            .find(|l| l.name() == text)
    }
}

const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// An audit policy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is something else.
    #[error("it is no Policy of audit.k8s.io/v1")]
    Kind,
    /// A policy without rules would note nothing.
    #[error("loaded illegal policy with 0 rules")]
    Empty,
    /// A part of it makes no sense.
    #[error("{0}")]
    Field(String),
}

/// What is noted.
#[derive(Clone, Debug, Default)]
pub struct AuditPolicy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    resources: Vec<GroupResources>,
    paths: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    pub(crate) omit_stages: Vec<String>,
    pub(crate) omit_managed_fields: bool,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl AuditPolicy {
    /// Reads a policy file's content.
    pub fn read(file: &Value) -> Result<Self, PolicyError> {
        if file["apiVersion"] != "audit.k8s.io/v1" || file["kind"] != "Policy" {
            return Err(PolicyError::Kind);
        }
        let stages = |value: &Value, path: &str| {
            let stages = texts(value);
            match stages.iter().find(|s| !STAGES.contains(&s.as_str())) {
                Some(odd) => Err(PolicyError::Field(format!(
                    "{path}: Unsupported value: {odd:?}: supported values: \"RequestReceived\", \"ResponseStarted\", \"ResponseComplete\", \"Panic\""
                ))),
                None => Ok(stages),
            }
        };
        let omitted = stages(&file["omitStages"], "omitStages")?;
        let mut rules = Vec::new();
        for (i, rule) in file["rules"].as_array().into_iter().flatten().enumerate() {
            let path = format!("rules[{i}]");
            let level = rule["level"].as_str().unwrap_or_default();
            let level = Level::read(level).ok_or_else(|| {
                PolicyError::Field(format!(
                    "{path}.level: Unsupported value: {level:?}: supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\""
                ))
            })?;
            let resources = rule["resources"].as_array().into_iter().flatten().map(|r| GroupResources {
                group: r["group"].as_str().unwrap_or_default().to_owned(),
                resources: texts(&r["resources"]),
                names: texts(&r["resourceNames"]),
            });
            let mut omit_stages = stages(&rule["omitStages"], &format!("{path}.omitStages"))?;
            omit_stages.extend(omitted.iter().cloned());
            let whole = |field: &str| rule[field].as_bool().or(file[field].as_bool()).unwrap_or(false);
            let rule = Rule {
                level,
                users: texts(&rule["users"]),
                groups: texts(&rule["userGroups"]),
                verbs: texts(&rule["verbs"]),
                namespaces: texts(&rule["namespaces"]),
                resources: resources.collect(),
                paths: texts(&rule["nonResourceURLs"]),
                omit_stages,
                omit_managed_fields: whole("omitManagedFields"),
            };
            if !rule.paths.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
                return Err(PolicyError::Field(format!(
                    "{path}.nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs"
                )));
            }
            for url in &rule.paths {
                let star = url.find('*').is_some_and(|at| at + 1 != url.len());
                if url != "*" && (!url.starts_with('/') || star) {
                    return Err(PolicyError::Field(format!(
                        "{path}.nonResourceURLs: Invalid value: {url:?}: non-resource URL rules must begin with a '/' character and have a wildcard at the end only"
                    )));
                }
            }
            rules.push(rule);
        }
        if rules.is_empty() { Err(PolicyError::Empty) } else { Ok(Self { rules }) }
    }

    /// What the first rule that matches says; nothing is noted without one.
    pub(crate) fn verdict(&self, user: &User, attributes: &Attributes<'_>) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(user, attributes));
        rule.map_or_else(Verdict::default, |rule| Verdict {
            level: rule.level,
            omit_stages: rule.omit_stages.clone(),
            omit_managed_fields: rule.omit_managed_fields,
        })
    }
}

impl Rule {
    fn matches(&self, user: &User, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], text: &str| list.is_empty() || list.iter().any(|t| t == text);
        if !has(&self.users, &user.name) || !has(&self.verbs, a.verb) {
            return false;
        }
        if !self.groups.is_empty() && !self.groups.iter().any(|g| user.in_group(g)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return a.is_resource()
                && has(&self.namespaces, a.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(a)));
        }
        if !self.paths.is_empty() {
            return !a.is_resource() && self.paths.iter().any(|p| path_matches(p, a.path));
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, a: &Attributes<'_>) -> bool {
        if self.group != a.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !self.names.iter().any(|n| n == a.name) {
            return false;
        }
        self.resources.iter().any(|wanted| match wanted.split_once('/') {
            None => wanted == "*" || (wanted == a.resource && a.subresource.is_empty()),
            Some(("*", sub)) => sub == a.subresource,
            Some((resource, "*")) => resource == a.resource,
            Some((resource, sub)) => resource == a.resource && sub == a.subresource,
        })
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|front| path.starts_with(front))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn policy(rules: Value) -> AuditPolicy {
        AuditPolicy::read(&json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))
            .unwrap()
    }

    /// Facts of upstream's `checker_test.go`.
    #[test]
    fn the_first_rule_that_matches_counts() {
        let tim = User::authenticated("tim@k8s.io", ["humans".to_owned()]);
        let pods = Attributes {
            verb: "get",
            resource: "pods",
            namespace: "default",
            name: "busybox",
            ..Attributes::default()
        };
        let logs = Attributes { subresource: "log", ..pods };
        let path = Attributes { verb: "get", path: "/logs/kubelet.log", ..Attributes::default() };
        let table: &[(Value, &Attributes<'_>, bool)] = &[
            (json!({}), &pods, true),
            (json!({"users": ["tim@k8s.io"]}), &pods, true),
            (json!({"users": ["admin"]}), &pods, false),
            (json!({"userGroups": ["humans"]}), &pods, true),
            (json!({"userGroups": ["admins"]}), &pods, false),
            (json!({"verbs": ["get"]}), &path, true),
            (json!({"verbs": ["create"]}), &path, false),
            (json!({"namespaces": ["default"]}), &pods, true),
            (json!({"namespaces": [""]}), &pods, false),
            (json!({"resources": [{"resources": ["pods"]}]}), &pods, true),
            (json!({"resources": [{"resources": ["pods"]}]}), &logs, false),
            (json!({"resources": [{"resources": ["pods/log"]}]}), &logs, true),
            (json!({"resources": [{"resources": ["pods/*"]}]}), &logs, true),
            (json!({"resources": [{"resources": ["*/log"]}]}), &logs, true),
            (json!({"resources": [{"resources": ["*"]}]}), &logs, true),
            (json!({"resources": [{"group": ""}]}), &logs, true),
            (json!({"resources": [{"group": "apps"}]}), &logs, false),
            (json!({"resources": [{"resources": ["pods"], "resourceNames": ["busybox"]}]}), &pods, true),
            (json!({"resources": [{"resources": ["pods"], "resourceNames": ["edit"]}]}), &pods, false),
            (json!({"resources": [{"resources": ["pods"]}]}), &path, false),
            (json!({"nonResourceURLs": ["/logs*"]}), &path, true),
            (json!({"nonResourceURLs": ["/healthz*"]}), &path, false),
            (json!({"nonResourceURLs": ["*"]}), &pods, false),
        ];
        for (rule, attributes, noted) in table {
            let mut rule = rule.clone();
            rule["level"] = "Metadata".into();
            let verdict = policy(json!([rule, {"level": "None"}])).verdict(&tim, attributes);
            assert_eq!(verdict.level == Level::Metadata, *noted, "{rule}");
        }
    }

    #[test]
    fn policies_that_make_no_sense_are_refused() {
        let read = |rules: Value| {
            AuditPolicy::read(&json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))
        };
        assert_eq!(read(json!([])).unwrap_err(), PolicyError::Empty);
        for rule in [
            json!({}),
            json!({"level": "All"}),
            json!({"level": "None", "omitStages": ["Later"]}),
            json!({"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["b"]}),
            json!({"level": "None", "nonResourceURLs": ["/a*b"]}),
        ] {
            assert!(matches!(read(json!([rule])), Err(PolicyError::Field(_))), "{rule}");
        }
        assert_eq!(AuditPolicy::read(&json!({"kind": "Policy"})).unwrap_err(), PolicyError::Kind);
    }

    proptest! {
        #[test]
        fn no_file_is_too_odd(text in "[-a-zA-Z:\\[\\]{} \n\"0-9]{0,120}") {
            if let Ok(value) = serde_norway::from_str::<Value>(&text) {
                let _ = AuditPolicy::read(&value);
                let _ = AuditPolicy::read(&json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [value]}));
            }
        }
    }
}
