//! Text, counted in code points (cel-go, `ext/strings.go`), and `indexOf` of lists (apiserver,
//! `pkg/cel/library/lists.go`), which shares its name.

use super::format_string::format;
use super::{Call, Function, lists};
use crate::error::{EvalError, Outcome, fail};
use crate::value::{List, Str, Value, quoted};

pub(super) const TABLE: &[Function] = &[
    Function("contains", Call::Plain(contains), &["contains_string string.(string) bool"]),
    Function("startsWith", Call::Plain(starts_with), &["starts_with_string string.(string) bool"]),
    Function("endsWith", Call::Plain(ends_with), &["ends_with_string string.(string) bool"]),
    Function("charAt", Call::Plain(char_at), &["string_char_at_int string.(int) string"]),
    Function(
        "indexOf",
        Call::Plain(index_of),
        &[
            "string_index_of_string string.(string) int",
            "string_index_of_string_int string.(string, int) int",
            "list_a_index_of_int list(A).(A) int",
        ],
    ),
    Function(
        "lastIndexOf",
        Call::Plain(last_index_of),
        &[
            "string_last_index_of_string string.(string) int",
            "string_last_index_of_string_int string.(string, int) int",
            "list_a_last_index_of_int list(A).(A) int",
        ],
    ),
    Function("lowerAscii", Call::Plain(lower), &["string_lower_ascii string.() string"]),
    Function("upperAscii", Call::Plain(upper), &["string_upper_ascii string.() string"]),
    Function("trim", Call::Plain(trim), &["string_trim string.() string"]),
    Function("reverse", Call::Plain(reverse), &["string_reverse string.() string"]),
    Function("strings.quote", Call::Plain(quote), &["strings_quote (string) string"]),
    Function("format", Call::Plain(formatted), &["string_format string.(list(dyn)) string"]),
    Function(
        "replace",
        Call::Plain(replace),
        &[
            "string_replace_string_string string.(string, string) string",
            "string_replace_string_string_int string.(string, string, int) string",
        ],
    ),
    Function(
        "split",
        Call::Plain(split),
        &[
            "string_split_string string.(string) list(string)",
            "string_split_string_int string.(string, int) list(string)",
        ],
    ),
    Function(
        "join",
        Call::Plain(join),
        &["list_join list(string).() string", "list_join_string list(string).(string) string"],
    ),
    Function(
        "substring",
        Call::Plain(substring),
        &["string_substring_int string.(int) string", "string_substring_int_int string.(int, int) string"],
    ),
];

/// A part of a text, borrowed if the whole is.
fn slice<'a>(text: &Str<'a>, from: usize, to: usize) -> Value<'a> {
    match text {
        Str::Borrowed(s) => Value::str(&s[from..to]),
        Str::Shared(s) => Value::text(&s[from..to]),
    }
}

/// Where the code point with this number begins, in bytes; its end for the number after the last.
fn byte_at(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.nth(index)
}

fn out_of_range<T>(index: i64) -> Outcome<T> {
    fail(format!("index out of range: {index}"))
}

fn contains<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s), Value::String(part)] => Ok(Value::Bool(s.contains(&**part))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn starts_with<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s), Value::String(part)] => Ok(Value::Bool(s.starts_with(&**part))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ends_with<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s), Value::String(part)] => Ok(Value::Bool(s.ends_with(&**part))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn char_at<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::String(s), Value::Int(index)] = args else { return Err(EvalError::no_such_overload()) };
    match byte_at(s, *index) {
        None => out_of_range(*index),
        Some(at) => {
            let width = s[at..].chars().next().map_or(0, char::len_utf8);
            Ok(slice(s, at, at + width))
        }
    }
}

