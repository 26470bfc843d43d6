//! What a request asks for: the one parser of paths and queries.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, header};
use percent_encoding::percent_decode_str;
use registry::{Registry, ResourceDef, Verb};
use types::{FieldSelector, LabelSelector, Status};

/// What a request is about.
pub(crate) enum Target {
    /// An object, a collection or a subresource.
    Resource(Box<ResourceRequest>),
    /// Anything else; the path's parts without empty ones.
    Path(Vec<String>),
    /// Something of the form of a resource that cannot be served, whoever asks.
    Unserved(Box<Unserved>),
}

/// What a request that cannot be served would be about. Why it cannot is told only to those who may ask for such a thing:
/// others would learn what there is.
pub(crate) struct Unserved {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) why: Status,
}

/// A request for a resource.
pub(crate) struct ResourceRequest {
    /// What was served when the request came in.
    pub(crate) registry: Arc<Registry>,
    pub(crate) def: Arc<ResourceDef>,
    pub(crate) verb: Verb,
    /// Empty for cluster-wide kinds, and for collections across namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// Empty for the resource itself.
    pub(crate) subresource: String,
    /// What follows the subresource, for proxies.
    pub(crate) rest: String,
    pub(crate) query: Query,
}

impl ResourceRequest {
    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.def.gvk.group, &self.def.resource, &self.name)
    }

    pub(crate) fn key(&self) -> Arc<str> {
        crate::object::key(&self.namespace, &self.name)
    }
}

/// How unknown fields are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The query's parameters.
#[derive(Default)]
pub(crate) struct Query {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) limit: usize,
    pub(crate) continue_token: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) resource_version_match: Option<String>,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<String>,
    pub(crate) field_manager: Option<String>,
    /// Applying takes fields over from their owners.
    pub(crate) force: Option<bool>,
    /// Every parameter as it came, decoded, for subresources that have their own.
    pub(crate) all: Vec<(String, String)>,
    /// The query as it came.
    pub(crate) raw: String,
}

