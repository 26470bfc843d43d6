//! Patterns in Go's syntax, which is nearly ours.

use regex::Regex;

/// Compiles a pattern as Go reads it.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&translate(pattern)).build().map_err(|error| match error {
        regex::Error::Syntax(text) => text.lines().last().unwrap_or_default().trim().to_owned(),
        regex::Error::CompiledTooBig(limit) => format!("the pattern needs more than {limit} bytes"),
        other => other.to_string(),
    })
}

/// Go's Perl classes know ASCII only, and inside brackets Go has no set operations.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    let mut at_start = false;
    while let Some(c) = chars.next() {
        let first = std::mem::take(&mut at_start);
        match c {
            '\\' => {
                let Some(next) = chars.next() else {
                    out.push('\\');
                    break;
                };
                out.push_str(match next {
                    'd' if in_class => "0-9",
                    'd' => "[0-9]",
                    'D' => "[^0-9]",
                    'w' if in_class => "0-9A-Za-z_",
                    'w' => "[0-9A-Za-z_]",
                    'W' => "[^0-9A-Za-z_]",
                    's' if in_class => r"\t\n\f\r ",
                    's' => r"[\t\n\f\r ]",
                    'S' => r"[^\t\n\f\r ]",
                    'b' if !in_class => r"(?-u:\b)",
                    'B' if !in_class => r"(?-u:\B)",
                    other => {
                        out.push('\\');
                        out.push(other);
                        continue;
                    }
                });
            }
            '[' if !in_class => {
                in_class = true;
                at_start = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
            }
            // First in the brackets it stands for itself.
            ']' if in_class && first => out.push_str(r"\]"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '[' if chars.peek() == Some(&':') => {
                let rest: String = chars.clone().collect();
                match rest.find(":]") {
                    Some(end) => {
                        out.push('[');
                        out.push_str(&rest[..end + 2]);
                        for _ in 0..rest[..end + 2].chars().count() {
                            chars.next();
                        }
                    }
                    None => out.push_str(r"\["),
                }
            }
            '[' => out.push_str(r"\["),
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && chars.peek() == Some(&'-') => out.push_str(r"\-"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_patterns_as_go_does() {
        for (pattern, yes, no) in [
            (r"^\d+$", "123", "١٢٣"),
            (r"^[\w.-]+$", "a_b.c-d", "ä"),
            (r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "ab-1", "ab-"),
            (r"^[[:alpha:]]+$", "abc", "a1"),
            (r"^[a&&b]+$", "a&b", "c"),
            (r"^[[]$", "[", "]"),
            (r"^[]a]+$", "]a", "["),
            (r"^.$", "ü", "üü"),
            (r"^[^\s/]+/[^\s/]+$", "a/b", "a /b"),
            (r"\bfoo\b", "a foo b", "afoo"),
        ] {
            let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(regex.is_match(yes) && !regex.is_match(no), "{pattern}");
        }
        for bad in ["(", "[a", "a{2,1}", "(?=a)", r"\8", "*"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(pattern in "\\PC{0,24}") {
            let _ = compile(&pattern);
        }
    }
}
