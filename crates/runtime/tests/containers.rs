//! Containers on the real kernel. Needs root and busybox-static.

mod common;

use std::fs;
use std::time::Duration;

use common::{pid_of, until, within, world};
use runtime::{
    Capabilities, ContainerEvent, ContainerState, IpcMode, Mount, MountKind, NetworkMode, PidMode, Resources,
    Seccomp, User,
};

#[tokio::test]
async fn runs_logs_and_exit_codes() {
    let Some(w) = world().await else { return };
    let mut events = w.runtime.events();
    let sandbox = w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    assert!(sandbox.netns.as_ref().unwrap().exists());
    let exit = w.run("a", w.shell("one", "echo out; echo err >&2; printf end; exit 7")).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    let mut lines: Vec<_> = w.logged("one").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P end"]);

    let status = w.runtime.start_container("a", w.command("two", &["sleep", "1000"])).await.unwrap();
    assert!(pid_of(&status) > 0);
    assert!(w.runtime.remove_container(&status.id).await.is_err());
    w.runtime.signal_container(&status.id, "KILL").await.unwrap();
    let exit = w.ended(&status.id).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(match event {
            ContainerEvent::Started { .. } => "started",
            ContainerEvent::Exited { .. } => "exited",
            ContainerEvent::SandboxLost { .. } => "lost",
        });
    }
    assert_eq!(seen, ["started", "exited", "started", "exited"]);
    assert_eq!(w.runtime.containers("a").len(), 2);
    w.runtime.remove_container(&status.id).await.unwrap();
    assert_eq!(w.runtime.containers("a").len(), 1);
    w.end().await;
}

#[tokio::test]
async fn failures_to_start_say_why_and_leave_nothing() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    assert!(w.runtime.run_sandbox(w.sandbox("a")).await.is_err());
    let start = |spec| async { w.runtime.start_container("a", spec).await.unwrap_err().to_string() };
    assert_eq!(
        start(w.command("a", &["nonsense"])).await,
        "exec: \"nonsense\": executable file not found in $PATH"
    );
    assert!(start(w.command("b", &["/etc/passwd"])).await.contains("Permission denied"));
    let mut spec = w.command("c", &["true"]);
    spec.user.spec = Some("nobody".into());
    assert_eq!(start(spec).await, "no user \"nobody\" in /etc/passwd");
    let mut spec = w.command("d", &["true"]);
    spec.mounts.push(Mount { source: "/no/such".into(), destination: "/x".into(), ..Mount::default() });
    assert!(start(spec).await.starts_with("look at mount source /no/such"));
    let mut spec = w.command("e", &["true"]);
    spec.mounts.push(Mount { source: "/tmp".into(), destination: "/proc/sys".into(), ..Mount::default() });
    assert_eq!(start(spec).await, "mount on /proc/sys: inside the proc file system");
    let mut spec = w.command("f", &["true"]);
    spec.rootfs.layers.clear();
    assert_eq!(start(spec).await, "root file system without layers");
    let mut bad = w.sandbox("b");
    bad.sysctls.insert("kernel.panic".into(), "1".into());
    let error = w.runtime.run_sandbox(bad).await.unwrap_err().to_string();
    assert!(error.contains("kernel.panic"), "{error}");
    assert!(w.runtime.run_sandbox(w.sandbox("../x")).await.is_err());
    assert_eq!(w.runtime.containers("a").len(), 0);
    assert_eq!(fs::read_dir(w.dir.path().join("data/containers")).unwrap().count(), 0);
    w.end().await;
}

