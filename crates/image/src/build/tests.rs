use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;
use crate::testing::{Tar, gzip};
use crate::{ArchiveFormat, Image, ImageStore, overlay};

/// "Runs" commands by changing the mounted root file system itself: `write PATH TEXT`, `remove PATH`, `fail`.
#[derive(Default)]
struct Fake {
    runs: AtomicUsize,
    seen: Mutex<Vec<RunRequest>>,
}

impl RunExecutor for Fake {
    async fn run(&self, request: RunRequest, output: OutputSink<'_>) -> Result<i32, RunError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let rootfs = &request.rootfs;
        let root = overlay::mount(&rootfs.lower, &rootfs.upper, &rootfs.work).unwrap();
        let at = |path: &str| PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())).join(path);
        let script = request.argv.last().unwrap().clone();
        for line in script.split("&&") {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["write", path, text] => fs::write(at(path), text).unwrap(),
                ["remove", path] if at(path).is_dir() => fs::remove_dir_all(at(path)).unwrap(),
                ["remove", path] => fs::remove_file(at(path)).unwrap(),
                ["say", text] => output(OutputStream::Stdout, text.as_bytes()),
                ["fail"] => return Ok(7),
                [] => {}
                other => panic!("{other:?}"),
            }
        }
        self.seen.lock().unwrap().push(request);
        Ok(0)
    }
}

struct World {
    dir: TempDir,
    store: ImageStore,
    executor: Fake,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let store = ImageStore::open(&dir.path().join("data")).unwrap();
        Self { dir, store, executor: Fake::default() }
    }

    fn file(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join("context").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn request(&self, dockerfile: &str) -> BuildRequest {
        let created = base::Timestamp::from_second(1_700_000_000).unwrap();
        BuildRequest::new(self.dir.path().join("context"), "test/app:1".parse().unwrap(), created)
            .with_dockerfile(dockerfile)
    }

    async fn try_build(&self, dockerfile: &str) -> Result<Image, BuildError> {
        build(&self.store, self.request(dockerfile), &self.executor, &|_| {}).await
    }

    async fn build(&self, dockerfile: &str) -> (Image, Root) {
        let image = self.try_build(dockerfile).await.unwrap();
        let root = Root::new(&self.store, &image);
        (image, root)
    }

    async fn wrong(&self, dockerfile: &str) -> String {
        self.try_build(dockerfile).await.unwrap_err().to_string()
    }
}

/// The file system of an image, mounted.
struct Root {
    _dir: TempDir,
    fd: std::os::fd::OwnedFd,
}

impl Root {
    fn new(store: &ImageStore, image: &Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lower = store.layer_dirs(image).unwrap();
        let fd = overlay::mount(&lower, &dir.path().join("upper"), &dir.path().join("work")).unwrap();
        Self { _dir: dir, fd }
    }

    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn builds_from_scratch() {
    let world = World::new();
    let program = world.file("server", "#!");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let dockerfile = r#"
FROM scratch
COPY server /bin/server
ENV PORT=8080 GREETING="hello world"
WORKDIR /srv
EXPOSE $PORT 9000-9001/udp
USER 1000:1000
LABEL a=b "with space"=$PORT
VOLUME /data
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/server"]
CMD ["--port", "8080"]
"#;
    let (image, root) = world.build(dockerfile).await;
    assert_eq!(image.names, ["docker.io/test/app:1"]);
    let meta = fs::metadata(root.path("bin/server")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o755, 0, 0));
    assert!(root.path("srv").is_dir());
    let config = image.config.config().clone().unwrap();
    assert_eq!(config.entrypoint().clone().unwrap(), ["/bin/server"]);
    assert_eq!(config.cmd().clone().unwrap(), ["--port", "8080"]);
    assert_eq!(config.env().clone().unwrap()[1..], ["PORT=8080", "GREETING=hello world"]);
    assert_eq!(config.working_dir().clone().unwrap(), "/srv");
    assert_eq!(config.user().clone().unwrap(), "1000:1000");
    assert_eq!(config.labels().clone().unwrap()["with space"], "8080");
    let mut ports = config.exposed_ports().clone().unwrap();
    ports.sort();
    assert_eq!(ports, ["8080/tcp", "9000/udp", "9001/udp"]);
    assert_eq!(image.config.history().clone().unwrap().len(), 10);
    // Building again, later, gives the same image.
    let mut request = world.request(dockerfile);
    request.created = base::Timestamp::from_second(1_800_000_000).unwrap();
    let again = build(&world.store, request, &world.executor, &|_| {}).await.unwrap();
    assert_eq!(again.id, image.id);
}

