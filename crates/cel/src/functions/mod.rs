//! The functions that expressions may call: what they take and give, and what they do. One file for each library.

pub(crate) mod authz;
mod convert;
pub(crate) mod format;
mod format_string;
mod jsonpatch;
mod lists;
mod math;
pub(crate) mod network;
pub(crate) mod operators;
pub(crate) mod optional;
mod quantity;
pub(crate) mod regexes;
pub(crate) mod semver;
mod sets;
mod signature;
mod strings;
mod times;
pub(crate) mod urls;

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
pub(crate) use signature::Overload;

use crate::error::Outcome;
use crate::value::Value;

/// What a function does with its arguments, the receiver first. Values that no overload takes give
/// `no such overload`.
pub(crate) type Plain = for<'a> fn(&[Value<'a>]) -> Outcome<Value<'a>>;
/// The same for functions whose second argument is a pattern.
pub(crate) type Matcher = for<'a> fn(&Regex, &[Value<'a>]) -> Outcome<Value<'a>>;

#[derive(Clone, Copy)]
pub(crate) enum Call {
    Plain(Plain),
    Pattern(Matcher),
    /// The evaluator itself does it, since not all arguments are evaluated.
    BuiltIn,
}

/// A row of a library's table. Overloads are written `id (argument, …) result`, receivers `id receiver.(…) result`;
/// capital letters are type parameters.
pub(crate) struct Function(pub &'static str, pub Call, pub &'static [&'static str]);

/// A function with its overloads understood.
pub(crate) struct Declared {
    pub name: &'static str,
    pub call: Call,
    pub overloads: Vec<Overload>,
}

static ALL: LazyLock<HashMap<&'static str, Declared>> = LazyLock::new(|| {
    let tables = [
        operators::TABLE,
        convert::TABLE,
        strings::TABLE,
        regexes::TABLE,
        times::TABLE,
        lists::TABLE,
        sets::TABLE,
        math::TABLE,
        optional::TABLE,
        urls::TABLE,
        network::TABLE,
        quantity::TABLE,
        semver::TABLE,
        format::TABLE,
        authz::TABLE,
        jsonpatch::TABLE,
    ];
    let mut all = HashMap::new();
    for Function(name, call, overloads) in tables.into_iter().flatten() {
        let overloads = overloads.iter().map(|text| signature::parse(text)).collect();
        all.insert(*name, Declared { name, call: *call, overloads });
    }
    all
});

/// A function by its name, such as `size` or `math.ceil`.
pub(crate) fn find(name: &str) -> Option<&'static Declared> {
    ALL.get(name)
}
