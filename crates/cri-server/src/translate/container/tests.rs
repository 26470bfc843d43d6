use std::sync::Arc;

use cri::{ImageSpec, Int64Value, KeyValue, LinuxContainerConfig, NamespaceOption};

use super::*;

fn image() -> Image {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {
            "Env": ["PATH=/bin", "A=image"], "Entrypoint": ["/entry"], "Cmd": ["run"], "WorkingDir": "/work",
            "User": "web", "StopSignal": "SIGINT",
        },
    });
    let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    Image {
        id: digest,
        manifest: digest,
        names: Vec::new(),
        digests: Vec::new(),
        config: Arc::new(serde_json::from_value(config).unwrap()),
        size: 1,
        layers: Arc::new([]),
    }
}

fn spec(config: &ContainerConfig) -> Result<ContainerSpec, CriError> {
    let around = Surroundings {
        image: &image(),
        layers: vec!["/l".into()],
        mounted: vec![vec!["/m".into()]],
        files: vec![("/s/hosts".into(), "/etc/hosts".into()), ("/s/r".into(), "/etc/resolv.conf".into())],
        hostname: "web-0".to_owned(),
        log_path: log_path("/logs", "c/0.log"),
    };
    container("id", config, around)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn secured(security: LinuxContainerSecurityContext) -> ContainerConfig {
    let linux = LinuxContainerConfig { security_context: Some(security), resources: None };
    ContainerConfig { linux: Some(linux), ..Default::default() }
}

#[test]
fn what_is_not_said_is_the_images() {
    let plain = spec(&ContainerConfig::default()).unwrap();
    assert_eq!(plain.args, ["/entry", "run"]);
    assert_eq!(plain.env, ["PATH=/bin", "A=image", "HOSTNAME=web-0"]);
    assert_eq!((plain.cwd.as_str(), plain.stop_signal.as_deref()), ("/work", Some("SIGINT")));
    assert_eq!(plain.user.spec.as_deref(), Some("web"));
    assert_eq!(plain.log_path, Some("/logs/c/0.log".into()));
    assert_eq!(plain.seccomp, Seccomp::Unconfined);
    let args = spec(&ContainerConfig { args: words(&["x"]), ..Default::default() }).unwrap();
    assert_eq!(args.args, ["/entry", "x"]);
    let own = ContainerConfig {
        command: words(&["/own"]),
        envs: vec![KeyValue { key: "A".to_owned(), value: "b=c".to_owned() }],
        working_dir: "/".to_owned(),
        stop_signal: Signal::SigUsr1,
        ..Default::default()
    };
    let own = spec(&own).unwrap();
    assert_eq!(own.args, ["/own"]);
    assert_eq!(own.env, ["PATH=/bin", "A=b=c", "HOSTNAME=web-0"]);
    assert_eq!((own.cwd.as_str(), own.stop_signal.as_deref()), ("/", Some("SIGUSR1")));
    assert_eq!((log_path("", "x"), log_path("/x", "")), (None, None));
}

#[test]
fn who_it_runs_as_must_make_sense() {
    let number = |value| Some(Int64Value { value });
    let user = |security| spec(&secured(security)).map(|spec| spec.user);
    let both = LinuxContainerSecurityContext {
        run_as_user: number(5),
        run_as_group: number(6),
        supplemental_groups: vec![7],
        supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
        ..Default::default()
    };
    let both = user(both).unwrap();
    assert_eq!(
        (both.uid, both.gid, both.supplementary, both.strict_groups),
        (Some(5), Some(6), vec![7], true)
    );
    let refused = |security| user(security).unwrap_err().to_string();
    let group = LinuxContainerSecurityContext { run_as_group: number(6), ..Default::default() };
    assert!(refused(group).contains("run_as_group needs"));
    let twice = LinuxContainerSecurityContext {
        run_as_user: number(5),
        run_as_username: "web".to_owned(),
        ..Default::default()
    };
    assert!(refused(twice).contains("exclude"));
    let wrong = LinuxContainerSecurityContext { run_as_user: number(-1), ..Default::default() };
    assert!(refused(wrong).contains("-1"));
}

#[test]
fn mounts_of_the_caller_win_over_the_sandboxs_files() {
    let hosts = cri::Mount {
        container_path: "/etc/hosts".to_owned(),
        host_path: "/k/hosts".to_owned(),
        readonly: true,
        propagation: MountPropagation::HostToContainer,
        ..Default::default()
    };
    let model = cri::Mount {
        container_path: "/model".to_owned(),
        image: Some(ImageSpec::default()),
        image_sub_path: "a".to_owned(),
        ..Default::default()
    };
    let mounts = spec(&ContainerConfig { mounts: vec![hosts, model], ..Default::default() }).unwrap().mounts;
    let sources: Vec<_> = mounts.iter().map(|mount| mount.source.to_str().unwrap()).collect();
    assert_eq!(sources, ["/s/r", "/k/hosts", ""]);
    assert_eq!((mounts[1].readonly, mounts[1].propagation), (true, Propagation::HostToContainer));
    assert_eq!(
        (mounts[2].kind, &mounts[2].layers, mounts[2].readonly),
        (MountKind::Layers, &vec!["/m".into()], true)
    );
    let half =
        cri::Mount { container_path: "/x".to_owned(), recursive_read_only: true, ..Default::default() };
    assert!(spec(&ContainerConfig { mounts: vec![half], ..Default::default() }).is_err());
    let relative = cri::Mount { container_path: "x".to_owned(), ..Default::default() };
    assert!(spec(&ContainerConfig { mounts: vec![relative], ..Default::default() }).is_err());
}

#[test]
fn profiles_and_namespaces_in_old_words_and_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.json");
    std::fs::write(&path, "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}").unwrap();
    let of = |profile_type, localhost_ref: &str| {
        let localhost_ref = localhost_ref.to_owned();
        seccomp(Some(&SecurityProfile { profile_type, localhost_ref }), "")
    };
    let path = path.to_str().unwrap();
    assert_eq!(of(ProfileType::RuntimeDefault, "").unwrap(), Seccomp::Default);
    assert_eq!(of(ProfileType::Unconfined, "").unwrap(), Seccomp::Unconfined);
    assert!(matches!(of(ProfileType::Localhost, path), Ok(Seccomp::Profile(_))));
    assert!(of(ProfileType::Localhost, "p.json").is_err());
    assert_eq!(seccomp(None, "runtime/default").unwrap(), Seccomp::Default);
    assert!(matches!(seccomp(None, &format!("localhost/{path}")), Ok(Seccomp::Profile(_))));
    let target = |id: &str| {
        let pid = NamespaceMode::Target;
        let options = NamespaceOption { pid, target_id: id.to_owned(), ..Default::default() };
        spec(&secured(LinuxContainerSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        }))
    };
    assert_eq!(target("other").unwrap().pid_of.as_deref(), Some("other"));
    assert!(target("").is_err());
}
