//! Which versions are served: upstream's `--runtime-config`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Why a set of switches cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RuntimeConfigError {
    #[error("{0:?} is no switch; write api/beta=true, group/version=true or group/version/resource=false")]
    Syntax(String),
    #[error("{key}={value:?} is neither true nor false")]
    Value { key: String, value: String },
    #[error("api/{0} is no set of versions; there are api/all, api/ga, api/beta and api/alpha")]
    Set(String),
    #[error("{0} is switched twice, once on and once off")]
    Twice(String),
    #[error("there is no {0} to switch; the group, its version or the resource is unknown")]
    Unknown(String),
    #[error("{0} cannot be switched off: the server needs it for its own work")]
    Needed(String),
}

/// How settled a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Alpha,
    Beta,
    Stable,
}

impl Stage {
    fn of(version: &str) -> Self {
        if version.contains("alpha") {
            Self::Alpha
        } else if version.contains("beta") {
            Self::Beta
        } else {
            Self::Stable
        }
    }
}

/// What a switch is for; the more it says, the more it weighs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Stage(Stage),
    Version(Box<str>, Box<str>),
    Resource(Box<str>, Box<str>, Box<str>),
}

impl Scope {
    fn parse(key: &str) -> Result<Self, RuntimeConfigError> {
        let parts: Vec<&str> = key.split('/').collect();
        let is_version = |text: &str| {
            text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        Ok(match *parts {
            ["api", "all"] => Self::All,
            ["api", "ga"] => Self::Stage(Stage::Stable),
            ["api", "beta"] => Self::Stage(Stage::Beta),
            ["api", "alpha"] => Self::Stage(Stage::Alpha),
            [version] | ["api", version] if is_version(version) => Self::Version("".into(), version.into()),
            ["api", other] => return Err(RuntimeConfigError::Set(other.into())),
            [version, resource] if is_version(version) && !resource.is_empty() => {
                Self::Resource("".into(), version.into(), resource.into())
            }
            ["api", version, resource] if is_version(version) && !resource.is_empty() => {
                Self::Resource("".into(), version.into(), resource.into())
            }
            [group, version] if !group.is_empty() && is_version(version) => {
                Self::Version(group.into(), version.into())
            }
            [group, version, resource]
                if !group.is_empty() && is_version(version) && !resource.is_empty() =>
            {
                Self::Resource(group.into(), version.into(), resource.into())
            }
            _ => return Err(RuntimeConfigError::Syntax(key.into())),
        })
    }

    fn covers(&self, group: &str, version: &str, resource: &str) -> bool {
        match self {
            Self::All => true,
            Self::Stage(stage) => *stage == Stage::of(version),
            Self::Version(g, v) => **g == *group && **v == *version,
            Self::Resource(g, v, r) => **g == *group && **v == *version && **r == *resource,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("api/all"),
            Self::Stage(Stage::Stable) => f.write_str("api/ga"),
            Self::Stage(Stage::Beta) => f.write_str("api/beta"),
            Self::Stage(Stage::Alpha) => f.write_str("api/alpha"),
            Self::Version(group, version) if group.is_empty() => f.write_str(version),
            Self::Version(group, version) => write!(f, "{group}/{version}"),
            Self::Resource(group, version, resource) if group.is_empty() => write!(f, "{version}/{resource}"),
            Self::Resource(group, version, resource) => write!(f, "{group}/{version}/{resource}"),
        }
    }
}

/// Which of the built-in resources are served, in which versions. By default all stable ones are, and no other.
///
/// Written as `key=true` or `key=false` (a key alone is on), with commas between: `api/all`, `api/ga`, `api/beta`,
/// `api/alpha`; `group/version` (`v1` for the core group); `group/version/resource`. What names more wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    switches: BTreeMap<Scope, bool>,
}

impl FromStr for RuntimeConfig {
    type Err = RuntimeConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut switches = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            let on = match value.trim() {
                "" | "true" | "True" | "TRUE" | "1" => true,
                "false" | "False" | "FALSE" | "0" => false,
                other => return Err(RuntimeConfigError::Value { key: key.into(), value: other.into() }),
            };
            let key = key.trim();
            if switches.insert(Scope::parse(key)?, on).is_some_and(|before| before != on) {
                return Err(RuntimeConfigError::Twice(key.into()));
            }
        }
        Ok(Self { switches })
    }
}

impl RuntimeConfig {
    /// Whether a resource is served.
    pub fn serves(&self, group: &str, version: &str, resource: &str) -> bool {
        // The last that covers it is the one that says most.
        let mut covering = self.switches.iter().rev().filter(|(s, _)| s.covers(group, version, resource));
        covering.next().map_or(Stage::of(version) == Stage::Stable, |(_, on)| *on)
    }

