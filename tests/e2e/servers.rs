//! State outside of the server: in an etcd that servers share, in backups, encrypted on disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::yard::{Guest, Said, Yard};

pub const TESTS: &[crate::Test] = &[
    ("several_servers_share_an_etcd", several_servers_share_an_etcd),
    ("a_cluster_moves_into_etcd_and_back", a_cluster_moves_into_etcd_and_back),
    ("a_backup_is_restored", a_backup_is_restored),
    ("secrets_are_encrypted_at_rest", secrets_are_encrypted_at_rest),
];

const ETCD: &str = "http://127.0.0.1:2379";

/// One of several servers: folders, an address and a port of its own.
struct Member<'a> {
    yard: &'a Yard,
    name: &'static str,
    address: String,
    port: u16,
    extra: Vec<String>,
}

impl<'a> Member<'a> {
    fn new(yard: &'a Yard, number: u8, extra: &[&str]) -> Self {
        let name = ["zero", "one", "two"][usize::from(number)];
        let extra = extra.iter().map(|&flag| flag.to_owned()).collect();
        Self { yard, name, address: format!("127.0.0.{number}"), port: 7000 + u16::from(number), extra }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.yard.path(&format!("{}/{part}", self.name))
    }

    fn flags(&self) -> Vec<String> {
        let folder = |flag: &str, part: &str| format!("--{flag}-dir={}", self.path(part).display());
        let own = [
            folder("data", "data"),
            folder("run", "run"),
            folder("log", "logs"),
            format!("--node-name={}", self.name),
            format!("--node-ip={}", self.address),
            format!("--https-port={}", self.port),
        ];
        own.into_iter().chain(self.extra.iter().cloned()).collect()
    }

    fn gantry(&self, command: &[&str]) -> Said {
        self.yard.command("gantry", &[command.iter().map(|&c| c.to_owned()).collect(), self.flags()].concat())
    }

    fn does(&self, command: &[&str]) -> String {
        let said = self.gantry(command);
        let log = std::fs::read_to_string(self.path("data/server.log")).unwrap_or_default();
        assert!(said.ok, "{command:?}: {said:?}\n{log}");
        said.out
    }

    fn up(&self) {
        self.does(&["up", "--disable-agent"]);
    }

    fn down(&self) {
        self.does(&["down"]);
    }

    fn kill(&self) {
        self.yard.kill_by(&self.path("run/server.pid"));
    }

    fn kubectl(&self, args: &[&str]) -> Said {
        let config = format!("--kubeconfig={}", self.path("data/admin.kubeconfig").display());
        let args = args.iter().map(|&a| a.to_owned());
        self.yard.command("kubectl", &std::iter::once(config).chain(args).collect::<Vec<_>>())
    }

    fn must(&self, args: &[&str]) -> String {
        let said = self.kubectl(args);
        assert!(said.ok, "{args:?} of {}: {said:?}", self.name);
        said.out
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let _ = self.gantry(&["down"]);
    }
}

fn etcd(yard: &Yard) -> Guest {
    let data = format!("--data-dir={}", yard.path("etcd").display());
    let guest = yard.guest("etcd", &[&data]);
    yard.wait_for("etcd to answer", || yard.fetch(&format!("{ETCD}/health")).contains("true"));
    guest
}

