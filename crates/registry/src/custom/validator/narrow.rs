use serde_json::Value;
use types::Path;

use super::found::{Found, name};
use super::{INVALID, NOWHERE, Rules, Validator, WRONG_TYPE};
use crate::custom::{formats, pattern};

/// What narrows values down beside their types.
impl Rules {
    pub(super) fn count_items(
        &self,
        items: &[Value],
        value: &Value,
        path: Option<&Path<'_>>,
        found: &mut Found,
    ) {
        if let Some(least) = self.least_items.filter(|least| items.len() < *least) {
            found.invalid(path, &items.len().into(), &format!("should have at least {least} items"));
        }
        if let Some(most) = self.most_items.filter(|most| items.len() > *most) {
            let message = format!("Too many: {}: must have at most {most} items", items.len());
            found.add("FieldValueTooMany", path, message);
        }
        if self.unique && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
            found.invalid(path, value, "shouldn't contain duplicates");
        }
    }

    pub(super) fn count_properties(&self, count: usize, path: Option<&Path<'_>>, found: &mut Found) {
        if let Some(least) = self.least_properties.filter(|least| count < *least) {
            found.invalid(path, &count.into(), &format!("should have at least {least} properties"));
        }
        if let Some(most) = self.most_properties.filter(|most| count > *most) {
            let message = format!("Too many: {}: must have at most {most} items", count);
            found.add("FieldValueTooMany", path, message);
        }
    }

    pub(super) fn text(&self, text: &str, value: &Value, path: Option<&Path<'_>>, found: &mut Found) {
        let before = found.errors.len();
        if self.most_length.is_some() || self.least_length.is_some() {
            let length = text.chars().count();
            if let Some(most) = self.most_length.filter(|most| length > *most) {
                found.add("FieldValueTooLong", path, format!("Too long: may not be more than {most} bytes"));
            }
            if let Some(least) = self.least_length.filter(|least| length < *least) {
                found.invalid(path, value, &format!("should be at least {least} chars long"));
            }
        }
        if let Some((source, compiled)) = &self.pattern {
            let regex = compiled.get_or_init(|| pattern::compile(source).ok());
            if !regex.as_ref().is_some_and(|r| r.is_match(text)) {
                found.invalid(path, value, &format!("should match '{source}'"));
            }
        }
        if let Some(format) = self.format.as_deref().filter(|f| !formats::fits(f, text)) {
            let message =
                format!("Invalid value: {value}: {} in body must be of type {format}: {text:?}", name(path));
            found.add(WRONG_TYPE, path, message);
        }
        found.score += usize::from(found.errors.len() == before);
    }

    pub(super) fn number(&self, value: &Value, path: Option<&Path<'_>>, found: &mut Found) {
        let before = found.errors.len();
        let in_range = match self.format.as_deref() {
            Some("int32") => {
                value.as_f64().is_none_or(|n| n >= f64::from(i32::MIN) && n <= f64::from(i32::MAX))
            }
            _ => true,
        };
        if !in_range {
            let message = format!(
                "Invalid value: \"\": Checked value must be of type integer with format int32 in {}",
                name(path)
            );
            found.errors.push((INVALID, NOWHERE.into(), message));
        }
        let rules = &self.number;
        let shown = |bound: &Value| match (value.is_f64(), bound.as_f64()) {
            (true, Some(n)) => go_float(n),
            (false, Some(n)) if n.fract() == 0.0 && n.abs() < 9e15 => format!("{n:.0}"),
            (_, Some(n)) => go_float(n),
            _ => bound.to_string(),
        };
        let order = |bound: &Value| compare(value, bound);
        if let Some((most, exclusive)) = &rules.most {
            let ok = order(most).is_none_or(|o| if *exclusive { o.is_lt() } else { o.is_le() });
            if !ok {
                let how = if *exclusive { "less than" } else { "less than or equal to" };
                found.invalid(path, value, &format!("should be {how} {}", shown(most)));
            }
        }
        if let Some((least, exclusive)) = &rules.least {
            let ok = order(least).is_none_or(|o| if *exclusive { o.is_gt() } else { o.is_ge() });
            if !ok {
                let how = if *exclusive { "greater than" } else { "greater than or equal to" };
                found.invalid(path, value, &format!("should be {how} {}", shown(least)));
            }
        }
        if let Some(factor) = &rules.multiple_of
            && !is_multiple(value, factor)
        {
            found.invalid(path, value, &format!("should be a multiple of {}", shown(factor)));
        }
        found.score += usize::from(found.errors.len() == before);
    }

    pub(super) fn alternatives(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: Option<&Path<'_>>,
        found: &mut Found,
    ) {
        let general = |found: &mut Found, why: String| {
            let message = format!("Invalid value: \"\": {:?} {why}", name(path));
            found.errors.push((INVALID, NOWHERE.into(), message));
        };
        let tried = |schema: &Validator| {
            let mut found = Found::default();
            schema.at(value, old, path, &mut found);
            found
        };
        if !self.any_of.is_empty() {
            let outcomes: Vec<Found> = self.any_of.iter().map(tried).collect();
            if outcomes.iter().all(|o| !o.errors.is_empty()) {
                general(found, "must validate at least one schema (anyOf)".into());
                found.take_best(outcomes);
            } else {
                found.score += 1;
            }
        }
        if !self.one_of.is_empty() {
            let outcomes: Vec<Found> = self.one_of.iter().map(tried).collect();
            match outcomes.iter().filter(|o| o.errors.is_empty()).count() {
                1 => found.score += 1,
                0 => {
                    general(found, "must validate one and only one schema (oneOf). Found none valid".into());
                    found.take_best(outcomes);
                }
                n => general(
                    found,
                    format!("must validate one and only one schema (oneOf). Found {n} valid alternatives"),
                ),
            }
        }
        if !self.all_of.is_empty() {
            let mut valid = 0;
            for mut outcome in self.all_of.iter().map(tried) {
                valid += usize::from(outcome.errors.is_empty());
                found.errors.append(&mut outcome.errors);
            }
            if valid < self.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                general(found, format!("must validate all the schemas (allOf){none}"));
            } else {
                found.score += 1;
            }
        }
        if let Some(not) = &self.not
            && tried(not).errors.is_empty()
        {
            general(found, "must not validate the schema (not)".into());
        }
    }
}

fn compare(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Equality that does not tell `1` from `1.0`.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && b.is_number() && a.as_f64() == b.as_f64()
}

fn is_multiple(value: &Value, factor: &Value) -> bool {
    match (value.as_i64(), factor.as_i64()) {
        (Some(_), Some(0)) => true,
        (Some(value), Some(factor)) => value.checked_rem(factor).unwrap_or(0) == 0,
        _ => match (value.as_f64(), factor.as_f64()) {
            (Some(value), Some(factor)) if factor > 0.0 => {
                let times = value / factor;
                (times - times.round()).abs() < 1e-9 * times.abs().max(1.0)
            }
            _ => true,
        },
    }
}

/// A number as Go's `%v` shows it: with an exponent from 1e+06 on.
pub(super) fn go_float(n: f64) -> String {
    if n == 0.0 {
        return "0".into();
    }
    let exponent = n.abs().log10().floor() as i32;
    if (-4..6).contains(&exponent) {
        return n.to_string();
    }
    let text = format!("{n:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(rest) => ('-', rest),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