fn index_of<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, part, from) = match args {
        [Value::List(list), item] => return Ok(lists::index_of(list, item)),
        [Value::String(s), Value::String(part)] => (s, part, 0),
        [Value::String(s), Value::String(part), Value::Int(from)] => (s, part, *from),
        _ => return Err(EvalError::no_such_overload()),
    };
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let Some(start) = byte_at(text, from) else {
        return if from < 0 { out_of_range(from) } else { Ok(Value::Int(-1)) };
    };
    Ok(Value::Int(match text[start..].find(&**part) {
        Some(at) => from + text[start..start + at].chars().count() as i64,
        None => -1,
    }))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, part, from) = match args {
        [Value::List(list), item] => return Ok(lists::last_index_of(list, item)),
        [Value::String(s), Value::String(part)] => (s, part, None),
        [Value::String(s), Value::String(part), Value::Int(from)] => (s, part, Some(*from)),
        _ => return Err(EvalError::no_such_overload()),
    };
    let length = text.chars().count() as i64;
    if let Some(from) = from
        && (from < 0 || from >= length)
        && !(part.is_empty() && from >= 0)
    {
        return if from < 0 { out_of_range(from) } else { Ok(Value::Int(-1)) };
    }
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or(length)));
    }
    // A match may begin no later than `from`, so it ends no later than that and the part's length.
    let wide = part.chars().count() as i64;
    let end = from.and_then(|from| byte_at(text, from + wide)).unwrap_or(text.len());
    Ok(Value::Int(text[..end].rfind(&**part).map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn lower<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::text(s.to_ascii_lowercase())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn upper<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::text(s.to_ascii_uppercase())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn trim<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let [Value::String(s)] = args else { return Err(EvalError::no_such_overload()) };
    let from = s.len() - s.trim_start().len();
    Ok(slice(s, from, from + s.trim().len()))
}

fn reverse<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::text(s.chars().rev().collect::<String>())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn quote<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::text(quoted(s))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn formatted<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s), Value::List(list)] => format(s, list).map(Value::text),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The longest text that a replacement may make. What it costs is reckoned by what goes in, and what comes out may be as
/// long as the square of that.
const MOST_REPLACED: usize = 16 << 20;

fn replace<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (s, from, to, most) = match args {
        [Value::String(s), Value::String(from), Value::String(to)] => (s, from, to, usize::MAX),
        [Value::String(s), Value::String(from), Value::String(to), Value::Int(n)] => {
            (s, from, to, usize::try_from(*n).unwrap_or(usize::MAX))
        }
        _ => return Err(EvalError::no_such_overload()),
    };
    // Counting is needed only where the text can become that long at all.
    if s.len().saturating_add(1).saturating_mul(to.len()) > MOST_REPLACED {
        let times = s.matches(&**from).take(most).count();
        if times.saturating_mul(to.len()).saturating_add(s.len()) > MOST_REPLACED {
            return Err(EvalError::CostLimit);
        }
    }
    Ok(Value::text(s.replacen(&**from, to, most)))
}

fn split<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (text, by, limit) = match args {
        [Value::String(s), Value::String(by)] => (s, by, usize::MAX),
        [Value::String(s), Value::String(by), Value::Int(n)] => {
            (s, by, usize::try_from(*n).unwrap_or(usize::MAX))
        }
        _ => return Err(EvalError::no_such_overload()),
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while parts.len() + 1 < limit {
        // An empty separator splits after each code point.
        let (end, next) = if by.is_empty() {
            match text[at..].chars().next() {
                Some(c) if at + c.len_utf8() < text.len() => (at + c.len_utf8(), at + c.len_utf8()),
                _ => break,
            }
        } else {
            match text[at..].find(&**by) {
                Some(found) => (at + found, at + found + by.len()),
                None => break,
            }
        };
        parts.push(slice(text, at, end));
        at = next;
    }
    if !(by.is_empty() && text.is_empty()) {
        parts.push(slice(text, at, text.len()));
    }
    Ok(Value::list(parts))
}

fn join<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    let (list, by): (&List<'a>, &str) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(by)] => (list, by),
        _ => return Err(EvalError::no_such_overload()),
    };
    let mut text = String::new();
    for (i, item) in list.iter().enumerate() {
        let Value::String(item) = item else { return Err(EvalError::no_such_overload()) };
        if i > 0 {
            text.push_str(by);
        }
        text.push_str(&item);
    }
    Ok(Value::text(text))
}

fn substring<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s), Value::Int(from)] => match byte_at(s, *from) {
            Some(at) => Ok(slice(s, at, s.len())),
            None => out_of_range(*from),
        },
        [Value::String(s), Value::Int(from), Value::Int(to)] => {
            if from > to {
                return fail(format!("invalid substring range. start: {from}, end: {to}"));
            }
            match (byte_at(s, *from), byte_at(s, *to)) {
                (Some(a), Some(b)) => Ok(slice(s, a, b)),
                (None, _) => out_of_range(*from),
                (_, None) => out_of_range(*to),
            }
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_does_not_blow_up() {
        let text = |n: usize| Value::text("a".repeat(n));
        let long = [text(20_000), text(1), text(20_000)];
        assert!(matches!(replace(&long), Err(EvalError::CostLimit)));
        // So many of them are not.
        assert!(replace(&[text(20_000), text(1), text(20_000), Value::Int(2)]).is_ok());
        assert!(replace(&[text(20_000), Value::text("b".to_owned()), text(20_000)]).is_ok());
    }
}
