//! The life of an alert: pending, firing, resolved, and the promise that nothing resolves because data went missing.
//!
//! The reference is Prometheus (`for`, `keep_firing_for`, identity by labels); where we differ it is on purpose: a group
//! without rows is not clear, a failed evaluation changes nothing, and event time comes from windows, not from a clock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use tidewatch_model::alert::{Labels, Swings, event_id, fingerprint};
use tidewatch_model::limits::{ANNOTATION_BYTES, GONE_AFTER, LABELS, RESOLVED_KEPT};
use tidewatch_model::table::TableKind;
use tidewatch_model::value::{cut, cut_label, entries_of};
use tidewatch_model::{
    Alert, AlertState, Evaluation, Finding, GroupState, NoDataPolicy, Outcome, Reason, Rule, RuleShape, Severity, Span,
    Timestamp, Transition, Value, Values,
};

use crate::template::Context;

/// What became of a rule that is not judged here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may be one with a fault: its alerts stay as they are. A slip of the pen must not tell people that a fire is out.
    Unknown,
    /// It was removed: its alerts end.
    Gone,
    /// Somebody else judges it and has its alerts: ours are dropped, and nobody is told anything.
    Elsewhere,
}

/// All alerts, by rule and fingerprint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlertBook {
    alerts: BTreeMap<String, BTreeMap<String, Alert>>,
    failures: BTreeMap<String, u32>,
}

