//! What goes wrong outside of us: each failure is one clear sentence and an exit code, nothing is lost, and nothing is
//! left behind.
//!
//! Each test has a yard of its own: a network namespace, a mount namespace and a folder.

mod servers;
mod yard;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use yard::Yard;

type Test = (&'static str, fn(&Yard));

const TESTS: &[Test] = &[
    ("a_bad_command_line_is_one_sentence", a_bad_command_line_is_one_sentence),
    ("a_bad_configuration_file_is_one_sentence", a_bad_configuration_file_is_one_sentence),
    ("bad_ranges_are_one_sentence", bad_ranges_are_one_sentence),
    ("whoever_is_not_root_is_told_so", whoever_is_not_root_is_told_so),
    ("a_busy_api_port", a_busy_api_port),
    ("a_busy_dns_port", a_busy_dns_port),
    ("a_bridge_that_is_something_else", a_bridge_that_is_something_else),
    ("a_read_only_data_directory", a_read_only_data_directory),
    ("a_corrupt_store", a_corrupt_store),
    ("a_truncated_store", a_truncated_store),
    ("a_damaged_certificate", a_damaged_certificate),
    ("a_full_disk", a_full_disk),
];

fn main() -> ExitCode {
    let tests = e2e::picked(TESTS.iter().chain(servers::TESTS).copied());
    let failed = e2e::run(&tests, |test| test(&Yard::new()), || {});
    e2e::verdict(tests.len(), &failed)
}

fn a_bad_command_line_is_one_sentence(yard: &Yard) {
    yard.refuses(&["up", "--no-such"], "gantry: unexpected argument '--no-such' found; see gantry up --help");
    yard.refuses(
        &["up", "--htps-port=1"],
        "gantry: unexpected argument '--htps-port' found; a similar argument exists: '--https-port'",
    );
    yard.refuses(
        &["up", "--https-port=x"],
        "gantry: invalid value 'x' for '--https-port <PORT>': invalid digit",
    );
    yard.refuses(&["up", "--node-ip=1.2.3"], "gantry: invalid value '1.2.3' for '--node-ip <IP>'");
    yard.refuses(&["fly"], "gantry: unrecognized subcommand 'fly'; see gantry --help");
    yard.refuses(
        &["up", "--node-name=Not A Name"],
        "gantry: node name \"Not A Name\" is no lower-case DNS name",
    );
    yard.refuses(
        &["up", "--token-auth-file=/nowhere"],
        "gantry: cannot read /nowhere: No such file or directory",
    );
    yard.is_clean();
}

fn a_bad_configuration_file_is_one_sentence(yard: &Yard) {
    let file = yard.path("config.yaml");
    let flag = format!("--config={}", file.display());
    let shown = file.display().to_string();
    yard.refuses(
        &["up", &flag],
        &format!("gantry: cannot read the configuration file {shown}: No such file"),
    );
    for (text, sentence) in [
        ("a: [", "is not YAML with names and values: "),
        ("- a\n- b\n", "is not YAML with names and values: the top level is no mapping"),
        ("https-prt: 1\n", "has no setting named https-prt"),
        ("https-port: [1, 2]\n", "cannot be used: invalid value '1,2' for '--https-port <PORT>'"),
        ("https-port: x\n", "cannot be used: invalid value 'x' for '--https-port <PORT>'"),
        ("tls-san: {a: b}\n", "is not YAML with names and values: the value of tls-san is a mapping"),
        ("\u{0}\u{1}", "is not YAML with names and values: "),
    ] {
        std::fs::write(&file, text).expect("writable folder");
        yard.refuses(&["up", &flag], &format!("gantry: the configuration file {shown} {sentence}"));
    }
    yard.is_clean();
}

fn bad_ranges_are_one_sentence(yard: &Yard) {
    yard.refuses(
        &["up", "--service-cidr=255.255.255.255/32"],
        "gantry: --service-cidr 255.255.255.255/32 is too small",
    );
    yard.refuses(&["up", "--cluster-cidr=10.42.0.0/31"], "gantry: --cluster-cidr 10.42.0.0/31 is too small");
    yard.refuses(
        &["up", "--service-cidr=10.42.128.0/24"],
        "gantry: --service-cidr 10.42.128.0/24 overlaps --cluster-cidr 10.42.0.0/16",
    );
    yard.refuses(
        &["up", "--bridge=a-name-too-long-for-linux"],
        "gantry: --bridge \"a-name-too-long-for-linux\"",
    );
    yard.is_clean();
}

fn whoever_is_not_root_is_told_so(yard: &Yard) {
    let said = yard.as_nobody(&["up"]);
    yard.is_refusal(
        &said,
        "gantry: making namespaces, mounts and cgroups takes root; run it again with sudo",
    );
    let said = yard.as_nobody(&["down"]);
    yard.is_refusal(
        &said,
        "gantry: ending containers and removing mounts takes root; run it again with sudo",
    );
    let said = yard.as_nobody(&["server"]);
    yard.is_refusal(
        &said,
        "gantry: making namespaces, mounts and cgroups takes root; run it again with sudo",
    );
    yard.is_clean();
}

fn a_busy_api_port(yard: &Yard) {
    let _other = yard.listen(6443);
    let sentence =
        "gantry: cannot listen on 0.0.0.0:6443: Address already in use (os error 98); choose another port";
    yard.refuses(&["up"], sentence);
    yard.is_clean();
}

fn a_busy_dns_port(yard: &Yard) {
    {
        let _other = yard.listen(53);
        yard.refuses(&["up"], "gantry: cannot listen for DNS on TCP 10.42.0.1:53");
        yard.is_clean();
    }
    yard.works();
}

fn a_bridge_that_is_something_else(yard: &Yard) {
    yard.refuses(&["up", "--bridge=lo"], "gantry: cannot set up the pods' network: ");
    yard.is_clean();
    yard.works();
}

fn a_read_only_data_directory(yard: &Yard) {
    let objects = yard.begin();
    yard.remount("ro");
    let data = yard.path("data").display().to_string();
    yard.refuses(&["up"], &format!("gantry: cannot write to the data directory {data}: Read-only file system (os error 30); choose another"));
    yard.is_clean();
    yard.remount("rw");
    yard.has_all(&objects);
}

fn a_corrupt_store(yard: &Yard) {
    // Not the whole of it: half of what was there must not come up as all that was there.
    damage_each(yard, false, |bytes| {
        let half = bytes.len() / 4..bytes.len() / 2 + 1;
        bytes[half].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 131 + 17) as u8);
    });
}

