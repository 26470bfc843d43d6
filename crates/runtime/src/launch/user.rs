//! Users by name, looked up in the container's own files.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{At, LaunchError};
use crate::spec::User;

/// Who the program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Looks a user up in `/etc/passwd` and `/etc/group`; the root is the container's already, so that links in them
/// lead nowhere else.
pub(super) fn resolve(user: &User) -> Result<Identity, LaunchError> {
    resolve_with(user, |path| {
        const NONBLOCK: i32 = 0o4000;
        File::options().read(true).custom_flags(NONBLOCK).open(path)
    })
}

/// As [`resolve`], for a root directory that is not ours.
pub(super) fn resolve_in(user: &User, root: BorrowedFd<'_>) -> Result<Identity, LaunchError> {
    resolve_with(user, |path| {
        let opened = sys::open_in_root(root, path);
        opened.map_err(|error| std::io::Error::from_raw_os_error(error.errno().unwrap_or(0)))
    })
}

fn resolve_with(user: &User, open: impl Fn(&Path) -> std::io::Result<File>) -> Result<Identity, LaunchError> {
    let plain_root = user.uid.is_none() && user.spec.as_deref().unwrap_or_default().is_empty();
    let read = |path: &str| read_small(Path::new(path), &open);
    let passwd = read("/etc/passwd")?;
    let group = if plain_root && user.strict_groups { String::new() } else { read("/etc/group")? };
    look_up(user, &passwd, &group)
}

/// Files larger than this are no such files.
const MOST: u64 = 4 << 20;

/// A regular file as text; empty if absent. An image cannot make this wait (a FIFO) or go on for ever (a device).
fn read_small(path: &Path, open: impl Fn(&Path) -> std::io::Result<File>) -> Result<String, LaunchError> {
    let file = match open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        result => result.at("open", path)?,
    };
    if !file.metadata().at("look at", path)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).at("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn look_up(user: &User, passwd: &str, group: &str) -> Result<Identity, LaunchError> {
    let spec = user.spec.as_deref().unwrap_or_default();
    let (name, group_name) = spec.split_once(':').map_or((spec, None), |(name, group)| (name, Some(group)));
    let accounts = || passwd.lines().filter_map(account);
    let by_uid = |uid: u32| accounts().find(|account| account.uid == uid);

    // A name is looked for before a number, since a name may consist of digits.
    let (uid, known) = match user.uid {
        Some(uid) => (uid, by_uid(uid)),
        None if name.is_empty() => (0, by_uid(0)),
        None => match accounts().find(|account| account.name == name) {
            Some(account) => (account.uid, Some(account)),
            None => {
                let uid = name.parse().map_err(|_| LaunchError::NoUser(name.to_owned()))?;
                (uid, by_uid(uid))
            }
        },
    };
    let gid = match (user.gid, group_name.filter(|name| !name.is_empty() && user.uid.is_none())) {
        (Some(gid), _) => gid,
        (None, Some(name)) => match group.lines().filter_map(members).find(|(found, ..)| *found == name) {
            Some((_, gid, _)) => gid,
            None => name.parse().map_err(|_| LaunchError::NoGroup(name.to_owned()))?,
        },
        (None, None) => known.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = user.supplementary.clone();
    if let Some(account) = known.as_ref().filter(|_| !user.strict_groups && group_name.is_none()) {
        let of_account = |list: &str| list.split(',').any(|member| member == account.name);
        groups.extend(
            group.lines().filter_map(members).filter(|(_, _, list)| of_account(list)).map(|(_, gid, _)| gid),
        );
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    let home = known.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let (name, uid, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
}

fn members(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default().trim()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n100:x:7:8::/d:\nbroken\n";
    const GROUP: &str = "root:x:0:\nlog:x:50:web,other\nweb:x:34:\nextra:x:51:web\nbad:x:y:web\n";

    fn who(spec: &str) -> Identity {
        let user = User { spec: Some(spec.into()), ..User::default() };
        look_up(&user, PASSWD, GROUP).unwrap()
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity { uid, gid, groups: groups.into(), home: home.into() }
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(who(""), identity(0, 0, &[], "/root"));
        assert_eq!(who("web"), identity(33, 34, &[50, 51], "/var/www"));
        assert_eq!(who("33"), identity(33, 34, &[50, 51], "/var/www"));
        assert_eq!(who("web:log"), identity(33, 50, &[], "/var/www"));
        assert_eq!(who("web:77"), identity(33, 77, &[], "/var/www"));
        assert_eq!(who("4000"), identity(4000, 0, &[], "/"));
        assert_eq!(who("100"), identity(7, 8, &[], "/d"));
    }

    #[test]
    fn numbers_win_and_groups_add_up() {
        let user = User {
            spec: Some("root".into()),
            uid: Some(33),
            gid: Some(9),
            supplementary: vec![1, 50],
            ..User::default()
        };
        assert_eq!(look_up(&user, PASSWD, GROUP).unwrap(), identity(33, 9, &[1, 50, 51], "/var/www"));
        let strict = User { strict_groups: true, ..user };
        assert_eq!(look_up(&strict, PASSWD, GROUP).unwrap().groups, [1, 50]);
    }

    #[test]
    fn the_unknown_is_named() {
        let named = |spec: &str| look_up(&User { spec: Some(spec.into()), ..User::default() }, PASSWD, GROUP);
        assert_eq!(named("nobody").unwrap_err().to_string(), "no user \"nobody\" in /etc/passwd");
        assert_eq!(named("web:none").unwrap_err().to_string(), "no group \"none\" in /etc/group");
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(passwd in ".{0,80}", group in ".{0,80}", spec in "[a-z0-9:]{0,6}") {
            let _ = look_up(&User { spec: Some(spec), ..User::default() }, &passwd, &group);
        }
    }
}