impl AlertBook {
    /// The alerts that are kept: pending, firing, and those resolved a short while ago.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().flat_map(BTreeMap::values)
    }

    /// The alerts of a rule's groups that are pending or firing.
    pub fn alive(&self, rule: &str) -> impl Iterator<Item = &Alert> {
        let alerts = self.alerts.get(rule).into_iter().flat_map(BTreeMap::values);
        alerts.filter(|alert| alert.state.is_alive() && !is_overflow(alert))
    }

    /// Puts alerts back, as they were before a restart.
    pub fn restore(&mut self, alerts: impl IntoIterator<Item = Alert>) {
        for alert in alerts {
            self.alerts.entry(alert.rule.clone()).or_default().insert(alert.fingerprint(), alert);
        }
    }

    /// How many evaluations of a rule in a row have failed.
    pub fn failures(&self, rule: &str) -> u32 {
        self.failures.get(rule).copied().unwrap_or(0)
    }

    /// Rules were loaded anew: alerts of rules that are gone, or whose identity columns changed, end, at the event time of
    /// their rule's last evaluation (`positions`), so that a second try after a crash says the same. Everything else
    /// keeps its state; as in Prometheus, one that fires goes on firing when `for` was raised.
    ///
    /// `fate` says what became of a rule that is not among these.
    pub fn reload(
        &mut self,
        rules: &[Rule],
        fate: &dyn Fn(&str) -> Fate,
        positions: &BTreeMap<String, Timestamp>,
    ) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for (name, alerts) in &mut self.alerts {
            let rule = rules.iter().find(|rule| rule.name == *name);
            let fate = if rule.is_some() { Fate::Unknown } else { fate(name) };
            if fate == Fate::Elsewhere {
                alerts.clear();
            }
            alerts.retain(|_, alert| {
                let ended = match rule {
                    None if fate == Fate::Gone => Some(Reason::RuleRemoved),
                    None => None,
                    Some(rule) if !same_identity(rule, alert) => Some(Reason::RuleChanged),
                    Some(_) => None,
                };
                let ts = positions.get(name).copied().unwrap_or(alert.last_match).max(alert.last_match);
                let instant = Instant { ts, start: ts, end: ts };
                // An alert without values is one whose rows are missing: nothing says that it is less urgent than it was.
                if let (None, Some(rule), false) = (ended, rule, alert.values.is_empty()) {
                    let before = std::mem::replace(&mut alert.severity, rule.severity_of(&alert.values));
                    let reason = severity_change(before, alert.severity).filter(|_| alert.state == AlertState::Firing);
                    transitions.extend(reason.map(|reason| change(alert, AlertState::Firing, reason, instant)));
                }
                let Some(reason) = ended else { return true };
                match alert.state {
                    AlertState::Firing => transitions.push(change(alert, AlertState::Resolved, reason, instant)),
                    AlertState::Pending => transitions.push(change(alert, AlertState::Inactive, reason, instant)),
                    AlertState::Inactive | AlertState::Resolved => {}
                }
                alert.state == AlertState::Resolved
            });
        }
        transitions
    }

    /// Until when further evaluations of a rule change nothing as long as none of its groups has rows: the engine need not
    /// make them. Call it after an evaluation in which none had.
    pub fn quiet_until(&self, rule: &Rule) -> Timestamp {
        let alive = self.alerts.get(&rule.name).into_iter().flat_map(BTreeMap::values);
        let next = alive.filter_map(|alert| match (rule.options.no_data, alert.state) {
            (_, AlertState::Inactive | AlertState::Resolved) | (NoDataPolicy::Ignore, _) => None,
            (NoDataPolicy::Keep, _) => alert.stale_since.map(|since| since.saturating_add(GONE_AFTER)),
            // Each further evaluation counts.
            (NoDataPolicy::Alert, AlertState::Pending) if rule.options.hold_evaluations > 1.max(alert.matches) => {
                Some(alert.last_match)
            }
            (NoDataPolicy::Alert, AlertState::Pending) => Some(alert.active_at.saturating_add(rule.options.hold)),
            (NoDataPolicy::Alert, AlertState::Firing) => None,
            (NoDataPolicy::Resolve, _) => {
                alert.keep_since.map(|since| since.saturating_add(rule.options.keep_firing_for))
            }
        });
        next.min().unwrap_or(Timestamp::MAX)
    }

    /// Takes one evaluation of a rule; returns what changed, sorted by event time and fingerprint.
    pub fn advance(&mut self, rule: &Rule, evaluation: &Evaluation) -> Vec<Transition> {
        let findings = match &evaluation.outcome {
            Outcome::Failed(_) => {
                *self.failures.entry(rule.name.clone()).or_default() += 1;
                return vec![];
            }
            Outcome::Groups(findings) => findings,
        };
        if !self.failures.is_empty() {
            self.failures.remove(&rule.name);
        }
        if findings.is_empty() && self.alerts.get(&rule.name).is_none_or(BTreeMap::is_empty) {
            return vec![];
        }
        let at = Instant { ts: evaluation.window_end, start: evaluation.window_start, end: evaluation.window_end };
        let alerts = self.alerts.entry(rule.name.clone()).or_default();
        let mut transitions = Vec::new();
        if rule.shape == RuleShape::Row && rule.table_kind == TableKind::Event {
            transitions.extend(end_events(rule, alerts, at));
        }
        match rule.options.limit {
            None => findings.iter().for_each(|finding| transitions.extend(one_group(rule, alerts, finding, at))),
            Some(limit) => transitions.extend(within(limit as usize, rule, alerts, findings, at)),
        }
        alerts.retain(|_, alert| match alert.state {
            AlertState::Inactive => false,
            AlertState::Resolved => alert.resolved_at.is_none_or(|resolved| at.ts - resolved < RESOLVED_KEPT),
            AlertState::Pending | AlertState::Firing => true,
        });
        if transitions.len() > 1 {
            transitions.sort_by_cached_key(|transition| (transition.ts, transition.alert.fingerprint()));
        }
        transitions
    }
}

/// The moment of an evaluation, and its window.
#[derive(Debug, Clone, Copy)]
struct Instant {
    ts: Timestamp,
    start: Timestamp,
    end: Timestamp,
}

/// The label of the alert that tells of those that a limit left out.
const OVERFLOW: &str = "tidewatch_overflow";

/// Whether an alert is about other alerts that a limit left out.
fn is_overflow(alert: &Alert) -> bool {
    alert.labels.contains_key(OVERFLOW)
}

