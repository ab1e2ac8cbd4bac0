//! Unit tests of rules: rows in, alerts at times out, in YAML close to promtool's.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidewatch_flow::admit::Admit;
use tidewatch_model::rule::SEVERITY;
use tidewatch_model::wire::json::{TimeUnitChoice, decode_lines};
use tidewatch_model::{AlertState, Span, Timestamp, table};
use tidewatch_sql::{CompiledRule, Dimensions, Feed};

use crate::judge::Judge;

/// A test file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    /// Rule files beside it.
    #[serde(default)]
    pub rule_files: Vec<String>,
    /// Statements of its own, after those of the files: rules that read a view, say.
    #[serde(default)]
    pub rules: String,
    /// The tests.
    pub tests: Vec<RuleTest>,
}

/// One test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTest {
    /// What it shows.
    #[serde(default)]
    pub name: String,
    /// Step between two values of a series.
    #[serde(default = "default_interval")]
    interval: Span,
    /// Time zero; a round instant.
    #[serde(default = "default_start")]
    start: Timestamp,
    /// Rows of dimension tables, by table.
    #[serde(default)]
    tables: BTreeMap<String, Vec<Map<String, Value>>>,
    #[serde(default)]
    input_series: Vec<Series>,
    #[serde(default)]
    input_rows: Vec<Map<String, Value>>,
    alert_rule_test: Vec<Expectation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    table: String,
    #[serde(default)]
    labels: Map<String, Value>,
    values: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    alertname: String,
    eval_time: Span,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedAlert {
    #[serde(default)]
    exp_labels: BTreeMap<String, Value>,
    #[serde(default)]
    exp_annotations: BTreeMap<String, String>,
    #[serde(default = "firing")]
    exp_state: AlertState,
}

fn default_interval() -> Span {
    Span::seconds(10)
}

fn default_start() -> Timestamp {
    Timestamp::from_seconds(1_767_225_600)
}

fn firing() -> AlertState {
    AlertState::Firing
}

impl RuleTest {
    /// Runs the test; the differences found, in words.
    ///
    /// # Errors
    /// Input that can't be read.
    pub fn run(&self, rules: &[CompiledRule], dimensions: &Dimensions) -> Result<Vec<String>, String> {
        let mut rules = rules.to_vec();
        for compiled in &mut rules {
            // Rows of a test are never late: a window closes exactly when time reaches its end.
            compiled.rule.options.delay = Span::ZERO;
        }
        if let Some(missing) =
            self.alert_rule_test.iter().find(|test| !rules.iter().any(|rule| rule.rule.name == test.alertname))
        {
            return Err(format!("no alert '{}' in the rule files", missing.alertname));
        }
        let mut judge = Judge::new(rules).map_err(|error| error.to_string())?;
        judge.set_dimensions(&self.dimensions(dimensions)?);
        let mut rows = self.rows()?;
        let mut expectations: Vec<&Expectation> = self.alert_rule_test.iter().collect();
        expectations.sort_by_key(|expectation| expectation.eval_time);
        let mut differences = Vec::new();
        for expectation in expectations {
            let until = self.start + expectation.eval_time;
            let later = rows.split_off(&(Timestamp(until.0 + 1)));
            feed(&mut judge, std::mem::replace(&mut rows, later), until)?;
            differences.extend(self.compare(&judge, expectation));
            differences.extend(
                judge.take_failures().into_iter().map(|(rule, error)| format!("{rule}: evaluation failed: {error}")),
            );
        }
        Ok(differences)
    }

