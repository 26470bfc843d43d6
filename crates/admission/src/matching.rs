//! Which requests a webhook or policy is about (kubernetes/kubernetes,
//! `apiserver/pkg/admission/plugin/webhook/predicates`, `generic/webhook.go`,
//! `apiserver/pkg/admission/plugin/policy/matching`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use registry::{Registry, ResourceDef};
use serde_json::Value;
use types::{LabelSelector, Status, at, str_at};

use crate::cluster::Cluster;
use crate::request::{Operation, Request};

/// Which resources and operations: one entry of `rules` or `resourceRules`.
#[derive(Debug)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: Scope,
}

#[derive(Debug, PartialEq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

fn texts(of: &Value, field: &str) -> Vec<String> {
    let list = of.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    pub(crate) fn read(rule: &Value) -> Self {
        Self {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources"),
            names: texts(rule, "resourceNames"),
            scope: match str_at(rule, &["scope"]) {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::Any,
            },
        }
    }

    pub(crate) fn matches(&self, request: &Request<'_>, def: &ResourceDef) -> bool {
        has(&self.operations, request.operation.as_str())
            && has(&self.groups, &def.gvk.group)
            && has(&self.versions, &def.gvk.version)
            && self.resource(&def.resource, request.subresource)
            && self.in_scope(request)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
    }

    fn resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|r| {
            let (name, sub) = r.split_once('/').unwrap_or((r, ""));
            (name == "*" || name == resource) && (sub == subresource || sub == "*")
        })
    }

    /// A Namespace itself counts as cluster-wide.
    fn in_scope(&self, request: &Request<'_>) -> bool {
        let namespaced = !request.namespace.is_empty() && &*request.def.table != "namespaces";
        match self.scope {
            Scope::Any => true,
            Scope::Cluster => !namespaced,
            Scope::Namespaced => namespaced,
        }
    }
}

/// Which requests: the common part of webhooks, `matchConstraints` and `matchResources`.
#[derive(Debug)]
pub(crate) struct Match {
    /// Without any, everything.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// A request that a webhook or policy is about.
#[derive(Clone)]
pub(crate) struct Hit {
    /// The version of the resource that is meant, where it is not the request's own.
    pub(crate) def: Option<Arc<ResourceDef>>,
}

impl Hit {
    pub(crate) fn def<'a>(&'a self, request: &Request<'a>) -> &'a ResourceDef {
        self.def.as_deref().unwrap_or(request.def)
    }
}

impl Match {
    /// Reads a webhook.
    pub(crate) fn of_webhook(hook: &Value) -> Result<Self, String> {
        Self::read(hook, "rules", true)
    }

    /// Reads `matchConstraints`, or `matchResources`, where no rules mean all resources.
    pub(crate) fn of_policy(matches: &Value) -> Result<Self, String> {
        let some = matches["resourceRules"].as_array().is_some_and(|l| !l.is_empty());
        Self::read(matches, "resourceRules", some)
    }

