//! Spelling: numbers, intervals, texts and names in SQL.

use std::time::Duration;

/// A number that SQL reads as it is.
pub fn number(value: f64) -> String {
    match value {
        value if value.is_infinite() && value > 0.0 => "CAST('inf' AS DOUBLE)".to_string(),
        value if value.is_infinite() => "CAST('-inf' AS DOUBLE)".to_string(),
        value if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        value => format!("{value}"),
    }
}

/// A length of time in words.
pub fn words(span: Duration) -> String {
    let millis = span.as_millis();
    let (count, unit) = match millis {
        0 => (0, "second"),
        _ if millis.is_multiple_of(3_600_000) => (millis / 3_600_000, "hour"),
        _ if millis.is_multiple_of(60_000) => (millis / 60_000, "minute"),
        _ if millis.is_multiple_of(1_000) => (millis / 1_000, "second"),
        _ => (millis, "millisecond"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `INTERVAL '5 minutes'`.
pub fn interval(span: Duration) -> String {
    format!("INTERVAL '{}'", words(span))
}

/// A text in quotes.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A label's name as a column's.
pub fn column(name: &str) -> String {
    const PLAIN: [&str; 8] = ["instance", "job", "namespace", "pod", "container", "node", "device", "host"];
    let compound = name.contains('_')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit());
    if PLAIN.contains(&name) || compound { name.to_string() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_spelled_as_people_do() {
        let numbers = [0.05, 1e9, -3.0, 1e21, f64::INFINITY].map(number);
        assert_eq!(numbers, ["0.05", "1000000000", "-3", "1000000000000000000000", "CAST('inf' AS DOUBLE)"]);
        let spans = [300, 60, 3600, 90, 0].map(|seconds| words(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 minutes", "1 minute", "1 hour", "90 seconds", "0 seconds"]);
        assert_eq!(words(Duration::from_millis(1_500)), "1500 milliseconds");
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(
            (column("job").as_str(), column("Order").as_str(), column("le").as_str()),
            ("job", "\"Order\"", "\"le\"")
        );
    }
}