fn a_truncated_store(yard: &Yard) {
    damage_each(yard, true, |bytes| bytes.truncate(bytes.len() / 2));
}

/// Damages the store's files one after the other. The server must say so and change nothing; with the file as it was,
/// everything is there again.
///
/// A journal that was cut off is what a power cut leaves, and comes up with what is in it.
fn damage_each(yard: &Yard, cut: bool, damage: impl Fn(&mut Vec<u8>)) {
    let objects = yard.begin();
    let store = yard.path("data/store");
    let whole = files(&store);
    assert!(!whole.is_empty());
    let mut refused = 0;
    for (path, good) in whole.iter().filter(|(path, bytes)| !path.ends_with("lock") && bytes.len() > 1) {
        let mut bad = good.clone();
        damage(&mut bad);
        if bad == *good {
            continue;
        }
        std::fs::write(path, &bad).expect("writable folder");
        let said = yard.up(&[]);
        if said.ok {
            let listed = yard.listed();
            let whole = objects.iter().all(|name| listed.contains(name));
            let journal = path.extension().is_some_and(|ending| ending == "jnl");
            assert!(whole || (cut && journal), "{} was damaged, and nobody noticed", path.display());
            yard.stop();
        } else {
            yard.is_refusal(&said, &format!("gantry: the store {} ", store.display()));
            assert!(said.err.contains(" is corrupt: ") || path.ends_with("version"), "{said:?}");
            let mut now = files(&store);
            assert_eq!(now.remove(path).as_ref(), Some(&bad), "a refused store is left as it is");
            now.retain(|path, _| !path.ends_with("lock"));
            assert!(now.iter().all(|(path, bytes)| whole.get(path) == Some(bytes)), "{}", path.display());
            refused += 1;
        }
        std::fs::remove_dir_all(&store).expect("removable folder");
        for (path, bytes) in &whole {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable folder");
            std::fs::write(path, bytes).expect("writable folder");
        }
    }
    assert!(refused > 0, "no file matters: {:?}", whole.keys());
    yard.is_clean();
    yard.has_all(&objects);
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            let bytes = std::fs::read(&path).expect("a readable file");
            found.insert(path, bytes);
        }
    }
    found
}

fn a_damaged_certificate(yard: &Yard) {
    let objects = yard.begin();
    for name in ["ca.key", "ca.crt", "sa.key", "apiserver.key"] {
        let path = yard.path(&format!("data/pki/{name}"));
        let good = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        std::fs::write(&path, "-----BEGIN NOTHING-----\n").expect("writable folder");
        yard.refuses(&["up"], &format!("gantry: cannot use {}", path.display()));
        std::fs::write(&path, good).expect("writable folder");
    }
    yard.is_clean();
    yard.has_all(&objects);
}

fn a_full_disk(yard: &Yard) {
    yard.small_disk("48m");
    let mut objects = yard.begin();
    let up = yard.up(&[]);
    assert!(up.ok, "{up:?}");
    yard.fill_disk();
    let refused = yard.create("too-much");
    assert!(
        !refused.ok && refused.err.contains("the store cannot take writes: the disk of the store has"),
        "{refused:?}"
    );
    assert!(yard.listed().contains(&objects[0]), "reading goes on");
    yard.free_disk();
    yard.wait_for("writes to work again", || yard.create("after").ok);
    objects.push("after".into());

    // A power cut on a full disk.
    yard.fill_disk();
    assert!(!yard.create("too-much").ok);
    yard.kill();
    let said = yard.up(&[]);
    if !said.ok {
        yard.is_refusal(&said, "gantry: ");
        assert!(said.err.contains("space"), "{said:?}");
    } else {
        assert!(yard.listed().contains(&objects[0]));
        yard.stop();
    }
    yard.free_disk();
    yard.has_all(&objects);
    assert!(!yard.listed_after().contains(&"too-much".to_owned()));
}
