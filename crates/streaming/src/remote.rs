//! `/exec` and `/attach`: a process's input and output over an upgraded connection (kubernetes/kubernetes,
//! `staging/src/k8s.io/kubelet/pkg/cri/streaming/remotecommand`).

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use runtime::{ExecSpec, Session, Stdio};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::channels::{Channel, Incoming, Lost, Outgoing};
use crate::{spdy, truth, websocket};

/// How long a client may take to open the streams it has announced (`StreamCreationTimeout`).
const OPENING: std::time::Duration = std::time::Duration::from_secs(30);

/// What is spoken over WebSockets, the best first. The last one is for clients that name none; its errors are text.
pub(crate) const WEBSOCKET: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
/// And over SPDY; before version 4, errors are text.
pub(crate) const SPDY: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Which streams there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The process's input.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// What it complains of; not with a terminal, which has one output.
    pub stderr: bool,
    /// Whether it has a terminal.
    pub tty: bool,
}

impl Wanted {
    /// The API's names of the streams, or the agent's own (`pkg/kubelet/.../remotecommand/httpstream.go`,
    /// `NewOptions`).
    pub fn parse(query: &[(String, String)]) -> Option<Self> {
        let on = |names: [&str; 2]| query.iter().any(|(n, v)| names.contains(&n.as_str()) && truth(v));
        let tty = on(["tty", "tty"]);
        // A terminal has one output.
        let wanted = Self {
            stdin: on(["stdin", "input"]),
            stdout: on(["stdout", "output"]),
            stderr: on(["stderr", "error"]) && !tty,
            tty,
        };
        (wanted.stdin || wanted.stdout || wanted.stderr).then_some(wanted)
    }

    /// The process that a query names.
    pub fn command(self, query: &[(String, String)]) -> ExecSpec {
        let argv = query.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone());
        ExecSpec { argv: argv.collect(), tty: self.tty, stdin: self.stdin, ..ExecSpec::default() }
    }
}

/// The client's ends of a process's streams.
pub(crate) struct Remote {
    stdin: Option<Incoming>,
    stdout: Option<Outgoing>,
    stderr: Option<Outgoing>,
    resize: Option<Incoming>,
    error: Outgoing,
    /// Whether the outcome is told as a `Status`, or as text.
    as_status: bool,
    lost: Lost,
}

impl Remote {
    pub(crate) async fn websocket(io: TokioIo<Upgraded>, protocol: &str, wanted: Wanted) -> Self {
        let (channels, lost) = websocket::channels(io, 5).await;
        let mut channels = channels.into_iter();
        let mut next = || channels.next();
        let (stdin, stdout, stderr, error, resize) = (next(), next(), next(), next(), next());
        let outgoing = |channel: Option<Channel>| channel.map(|c| c.outgoing);
        let remote = Self {
            stdin: stdin.filter(|_| wanted.stdin).map(|c| c.incoming),
            stdout: outgoing(stdout).filter(|_| wanted.stdout),
            stderr: outgoing(stderr).filter(|_| wanted.stderr),
            resize: resize.filter(|_| wanted.tty).map(|c| c.incoming),
            error: outgoing(error).expect("five channels were made"),
            as_status: protocol != WEBSOCKET[2],
            lost,
        };
        // An empty message tells the client that there is somebody.
        let first = remote.stdout.as_ref().or(remote.stderr.as_ref()).unwrap_or(&remote.error);
        let _ = first.send(Bytes::new()).await;
        remote
    }

    /// Waits for the streams that the client opens; `None` if it does not.
    pub(crate) async fn spdy(io: TokioIo<Upgraded>, protocol: &str, wanted: Wanted) -> Option<Self> {
        let mut streams = spdy::serve(io);
        let with_resize = wanted.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
        let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
        let complete = async {
            while error.is_none()
                || stdin.is_none() && wanted.stdin
                || stdout.is_none() && wanted.stdout
                || stderr.is_none() && wanted.stderr
                || resize.is_none() && with_resize
            {
                let opened = streams.next().await?;
                let place = match opened.header("streamtype") {
                    Some("stdin") => &mut stdin,
                    Some("stdout") => &mut stdout,
                    Some("stderr") => &mut stderr,
                    Some("error") => &mut error,
                    Some("resize") => &mut resize,
                    _ => continue,
                };
                *place = Some(opened.channel);
            }
            Some(())
        };
        tokio::time::timeout(OPENING, complete).await.ok()??;
        Some(Self {
            stdin: stdin.filter(|_| wanted.stdin).map(|c| c.incoming),
            stdout: stdout.map(|c| c.outgoing),
            stderr: stderr.map(|c| c.outgoing),
            resize: resize.map(|c| c.incoming),
            error: error?.outgoing,
            as_status: protocol == SPDY[0],
            lost: streams.lost,
        })
    }

