use kube::api::ApiResource;
use kube::client::{APIGroupDiscovery, APIResourceDiscovery};
use kube::core::gvk::GroupVersionKind;
use kube::{Client, Error};

/// A kind of object that the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Its names.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// Whether its objects have a scale.
    pub has_scale: bool,
}

impl Discovered {
    /// Whether a verb is allowed.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// Every kind the server has, each in the version it prefers, and the groups that could not be asked.
pub async fn discover(client: &Client) -> Result<(Vec<Discovered>, Vec<String>), Error> {
    let core = client.list_core_api_versions_aggregated().await?;
    let groups = client.list_api_groups_aggregated().await?;
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    for group in core.items.into_iter().chain(groups.items) {
        read(group, &mut found, &mut silent);
    }
    Ok((found, silent))
}

fn read(group: APIGroupDiscovery, found: &mut Vec<Discovered>, silent: &mut Vec<String>) {
    let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
    let first = found.len();
    for version in group.versions {
        let number = version.version.unwrap_or_default();
        if version.freshness.as_deref() == Some("Stale") {
            silent.push(format!("{name}/{number}"));
        }
        for resource in version.resources {
            let plural = resource.resource.clone().unwrap_or_default();
            // The preferred version comes first.
            if !found[first..].iter().any(|d| d.resource.plural == plural) {
                found.extend(entry(&name, &number, plural, resource));
            }
        }
    }
}

fn entry(group: &str, version: &str, plural: String, resource: APIResourceDiscovery) -> Option<Discovered> {
    let kind = resource.response_kind.and_then(|k| k.kind)?;
    let gvk = GroupVersionKind::gvk(group, version, &kind);
    Some(Discovered {
        resource: ApiResource::from_gvk_with_plural(&gvk, &plural),
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        verbs: resource.verbs,
        has_scale: resource.subresources.iter().any(|s| s.subresource.as_deref() == Some("scale")),
    })
}