fn several_servers_share_an_etcd(yard: &Yard) {
    let _etcd = etcd(yard);
    let endpoint = format!("--datastore-endpoint={ETCD}");
    let (one, two) = (Member::new(yard, 1, &[&endpoint]), Member::new(yard, 2, &[&endpoint]));
    one.up();
    yard.copy(&one.path("data/pki"), &two.path("data/pki"));
    two.up();

    // Whatever one server has answered, the other knows at once.
    for n in 0..10 {
        let (name, value) = (format!("cm-{n}"), format!("--from-literal=n={n}"));
        let (writer, reader) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        writer.must(&["create", "configmap", &name, &value]);
        assert_eq!(reader.must(&["get", "configmap", &name, "-o=jsonpath={.data.n}"]), n.to_string());
    }
    one.must(&["apply", "-f", &definition(yard)]);
    yard.wait_for("the other server to serve the new kind", || two.kubectl(&["get", "widgets"]).ok);

    // No two Services have the same address or port, whichever server they are made through.
    for n in 0..8 {
        let server = if n % 2 == 0 { &one } else { &two };
        server.must(&["create", "service", "nodeport", &format!("s{n}"), "--tcp=80"]);
    }
    let list = |path: &str| one.must(&["get", "services", "-l", "app", "-o", &format!("jsonpath={path}")]);
    for path in ["{.items[*].spec.clusterIP}", "{.items[*].spec.ports[0].nodePort}"] {
        let all = list(path);
        let distinct: BTreeSet<&str> = all.split_whitespace().collect();
        assert_eq!(distinct.len(), 8, "{path}: {all}");
    }
    let port = two.must(&["get", "service", "s0", "-o=jsonpath={.spec.ports[0].nodePort}"]);
    let refused =
        two.kubectl(&["create", "service", "nodeport", "late", "--tcp=80", &format!("--node-port={port}")]);
    assert!(!refused.ok && refused.err.contains("provided port is already allocated"), "{refused:?}");
    two.must(&["delete", "service", "s0"]);
    one.must(&["create", "service", "nodeport", "late", "--tcp=80", &format!("--node-port={port}")]);

    // Both are behind the API's own Service; controllers run on one of them.
    let endpoints = |server: &Member| {
        let path = "-o=jsonpath={.endpoints[*].addresses[0]}";
        server.must(&["get", "endpointslice", "kubernetes", path])
    };
    assert_eq!(endpoints(&one), "127.0.0.1 127.0.0.2");
    let rolls = |server: &Member, name: &str| {
        server.must(&["create", "deployment", name, "--image=none", "--replicas=2"]);
        yard.wait_for("its pods to be made", || {
            let pods = server.kubectl(&["get", "pods", "-l", &format!("app={name}"), "-o=name"]).out;
            pods.lines().count() == 2
        });
    };
    rolls(&two, "first");

    // The first leads, having been alone.
    one.kill();
    rolls(&two, "second");
    yard.wait_for("the dead server to be no endpoint", || endpoints(&two) == "127.0.0.2");
    two.must(&["get", "configmap", "cm-9"]);
    one.up();
    assert_eq!(endpoints(&one), "127.0.0.1 127.0.0.2");
    one.down();
    assert_eq!(endpoints(&two), "127.0.0.2", "who leaves in order says so");
}

fn definition(yard: &Yard) -> String {
    let path = yard.path("widgets.yaml");
    let text = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";
    std::fs::write(&path, text).expect("writable folder");
    path.display().to_string()
}

/// A server with something in it, stopped.
fn begun<'a>(yard: &'a Yard, extra: &[&str]) -> Member<'a> {
    let server = Member::new(yard, 1, extra);
    server.up();
    server.must(&["create", "secret", "generic", "kept", "--from-literal=word=OpenSesame"]);
    server.must(&["create", "configmap", "plain", "--from-literal=word=InTheOpen"]);
    server.must(&["create", "service", "nodeport", "s", "--tcp=80"]);
    server
}

/// Everything is as [`begun`] left it.
fn is_whole(server: &Member) {
    let word = server.must(&["get", "secret", "kept", "-o=jsonpath={.data.word}"]);
    assert_eq!(word, "T3BlblNlc2FtZQ==");
    assert_eq!(server.must(&["get", "configmap", "plain", "-o=jsonpath={.data.word}"]), "InTheOpen");
    let ip = server.must(&["get", "service", "s", "-o=jsonpath={.spec.clusterIP}"]);
    assert!(server.must(&["get", "ipaddresses"]).contains(&ip));
}

