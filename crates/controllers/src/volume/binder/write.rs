//! What is done to claims and volumes, one write after the other.

use std::sync::Arc;

use client::Key;
use client::storage::{self, annotate, annotation, bound_volume};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::say::{self, Saying};
use super::volumes::{has_deleter, policy};
use super::{Claim, State, Volume, status};
use crate::error::{Attempt, Error};

impl State {
    /// Binds a claim and a volume, or what of it has not been done yet.
    pub(super) async fn bind(&self, volume: &Volume, claim: &Claim) -> Result<(), Error> {
        let volume = match bound_volume(volume, claim) {
            Some(new) => self.put_volume(&new, "bind").await?,
            None => volume.clone(),
        };
        let volume = self.write_phase(&volume, "Bound", None).await?;
        let name = volume.name_any();
        let mut new = PersistentVolumeClaim::clone(claim);
        if storage::volume_of(claim) != name {
            new.spec.get_or_insert_default().volume_name = Some(name);
            if annotation(&claim.metadata, storage::BOUND_BY_CONTROLLER).is_none() {
                annotate(&mut new.metadata, storage::BOUND_BY_CONTROLLER, "yes");
            }
        }
        if annotation(&claim.metadata, storage::BIND_COMPLETED).is_none() {
            annotate(&mut new.metadata, storage::BIND_COMPLETED, "yes");
        }
        let claim = if new == **claim { claim.clone() } else { self.put_claim(&new, "bind").await? };
        self.write_claim_status(&claim, "Bound", Some(&volume)).await
    }

    /// Takes a volume from the claim that it names. One that its maker has set aside stays so.
    pub(super) async fn unbind(&self, volume: &Volume) -> Result<(), Error> {
        let mut new = PersistentVolume::clone(volume);
        let spec = new.spec.get_or_insert_default();
        let ours = new.metadata.annotations.as_mut().and_then(|all| all.remove(storage::BOUND_BY_CONTROLLER));
        match &mut spec.claim_ref {
            Some(reference) if ours.is_none() => reference.uid = None,
            reference => *reference = None,
        }
        let volume = self.put_volume(&new, "unbind").await?;
        self.write_phase(&volume, "Available", None).await.map(drop)
    }

    /// The claim is gone. What is in the volume is not ours to delete (`reclaimVolume`).
    pub(super) async fn reclaim(&self, volume: &Volume) -> Result<(), Error> {
        let released = match storage::volume_phase(volume) {
            // That something went wrong should stay to be seen.
            "Released" | "Failed" => volume.clone(),
            _ => self.write_phase(volume, "Released", None).await?,
        };
        let fails = match policy(volume) {
            "Retain" => return Ok(()),
            "Delete" if has_deleter(volume) => {
                let by = annotation(&volume.metadata, storage::PROVISIONED_BY).unwrap_or_default();
                crate::metrics::volume_released(&volume.name_any(), by);
                return Ok(());
            }
            "Delete" => say::no_deleter(&volume.name_any()),
            "Recycle" => say::NO_RECYCLER,
            _ => say::unknown_policy(),
        };
        self.fail(&released, fails).await
    }

    async fn fail(&self, volume: &Volume, why: Saying) -> Result<(), Error> {
        if storage::volume_phase(volume) == "Failed" {
            return Ok(());
        }
        let volume = self.write_phase(volume, "Failed", Some(&why.message)).await?;
        self.say_of_volume(&volume, why);
        Ok(())
    }

    /// A claim without a class gets the default one (`assignDefaultStorageClass`).
    pub(super) async fn take_class(&self, claim: &Claim, class: String) -> Result<(), Error> {
        let mut new = PersistentVolumeClaim::clone(claim);
        new.spec.get_or_insert_default().storage_class_name = Some(class);
        self.put_claim(&new, "give the default class to").await.map(drop)
    }

    /// Tells a provisioner that it is to make a volume (`setClaimProvisioner`).
    pub(super) async fn ask_provisioner(&self, claim: &Claim, provisioner: &str) -> Result<Claim, Error> {
        if annotation(&claim.metadata, storage::PROVISIONER) == Some(provisioner) {
            return Ok(claim.clone());
        }
        let mut new = PersistentVolumeClaim::clone(claim);
        annotate(&mut new.metadata, storage::BETA_PROVISIONER, provisioner);
        annotate(&mut new.metadata, storage::PROVISIONER, provisioner);
        self.put_claim(&new, "name the provisioner of").await
    }

    pub(super) async fn write_claim_status(
        &self,
        claim: &Claim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        let Some(status) = status::of_claim(claim, phase, volume) else { return Ok(()) };
        let new = PersistentVolumeClaim { status: Some(status), ..PersistentVolumeClaim::clone(claim) };
        let key = Key::of(&new);
        let api = self.ctx.api::<PersistentVolumeClaim>(key.namespace());
        let written = api.replace_status(key.name(), &PostParams::default(), &new).await;
        let written = written.attempt(|| format!("write the status of claim {key}"))?;
        self.written_claims.note(&key, Arc::new(written));
        Ok(())
    }

    pub(super) async fn write_phase(
        &self,
        volume: &Volume,
        phase: &str,
        message: Option<&str>,
    ) -> Result<Volume, Error> {
        let now = self.ctx.now();
        let Some(status) = status::of_volume(volume, phase, message, now) else { return Ok(volume.clone()) };
        let new = PersistentVolume { status: Some(status), ..PersistentVolume::clone(volume) };
        let key = Key::of(&new);
        let written = self.volume_api().replace_status(key.name(), &PostParams::default(), &new).await;
        let written = written.map(Arc::new).attempt(|| format!("write the status of volume {key}"))?;
        self.written_volumes.note(&key, written.clone());
        Ok(written)
    }

    async fn put_volume(&self, new: &PersistentVolume, what: &str) -> Result<Volume, Error> {
        let key = Key::of(new);
        let written = self.volume_api().replace(key.name(), &PostParams::default(), new).await;
        let written = written.map(Arc::new).attempt(|| format!("{what} volume {key}"))?;
        self.written_volumes.note(&key, written.clone());
        Ok(written)
    }

    async fn put_claim(&self, new: &PersistentVolumeClaim, what: &str) -> Result<Claim, Error> {
        let key = Key::of(new);
        let api = self.ctx.api::<PersistentVolumeClaim>(key.namespace());
        let written = api.replace(key.name(), &PostParams::default(), new).await;
        let written = written.map(Arc::new).attempt(|| format!("{what} claim {key}"))?;
        self.written_claims.note(&key, written.clone());
        Ok(written)
    }

    fn volume_api(&self) -> Api<PersistentVolume> {
        Api::all(self.ctx.client())
    }
}
