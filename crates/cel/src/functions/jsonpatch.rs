//! JSON Patch (apiserver, `pkg/cel/library/jsonpatch.go`).

use super::{Call, Function};
use crate::error::{EvalError, Outcome};
use crate::value::Value;

pub(super) const TABLE: &[Function] = &[Function(
    "jsonpatch.escapeKey",
    Call::Plain(escape_key),
    &["string_jsonpatch_escapeKey_string (string) string"],
)];

fn escape_key<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    match args {
        [Value::String(s)] => Ok(Value::text(s.replace('~', "~0").replace('/', "~1"))),
        _ => Err(EvalError::no_such_overload()),
    }
}
