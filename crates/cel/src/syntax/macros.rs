//! Macros: calls that become other trees while parsing (cel-go, `parser/macro.go`, `ext/comprehensions.go`,
//! `ext/bindings.go`, `cel/library.go`, `ext/math.go`).

use std::sync::Arc;

use super::ast::{ACCUMULATOR, Comprehension, Expr, Kind, Literal, MapEntry, UNUSED, op};
use super::parser::Parser;

pub(super) enum Expanded {
    Tree(Expr),
    /// The macro was used wrongly; the issue is recorded.
    Fault,
    NoMacro(Option<Expr>, Vec<Expr>),
}

/// Expands a call if it is one of a macro.
pub(super) fn expand(
    p: &mut Parser<'_>,
    offset: u32,
    function: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Expanded {
    let done = |tree: Option<Expr>| tree.map_or(Expanded::Fault, Expanded::Tree);
    let Some(target) = target else {
        if function == "has" && args.len() == 1 {
            return done(has(p, offset, args));
        }
        return Expanded::NoMacro(None, args);
    };
    let namespace = match &target.kind {
        Kind::Ident(name) => &**name,
        _ => "",
    };
    let mut m = Macro { p, offset };
    let tree = match (namespace, function, args.len()) {
        ("cel", "bind", 3) => m.bind(args),
        ("math", "greatest", _) => m.extreme("math.greatest()", "math.@max", args),
        ("math", "least", _) => m.extreme("math.least()", "math.@min", args),
        (_, "all", 2 | 3) => m.quantifier(Quantifier::All, target, args),
        (_, "exists", 2 | 3) => m.quantifier(Quantifier::Exists, target, args),
        (_, "exists_one", 2) | (_, "existsOne", 2 | 3) => m.quantifier(Quantifier::One, target, args),
        (_, "map", 2 | 3) => m.map(target, args),
        (_, "filter", 2) => m.filter(target, args),
        (_, "transformList", 3 | 4) => m.transform(Transform::List, target, args),
        (_, "transformMap", 3 | 4) => m.transform(Transform::Map, target, args),
        (_, "transformMapEntry", 3 | 4) => m.transform(Transform::Entry, target, args),
        (_, "optMap", 2) => m.opt_map(target, args, true),
        (_, "optFlatMap", 2) => m.opt_map(target, args, false),
        _ => return Expanded::NoMacro(Some(target), args),
    };
    done(tree)
}

fn has(p: &mut Parser<'_>, offset: u32, mut args: Vec<Expr>) -> Option<Expr> {
    let arg = args.pop()?;
    match arg.kind {
        Kind::Select { operand, field, test: false } => {
            Some(p.node(offset, Kind::Select { operand, field, test: true }))
        }
        _ => {
            let at = p.offset(&arg);
            p.issue(at, "invalid argument to has() macro")
        }
    }
}

enum Quantifier {
    All,
    Exists,
    One,
}

enum Transform {
    List,
    Map,
    Entry,
}

/// Builds trees whose nodes all stand where the macro's call stands.
struct Macro<'p, 's> {
    p: &'p mut Parser<'s>,
    offset: u32,
}

impl Macro<'_, '_> {
    fn node(&mut self, kind: Kind) -> Expr {
        self.p.node(self.offset, kind)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.p.call(self.offset, function, args)
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn literal(&mut self, value: Literal) -> Expr {
        self.node(Kind::Literal(value))
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        self.node(Kind::List(elements, Vec::new()))
    }

    /// The loop variable that an argument names.
    fn name(&mut self, arg: &Expr, fault: &str) -> Option<Arc<str>> {
        match &arg.kind {
            Kind::Ident(name) if **name == *ACCUMULATOR || &**name == "__result__" => {
                let at = self.p.offset(arg);
                self.p.issue(at, "iteration variable overwrites accumulator variable")
            }
            Kind::Ident(name) if !name.starts_with('.') => Some(name.clone()),
            _ => {
                let at = self.p.offset(arg);
                self.p.issue(at, fault)
            }
        }
    }

    /// The one or two loop variables in front of `rest` other arguments.
    fn names(
        &mut self,
        args: &mut Vec<Expr>,
        count: usize,
        fault: &str,
    ) -> Option<(Arc<str>, Option<Arc<str>>)> {
        let rest = args.split_off(count);
        let named = std::mem::replace(args, rest);
        let first = self.name(&named[0], fault)?;
        let second = match named.get(1) {
            None => None,
            Some(arg) => {
                let second = self.name(arg, fault)?;
                if second == first {
                    let at = self.p.offset(arg);
                    return self.p.issue(at, format!("duplicate variable name: {second}"));
                }
                Some(second)
            }
        };
        Some((first, second))
    }

    fn fold(
        &mut self,
        (var, var2): (Arc<str>, Option<Arc<str>>),
        range: Expr,
        init: Expr,
        condition: Expr,
        step: Expr,
        result: Expr,
    ) -> Expr {
        let accu = ACCUMULATOR.into();
        self.node(Kind::Comprehension(Box::new(Comprehension {
            var,
            var2,
            range,
            accu,
            init,
            condition,
            step,
            result,
        })))
    }

    fn quantifier(&mut self, kind: Quantifier, range: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let vars = args.len() - 1;
        let names = self.names(&mut args, vars, "argument must be a simple name")?;
        let predicate = args.pop()?;
        let accu = self.accu();
        let (init, condition, step, result) = match kind {
            Quantifier::All => {
                let init = self.literal(Literal::Bool(true));
                let condition = self.call(op::NOT_STRICTLY_FALSE, vec![accu]);
                let accu = self.accu();
                (init, condition, self.call(op::AND, vec![accu, predicate]), self.accu())
            }
            Quantifier::Exists => {
                let init = self.literal(Literal::Bool(false));
                let not = self.call(op::NOT, vec![accu]);
                let condition = self.call(op::NOT_STRICTLY_FALSE, vec![not]);
                let accu = self.accu();
                (init, condition, self.call(op::OR, vec![accu, predicate]), self.accu())
            }
            Quantifier::One => {
                let init = self.literal(Literal::Int(0));
                let condition = self.literal(Literal::Bool(true));
                let one = self.literal(Literal::Int(1));
                let more = self.call(op::ADD, vec![accu, one]);
                let same = self.accu();
                let step = self.call(op::CONDITIONAL, vec![predicate, more, same]);
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                (init, condition, step, self.call(op::EQUALS, vec![accu, one]))
            }
        };
        Some(self.fold(names, range, init, condition, step, result))
    }

    /// `accu + [element]` if the filter holds, else `accu`, over all of the range.
    fn collect(
        &mut self,
        names: (Arc<str>, Option<Arc<str>>),
        range: Expr,
        filter: Option<Expr>,
        element: Expr,
    ) -> Expr {
        let init = self.list(Vec::new());
        let accu = self.accu();
        let single = self.list(vec![element]);
        let step = self.call(op::ADD, vec![accu, single]);
        self.gather(names, range, filter, init, step)
    }

    fn gather(
        &mut self,
        names: (Arc<str>, Option<Arc<str>>),
        range: Expr,
        filter: Option<Expr>,
        init: Expr,
        mut step: Expr,
    ) -> Expr {
        let condition = self.literal(Literal::Bool(true));
        if let Some(filter) = filter {
            let same = self.accu();
            step = self.call(op::CONDITIONAL, vec![filter, step, same]);
        }
        let result = self.accu();
        self.fold(names, range, init, condition, step, result)
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let names = self.names(&mut args, 1, "argument is not an identifier")?;
        let element = args.pop()?;
        let filter = args.pop();
        Some(self.collect(names, range, filter, element))
    }

    fn filter(&mut self, range: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let names = self.names(&mut args, 1, "argument is not an identifier")?;
        let element = self.ident(&names.0.clone());
        let filter = args.pop();
        Some(self.collect(names, range, filter, element))
    }

    fn transform(&mut self, kind: Transform, range: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let names = self.names(&mut args, 2, "argument must be a simple name")?;
        let element = args.pop()?;
        let filter = args.pop();
        if matches!(kind, Transform::List) {
            return Some(self.collect(names, range, filter, element));
        }
        let init = self.node(Kind::Map(Vec::<MapEntry>::new()));
        let accu = self.accu();
        let step = match kind {
            Transform::Entry => self.call(op::MAP_INSERT, vec![accu, element]),
            _ => {
                let key = self.ident(&names.0.clone());
                self.call(op::MAP_INSERT, vec![accu, key, element])
            }
        };
        Some(self.gather(names, range, filter, init, step))
    }

    /// A loop over nothing, whose result sees the bound variable as its accumulator.
    fn bound(&mut self, name: Arc<str>, value: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(&name);
        self.node(Kind::Comprehension(Box::new(Comprehension {
            var: UNUSED.into(),
            var2: None,
            range,
            accu: name,
            init: value,
            condition,
            step,
            result,
        })))
    }

    fn bind(&mut self, mut args: Vec<Expr>) -> Option<Expr> {
        let result = args.pop()?;
        let value = args.pop()?;
        let name = match &args.pop()?.kind {
            Kind::Ident(name) if !name.starts_with('.') => name.clone(),
            _ => return self.p.issue(self.offset, "cel.bind() variable names must be simple identifiers"),
        };
        Some(self.bound(name, value, result))
    }

    /// The optional is bound first, so that chains do not repeat what is in front of them.
    fn opt_map(&mut self, target: Expr, mut args: Vec<Expr>, wrap: bool) -> Option<Expr> {
        const HELD: &str = "@optional";
        let function = if wrap { "optMap()" } else { "optFlatMap()" };
        let result = args.pop()?;
        let variable = args.pop()?;
        let name = match &variable.kind {
            Kind::Ident(name) if !name.starts_with('.') => name.clone(),
            _ => {
                let at = self.p.offset(&variable);
                return self.p.issue(at, format!("{function} variable name must be a simple identifier"));
            }
        };
        let member = |this: &mut Self, function: &str| {
            let target = Box::new(this.ident(HELD));
            this.node(Kind::Call { function: function.into(), target: Some(target), args: Vec::new() })
        };
        let has = member(self, "hasValue");
        let value = member(self, "value");
        let mut then = self.bound(name, value, result);
        if wrap {
            then = self.optional("of", vec![then]);
        }
        let none = self.optional("none", Vec::new());
        let choice = self.call(op::CONDITIONAL, vec![has, then, none]);
        Some(self.bound(HELD.into(), target, choice))
    }

    fn optional(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        let target = Some(Box::new(self.ident("optional")));
        self.node(Kind::Call { function: function.into(), target, args })
    }

    fn extreme(&mut self, shown: &str, function: &str, args: Vec<Expr>) -> Option<Expr> {
        let numeric = |e: &Expr| match &e.kind {
            Kind::Literal(l) => matches!(l, Literal::Int(_) | Literal::Uint(_) | Literal::Double(_)),
            Kind::List(..) | Kind::Map(_) | Kind::Struct(..) => false,
            _ => true,
        };
        match args.len() {
            0 => self.p.issue(self.offset, format!("{shown} requires at least one argument")),
            1 => {
                let fine = match &args[0].kind {
                    Kind::List(elements, _) => !elements.is_empty() && elements.iter().all(numeric),
                    _ => numeric(&args[0]),
                };
                if !fine {
                    let at = self.p.offset(&args[0]);
                    return self.p.issue(at, format!("{shown} invalid single argument value"));
                }
                Some(self.call(function, args))
            }
            n => {
                if let Some(bad) = args.iter().find(|a| !numeric(a)) {
                    let at = self.p.offset(bad);
                    return self.p.issue(at, format!("{shown} simple literal arguments must be numeric"));
                }
                if n == 2 {
                    return Some(self.call(function, args));
                }
                let list = self.list(args);
                Some(self.call(function, vec![list]))
            }
        }
    }
}
