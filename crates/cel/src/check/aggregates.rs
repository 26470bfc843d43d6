//! Lists, maps and messages: the one type that their parts have together.

use super::Checker;
use crate::syntax::ast::{Expr, FieldEntry, MapEntry};
use crate::ty::Type;

impl Checker<'_> {
    /// The one type of a literal's parts: each must fit what came before, or the other way round.
    fn join(&mut self, so_far: Option<Type>, next: Type, id: u32) -> Type {
        let Some(so_far) = so_far else { return next };
        if self.unifier.assignable(&so_far, &next) {
            return self.unifier.more_general(&so_far, &next);
        }
        if self.mixed > 0 {
            return Type::Dyn;
        }
        let (want, found) = (self.shown(&so_far), self.shown(&next));
        self.issue(id, format!("expected type '{want}' but found '{found}'"));
        so_far
    }

    /// The type within an optional, which an optional element or field must be.
    fn inner(&mut self, ty: Type, id: u32) -> Type {
        match self.unifier.resolved(&ty) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let shown = self.shown(&other);
                self.issue(id, format!("expected type 'optional_type({shown})' but found '{shown}'"))
            }
        }
    }

    pub(super) fn list(&mut self, elements: &[Expr], optional: &[usize]) -> Type {
        let mut joined = None;
        for (i, element) in elements.iter().enumerate() {
            let mut ty = self.check(element);
            if optional.contains(&i) {
                ty = self.inner(ty, element.id);
            }
            joined = Some(self.join(joined, ty, element.id));
        }
        let item = joined.unwrap_or_else(|| Type::Param(self.unifier.one()));
        self.bounded(Type::list(item))
    }

    /// Types that grow with each use of a bound name (`{x: x}`) end as `dyn` before they grow without end.
    fn bounded(&self, ty: Type) -> Type {
        fn parts(ty: &Type) -> usize {
            1 + ty.params().into_iter().map(parts).sum::<usize>()
        }
        if parts(&self.unifier.substituted(&ty)) > 500 { Type::Dyn } else { ty }
    }

    pub(super) fn map(&mut self, entries: &[MapEntry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(keys, key, entry.key.id));
            let mut value = self.check(&entry.value);
            if entry.optional {
                value = self.inner(value, entry.value.id);
            }
            values = Some(self.join(values, value, entry.value.id));
        }
        match (keys, values) {
            (Some(key), Some(value)) => self.bounded(Type::map(key, value)),
            _ => {
                let key = Type::Param(self.unifier.one());
                Type::map(key, Type::Param(self.unifier.one()))
            }
        }
    }

    pub(super) fn construct(&mut self, id: u32, name: &str, fields: &[FieldEntry]) -> Type {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let Some(structure) = self.env.structure(plain) else {
            for field in fields {
                self.check(&field.value);
            }
            return match self.declared(id, plain) {
                Some(_) => self.issue(id, format!("'{plain}' is not a message type")),
                None => self.undeclared(id, plain),
            };
        };
        for field in fields {
            let mut given = self.check(&field.value);
            if field.optional {
                given = self.inner(given, field.value.id);
            }
            match structure.field_type(&field.name) {
                None => {
                    self.issue(field.id, format!("undefined field '{}'", field.name));
                }
                Some(want) if !self.unifier.assignable(&want, &given) => {
                    let (want, given) = (self.shown(&want), self.shown(&given));
                    let name = &field.name;
                    self.issue(
                        field.id,
                        format!("expected type of field '{name}' is '{want}' but provided type is '{given}'"),
                    );
                }
                Some(_) => {}
            }
        }
        Type::Struct(structure)
    }
}
