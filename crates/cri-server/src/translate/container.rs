use std::path::{Path, PathBuf};

use cri::{
    ContainerConfig, LinuxContainerSecurityContext, MountPropagation, NamespaceMode, ProfileType,
    SecurityProfile, Signal, SupplementalGroupsPolicy,
};
use image::Image;
use runtime::{Capabilities, ContainerSpec, Device, Mount, MountKind, Propagation, Rootfs, Seccomp, User};

use super::resources;
use crate::error::CriError;

/// What goes into a container besides its configuration.
pub(crate) struct Surroundings<'a> {
    pub(crate) image: &'a Image,
    /// The image's unpacked layers, the topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// Those of the images that are mounted, in the order of such mounts.
    pub(crate) mounted: Vec<Vec<PathBuf>>,
    /// Files of the sandbox, and where containers see them.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    pub(crate) hostname: String,
    pub(crate) log_path: Option<PathBuf>,
}

/// What the engine is told of a container (containerd/containerd, `internal/cri/server/container_create.go`).
///
/// # Errors
/// When something is asked for that cannot be.
pub(crate) fn container(
    id: &str,
    config: &ContainerConfig,
    around: Surroundings<'_>,
) -> Result<ContainerSpec, CriError> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let of_image = around.image.config.config().clone().unwrap_or_default();
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    if !config.cdi_devices.is_empty() {
        return Err(CriError::Unsupported("CDI devices are not supported over this interface".to_owned()));
    }
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let pid_of = match namespaces.pid {
        NamespaceMode::Target if namespaces.target_id.is_empty() => {
            return Err(CriError::Invalid("namespace_options: TARGET needs a target_id".to_owned()));
        }
        NamespaceMode::Target => Some(namespaces.target_id),
        _ => None,
    };
    let capabilities = security.capabilities.clone().unwrap_or_default();
    if !capabilities.add_ambient_capabilities.is_empty() {
        return Err(CriError::Unsupported("ambient capabilities are not supported".to_owned()));
    }
    let directory = Some(config.working_dir.clone()).filter(|dir| !dir.is_empty());
    Ok(ContainerSpec {
        id: id.to_owned(),
        name: metadata.name,
        attempt: metadata.attempt,
        image: config.image.clone().unwrap_or_default().image,
        rootfs: Rootfs { layers: around.layers.clone(), ..Rootfs::default() },
        args: command(config, &of_image)?,
        env: environment(config, &of_image, &around.hostname),
        cwd: directory.or_else(|| of_image.working_dir().clone()).unwrap_or_default(),
        user: user(&security, of_image.user().clone())?,
        mounts: mounts(config, &around)?,
        capabilities: Capabilities {
            add: capabilities.add_capabilities,
            drop: capabilities.drop_capabilities,
        },
        privileged: security.privileged,
        no_new_privileges: security.no_new_privs,
        read_only_rootfs: security.readonly_rootfs,
        seccomp: seccomp(security.seccomp.as_ref(), &security.seccomp_profile_path)?,
        apparmor: apparmor(&security)?.filter(|_| !security.privileged),
        masked_paths: Some(security.masked_paths),
        readonly_paths: Some(security.readonly_paths),
        resources: linux.resources.as_ref().map(resources).unwrap_or_default(),
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log_path: around.log_path,
        devices: config.devices.iter().map(device).collect(),
        stop_signal: match config.stop_signal {
            Signal::RuntimeDefault => of_image.stop_signal().clone(),
            own => own.name(),
        },
        pid_of,
        ..ContainerSpec::default()
    })
}

/// Where a container's output goes; nowhere unless both parts are said.
pub(crate) fn log_path(folder: &str, path: &str) -> Option<PathBuf> {
    (!folder.is_empty() && !path.is_empty()).then(|| Path::new(folder).join(path))
}

/// A command takes the place of the image's entry point and of its arguments; arguments that of its arguments alone.
fn command(config: &ContainerConfig, image: &oci_spec::image::Config) -> Result<Vec<String>, CriError> {
    let (mut words, mut args) = (config.command.clone(), config.args.clone());
    if words.is_empty() {
        if args.is_empty() {
            args = image.cmd().clone().unwrap_or_default();
        }
        words = image.entrypoint().clone().unwrap_or_default();
    }
    words.extend(args);
    match words.is_empty() {
        true => {
            Err(CriError::Invalid("no command specified: the image has none, and none is given".to_owned()))
        }
        false => Ok(words),
    }
}

/// `NAME=value`: the image's, the sandbox's host name, the container's; the later ones win.
fn environment(config: &ContainerConfig, image: &oci_spec::image::Config, hostname: &str) -> Vec<String> {
    let own = config.envs.iter().map(|env| format!("{}={}", env.key, env.value));
    let all = image.env().clone().unwrap_or_default().into_iter();
    let all = all.chain((!hostname.is_empty()).then(|| format!("HOSTNAME={hostname}"))).chain(own);
    let mut pairs: Vec<String> = Vec::new();
    for pair in all {
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        match pairs.iter_mut().find(|known| name(known) == name(&pair)) {
            Some(known) => *known = pair,
            None => pairs.push(pair),
        }
    }
    pairs
}

