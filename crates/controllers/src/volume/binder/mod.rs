//! Which volume each claim gets (kubernetes/kubernetes, `pkg/controller/volume/persistentvolume/pv_controller.go`).
//!
//! A claim and its volume name each other, and one is written after the other: first the volume, then the claim. Each look
//! finds out how far that has come and goes on from there, so it does not matter where it was cut short, or by whom.
//!
//! ```text
//! claim:  Pending ──► Bound ──volume gone, or somebody else's──► Lost
//! volume: (Pending) ─► Available ⇄ Bound ──claim gone──► Released ─► reclaimed (deleted; Failed)
//! ```

mod claims;
mod say;
mod status;
mod volumes;
mod wake;
mod world;
mod write;

use std::sync::Arc;

use client::{Index, Informer, Key, Next, PodView, Recorder, storage};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::common::written::Written;
use crate::context::Context;
use crate::error::Error;
use crate::tuning::VolumeSettings;
use crate::volume::users::pods_by_claim;

use claims::ClaimStep;
use say::Said;
use volumes::VolumeStep;

type Volume = Arc<PersistentVolume>;
type Claim = Arc<PersistentVolumeClaim>;

struct State {
    ctx: Context,
    recorder: Recorder,
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
    classes: Informer<StorageClass>,
    /// Volumes by what may want them; see [`world::wanted_by`].
    wanted: Index<PersistentVolume>,
    /// Pods by the claims they use.
    users: Index<PodView>,
    written_volumes: Written<PersistentVolume>,
    written_claims: Written<PersistentVolumeClaim>,
    said: Said,
    settings: VolumeSettings,
}

pub(crate) fn start(ctx: &Context, settings: VolumeSettings) {
    let state = State::new(ctx, settings);
    crate::metrics::volumes_of(&ctx.drain, &state.volumes, &state.claims);
    let controller = wake::controller(&state, &ctx.informers.of());
    ctx.spawn(controller, Arc::new(state), look);
}

/// Claims and volumes share the queue, a claim's key has a namespace; and one is looked at after the other, so that no
/// volume is given away twice.
async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    if key.namespace().is_empty() {
        state.look_at_volume(&key).await
    } else {
        state.look_at_claim(&key).await
    }
}

impl State {
    fn new(ctx: &Context, settings: VolumeSettings) -> Self {
        let volumes = ctx.informers.of::<PersistentVolume>();
        Self {
            ctx: ctx.clone(),
            recorder: ctx.recorder("persistentvolume-controller"),
            wanted: volumes.index("wanted-by", world::wanted_by),
            users: pods_by_claim(&ctx.informers.of()),
            volumes,
            claims: ctx.informers.of(),
            classes: ctx.informers.of(),
            written_volumes: Written::default(),
            written_claims: Written::default(),
            said: Said::new(settings.sync_period),
            settings,
        }
    }

    async fn look_at_claim(&self, key: &Key) -> Result<Next, Error> {
        let Some(claim) = self.claim(key) else {
            self.written_claims.forget(key);
            self.said.forget(key);
            crate::metrics::claim_gone(key.as_str());
            return Ok(Next::Done);
        };
        let step = claims::step(&claim, self)?;
        // People are told again and again why a claim waits: events do not last.
        let told = matches!(step, ClaimStep::Provision(_) | ClaimStep::Say(_) | ClaimStep::Wait(Some(_)));
        match step {
            ClaimStep::Bind(volume) => {
                let bound = self.bind(&volume, &claim).await;
                crate::metrics::claim_bound(key.as_str(), bound.is_ok());
                bound?;
            }
            ClaimStep::Take(class) => {
                let taken = self.take_class(&claim, class).await;
                crate::metrics::class_assigned(taken.is_ok());
                taken?;
            }
            ClaimStep::Provision(_) | ClaimStep::Say(_) if !self.settings.provisioning => {
                return Ok(Next::Done);
            }
            ClaimStep::Provision(provisioner) => {
                crate::metrics::claim_asks(key.as_str(), &provisioner);
                let claim = self.ask_provisioner(&claim, &provisioner).await?;
                self.say(&claim, say::waiting_for(&provisioner));
            }
            ClaimStep::Say(saying) => self.say(&claim, saying),
            ClaimStep::Wait(saying) => {
                if let Some(saying) = saying {
                    self.say(&claim, saying);
                }
                self.write_claim_status(&claim, "Pending", None).await?;
            }
            ClaimStep::Lose(saying) => {
                let lost = storage::claim_phase(&claim) == "Lost";
                self.write_claim_status(&claim, "Lost", None).await?;
                if !lost {
                    self.say(&claim, saying);
                }
            }
            ClaimStep::Misbound { volume, by } => {
                self.say(&claim, say::taken(&volume));
                return Err(Error::Misbound { claim: key.to_string(), volume, by });
            }
        }
        Ok(if told { Next::After(self.settings.sync_period) } else { Next::Done })
    }

    async fn look_at_volume(&self, key: &Key) -> Result<Next, Error> {
        let Some(volume) = self.volume(key) else {
            self.written_volumes.forget(key);
            crate::metrics::volume_gone(key.as_str());
            return Ok(Next::Done);
        };
        let claim = match storage::claim_of(&volume) {
            Some(reference) => self.claim_behind(&volume, reference).await?,
            None => None,
        };
        match volumes::step(&volume, claim.as_deref()) {
            VolumeStep::Phase(phase) => drop(self.write_phase(&volume, phase, None).await?),
            VolumeStep::Mismatch(claim) => self.say_mismatch(&volume, &claim),
            // What a look at its claim does about it, the look at the claim that this change has caused will do.
            VolumeStep::Unfinished => {}
            VolumeStep::Reclaim => self.reclaim(&volume).await?,
            VolumeStep::Unbind => self.unbind(&volume).await?,
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests;
