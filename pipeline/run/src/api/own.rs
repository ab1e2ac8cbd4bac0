//! Our own part of the API: one alert with what happened to it, acks, the history, the state of a rule. Answers have Prometheus' form:
//! `{"status": "success", "data": ...}`.

use std::sync::PoisonError;

use serde_json::{Map, Value, json};
use tidewatch_flow::alerting::Ack;
use tidewatch_model::alert::event_id;
use tidewatch_model::limits::{LABEL_BYTES, VALUE_BYTES};
use tidewatch_model::value::cut;
use tidewatch_model::{Alert, AlertState, Reason, Rule, Span, Timestamp, Transition};
use tidewatch_serve::{Answer, ApiRequest};
use tidewatch_sql::{History, QueryError};

use super::{Api, prometheus_alert};
use crate::said::Said;

/// Rows of the history in one answer, unless less is asked for.
const ROWS: usize = 1_000;
/// How far back an alert's timeline goes, and the history where nobody says since when.
const TIMELINE: Span = Span::days(90);

fn success(data: impl Into<Value>) -> Answer {
    Answer::ok(json!({"status": "success", "data": data.into()}))
}

/// Whether a text is the fingerprint of an alert.
fn is_fingerprint(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl Api {
    /// An alert, whether it fires or not any more, and what happened to it, the newest last.
    pub(super) fn alert(&self, fingerprint: &str) -> Answer {
        if !is_fingerprint(fingerprint) {
            return Answer::refused(400, &format!("'{fingerprint}' is no fingerprint: expected 16 hex digits"));
        }
        let now = self.clock.now();
        let view = self.view();
        let alert = view.alerts.iter().find(|alert| alert.fingerprint() == fingerprint);
        let from = now.saturating_sub(TIMELINE);
        let transitions = format!(
            "SELECT ts, from_state, to_state, reason, severity, value, \"values\", rule, labels, processed_at FROM alert_event \
             WHERE fingerprint = '{fingerprint}' AND ts >= TIMESTAMP '{from}' ORDER BY ts DESC, processed_at DESC LIMIT {ROWS}"
        );
        let notices = format!(
            "SELECT processed_at AS ts, receiver, status, reason, outcome, attempts, error FROM notice_event \
             WHERE ts >= TIMESTAMP '{from}' AND strpos(fingerprints, '{fingerprint}') > 0 ORDER BY processed_at DESC LIMIT {ROWS}"
        );
        let mut timeline = Vec::new();
        for (kind, sql) in [("transition", transitions), ("notice", notices)] {
            match self.ask_history(&sql) {
                Ok(rows) => timeline.extend(rows.into_iter().map(|mut row| {
                    row.insert("kind".to_string(), json!(kind));
                    row
                })),
                Err(problem) => return Answer::refused(500, &problem),
            }
        }
        let order = |row: &Map<String, Value>| {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
            // What was told comes after what it was told of.
            (text("ts"), text("kind") == "notice")
        };
        timeline.sort_by_key(order);
        if alert.is_none() && timeline.is_empty() {
            return Answer::refused(404, &format!("alert {fingerprint} not found"));
        }
        let known = alert.map(|alert| {
            let mut known = prometheus_alert(alert);
            let acks = self.acks.all();
            let ack = acks.iter().find(|ack| ack.fingerprint == fingerprint && ack.holds(alert.fired_at, now));
            for (name, value) in [
                ("rule", json!(alert.rule)),
                ("firedAt", json!(alert.fired_at)),
                ("staleSince", json!(alert.stale_since)),
                ("flapping", json!(alert.flaps)),
                ("values", json!(alert.values.iter().cloned().collect::<std::collections::BTreeMap<_, _>>())),
                ("ack", json!(ack)),
            ] {
                known[name] = value;
            }
            known
        });
        success(json!({"fingerprint": fingerprint, "alert": known, "timeline": timeline}))
    }

    /// Acknowledges an alert that fires.
    pub(super) fn acknowledge(&self, fingerprint: &str, request: &ApiRequest) -> Answer {
        let now = self.clock.now();
        let body: Value = match serde_json::from_slice(&request.body) {
            Ok(body @ Value::Object(_)) => body,
            Ok(_) => return Answer::refused(400, "expected an object with ackedBy, comment and until"),
            Err(error) => return Answer::refused(400, &format!("the body is not JSON: {error}")),
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        let until = match body.get("until").map(|until| serde_json::from_value::<Option<Timestamp>>(until.clone())) {
            None => None,
            Some(Ok(until)) => until,
            Some(Err(error)) => return Answer::refused(400, &format!("until: {error}")),
        };
        if until.is_some_and(|until| until <= now) {
            return Answer::refused(400, "until: expected a time to come");
        }
        let view = self.view();
        let firing = |alert: &&Alert| alert.state == AlertState::Firing && alert.fingerprint() == fingerprint;
        let Some(alert) = view.alerts.iter().find(firing) else {
            return Answer::refused(404, &format!("no alert {fingerprint} fires"));
        };
        // Who presented a token is known better than who they say they are.
        let acked_by = cut(request.by.clone().unwrap_or_else(|| text("ackedBy")), LABEL_BYTES);
        if acked_by.is_empty() {
            return Answer::refused(400, "ackedBy: expected who knows of it");
        }
        let fired_at = alert.fired_at.unwrap_or(alert.active_at);
        let ack = Ack {
            fingerprint: fingerprint.to_string(),
            fired_at,
            acked_by: acked_by.clone(),
            comment: cut(text("comment"), VALUE_BYTES),
            acked_at: now,
            until,
        };
        let written = self.acks.put(&ack, now).map_err(|error| error.to_string());
        let event = ack_event(alert, Reason::Acknowledged, &ack.acked_by, &ack.comment, now);
        match written.and_then(|()| self.record.transition(&event, now)) {
            Ok(()) => success(json!(ack)),
            Err(error) => Answer::refused(500, &format!("could not be kept, or not in the history: {error}")),
        }
    }

    /// Takes an ack back.
    pub(super) fn unacknowledge(&self, fingerprint: &str, request: &ApiRequest) -> Answer {
        let now = self.clock.now();
        drop(self.acks.refresh());
        if !self.acks.all().iter().any(|ack| ack.id() == fingerprint) {
            return Answer::refused(404, &format!("alert {fingerprint} has no ack"));
        }
        if let Err(error) = self.acks.remove(fingerprint, now) {
            return Answer::refused(500, &format!("could not be taken back: {error}"));
        }
        let view = self.view();
        let by = request.by.clone().unwrap_or_default();
        if let Some(alert) = view.alerts.iter().find(|alert| alert.fingerprint() == fingerprint)
            && let Err(error) = self.record.transition(&ack_event(alert, Reason::Unacknowledged, &by, "", now), now)
        {
            return Answer::refused(500, &format!("could not be kept: {error}"));
        }
        success(Value::Null)
    }

    /// All acks.
    pub(super) fn list_acks(&self) -> Answer {
        drop(self.acks.refresh());
        success(json!(self.acks.all()))
    }

    /// Changes of alerts, the newest first.
    pub(super) fn history(&self, request: &ApiRequest) -> Answer {
        let mut conditions = Vec::new();
        let mut limit = ROWS;
        for (name, value) in &request.query {
            let quoted = format!("'{}'", value.replace('\'', "''"));
            match name.as_str() {
                "rule" => conditions.push(format!("rule = {quoted}")),
                "fingerprint" => conditions.push(format!("fingerprint = {quoted}")),
                "reason" => conditions.push(format!("reason = {quoted}")),
                "since" | "until" => {
                    let Ok(ts) = value.parse::<Timestamp>() else {
                        return Answer::refused(
                            400,
                            &format!("{name}: '{value}' is no time: expected one like 2026-01-31T12:00:00Z"),
                        );
                    };
                    let comparison = if name == "since" { ">=" } else { "<" };
                    conditions.push(format!("ts {comparison} TIMESTAMP '{ts}'"));
                }
                "limit" => match value.parse::<usize>() {
                    Ok(rows) if (1..=ROWS).contains(&rows) => limit = rows,
                    _ => return Answer::refused(400, &format!("limit: expected a number from 1 to {ROWS}")),
                },
                other => {
                    return Answer::refused(
                        400,
                        &format!(
                            "unknown parameter '{other}': expected rule, fingerprint, reason, since, until or limit"
                        ),
                    );
                }
            }
        }
        if !conditions.iter().any(|condition| condition.starts_with("ts >=")) {
            let from = self.clock.now().saturating_sub(TIMELINE);
            conditions.push(format!("ts >= TIMESTAMP '{from}'"));
        }
        let filter = format!("WHERE {}", conditions.join(" AND "));
        let sql = format!("SELECT * FROM alert_event {filter} ORDER BY ts DESC, processed_at DESC LIMIT {limit}");
        match self.ask_history(&sql) {
            Ok(rows) => success(json!(rows)),
            Err(problem) => Answer::refused(500, &problem),
        }
    }

    /// What a rule is, and how it does.
    pub(super) fn rule_state(&self, name: &str) -> Answer {
        let view = self.view();
        let Some(rule) = view.rules.iter().find(|rule| rule.name == name) else {
            return Answer::refused(404, &format!("rule {name} not found"));
        };
        let mut state = self.rule(rule, &view);
        state["source"] = json!(rule.source);
        state["version"] = json!(rule.version);
        state["options"] = json!(rule.options);
        state["tables"] = json!(rule.tables().collect::<Vec<_>>());
        success(state)
    }

    /// How a rule does: its health, its last error and how far it was evaluated.
    pub(super) fn health(rule: &Rule, view: &super::View) -> (&'static str, String, Value) {
        let failing = view.health.failing.get(&rule.name);
        let position = view.health.positions.get(&rule.name).filter(|ts| **ts > Timestamp::MIN);
        let health = match (failing, position) {
            (Some(_), _) => "err",
            (None, Some(_)) => "ok",
            (None, None) => "unknown",
        };
        (health, failing.cloned().unwrap_or_default(), json!(position))
    }

    fn ask_history(&self, sql: &str) -> Result<Vec<Map<String, Value>>, String> {
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = Vec::new();
        let history = History::new(self.scan.clone(), 1).map_err(|error| error.to_string())?;
        let asked = history.query(sql, |batch| {
            let mut writer = tidewatch_model::json::lines(&mut text, false);
            let written = writer.write(&batch).and_then(|()| writer.finish());
            written.map_err(QueryError::failed)
        });
        asked.map_err(|error| error.to_string())?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect()
    }
}

/// What somebody said of an alert, as a row of its history: who, in place of the values.
fn ack_event(alert: &Alert, reason: Reason, by: &str, comment: &str, now: Timestamp) -> Transition {
    let mut alert = alert.clone();
    alert.values = [("acked_by", by), ("comment", comment)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name.to_string(), tidewatch_model::Value::Text(text.to_string())))
        .collect();
    Transition {
        event_id: event_id(&alert.rule, &alert.rule_version, &alert.fingerprint(), alert.state, reason, now),
        ts: now,
        from_state: alert.state,
        to_state: alert.state,
        reason,
        window_start: now,
        window_end: now,
        alert,
    }
}
