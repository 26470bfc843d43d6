//! Providers, rotation, reload, and a key service that really answers over a socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sealing::Sealer;
use store::{Expect, Op, Options, Seal, SealError, Store, Template, Terms};

const KEY1: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const KEY2: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn file(folder: &Path, providers: &str) -> PathBuf {
    let path = folder.join("encryption.yaml");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  providers: [{providers}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn keys(kind: &str, names: &[(&str, &str)]) -> String {
    let keys: Vec<_> = names.iter().map(|(name, key)| format!("{{name: {name}, secret: {key}}}")).collect();
    format!("{{{kind}: {{keys: [{}]}}}}", keys.join(", "))
}

#[test]
fn each_provider_opens_what_it_sealed_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["aesgcm", "aescbc", "secretbox"] {
        let sealer = Sealer::open(&file(folder.path(), &keys(kind, &[("key1", KEY1)]))).unwrap();
        assert!(sealer.covers("secrets") && sealer.covers("deployments.apps"));
        assert!(!sealer.covers("pods") && !sealer.covers("secrets.example.com"));
        let sealed = sealer.seal("secrets", "ns/a", b"hidden words").unwrap();
        assert!(sealed.starts_with(format!("k8s:enc:{kind}:v1:key1:").as_bytes()));
        assert!(!sealed.windows(6).any(|window| window == b"hidden"));
        assert_ne!(sealer.seal("secrets", "ns/a", b"hidden words").unwrap(), sealed);
        let opened = sealer.open("secrets", "ns/a", &sealed).unwrap();
        assert_eq!((&*opened.plain, opened.stale), (&b"hidden words"[..], false));
        if kind == "aesgcm" {
            assert!(sealer.open("secrets", "ns/b", &sealed).is_err(), "bound to its place");
        }
        if kind != "aescbc" {
            let mut changed = sealed.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert!(matches!(sealer.open("secrets", "ns/a", &changed), Err(SealError::Open { .. })));
        }
        for cut in 0..sealed.len() {
            let _ = sealer.open("secrets", "ns/a", &sealed[..cut]);
        }
        let plain = sealer.open("secrets", "ns/a", b"{}").unwrap_err().to_string();
        assert_eq!(
            plain,
            "cannot decrypt secrets \"ns/a\": it is not encrypted, which the provider identity alone allows"
        );
        assert_eq!(sealer.open("pods", "ns/a", b"{}").unwrap().plain, b"{}");
    }
}

#[test]
fn a_known_value_of_upstream_opens() {
    // AES-CBC of "{}" with an IV of zeros, as `openssl enc -aes-256-cbc` makes it.
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::open(&file(folder.path(), &keys("aescbc", &[("key1", KEY1)]))).unwrap();
    let output = std::process::Command::new("openssl")
        .args(["enc", "-aes-256-cbc", "-iv", &"0".repeat(32), "-K"])
        .arg("3031323334353637383961626364656630313233343536373839616263646566")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write;
            child.stdin.take().unwrap().write_all(b"{}")?;
            child.wait_with_output()
        });
    let Ok(output) = output else { return };
    let value = [&b"k8s:enc:aescbc:v1:key1:"[..], &[0; 16], &output.stdout].concat();
    assert_eq!(sealer.open("secrets", "a", &value).unwrap().plain, b"{}");
}

