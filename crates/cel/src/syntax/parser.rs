//! Precedence climbing over the grammar of google/cel-go, `parser/gen/CEL.g4`.

use std::sync::Arc;

use super::ast::{Ast, Expr, FieldEntry, Kind, Literal, MapEntry, op};
use super::lexer::{Tok, Token, lex};
use super::{literal, macros};
use crate::error::{CompileErrors, Issue};

/// How deep an expression may be. cel-go's `maxRecursionDepth` is 250, counted more coarsely; this fits the stack of
/// any thread.
const MOST_DEPTH: u16 = 160;
/// How long an expression may be (cel-go's `expressionSizeCodePointLimit`).
const MOST_CODE_POINTS: usize = 100_000;

pub(super) const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

const RESERVED: [&str; 17] = [
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

/// The function behind a binary operator, and how tightly it binds.
fn operator(tok: Tok) -> Option<(&'static str, usize)> {
    let Tok::Sym(symbol) = tok else { return None };
    Some(match symbol {
        "<" => ("_<_", 0),
        "<=" => ("_<=_", 0),
        ">=" => ("_>=_", 0),
        ">" => ("_>_", 0),
        "==" => ("_==_", 0),
        "!=" => ("_!=_", 0),
        "in" => ("@in", 0),
        "+" => ("_+_", 1),
        "-" => ("_-_", 1),
        "*" => ("_*_", 2),
        "/" => ("_/_", 2),
        "%" => ("_%_", 2),
        _ => return None,
    })
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

    fn expr(&mut self) -> Parsed<Expr> {
        if self.depth >= MOST_DEPTH {
            return self.too_deep(self.peek().offset);
        }
        self.depth += 1;
        let expr = self.ternary();
        self.depth -= 1;
        expr
    }

    fn ternary(&mut self) -> Parsed<Expr> {
        let condition = self.logical()?;
        if self.peek().tok == Tok::Sym("?") { self.branches(condition) } else { Some(condition) }
    }

    #[inline(never)]
    fn branches(&mut self, condition: Expr) -> Parsed<Expr> {
        let question = self.bump();
        let then = self.logical()?;
        self.expect(":")?;
        let otherwise = self.expr()?;
        let expr = self.call(question.offset, op::CONDITIONAL, vec![condition, then, otherwise]);
        self.checked(expr)
    }

    /// Chains of `||` over chains of `&&`, as balanced trees so that long chains are shallow.
    fn logical(&mut self) -> Parsed<Expr> {
        let mut either = vec![];
        let mut ors = vec![];
        loop {
            let mut both = vec![];
            let mut ands = vec![];
            loop {
                both.push(Some(self.binary(0)?));
                let Some(token) = self.eat("&&") else { break };
                ands.push(token.offset);
            }
            let term = self.balance(op::AND, &mut both, &ands);
            either.push(Some(self.checked(term)?));
            let Some(token) = self.eat("||") else { break };
            ors.push(token.offset);
        }
        let expr = self.balance(op::OR, &mut either, &ors);
        self.checked(expr)
    }

    /// `terms` has one more than `ops`; each is taken once.
    fn balance(&mut self, function: &str, terms: &mut [Option<Expr>], ops: &[u32]) -> Expr {
        if ops.is_empty() {
            return terms[0].take().unwrap_or_else(|| self.node(0, Kind::Literal(Literal::Null)));
        }
        let middle = ops.len() / 2;
        let (left, right) = terms.split_at_mut(middle + 1);
        let left = self.balance(function, left, &ops[..middle]);
        let right = self.balance(function, right, &ops[middle + 1..]);
        self.call(ops[middle], function, vec![left, right])
    }

    /// Relations, sums and products, those that bind at least as tightly as `level`.
    fn binary(&mut self, level: usize) -> Parsed<Expr> {
        let mut left = self.unary()?;
        while let Some((function, tightness)) = operator(self.peek().tok).filter(|(_, t)| *t >= level) {
            let offset = self.bump().offset;
            let right = self.binary(tightness + 1)?;
            left = self.call(offset, function, vec![left, right]);
            left = self.checked(left)?;
        }
        Some(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let first = self.peek();
        let (symbol, function) = match first.tok {
            Tok::Sym("!") => ("!", op::NOT),
            Tok::Sym("-") => ("-", op::NEGATE),
            _ => return self.member(),
        };
        let mut count = 0;
        while self.peek().tok == Tok::Sym(symbol) {
            if symbol == "-" && count % 2 == 0 && matches!(self.look(1), Tok::Int | Tok::Double | Tok::Uint) {
                break; // The sign belongs to the number.
            }
            self.bump();
            count += 1;
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Some(operand);
        }
        let expr = self.call(first.offset, function, vec![operand]);
        self.checked(expr)
    }

    fn member(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        loop {
            if let Some(dot) = self.eat(".") {
                expr = self.after_dot(dot, expr)?;
                continue;
            }
            if self.peek().tok != Tok::Sym("[") {
                return Some(expr);
            }
            expr = self.index(expr)?;
        }
    }

    #[inline(never)]
    fn index(&mut self, operand: Expr) -> Parsed<Expr> {
        let open = self.bump();
        let optional = self.eat("?").is_some();
        let index = self.expr()?;
        self.expect("]")?;
        let function = if optional { op::OPT_INDEX } else { op::INDEX };
        let expr = self.call(open.offset, function, vec![operand, index]);
        self.checked(expr)
    }

    /// What follows a dot: a field, an optional field or a receiver call.
    fn after_dot(&mut self, dot: Token<'s>, operand: Expr) -> Parsed<Expr> {
        let optional = self.eat("?").is_some();
        let name = self.peek();
        let field: Arc<str> = match name.tok {
            Tok::Ident => name.text.into(),
            Tok::QuotedIdent => name.text.trim_matches('`').into(),
            _ => return self.no_field(name, optional),
        };
        self.bump();
        let expr = if optional {
            let field = self.node(name.offset, Kind::Literal(Literal::String(field)));
            self.call(dot.offset, op::OPT_SELECT, vec![operand, field])
        } else if name.tok == Tok::Ident
            && let Some(open) = self.eat("(")
        {
            let args = self.arguments()?;
            self.finish_call(open.offset, field, Some(operand), args)?
        } else {
            self.node(dot.offset, Kind::Select { operand: Box::new(operand), field, test: false })
        };
        self.checked(expr)
    }

    #[inline(never)]
    fn no_field<T>(&mut self, found: Token<'s>, optional: bool) -> Parsed<T> {
        let text = if optional || found.tok == Tok::Eof {
            format!("mismatched input '{}' expecting {{IDENTIFIER, ESC_IDENTIFIER}}", found.text)
        } else {
            format!("no viable alternative at input '.{}'", found.text)
        };
        self.syntax(found.offset, text)
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Some(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",").is_none() {
                self.expect(")")?;
                return Some(args);
            }
        }
    }

    fn finish_call(
        &mut self,
        offset: u32,
        function: Arc<str>,
        target: Option<Expr>,
        args: Vec<Expr>,
    ) -> Parsed<Expr> {
        match macros::expand(self, offset, &function, target, args) {
            macros::Expanded::Tree(expr) => Some(expr),
            macros::Expanded::Fault => None,
            macros::Expanded::NoMacro(target, args) => {
                Some(self.node(offset, Kind::Call { function, target: target.map(Box::new), args }))
            }
        }
    }

    /// A call of a function without a receiver.
    pub(super) fn call(&mut self, offset: u32, function: &str, args: Vec<Expr>) -> Expr {
        self.node(offset, Kind::Call { function: function.into(), target: None, args })
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        match token.tok {
            Tok::Ident => self.identifier(false),
            Tok::Sym(".") if self.look(1) == Tok::Ident => {
                self.bump();
                self.identifier(true)
            }
            Tok::Sym("(") => {
                self.bump();
                let inner = self.expr()?;
                self.expect(")")?;
                Some(inner)
            }
            Tok::Sym("[") => self.list(),
            Tok::Sym("{") => self.map(),
            _ => self.literal(token),
        }
    }

    fn literal(&mut self, token: Token<'s>) -> Parsed<Expr> {
        let negative = token.tok == Tok::Sym("-");
        let at = usize::from(negative);
        let text = self.tokens.get(self.at + at).map_or("", |t| t.text);
        let value = match self.look(at) {
            Tok::Int | Tok::Uint => literal::integer(text, negative),
            Tok::Double => literal::double(text, negative),
            _ if negative => return self.no_operand(),
            Tok::Str => literal::string(text),
            Tok::Sym("true") => Ok(Literal::Bool(true)),
            Tok::Sym("false") => Ok(Literal::Bool(false)),
            Tok::Sym("null") => Ok(Literal::Null),
            _ => return self.no_operand(),
        };
        self.at += at + 1;
        match value {
            Ok(value) => Some(self.node(token.offset, Kind::Literal(value))),
            Err(fault) => self.issue(token.offset, fault),
        }
    }

    /// There is no operand here. A single stray token before one is skipped, as ANTLR does, to find more faults.
    fn no_operand<T>(&mut self) -> Parsed<T> {
        let found = self.peek();
        let starts = |tok| match tok {
            Tok::Eof | Tok::QuotedIdent => false,
            Tok::Sym(s) => matches!(s, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null"),
            _ => true,
        };
        let extra = found.tok != Tok::Eof && starts(self.look(1));
        let verb = if extra { "extraneous" } else { "mismatched" };
        self.syntax(found.offset, format!("{verb} input '{}' expecting {OPERAND}", found.text))
    }

    /// A name: a variable, a call, or the type of a message literal.
    fn identifier(&mut self, absolute: bool) -> Parsed<Expr> {
        let mut ahead = 1;
        while self.look(ahead) == Tok::Sym(".") && self.look(ahead + 1) == Tok::Ident {
            ahead += 2;
        }
        let dot = if absolute { "." } else { "" };
        if self.look(ahead) == Tok::Sym("{") {
            let mut name = dot.to_owned();
            for _ in 0..ahead {
                name.push_str(self.bump().text);
            }
            return self.message(name.into());
        }
        let token = self.bump();
        let name: Arc<str> = format!("{dot}{}", token.text).into();
        if RESERVED.contains(&token.text) {
            return self.issue(token.offset, format!("reserved identifier: {}", token.text));
        }
        match self.eat("(") {
            Some(open) => {
                let args = self.arguments()?;
                self.finish_call(open.offset, name, None, args)
            }
            None => Some(self.node(token.offset, Kind::Ident(name))),
        }
    }

    fn list(&mut self) -> Parsed<Expr> {
        let open = self.bump();
        let mut elements = Vec::new();
        let mut optional = Vec::new();
        while self.eat("]").is_none() {
            if self.eat("?").is_some() {
                optional.push(elements.len());
            }
            elements.push(self.expr()?);
            if self.eat(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        let expr = self.node(open.offset, Kind::List(elements, optional));
        self.checked(expr)
    }

    fn map(&mut self) -> Parsed<Expr> {
        let open = self.bump();
        let mut entries = Vec::new();
        while self.eat("}").is_none() {
            let optional = self.eat("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(MapEntry { key, value, optional });
            if self.eat(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        let expr = self.node(open.offset, Kind::Map(entries));
        self.checked(expr)
    }

    fn message(&mut self, name: Arc<str>) -> Parsed<Expr> {
        let open = self.bump();
        let mut fields = Vec::new();
        while self.eat("}").is_none() {
            let optional = self.eat("?").is_some();
            let token = self.peek();
            let field: Arc<str> = match token.tok {
                Tok::Ident => token.text.into(),
                Tok::QuotedIdent => token.text.trim_matches('`').into(),
                _ => {
                    let text =
                        format!("mismatched input '{}' expecting {{'}}', ',', '?', IDENTIFIER}}", token.text);
                    return self.syntax(token.offset, text);
                }
            };
            self.bump();
            let colon = self.expect(":")?;
            let id = self.id(colon.offset);
            let value = self.expr()?;
            fields.push(FieldEntry { id, name: field, value, optional });
            if self.eat(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        let expr = self.node(open.offset, Kind::Struct(name, fields));
        self.checked(expr)
    }
}
