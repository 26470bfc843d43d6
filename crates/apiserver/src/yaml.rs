//! YAML from outside.

use serde_json::Value;
use types::with_duplicates;

/// How deep `[` and `{` may nest. What is deeper than [`types::MOST_DEPTH`] is refused anyway; but the parser's time grows
/// with the depth for each token, so it must not see such a text at all (upstream's parser has a limit of its own,
/// `go-yaml`, `max_flow_level`).
const MOST_BRACKETS: usize = 2 * types::MOST_DEPTH;

/// Why a text is no object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum YamlError {
    #[error("exceeded max depth of {MOST_BRACKETS}")]
    Deep,
    #[error("{0}")]
    Syntax(#[from] serde_norway::Error),
}

/// Reads YAML, and which fields came more than once.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), YamlError> {
    if nests_deeply(bytes) {
        return Err(YamlError::Deep);
    }
    Ok(with_duplicates(serde_norway::Deserializer::from_slice(bytes))?)
}

/// Whether brackets may nest deeper than they should, wherever they begin.
///
/// Where a collection in brackets begins is known only to a whole parser: the same bracket may lie in a text. So each is
/// taken for a beginning, and what follows is read as the parser would from there. The work is bounded; nothing that
/// people write comes near the bound.
fn nests_deeply(bytes: &[u8]) -> bool {
    let opens = bytes.iter().filter(|b| matches!(b, b'[' | b'{')).count();
    if opens <= MOST_BRACKETS {
        return false;
    }
    let mut work = 100 * bytes.len() + (1 << 20);
    let begins = |at: usize| {
        at == 0
            || matches!(
                bytes[at - 1],
                b' ' | b'\t'
                    | b'\n'
                    | b'\r'
                    | b'['
                    | b'{'
                    | b','
                    | b':'
                    | b'?'
                    | b'"'
                    | b'\''
                    | 0xbf
                    | 0x85
                    | 0xa8
                    | 0xa9
            )
    };
    let starts = bytes.iter().enumerate().filter(|(at, b)| matches!(b, b'[' | b'{') && begins(*at));
    for (at, _) in starts {
        let Some((deep, steps)) = depth_from(&bytes[at..], work) else { return true };
        if deep > MOST_BRACKETS {
            return true;
        }
        work -= steps;
    }
    false
}

/// How deep brackets nest in the collection that begins here, and how far it reaches; nothing if that is too far.
fn depth_from(bytes: &[u8], most: usize) -> Option<(usize, usize)> {
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    // Whether a quote would begin something, and a hash: not in the middle of a plain text. Whether there has been a value
    // since the last comma or the like: another collection cannot follow it, and the parser gives up.
    let (mut fresh, mut spaced, mut valued) = (true, true, false);
    while at < bytes.len() {
        if at >= most {
            return None;
        }
        let byte = bytes[at];
        at += 1;
        match byte {
            b'[' | b'{' if valued => break,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
                if deepest > MOST_BRACKETS {
                    break;
                }
                (fresh, spaced) = (true, false);
            }
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
                (fresh, spaced, valued) = (true, false, true);
            }
            b',' | b':' | b'?' => (fresh, spaced, valued) = (true, false, false),
            b' ' | b'\t' | b'\n' | b'\r' => spaced = true,
            b'#' if spaced => at += bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at),
            b'"' if fresh => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                (fresh, spaced, valued) = (true, false, true);
            }
            b'\'' if fresh => {
                at += bytes[at..].iter().position(|b| *b == b'\'').unwrap_or(bytes.len() - at) + 1;
                // Two of them are one of the text, which goes on.
                (fresh, spaced, valued) = (true, false, true);
            }
            // Names of anchors and tags stand before what they name.
            b'&' | b'*' | b'!' if fresh => {
                at +=
                    bytes[at..].iter().position(|b| b" \t\r\n,[]{}".contains(b)).unwrap_or(bytes.len() - at);
                (fresh, spaced) = (true, false);
            }
            _ => (fresh, spaced, valued) = (false, false, true),
        }
    }
    Some((deepest, at.min(bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deep_brackets_are_not_parsed() {
        let deep = "[".repeat(MOST_BRACKETS + 1);
        for before in [
            "",
            "a: ",
            "- ",
            "a:\n  - ",
            "a: \"[ '\"\nb: ",
            "a: 'it''s [ \"'\nb: ",
            "# [ '\n",
            "a: &x ",
            "a: !!seq ",
            "? ",
            "a: |\n  [ \"\nb: ",
            "a: [1, \"]\", ",
            "a: {b: ",
        ] {
            for open in
                ["[", "[ ", "{a: ", "{\"a\":", "[x, ", "[\"]\", ", "[']', ", "[ # ]\n", "[&a ", "[!t ", "[? "]
            {
                let text = before.to_owned() + &open.repeat(MOST_BRACKETS + 1);
                assert!(nests_deeply(text.as_bytes()), "{before:?} {open:?}");
            }
        }
        assert!(matches!(parse(deep.as_bytes()), Err(YamlError::Deep)));
        for fine in [
            "a: \"\\e[1m".to_owned() + &"\\e[31m".repeat(5_000) + "\"",
            "a: |\n".to_owned() + &"  if [ -f x ]; then [[ a ]]; fi # [ ( {\n".repeat(5_000),
            "a: |\n".to_owned() + &"  echo '\\033[0m'; x[${i}]=1\n".repeat(5_000),
            "[".to_owned() + &"{a: [1, 2]}, ".repeat(10_000) + "]",
        ] {
            assert!(!nests_deeply(fine.as_bytes()), "{}", &fine[..60]);
            assert!(parse(fine.as_bytes()).is_ok());
        }
    }

    proptest! {
        /// What parses is never deeper than the look at it says.
        #[test]
        fn never_panics_and_ends(text in "[\\[\\]{}\"'#&*!,:? \\na\\\\-]{0,600}") {
            let _ = nests_deeply(text.as_bytes());
            let _ = parse(text.as_bytes());
        }
    }
}
