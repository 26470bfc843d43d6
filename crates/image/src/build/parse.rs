//! Dockerfiles, from text to instructions (moby/buildkit, `frontend/dockerfile/parser` and `instructions`).

mod lines;
#[cfg(test)]
mod tests;

use lines::{Heredoc, Line};

/// Why a text is no Dockerfile.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// There is nothing in it.
    #[error("the Dockerfile has no instructions")]
    Empty,
    /// Another escape character than `\` and `` ` ``.
    #[error("line {line}: invalid escape character {value:?}")]
    Escape {
        /// Where.
        line: usize,
        /// What was given.
        value: String,
    },
    /// No such instruction.
    #[error("line {line}: unknown instruction {name}")]
    Unknown {
        /// Where.
        line: usize,
        /// What was given.
        name: String,
    },
    /// An instruction that exists but is not supported here.
    #[error("line {line}: {what} is not supported")]
    Unsupported {
        /// Where.
        line: usize,
        /// Instruction or flag.
        what: String,
    },
    /// An instruction is not written as it must be.
    #[error("line {line}: {instruction} {problem}")]
    Malformed {
        /// Where.
        line: usize,
        /// Which instruction.
        instruction: String,
        /// What is wrong.
        problem: String,
    },
    /// The first instruction is not FROM.
    #[error("line {line}: the first instruction must be FROM (only ARG may stand before it)")]
    NoFrom {
        /// Where.
        line: usize,
    },
    /// A here-document without its end.
    #[error("line {line}: the here-document is not ended by {name}")]
    Heredoc {
        /// Where it starts.
        line: usize,
        /// What was looked for.
        name: String,
    },
}

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dockerfile {
    pub(crate) escape: char,
    pub(crate) steps: Vec<Step>,
}

/// One instruction and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    /// As people wrote it, on one line.
    pub(crate) text: String,
    pub(crate) instruction: Instruction,
}

/// An instruction before variables are replaced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Instruction {
    From {
        image: String,
        name: Option<String>,
        platform: Option<String>,
    },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Copy(Transfer),
    Add(Transfer),
    Run(Command),
    Cmd(Command),
    Entrypoint(Command),
    Expose(String),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    StopSignal(String),
    Shell(Vec<String>),
    Maintainer(String),
    /// Something of Docker's that an OCI image cannot say.
    Ignored(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Shell(String),
    Exec(Vec<String>),
}

impl Command {
    /// What to execute.
    pub(crate) fn argv(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(argv) => argv.clone(),
            Self::Shell(script) => shell.iter().cloned().chain([script.clone()]).collect(),
        }
    }
}

/// COPY or ADD.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) sources: Vec<String>,
    pub(crate) inline: Vec<Inline>,
    pub(crate) destination: String,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
}

/// A file that the Dockerfile itself contains.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inline {
    pub(crate) name: String,
    pub(crate) content: String,
    pub(crate) expand: bool,
}

impl Dockerfile {
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let (escape, lines) = lines::split(text)?;
        let steps = lines.iter().map(|line| step(line, escape)).collect::<Result<Vec<_>, _>>()?;
        let first = steps.iter().find(|step| !matches!(step.instruction, Instruction::Arg(_)));
        match first {
            Some(Step { instruction: Instruction::From { .. }, .. }) => Ok(Self { escape, steps }),
            Some(step) => Err(ParseError::NoFrom { line: step.line }),
            None => match steps.first() {
                Some(step) => Err(ParseError::NoFrom { line: step.line }),
                None => Err(ParseError::Empty),
            },
        }
    }
}

struct Parts<'a> {
    line: &'a Line,
    keyword: String,
    escape: char,
}

impl Parts<'_> {
    fn malformed(&self, problem: impl Into<String>) -> ParseError {
        ParseError::Malformed {
            line: self.line.number,
            instruction: self.keyword.clone(),
            problem: problem.into(),
        }
    }

    fn unsupported(&self, what: impl Into<String>) -> ParseError {
        ParseError::Unsupported { line: self.line.number, what: what.into() }
    }

    /// The single argument of an instruction that takes one.
    fn one(&self, rest: &str) -> Result<String, ParseError> {
        match rest {
            "" => Err(self.malformed("needs an argument")),
            rest => Ok(rest.to_owned()),
        }
    }

    /// `name=value` pairs, or the old form of one name and a value with spaces.
    fn pairs(&self, rest: &str) -> Result<Vec<(String, String)>, ParseError> {
        let words = raw_words(rest, self.escape);
        let Some(first) = words.first() else { return Err(self.malformed("needs name=value")) };
        if !first.contains('=') {
            let (name, value) = rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| self.malformed(format!("needs a value for {first}")))?;
            return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
        }
        words
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some(("", _)) => Err(self.malformed("needs a name before =")),
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(self.malformed(format!("needs name=value, not {word:?}"))),
            })
            .collect()
    }
}

