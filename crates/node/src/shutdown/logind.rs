//! Holding the machine's shutdown up until pods have ended (kubernetes/kubernetes,
//! `pkg/kubelet/nodeshutdown/systemd/inhibit_linux.go`, `nodeshutdown_manager_linux.go`).
//!
//! 1. A lock is taken: logind waits for it, but no longer than `InhibitDelayMaxSec`.
//! 2. `PrepareForShutdown(true)`: the pods end, and the lock is given back.
//! 3. `PrepareForShutdown(false)`: the shutdown was called off, and the lock is taken again.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;

use super::ShutdownPlaces;
use super::bus::{Bus, BusError};
use super::wire::{Message, Value};
use crate::worker::Agent;

const LOGIND: &str = "org.freedesktop.login1";
const PLACE: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SIGNAL: &str = "PrepareForShutdown";

/// How long to wait before the bus is tried again.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// Follows logind for as long as it is polled.
pub(super) async fn follow(agent: Arc<Agent>, places: ShutdownPlaces) {
    let mut backoff = Backoff::new(FIRST, MOST);
    loop {
        let Err(error) = session(&agent, &places, &mut backoff).await;
        tracing::error!(%error, "Unable to watch the node for shutdown events");
        tokio::time::sleep(backoff.fail()).await;
    }
}

async fn session(
    agent: &Arc<Agent>,
    places: &ShutdownPlaces,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, LogindError> {
    let mut logind = Logind(Bus::connect(&places.bus).await?);
    logind.wait_for(agent.shutdown.whole(), &places.logind_conf).await?;
    let mut lock = Some(logind.inhibit().await?);
    logind.listen().await?;
    backoff.reset();
    let mut ending = None;
    loop {
        let going = match &mut ending {
            None => logind.next().await?,
            Some(task) => tokio::select! {
                going = logind.next() => going?,
                _ = task => {
                    // Now logind may go on.
                    (ending, lock) = (None, None);
                    continue;
                }
            },
        };
        if going {
            let agent = agent.clone();
            ending.get_or_insert_with(|| tokio::spawn(async move { agent.shut_down().await }));
        } else {
            agent.call_shutdown_off();
            ending = None;
            // The new one first, so that there is always one.
            let new = logind.inhibit().await?;
            drop(lock.replace(new));
        }
    }
}

/// Why a shutdown cannot be held up.
#[derive(Debug, thiserror::Error)]
enum LogindError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("unable to override inhibit delay by shutdown manager: cannot write {path}: {source}")]
    Conf { path: String, source: std::io::Error },
    #[error(
        "node shutdown manager was unable to update logind InhibitDelayMaxSec to {wanted:?} (ShutdownGracePeriod), current value of InhibitDelayMaxSec ({has:?}) is less than requested ShutdownGracePeriod"
    )]
    Delay { wanted: Duration, has: Duration },
}

struct Logind(Bus);

impl Logind {
    /// The longest that logind waits for whoever holds it up.
    async fn delay(&mut self) -> Result<Duration, BusError> {
        let text = |text: &str| Value::Text(text.to_owned());
        let body = vec![text(MANAGER), text("InhibitDelayMaxUSec")];
        let ask = Message::call(LOGIND, PLACE, "org.freedesktop.DBus.Properties", "Get", body);
        match self.0.call(ask).await?.0.body.as_slice() {
            [Value::U64(micros)] => Ok(Duration::from_micros(*micros)),
            _ => Err(BusError::Odd { attempt: "the question for InhibitDelayMaxUSec" }),
        }
    }

    /// Has logind wait for at least so long.
    async fn wait_for(&mut self, wanted: Duration, folder: &Path) -> Result<(), LogindError> {
        if self.delay().await? >= wanted {
            return Ok(());
        }
        let path = folder.join("99-kubelet.conf");
        let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", wanted.as_secs());
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
        written.map_err(|source| LogindError::Conf { path: path.display().to_string(), source })?;
        let text = |text: &str| Value::Text(text.to_owned());
        let hang_up = Value::I32(nix::libc::SIGHUP);
        let body = vec![text("systemd-logind.service"), text("all"), hang_up];
        let manager = "org.freedesktop.systemd1.Manager";
        let reload =
            Message::call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", manager, "KillUnit", body);
        self.0.call(reload).await?;
        let has = self.delay().await?;
        if has < wanted { Err(LogindError::Delay { wanted, has }) } else { Ok(()) }
    }

    /// Takes a lock, which is held for as long as the descriptor is open.
    async fn inhibit(&mut self) -> Result<OwnedFd, BusError> {
        let body = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        let body = body.map(|text| Value::Text(text.to_owned())).to_vec();
        let (_, fds) = self.0.call(Message::call(LOGIND, PLACE, MANAGER, "Inhibit", body)).await?;
        fds.into_iter().next().ok_or(BusError::Odd { attempt: "the wish to inhibit a shutdown" })
    }

    /// Asks to be told of shutdowns.
    async fn listen(&mut self) -> Result<(), BusError> {
        let rule = format!("type='signal',interface='{MANAGER}',member='{SIGNAL}',path='{PLACE}'");
        let daemon = "org.freedesktop.DBus";
        let body = vec![Value::Text(rule)];
        self.0.call(Message::call(daemon, "/org/freedesktop/DBus", daemon, "AddMatch", body)).await.map(drop)
    }

