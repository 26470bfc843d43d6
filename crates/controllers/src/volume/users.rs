//! Which pods use which claims.

use client::{Index, Informer, Key, PodView};

/// The pods that use a claim, by its namespace and name.
pub(crate) fn pods_by_claim(pods: &Informer<PodView>) -> Index<PodView> {
    pods.index("claims", |pod: &PodView| {
        claims_of(pod).map(|claim| claim.as_str().to_owned()).collect::<Vec<_>>()
    })
}

/// The claims that a pod uses.
pub(crate) fn claims_of(pod: &PodView) -> impl Iterator<Item = Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    pod.claims().map(move |(name, _)| Key::new(namespace, &name))
}