#[tokio::test]
async fn stops_gracefully_then_by_force() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let polite = w.shell("polite", "trap 'echo bye; exit 3' USR1; echo ready; while :; do sleep 0.01; done");
    let status = w.runtime.start_container("a", polite).await.unwrap();
    until("the trap", || w.logged("polite").contains("ready")).await;
    within(w.runtime.stop_container(&status.id, Duration::from_secs(30), Some("SIGUSR1"))).await.unwrap();
    let ContainerState::Exited(exit) = w.runtime.container(&status.id).unwrap().state else { panic!() };
    assert_eq!(exit.code, 3);
    assert!(w.logged("polite").contains("stdout F bye"));

    let stubborn = w.shell("stubborn", "trap '' TERM; echo ready; while :; do sleep 1; done");
    let status = w.runtime.start_container("a", stubborn).await.unwrap();
    until("the trap", || w.logged("stubborn").contains("ready")).await;
    within(w.runtime.stop_container(&status.id, Duration::from_millis(50), None)).await.unwrap();
    let ContainerState::Exited(exit) = w.runtime.container(&status.id).unwrap().state else { panic!() };
    assert_eq!(exit.code, 137);
    w.runtime.stop_container(&status.id, Duration::ZERO, None).await.unwrap();
    w.end().await;
}

#[tokio::test]
async fn is_confined() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let script = "
        echo root: $(ls / | tr '\\n' ' ')
        echo host: $(hostname) pid: $$
        echo links: $(ls /sys/class/net)
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted
        unshare -m true 2>/dev/null && echo unshared
        unshare -U true 2>/dev/null && echo userns
        mknod /tmp/disk b 254 0 && cat /tmp/disk >/dev/null 2>&1 && echo disk
        echo 1 2>/dev/null >/proc/sys/kernel/panic && echo sysctl
        touch /sys/x 2>/dev/null && echo sys
        wc -c </proc/interrupts; cat /proc/keys /proc/timer_list 2>/dev/null
        ls /sys/firmware
        grep Cap /proc/self/status; grep Seccomp: /proc/self/status; grep NoNewPrivs /proc/self/status
        ls /dev | tr '\\n' ' '
        cat /proc/self/oom_score_adj
        ls /proc/self/fd | tr '\\n' ' '
        touch /written && echo writable
    ";
    let text = w.output("a", w.shell("sh", script)).await;
    let has = |line: &str| assert!(text.contains(line), "{line:?} not in:\n{text}");
    has("F root: bin dev etc home proc sys tmp");
    has("F host: host-a pid: 1");
    has("F links: lo");
    has("F 0\n");
    has("CapEff:\t00000000a80425fb");
    has("CapBnd:\t00000000a80425fb");
    has("Seccomp:\t2");
    has("NoNewPrivs:\t0");
    has("core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    has("F 0 1 2 3 ");
    has("writable");
    for bad in ["mounted", "unshared", "userns", "F disk", "F sysctl", "F sys\n"] {
        assert!(!text.contains(bad), "{bad:?} in:\n{text}");
    }
    w.end().await;
}

#[tokio::test]
async fn follows_the_security_settings() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let mut spec =
        w.shell("web", "id; pwd; env; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; touch /x");
    spec.user = User { spec: Some("web".into()), supplementary: vec![77], ..User::default() };
    spec.cwd = "/var/new".into();
    spec.env = vec!["A=1".into(), "A=2".into()];
    spec.no_new_privileges = true;
    spec.read_only_rootfs = true;
    spec.capabilities = Capabilities { add: vec!["NET_ADMIN".into()], drop: vec!["ALL".into()] };
    let text = w.output("a", spec).await;
    for line in [
        "uid=33(web) gid=34(web) groups=50(log),77",
        "F /var/new",
        "F A=2",
        "F HOME=/home/web",
        "F HOSTNAME=host-a",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000001000",
        "NoNewPrivs:\t1",
        "Read-only file system",
    ] {
        assert!(text.contains(line), "{line:?} not in:\n{text}");
    }

    let mut spec =
        w.shell("open", "unshare -m true && echo unshared; mount -t tmpfs none /tmp && echo mounted");
    spec.privileged = true;
    let text = w.output("a", spec).await;
    assert!(text.contains("unshared") && text.contains("F mounted"), "{text}");

    let mut spec = w.shell("profile", "touch /a && mkdir /b; echo $?; busybox mkdir /b; echo code $?");
    spec.seccomp = Seccomp::Profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }));
    let text = w.output("a", spec).await;
    assert!(text.contains("No space left on device"), "{text}");
    w.end().await;
}

