//! The real amtool manages us, over real HTTP.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use tidewatch_collect::TypedTables;
use tidewatch_flow::alerting::{InhibitRule, Target};
use tidewatch_log::ScriptedLog;
use tidewatch_model::Severity;
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::time::SystemClock;
use tidewatch_serve::{Access, Server, Status};

use super::*;
use crate::config::Config;
use crate::sql_workers::Dialect;

fn alert(name: &str, host: &str, state: AlertState) -> Alert {
    Alert {
        rule_version: "1".to_string(),
        key: vec!["host".to_string()],
        state,
        fired_at: Some(Timestamp::from_seconds(120)),
        last_match: Timestamp::from_seconds(180),
        annotations: [("summary".to_string(), "it is hot".to_string())].into(),
        ..Alert::new(
            Labels::from([("alertname", name), ("host", host)].map(|(k, v)| (k.to_string(), v.to_string()))),
            Severity::Critical,
            Timestamp::from_seconds(60),
        )
    }
}

fn api(log: Arc<ScriptedLog>) -> Api {
    let mut policy = Policy::built_in(vec![Target { name: "ops".to_string(), send_resolved: true }]);
    policy.inhibit_rules = vec![InhibitRule {
        sources: Matcher::parse_all("alertname=down").unwrap(),
        targets: Matcher::parse_all("alertname=hot").unwrap(),
        equal: vec!["host".to_string()],
    }];
    crate::station::create_topics(log.as_ref(), false).unwrap();
    let api = Api::new(ApiParts {
        policy,
        silences: Arc::new(Silences::open(log.clone()).unwrap()),
        acks: Arc::new(Acks::open(log.clone()).unwrap()),
        inputs: Arc::new(Inputs::new(log.clone(), &SeededRandom::new(8), Arc::new(SystemClock), &TypedTables::Auto)),
        log,
        scan: Arc::new(tidewatch_lake::LakeScan::new(Arc::new(tidewatch_lake::ScriptedStore::default()))),
        workers: SqlWorkers::new(&Config::default(), Dialect::Own).unwrap(),
        fresh: Arc::default(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(7)),
    });
    let alerts = vec![
        alert("hot", "n1", AlertState::Firing),
        alert("hot", "n2", AlertState::Firing),
        alert("down", "n2", AlertState::Firing),
        alert("hot", "n3", AlertState::Pending),
    ];
    let groups = alerts[..1].iter().map(|alert| GroupView {
        labels: alert.labels.clone(),
        receiver: "(built-in)".to_string(),
        members: vec![alert.fingerprint()],
    });
    api.set(alerts.clone(), groups.collect(), Arc::new(vec![]), RuleHealth::default());
    api
}