    /// Makes sure that all that is named exists and that what the server needs is left on.
    pub(crate) fn check<'a>(
        &self,
        rows: impl Iterator<Item = (&'a str, &'a str, &'a str)> + Clone,
    ) -> Result<(), RuntimeConfigError> {
        for scope in self.switches.keys().filter(|s| matches!(s, Scope::Version(..) | Scope::Resource(..))) {
            if !rows.clone().any(|(group, version, resource)| scope.covers(group, version, resource)) {
                return Err(RuntimeConfigError::Unknown(scope.to_string()));
            }
        }
        for (group, version, resource) in rows {
            if is_needed(group, version, resource) && !self.serves(group, version, resource) {
                let name = Scope::Resource(group.into(), version.into(), resource.into());
                return Err(RuntimeConfigError::Needed(name.to_string()));
            }
        }
        Ok(())
    }
}

/// What the server makes at its start, and what its own parts read and write.
fn is_needed(group: &str, version: &str, resource: &str) -> bool {
    matches!((group, version), ("", "v1") | ("rbac.authorization.k8s.io", "v1"))
        || matches!(
            (group, version, resource),
            ("discovery.k8s.io", "v1", "endpointslices")
                | ("scheduling.k8s.io", "v1", "priorityclasses")
                | ("coordination.k8s.io", "v1", "leases")
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    fn served(switches: &str) -> Result<Registry, RuntimeConfigError> {
        Registry::serving(&switches.parse()?)
    }

    #[test]
    fn what_names_more_wins() {
        let has = |switches: &str, group: &str, version: &str, resource: &str| {
            served(switches).unwrap().find(group, version, resource).is_some()
        };
        let (dra, claims) = ("resource.k8s.io", "resourceclaims");
        assert!(has("", dra, "v1", claims) && !has("", dra, "v1beta1", claims));
        assert!(has("api/beta=true", dra, "v1beta1", claims) && has("api/beta", dra, "v1beta2", claims));
        assert!(!has("api/beta=true", "scheduling.k8s.io", "v1alpha2", "workloads"));
        assert!(has("api/all=true", "scheduling.k8s.io", "v1alpha2", "workloads"));
        assert!(!has("api/all=true,api/alpha=false", "scheduling.k8s.io", "v1alpha2", "workloads"));
        assert!(has("resource.k8s.io/v1beta1=true", dra, "v1beta1", claims));
        assert!(!has("resource.k8s.io/v1beta1=true", dra, "v1beta2", claims));
        assert!(!has("api/beta=true,resource.k8s.io/v1beta1/resourceclaims=false", dra, "v1beta1", claims));
        assert!(has(
            "api/beta=true,resource.k8s.io/v1beta1/resourceclaims=false",
            dra,
            "v1beta1",
            "resourceslices"
        ));
        assert!(!has("batch/v1/cronjobs=false", "batch", "v1", "cronjobs"));
        assert!(has("v1=true, batch/v1=true", "batch", "v1", "cronjobs"));
    }

    #[test]
    fn bad_switches_are_told_apart() {
        let fault = |switches: &str| served(switches).err().map(|e| e.to_string()).unwrap_or_default();
        for (switches, why) in [
            ("beta", "\"beta\" is no switch"),
            ("api/beta=maybe", "api/beta=\"maybe\" is neither true nor false"),
            ("api/legacy=true", "api/legacy is no set of versions"),
            ("api/beta=true,api/beta=false", "api/beta is switched twice"),
            ("apps/v9=true", "there is no apps/v9 to switch"),
            ("apps/v1/gadgets=true", "there is no apps/v1/gadgets to switch"),
            ("v1=false", "cannot be switched off"),
            ("api/ga=false", "cannot be switched off"),
        ] {
            assert!(fault(switches).contains(why), "{switches}: {}", fault(switches));
        }
    }

    #[test]
    fn one_kind_is_stored_in_one_version() {
        let registry = served("api/all=true").unwrap();
        let mut storage = BTreeMap::new();
        for def in registry.resources() {
            let kind = (def.gvk.group.clone(), def.gvk.kind.clone());
            let version = storage.entry(kind).or_insert_with(|| def.storage.clone());
            assert_eq!(*version, def.storage, "{:?} is stored in two versions", def.gvk);
            assert!(Stage::of(&def.storage.version) >= Stage::of(&def.gvk.version), "{:?}", def.gvk);
            assert_eq!(def.convert.is_some(), def.storage != def.gvk, "{:?}", def.gvk);
            assert!(def.schema.is_some(), "{:?} has no type", def.gvk);
        }
    }
}