    /// Whether the machine goes down, or does not after all; the next time that is said.
    async fn next(&mut self) -> Result<bool, BusError> {
        loop {
            let signal = self.0.signal().await?;
            if (signal.interface.as_str(), signal.member.as_str()) != (MANAGER, SIGNAL) {
                continue;
            }
            if let [Value::Bool(going)] = signal.body.as_slice() {
                return Ok(*going);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::wire::Kind;
    use super::*;

    /// The other side: a bus with a logind on it, as far as it is asked.
    struct Fake {
        stream: UnixStream,
        read: Vec<u8>,
        delay: u64,
        serial: u32,
    }

    impl Fake {
        fn accept(listener: &UnixListener, delay: u64) -> Self {
            let (mut stream, _) = listener.accept().unwrap();
            let line = |stream: &mut UnixStream| {
                let (mut text, mut byte) = (Vec::new(), [0]);
                while !text.ends_with(b"\r\n") {
                    assert_eq!(stream.read(&mut byte).unwrap(), 1);
                    text.push(byte[0]);
                }
                String::from_utf8(text).unwrap()
            };
            let user: String =
                nix::unistd::geteuid().to_string().bytes().map(|b| format!("{b:02x}")).collect();
            assert_eq!(line(&mut stream), format!("\0AUTH EXTERNAL {user}\r\n"));
            stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
            assert_eq!(line(&mut stream), "NEGOTIATE_UNIX_FD\r\n");
            stream.write_all(b"AGREE_UNIX_FD\r\n").unwrap();
            assert_eq!(line(&mut stream), "BEGIN\r\n");
            Self { stream, read: Vec::new(), delay, serial: 100 }
        }

        /// Answers one call; gives its name and what it was asked with.
        fn answer(&mut self, fd: Option<&OwnedFd>) -> (String, Vec<Value>) {
            let call = loop {
                if let Some((call, length)) = Message::decode(&self.read).unwrap() {
                    self.read.drain(..length);
                    break call;
                }
                let mut buffer = [0; 512];
                let got = self.stream.read(&mut buffer).unwrap();
                assert!(got > 0, "the agent has hung up");
                self.read.extend_from_slice(&buffer[..got]);
            };
            assert_eq!(call.kind, Kind::Call);
            self.serial += 1;
            let body = match call.member.as_str() {
                "Get" => vec![Value::U64(self.delay)],
                "Inhibit" => vec![Value::Fd(0)],
                _ => vec![],
            };
            let answer = Message {
                serial: self.serial,
                reply_to: call.serial,
                fds: fd.map_or(0, |_| 1),
                body,
                ..Message::new(Kind::Return)
            };
            let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
            sys::send_with_fds(&self.stream, &answer.encode(), &fds).unwrap();
            (call.member, call.body)
        }

        fn signal(&mut self, going: bool) {
            self.serial += 1;
            let signal = Message {
                serial: self.serial,
                path: PLACE.into(),
                interface: MANAGER.into(),
                member: SIGNAL.into(),
                body: vec![Value::Bool(going)],
                ..Message::new(Kind::Signal)
            };
            self.stream.write_all(&signal.encode()).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_is_held_and_signals_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let (held, ours) = std::io::pipe().unwrap();
        let bus = std::thread::spawn(move || {
            let mut fake = Fake::accept(&listener, 5_000_000);
            let mut seen = vec![fake.answer(None), fake.answer(None)];
            // Before the answer: nothing is lost.
            fake.signal(false);
            let lock = OwnedFd::from(ours);
            seen.push(fake.answer(Some(&lock)));
            drop(lock);
            seen.push(fake.answer(None));
            fake.signal(true);
            (seen, fake)
        });
        let mut logind = Logind(Bus::connect(&path).await.unwrap());
        logind.wait_for(Duration::from_secs(5), Path::new("/nonexistent")).await.unwrap();
        let lock = logind.inhibit().await.unwrap();
        logind.listen().await.unwrap();
        assert!(!logind.next().await.unwrap());
        assert!(logind.next().await.unwrap());
        let (seen, fake) = bus.join().unwrap();
        let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Hello", "Get", "Inhibit", "AddMatch"]);
        let texts = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"];
        assert_eq!(seen[2].1, texts.map(|text| Value::Text(text.into())));
        // The lock is ours alone now, and ends when we close it.
        let mut held = std::fs::File::from(OwnedFd::from(held));
        drop(lock);
        assert_eq!(held.read(&mut [0; 1]).unwrap(), 0);
        drop(fake);
        assert!(logind.next().await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn logind_is_asked_for_more_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let bus = std::thread::spawn(move || {
            let mut fake = Fake::accept(&listener, 5_000_000);
            let mut seen = vec![fake.answer(None), fake.answer(None), fake.answer(None)];
            fake.delay = 30_000_000;
            seen.push(fake.answer(None));
            // Nobody listens to it.
            seen.push(fake.answer(None));
            seen.push(fake.answer(None));
            seen.push(fake.answer(None));
            seen
        });
        let mut logind = Logind(Bus::connect(&path).await.unwrap());
        let conf = folder.path().join("conf");
        logind.wait_for(Duration::from_secs(30), &conf).await.unwrap();
        let text = std::fs::read_to_string(conf.join("99-kubelet.conf")).unwrap();
        assert!(text.contains("[Login]\nInhibitDelayMaxSec=30\n"), "{text}");
        let error = logind.wait_for(Duration::from_secs(60), &conf).await.unwrap_err().to_string();
        assert!(error.contains("unable to update logind InhibitDelayMaxSec to 60s"), "{error}");
        let seen = bus.join().unwrap();
        let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Hello", "Get", "KillUnit", "Get", "Get", "KillUnit", "Get"]);
        assert_eq!(seen[2].1.last(), Some(&Value::I32(1)));
    }
}