fn ask(api: &Api, method: &str, path: &str, query: &[(&str, &str)], body: &str) -> (u16, Value) {
    let query = query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (method, path, body, accept) = (method.into(), path.into(), body.into(), String::new());
    let kind = "application/json".to_string();
    let answer = api.answer(&ApiRequest { method, path, query, body, kind, accept, ..ApiRequest::default() });
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

#[test]
fn alerts_are_listed_filtered_and_muted() {
    let api = api(Arc::default());
    let names = |query: &[(&str, &str)]| -> Vec<String> {
        let (status, found) = ask(&api, "GET", "/api/v2/alerts", query, "");
        assert_eq!(status, 200);
        let text = |alert: &Value| {
            let word = |path: &str| alert.pointer(path).unwrap().as_str().unwrap().to_string();
            format!("{} {} {}", word("/labels/alertname"), word("/labels/host"), word("/status/state"))
        };
        found.as_array().unwrap().iter().map(text).collect()
    };
    assert_eq!(names(&[]), ["hot n1 active", "hot n2 suppressed", "down n2 active"]);
    assert_eq!(names(&[("inhibited", "false")]), ["hot n1 active", "down n2 active"]);
    assert_eq!(names(&[("filter", "host=\"n2\""), ("filter", "alertname=~\"d.*\"")]), ["down n2 active"]);
    assert_eq!(names(&[("receiver", "o.*")]), Vec::<String>::new());
    assert_eq!(names(&[("active", "false")]), ["hot n2 suppressed"]);
    assert_eq!(ask(&api, "GET", "/api/v2/alerts", &[("filter", "host=~(")], "").0, 400);
    assert_eq!(ask(&api, "POST", "/api/v2/alerts", &[], "[]").0, 405);
    let (_, groups) = ask(&api, "GET", "/api/v2/alerts/groups", &[], "");
    assert_eq!(groups[0]["alerts"].as_array().unwrap().len(), 1);
    let (_, listed) = ask(&api, "GET", "/api/v1/alerts", &[], "");
    assert_eq!(listed["data"]["alerts"].as_array().unwrap().len(), 4, "Prometheus lists those that are pending too");
}

#[test]
fn silences_are_kept_changed_and_over() {
    let log: Arc<ScriptedLog> = Arc::default();
    let first = api(log.clone());
    let body = |id: &str, value: &str, end: &str| {
        json!({"id": id, "matchers": [{"name": "host", "value": value, "isRegex": false}], "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": end, "createdBy": "me", "comment": "c"})
        .to_string()
    };
    let post = |api: &Api, text: &str| ask(api, "POST", "/api/v2/silences", &[], text);
    let (status, made) = post(&first, &body("", "n1", "2100-01-01T00:00:00Z"));
    assert_eq!(status, 200);
    let id = made["silenceID"].as_str().unwrap().to_string();
    assert_eq!(ask(&first, "GET", "/api/v2/alerts", &[], "").1[0]["status"]["silencedBy"], json!([id]));
    // Another engine on the same log has it.
    let second = api(log);
    assert_eq!(ask(&second, "GET", &format!("/api/v2/silence/{id}"), &[], "").1["status"]["state"], "active");
    let (_, changed) = post(&second, &body(&id, "n1", "2101-01-01T00:00:00Z"));
    assert_eq!(changed["silenceID"], json!(id), "another end: the same silence");
    let (_, changed) = post(&second, &body(&id, "n2", "2101-01-01T00:00:00Z"));
    assert_ne!(changed["silenceID"], json!(id), "other alerts: another silence");
    let states: Vec<Value> = ask(&first, "GET", "/api/v2/silences", &[], "")
        .1
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["status"]["state"].clone())
        .collect();
    assert_eq!(states, ["active", "expired"]);
    for (text, problem) in [
        (body("", "n1", "2020-01-01T00:00:00Z"), "invalid silence: end time"),
        (body("none", "n1", "2100-01-01T00:00:00Z"), "silence none not found"),
        ("{".to_string(), "the body is not JSON"),
        (
            json!({"matchers": [], "endsAt": "2100-01-01T00:00:00Z", "createdBy": "me"}).to_string(),
            "at least one matcher",
        ),
        (json!({"endsAt": "2100-01-01T00:00:00Z"}).to_string(), "not a silence: missing field"),
    ] {
        let (status, answer) = post(&first, &text);
        assert!((400..405).contains(&status) && answer.as_str().unwrap().contains(problem), "{status} {answer}");
    }
    assert_eq!(ask(&first, "DELETE", "/api/v2/silence/none", &[], "").0, 404);
}

struct Served(Api);

impl Status for Served {
    fn health(&self) -> Result<(), String> {
        Ok(())
    }
    fn metrics(&self) -> Vec<tidewatch_serve::Metric> {
        vec![]
    }
    fn api(&self, request: &ApiRequest) -> Answer {
        self.0.answer(request)
    }
}

#[test]
fn amtool_manages_us() {
    if Command::new("amtool").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "amtool is not there: .ci/install brings it");
        eprintln!("amtool is not there: this test did not run");
        return;
    }
    let server =
        Server::start("127.0.0.1:0".parse().unwrap(), Access::Open, Arc::new(Served(api(Arc::default())))).unwrap();
    let url = format!("--alertmanager.url=http://{}", server.address());
    let amtool = |arguments: &[&str]| -> String {
        let output = Command::new("amtool").arg(&url).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let hot = |more: &[&str]| {
        let listed = amtool(&[&["alert", "query", "-o", "simple"], more].concat());
        listed.lines().filter(|line| line.starts_with("hot ")).count()
    };
    let alerts = amtool(&["alert", "query", "-o", "simple"]);
    assert!(hot(&[]) > 0 && alerts.contains("it is hot") && alerts.lines().count() == 3, "{alerts}");
    let id = amtool(&[
        "silence",
        "add",
        "alertname=hot",
        "host=~n.*",
        "--author=me",
        "--comment=maintenance",
        "--duration=2h",
    ]);
    let id = id.trim();
    assert!(amtool(&["silence", "query"]).contains(id));
    assert_eq!(hot(&[]), 0, "silenced alerts are not shown without asking");
    assert!(hot(&["--silenced"]) > 0);
    amtool(&["silence", "update", "--duration=3h", id]);
    amtool(&["silence", "expire", id]);
    assert!(!amtool(&["silence", "query"]).contains(id));
    assert!(amtool(&["silence", "query", "--expired"]).contains(id));
    assert!(hot(&[]) > 0);
    assert!(amtool(&["cluster", "show", "-o", "extended"]).contains("disabled"));
}

