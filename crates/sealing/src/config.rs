//! The file (kubernetes/kubernetes, `apiserver/pkg/apis/apiserver/v1/types_encryption.go`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::ciphers::{Cbc, Gcm, SecretBox};
use crate::kms::Kms;

/// A configuration of encryption that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the encryption configuration {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file makes no sense.
    #[error("the encryption configuration {path} cannot be used: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    resources: Vec<String>,
    providers: Vec<ProviderEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderEntry {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    kms: Option<KmsEntry>,
    identity: Option<Nothing>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsEntry {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    name: String,
    endpoint: String,
    timeout: Option<String>,
}

/// One way to seal, under the prefix of its key.
pub(crate) enum Provider {
    /// Not at all.
    Identity,
    Gcm(String, Box<Gcm>),
    Cbc(String, Cbc),
    SecretBox(String, SecretBox),
    Kms(String, Arc<Kms>),
}

impl Provider {
    /// What values begin with that this one sealed; nothing for those that are not sealed.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Provider::Identity => "",
            Provider::Gcm(prefix, _) | Provider::Cbc(prefix, _) => prefix,
            Provider::SecretBox(prefix, _) | Provider::Kms(prefix, _) => prefix,
        }
    }
}

/// What is done with some resources: the first provider seals, any of them opens.
pub(crate) struct Rule {
    pub(crate) resources: Vec<String>,
    pub(crate) providers: Vec<Provider>,
}

impl Rule {
    /// Whether it is for records of that table: `secrets`, `deployments.apps`.
    pub(crate) fn is_for(&self, table: &str) -> bool {
        let group = table.split_once('.').map_or("", |(_, group)| group);
        self.resources.iter().any(|resource| match resource.strip_prefix("*.") {
            Some("*") => true,
            Some(wanted) => wanted == group,
            None => resource == table,
        })
    }
}

pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Rule>, ConfigError> {
    let invalid = |why: String| ConfigError::Invalid { path: path.to_owned(), why };
    let file: File = serde_norway::from_str(text).map_err(|e| invalid(e.to_string()))?;
    if file.kind != "EncryptionConfiguration" || !file.api_version.starts_with("apiserver.config.k8s.io/") {
        let found = format!("{} {}", file.api_version, file.kind);
        return Err(invalid(format!(
            "it is a {found}, not apiserver.config.k8s.io/v1 EncryptionConfiguration"
        )));
    }
    let rule = |(index, entry): (usize, Entry)| {
        if entry.resources.is_empty() || entry.providers.is_empty() {
            return Err(format!("resources[{index}] needs resources and providers"));
        }
        let mut providers = Vec::new();
        for (number, provider) in entry.providers.into_iter().enumerate() {
            providers.extend(
                self::providers(provider)
                    .map_err(|why| format!("resources[{index}].providers[{number}]: {why}"))?,
            );
        }
        Ok(Rule { resources: entry.resources, providers })
    };
    file.resources.into_iter().enumerate().map(rule).collect::<Result<_, String>>().map_err(invalid)
}

fn providers(entry: ProviderEntry) -> Result<Vec<Provider>, String> {
    let ProviderEntry { aesgcm, aescbc, secretbox, kms, identity } = entry;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), kms.is_some(), identity.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 {
        return Err("exactly one of aesgcm, aescbc, secretbox, kms and identity must be set".to_owned());
    }
    if identity.is_some() {
        return Ok(vec![Provider::Identity]);
    }
    if let Some(kms) = kms {
        if kms.api_version.as_deref() != Some("v2") {
            return Err("kms needs apiVersion: v2".to_owned());
        }
        let socket = kms.endpoint.strip_prefix("unix://").ok_or("kms.endpoint must begin with unix://")?;
        let limit = kms.timeout.as_deref().map_or(Ok(Duration::from_secs(3)), duration)?;
        // A socket whose name begins with @ has no place in the file system; nobody uses them for this.
        let service = Kms::start(&kms.name, Path::new(socket), limit).map_err(|e| e.to_string())?;
        return Ok(vec![Provider::Kms(format!("k8s:enc:kms:v2:{}:", kms.name), Arc::new(service))]);
    }
    let mut out = Vec::new();
    for (kind, keys) in [("aesgcm", aesgcm), ("aescbc", aescbc), ("secretbox", secretbox)] {
        let Some(keys) = keys else { continue };
        if keys.keys.is_empty() {
            return Err(format!("{kind} has no keys"));
        }
        for key in keys.keys {
            if key.name.is_empty() || key.name.contains(':') {
                return Err(format!("{:?} is no name for a key", key.name));
            }
            let secret = STANDARD.decode(key.secret.trim());
            let secret = secret.map_err(|_| format!("the secret of key {} is not base64", key.name))?;
            let prefix = format!("k8s:enc:{kind}:v1:{}:", key.name);
            let length = || {
                format!("the secret of key {} has {} bytes, which {kind} cannot use", key.name, secret.len())
            };
            out.push(match kind {
                "aesgcm" => Provider::Gcm(prefix, Box::new(Gcm::new(&secret).ok_or_else(length)?)),
                "aescbc" => Provider::Cbc(prefix, Cbc::new(&secret).ok_or_else(length)?),
                _ => Provider::SecretBox(prefix, SecretBox::new(&secret).ok_or_else(length)?),
            });
        }
    }
    Ok(out)
}

/// A time as Go writes it, as far as anybody writes one here: `3s`, `500ms`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is no time as 3s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
    let number: u64 = text[..digits].parse().map_err(|_| fault())?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(fault()),
    }
}