/// Takes findings under a limit: what is alive goes on, and of what comes the worst have the room that is left. One alert tells that
/// some were left out.
fn within(
    limit: usize,
    rule: &Rule,
    alerts: &mut BTreeMap<String, Alert>,
    findings: &[Finding],
    at: Instant,
) -> Vec<Transition> {
    let mut transitions = Vec::new();
    let mut fresh: Vec<(&Finding, Values)> = Vec::new();
    for finding in findings {
        let is_alive = alerts.get(&fingerprint(&labels_of(rule, finding))).is_some_and(|alert| alert.state.is_alive());
        match &finding.state {
            GroupState::Firing(values) if !is_alive => fresh.push((finding, values.clone())),
            GroupState::NoData if !is_alive && rule.options.no_data == NoDataPolicy::Alert => {
                fresh.push((finding, Values::new()));
            }
            _ => transitions.extend(one_group(rule, alerts, finding, at)),
        }
    }
    let count = |alerts: &BTreeMap<String, Alert>| {
        alerts.values().filter(|alert| alert.state.is_alive() && !is_overflow(alert)).count()
    };
    fresh.sort_by(|one, other| rule.compare(&other.1, &one.1));
    let room = limit.saturating_sub(count(alerts)).min(fresh.len());
    let left_out = fresh.split_off(room);
    for (finding, _) in fresh {
        transitions.extend(one_group(rule, alerts, finding, at));
    }
    // Of those that were left out nobody knows whether they are well or silent: it is over when there is room for whatever comes.
    let is_over = count(alerts) < limit;
    let mut labels = rule.options.labels.clone();
    labels.extend([("alertname".to_string(), rule.name.clone()), (OVERFLOW.to_string(), "limit".to_string())]);
    let id = fingerprint(&labels);
    let telling = || {
        let mut rule = rule.clone();
        rule.options.hold = Span::ZERO;
        rule.options.hold_evaluations = 1;
        rule.options.annotations = BTreeMap::from([(
            "summary".to_string(),
            "{{ alertname }}: {{ left_out }} alerts are left out, its limit is {{ limit }}".to_string(),
        )]);
        rule
    };
    let existing = alerts.get_mut(&id).filter(|alert| alert.state.is_alive());
    match (left_out.len(), existing) {
        (0, None) => {}
        (0, Some(_)) if rule.shape == RuleShape::Row && rule.table_kind == TableKind::Event => {}
        (0, Some(alert)) if is_over => transitions.extend(missed(&telling(), alert, Reason::ConditionCleared, at)),
        (0, Some(_)) => {}
        (left_out, existing) => {
            let values = vec![
                ("left_out".to_string(), Value::Int(left_out as i64)),
                ("limit".to_string(), Value::Int(limit as i64)),
            ];
            transitions.extend(match existing {
                Some(alert) => matched(&telling(), alert, values, at),
                None => begin(&telling(), alerts, labels, id, values, Reason::LimitReached, at),
            });
        }
    }
    transitions
}

fn labels_of(rule: &Rule, finding: &Finding) -> Labels {
    let mut labels: Labels = finding.key.clone();
    for name in &rule.spread {
        // One that was cut stays what it is, and one of too many entries is a label that tells it from every other.
        let Some(text) = labels.remove(name) else { continue };
        let Some(entries) = entries_of(&text).filter(|entries| entries.len() <= LABELS) else {
            labels.insert(name.clone(), cut_label(text));
            continue;
        };
        // A column of the key speaks for the entry of its name, also when it says that there is none.
        let spread = entries.into_iter().filter(|(label, _)| !rule.key.contains(label) || rule.spread.contains(label));
        for (label, value) in spread {
            labels.entry(label).or_insert_with(|| cut_label(value));
        }
    }
    let own = rule.options.labels.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in own.chain([("alertname", &rule.name)]) {
        // Only an entry of a map can be in the way: it keeps telling its group from others, as a scraped label does that is in the way of a
        // target's (Prometheus, `honor_labels: false`).
        if let Some(hidden) = labels.insert(name.to_string(), value.clone()).filter(|hidden| hidden != value) {
            labels.entry(format!("exported_{name}")).or_insert(hidden);
        }
    }
    labels
}

