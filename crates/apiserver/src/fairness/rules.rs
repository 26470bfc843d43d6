//! FlowSchemas, ready to be matched against requests
//! (kubernetes/kubernetes, `apiserver/pkg/util/flowcontrol/rule.go`).

use std::hash::{DefaultHasher, Hash, Hasher};

use auth::User;
use http::Method;
use serde_json::Value;

use crate::request::Target;

/// All FlowSchemas, the first to match first.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) schemas: Vec<Schema>,
}

/// One FlowSchema.
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) level: String,
    pub(super) level_uid: String,
    precedence: i64,
    distinguish: Distinguish,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy)]
enum Distinguish {
    Nobody,
    Users,
    Namespaces,
}

struct Rule {
    subjects: Vec<Who>,
    resources: Vec<Resources>,
    paths: Vec<Paths>,
}

enum Who {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

struct Resources {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster: bool,
    namespaces: Vec<String>,
}

struct Paths {
    verbs: Vec<String>,
    urls: Vec<String>,
}

/// Who asks for what.
pub(super) struct Subject<'a> {
    pub(super) user: &'a User,
    pub(super) method: &'a Method,
    pub(super) target: &'a Target,
}

impl Rules {
    /// Out of the stored objects. Schemas whose level does not exist belong to the catch-all level.
    pub(super) fn build(schemas: &[Value], levels: &[Value]) -> Self {
        let uid_of = |level: &str| {
            let found = levels.iter().find(|l| l["metadata"]["name"] == level);
            found.map(|l| text(&l["metadata"]["uid"]))
        };
        let mut schemas: Vec<Schema> = schemas
            .iter()
            .map(|schema| {
                let spec = &schema["spec"];
                let named = text(&spec["priorityLevelConfiguration"]["name"]);
                let (level, level_uid) = match uid_of(&named) {
                    Some(uid) => (named, uid),
                    None => (CATCH_ALL.to_owned(), uid_of(CATCH_ALL).unwrap_or_default()),
                };
                Schema {
                    name: text(&schema["metadata"]["name"]),
                    uid: text(&schema["metadata"]["uid"]),
                    level,
                    level_uid,
                    precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
                    distinguish: match spec["distinguisherMethod"]["type"].as_str() {
                        Some("ByUser") => Distinguish::Users,
                        Some("ByNamespace") => Distinguish::Namespaces,
                        _ => Distinguish::Nobody,
                    },
                    rules: spec["rules"].as_array().into_iter().flatten().map(read_rule).collect(),
                }
            })
            .collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Self { schemas }
    }

    /// The index of the schema that a request falls under, and the hash of its flow.
    pub(super) fn classify(&self, subject: &Subject<'_>) -> Option<(usize, u64)> {
        let at = self.schemas.iter().position(|s| s.rules.iter().any(|rule| rule.matches(subject)))?;
        let schema = &self.schemas[at];
        let mut hasher = DefaultHasher::new();
        schema.name.hash(&mut hasher);
        match (schema.distinguish, subject.target) {
            (Distinguish::Users, _) => subject.user.name.hash(&mut hasher),
            (Distinguish::Namespaces, Target::Resource(r)) => r.namespace.hash(&mut hasher),
            (Distinguish::Namespaces, Target::Unserved(u)) => u.namespace.hash(&mut hasher),
            _ => {}
        }
        Some((at, hasher.finish()))
    }
}

pub(super) const CATCH_ALL: &str = "catch-all";

impl Rule {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        if !self.subjects.iter().any(|who| who.is(subject.user)) {
            return false;
        }
        match subject.target {
            Target::Resource(r) => self.resources.iter().any(|rule| {
                rule.matches(
                    r.verb.as_str(),
                    &r.def.gvk.group,
                    (&r.def.resource, &r.subresource),
                    &r.namespace,
                )
            }),
            Target::Unserved(u) => self
                .resources
                .iter()
                .any(|rule| rule.matches(u.verb, &u.group, (&u.resource, &u.subresource), &u.namespace)),
            Target::Path(parts) => {
                let path = format!("/{}", parts.join("/"));
                let verb = subject.method.as_str().to_ascii_lowercase();
                self.paths.iter().any(|rule| {
                    has(&rule.verbs, &verb)
                        && rule.urls.iter().any(|url| match url.strip_suffix('*') {
                            Some(prefix) => path.starts_with(prefix),
                            None => *url == path,
                        })
                })
            }
        }
    }
}

impl Resources {
    fn matches(&self, verb: &str, group: &str, resource: (&str, &str), namespace: &str) -> bool {
        let name = match resource {
            (resource, "") => has(&self.resources, resource),
            (resource, subresource) => self.resources.iter().any(|pattern| match pattern.split_once('/') {
                Some((of, sub)) => matches_text(of, resource) && matches_text(sub, subresource),
                None => pattern == "*",
            }),
        };
        name && has(&self.verbs, verb)
            && has(&self.groups, group)
            && if namespace.is_empty() { self.cluster } else { has(&self.namespaces, namespace) }
    }
}

impl Who {
    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => matches_text(name, &user.name),
            Self::Group(name) => name == "*" || user.in_group(name),
            Self::ServiceAccount { namespace, name } => {
                let account =
                    user.name.strip_prefix("system:serviceaccount:").and_then(|a| a.split_once(':'));
                account.is_some_and(|(ns, account)| ns == namespace && matches_text(name, account))
            }
        }
    }
}

fn matches_text(pattern: &str, text: &str) -> bool {
    pattern == "*" || pattern == text
}

fn has(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches_text(pattern, text))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn read_rule(rule: &Value) -> Rule {
    let list = |key: &str| rule[key].as_array().cloned().unwrap_or_default();
    Rule {
        subjects: list("subjects")
            .iter()
            .filter_map(|subject| match subject["kind"].as_str()? {
                "User" => Some(Who::User(text(&subject["user"]["name"]))),
                "Group" => Some(Who::Group(text(&subject["group"]["name"]))),
                "ServiceAccount" => Some(Who::ServiceAccount {
                    namespace: text(&subject["serviceAccount"]["namespace"]),
                    name: text(&subject["serviceAccount"]["name"]),
                }),
                _ => None,
            })
            .collect(),
        resources: list("resourceRules")
            .iter()
            .map(|rule| Resources {
                verbs: texts(&rule["verbs"]),
                groups: texts(&rule["apiGroups"]),
                resources: texts(&rule["resources"]),
                cluster: rule["clusterScope"].as_bool().unwrap_or(false),
                namespaces: texts(&rule["namespaces"]),
            })
            .collect(),
        paths: list("nonResourceRules")
            .iter()
            .map(|rule| Paths { verbs: texts(&rule["verbs"]), urls: texts(&rule["nonResourceURLs"]) })
            .collect(),
    }
}
