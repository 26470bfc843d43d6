//! Containers made by OCI runtimes of others (Debian: runc, crun). Needs root and busybox-static.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{World, until, within, world};
use runtime::{ContainerState, ExecSpec, Mount, MountKind, SandboxSpec, Seccomp, User};
use tokio::io::AsyncReadExt;

fn runtimes() -> Vec<PathBuf> {
    // Debian's crun refuses machines with the old cgroups whose new tree has controllers, too.
    let hybrid = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    let all = ["/usr/sbin/runc", "/usr/bin/crun"].map(PathBuf::from);
    let fits = |path: &PathBuf| path.exists() && (hybrid.trim().is_empty() || !path.ends_with("crun"));
    let there: Vec<PathBuf> = all.into_iter().filter(fits).collect();
    if there.is_empty() {
        eprintln!("skipped: needs /usr/sbin/runc or /usr/bin/crun");
    }
    there
}

fn sandbox(w: &World, runtime: &Path) -> SandboxSpec {
    SandboxSpec { oci_runtime: Some(runtime.to_owned()), ..w.sandbox("a") }
}

#[tokio::test]
async fn they_run_containers_as_we_do() {
    for runtime in runtimes() {
        let Some(w) = world().await else { return };
        w.runtime.run_sandbox(sandbox(&w, &runtime)).await.unwrap();
        let exit = w.run("a", w.shell("one", "echo out; echo err >&2; printf end; exit 7")).await;
        assert_eq!((exit.code, exit.signal), (7, None), "{}", runtime.display());
        let mut lines: Vec<_> = w.logged("one").lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P end"]);

        let script = "echo host: $(hostname) pid: $$ links: $(ls /sys/class/net); id; pwd; echo A=$A
            grep -E 'CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; cat /v/hello; touch /v/x; echo 1 > /written
            stat -c %a /dev/shm; cat /proc/keys | wc -c; cat /image/etc/group";
        let mut spec = w.shell("two", script);
        spec.user = User { spec: Some("web".into()), supplementary: vec![77], ..User::default() };
        spec.env = vec!["A=1".into()];
        spec.cwd = "/tmp".into();
        spec.seccomp = Seccomp::Default;
        let volume = w.dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("hello"), "from the host\n").unwrap();
        spec.mounts.push(Mount {
            source: volume.clone(),
            destination: "/v".into(),
            readonly: true,
            recursive_readonly: true,
            ..Mount::default()
        });
        spec.mounts.push(Mount {
            kind: MountKind::Layers,
            layers: vec![w.layer.clone()],
            destination: "/image".into(),
            ..Mount::default()
        });
        let text = w.output("a", spec).await;
        for line in [
            "host: host-a pid: 1 links: lo",
            "uid=33(web) gid=34(web) groups=50(log),77",
            "F /tmp",
            "F A=1",
            "F from the host",
            "CapBnd:\t00000000a80425fb",
            "Seccomp:\t2",
            "NoNewPrivs:\t0",
            "touch: /v/x: Read-only file system",
            "F 1777",
            "F 0\n",
            "F log:x:50:web",
        ] {
            assert!(text.contains(line), "{line:?} not in ({}):\n{text}", runtime.display());
        }
        w.end().await;
    }
}

