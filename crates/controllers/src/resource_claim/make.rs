use client::{PodView, devices};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::common::claim::owner_reference;

/// How much of a generated name is given: five random characters and a hyphen follow.
const LONGEST: usize = 57;

/// The claim for one of a pod's claims, as its template has it.
pub(super) fn claim(pod: &PodView, name: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(devices::POD_CLAIM.to_owned(), name.to_owned());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(pod.metadata.name.as_deref().unwrap_or_default(), name)),
            annotations: Some(annotations),
            labels: meta.labels,
            owner_references: Some(vec![owner_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Whether any of its requests is for access to devices that others use.
pub(crate) fn asks_as_admin(claim: &ResourceClaim) -> bool {
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    requests.into_iter().any(|r| r.exactly.as_ref().and_then(|exactly| exactly.admin_access) == Some(true))
}

/// Of names that are too long each loses its share.
fn generate_name(pod: &str, claim: &str) -> String {
    let whole = pod.len() + claim.len() + 2;
    if whole <= LONGEST {
        return format!("{pod}-{claim}-");
    }
    let pod = &pod[..pod.len() * LONGEST / whole];
    // What is left of the pod's name counts, as upstream has it.
    let claim = &claim[..claim.len() * LONGEST / whole];
    format!("{pod}-{claim}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_that_are_too_long_lose_something_each() {
        use super::generate_name;
        assert_eq!(generate_name("p", "gpu"), "p-gpu-");
        let long = generate_name(&"p".repeat(100), &"c".repeat(40));
        assert!(long.starts_with("pppp") && long.ends_with("cccc") && long.len() <= super::LONGEST, "{long}");
    }
}
