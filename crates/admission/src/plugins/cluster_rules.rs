//! Plugins about everything else that are on by request only.

use std::collections::HashMap;

use base::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use types::{Reason, Status, at};

use super::common::{list, text};
use crate::plugin::{Final, Plugin};
use crate::request::Operation;

/// Nobody draws a Service's traffic to addresses of others (kubernetes/kubernetes,
/// `plugin/pkg/admission/network/denyserviceexternalips`).
pub(crate) struct DenyServiceExternalIPs;

impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate(&self, Final { request, object, old, .. }: Final<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if !request.is("", "services") || !written {
            return Ok(());
        }
        let Some(service) = object else { return Ok(()) };
        let had = |ip: &Value| old.is_some_and(|old| list(old, &["spec", "externalIPs"]).any(|o| o == ip));
        if list(service, &["spec", "externalIPs"]).all(had) {
            return Ok(());
        }
        let why = "Use of external IPs is denied by admission control.";
        Err(request.forbidden_of(Some(service), why))
    }
}

/// Namespaces must be there (`plugin/pkg/admission/namespace/exists`).
pub(crate) struct NamespaceExists;

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn validate(&self, Final { request, cluster, .. }: Final<'_>) -> Result<(), Status> {
        if request.namespace.is_empty() || &*request.def.table == "namespaces" {
            return Ok(());
        }
        match cluster.get("namespaces", "", request.namespace) {
            Some(_) => Ok(()),
            None => Err(Status::not_found("", "namespaces", request.namespace)),
        }
    }
}

/// Who sets `blockOwnerDeletion` may delete the owner, and who changes owners may delete the object
/// (`plugin/pkg/admission/gc/gc_admission.go`).
pub(crate) struct OwnerReferencesPermissionEnforcement;

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(&self, Final { request, object, old, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| written) else { return Ok(()) };
        let owners =
            |o: &Value| at(o, &["metadata", "ownerReferences"]).cloned().unwrap_or_else(|| json!([]));
        let before = old.map_or_else(|| json!([]), owners);
        let now = owners(object);
        if before == now {
            return Ok(());
        }
        let ask =
            |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str, verb: &str| {
                let resource = cel::AuthzResource {
                    group: group.into(),
                    resource: resource.into(),
                    subresource: subresource.into(),
                    namespace: namespace.into(),
                    name: name.into(),
                    ..Default::default()
                };
                let target = cel::AuthzTarget::Resource(resource);
                let question = cel::AuthzRequest { service_account: None, verb: verb.into(), target };
                cluster.authorize(request.user, &question)
            };
        let def = request.def;
        if old.is_some() {
            let answer = ask(&def.gvk.group, &def.resource, "", request.namespace, request.name, "delete");
            if !answer.allowed {
                let why = format!(
                    "cannot set an ownerRef on a resource you can't delete: {}, {}",
                    answer.reason,
                    answer.error.unwrap_or_else(|| "<nil>".into())
                );
                return Err(request.forbidden(&why));
            }
        }
        let blocking = |o: &&Value| o["blockOwnerDeletion"] == true;
        let old_blocking: Vec<&Value> = list(&before, &[]).filter(blocking).collect();
        for owner in list(&now, &[]).filter(blocking).filter(|o| !old_blocking.contains(o)) {
            let (group, version) = {
                let api = text(owner, &["apiVersion"]);
                api.rsplit_once('/').unwrap_or(("", api))
            };
            let Some(target) = request.registry.find_kind(group, Some(version), text(owner, &["kind"]))
            else {
                let why = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}",
                    text(owner, &["apiVersion"]),
                    text(owner, &["kind"])
                );
                return Err(request.forbidden(&why));
            };
            let namespace = if target.namespaced { request.namespace } else { "" };
            let answer =
                ask(group, &target.resource, "finalizers", namespace, text(owner, &["name"]), "update");
            if !answer.allowed {
                let why = format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, {}",
                    answer.reason,
                    answer.error.unwrap_or_else(|| "<nil>".into())
                );
                return Err(request.forbidden(&why));
            }
        }
        Ok(())
    }
}

/// Events come only so fast (`plugin/pkg/admission/eventratelimit`).
pub(crate) struct EventRateLimit {
    limits: Vec<Limit>,
}

struct Limit {
    kind: String,
    qps: f64,
    burst: f64,
    most: usize,
    buckets: Mutex<HashMap<String, (f64, Timestamp)>>,
}

impl EventRateLimit {
    /// From the plugin's configuration: `limits` with `type`, `qps`, `burst` and `cacheSize`.
    pub(crate) fn new(config: &Value) -> Self {
        let limit = |l: &Value| Limit {
            kind: text(l, &["type"]).to_owned(),
            qps: l["qps"].as_f64().unwrap_or(10.0).max(0.001),
            burst: l["burst"].as_f64().unwrap_or(100.0),
            most: l["cacheSize"].as_u64().filter(|n| *n > 0).unwrap_or(4096) as usize,
            buckets: Mutex::default(),
        };
        Self { limits: list(config, &["limits"]).map(limit).collect() }
    }
}

impl Limit {
    fn takes(&self, key: &str, now: Timestamp) -> bool {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= self.most && !buckets.contains_key(key) {
            // Who has been quiet longest has a full bucket anyway.
            let oldest = buckets.iter().min_by_key(|(_, (_, at))| *at).map(|(k, _)| k.clone());
            oldest.map(|k| buckets.remove(&k));
        }
        let (left, at) = buckets.entry(key.to_owned()).or_insert((self.burst, now));
        let passed = (now.as_millisecond() - at.as_millisecond()).max(0) as f64 / 1000.0;
        *left = (*left + passed * self.qps).min(self.burst);
        *at = now;
        let takes = *left >= 1.0;
        if takes {
            *left -= 1.0;
        }
        takes
    }
}

impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if request.dry_run || !written || &*request.def.table != "events" {
            return Ok(());
        }
        let event = object.unwrap_or(&Value::Null);
        let subject = if event["involvedObject"].is_null() { "regarding" } else { "involvedObject" };
        let part = |path: [&str; 2]| text(event, &path).to_owned();
        let object_key =
            ["kind", "namespace", "name", "uid", "apiVersion"].map(|f| part([subject, f])).concat();
        let source = part(["source", "component"]) + &part(["source", "host"]) + &object_key;
        let now = cluster.now();
        let mut refused = Vec::new();
        // Every limit is charged, whatever the others say.
        for limit in &self.limits {
            let key = match limit.kind.as_str() {
                "Server" => "",
                "Namespace" => request.namespace,
                "User" => &request.user.name,
                "SourceAndObject" => &source,
                _ => continue,
            };
            if !limit.takes(key, now) {
                refused.push(format!("limit reached on type {} for key {key}", limit.kind));
            }
        }
        match refused.first() {
            None => Ok(()),
            Some(_) => {
                let mut status = Status::new(Reason::TooManyRequests, super::common::aggregate(&refused));
                status.details.get_or_insert_default().retry_after_seconds = 1;
                Err(status)
            }
        }
    }
}
