//! Patterns in RE2's syntax (golang, `regexp/syntax`), run by the `regex` crate, which is as safe: linear in the text.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

use super::{Call, Function};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{Str, Value};

pub(super) const TABLE: &[Function] = &[
    Function(
        "matches",
        Call::Pattern(matches),
        &["matches (string, string) bool", "matches_string string.(string) bool"],
    ),
    Function("find", Call::Pattern(find), &["string_find_string string.(string) string"]),
    Function(
        "findAll",
        Call::Pattern(find_all),
        &[
            "string_find_all_string string.(string) list(string)",
            "string_find_all_string_int string.(string, int) list(string)",
        ],
    ),
];

/// The most memory a compiled pattern may take.
const MOST_SIZE: usize = 1 << 20;

/// Compiles a pattern of RE2's syntax.
pub(crate) fn compile(pattern: &str) -> Outcome<Regex> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(MOST_SIZE)
        .dfa_size_limit(MOST_SIZE)
        .nest_limit(100)
        .build()
        .or_else(|_| fail(format!("error parsing regexp: invalid or too large pattern: `{pattern}`")))
}

/// Where the two syntaxes differ: RE2's `\d`, `\w`, `\s`, `\b` are ASCII, `\Q…\E` quotes, braces that are no
/// repetition and brackets within classes stand for themselves.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut out, &mut chars, false),
            '[' => class(&mut out, &mut chars),
            '{' if !repetition(&chars) => out.push_str("\\{"),
            '}' => out.push_str("\\}"),
            '{' => {
                out.push('{');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether what follows an opening brace makes it a repetition.
fn repetition(chars: &Peekable<Chars<'_>>) -> bool {
    let inside: String = chars.clone().take_while(|c| *c != '}').take(12).collect();
    let closed = chars.clone().nth(inside.chars().count()) == Some('}');
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    closed
        && match inside.split_once(',') {
            None => digits(&inside),
            Some((least, most)) => digits(least) && (most.is_empty() || digits(most)),
        }
}

fn escape(out: &mut String, chars: &mut Peekable<Chars<'_>>, in_class: bool) {
    let Some(c) = chars.next() else { return out.push('\\') };
    match (c, in_class) {
        ('d', false) => out.push_str("[0-9]"),
        ('D', false) => out.push_str("[^0-9]"),
        ('w', false) => out.push_str("[0-9A-Za-z_]"),
        ('W', false) => out.push_str("[^0-9A-Za-z_]"),
        ('s', false) => out.push_str("[\\t\\n\\x0c\\r ]"),
        ('S', false) => out.push_str("[^\\t\\n\\x0c\\r ]"),
        ('b', false) => out.push_str("(?-u:\\b)"),
        ('B', false) => out.push_str("(?-u:\\B)"),
        ('d', true) => out.push_str("0-9"),
        ('D', true) => out.push_str("[^0-9]"),
        ('w', true) => out.push_str("0-9A-Za-z_"),
        ('W', true) => out.push_str("[^0-9A-Za-z_]"),
        ('s', true) => out.push_str("\\t\\n\\x0c\\r "),
        ('S', true) => out.push_str("[^\\t\\n\\x0c\\r ]"),
        ('Q', false) => {
            let mut quoted = String::new();
            while let Some(c) = chars.next() {
                if c == '\\' && chars.peek() == Some(&'E') {
                    chars.next();
                    break;
                }
                quoted.push(c);
            }
            out.push_str(&regex::escape(&quoted));
        }
        ('0'..='7', _) => {
            let mut code = c.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(d) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                chars.next();
                code = code * 8 + d;
            }
            out.push_str(&format!("\\x{{{code:x}}}"));
        }
        (c, _) => {
            out.push('\\');
            out.push(c);
        }
    }
}

fn class(out: &mut String, chars: &mut Peekable<Chars<'_>>) {
    out.push('[');
    if chars.peek() == Some(&'^') {
        chars.next();
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            ']' if !first => return out.push(']'),
            ']' => out.push_str("\\]"),
            '\\' => escape(out, chars, true),
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '-' if first || chars.peek() == Some(&']') => out.push_str("\\-"),
            c => out.push(c),
        }
        first = false;
    }
}

fn matches<'a>(regex: &Regex, args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text), _] => Ok(Value::Bool(regex.is_match(text))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn part<'a>(text: &Str<'a>, found: &regex::Match<'_>) -> Value<'a> {
    match text {
        Str::Borrowed(s) => Value::str(&s[found.range()]),
        Str::Shared(s) => Value::text(&s[found.range()]),
    }
}

fn find<'a>(regex: &Regex, args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(text), _] => Ok(regex.find(text).map_or(Value::str(""), |m| part(text, &m))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn find_all<'a>(regex: &Regex, args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, most) = match args {
        [Value::String(text), _] => (text, usize::MAX),
        [Value::String(text), _, Value::Int(n)] => (text, usize::try_from(*n).unwrap_or(usize::MAX)),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::list(regex.find_iter(text).take(most).map(|m| part(text, &m)).collect()))
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn speaks_re2() {
        for (pattern, text, want) in [
            ("^\\d+$", "123", true),
            ("^\\d+$", "\u{663}", false),
            ("^[\\w.-]+$", "a_b.c-d", true),
            ("^a{2,3}$", "aaa", true),
            ("^a{x}$", "a{x}", true),
            ("^{}$", "{}", true),
            ("^[[a]+$", "[a", true),
            ("^[a&&b]+$", "&", true),
            ("^[]a]+$", "]a", true),
            ("^\\Qa.b\\E$", "a.b", true),
            ("^\\Qa.b\\E$", "axb", false),
            ("^[[:alpha:]]+$", "abc", true),
            ("(?i)^ABC$", "abc", true),
            ("^\\pL+$", "é", true),
            ("\\bfoo\\b", "a foo b", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), want, "{pattern}");
        }
        for bad in ["(", "[a", "a**b(", "(?=x)", "\\"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
        assert!(compile(&"(".repeat(10_000)).is_err());
        assert!(compile("((a{1000}){1000}){1000}").is_err());
    }
}