    /// The dimension tables, with the rows that the test gives.
    fn dimensions(&self, known: &Dimensions) -> Result<Dimensions, String> {
        let mut dimensions = known.clone();
        for (name, rows) in &self.tables {
            let wrong = |message: String| format!("tables: {name}: {message}");
            let schema = known.rows(name).map(RecordBatch::schema);
            let schema =
                schema.ok_or_else(|| wrong("no such dimension table: expected --table NAME=FILE too".to_string()))?;
            if let Some(unknown) = rows.iter().flat_map(Map::keys).find(|column| schema.index_of(column).is_err()) {
                return Err(wrong(format!("no column '{unknown}'")));
            }
            let mut lines = Vec::new();
            for row in rows {
                lines.extend(Value::Object(row.clone()).to_string().into_bytes());
                lines.push(b'\n');
            }
            let reader = arrow::json::ReaderBuilder::new(schema.clone()).build(lines.as_slice());
            let batches = reader.and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let whole = batches
                .and_then(|batches| concat_batches(&schema, &batches))
                .map_err(|error| wrong(error.to_string()))?;
            dimensions.set(name, whole).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(dimensions)
    }

    /// The rows of all series and events by time, as JSON objects with their tables.
    fn rows(&self) -> Result<BTreeMap<Timestamp, Vec<(String, Map<String, Value>)>>, String> {
        let mut rows: BTreeMap<Timestamp, Vec<_>> = BTreeMap::new();
        for series in &self.input_series {
            for (index, values) in series.expand()?.into_iter().enumerate() {
                let Some(values) = values else { continue };
                let ts = self.start + Span(self.interval.0 * index as i64);
                let mut row = series.labels.clone();
                row.extend(values);
                rows.entry(ts).or_default().push((series.table.clone(), row));
            }
        }
        for row in &self.input_rows {
            let mut row = row.clone();
            let mut take = |name: &str| match row.remove(name) {
                Some(Value::String(text)) => Ok(text),
                _ => Err(format!("input_rows: expected '{name}' in each row")),
            };
            let (table, at) = (take("table")?, take("at")?);
            let at: Span = at.parse().map_err(|error: tidewatch_model::time::TimeError| error.to_string())?;
            rows.entry(self.start + at).or_default().push((table, row));
        }
        Ok(rows)
    }

    fn compare(&self, judge: &Judge, expectation: &Expectation) -> Vec<String> {
        let describe = |labels: &BTreeMap<String, String>, state: AlertState| format!("{state} {labels:?}");
        let of_rule = judge.alerts().filter(|alert| alert.rule == expectation.alertname);
        let alive: Vec<_> = of_rule.filter(|alert| alert.state.is_alive()).collect();
        // Severity is no part of the identity; who names it as a label, as with promtool, has it compared.
        let with_severity = expectation.exp_alerts.iter().any(|alert| alert.exp_labels.contains_key(SEVERITY));
        let mut found: Vec<String> = alive
            .iter()
            .map(|alert| {
                let mut labels = if with_severity { alert.wire_labels() } else { alert.labels.clone() };
                labels.remove("alertname");
                describe(&labels, alert.state)
            })
            .collect();
        let mut expected: Vec<String> = expectation
            .exp_alerts
            .iter()
            .map(|alert| {
                describe(
                    &alert.exp_labels.iter().map(|(name, value)| (name.clone(), text_of(value))).collect(),
                    alert.exp_state,
                )
            })
            .collect();
        found.sort();
        expected.sort();
        let at = expectation.eval_time;
        let mut differences = Vec::new();
        // As in promtool, a test that expects only firing alerts does not mind pending ones.
        if !expectation.exp_alerts.iter().any(|alert| alert.exp_state == AlertState::Pending) {
            found.retain(|alert| alert.starts_with("firing"));
        }
        if found != expected {
            differences.push(format!(
                "{} at {at}: expected [{}], found [{}]",
                expectation.alertname,
                expected.join(", "),
                found.join(", ")
            ));
        }
        for (wanted, alert) in
            expectation.exp_alerts.iter().flat_map(|wanted| alive.iter().map(move |alert| (wanted, alert)))
        {
            let labels = alert.wire_labels();
            let same = wanted.exp_labels.iter().all(|(name, value)| labels.get(name) == Some(&text_of(value)));
            for (name, text) in wanted.exp_annotations.iter().filter(|_| same) {
                if alert.annotations.get(name) != Some(text) {
                    differences.push(format!(
                        "{} at {at}: {name}: expected {text:?}, found {:?}",
                        expectation.alertname,
                        alert.annotations.get(name)
                    ));
                }
            }
        }
        differences
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Pushes rows in order of time, then moves every table's watermark to `until`.
fn feed(
    judge: &mut Judge,
    rows: BTreeMap<Timestamp, Vec<(String, Map<String, Value>)>>,
    until: Timestamp,
) -> Result<(), String> {
    let mut doors: BTreeMap<String, Admit> = BTreeMap::new();
    for (ts, rows) in rows {
        let mut by_table: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (table, mut row) in rows {
            row.insert("ts".to_string(), json!(ts));
            let lines = by_table.entry(table).or_default();
            lines.extend(Value::Object(row).to_string().into_bytes());
            lines.push(b'\n');
        }
        for (table, lines) in by_table {
            let batch = batch_of(&table, &lines)?;
            // As live rows are, but for the clock and `clean.rules`, which a test does not have.
            let found = table::find(&table).ok_or_else(|| format!("unknown table '{table}'"))?;
            let door = doors.entry(table.clone()).or_insert_with(|| Admit::new(found));
            let rows = door.admit(&batch, None).map_err(|error| error.to_string())?.rows;
            judge.push(&table, &rows, Feed::Live).map_err(|error| error.to_string())?;
        }
        // In steps, so that what `for` and `keep_firing_for` see is what a live engine sees.
        advance_all(judge, ts)?;
    }
    advance_all(judge, until)?;
    Ok(())
}

fn advance_all(judge: &mut Judge, to: Timestamp) -> Result<(), String> {
    let read: std::collections::BTreeSet<String> =
        judge.rules().flat_map(|rule| rule.tables().map(str::to_string).collect::<Vec<_>>()).collect();
    // Streams after the tables that they are made of.
    for table in table::all().into_iter().filter(|table| read.contains(table.name)) {
        judge.advance(table.name, to, false);
        judge.feed_streams().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn batch_of(name: &str, lines: &[u8]) -> Result<RecordBatch, String> {
    let table = table::find(name).ok_or_else(|| format!("unknown table '{name}'"))?;
    let (batch, report) = decode_lines(table, lines, TimeUnitChoice::Micros);
    match report.rejected.first() {
        Some(first) => Err(format!("table {name}: {}", first.reason)),
        None => match report.unknown_fields.keys().next() {
            Some(field) => Err(format!("table {name} has no column '{field}'")),
            None => Ok(batch),
        },
    }
}

impl Series {
    /// Per step the values of the row, or `None` where there is no row.
    fn expand(&self) -> Result<Vec<Option<Map<String, Value>>>, String> {
        let mut rows: Vec<Option<Map<String, Value>>> = Vec::new();
        for (column, written) in &self.values {
            let samples = samples(&text_of(written)).map_err(|word| {
                format!(
                    "{}.{column}: '{word}' is not a value: expected one such as 5, 5x3, 1+2x3, _, _x3, gap, gapx3",
                    self.table
                )
            })?;
            rows.resize_with(rows.len().max(samples.len()), || Some(Map::new()));
            for (row, sample) in rows.iter_mut().zip(samples) {
                match (sample, row.as_mut()) {
                    (Sample::Gap, _) => *row = None,
                    (Sample::Value(value), Some(row)) => {
                        row.insert(column.clone(), value);
                    }
                    (Sample::Value(_), None) => {}
                }
            }
        }
        Ok(rows)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Sample {
    Value(Value),
    Gap,
}

/// promtool's notation: `VALUExN` is the value and N more, `A+BxN` counts up from A, `A-BxN` down; `_` is NULL, `gap` no
/// row. The word that can't be read is the error.
fn samples(written: &str) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for word in written.split_whitespace() {
        let (value, more) = match word.rsplit_once('x') {
            Some((value, count)) if count.chars().all(|digit| digit.is_ascii_digit()) && !count.is_empty() => {
                (value, count.parse::<u32>().map_err(|_| word.to_string())?)
            }
            _ => (word, 0),
        };
        for step in 0..=more {
            samples.push(sample(value, step).ok_or_else(|| word.to_string())?);
        }
    }
    Ok(samples)
}

fn sample(value: &str, step: u32) -> Option<Sample> {
    match value {
        "_" => return Some(Sample::Value(Value::Null)),
        "gap" => return Some(Sample::Gap),
        "true" | "false" => return Some(Sample::Value(json!(value == "true"))),
        _ => {}
    }
    let sign = value.char_indices().skip(1).find(|(_, letter)| ['+', '-'].contains(letter));
    let (start, increment) = match sign.map(|(index, _)| index) {
        Some(index) if !value[..index].ends_with(['e', 'E']) => (&value[..index], value[index..].parse::<f64>().ok()?),
        _ => (value, 0.0),
    };
    let number = start.parse::<f64>().ok()? + increment * f64::from(step);
    if !number.is_finite() {
        return Some(Sample::Value(json!(tidewatch_model::Value::Float(number).to_string())));
    }
    // Whole numbers stay whole, so that they fit integer columns.
    let whole = number.fract() == 0.0 && number.abs() < 9e15 && !start.contains('.');
    Some(Sample::Value(if whole { json!(number as i64) } else { json!(number) }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn promtools_notation() {
        let numbers = |written: &str| -> Vec<String> {
            samples(written)
                .unwrap()
                .into_iter()
                .map(|sample| match sample {
                    Sample::Gap => "gap".into(),
                    Sample::Value(value) => value.to_string(),
                })
                .collect()
        };
        assert_eq!(numbers("1x2 5"), ["1", "1", "1", "5"]);
        assert_eq!(numbers("1+2x2 -1-1x1"), ["1", "3", "5", "-1", "-2"]);
        assert_eq!(numbers("NaN -Infx1"), ["\"NaN\"", "\"-Inf\"", "\"-Inf\""]);
        assert_eq!(samples("1 \u{e9}"), Err("\u{e9}".to_string()));
        assert_eq!(numbers("_ gapx1 0.5x1 true"), ["null", "gap", "gap", "0.5", "0.5", "true"]);
        assert_eq!(samples("7y"), Err("7y".to_string()));
    }
}
