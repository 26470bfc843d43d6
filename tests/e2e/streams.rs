//! What goes through the API server to the node's agent: logs, exec, attach, cp, port-forward; over WebSockets as
//! kubectl does by itself, and over SPDY as older clients do.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("streams::logs", logs),
    ("streams::exec_over_websockets", |cluster| exec(cluster, "streams-ws", true)),
    ("streams::exec_over_spdy", |cluster| exec(cluster, "streams-spdy", false)),
    ("streams::port_forward", port_forward),
    ("streams::refusals_say_why", refusals_say_why),
];

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(child.unwrap_or_else(|e| panic!("cannot run {command:?}: {e}")))
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let out = self.0.stdout.take().expect("its output is asked for once");
        BufReader::new(out).lines().map(|line| line.expect("text"))
    }
}

fn pod(script: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{terminationGracePeriodSeconds: 0, containers: \
         [{{name: c, image: 'busybox:1', stdin: true, command: [/bin/busybox, sh, -c, '{script}']}}]}}}}"
    )
}

fn start(cluster: &Cluster, namespace: &str, script: &str) {
    cluster.namespace(namespace);
    let applied = cluster.with_manifest(namespace, &["apply"], &pod(script));
    assert!(applied.ok, "{applied:?}");
    cluster.kubectl(namespace, &["wait", "pod/p", "--for=condition=Ready", "--timeout=30s"]);
}

fn logs(cluster: &Cluster) {
    let ns = "logs";
    // Each line that comes in goes out; the last one ends the container.
    start(cluster, ns, "echo one; while read line; do echo said $line; [ $line != end ] || exit 0; done");
    cluster.wait_for("the first line", || cluster.kubectl(ns, &["logs", "p"]) == "one\n");
    let stamped = cluster.kubectl(ns, &["logs", "p", "--timestamps"]);
    assert!(stamped.starts_with("20") && stamped.ends_with("Z one\n"), "{stamped}");

    let mut follower = Running::start(&mut cluster.kubectl_command(ns, &["logs", "--follow", "p"]));
    let mut lines = follower.lines();
    assert_eq!(lines.next().as_deref(), Some("one"));
    let mut attached = Running::start(&mut cluster.kubectl_command(ns, &["attach", "-i", "p"]));
    let mut input = attached.0.stdin.take().expect("an input");
    input.write_all(b"two\n").expect("attached");
    assert_eq!(lines.next().as_deref(), Some("said two"), "a log is followed as it grows");
    input.write_all(b"end\n").expect("attached");
    assert_eq!(lines.next().as_deref(), Some("said end"));
    assert_eq!(lines.next(), None, "a followed log ends with its container");
    let said: Vec<String> = attached.lines().filter(|line| line.starts_with("said")).collect();
    assert_eq!(said, ["said two", "said end"]);

    cluster.wait_for("the second run", || {
        cluster.get(ns, &["pod", "p"])["status"]["containerStatuses"][0]["restartCount"] == 1
    });
    assert_eq!(cluster.kubectl(ns, &["logs", "p", "--previous", "--tail=2"]), "said two\nsaid end\n");
    assert_eq!(cluster.kubectl(ns, &["logs", "p", "--previous", "--limit-bytes=3"]), "one");
    let kept = || cluster.log_folders().iter().any(|folder| folder.starts_with("logs_p_"));
    assert!(kept());
    cluster.kubectl(ns, &["delete", "pod", "p", "--now"]);
    cluster.wait_for("the logs to go with their pod", || !kept());
}

/// Runs a command on a terminal of 40 rows and 120 columns, types what follows once it is asked, prints what it shows and its code.
pub const ON_A_TERMINAL: &str = "
import fcntl, os, pty, struct, sys, termios
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 120, 0, 0))
shown = b''
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    shown += data
    if sys.argv[1] and (b'/ #' in shown or b'try pressing enter' in shown):
        os.write(terminal, sys.argv[1].encode())
        sys.argv[1] = ''
