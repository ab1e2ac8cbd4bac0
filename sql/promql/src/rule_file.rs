//! Rule files of Prometheus, with the places of what is in them. A `PrometheusRule` of the operator is one too.

use std::time::Duration;

use promql_parser::util::parse_duration;
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// The fields of a file.
const OF_FILE: [&str; 1] = ["groups"];
/// The fields of a group. The operator's objects and Mimir have more than Prometheus.
const OF_GROUP: [&str; 8] =
    ["name", "interval", "limit", "labels", "query_offset", "evaluation_delay", "partial_response_strategy", "rules"];
/// The fields of a rule.
const OF_RULE: [&str; 7] = ["alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"];

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
        let mut say = |(at, reason): Unexpected| wrong.push(Wrong { at, rule: String::new(), reason });
        unknown_fields(root, "a file of rules", &OF_FILE).into_iter().for_each(&mut say);
        match list(groups, "groups") {
            Ok(groups) => groups.into_iter().for_each(|group| read_group(group, &mut rules, &mut wrong)),
            Err(unexpected) => say(unexpected),
        }
    }
    (rules, wrong)
}

/// A place, and what is wrong there.
type Unexpected = (Place, String);

/// The fields of a mapping that nobody knows: what a slip of the pen meant would be passed over.
fn unknown_fields(node: &MarkedYaml, of: &str, known: &[&str]) -> Vec<Unexpected> {
    let expected = known.join(", ");
    let YamlData::Mapping(entries) = &node.data else {
        return vec![(place(node), format!("{of}: expected fields, some of {expected}"))];
    };
    let names = entries.iter().map(|(name, _)| (place(name), text(name).unwrap_or_default()));
    let unknown = names.filter(|(_, name)| !known.contains(&name.as_str()));
    unknown.map(|(at, name)| (at, format!("'{name}' is no field of {of}: expected one of {expected}"))).collect()
}

fn read_group(group: &MarkedYaml, rules: &mut Vec<Written>, wrong: &mut Vec<Wrong>) {
    let mut say = |at: Place, rule: &str, reason: String| wrong.push(Wrong { at, rule: rule.to_string(), reason });
    let name = get(group, "name").and_then(text).unwrap_or_default();
    let shared = match group_fields(group) {
        Ok(shared) => shared,
        Err(all) => {
            return all.into_iter().for_each(|(at, reason)| say(at, "", format!("group '{name}': {reason}")));
        }
    };
    for rule in shared.rules {
        match read_rule(rule) {
            Ok(mut read) => {
                read.group.clone_from(&name);
                read.interval = shared.interval;
                read.limit = shared.limit;
                let own = std::mem::take(&mut read.labels);
                let others = shared.labels.iter().filter(|(label, _)| own.iter().all(|(known, _)| known != label));
                read.labels = others.cloned().collect();
                read.labels.extend(own);
                if shared.late {
                    read.notes.push("the group's query_offset is left out: a window waits for its rows".to_string());
                }
                rules.push(read);
            }
            Err((name, all)) => all.into_iter().for_each(|(at, reason)| say(at, &name, reason)),
        }
    }
}

/// What the rules of a group have in common.
struct Group<'a> {
    interval: Option<Duration>,
    limit: Option<u64>,
    labels: Vec<(String, String)>,
    late: bool,
    rules: Vec<&'a MarkedYaml<'a>>,
}

fn group_fields<'a>(group: &'a MarkedYaml<'a>) -> Result<Group<'a>, Vec<Unexpected>> {
    let mut wrong = unknown_fields(group, "a group", &OF_GROUP);
    let interval = field(group, "interval", span, &mut wrong);
    let limit = field(
        group,
        "limit",
        |node| text(node).and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| "expected a number".to_string()),
        &mut wrong,
    );
    let labels = pairs(group, "labels", &mut wrong);
    let rules = get(group, "rules").map_or_else(|| Ok(vec![]), |rules| list(rules, "rules"));
    match (rules, wrong.is_empty()) {
        (Ok(rules), true) => Ok(Group {
            interval: interval.filter(|interval| !interval.is_zero()),
            limit: limit.filter(|limit| *limit > 0),
            labels,
            late: get(group, "query_offset").or(get(group, "evaluation_delay")).is_some(),
            rules,
        }),
        (rules, _) => {
            wrong.extend(rules.err());
            Err(wrong)
        }
    }
}

/// A rule, or its name and all that is wrong with it.
fn read_rule(rule: &MarkedYaml) -> Result<Written, (String, Vec<Unexpected>)> {
    let at = place(rule);
    let alert = get(rule, "alert").and_then(text);
    let record = get(rule, "record").and_then(text);
    let mut wrong = unknown_fields(rule, "a rule", &OF_RULE);
    let (name, records) = match (alert, record) {
        (Some(alert), None) => (alert, false),
        (None, Some(record)) => (record, true),
        (alert, _) => {
            if wrong.is_empty() {
                wrong.push((at, "expected either alert or record".to_string()));
            }
            (alert.unwrap_or_default(), false)
        }
    };
    let (hold, keep) = (field(rule, "for", span, &mut wrong), field(rule, "keep_firing_for", span, &mut wrong));
    let (labels, annotations) = (pairs(rule, "labels", &mut wrong), pairs(rule, "annotations", &mut wrong));
    let expr = get(rule, "expr");
    let written = expr.and_then(text);
    match (expr, &written) {
        // A slip of the pen in its name has been told already.
        (None, _) if wrong.is_empty() => wrong.push((at, "expected expr".to_string())),
        (Some(expr), None) => wrong.push((place(expr), "expr: expected a text".to_string())),
        _ => {}
    }
    match (expr, written, wrong.is_empty()) {
        (Some(expr), Some(written), true) => Ok(Written {
            records,
            expr: written,
            expr_at: place(expr),
            at,
            group: String::new(),
            interval: None,
            limit: None,
            hold: hold.unwrap_or_default(),
            keep_firing_for: keep.unwrap_or_default(),
            labels,
            annotations,
            notes: vec![],
            name,
        }),
        _ => Err((name, wrong)),
    }
}

/// The value of a field, where it has one.
fn field<T>(
    node: &MarkedYaml,
    key: &str,
    read: impl Fn(&MarkedYaml) -> Result<T, String>,
    wrong: &mut Vec<Unexpected>,
) -> Option<T> {
    let value = get(node, key)?;
    match read(value) {
        Ok(value) => Some(value),
        Err(reason) => {
            wrong.push((place(value), format!("{key}: {reason}")));
            None
        }
    }
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

fn list<'a>(node: &'a MarkedYaml<'a>, key: &str) -> Result<Vec<&'a MarkedYaml<'a>>, Unexpected> {
    match &node.data {
        YamlData::Sequence(nodes) => Ok(nodes.iter().collect()),
        _ => Err((place(node), format!("{key}: expected a list"))),
    }
}

/// Names and texts; a name without a text has an empty one.
fn pairs(node: &MarkedYaml, key: &str, wrong: &mut Vec<Unexpected>) -> Vec<(String, String)> {
    let Some(node) = get(node, key) else { return vec![] };
    let YamlData::Mapping(entries) = &node.data else {
        wrong.push((place(node), format!("{key}: expected names and texts")));
        return vec![];
    };
    let mut found = Vec::new();
    for (name, value) in entries {
        match (text(name), text(value).or_else(|| is_null(value).then(String::new))) {
            (Some(name), Some(value)) => found.push((name, value)),
            (name, _) => {
                wrong.push((place(value), format!("{key}: expected a text for '{}'", name.unwrap_or_default())));
            }
        }
    }
    found
}
