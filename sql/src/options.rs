//! The options of `WITH (...)`: which exist, what they mean when absent, and which come later.

use std::collections::{BTreeMap, HashSet};

use tidewatch_model::limits::{EVENT_HOLD, LABELS, RULE_DELAY, WINDOW_SIZE};
use tidewatch_model::table::TableKind;
use tidewatch_model::{NoDataPolicy, RuleOptions, RuleShape, Severity, Span, WindowSpec};

use crate::fault::{Fault, suggestion};
use crate::statement::WrittenOption;
use crate::window_call::check_spec;

/// Every option that this version obeys. `"label.x"` and `"annotation.x"` come on top.
pub const OPTIONS: [&str; 15] = [
    "severity",
    "for",
    "for_evaluations",
    "keep_firing_for",
    "recover_when",
    "no_data",
    "limit",
    "flap_detection",
    "delay",
    "key",
    "every",
    "over",
    "summary",
    "description",
    "runbook_url",
];

/// Options that the rule language has and this version does not obey yet: refused by name rather than ignored.
pub const LATER_OPTIONS: [&str; 2] = ["backfill", "notify"];

/// The checked options, and the key columns that `key = '...'` names.
#[derive(Debug)]
pub struct CheckedOptions {
    /// What the lifecycle obeys.
    pub options: RuleOptions,
    /// `key = 'a, b'`, when given.
    pub key: Option<Vec<String>>,
}

/// The window that the options `every` and `over` make: its slide and its size.
pub fn bounds(written: &[WrittenOption]) -> Result<Option<WindowSpec>, Fault> {
    let find = |name: &str| written.iter().find(|option| option.name == name);
    let (every, over) = match (find("every"), find("over")) {
        (None, None) => return Ok(None),
        (Some(every), Some(over)) => (every, over),
        (Some(one), None) => {
            return Err(Fault::error(one.at.clone(), "every needs the option over: how far back it looks"));
        }
        (None, Some(one)) => {
            return Err(Fault::error(one.at.clone(), "over needs the option every: how often it looks"));
        }
    };
    let read = |option: &WrittenOption| {
        let span = span(&option.name, &option.value).map_err(|message| Fault::error(option.at.clone(), message))?;
        match span.0 > 0 {
            true => Ok(span),
            false => Err(Fault::error(option.at.clone(), format!("{}: expected more than zero", option.name))),
        }
    };
    let spec = WindowSpec { slide: read(every)?, size: read(over)? };
    check_spec(spec, WINDOW_SIZE)
        .map(Some)
        .map_err(|message| Fault::error(over.at.clone(), format!("every, over: {message}")))
}

/// Checks what was written; every fault is reported, not only the first.
pub fn check_options(
    written: &[WrittenOption],
    kind: TableKind,
    shape: RuleShape,
) -> Result<CheckedOptions, Vec<Fault>> {
    let mut checked = CheckedOptions { options: defaults(kind, shape), key: None };
    let mut faults = Vec::new();
    let mut seen = HashSet::new();
    for option in written {
        if !seen.insert(option.name.as_str()) {
            faults.push(Fault::error(option.at.clone(), format!("option '{}' is given twice", option.name)));
        } else if let Err(message) = apply(&mut checked, &option.name, &option.value) {
            faults.push(Fault::error(option.at.clone(), message));
        }
    }
    if let (true, RuleShape::Row, Some(option)) =
        (checked.options.flap_detection, shape, written.iter().find(|option| option.name == "flap_detection"))
    {
        let message = "flap_detection: expected a rule that looks at fixed times; for rows there is keep_firing_for";
        faults.push(Fault::error(option.at.clone(), message));
    }
    if let (Some(_), RuleShape::Row, TableKind::Event, Some(option)) =
        (&checked.options.recover_when, shape, kind, written.iter().find(|option| option.name == "recover_when"))
    {
        let message = "recover_when: expected a rule over samples: an alert on events ends keep_firing_for after the last of them";
        faults.push(Fault::error(option.at.clone(), message));
    }
    for (what, count) in [("labels", checked.options.labels.len()), ("annotations", checked.options.annotations.len())]
    {
        if let Some(last) = written.last().filter(|_| count > LABELS) {
            faults.push(Fault::error(last.at.clone(), format!("{count} {what}: a rule has {LABELS} at most")));
        }
    }
    if faults.is_empty() { Ok(checked) } else { Err(faults) }
}

