//! Nothing goes while it is in use: a finalizer stays until then.

mod attributes;
mod claims;
mod volumes;

use std::fmt::Debug;

use client::is_deleting;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Attempt, Error};

pub(crate) use attributes::start as start_attributes;
pub(crate) use claims::start as start_claims;
pub(crate) use volumes::start as start_volumes;

/// What is to be done about a finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Add,
    /// The object is going: once nobody uses it, the finalizer may be taken off.
    Check,
}

fn need(meta: &ObjectMeta, finalizer: &str) -> Need {
    let has = meta.finalizers.iter().flatten().any(|f| f == finalizer);
    match (has, is_deleting(meta)) {
        (true, true) => Need::Check,
        (false, false) => Need::Add,
        _ => Need::Nothing,
    }
}

async fn write<K>(api: &Api<K>, object: &K, finalizer: &str, on: bool) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut new = object.clone();
    let finalizers = new.finalizers_mut();
    finalizers.retain(|f| f != finalizer);
    if on {
        finalizers.push(finalizer.to_owned());
    }
    let name = new.name_any();
    match api.replace(&name, &PostParams::default(), &new).await {
        Err(error) if client::is_not_found(&error) => Ok(()),
        outcome => outcome.map(drop).attempt(|| {
            let what = if on { "add the finalizer to" } else { "take the finalizer off" };
            format!("{what} {} {name}", K::kind(&()))
        }),
    }
}

#[cfg(test)]
mod tests;
