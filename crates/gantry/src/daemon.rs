//! A server in the background, seen from outside.

use std::io::Write;
use std::os::fd::AsFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::ServerArgs;

/// What a server says on its standard output when everything in it is ready.
pub const READY: &str = "ready";

/// A server that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub pid: i32,
}

/// The server of this run directory, if one runs.
pub fn running(args: &ServerArgs) -> Option<Running> {
    let pid: i32 = std::fs::read_to_string(args.pid_file()).ok()?.trim().parse().ok()?;
    // Numbers are used again: it must be a server.
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_server = matches!(command.split(|b| *b == 0).nth(1), Some(b"server" | b"agent" | b"cri"));
    (is_server && kill(Pid::from_raw(pid), None).is_ok()).then_some(Running { pid })
}

/// What a gantry that keeps this file runs as (`server`, `agent` or `cri`), if it is not this process.
pub fn command_of(pid_file: &std::path::Path) -> Option<String> {
    let pid: u32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|_| pid != std::process::id())?;
    let word = command.split(|b| *b == 0).nth(1).map(|word| String::from_utf8_lossy(word).into_owned())?;
    matches!(word.as_str(), "server" | "agent" | "cri").then_some(word)
}

/// Waits for a server of this run directory that was killed and is not quite gone yet: it still holds its ports.
pub fn await_the_dying(args: &ServerArgs) {
    let pid = std::fs::read_to_string(args.pid_file()).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else { return };
    // A process that has lost its memory and not yet its files has no command line.
    let dying = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.is_empty());
    if dying && let Ok(Some(pidfd)) = sys::pidfd_open(pid) {
        // If it takes longer, the port says so.
        let _ = sys::wait_pidfd(pidfd.as_fd(), std::time::Duration::from_secs(10));
    }
}

/// Asks a server to stop, and waits until it has.
pub fn stop(running: Running) -> nix::Result<()> {
    let pid = Pid::from_raw(running.pid);
    let file = std::fs::File::open(format!("/proc/{}", running.pid));
    kill(pid, Signal::SIGTERM)?;
    let Ok(_folder) = file else { return Ok(()) };
    // A server that is nobody's child here cannot be waited for; its signal 0 tells when it is gone.
    while kill(pid, None).is_ok() && !is_zombie(running.pid) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

/// Tells whoever started this server how far it has come. Nobody may be listening any more.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
