//! The environment of a container (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`,
//! `makeEnvironmentVariables`).

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::{Api, Client};
use volumes::{Allocatable, Places, field, resource_field};

use crate::env_file;
use crate::error::NodeError;

/// Files with variables are not longer.
const MOST_OF_A_FILE: u64 = 1 << 20;

/// Names and values in order; a name that comes again replaces the earlier value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env {
    values: BTreeMap<String, String>,
    order: Vec<String>,
}

impl Env {
    pub(crate) fn put(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    /// Only where there is no such name yet.
    pub(crate) fn put_new(&mut self, name: &str, value: String) {
        if !self.values.contains_key(name) {
            self.put(name, value);
        }
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        self.order.iter().map(|name| (name, &self.values[name]))
    }

    /// `$(NAME)` becomes the variable's value, `$$` a dollar; unknown names stay as they are
    /// (`third_party/forked/golang/expansion/expand.go`).
    pub(crate) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.values.get(name).cloned().unwrap_or_else(|| format!("$({name})")))
    }

    /// As [`Env::expand`], but every name must be known.
    pub(crate) fn expand_all(&self, text: &str) -> Result<String, String> {
        let mut unknown = None;
        let text = expand(text, |name| match self.values.get(name) {
            Some(value) => value.clone(),
            None => {
                unknown.get_or_insert_with(|| name.to_owned());
                String::new()
            }
        });
        unknown.map_or(Ok(text), Err)
    }
}

fn expand(text: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            out.push_str(&value(name));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Where values come from.
pub(crate) struct Sources<'a> {
    pub(crate) client: &'a Client,
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: &'a str,
    pub(crate) host_ip: &'a str,
    pub(crate) allocatable: &'a Allocatable,
    /// Of the Services that the pod may know of.
    pub(crate) services: Env,
    /// Where files with variables may be.
    pub(crate) places: &'a Places,
}

