//! What an OCI runtime is told of a container: its `config.json` (opencontainers/runtime-spec, `config.md`,
//! `config-linux.md`).

use std::path::PathBuf;

use serde_json::{Value, json};
use sys::CapSet;

use super::super::filesystem::{self, MASKED_PATHS, READONLY_PATHS};
use super::super::identity;
use super::super::seccomp;
use super::super::user::Identity;
use super::LaunchError;
use crate::protocol::{Launch, Oci};
use crate::spec::{ContainerSpec, ExecSpec, Mount, MountKind, PidMode, Propagation, Seccomp};

/// What is where.
pub(super) struct Around<'a> {
    /// Of the mounts, in their order.
    pub(super) sources: &'a [PathBuf],
    /// The first of the processes that all containers see.
    pub(super) shared: Option<u32>,
}

/// The whole configuration. Network, IPC and host name are those of the shim, from which the runtime inherits them; the
/// limits have been set on the cgroup, whose devices are said again because runtimes have a list of their own.
pub(super) fn bundle(
    launch: &Launch,
    oci: &Oci,
    who: &Identity,
    env: &[String],
    around: &Around<'_>,
) -> Result<Value, LaunchError> {
    let spec = &launch.spec;
    let allowed = allowed(spec, spec.privileged)?;
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut mounts = kernel_mounts(spec.privileged);
    mounts.push(json!({"destination": "/dev/shm", "type": "bind", "source": path(&launch.shm),
        "options": ["rbind", "nosuid", "noexec", "nodev"]}));
    mounts
        .extend(spec.mounts.iter().zip(around.sources).map(|(mount, source)| of_mount(mount, &path(source))));
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match oci.pid {
        PidMode::PerContainer => namespaces.push(json!({"type": "pid"})),
        PidMode::Shared => {
            let path = around.shared.map(|init| format!("/proc/{init}/ns/pid"));
            namespaces.push(json!({"type": "pid", "path": path}));
        }
        PidMode::Host => {}
    }
    let nodes = filesystem::host_devices(spec)?;
    let devices: Vec<Value> = nodes
        .iter()
        .map(|node| {
            json!({"path": path(&node.path), "type": node.kind.to_string(), "major": node.major, "minor": node.minor,
                "fileMode": node.mode, "uid": node.uid, "gid": node.gid})
        })
        .collect();
    let given = oci.devices.iter().map(|(kind, major, minor, access)| {
        json!({"allow": true, "type": kind.to_string(), "major": major, "minor": minor, "access": access})
    });
    let rules: Vec<Value> = match spec.privileged {
        true => vec![json!({"allow": true, "access": "rwm"})],
        false => [json!({"allow": false, "access": "rwm"})].into_iter().chain(given).collect(),
    };
    let list = |given: &Option<Vec<String>>, default: &[&str]| -> Vec<String> {
        match given {
            _ if spec.privileged => Vec::new(),
            Some(given) => given.clone(),
            None => default.iter().map(|path| (*path).to_owned()).collect(),
        }
    };
    let seccomp = if spec.privileged { &Seccomp::Unconfined } else { &spec.seccomp };
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": format!("/{}", oci.cgroup),
        "resources": {"devices": rules},
        "devices": devices,
        "maskedPaths": list(&spec.masked_paths, &MASKED_PATHS),
        "readonlyPaths": list(&spec.readonly_paths, &READONLY_PATHS),
    });
    if let Some(profile) = seccomp::written(seccomp, allowed) {
        linux["seccomp"] = profile;
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process(spec, who, env, Ran { args: &spec.args, cwd: &spec.cwd, tty: spec.tty }, allowed),
        "root": {"path": "root", "readonly": spec.read_only_rootfs},
        "mounts": mounts,
        "linux": linux,
    });
    if !spec.hooks.is_empty() {
        config["hooks"] = json!(spec.hooks);
    }
    Ok(config)
}

/// One more process.
pub(super) fn exec(
    launch: &Launch,
    exec: &ExecSpec,
    who: &Identity,
    env: &[String],
) -> Result<Value, LaunchError> {
    let spec = &launch.spec;
    let allowed = allowed(spec, spec.privileged || exec.privileged)?;
    let cwd = exec.cwd.as_deref().unwrap_or(&spec.cwd);
    Ok(process(spec, who, env, Ran { args: &exec.argv, cwd, tty: exec.tty }, allowed))
}

/// What is run, where, and whether on a terminal.
struct Ran<'a> {
    args: &'a [String],
    cwd: &'a str,
    tty: bool,
}

fn allowed(spec: &ContainerSpec, privileged: bool) -> Result<CapSet, LaunchError> {
    Ok(identity::capabilities(&spec.capabilities, privileged)?.within(CapSet::effective()?))
}

