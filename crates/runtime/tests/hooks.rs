//! Programs that are run at points of a container's life. Needs root and busybox-static.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{BUSYBOX, World, config, until, within, world};
use runtime::{ContainerSpec, Hook, Hooks, PidMode, Runtime, SandboxSpec, UserRange};

/// A hook of the host's that is told a shell script, with `$W` for the test's folder.
fn host(w: &World, script: &str) -> Hook {
    Hook {
        path: BUSYBOX.into(),
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec![format!("W={}", w.dir.path().display()), "PATH=/bin".into()],
        timeout: None,
    }
}

fn inside(script: &str) -> Hook {
    let args = ["sh", "-c", script].map(str::to_owned).into();
    Hook { path: "/bin/busybox".into(), args, ..Hook::default() }
}

/// Says in the test's journal that it was run, with what it was told.
fn note(w: &World, word: &str) -> Hook {
    host(w, &format!("echo {word} $(cat) >>$W/journal"))
}

fn journal(w: &World) -> Vec<(String, serde_json::Value)> {
    let text = fs::read_to_string(w.dir.path().join("journal")).unwrap_or_default();
    let line = |line: &str| {
        let (word, state) = line.split_once(' ').unwrap();
        (word.to_owned(), serde_json::from_str(state).unwrap())
    };
    text.lines().map(line).collect()
}

fn words(w: &World) -> Vec<String> {
    journal(w).into_iter().map(|(word, _)| word).collect()
}

fn with(w: &World, name: &str, script: &str, hooks: Hooks) -> ContainerSpec {
    ContainerSpec { hooks, ..w.shell(name, script) }
}

async fn fails(w: &World, spec: ContainerSpec) -> String {
    within(w.runtime.start_container("a", spec)).await.unwrap_err().to_string()
}

fn all(w: &World) -> Hooks {
    Hooks {
        prestart: vec![note(w, "prestart")],
        create_runtime: vec![note(w, "createRuntime-1"), note(w, "createRuntime-2")],
        create_container: vec![note(w, "createContainer")],
        start_container: vec![inside("cat >/state; echo hook $(id -u) in $PWD; touch /begun")],
        poststart: vec![note(w, "poststart")],
        poststop: vec![note(w, "poststop-1"), host(w, "exit 1"), note(w, "poststop-2")],
    }
}

const ORDER: [&str; 5] = ["prestart", "createRuntime-1", "createRuntime-2", "createContainer", "poststart"];

#[tokio::test]
async fn each_sort_has_its_time_and_is_told_the_state() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let mut spec = with(&w, "one", "ls /begun; until [ -e /go ]; do sleep 0.01; done; exit 4", all(&w));
    spec.labels.insert("k".into(), "v".into());
    let status = w.runtime.start_container("a", spec).await.unwrap();
    assert_eq!(words(&w), ORDER);
    let told = journal(&w);
    for ((word, state), status_then) in
        told.iter().zip(["creating", "creating", "creating", "creating", "running"])
    {
        assert_eq!(
            (&state["id"], &state["status"]),
            (&status.id.as_str().into(), &status_then.into()),
            "{word}"
        );
        assert_eq!((&state["ociVersion"], &state["annotations"]["k"]), (&"1.0.2".into(), &"v".into()));
        assert_eq!(state["pid"], common::pid_of(&status), "{word}");
    }
    // The bundle says where the container's files are and how it is run.
    let bundle = Path::new(told[0].1["bundle"].as_str().unwrap()).join("config.json");
    let bundle: serde_json::Value = serde_json::from_slice(&fs::read(bundle).unwrap()).unwrap();
    assert_eq!(bundle["process"]["args"][0], "sh");
    assert_eq!(bundle["hooks"]["createContainer"][0]["path"], BUSYBOX);
    let output = within(w.runtime.exec_sync(&status.id, vec!["cat".into(), "/state".into()], None)).await;
    let state: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(state["status"], "created");
    within(w.runtime.exec_sync(&status.id, vec!["touch".into(), "/go".into()], None)).await.unwrap();
    assert_eq!(w.ended(&status.id).await.code, 4);
    // One that fails at the end does not keep the others from being run, and the end is told after them.
    assert_eq!(words(&w)[ORDER.len()..], ["poststop-1", "poststop-2"]);
    let (_, last) = journal(&w).pop().unwrap();
    assert_eq!((&last["status"], &last["id"]), (&"stopped".into(), &status.id.as_str().into()));
    assert!(w.logged("one").contains("/begun"), "{}", w.logged("one"));
    w.end().await;
}

