//! User, capabilities and seccomp: the last things before the program.

use sys::CapSet;

use super::user::Identity;
use super::{LaunchError, seccomp};
use crate::spec::{Capabilities, Seccomp};

/// Those of moby/moby, `oci/caps/defaults.go`, `DefaultCapabilities`.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Becomes `who` with the capabilities and system calls allowed. Nobody gets a capability that the agent lacks.
///
/// Without `no_new_privileges` a filter needs `CAP_SYS_ADMIN`, so it is installed while there is one; with it the
/// filter comes last, and need not allow what happens here.
pub(super) fn assume(
    who: &Identity,
    changes: &Capabilities,
    privileged: bool,
    no_new_privileges: bool,
    seccomp: &Seccomp,
) -> Result<(), LaunchError> {
    let allowed = capabilities(changes, privileged)?.within(CapSet::effective()?);
    let filters = seccomp::compile(seccomp, allowed)?;
    if !no_new_privileges {
        seccomp::install(&filters)?;
    }
    allowed.bound()?;
    sys::set_ids(who.uid, who.gid, &who.groups)?;
    // Another user than root has none; programs with file capabilities may still gain what is in the bound.
    if who.uid == 0 { allowed } else { CapSet::EMPTY }.apply()?;
    if no_new_privileges {
        sys::no_new_privileges()?;
        seccomp::install(&filters)?;
    }
    Ok(())
}

/// The default set with what is added and dropped, as the kubelet and CRI runtimes understand `ALL`
/// (containerd/containerd, `internal/cri/opts/spec_linux_opts.go`, `WithCapabilities`).
pub(super) fn capabilities(changes: &Capabilities, privileged: bool) -> sys::Result<CapSet> {
    let all = CapSet::all();
    let is_all = |name: &&String| name.trim_start_matches("CAP_").eq_ignore_ascii_case("ALL");
    let named = |names: &[String]| CapSet::named(names.iter().filter(|name| !is_all(name)));
    let mut set = if privileged { all } else { CapSet::named(DEFAULT)? };
    if changes.add.iter().any(|name| is_all(&name)) {
        set = all;
    }
    if changes.drop.iter().any(|name| is_all(&name)) {
        set = CapSet::EMPTY;
    }
    set = set.with(named(&changes.add)?).without(named(&changes.drop)?);
    Ok(set.within(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> CapSet {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        capabilities(&Capabilities { add: owned(add), drop: owned(drop) }, false).unwrap()
    }

    #[test]
    fn add_and_drop() {
        let has = |set: CapSet, name| set.has(name);
        assert!(has(set(&[], &[]), "CHOWN") && !has(set(&[], &[]), "SYS_ADMIN"));
        assert!(has(set(&["SYS_ADMIN"], &["CHOWN"]), "SYS_ADMIN"));
        assert!(!has(set(&["SYS_ADMIN"], &["CHOWN"]), "CHOWN"));
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]), CapSet::named(["NET_ADMIN"]).unwrap());
        assert!(!has(set(&["ALL"], &["CAP_SYS_TIME"]), "SYS_TIME") && has(set(&["all"], &[]), "SYS_ADMIN"));
    }
}
