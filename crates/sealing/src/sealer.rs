use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use store::{Opened, Seal, SealError};

use crate::config::{ConfigError, Provider, Rule, parse};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What all sealed values begin with.
const MARK: &[u8] = b"k8s:enc:";

/// Seals as a file says, and as it says when it has changed.
pub struct Sealer {
    path: PathBuf,
    rules: RwLock<Arc<Vec<Rule>>>,
    text: Mutex<String>,
    ages: Mutex<Ages>,
}

/// Which records are sealed as they would not be today: table and key.
#[derive(Debug, Default)]
struct Ages {
    /// The keys have changed: those are that are not in `fresh`. Before, those are that are in `stale`.
    changed: bool,
    stale: HashSet<(String, String)>,
    fresh: HashSet<(String, String)>,
}

impl Ages {
    fn note(&mut self, table: &str, key: &str, stale: bool) {
        let (table, key) = (table.to_owned(), key.to_owned());
        match (self.changed, stale) {
            (false, true) => drop(self.stale.insert((table, key))),
            (false, false) if self.stale.is_empty() => {}
            (false, false) => drop(self.stale.remove(&(table, key))),
            (true, true) => drop(self.fresh.remove(&(table, key))),
            (true, false) => drop(self.fresh.insert((table, key))),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Arc<Self>, ConfigError> {
        let text = read(path)?;
        let rules = parse(path, &text)?;
        let rules = RwLock::new(Arc::new(rules));
        Ok(Arc::new(Self { path: path.to_owned(), rules, text: Mutex::new(text), ages: Mutex::default() }))
    }

    /// Reads the file again if it has changed; tells whether it had. One that cannot be used changes nothing.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        let text = read(&self.path)?;
        let mut known = self.text.lock();
        if *known == text {
            return Ok(false);
        }
        // Complained about once.
        *known = text;
        let rules = parse(&self.path, &known)?;
        // In this order: what is sealed in between counts as stale, which costs one write at most.
        *self.rules.write() = Arc::new(rules);
        *self.ages.lock() = Ages { changed: true, ..Ages::default() };
        Ok(true)
    }

    /// Looks at the file for as long as somebody uses this.
    pub fn follow(self: &Arc<Self>) -> std::io::Result<()> {
        let weak: Weak<Self> = Arc::downgrade(self);
        let follow = move || {
            while let Some(sealer) = weak.upgrade() {
                match sealer.reload() {
                    Ok(true) => {
                        tracing::info!(path = %sealer.path.display(), "the encryption configuration has changed")
                    }
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the encryption configuration stays as it was"),
                }
                drop(sealer);
                std::thread::sleep(LOOK_EVERY);
            }
        };
        std::thread::Builder::new().name("encryption".to_owned()).spawn(follow).map(drop)
    }

    /// What of a table's records begin with that are sealed today; nothing if they are not.
    pub fn prefix(&self, table: &str) -> Option<String> {
        let rules = self.rules.read().clone();
        let first = rules.iter().find(|rule| rule.is_for(table))?.providers.first()?;
        Some(first.prefix().to_owned()).filter(|prefix| !prefix.is_empty())
    }

    /// Remembers whether a record would be sealed otherwise today.
    fn note(&self, table: &str, key: &str, stale: bool) {
        if self.names(table) {
            self.ages.lock().note(table, key, stale);
        }
    }

    /// Whether the file names that table at all, be it only to have its records no longer encrypted.
    pub fn names(&self, table: &str) -> bool {
        self.rules.read().iter().any(|rule| rule.is_for(table))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// The object's place, which its ciphertext is bound to: upstream's key in etcd.
fn place(table: &str, key: &str) -> Vec<u8> {
    format!("/registry/{table}/{key}").into_bytes()
}

impl Seal for Sealer {
    fn covers(&self, table: &str) -> bool {
        self.prefix(table).is_some()
    }

    fn seal(&self, table: &str, key: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let rules = self.rules.read().clone();
        let provider = rules.iter().find(|rule| rule.is_for(table)).and_then(|rule| rule.providers.first());
        let place = place(table, key);
        let sealed = match provider {
            // The file may have changed since it was asked whether to.
            None | Some(Provider::Identity) => {
                self.note(table, key, false);
                return Ok(plain.to_vec());
            }
            Some(Provider::Gcm(_, cipher)) => cipher.seal(&place, plain).map_err(str::to_owned),
            Some(Provider::Cbc(_, cipher)) => cipher.seal(plain).map_err(str::to_owned),
            Some(Provider::SecretBox(_, cipher)) => cipher.seal(plain).map_err(str::to_owned),
            Some(Provider::Kms(_, service)) => service.seal(&place, plain),
        };
        let prefix = provider.map_or("", Provider::prefix).as_bytes();
        if sealed.is_ok() {
            self.note(table, key, false);
        }
        sealed.map(|sealed| [prefix, &sealed].concat()).map_err(|why| SealError::Seal {
            table: table.into(),
            key: key.into(),
            why,
        })
    }

    fn passed(&self, table: &str, key: &str) {
        self.note(table, key, self.covers(table));
    }

    fn is_stale(&self, table: &str, key: &str) -> bool {
        let ages = self.ages.lock();
        let place = || (table.to_owned(), key.to_owned());
        match ages.changed {
            false => !ages.stale.is_empty() && ages.stale.contains(&place()),
            true => self.names(table) && !ages.fresh.contains(&place()),
        }
    }

    fn open(&self, table: &str, key: &str, sealed: &[u8]) -> Result<Opened, SealError> {
        let rules = self.rules.read().clone();
        let fault = |why: String| SealError::Open { table: table.into(), key: key.into(), why };
        let rule = rules.iter().find(|rule| rule.is_for(table));
        if !sealed.starts_with(MARK) {
            let allowed = rule.is_none_or(|r| r.providers.iter().any(|p| matches!(p, Provider::Identity)));
            if !allowed {
                return Err(fault(
                    "it is not encrypted, which the provider identity alone allows".to_owned(),
                ));
            }
            let stale = self.covers(table);
            self.note(table, key, stale);
            return Ok(Opened { plain: sealed.to_vec(), stale });
        }
        let place = place(table, key);
        // Also with keys of other rules: what is no longer named must still be readable.
        let others = rules.iter().filter(|other| rule.is_none_or(|rule| !std::ptr::eq(rule, *other)));
        let providers = rule.into_iter().chain(others).flat_map(|rule| &rule.providers);
        for (index, provider) in providers.enumerate() {
            let prefix = provider.prefix();
            let Some(rest) = sealed.strip_prefix(prefix.as_bytes()).filter(|_| !prefix.is_empty()) else {
                continue;
            };
            let opened = match provider {
                Provider::Identity => continue,
                Provider::Gcm(_, cipher) => {
                    cipher.open(&place, rest).map(|p| (p, false)).map_err(str::to_owned)
                }
                Provider::Cbc(_, cipher) => cipher.open(rest).map(|p| (p, false)).map_err(str::to_owned),
                Provider::SecretBox(_, cipher) => {
                    cipher.open(rest).map(|p| (p, false)).map_err(str::to_owned)
                }
                Provider::Kms(_, service) => service.open(&place, rest),
            };
            let (plain, stale) = opened.map_err(fault)?;
            let stale = stale || index > 0 || rule.is_none();
            self.note(table, key, stale);
            return Ok(Opened { plain, stale });
        }
        let named: Vec<&[u8]> = sealed.splitn(6, |byte| *byte == b':').take(5).collect();
        let named = String::from_utf8_lossy(&named.join(&b':')).into_owned();
        Err(fault(format!("no key is configured for what {named} has encrypted")))
    }
}

/// A seal that counts what it opens: table and prefix.
#[derive(Debug)]
pub struct Audit {
    sealer: Arc<Sealer>,
    seen: Mutex<BTreeMap<(String, String), usize>>,
}

impl Audit {
    /// Counts from zero.
    pub fn new(sealer: Arc<Sealer>) -> Arc<Self> {
        Arc::new(Self { sealer, seen: Mutex::default() })
    }

    /// How many values of a table begin with a prefix.
    pub fn seen(&self) -> BTreeMap<(String, String), usize> {
        self.seen.lock().clone()
    }
}

impl Seal for Audit {
    fn covers(&self, table: &str) -> bool {
        self.sealer.covers(table)
    }

    fn seal(&self, table: &str, key: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.sealer.seal(table, key, plain)
    }

    fn passed(&self, table: &str, key: &str) {
        self.sealer.passed(table, key);
    }

    fn is_stale(&self, table: &str, key: &str) -> bool {
        self.sealer.is_stale(table, key)
    }

    fn open(&self, table: &str, key: &str, sealed: &[u8]) -> Result<Opened, SealError> {
        if sealed.starts_with(MARK) {
            let named: Vec<&[u8]> = sealed.splitn(6, |byte| *byte == b':').take(5).collect();
            let prefix = format!("{}:", String::from_utf8_lossy(&named.join(&b':')));
            *self.seen.lock().entry((table.to_owned(), prefix)).or_default() += 1;
        }
        self.sealer.open(table, key, sealed)
    }
}
