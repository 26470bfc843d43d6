use std::fs;

use tempfile::TempDir;

use super::registry::{Guard, Registry};
use super::*;
use crate::testing::{Tar, config};

struct World {
    _dir: TempDir,
    store: ImageStore,
    registry: Registry,
}

impl World {
    async fn new(guard: Guard, tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        Self { _dir: dir, store, registry: Registry::start(guard, tls).await }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.registry.address).parse().unwrap()
    }

    async fn pull_with(
        &self,
        rest: &str,
        auth: Option<Auth>,
        options: PullOptions,
    ) -> Result<Image, PullError> {
        self.store.pull(&self.reference(rest), auth, options).await
    }

    async fn pull(&self, rest: &str) -> Result<Image, PullError> {
        self.pull_with(rest, None, PullOptions { scheme: Scheme::Http, ..PullOptions::default() }).await
    }

    async fn wrong(&self, rest: &str) -> PullError {
        self.pull(rest).await.unwrap_err()
    }
}

fn me(password: &str) -> Option<Auth> {
    Some(Auth::Basic { username: "me".into(), password: password.into() })
}

#[tokio::test]
async fn pulls_by_tag_and_digest() {
    let world = World::new(Guard::Open, false).await;
    let (digest, _) = world.registry.image("team/app", "1", &["a", "b", "c", "d", "e"]);
    let image = world.pull("team/app:1").await.unwrap();
    assert_eq!(image.manifest, digest);
    assert_eq!(image.names, [world.reference("team/app:1").to_string()]);
    assert_eq!(image.digests, [world.reference(&format!("team/app@{digest}")).to_string()]);
    let dirs = world.store.layer_dirs(&image).unwrap();
    assert_eq!((dirs.len(), fs::read_to_string(dirs[0].join("e")).unwrap()), (5, "e".to_owned()));
    let blobs = world.registry.asked("/blobs/");
    assert_eq!(blobs, 6);
    // Again: only the manifest is asked for. Pinned: nothing at all.
    world.pull("team/app:1").await.unwrap();
    let asked = world.registry.asked("");
    let pinned = world.pull(&format!("team/app@{digest}")).await.unwrap();
    assert_eq!(
        (pinned.id, world.registry.asked("/blobs/"), world.registry.asked("")),
        (image.id, blobs, asked)
    );
    assert!(world.store.resolve(&format!("{}/team/app:1", world.registry.address)).is_some());
}

