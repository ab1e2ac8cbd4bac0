//! A file is read as Alertmanager reads it, and every fault is told with its place; the real amtool agrees on the receivers.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Command;

use proptest::prelude::*;
use tidewatch_model::alert::Labels;

use super::*;

const GOOD: &str = r#"
global:
  resolve_timeout: 5m
  slack_api_url: http://127.0.0.1:1/slack
  smtp_smarthost: mail.example.com:587
  smtp_from: tidewatch@example.com
  smtp_auth_username: me
  smtp_auth_password: secret
route:
  receiver: everyone
  group_by: [alertname, cluster]
  routes:
    - matchers: [severity="critical", team=~"gpu|training"]
      receiver: pager
      group_wait: 10s
      escalate_after: 15m
      continue: true
      routes:
        - match: {host: n1}
          group_by: ['...']
    - match_re: {alertname: "log_.*"}
      receiver: logs
      mute_time_intervals: [weekend]
inhibit_rules:
  - source_matchers: [alertname="host_down"]
    target_matchers: [alertname!="host_down"]
    equal: [host]
time_intervals:
  - name: weekend
    time_intervals:
      - weekdays: [saturday, sunday]
        location: Europe/Berlin
receivers:
  - name: everyone
    webhook_configs: [{url: "http://127.0.0.1:1/hook"}]
  - name: pager
    pagerduty_configs: [{routing_key: k}]
    slack_configs: [{channel: gpus, title: "{{ title }}"}]
  - name: logs
    command_configs: [{command: [logger, -t, tidewatch]}]
  - name: mail
    email_configs: [{to: "Ops <ops@example.com>", headers: {Subject: "{{ title }}"}, html: "<b>{{ title }}</b>"}]
  - name: programs
    kafka_configs: [{topic: alerts}]
heartbeat: {receiver: programs, interval: 30s}
alertmanagers:
  - scheme: https
    path_prefix: /am/
    basic_auth: {username: me, password: secret}
    static_configs: [{targets: ["10.0.0.1:9093", "10.0.0.2:9093"]}]
"#;

fn here() -> &'static Path {
    Path::new(".")
}

#[test]
fn a_good_file_is_read_with_alertmanagers_defaults() {
    let (file, faults) = parse(GOOD, here());
    assert_eq!(faults, vec![]);
    let AlertingFile { policy, channels, alertmanagers, heartbeat } = file.unwrap();
    assert_eq!(heartbeat, Some(("programs".to_string(), Span::seconds(30))));
    assert_eq!(format!("{alertmanagers:?}"), "[https://10.0.0.1:9093/..., https://10.0.0.2:9093/...]");
    let [pager, logs] = &policy.trees[0].routes[..] else { panic!() };
    assert_eq!(policy.trees[0].group_interval, Span::minutes(5));
    assert_eq!((pager.group_wait, pager.repeat_interval), (Span::seconds(10), Span::seconds(4 * 3_600)));
    assert_eq!(pager.routes[0].path, "{}/{severity=\"critical\",team=~\"gpu|training\"}/{host=\"n1\"}");
    assert_eq!(pager.routes[0].receiver, "pager");
    assert_eq!(pager.routes[0].escalate_after, Span::minutes(15), "a child has what its parent has");
    assert_eq!(pager.routes[0].group_by, GroupBy::All);
    assert_eq!(logs.matchers[0].to_string(), "alertname=~\"log_.*\"");
    let names: Vec<&String> = channels.keys().collect();
    assert_eq!(names, ["everyone", "logs", "mail", "pager/pagerduty[0]", "pager/slack[0]", "programs"]);
    assert!(!policy.receivers["mail"][0].send_resolved, "as Alertmanager has it");
    assert!(!policy.receivers["pager"].iter().find(|target| target.name.contains("slack")).unwrap().send_resolved);
    assert_eq!(policy.intervals["weekend"].len(), 1);
}

fn faults(text: &str) -> Vec<String> {
    parse(text, here()).1.iter().map(ToString::to_string).collect()
}