#[test]
fn keys_are_rotated_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &keys("aesgcm", &[("key1", KEY1)]));
    let sealer = Sealer::open(&path).unwrap();
    let old = sealer.seal("secrets", "a", b"x").unwrap();
    file(folder.path(), &keys("secretbox", &[("key2", KEY2)]));
    assert!(sealer.reload().unwrap());
    let refused = sealer.open("secrets", "a", &old).unwrap_err().to_string();
    assert!(
        refused.ends_with("no key is configured for what k8s:enc:aesgcm:v1:key1 has encrypted"),
        "{refused}"
    );
    file(
        folder.path(),
        &format!("{}, {}", keys("secretbox", &[("key2", KEY2)]), keys("aesgcm", &[("key1", KEY1)])),
    );
    assert!(sealer.reload().unwrap());
    assert!(!sealer.reload().unwrap());
    assert!(sealer.open("secrets", "a", &old).unwrap().stale);
    assert!(sealer.seal("secrets", "a", b"x").unwrap().starts_with(b"k8s:enc:secretbox:v1:key2:"));
    for (bad, why) in [
        ("{identity: {}, aesgcm: {keys: []}}", "exactly one of"),
        ("{aesgcm: {keys: []}}", "aesgcm has no keys"),
        ("{aesgcm: {keys: [{name: a, secret: 'YQ=='}]}}", "has 1 bytes, which aesgcm cannot use"),
        ("{aesgcm: {keys: [{name: a, secret: '!'}]}}", "is not base64"),
        ("{kms: {name: a, endpoint: 'unix:///x'}}", "kms needs apiVersion: v2"),
        ("{other: {}}", "unknown field"),
    ] {
        let path = file(folder.path(), bad);
        let error = sealer.reload().unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&path.display().to_string()), "{error}");
        assert!(sealer.open("secrets", "a", &old).is_ok());
    }
}

#[tokio::test]
async fn what_would_be_sealed_otherwise_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("store");
    let open = |path: &Path| {
        let sealer = Sealer::open(path).unwrap();
        let seal = Some(sealer.clone() as Arc<dyn Seal>);
        (Store::open(&place, Options { seal, reserve_bytes: 0, ..Options::default() }).unwrap(), sealer)
    };
    let put = |table: &str, key: &str| {
        let value = Template { bytes: b"v".to_vec(), at: 0 };
        let terms = Terms::default();
        Op::Put { table: table.into(), key: key.into(), value, terms, expect: Expect::Any }
    };
    let all = |store: &Store| ["a", "b"].map(|key| store.is_stale("secrets", key));
    // Not encrypted at first.
    let path = file(folder.path(), "{identity: {}}");
    let (store, _) = open(&path);
    store.commit(put("secrets", "a").into()).await.unwrap();
    store.commit(put("pods", "a").into()).await.unwrap();
    assert_eq!(all(&store), [false, false]);
    store.close().await;
    // Encrypted from a start on.
    file(folder.path(), &format!("{}, {{identity: {{}}}}", keys("aesgcm", &[("key1", KEY1)])));
    let (store, sealer) = open(&path);
    store.commit(put("secrets", "b").into()).await.unwrap();
    assert_eq!(all(&store), [true, false]);
    assert!(!store.is_stale("pods", "a"));
    store.commit(put("secrets", "a").into()).await.unwrap();
    assert_eq!(all(&store), [false, false]);
    // With another key, while it runs.
    let both = keys("aesgcm", &[("key2", KEY2), ("key1", KEY1)]);
    file(folder.path(), &both);
    assert!(sealer.reload().unwrap());
    assert_eq!(all(&store), [true, true]);
    store.commit(put("secrets", "a").into()).await.unwrap();
    assert_eq!(all(&store), [false, true]);
    store.close().await;
    // And after another start.
    let (store, sealer) = open(&path);
    assert_eq!(all(&store), [false, true]);
    // Back to plain text.
    file(folder.path(), &format!("{{identity: {{}}}}, {both}"));
    assert!(sealer.reload().unwrap());
    store.commit(put("secrets", "b").into()).await.unwrap();
    assert_eq!(all(&store), [true, false]);
    store.close().await;
}

