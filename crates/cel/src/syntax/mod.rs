//! From text to tree: lexer, parser and macros.

pub(crate) mod ast;
mod lexer;
mod literal;
mod macros;
mod parser;
#[cfg(test)]
mod tests;

pub(crate) use parser::parse;

/// Words that mean something.
pub(crate) const KEYWORDS: [&str; 4] = ["true", "false", "null", "in"];
/// Words that mean nothing yet, and are no names.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
