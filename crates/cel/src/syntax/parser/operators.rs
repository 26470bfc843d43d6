//! Operators, from the loosest to the tightest, and what they bind.

use super::super::ast::{Expr, Kind, Literal, op};
use super::super::lexer::Tok;
use super::{MOST_DEPTH, Parsed, Parser};

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
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
