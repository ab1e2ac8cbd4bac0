//! `printf` in templates: numbers, labels and texts as Go writes them, and so Prometheus' templates.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Value};

/// The largest width or precision that is kept to.
const MOST: usize = 64;

/// Adds the function.
pub fn add_printf(environment: &mut Environment) {
    environment.add_function("printf", |format: &str, values: Rest<Value>| printf(format, &values));
}

/// What stands between a `%` and its letter.
#[derive(Debug, Default)]
struct Directive {
    plus: bool,
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

impl Directive {
    /// Takes one, and what is behind it.
    fn read(text: &str) -> (Directive, &str) {
        let mut directive = Directive::default();
        let mut rest = text;
        while let Some(flag) = rest.chars().next().filter(|flag| "+-# 0".contains(*flag)) {
            match flag {
                '+' => directive.plus = true,
                '-' => directive.left = true,
                '0' => directive.zero = true,
                _ => {}
            }
            rest = &rest[1..];
        }
        let number = |text: &str| {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            (text[..digits].parse::<usize>().unwrap_or_default().min(MOST), digits)
        };
        let (width, digits) = number(rest);
        directive.width = width;
        rest = &rest[digits..];
        if let Some(after) = rest.strip_prefix('.') {
            let (precision, digits) = number(after);
            directive.precision = Some(precision);
            rest = &after[digits..];
        }
        (directive, rest)
    }

    fn padded(&self, text: &str, is_number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zero && is_number) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, false) => format!("{}{text}", " ".repeat(missing)),
            (false, true) => {
                let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
                format!("{sign}{}{digits}", "0".repeat(missing))
            }
        }
    }
}

fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (directive, after) = Directive::read(&rest[at + 1..]);
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        rest = &after[verb.len_utf8()..];
        match (verb, values.as_slice().first()) {
            ('%', _) => out.push('%'),
            (verb, None) => out.push_str(&format!("%!{verb}(MISSING)")),
            (verb, Some(value)) => {
                values.next();
                out.push_str(&one(&directive, verb, value));
            }
        }
    }
    out.push_str(rest);
    out
}

/// One value. A verb that does not fit it is taken for `%v`.
fn one(directive: &Directive, verb: char, value: &Value) -> String {
    if value.kind() == ValueKind::Number {
        return number(directive, verb, value);
    }
    let text = plain(value);
    let text = match directive.precision {
        Some(letters) => text.chars().take(letters).collect(),
        None => text,
    };
    directive.padded(&if verb == 'q' { format!("{text:?}") } else { text }, false)
}

fn number(directive: &Directive, verb: char, value: &Value) -> String {
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    let digits = directive.precision;
    let text = match verb {
        _ if !float.is_finite() => tidewatch_model::Value::Float(float).to_string(),
        'f' | 'F' => format!("{float:.*}", digits.unwrap_or(6)),
        'e' => with_exponent(&format!("{float:.*e}", digits.unwrap_or(6))),
        'd' if float.fract() == 0.0 => format!("{float:.0}"),
        'g' | 'v' if !value.is_integer() => general(float, digits),
        _ if value.is_integer() => value.to_string(),
        _ => general(float, None),
    };
    let text = if directive.plus && float >= 0.0 && float.is_finite() { format!("+{text}") } else { text };
    directive.padded(&text, float.is_finite())
}

/// As `%v` writes a value.
fn plain(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => String::new(),
        ValueKind::Number => number(&Directive::default(), 'v', value),
        ValueKind::Bool => value.is_true().to_string(),
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            let mut entries: Vec<String> = keys
                .map(|key| format!("{key}:{}", value.get_item(&key).map(|of| plain(&of)).unwrap_or_default()))
                .collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
        _ => value.to_string(),
    }
}

/// As `%g` writes a number: so many digits that mean something, or as few as read back the same; with an exponent where it is below -4, or
/// not below the number of digits, for which the fewest count as six. Zeros at the end are left out.
pub fn general(value: f64, digits: Option<usize>) -> String {
    if !value.is_finite() {
        return tidewatch_model::Value::Float(value).to_string();
    }
    let scientific = match digits {
        Some(digits) => format!("{value:.*e}", digits.max(1) - 1),
        None => format!("{value:e}"),
    };
    let exponent =
        scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or_default();
    let most = digits.map_or(6, |digits| digits.max(1) as i32);
    if (-4..most).contains(&exponent) {
        return match digits {
            Some(_) => without_zeros(&format!("{value:.*}", (most - 1 - exponent).max(0) as usize)),
            None => format!("{value}"),
        };
    }
    with_exponent(
        &scientific
            .split_once('e')
            .map_or(scientific.clone(), |(digits, exponent)| format!("{}e{exponent}", without_zeros(digits))),
    )
}

fn without_zeros(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    }
}

/// With a sign and two digits at least: `1e+06`.
fn with_exponent(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_string() };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Each of these is what promtool prints.
    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let plain = |value: f64| printf("%v", &[Value::from(value)]);
        assert_eq!(
            [79.0, 0.0, -3.0, 79.5, 0.123_456_789_1, 999_999.5, 1e5].map(plain),
            ["79", "0", "-3", "79.5", "0.1234567891", "999999.5", "100000"]
        );
        assert_eq!(
            [1e6, 1_048_576.0, 1_767_225_600.5, 123_456_789.0, 1e21, 0.0001, 0.000_012_34, 1e-7].map(plain),
            ["1e+06", "1.048576e+06", "1.7672256005e+09", "1.23456789e+08", "1e+21", "0.0001", "1.234e-05", "1e-07"]
        );
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(plain), ["NaN", "+Inf", "-Inf"]);
    }

    #[test]
    fn directives_are_kept_to() {
        let value = Value::from(79.0);
        let one = |format: &str| printf(format, std::slice::from_ref(&value));
        assert_eq!(
            ["%.2f", "%f", "%.f", "%g", "%e", "%d", "%s", "%.3g%%"].map(one),
            ["79.00", "79.000000", "79", "79", "7.900000e+01", "79", "79", "79%"]
        );
        assert_eq!(
            printf("%6.2f|%-8.1f|%+.1f|%08.3f", &[value.clone(), value.clone(), value.clone(), value.clone()]),
            " 79.00|79.0    |+79.0|0079.000"
        );
        assert_eq!(printf("%.3g %.0f", &[Value::from(1_767_225_600.5), Value::from(2.5)]), "1.77e+09 2");
        assert_eq!(
            printf("%s/%q %5d|%", &[Value::from("a"), Value::from("b"), Value::from(4)]),
            "a/\"b\"     4|%!(NOVERB)"
        );
        assert_eq!(printf("%s %d", &[Value::from("a")]), "a %!d(MISSING)");
        let labels = BTreeMap::from([("job", "b"), ("a", "c")]);
        let odd = [Value::from(labels), Value::UNDEFINED, Value::from(true)];
        assert_eq!(printf("%v [%v] %v", &odd), "map[a:c job:b] [] true");
    }
}
