use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::error::StepError;
use crate::fsutil::open_in;

/// `--chown=user[:group]`: numbers, or names that the image knows. Without a group it has the user's number, as in
/// Docker.
pub(super) fn owner(root: &OwnedFd, text: &str) -> Result<(u32, u32), StepError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let uid = number(root, user, "user", "etc/passwd")?;
    let gid = match group {
        Some(group) => number(root, group, "group", "etc/group")?,
        None => uid,
    };
    Ok((uid, gid))
}

fn number(root: &OwnedFd, name: &str, what: &'static str, file: &str) -> Result<u32, StepError> {
    if let Ok(id) = name.parse::<u32>() {
        return match id {
            u32::MAX => Err(StepError::Invalid { what, value: name.to_owned() }),
            id => Ok(id),
        };
    }
    let unknown = || StepError::Unknown { what, name: name.to_owned() };
    let file = open_in(root, Path::new(file), OFlags::RDONLY | OFlags::NONBLOCK).map_err(|_| unknown())?;
    let mut text = String::new();
    // A few hundred lines in the largest images.
    File::from(file).take(4 << 20).read_to_string(&mut text).map_err(|_| unknown())?;
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(unknown)
}
