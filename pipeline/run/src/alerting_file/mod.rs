//! `alerting.yml`: routes and receivers, with Alertmanager's names and defaults.

mod alertmanagers;
mod email;
#[cfg(test)]
mod peer_tests;
mod receivers;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidewatch_flow::alerting::{GroupBy, InhibitRule, Matcher, Policy, Route, TimeInterval, interval};
use tidewatch_model::Span;
use tidewatch_sql::Level;

pub use alertmanagers::Alertmanager;
pub use receivers::Channel;
pub use yaml::Fault;
use yaml::{Fields, Node};

/// What a file says.
#[derive(Debug)]
pub struct AlertingFile {
    /// Routes, receivers' targets, inhibition, intervals.
    pub policy: Policy,
    /// How each target is reached, by its name.
    pub channels: BTreeMap<String, Channel>,
    /// Alertmanagers that get every alert.
    pub alertmanagers: Vec<Alertmanager>,
    /// The receiver that gets a heartbeat, and how often.
    pub heartbeat: Option<(String, Span)>,
}

/// Reads a file.
///
/// # Errors
/// Its path and what the system answered.
pub fn load(path: &Path) -> Result<(Option<AlertingFile>, Vec<Fault>), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(parse(&text, &folder))
}

/// Reads a text; files that it names are looked for in `folder`. What can be done is there only without an error.
pub fn parse(text: &str, folder: &Path) -> (Option<AlertingFile>, Vec<Fault>) {
    let (file, faults) = yaml::read(text, |root| file(root, folder));
    let good = !faults.iter().any(|fault| fault.level == Level::Error);
    (file.filter(|_| good), faults)
}

fn file(root: &Node, folder: &Path) -> Option<AlertingFile> {
    let mut fields = root.fields()?;
    let global = receivers::Global::read(fields.get("global").filter(|node| !node.is_null()).as_ref(), folder);
    if let Some(templates) = fields.get("templates")
        && !templates.list().is_empty()
    {
        templates
            .warning("templates of Go are not read: channels have a default text, and fields of their own for another");
    }
    let mut intervals = BTreeMap::new();
    for (name, times) in [("time_intervals", "time_intervals"), ("mute_time_intervals", "time_intervals")] {
        for node in fields.get(name).into_iter().flat_map(|node| node.list()) {
            let Some(mut interval) = node.fields() else { continue };
            let called = interval.get("name").and_then(|node| node.text());
            let read: Vec<TimeInterval> = interval
                .get(times)
                .into_iter()
                .flat_map(|node| node.list())
                .filter_map(|node| time_interval(&node))
                .collect();
            match called {
                None => node.error("expected its name"),
                Some(called) => {
                    if intervals.insert(called.clone(), read).is_some() {
                        node.error(format!("'{called}' is there twice"));
                    }
                }
            }
            interval.finish();
        }
    }
    let receivers_node = fields.get("receivers");
    let (targets, channels) = receivers::read(receivers_node.as_ref(), &global, folder);
    let inhibit_rules = fields
        .get("inhibit_rules")
        .into_iter()
        .flat_map(|node| node.list())
        .filter_map(|node| inhibit_rule(&node))
        .collect();
    let route_node = fields.get("route");
    let route = match &route_node {
        None => {
            root.error("expected route, with a receiver for what matches nothing else");
            None
        }
        Some(node) => route(node, &Inherited::default(), true, &targets, &intervals),
    };
    let alertmanagers = fields.get("alertmanagers").map(|node| alertmanagers::read(&node, folder));
    let heartbeat = fields.get("heartbeat").and_then(|node| heartbeat(&node, &targets));
    fields.cannot(&["tracing"]);
    fields.finish();
    Some(AlertingFile {
        policy: Policy { trees: vec![route?], receivers: targets, inhibit_rules, intervals },
        channels,
        alertmanagers: alertmanagers.unwrap_or_default(),
        heartbeat,
    })
}

