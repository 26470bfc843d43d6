//! Who may use an image that is here already (kubernetes/kubernetes, `pkg/kubelet/images/pullmanager`): somebody else's
//! credentials have fetched it, and whoever comes later must have them too, or show credentials of his own.
//!
//! What a pull needed is noted in a file for each image; an image without a note was here before anybody pulled it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::{Auth, Image, Reference};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::keyring::{Key, Keyring};

/// For which images credentials are asked again (upstream: `ImagePullCredentialsVerificationPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerificationPolicy {
    /// For none.
    NeverVerify,
    /// For those that were pulled by this node's agent.
    #[default]
    NeverVerifyPreloadedImages,
    /// For all but those that are listed.
    NeverVerifyAllowlistedImages,
    /// For all.
    AlwaysVerify,
}

impl VerificationPolicy {
    const ALL: [Self; 4] = [
        Self::NeverVerify,
        Self::NeverVerifyPreloadedImages,
        Self::NeverVerifyAllowlistedImages,
        Self::AlwaysVerify,
    ];

    /// As upstream calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverVerify => "NeverVerify",
            Self::NeverVerifyPreloadedImages => "NeverVerifyPreloadedImages",
            Self::NeverVerifyAllowlistedImages => "NeverVerifyAllowlistedImages",
            Self::AlwaysVerify => "AlwaysVerify",
        }
    }

    /// The policy of this name.
    ///
    /// # Errors
    /// A sentence with all names.
    pub fn named(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| format!("must be one of {}", names()))
    }
}

/// What pulls needed.
pub(crate) struct Pulls {
    folder: PathBuf,
    policy: VerificationPolicy,
    listed: Vec<String>,
    /// By image id; read when first asked for.
    notes: Mutex<BTreeMap<String, Option<Note>>>,
}

/// Who may use an image: everybody who could pull one of these names with what is noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Note {
    /// By the image's name without tag and digest.
    credentials: BTreeMap<String, Credentials>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Credentials {
    /// Nobody was asked.
    anybody: bool,
    /// Secrets whose content was good: where they are, and a hash of what was used.
    secrets: Vec<Secret>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Secret {
    namespace: String,
    name: String,
    uid: String,
    hash: String,
}

impl Pulls {
    pub(crate) fn new(data_dir: &Path, policy: VerificationPolicy, listed: Vec<String>) -> Self {
        Self { folder: data_dir.join("image_pulls"), policy, listed, notes: Mutex::default() }
    }

    /// Whether anybody's credentials matter for this image at all.
    pub(crate) fn asks(&self, reference: &Reference, image: &Image) -> bool {
        let name = reference.name();
        match self.policy {
            VerificationPolicy::NeverVerify => false,
            VerificationPolicy::NeverVerifyPreloadedImages => self.note(&image.id.to_string()).is_some(),
            VerificationPolicy::NeverVerifyAllowlistedImages => !self.listed.iter().any(|p| covers(p, &name)),
            VerificationPolicy::AlwaysVerify => true,
        }
    }

    /// Whether nobody here has pulled it: it was built or imported.
    pub(crate) fn is_preloaded(&self, image: &Image) -> bool {
        self.note(&image.id.to_string()).is_none()
    }

    /// Whether somebody with these keys may use the image as it is here.
    pub(crate) fn allows(&self, reference: &Reference, image: &Image, ring: &Keyring) -> bool {
        let Some(note) = self.note(&image.id.to_string()) else { return false };
        let Some(known) = note.credentials.get(&reference.name()) else { return false };
        // The same secret, or the same content of another one.
        let fits = |key: &Key| {
            known.secrets.iter().any(|s| {
                (&s.namespace, &s.name, &s.uid) == (&key.namespace, &key.name, &key.uid)
                    || s.hash == hash(&key.auth)
            })
        };
        known.anybody || ring.keys(reference).iter().any(fits)
    }

    /// Notes a pull: with one of somebody's keys, or with none.
    pub(crate) fn pulled(&self, reference: &Reference, image: &Image, key: Option<&Key>) {
        let id = image.id.to_string();
        let mut note = self.note(&id).unwrap_or_default();
        let known = note.credentials.entry(reference.name()).or_default();
        match key {
            None => known.anybody = true,
            Some(key) => {
                let secret = Secret {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    uid: key.uid.clone(),
                    hash: hash(&key.auth),
                };
                known.secrets.retain(|s| (&s.namespace, &s.name) != (&secret.namespace, &secret.name));
                known.secrets.push(secret);
            }
        }
        if let Err(error) = self.write(&id, &note) {
            // Then the next agent takes it for one that was here before.
            tracing::warn!(image = id, %error, "cannot note what the pull of an image needed");
        }
        self.notes.lock().insert(id, Some(note));
    }

    fn note(&self, id: &str) -> Option<Note> {
        let mut notes = self.notes.lock();
        let read = || serde_json::from_slice(&fs::read(self.file(id)).ok()?).ok();
        notes.entry(id.to_owned()).or_insert_with(read).clone()
    }

    fn write(&self, id: &str, note: &Note) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let (file, new) = (self.file(id), self.file(&format!("{id}.new")));
        fs::write(&new, serde_json::to_vec(note)?)?;
        fs::rename(new, file)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(id.replace(':', "-"))
    }
}

/// Whether an entry of the list means this image: its name, or what it begins with and `/*`.
fn covers(pattern: &str, name: &str) -> bool {
    let full = |text: &str| match text.parse::<Reference>() {
        Ok(reference) => reference.name(),
        Err(_) => text.to_owned(),
    };
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => full(pattern) == name,
    }
}

/// What tells one credential from another, without giving it away.
fn hash(auth: &Auth) -> String {
    let text = match auth {
        Auth::Basic { username, password } => format!("basic\0{username}\0{password}"),
        Auth::Bearer(token) => format!("bearer\0{token}"),
    };
    image::Digest::of(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_names() {
        for policy in VerificationPolicy::ALL {
            assert_eq!(VerificationPolicy::named(policy.name()), Ok(policy));
        }
        assert!(VerificationPolicy::named("x").unwrap_err().starts_with("must be one of NeverVerify, "));
    }

    #[test]
    fn lists_name_images_and_what_they_begin_with() {
        assert!(covers("r.example.com/team/app", "r.example.com/team/app"));
        assert!(covers("r.example.com/team/*", "r.example.com/team/app"));
        assert!(!covers("r.example.com/team", "r.example.com/team/app"));
        assert!(covers("busybox", "docker.io/library/busybox"));
    }
}