/// Whether an alert made by an earlier form of the rule is one that this form could make.
fn same_identity(rule: &Rule, alert: &Alert) -> bool {
    let columns = |key: &[String]| key.iter().cloned().collect::<BTreeSet<_>>();
    if !alert.group.is_empty() {
        let group = Finding { key: alert.group.clone(), state: GroupState::Unknown };
        return columns(&alert.key) == columns(&rule.key) && alert.labels == labels_of(rule, &group);
    }
    let known = |name: &String| {
        name == "alertname"
            || name == OVERFLOW && rule.options.limit.is_some()
            || rule.key.contains(name)
            || rule.options.labels.contains_key(name)
    };
    columns(&alert.key) == columns(&rule.key)
        && alert.labels.keys().all(known)
        && rule.options.labels.iter().all(|(name, value)| alert.labels.get(name) == Some(value))
}

/// Makes the change on the alert and describes it.
fn change(alert: &mut Alert, to: AlertState, reason: Reason, at: Instant) -> Transition {
    let from = std::mem::replace(&mut alert.state, to);
    if to == AlertState::Resolved {
        alert.resolved_at = Some(at.ts);
        alert.keep_since = None;
        alert.stale_since = None;
    }
    Transition {
        event_id: event_id(&alert.rule, &alert.rule_version, &alert.fingerprint(), to, reason, at.ts),
        ts: at.ts,
        from_state: from,
        to_state: to,
        reason,
        window_start: at.start,
        window_end: at.end,
        alert: alert.clone(),
    }
}

/// Ends the alerts on events whose time is over, each exactly at its own instant, however often time is asked.
fn end_events(rule: &Rule, alerts: &mut BTreeMap<String, Alert>, at: Instant) -> Vec<Transition> {
    let mut transitions = Vec::new();
    for alert in alerts.values_mut().filter(|alert| alert.state.is_alive()) {
        let over = alert.last_match.saturating_add(rule.options.keep_firing_for);
        if over <= at.ts {
            alert.rule_version.clone_from(&rule.version);
            let to = if alert.state == AlertState::Firing { AlertState::Resolved } else { AlertState::Inactive };
            transitions.push(change(alert, to, Reason::ConditionCleared, Instant { ts: over, start: over, end: over }));
        }
    }
    transitions
}

fn one_group(rule: &Rule, alerts: &mut BTreeMap<String, Alert>, finding: &Finding, at: Instant) -> Vec<Transition> {
    let labels = labels_of(rule, finding);
    let fingerprint = fingerprint(&labels);
    if let (Some(alert), Some(spec)) = (alerts.get_mut(&fingerprint), rule.shape.window()) {
        if rule.options.flap_detection {
            swing(alert, &finding.state, spec.slide, at);
        } else {
            alert.swings = Swings::default();
        }
    }
    let existing = alerts.get_mut(&fingerprint).filter(|alert| alert.state.is_alive());
    let out_of_order = |alert: &Alert| rule.shape == RuleShape::Row && at.ts < alert.last_match;
    match (&finding.state, existing) {
        (GroupState::Unknown, _) => vec![],
        (_, Some(alert)) if out_of_order(alert) => vec![],
        (GroupState::Firing(values), Some(alert)) => matched(rule, alert, values.clone(), at),
        (GroupState::Firing(values), None) => {
            begin_group(rule, alerts, finding, labels, values.clone(), Reason::ConditionMet, at)
        }
        (GroupState::Clear, Some(alert)) => missed(rule, alert, Reason::ConditionCleared, at),
        (GroupState::Held, Some(alert)) => not_recovered(rule, alert, at),
        (GroupState::Clear | GroupState::Held, None) => vec![],
        (GroupState::NoData, existing) => match (rule.options.no_data, existing) {
            (NoDataPolicy::Ignore, _) => vec![],
            // Nothing says that it is less urgent than it was.
            (NoDataPolicy::Alert, Some(alert)) => matched_as(rule, alert, Values::new(), alert.severity, at),
            (NoDataPolicy::Alert, None) => {
                begin_group(rule, alerts, finding, labels, Values::new(), Reason::NoData, at)
            }
            (NoDataPolicy::Resolve, Some(alert)) => missed(rule, alert, Reason::NoData, at),
            (NoDataPolicy::Keep, Some(alert)) => went_silent(alert, at),
            (NoDataPolicy::Resolve | NoDataPolicy::Keep, None) => vec![],
        },
    }
}

