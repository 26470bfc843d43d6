//! Admission's view of the server, and the server's of admission.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use admission::{Cluster, Notes, Objects, Operation, Options, Request, Swap};
use auth::{Answer, Attributes, FieldRequirement, Selectors, User};
use base::{Ids, Timestamp};
use cel::{AuthzDecision, AuthzRequest, AuthzTarget};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderMap;
use registry::ResourceDef;
use serde_json::Value;
use store::{CommitError, Expect};
use types::{FieldSelector, LabelSelector, Status};

use crate::request::{FieldValidation, Query, ResourceRequest};
use crate::state::Inner;
use crate::verbs::Write;
use crate::{body, object};

/// How long an answer about images is waited for.
const IMAGES_PATIENCE: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// What admission has said during a request.
    static SAID: RefCell<Notes>;
    /// What admission has asked about rights during a request.
    static ASKED: RefCell<Asked>;
}

/// What plugins and expressions have asked about rights. They cannot wait for an answer; what a webhook has to be asked
/// first is asked after they have run, and they run again.
#[derive(Default)]
struct Asked {
    told: HashMap<String, Answer>,
    open: Vec<(String, User, AuthzRequest)>,
}

/// Runs a request and gives what admission said meanwhile: warnings for the user, and annotations for the audit log.
pub(crate) async fn listening<T>(work: impl Future<Output = T>) -> (T, Notes) {
    let listening = SAID.scope(RefCell::default(), async {
        let outcome = work.await;
        (outcome, SAID.with(RefCell::take))
    });
    ASKED.scope(RefCell::default(), listening).await
}

/// Keeps what was said for the end of the request; outside of a request nobody listens.
fn say(notes: Notes) {
    if !notes.warnings.is_empty() || !notes.annotations.is_empty() {
        let _ = SAID.try_with(|said| said.borrow_mut().extend(notes));
    }
}

impl Inner {
    /// Lets everything change an object that is to be written, or refuse it. Tells whether what the server itself sets
    /// has to be set again.
    pub(crate) async fn admit(
        &self,
        request: &Request<'_>,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<bool, Status> {
        let mut notes = Notes::default();
        let outcome = self.admission.admit(request, object, old, self, &mut notes).await;
        say(notes);
        outcome
    }

    /// Asks everything about the final object.
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let mut notes = Notes::default();
        let outcome = self.admission.validate(request, object, old, self, &mut notes).await;
        say(notes);
        outcome
    }

    /// Both, for an object that the server does nothing to in between, such as the body of a subresource.
    pub(crate) async fn pass(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        self.admit(request, object.as_deref_mut(), old).await?;
        self.validate(request, object.as_deref(), old).await
    }
}

impl<'a> Write<'a> {
    /// The write as admission sees it.
    pub(crate) fn admission(&self, operation: Operation, name: &'a str) -> Request<'a> {
        Request {
            registry: self.registry,
            def: self.def,
            subresource: self.subresource,
            operation,
            namespace: self.namespace,
            name,
            user: self.user,
            dry_run: self.dry_run,
            options: self.options,
        }
    }
}

/// A request for a subresource as admission sees it.
pub(crate) fn subresource<'a>(r: &'a ResourceRequest, user: &'a User, operation: Operation) -> Request<'a> {
    Request {
        registry: &r.registry,
        def: &r.def,
        subresource: &r.subresource,
        operation,
        namespace: &r.namespace,
        name: &r.name,
        user,
        dry_run: r.query.dry_run,
        options: options(&r.query, ""),
    }
}

/// The options that stand in a query.
pub(crate) fn options<'a>(query: &'a Query, kind: &'static str) -> Options<'a> {
    Options {
        kind,
        field_manager: query.field_manager.as_deref().unwrap_or_default(),
        field_validation: query.get("fieldValidation").unwrap_or_default(),
        force: query.force,
        given: None,
    }
}

/// The kind of options that a request by some method comes with.
pub(crate) fn options_kind(headers: &HeaderMap, r: &ResourceRequest) -> &'static str {
    let patch = r.verb == registry::Verb::Patch || body::media_type(headers).contains("-patch+");
    if patch { "PatchOptions" } else { "" }
}