#[test]
fn every_fault_is_told_with_its_place() {
    let text = r#"
route:
  receiver: nobody
  group_wait: 10 parsecs
  repeat_interval: 0s
  routes:
    - matchers: ["severity"]
      reciever: ops
      mute_time_intervals: [night]
receivers:
  - name: ops
    slack_configs: [{channel: "x"}]
    webhook_configs: [{url: "ftp://x"}]
  - name: ops
    pushover_configs: [{token: "a"}]
time_intervals:
  - name: late
    time_intervals:
      - times: [{start_time: "22:00", end_time: "06:00"}]
        weekdays: [fryday]
"#;
    let expected = [
        "3:13: error: route.receiver: no receiver is called 'nobody'",
        "4:15: error: route.group_wait: '10 parsecs'",
        "5:20: error: route.repeat_interval: expected more than 0",
        "7:18: error: route.routes[0].matchers[0]: matcher 'severity': expected name=value",
        "8:17: error: route.routes[0].reciever: unknown field; did you mean 'receiver'?",
        "9:29: error: route.routes[0].mute_time_intervals[0]: no time interval is called 'night'",
        "12:21: error: receivers[0].slack_configs[0]: expected api_url",
        "13:23: error: receivers[0].webhook_configs[0]: url: expected http:// or https://",
        "14:5: error: receivers[1]: nothing of 'ops' can be done here",
        "14:5: error: receivers[1]: 'ops' is there twice",
        "15:23: warning: receivers[1].pushover_configs: is not supported and left out",
        "19:17: error: time_intervals[0].time_intervals[0].times[0]: start_time must be before end_time",
        "20:20: error: time_intervals[0].time_intervals[0].weekdays[0]: 'fryday' is no range",
    ];
    let mut found = faults(text);
    found.sort_by_key(|fault| fault.split(':').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "found    {found}\nexpected {expected}");
    }
    assert!(faults("a: [").iter().all(|fault| fault.contains("not YAML")), "{:?}", faults("a: ["));
    assert_eq!(faults("").len(), 1);
    assert!(faults("route:\nreceivers: []")[0].contains("route: expected a mapping"));
    let with = |http: &str| {
        faults(&format!(
            "route: {{receiver: x}}\nreceivers: [{{name: x, discord_configs: [{{webhook_url: 'http://x', http_config: {http}}}]}}]"
        ))
    };
    assert_eq!(with("{follow_redirects: true}"), Vec::<String>::new());
    assert!(with("{proxy_url: 'http://p'}")[0].contains("without it nothing would arrive"));
}

#[test]
fn secrets_come_from_files_and_the_environment_and_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "canary\n").unwrap();
    let with = |config: &str| {
        let text = format!("route: {{receiver: x}}\nreceivers: [{{name: x, pagerduty_configs: [{config}]}}]");
        let (file, faults) = parse(&text, folder.path());
        (file.map(|file| format!("{file:?}")), faults.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (file, found) = with("{routing_key_file: key}");
    assert_eq!(found, Vec::<String>::new());
    assert!(!file.unwrap().contains("canary"));
    let (file, faults) = parse(
        "route: {receiver: x}\nreceivers: [{name: x, webhook_configs: [{url: 'http://x', http_config: {basic_auth: {username: me, password_file: key}}}]}]",
        folder.path(),
    );
    assert_eq!(faults, vec![]);
    let Channel::Webhook { headers, .. } = &file.unwrap().channels["x"] else { panic!() };
    assert_eq!(headers[0], ("Authorization".to_string(), "Basic bWU6Y2FuYXJ5".to_string()), "RFC 7617 of me:canary");
    assert!(with("{routing_key_file: none}").1[0].contains("No such file"));
    assert!(
        with("{routing_key: \"${TIDEWATCH_NO_SUCH_KEY}\"}").1[0]
            .contains("the environment has no TIDEWATCH_NO_SUCH_KEY")
    );
    assert!(with("{routing_key: \"${PATH}\"}").0.is_some());
    assert!(with("{routing_key: a, routing_key_file: key}").1[0].contains("expected one of them"));
}

/// A route of a random tree, as YAML at a depth.
fn tree(depth: u32) -> impl Strategy<Value = serde_json::Value> {
    let leaf = (0..4u32, prop::collection::vec((0..3u32, 0..4u32, 0..3u32), 0..3), any::<bool>()).prop_map(
        |(receiver, matchers, continues)| {
            let matchers: Vec<String> = matchers
                .into_iter()
                .map(|(name, sign, value)| {
                    let sign = ["=", "!=", "=~", "!~"][sign as usize];
                    let value = if sign.ends_with('~') { format!("v{value}|v0.*") } else { format!("v{value}") };
                    format!("l{name}{sign}\"{value}\"")
                })
                .collect();
            serde_json::json!({"receiver": format!("r{receiver}"), "matchers": matchers, "continue": continues})
        },
    );
    leaf.prop_recursive(depth, 12, 4, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..4)).prop_map(|(mut route, children)| {
            route["routes"] = serde_json::Value::Array(children);
            route
        })
    })
}

/// The receivers that the real amtool finds.
fn amtool(file: &Path, labels: &Labels) -> Option<String> {
    let pairs = labels.iter().map(|(name, value)| format!("{name}={value}"));
    let found =
        Command::new("amtool").args(["config", "routes", "test", "--config.file"]).arg(file).args(pairs).output();
    match found {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "amtool is not there: .ci/install brings it");
            eprintln!("amtool is not there: not compared with it");
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn amtool_agrees_on_the_receivers(
        routes in prop::collection::vec(tree(3), 1..4),
        labels in prop::collection::btree_map((0..3u32).prop_map(|name| format!("l{name}")), (0..3u32).prop_map(|value| format!("v{value}")), 0..4),
    ) {
        let receivers: Vec<_> = (0..4).map(|index| serde_json::json!({"name": format!("r{index}")})).collect();
        let config = serde_json::json!({"route": {"receiver": "r0", "routes": routes}, "receivers": receivers});
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alertmanager.yml");
        // JSON is YAML.
        std::fs::write(&path, config.to_string()).unwrap();
        let (file, faults) = load(&path).unwrap();
        prop_assert_eq!(faults, vec![]);
        let labels: Labels = BTreeMap::from_iter(labels);
        let policy = file.unwrap().policy;
        let found: Vec<String> = policy.trees[0].matching(&labels).iter().map(|route| route.receiver.clone()).collect();
        if let Some(theirs) = amtool(&path, &labels) {
            prop_assert_eq!(found.join(","), theirs, "{} {:?}", config, labels);
        }
    }
}

