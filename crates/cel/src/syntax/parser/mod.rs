//! Precedence climbing over the grammar of google/cel-go, `parser/gen/CEL.g4`.

mod operands;
mod operators;

use super::ast::{Ast, Expr, Kind};
use super::lexer::{Tok, Token, lex};
use crate::error::{CompileErrors, Issue};

/// How deep an expression may be. cel-go's `maxRecursionDepth` is 250, counted more coarsely; this fits the stack of
/// any thread.
const MOST_DEPTH: u16 = 160;
/// How long an expression may be (cel-go's `expressionSizeCodePointLimit`).
const MOST_CODE_POINTS: usize = 100_000;

pub(super) const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Parses an expression and expands its macros.
pub(crate) fn parse(source: &str) -> Result<Ast, CompileErrors> {
    let size = source.chars().count();
    if size > MOST_CODE_POINTS {
        let text =
            format!("expression code point size exceeds limit: size: {size}, limit {MOST_CODE_POINTS}");
        return Err(CompileErrors::new("", vec![Issue::new(0, text)]));
    }
    let mut issues = Vec::new();
    let tokens = lex(source, &mut issues);
    let mut parser = Parser { tokens, at: 0, offsets: Vec::new(), issues, depth: 0 };
    match parser.whole() {
        Some(root) if parser.issues.is_empty() => Ok(Ast { root, offsets: parser.offsets }),
        _ => Err(CompileErrors::new(source, parser.issues)),
    }
}

/// State of the parser; the macros build their trees through it.
pub(super) struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
    offsets: Vec<u32>,
    issues: Vec<Issue>,
    depth: u16,
}

/// `None` means that an issue was recorded and parsing stops.
type Parsed<T> = Option<T>;

impl<'s> Parser<'s> {
    fn peek(&self) -> Token<'s> {
        self.tokens[self.at]
    }

    fn look(&self, ahead: usize) -> Tok {
        self.tokens.get(self.at + ahead).map_or(Tok::Eof, |t| t.tok)
    }

    fn bump(&mut self) -> Token<'s> {
        let token = self.peek();
        if token.tok != Tok::Eof {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, symbol: &'static str) -> Option<Token<'s>> {
        (self.peek().tok == Tok::Sym(symbol)).then(|| self.bump())
    }

    fn expect(&mut self, symbol: &'static str) -> Parsed<Token<'s>> {
        if let Some(token) = self.eat(symbol) {
            return Some(token);
        }
        let found = self.peek();
        self.syntax(found.offset, format!("missing '{symbol}' at '{}'", found.text))
    }

    fn syntax<T>(&mut self, offset: u32, message: String) -> Parsed<T> {
        self.issue(offset, format!("Syntax error: {message}"))
    }

    pub(super) fn issue<T>(&mut self, offset: u32, message: impl Into<String>) -> Parsed<T> {
        self.issues.push(Issue::new(offset, message));
        None
    }

    /// Where a node begins.
    pub(super) fn offset(&self, expr: &Expr) -> u32 {
        self.offsets[expr.id as usize]
    }

    fn id(&mut self, offset: u32) -> u32 {
        self.offsets.push(offset);
        (self.offsets.len() - 1) as u32
    }

    /// A node one level above its parts.
    pub(super) fn node(&mut self, offset: u32, kind: Kind) -> Expr {
        let below = match &kind {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => operand.height,
            Kind::Call { target, args, .. } => {
                args.iter().chain(target.as_deref()).map(|e| e.height).max().unwrap_or(0)
            }
            Kind::List(elements, _) => elements.iter().map(|e| e.height).max().unwrap_or(0),
            Kind::Map(entries) => entries.iter().map(|e| e.key.height.max(e.value.height)).max().unwrap_or(0),
            Kind::Struct(_, fields) => fields.iter().map(|f| f.value.height).max().unwrap_or(0),
            Kind::Comprehension(c) => [&c.range, &c.init, &c.condition, &c.step, &c.result]
                .iter()
                .map(|e| e.height)
                .max()
                .unwrap_or(0),
        };
        Expr { id: self.id(offset), height: below + 1, kind }
    }

    /// Refuses trees that are too deep to walk.
    fn checked(&mut self, expr: Expr) -> Parsed<Expr> {
        if expr.height > MOST_DEPTH { self.too_deep(self.offset(&expr)) } else { Some(expr) }
    }

    #[inline(never)]
    fn too_deep(&mut self, offset: u32) -> Parsed<Expr> {
        self.issue(offset, format!("expression recursion limit exceeded: {MOST_DEPTH}"))
    }

    fn whole(&mut self) -> Parsed<Expr> {
        let expr = self.expr()?;
        let rest = self.peek();
        if rest.tok != Tok::Eof {
            let verb = if self.look(1) == Tok::Eof { "extraneous" } else { "mismatched" };
            return self.syntax(rest.offset, format!("{verb} input '{}' expecting <EOF>", rest.text));
        }
        Some(expr)
    }

    /// A call of a function without a receiver.
    pub(super) fn call(&mut self, offset: u32, function: &str, args: Vec<Expr>) -> Expr {
        self.node(offset, Kind::Call { function: function.into(), target: None, args })
    }
}