/// Passes a request that opens a connection: its options, out of the query, are the object (kubernetes/kubernetes,
/// `apiserver/pkg/endpoints/handlers/rest.go`, `ConnectResource`).
pub(crate) async fn connect(server: &Inner, r: &ResourceRequest, user: &User) -> Result<(), Status> {
    let Some(sub) = r.def.subresources.get(&*r.subresource) else { return Err(Status::no_such_resource()) };
    let mut object = serde_json::json!({"kind": &*sub.kind.kind, "apiVersion": sub.kind.api_version()});
    let flag = |value: &str| Value::Bool(!matches!(value, "false" | "0" | "f" | "F" | "FALSE" | "False"));
    for (name, value) in &r.query.all {
        let shown = match name.as_str() {
            "stdin" | "stdout" | "stderr" | "tty" => flag(value),
            "command" => {
                match &mut object["command"] {
                    Value::Array(list) => list.push(value.as_str().into()),
                    other => *other = serde_json::json!([value]),
                }
                continue;
            }
            "ports" => {
                let ports = value.split(',').filter_map(|p| p.parse::<i64>().ok()).map(Value::from);
                Value::Array(ports.collect())
            }
            "container" => value.as_str().into(),
            _ => continue,
        };
        object[name] = shown;
    }
    if r.subresource == "proxy" {
        object["path"] = format!("/{}", r.rest).into();
    }
    server.pass(&subresource(r, user, Operation::Connect), Some(&mut object), None).await
}

impl Cluster for Inner {
    fn last_change(&self, table: &str) -> u64 {
        self.store.last_change(table)
    }

    fn list_in(&self, table: &str, namespace: &str) -> Vec<Value> {
        let snapshot = self.store.snapshot(table);
        snapshot
            .scan(format!("{namespace}/"), None)
            .filter_map(|r| serde_json::from_slice(&r.value).ok())
            .collect()
    }

    fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    fn ids(&self) -> &dyn Ids {
        &*self.config.ids
    }

    fn authorize(&self, user: &User, request: &AuthzRequest) -> AuthzDecision {
        let account;
        let user = match account_of(request) {
            None => user,
            Some(user) => {
                account = user;
                &account
            }
        };
        let selectors = selectors_of(&request.target);
        let attributes = attributes_of(request, selectors.as_ref());
        if let Some(answer) = self.decide_now(user, &attributes) {
            return decision(answer);
        }
        let question = format!("{user:?} {request:?}");
        let known = ASKED.try_with(|asked| {
            let mut asked = asked.borrow_mut();
            let known = asked.told.get(&question).cloned();
            if known.is_none() {
                asked.open.push((question, user.clone(), request.clone()));
            }
            known
        });
        match known {
            Ok(Some(answer)) => decision(answer),
            Ok(None) => {
                AuthzDecision { error: Some("the authorizer is being asked".into()), ..Default::default() }
            }
            Err(_) => AuthzDecision {
                error: Some("the authorizer cannot be asked here".into()),
                ..Default::default()
            },
        }
    }

