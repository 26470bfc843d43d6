use super::ParseError;

/// One instruction on one line, comments and continuations gone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heredoc {
    pub(super) name: String,
    /// Whether variables in it are replaced: its name was not quoted.
    pub(super) expand: bool,
    /// Whether leading tabs go: `<<-`.
    chomp: bool,
    /// Its lines as they stand in the Dockerfile.
    pub(super) raw: String,
}

impl Heredoc {
    pub(super) fn content(&self) -> String {
        if !self.chomp {
            return self.raw.clone();
        }
        self.raw.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// The escape character and the logical lines.
pub(super) fn split(text: &str) -> Result<(char, Vec<Line>), ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape(text)?;
    let mut physical = text.lines().enumerate();
    let mut lines = Vec::new();
    while let Some((at, first)) = physical.next() {
        if is_blank(first) || is_comment(first) {
            continue;
        }
        let (mut logical, mut more) = continued(first.trim_start(), escape);
        while more {
            // Comments and empty lines within an instruction do not end it.
            let Some((_, next)) = physical.find(|(_, line)| !is_blank(line) && !is_comment(line)) else {
                break;
            };
            let (part, again) = continued(next, escape);
            logical.push_str(&part);
            more = again;
        }
        let mut heredocs = markers(&logical);
        for heredoc in &mut heredocs {
            loop {
                let Some((_, body)) = physical.next() else {
                    return Err(ParseError::Heredoc { line: at + 1, name: heredoc.name.clone() });
                };
                let bare = if heredoc.chomp { body.trim_start_matches('\t') } else { body };
                if bare == heredoc.name {
                    break;
                }
                heredoc.raw.push_str(body);
                heredoc.raw.push('\n');
            }
        }
        lines.push(Line { number: at + 1, text: logical.trim().to_owned(), heredocs });
    }
    Ok((escape, lines))
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The line without a trailing escape, and whether it had one.
fn continued(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // Two of them are one that is meant.
        Some(before) if !before.ends_with(escape) => (before.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

/// `# escape=` among the `# name=value` comments at the very top.
fn escape(text: &str) -> Result<char, ParseError> {
    for (at, line) in text.lines().enumerate() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        match (name.trim().to_ascii_lowercase().as_str(), value.trim()) {
            ("escape", "\\") => return Ok('\\'),
            ("escape", "`") => return Ok('`'),
            ("escape", value) => return Err(ParseError::Escape { line: at + 1, value: value.to_owned() }),
            ("syntax" | "check", _) => {}
            _ => break,
        }
    }
    Ok('\\')
}

/// The here-documents that an instruction announces.
fn markers(line: &str) -> Vec<Heredoc> {
    let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let keyword = keyword.to_ascii_uppercase();
    if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") || rest.trim_start().starts_with('[') {
        return Vec::new();
    }
    // `$((1 << 2))` and `<<<` are no here-documents: a name must follow at once and be a word.
    rest.split_whitespace()
        .filter_map(|word| {
            let marker = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
            let (chomp, name) = match marker.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, marker),
            };
            let quoted = ['"', '\''].iter().find_map(|quote| name.strip_prefix(*quote)?.strip_suffix(*quote));
            let (name, expand) = match quoted {
                Some(name) => (name, false),
                None => (name, true),
            };
            let valid = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
            valid.then(|| Heredoc { name: name.to_owned(), expand, chomp, raw: String::new() })
        })
        .collect()
}
