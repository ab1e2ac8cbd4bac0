//! Names of metrics and labels as Prometheus writes them.

/// Units as words. <https://ucum.org/ucum>
const UNITS: [(&str, &str); 25] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];
/// Units after a slash.
const PER: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Everything else.
    Other,
}

/// Its name: words of letters and digits, the unit, and `_total` after what only grows.
pub fn metric_name(name: &str, unit: &str, kind: Kind) -> String {
    let good = |letter: char| letter.is_ascii_alphanumeric() || letter == ':';
    let mut words: Vec<String> =
        name.split(|letter: char| !good(letter)).filter(|word| !word.is_empty()).map(str::to_string).collect();
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    // What stands in braces is a remark.
    let plain = |unit: &str| if unit.contains('{') { String::new() } else { unit.trim().to_string() };
    let word = |known: &[(&str, &str)], unit: String| {
        let found = known.iter().find(|(short, _)| *short == unit).map(|(_, word)| (*word).to_string());
        found.unwrap_or_else(|| unit.split(|letter: char| !good(letter)).collect::<Vec<_>>().join("_"))
    };
    let (main, per) = (plain(main), plain(per));
    let is_ratio = main == "1" && kind == Kind::Gauge;
    let main = if main == "1" { String::new() } else { word(&UNITS, main) };
    let total = words.iter().any(|word| word == "total") && kind == Kind::Counter;
    if total {
        words.retain(|word| word != "total");
    }
    if !main.is_empty() && !words.contains(&main) {
        words.push(main);
    }
    let per = word(&PER, per);
    if !per.is_empty() && !words.contains(&per) {
        words.extend(["per".to_string(), per]);
    }
    let last = match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if is_ratio && !words.iter().any(|word| word == "ratio") => Some("ratio"),
        _ => None,
    };
    words.extend(last.map(str::to_string));
    let joined = words.join("_");
    if joined.starts_with(|first: char| first.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

/// A label's name: letters, digits and underscores.
pub fn label_name(name: &str) -> String {
    let plain: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    if plain.starts_with(|first: char| first.is_ascii_digit()) { format!("key_{plain}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_has() {
        for (name, unit, kind, expected) in [
            ("http.server.duration", "s", Kind::Other, "http_server_duration_seconds"),
            ("http.server.requests", "{request}", Kind::Counter, "http_server_requests_total"),
            ("requests.total", "1", Kind::Counter, "requests_total"),
            ("system.network.io", "By", Kind::Counter, "system_network_io_bytes_total"),
            ("gpu.utilization", "1", Kind::Gauge, "gpu_utilization_ratio"),
            ("disk.speed", "By/s", Kind::Gauge, "disk_speed_bytes_per_second"),
            ("memory_usage_bytes", "By", Kind::Gauge, "memory_usage_bytes"),
            ("3d.views", "", Kind::Gauge, "_3d_views"),
            ("a..b--c", "widgets", Kind::Other, "a_b_c_widgets"),
        ] {
            assert_eq!(metric_name(name, unit, kind), expected, "{name} {unit}");
        }
        assert_eq!((label_name("service.name"), label_name("0x")), ("service_name".to_string(), "key_0x".to_string()));
    }
}
