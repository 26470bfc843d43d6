use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const LONGEST_NAME: usize = 255;

/// The full name of an image: registry, repository, and a tag or a digest or both.
///
/// Parsing fills in what people leave out, in the same way as distribution/reference,
/// `normalize.go`, `ParseNormalizedNamed` and `TagNameOnly`: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("empty image reference")]
    Empty,
    /// The registry host is malformed.
    #[error("invalid registry {registry:?} in image reference {reference:?}")]
    Registry {
        /// The whole text.
        reference: String,
        /// The part that is wrong.
        registry: String,
    },
    /// The repository has upper-case letters.
    #[error("invalid image reference {0:?}: the repository name must be lower case")]
    UpperCase(String),
    /// The repository is malformed.
    #[error("invalid repository {repository:?} in image reference {reference:?}")]
    Repository {
        /// The whole text.
        reference: String,
        /// The part that is wrong.
        repository: String,
    },
    /// The repository is longer than 255 characters.
    #[error("the repository name of an image reference must not be longer than 255 characters")]
    TooLong,
    /// The name could be mistaken for an image identifier.
    #[error("invalid image reference {0:?}: a name must not be 64 hexadecimal digits")]
    LooksLikeId(String),
    /// The tag is malformed.
    #[error("invalid tag {tag:?} in image reference {reference:?}")]
    Tag {
        /// The whole text.
        reference: String,
        /// The part that is wrong.
        tag: String,
    },
    /// The digest is malformed.
    #[error("image reference {reference:?}: {source}")]
    Digest {
        /// The whole text.
        reference: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
}

impl Reference {
    /// The registry host with its port, `docker.io` if none was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository:tag`, if there is a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// The same repository pinned to `digest`.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The short form that people write: without the default registry and namespace.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            None => full,
            Some(rest) => match rest.strip_prefix(DEFAULT_NAMESPACE) {
                Some(short) if !short.contains('/') => short.to_owned(),
                _ => rest.to_owned(),
            },
        }
    }

    /// The form that the registry client wants.
    pub(crate) fn to_oci(&self) -> oci_client::Reference {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        match (&self.digest, &self.tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => oci_client::Reference::with_tag(
                registry,
                repository,
                tag.clone().unwrap_or_else(|| "latest".into()),
            ),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if Digest::from_hex(text).is_some() {
            return Err(ReferenceError::LooksLikeId(text.into()));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let wrong = |source| ReferenceError::Digest { reference: text.into(), source };
                (rest, Some(digest.parse().map_err(wrong)?))
            }
        };
        // A colon after the last slash starts a tag; before it, a port.
        let path_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[path_at..].find(':') {
            None => (rest, None),
            Some(colon) => (&rest[..path_at + colon], Some(&rest[path_at + colon + 1..])),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag { reference: text.into(), tag: tag.into() });
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) {
            return Err(ReferenceError::Registry { reference: text.into(), registry });
        }
        if repository.len() > LONGEST_NAME {
            return Err(ReferenceError::TooLong);
        }
        if !repository.split('/').all(is_path_component) {
            let lower = repository.to_ascii_lowercase();
            if lower != repository && lower.split('/').all(is_path_component) {
                return Err(ReferenceError::UpperCase(text.into()));
            }
            return Err(ReferenceError::Repository { reference: text.into(), repository });
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// distribution/reference, `normalize.go`, `splitDockerDomain`.
fn split_registry(name: &str) -> (String, String) {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
    };
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == LEGACY_REGISTRY { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return (registry.into(), format!("{DEFAULT_NAMESPACE}{repository}"));
    }
    (registry.into(), repository.into())
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.len() <= 5 && port.bytes().all(|c| c.is_ascii_digit())
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes
        .split(|c| alphanumeric(*c))
        .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|c| *c == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> String {
        text.parse::<Reference>().map(|r| r.to_string()).unwrap_or_else(|e| format!("error: {e}"))
    }

    #[test]
    fn fills_in_what_is_left_out() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.29", "docker.io/library/nginx:1.29"),
            ("me/app", "docker.io/me/app:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app:a", "localhost/app:a"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("Host/app", "Host/app:latest"),
        ] {
            assert_eq!(normal(text), full);
        }
        assert_eq!(normal(&format!("nginx@{digest}")), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(normal(&format!("nginx:1@{digest}")), format!("docker.io/library/nginx:1@{digest}"));
    }

    #[test]
    fn shows_the_short_form() {
        for (text, short) in [
            ("docker.io/library/nginx", "nginx:latest"),
            ("docker.io/a/b:1", "a/b:1"),
            ("x.io/a", "x.io/a:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), short);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use ReferenceError as E;
        let parse = |text: &str| text.parse::<Reference>().unwrap_err();
        assert_eq!(parse(""), E::Empty);
        assert_eq!(parse("Nginx"), E::UpperCase("Nginx".into()));
        assert!(matches!(parse("nginx:"), E::Tag { .. }));
        assert!(matches!(parse("nginx:a b"), E::Tag { .. }));
        assert!(matches!(parse("a//b"), E::Repository { .. }));
        assert!(matches!(parse("../etc"), E::Registry { .. }));
        assert!(matches!(parse("a/../b"), E::Repository { .. }));
        assert!(matches!(parse("-a.io/b"), E::Registry { .. }));
        assert!(matches!(parse("a@sha256:zz"), E::Digest { .. }));
        assert_eq!(parse(&"a".repeat(64)), E::LooksLikeId("a".repeat(64)));
        assert_eq!(parse(&format!("x/{}", "a".repeat(256))), E::TooLong);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn display_is_a_fixed_point(text in "([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9._/-]{1,20}(:[\\w.-]{1,8})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                let full = reference.to_string();
                prop_assert_eq!(full.parse::<Reference>(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
