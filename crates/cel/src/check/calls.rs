//! Which overloads of a function fit, and what they give.

use super::unify::Unifier;
use super::{Checker, Meaning, qualified};
use crate::functions::{self, Declared};
use crate::syntax::ast::{Expr, Kind, Literal, op};
use crate::ty::Type;

impl Checker<'_> {
    pub(super) fn call(&mut self, e: &Expr, name: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if name == op::OPT_SELECT {
            let owner = self.check(&args[0]);
            self.check(&args[1]);
            let Kind::Literal(Literal::String(field)) = &args[1].kind else { return Type::Error };
            return self.field(e.id, &owner, field, true);
        }
        let mixed = name == "format";
        self.mixed += usize::from(mixed);
        let arg_types: Vec<Type> = args.iter().map(|a| self.check(a)).collect();
        self.mixed -= usize::from(mixed);
        let Some(target) = target else {
            let plain = name.strip_prefix('.').unwrap_or(name);
            return match functions::find(plain) {
                Some(function) => self.resolve(e.id, function, None, arg_types),
                None => self.undeclared(e.id, plain),
            };
        };
        if let Some(prefix) = qualified(target)
            && let Some(function) = functions::find(&format!("{prefix}.{name}"))
        {
            return self.resolve(e.id, function, None, arg_types);
        }
        let target_type = self.check(target);
        match functions::find(name) {
            Some(function) => self.resolve(e.id, function, Some(target_type), arg_types),
            None => self.undeclared(e.id, name),
        }
    }

    fn resolve(
        &mut self,
        id: u32,
        function: &'static Declared,
        target: Option<Type>,
        args: Vec<Type>,
    ) -> Type {
        let member = target.is_some();
        let all: Vec<Type> = target.into_iter().chain(args).collect();
        let mut fitting = Vec::new();
        let mut result: Option<Type> = None;
        for (index, overload) in function.overloads.iter().enumerate() {
            if overload.member != member || overload.args.len() != all.len() {
                continue;
            }
            let base = self.unifier.fresh();
            if !self.unifier.all_assignable(&overload.args, base, &all) {
                continue;
            }
            fitting.push(index);
            let this = self.unifier.substituted(&Unifier::instance(&overload.result, base));
            result = Some(match result {
                None => this,
                Some(before) if before == this => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let shown: Vec<String> = all.iter().map(|t| self.shown(t)).collect();
            let applied = match (member, shown.split_first()) {
                (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = function.name;
            return self.issue(id, format!("found no matching overload for '{name}' applied to '{applied}'"));
        };
        self.meanings[id as usize] =
            Some(Meaning::Call { function, overloads: fitting, namespaced: !member });
        result
    }
}