    /// Joins the client's streams with the process's until the process ends or the client goes. A process of an `exec`
    /// that loses its terminal is ended, as if somebody had hung up.
    pub(crate) async fn join(self, started: Result<Session, runtime::Error>, owned: bool) {
        let Self { stdin, stdout, stderr, resize, error, as_status, lost } = self;
        let mut session = match started {
            Ok(session) => session,
            Err(why) => {
                let outcome = Outcome::Failed(format!("error executing command in container: {why}"));
                let _ = error.send(outcome.to_bytes(as_status)).await;
                return error.end().await;
            }
        };
        let input = tokio::spawn(feed(stdin, session.stdin.take()));
        let (out, err) = (session.stdout.take(), session.stderr.take());
        let mut output = tokio::spawn(futures::future::join(drain(out, stdout), drain(err, stderr)));
        let session = std::sync::Arc::new(session);
        let sizes = tokio::spawn(follow_size(resize, session.clone()));
        let outcome = tokio::select! {
            code = session.wait() => Some(match code {
                Ok(0) => Outcome::Success,
                Ok(code) if owned => Outcome::Exit(code),
                Ok(_) => Outcome::Success,
                Err(why) => Outcome::Failed(format!("error executing command in container: {why}")),
            }),
            () = lost.wait() => None,
        };
        input.abort();
        sizes.abort();
        match outcome {
            Some(outcome) => {
                // What the process has written is in its pipes; what it left running may hold them open for ever.
                if tokio::time::timeout(LAST_WORDS, &mut output).await.is_err() {
                    output.abort();
                }
                let _ = error.send(outcome.to_bytes(as_status)).await;
                error.end().await;
            }
            None => {
                output.abort();
                if owned {
                    session.kill();
                }
            }
        }
    }
}

/// How long output is waited for after the end of a process that left others running.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(2);

async fn feed(from: Option<Incoming>, to: Option<Stdio>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return std::future::pending().await };
    while let Some(data) = from.next().await {
        if to.write_all(&data).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn drain(from: Option<Stdio>, to: Option<Outgoing>) {
    let Some(mut from) = from else {
        // The client waits for the end of each stream it has opened.
        if let Some(to) = to {
            to.end().await;
        }
        return;
    };
    match to {
        Some(to) => {
            if to.send_all(&mut from).await.is_ok() {
                to.end().await;
            }
        }
        // Output that nobody wants must not stop the process.
        None => drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Sizes come as JSON, one after the other; over SPDY a piece may be a part of one.
async fn follow_size(from: Option<Incoming>, session: std::sync::Arc<Session>) {
    let Some(mut from) = from else { return };
    let mut waiting = Vec::new();
    while let Some(data) = from.next().await {
        waiting.extend_from_slice(&data);
        let mut sizes = serde_json::Deserializer::from_slice(&waiting).into_iter::<Size>();
        let mut used = 0;
        loop {
            match sizes.next() {
                Some(Ok(size)) => {
                    used = sizes.byte_offset();
                    // A terminal that has gone has no size.
                    let _ = session.resize(size.width, size.height);
                }
                Some(Err(error)) if error.is_eof() => break,
                // What cannot be read is passed over.
                Some(Err(_)) | None => {
                    used = waiting.len();
                    break;
                }
            }
        }
        waiting.drain(..used);
    }
}

/// What became of a process.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Exit(i32),
    Failed(String),
}

impl Outcome {
    fn to_bytes(&self, as_status: bool) -> Bytes {
        let text = match self {
            Self::Success => String::new(),
            Self::Exit(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed(why) => why.clone(),
        };
        if !as_status {
            return text.into();
        }
        let status = match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exit(code) => json!({
                "metadata": {}, "status": "Failure", "message": text, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(_) => json!({
                "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {text}"),
                "reason": "InternalError", "details": {"causes": [{"message": text}]}, "code": 500,
            }),
        };
        status.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_names_are_understood() {
        let parse = |text: &str| Wanted::parse(&crate::query(Some(text)));
        let all = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(parse("stdin=true&stdout=true&stderr=true&tty=true"), Some(all));
        assert_eq!(parse("input=1&output=1&tty=1"), Some(all));
        assert_eq!(parse("stdin=false"), None);
        let spec = all.command(&crate::query(Some("command=sh&command=-c&command=a%20b+c")));
        assert_eq!(spec.argv, ["sh", "-c", "a b c"]);
    }

    #[test]
    fn outcomes_are_as_clients_read_them() {
        let status: serde_json::Value = serde_json::from_slice(&Outcome::Exit(3).to_bytes(true)).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(Outcome::Success.to_bytes(false), "");
    }
}
