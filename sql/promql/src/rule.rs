//! The statement of a rule: its options, and a comment with what it was.

use std::collections::BTreeSet;
use std::time::Duration;

use promql_parser::parser::Expr;

use crate::ImportedRule;
use crate::absent::absent;
use crate::read::Reader;
use crate::recorded::Recorded;
use crate::rule_file::Written;
use crate::select::{Selected, select};
use crate::template::translated;
use crate::text::{quoted, words};

/// How often a group is evaluated that does not say it: Prometheus' own default.
const INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of a statement.
const STATEMENT_BYTES: usize = 32 << 10;
/// Letters of a name.
const NAME_LETTERS: usize = 120;

/// An alerting rule as a statement.
///
/// # Errors
/// The part that can't be translated, and why.
pub fn alert(
    file: &str,
    written: &Written,
    expr: &Expr,
    recorded: &Recorded,
    names: &mut BTreeSet<String>,
) -> Result<ImportedRule, String> {
    let slide = written.interval.unwrap_or(INTERVAL);
    let mut notes = written.notes.clone();
    let mut options: Vec<(String, String)> = Vec::new();
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut reader = Reader::new(recorded);
    let selected = match absent(expr, slide, &mut reader) {
        Some(found) => {
            let found = found?;
            labels = found.labels;
            Selected { sql: found.sql, key: None, labels: vec![] }
        }
        None => select(&reader.read(expr)?, slide)?,
    };
    let used = reader.used.iter().map(|name| format!("'{name}' is a recording rule: its expression is in this rule"));
    notes.extend(used);
    let word = written.labels.iter().find(|(label, _)| label == "severity").map(|(_, word)| word.as_str());
    let severity = word.map(|word| severity(word, &mut notes, &mut labels)).transpose()?;
    options.push(("severity".to_string(), severity.unwrap_or("warning").to_string()));
    for (label, value) in written.labels.iter().filter(|(label, _)| label != "severity") {
        check_label(label, value)?;
        labels.retain(|(known, _)| known != label);
        if !value.is_empty() {
            labels.push((label.clone(), value.clone()));
        }
    }
    for name in &selected.labels {
        if ["severity", "alertname"].contains(&name.as_str()) || labels.iter().any(|(label, _)| label == name) {
            return Err(format!("the label '{name}' of its result is another label's name here"));
        }
    }
    let times = [("for", written.hold), ("keep_firing_for", written.keep_firing_for)];
    options
        .extend(times.iter().filter(|(_, span)| !span.is_zero()).map(|(name, span)| (name.to_string(), words(*span))));
    options.push(("no_data".to_string(), "resolve".to_string()));
    if let Some(limit) = written.limit {
        options.push(("limit".to_string(), limit.to_string()));
        notes.push(format!("beyond {limit} alerts the worst fire, where Prometheus has none"));
    }
    options.extend(selected.key.iter().map(|key| ("key".to_string(), key.clone())));
    options.extend(labels.iter().map(|(label, value)| (format!("\"label.{label}\""), value.clone())));
    for (name, text) in &written.annotations {
        match translated(text) {
            Ok((text, shows_all_labels)) => {
                if shows_all_labels {
                    notes.push(format!(
                        "annotation '{name}' shows all labels of the alert, where Prometheus shows those of its series and the metric's name"
                    ));
                }
                options.push((annotation(name), text));
            }
            Err(reason) => notes.push(format!("annotation '{name}' is left out: {reason}")),
        }
    }
    let name = free_name(&written.name, severity, names, &mut notes);
    let options: Vec<String> = options.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    let sql = format!(
        "{}CREATE ALERT \"{name}\"\nWITH ({})\nAS\n{};\n",
        comment(file, written, &notes),
        options.join(",\n      "),
        selected.sql
    );
    if sql.len() > STATEMENT_BYTES {
        return Err(format!("its SQL has {} bytes: a statement has {STATEMENT_BYTES} at most", sql.len()));
    }
    Ok(ImportedRule { name, sql, source_file: file.to_string(), source_line: written.at.line, notes })
}

fn annotation(name: &str) -> String {
    match name {
        "summary" | "description" | "runbook_url" => name.to_string(),
        name => format!("\"annotation.{name}\""),
    }
}

fn check_label(label: &str, value: &str) -> Result<(), String> {
    if value.contains("{{") {
        return Err(format!("label '{label}' is a template: a label of a rule is the same for all of its alerts"));
    }
    if label == "alertname" {
        return Err("label 'alertname': it is the rule's name".to_string());
    }
    Ok(())
}

/// Our word for a severity. One that is another word there stays as a label.
fn severity(word: &str, notes: &mut Vec<String>, labels: &mut Vec<(String, String)>) -> Result<&'static str, String> {
    check_label("severity", word)?;
    let ours = match word.to_lowercase().as_str() {
        "critical" | "crit" | "page" | "error" | "emergency" | "fatal" | "disaster" | "high" => "critical",
        "info" | "information" | "informational" | "none" | "notice" | "low" | "debug" => "info",
        _ => "warning",
    };
    if ours != word {
        notes.push(format!("severity '{word}' is '{ours}' here; the word is kept in the label prometheus_severity"));
        labels.push(("prometheus_severity".to_string(), word.to_string()));
    }
    Ok(ours)
}

/// A name of letters, digits and '_' that no other rule has.
fn free_name(written: &str, severity: Option<&str>, names: &mut BTreeSet<String>, notes: &mut Vec<String>) -> String {
    let mut name: String = written
        .trim()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' })
        .take(NAME_LETTERS - 12)
        .collect();
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        name.insert(0, '_');
    }
    let with_severity = severity.map(|severity| format!("{name}_{severity}"));
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let free = std::iter::once(name.clone()).chain(with_severity).chain(numbered).find(|name| !names.contains(name));
    let free = free.unwrap_or(name);
    if free != written {
        notes
            .push(format!("its name was '{written}': routes and silences that match alertname must match the new one"));
    }
    names.insert(free.clone());
    free
}

fn comment(file: &str, written: &Written, notes: &[String]) -> String {
    let mut lines =
        vec![format!("{file}:{}: {} of the group '{}' in PromQL:", written.at.line, written.name, written.group)];
    lines.extend(written.expr.trim().lines().map(|line| format!("  {}", line.trim_end())));
    lines.extend(notes.iter().map(|note| format!("Note: {note}.")));
    let lines = lines.iter().flat_map(|line| line.split('\n'));
    lines.map(|line| format!("-- {line}").trim_end().to_string() + "\n").collect()
}
