use std::collections::HashMap;

use ring::digest::{SHA256, digest};

use crate::user::User;

/// A token file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("token file line {line}: {why}; each line is token,user,uid and optionally \"group1,group2\"")]
pub struct TokenFileError {
    line: usize,
    why: &'static str,
}

/// Tokens that are valid as long as the server runs.
///
/// Only digests are kept, so a lookup takes the same time whatever part of a token is right.
#[derive(Clone, Debug, Default)]
pub struct StaticTokens(HashMap<[u8; 32], User>);

impl StaticTokens {
    /// Reads upstream's token file format: `token,user,uid,"group1,group2"` on each line
    /// (`apiserver/pkg/authentication/token/tokenfile/tokenfile.go`).
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut tokens = Self::default();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |why| TokenFileError { line: i + 1, why };
            let mut fields = line.splitn(4, ',');
            let mut next = || fields.next().map(str::trim);
            let token = next().filter(|t| !t.is_empty()).ok_or_else(|| fault("the token is empty"))?;
            let name = next().filter(|n| !n.is_empty()).ok_or_else(|| fault("the user name is missing"))?;
            let uid = next().ok_or_else(|| fault("the uid is missing"))?;
            let groups = next().unwrap_or_default().trim_matches('"').split(',');
            let groups = groups.map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned);
            let user = User { uid: uid.to_owned(), ..User::authenticated(name, groups) };
            tokens.add(token, user);
        }
        Ok(tokens)
    }

    /// Lets `token` speak for `user`.
    pub fn add(&mut self, token: &str, user: User) {
        self.0.insert(fingerprint(token), user);
    }

    /// The user that a token speaks for.
    pub fn user(&self, token: &str) -> Option<&User> {
        self.0.get(&fingerprint(token))
    }
}

/// Compares digests, so that the time it takes tells nothing of the secret.
pub(crate) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    digest(&SHA256, a).as_ref() == digest(&SHA256, b).as_ref()
}

fn fingerprint(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_file_format() {
        let tokens = StaticTokens::parse("# c\n\nabc,alice,1,\"dev,ops\"\nxyz,bob,2\n").unwrap();
        let alice = tokens.user("abc").unwrap();
        assert_eq!((alice.name.as_str(), alice.in_group("ops")), ("alice", true));
        assert!(tokens.user("xyz").unwrap().in_group("system:authenticated"));
        assert!(tokens.user("ab").is_none());
        assert!(StaticTokens::parse("abc").unwrap_err().to_string().starts_with("token file line 1"));
    }
}
