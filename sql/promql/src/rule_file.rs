//! Rule files of Prometheus, with the places of what is in them. A `PrometheusRule` of the operator is one too.

use std::time::Duration;

use promql_parser::util::parse_duration;
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// A place in a file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A rule as written.
#[derive(Debug, Clone)]
pub struct Written {
    /// What it is called, or records.
    pub name: String,
    /// Whether it records.
    pub records: bool,
    /// The expression.
    pub expr: String,
    /// Where that stands.
    pub expr_at: Place,
    /// Where the rule stands.
    pub at: Place,
    /// Its group.
    pub group: String,
    /// How often it is evaluated, where the group says so.
    pub interval: Option<Duration>,
    /// How many alerts the group lets it have.
    pub limit: Option<u64>,
    /// `for`.
    pub hold: Duration,
    /// `keep_firing_for`.
    pub keep_firing_for: Duration,
    /// Labels, those of the group among them.
    pub labels: Vec<(String, String)>,
    /// Annotations.
    pub annotations: Vec<(String, String)>,
    /// What was left out.
    pub notes: Vec<String>,
}

/// What is wrong, where, and in which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub at: Place,
    /// The rule; empty where it has no name.
    pub rule: String,
    /// What.
    pub reason: String,
}

/// Reads a file: the rules that can be read, and what can't.
pub fn read(text: &str) -> (Vec<Written>, Vec<Wrong>) {
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            let at = Place { line: error.marker().line(), column: error.marker().col() + 1 };
            return (rules, vec![Wrong { at, rule: String::new(), reason: format!("not YAML: {}", error.info()) }]);
        }
    };
    for document in &documents {
        let root = match get(document, "spec") {
            Some(spec) if get(document, "groups").is_none() => spec,
            _ => document,
        };
        let Some(groups) = get(root, "groups") else {
            if !is_null(document) && !matches!(&document.data, YamlData::Mapping(entries) if entries.is_empty()) {
                wrong.push(Wrong {
                    at: place(document),
                    rule: String::new(),
                    reason: "expected groups: a rule file of Prometheus".to_string(),
                });
            }
            continue;
        };
        for group in list(groups) {
            read_group(group, &mut rules, &mut wrong);
        }
    }
    (rules, wrong)
}

fn read_group(group: &MarkedYaml, rules: &mut Vec<Written>, wrong: &mut Vec<Wrong>) {
    let mut say = |at: Place, rule: &str, reason: String| wrong.push(Wrong { at, rule: rule.to_string(), reason });
    let name = get(group, "name").and_then(text).unwrap_or_default();
    let interval = match get(group, "interval").map(span).transpose() {
        Ok(interval) => interval.filter(|interval| !interval.is_zero()),
        Err(reason) => return say(place(group), "", format!("group '{name}': interval: {reason}")),
    };
    let limit = get(group, "limit").and_then(text).and_then(|text| text.parse().ok()).filter(|limit| *limit > 0);
    let shared = get(group, "labels").map(pairs).unwrap_or_default();
    let late = get(group, "query_offset").or(get(group, "evaluation_delay")).is_some();
    for rule in get(group, "rules").map(list).unwrap_or_default() {
        match read_rule(rule) {
            Ok(mut read) => {
                read.group.clone_from(&name);
                read.interval = interval;
                read.limit = limit;
                let own = std::mem::take(&mut read.labels);
                read.labels =
                    shared.iter().filter(|(label, _)| own.iter().all(|(known, _)| known != label)).cloned().collect();
                read.labels.extend(own);
                if late {
                    read.notes.push("the group's query_offset is left out: a window waits for its rows".to_string());
                }
                rules.push(read);
            }
            Err((at, name, reason)) => say(at, &name, reason),
        }
    }
}

fn read_rule(rule: &MarkedYaml) -> Result<Written, (Place, String, String)> {
    let at = place(rule);
    let alert = get(rule, "alert").and_then(text);
    let record = get(rule, "record").and_then(text);
    let (name, records) = match (alert, record) {
        (Some(alert), None) => (alert, false),
        (None, Some(record)) => (record, true),
        _ => return Err((at, String::new(), "expected either alert or record".to_string())),
    };
    let expr = get(rule, "expr").ok_or_else(|| (at, name.clone(), "expected expr".to_string()))?;
    let written = text(expr).ok_or_else(|| (place(expr), name.clone(), "expr: expected a text".to_string()))?;
    let time = |key: &str| match get(rule, key) {
        Some(node) => span(node).map_err(|reason| (place(node), name.clone(), format!("{key}: {reason}"))),
        None => Ok(Duration::ZERO),
    };
    Ok(Written {
        records,
        expr: written,
        expr_at: place(expr),
        at,
        group: String::new(),
        interval: None,
        limit: None,
        hold: time("for")?,
        keep_firing_for: time("keep_firing_for")?,
        labels: get(rule, "labels").map(pairs).unwrap_or_default(),
        annotations: get(rule, "annotations").map(pairs).unwrap_or_default(),
        notes: vec![],
        name: name.clone(),
    })
}

fn place(node: &MarkedYaml) -> Place {
    Place { line: node.span.start.line(), column: node.span.start.col() + 1 }
}

fn is_null(node: &MarkedYaml) -> bool {
    matches!(node.data, YamlData::Value(Scalar::Null))
}

fn text(node: &MarkedYaml) -> Option<String> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(value)) => Some(value.to_string()),
        _ => None,
    }
}

fn span(node: &MarkedYaml) -> Result<Duration, String> {
    let text = text(node).ok_or("expected a duration")?;
    match text.as_str() {
        // The parser of durations takes none that is zero.
        text if text.chars().filter(char::is_ascii_digit).all(|digit| digit == '0') && text.len() <= 3 => {
            Ok(Duration::ZERO)
        }
        text => parse_duration(text).map_err(|_| format!("'{text}' is no duration: expected one such as 5m")),
    }
}

fn get<'a>(node: &'a MarkedYaml<'a>, key: &str) -> Option<&'a MarkedYaml<'a>> {
    let YamlData::Mapping(entries) = &node.data else { return None };
    let found = entries.iter().find(|(name, _)| text(name).as_deref() == Some(key));
    found.map(|(_, value)| value).filter(|value| !is_null(value))
}

fn list<'a>(node: &'a MarkedYaml<'a>) -> Vec<&'a MarkedYaml<'a>> {
    match &node.data {
        YamlData::Sequence(nodes) => nodes.iter().collect(),
        _ => vec![],
    }
}

fn pairs(node: &MarkedYaml) -> Vec<(String, String)> {
    match &node.data {
        YamlData::Mapping(entries) => {
            entries.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
        }
        _ => vec![],
    }
}