/// A new episode of a group.
fn begin_group(
    rule: &Rule,
    alerts: &mut BTreeMap<String, Alert>,
    finding: &Finding,
    labels: Labels,
    values: Values,
    reason: Reason,
    at: Instant,
) -> Vec<Transition> {
    let id = fingerprint(&labels);
    let transitions = begin(rule, alerts, labels, id.clone(), values, reason, at);
    if let Some(alert) = alerts.get_mut(&id).filter(|_| !rule.spread.is_empty()) {
        alert.group.clone_from(&finding.key);
    }
    transitions
}

/// A new episode: pending, or firing at once without `for`.
fn begin(
    rule: &Rule,
    alerts: &mut BTreeMap<String, Alert>,
    labels: Labels,
    fingerprint: String,
    values: Values,
    reason: Reason,
    at: Instant,
) -> Vec<Transition> {
    let before = alerts.get(&fingerprint).map(|alert| alert.swings).unwrap_or_default();
    let mut alert = Alert {
        rule_version: rule.version.clone(),
        key: rule.key.clone(),
        swings: before,
        ..Alert::new(labels, rule.severity_of(&values), at.ts)
    };
    describe(rule, &mut alert, values);
    if let (true, true, Some(spec)) = (rule.options.flap_detection, before.is_unknown(), rule.shape.window()) {
        alert.swings.add(true, at.ts, spec.slide);
    }
    let to = if has_held(rule, &mut alert, at) { AlertState::Firing } else { AlertState::Pending };
    if to == AlertState::Firing {
        alert.fired_at = Some(at.ts);
    }
    let mut transitions = vec![change(&mut alert, to, reason, at)];
    if to == AlertState::Firing && alert.swings.flaps {
        transitions.extend(began_to_flap(&mut alert, at));
    }
    alerts.insert(fingerprint, alert);
    transitions
}

/// Counts an evaluation in which the condition held; whether it has held for long enough, and often enough.
fn has_held(rule: &Rule, alert: &mut Alert, at: Instant) -> bool {
    let asked = rule.options.hold_evaluations;
    alert.matches = if asked > 1 { (alert.matches + 1).min(asked) } else { 0 };
    at.ts - alert.active_at >= rule.options.hold && (asked <= 1 || alert.matches >= asked)
}

/// Counts an evaluation among those by which flapping is known.
fn swing(alert: &mut Alert, state: &GroupState, slide: Span, at: Instant) {
    let holds = match state {
        GroupState::Firing(_) => true,
        GroupState::Clear | GroupState::Held => false,
        GroupState::NoData | GroupState::Unknown => return,
    };
    // What is alive is told of at each evaluation; what is not told of then could not be known.
    let slide = if alert.state.is_alive() { Span::ZERO } else { slide };
    alert.swings.add(holds, at.ts, slide);
}

/// The condition holds for an alert that is alive.
fn matched(rule: &Rule, alert: &mut Alert, values: Values, at: Instant) -> Vec<Transition> {
    let severity = rule.severity_of(&values);
    matched_as(rule, alert, values, severity, at)
}

fn matched_as(rule: &Rule, alert: &mut Alert, values: Values, severity: Severity, at: Instant) -> Vec<Transition> {
    let was_stale = alert.stale_since.take();
    if let (Some(since), AlertState::Pending) = (was_stale, alert.state) {
        // While nothing was known, `for` did not progress.
        alert.active_at = alert.active_at.saturating_add(at.ts - since);
    }
    alert.keep_since = None;
    alert.last_match = at.ts;
    let severity = std::mem::replace(&mut alert.severity, severity);
    alert.rule_version.clone_from(&rule.version);
    let flapped = std::mem::replace(&mut alert.flaps, alert.swings.flaps);
    describe(rule, alert, values);
    let held = has_held(rule, alert, at);
    let mut reasons = Vec::new();
    match alert.state {
        AlertState::Pending if held => {
            alert.fired_at = Some(at.ts);
            reasons.push(Reason::HeldLongEnough);
        }
        AlertState::Firing => {
            reasons.extend(was_stale.map(|_| Reason::DataReturned));
            reasons.extend(severity_change(severity, alert.severity));
            reasons.extend(match (flapped, alert.flaps) {
                (false, true) => Some(Reason::Flapping),
                (true, false) => Some(Reason::Settled),
                _ => None,
            });
        }
        _ => {}
    }
    reasons.into_iter().map(|reason| change(alert, AlertState::Firing, reason, at)).collect()
}

