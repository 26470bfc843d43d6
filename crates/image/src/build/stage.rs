//! One stage of a build: its file system so far and what its image will say.

use std::collections::BTreeMap;

use oci_spec::image::{Arch, Descriptor, History, HistoryBuilder, ImageConfiguration, MediaType, Os, RootFs};

use super::cache::{Blob, Cache};
use super::error::StepError;
use super::parse::Instruction;
use super::settings::Settings;
use super::words::{WordError, expand, expand_words};
use crate::archive::put_manifest;
use crate::digest::Digest;
use crate::image::{Image, LARGEST_DOCUMENT, Layer, canonical_json, descriptor, parse_manifest};
use crate::snapshot::chain_ids;
use crate::store::{ImageStore, StoreError};

#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) settings: Settings,
    pub(super) layers: Vec<Layer>,
    descriptors: Vec<Descriptor>,
    history: Vec<History>,
    /// How much of the history is the base image's own.
    inherited: usize,
    /// `ARG`s in scope.
    pub(super) args: BTreeMap<String, String>,
    pub(super) shell: Vec<String>,
    escape: char,
    cmd_is_own: bool,
}

fn unusable(e: impl Into<StoreError>) -> StepError {
    StepError::Store(e.into())
}

impl Stage {
    pub(super) fn scratch(escape: char) -> Self {
        Self {
            settings: Settings::scratch(),
            layers: Vec::new(),
            descriptors: Vec::new(),
            history: Vec::new(),
            inherited: 0,
            args: BTreeMap::new(),
            shell: vec!["/bin/sh".into(), "-c".into()],
            escape,
            cmd_is_own: false,
        }
    }

    pub(super) fn from_image(store: &ImageStore, image: &Image, escape: char) -> Result<Self, StepError> {
        let bytes = store.content().read(&image.manifest, LARGEST_DOCUMENT)?;
        let manifest = parse_manifest(&image.manifest, &bytes).map_err(unusable)?;
        let history = image.config.history().clone().unwrap_or_default();
        Ok(Self {
            settings: Settings::read(&image.config),
            layers: image.layers.to_vec(),
            descriptors: manifest.layers().clone(),
            inherited: history.len(),
            history,
            ..Self::scratch(escape)
        })
    }

    /// A stage that goes on where this one ended.
    pub(super) fn continued(&self) -> Self {
        let shell = Self::scratch(self.escape).shell;
        Self { args: BTreeMap::new(), shell, cmd_is_own: false, ..self.clone() }
    }

    pub(super) fn lookup(&self, name: &str) -> Option<String> {
        self.settings.env(name).map(str::to_owned).or_else(|| self.args.get(name).cloned())
    }

    pub(super) fn expand(&self, text: &str) -> Result<String, WordError> {
        expand(text, self.escape, &|name| self.lookup(name))
    }

    fn expand_words(&self, text: &str) -> Result<Vec<String>, WordError> {
        expand_words(text, self.escape, &|name| self.lookup(name))
    }

    /// The chain id of everything so far.
    pub(super) fn chain(&self) -> String {
        self.layers.last().map_or_else(|| "scratch".to_owned(), |layer| layer.chain_id.to_string())
    }

    pub(super) fn record(&mut self, text: &str, blob: Option<Blob>) -> Result<(), StepError> {
        if let Some(Blob { digest, size, diff_id }) = blob {
            self.descriptors.push(descriptor(MediaType::ImageLayer, &digest, size).map_err(unusable)?);
            let mut diff_ids: Vec<Digest> = self.layers.iter().map(|layer| layer.diff_id).collect();
            diff_ids.push(diff_id);
            let chain_id = chain_ids(&diff_ids).pop().unwrap_or(diff_id);
            self.layers.push(Layer { digest, size, diff_id, chain_id });
        }
        let entry = HistoryBuilder::default().created_by(text).comment("gantry build");
        let entry = if blob.is_none() { entry.empty_layer(true) } else { entry };
        self.history.push(entry.build().map_err(|e| StepError::Unsupported(format!("history: {e}")))?);
        Ok(())
    }

    /// Instructions that change only what the image says.
    pub(super) fn configure(&mut self, instruction: &Instruction) -> Result<(), StepError> {
        match instruction {
            Instruction::Env(pairs) => {
                // All values see the environment as it was before this instruction.
                let values =
                    pairs.iter().map(|(_, value)| self.expand(value)).collect::<Result<Vec<_>, _>>()?;
                for ((name, _), value) in pairs.iter().zip(values) {
                    let name = self.expand(name)?;
                    self.settings.set_env(&name, value);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    self.settings.labels.insert(self.expand(name)?, self.expand(value)?);
                }
            }
            Instruction::Cmd(command) => {
                self.settings.cmd = Some(command.argv(&self.shell));
                self.cmd_is_own = true;
            }
            Instruction::Entrypoint(command) => {
                self.settings.entrypoint = Some(command.argv(&self.shell));
                // The base's arguments were meant for the base's program.
                if !self.cmd_is_own {
                    self.settings.cmd = None;
                }
            }
            Instruction::Expose(ports) => {
                for port in self.expand_words(ports)? {
                    self.settings.ports.extend(expose(&port)?);
                }
            }
            Instruction::Volume(paths) => {
                for path in paths {
                    self.settings.volumes.insert(self.expand(path)?);
                }
            }
            Instruction::User(user) => self.settings.user = self.expand(user)?,
            Instruction::StopSignal(signal) => self.settings.stop_signal = Some(self.expand(signal)?),
            Instruction::Shell(shell) => self.shell.clone_from(shell),
            Instruction::Maintainer(author) => self.settings.author = Some(self.expand(author)?),
            _ => {}
        }
        Ok(())
    }

    /// Stores configuration and manifest; gives the manifest's digest.
    pub(super) fn store(&self, store: &ImageStore, now: &str) -> Result<Digest, StepError> {
        let undated = self.configuration(None);
        let json = |e: serde_json::Error| unusable(StoreError::Image(format!("image configuration: {e}")));
        let key = Digest::of(&canonical_json(&undated).map_err(json)?);
        let created = Cache::created(store, key, now)?;
        let bytes = canonical_json(&self.configuration(Some(created))).map_err(json)?;
        let id = store.content().put(&bytes)?;
        let config = descriptor(MediaType::ImageConfig, &id, bytes.len() as u64).map_err(unusable)?;
        Ok(put_manifest(store.content(), config, self.descriptors.clone())?)
    }

    fn configuration(&self, created: Option<String>) -> ImageConfiguration {
        let mut history = self.history.clone();
        for entry in &mut history[self.inherited..] {
            entry.set_created(created.clone());
        }
        let mut rootfs = RootFs::default();
        rootfs.set_diff_ids(self.layers.iter().map(|layer| layer.diff_id.to_string()).collect());
        let mut config = ImageConfiguration::default();
        config
            .set_created(created)
            .set_author(self.settings.author.clone())
            .set_architecture(Arch::default())
            .set_os(Os::Linux)
            .set_config(Some(self.settings.write()))
            .set_rootfs(rootfs)
            .set_history(Some(history));
        config
    }
}

/// `80`, `80/udp`, `8000-8002/tcp`.
fn expose(text: &str) -> Result<Vec<String>, StepError> {
    let invalid = || StepError::Invalid { what: "port", value: text.to_owned() };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if first == 0 || first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}