#[test]
fn the_files_of_the_documentation_are_good() {
    let page = include_str!("../../../../docs/alerting.md");
    let blocks = page.split("```yaml\n").skip(1).map(|part| part.split("```").next().unwrap());
    let files: Vec<&str> = blocks.filter(|block| block.contains("receivers:")).collect();
    assert!(files.len() >= 2);
    for text in files {
        let folder = tempfile::tempdir().unwrap();
        for named in text.split("_file: ").skip(1) {
            let name: String = named.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            std::fs::write(folder.path().join(name), "http://127.0.0.1:1/secret").unwrap();
        }
        let (file, faults) = parse(text, folder.path());
        assert!(file.is_some() && faults.is_empty(), "{faults:?}\n{text}");
    }
}

/// A channel into the log: one record for each notice, whatever its size.
#[test]
fn notices_go_to_a_topic() {
    use tidewatch_model::NoticeStatus;
    use tidewatch_model::limits::RECORD_BYTES;
    use tidewatch_model::ports::{Delivery, Log};

    let scripted = std::sync::Arc::new(tidewatch_log::ScriptedLog::default());
    let log: std::sync::Arc<dyn Log> = scripted.clone();
    let notifier = Channel::Topic { topic: "alerts".to_string() }.notifier("programs", "http://here", &log).unwrap();
    let mut notice = tidewatch_notifiers::sample(NoticeStatus::Firing);
    (notice.notice_id, notice.group_key) = ("abc".to_string(), "{}:{}".to_string());
    assert_eq!(notifier.notify(&notice), Delivery::Delivered);
    let mut large = notice.clone();
    let alert = |host: usize| {
        let mut alert = notice.alerts[0].clone();
        alert.labels = Labels::from([("host".to_string(), format!("n{host}"))]);
        alert
    };
    large.alerts = (0..10_000).map(alert).collect();
    assert_eq!(notifier.notify(&large), Delivery::Delivered);
    let records = log.read("alerts", 0, 0, usize::MAX).unwrap().records;
    let bodies: Vec<serde_json::Value> =
        records.iter().map(|(_, record)| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect();
    assert_eq!((bodies[0]["status"].as_str(), bodies[0]["truncatedAlerts"].as_u64()), (Some("firing"), Some(0)));
    assert_eq!(records[0].1.key, b"{}:{}");
    assert_eq!(records[0].1.headers, [("Idempotency-Key".to_string(), b"abc".to_vec())]);
    let shown = bodies[1]["alerts"].as_array().unwrap().len();
    assert_eq!(bodies[1]["truncatedAlerts"].as_u64().unwrap() as usize + shown, 10_000, "what does not fit is counted");
    assert!(shown > 500 && records[1].1.value.as_ref().unwrap().len() < RECORD_BYTES, "{shown}");
    scripted.fail_appends([std::io::ErrorKind::StorageFull]);
    assert!(matches!(notifier.notify(&notice), Delivery::Retry { perhaps: true, .. }));
}

/// The file of routes that we ship is understood whole, and every bundled rule has one class.
#[test]
fn every_bundled_rule_has_its_class() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/alerting.yml");
    let (file, faults) = load(&path).unwrap();
    assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    let policy = file.unwrap().policy;
    let files: Vec<_> = crate::rule_files::Bundled::All.files().collect();
    let mut loaded = tidewatch_sql::Loaded::default();
    let texts = files.iter().map(|file| (file.path, file.sql));
    tidewatch_sql::Compiler::new().unwrap().load_files(texts, &mut loaded);
    let mut counts = BTreeMap::new();
    for rule in loaded.rules.iter().map(|compiled| &compiled.rule).filter(|rule| !rule.stream) {
        let mut labels = rule.options.labels.clone();
        labels.insert("alertname".to_string(), rule.name.clone());
        let found: Vec<&str> = policy.trees[0].matching(&labels).iter().map(|route| route.receiver.as_str()).collect();
        assert_eq!(found, [labels.get("class").map_or("none", String::as_str)], "{}", rule.name);
        *counts.entry(found.join(" ")).or_insert(0) += 1;
    }
    let classes: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(classes, ["hardware", "performance", "security", "service", "tidewatch"]);
    assert_eq!(counts.values().sum::<usize>(), files.len());
}
