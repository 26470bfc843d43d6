//! Writing statuses.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::error::{Attempt, Error};

/// Writes what an object says of itself. One that is gone has nothing to say.
pub(crate) async fn put_status<K>(ctx: &Context, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let name = object.name_any();
    let api = ctx.api::<K>(object.meta().namespace.as_deref().unwrap_or_default());
    match api.replace_status(&name, &PostParams::default(), object).await {
        Err(error) if client::is_not_found(&error) => Ok(()),
        outcome => outcome.map(drop).attempt(|| format!("write the status of {} {name}", K::kind(&()))),
    }
}
