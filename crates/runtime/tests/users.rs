//! Sandboxes with users of their own, and volumes made of images. Needs root and busybox-static.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use common::{World, pid_of, until, within, world};
use runtime::{ExecSpec, Mount, MountKind, PidMode, SandboxSpec, User, UserRange};
use tokio::io::AsyncReadExt;

const RANGE: UserRange = UserRange { first: 262_144, count: 65_536 };

fn sandbox(w: &World) -> SandboxSpec {
    SandboxSpec { users: Some(RANGE), ..w.sandbox("a") }
}

fn owners(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().trim().to_owned()
}

#[tokio::test]
async fn root_is_nobody_outside() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(sandbox(&w)).await.unwrap();
    let script = "
        id -u; cat /proc/self/uid_map; hostname; stat -c '%n %u:%g' / /bin/busybox /etc /dev /dev/null /dev/shm /tmp
        touch /made /dev/shm/made && stat -c '%n %u' /made /dev/shm/made; busybox chown 33:34 /made && echo given
        grep -E 'CapEff|Seccomp:' /proc/self/status; ls /sys/class/net; echo x > /etc/group && echo written
        echo 1 2>/dev/null > /proc/sys/kernel/panic && echo host
        mknod /tmp/disk b 254 0 2>/dev/null && echo disk; echo ready; sleep 1000";
    let mut spec = w.shell("root", script);
    spec.cwd = "/var/new".into();
    let status = w.runtime.start_container("a", spec).await.unwrap();
    until("the container", || w.logged("root").contains("ready")).await;
    let text = w.logged("root");
    for line in [
        "F 0\n",
        "F          0     262144      65536",
        "F host-a",
        "F / 0:0",
        "F /bin/busybox 0:0",
        "F /etc 0:0",
        "F /dev 0:0",
        "F /dev/null 0:0",
        "F /dev/shm 0:0",
        "F /made 0",
        "F /dev/shm/made 0",
        "F given",
        "F written",
        "CapEff:\t00000000a80425fb",
        "F lo",
    ] {
        assert!(text.contains(line), "{line:?} not in:\n{text}");
    }
    assert!(!text.contains("F host\n") && !text.contains("F disk"), "{text}");
    assert_eq!(owners(pid_of(&status)), "262144\t262144\t262144\t262144");
    let upper = w.dir.path().join("data/containers").join(&status.id).join("upper");
    assert_eq!(fs::metadata(upper.join("made")).unwrap().uid(), 262_144 + 33);
    assert_eq!(fs::metadata(upper.join("var/new")).unwrap().uid(), 262_144);
    // The image itself belongs to whom it did.
    assert_eq!(fs::metadata(w.layer.join("etc/group")).unwrap().uid(), 0);
    assert!(fs::read_to_string(w.layer.join("etc/group")).unwrap().contains("log"));

    let argv = ["sh", "-c", "id -u; pwd; cat /proc/self/uid_map; cat /made"].map(str::to_owned).into();
    let output = within(w.runtime.exec_sync(&status.id, argv, None)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("0\n/var/new\n         0     262144"), "{said}{:?}", output.stderr);
    let argv = ["sh", "-c", "id -u; touch /made"].map(str::to_owned).into();
    let web = User { spec: Some("web".into()), ..User::default() };
    let spec = ExecSpec { argv, user: Some(web), tty: true, ..ExecSpec::default() };
    let mut session = within(w.runtime.exec(&status.id, spec)).await.unwrap();
    let (mut said, mut buffer) = (Vec::new(), [0; 256]);
    let mut stdout = session.stdout.take().unwrap();
    while !said.ends_with(b"33\r\n") {
        let len = within(stdout.read(&mut buffer)).await.unwrap();
        assert!(len > 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&buffer[..len]);
    }
    assert_eq!(within(session.wait()).await.unwrap(), 0);
    w.end().await;
}

#[tokio::test]
async fn volumes_are_seen_with_their_owners() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(SandboxSpec { pid: PidMode::Shared, ..sandbox(&w) }).await.unwrap();
    let volume = w.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    for (name, owner) in [("root", 0), ("web", 33), ("many", 70_000)] {
        fs::write(volume.join(name), "").unwrap();
        chown(volume.join(name), Some(owner), Some(owner)).unwrap();
    }
    let mut spec = w.shell("one", "stat -c '%n %u:%g' /v/*; touch /v/made; stat -c '%n %u' /t; id -u; tty");
    spec.user = User { uid: Some(33), gid: Some(34), ..User::default() };
    spec.tty = true;
    std::os::unix::fs::chown(&volume, Some(33), Some(33)).unwrap();
    spec.mounts = vec![
        Mount { source: volume.clone(), destination: "/v".into(), ..Mount::default() },
        Mount { kind: MountKind::Tmpfs, destination: "/t".into(), ..Mount::default() },
    ];
    let text = w.output("a", spec).await;
    for line in ["/v/root 0:0", "/v/web 33:33", "/v/many 65534:65534", "F /t 0", "F 33", "F /dev/pts/0"] {
        assert!(text.contains(line), "{line:?} not in:\n{text}");
    }
    let made = fs::metadata(volume.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (33, 34), "on disk it is as without a range");
    w.end().await;
}

#[tokio::test]
async fn images_are_volumes() {
    let Some(w) = world().await else { return };
    let top = w.dir.path().join("top");
    fs::create_dir_all(top.join("etc")).unwrap();
    fs::write(top.join("etc/group"), "top\n").unwrap();
    std::os::unix::fs::symlink("/etc", top.join("link")).unwrap();
    for users in [None, Some(RANGE)] {
        w.runtime.run_sandbox(SandboxSpec { users, ..w.sandbox("a") }).await.unwrap();
        let image = |place: &str, sub: &str| Mount {
            kind: MountKind::Layers,
            layers: vec![top.clone(), w.layer.clone()],
            sub_path: sub.into(),
            destination: place.into(),
            ..Mount::default()
        };
        let name = if users.is_some() { "own" } else { "host" };
        let script =
            "cat /i/etc/group /e/group /l/group /f; touch /i/x; stat -c '%n %u' /i/etc; ls /i/bin/busybox";
        let mut spec = w.shell(name, script);
        spec.mounts =
            vec![image("/i", ""), image("/e", "etc"), image("/l", "link"), image("/f", "etc/passwd")];
        let text = w.output("a", spec).await;
        assert_eq!(text.matches("F top").count(), 3, "{text}");
        for line in ["F root:x:0:0", "touch: /i/x: Read-only file system", "F /i/etc 0", "F /i/bin/busybox"] {
            assert!(text.contains(line), "{line:?} not in:\n{text}");
        }
        let mut spec = w.command("lost", &["true"]);
        spec.mounts = vec![image("/i", "no/such")];
        let error = w.runtime.start_container("a", spec).await.unwrap_err().to_string();
        assert_eq!(error, "no \"no/such\" in the image that is mounted as a volume");
        within(w.runtime.remove_sandbox("a")).await.unwrap();
    }
    w.end().await;
}