fn step(line: &Line, escape: char) -> Result<Step, ParseError> {
    let (keyword, rest) = line.text.split_once(char::is_whitespace).unwrap_or((&line.text, ""));
    let parts = Parts { line, keyword: keyword.to_ascii_uppercase(), escape };
    let (flags, rest) = flags(rest.trim());
    if !matches!(parts.keyword.as_str(), "FROM" | "COPY" | "ADD" | "RUN" | "HEALTHCHECK")
        && let Some((name, _)) = flags.first()
    {
        return Err(parts.malformed(format!("has no flag --{name}")));
    }
    let instruction = match parts.keyword.as_str() {
        "FROM" => from(&parts, &flags, rest)?,
        "ARG" => Instruction::Arg(args(&parts, rest)?),
        "ENV" => Instruction::Env(parts.pairs(rest)?),
        "LABEL" => Instruction::Label(parts.pairs(rest)?),
        "COPY" => Instruction::Copy(transfer(&parts, &flags, rest)?),
        "ADD" => Instruction::Add(transfer(&parts, &flags, rest)?),
        "RUN" => run(&parts, &flags, rest)?,
        "CMD" => Instruction::Cmd(command(rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "EXPOSE" => Instruction::Expose(parts.one(rest)?),
        "VOLUME" => Instruction::Volume(match json(rest) {
            Some(paths) => paths,
            None => raw_words(&parts.one(rest)?, escape),
        }),
        "USER" => Instruction::User(parts.one(rest)?),
        "WORKDIR" => Instruction::Workdir(parts.one(rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(parts.one(rest)?),
        "SHELL" => match json(rest) {
            Some(shell) if !shell.is_empty() => Instruction::Shell(shell),
            _ => return Err(parts.malformed("needs a JSON array such as [\"/bin/sh\", \"-c\"]")),
        },
        "MAINTAINER" => Instruction::Maintainer(parts.one(rest)?),
        "HEALTHCHECK" => Instruction::Ignored("HEALTHCHECK has no place in an OCI image and is ignored"),
        "ONBUILD" => return Err(parts.unsupported("ONBUILD")),
        _ => return Err(ParseError::Unknown { line: line.number, name: parts.keyword }),
    };
    Ok(Step { line: line.number, text: line.text.trim().to_owned(), instruction })
}

fn from(parts: &Parts, flags: &[(String, String)], rest: &str) -> Result<Instruction, ParseError> {
    let mut platform = None;
    for (name, value) in flags {
        match name.as_str() {
            "platform" => platform = Some(value.clone()),
            _ => return Err(parts.malformed(format!("has no flag --{name}"))),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => (image, Some(name.to_ascii_lowercase())),
        _ => return Err(parts.malformed("needs an image, and optionally AS name")),
    };
    Ok(Instruction::From { image: (*image).to_owned(), name, platform })
}

fn args(parts: &Parts, rest: &str) -> Result<Vec<(String, Option<String>)>, ParseError> {
    let words = raw_words(rest, parts.escape);
    if words.is_empty() {
        return Err(parts.malformed("needs a name"));
    }
    words
        .into_iter()
        .map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(valid) {
                return Err(parts.malformed(format!("needs a variable name, not {name:?}")));
            }
            Ok((name.to_owned(), value))
        })
        .collect()
}

fn transfer(parts: &Parts, flags: &[(String, String)], rest: &str) -> Result<Transfer, ParseError> {
    let is_copy = parts.keyword == "COPY";
    let mut transfer = Transfer::default();
    for (name, value) in flags {
        match name.as_str() {
            "from" if is_copy => transfer.from = Some(value.clone()),
            "chown" => transfer.chown = Some(value.clone()),
            "chmod" => transfer.chmod = Some(value.clone()),
            // Only a hint for the cache.
            "link" => {}
            _ => return Err(parts.unsupported(format!("{} --{name}", parts.keyword))),
        }
    }
    let mut words = json(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(parts.malformed("needs at least one source and a destination"));
    };
    let mut heredocs = parts.line.heredocs.iter();
    for word in words {
        match heredocs.next_if_word(&word) {
            Some(heredoc) => transfer.inline.push(Inline {
                name: heredoc.name.clone(),
                content: heredoc.content(),
                expand: heredoc.expand,
            }),
            None => transfer.sources.push(word),
        }
    }
    transfer.destination = destination;
    Ok(transfer)
}

trait NextIfWord<'a> {
    fn next_if_word(&mut self, word: &str) -> Option<&'a Heredoc>;
}

impl<'a> NextIfWord<'a> for std::slice::Iter<'a, Heredoc> {
    fn next_if_word(&mut self, word: &str) -> Option<&'a Heredoc> {
        if word.starts_with("<<") { self.next() } else { None }
    }
}

fn run(parts: &Parts, flags: &[(String, String)], rest: &str) -> Result<Instruction, ParseError> {
    if let Some((name, _)) = flags.first() {
        return Err(parts.unsupported(format!("RUN --{name}")));
    }
    if rest.is_empty() {
        return Err(parts.malformed("needs a command"));
    }
    let heredocs = &parts.line.heredocs;
    let command = match heredocs.as_slice() {
        [] => command(rest),
        [only] if rest.starts_with("<<") && !rest.contains(char::is_whitespace) => {
            let script = only.content();
            if script.starts_with("#!") {
                return Err(parts.unsupported("a RUN here-document with an interpreter line"));
            }
            Command::Shell(script)
        }
        // The shell reads its here-documents itself.
        several => {
            let mut script = rest.to_owned();
            for heredoc in several {
                script.push('\n');
                script.push_str(&heredoc.raw);
                script.push_str(&heredoc.name);
            }
            Command::Shell(script)
        }
    };
    Ok(Instruction::Run(command))
}

fn command(rest: &str) -> Command {
    match json(rest) {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.to_owned()),
    }
}

/// A JSON array of strings; anything else is taken for words.
fn json(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok())?
}

/// The `--name=value` words at the beginning.
fn flags(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut flags = Vec::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (word, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        if word.is_empty() {
            break;
        }
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        flags.push((name.to_ascii_lowercase(), value.to_owned()));
        rest = after.trim_start();
    }
    (flags, rest)
}

/// Splits at whitespace outside quotes; quotes and escapes stay for the expansion.
fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (c, None | Some('"')) if c == escape => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