print(shown.decode(), 'code', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";

fn exec(cluster: &Cluster, ns: &str, websockets: bool) {
    start(cluster, ns, "exec busybox sleep 1000");
    let command = |args: &[&str]| {
        let mut command = cluster.kubectl_command(ns, args);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string());
        command
    };
    let script = "busybox echo out; busybox echo err >&2; exit 3";
    let output = command(&["exec", "p", "--", "/bin/busybox", "sh", "-c", script]).output().expect("kubectl");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\ncommand terminated with exit code 3\n");

    // Input that ends, and more of it than fits anywhere at once.
    let big = vec![b'x'; 3_000_000];
    let mut cat = Running::start(&mut command(&["exec", "-i", "p", "--", "/bin/busybox", "wc", "-c"]));
    cat.0.stdin.take().expect("an input").write_all(&big).expect("taken");
    assert_eq!(cat.lines().next().as_deref(), Some("3000000"));
    assert_eq!(cat.0.wait().expect("its end").code(), Some(0));
    let yes = ["exec", "p", "--", "/bin/busybox", "sh", "-c", "busybox yes | busybox head -c 3000000"];
    assert_eq!(command(&yes).output().expect("kubectl").stdout.len(), 3_000_000);

    // A terminal has a size, one output and a shell that says how it ended.
    let shell = command(&["exec", "-it", "p", "--", "/bin/busybox", "sh"]);
    let mut on_terminal = Command::new("python3");
    on_terminal.args(["-c", ON_A_TERMINAL, "busybox stty size; exit 5\n"]);
    on_terminal.arg(shell.get_program()).args(shell.get_args());
    on_terminal.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string());
    let shown = String::from_utf8_lossy(&on_terminal.output().expect("python3").stdout).into_owned();
    assert!(shown.contains("40 120") && shown.trim_end().ends_with("code 5"), "{shown}");

    let missing = command(&["exec", "p", "--", "/bin/none"]).output().expect("kubectl");
    let why = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        !missing.status.success() && why.contains("/bin/none") && why.contains("executing command"),
        "{why}"
    );

    // `cp` is `exec` of `tar`.
    let folder = tempfile::tempdir().expect("temporary folder");
    let [there, back] = ["there", "back"].map(|name| folder.path().join(name).display().to_string());
    std::fs::write(&there, &big).expect("writable folder");
    let busybox = ["exec", "p", "--", "/bin/busybox", "ln", "-s", "/bin/busybox", "/bin/tar"];
    assert!(command(&busybox).status().expect("kubectl").success());
    for [from, to] in [[there.as_str(), "p:/copied"], ["p:/copied", back.as_str()]] {
        let copied = command(&["cp", from, to]).output().expect("kubectl");
        assert!(copied.status.success(), "{copied:?}");
    }
    assert!(std::fs::read(&back).expect("copied back") == big);
    cluster.kubectl(ns, &["delete", "pod", "p", "--now"]);
}

fn port_forward(cluster: &Cluster) {
    let ns = "forwards";
    // Only reachable from inside the pod.
    start(cluster, ns, "busybox echo inside > /index.html; exec busybox httpd -f -p 127.0.0.1:8080 -h /");
    for websockets in ["true", "false"] {
        let mut command = cluster.kubectl_command(ns, &["port-forward", "pod/p", ":8080"]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        let mut forward = Running::start(&mut command);
        // Kept open: kubectl ends when nobody can read what it says.
        let mut lines = forward.lines();
        let line = lines.next().expect("a line that says where");
        let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line}")).to_owned();
        for _ in 0..3 {
            assert_eq!(cluster.fetch(&format!("http://{address}/")).trim(), "inside");
        }
    }
    cluster.kubectl(ns, &["delete", "pod", "p", "--now"]);
}

fn refusals_say_why(cluster: &Cluster) {
    let ns = "refuses";
    cluster.namespace(ns);
    let fails = |args: &[&str], why: &str| {
        let said = cluster.try_kubectl(ns, args);
        assert!(!said.ok && said.err.contains(why), "{args:?}: {said:?}");
    };
    fails(&["logs", "nobody"], "pods \"nobody\" not found");
    fails(&["exec", "nobody", "--", "sh"], "pods \"nobody\" not found");
    cluster.kubectl(ns, &["run", "p", "--image=nowhere.invalid/none:1", "--restart=Never"]);
    cluster.wait_for("the pull to fail", || {
        let said = cluster.try_kubectl(ns, &["logs", "p"]);
        !said.ok
            && said.err.contains("container \"p\" in pod \"p\" is waiting to start: ")
            && said.err.contains("pull image")
    });
    fails(&["exec", "p", "--", "sh"], "container not found (\"p\")");
    // Without a certificate of the cluster's, nobody gets anything from an agent.
    let agent = cluster.fetch_unsafely("https://127.0.0.1:10250/pods");
    assert!(agent.contains("401"), "{agent}");
    cluster.kubectl(ns, &["delete", "pod", "p", "--now"]);
}