#[tokio::test]
async fn more_processes_terminals_and_ends() {
    for runtime in runtimes() {
        let Some(w) = world().await else { return };
        w.runtime.run_sandbox(sandbox(&w, &runtime)).await.unwrap();
        let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
        let status = w.runtime.start_container("a", w.shell("one", script)).await.unwrap();
        until("the trap", || w.logged("one").contains("ready")).await;
        let exec = |argv: &[&str]| argv.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
        let argv = exec(&["sh", "-c", "echo in $HOSTNAME; exit 5"]);
        let output = within(w.runtime.exec_sync(&status.id, argv, None)).await.unwrap();
        assert_eq!((output.code, output.stdout), (5, b"in host-a\n".to_vec()), "{}", runtime.display());
        // Quick ones, whose end may come before we have heard of their beginning.
        for _ in 0..5 {
            let output = within(w.runtime.exec_sync(&status.id, exec(&["false"]), None)).await.unwrap();
            assert_eq!(output.code, 1);
        }
        let error = w.runtime.exec_sync(&status.id, exec(&["/no/such"]), None).await.unwrap_err().to_string();
        assert!(error.contains("no such file or directory") || error.contains("No such file"), "{error}");
        let argv = exec(&["sh", "-c", "tty; stty size"]);
        let spec = ExecSpec { argv, tty: true, stdin: true, ..ExecSpec::default() };
        let mut session = within(w.runtime.exec(&status.id, spec)).await.unwrap();
        let mut said = Vec::new();
        let mut stdout = session.stdout.take().unwrap();
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&said).contains("/dev/pts/") {
            let len = within(stdout.read(&mut buffer)).await.unwrap();
            assert!(len > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..len]);
        }
        assert_eq!(within(session.wait()).await.unwrap(), 0);
        within(w.runtime.stop_container(&status.id, Duration::from_secs(30), None)).await.unwrap();
        let ContainerState::Exited(exit) = w.runtime.container(&status.id).unwrap().state else { panic!() };
        assert_eq!(exit.code, 3);
        assert!(w.logged("one").contains("stdout F bye"));
        // One on a terminal, and one that is killed with its sandbox.
        let mut spec = w.shell("two", "tty");
        spec.tty = true;
        let text = w.output("a", spec).await;
        assert!(text.contains("F /dev/pts/0"), "{text}");
        w.runtime.start_container("a", w.command("three", &["sleep", "1000"])).await.unwrap();
        w.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_says_why() {
    for runtime in runtimes() {
        let Some(w) = world().await else { return };
        w.runtime.run_sandbox(sandbox(&w, &runtime)).await.unwrap();
        let start = |spec| async { w.runtime.start_container("a", spec).await.unwrap_err().to_string() };
        let error = start(w.command("a", &["nonsense"])).await;
        assert!(
            error.contains("executable file not found") || error.contains("`nonsense` not found"),
            "{error}"
        );
        let mut shared = w.command("b", &["true"]);
        shared.mounts.push(Mount {
            source: "/tmp".into(),
            destination: "/x".into(),
            propagation: runtime::Propagation::Bidirectional,
            ..Mount::default()
        });
        let error = start(shared).await;
        assert_eq!(error, "mount propagation Bidirectional is not possible with an OCI runtime");
        w.end().await;
    }
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(sandbox(&w, Path::new("/no/such/runtime"))).await.unwrap();
    let error = w.runtime.start_container("a", w.command("a", &["true"])).await.unwrap_err().to_string();
    assert_eq!(error, "the OCI runtime /no/such/runtime: it cannot be run");
    w.end().await;
}

#[tokio::test]
async fn they_run_hooks_themselves() {
    for runtime in runtimes() {
        let Some(w) = world().await else { return };
        w.runtime.run_sandbox(sandbox(&w, &runtime)).await.unwrap();
        let note = |word: &str| {
            let script = format!("echo {word} >>{}/journal", w.dir.path().display());
            let args = ["sh", "-c", &script].map(str::to_owned).into();
            runtime::Hook { path: common::BUSYBOX.into(), args, ..Default::default() }
        };
        let hooks = runtime::Hooks {
            create_runtime: vec![note("createRuntime")],
            poststart: vec![note("poststart")],
            poststop: vec![note("poststop")],
            ..Default::default()
        };
        w.run("a", runtime::ContainerSpec { hooks, ..w.shell("one", "true") }).await;
        let journal = || std::fs::read_to_string(w.dir.path().join("journal")).unwrap_or_default();
        until("all hooks", || journal() == "createRuntime\npoststart\npoststop\n").await;
        w.end().await;
    }
}
