use std::sync::Arc;

use client::{Change, Informer, Key, PodView, WorkQueue, controller_of, is_deleting};
use k8s_openapi::api::batch::v1::Job;

use super::ask::*;
use super::count::count_awaiting;
use super::releases::Releases;
use crate::common::claim::selects;
use crate::common::expectations::Expectations;

/// What changes of pods tell.
pub(super) struct Seen {
    pub(super) jobs: Informer<Job>,
    pub(super) expectations: Arc<Expectations>,
    pub(super) releases: Arc<Releases>,
}

impl Seen {
    /// The job that manages the pod, if there is one.
    fn owner(&self, pod: &PodView) -> Option<Key> {
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job")?;
        let key = Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
        self.jobs.get(&key).filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid))?;
        Some(key)
    }

    pub(super) fn pod_changed(&self, change: &Change<PodView>, queue: &WorkQueue<Key>) {
        let pod = change.object();
        let owner = self.owner(pod);
        count_awaiting(change);
        let gone = matches!(change, Change::Deleted(_));
        let going = gone || is_deleting(&pod.metadata);
        let released = gone || !has_finalizer(pod);
        if let Some(owner) = &owner {
            if matches!(change, Change::Added(_)) {
                self.expectations.created(owner);
            }
            if going {
                self.expectations.deleted(owner, uid(pod));
            }
            if released {
                self.releases.seen(owner, uid(pod));
            }
            queue.add(owner.clone());
        }
        if let Change::Updated { old, .. } = change
            && let Some(former) = self.owner(old).filter(|former| Some(former) != owner.as_ref())
        {
            if released {
                self.releases.seen(&former, uid(pod));
            }
            queue.add(former);
        }
        // Whoever selects an orphan may adopt it.
        if controller_of(&pod.metadata).is_none() && !going {
            for job in self.jobs.store().list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
                if client::selector(&selector).is_ok_and(|s| !s.is_everything() && selects(&s, &**pod)) {
                    queue.add(Key::of(&*job));
                }
            }
        }
    }
}
