//! Exec, attach and commands that run once, on the real kernel. Needs root and busybox-static.

mod common;

use std::time::Duration;

use common::{until, within, world};
use runtime::{Error, ExecSpec, OnceNetwork, OnceSpec, OutputKind, Rootfs, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn argv(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn shell(script: &str) -> ExecSpec {
    ExecSpec { argv: argv(&["sh", "-c", script]), ..ExecSpec::default() }
}

#[tokio::test]
async fn short_commands() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let mut spec = w.command("main", &["sleep", "1000"]);
    spec.env = argv(&["A=1", "B=2"]);
    let id = w.runtime.start_container("a", spec).await.unwrap().id;
    let sync = |args: &[&str]| w.runtime.exec_sync(&id, argv(args), Some(Duration::from_secs(30)));
    let output = within(sync(&["sh", "-c", "echo $A$B; echo bad >&2; exit 9"])).await.unwrap();
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (9, &b"12\n"[..], &b"bad\n"[..]));
    let output = within(sync(&["sh", "-c", "kill -9 $$"])).await.unwrap();
    assert_eq!(output.code, 137);
    // What stays in the background does not hold the answer up.
    let output = within(sync(&["sh", "-c", "sleep 900 & echo done"])).await.unwrap();
    assert_eq!((output.code, &*output.stdout), (0, &b"done\n"[..]));
    let output = within(sync(&["sh", "-c", "grep -E 'Seccomp:|CapEff' /proc/self/status"])).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("00000000a80425fb") && text.contains("Seccomp:\t2"), "{text}");
    let output = within(sync(&["head", "-c", "3000000", "/dev/zero"])).await.unwrap();
    assert_eq!((output.code, output.stdout.len()), (0, 3_000_000));

    let seconds = common::unusual_seconds();
    let late =
        w.runtime.exec_sync(&id, argv(&["sleep", &seconds.to_string()]), Some(Duration::from_millis(100)));
    assert!(matches!(within(late).await, Err(Error::Timeout { .. })));
    until("the late command's end", || common::sleepers(seconds).is_empty()).await;
    let missing = within(sync(&["nonsense"])).await.unwrap_err().to_string();
    assert_eq!(missing, "exec: \"nonsense\": executable file not found in $PATH");

    let spec = ExecSpec {
        user: Some(User { spec: Some("web".into()), ..User::default() }),
        cwd: Some("/tmp".into()),
        ..shell("id -u; pwd; exec 3</dev/stdin; cat >/dev/null; echo hi >/dev/stdout")
    };
    let mut session = w.runtime.exec(&id, spec).await.unwrap();
    let mut text = String::new();
    within(session.stdout.take().unwrap().read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "33\n/tmp\nhi\n");
    assert_eq!(within(session.wait()).await.unwrap(), 0);
    w.runtime.stop_container(&id, Duration::ZERO, None).await.unwrap();
    assert!(w.runtime.exec(&id, shell("true")).await.is_err());
    w.end().await;
}

/// As container runtimes and service managers do; under v2 the container's own cgroup takes no more processes then.
#[tokio::test]
async fn commands_in_a_container_that_makes_cgroups() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let script = "cd /sys/fs/cgroup; if [ -e cgroup.procs ]; then
        busybox mkdir init && echo 0 >init/cgroup.procs && echo +pids >cgroup.subtree_control
        fi; echo ready; exec sleep 1000";
    let mut spec = w.shell("maker", script);
    spec.privileged = true;
    let id = w.runtime.start_container("a", spec).await.unwrap().id;
    until("its cgroups", || !w.logged("maker").is_empty()).await;
    let command = argv(&["cat", "/proc/self/cgroup"]);
    let output = within(w.runtime.exec_sync(&id, command, Some(Duration::from_secs(30)))).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(text, "0::/init\n", "{output:?}");
    }
    assert_eq!(output.code, 0, "{output:?}");
    w.end().await;
}