#[tokio::test]
async fn limits_are_set_and_memory_runs_out() {
    let Some(w) = world().await else { return };
    let mut spec = w.sandbox("a");
    spec.cgroup_path = "burstable/poda".into();
    spec.resources.cpu_shares = Some(300);
    w.runtime.run_sandbox(spec).await.unwrap();
    let mut spec = w.command("limited", &["sleep", "1000"]);
    spec.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_limit: Some(32 << 20),
        pids_limit: Some(50),
        oom_score_adj: Some(500),
        ..Resources::default()
    };
    let status = w.runtime.start_container("a", spec.clone()).await.unwrap();
    let group = format!("{}/burstable/poda/{}", w.parent, status.id);
    let read = |v1: &str, v2: &str| {
        let v1 = format!("/sys/fs/cgroup/{}/{group}/{v1}", v1.split('.').next().unwrap());
        let v2 = format!("/sys/fs/cgroup/{group}/{v2}");
        fs::read_to_string(v1).or_else(|_| fs::read_to_string(v2)).unwrap().trim().to_owned()
    };
    assert!(["512", "59"].contains(&&*read("cpu.shares", "cpu.weight")));
    assert!(["50000", "50000 100000"].contains(&&*read("cpu.cfs_quota_us", "cpu.max")));
    assert_eq!(read("memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
    assert_eq!(read("pids.max", "pids.max"), "50");
    assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", pid_of(&status))).unwrap(), "500\n");
    let all = w.runtime.usage(true).await.unwrap();
    let [found] = all.as_slice() else { panic!("{all:?}") };
    let used = &found.containers[0];
    assert_eq!((&used.container.id, found.containers.len()), (&status.id, 1));
    assert!(used.usage.cpu_ns > 0 && used.usage.memory > 0 && used.usage.pids == 1, "{used:?}");
    assert!(found.usage.memory >= used.usage.memory && used.details.is_some(), "{found:?}");
    let (together, shims) = w.runtime.usage_together().await.unwrap();
    // Memory may have been given back between the two readings; time has not.
    assert!(together.cpu_ns >= found.usage.cpu_ns && together.memory > 0, "{together:?} {found:?}");
    assert!(shims.pids > 0, "{shims:?}");
    let more = Resources { memory_limit: Some(64 << 20), ..Resources::default() };
    w.runtime.update_resources(&status.id, more).await.unwrap();
    assert_eq!(read("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    within(w.runtime.stop_container(&status.id, Duration::ZERO, None)).await.unwrap();

    spec.name = "hungry".into();
    spec.args = ["tail", "/dev/zero"].map(String::from).into();
    spec.resources.memory_limit = Some(8 << 20);
    let exit = w.run("a", spec).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    w.end().await;
}

#[tokio::test]
async fn mounts() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let source = w.dir.path().join("volume");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let escape = w.layer.join("escape");
    std::os::unix::fs::symlink("/../../../../../../tmp", escape).unwrap();
    let script = "
        cat /data/file /one; echo; touch /data/new; touch /ro/new; touch /ro/sub/new
        touch /scratch/x && echo scratch; stat -c %a /scratch
        cat /tmp/linked/file; echo; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max
    ";
    let mut spec = w.shell("sh", script);
    spec.resources.memory_limit = Some(16 << 20);
    let bind = |source: &std::path::Path, destination: &str, readonly: bool| Mount {
        source: source.into(),
        destination: destination.into(),
        readonly,
        ..Mount::default()
    };
    spec.mounts = vec![
        bind(&source, "/data", false),
        bind(&source, "/ro", true),
        bind(&source.join("file"), "/one", false),
        // Through a link of the image: stays inside.
        bind(&source, "/escape/linked", true),
        Mount {
            destination: "/scratch".into(),
            kind: MountKind::Tmpfs,
            options: vec!["size=1m".into(), "mode=0700".into(), "noexec".into()],
            ..Mount::default()
        },
    ];
    let text = w.output("a", spec).await;
    for line in [
        "F contentcontent",
        "scratch",
        "F 700",
        "F content\n",
        "F 16777216",
        "/ro/new: Read-only",
        "/ro/sub/new: Read-only",
    ] {
        assert!(text.contains(line), "{line:?} not in:\n{text}");
    }
    assert!(source.join("new").exists());
    assert!(!std::path::Path::new("/tmp/linked").exists());
    w.end().await;
}

#[tokio::test]
async fn sandboxes_share_what_they_are_told_to() {
    let Some(w) = world().await else { return };
    let mut spec = w.sandbox("shared");
    spec.pid = PidMode::Shared;
    spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
    w.runtime.run_sandbox(spec).await.unwrap();
    let one = w.shell("one", "echo hello >/dev/shm/x; (sleep 500 & ); sleep 1000");
    let one = w.runtime.start_container("shared", one).await.unwrap();
    let script = "until ls /dev/shm/x 2>/dev/null; do sleep 0.01; done; cat /dev/shm/x
        until ps | grep -q 'sleep 500'; do sleep 0.01; done; echo seen
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start; [ $$ = 1 ] || echo not first";
    let text = w.output("shared", w.shell("two", script)).await;
    for line in ["F hello", "F seen", "F 7", "F not first"] {
        assert!(text.contains(line), "{line:?} not in:\n{text}");
    }
    within(w.runtime.stop_container(&one.id, Duration::ZERO, None)).await.unwrap();
    // What it left in the background has ended too.
    let text = w.output("shared", w.shell("three", "ps | grep -q '[s]leep' || echo alone")).await;
    assert!(text.contains("alone"), "{text}");

    let mut spec = w.sandbox("host");
    (spec.network, spec.pid, spec.ipc) = (NetworkMode::Host, PidMode::Host, IpcMode::Host);
    let sandbox = w.runtime.run_sandbox(spec).await.unwrap();
    assert_eq!(sandbox.netns, None);
    let seconds = common::unusual_seconds();
    let text = w.output("host", w.shell("one", &format!("echo $$; (sleep {seconds} &); exit 4"))).await;
    let pid: u32 = text.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(pid > 2);
    assert!(common::sleepers(seconds).is_empty());
    w.end().await;
}

#[tokio::test]
async fn a_debugger_sees_its_target() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let target = w.runtime.start_container("a", w.command("target", &["sleep", "777"])).await.unwrap();
    let mut spec = w.shell("debugger", "ps");
    spec.pid_of = Some(target.id);
    let text = w.output("a", spec).await;
    assert!(text.contains("sleep 777"), "{text}");
    w.end().await;
}

#[tokio::test]
async fn logs_rotate() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let mut spec = w.shell("big", "seq 1 2000; sleep 1000");
    (spec.log_max_bytes, spec.log_max_files) = (Some(8192), Some(3));
    let status = w.runtime.start_container("a", spec).await.unwrap();
    until("the last line", || w.logged("big").contains("F 2000\n")).await;
    let dir = w.log("big").parent().unwrap().to_owned();
    assert!(fs::read_dir(&dir).unwrap().count() <= 3);
    fs::rename(w.log("big"), dir.join("aside")).unwrap();
    w.runtime.reopen_log(&status.id).await.unwrap();
    assert_eq!(fs::read_to_string(w.log("big")).unwrap(), "");
    w.end().await;
}

#[tokio::test]
async fn a_start_that_fails_does_not_keep_the_ends_of_others_from_being_heard() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let long = w.runtime.start_container("a", w.shell("long", "sleep 0.5; exit 5")).await.unwrap();
    w.runtime.start_container("a", w.command("bad", &["/no/such/program"])).await.unwrap_err();
    assert_eq!(w.run("a", w.shell("after", "exit 3")).await.code, 3);
    assert_eq!(w.ended(&long.id).await.code, 5);
    w.end().await;
}
