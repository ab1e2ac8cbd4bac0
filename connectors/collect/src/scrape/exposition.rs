//! Reading what exporters show: Prometheus' text format, version 0.0.4, and OpenMetrics 1.0 (their documentation and specification).

/// Labels of one sample, and bytes of a name or a value: a row must fit into one record of the log.
const LABELS: usize = 64;
const TEXT_BYTES: usize = 4_096;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Labels in the order in which they stand.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
    /// When it was true, in microseconds since the epoch, where that is said.
    pub at: Option<i64>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Times are milliseconds.
    Prometheus,
    /// Times are seconds, exemplars stand behind values, and the end is marked.
    OpenMetrics,
}

/// What is wrong with a text, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Malformed {
    /// The line, from one.
    pub line: usize,
    /// What was expected, and what stands there.
    pub problem: String,
}

/// All samples of a text; of more than `most` it is refused.
///
/// # Errors
/// The first line that is none: of a text that is broken nobody knows what the rest means.
pub fn parse(text: &str, dialect: Dialect, most: usize) -> Result<Vec<Sample>, Malformed> {
    let mut samples = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let malformed = |problem: String| Malformed { line: number, problem };
        let line = line.trim_start_matches([' ', '\t']).trim_end_matches('\r');
        if line == "# EOF" && dialect == Dialect::OpenMetrics {
            return Ok(samples);
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if samples.len() == most {
            return Err(malformed(format!("expected at most {most} samples")));
        }
        samples.push(sample(line, dialect).map_err(malformed)?);
    }
    match dialect {
        // A text that was cut off looks whole otherwise.
        Dialect::OpenMetrics => {
            Err(Malformed { line: text.lines().count(), problem: "expected # EOF at the end".into() })
        }
        Dialect::Prometheus => Ok(samples),
    }
}

fn sample(line: &str, dialect: Dialect) -> Result<Sample, String> {
    let end = line.find(['{', ' ', '\t']).ok_or_else(|| format!("expected a value after '{}'", shown(line)))?;
    let (mut name, mut rest) = (line[..end].to_string(), &line[end..]);
    let mut labels = Vec::new();
    if let Some(inside) = rest.trim_start().strip_prefix('{') {
        rest = read_labels(inside, &mut name, &mut labels)?;
    }
    if name.is_empty() {
        return Err(format!("expected the name of a metric, found '{}'", shown(line)));
    }
    let longest = labels.iter().flat_map(|(name, value)| [name.len(), value.len()]).max().unwrap_or(0).max(name.len());
    if labels.len() > LABELS || longest > TEXT_BYTES {
        return Err(format!("expected at most {LABELS} labels, and names and values of {TEXT_BYTES} bytes"));
    }
    if dialect == Dialect::OpenMetrics {
        rest = rest.split(" # ").next().unwrap_or(rest);
    }
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let word = words.next().ok_or_else(|| format!("expected a value of '{name}'"))?;
    let value = number(word).ok_or_else(|| format!("expected a number, found '{}'", shown(word)))?;
    let at =
        words.next().map(|word| time(word, dialect).ok_or_else(|| format!("expected a time, found '{}'", shown(word))));
    if let Some(more) = words.next() {
        return Err(format!("expected the end of the line, found '{}'", shown(more)));
    }
    Ok(Sample { name, labels, value, at: at.transpose()? })
}

/// Names in quotes may stand among the labels: the metric's own is the one without a value (UTF-8 names of Prometheus 3).
fn read_labels<'a>(
    mut rest: &'a str,
    name: &mut String,
    labels: &mut Vec<(String, String)>,
) -> Result<&'a str, String> {
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (label, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'));
                let end =
                    end.filter(|end| *end > 0).ok_or_else(|| format!("expected a label, found '{}'", shown(rest)))?;
                (rest[..end].to_string(), &rest[end..])
            }
        };
        let is_name = rest.starts_with('"') && !after.trim_start().starts_with('=');
        rest = after.trim_start();
        if is_name {
            *name = label;
        } else {
            let value = rest.strip_prefix('=').map(str::trim_start).and_then(|value| value.strip_prefix('"'));
            let value = value.ok_or_else(|| format!("expected =\"...\" after label '{label}'"))?;
            let (value, after) = quoted_text(value)?;
            labels.push((label, value));
            rest = after.trim_start();
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err(format!("expected , or }} after a label, found '{}'", shown(rest))),
        }
    }
}

