use std::path::Path;

use proptest::prelude::*;
use runtime::{Device, Hook, Mount};

use super::{Cdi, DeviceName};
use crate::edits::Edits;

const GPU: &str = r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
    "containerEdits": {"env": ["ALL=yes"], "mounts": [{"hostPath": "/lib/gpu", "containerPath": "/opt/gpu",
        "options": ["ro", "nosuid", "rbind"]}]},
    "devices": [
        {"name": "0", "containerEdits": {"env": ["GPU=0"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null",
            "permissions": "rw", "uid": 7, "fileMode": 438}], "additionalGids": [44, 0]}},
        {"name": "1", "containerEdits": {"env": ["GPU=1"], "deviceNodes": [{"path": "/dev/zero"}]}},
        {"name": "hooked", "containerEdits": {"hooks": [
            {"hookName": "createContainer", "path": "/bin/x", "args": ["x", "y"], "env": ["A=1"], "timeout": 5},
            {"hookName": "poststop", "path": "/bin/z"}, {"hookName": "createContainer", "path": "/bin/y"}]}},
        {"name": "rdt", "containerEdits": {"intelRdt": {"closID": "x"}}},
        {"name": "net", "containerEdits": {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}}]}"#;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

fn two() -> (tempfile::TempDir, Cdi) {
    let folder = tempfile::tempdir().unwrap();
    let cdi = Cdi::new(vec![folder.path().join("etc"), folder.path().join("run")]);
    put(&folder.path().join("etc"), "gpu.json", GPU);
    (folder, cdi)
}

#[test]
fn devices_of_one_file_share_what_it_says_for_all() {
    let (_folder, cdi) = two();
    let edits = cdi.edits(&names(&["vendor.com/gpu=0", "vendor.com/gpu=1"])).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(edits.env, [pair("ALL", "yes"), pair("GPU", "0"), pair("GPU", "1")]);
    let first = Device {
        host_path: "/dev/null".into(),
        container_path: "/dev/gpu0".into(),
        permissions: "rw".into(),
        mode: Some(0o666),
        uid: Some(7),
        gid: None,
    };
    assert_eq!(edits.devices[0], first);
    assert_eq!((edits.devices[1].host_path.as_path(), edits.devices[1].uid), (Path::new("/dev/zero"), None));
    let mount = Mount {
        source: "/lib/gpu".into(),
        destination: "/opt/gpu".into(),
        readonly: true,
        options: vec!["nosuid".into()],
        ..Mount::default()
    };
    assert_eq!((edits.mounts, edits.groups), (vec![mount], vec![44]));
    assert_eq!(cdi.edits(&[]), Ok(Edits::default()));
}

#[test]
fn a_later_folder_wins_and_two_files_of_one_folder_do_not() {
    let (folder, cdi) = two();
    let yaml = "cdiVersion: 1.0.0\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits: {env: [GPU=run]}\n";
    put(&folder.path().join("run"), "a.yaml", yaml);
    let zero = names(&["vendor.com/gpu=0"]);
    assert_eq!(cdi.edits(&zero).unwrap().env, [("GPU".to_owned(), "run".to_owned())]);
    put(&folder.path().join("run"), "b.yaml", yaml);
    let error = cdi.edits(&zero).unwrap_err().to_string();
    assert!(
        error.starts_with("unresolvable CDI devices vendor.com/gpu=0 (") && error.contains("conflicting"),
        "{error}"
    );
}

#[test]
fn hooks_keep_their_order() {
    let (_folder, cdi) = two();
    let hooks = cdi.edits(&names(&["vendor.com/gpu=hooked"])).unwrap().hooks;
    let first = Hook {
        path: "/bin/x".into(),
        args: vec!["x".into(), "y".into()],
        env: vec!["A=1".into()],
        timeout: Some(5),
    };
    let plain = |path: &str| Hook { path: path.into(), ..Hook::default() };
    assert_eq!(hooks.create_container, [first, plain("/bin/y")]);
    assert_eq!(hooks.poststop, [plain("/bin/z")]);
}

#[test]
fn what_cannot_be_given_is_said() {
    let (folder, cdi) = two();
    let say = |name: &str| cdi.edits(&names(&[name])).unwrap_err().to_string();
    assert_eq!(say("vendor.com/gpu=9"), "unresolvable CDI devices vendor.com/gpu=9");
    assert!(say("gpu0").contains("unqualified device name"));
    let rdt = "CDI device vendor.com/gpu=rdt asks for a class of Intel RDT (intelRdt), which containers do not get here";
    assert_eq!(say("vendor.com/gpu=rdt"), rdt);
    assert!(say("vendor.com/gpu=net").contains("network devices (netDevices)"));
    put(&folder.path().join("etc"), "bad.json", "{\"cdiVersion\": \"9.0.0\", \"kind\": \"v.com/x\"}");
    put(&folder.path().join("etc"), "worse.json", "{");
    let error = say("v.com/x=1");
    assert!(error.contains("invalid version \"9.0.0\"") && error.contains("worse.json"), "{error}");
    // Others are still there.
    cdi.edits(&names(&["vendor.com/gpu=1"])).unwrap();
}

#[test]
fn files_are_checked() {
    let (folder, cdi) = two();
    for (edits, why) in [
        ("{\"env\": [\"A\"]}", "invalid environment variable"),
        ("{\"deviceNodes\": [{}]}", "empty) device path"),
        ("{\"deviceNodes\": [{\"path\": \"/x\", \"type\": \"q\"}]}", "invalid type"),
        ("{\"deviceNodes\": [{\"path\": \"/x\", \"permissions\": \"x\"}]}", "invalid permissions"),
        ("{\"hooks\": [{\"hookName\": \"never\"}]}", "invalid hook name"),
        ("{\"hooks\": [{\"hookName\": \"poststop\", \"path\": \"x\"}]}", "is not absolute"),
        ("{\"mounts\": [{\"hostPath\": \"/x\"}]}", "empty container path"),
        ("{}", "empty device edits"),
    ] {
        let text = format!(
            "{{\"cdiVersion\": \"0.5.0\", \"kind\": \"v.com/x\", \"devices\": [{{\"name\": \"1\", \"containerEdits\": {edits}}}]}}"
        );
        put(&folder.path().join("etc"), "x.json", &text);
        let error = cdi.edits(&names(&["v.com/x=1"])).unwrap_err().to_string();
        assert!(error.contains(why), "{edits}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_name_or_an_error(text in ".{0,30}") {
        let _ = DeviceName::parse(&text);
    }

    #[test]
    fn names_are_read_as_they_are_written(kind in "[a-z][a-z0-9.]{0,5}[a-z]/[a-z]{1,5}", device in "[a-z0-9]{1,5}") {
        let name = format!("{kind}={device}");
        prop_assert_eq!(DeviceName::parse(&name).unwrap().to_string(), name);
    }
}
