//! From text to tree: lexer, parser and macros.

pub(crate) mod ast;
mod lexer;
mod literal;
mod macros;
mod parser;
#[cfg(test)]
mod tests;

pub(crate) use parser::parse;
