use std::sync::Arc;

use crate::ty::Type;

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    /// Whether the first argument is a receiver.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
}

/// Understands a row of our own tables; a test reads all of them.
pub(crate) fn parse(text: &'static str) -> Overload {
    let (id, rest) = text.split_once(' ').unwrap_or((text, "() dyn"));
    let mut reader = Reader { rest };
    let mut args = Vec::new();
    let member = !rest.starts_with('(');
    if member {
        args.push(reader.ty());
        reader.skip(".");
    }
    reader.skip("(");
    while !reader.rest.starts_with(')') && !reader.rest.is_empty() {
        args.push(reader.ty());
        reader.skip(",");
        reader.skip(" ");
    }
    reader.skip(") ");
    Overload { id, member, args, result: reader.ty() }
}

struct Reader {
    rest: &'static str,
}

impl Reader {
    fn skip(&mut self, prefix: &str) {
        self.rest = self.rest.strip_prefix(prefix).unwrap_or(self.rest);
    }

    fn ty(&mut self) -> Type {
        let end = self.rest.find(['(', ')', ',', ' ']).unwrap_or(self.rest.len());
        // A dot in front of the bracket belongs to the call, not to the name.
        let name = self.rest[..end].trim_end_matches('.');
        self.rest = &self.rest[name.len()..];
        let generic = matches!(name, "list" | "map" | "optional" | "type") && self.rest.starts_with('(');
        let mut params = Vec::new();
        if generic {
            self.skip("(");
            while !self.rest.starts_with(')') && !self.rest.is_empty() {
                params.push(self.ty());
                self.skip(",");
                self.skip(" ");
            }
            self.skip(")");
        }
        let mut params = params.into_iter();
        let mut param = || params.next().unwrap_or(Type::Dyn);
        match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null" => Type::Null,
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "list" => Type::list(param()),
            "map" => {
                let key = param();
                Type::map(key, param())
            }
            "optional" => Type::optional(param()),
            "type" => Type::Type(Arc::new(param())),
            _ if name.len() == 1 => Type::Param(u32::from(name.as_bytes()[0] - b'A')),
            _ if name.contains('.') => Type::Opaque(name),
            _ => Type::Dyn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows() {
        let o = parse("x map(A, list(B)).(A, kubernetes.Quantity) optional(B)");
        assert!(o.member);
        assert_eq!(o.args.len(), 3);
        assert_eq!(o.args[2], Type::Opaque("kubernetes.Quantity"));
        assert_eq!(o.result, Type::optional(Type::Param(1)));
        let o = parse("y net.CIDR.() net.IP");
        assert_eq!((o.member, o.args.len(), o.result), (true, 1, Type::Opaque("net.IP")));
        let o = parse("z () dyn");
        assert_eq!((o.member, o.args.len(), o.result), (false, 0, Type::Dyn));
    }
}
