//! Telling systemd how far this process is (`sd_notify(3)`): datagrams to the socket that it names, and nothing where it
//! names none.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use base::Drain;

/// Says that everything is ready, and from then on that the process is alive, if somebody watches over it.
pub fn ready(drain: &Drain) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    say(&socket, "READY=1");
    let text = |name: &str| std::env::var(name).ok();
    let Some(period) = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id()) else {
        return;
    };
    drain.spawn_until_started(async move {
        loop {
            // Half of the time that is given: one that comes late does no harm.
            tokio::time::sleep(period / 2).await;
            say(&socket, "WATCHDOG=1");
        }
    });
}

/// Says that the process is about to end.
pub fn stopping() {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        say(&socket, "STOPPING=1");
    }
}

/// How long systemd waits for a sign of life of this process, if it does.
fn watchdog(period: Option<String>, of: Option<String>, own: u32) -> Option<Duration> {
    let micros: u64 = period?.parse().ok()?;
    let ours = of.is_none_or(|pid| pid.parse::<u32>() == Ok(own));
    (ours && micros > 0).then(|| Duration::from_micros(micros))
}

fn say(socket: &OsString, what: &str) {
    if let Err(error) = send(socket, what) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

fn send(socket: &OsStr, what: &str) -> io::Result<()> {
    let bytes = socket.as_bytes();
    // An at sign stands for the name space that is not in any folder.
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_at_either_sort_of_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let hidden_name = format!("gantry-test-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&hidden_name).unwrap()).unwrap();
        for (socket, name) in [(named, path.into_os_string()), (hidden, format!("@{hidden_name}").into())] {
            send(&name, "READY=1").unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        assert!(send(OsStr::new("/nonexistent"), "x").is_err());
    }

    #[test]
    fn only_those_who_are_watched_give_signs() {
        let period = |period: &str, of: Option<&str>| watchdog(Some(period.into()), of.map(str::to_owned), 7);
        assert_eq!(period("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(period("2000000", Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(period("2000000", Some("8")), None);
        assert_eq!((period("0", None), period("x", None), watchdog(None, None, 7)), (None, None, None));
    }
}
