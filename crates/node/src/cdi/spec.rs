//! One file (cncf-tags/container-device-interface, `specs-go/config.go`, `pkg/cdi/spec.go`, `pkg/cdi/container-edits.go`).

use std::path::{Path, PathBuf};

use runtime::{Device, Hooks, Mount, MountKind, Propagation};
use serde::Deserialize;

use super::CdiError;
use super::name::{DeviceName, check_device, check_kind};
use crate::edits::Edits;

/// The versions of the format that are known.
const VERSIONS: [&str; 10] =
    ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A vendor's devices of one class.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    pub(super) devices: Vec<NamedDevice>,
    /// What goes with any of them.
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Given,
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedDevice {
    name: String,
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Given,
}

/// Edits as they are written.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Given {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    hooks: Vec<Hook>,
    mounts: Vec<GivenMount>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<serde::de::IgnoredAny>,
    net_devices: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: String,
    #[serde(rename = "type")]
    kind: String,
    permissions: String,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GivenMount {
    host_path: PathBuf,
    container_path: PathBuf,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads and checks a file.
pub(super) fn read(path: &Path) -> Result<Spec, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let spec: Spec = if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(|e| e.to_string())?
    } else {
        serde_norway::from_str(&text).map_err(|e| e.to_string())?
    };
    spec.check()?;
    Ok(spec)
}

impl Spec {
    /// The full name of one of its devices.
    pub(super) fn name_of(&self, device: &NamedDevice) -> DeviceName {
        DeviceName { kind: self.kind.clone(), device: device.name.clone() }
    }

    fn check(&self) -> Result<(), String> {
        if !VERSIONS.contains(&self.cdi_version.trim_start_matches('v')) {
            return Err(format!("invalid version {:?}", self.cdi_version));
        }
        check_kind(&self.kind)?;
        self.edits.check()?;
        if self.devices.is_empty() {
            return Err("no devices".into());
        }
        for (place, device) in self.devices.iter().enumerate() {
            check_device(&device.name)?;
            let in_device = |why: String| format!("device {:?}: {why}", device.name);
            if device.edits == Given::default() {
                return Err(in_device("invalid device, empty device edits".into()));
            }
            device.edits.check().map_err(in_device)?;
            if self.devices[..place].iter().any(|other| other.name == device.name) {
                return Err(format!("invalid spec, multiple device {:?}", device.name));
            }
        }
        Ok(())
    }
}

impl Given {
    fn check(&self) -> Result<(), String> {
        for text in &self.env {
            if !text.contains('=') {
                return Err(format!("invalid environment variable {text:?}"));
            }
        }
        for node in &self.device_nodes {
            if node.path.is_empty() {
                return Err("invalid (empty) device path".into());
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!("device {:?}: invalid type {:?}", node.path, node.kind));
            }
            if node.permissions.contains(|c| !"rwm".contains(c)) {
                return Err(format!("device {:?}: invalid permissions {:?}", node.path, node.permissions));
            }
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!("invalid hook name {:?}", hook.hook_name));
            }
            if hook.path.is_empty() {
                return Err(format!("invalid hook {:?}, empty path", hook.hook_name));
            }
            if !hook.path.starts_with('/') {
                return Err(format!(
                    "invalid hook {:?}, path {:?} is not absolute",
                    hook.hook_name, hook.path
                ));
            }
            if let Some(text) = hook.env.iter().find(|text| !text.contains('=')) {
                return Err(format!("invalid hook {:?}, environment variable {text:?}", hook.hook_name));
            }
        }
        for mount in &self.mounts {
            if mount.host_path.as_os_str().is_empty() {
                return Err("invalid mount, empty host path".into());
            }
            if mount.container_path.as_os_str().is_empty() {
                return Err("invalid mount, empty container path".into());
            }
            if !["", "bind", "rbind", "none", "tmpfs"].contains(&mount.kind.as_str()) {
                return Err(format!("mount of type {:?}, which is none of bind and tmpfs", mount.kind));
            }
        }
        Ok(())
    }

    /// In the runtime's words, for the device of this name.
    pub(super) fn resolve(&self, device: &str) -> Result<Edits, CdiError> {
        let beyond = |what| Err(CdiError::Beyond { device: device.to_owned(), what });
        if self.intel_rdt.is_some() {
            return beyond("a class of Intel RDT (intelRdt)");
        }
        if !self.net_devices.is_empty() {
            return beyond("network devices (netDevices)");
        }
        let mut hooks = Hooks::default();
        for hook in &self.hooks {
            // Its sort has been checked.
            hooks.of(&hook.hook_name).into_iter().for_each(|sort| sort.push(hook.given()));
        }
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        Ok(Edits {
            env: self.env.iter().map(pair).collect(),
            devices: self.device_nodes.iter().map(Node::device).collect(),
            mounts: self.mounts.iter().map(GivenMount::mount).collect(),
            // Zero is the group that a process has anyway.
            groups: self.additional_gids.iter().copied().filter(|gid| *gid != 0).collect(),
            hooked: if hooks.is_empty() { Vec::new() } else { vec![device.to_owned()] },
            hooks,
            ..Edits::default()
        })
    }
}

impl Hook {
    fn given(&self) -> runtime::Hook {
        let (args, env) = (self.args.clone(), self.env.clone());
        runtime::Hook { path: self.path.clone().into(), args, env, timeout: self.timeout }
    }
}

impl Node {
    fn device(&self) -> Device {
        let host = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let permissions = if self.permissions.is_empty() { "rwm" } else { &self.permissions };
        Device {
            host_path: host.into(),
            container_path: self.path.clone().into(),
            permissions: permissions.to_owned(),
            mode: self.file_mode.map(|mode| mode & 0o7777),
            uid: self.uid,
            gid: self.gid,
        }
    }
}

impl GivenMount {
    fn mount(&self) -> Mount {
        let has = |names: &[&str]| self.options.iter().any(|o| names.contains(&o.as_str()));
        let kind = if self.kind == "tmpfs" { MountKind::Tmpfs } else { MountKind::Bind };
        let kept = |option: &&String| {
            ["noexec", "nosuid", "nodev"].contains(&option.as_str())
                || (kind == MountKind::Tmpfs && option.contains('='))
        };
        Mount {
            source: self.host_path.clone(),
            destination: self.container_path.clone(),
            kind,
            readonly: has(&["ro"]),
            propagation: if has(&["shared", "rshared"]) {
                Propagation::Bidirectional
            } else if has(&["slave", "rslave"]) {
                Propagation::HostToContainer
            } else {
                Propagation::None
            },
            options: self.options.iter().filter(kept).cloned().collect(),
            ..Mount::default()
        }
    }
}
