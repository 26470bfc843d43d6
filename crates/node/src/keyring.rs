//! What registries are told about who is asking: the pod's image pull secrets (kubernetes/kubernetes,
//! `pkg/credentialprovider`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{Auth, Reference};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client};
use serde_json::Value;

/// Credentials by registry, the more particular first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring(Vec<(String, Key)>);

/// A credential, and the Secret it is from.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) auth: Auth,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Keyring {
    /// What the pod's secrets hold, and the names of those that cannot be had.
    pub(crate) async fn of(client: &Client, pod: &Pod) -> (Self, Vec<String>) {
        let (mut ring, mut missing) = (Self::default(), Vec::new());
        let api: Api<Secret> =
            Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        for reference in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
            match api.get_opt(&reference.name).await {
                Ok(Some(secret)) => ring.add(&secret),
                Ok(None) => missing.push(reference.name.clone()),
                Err(error) => {
                    tracing::warn!(secret = reference.name, %error, "cannot read an image pull secret");
                    missing.push(reference.name.clone());
                }
            }
        }
        // Longer is more particular.
        ring.0.sort_by(|(a, _), (b, _)| b.cmp(a));
        (ring, missing)
    }

    fn add(&mut self, secret: &Secret) {
        let data = secret.data.as_ref();
        let parsed = |key: &str| {
            let bytes = &data?.get(key)?.0;
            serde_json::from_slice::<Value>(bytes).ok()
        };
        let auths = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => {
                parsed(".dockerconfigjson").map(|config| config["auths"].clone())
            }
            Some("kubernetes.io/dockercfg") => parsed(".dockercfg"),
            _ => None,
        };
        for (registry, entry) in auths.as_ref().and_then(Value::as_object).into_iter().flatten() {
            if let Some(auth) = auth_of(entry) {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                let meta = &secret.metadata;
                let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
                self.0.push((plain(registry), Key { auth, namespace, name, uid }));
            }
        }
    }

    /// All that may open this image's repository.
    pub(crate) fn keys(&self, image: &Reference) -> Vec<Key> {
        let of = |registry: &str| format!("{registry}/{}", image.repository());
        let mut names = vec![of(image.registry())];
        if matches!(image.registry(), "docker.io" | "index.docker.io" | "registry-1.docker.io") {
            names = ["docker.io", "index.docker.io", "registry-1.docker.io"].map(of).into();
        }
        let fits = |key: &str| names.iter().any(|name| covers(key, name));
        self.0.iter().filter(|(key, _)| fits(key)).map(|(_, key)| key.clone()).collect()
    }
}

fn auth_of(entry: &Value) -> Option<Auth> {
    let text = |field: &str| entry[field].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    if let Some(token) = text("registrytoken") {
        return Some(Auth::Bearer(token));
    }
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(Auth::Basic { username, password });
    }
    let both = String::from_utf8(STANDARD.decode(text("auth")?.trim()).ok()?).ok()?;
    let (username, password) = both.split_once(':')?;
    Some(Auth::Basic { username: username.to_owned(), password: password.to_owned() })
}

/// A registry as configurations name it, without scheme and version.
fn plain(registry: &str) -> String {
    let name =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let name = name.trim_end_matches('/');
    name.strip_suffix("/v1")
        .or_else(|| name.strip_suffix("/v2"))
        .unwrap_or(name)
        .trim_end_matches('/')
        .to_owned()
}

/// Whether a key, whose host may hold `*` in each of its parts, covers a repository.
fn covers(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let port = |host: &str| host.split_once(':').map(|(_, port)| port.to_owned());
    let parts = |host: &str| -> Vec<String> {
        host.split(':').next().unwrap_or_default().split('.').map(str::to_owned).collect()
    };
    let (ours, theirs) = (parts(key_host), parts(host));
    port(key_host) == port(host)
        && ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(pattern, part)| glob(pattern, part))
        && path.starts_with(key_path)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ring(type_: &str, key: &str, content: Value) -> Keyring {
        let data = json!({ key: STANDARD.encode(content.to_string()) });
        let secret: Secret = serde_json::from_value(json!({"type": type_, "data": data})).unwrap();
        let mut ring = Keyring::default();
        ring.add(&secret);
        ring
    }

    fn names(ring: &Keyring, image: &str) -> Vec<String> {
        let name = |key: Key| match key.auth {
            Auth::Basic { username, password } => format!("{username}:{password}"),
            Auth::Bearer(token) => token,
        };
        ring.keys(&image.parse().unwrap()).into_iter().map(name).collect()
    }

    #[test]
    fn both_formats_are_read() {
        let auths = json!({"https://r.example.com/v2/": {"auth": STANDARD.encode("u:p:q")},
            "other.example.com": {"username": "a", "password": "b"}, "t.example.com": {"registrytoken": "tok"}});
        for ring in [
            ring("kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({ "auths": auths })),
            ring("kubernetes.io/dockercfg", ".dockercfg", auths.clone()),
        ] {
            assert_eq!(names(&ring, "r.example.com/x/y:1"), ["u:p:q"]);
            assert_eq!(names(&ring, "other.example.com/x"), ["a:b"]);
            assert_eq!(names(&ring, "t.example.com/x"), ["tok"]);
            assert_eq!(names(&ring, "nobody.example.com/x"), [""; 0]);
        }
        assert_eq!(names(&ring("Opaque", ".dockercfg", auths), "r.example.com/x"), [""; 0]);
    }

    #[test]
    fn hosts_paths_and_the_hub() {
        for (key, repository, want) in [
            ("a.b", "a.b/x", true),
            ("a.b:5000", "a.b/x", false),
            ("a.b:5000", "a.b:5000/x", true),
            ("*.b", "a.b/x", true),
            ("*.b", "c.a.b/x", false),
            ("a*.b", "abc.b/x", true),
            ("a.b/team", "a.b/team/x", true),
            ("a.b/team", "a.b/other/x", false),
        ] {
            assert_eq!(covers(key, repository), want, "{key} {repository}");
        }
        let hub = json!({"https://index.docker.io/v1/": {"username": "u", "password": "p"}});
        let hub = ring("kubernetes.io/dockercfg", ".dockercfg", hub);
        assert_eq!(names(&hub, "nginx"), ["u:p"]);
    }
}
