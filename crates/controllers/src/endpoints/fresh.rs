use std::collections::{HashMap, HashSet};
use std::time::Duration;

use client::{Index, Key};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::slices::Plan;
use crate::error::{Attempt, Error};
use crate::metrics::{Keeper, slice_changed};

/// After this long a slice that the cache does not show is taken to have been deleted.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Slices made lately that the cache did not show yet: without them a Service would get too many.
#[derive(Default)]
pub(super) struct FreshSlices(Mutex<HashMap<Key, Fresh>>);

struct Fresh {
    names: HashSet<String>,
    since: Instant,
}

impl FreshSlices {
    pub(super) fn forget(&self, service: &Key) {
        self.0.lock().remove(service);
    }

    /// Whether the cache shows every slice that was made for a Service.
    pub(super) fn are_shown(&self, service: &Key, slices_of: &Index<EndpointSlice>) -> bool {
        let mut fresh = self.0.lock();
        let Some(waiting) = fresh.get_mut(service) else { return true };
        for slice in slices_of.get(service.as_str()) {
            waiting.names.remove(slice.metadata.name.as_deref().unwrap_or_default());
        }
        let shown = waiting.names.is_empty() || waiting.since.elapsed() > PATIENCE;
        if shown {
            fresh.remove(service);
        }
        shown
    }

    fn note(&self, service: &Key, slice: &EndpointSlice) {
        let mut fresh = self.0.lock();
        let waiting = fresh
            .entry(service.clone())
            .or_insert_with(|| Fresh { names: HashSet::new(), since: Instant::now() });
        waiting.names.insert(slice.name_any());
    }
}

/// Makes, changes and deletes slices of a Service.
pub(super) async fn carry_out(
    plan: Plan,
    api: &Api<EndpointSlice>,
    key: &Key,
    fresh: &FreshSlices,
    keeper: Keeper,
) -> Result<(), Error> {
    for slice in plan.create {
        match api.create(&PostParams::default(), &slice).await {
            Err(error) if client::is_namespace_terminating(&error) => return Ok(()),
            outcome => {
                let made = outcome.attempt(|| format!("create an endpoint slice of {key}"))?;
                fresh.note(key, &made);
                slice_changed(keeper, "create");
            }
        }
    }
    for slice in plan.update {
        let name = slice.name_any();
        let outcome = api.replace(&name, &PostParams::default(), &slice).await;
        outcome.attempt(|| format!("update endpoint slice {name}"))?;
        slice_changed(keeper, "update");
    }
    for name in plan.delete {
        match api.delete(&name, &DeleteParams::default()).await {
            Err(error) if client::is_not_found(&error) => {}
            outcome => {
                outcome.attempt(|| format!("delete endpoint slice {name}"))?;
                slice_changed(keeper, "delete");
            }
        }
    }
    Ok(())
}
