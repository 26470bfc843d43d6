//! What calls can cost, and how large their results can be (cel-go, `checker/cost.go`, `functionCost`; apiserver,
//! `pkg/cel/library/cost.go`, `EstimateCallCost`).

use super::super::range::CostEstimate as Range;
use super::super::runtime::{PATTERN, TEXT};
use super::{Coster, Entry, element_decl};
use crate::check::Meaning;
use crate::syntax::ast::Expr;
use crate::ty::Type;

struct CallCost {
    cost: Range,
    size: Option<Range>,
}

impl From<Range> for CallCost {
    fn from(cost: Range) -> Self {
        Self { cost, size: None }
    }
}

impl Coster<'_> {
    pub(super) fn call(&mut self, e: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) -> Range {
        if function == "dyn" && args.len() == 1 {
            let cost = Range::ONE.add(self.cost(&args[0]));
            self.copy_sizes(e, &args[0]);
            return cost;
        }
        let arg_costs: Vec<Range> = args.iter().map(|a| self.cost(a)).collect();
        let Some(Meaning::Call { function: declared, overloads, namespaced }) =
            self.checked.meanings[e.id as usize].clone()
        else {
            // An optional field selection.
            return arg_costs.into_iter().fold(Range::ONE, Range::add);
        };
        let target = target.filter(|_| !namespaced);
        let mut sum = Range::ZERO;
        if let Some(target) = target {
            sum = sum.add(self.cost(target));
        }
        let mut cost = Range::new(u64::MAX, 0);
        let mut size: Option<Range> = None;
        for index in overloads {
            let overload = declared.overloads[index].id;
            let this = self.overload(e, declared.name, overload, target, args, &arg_costs);
            cost = cost.union(this.cost);
            size = match (size, this.size) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if matches!(overload, "index_list" | "index_map") {
                let container = &args[0];
                size = self.entry(container).map(|e| e.value);
                let decl = self.decls.get(&container.id).and_then(|d| element_decl(&d.ty));
                self.set_decl(e.id, decl);
            }
        }
        if let Some(size) = size.or_else(|| self.size(e)) {
            self.sizes.insert(e.id, size);
        }
        sum.add(cost)
    }

    fn overload(
        &mut self,
        e: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Expr>,
        args: &[Expr],
        arg_costs: &[Range],
    ) -> CallCost {
        let args_cost = arg_costs.iter().fold(Range::ZERO, |sum, c| sum.add(*c));
        match function {
            "_||_" | "_&&_" => {
                return Range::new(arg_costs[0].min, arg_costs[0].add(arg_costs[1]).max).into();
            }
            "_?_:_" => {
                let size = self.size_or_unknown(&args[1]).union(self.size_or_unknown(&args[2]));
                if let (Some(a), Some(b)) = (self.entry(&args[1]), self.entry(&args[2])) {
                    let (key, value) = (a.key.union(b.key), a.value.union(b.value));
                    self.entries.insert(e.id, Entry { list: a.list, key, value });
                }
                return sized(arg_costs[0].add(arg_costs[1].union(arg_costs[2])), size);
            }
            _ => {}
        }
        let own = self.library(function, overload, target, args);
        let own = own.unwrap_or_else(|| self.standard(e, overload, target, args));
        CallCost { cost: own.cost.add(args_cost), size: own.size }
    }

    /// Kubernetes' libraries.
    fn library(
        &self,
        function: &str,
        overload: &str,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Option<CallCost> {
        let walk = |e: &Expr, times: f64| self.size_or_unknown(e).scaled(times * TEXT);
        Some(match (function, target, args) {
            ("check", ..) => Range::fixed(350_000).into(),
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                let size = self.size_or_unknown(target);
                match self.ty(target) {
                    Type::List(list) => {
                        let mut each = Range::ONE;
                        if matches!(list.items.ty, Type::String | Type::Bytes) {
                            each = each.add(self.item_size(target).scaled(TEXT));
                        }
                        size.times(each).into()
                    }
                    _ => size.scaled(TEXT).into(),
                }
            }
            (
                "url"
                | "jsonpatch.escapeKey"
                | "quantity"
                | "isQuantity"
                | "semver"
                | "isSemver"
                | "cidr"
                | "isIP"
                | "isCIDR",
                None,
                [arg, ..],
            )
            | ("ip", None, [arg]) => walk(arg, 1.0).into(),
            ("ip.isCanonical", None, [arg]) => walk(arg, 2.0).into(),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => {
                sized(walk(target, 1.0), self.size_or_unknown(target))
            }
            ("replace", Some(target), [from, to, ..]) => {
                let size = self.size_or_unknown(target);
                let result = replaced(size, self.size_or_unknown(from), self.size_or_unknown(to));
                sized(walk(target, 2.0), result)
            }
            ("split", Some(target), _) => {
                sized(walk(target, 2.0), Range::new(0, self.size_or_unknown(target).max))
            }
            ("join", Some(target), _) => {
                let count = self.size_or_unknown(target);
                let mut size = count.times(self.item_size(target));
                if let Some(by) = args.first() {
                    let gaps = Range::new(count.min.saturating_sub(1), count.max.saturating_sub(1));
                    size = size.add(self.size_or_unknown(by).times(gaps));
                }
                sized(size.scaled(TEXT), size)
            }
            ("find" | "findAll", Some(target), [pattern, ..]) => {
                let size = self.size_or_unknown(target);
                let cost =
                    size.add(Range::ONE).scaled(TEXT).times(self.size_or_unknown(pattern).scaled(PATTERN));
                sized(cost, Range::new(0, size.max))
            }
            ("containsIP" | "containsCIDR", Some(_), [other]) => {
                let size = Range::new(4, 16);
                let mut cost = size.add(size).scaled(TEXT);
                if function == "containsCIDR" {
                    cost = cost.add(size.scaled(TEXT)).add(Range::ONE);
                }
                if overload.ends_with("_string") {
                    cost = cost.add(walk(other, 1.0));
                }
                cost.into()
            }
            ("validate", Some(_), [text]) => {
                let pattern = Range::fixed(60).scaled(PATTERN);
                self.size_or_unknown(text).add(Range::ONE).scaled(TEXT).times(pattern).into()
            }
            ("_==_" | "_!=_", None, [a, _]) if matches!(self.ty(a), Type::Opaque(_)) => Range::ONE.into(),
            _ => return None,
        })
    }

    fn item_size(&self, list: &Expr) -> Range {
        let declared = self.decls.get(&list.id).and_then(|d| element_decl(&d.ty)).and_then(|d| d.max);
        match (declared, self.entry(list)) {
            (Some(max), _) => Range::new(0, max),
            (None, Some(entry)) => entry.value,
            _ => Range::UNKNOWN,
        }
    }

    fn standard(&mut self, e: &Expr, overload: &str, target: Option<&Expr>, args: &[Expr]) -> CallCost {
        let size = |e: &Expr| self.size_or_unknown(e);
        match (overload, target, args) {
            ("string_format", Some(target), _) => size(target).scaled(TEXT).into(),
            ("string_to_bytes", _, [arg]) => {
                let n = size(arg);
                sized(n.scaled(TEXT), Range::new(n.min, n.max.saturating_mul(4)))
            }
            ("bytes_to_string", _, [arg]) => {
                let n = size(arg);
                sized(n.scaled(TEXT), Range::new(n.min / 4, n.max))
            }
            ("strings_quote", _, [arg]) => {
                let n = size(arg);
                let max = n.max.saturating_mul(2).saturating_add(2);
                sized(n.scaled(TEXT), Range::new(n.min.saturating_add(2), max))
            }
            ("starts_with_string" | "ends_with_string", _, [arg]) => size(arg).scaled(TEXT).into(),
            ("in_list", _, [_, list]) => size(list).into(),
            ("matches_string", Some(text), [pattern]) | ("matches", _, [text, pattern]) => {
                let text = size(text).add(Range::ONE).scaled(TEXT);
                text.times(size(pattern).scaled(PATTERN)).into()
            }
            ("contains_string", Some(target), [part]) => {
                size(target).scaled(TEXT).times(size(part).scaled(TEXT)).into()
            }
            ("add_string" | "add_bytes" | "add_list", _, [a, b]) => {
                let result = size(a).add(size(b));
                if let (Some(a), Some(b)) = (self.entry(a), self.entry(b)) {
                    let (key, value) = (a.key.union(b.key), a.value.union(b.value));
                    self.entries.insert(e.id, Entry { list: a.list, key, value });
                }
                sized(if overload == "add_list" { Range::ONE } else { result.scaled(TEXT) }, result)
            }
            (
                "equals"
                | "not_equals"
                | "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes",
                _,
                [a, b],
            ) => {
                let most = size(a).max.min(size(b).max);
                Range::new(u64::from(most > 0), most).scaled(TEXT).into()
            }
            _ => Range::ONE.into(),
        }
    }
}

fn sized(cost: Range, size: Range) -> CallCost {
    CallCost { cost, size: Some(size) }
}

/// How large a text is after replacing.
fn replaced(size: Range, from: Range, to: Range) -> Range {
    let (mut count, mut kept) = (Range::ZERO, Range::ZERO);
    if from.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = size.max.div_ceil(from.min);
    }
    if from.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = size.min.div_ceil(from.max);
    }
    count.times(to).add(kept)
}
