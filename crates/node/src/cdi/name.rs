use std::fmt;

use super::CdiError;

/// `vendor/class=device` (cncf-tags/container-device-interface, `pkg/parser/parser.go`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceName {
    /// Such as `vendor.com/gpu`.
    pub(crate) kind: String,
    /// Such as `gpu0`.
    pub(crate) device: String,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl DeviceName {
    /// Reads a full name.
    ///
    /// # Errors
    /// At the first part that is not as it should be.
    pub(crate) fn parse(name: &str) -> Result<Self, CdiError> {
        let wrong = |why: String| CdiError::Name { name: name.to_owned(), why };
        let (kind, device) = name
            .split_once('=')
            .ok_or_else(|| wrong("unqualified device name, it must be vendor/class=device".into()))?;
        check_kind(kind).map_err(wrong)?;
        check_device(device).map_err(wrong)?;
        Ok(Self { kind: kind.to_owned(), device: device.to_owned() })
    }
}

/// Whether this is `vendor/class`.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let (vendor, class) =
        kind.split_once('/').ok_or_else(|| format!("kind {kind:?} is not vendor/class"))?;
    check(vendor, "vendor", |c| c.is_ascii_alphabetic(), "_-.")?;
    check(class, "class", |c| c.is_ascii_alphabetic(), "_-.")
}

/// Whether this can be a device's name.
pub(super) fn check_device(name: &str) -> Result<(), String> {
    check(name, "device", |c| c.is_ascii_alphanumeric(), "_-.:")
}

fn check(name: &str, what: &str, first: impl Fn(char) -> bool, more: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("invalid (empty) {what} name"));
    }
    if !name.starts_with(first) {
        return Err(format!("invalid {what} name {name:?}: it cannot begin like this"));
    }
    if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !more.contains(*c)) {
        return Err(format!("invalid {what} name {name:?}: invalid character {odd:?}"));
    }
    if !name.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("invalid {what} name {name:?}: it should end with a letter or digit"));
    }
    Ok(())
}
