//! The questions of docs/history.md, asked of a small week of three teams: each answer is what the page says.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tidewatch_flow::alerting::{Matcher, Silence};
use tidewatch_model::alert::event_id;
use tidewatch_model::ports::{Scan, ScanError, Snapshot};
use tidewatch_model::{
    Alert, AlertState, Notice, NoticeStatus, Reason, Severity, Span, Timestamp, Transition, Value, table,
};
use tidewatch_sql::History;

use crate::alert_rows::{NoticeOutcome, notice_batch, silence_batch, transition_batch};
use crate::output::{BatchPrinter, Format};

const PAGE: &str = include_str!("../../../docs/history.md");

/// Tables in memory.
#[derive(Default)]
struct Tables(Vec<(&'static str, arrow::array::RecordBatch)>);

impl Scan for Tables {
    fn snapshot(&self, tables: &[String]) -> Result<BTreeMap<String, Snapshot>, ScanError> {
        let snapshot = |name: &String| {
            let batches = self.0.iter().filter(|(of, _)| of == name).map(|(_, batch)| batch.clone()).collect();
            let schema = table::find(name)?.schema();
            Some((name.clone(), Snapshot { schema, files: vec![], batches }))
        };
        Ok(tables.iter().filter_map(snapshot).collect())
    }

    fn read(&self, path: &str, _: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ScanError> {
        Err(ScanError::Unreadable(path.to_string()))
    }
}

/// `2 03:14:00`: a time of the week that begins on 2026-03-02.
fn at(text: &str) -> Timestamp {
    let (day, time) = text.split_once(' ').unwrap();
    format!("2026-03-0{day}T{time}Z").parse().unwrap()
}

fn alert(rule: &str, host: &str) -> Alert {
    let (team, severity) = match rule {
        "gpu_hot" => ("gpu", Severity::Critical),
        "disk_full" => ("storage", Severity::Warning),
        _ => ("train", Severity::Critical),
    };
    let labels = [("alertname", rule), ("host", host), ("team", team)];
    Alert {
        rule_version: "1".to_string(),
        key: vec!["host".to_string()],
        state: AlertState::Firing,
        ..Alert::new(labels.map(|(name, value)| (name.to_string(), value.to_string())).into(), severity, Timestamp(0))
    }
}

#[derive(Default)]
struct Week {
    transitions: Vec<Transition>,
    notices: Vec<(NoticeOutcome, Timestamp)>,
}

impl Week {
    fn change(&mut self, rule: &str, host: &str, when: &str, (from, to): (AlertState, AlertState), reason: Reason) {
        let (alert, ts) = (alert(rule, host), at(when));
        self.transitions.push(Transition {
            event_id: event_id(rule, "1", &alert.fingerprint(), to, reason, ts),
            ts,
            from_state: from,
            to_state: to,
            reason,
            window_start: ts,
            window_end: ts,
            alert,
        });
    }

    fn fires(&mut self, rule: &str, host: &str, from: &str, to: Option<&str>) {
        use AlertState::{Firing, Inactive, Resolved};
        self.change(rule, host, from, (Inactive, Firing), Reason::ConditionMet);
        if let Some(to) = to {
            self.change(rule, host, to, (Firing, Resolved), Reason::ConditionCleared);
        }
    }

    fn acked(&mut self, rule: &str, host: &str, when: &str, by: &str) {
        self.change(rule, host, when, (AlertState::Firing, AlertState::Firing), Reason::Acknowledged);
        let last = self.transitions.last_mut().unwrap();
        last.alert.values = vec![("acked_by".to_string(), Value::Text(by.to_string()))];
    }

    fn told(&mut self, receiver: &str, alerts: &[(&str, &str)], when: &str, after: i64, error: Option<&str>) {
        let ts = at(when);
        let alerts: Vec<Alert> = alerts.iter().map(|(rule, host)| alert(rule, host)).collect();
        let notice = Notice {
            notice_id: format!("{receiver} {when}"),
            receiver: receiver.to_string(),
            target: receiver.to_string(),
            group_key: alerts[0].rule.clone(),
            group_labels: alerts[0].labels.clone(),
            status: NoticeStatus::Firing,
            reason: "first".to_string(),
            alerts,
            ts,
        };
        let outcome = if error.is_some() { "gave_up" } else { "delivered" };
        let attempts = if error.is_some() { 14 } else { 1 };
        let told = NoticeOutcome { notice, outcome, attempts, error: error.map(str::to_string) };
        self.notices.push((told, ts + Span::seconds(after)));
    }

    fn tables(self) -> Tables {
        let mut tables = Tables::default();
        for transition in &self.transitions {
            let rows = transition_batch(std::slice::from_ref(transition), transition.ts + Span::seconds(1));
            tables.0.push(("alert_event", rows.unwrap()));
        }
        for (notice, processed_at) in &self.notices {
            tables.0.push(("notice_event", notice_batch(std::slice::from_ref(notice), *processed_at).unwrap()));
        }
        let silence = Silence {
            id: "8d0f0a3e-5a8f-4a53-9b8c-4f9a3c1f2f10".to_string(),
            matchers: Matcher::parse_all("alertname=\"disk_full\", host=\"n9\"").unwrap(),
            starts_at: at("4 08:00:00"),
            ends_at: at("4 12:30:00"),
            updated_at: at("4 08:00:00"),
            created_by: "sue".to_string(),
            comment: "new disks".to_string(),
        };
        tables.0.push(("silence_event", silence_batch(&silence, "created", "sue", at("4 08:00:00")).unwrap()));
        let over = Silence { ends_at: at("4 11:00:00"), ..silence };
        tables.0.push(("silence_event", silence_batch(&over, "expired", "ann", at("4 11:00:00")).unwrap()));
        tables
    }
}

fn week() -> Week {
    use AlertState::{Firing, Resolved};
    let mut week = Week::default();
    // A GPU overheats at night; ann is woken, and knows of it after six minutes.
    week.fires("gpu_hot", "n1", "2 03:14:00", Some("2 04:00:00"));
    week.told("pager", &[("gpu_hot", "n1")], "2 03:14:00", 2, None);
    week.acked("gpu_hot", "n1", "2 03:20:00", "ann");
    // Another comes and goes; nobody has to do anything.
    for (from, to) in [("3 10:00:00", "3 10:02:00"), ("3 10:05:00", "3 10:06:00"), ("3 10:09:00", "3 10:10:30")] {
        week.fires("gpu_hot", "n2", from, Some(to));
        week.told("pager", &[("gpu_hot", "n2")], from, 1, None);
    }
    // A disk fills up while somebody exchanges disks: it is silenced.
    week.fires("disk_full", "n9", "4 09:00:00", Some("4 10:30:00"));
    // Another one: the chat could not be reached.
    week.fires("disk_full", "n3", "4 14:00:00", Some("4 18:00:00"));
    week.told("chat", &[("disk_full", "n3")], "4 14:00:00", 900, Some("chat: HTTP 500"));
    week.acked("disk_full", "n3", "4 14:30:00", "bob");
    // A GPU is hot, and three minutes later a training job's loss jumps: nobody acknowledges it, and it goes on without data.
    week.fires("gpu_hot", "n1", "5 01:57:00", Some("5 02:40:00"));
    week.fires("loss_spike", "n1", "5 02:00:00", None);
    week.told("pager", &[("gpu_hot", "n1")], "5 01:57:00", 2, None);
    week.told("pager", &[("loss_spike", "n1")], "5 02:00:00", 4, None);
    week.told("train-chat", &[("loss_spike", "n1")], "5 02:00:00", 30, None);
    week.acked("gpu_hot", "n1", "5 02:01:00", "ann");
    week.change("loss_spike", "n1", "5 03:00:00", (Firing, Firing), Reason::Stale);
    // A rule is removed.
    week.fires("fan_slow", "n4", "6 12:00:00", None);
    week.change("fan_slow", "n4", "6 13:00:00", (Firing, Resolved), Reason::RuleRemoved);
    week.told("train-chat", &[("fan_slow", "n4")], "6 12:00:00", 3, None);
    week
}

fn ask(history: &History, sql: &str) -> String {
    let mut text = Vec::new();
    let mut printer = BatchPrinter::new(Format::Csv, &mut text);
    history.query(sql, |batch| printer.print(batch).map_err(|failure| panic!("{}", failure.message))).unwrap();
    printer.finish().map_err(|failure| failure.message).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn the_page_says_what_the_questions_answer() {
    let history = History::new(Arc::new(week().tables()), 1).unwrap();
    let mut page = String::new();
    let mut questions = 0;
    for (number, part) in PAGE.split("```sql\n").enumerate() {
        if number == 0 {
            page.push_str(part);
            continue;
        }
        let (sql, rest) = part.split_once("```\n\n```text\n").unwrap();
        let (_, rest) = rest.split_once("```").unwrap();
        questions += 1;
        let answer = ask(&history, sql);
        assert!(answer.lines().count() > 1, "question {questions} has an answer");
        page.push_str(&format!("```sql\n{sql}```\n\n```text\n{answer}```{rest}"));
    }
    if std::env::var_os("TIDEWATCH_WRITE_DOCS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/history.md"), &page).unwrap();
        return;
    }
    assert_eq!(questions, 20);
    assert!(
        page == PAGE,
        "docs/history.md is not what the questions answer: run this test with TIDEWATCH_WRITE_DOCS=1 and read it"
    );
}