/// Up to the quote that ends it, with \\, \" and \n as what they stand for.
fn quoted_text(text: &str) -> Result<(String, &str), String> {
    let mut read = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((read, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => read.push('\n'),
                Some((_, other)) => read.push(other),
                None => break,
            },
            letter => read.push(letter),
        }
    }
    Err(format!("expected a closing quote after '{}'", shown(text)))
}

fn number(word: &str) -> Option<f64> {
    match word {
        "NaN" | "Nan" | "nan" => Some(f64::NAN),
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        word => word.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

fn time(word: &str, dialect: Dialect) -> Option<i64> {
    match dialect {
        Dialect::Prometheus => word.parse::<i64>().ok()?.checked_mul(1_000),
        Dialect::OpenMetrics => {
            let micros = word.parse::<f64>().ok()? * 1e6;
            (micros.abs() < 9e15).then_some(micros as i64)
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Vec<Sample>, String> {
        parse(text, Dialect::Prometheus, 100).map_err(|malformed| malformed.to_string())
    }

    fn pairs(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn samples_are_read_as_they_stand() {
        let text = "# HELP x about x\n# TYPE x counter\nx 1\nx{a=\"b\"} 2.5e3 1700000000000\n  y { a = \"q\\\"u\\\\o\\nte\" , b=\"\", } +Inf\nz{} NaN\n{\"u.tf8\",\"l.a\"=\"v\"} -Inf\n\n";
        let samples = of(text).unwrap();
        assert_eq!(samples[0], Sample { name: "x".into(), labels: vec![], value: 1.0, at: None });
        assert_eq!(samples[1].at, Some(1_700_000_000_000_000));
        assert_eq!((samples[1].value, &samples[1].labels), (2_500.0, &pairs(&[("a", "b")])));
        assert_eq!((samples[2].value, &samples[2].labels), (f64::INFINITY, &pairs(&[("a", "q\"u\\o\nte"), ("b", "")])));
        assert!(samples[3].value.is_nan());
        assert_eq!((samples[4].name.as_str(), &samples[4].labels), ("u.tf8", &pairs(&[("l.a", "v")])));
        assert_eq!(samples.len(), 5);
    }

    #[test]
    fn open_metrics_has_seconds_exemplars_and_an_end() {
        let text = "a_bucket{le=\"1.0\"} 8 # {trace_id=\"x\"} 0.67\na_total 3 1700000000.5\n# EOF\nnot read\n";
        let samples = parse(text, Dialect::OpenMetrics, 100).unwrap();
        assert_eq!((samples.len(), samples[0].value, samples[1].at), (2, 8.0, Some(1_700_000_000_500_000)));
        let cut = parse("a 1\n", Dialect::OpenMetrics, 100).unwrap_err().to_string();
        assert_eq!(cut, "line 1: expected # EOF at the end");
    }

    #[test]
    fn what_is_malformed_is_named_by_line() {
        for (text, expected) in [
            ("x 1\nx\n", "line 2: expected a value after 'x'"),
            ("x one\n", "line 1: expected a number, found 'one'"),
            ("x{a=\"b\" 1\n", "line 1: expected , or } after a label, found '1'"),
            ("x{a=b} 1\n", "line 1: expected =\"...\" after label 'a'"),
            ("x{a=\"b} 1\n", "line 1: expected a closing quote after 'b} 1'"),
            ("x 1 2 3\n", "line 1: expected the end of the line, found '3'"),
            ("x 1 soon\n", "line 1: expected a time, found 'soon'"),
            ("{a=\"b\"} 1\n", "line 1: expected the name of a metric, found '{a=\"b\"} 1'"),
            ("<html>\n", "line 1: expected a value after '<html>'"),
        ] {
            assert_eq!(of(text).unwrap_err(), expected, "{text}");
        }
        let many = "x 1\n".repeat(101);
        assert_eq!(of(&many).unwrap_err(), "line 101: expected at most 100 samples");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}",
            labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,5}", "\\PC{0,8}"), 0..4),
            value in any::<f64>().prop_filter("a number", |value| value.is_finite()),
        ) {
            let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let written: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
            let samples = of(&format!("{name}{{{}}} {value:e}\n", written.join(","))).unwrap();
            prop_assert_eq!(samples, vec![Sample { name, labels, value, at: None }]);
        }

        #[test]
        fn no_text_breaks_it(text in "\\PC{0,60}") {
            drop(parse(&text, Dialect::Prometheus, 10));
            drop(parse(&format!("x{{{text}"), Dialect::OpenMetrics, 10));
        }
    }
}
