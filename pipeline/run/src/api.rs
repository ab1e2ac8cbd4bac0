//! The API: Alertmanager's, version 2, over our alerts and silences, so that amtool and Grafana manage us; and Prometheus' lists of
//! rules and alerts.

pub mod inputs;
mod own;
mod record;
mod rows;
mod sql;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tidewatch_flow::alerting::{GroupView, Inhibitor, Matcher, Policy, Silence, SilenceState};
use tidewatch_model::alert::Labels;
use tidewatch_model::ports::{Clock, Log, Random, Scan};
use tidewatch_model::value::headline;
use tidewatch_model::{Alert, AlertState, Rule, Span, Timestamp};
use tidewatch_serve::{Answer, ApiRequest};

use crate::fresh::Fresh;
use crate::said::{Acks, Silences};
use crate::sql_workers::SqlWorkers;
use inputs::Inputs;
use record::Writer;

/// The description of the API, OpenAPI 3.1.
const OPENAPI: &str = include_str!("api/openapi.json");

/// How long an alert that fires is said to go on, at least: clients take it for over after that, unless they ask again.
const GOES_ON: Span = Span::minutes(5);

/// How things stand.
#[derive(Default)]
struct View {
    alerts: Vec<Alert>,
    groups: Vec<GroupView>,
    rules: Arc<Vec<Rule>>,
    health: RuleHealth,
}

/// How rules do.
#[derive(Debug, Clone, Default)]
pub struct RuleHealth {
    /// Event time up to which each was evaluated.
    pub positions: BTreeMap<String, Timestamp>,
    /// Those whose last evaluation failed, and why.
    pub failing: BTreeMap<String, String>,
}

/// What the API is made of.
pub struct ApiParts {
    /// The rules of telling.
    pub policy: Policy,
    /// The silences.
    pub silences: Arc<Silences>,
    /// The acks.
    pub acks: Arc<Acks>,
    /// Where what people say is written.
    pub log: Arc<dyn Log>,
    /// What others send.
    pub inputs: Arc<Inputs>,
    /// The history.
    pub scan: Arc<dyn Scan>,
    /// Who answers questions from outside.
    pub workers: SqlWorkers,
    /// Wishes of questions for what is not committed yet.
    pub fresh: Arc<Fresh>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Names that must not collide.
    pub random: Arc<dyn Random>,
}

/// What the API answers from.
pub struct Api {
    view: Mutex<Arc<View>>,
    policy: Policy,
    silences: Arc<Silences>,
    acks: Arc<Acks>,
    record: Writer,
    inputs: Arc<Inputs>,
    scan: Arc<dyn Scan>,
    workers: SqlWorkers,
    fresh: Arc<Fresh>,
    /// One question at a time: who looks at the history must not starve who judges.
    asking: Mutex<()>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    started: Timestamp,
}

impl Api {
    /// Nothing is known yet.
    pub fn new(parts: ApiParts) -> Api {
        let ApiParts { policy, silences, acks, log, inputs, scan, workers, fresh, clock, random } = parts;
        let started = clock.now();
        let record = Writer::new(log, random.as_ref());
        Api {
            view: Mutex::default(),
            policy,
            silences,
            acks,
            record,
            inputs,
            scan,
            workers,
            fresh,
            asking: Mutex::new(()),
            clock,
            random,
            started,
        }
    }

