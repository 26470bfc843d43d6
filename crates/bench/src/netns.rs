//! The network namespace in which everything here happens.

use std::process::Command;

use crate::Outcome;

/// Says that the namespace has been entered, and its name.
const ENTERED: &str = "GANTRY_BENCH_NETNS";

/// Whether this process is inside already.
pub fn entered() -> bool {
    std::env::var_os(ENTERED).is_some()
}

/// The name of the namespace, which also names cgroups.
pub fn name() -> String {
    std::env::var(ENTERED).unwrap_or_default()
}

/// Runs this program again inside a new namespace, which goes away afterwards.
pub fn run_inside() -> Outcome<()> {
    let name = format!("gantry-bench-{}", std::process::id());
    ip(&["netns", "add", &name])?;
    let namespace = Namespace(name);
    let path = format!("--net=/run/netns/{}", namespace.0);
    // `nsenter`, not `ip netns exec`: the latter also replaces `/sys`, and the cgroups with it.
    must(Command::new("nsenter").args([&path, "ip", "link", "set", "lo", "up"]))?;
    let own = std::env::current_exe()?;
    let arguments = std::env::args_os().skip(1);
    must(Command::new("nsenter").arg(path).arg(own).args(arguments).env(ENTERED, &namespace.0))
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.0]) {
            eprintln!("bench: {error}");
        }
    }
}

fn ip(arguments: &[&str]) -> Outcome<()> {
    must(Command::new("ip").args(arguments))
}

fn must(command: &mut Command) -> Outcome<()> {
    let status = command.status().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed").into()) }
}
