//! Filters of templates that show numbers to people, as Prometheus' functions of these names do.

use std::borrow::Cow;

use chrono::DateTime;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::printf::general;

/// Adds `humanize`, `humanize1024`, `humanize_duration` (of seconds), `humanize_percentage` (of a ratio), `humanize_timestamp` (of
/// seconds since the epoch), and `title`.
pub fn add_filters(environment: &mut Environment) {
    let filters: [(&str, fn(f64) -> String); 5] = [
        ("humanize", thousands),
        ("humanize1024", kibis),
        ("humanize_duration", duration),
        ("humanize_percentage", |ratio| format!("{}%", four_digits(ratio * 100.0))),
        ("humanize_timestamp", timestamp),
    ];
    for (name, show) in filters {
        environment.add_filter(name, move |value: Value| number(&value).map(show));
    }
    environment.add_filter("title", title);
}

/// Every word with a large first letter, the others as they are.
fn title(text: Cow<'_, str>) -> String {
    let mut within = false;
    let letters = text.chars().flat_map(|letter| {
        let first = !std::mem::replace(&mut within, letter.is_alphanumeric() || letter == '_');
        if first { letter.to_uppercase().collect() } else { vec![letter] }
    });
    letters.collect()
}

/// A number, or a label's text that is one.
fn number(value: &Value) -> Result<f64, Error> {
    let read = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    read.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("expected a number, found '{value}'")))
}

/// At most four digits that mean something, as C's `%.4g` writes them.
fn four_digits(value: f64) -> String {
    general(value, Some(4))
}

/// From one unit to the next.
enum Step {
    Times(f64),
    Over(f64),
}

/// The number with the first of these units in which it has no more than four digits.
fn scaled(mut value: f64, by: Step, units: &[&str], fits: impl Fn(f64) -> bool) -> String {
    let mut unit = "";
    for next in units {
        if fits(value.abs()) {
            break;
        }
        unit = next;
        match by {
            Step::Times(factor) => value *= factor,
            Step::Over(divisor) => value /= divisor,
        }
    }
    format!("{}{unit}", four_digits(value))
}

fn thousands(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        size if !size.is_finite() => four_digits(value),
        size if size >= 1.0 => {
            scaled(value, Step::Over(1e3), &["k", "M", "G", "T", "P", "E", "Z", "Y"], |size| size < 1_000.0)
        }
        _ => scaled(value, Step::Times(1e3), &["m", "u", "n", "p", "f", "a", "z", "y"], |size| size >= 1.0),
    }
}

fn kibis(value: f64) -> String {
    match value.abs() {
        size if size <= 1.0 || !size.is_finite() => four_digits(value),
        _ => {
            scaled(value, Step::Over(1_024.0), &["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"], |size| size < 1_024.0)
        }
    }
}

fn duration(seconds: f64) -> String {
    let size = seconds.abs();
    if !size.is_finite() {
        return four_digits(seconds);
    }
    if size == 0.0 {
        return "0s".to_string();
    }
    if size < 1.0 {
        return scaled(seconds, Step::Times(1e3), &["m", "u", "n", "p", "f", "a", "z", "y"], |size| size >= 1.0) + "s";
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let whole = size as i64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => four_digits(seconds) + "s",
        (0, 0, minutes) => format!("{sign}{minutes}m {rest}s"),
        (0, hours, minutes) => format!("{sign}{hours}h {minutes}m {rest}s"),
        (days, hours, minutes) => format!("{sign}{days}d {hours}h {minutes}m {rest}s"),
    }
}

/// To the millisecond, in UTC.
fn timestamp(seconds: f64) -> String {
    let instant = seconds.is_finite().then(|| DateTime::from_timestamp_millis((seconds * 1e3) as i64)).flatten();
    let Some(instant) = instant else { return four_digits(seconds) };
    let fraction = match instant.timestamp_subsec_millis() {
        0 => String::new(),
        millis => format!(".{millis:03}").trim_end_matches('0').to_string(),
    };
    format!("{}{fraction} +0000 UTC", instant.format("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_prometheus_shows_them() {
        assert_eq!(
            [0.0, 1.0, 1_234_567.0, 0.12, -0.000_123, 999.96].map(thousands),
            ["0", "1", "1.235M", "120m", "-123u", "1000"]
        );
        assert_eq!([0.0, 1.0, 1_048_576.0, 1_500.0].map(kibis), ["0", "1", "1Mi", "1.465ki"]);
        assert_eq!(
            [0.0, 0.1, 1.0, 59.5, 60.0, 86_400.0, 90_061.0, -3_661.0].map(duration),
            ["0s", "100ms", "1s", "59.5s", "1m 0s", "1d 0h 0m 0s", "1d 1h 1m 1s", "-1h 1m 1s"]
        );
        assert_eq!(
            [12_345.0, 0.000_012_345, f64::NAN, f64::INFINITY].map(four_digits),
            ["1.234e+04", "1.234e-05", "NaN", "+Inf"]
        );
        assert_eq!(
            [1_767_225_600.0, 1_767_225_600.5, 0.123_456, -3.0].map(timestamp),
            [
                "2026-01-01 00:00:00 +0000 UTC",
                "2026-01-01 00:00:00.5 +0000 UTC",
                "1970-01-01 00:00:00.123 +0000 UTC",
                "1969-12-31 23:59:57 +0000 UTC"
            ]
        );
        assert_eq!(title("heLLo wORLD of_a b-c".into()), "HeLLo WORLD Of_a B-C");
    }
}
