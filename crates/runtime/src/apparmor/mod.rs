//! The AppArmor profile of containers for which nobody asks for another one.

use std::fs;
use std::io;
use std::path::Path;

/// Its name.
pub const DEFAULT_APPARMOR_PROFILE: &str = "gantry-default";

/// As the kernel takes it: `scripts/apparmor-profile.sh` makes it out of the file beside it.
static POLICY: &[u8] = include_bytes!("gantry-default.policy");

const KERNEL: &str = "/sys/kernel/security/apparmor";

/// Whether the kernel has AppArmor, and it is on.
pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Gives the profile to the kernel, in place of an older one of its name; running containers follow it at once. Does
/// nothing without AppArmor.
///
/// # Errors
/// When the kernel does not take it, be it because `securityfs` is not mounted.
pub fn load_default_apparmor_profile() -> io::Result<()> {
    if !has_apparmor() {
        return Ok(());
    }
    fs::write(Path::new(KERNEL).join(".replace"), POLICY)
}

/// Whether the kernel has the profile.
pub fn has_default_apparmor_profile() -> bool {
    has_apparmor() && fs::read_to_string(Path::new(KERNEL).join("profiles")).is_ok_and(|list| is_among(&list))
}

/// The list's lines have the form `name (mode)`.
fn is_among(list: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").map(|(name, _)| name) == Some(DEFAULT_APPARMOR_PROFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_that_of_the_profile() {
        let holds = |text: &str| POLICY.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(holds(DEFAULT_APPARMOR_PROFILE));
        // A string of four bytes and their end: the format's first field (`security/apparmor/policy_unpack.c`).
        assert!(POLICY.starts_with(b"\x04\x08\x00version\x00"));
    }

    #[test]
    fn profiles_are_known_by_their_whole_names() {
        assert!(is_among("a (enforce)\ngantry-default (enforce)\n"));
        assert!(!is_among("gantry-default-2 (enforce)\nmy gantry-default (complain)\n"));
    }
}
