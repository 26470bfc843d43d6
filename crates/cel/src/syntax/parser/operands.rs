//! What operators bind: names, literals, calls and what is in brackets, with the fields and elements taken of them.

use std::sync::Arc;

use super::super::ast::{Expr, FieldEntry, Kind, Literal, MapEntry, op};
use super::super::lexer::{Tok, Token};
use super::super::{RESERVED, literal, macros};
use super::{OPERAND, Parsed, Parser};

impl<'s> Parser<'s> {
    pub(super) fn member(&mut self) -> Parsed<Expr> {
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