#[test]
fn the_description_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let bare = |path: &str| {
        let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
        segments.collect::<Vec<_>>().join("/")
    };
    let described: std::collections::BTreeSet<String> =
        document["paths"].as_object().unwrap().keys().map(|path| bare(path)).collect();
    let served = tidewatch_serve::ROUTES.iter().chain(&tidewatch_serve::API_ROUTES);
    assert_eq!(described, served.map(|path| path.to_string()).collect());
    // Every reference leads somewhere.
    for reference in OPENAPI.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn acks_are_kept_end_with_their_time_and_stand_in_the_history() {
    let log: Arc<ScriptedLog> = Arc::default();
    let api = api(log.clone());
    let hot = alert("hot", "n1", AlertState::Firing).fingerprint();
    let path = format!("/api/v1/alerts/{hot}/ack");
    let body = json!({"ackedBy": "me", "comment": "on it", "until": "2100-01-01T00:00:00Z"}).to_string();
    let (status, answer) = ask(&api, "POST", &path, &[], &body);
    assert_eq!((status, &answer["data"]["ackedBy"]), (200, &json!("me")), "{answer}");
    assert_eq!(answer["data"]["firedAt"], "1970-01-01T00:02:00Z");
    let named = ApiRequest {
        method: "POST".into(),
        path: path.clone(),
        body: body.clone().into(),
        kind: "application/json".to_string(),
        by: Some("ann".into()),
        ..ApiRequest::default()
    };
    let answer: Value = serde_json::from_slice(&api.answer(&named).body).unwrap();
    assert_eq!(answer["data"]["ackedBy"], "ann", "a token says who it is");
    let (_, known) = ask(&api, "GET", &format!("/api/v1/alerts/{hot}"), &[], "");
    assert_eq!(known["data"]["alert"]["ack"]["ackedBy"], "ann", "{known}");
    assert_eq!(ask(&api, "GET", "/api/v1/acks", &[], "").1["data"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&api, "DELETE", &path, &[], "").0, 200);
    assert_eq!(ask(&api, "DELETE", &path, &[], "").0, 404);
    let mut reasons = Vec::new();
    tidewatch_model::ports::read_to_end(log.as_ref(), "tidewatch.alert_event", 0, 0, &mut |_, record| {
        let (_, rows) = tidewatch_model::wire::decode(&record).unwrap();
        let column = rows.column_by_name("reason").unwrap();
        reasons.push(arrow::util::display::array_value_to_string(column, 0).unwrap());
    })
    .unwrap();
    assert_eq!(reasons, ["acknowledged", "acknowledged", "unacknowledged"]);
    let pending = alert("hot", "n3", AlertState::Pending).fingerprint();
    for (path, body, status) in [
        (format!("/api/v1/alerts/{pending}/ack"), body.as_str(), 404),
        (path.clone(), "{", 400),
        (path.clone(), "[]", 400),
        (path.clone(), "{}", 400),
        (path.clone(), r#"{"ackedBy": "me", "until": "2020-01-01T00:00:00Z"}"#, 400),
        (path.clone(), r#"{"ackedBy": "me", "until": "soon"}"#, 400),
    ] {
        let (found, answer) = ask(&api, "POST", &path, &[], body);
        assert_eq!((found, &answer["status"]), (status, &json!("error")), "{body}: {answer}");
    }
}

#[test]
fn the_history_is_asked_by_name() {
    let api = api(Arc::default());
    assert_eq!(
        ask(&api, "GET", "/api/v1/history", &[("rule", "x' OR '1'='1"), ("limit", "5")], "").1["data"],
        json!([])
    );
    for (name, value) in [("limit", "0"), ("since", "yesterday"), ("rulle", "x")] {
        let (status, answer) = ask(&api, "GET", "/api/v1/history", &[(name, value)], "");
        assert_eq!((status, &answer["errorType"]), (400, &json!("bad_data")), "{answer}");
    }
    assert_eq!(ask(&api, "GET", "/api/v1/alerts/nobody", &[], "").0, 400);
    assert_eq!(ask(&api, "GET", "/api/v1/alerts/0123456789abcdef", &[], "").0, 404);
    assert_eq!(ask(&api, "GET", "/api/v1/rules/nobody", &[], "").0, 404);
}

/// Rows are acknowledged when the log has them; what is no row is told by its line, and the others are taken.
#[test]
fn rows_are_taken_line_by_line() {
    let log: Arc<ScriptedLog> = Arc::default();
    let api = api(log.clone());
    let post = |path: &str, kind: &str, body: &[u8]| {
        let (method, kind) = ("POST".to_string(), kind.to_string());
        let (path, query) = path.split_once('?').map_or((path, vec![]), |(path, query)| {
            let pair = query.split_once('=').unwrap();
            (path, vec![(pair.0.to_string(), pair.1.to_string())])
        });
        let (path, body, accept) = (path.to_string(), body.to_vec(), String::new());
        let answer = api.answer(&ApiRequest { method, path, query, body, kind, accept, ..ApiRequest::default() });
        (answer.status, String::from_utf8(answer.body).unwrap(), answer.headers)
    };
    let rows = |table: &str| {
        let topic = format!("tidewatch.{table}");
        let mut found = Vec::new();
        for partition in 0..log.partitions(&topic).unwrap() {
            let read = log.read(&topic, partition, 0, 1 << 20).unwrap();
            found.extend(read.records.iter().map(|(_, record)| tidewatch_model::wire::decode(record).unwrap().1));
        }
        found
    };
    let ndjson = "application/x-ndjson";
    let now = SystemClock.now();
    let good = format!(
        r#"{{"ts":"{now}","job":"j","rank":0,"step":1,"loss":"NaN"}}
{{"ts":{}.5,"job":"j","rank":0,"step":2,"loss":2.5,"speed":7}}
"#,
        now.0 / 1_000_000
    );
    let good = good.as_bytes();
    let (status, answer, _) = post("/api/v1/rows/train_step", ndjson, good);
    assert_eq!(
        (status, answer.contains(r#""rows":2"#), answer.contains(r#""speed":1"#)),
        (200, true, true),
        "{answer}"
    );
    let bad =
        format!("{{\"ts\":{},\"job\":\"j\",\"rank\":0,\"step\":3}}\nnonsense\n{{\"job\":\"j\"}}\n", now.0 / 1_000);
    let (status, answer, _) = post("/api/v1/rows/train_step?ts=ms", ndjson, bad.as_bytes());
    let (odd, said, _) = post("/api/v1/rows/train_step", ndjson, bad.as_bytes());
    assert!(
        odd == 400 && said.contains("0 rows were taken") && said.contains("1 rows are more than 24h behind"),
        "{said}"
    );
    let words = ["2 lines are no rows, 1 rows were taken", "line 2: not JSON", "line 3: field 'ts' is missing"];
    assert!(status == 400 && words.iter().all(|word| answer.contains(word)), "{answer}");
    let found = rows("train_step");
    assert_eq!(found.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
    let mut arrow = Vec::new();
    let mut writer = StreamWriter::try_new(&mut arrow, &found[0].schema()).unwrap();
    writer.write(&found[0]).unwrap();
    writer.finish().unwrap();
    assert_eq!(post("/api/v1/rows/train_step", "application/vnd.apache.arrow.stream", &arrow).0, 200);
    assert_eq!(rows("train_step").iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    assert_eq!(post("/api/v1/rows/train_step", "application/vnd.apache.arrow.stream", b"arrow").0, 400);
    // Short lines that would be many rows of fifty columns.
    let (status, answer, _) = post("/api/v1/rows/train_step", ndjson, &b"{}\n".repeat(20_001));
    assert!(status == 400 && answer.contains("expected at most 20000"), "{answer}");
    let (status, answer, _) = post("/api/v1/rows/train_steps", ndjson, good);
    assert!(status == 404 && answer.contains("did you mean 'train_step'"), "{answer}");
    assert_eq!(post("/api/v1/rows/alert_event", ndjson, good).0, 403, "what is ours is not written by others");
    assert_eq!(post("/api/v1/rows/train_step?ts=ns", ndjson, good).0, 400);
    assert_eq!(api.posted(), ([("train_step".to_string(), 5)].into(), 7));
    log.fail_appends([std::io::ErrorKind::StorageFull]);
    let (status, _, headers) = post("/api/v1/rows/train_step", ndjson, good);
    assert_eq!((status, headers), (503, vec![("retry-after", "1".to_string())]));
}

/// What other systems send is acknowledged when the log has it, each value once however often it is sent.
#[test]
fn what_others_send_is_taken_once() {
    let log: Arc<ScriptedLog> = Arc::default();
    let api = api(log.clone());
    let post = |path: &str, kind: &str, encoding: &str, body: &[u8]| {
        let request = ApiRequest {
            method: "POST".to_string(),
            path: path.to_string(),
            body: body.to_vec(),
            kind: kind.to_string(),
            encoding: encoding.to_string(),
            ..ApiRequest::default()
        };
        let answer = api.answer(&request);
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned(), answer.headers)
    };
    let rows = |table: &str| -> usize {
        let read = log.read(&format!("tidewatch.{table}"), 0, 0, 1 << 20).unwrap();
        read.records.iter().map(|(_, record)| tidewatch_model::wire::decode(record).unwrap().1.num_rows()).sum()
    };
    // Version 2.0: symbols, and two series of which one has a label without a value.
    let text = |field: u8, text: &[u8]| [&[field << 3 | 2, text.len() as u8][..], text].concat();
    let millis = SystemClock.now().0 as u64 / 1_000;
    let varint: Vec<u8> = (0..6).map(|at| (millis >> (7 * at)) as u8 & 0x7f | if at < 5 { 0x80 } else { 0 }).collect();
    let sample = text(2, &[&[9][..], &1.5f64.to_le_bytes(), &[16], &varint].concat());
    let series = |references: &[u8]| text(5, &[text(1, references), sample.clone()].concat());
    let symbols = ["", "__name__", "up", "job", "node"].map(|symbol| text(4, symbol.as_bytes())).concat();
    let packed = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let good = packed(&[symbols.clone(), series(&[1, 2, 3, 4])].concat());
    let written = |samples: &str| {
        let name = |what: &str| format!("x-prometheus-remote-write-{what}-written");
        [("samples", samples), ("histograms", "0"), ("exemplars", "0")]
            .map(|(what, count)| (name(what), count.to_string()))
    };
    for _ in 0..3 {
        let (status, _, headers) = post("/api/v1/write", two, "snappy", &good);
        assert_eq!(status, 204);
        let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        assert_eq!(headers, written("1"));
    }
    assert_eq!((rows("metrics"), api.duplicates()), (1, 2));
    let half = packed(&[symbols, series(&[1, 2, 3]), series(&[1, 2])].concat());
    let (status, said, headers) = post("/api/v1/write", two, "snappy", &half);
    assert!(status == 400 && said.contains("1 values were not taken: labels_refs: "), "{said}");
    assert_eq!((headers[0].1.as_str(), rows("metrics")), ("1", 2));
    // What the log does not take is not acknowledged, and is taken when it is sent again.
    let other = packed(&[text(4, b""), text(4, b"__name__"), text(4, b"x"), series(&[1, 2])].concat());
    log.fail_appends([std::io::ErrorKind::StorageFull]);
    let (status, _, headers) = post("/api/v1/write", two, "snappy", &other);
    assert_eq!((status, headers), (503, vec![("retry-after", "1".to_string())]));
    assert_eq!((post("/api/v1/write", two, "snappy", &other).0, rows("metrics")), (204, 3));
    for (kind, encoding, body, expected) in [
        ("application/x-protobuf;proto=x", "snappy", &good[..], 415),
        (two, "gzip", &good, 415),
        (two, "snappy", b"nonsense", 400),
        (two, "snappy", &[0xff, 0xff, 0xff, 0xff, 0x0f], 413),
    ] {
        assert_eq!(post("/api/v1/write", kind, encoding, body).0, expected, "{kind} {encoding}");
    }
    let json = |value: &str, millis: u64| {
        format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"load","gauge":{{"dataPoints":[
            {{"timeUnixNano":"{millis}000000","asDouble":{value}}},{{"timeUnixNano":"5","asInt":1}}]}}}}]}}]}}]}}"#
        )
    };
    let (status, said, _) = post("/v1/metrics", "application/json", "", json("0.5", millis).as_bytes());
    assert!(status == 200 && said.contains(r#""rejectedDataPoints":"1""#) && said.contains("24h behind"), "{said}");
    assert_eq!(rows("metrics"), 5, "the value, and target_info");
    let logs = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"{millis}000000","body":{{"stringValue":"hm"}}}}]}}]}}]}}"#
    );
    assert_eq!(post("/api/v1/otlp/v1/logs", "application/json; charset=utf-8", "", logs.as_bytes()).0, 200);
    assert_eq!(rows("log"), 1);
    assert_eq!(post("/v1/logs", "application/json", "snappy", logs.as_bytes()).0, 415);
    let (status, said, _) = post("/v1/logs", "application/json", "", b"{");
    assert!(status == 400 && said.contains("not the JSON of OTLP"), "{said}");
    log.fail_appends([std::io::ErrorKind::StorageFull]);
    let (status, said, headers) = post("/v1/metrics", "application/json", "", json("1", millis + 1).as_bytes());
    assert!(status == 503 && said.starts_with("{\"message\":") && headers[0].0 == "retry-after", "{said}");
}
