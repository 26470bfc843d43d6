//! Variables and quotes in Dockerfiles (moby/buildkit, `frontend/dockerfile/shell/lex.go`).

/// Why a word cannot be expanded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WordError {
    /// A quote without its partner.
    #[error("missing closing {0} in {1:?}")]
    Quote(char, String),
    /// `${` without `}`.
    #[error("missing closing brace in {0:?}")]
    Brace(String),
    /// `${}` or a name that starts in an impossible way.
    #[error("bad variable name in {0:?}")]
    Name(String),
    /// Something after the name that is not supported.
    #[error("unsupported modifier {0:?} in {1:?}")]
    Modifier(String, String),
    /// `${name:?message}` of an unset variable.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What its user wants to be told.
        message: String,
    },
    /// Defaults within defaults without end.
    #[error("variables are nested too deeply in {0:?}")]
    TooDeep(String),
}

const DEEPEST: usize = 32;

/// Expands one text; whitespace in it is kept.
pub(crate) fn expand(
    text: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, WordError> {
    let mut lexer = Lexer::new(text, escape, lookup);
    let mut out = Words { split: false, ..Words::default() };
    lexer.run(None, &mut out, 0)?;
    Ok(out.word)
}

/// Expands a text and splits it at whitespace that no quotes protect.
pub(crate) fn expand_words(
    text: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, WordError> {
    let mut lexer = Lexer::new(text, escape, lookup);
    let mut out = Words { split: true, ..Words::default() };
    lexer.run(None, &mut out, 0)?;
    out.end_word();
    Ok(out.words)
}

#[derive(Default)]
struct Words {
    split: bool,
    words: Vec<String>,
    word: String,
    /// An empty pair of quotes is a word too.
    quoted: bool,
}

impl Words {
    fn plain(&mut self, c: char) {
        if self.split && c.is_whitespace() { self.end_word() } else { self.word.push(c) }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() || self.quoted {
            self.words.push(std::mem::take(&mut self.word));
        }
        self.quoted = false;
    }
}

struct Lexer<'a> {
    text: &'a str,
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { text, chars: text.chars().peekable(), escape, lookup }
    }

    fn own(&self) -> String {
        self.text.to_owned()
    }

    /// Reads up to `stop`, which it takes, or to the end.
    fn run(&mut self, stop: Option<char>, out: &mut Words, depth: usize) -> Result<(), WordError> {
        if depth > DEEPEST {
            return Err(WordError::TooDeep(self.own()));
        }
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(()),
                '\'' => self.single(out)?,
                '"' => self.double(out, depth)?,
                '$' => {
                    for c in self.dollar(depth)?.chars() {
                        out.plain(c);
                    }
                }
                c if c == self.escape => out.word.extend(self.chars.next()),
                c => out.plain(c),
            }
        }
        if stop.is_some() { Err(WordError::Brace(self.own())) } else { Ok(()) }
    }

    fn single(&mut self, out: &mut Words) -> Result<(), WordError> {
        out.quoted = true;
        loop {
            match self.chars.next() {
                None => return Err(WordError::Quote('\'', self.own())),
                Some('\'') => return Ok(()),
                Some(c) => out.word.push(c),
            }
        }
    }

    fn double(&mut self, out: &mut Words, depth: usize) -> Result<(), WordError> {
        out.quoted = true;
        loop {
            match self.chars.next() {
                None => return Err(WordError::Quote('"', self.own())),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar(depth)?;
                    out.word.push_str(&value);
                }
                Some(c) if c == self.escape => match self.chars.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.word.push(next),
                    Some(next) => out.word.extend([c, next]),
                    None => return Err(WordError::Quote('"', self.own())),
                },
                Some(c) => out.word.push(c),
            }
        }
    }

    fn dollar(&mut self, depth: usize) -> Result<String, WordError> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                (self.lookup)(&name).unwrap_or_default()
            });
        }
        let name = self.name();
        if name.is_empty() {
            return Err(WordError::Name(self.own()));
        }
        let value = (self.lookup)(&name);
        let (colon, operator) = match self.chars.next() {
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(':') => (true, self.chars.next()),
            operator => (false, operator),
        };
        let Some(operator) = operator else { return Err(WordError::Brace(self.own())) };
        if !matches!(operator, '-' | '+' | '?') {
            let modifier = if colon { format!(":{operator}") } else { operator.to_string() };
            return Err(WordError::Modifier(modifier, self.own()));
        }
        let mut word = Words::default();
        self.run(Some('}'), &mut word, depth + 1)?;
        // With a colon an empty value counts as none.
        let value = value.filter(|value| !colon || !value.is_empty());
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(word.word)),
            ('+', value) => Ok(value.map(|_| word.word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let message =
                    if word.word.is_empty() { "is not allowed to be unset".into() } else { word.word };
                Err(WordError::Required { name, message })
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            // `$1x` is the first parameter and an x.
            if name.len() == 1 && c.is_ascii_digit() {
                break;
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("1".into()),
            "empty" => Some(String::new()),
            "list" => Some("x y".into()),
            _ => None,
        }
    }

    fn one(text: &str) -> String {
        expand(text, '\\', &lookup).unwrap()
    }

    #[test]
    fn expands() {
        for (text, value) in [
            ("$a", "1"),
            ("${a}b", "1b"),
            ("$b", ""),
            ("$", "$"),
            ("a$", "a$"),
            ("\\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a \\\" \\x\"", "1 \" \\x"),
            ("${b:-d}", "d"),
            ("${b:-${a}2}", "12"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${a:+yes}", "yes"),
            ("${b:+yes}", ""),
            ("${empty+yes}", "yes"),
            ("${a:?no}", "1"),
            ("${b:-'}'}", "}"),
        ] {
            assert_eq!(one(text), value, "{text}");
        }
    }

    #[test]
    fn splits_what_is_not_quoted() {
        let words = |text| expand_words(text, '\\', &lookup).unwrap();
        assert_eq!(words("a $list \"$list\" '' b\\ c"), ["a", "x", "y", "x y", "", "b c"]);
        assert_eq!(words("  "), Vec::<String>::new());
    }

    #[test]
    fn says_what_is_wrong() {
        let wrong = |text: &str| expand(text, '\\', &lookup).unwrap_err();
        assert!(matches!(wrong("'a"), WordError::Quote('\'', _)));
        assert!(matches!(wrong("\"a"), WordError::Quote('"', _)));
        assert!(matches!(wrong("${a"), WordError::Brace(_)));
        assert!(matches!(wrong("${b:-x"), WordError::Brace(_)));
        assert!(matches!(wrong("${}"), WordError::Name(_)));
        assert!(matches!(wrong("${a%x}"), WordError::Modifier(..)));
        assert_eq!(wrong("${b:?gone}").to_string(), "b: gone");
        assert!(matches!(wrong(&"${b:-".repeat(99)), WordError::TooDeep(_)));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\\\$\\{\\}:?+'\" a-c-]{0,40}") {
            let _ = expand(&text, '\\', &lookup);
            let _ = expand_words(&text, '`', &lookup);
        }
    }
}
