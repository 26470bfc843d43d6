//! Which objects belong to an owner with a selector: adopting orphans and letting go of those that no longer fit
//! (kubernetes/kubernetes, `pkg/controller/controller_ref_manager.go`, `ClaimObject`).

use std::fmt::Debug;
use std::sync::Arc;

use client::{Labelled, controller_of, is_deleting};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use types::LabelSelector;

use crate::error::{Attempt, Error};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Mine,
    Adopt,
    Release,
    Foreign,
}

/// Whether the labels of an object are selected.
pub(crate) fn selects(selector: &LabelSelector, object: &impl Labelled) -> bool {
    selector.matches(|key| object.labels()?.get(key).map(String::as_str))
}

fn claim(owner: &ObjectMeta, fits: bool, object: &ObjectMeta) -> Claim {
    match controller_of(object) {
        Some(other) if Some(&other.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if fits => Claim::Mine,
        Some(_) if is_deleting(owner) => Claim::Foreign,
        Some(_) => Claim::Release,
        None if !fits || is_deleting(owner) || is_deleting(object) => Claim::Foreign,
        None => Claim::Adopt,
    }
}

/// The reference by which an owner manages an object.
pub(crate) fn owner_reference<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The candidates that are the owner's, after adopting and letting go.
pub(crate) async fn claim_all<O, K>(
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
    candidates: Vec<Arc<K>>,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Labelled
        + Clone
        + DeserializeOwned
        + Debug,
{
    claim_where(client, owner, |object| selects(selector, object), candidates, None).await
}

/// The same for an owner that asks for more than labels, and may want what is adopted to get a finalizer, which what
/// is let go loses.
pub(crate) async fn claim_where<O, K>(
    client: &Client,
    owner: &O,
    fits: impl Fn(&K) -> bool,
    candidates: Vec<Arc<K>>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut mine = Vec::with_capacity(candidates.len());
    let mut confirmed = false;
    for object in candidates {
        match claim(owner.meta(), fits(&object), object.meta()) {
            Claim::Mine => mine.push(object),
            Claim::Foreign => {}
            Claim::Adopt => {
                if !confirmed && !is_alive(client, owner).await? {
                    continue;
                }
                confirmed = true;
                let reference = owner_reference(owner);
                let mut patch =
                    json!({"metadata": {"uid": object.meta().uid, "ownerReferences": [reference]}});
                if let Some(finalizer) = finalizer {
                    patch["metadata"]["finalizers"] = json!([finalizer]);
                }
                mine.extend(write(&api, &*object, patch, "adopt").await?);
            }
            Claim::Release => {
                let gone = json!([{"$patch": "delete", "uid": owner.meta().uid}]);
                let mut patch = json!({"metadata": {"uid": object.meta().uid, "ownerReferences": gone}});
                if let Some(finalizer) = finalizer {
                    patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
                }
                write(&api, &*object, patch, "release").await?;
            }
        }
    }
    Ok(mine)
}

/// Asks the server, not the cache, whether the owner is still there and stays.
async fn is_alive<O>(client: &Client, owner: &O) -> Result<bool, Error>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let meta = owner.meta();
    let api: Api<O> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    let fresh = api.get_opt(name).await.attempt(|| format!("look at the owner {name}"))?;
    Ok(fresh.is_some_and(|fresh| fresh.meta().uid == meta.uid && !is_deleting(fresh.meta())))
}

/// An object that is gone, or is another one of the same name by now, needs no change.
async fn write<K>(
    api: &Api<K>,
    object: &K,
    patch: serde_json::Value,
    what: &str,
) -> Result<Option<Arc<K>>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(object) => Ok(Some(Arc::new(object))),
        Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(None),
        Err(error) => Err(error).attempt(|| format!("{what} {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(owner: Option<&str>, app: &str, deleting: bool) -> ObjectMeta {
        let reference =
            |uid: &str| OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() };
        testkit::object(json!({
            "uid": "me", "labels": {"app": app}, "ownerReferences": owner.map(|uid| vec![reference(uid)]),
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
        }))
    }

    #[test]
    fn orphans_are_adopted_and_misfits_released_unless_the_owner_goes() {
        let selector = LabelSelector::parse("app=x").unwrap();
        let (alive, dying) = (meta(None, "", false), meta(None, "", true));
        for (object, while_alive, while_dying) in [
            (meta(None, "x", false), Claim::Adopt, Claim::Foreign),
            (meta(None, "x", true), Claim::Foreign, Claim::Foreign),
            (meta(None, "y", false), Claim::Foreign, Claim::Foreign),
            (meta(Some("me"), "x", false), Claim::Mine, Claim::Mine),
            (meta(Some("me"), "y", false), Claim::Release, Claim::Foreign),
            (meta(Some("other"), "x", false), Claim::Foreign, Claim::Foreign),
        ] {
            assert_eq!(claim(&alive, selects(&selector, &object), &object), while_alive, "{object:?}");
            assert_eq!(claim(&dying, selects(&selector, &object), &object), while_dying, "{object:?}");
        }
    }
}