impl Query {
    /// Reads a query string; unknown parameters are kept in `all`.
    pub(crate) fn parse(raw: &str) -> Result<Self, Status> {
        let mut query = Self { raw: raw.to_owned(), ..Self::default() };
        for pair in raw.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            query.set(&name, &value)?;
            query.all.push((name, value));
        }
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Status> {
        let bad = |why: String| Status::bad_request(why);
        let text = || Some(value.to_owned()).filter(|v| !v.is_empty());
        match name {
            "labelSelector" => {
                self.labels = LabelSelector::parse(value).map_err(|e| bad(e.to_string()))?;
            }
            "fieldSelector" => {
                self.fields = FieldSelector::parse(value).map_err(|e| bad(e.to_string()))?;
            }
            "limit" => self.limit = number(name, value)?.unwrap_or(0),
            "fieldManager" => self.field_manager = manager_name(value)?,
            "force" => self.force = Some(flag(name, value)?),
            "continue" => self.continue_token = text(),
            "resourceVersion" => self.resource_version = text(),
            "resourceVersionMatch" => self.resource_version_match = text(),
            "watch" => self.watch = flag(name, value)?,
            "allowWatchBookmarks" => self.bookmarks = flag(name, value)?,
            "sendInitialEvents" => self.send_initial_events = Some(flag(name, value)?),
            "timeoutSeconds" => self.timeout_seconds = number(name, value)?,
            "gracePeriodSeconds" => self.grace_seconds = number(name, value)?,
            "propagationPolicy" => self.propagation = text(),
            "orphanDependents" if !value.is_empty() => {
                self.propagation = Some(if flag(name, value)? { "Orphan" } else { "Background" }.into());
            }
            "dryRun" => match value {
                "" => {}
                "All" => self.dry_run = true,
                other => {
                    return Err(bad(format!(
                        "Invalid value for query parameter dryRun: {other:?}: supported values: \"All\""
                    )));
                }
            },
            "fieldValidation" => {
                self.field_validation = match value {
                    "" | "Warn" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    "Strict" => FieldValidation::Strict,
                    other => {
                        return Err(bad(format!(
                            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\""
                        )));
                    }
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Whom the fields that a request changes are put down to: whom it names, or else the program that sends it
    /// (kubernetes/kubernetes, `apiserver/pkg/endpoints/handlers/create.go`, `managerOrUserAgent`).
    pub(crate) fn manager<'a>(&'a self, headers: &'a HeaderMap) -> &'a str {
        let agent = || {
            let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
            let program = agent.split('/').next().unwrap_or(agent);
            let end = program.len().min(MOST_MANAGER_BYTES);
            program.get(..end).filter(|p| !p.is_empty())
        };
        self.field_manager.as_deref().or_else(agent).unwrap_or("unknown")
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The longest name of an owner of fields (`apimachinery/pkg/apis/meta/v1/validation/validation.go`,
/// `FieldManagerMaxLength`).
const MOST_MANAGER_BYTES: usize = 128;

fn manager_name(value: &str) -> Result<Option<String>, Status> {
    let fault = if value.len() > MOST_MANAGER_BYTES {
        "may not be more than 128 bytes"
    } else if value.chars().any(char::is_control) {
        "should only contain printable characters"
    } else {
        return Ok(Some(value.to_owned()).filter(|v| !v.is_empty()));
    };
    Err(Status::bad_request(format!("fieldManager: Invalid value: {value:?}: {fault}")))
}

fn decode(text: &str) -> Result<String, Status> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Status::bad_request(format!("query parameter {text:?} is not UTF-8"))),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Status> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" | "" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(Status::bad_request(format!("query parameter {name} is no boolean: {other:?}"))),
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<Option<T>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    value
        .parse()
        .map(Some)
        .map_err(|_| Status::bad_request(format!("query parameter {name} is no number: {value:?}")))
}

/// Reads method, path and query (kubernetes/kubernetes, `apiserver/pkg/endpoints/request/requestinfo.go`).
///
/// There is no path that cannot be read: who asks is not known yet, and may not be told anything.
pub(crate) fn parse(method: &Method, uri: &Uri, registry: &Arc<Registry>) -> Target {
    let mut utf8 = true;
    let decode = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8_lossy().into_owned();
        utf8 &= percent_decode_str(part).decode_utf8().is_ok();
        decoded
    };
    let parts: Vec<String> = uri.path().split('/').filter(|p| !p.is_empty()).map(decode).collect();
    let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match texts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Target::Path(parts),
    };
    // The deprecated form `/watch/…` of a watch.
    let (old_watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, rest @ ..] if !matches!(*resource, "status" | "finalize") => {
            (*namespace, [&[*resource], rest].concat())
        }
        rest => ("", rest.to_vec()),
    };
    let (resource, name) = (rest[0], rest.get(1).copied().unwrap_or_default());
    let subresource = rest.get(2).copied().unwrap_or_default();
    let query = Query::parse(uri.query().unwrap_or_default());
    let watch = old_watch || query.as_ref().is_ok_and(|q| q.watch);
    let unserved = |why: Status| {
        Target::Unserved(Box::new(Unserved {
            verb: unserved_verb(method, name, watch),
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: if resource == "namespaces" { name.to_owned() } else { namespace.to_owned() },
            name: name.to_owned(),
            why,
        }))
    };
    if !utf8 {
        return unserved(Status::bad_request("the path is not UTF-8"));
    }
    let Some(def) = registry.find(group, version, resource) else {
        return unserved(Status::no_such_resource());
    };
    if def.namespaced == namespace.is_empty() && !(def.namespaced && rest.len() == 1) {
        return unserved(Status::no_such_resource());
    }
    let mut query = match query {
        Ok(query) => query,
        Err(why) => return unserved(why),
    };
    query.watch |= old_watch;
    let connect = def.subresources.get(subresource).is_some_and(|s| s.verbs.has(Verb::Connect));
    let verb = match *method {
        _ if connect => Verb::Connect,
        Method::GET | Method::HEAD if name.is_empty() && query.watch => Verb::Watch,
        Method::GET | Method::HEAD if name.is_empty() => Verb::List,
        // A watch on one object is a watch on the collection, narrowed to a name.
        Method::GET if query.watch && subresource.is_empty() => Verb::Watch,
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => return unserved(Status::method_not_allowed()),
    };
    Target::Resource(Box::new(ResourceRequest {
        registry: registry.clone(),
        def: def.clone(),
        verb,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        rest: rest.get(3..).unwrap_or_default().join("/"),
        query,
    }))
}

/// What upstream asks its authorizers about.
fn unserved_verb(method: &Method, name: &str, watch: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD if name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registry() -> Arc<Registry> {
        static REGISTRY: std::sync::LazyLock<Arc<Registry>> =
            std::sync::LazyLock::new(|| Arc::new(Registry::builtin()));
        REGISTRY.clone()
    }

    fn parsed(method: Method, uri: &str) -> Target {
        parse(&method, &uri.parse().unwrap(), &registry())
    }

    fn resource(method: Method, uri: &str) -> Box<ResourceRequest> {
        match parsed(method, uri) {
            Target::Resource(r) => r,
            Target::Path(p) => panic!("a path: {p:?}"),
            Target::Unserved(u) => panic!("unserved: {:?}", u.why),
        }
    }

    #[test]
    fn tells_objects_collections_and_subresources_apart() {
        let r = resource(Method::GET, "/api/v1/namespaces/a/pods/b/log?container=c");
        assert_eq!(
            (r.namespace.as_str(), r.name.as_str(), r.subresource.as_str(), r.verb),
            ("a", "b", "log", Verb::Get)
        );
        let r = resource(Method::GET, "/apis/apps/v1/deployments?watch=1&labelSelector=a%3Db");
        assert_eq!(r.verb, Verb::Watch);
        assert!(!r.query.labels.is_everything());
        let r = resource(Method::PUT, "/api/v1/namespaces/a/finalize");
        assert_eq!(
            (&*r.def.resource, r.name.as_str(), r.subresource.as_str()),
            ("namespaces", "a", "finalize")
        );
        let r = resource(Method::GET, "/api/v1/namespaces/a");
        assert_eq!((&*r.def.resource, r.name.as_str()), ("namespaces", "a"));
        let r = resource(Method::POST, "/api/v1/namespaces/a/pods/b/exec?command=ls");
        assert_eq!(r.verb, Verb::Connect);
        assert!(matches!(parsed(Method::GET, "/healthz"), Target::Path(_)));
    }

    #[test]
    fn what_cannot_be_served_still_says_what_it_is_about() {
        for (method, uri, about, code) in [
            (Method::GET, "/api/v1/nothings", ("list", "nothings", "", ""), 404),
            (Method::GET, "/apis/x.y/v1/namespaces/a/things/b/c", ("get", "things", "a", "b"), 404),
            (Method::GET, "/api/v1/nodes?watch=maybe", ("list", "nodes", "", ""), 400),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/pods?labelSelector=(",
                ("deletecollection", "pods", "a", ""),
                400,
            ),
            (Method::GET, "/api/v1/namespaces/a/nodes/n", ("get", "nodes", "a", "n"), 404),
            (Method::GET, "/api/v1/pods/p", ("get", "pods", "", "p"), 404),
            (Method::PUT, "/api/v1/namespaces/%ff", ("update", "namespaces", "\u{fffd}", "\u{fffd}"), 400),
            (Method::TRACE, "/api/v1/nodes/n", ("", "nodes", "", "n"), 405),
        ] {
            let Target::Unserved(u) = parsed(method, uri) else { panic!("{uri}") };
            assert_eq!((u.verb, &*u.resource, &*u.namespace, &*u.name), about, "{uri}");
            assert_eq!(u.why.code, code, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/[a-z%0-9]{0,8}){0,8}", query in "[a-zA-Z=&%+,!()]{0,60}") {
            if let Ok(uri) = format!("{path}/?{query}").parse::<Uri>() {
                let _ = parse(&Method::GET, &uri, &registry());
            }
        }
    }
}
