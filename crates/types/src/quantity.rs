use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An amount such as `100m`, `1.5Gi` or `2e3` (kubernetes/kubernetes,
/// `apimachinery/pkg/api/resource/quantity.go`).
///
/// Kept in nano units, so every amount is exact that is no larger than 2^63-1, which is where upstream caps them;
/// finer digits are rounded up, as upstream does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    DecimalSi,
    BinarySi,
    Exponent,
}

/// The text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

const NANO: i128 = 1_000_000_000;
/// Upstream's `maxAllowed`.
const MOST: i128 = i64::MAX as i128 * NANO;

impl Quantity {
    /// So many whole units.
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO, format: Format::DecimalSi }
    }

    /// So many thousandths.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// So many bytes, shown with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANO, format: Format::BinarySi }
    }

    /// Whole units, rounded up (upstream's `Value`).
    pub fn units(self) -> i64 {
        clamp(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up (upstream's `MilliValue`).
    pub fn millis(self) -> i64 {
        clamp(ceil_div(self.nanos, NANO / 1000))
    }

    /// Near enough as a floating-point number (upstream's `AsApproximateFloat64`).
    pub fn as_f64(self) -> f64 {
        (self.nanos / NANO) as f64 + (self.nanos % NANO) as f64 / NANO as f64
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

fn ceil_div(n: i128, by: i128) -> i128 {
    n.div_euclid(by) + i128::from(n.rem_euclid(by) != 0)
}

fn clamp(n: i128) -> i64 {
    n.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (format, base, exponent) = suffix_scale(suffix)?;

        // The value is digits × 10^-scale × base^exponent units; in nanos, with what falls below rounded away
        // from zero.
        let digits = whole.bytes().chain(fraction.bytes());
        let mut mantissa: i128 = 0;
        let mut dropped = 0u32;
        let mut inexact = false;
        for digit in digits {
            match mantissa.checked_mul(10).and_then(|m| m.checked_add(i128::from(digit - b'0'))) {
                Some(m) if dropped == 0 && m < 1_i128 << 100 => mantissa = m,
                _ => {
                    dropped += 1;
                    inexact |= digit != b'0';
                }
            }
        }
        let mut ten_exponent = 9 - fraction.len() as i64 + i64::from(dropped);
        let mut nanos = mantissa;
        if base == 10 {
            ten_exponent += i64::from(exponent);
        } else {
            nanos =
                nanos.checked_shl(exponent as u32).filter(|n| n >> exponent == mantissa).unwrap_or(i128::MAX);
        }
        while ten_exponent > 0 && nanos != 0 {
            nanos = nanos.saturating_mul(10);
            ten_exponent -= 1;
            if nanos == i128::MAX {
                break;
            }
        }
        while ten_exponent < 0 && (nanos != 0) {
            inexact |= nanos % 10 != 0;
            nanos /= 10;
            ten_exponent += 1;
        }
        if inexact {
            nanos = nanos.saturating_add(1);
        }
        let nanos = nanos.min(MOST);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// The notation, base and exponent that a suffix stands for.
fn suffix_scale(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    let si = |e| Ok((Format::DecimalSi, 10, e));
    let binary = |e| Ok((Format::BinarySi, 2, e));
    match suffix {
        "" => si(0),
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
            let e: i32 = exponent.parse().map_err(|_| QuantityError)?;
            if !(-200..=200).contains(&e) {
                return Err(QuantityError);
            }
            Ok((Format::Exponent, 10, e))
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && (self.nanos / NANO).abs() >= 1024 {
            let mut n = self.nanos / NANO;
            let mut suffix = "";
            for s in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
                if n % 1024 != 0 {
                    break;
                }
                n /= 1024;
                suffix = s;
            }
            return write!(f, "{n}{suffix}");
        }
        let (mut n, mut power) = (self.nanos, -9);
        while n % 1000 == 0 && power < 18 {
            n /= 1000;
            power += 3;
        }
        match self.format {
            Format::Exponent if power == 0 => write!(f, "{n}"),
            Format::Exponent => write!(f, "{n}e{power}"),
            _ => {
                let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(f, "{n}{}", suffixes[((power + 9) / 3) as usize])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1000000", "1M"),
            ("1500", "1500"),
            ("2e3", "2e3"),
            ("12.5e2", "1250"),
            ("-5", "-5"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.5Mi", "512Ki"),
            ("1Ei", "1Ei"),
            ("1e30", "9223372036854775807"),
            ("-100000E", "-9223372036854775807"),
            ("9999Ei", "9223372036854775807"),
        ] {
            assert_eq!(canonical(text), want, "{text}");
        }
    }

    #[test]
    fn refuses_nonsense() {
        for text in ["", "-", "m", "1.2.3", "1x", "1 Gi", "e3", "1e", "1e9999999999", "+-1"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn rounds_up() {
        let q: Quantity = "1500m".parse().unwrap();
        assert_eq!((q.units(), q.millis()), (2, 1500));
        let tiny: Quantity = "1e-12".parse().unwrap();
        assert_eq!((tiny.to_string().as_str(), tiny.units()), ("1e-9", 1));
    }

    proptest! {
        #[test]
        fn canonical_form_is_stable(text in "[+-]?[0-9]{0,30}(\\.[0-9]{0,30})?(n|u|m|k|M|G|E|Ki|Mi|Gi|Ei|[eE][+-]?[0-9]{1,2}|)") {
            if let Ok(q) = text.parse::<Quantity>() {
                let again: Quantity = q.to_string().parse().unwrap();
                prop_assert_eq!(q, again);
                prop_assert_eq!(q.to_string(), again.to_string());
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