fn defaults(kind: TableKind, shape: RuleShape) -> RuleOptions {
    let event = kind == TableKind::Event;
    RuleOptions {
        severity: Severity::Warning,
        hold: Span::ZERO,
        hold_evaluations: 1,
        recover_when: None,
        limit: None,
        flap_detection: false,
        keep_firing_for: if event && shape == RuleShape::Row { EVENT_HOLD } else { Span::ZERO },
        no_data: if event { NoDataPolicy::Resolve } else { NoDataPolicy::Keep },
        delay: RULE_DELAY,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn apply(checked: &mut CheckedOptions, name: &str, value: &str) -> Result<(), String> {
    let options = &mut checked.options;
    match name {
        "severity" => options.severity = value.parse().map_err(|error| format!("severity: {error}"))?,
        "for" => options.hold = span(name, value)?,
        "for_evaluations" => options.hold_evaluations = count(name, value)?,
        "limit" => options.limit = Some(count(name, value)?),
        "recover_when" => options.recover_when = Some(value.to_string()),
        "flap_detection" => {
            options.flap_detection = match value.to_lowercase().as_str() {
                "true" | "on" => true,
                "false" | "off" => false,
                _ => return Err(format!("flap_detection: '{value}' is not one of true, false")),
            }
        }
        "keep_firing_for" => options.keep_firing_for = span(name, value)?,
        "no_data" => options.no_data = value.parse().map_err(|error| format!("no_data: {error}"))?,
        "delay" => options.delay = span(name, value)?,
        "key" => checked.key = Some(key_columns(value)?),
        // They made the rule's shape already.
        "every" | "over" => {}
        "summary" | "description" | "runbook_url" => {
            options.annotations.insert(name.to_string(), value.to_string());
        }
        _ => return apply_prefixed(options, name, value),
    }
    Ok(())
}

fn apply_prefixed(options: &mut RuleOptions, name: &str, value: &str) -> Result<(), String> {
    if let Some(label) = name.strip_prefix("label.") {
        check_label(label)?;
        options.labels.insert(label.to_string(), value.to_string());
        return Ok(());
    }
    if let Some(annotation) = name.strip_prefix("annotation.") {
        options.annotations.insert(annotation.to_string(), value.to_string());
        return Ok(());
    }
    if LATER_OPTIONS.contains(&name) {
        return Err(format!("option '{name}' is not supported by this version yet"));
    }
    let near = suggestion(name, OPTIONS.into_iter().chain(LATER_OPTIONS));
    Err(format!("unknown option '{name}': expected one of {}, \"label.x\", \"annotation.x\"{near}", OPTIONS.join(", ")))
}

fn span(name: &str, value: &str) -> Result<Span, String> {
    value.parse().map_err(|error| format!("{name}: {error}"))
}

fn count(name: &str, value: &str) -> Result<u32, String> {
    let number = value.trim().parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name}: '{value}' is not a whole number above zero"))
}

fn key_columns(value: &str) -> Result<Vec<String>, String> {
    let columns: Vec<String> = value.split(',').map(|column| column.trim().to_string()).collect();
    if columns.iter().any(String::is_empty) {
        return Err(format!("key: '{value}' is not a list of columns: expected names such as 'host, gpu_uuid'"));
    }
    Ok(columns)
}

/// Prometheus' form of a label name; `alertname` and `severity` are set by us.
fn check_label(label: &str) -> Result<(), String> {
    let mut letters = label.chars();
    let good = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    match label {
        "alertname" | "severity" => Err(format!("label '{label}' is set by Tidewatch and can't be given")),
        _ if good => Ok(()),
        _ => Err(format!("'{label}' is not a label name: expected letters, digits and '_'")),
    }
}