/// The receiver that gets a heartbeat, and how often: each minute.
fn heartbeat(
    node: &Node,
    receivers: &BTreeMap<String, Vec<tidewatch_flow::alerting::Target>>,
) -> Option<(String, Span)> {
    let mut fields = node.fields()?;
    let receiver = fields.get("receiver").and_then(|node| node.parse(|name| known(name, receivers)));
    if receiver.is_none() && !fields.has("receiver") {
        node.error("expected receiver");
    }
    let interval = fields.get("interval").and_then(|node| match node.span()? {
        interval if interval >= Span::seconds(1) => Some(interval),
        _ => {
            node.error("expected a second or more");
            None
        }
    });
    fields.finish();
    Some((receiver?, interval.unwrap_or(Span::minutes(1))))
}

/// The name of a receiver that there is.
fn known(name: &str, receivers: &BTreeMap<String, Vec<tidewatch_flow::alerting::Target>>) -> Result<String, String> {
    match receivers.contains_key(name) {
        true => Ok(name.to_string()),
        false => {
            let near = tidewatch_sql::suggestion(name, receivers.keys().map(String::as_str));
            Err(format!("no receiver is called '{name}'{near}"))
        }
    }
}

/// What a route has from its parent.
#[derive(Clone)]
struct Inherited {
    receiver: Option<String>,
    group_by: GroupBy,
    group_wait: Span,
    group_interval: Span,
    repeat_interval: Span,
    escalate_after: Span,
    path: String,
}

impl Default for Inherited {
    fn default() -> Self {
        Inherited {
            receiver: None,
            group_by: GroupBy::Labels(std::collections::BTreeSet::new()),
            group_wait: Span::seconds(30),
            group_interval: Span::minutes(5),
            repeat_interval: Span::seconds(4 * 3_600),
            escalate_after: Span::ZERO,
            path: String::new(),
        }
    }
}

fn route(
    node: &Node,
    parent: &Inherited,
    is_root: bool,
    receivers: &BTreeMap<String, Vec<tidewatch_flow::alerting::Target>>,
    intervals: &BTreeMap<String, Vec<TimeInterval>>,
) -> Option<Route> {
    let mut fields = node.fields()?;
    let mut own = parent.clone();
    if let Some(receiver) = fields.get("receiver") {
        own.receiver = receiver.parse(|name| known(name, receivers));
    } else if is_root {
        node.error("expected a receiver: the one for what matches nothing else");
    }
    if let Some(labels) = fields.get("group_by") {
        let names: Vec<String> = labels.list().iter().filter_map(Node::text).collect();
        own.group_by = match names.iter().any(|name| name == "...") {
            true if names.len() > 1 => {
                labels.error("'...' means all labels: expected it alone");
                GroupBy::All
            }
            true => GroupBy::All,
            false => GroupBy::Labels(names.into_iter().collect()),
        };
    }
    let mut positive = |name: &'static str, known: Span, may_be_zero: bool| -> Span {
        let Some(node) = fields.get(name) else { return known };
        match node.span() {
            Some(Span::ZERO) if !may_be_zero => {
                node.error("expected more than 0");
                known
            }
            found => found.unwrap_or(known),
        }
    };
    own.group_wait = positive("group_wait", own.group_wait, true);
    own.group_interval = positive("group_interval", own.group_interval, false);
    own.repeat_interval = positive("repeat_interval", own.repeat_interval, false);
    own.escalate_after = positive("escalate_after", own.escalate_after, true);
    let matchers = matchers(&mut fields, "matchers", "match", "match_re");
    if is_root && !matchers.is_empty() {
        node.error("the root takes everything: expected no matchers here");
    }
    let names = |fields: &mut Fields, key| -> Vec<String> {
        let listed: Vec<Node> = fields.get(key).into_iter().flat_map(|node| node.list()).collect();
        let known = |name: &str| match intervals.contains_key(name) {
            true => Ok(name.to_string()),
            false => Err(format!("no time interval is called '{name}'")),
        };
        listed.iter().filter_map(|node| node.parse(known)).collect()
    };
    let mute_time_intervals = names(&mut fields, "mute_time_intervals");
    let active_time_intervals = names(&mut fields, "active_time_intervals");
    if is_root && !(mute_time_intervals.is_empty() && active_time_intervals.is_empty()) {
        node.error("the root has no time intervals: expected them at a route below it");
    }
    let continues = fields.get("continue").and_then(|node| node.bool()).unwrap_or(false);
    let written: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    let step = format!("{{{}}}", written.join(","));
    own.path = if is_root { step } else { format!("{}/{step}", parent.path) };
    let children = fields.get("routes").into_iter().flat_map(|node| node.list());
    let routes = children.filter_map(|node| route(&node, &own, false, receivers, intervals)).collect();
    fields.finish();
    Some(Route {
        receiver: own.receiver.unwrap_or_default(),
        matchers,
        group_by: own.group_by,
        group_wait: own.group_wait,
        group_interval: own.group_interval,
        repeat_interval: own.repeat_interval,
        continues,
        escalate_after: own.escalate_after,
        mute_time_intervals,
        active_time_intervals,
        routes,
        path: own.path,
    })
}

