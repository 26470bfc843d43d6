//! Admission webhooks (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/webhook`).

mod call;
mod config;
mod mutating;
mod review;
mod validating;

use std::sync::Arc;

use cel::AuthzResource;
use parking_lot::RwLock;
use serde_json::Value;
use types::Status;

use crate::cluster::{Cluster, settled};
use crate::evaluate::{Asking, Input, request_json, request_resource};
use crate::matching::{Hit, World, is_exempt};
use crate::request::Request;

use config::Hook;
pub(crate) use mutating::{Reinvocation, mutate};
pub(crate) use validating::validate;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// Webhooks of one sort, readied; made anew when a configuration changes.
pub(crate) struct Webhooks {
    table: &'static str,
    known: RwLock<(u64, Arc<[Hook]>)>,
}

impl Webhooks {
    pub(crate) fn mutating() -> Self {
        Self { table: MUTATING, known: RwLock::new((0, Arc::new([]))) }
    }

    pub(crate) fn validating() -> Self {
        Self { table: VALIDATING, known: RwLock::new((0, Arc::new([]))) }
    }

    /// The hooks that may be about a request; nothing where there is none at all.
    pub(crate) fn current(&self, request: &Request<'_>, cluster: &dyn Cluster) -> Option<Arc<[Hook]>> {
        let revision = cluster.last_change(self.table);
        {
            let known = self.known.read();
            if known.0 == revision {
                if known.1.is_empty() || is_exempt(request.def) {
                    return None;
                }
                return Some(known.1.clone());
            }
        }
        let mut configurations = cluster.list(self.table);
        configurations.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
        let hooks: Arc<[Hook]> = configurations.iter().flat_map(Hook::read_all).collect();
        *self.known.write() = (revision, hooks.clone());
        (!hooks.is_empty() && !is_exempt(request.def)).then_some(hooks)
    }
}

/// Whether a webhook is to be called, and about which version of the resource.
async fn should_call(
    hook: &Hook,
    request: &Request<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
    world: &World<'_>,
) -> Result<Option<Hit>, Status> {
    let matches = hook.matches.as_ref().map_err(Status::internal)?;
    let Some(hit) = matches.find(request, object, old, world)? else { return Ok(None) };
    if hook.conditions.is_empty() {
        return Ok(Some(hit));
    }
    let (object, old) =
        (converted(request, &hit, object, world).await?, converted(request, &hit, old, world).await?);
    let review = Value::Object(request_json(request, hit.def(request)));
    let asking = Asking { cluster: world.cluster, user: request.user };
    let resource: AuthzResource = request_resource(request);
    let input = Input {
        object: object.as_ref().map_or(&Value::Null, Shown::get),
        old: old.as_ref().map_or(&Value::Null, Shown::get),
        request: &review,
        namespace: &Value::Null,
        params: None,
        asking: &asking,
        resource: &resource,
    };
    match settled(world.cluster, || hook.conditions.hold(&input)).await {
        Ok(true) => Ok(Some(hit)),
        Ok(false) => Ok(None),
        Err(why) => Err(request.forbidden_of(Some(input.object), &why)),
    }
}

/// An object in the version that a webhook or policy asked for.
pub(crate) enum Shown<'a> {
    Same(&'a Value),
    Other(Value),
}

impl Shown<'_> {
    pub(crate) fn get(&self) -> &Value {
        match self {
            Self::Same(value) => value,
            Self::Other(value) => value,
        }
    }
}

/// Brings an object into the version that matched.
pub(crate) async fn converted<'v>(
    request: &Request<'_>,
    hit: &Hit,
    object: Option<&'v Value>,
    world: &World<'_>,
) -> Result<Option<Shown<'v>>, Status> {
    let Some(object) = object else { return Ok(None) };
    match &hit.def {
        // Subresources with a kind of their own speak it in all versions.
        Some(def) if *request.kind() == request.def.gvk => {
            let shown = world.cluster.convert(request.def, def, object.clone()).await?;
            Ok(Some(Shown::Other(shown)))
        }
        _ => Ok(Some(Shown::Same(object))),
    }
}