#[tokio::test]
async fn commands_change_the_image() {
    let world = World::new();
    world.file("a", "1");
    world.file("d/x", "1");
    let dockerfile = "FROM scratch\nARG V=1\nENV E=2\nCOPY . /\nUSER me\nWORKDIR /d\nRUN write new $V && remove a && remove d/x\nRUN remove d && say done";
    let (image, root) = world.build(dockerfile).await;
    assert_eq!(root.names(""), ["new"]);
    assert_eq!(image.layers.len(), 3);
    let seen = world.executor.seen.lock().unwrap().clone();
    assert_eq!(seen[0].argv[..2], ["/bin/sh", "-c"]);
    assert!(seen[0].env.contains(&"V=1".to_owned()) && seen[0].env.contains(&"E=2".to_owned()));
    assert_eq!((seen[0].cwd.as_str(), seen[0].user.as_str()), ("/d", "me"));
    assert!(world.wrong("FROM scratch\nRUN fail").await.ends_with("the command returned exit code 7"));
    let none = build(&world.store, world.request("FROM scratch\nRUN x"), &NoRun, &|_| {}).await;
    assert!(none.unwrap_err().to_string().contains("cannot run commands"));
}

#[tokio::test]
async fn the_cache_knows_what_has_changed() {
    let world = World::new();
    world.file("a", "1");
    let dockerfile = "FROM scratch\nCOPY a /\nRUN write b 1\nLABEL x=y\nRUN write c 1";
    let runs = || world.executor.runs.load(Ordering::SeqCst);
    let first = world.build(dockerfile).await.0;
    assert_eq!((world.build(dockerfile).await.0.id, runs()), (first.id, 2));
    // A label before it does not make a command new; its text does.
    world.build(&dockerfile.replace("x=y", "x=z")).await;
    assert_eq!(runs(), 2);
    world.build(&dockerfile.replace("c 1", "c 2")).await;
    assert_eq!(runs(), 3);
    // The same content under a new time is the same.
    world.file("a", "1");
    world.build(dockerfile).await;
    assert_eq!(runs(), 3);
    world.file("a", "2");
    let (changed, root) = world.build(dockerfile).await;
    assert_eq!((runs(), root.read("a").as_str()), (5, "2"));
    assert_ne!(changed.id, first.id);
    let mut request = world.request(dockerfile);
    request.no_cache = true;
    build(&world.store, request, &world.executor, &|_| {}).await.unwrap();
    assert_eq!(runs(), 7);
    // Without the blobs there is no cache, and no harm.
    world.store.remove("test/app:1").unwrap();
    for image in world.store.list() {
        world.store.remove(&image.id.to_string()).unwrap();
    }
    world.store.gc().unwrap();
    world.build(dockerfile).await;
    assert_eq!(runs(), 9);
}