    fn read(of: &Value, rules: &str, required: bool) -> Result<Self, String> {
        let list = |field: &str| -> Vec<Rule> {
            of.get(field).and_then(Value::as_array).into_iter().flatten().map(Rule::read).collect()
        };
        let selector = |field: &str| match at(of, &[field]) {
            None => Ok(LabelSelector::everything()),
            some => LabelSelector::from_object(some).map_err(|e| e.to_string()),
        };
        Ok(Self {
            rules: required.then(|| list(rules)),
            excluded: list("excludeResourceRules"),
            equivalent: str_at(of, &["matchPolicy"]) != Some("Exact"),
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// Whether a request is meant, and in which version of its resource.
    pub(crate) fn find(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        world: &World<'_>,
    ) -> Result<Option<Hit>, Status> {
        if self.excludes(request, world) {
            return Ok(None);
        }
        let hit = match &self.rules {
            None => Some(Hit { def: None }),
            Some(rules) => self.by_rules(rules, request, world),
        };
        let Some(hit) = hit else { return Ok(None) };
        if !self.namespaces.is_everything() && !self.in_namespace(request, object, world)? {
            return Ok(None);
        }
        if !self.objects.is_everything() {
            let labelled = |o: Option<&Value>| {
                o.is_some_and(|o| {
                    o.get("metadata").is_some() && self.objects.matches_labels(at(o, &["metadata", "labels"]))
                })
            };
            if !labelled(object) && !labelled(old) {
                return Ok(None);
            }
        }
        Ok(Some(hit))
    }

    fn excludes(&self, request: &Request<'_>, world: &World<'_>) -> bool {
        if self.excluded.is_empty() {
            return false;
        }
        self.excluded.iter().any(|rule| rule.matches(request, request.def))
            || self.equivalent
                && world
                    .equivalents(request)
                    .iter()
                    .any(|def| self.excluded.iter().any(|rule| rule.matches(request, def)))
    }

    fn by_rules(&self, rules: &[Rule], request: &Request<'_>, world: &World<'_>) -> Option<Hit> {
        if rules.iter().any(|rule| rule.matches(request, request.def)) {
            return Some(Hit { def: None });
        }
        if !self.equivalent {
            return None;
        }
        let others = world.equivalents(request);
        for rule in rules {
            if let Some(def) = others.iter().find(|def| rule.matches(request, def)) {
                return Some(Hit { def: Some(def.clone()) });
            }
        }
        None
    }

    fn in_namespace(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        world: &World<'_>,
    ) -> Result<bool, Status> {
        let is_namespace = &*request.def.table == "namespaces";
        if request.namespace.is_empty() && !is_namespace {
            return Ok(true);
        }
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if let (true, true, Some(object)) = (is_namespace, written && request.subresource.is_empty(), object)
        {
            return Ok(self.namespaces.matches_labels(at(object, &["metadata", "labels"])));
        }
        let name = if is_namespace { request.name } else { request.namespace };
        let Some(namespace) = world.namespace(name) else {
            return Err(Status::not_found("", "namespaces", name));
        };
        Ok(self.namespaces.matches_labels(at(&namespace, &["metadata", "labels"])))
    }
}

/// What matching needs of the cluster during one request.
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    families: &'a Families,
    namespace: Mutex<Option<(String, Option<Arc<Value>>)>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(cluster: &'a dyn Cluster, families: &'a Families) -> Self {
        Self { cluster, families, namespace: Mutex::new(None) }
    }

    /// A namespace; read once for one request.
    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<Value>> {
        let mut known = self.namespace.lock();
        match &*known {
            Some((n, found)) if n == name => found.clone(),
            _ => {
                let found = self.cluster.get("namespaces", "", name).map(Arc::new);
                *known = Some((name.to_owned(), found.clone()));
                found
            }
        }
    }

    fn equivalents(&self, request: &Request<'_>) -> Arc<[Arc<ResourceDef>]> {
        self.families.of(request.registry, request.def, request.subresource)
    }
}

/// Resources that show the same objects, by table; made anew when what is served changes.
#[derive(Default)]
pub(crate) struct Families(Mutex<Option<(Arc<Registry>, Arc<ByTable>)>>);

type ByTable = HashMap<Arc<str>, Vec<Arc<ResourceDef>>>;

impl Families {
    /// The other versions of a resource.
    fn of(&self, registry: &Arc<Registry>, def: &ResourceDef, subresource: &str) -> Arc<[Arc<ResourceDef>]> {
        let by_table = {
            let mut known = self.0.lock();
            match &*known {
                Some((of, by_table)) if Arc::ptr_eq(of, registry) => by_table.clone(),
                _ => {
                    let mut by_table = ByTable::new();
                    for def in registry.resources() {
                        by_table.entry(def.table.clone()).or_default().push(def.clone());
                    }
                    by_table.retain(|_, defs| defs.len() > 1);
                    let by_table = Arc::new(by_table);
                    *known = Some((registry.clone(), by_table.clone()));
                    by_table
                }
            }
        };
        let others = by_table.get(&def.table).into_iter().flatten();
        others
            .filter(|other| other.gvk != def.gvk)
            .filter(|other| subresource.is_empty() || other.subresources.contains_key(subresource))
            .cloned()
            .collect()
    }
}

/// Webhooks and policies never see the objects that make them (`predicates/rules/rules.go`,
/// `IsExemptAdmissionConfigurationResource`).
pub(crate) fn is_exempt(def: &ResourceDef) -> bool {
    &*def.gvk.group == "admissionregistration.k8s.io"
}
