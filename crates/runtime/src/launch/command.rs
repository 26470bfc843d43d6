//! The program itself: directory, environment, search path.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::user::Identity;
use super::{At, LaunchError};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Goes to the working directory, and makes it if absent.
pub(super) fn enter_directory(cwd: &str) -> Result<(), LaunchError> {
    let path = Path::new(if cwd.is_empty() { "/" } else { cwd });
    if !path.exists() {
        // A read-only mount: the failure to enter says it better.
        let _ = fs::create_dir_all(path);
    }
    std::env::set_current_dir(path).at("enter directory", path)
}

/// The environment: what was asked for (the last of equal names counts), and `PATH`, `HOME`, `TERM`, `HOSTNAME`
/// where it says nothing of them.
pub(super) fn environment(
    base: &[String],
    more: &[String],
    tty: bool,
    hostname: &str,
    who: &Identity,
) -> Vec<String> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut env: Vec<String> = Vec::with_capacity(base.len() + more.len() + 4);
    let mut places = std::collections::HashMap::new();
    for pair in base.iter().chain(more) {
        match places.entry(name(pair)) {
            std::collections::hash_map::Entry::Occupied(at) => {
                let at: usize = *at.get();
                env[at] = pair.clone();
            }
            std::collections::hash_map::Entry::Vacant(at) => {
                at.insert(env.len());
                env.push(pair.clone());
            }
        }
    }
    let defaults = [
        ("PATH", DEFAULT_PATH, true),
        ("HOME", who.home.as_str(), true),
        ("TERM", "xterm", tty),
        ("HOSTNAME", hostname, !hostname.is_empty()),
    ];
    for (name, value, wanted) in defaults {
        if wanted && !places.contains_key(name) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// Becomes the program, searched for in the environment's `PATH` unless its name has a slash.
pub(super) fn run(args: &[String], env: &[String]) -> Result<Infallible, LaunchError> {
    let name = args.first().filter(|name| !name.is_empty()).ok_or(LaunchError::NoCommand)?;
    sys::close_on_exec_from(3)?;
    let failed = |source| LaunchError::Exec { name: name.clone(), source };
    if name.contains('/') {
        return sys::exec(OsStr::new(name), args, env).map_err(failed);
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = None;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match sys::exec(candidate.as_os_str(), args, env) {
            Ok(never) => match never {},
            Err(error) => match std::io::Error::from_raw_os_error(error.errno().unwrap_or(0)).kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {}
                std::io::ErrorKind::PermissionDenied => refused = Some(error),
                _ => return Err(failed(error)),
            },
        }
    }
    Err(refused.map_or_else(|| LaunchError::NotFound(name.clone()), failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_values_win_and_defaults_fill_up() {
        let who = Identity { home: "/h".into(), ..Identity::default() };
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let env = environment(&own(&["A=1", "B=2"]), &own(&["A=3", "HOME=/x"]), true, "host", &who);
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(env, ["A=3", "B=2", "HOME=/x", &path, "TERM=xterm", "HOSTNAME=host"]);
    }
}