fn user(security: &LinuxContainerSecurityContext, of_image: Option<String>) -> Result<User, CriError> {
    let number = |what: &str, value: i64| {
        u32::try_from(value).map_err(|_| CriError::Invalid(format!("{what}: {value} is no number of one")))
    };
    let name = Some(security.run_as_username.clone()).filter(|name| !name.is_empty());
    let (uid, gid) = (security.run_as_user.as_ref(), security.run_as_group.as_ref());
    match (&name, uid, gid) {
        (Some(_), Some(_), _) => {
            return Err(CriError::Invalid("run_as_user and run_as_username exclude each other".to_owned()));
        }
        (None, None, Some(_)) => {
            return Err(CriError::Invalid("run_as_group needs run_as_user or run_as_username".to_owned()));
        }
        _ => {}
    }
    Ok(User {
        spec: name.or(of_image.filter(|user| !user.is_empty())),
        uid: uid.map(|uid| number("run_as_user", uid.value)).transpose()?,
        gid: gid.map(|gid| number("run_as_group", gid.value)).transpose()?,
        supplementary: security
            .supplemental_groups
            .iter()
            .map(|group| number("supplemental_groups", *group))
            .collect::<Result<_, _>>()?,
        strict_groups: security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict,
    })
}

fn mounts(config: &ContainerConfig, around: &Surroundings<'_>) -> Result<Vec<Mount>, CriError> {
    let mut mounts = Vec::new();
    for (source, destination) in &around.files {
        if !config.mounts.iter().any(|mount| Path::new(&mount.container_path) == destination) {
            let (source, destination) = (source.clone(), destination.clone());
            mounts.push(Mount { source, destination, ..Mount::default() });
        }
    }
    let mut mounted = around.mounted.iter();
    for mount in &config.mounts {
        let destination = PathBuf::from(&mount.container_path);
        if !destination.is_absolute() {
            return Err(CriError::Invalid(format!("mount: {:?} is no absolute path", mount.container_path)));
        }
        if mount.image.is_some() {
            mounts.push(Mount {
                kind: MountKind::Layers,
                layers: mounted.next().cloned().unwrap_or_default(),
                sub_path: mount.image_sub_path.clone().into(),
                destination,
                readonly: true,
                ..Mount::default()
            });
            continue;
        }
        let private = mount.propagation == MountPropagation::Private;
        if mount.recursive_read_only && !(mount.readonly && private) {
            return Err(CriError::Invalid(format!(
                "mount {:?}: recursive_read_only needs readonly and no propagation",
                mount.container_path
            )));
        }
        mounts.push(Mount {
            source: mount.host_path.clone().into(),
            destination,
            readonly: mount.readonly,
            recursive_readonly: mount.recursive_read_only,
            propagation: match mount.propagation {
                MountPropagation::Private => Propagation::None,
                MountPropagation::HostToContainer => Propagation::HostToContainer,
                MountPropagation::Bidirectional => Propagation::Bidirectional,
            },
            ..Mount::default()
        });
    }
    Ok(mounts)
}

fn device(device: &cri::Device) -> Device {
    Device {
        host_path: device.host_path.clone().into(),
        container_path: device.container_path.clone().into(),
        permissions: device.permissions.clone(),
        ..Device::default()
    }
}

/// Which system calls are allowed; `path` is how older kubelets say it.
fn seccomp(profile: Option<&SecurityProfile>, path: &str) -> Result<Seccomp, CriError> {
    let file = match (profile, path) {
        (Some(profile), _) => match profile.profile_type {
            ProfileType::RuntimeDefault => return Ok(Seccomp::Default),
            ProfileType::Unconfined => return Ok(Seccomp::Unconfined),
            ProfileType::Localhost => profile.localhost_ref.as_str(),
        },
        (None, "runtime/default" | "docker/default") => return Ok(Seccomp::Default),
        (None, "" | "unconfined") => return Ok(Seccomp::Unconfined),
        (None, path) => path,
    };
    let path = Path::new(file.strip_prefix("localhost/").unwrap_or(file));
    if !path.is_absolute() {
        return Err(CriError::Invalid(format!("seccomp profile {file:?} is no absolute path")));
    }
    let failed = |why: String| CriError::Invalid(format!("cannot load seccomp profile {file:?}: {why}"));
    let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    Ok(Seccomp::Profile(serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?))
}

/// The name of the profile that the kernel shall use.
fn apparmor(security: &LinuxContainerSecurityContext) -> Result<Option<String>, CriError> {
    let default =
        || runtime::has_default_apparmor_profile().then(|| runtime::DEFAULT_APPARMOR_PROFILE.to_owned());
    let name = match &security.apparmor {
        Some(profile) => match profile.profile_type {
            ProfileType::RuntimeDefault => return Ok(default()),
            ProfileType::Unconfined => return Ok(None),
            ProfileType::Localhost => profile.localhost_ref.as_str(),
        },
        None => match security.apparmor_profile.as_str() {
            "" | "runtime/default" => return Ok(default()),
            "unconfined" => return Ok(None),
            name => name,
        },
    };
    if !runtime::has_apparmor() {
        return Err(CriError::Invalid("AppArmor is not enabled on the host".to_owned()));
    }
    Ok(Some(name.strip_prefix("localhost/").unwrap_or(name).to_owned()))
}

#[cfg(test)]
mod tests;