#[tokio::test]
async fn chooses_the_platform() {
    let world = World::new(Guard::Open, false).await;
    let own = Platform::default();
    let (other, _) = world.registry.image("app", "other", &["other"]);
    let (mine, _) = world.registry.image("app", "mine", &["mine"]);
    let entry = |digest: Digest, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index =
        |entries: Vec<serde_json::Value>| serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    let both = index(vec![entry(other, "s390x"), entry(mine, &own.architecture.to_string())]);
    let digest = world.registry.manifest("app", "1", &both);
    let image = world.pull("app:1").await.unwrap();
    assert_eq!((image.manifest, image.digests[0].ends_with(&digest.to_string())), (mine, true));
    assert_eq!(world.pull(&format!("app@{digest}")).await.unwrap().id, image.id);
    world.registry.manifest("app", "2", &index(vec![entry(other, "s390x"), entry(other, "mips")]));
    let error = world.wrong("app:2").await;
    assert!(error.to_string().ends_with("only for: linux/s390x, linux/mips"), "{error}");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn trusts_only_known_certificates() {
    let world = World::new(Guard::Open, true).await;
    world.registry.image("app", "1", &["a"]);
    let ca = world.registry.ca.clone().unwrap();
    let https = PullOptions { scheme: Scheme::Https, ..PullOptions::default() };
    let error = world.pull_with("app:1", None, https.clone()).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let trusting = PullOptions { extra_ca: vec![ca], ..https.clone() };
    world.pull_with("app:1", None, trusting).await.unwrap();
    let careless = PullOptions { skip_tls_verify: true, ..https.clone() };
    world.pull_with("app:1", None, careless).await.unwrap();
    let nonsense = PullOptions {
        extra_ca: vec![b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----".to_vec()],
        ..https
    };
    let error = world.pull_with("app:1", None, nonsense).await.unwrap_err();
    assert!(matches!(error, PullError::Client { .. }), "{error:?}");
}

#[tokio::test]
async fn speaks_plain_http_to_this_machine_only() {
    let world = World::new(Guard::Open, false).await;
    world.registry.image("app", "1", &["a"]);
    world.pull_with("app:1", None, PullOptions::default()).await.unwrap();
    let https = PullOptions { scheme: Scheme::Https, ..PullOptions::default() };
    let error = world.pull_with("app:1", None, https).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error:?}");
    for (registry, schemes) in
        [("localhost:5000/x", 2), ("127.9.9.9/x", 2), ("[::1]:5000/x", 2), ("x.io/x", 1), ("10.0.0.1/x", 1)]
    {
        assert_eq!(client::schemes(&registry.parse().unwrap(), Scheme::Auto).len(), schemes, "{registry}");
    }
}

#[tokio::test]
async fn proves_who_asks() {
    for guard in [Guard::Basic, Guard::Token] {
        let world = World::new(guard, false).await;
        world.registry.image("app", "1", &["a", "b"]);
        let http = PullOptions { scheme: Scheme::Http, ..PullOptions::default() };
        for auth in [None, me("wrong")] {
            let error = world.pull_with("app:1", auth, http.clone()).await.unwrap_err();
            assert!(matches!(error, PullError::Unauthorized { .. }), "{error:?}");
        }
        world.pull_with("app:1", me("secret"), http.clone()).await.unwrap();
        if guard == Guard::Token {
            let world = World::new(guard, false).await;
            world.registry.image("app", "1", &["a"]);
            world.pull_with("app:1", Some(Auth::Bearer("good".into())), http).await.unwrap();
        }
    }
    assert_eq!(format!("{:?}", me("secret").unwrap()), "Basic");
}

#[tokio::test]
async fn says_what_went_wrong() {
    let world = World::new(Guard::Open, false).await;
    let error = world.wrong("app:none").await;
    assert!(matches!(error, PullError::NotFound { .. }), "{error:?}");
    let expected = format!("image {} not found: manifest unknown", world.reference("app:none"));
    assert_eq!((error.to_string(), error.is_permanent()), (expected, true));
    for (status, expected) in
        [(403, "not authorized"), (429, "limits requests"), (500, "failed to serve"), (404, "not found")]
    {
        world.registry.put("/v2/app/manifests/1", status, "<html>");
        let error = world.wrong("app:1").await.to_string();
        assert!(error.contains(expected) && error.contains("<html>"), "{status}: {error}");
    }
    for body in ["", "{", "[]", "{\"manifests\":1}", "{\"schemaVersion\":1}"] {
        world.registry.put("/v2/app/manifests/1", 200, body);
        let error = world.wrong("app:1").await;
        assert!(matches!(error, PullError::Malformed { .. }), "{body}: {error:?}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference: Reference = format!("{closed}/app:1").parse().unwrap();
    let error = world.store.pull(&reference, None, PullOptions::default()).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(world.store.list().is_empty());
}

#[tokio::test]
async fn takes_nothing_but_what_was_promised() {
    let world = World::new(Guard::Open, false).await;
    let (digest, manifest) = world.registry.image("app", "1", &["a"]);
    let blob = format!("/v2/app/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let size = usize::try_from(manifest["layers"][0]["size"].as_u64().unwrap()).unwrap();

    world.registry.put(&blob, 200, vec![0; size]);
    let error = world.wrong("app:1").await;
    assert!(matches!(error, PullError::Digest { what: "blob", .. }), "{error:?}");
    world.registry.put(&blob, 200, vec![0; size + 1]);
    let error = world.wrong("app:1").await;
    assert!(matches!(error, PullError::Size { .. }), "{error:?}");
    world.registry.put(&blob, 404, "");
    assert!(matches!(world.wrong("app:1").await, PullError::NotFound { .. }));

    world.registry.put(&format!("/v2/app/manifests/{digest}"), 200, "{}");
    let error = world.wrong(&format!("app@{digest}")).await;
    assert!(matches!(error, PullError::Digest { what: "manifest", .. }), "{error:?}");

    // A layer that is not the configuration's, or a hostile one: no name is given.
    let layer = Tar::new().file("../evil", "x").done();
    let layer_blob = world.registry.blob("app", &layer);
    let honest = Tar::new().file("f", "x").done();
    let honest_blob = world.registry.blob("app", &honest);
    for (diff_id, blob, expected) in [
        (Digest::of(b"other"), &honest_blob, "the image's configuration promises"),
        (Digest::of(&layer), &layer_blob, "contains ..: refused"),
    ] {
        let config = world.registry.blob("app", config(&[diff_id]).as_bytes());
        let value = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [blob] });
        world.registry.manifest("app", "2", &value);
        let error = world.wrong("app:2").await.to_string();
        assert!(error.contains(expected), "{error}");
    }
    let config = world.registry.blob("app", config(&[]).as_bytes());
    let value = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer_blob] });
    world.registry.manifest("app", "3", &value);
    let error = world.wrong("app:3").await;
    assert!(matches!(error, PullError::Malformed { .. }), "{error:?}");
    assert!(world.store.list().is_empty());
}

#[tokio::test]
async fn damaged_content_is_fetched_again() {
    let world = World::new(Guard::Open, false).await;
    world.registry.image("app", "1", &["a"]);
    let image = world.pull("app:1").await.unwrap();
    let chain = image.layers[0].chain_id;
    for digest in [image.layers[0].digest, image.id] {
        let path = world.store.content().path(&digest);
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
        fs::remove_dir_all(world.store.snapshots().path(&chain)).unwrap();
        // The damage is found and thrown away, so that the next attempt mends it.
        let fresh = ImageStore::open(world._dir.path()).unwrap();
        let reference = world.reference("app:1");
        let http = PullOptions { scheme: Scheme::Http, ..PullOptions::default() };
        assert!(fresh.pull(&reference, None, http.clone()).await.is_err());
        let image = fresh.pull(&reference, None, http).await.unwrap();
        assert!(fresh.layer_dirs(&image).unwrap()[0].join("a").exists());
    }
}

#[tokio::test]
async fn a_blob_is_fetched_once_for_all_who_want_it() {
    let world = World::new(Guard::Open, false).await;
    world.registry.image("app", "1", &["a", "b"]);
    let results = futures::future::join_all((0..8).map(|_| world.pull("app:1"))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(world.registry.asked("/blobs/"), 3);
    assert!(world.store.downloads().0.lock().is_empty());
}

#[tokio::test]
async fn a_hostile_token_harms_nobody_else() {
    let world = World::new(Guard::BrokenToken, false).await;
    world.registry.image("app", "1", &["a"]);
    let error = world.wrong("app:1").await;
    assert!(matches!(error, PullError::Panicked { .. } | PullError::Unauthorized { .. }), "{error:?}");
}
