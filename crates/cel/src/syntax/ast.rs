use std::sync::Arc;

/// A node of the tree; `id` is its index in the side tables (positions, types, references).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expr {
    pub id: u32,
    /// How many levels lie below and including this node, as written (macros count once).
    pub height: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    /// `operand.field`; with `test`, `has(operand.field)`.
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        test: bool,
    },
    Call {
        function: Arc<str>,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Elements, and which of them are optional (`[?x]`).
    List(Vec<Expr>, Vec<usize>),
    Map(Vec<MapEntry>),
    Struct(Arc<str>, Vec<FieldEntry>),
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MapEntry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldEntry {
    /// Where the field's name stands.
    pub id: u32,
    pub name: Arc<str>,
    pub value: Expr,
    pub optional: bool,
}

/// What every macro that loops becomes (google/cel-spec, `doc/langdef.md`, "Macros").
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comprehension {
    pub var: Arc<str>,
    pub var2: Option<Arc<str>>,
    pub range: Expr,
    pub accu: Arc<str>,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// The tree of one expression, and where in the text each node begins (in code points).
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub root: Expr,
    pub offsets: Vec<u32>,
}

/// The hidden name of the value that a loop builds.
pub(crate) const ACCUMULATOR: &str = "@result";
/// The loop variable of `cel.bind`, which never has a value.
pub(crate) const UNUSED: &str = "#unused";

/// Function names of the operators (cel-go, `common/operators`).
pub(crate) mod op {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPT_INDEX: &str = "_[?_]";
    pub(crate) const OPT_SELECT: &str = "_?._";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
}
