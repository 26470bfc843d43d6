//! Paths that a rule names for its errors (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`, `ValidFieldPath`).

use serde_json::Value;

/// The path as errors show it, if it leads to a field of the schema: `.spec.labels['a.b']` → `spec.labels[a.b]`.
pub(super) fn normalized(path: &str, schema: &Value) -> Result<String, String> {
    let mut place = String::new();
    let mut schema = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = quoted(after)?;
            rest = after.strip_prefix(']').ok_or_else(|| "expected ]".to_owned())?;
            name
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return Err("unexpected end of JSON path".to_owned());
            }
            rest = &after[end..];
            after[..end].to_owned()
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        };
        let properties = schema.get("properties").filter(|p| p.is_object());
        if let Some(properties) = properties {
            schema = properties.get(&name).ok_or("does not refer to a valid field")?;
            if !place.is_empty() {
                place.push('.');
            }
            place.push_str(&name);
        } else {
            schema = schema
                .get("additionalProperties")
                .filter(|s| s.is_object())
                .ok_or("does not refer to a valid field")?;
            place.push_str(&format!("[{name}]"));
        }
    }
    Ok(place)
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\'' => return Ok((out, &text[i + 1..])),
            '\\' => out.push(match chars.next() {
                Some((_, 'a')) => '\u{7}',
                Some((_, 'b')) => '\u{8}',
                Some((_, 'f')) => '\u{c}',
                Some((_, 'n')) => '\n',
                Some((_, 'r')) => '\r',
                Some((_, 't')) => '\t',
                Some((_, 'v')) => '\u{b}',
                Some((_, c @ ('\'' | '\\'))) => c,
                other => {
                    let shown = other.map(|(_, c)| c.to_string()).unwrap_or_default();
                    return Err(format!("invalid string literal: invalid escape char \\{shown}"));
                }
            }),
            c => out.push(c),
        }
    }
    Err("unexpected end of JSON path".to_owned())
}