#[tokio::test]
async fn they_are_where_they_should_be() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let links = "echo $(ls /sys/class/net | wc -l) >>$W/links; readlink /proc/self/ns/net >>$W/net";
    let root = r#"root=$(sed -n 's/.*"root":{"path":"\([^"]*\)".*/\1/p' $(sed 's/.*"bundle":"\([^"]*\)".*/\1/')/config.json)"#;
    let hooks = Hooks {
        create_runtime: vec![host(&w, links)],
        // It sees the host's files and the container's, and what it does there is there.
        create_container: vec![host(
            &w,
            &format!("{root}; ls $W/layer >/dev/null && echo made >$root/made && ls $root/dev/null $root/v/hello &&
                mount -t tmpfs none $root/tmp && echo mounted >$root/tmp/file; readlink /proc/self/ns/net >>$W/net"),
        )],
        poststop: vec![host(&w, links)],
        ..Hooks::default()
    };
    let volume = w.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("hello"), "from the host\n").unwrap();
    let script = "cat /made /tmp/file; ls / | grep -c old; cat /proc/self/mountinfo; ls -d /proc/1/root/$D";
    let mut spec = with(&w, "one", script, hooks);
    spec.env = vec![format!("D={}", w.dir.path().display())];
    spec.mounts.push(runtime::Mount { source: volume, destination: "/v".into(), ..Default::default() });
    let text = w.output("a", spec).await;
    assert!(text.contains("F made\n") && text.contains("F mounted\n"), "{text}");
    // Nothing of the host is left.
    assert!(!text.contains("F /proc/1/root/"), "{text}");
    let net = fs::read_to_string(w.dir.path().join("net")).unwrap();
    let net: Vec<_> = net.lines().collect();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!((net[0], net[2]), (own.to_str().unwrap(), own.to_str().unwrap()));
    assert_ne!(net[1], net[0]);
    w.end().await;
}