/// Matchers in all their spellings: a list of texts, and the older mappings of equal values and of regular expressions.
fn matchers(fields: &mut Fields, list: &'static str, equal: &'static str, regex: &'static str) -> Vec<Matcher> {
    use tidewatch_flow::alerting::Comparison;
    let mut found = Vec::new();
    for (key, comparison) in [(equal, Comparison::Equal), (regex, Comparison::Regex)] {
        for (name, node) in fields.get(key).into_iter().flat_map(|node| node.entries()) {
            found.extend(node.parse(|value| Matcher::new(&name, comparison, value)));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    for node in fields.get(list).into_iter().flat_map(|node| node.list()) {
        found.extend(node.parse(Matcher::parse_all).into_iter().flatten());
    }
    found
}

fn inhibit_rule(node: &Node) -> Option<InhibitRule> {
    let mut fields = node.fields()?;
    let sources = matchers(&mut fields, "source_matchers", "source_match", "source_match_re");
    let targets = matchers(&mut fields, "target_matchers", "target_match", "target_match_re");
    let equal = fields.get("equal").into_iter().flat_map(|node| node.list()).filter_map(|node| node.text()).collect();
    fields.cannot(&["name"]);
    fields.finish();
    Some(InhibitRule { sources, targets, equal })
}

fn time_interval(node: &Node) -> Option<TimeInterval> {
    let mut fields = node.fields()?;
    let mut found = TimeInterval::default();
    if let Some(times) = fields.get("times") {
        let read = |node: Node| {
            let mut fields = node.fields()?;
            let mut minute = |key| fields.get(key).and_then(|node: Node| node.parse(interval::parse_minute));
            let (start, end) = (minute("start_time"), minute("end_time"));
            fields.finish();
            match start.zip(end) {
                Some((start, end)) if start < end => Some((start, end)),
                Some(_) => {
                    node.error("start_time must be before end_time: an interval over midnight is two");
                    None
                }
                None => {
                    node.error("expected start_time and end_time");
                    None
                }
            }
        };
        found.times = Some(times.list().into_iter().filter_map(read).collect());
    }
    let mut ranges = |key: &'static str, read: fn(&str) -> Result<std::ops::RangeInclusive<i32>, String>| {
        let node = fields.get(key)?;
        Some(node.list().iter().filter_map(|node| node.parse(read)).collect::<Vec<_>>())
    };
    found.weekdays = ranges("weekdays", interval::parse_weekdays);
    found.days_of_month = ranges("days_of_month", interval::parse_days_of_month);
    found.months = ranges("months", interval::parse_months);
    found.years = ranges("years", interval::parse_years);
    if let Some(location) = fields.get("location") {
        let read = |name: &str| match name {
            "Local" => {
                Err("the machine's own zone depends on the machine: expected a name like Europe/Berlin".to_string())
            }
            name => name.parse().map_err(|_| format!("'{name}' is no time zone: expected a name like Europe/Berlin")),
        };
        found.location = location.parse(read).unwrap_or(found.location);
    }
    fields.finish();
    Some(found)
}

/// Where files that are named in the file lie.
fn beside(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}
