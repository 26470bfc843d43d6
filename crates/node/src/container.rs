//! From a container of a pod to what the runtime is told (kubernetes/kubernetes,
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`, `generateContainerConfig`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::Image;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::{Api, Client};
use runtime::{Capabilities, ContainerSpec, Mount, Propagation, Resources, Rootfs, Seccomp, User};
use types::Quantity;

use crate::error::NodeError;
use crate::volumes::Places;

/// What goes into a container besides the pod and the image.
pub(crate) struct Surroundings<'a> {
    pub(crate) client: &'a Client,
    pub(crate) pod_ip: &'a str,
    pub(crate) host_ip: &'a str,
    pub(crate) volumes: &'a Places,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) log_path: PathBuf,
    /// Files that are mounted into every container: from, to.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
}

/// The runtime's words for a container.
pub(crate) async fn spec(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &Image,
    around: Surroundings<'_>,
) -> Result<ContainerSpec, NodeError> {
    let config = image.config.config();
    let image_env = config.as_ref().and_then(|c| c.env().clone()).unwrap_or_default();
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut put = |env: &mut BTreeMap<String, String>, name: &str, value: String| {
        if env.insert(name.to_owned(), value).is_none() {
            order.push(name.to_owned());
        }
    };
    for pair in &image_env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        put(&mut env, name, value.to_owned());
    }
    for (name, value) in environment(pod, container, &around).await? {
        put(&mut env, &name, value);
    }
    let expand = |text: &String| expand(text, &env);
    let entrypoint = config.as_ref().and_then(|c| c.entrypoint().clone()).unwrap_or_default();
    let default_args = config.as_ref().and_then(|c| c.cmd().clone()).unwrap_or_default();
    let given = |list: &Option<Vec<String>>| list.as_ref().map(|l| l.iter().map(expand).collect::<Vec<_>>());
    let (command, args) = match (given(&container.command), given(&container.args)) {
        (Some(command), args) => (command, args.unwrap_or_default()),
        (None, Some(args)) => (entrypoint, args),
        (None, None) => (entrypoint, default_args),
    };
    let args = [command, args].concat();
    if args.is_empty() {
        return Err(NodeError::Config(format!(
            "container {:?}: the image has no command, and none is given",
            container.name
        )));
    }
    let security = container.security_context.clone().unwrap_or_default();
    let capabilities = security.capabilities.unwrap_or_default();
    let privileged = security.privileged.unwrap_or(false);
    let profile = security.seccomp_profile.or(pod_security(pod).seccomp_profile).map(|p| p.type_);
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        rootfs: Rootfs { layers: around.layers.clone(), ..Rootfs::default() },
        args,
        env: order.iter().map(|name| format!("{name}={}", env[name])).collect(),
        cwd: container
            .working_dir
            .clone()
            .or_else(|| config.as_ref().and_then(|c| c.working_dir().clone()))
            .unwrap_or_default(),
        user: user(pod, container, config.as_ref().and_then(|c| c.user().clone())),
        mounts: mounts(pod, container, &around)?,
        capabilities: Capabilities {
            add: capabilities.add.unwrap_or_default(),
            drop: capabilities.drop.unwrap_or_default(),
        },
        privileged,
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        read_only_rootfs: security.read_only_root_filesystem.unwrap_or(false),
        // As upstream, no profile means no filter, unless the pod asks for the runtime's own.
        seccomp: if profile.as_deref() == Some("RuntimeDefault") {
            Seccomp::Default
        } else {
            Seccomp::Unconfined
        },
        resources: resources(container),
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        log_path: Some(around.log_path),
        log_max_bytes: Some(10 << 20),
        stop_signal: config.as_ref().and_then(|c| c.stop_signal().clone()),
        ..ContainerSpec::default()
    })
}

fn pod_security(pod: &Pod) -> core::PodSecurityContext {
    pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default()
}

fn user(pod: &Pod, container: &Container, image_user: Option<String>) -> User {
    let (pod_level, own) = (pod_security(pod), container.security_context.clone().unwrap_or_default());
    let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let groups = pod_level.supplemental_groups.into_iter().flatten().chain(pod_level.fs_group);
    User {
        spec: image_user.filter(|u| !u.is_empty()),
        uid: number(own.run_as_user.or(pod_level.run_as_user)),
        gid: number(own.run_as_group.or(pod_level.run_as_group)),
        supplementary: groups.filter_map(|g| u32::try_from(g).ok()).collect(),
        ..User::default()
    }
}

/// Shares and quota as upstream computes them (`pkg/kubelet/cm/helpers_linux.go`).
fn resources(container: &Container) -> Resources {
    let amount =
        |map: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
         name: &str| { map.and_then(|m| m.get(name)).and_then(|q| q.0.parse::<Quantity>().ok()) };
    let given = container.resources.as_ref();
    let (requests, limits) = (given.and_then(|r| r.requests.as_ref()), given.and_then(|r| r.limits.as_ref()));
    let request = amount(requests, "cpu").or(amount(limits, "cpu"));
    let shares = request.map_or(2, |q| (q.millis() * 1024 / 1000).clamp(2, 262_144) as u64);
    let memory = amount(limits, "memory").map(|q| q.units().max(0) as u64).filter(|m| *m > 0);
    Resources {
        cpu_shares: Some(shares),
        cpu_quota_us: amount(limits, "cpu").map(|q| (q.millis() * 100).max(1000)),
        cpu_period_us: Some(100_000),
        memory_limit: memory,
        oom_score_adj: Some(if memory.is_some() { 999 } else { 1000 }),
        ..Resources::default()
    }
}

fn mounts(pod: &Pod, container: &Container, around: &Surroundings<'_>) -> Result<Vec<Mount>, NodeError> {
    let mut mounts = Vec::new();
    let own: Vec<&str> = container.volume_mounts.iter().flatten().map(|m| m.mount_path.as_str()).collect();
    for (source, destination) in &around.files {
        if !own.iter().any(|path| Path::new(path) == destination) {
            mounts.push(Mount {
                source: source.clone(),
                destination: destination.clone(),
                ..Mount::default()
            });
        }
    }
    for mount in container.volume_mounts.iter().flatten() {
        let place = around.volumes.get(&mount.name).ok_or_else(|| {
            NodeError::Config(format!("pod {:?} has no volume {:?}", pod.metadata.name, mount.name))
        })?;
        if mount.sub_path_expr.is_some() {
            return Err(NodeError::Config(format!(
                "volume mount {:?}: subPathExpr is not available in this version",
                mount.name
            )));
        }
        let source = match mount.sub_path.as_deref().filter(|s| !s.is_empty()) {
            None => place.clone(),
            Some(sub) => sub_path(place, sub)?,
        };
        mounts.push(Mount {
            source,
            destination: mount.mount_path.clone().into(),
            readonly: mount.read_only.unwrap_or(false),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::None,
            },
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// A path inside a volume, made if it is not there. One that leaves the volume through a link is refused.
fn sub_path(place: &Path, sub: &str) -> Result<PathBuf, NodeError> {
    let file = |source| NodeError::File { attempt: "prepare subPath", path: sub.to_owned(), source };
    let path = place.join(sub);
    if !path.exists() {
        std::fs::create_dir_all(&path).map_err(file)?;
    }
    let (real, root) = (path.canonicalize().map_err(file)?, place.canonicalize().map_err(file)?);
    if real.starts_with(&root) {
        Ok(real)
    } else {
        Err(NodeError::Config(format!("subPath {sub:?} leads out of its volume")))
    }
}

/// The value of a field that containers may ask for.
pub(crate) fn field(pod: &Pod, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let keyed = |map: &Option<BTreeMap<String, String>>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default())
    };
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let rows: Vec<String> = map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
        rows.join("\n")
    };
    match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(&meta.labels)),
        "metadata.annotations" => Some(lines(&meta.annotations)),
        "spec.nodeName" => spec?.node_name.clone(),
        "spec.serviceAccountName" => spec?.service_account_name.clone(),
        _ => path.strip_prefix("metadata.labels").and_then(|rest| keyed(&meta.labels, rest)).or_else(|| {
            path.strip_prefix("metadata.annotations").and_then(|rest| keyed(&meta.annotations, rest))
        }),
    }
}

async fn environment(
    pod: &Pod,
    container: &Container,
    around: &Surroundings<'_>,
) -> Result<Vec<(String, String)>, NodeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(around.client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(around.client.clone(), namespace);
    let mut env: Vec<(String, String)> = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            match maps.get_opt(&source.name).await? {
                Some(map) => {
                    env.extend(map.data.into_iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v)))
                }
                None if source.optional == Some(true) => {}
                None => return Err(NodeError::Config(format!("configmap {:?} not found", source.name))),
            }
        }
        if let Some(source) = &from.secret_ref {
            match secrets.get_opt(&source.name).await? {
                Some(secret) => {
                    let pairs = secret.data.into_iter().flatten();
                    env.extend(
                        pairs.map(|(k, v)| {
                            (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())
                        }),
                    );
                }
                None if source.optional == Some(true) => {}
                None => return Err(NodeError::Config(format!("secret {:?} not found", source.name))),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let Some(from) = &var.value_from else {
            let known: BTreeMap<String, String> = env.iter().cloned().collect();
            env.push((var.name.clone(), expand(var.value.as_deref().unwrap_or_default(), &known)));
            continue;
        };
        let value = if let Some(reference) = &from.field_ref {
            Some(match reference.field_path.as_str() {
                "status.podIP" | "status.podIPs" => around.pod_ip.to_owned(),
                "status.hostIP" | "status.hostIPs" => around.host_ip.to_owned(),
                path => field(pod, path)
                    .ok_or_else(|| NodeError::Config(format!("unsupported field path {path:?}")))?,
            })
        } else if let Some(key) = &from.config_map_key_ref {
            let map = maps.get_opt(&key.name).await?;
            let found = map.is_some();
            let value = map.and_then(|m| m.data.and_then(|mut d| d.remove(&key.key)));
            optional(value, key.optional, || missing("configmap", &key.name, &key.key, namespace, found))?
        } else if let Some(key) = &from.secret_key_ref {
            let secret = secrets.get_opt(&key.name).await?;
            let found = secret.is_some();
            let value = secret.and_then(|s| s.data.and_then(|mut d| d.remove(&key.key)));
            let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
            optional(value, key.optional, || missing("secret", &key.name, &key.key, namespace, found))?
        } else if let Some(reference) = &from.resource_field_ref {
            Some(resource_field(pod, container, reference)?)
        } else {
            return Err(NodeError::Config(format!(
                "env {:?}: this source is not available in this version",
                var.name
            )));
        };
        env.extend(value.map(|v| (var.name.clone(), v)));
    }
    Ok(env)
}

/// `requests.cpu`, `limits.memory` and the like, in units of the divisor, rounded up.
fn resource_field(
    pod: &Pod,
    own: &Container,
    reference: &core::ResourceFieldSelector,
) -> Result<String, NodeError> {
    let unknown = || NodeError::Config(format!("unsupported resource field {:?}", reference.resource));
    let (kind, name) = reference.resource.split_once('.').ok_or_else(unknown)?;
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let container = match reference.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => containers.into_iter().find(|c| c.name == name).ok_or_else(unknown)?,
        None => own,
    };
    let resources = container.resources.as_ref();
    let map = match kind {
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        _ => return Err(unknown()),
    };
    let millis = |text: &str| text.parse::<Quantity>().map(Quantity::millis).unwrap_or(0);
    let amount = map.and_then(|m| m.get(name)).map_or(0, |q| millis(&q.0));
    let divisor = reference.divisor.as_ref().map_or(0, |q| millis(&q.0));
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

fn missing(kind: &str, name: &str, key: &str, namespace: &str, found: bool) -> NodeError {
    if found {
        NodeError::Config(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
    } else {
        NodeError::Config(format!("{kind} {name:?} not found"))
    }
}

fn optional(
    value: Option<String>,
    optional: Option<bool>,
    fault: impl FnOnce() -> NodeError,
) -> Result<Option<String>, NodeError> {
    match value {
        None if optional != Some(true) => Err(fault()),
        value => Ok(value),
    }
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; unknown names stay as they are
/// (`third_party/forked/golang/expansion/expand.go`).
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_once() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, want) in [
            ("$(A)", "1"),
            ("x$(B)y", "x$(A)y"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$", "$"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &env), want, "{text}");
        }
    }
}