/// What a change of severity is called.
fn severity_change(before: Severity, after: Severity) -> Option<Reason> {
    match before.cmp(&after) {
        Ordering::Less => Some(Reason::SeverityRaised),
        Ordering::Equal => None,
        Ordering::Greater => Some(Reason::SeverityLowered),
    }
}

/// Neither the condition holds nor what the alert's end asks for.
fn not_recovered(rule: &Rule, alert: &mut Alert, at: Instant) -> Vec<Transition> {
    if alert.state == AlertState::Pending {
        return missed(rule, alert, Reason::ConditionCleared, at);
    }
    alert.keep_since = None;
    alert.rule_version.clone_from(&rule.version);
    let mut transitions = Vec::new();
    if alert.stale_since.take().is_some() {
        transitions.push(change(alert, AlertState::Firing, Reason::DataReturned, at));
    }
    transitions.extend(began_to_flap(alert, at));
    transitions
}

/// Says so once when an alert that fires has come and gone too often.
fn began_to_flap(alert: &mut Alert, at: Instant) -> Option<Transition> {
    let flapped = std::mem::replace(&mut alert.flaps, alert.swings.flaps);
    (!flapped && alert.flaps).then(|| change(alert, AlertState::Firing, Reason::Flapping, at))
}

/// The condition does not hold any more.
fn missed(rule: &Rule, alert: &mut Alert, reason: Reason, at: Instant) -> Vec<Transition> {
    alert.stale_since = None;
    alert.rule_version.clone_from(&rule.version);
    if alert.state == AlertState::Pending {
        return vec![change(alert, AlertState::Inactive, reason, at)];
    }
    let flapping = began_to_flap(alert, at);
    if alert.flaps && reason == Reason::ConditionCleared {
        // It would be back soon.
        alert.keep_since = None;
        return flapping.into_iter().collect();
    }
    let since = *alert.keep_since.get_or_insert(at.ts);
    if at.ts - since < rule.options.keep_firing_for {
        return vec![];
    }
    vec![change(alert, AlertState::Resolved, reason, at)]
}

/// No row came: the alert stays as it is, and says so once.
fn went_silent(alert: &mut Alert, at: Instant) -> Vec<Transition> {
    match (alert.stale_since, alert.state) {
        (Some(since), AlertState::Firing) if at.ts - since >= GONE_AFTER => {
            vec![change(alert, AlertState::Resolved, Reason::Gone, at)]
        }
        (Some(since), AlertState::Pending) if at.ts - since >= GONE_AFTER => {
            vec![change(alert, AlertState::Inactive, Reason::Gone, at)]
        }
        (Some(_), _) => vec![],
        (None, AlertState::Firing) => {
            alert.stale_since = Some(at.ts);
            vec![change(alert, AlertState::Firing, Reason::Stale, at)]
        }
        (None, _) => {
            alert.stale_since = Some(at.ts);
            vec![]
        }
    }
}

fn describe(rule: &Rule, alert: &mut Alert, values: Values) {
    if rule.options.annotations.is_empty() {
        alert.annotations.clear();
    } else {
        let context = Context::new(&alert.labels, &values);
        let rendered = rule
            .options
            .annotations
            .iter()
            .map(|(name, text)| (name.clone(), cut(context.render(text), ANNOTATION_BYTES)));
        alert.annotations = rendered.collect();
    }
    alert.values = values;
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "promtool_tests.rs"]
mod promtool_tests;
