//! What an expression can cost, from the bounds of the declared data (cel-go, `checker/cost.go`).

mod calls;

use std::collections::HashMap;
use std::sync::Arc;

use super::range::CostEstimate as Range;
use crate::check::{Checked, Meaning};
use crate::env::EnvInner;
use crate::syntax::ast::{ACCUMULATOR, Ast, Comprehension, Expr, Kind, Literal};
use crate::ty::{Decl, Type};

/// The range of an expression's cost.
pub(crate) fn estimate(ast: &Ast, checked: &Checked, env: &EnvInner) -> Range {
    let mut coster = Coster {
        checked,
        env,
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        decls: HashMap::new(),
    };
    coster.cost(&ast.root)
}

/// How large a container's keys and values are.
#[derive(Clone, Copy)]
struct Entry {
    list: bool,
    key: Range,
    value: Range,
}

struct Local {
    name: Arc<str>,
    decl: Option<Decl>,
    size: Option<Range>,
    entry: Option<Entry>,
}

struct Coster<'c> {
    checked: &'c Checked,
    env: &'c EnvInner,
    locals: Vec<Local>,
    /// Sizes of results, by node.
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, Entry>,
    /// The declaration that a node's value comes from.
    decls: HashMap<u32, Decl>,
}

impl Coster<'_> {
    fn ty(&self, e: &Expr) -> &Type {
        &self.checked.types[e.id as usize]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|l| *l.name == *name)
    }

    fn cost(&mut self, e: &Expr) -> Range {
        match &e.kind {
            Kind::Literal(_) => Range::ZERO,
            Kind::Ident(name) => {
                let decl = match self.local(name) {
                    Some(local) => local.decl.clone(),
                    None => self.variable(e.id),
                };
                self.set_decl(e.id, decl);
                Range::ONE
            }
            Kind::Select { .. } if self.variable(e.id).is_some() => {
                let decl = self.variable(e.id);
                self.set_decl(e.id, decl);
                Range::ONE
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.ty(operand), Type::Map(_) | Type::Struct(_) | Type::Dyn) {
                    sum = sum.add(Range::ONE);
                }
                let decl = self.decls.get(&operand.id).and_then(|d| field_decl(&d.ty, field));
                self.set_decl(e.id, decl);
                sum
            }
            Kind::Call { function, target, args } => self.call(e, function, target.as_deref(), args),
            Kind::List(elements, _) => {
                let mut sum = Range::fixed(10);
                let mut item = if elements.is_empty() { Range::ZERO } else { Range::new(u64::MAX, 0) };
                for element in elements {
                    sum = sum.add(self.cost(element));
                    item = item.union(self.size_or_unknown(element));
                }
                self.entries.insert(e.id, Entry { list: true, key: Range::ONE, value: item });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(30);
                let start = if entries.is_empty() { Range::ZERO } else { Range::new(u64::MAX, 0) };
                let (mut key, mut value) = (start, start);
                for entry in entries {
                    sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(e.id, Entry { list: false, key, value });
                sum
            }
            Kind::Struct(_, fields) => {
                fields.iter().fold(Range::fixed(40), |sum, f| sum.add(self.cost(&f.value)))
            }
            Kind::Comprehension(c) if &*c.accu != ACCUMULATOR => self.bind(e, c),
            Kind::Comprehension(c) => self.comprehension(e, c),
        }
    }

    fn variable(&self, id: u32) -> Option<Decl> {
        match &self.checked.meanings[id as usize] {
            Some(Meaning::Variable(index)) => Some(self.env.variables[*index].1.clone()),
            _ => None,
        }
    }

    fn set_decl(&mut self, id: u32, decl: Option<Decl>) {
        if let Some(decl) = decl {
            self.decls.insert(id, decl);
        }
    }

    fn size(&self, e: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&e.id) {
            return Some(*size);
        }
        match &e.kind {
            Kind::Literal(Literal::String(s)) => return Some(Range::fixed(s.chars().count() as u64)),
            Kind::Literal(Literal::Bytes(b)) => return Some(Range::fixed(b.len() as u64)),
            Kind::Literal(_) => return Some(Range::ONE),
            Kind::List(elements, _) => return Some(Range::fixed(elements.len() as u64)),
            Kind::Map(entries) => return Some(Range::fixed(entries.len() as u64)),
            _ => {}
        }
        if self.ty(e).is_scalar() {
            return Some(Range::ONE);
        }
        if let Some(decl) = self.decls.get(&e.id) {
            return decl.max.map(|max| Range::new(0, max));
        }
        match &e.kind {
            Kind::Ident(name) => self.local(name).and_then(|l| l.size),
            _ => None,
        }
    }

    fn size_or_unknown(&self, e: &Expr) -> Range {
        self.size(e).unwrap_or(Range::UNKNOWN)
    }

    fn entry(&self, e: &Expr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&e.id) {
            return Some(*entry);
        }
        match &e.kind {
            Kind::Ident(name) => self.local(name).and_then(|l| l.entry),
            _ => None,
        }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entry) = self.entry(from) {
            self.entries.insert(to.id, entry);
        }
    }

    fn push_accu(&mut self, c: &Comprehension) {
        self.locals.push(Local {
            name: c.accu.clone(),
            decl: self.decls.get(&c.init.id).cloned(),
            size: self.size(&c.init),
            entry: self.entry(&c.init),
        });
    }

    fn bind(&mut self, e: &Expr, c: &Comprehension) -> Range {
        let sum = self.cost(&c.range).add(self.cost(&c.init));
        self.push_accu(c);
        let sum = sum.add(self.cost(&c.result));
        self.locals.pop();
        self.copy_sizes(e, &c.result);
        sum
    }

    fn comprehension(&mut self, e: &Expr, c: &Comprehension) -> Range {
        let mut sum = self.cost(&c.range).add(self.cost(&c.init));
        self.push_accu(c);
        let entry = self.entry(&c.range);
        let list = entry.map_or_else(|| matches!(self.ty(&c.range), Type::List(_)), |e| e.list);
        let decl = self.decls.get(&c.range.id).cloned();
        let keys = match decl.as_ref().map(|d| &d.ty) {
            Some(Type::Map(map)) => Some(map.key.clone()),
            _ => None,
        };
        let values = decl.as_ref().and_then(|d| element_decl(&d.ty));
        let key = |name: &Arc<str>| Local {
            name: name.clone(),
            decl: keys.clone(),
            size: entry.map(|e| e.key),
            entry: None,
        };
        let value = |name: &Arc<str>| Local {
            name: name.clone(),
            decl: values.clone(),
            size: entry.map(|e| e.value),
            entry: None,
        };
        let depth = self.locals.len();
        match &c.var2 {
            Some(var2) => {
                self.locals.push(key(&c.var));
                self.locals.push(value(var2));
            }
            None if list => self.locals.push(value(&c.var)),
            None => self.locals.push(key(&c.var)),
        }
        let round = self.cost(&c.condition).add(self.cost(&c.step));
        self.locals.truncate(depth);
        sum = sum.add(self.cost(&c.result));
        self.locals.pop();
        let count = self.size_or_unknown(&c.range);
        sum = sum.add(count.times(round));
        match &c.init.kind {
            Kind::Literal(_) => {
                self.sizes.insert(e.id, Range::ONE);
            }
            Kind::List(..) | Kind::Map(_) => {
                self.sizes.insert(e.id, count);
                if let Some(entry) = self.entry(&c.step) {
                    self.entries.insert(e.id, entry);
                }
            }
            _ => {}
        }
        sum
    }
}

fn field_decl(ty: &Type, field: &str) -> Option<Decl> {
    match ty {
        Type::Struct(object) => object.field(field).map(|f| f.decl.clone()),
        Type::Map(map) => Some(map.value.clone()),
        Type::Optional(inner) => field_decl(inner, field),
        _ => None,
    }
}

fn element_decl(ty: &Type) -> Option<Decl> {
    match ty {
        Type::List(list) => Some(list.items.clone()),
        Type::Map(map) => Some(map.value.clone()),
        _ => None,
    }
}