/// A service that "wraps" by turning bytes around, under a key that the test changes.
fn key_service(socket: &Path, key: Arc<Mutex<String>>, calls: Arc<Mutex<Vec<String>>>) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (key, calls) = (key.clone(), calls.clone());
                tokio::spawn(grpc::answer(stream, move |path, message| {
                    let (key, calls) = (key.lock().clone(), calls.clone());
                    async move {
                        let method = path.rsplit('/').next().unwrap().to_owned();
                        calls.lock().push(method.clone());
                        let mut first = Vec::new();
                        let mut key_id = String::new();
                        let _ = grpc::Reader::new(&message).fields::<grpc::WireError>(|field, value| {
                            match field {
                                1 => first = value.bytes().iter().rev().copied().collect(),
                                3 => key_id = value.text(),
                                _ => {}
                            }
                            Ok(())
                        });
                        let mut out = grpc::Writer::new();
                        match method.as_str() {
                            "Status" => out.bytes(1, b"v2").bytes(2, b"ok").bytes(3, key.as_bytes()),
                            "Encrypt" => out.bytes(1, &first).bytes(2, key.as_bytes()).message(3, |out| {
                                out.bytes(1, b"note.example.com").bytes(2, b"n");
                            }),
                            "Decrypt" if key_id.starts_with("k") => out.bytes(1, &first),
                            _ => return Err((grpc::Code::UNKNOWN, format!("no key {key_id}"))),
                        };
                        Ok(out.finish())
                    }
                }));
            }
        });
    });
}

#[test]
fn a_key_service_wraps_one_seed_for_many_values() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kms.sock");
    let provider = format!(
        "{{kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 20s}}}}",
        socket.display()
    );
    let path = file(folder.path(), &provider);
    let sealer = Sealer::open(&path).unwrap();
    let away = sealer.seal("secrets", "a", b"x").unwrap_err().to_string();
    assert!(
        away.starts_with("cannot encrypt secrets \"a\": the key service vault fails: cannot reach unix://"),
        "{away}"
    );

    let (key, calls) = (Arc::new(Mutex::new("k1".to_owned())), Arc::default());
    key_service(&socket, key.clone(), Arc::clone(&calls));
    let sealed: Vec<_> =
        (0..50).map(|n| sealer.seal("secrets", &n.to_string(), b"hidden").unwrap()).collect();
    assert!(sealed[0].starts_with(b"k8s:enc:kms:v2:vault:"));
    assert_eq!(*calls.lock(), ["Status", "Encrypt"]);
    // Another server, or this one after a restart.
    let other = Sealer::open(&path).unwrap();
    for (n, sealed) in sealed.iter().enumerate() {
        assert_eq!(other.open("secrets", &n.to_string(), sealed).unwrap().plain, b"hidden");
        assert!(other.open("secrets", "elsewhere", sealed).is_err());
    }
    assert_eq!(calls.lock().iter().filter(|c| *c == "Decrypt").count(), 1);
    *key.lock() = "k2".to_owned();
    let third = Sealer::open(&path).unwrap();
    third.seal("secrets", "a", b"x").unwrap();
    assert!(third.open("secrets", "0", &sealed[0]).unwrap().stale);
}

#[tokio::test]
async fn what_the_store_writes_is_sealed_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("store");
    let path = file(folder.path(), &keys("aesgcm", &[("key1", KEY1)]));
    let options = |seal: Option<Arc<Sealer>>| Options {
        seal: seal.map(|s| s as Arc<dyn Seal>),
        reserve_bytes: 0,
        ..Options::default()
    };
    let put = |table: &str, value: &str| {
        let value = Template { bytes: value.as_bytes().to_vec(), at: 0 };
        let terms = Terms { labels: vec![("label".into(), "hidden-label".into())], ..Terms::default() };
        Op::Put { table: table.into(), key: "a".into(), value, terms, expect: Expect::Any }
    };
    let store = Store::open(&place, options(Some(Sealer::open(&path).unwrap()))).unwrap();
    store.commit(put("secrets", "hidden-value").into()).await.unwrap();
    store.commit(put("pods", "open-value").into()).await.unwrap();
    store.close().await;
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(place.join("db")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            bytes.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    let holds = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    assert!(holds(b"open-value") && holds(b"k8s:enc:aesgcm:v1:key1:"));
    assert!(!holds(b"hidden-value"));
    let error = Store::open(&place, options(None)).err().unwrap().to_string();
    assert!(error.contains("secrets \"a\" is encrypted, and no keys are configured"), "{error}");
    let store = Store::open(&place, options(Some(Sealer::open(&path).unwrap()))).unwrap();
    let record = store.get("secrets", "a").unwrap();
    assert_eq!(&*record.value, b"1hidden-value");
    assert_eq!(&*record.terms.labels[0].1, "hidden-label");
    store.close().await;
}
