//! What containers have said: `/containerLogs` (kubernetes/kubernetes, `pkg/kubelet/server/server.go`,
//! `getContainerLogs`; `pkg/kubelet/kubelet_pods.go`, `validateContainerLogStatus`).

mod cri;
mod options;
mod reader;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerEvent, ContainerState, ContainerStatus, Runtime};
use streaming::{no_protocol, websocket};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use types::Status;

use self::options::LogOptions;
use self::reader::Log;
use super::{Body, Server, streamed};

/// What a log may come in over a WebSocket (`staging/src/k8s.io/apimachinery/pkg/util/httpstream/wsstream/stream.go`,
/// `NewDefaultReaderProtocols`).
const WEBSOCKET: [&str; 2] = ["base64.binary.k8s.io", "binary.k8s.io"];

pub(super) fn serve(
    server: &Server,
    mut request: Request<Incoming>,
    pod: &Pod,
    container: &str,
    query: &[(String, String)],
) -> Result<Response<Body>, Status> {
    let options = LogOptions::parse(query, server.clock.now())?;
    let run = the_run(&server.runtime, pod, container, options.previous)?;
    if websocket::is_asked(request.headers()) {
        let (response, protocol) =
            websocket::accept(request.headers(), &WEBSOCKET).ok_or_else(|| no_protocol(&WEBSOCKET))?;
        let upgrade = hyper::upgrade::on(&mut request);
        let server = server.clone();
        server.drain.clone().spawn_until_started(async move {
            let Ok(io) = upgrade.await.map(TokioIo::new) else { return };
            let (send, pieces) = mpsc::channel(16);
            let say = websocket::say(io, pieces, protocol == WEBSOCKET[0]);
            tokio::join!(tell(server, run, options, send), say);
        });
        return Ok(response);
    }
    let (send, body) = streamed();
    server.drain.spawn(tell(server.clone(), run, options, send));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The run of the container whose log is wanted, or why there is none.
fn the_run(runtime: &Runtime, pod: &Pod, container: &str, previous: bool) -> Result<ContainerStatus, Status> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut runs: Vec<_> = runtime.containers(uid).into_iter().filter(|c| c.name == container).collect();
    runs.sort_unstable_by_key(|run| run.attempt);
    let latest = runs.pop();
    if previous {
        let ended = runs.pop().filter(|run| matches!(run.state, ContainerState::Exited(_)));
        return ended.ok_or_else(|| {
            Status::bad_request(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            ))
        });
    }
    latest.ok_or_else(|| {
        let why = waiting_reason(pod, container);
        let why = match why {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            other => other,
        };
        Status::bad_request(format!("container {container:?} in pod {name:?} is waiting to start: {why}"))
    })
}

fn waiting_reason<'a>(pod: &'a Pod, container: &str) -> &'a str {
    let status = pod.status.as_ref();
    let lists =
        status.map(|s| [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses]);
    let found = lists.into_iter().flatten().flatten().flatten().find(|status| status.name == container);
    let waiting = found.and_then(|status| status.state.as_ref()?.waiting.as_ref());
    waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("ContainerCreating")
}

/// Sends the log as it is, and as it grows.
async fn tell(server: Server, run: ContainerStatus, options: LogOptions, send: mpsc::Sender<Bytes>) {
    tokio::select! {
        told = follow(&server.runtime, &run, options, &send) => if let Err(error) = told {
            tracing::warn!(container = run.name, %error, "cannot read a log");
        },
        () = send.closed() => {}
        () = server.drain.started() => {}
    }
}

async fn follow(
    runtime: &Runtime,
    run: &ContainerStatus,
    options: LogOptions,
    send: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let Some(path) = run.log_path.clone() else { return Ok(()) };
    // Before the first look at the container, so that its end is not missed.
    let mut events = runtime.events();
    let tail = options.tail;
    let mut log = blocking(move || Log::open(&path, tail)).await?;
    let changes = options.follow.then(|| log.watch()).transpose()?;
    let mut writer = Writer { options, whole: true };
    loop {
        let ended = !runtime
            .container(&run.id)
            .is_some_and(|container| matches!(container.state, ContainerState::Running { .. }));
        loop {
            let (given_back, data) = blocking(move || {
                let data = log.read();
                data.map(|data| (log, data))
            })
            .await?;
            log = given_back;
            if data.is_empty() {
                break;
            }
            let text = writer.write(&data);
            if !text.is_empty() && send.send(text.into()).await.is_err() || writer.is_full() {
                return Ok(());
            }
        }
        let Some(changes) = changes.as_ref().filter(|_| !ended) else { return Ok(()) };
        tokio::select! {
            changed = changes.next() => changed?,
            () = end_of(&run.id, &mut events) => {}
        }
    }
}

async fn end_of(id: &str, events: &mut tokio::sync::broadcast::Receiver<ContainerEvent>) {
    loop {
        match events.recv().await {
            Ok(ContainerEvent::Exited { id: ended, .. }) if ended == id => return,
            Ok(ContainerEvent::SandboxLost { .. }) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

/// From lines of the log to what the user sees of them.
struct Writer {
    options: LogOptions,
    /// Whether the last line was a whole one.
    whole: bool,
}

impl Writer {
    fn is_full(&self) -> bool {
        self.options.limit == Some(0)
    }

    fn write(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(data.len());
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = cri::parse(line.strip_suffix(b"\n").unwrap_or(line)) else { continue };
            if self.options.stream.is_some_and(|wanted| wanted != line.stream) {
                continue;
            }
            if let Some(since) = self.options.since {
                if line.at().is_none_or(|at| at < since) {
                    continue;
                }
                // Time goes on: what follows is younger, and need not be asked.
                self.options.since = None;
            }
            if self.options.timestamps && self.whole {
                out.extend_from_slice(line.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.text);
            if !line.partial {
                out.push(b'\n');
            }
            self.whole = !line.partial;
        }
        if let Some(limit) = &mut self.options.limit {
            out.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
            *limit -= out.len() as u64;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr P tw\n\
        2026-01-01T00:00:01Z stderr F o\nrubbish\n2026-01-01T00:00:02Z stdout F three\n";

    fn written(options: LogOptions) -> String {
        String::from_utf8(Writer { options, whole: true }.write(LOG)).unwrap()
    }

    #[test]
    fn shows_what_is_asked_for() {
        assert_eq!(written(LogOptions::default()), "one\ntwo\nthree\n");
        let since = Some("2026-01-01T00:00:01Z".parse().unwrap());
        assert_eq!(written(LogOptions { since, ..Default::default() }), "two\nthree\n");
        assert_eq!(written(LogOptions { limit: Some(5), ..Default::default() }), "one\nt");
        assert_eq!(written(LogOptions { stream: Some("stderr"), ..Default::default() }), "two\n");
        assert_eq!(
            written(LogOptions { timestamps: true, ..Default::default() }),
            "2026-01-01T00:00:00Z one\n2026-01-01T00:00:01Z two\n2026-01-01T00:00:02Z three\n"
        );
    }
}