#[tokio::test]
async fn input_and_output_of_a_command() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let id = w.runtime.start_container("a", w.command("main", &["sleep", "1000"])).await.unwrap().id;
    let spec = ExecSpec { stdin: true, ..shell("tr a-z A-Z") };
    let mut session = w.runtime.exec(&id, spec).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let data = "some text ".repeat(100_000);
    let copy = data.clone();
    let send = tokio::spawn(async move {
        stdin.write_all(copy.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut text = String::new();
    within(stdout.read_to_string(&mut text)).await.unwrap();
    send.await.unwrap();
    assert_eq!(text, data.to_uppercase());
    assert_eq!(within(session.wait()).await.unwrap(), 0);
    w.end().await;
}

#[tokio::test]
async fn a_terminal() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let id = w.runtime.start_container("a", w.command("main", &["sleep", "1000"])).await.unwrap().id;
    let spec = ExecSpec { tty: true, stdin: true, argv: argv(&["sh"]), ..ExecSpec::default() };
    let mut session = w.runtime.exec(&id, spec).await.unwrap();
    assert!(session.stderr.is_none());
    session.resize(123, 45).unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"tty; stty size; echo $TERM; exit 5\n").await.unwrap();
    let mut text = String::new();
    within(stdout.read_to_string(&mut text)).await.unwrap();
    for line in ["/dev/pts/", "45 123", "xterm"] {
        assert!(text.contains(line), "{line:?} not in {text:?}");
    }
    assert_eq!(within(session.wait()).await.unwrap(), 5);
    w.end().await;
}

#[tokio::test]
async fn attaching() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let mut spec = w.shell("cat", "while read line; do echo got $line; done; echo over");
    (spec.stdin, spec.stdin_once) = (true, true);
    let id = w.runtime.start_container("a", spec).await.unwrap().id;
    let mut session = w.runtime.attach(&id).await.unwrap();
    let mut second = w.runtime.attach(&id).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    // The other client holds the input open too.
    drop(second.stdin.take());
    let mut text = String::new();
    within(stdout.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "got one\ngot two\nover\n");
    assert_eq!(within(session.wait()).await.unwrap(), 0);
    let mut text = String::new();
    within(second.stdout.take().unwrap().read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "got one\ngot two\nover\n");
    assert_eq!(w.ended(&id).await.code, 0);
    assert_eq!(w.logged("cat"), "stdout F got one\nstdout F got two\nstdout F over\n");

    let mut spec =
        w.shell("shell", "stty size; read line; echo got $line; stty size; ls -l /dev/console; exit 6");
    (spec.stdin, spec.tty) = (true, true);
    let id = w.runtime.start_container("a", spec).await.unwrap().id;
    let mut session = w.runtime.attach(&id).await.unwrap();
    session.resize(50, 20).unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let mut text = String::new();
    within(session.stdout.take().unwrap().read_to_string(&mut text)).await.unwrap();
    assert!(text.contains("got hello\r\n20 50\r\n") && text.contains("136,   0"), "{text:?}");
    assert_eq!(within(session.wait()).await.unwrap(), 6);
    assert!(w.logged("shell").contains("got hello"));
    w.end().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let spec = w.shell("chatty", "read x; head -c 5000000 /dev/zero | tr '\\0' 'x'; echo; echo end");
    let id = w.runtime.start_container("a", runtime::ContainerSpec { stdin: true, ..spec }).await.unwrap().id;
    let mut session = w.runtime.attach(&id).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(w.ended(&id).await.code, 0);
    assert!(w.logged("chatty").ends_with("stdout F end\n"));
    w.end().await;
}

#[tokio::test]
async fn commands_that_run_once() {
    let Some(w) = world().await else { return };
    let (upper, work) = (w.dir.path().join("up"), w.dir.path().join("wk"));
    let mut spec = OnceSpec {
        rootfs: Rootfs { layers: vec![w.layer.clone()], upper: Some(upper.clone()), work: Some(work) },
        argv: argv(&["sh", "-c", "echo out; echo err >&2; echo made >/file; ls /sys/class/net; exit 3"]),
        cwd: "/tmp".into(),
        network: OnceNetwork::None,
        ..OnceSpec::default()
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let collect = |kind: OutputKind, data: &[u8]| match kind {
        OutputKind::Stdout => out.extend_from_slice(data),
        OutputKind::Stderr => err.extend_from_slice(data),
    };
    let code = within(w.runtime.run_once(spec.clone(), collect)).await.unwrap();
    assert_eq!((code, &*out, &*err), (3, &b"out\nlo\n"[..], &b"err\n"[..]));
    assert_eq!(std::fs::read_to_string(upper.join("file")).unwrap(), "made\n");
    spec.argv = argv(&["nonsense"]);
    assert!(within(w.runtime.run_once(spec.clone(), |_, _| {})).await.is_err());

    let seconds = common::unusual_seconds();
    spec.argv = argv(&["sleep", &seconds.to_string()]);
    let runtime = w.runtime.clone();
    let task = tokio::spawn(async move { runtime.run_once(spec, |_, _| {}).await });
    until("the command", || !common::sleepers(seconds).is_empty()).await;
    task.abort();
    until("its end", || w.runtime.sandboxes().is_empty()).await;
    w.end().await;
}
