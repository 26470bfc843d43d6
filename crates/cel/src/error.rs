use std::fmt;

/// One fault in the text of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where, in code points from the start of the text.
    pub offset: u32,
    /// What is wrong.
    pub message: String,
}

impl Issue {
    pub(crate) fn new(offset: u32, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

/// Why an expression does not compile. Its text is what cel-go shows (`common/errors.go`), one paragraph for each
/// issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors {
    source: String,
    issues: Vec<Issue>,
}

impl CompileErrors {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|i| i.offset);
        issues.dedup();
        Self { source: source.to_owned(), issues }
    }

    /// Each fault.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }
}

impl std::error::Error for CompileErrors {}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.issues.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            show(f, &self.source, issue)?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, source: &str, issue: &Issue) -> fmt::Result {
    let mut line = 1;
    let mut column = issue.offset as usize;
    let mut text = "";
    for candidate in source.split('\n') {
        text = candidate;
        let length = candidate.chars().count();
        if column <= length {
            break;
        }
        column -= length + 1;
        line += 1;
    }
    write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
    let text = text.replace('\t', " ");
    write!(f, "\n | {text}\n | ")?;
    for c in text.chars().take(column) {
        f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
    }
    let wide = text.chars().nth(column).is_some_and(|c| c.len_utf8() > 1);
    f.write_str(if wide { "\u{ff3e}" } else { "^" })
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A fault of the expression on this input, such as `no such key: x`.
    #[error("{0}")]
    Failed(Box<str>),
    /// The expression alone costs more than one call may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// All expressions together cost more than they may.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
}

impl EvalError {
    /// A fault of the expression on this input.
    pub fn failed(message: impl Into<Box<str>>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::failed("no such overload")
    }

    /// Whether the evaluation was stopped for its cost, which no operator absorbs.
    pub fn is_cost(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// The outcome of an evaluation step.
pub(crate) type Outcome<T> = Result<T, EvalError>;

/// A fault of the expression on this input.
pub(crate) fn fail<T>(message: impl Into<Box<str>>) -> Outcome<T> {
    Err(EvalError::failed(message))
}
