//! What is said to pods and by them, and what they use.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::machine::Guest;
use crate::{Place, gone, main_status, pod};

pub fn streams_go_through(place: &mut Place) {
    let m = &place.machine;
    let script = "echo up; while read line; do echo heard $line; done";
    let web =
        "(/bin/busybox mkdir /www; echo page > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www)&";
    m.apply(&pod("talks", &format!("{web} {script}; exec /bin/busybox sleep 1000"), "stdin: true,", ""));
    m.ready("talks");
    let exec = |words: &[&'static str]| [&["exec", "-i", "talks", "--"], words].concat();
    assert_eq!(m.must(&exec(&["/bin/busybox", "echo", "hi"])), "hi\n");
    let failed = m.kubectl(&exec(&["/bin/busybox", "sh", "-c", "echo bad >&2; exit 5"]));
    assert!(!failed.ok && failed.err.contains("bad\n") && failed.err.contains("exit code 5"), "{failed:?}");
    let long = "0123456789".repeat(100_000);
    let copied = m.told(&exec(&["/bin/busybox", "cat"]), &long);
    assert!(copied.ok && copied.out == long, "{} bytes: {}", copied.out.len(), copied.err);
    let shell = m.kubectl_command(&["exec", "-it", "talks", "--", "/bin/busybox", "sh"]);
    let shown = m.on_terminal(&shell, "/bin/busybox tty; exit\n");
    assert!(shown.contains("/dev/pts/"), "{shown}");
    // Whoever attaches is heard, and hears.
    let mut attach = m.kubectl_command(&["attach", "-i", "talks"]);
    let attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut attached = Guest(attach.spawn().expect("kubectl starts"));
    let mut input = attached.0.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"me\n").expect("it listens");
    let mut line = String::new();
    let mut output = BufReader::new(attached.0.stdout.take().expect("piped"));
    while !line.ends_with("heard me\n") {
        assert!(output.read_line(&mut line).expect("text") > 0, "{line:?}");
    }
    drop(attached);
    let mut forward = m.kubectl_command(&["port-forward", "pod/talks", ":8080"]);
    let forward = forward.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut forward = Guest(forward.spawn().expect("kubectl starts"));
    let mut line = String::new();
    // It is kept: who forwards also says so, and ends if nobody listens.
    let mut said = BufReader::new(forward.0.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("text");
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    m.wait_for("the page", || m.fetch(&format!("http://127.0.0.1:{port}/")).contains("page"));
    drop(forward);
    // A log that has become long is put aside, and read all the same.
    m.apply(&pod(
        "long",
        "/bin/busybox yes 0123456789 | /bin/busybox head -c 12100000; echo end; exec /bin/busybox sleep 1000",
        "",
        "",
    ));
    let rotated = || {
        let pods = std::fs::read_dir(m.path("logs")).expect("the folder of logs").flatten();
        let long = pods.map(|p| p.path().join("main")).find(|p| p.display().to_string().contains("_long_"));
        let files = long.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        files.filter(|f| f.file_name().to_string_lossy().starts_with("0.log.")).count()
    };
    m.wait_for("it to have said all", || m.kubectl(&["logs", "long", "--tail=1"]).out.ends_with("end\n"));
    m.wait_for("the log to be put aside", || rotated() == 1);
    assert_eq!(m.must(&["logs", "long", "--tail=2"]), "0123456789\nend\n");
    assert_eq!(m.must(&["logs", "long"]).lines().count(), 1_100_001);
    // A log is followed to its end.
    m.apply(&pod(
        "counts",
        "for n in 1 2 3; do echo $n; /bin/busybox sleep 1; done",
        "",
        "restartPolicy: Never,",
    ));
    m.wait_for("it to begin", || !m.kubectl(&["logs", "counts"]).out.is_empty());
    assert_eq!(m.must(&["logs", "-f", "counts"]), "1\n2\n3\n");
    gone(m);
}

pub fn usage_is_measured(place: &mut Place) {
    let m = &place.machine;
    let script = "/bin/busybox dd if=/dev/zero of=/file bs=1M count=5; while :; do :; done";
    m.apply(&pod("busy", script, "resources: {limits: {cpu: 200m, memory: 64Mi}},", ""));
    m.ready("busy");
    let summary = || -> Value {
        let text = m.must(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]);
        serde_json::from_str(&text).expect("JSON")
    };
    let main = || {
        let pod = summary()["pods"].as_array().cloned().unwrap_or_default().into_iter();
        pod.into_iter().find(|p| p["podRef"]["name"] == "busy").unwrap_or_default()
    };
    m.wait_for("its CPU time", || {
        main()["containers"][0]["cpu"]["usageNanoCores"].as_u64() > Some(50_000_000)
    });
    m.wait_for("its disk", || main()["containers"][0]["rootfs"]["usedBytes"].as_u64() > Some(5 << 20));
    let found = main();
    assert!(found["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0), "{found}");
    assert!(!found["network"]["rxBytes"].is_null(), "{found}");
    let size = "{\"spec\":{\"containers\":[{\"name\":\"main\",\"resources\":{\"limits\":{\"cpu\":\"300m\"},\"requests\":{\"cpu\":\"300m\"}}}]}}";
    m.must(&["patch", "pod", "busy", "--subresource=resize", "-p", size]);
    let status = || main_status(m, "busy");
    m.wait_for("the other size", || status()["resources"]["limits"]["cpu"] == "300m");
    assert_eq!(status()["restartCount"], 0);
    let id = status()["containerID"].as_str().unwrap_or_default().replace("containerd://", "");
    let known: Value = serde_json::from_str(&m.ctr(&["containers", "info", &id]).out).expect("JSON");
    assert_eq!(known["Spec"]["linux"]["resources"]["cpu"]["quota"], 30_000);
    m.wait_for("kubectl top", || m.kubectl(&["top", "pod", "busy", "--no-headers"]).out.starts_with("busy"));
    gone(m);
}