fn a_cluster_moves_into_etcd_and_back(yard: &Yard) {
    let server = begun(yard, &[]);
    let running = server.gantry(&["migrate", &format!("--to={ETCD}")]);
    yard.is_refusal(&running, "gantry: the server (process ");
    server.down();
    let nobody = server.gantry(&["migrate", &format!("--to={ETCD}")]);
    yard.is_refusal(&nobody, "gantry: ");
    let _etcd = etcd(yard);
    server.does(&["migrate", &format!("--to={ETCD}")]);
    let again = server.gantry(&["migrate", &format!("--to={ETCD}")]);
    yard.is_refusal(&again, &format!("gantry: {ETCD} holds "));

    let endpoint = format!("--datastore-endpoint={ETCD}");
    let moved = Member::new(yard, 1, &[&endpoint]);
    moved.up();
    is_whole(&moved);
    moved.must(&["create", "configmap", "late", "--from-literal=a=b"]);
    moved.down();
    moved.does(&["migrate", "--to=embedded", "--force"]);
    server.up();
    is_whole(&server);
    server.must(&["get", "configmap", "late"]);
}

fn a_backup_is_restored(yard: &Yard) {
    let server = begun(yard, &[]);
    let file = yard.path("backup").display().to_string();
    server.does(&["backup", &file]);
    yard.is_refusal(&server.gantry(&["backup", &file]), &format!("gantry: {file} is there already"));
    server.must(&["delete", "secret", "kept"]);
    server.must(&["create", "configmap", "late", "--from-literal=a=b"]);
    yard.is_refusal(&server.gantry(&["restore", &file]), "gantry: the server (process ");
    server.down();
    server.does(&["restore", "--force", &file]);
    server.up();
    is_whole(&server);
    assert!(!server.kubectl(&["get", "configmap", "late"]).ok, "what came after the backup is gone");

    let mut bytes = std::fs::read(&file).expect("the backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("writable folder");
    server.down();
    yard.is_refusal(&server.gantry(&["restore", "--force", &file]), &format!("gantry: {file}: "));
    server.up();
    is_whole(&server);
}

fn secrets_are_encrypted_at_rest(yard: &Yard) {
    let config = yard.path("encryption.yaml");
    let keys = |providers: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets]\n  providers:\n{providers}  - identity: {{}}\n"
        );
        std::fs::write(&config, text).expect("writable folder");
    };
    let (old, new) = ("q".repeat(43), "7".repeat(42));
    let old = format!("  - secretbox: {{keys: [{{name: old, secret: {old}U=}}]}}\n", old = &old[..42]);
    let new = format!("  - aesgcm: {{keys: [{{name: new, secret: {new}4=}}]}}\n");
    keys(&old);
    let server = begun(yard, &[&format!("--encryption-provider-config={}", config.display())]);
    is_whole(&server);
    server.down();
    let store = server.path("data/store");
    assert!(!holds(&store, "T3BlblNlc2FtZQ=="), "the secret lies on disk as it is");
    assert!(holds(&store, "InTheOpen"), "other resources are not encrypted");

    keys(&format!("{new}{old}"));
    server.up();
    is_whole(&server);
    server.down();
    assert!(server.does(&["secrets-encrypt", "status"]).contains("old"));
    server.does(&["secrets-encrypt", "rewrite"]);
    let status = server.does(&["secrets-encrypt", "status"]);
    assert!(status.contains("new") && !status.contains("old"), "{status}");
    keys(&new);
    server.up();
    is_whole(&server);
    server.down();
    keys("");
    let lost = server.gantry(&["up", "--disable-agent"]);
    yard.is_refusal(&lost, "gantry: ");
    keys(&new);
    server.up();
    is_whole(&server);
}

/// Whether a text is anywhere in the files of a folder.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).expect("the store's folder").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(&path).expect("a file of the store");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
