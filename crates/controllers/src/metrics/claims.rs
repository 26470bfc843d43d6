//! What is counted of claims of devices (kubernetes/kubernetes, `pkg/controller/resourceclaim/metrics`, and the
//! collector in `resourceclaim/controller.go`).

use base::Drain;
use base::metrics::Page;
use client::{Informer, devices, storage};
use k8s_openapi::api::resource::v1::ResourceClaim;

use super::sources::{Sources, Tally, tally};
use crate::resource_claim::asks_as_admin;

static CACHES: Sources<Informer<ResourceClaim>> = Sources::new();

/// These are counted whenever somebody asks, until the drain starts.
pub(crate) fn claims_of(drain: &Drain, claims: &Informer<ResourceClaim>) {
    CACHES.add(drain, claims.clone());
}

fn labels(claim: &ResourceClaim) -> String {
    let has = |name: &str| storage::annotation(&claim.metadata, name).is_some();
    let source = if has(devices::POD_CLAIM) {
        "resource_claim_template"
    } else if has(devices::EXTENDED) {
        "extended_resource"
    } else {
        ""
    };
    let (admin, allocated) = (asks_as_admin(claim), devices::allocation(claim).is_some());
    format!("admin_access=\"{admin}\",allocated=\"{allocated}\",source=\"{source}\"")
}

pub(super) fn page(page: &mut Page) {
    let mut all = Tally::new();
    for claims in CACHES.all() {
        claims.store().for_each(|_, claim| *all.entry(labels(claim)).or_default() += 1);
    }
    tally(
        page,
        "resourceclaim_controller_resource_claims",
        "Number of ResourceClaims, categorized by allocation status, admin access, and source. Source can be \
         'resource_claim_template' (created from a template), 'extended_resource' (extended resources), or empty \
         (manually created by a user).",
        &all,
    );
}

#[cfg(test)]
mod tests {
    use kube::api::{Patch, PatchParams};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::cluster;

    fn claim(name: &str, annotations: Value, request: Value) -> ResourceClaim {
        let mut exactly = json!({"deviceClassName": "counted"});
        types::patch::merge_patch(&mut exactly, request);
        testkit::object(json!({"metadata": {"name": name, "annotations": annotations},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}))
    }

    #[test]
    fn claims_are_told_apart() {
        let made = claim("c", json!({devices::POD_CLAIM: "gpu"}), json!({}));
        let expected = "admin_access=\"false\",allocated=\"false\",source=\"resource_claim_template\"";
        assert_eq!(labels(&made), expected);
        let mut admin = claim("c", json!({devices::EXTENDED: "true"}), json!({"adminAccess": true}));
        admin.status = testkit::object(json!({"allocation": {}}));
        let expected = "admin_access=\"true\",allocated=\"true\",source=\"extended_resource\"";
        assert_eq!(labels(&admin), expected);
    }

    #[tokio::test]
    async fn claims_are_counted_as_they_are() {
        let cluster = cluster().await;
        // Other tests have claims, too, but none that are allocated and of an extended resource.
        let of = "resourceclaim_controller_resource_claims{admin_access=\"false\",allocated=\"true\",source=\"extended_resource\"} ";
        let count = || {
            let mut text = Page::new();
            page(&mut text);
            text.finish().lines().find_map(|line| line.strip_prefix(of).map(str::to_owned))
        };
        assert_eq!(count(), None);
        for name in ["a", "b"] {
            cluster.create("default", &claim(name, json!({devices::EXTENDED: "true"}), json!({}))).await;
            let result = json!({"request": "r", "driver": "counted.io", "pool": "p", "device": "d"});
            let status = json!({"status": {"allocation": {"devices": {"results": [result]}}}});
            let api = cluster.api::<ResourceClaim>("default");
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
        cluster.wait_for("both to be counted", || async { (count()? == "2").then_some(()) }).await;
    }
}