fn process(spec: &ContainerSpec, who: &Identity, env: &[String], ran: Ran<'_>, allowed: CapSet) -> Value {
    let names: Vec<String> = allowed.names().map(|name| format!("CAP_{name}")).collect();
    // As with our own: another user than root has none.
    let own = if who.uid == 0 { names.clone() } else { Vec::new() };
    let rlimits: Vec<Value> = spec
        .rlimits
        .iter()
        .map(|(name, (soft, hard))| {
            let name = name.trim_start_matches("RLIMIT_").to_ascii_uppercase();
            json!({"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard})
        })
        .collect();
    let mut process = json!({
        "terminal": ran.tty,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": who.groups},
        "args": ran.args,
        "env": env,
        "cwd": if ran.cwd.is_empty() { "/" } else { ran.cwd },
        "capabilities": {"bounding": names, "effective": own, "permitted": own},
        "rlimits": rlimits,
        "noNewPrivileges": spec.no_new_privileges,
        "oomScoreAdj": spec.resources.oom_score_adj.unwrap_or(0).clamp(-1000, 1000),
    });
    if let Some(profile) = &spec.apparmor {
        process["apparmorProfile"] = profile.clone().into();
    }
    process
}

fn kernel_mounts(privileged: bool) -> Vec<Value> {
    let looking = if privileged { "rw" } else { "ro" };
    let kernel = ["nosuid", "noexec", "nodev"];
    let of = |place: &str, kind: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
    let and = |more: &'static str| [kernel[0], kernel[1], kernel[2], more];
    vec![
        of("/proc", "proc", &kernel),
        of("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        of("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        of("/dev/mqueue", "mqueue", &kernel),
        of("/sys", "sysfs", &and(looking)),
        of("/sys/fs/cgroup", "cgroup", &and(looking)),
    ]
}

fn of_mount(mount: &Mount, source: &str) -> Value {
    let mut options: Vec<String> = match mount.kind {
        MountKind::Tmpfs => mount.options.clone(),
        MountKind::Bind | MountKind::Layers => {
            let flags = mount.options.iter().filter(|option| !option.contains('='));
            ["rbind".to_owned()].into_iter().chain(flags.cloned()).collect()
        }
    };
    options.push(
        match mount.propagation {
            Propagation::None => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        }
        .into(),
    );
    if mount.readonly || mount.kind == MountKind::Layers {
        options.push(if mount.recursive_readonly { "rro" } else { "ro" }.into());
    }
    let kind = if mount.kind == MountKind::Tmpfs { "tmpfs" } else { "bind" };
    let source = if mount.kind == MountKind::Tmpfs { "tmpfs" } else { source };
    json!({"destination": mount.destination, "type": kind, "source": source, "options": options})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(spec: ContainerSpec) -> (Launch, Oci) {
        let launch = json!({"id": "i", "created_at": 0, "spec": {}, "network": "own", "ipc": "own", "hostname": "h",
            "writable": "/w", "shm": "/s"});
        let launch: Launch = serde_json::from_value(launch).unwrap();
        (Launch { spec, ..launch }, Oci { cgroup: "g/i".into(), ..Oci::default() })
    }

    #[test]
    fn a_container_is_described() {
        let mount = Mount {
            destination: "/v".into(),
            readonly: true,
            recursive_readonly: true,
            propagation: Propagation::HostToContainer,
            ..Mount::default()
        };
        let spec = ContainerSpec { args: vec!["a".into()], mounts: vec![mount], ..ContainerSpec::default() };
        let (launch, oci) = launch(spec);
        let who = Identity { uid: 5, gid: 6, groups: vec![7], home: "/".into() };
        let around = Around { sources: &["/from".into()], shared: None };
        let config = bundle(&launch, &oci, &who, &["A=1".into()], &around).unwrap();
        assert_eq!(config["process"]["user"], json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
        assert_eq!(config["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(config["process"]["cwd"], "/");
        assert_eq!(config["linux"]["cgroupsPath"], "/g/i");
        assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        let last = config["mounts"].as_array().unwrap().last().unwrap();
        let options = json!(["rbind", "rslave", "rro"]);
        assert_eq!(
            *last,
            json!({"destination": "/v", "type": "bind", "source": "/from", "options": options})
        );
    }

    #[test]
    fn the_privileged_are_not_confined() {
        let (launch, oci) = launch(ContainerSpec { privileged: true, ..ContainerSpec::default() });
        let around = Around { sources: &[], shared: None };
        let config = bundle(&launch, &oci, &Identity::default(), &[], &around).unwrap();
        assert_eq!(
            (&config["linux"]["maskedPaths"], &config["linux"]["seccomp"]),
            (&json!([]), &Value::Null)
        );
        assert_eq!(config["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    }
}
