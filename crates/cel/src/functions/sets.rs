//! Lists as sets (cel-go, `ext/sets.go`).

use super::{Call, Function};
use crate::error::{EvalError, Outcome};
use crate::value::{List, Value, equal};

pub(super) const TABLE: &[Function] = &[
    Function("sets.contains", Call::Plain(contains), &["list_sets_contains_list (list(A), list(A)) bool"]),
    Function(
        "sets.equivalent",
        Call::Plain(equivalent),
        &["list_sets_equivalent_list (list(A), list(A)) bool"],
    ),
    Function(
        "sets.intersects",
        Call::Plain(intersects),
        &["list_sets_intersects_list (list(A), list(A)) bool"],
    ),
];

fn has(list: &List<'_>, item: &Value<'_>) -> bool {
    list.iter().any(|x| equal(&x, item))
}

fn both<'a>(args: &[Value<'a>], holds: fn(&List<'a>, &List<'a>) -> bool) -> Outcome<Value<'a>> {
    match args {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(holds(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    both(args, |a, b| b.iter().all(|x| has(a, &x)))
}

fn equivalent<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    both(args, |a, b| a.iter().all(|x| has(b, &x)) && b.iter().all(|x| has(a, &x)))
}

fn intersects<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    both(args, |a, b| a.iter().any(|x| has(b, &x)))
}