#[tokio::test]
async fn copies_as_docker_does() {
    let world = World::new();
    world.file("one.txt", "1");
    world.file("two.txt", "2");
    world.file("dir/sub/x", "x");
    world.file("dir/.hidden", "h");
    world.file("passwd", "root:x:0:0::/:\nweb:x:33:44::/:\n");
    world.file("group", "www:x:55:\n");
    symlink("sub/x", world.dir.path().join("context/dir/link")).unwrap();
    symlink("one.txt", world.dir.path().join("context/alias")).unwrap();
    let dockerfile = r#"FROM scratch
COPY passwd group /etc/
COPY *.txt /text/
COPY dir /whole
COPY dir/sub /whole/other/
COPY one.txt /renamed
COPY alias /
WORKDIR /w
COPY one.txt two.txt ./
COPY --chown=web:www --chmod=600 one.txt /owned/deep/
COPY --chown=web two.txt /owned/web
COPY <<doc <<'raw' /docs/
port=${PORT:-80} "quoted"
doc
$PORT
raw
"#;
    let (_, root) = world.build(dockerfile).await;
    assert_eq!(root.names("text"), ["one.txt", "two.txt"]);
    assert_eq!(root.names("whole"), [".hidden", "link", "other", "sub"]);
    assert_eq!(root.names("whole/other"), ["x"]);
    assert_eq!(fs::read_link(root.path("whole/link")).unwrap(), Path::new("sub/x"));
    assert!(root.path("alias").symlink_metadata().unwrap().is_file());
    assert_eq!((root.read("renamed"), root.read("w/two.txt")), ("1".into(), "2".into()));
    let owner = |path: &str| {
        let meta = fs::metadata(root.path(path)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(owner("owned/deep/one.txt"), (33, 55, 0o600));
    assert_eq!(owner("owned/deep"), (33, 55, 0o755));
    assert_eq!(owner("owned/web"), (33, 33, 0o644));
    assert_eq!(root.read("docs/doc"), "port=80 \"quoted\"\n");
    assert_eq!(root.read("docs/raw"), "$PORT\n");
}

#[tokio::test]
async fn says_what_is_wrong_with_a_copy() {
    let world = World::new();
    world.file("a", "");
    world.file("b", "");
    for (instruction, reason) in [
        ("COPY missing /", "\"missing\" not found in the build context"),
        ("COPY *.none /", "\"*.none\" not found"),
        ("COPY ../secret /", "outside the build context"),
        ("COPY a b /file", "must be a directory and end with /"),
        ("COPY --chown=nobody a /", "no user \"nobody\" in the image"),
        ("COPY --chmod=u+x a /", "invalid --chmod"),
        ("COPY --from=none/such:1 a /", "none/such:1"),
        ("ADD https://example.org/x /", "is not supported"),
        ("COPY ${x:?required} /", "x: required"),
    ] {
        let error = world.wrong(&format!("FROM scratch\n{instruction}")).await;
        assert!(error.contains(reason) && error.starts_with("line 2: "), "{instruction}: {error}");
    }
}

#[tokio::test]
async fn links_in_a_context_do_not_leave_it() {
    let world = World::new();
    fs::write(world.dir.path().join("secret"), "secret").unwrap();
    let context = world.dir.path().join("context");
    symlink("../secret", context.join("relative")).unwrap();
    symlink(world.dir.path().join("secret"), context.join("absolute")).unwrap();
    symlink("..", context.join("up")).unwrap();
    for source in ["relative", "absolute", "up/secret"] {
        let error = world.wrong(&format!("FROM scratch\nCOPY {source} /")).await;
        assert!(error.contains("not found"), "{source}: {error}");
    }
    // And those in an image lead a copy to places in the image only.
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, context.join("trap")).unwrap();
    world.file("evil", "x");
    let error = world.wrong("FROM scratch\nCOPY . /\nCOPY evil /trap/").await;
    assert!(error.contains("dangling symbolic link"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn copies_through_links_of_the_image() {
    let world = World::new();
    world.file("root/usr/lib/a", "");
    symlink("usr/lib", world.dir.path().join("context/root/lib")).unwrap();
    world.file("more/lib/b", "b");
    world.file("c", "c");
    let (_, root) = world.build("FROM scratch\nCOPY root /\nCOPY more /\nCOPY c /lib/").await;
    assert!(fs::symlink_metadata(root.path("lib")).unwrap().is_symlink());
    assert_eq!(root.names("usr/lib"), ["a", "b", "c"]);
}

#[tokio::test]
async fn leaves_out_what_is_ignored() {
    let world = World::new();
    for path in ["keep", "drop.log", "target/x", "docs/a.md", "docs/README.md", "empty/z.log"] {
        world.file(path, "");
    }
    world.file(".dockerignore", "*.log\n**/z.log\ntarget\ndocs\n!docs/README.md\n.dockerignore\n");
    let (_, root) = world.build("FROM scratch\nCOPY . /").await;
    assert_eq!(root.names(""), ["docs", "empty", "keep"]);
    assert_eq!(root.names("docs"), ["README.md"]);
    assert!(world.wrong("FROM scratch\nCOPY drop.log /").await.contains(".dockerignore"));
}

#[tokio::test]
async fn adds_archives() {
    let world = World::new();
    let tar = Tar::new().dir("d", 0o700).file("d/f", "f").symlink("l", "/d").done();
    world.file("plain.tar", &tar);
    world.file("packed.tgz", gzip(&tar));
    world.file("text.gz", gzip(b"no tar"));
    world.file("x.tar.xz", b"\xfd7zXZ\0");
    world.file("evil.tar", Tar::new().file("../../evil", "x").done());
    let (_, root) = world
        .build("FROM scratch\nADD plain.tar /a\nADD packed.tgz /b/\nADD text.gz /c/\nCOPY plain.tar /d/")
        .await;
    assert_eq!((root.read("a/d/f"), root.read("b/d/f")), ("f".into(), "f".into()));
    assert_eq!(
        (root.names("c"), root.names("d")),
        (vec!["text.gz".to_owned()], vec!["plain.tar".to_owned()])
    );
    assert!(
        world.wrong("FROM scratch\nADD x.tar.xz /").await.contains("extracting xz archives is not supported")
    );
    assert!(world.wrong("FROM scratch\nADD evil.tar /a/b/").await.contains("contains ..: refused"));
}

#[tokio::test]
async fn stages_build_on_each_other() {
    let world = World::new();
    world.file("src", "source");
    let dockerfile = r#"
ARG BASE=scratch
FROM ${BASE} AS builder
ARG BASE
ARG TARGETARCH
COPY --chown=7:8 src /out/$TARGETARCH/program
RUN write out/log $BASE
FROM scratch AS unused
RUN fail
FROM builder AS tested
RUN write tested 1
FROM scratch
COPY --from=builder /out /bin
COPY --from=0 /out/log /log
"#;
    let (image, root) = world.build(dockerfile).await;
    let arch = image.config.architecture().to_string();
    let meta = fs::metadata(root.path(&format!("bin/{arch}/program"))).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
    // Commands are not touched; the shell finds the variable.
    assert_eq!(root.read("log"), "$BASE");
    assert!(world.executor.seen.lock().unwrap()[0].env.contains(&"BASE=scratch".to_owned()));
    assert_eq!(world.executor.runs.load(Ordering::SeqCst), 1);
    let mut request = world.request(dockerfile);
    request.target = Some("tested".into());
    let tested = build(&world.store, request.clone(), &world.executor, &|_| {}).await.unwrap();
    assert_eq!(Root::new(&world.store, &tested).names(""), ["out", "tested"]);
    request.target = Some("nothing".into());
    let error = build(&world.store, request, &world.executor, &|_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "no stage \"nothing\" in the Dockerfile");
}

#[tokio::test]
async fn goes_on_from_an_image() {
    let world = World::new();
    world.file("f", "1");
    let base = world.build("FROM scratch\nCOPY f /f\nCMD [\"base\"]\nENV A=1").await.0;
    world.store.tag("test/app:1", "base:1").unwrap();
    let (image, root) = world.build("FROM base:1\nENV A=$A:2\nRUN remove f\nENTRYPOINT [\"own\"]").await;
    assert_eq!(image.layers[0], base.layers[0]);
    assert_eq!(root.names(""), Vec::<String>::new());
    let config = image.config.config().clone().unwrap();
    assert!(config.env().clone().unwrap().contains(&"A=1:2".to_owned()));
    assert_eq!((config.cmd().clone(), config.entrypoint().clone().unwrap()), (None, vec!["own".to_owned()]));
    // What was built can leave and come back.
    let mut archive = Vec::new();
    world.store.export(&["test/app:1"], ArchiveFormat::Docker, &mut archive).unwrap();
    let other = ImageStore::open(&world.dir.path().join("other")).unwrap();
    let back = other.import(&archive[..]).unwrap();
    assert_eq!((back[0].id, &back[0].names), (image.id, &image.names));
    assert_eq!(Root::new(&other, &back[0]).names(""), Vec::<String>::new());
}

#[tokio::test]
async fn reports_progress() {
    let world = World::new();
    let events = Mutex::new(Vec::new());
    let progress = |event: BuildEvent<'_>| {
        events.lock().unwrap().push(match event {
            BuildEvent::Step { number, total, stage, text } => format!("{number}/{total} {stage:?} {text}"),
            BuildEvent::Output(stream, bytes) => format!("{stream:?} {}", String::from_utf8_lossy(bytes)),
            other => format!("{other:?}"),
        });
    };
    let request = world.request("FROM --platform=x scratch AS a\nRUN say hello\nHEALTHCHECK NONE");
    build(&world.store, request, &world.executor, &progress).await.unwrap();
    let events = events.into_inner().unwrap();
    assert_eq!(events[0], "1/3 Some(\"a\") FROM --platform=x scratch AS a");
    assert!(events[1].contains("--platform is ignored"));
    assert_eq!(events[3], "Stdout hello");
    assert!(events[5].contains("HEALTHCHECK"));
}

#[tokio::test]
async fn makes_an_image_of_a_directory() {
    let world = World::new();
    world.file("bin/server", "x");
    let created = base::Timestamp::from_second(0).unwrap();
    let tag = || "demo".parse().unwrap();
    let request = BuildRequest::from_root(
        world.dir.path().join("context"),
        tag(),
        &["/bin/server", "a \"b\""],
        created,
    );
    let image = build(&world.store, request, &NoRun, &|_| {}).await.unwrap();
    assert_eq!(Root::new(&world.store, &image).names("bin"), ["server"]);
    assert_eq!(
        image.config.config().clone().unwrap().entrypoint().clone().unwrap(),
        ["/bin/server", "a \"b\""]
    );
    // Under another name it is still the same image.
    let mut request = world.request("FROM scratch\nCOPY . /\nENTRYPOINT [\"/bin/server\",\"a \\\"b\\\"\"]");
    request.args.insert("NOBODY".into(), "x".into());
    let notes = Mutex::new(0);
    let progress = |event: BuildEvent<'_>| {
        if let BuildEvent::Note(note) = event {
            assert!(note.contains("NOBODY"), "{note}");
            *notes.lock().unwrap() += 1;
        }
    };
    let again = build(&world.store, request, &NoRun, &progress).await.unwrap();
    assert_eq!((again.id, again.names.len(), *notes.lock().unwrap()), (image.id, 2, 1));
}
