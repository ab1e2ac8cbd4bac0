//! Alerting rules of Prometheus as rules of Tidewatch: PromQL over series becomes SQL over the table `metrics`.
//!
//! What can't be said with the same meaning is refused, with its place and the reason; docs/promql.md says what is translated how, and
//! docs/decisions/0016-import.md why so.

mod absent;
mod binary;
mod call;
mod leaf;
mod node;
mod query;
mod read;
mod recorded;
mod rule;
mod rule_file;
mod select;
mod selector;
mod template;
mod text;
mod walk;

use std::collections::BTreeSet;
use std::fmt;

use promql_parser::parser;

use recorded::{Recorded, Recording};
use rule_file::{Place, Written};

/// What became of rule files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// The rules, in the order of the files.
    pub rules: Vec<ImportedRule>,
    /// What was refused, in the order of the files.
    pub refused: Vec<Refusal>,
}

/// A rule in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedRule {
    /// Its name; no two have the same.
    pub name: String,
    /// The statement, with what it was above it as a comment, ended by a semicolon and a line's end.
    pub sql: String,
    /// The file that it was in.
    pub source_file: String,
    /// The line at which it began there.
    pub source_line: usize,
    /// What is other than it was: also in the comment.
    pub notes: Vec<String>,
}

/// Something that has no translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The rule; empty where it has no name.
    pub rule: String,
    /// The part of it, and why.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { file, line, column, rule, reason } = self;
        match rule.as_str() {
            "" => write!(f, "{file}:{line}:{column}: {reason}"),
            rule => write!(f, "{file}:{line}:{column}: {rule}: {reason}"),
        }
    }
}

/// Translates the text of one file.
///
/// ```
/// let text = "groups: [{name: g, rules: [{alert: Down, expr: up == 0, for: 1m}]}]";
/// let imported = tidewatch_promql::import("rules.yml", text);
/// assert!(imported.refused.is_empty());
/// assert!(imported.rules[0].sql.contains("HAVING last(value) RESPECT NULLS = 0"));
/// ```
pub fn import(file_name: &str, text: &str) -> Imported {
    import_all([(file_name, text)])
}

/// Translates the texts of files, each with the file's name. Rules may name what recording rules of any of them record; names that are
/// taken get a number.
pub fn import_all<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Imported {
    let mut imported = Imported::default();
    let mut read = Vec::new();
    for (file, text) in files {
        let (rules, wrong) = rule_file::read(text);
        for wrong in wrong {
            imported.refused.push(refusal(file, wrong.at, &wrong.rule, wrong.reason));
        }
        read.extend(rules.into_iter().map(|rule| (file, rule)));
    }
    let mut recorded = Recorded::default();
    for (_, rule) in read.iter().filter(|(_, rule)| rule.records) {
        if let Ok(expr) = parser::parse(&rule.expr) {
            recorded.add(&rule.name, Recording { expr, labels: rule.labels.iter().cloned().collect() });
        }
    }
    let mut names = BTreeSet::new();
    for (file, written) in &read {
        match translate(file, written, &recorded, &mut names) {
            Ok(rule) => imported.rules.push(rule),
            Err(reason) => imported.refused.push(refusal(file, written.expr_at, &written.name, reason)),
        }
    }
    imported
}

fn refusal(file: &str, at: Place, rule: &str, reason: String) -> Refusal {
    Refusal { file: file.to_string(), line: at.line, column: at.column, rule: rule.to_string(), reason }
}

fn translate(
    file: &str,
    written: &Written,
    recorded: &Recorded,
    names: &mut BTreeSet<String>,
) -> Result<ImportedRule, String> {
    let expr = parser::parse(&written.expr).map_err(|error| format!("not PromQL: {error}"))?;
    if written.records {
        return Err("a recording rule: a stream can't have labels of metrics as its key; rules of these files that name it have its \
                    expression in them"
            .to_string());
    }
    rule::alert(file, written, &expr, recorded, names)
}

#[cfg(test)]
mod tests;