impl Sources<'_> {
    /// What the container's spec asks for, and the Services' variables after it.
    pub(crate) async fn environment(&self, container: &Container) -> Result<Env, NodeError> {
        let mut env = Env::default();
        for from in container.env_from.iter().flatten() {
            let prefix = from.prefix.as_deref().unwrap_or_default();
            let values = if let Some(source) = &from.config_map_ref {
                self.config_map(&source.name, source.optional).await?
            } else if let Some(source) = &from.secret_ref {
                self.secret(&source.name, source.optional).await?
            } else {
                continue;
            };
            for (key, value) in values.into_iter().flatten() {
                env.put(&format!("{prefix}{key}"), value);
            }
        }
        for var in container.env.iter().flatten() {
            let value = match &var.value_from {
                None => {
                    let mut known = self.services.clone();
                    env.pairs().for_each(|(name, value)| known.put(name, value.clone()));
                    Some(known.expand(var.value.as_deref().unwrap_or_default()))
                }
                Some(from) => self.value(container, &var.name, from).await?,
            };
            if let Some(value) = value {
                env.put(&var.name, value);
            }
        }
        for (name, value) in self.services.pairs() {
            env.put_new(name, value.clone());
        }
        Ok(env)
    }

    async fn value(
        &self,
        container: &Container,
        name: &str,
        from: &core::EnvVarSource,
    ) -> Result<Option<String>, NodeError> {
        if let Some(reference) = &from.field_ref {
            return match reference.field_path.as_str() {
                "status.podIP" | "status.podIPs" => Ok(Some(self.pod_ip.to_owned())),
                "status.hostIP" | "status.hostIPs" => Ok(Some(self.host_ip.to_owned())),
                path => match field(self.pod, path) {
                    Some(value) => Ok(Some(value)),
                    None => Err(NodeError::Config(format!("unsupported fieldPath: {path}"))),
                },
            };
        }
        if let Some(key) = &from.config_map_key_ref {
            let values = self.config_map(&key.name, key.optional).await?;
            return self.key(values, "configmap", &key.name, &key.key, key.optional);
        }
        if let Some(key) = &from.secret_key_ref {
            let values = self.secret(&key.name, key.optional).await?;
            return self.key(values, "secret", &key.name, &key.key, key.optional);
        }
        if let Some(reference) = &from.resource_field_ref {
            let value = resource_field(self.pod, Some(container), reference, self.allocatable);
            return value.map(Some).map_err(|why| NodeError::Config(why.to_string()));
        }
        if let Some(file) = &from.file_key_ref {
            return self.variable_of(file);
        }
        Err(NodeError::Config(format!("env {name:?}: this source is not available in this version")))
    }

    /// A variable out of a file in a volume (`FileKeyRef`).
    fn variable_of(&self, file: &core::FileKeySelector) -> Result<Option<String>, NodeError> {
        let place = self.places.get(&file.volume_name).ok_or_else(|| {
            let volume = &file.volume_name;
            NodeError::Config(format!("cannot find the volume {volume:?} referenced by FileKeyRef"))
        })?;
        let optional = file.optional == Some(true);
        // Whoever wrote the volume must not lead us out of it.
        let text = match volumes::read_beneath(&place.path, Path::new(&file.path), MOST_OF_A_FILE) {
            Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|_| NodeError::Config("couldn't parse env file".to_owned()))?,
        };
        let text = String::from_utf8_lossy(&text);
        let found = env_file::value(&text, &file.key).map_err(|why| {
            tracing::debug!(path = file.path, why, "a file with variables is not understood");
            NodeError::Config("couldn't parse env file".to_owned())
        })?;
        match found {
            None if !optional => {
                let (key, path) = (&file.key, &file.path);
                Err(NodeError::Config(format!("environment variable key {key:?} not found in file {path:?}")))
            }
            found => Ok(found),
        }
    }

    fn key(
        &self,
        values: Option<BTreeMap<String, String>>,
        kind: &str,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<String>, NodeError> {
        let Some(mut values) = values else { return Ok(None) };
        match values.remove(key) {
            None if optional != Some(true) => {
                let namespace = self.namespace();
                let kind = if kind == "secret" { "Secret" } else { "ConfigMap" };
                Err(NodeError::Config(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
            }
            value => Ok(value),
        }
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    async fn config_map(
        &self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<BTreeMap<String, String>>, NodeError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace());
        let found = api.get_opt(name).await?.map(|map| map.data.unwrap_or_default());
        there(found, "configmap", name, optional)
    }

    async fn secret(
        &self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<BTreeMap<String, String>>, NodeError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace());
        let text = |(key, value): (String, k8s_openapi::ByteString)| {
            (key, String::from_utf8_lossy(&value.0).into_owned())
        };
        let found = api.get_opt(name).await?.map(|s| s.data.into_iter().flatten().map(text).collect());
        there(found, "secret", name, optional)
    }
}

fn there<T>(
    found: Option<T>,
    kind: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<T>, NodeError> {
    match found {
        None if optional != Some(true) => Err(NodeError::Config(format!("{kind} {name:?} not found"))),
        found => Ok(found),
    }
}

/// Variables of Services, as Docker's links once had them (`pkg/kubelet/envvars/envvars.go`).
pub(crate) fn of_services<'a>(services: impl IntoIterator<Item = &'a core::Service>) -> Env {
    let mut env = Env::default();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let Some(first) = spec.ports.iter().flatten().next() else { continue };
        let name = variable(service.metadata.name.as_deref().unwrap_or_default());
        env.put(&format!("{name}_SERVICE_HOST"), ip.to_owned());
        env.put(&format!("{name}_SERVICE_PORT"), first.port.to_string());
        for port in spec.ports.iter().flatten() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                env.put(&format!("{name}_SERVICE_PORT_{}", variable(port_name)), port.port.to_string());
            }
        }
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (i, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let (upper, lower) = (protocol.to_uppercase(), protocol.to_lowercase());
            let url = format!("{lower}://{host}:{}", port.port);
            if i == 0 {
                env.put(&format!("{name}_PORT"), url.clone());
            }
            let prefix = format!("{name}_PORT_{}_{upper}", port.port);
            env.put(&prefix, url);
            env.put(&format!("{prefix}_PROTO"), lower);
            env.put(&format!("{prefix}_PORT"), port.port.to_string());
            env.put(&format!("{prefix}_ADDR"), ip.to_owned());
        }
    }
    env
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_expand_once() {
        let mut env = Env::default();
        env.put("A", "1".into());
        env.put("B", "$(A)".into());
        for (text, want) in [
            ("$(A)", "1"),
            ("x$(B)y", "x$(A)y"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$", "$"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(env.expand(text), want, "{text}");
        }
        assert_eq!((env.expand_all("$(A)/x"), env.expand_all("$(C)")), (Ok("1/x".into()), Err("C".into())));
    }

    #[test]
    fn services_have_their_variables() {
        let service: core::Service = serde_json::from_value(json!({"metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "sql-x", "port": 5432}, {"port": 53, "protocol": "UDP"}]}}))
        .unwrap();
        let headless: core::Service = serde_json::from_value(
            json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
        )
        .unwrap();
        let env = of_services([&service, &headless]);
        let pairs: Vec<String> = env.pairs().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            pairs,
            [
                "MY_DB_SERVICE_HOST=10.0.0.9",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL_X=5432",
                "MY_DB_PORT=tcp://10.0.0.9:5432",
                "MY_DB_PORT_5432_TCP=tcp://10.0.0.9:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.0.0.9",
                "MY_DB_PORT_53_UDP=udp://10.0.0.9:53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_ADDR=10.0.0.9",
            ]
        );
    }
}
