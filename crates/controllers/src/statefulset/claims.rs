//! The claims of a set's pods (kubernetes/kubernetes, `pkg/controller/statefulset/stateful_pod_control.go`).

use client::{Informer, Key, PodView, Recorder, is_deleting};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::PostParams;

use super::{identity, retention};
use crate::context::Context;
use crate::error::{Attempt, Error};

pub(super) struct Claims {
    ctx: Context,
    known: Informer<PersistentVolumeClaim>,
    recorder: Recorder,
}

fn namespace(set: &StatefulSet) -> &str {
    set.metadata.namespace.as_deref().unwrap_or_default()
}

impl Claims {
    pub(super) fn new(ctx: &Context, known: Informer<PersistentVolumeClaim>, recorder: Recorder) -> Self {
        Self { ctx: ctx.clone(), known, recorder }
    }

    /// Makes the claims of an ordinal that are not there.
    pub(super) async fn provide(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
        for mut claim in identity::claims(set, ordinal) {
            let (name, pod) = (claim.name_any(), identity::pod_name(set, ordinal));
            match self.known.get(&Key::new(namespace(set), &name)) {
                Some(known) if is_deleting(&known.metadata) => return Err(Error::ClaimGoing { claim: name }),
                Some(_) => continue,
                None => {}
            }
            claim.metadata.owner_references = retention::first_owners(set);
            let api = self.ctx.api::<PersistentVolumeClaim>(namespace(set));
            let set_name = identity::set_name(set);
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let said = format!("create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                    self.recorder.normal(set, "SuccessfulCreate", said);
                }
                Err(error) => {
                    // One that the cache does not show yet may be on its way out: look again.
                    if !client::is_already_exists(&error) {
                        let why = client::message(&error);
                        let said = format!(
                            "create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {why}"
                        );
                        self.recorder.warning(set, "FailedCreate", said);
                    }
                    return Err(error).attempt(|| format!("create claim {name}"));
                }
            }
        }
        Ok(())
    }

    /// Whether claims of an ordinal are to go with a former pod.
    pub(super) fn are_stale(&self, set: &StatefulSet, ordinal: i32) -> bool {
        let pod = identity::pod_name(set, ordinal);
        identity::claim_names(set, ordinal).any(|name| {
            let known = self.known.get(&Key::new(namespace(set), &name));
            known.is_some_and(|claim| retention::is_stale(set, &claim.metadata, &pod, None))
        })
    }

    /// Makes the claims of a pod belong to those with whom they are to go.
    pub(super) async fn hand_over(
        &self,
        set: &StatefulSet,
        pod: &PodView,
        ordinal: i32,
        condemned: bool,
    ) -> Result<(), Error> {
        for name in identity::claim_names(set, ordinal) {
            let Some(claim) = self.known.get(&Key::new(namespace(set), &name)) else { continue };
            let Some(owners) = retention::owners(set, &claim.metadata, pod, condemned) else { continue };
            let mut new = (*claim).clone();
            new.metadata.owner_references = Some(owners);
            let api = self.ctx.api::<PersistentVolumeClaim>(namespace(set));
            match api.replace(&name, &PostParams::default(), &new).await {
                Err(error) if client::is_not_found(&error) => {}
                outcome => drop(outcome.attempt(|| format!("change the owners of claim {name}"))?),
            }
        }
        Ok(())
    }
}
