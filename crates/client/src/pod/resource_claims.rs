use std::sync::Arc;

use serde::Deserialize;

use super::{PodView, shared_text};

/// A claim of devices that a pod names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaimView {
    /// What containers call it.
    pub name: String,
    /// The claim, if it is there by itself.
    #[serde(deserialize_with = "shared_text")]
    pub resource_claim_name: Option<Arc<str>>,
    /// What the claim is made of, if it is made for the pod.
    #[serde(deserialize_with = "shared_text")]
    pub resource_claim_template_name: Option<Arc<str>>,
}

/// What was made of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaimStatusView {
    /// What containers call it.
    pub name: String,
    /// The claim; without, none is needed.
    pub resource_claim_name: Option<String>,
}

/// The claim that was made for the extended resources of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtendedClaimView {
    /// The claim.
    pub resource_claim_name: String,
}

/// Which object one of a pod's claims is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimName<'a> {
    /// One that is there by itself.
    Named(&'a str),
    /// One that was made for the pod; it must be the owner.
    Made(&'a str),
    /// None is there yet.
    Awaited,
    /// None is needed.
    Needless,
}

impl<'a> ClaimName<'a> {
    /// The object's name, if there is one.
    pub fn object(self) -> Option<&'a str> {
        match self {
            Self::Named(name) | Self::Made(name) => Some(name),
            Self::Awaited | Self::Needless => None,
        }
    }
}

impl PodView {
    /// The pod's claims of devices, and which object each is (kubernetes/kubernetes,
    /// `dynamic-resource-allocation/resourceclaim/resourceclaim.go`, `Name`).
    pub fn resource_claims(&self) -> impl Iterator<Item = (&PodClaimView, ClaimName<'_>)> {
        self.spec.resource_claims.iter().flatten().map(|claim| (claim, self.claim_name(claim)))
    }

    fn claim_name<'a>(&'a self, claim: &'a PodClaimView) -> ClaimName<'a> {
        if let Some(name) = &claim.resource_claim_name {
            return ClaimName::Named(name);
        }
        let made = self.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
        match made.into_iter().find(|made| made.name == claim.name) {
            None => ClaimName::Awaited,
            Some(made) => made.resource_claim_name.as_deref().map_or(ClaimName::Needless, ClaimName::Made),
        }
    }

    /// The claim that was made for the pod's extended resources.
    pub fn extended_claim(&self) -> Option<&str> {
        let made = self.status.as_ref()?.extended_resource_claim_status.as_ref()?;
        Some(&made.resource_claim_name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_the_one_that_is_named_or_the_one_that_was_made() {
        let pod: PodView = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "a", "resourceClaimName": "shared"}, {"name": "b", "resourceClaimTemplateName": "t"},
                {"name": "c", "resourceClaimTemplateName": "t"}, {"name": "d", "resourceClaimTemplateName": "t"}]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "p-b-x"}, {"name": "d"}],
                "extendedResourceClaimStatus": {"resourceClaimName": "p-e", "requestMappings": []}},
        }))
        .unwrap();
        let names: Vec<ClaimName<'_>> = pod.resource_claims().map(|(_, name)| name).collect();
        let want =
            [ClaimName::Named("shared"), ClaimName::Made("p-b-x"), ClaimName::Awaited, ClaimName::Needless];
        assert_eq!(names, want);
        assert_eq!(pod.extended_claim(), Some("p-e"));
    }
}
