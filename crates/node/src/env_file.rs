//! Variables out of files that other containers of the pod have written (kubernetes/kubernetes,
//! `pkg/kubelet/util/env/env_util.go`, `ParseEnv`).

/// The value of `key`: what follows its `=`, up to the end of the line and what a backslash there appends, or between
/// single quotes as it is, over several lines if need be. None if it is not there.
///
/// # Errors
/// With the number of a line that is no variable.
pub(crate) fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let bad = |why: &str| format!("invalid environment variable format at line {}{why}", number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, given) = line.split_once('=').ok_or_else(|| bad(""))?;
        let (name, given) = (name.trim_end(), given.trim_start());
        if name.is_empty() {
            return Err(bad(""));
        }
        let mut value;
        if let Some(quoted) = given.strip_prefix('\'') {
            value = quoted.to_owned();
            while !value.contains('\'') {
                let (_, next) = lines.next().ok_or_else(|| bad(": unterminated single quote"))?;
                value.push('\n');
                value.push_str(next);
            }
            let (inside, after) = value.split_once('\'').unwrap_or((&value, ""));
            let after = after.trim();
            if !after.is_empty() && !after.starts_with('#') {
                return Err(bad(": unexpected text after the closing quote"));
            }
            value = inside.to_owned();
        } else {
            value = given.to_owned();
            while let Some(begun) = value.strip_suffix('\\') {
                let next = lines.next().map(|(_, next)| next.trim());
                match next {
                    None => return Err("unexpected end of file: unfinished line continuation".to_owned()),
                    Some("") => return Err(bad(": blank line in continuation")),
                    Some(next) if next.starts_with('#') => return Err(bad(": comment in continuation")),
                    Some(next) => value = format!("{} {next}", begun.trim_end()),
                }
            }
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_quoted_values() {
        let text = "# first\n\n A=1\nB = two words \nC='x # y' # why\nD='one\ntwo'\nE=a \\\n  b\\\nc\nF=\n";
        let of = |key: &str| value(text, key).unwrap();
        assert_eq!(of("A").as_deref(), Some("1"));
        assert_eq!(of("B").as_deref(), Some("two words"));
        assert_eq!(of("C").as_deref(), Some("x # y"));
        assert_eq!(of("D").as_deref(), Some("one\ntwo"));
        assert_eq!(of("E").as_deref(), Some("a b c"));
        assert_eq!((of("F").as_deref(), of("G")), (Some(""), None));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let why = |text: &str| value(text, "X").unwrap_err();
        assert_eq!(why("A=1\nnonsense"), "invalid environment variable format at line 2");
        assert_eq!(why("=1"), "invalid environment variable format at line 1");
        assert_eq!(why("A='x"), "invalid environment variable format at line 1: unterminated single quote");
        assert_eq!(
            why("A=x\\\n\n"),
            "invalid environment variable format at line 1: blank line in continuation"
        );
        assert_eq!(why("A=x\\"), "unexpected end of file: unfinished line continuation");
    }
}