    /// Renews what is shown.
    pub fn set(&self, alerts: Vec<Alert>, groups: Vec<GroupView>, rules: Arc<Vec<Rule>>, health: RuleHealth) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(View { alerts, groups, rules, health });
    }

    /// Rows that were posted, by table, and lines that were no rows.
    pub fn posted(&self) -> (BTreeMap<String, u64>, u64) {
        (self.inputs.rows.taken(), self.inputs.rows.rejected())
    }

    /// Values that were sent again, and not written again.
    pub fn duplicates(&self) -> u64 {
        self.inputs.duplicates()
    }

    /// Answers a request.
    pub fn answer(&self, request: &ApiRequest) -> Answer {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), path.as_slice()) {
            ("GET", ["api", "v2", "status"]) => Answer::ok(self.status()),
            ("GET", ["api", "v2", "receivers"]) => {
                let names: Vec<Value> = self.policy.receivers.keys().map(|name| json!({"name": name})).collect();
                Answer::ok(json!(names))
            }
            ("GET", ["api", "v2", "alerts"]) => self.alerts(request),
            ("GET", ["api", "v2", "alerts", "groups"]) => self.groups(request),
            ("POST", ["api", "v2", "alerts"]) => {
                Answer::error(405, "alerts come from rules here: nobody else's are taken")
            }
            ("GET", ["api", "v2", "silences"]) => self.silences(request),
            ("POST", ["api", "v2", "silences"]) => self.post_silence(request),
            ("GET", ["api", "v2", "silence", id]) => match self.silence(id) {
                Some(silence) => Answer::ok(silence_json(&silence, self.clock.now())),
                None => Answer::error(404, &format!("silence {id} not found")),
            },
            ("DELETE", ["api", "v2", "silence", id]) => self.expire(id, request.by.as_deref().unwrap_or_default()),
            ("GET", ["api", "v1", "alerts"]) => {
                let view = self.view();
                let alerts: Vec<Value> = view.alerts.iter().map(prometheus_alert).collect();
                Answer::ok(json!({"status": "success", "data": {"alerts": alerts}}))
            }
            ("GET", ["api", "v1", "rules"]) => Answer::ok(self.rules()),
            ("GET", ["api", "v1", "rules", name]) => self.rule_state(name),
            ("GET", ["api", "v1", "alerts", fingerprint]) => self.alert(fingerprint),
            ("POST", ["api", "v1", "alerts", fingerprint, "ack"]) => self.acknowledge(fingerprint, request),
            ("DELETE", ["api", "v1", "alerts", fingerprint, "ack"]) => self.unacknowledge(fingerprint, request),
            ("GET", ["api", "v1", "acks"]) => self.list_acks(),
            ("GET", ["api", "v1", "history"]) => self.history(request),
            ("GET" | "POST", ["api", "v1", "sql"]) => self.sql(request),
            ("POST", ["api", "v1", "rows", table]) => self.inputs.rows.post(table, request),
            ("POST", ["api", "v1", "write"]) => self.inputs.remote_write(request),
            ("POST", ["v1", "metrics"] | ["api", "v1", "otlp", "v1", "metrics"]) => self.inputs.otlp_metrics(request),
            ("POST", ["v1", "logs"] | ["api", "v1", "otlp", "v1", "logs"]) => self.inputs.otlp_logs(request),
            ("GET", ["api", "openapi.json"]) => Answer::ok(OPENAPI),
            (method, _) => Answer::refused_on(&request.path, 405, &format!("{method} is not possible here")),
        }
    }

    fn view(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn status(&self) -> Value {
        json!({
            "cluster": {"status": "disabled", "peers": []},
            "config": {"original": ""},
            "uptime": self.started,
            "versionInfo": {
                "version": env!("CARGO_PKG_VERSION"), "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
            },
        })
    }

    /// All silences as the log has them now.
    fn known(&self) -> Vec<Silence> {
        // One that can't be asked shows what it last said.
        drop(self.silences.refresh());
        self.silences.all()
    }

    fn silence(&self, id: &str) -> Option<Silence> {
        self.known().into_iter().find(|silence| silence.id == id)
    }

    /// The alerts that fire, each as Alertmanager's API has it, with its labels.
    fn shown(&self, request: &ApiRequest) -> Result<Vec<(String, Labels, Value)>, String> {
        let now = self.clock.now();
        let (view, silences) = (self.view(), self.known());
        let firing: Vec<(String, Labels, &Alert)> = view
            .alerts
            .iter()
            .filter(|alert| alert.state == AlertState::Firing)
            .map(|alert| (alert.fingerprint(), alert.wire_labels(), alert))
            .collect();
        let labels = firing.iter().map(|(fingerprint, labels, _)| (fingerprint.as_str(), labels));
        let inhibitor = Inhibitor::new(&self.policy.inhibit_rules, labels);
        let matchers = filters(request)?;
        let flag = |name: &str| !request.query.iter().any(|(key, value)| key == name && value == "false");
        let receiver = match request.query.iter().find(|(key, _)| key == "receiver") {
            Some((_, text)) => {
                Some(format!("receiver=~{text:?}").parse::<Matcher>().map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let mut shown = Vec::new();
        for (fingerprint, labels, alert) in &firing {
            let silenced_by: Vec<&str> = silences
                .iter()
                .filter(|silence| silence.mutes(labels, now))
                .map(|silence| silence.id.as_str())
                .collect();
            let inhibited_by: Vec<&str> = inhibitor.source_of(labels).into_iter().collect();
            let receivers: Vec<&str> = self
                .policy
                .trees
                .iter()
                .flat_map(|tree| tree.matching(labels))
                .map(|route| route.receiver.as_str())
                .collect();
            let named = |name: &str| {
                receiver
                    .as_ref()
                    .is_none_or(|matcher| matcher.matches(&Labels::from([("receiver".to_string(), name.to_string())])))
            };
            let muted = !silenced_by.is_empty() || !inhibited_by.is_empty();
            let wanted = matchers.iter().all(|matcher| matcher.matches(labels))
                && receivers.iter().any(|name| named(name))
                && (flag("silenced") || silenced_by.is_empty())
                && (flag("inhibited") || inhibited_by.is_empty())
                && (flag("active") || muted);
            if wanted {
                let value = json!({
                    "fingerprint": fingerprint,
                    "labels": labels,
                    "annotations": alert.annotations,
                    "startsAt": alert.fired_at.unwrap_or(alert.active_at),
                    "updatedAt": alert.last_match,
                    "endsAt": now + GOES_ON,
                    "generatorURL": "",
                    "receivers": receivers.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
                    "status": {
                        "state": if muted { "suppressed" } else { "active" },
                        "silencedBy": silenced_by,
                        "inhibitedBy": inhibited_by,
                    },
                });
                shown.push((fingerprint.clone(), labels.clone(), value));
            }
        }
        Ok(shown)
    }

    fn alerts(&self, request: &ApiRequest) -> Answer {
        match self.shown(request) {
            Ok(shown) => Answer::ok(json!(shown.into_iter().map(|(_, _, value)| value).collect::<Vec<_>>())),
            Err(problem) => Answer::error(400, &problem),
        }
    }

    fn groups(&self, request: &ApiRequest) -> Answer {
        let shown = match self.shown(request) {
            Ok(shown) => shown,
            Err(problem) => return Answer::error(400, &problem),
        };
        let known: BTreeMap<String, Value> =
            shown.into_iter().map(|(fingerprint, _, value)| (fingerprint, value)).collect();
        let mut groups = Vec::new();
        for group in &self.view().groups {
            let alerts: Vec<&Value> = group.members.iter().filter_map(|fingerprint| known.get(fingerprint)).collect();
            if !alerts.is_empty() {
                groups.push(json!({"labels": group.labels, "receiver": {"name": group.receiver}, "alerts": alerts}));
            }
        }
        Answer::ok(json!(groups))
    }

    fn silences(&self, request: &ApiRequest) -> Answer {
        let matchers = match filters(request) {
            Ok(matchers) => matchers,
            Err(problem) => return Answer::error(400, &problem),
        };
        let now = self.clock.now();
        let named = |silence: &Silence| {
            let labels: Labels =
                silence.matchers.iter().map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
            matchers.iter().all(|matcher| matcher.matches(&labels))
        };
        let mut found: Vec<Silence> = self.known().into_iter().filter(named).collect();
        // As Alertmanager: those that hold first, then those to come, then those that are over.
        found.sort_by_key(|silence| {
            let rank = match silence.state(now) {
                SilenceState::Active => 0,
                SilenceState::Pending => 1,
                SilenceState::Expired => 2,
            };
            (rank, silence.ends_at)
        });
        Answer::ok(json!(found.iter().map(|silence| silence_json(silence, now)).collect::<Vec<_>>()))
    }

    fn post_silence(&self, request: &ApiRequest) -> Answer {
        let now = self.clock.now();
        let mut value: Value = match serde_json::from_slice(&request.body) {
            Ok(value) => value,
            Err(error) => return Answer::error(400, &format!("the body is not JSON: {error}")),
        };
        let asked = value.get("id").and_then(Value::as_str).unwrap_or_default().to_string();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("updatedAt".to_string(), json!(now));
            fields.insert("id".to_string(), json!(self.new_id()));
            fields.entry("comment").or_insert(json!(""));
            // Who presented a token is known better than who they say they are.
            if let Some(by) = &request.by {
                fields.insert("createdBy".to_string(), json!(by));
            }
            fields.entry("startsAt").or_insert(json!(now));
        }
        let mut silence: Silence = match serde_json::from_value(value) {
            Ok(silence) => silence,
            Err(error) => return Answer::error(400, &format!("not a silence: {error}")),
        };
        silence.starts_at = silence.starts_at.max(now);
        if let Err(problem) = silence.check(now) {
            return Answer::error(400, &format!("invalid silence: {problem}"));
        }
        let mut before = None;
        if !asked.is_empty() {
            let Some(old) = self.silence(&asked) else {
                return Answer::error(404, &format!("silence {asked} not found"));
            };
            if old.state(now) != SilenceState::Expired {
                if old.matchers == silence.matchers {
                    // The same, with another end or another comment.
                    silence.id.clone_from(&old.id);
                    silence.starts_at =
                        if old.state(now) == SilenceState::Active { old.starts_at } else { silence.starts_at };
                } else {
                    before = Some(Silence { ends_at: now, updated_at: now, ..old });
                }
            }
        }
        // The new one first: nobody is paged in between.
        let action = if silence.id == asked { "changed" } else { "created" };
        for (silence, action) in std::iter::once((&silence, action)).chain(before.iter().map(|old| (old, "expired"))) {
            let by = request.by.as_deref().unwrap_or(&silence.created_by);
            if let Err(answer) = self.keep(silence, action, by, now) {
                return answer;
            }
        }
        Answer::ok(json!({"silenceID": silence.id}))
    }

    fn expire(&self, id: &str, by: &str) -> Answer {
        let now = self.clock.now();
        let Some(silence) = self.silence(id) else { return Answer::error(404, &format!("silence {id} not found")) };
        match silence.state(now) {
            SilenceState::Expired => return Answer::ok(""),
            SilenceState::Pending | SilenceState::Active => {}
        }
        let starts_at = silence.starts_at.min(now);
        let over = Silence { starts_at, ends_at: now, updated_at: now, ..silence };
        match self.keep(&over, "expired", by, now) {
            Ok(()) => Answer::ok(""),
            Err(answer) => answer,
        }
    }

    /// Keeps a silence, and what was done to it in the history.
    fn keep(&self, silence: &Silence, action: &str, by: &str, now: Timestamp) -> Result<(), Answer> {
        let kept = self.silences.put(silence, now).map_err(|error| error.to_string());
        let recorded = kept.and_then(|()| self.record.silence(silence, action, by, now));
        recorded.map_err(|error| Answer::error(500, &format!("could not be kept: {error}")))
    }

    /// A UUID, version 4 (RFC 9562).
    fn new_id(&self) -> String {
        let high = self.random.next_u64() & 0xffff_ffff_ffff_0fff | 0x4000;
        let low = self.random.next_u64() & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
        let digits = format!("{high:016x}{low:016x}");
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }

    fn rules(&self) -> Value {
        let view = self.view();
        let files: std::collections::BTreeSet<&str> = view.rules.iter().map(file_of).collect();
        let groups: Vec<Value> = files
            .into_iter()
            .map(|file| {
                let of_file = view.rules.iter().filter(|known| !known.stream && file_of(known) == file);
                let rules: Vec<Value> = of_file.map(|known| self.rule(known, &view)).collect();
                json!({"name": file, "file": file, "interval": 0, "rules": rules})
            })
            .collect();
        json!({"status": "success", "data": {"groups": groups}})
    }

    /// A rule as Prometheus lists it.
    fn rule(&self, rule: &Rule, view: &View) -> Value {
        let alerts: Vec<Value> =
            view.alerts.iter().filter(|alert| alert.rule == rule.name).map(prometheus_alert).collect();
        let fires = view.alerts.iter().any(|alert| alert.rule == rule.name && alert.state == AlertState::Firing);
        let state = if fires {
            "firing"
        } else if alerts.is_empty() {
            "inactive"
        } else {
            "pending"
        };
        let (health, last_error, evaluated) = Api::health(rule, view);
        let mut labels = rule.options.labels.clone();
        labels.insert("severity".to_string(), rule.options.severity.to_string());
        json!({
            "name": rule.name,
            "query": rule.sql,
            "state": state,
            "duration": rule.options.hold.0 as f64 / 1e6,
            "keepFiringFor": rule.options.keep_firing_for.0 as f64 / 1e6,
            "labels": labels,
            "annotations": rule.options.annotations,
            "alerts": alerts,
            "health": health,
            "lastError": last_error,
            "lastEvaluation": evaluated,
            "type": "alerting",
        })
    }
}

/// Its file, without line and column.
fn file_of(rule: &Rule) -> &str {
    rule.source.rsplitn(3, ':').last().unwrap_or_default()
}

fn filters(request: &ApiRequest) -> Result<Vec<Matcher>, String> {
    let texts = request.query.iter().filter(|(name, _)| name == "filter").map(|(_, text)| text);
    let found = texts.map(|text| Matcher::parse_all(text).map_err(|error| error.to_string()));
    Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn silence_json(silence: &Silence, now: Timestamp) -> Value {
    let mut value = serde_json::to_value(silence).unwrap_or_default();
    value["status"] = json!({"state": silence.state(now)});
    value
}

/// An alert as Prometheus lists it.
fn prometheus_alert(alert: &Alert) -> Value {
    json!({
        "labels": alert.wire_labels(),
        "annotations": alert.annotations,
        "state": alert.state,
        "activeAt": alert.active_at,
        "value": headline(&alert.values).map(|value| value.to_string()).unwrap_or_default(),
    })
}