#[tokio::test]
async fn one_that_fails_is_the_end_of_the_start() {
    let Some(w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    type Place = fn(&mut Hooks) -> &mut Vec<Hook>;
    let sorts: [(&str, Place); 5] = [
        ("prestart", |h| &mut h.prestart),
        ("createRuntime", |h| &mut h.create_runtime),
        ("createContainer", |h| &mut h.create_container),
        ("startContainer", |h| &mut h.start_container),
        ("poststart", |h| &mut h.poststart),
    ];
    for (place, (sort, of)) in sorts.iter().enumerate() {
        let _ = fs::remove_file(w.dir.path().join("journal"));
        let mut hooks = all(&w);
        let bad = host(&w, "echo why it fails >&2; echo and more; exit 3");
        let bad = if *sort == "startContainer" { Hook { env: vec![], ..bad } } else { bad };
        *of(&mut hooks) = vec![bad, note(&w, "never")];
        let error = fails(&w, with(&w, &format!("c{place}"), "sleep 1000", hooks)).await;
        let wanted = format!("the {sort} hook /bin/busybox: it ended with 3: why it fails\nand more");
        assert!(error.contains(&wanted), "{error}");
        let words = words(&w);
        assert_eq!(words[words.len() - 2..], ["poststop-1", "poststop-2"], "{sort}: {words:?}");
        assert!(!words.contains(&"never".to_owned()));
    }
    assert_eq!(w.runtime.containers("a").len(), 0);
    // Whoever wants to has it kept as one that has ended.
    let spec = ContainerSpec { keep_unstarted: true, ..w.command("kept", &["/no/such/program"]) };
    let why = fails(&w, spec).await;
    let [kept] = &w.runtime.containers("a")[..] else { panic!("one is kept") };
    let runtime::ContainerState::Exited(exit) = &kept.state else { panic!("{kept:?}") };
    assert!(exit.is_unstarted() && exit.lost.as_ref() == Some(&why), "{exit:?}");
    w.runtime.remove_container(&kept.id).await.unwrap();
    let gone = Hook { path: "/no/such/hook".into(), ..Hook::default() };
    let hooks = Hooks { create_runtime: vec![gone], ..Hooks::default() };
    let error = fails(&w, with(&w, "gone", "true", hooks)).await;
    assert!(error.contains("createRuntime hook /no/such/hook: it ended with 127"), "{error}");
    let slow = Hook { timeout: Some(1), ..host(&w, "echo slow; sleep 1000") };
    let hooks = Hooks { create_container: vec![slow], ..Hooks::default() };
    let error = fails(&w, with(&w, "slow", "true", hooks)).await;
    assert!(
        error.contains("createContainer hook /bin/busybox: it has not ended within 1 s: slow"),
        "{error}"
    );
    w.end().await;
}

#[tokio::test]
async fn those_after_the_end_do_not_need_the_agent() {
    let Some(mut w) = world().await else { return };
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let hooks = Hooks { poststop: vec![note(&w, "poststop")], ..Hooks::default() };
    let script = "until [ -e /v/go ]; do sleep 0.01; done; exit 6";
    let mut spec = with(&w, "one", script, hooks);
    let volume = w.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    spec.mounts.push(runtime::Mount {
        source: volume.clone(),
        destination: "/v".into(),
        ..Default::default()
    });
    let status = w.runtime.start_container("a", spec).await.unwrap();
    let other: PathBuf = w.dir.path().join("other");
    let away = Runtime::open(config(&other, &format!("{}/other", w.parent))).await.unwrap();
    drop(std::mem::replace(&mut w.runtime, away));
    fs::write(volume.join("go"), "").unwrap();
    until("the hook", || !words(&w).is_empty()).await;
    w.runtime.close_down().await.unwrap();
    w.runtime = Runtime::open(config(w.dir.path(), &w.parent)).await.unwrap();
    let _ = fs::remove_dir_all(other);
    assert_eq!(w.ended(&status.id).await.code, 6);
    assert_eq!(words(&w), ["poststop"]);
    w.end().await;
}

#[tokio::test]
async fn containers_of_all_sorts_can_have_them() {
    let Some(w) = world().await else { return };
    let shared = SandboxSpec { pid: PidMode::Shared, ..w.sandbox("shared") };
    let users =
        SandboxSpec { users: Some(UserRange { first: 1 << 20, count: 65_536 }), ..w.sandbox("users") };
    for sandbox in [shared, users] {
        let _ = fs::remove_file(w.dir.path().join("journal"));
        let id = sandbox.id.clone();
        w.runtime.run_sandbox(sandbox).await.unwrap();
        let mut spec = with(&w, &id, "ls /begun; echo by $(id -u)", all(&w));
        spec.tty = id == "shared";
        let text = w.output(&id, spec).await;
        assert!(text.contains("/begun") && text.contains("by 0"), "{id}: {text}");
        assert_eq!(words(&w)[..ORDER.len()], ORDER, "{id}");
        assert_eq!(words(&w)[ORDER.len()..], ["poststop-1", "poststop-2"], "{id}");
    }
    // As another user.
    w.runtime.run_sandbox(w.sandbox("a")).await.unwrap();
    let hooks = Hooks { start_container: vec![inside("id -u >/tmp/who")], ..Hooks::default() };
    let mut spec = with(&w, "web", "cat /tmp/who", hooks);
    spec.user.spec = Some("web".into());
    spec.mounts.push(runtime::Mount {
        kind: runtime::MountKind::Tmpfs,
        destination: "/tmp".into(),
        options: vec!["mode=1777".into()],
        ..Default::default()
    });
    assert!(w.output("a", spec).await.contains("F 33"), "{}", w.logged("web"));
    w.end().await;
}