    fn settle(&self) -> Option<BoxFuture<'_, ()>> {
        let open = ASKED.try_with(|asked| {
            let mut asked = asked.borrow_mut();
            if asked.open.is_empty() { Vec::new() } else { std::mem::take(&mut asked.open) }
        });
        let open = open.ok().filter(|open| !open.is_empty())?;
        let asking = async move {
            for (question, user, request) in open {
                let selectors = selectors_of(&request.target);
                let answer = self.decide(&user, &attributes_of(&request, selectors.as_ref())).await;
                let _ = ASKED.try_with(|asked| asked.borrow_mut().told.insert(question, answer));
            }
        };
        Some(asking.boxed())
    }

    fn post<'a>(
        &'a self,
        config: &'a Value,
        body: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Value, String>> {
        async move { self.webhooks.post(self, config, body, timeout).await.map_err(|e| e.to_string()) }
            .boxed()
    }

    fn review_images<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, String>> {
        async move {
            let (remote, wait) = self.image_policy.as_ref().ok_or("nobody is named who knows of images")?;
            remote.post(review, IMAGES_PATIENCE, *wait).await.map_err(|e| e.to_string())
        }
        .boxed()
    }

    fn convert<'a>(
        &'a self,
        from: &'a ResourceDef,
        to: &'a ResourceDef,
        mut object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        async move {
            self.to_storage(from, &mut object).await?;
            if to.custom.is_none() {
                return object::decode(to, object.to_string().as_bytes());
            }
            // A conversion to another version than the stored one is the same work the other way round.
            let target = to.api_version();
            crate::crds::convert_to(self, to, &target, &mut object).await?;
            Ok(object)
        }
        .boxed()
    }

    fn make_namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        async move {
            if self.get("namespaces", "", name).is_some() {
                return Ok(());
            }
            let registry = self.registry();
            let def = registry.find("", "v1", "namespaces").ok_or_else(Status::no_such_resource)?;
            let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
            let write = Write {
                server: self,
                registry: &registry,
                def,
                user: &user,
                namespace: "",
                subresource: "",
                dry_run: false,
                manager: "kube-apiserver",
                options: Options::default(),
                passed: false,
            };
            let object =
                serde_json::json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
            match crate::verbs::create_object(&write, object, None).await {
                Err(status) if status.reason == Some(types::Reason::AlreadyExists) => Ok(()),
                outcome => outcome.map(|_| ()),
            }
        }
        .boxed()
    }

    fn refit(&self, def: &ResourceDef, object: &mut Value) -> Result<(), Status> {
        body::conform(&self.registry(), def, object, &[], FieldValidation::Ignore)?;
        def.strategy.default(object);
        Ok(())
    }

    fn swap<'a>(&'a self, table: &'a str, old: &'a Value, new: Value) -> BoxFuture<'a, Result<Swap, Status>> {
        async move {
            let registry = self.registry();
            let def = registry.resources().find(|def| *def.table == *table && def.gvk == def.storage);
            let def = def.ok_or_else(Status::no_such_resource)?;
            let namespace = old["metadata"]["namespace"].as_str().unwrap_or_default();
            let revision = old["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
            let expect = Expect::Revision(revision.unwrap_or(0));
            match self.put(def, namespace, &new, expect).await {
                Ok(_) => Ok(Swap::Done),
                Err(CommitError::Conflict { .. } | CommitError::NotFound { .. }) => Ok(Swap::Lost),
                Err(error) => Err(object::commit_error(def, object::name(&new), error)),
            }
        }
        .boxed()
    }
}

/// The service account that is asked about, if it is one.
fn account_of(request: &AuthzRequest) -> Option<User> {
    let (namespace, name) = request.service_account.as_ref()?;
    let groups = ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    Some(User::authenticated(format!("system:serviceaccount:{namespace}:{name}"), groups))
}

fn selectors_of(target: &AuthzTarget) -> Option<Selectors> {
    let AuthzTarget::Resource(r) = target else { return None };
    if r.field_selector.is_empty() && r.label_selector.is_empty() {
        return None;
    }
    // What cannot be understood is left out: the question is a wider one.
    let mut selectors = Selectors::default();
    if let Ok(fields) = FieldSelector::parse(&r.field_selector) {
        let requirements = fields.requirements().map(|(field, equals, value)| FieldRequirement {
            field: field.to_owned(),
            equals,
            value: value.to_owned(),
        });
        selectors.fields = requirements.collect();
    }
    if let Ok(labels) = LabelSelector::parse(&r.label_selector) {
        selectors.labels = labels.requirements().to_vec();
    }
    Some(selectors)
}

fn attributes_of<'a>(request: &'a AuthzRequest, selectors: Option<&'a Selectors>) -> Attributes<'a> {
    match &request.target {
        AuthzTarget::Path(path) => Attributes { verb: &request.verb, path, ..Attributes::default() },
        AuthzTarget::Resource(r) => Attributes {
            verb: &request.verb,
            group: &r.group,
            version: "*",
            resource: &r.resource,
            subresource: &r.subresource,
            namespace: &r.namespace,
            name: &r.name,
            path: "",
            selectors,
        },
    }
}

fn decision(answer: Answer) -> AuthzDecision {
    AuthzDecision { allowed: answer.is_allowed(), reason: answer.reason, error: answer.error }
}
