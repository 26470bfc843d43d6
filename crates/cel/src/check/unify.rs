use std::sync::Arc;

use crate::ty::{Decl, ListType, MapType, Type};

/// What the type parameters of the calls seen so far stand for (cel-go, `checker/types.go`).
#[derive(Default)]
pub(super) struct Unifier {
    bound: Vec<Option<Type>>,
    /// What was bound before, to undo a try that failed.
    trail: Vec<(u32, Option<Type>)>,
}

/// Our tables use the letters A to H.
const LETTERS: u32 = 8;

impl Unifier {
    /// New parameters for the letters of one signature; the first one's number.
    pub(super) fn fresh(&mut self) -> u32 {
        let base = self.bound.len() as u32;
        self.bound.resize(self.bound.len() + LETTERS as usize, None);
        base
    }

    /// One new parameter.
    pub(super) fn one(&mut self) -> u32 {
        self.bound.push(None);
        self.bound.len() as u32 - 1
    }

    /// A signature's type with its letters replaced by the parameters from `base` on.
    pub(super) fn instance(ty: &Type, base: u32) -> Type {
        map(ty, &|n| Some(Type::Param(base + n)))
    }

    /// The type itself if it is a parameter that stands for something.
    pub(super) fn resolved(&self, ty: &Type) -> Type {
        let mut ty = ty;
        while let Type::Param(n) = ty
            && let Some(bound) = self.bound.get(*n as usize).and_then(Option::as_ref)
        {
            ty = bound;
        }
        ty.clone()
    }

    /// With every parameter that stands for something replaced.
    pub(super) fn substituted(&self, ty: &Type) -> Type {
        map(ty, &|n| {
            let bound = self.bound.get(n as usize)?.as_ref()?;
            Some(self.substituted(bound))
        })
    }

    /// The same, and `dyn` for the rest.
    pub(super) fn settled(&self, ty: &Type) -> Type {
        map(&self.substituted(ty), &|_| Some(Type::Dyn))
    }

    pub(super) fn all_assignable(&mut self, to: &[Type], base: u32, from: &[Type]) -> bool {
        let mark = self.trail.len();
        let fits = to.iter().zip(from).all(|(to, from)| self.assign(&Self::instance(to, base), from));
        self.keep(fits, mark)
    }

    /// Whether a value of `from` can stand where `to` is wanted; if so, what that says of parameters is kept.
    pub(super) fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        let mark = self.trail.len();
        let fits = self.assign(to, from);
        self.keep(fits, mark)
    }

    fn keep(&mut self, fits: bool, mark: usize) -> bool {
        if !fits {
            for (n, before) in self.trail.drain(mark..).rev() {
                self.bound[n as usize] = before;
            }
        }
        fits
    }

    fn bind(&mut self, n: u32, ty: Type) {
        let before = self.bound[n as usize].replace(ty);
        self.trail.push((n, before));
    }

    fn assign(&mut self, to: &Type, from: &Type) -> bool {
        match (to, from) {
            (Type::Param(a), Type::Param(b)) if a == b => true,
            (Type::Param(n), _) => self.assign_param(*n, from, false),
            (_, Type::Param(n)) => self.assign_param(*n, to, true),
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::List(a), Type::List(b)) => self.assign(&a.items.ty, &b.items.ty),
            (Type::Map(a), Type::Map(b)) => {
                self.assign(&a.key.ty, &b.key.ty) && self.assign(&a.value.ty, &b.value.ty)
            }
            (Type::Optional(a), Type::Optional(b)) => self.assign(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (
                Type::Struct(_) | Type::Opaque(_) | Type::Optional(_) | Type::Timestamp | Type::Duration,
                Type::Null,
            )
            | (Type::Null, Type::Struct(_) | Type::Opaque(_) | Type::Timestamp | Type::Duration) => true,
            _ => to == from,
        }
    }

    /// What a parameter stands for must fit, and becomes the more general of the two.
    fn assign_param(&mut self, n: u32, other: &Type, reversed: bool) -> bool {
        let other = self.resolved(other);
        if matches!(other, Type::Param(m) if m == n) {
            return true;
        }
        match self.bound[n as usize].clone() {
            None => {
                let fits = !self.occurs(n, &other);
                if fits {
                    self.bind(n, other);
                }
                fits
            }
            Some(bound) => {
                let fits = if reversed { self.assign(&other, &bound) } else { self.assign(&bound, &other) };
                if fits {
                    let general = self.more_general(&bound, &other);
                    if !self.occurs(n, &general) {
                        self.bind(n, general);
                    }
                }
                fits
            }
        }
    }

    fn occurs(&self, n: u32, ty: &Type) -> bool {
        match self.resolved(ty) {
            Type::Param(m) => m == n,
            other => other.params().into_iter().any(|p| self.occurs(n, p)),
        }
    }

    /// Of two types that fit each other, the one that says less.
    pub(super) fn more_general(&self, a: &Type, b: &Type) -> Type {
        let (x, y) = (self.resolved(a), self.resolved(b));
        match (&x, &y) {
            (Type::Dyn | Type::Error, _) | (_, Type::Param(_)) => x,
            (_, Type::Dyn) | (Type::Param(_), _) => y,
            (_, Type::Error) => x,
            (Type::Null, _) => y,
            (Type::List(a), Type::List(b)) => {
                if self.says_less(&b.items.ty, &a.items.ty) {
                    y
                } else {
                    x
                }
            }
            (Type::Map(a), Type::Map(b)) => {
                let less = self.says_less(&b.key.ty, &a.key.ty) || self.says_less(&b.value.ty, &a.value.ty);
                if less { y } else { x }
            }
            (Type::Optional(a), Type::Optional(b)) => {
                if self.says_less(b, a) {
                    y
                } else {
                    x
                }
            }
            _ => x,
        }
    }

    fn says_less(&self, a: &Type, than: &Type) -> bool {
        let (a, than) = (self.resolved(a), self.resolved(than));
        if matches!(a, Type::Dyn) && !matches!(than, Type::Dyn | Type::Param(_)) {
            return true;
        }
        a.params().iter().zip(than.params()).any(|(a, b)| self.says_less(a, b))
    }
}

/// Replaces parameters; parts without any are shared, with their bounds.
fn map(ty: &Type, replace: &dyn Fn(u32) -> Option<Type>) -> Type {
    let changed = |part: &Type| has_param(part).then(|| map(part, replace));
    let decl = |d: &Decl| Decl { ty: map(&d.ty, replace), max: d.max };
    match ty {
        Type::Param(n) => replace(*n).unwrap_or_else(|| ty.clone()),
        Type::List(l) if has_param(&l.items.ty) => {
            Type::List(Arc::new(ListType { items: decl(&l.items), kind: l.kind.clone() }))
        }
        Type::Map(m) if has_param(&m.key.ty) || has_param(&m.value.ty) => {
            Type::Map(Arc::new(MapType { key: decl(&m.key), value: decl(&m.value) }))
        }
        Type::Optional(t) => changed(t).map_or_else(|| ty.clone(), Type::optional),
        Type::Type(t) => changed(t).map_or_else(|| ty.clone(), |t| Type::Type(Arc::new(t))),
        _ => ty.clone(),
    }
}

fn has_param(ty: &Type) -> bool {
    match ty {
        Type::Param(_) => true,
        Type::List(_) | Type::Map(_) | Type::Optional(_) | Type::Type(_) => {
            ty.params().into_iter().any(has_param)
        }
        _ => false,
    }
}
