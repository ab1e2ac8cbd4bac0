//! The real Alertmanager and our dispatcher, with the same file and the same alerts: the same notices, about the same alerts, at the same
//! times within a second.
//!
//! Alertmanager knows no clock but the real one, so all scenarios run beside each other in one of its processes, each in a route of
//! its own; ours run the same minutes in an instant.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewatch_flow::alerting::{Dispatcher, Matcher, Silence};
use tidewatch_model::alert::Labels;
use tidewatch_model::ports::{Clock, Random};
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::time::SystemClock;
use tidewatch_model::{Alert, AlertState, NoticeStatus, Severity, Timestamp};
use tidewatch_notifiers::sample;
use tidewatch_serve::{Asking, ask};
use tidewatch_tests::peers::{Alertmanager, webhooks};

use super::*;

/// How long a scenario goes on.
const LASTS: Duration = Duration::from_secs(18);
/// Times at which something happens: no two have the same fraction of a second, so that nothing happens at the instant of a flush, which
/// comes whole seconds after something else.
const FRACTIONS: [u64; 6] = [80, 240, 400, 560, 720, 880];

/// Something that happens, so many milliseconds after the beginning.
#[derive(Debug, Clone)]
struct Event {
    at: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Fire(&'static str, &'static str),
    Resolve(&'static str, &'static str),
    /// A silence of a host.
    Silence(&'static str),
    /// The end of that silence.
    Expire(&'static str),
}

/// A scenario: the fields of its route, whether it tells of what is over, whether `down` inhibits `hot` of the same host.
#[derive(Debug, Clone)]
struct Scenario {
    route: String,
    send_resolved: bool,
    inhibits: bool,
    events: Vec<Event>,
}

/// What a receiver got: when, whether all is over, what fires and what is over.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    at: u64,
    resolved: bool,
    firing: BTreeSet<String>,
    over: BTreeSet<String>,
}

impl Scenario {
    fn random(random: &SeededRandom) -> Scenario {
        let pick = |count: usize| (random.next_u64() % count as u64) as usize;
        let group_by = ["[]", "[alertname]", "[alertname, host]", "['...']"][pick(4)];
        let wait = 1 + pick(2);
        let interval = 2 + pick(2);
        // No multiple of the interval: whether the time has passed would be a matter of a millisecond.
        let repeat = [interval + 1, 2 * interval + 1, 600][pick(3)];
        let inhibits = pick(3) == 0;
        let mut fractions = FRACTIONS;
        (1..fractions.len()).for_each(|last| fractions.swap(last, pick(last + 1)));
        let mut fractions = fractions.into_iter();
        let mut next = |second: usize| second as u64 * 1_000 + fractions.next().unwrap();
        let mut events = vec![Event { at: next(0), what: What::Fire("hot", "n1") }];
        let mut add = |second: usize, what: What| events.push(Event { at: next(second), what });
        let kind = if group_by.contains("host") || group_by.contains("...") { [0, 2, 3, 4][pick(4)] } else { pick(5) };
        match kind {
            0 => {
                add(1 + pick(4), What::Fire("hot", "n2"));
                add(6 + pick(3), What::Resolve("hot", "n1"));
                add(9 + pick(3), What::Resolve("hot", "n2"));
            }
            1 => {
                // A group that has become empty is looked at by Alertmanager until its next round of cleaning, whenever that is: here it
                // does not become empty.
                add(1, What::Fire("hot", "n2"));
                add(3 + pick(3), What::Resolve("hot", "n1"));
                add(8 + pick(3), What::Fire("hot", "n1"));
                add(12, What::Fire("down", "n3"));
            }
            2 => {
                // Silenced before it is told, and told once the silence is over. Ours tell who was told of an alert that it is over,
                // silenced or not: what is silenced here does not end.
                add(0, What::Silence("n2"));
                add(1 + pick(2), What::Fire("hot", "n2"));
                add(5 + pick(4), What::Expire("n2"));
                add(11 + pick(2), What::Resolve("hot", "n1"));
            }
            3 => {
                add(1 + pick(3), What::Fire("hot", "n2"));
                add(5 + pick(2), What::Silence("n2"));
                add(8 + pick(3), What::Fire("down", "n3"));
                add(12, What::Expire("n2"));
            }
            _ => {
                add(pick(3), What::Fire("down", "n1"));
                add(4 + pick(3), What::Fire("hot", "n2"));
                add(9 + pick(3), What::Resolve("down", "n1"));
            }
        }
        events.sort_by_key(|event| event.at);
        let route = format!(
            "group_by: {group_by}, group_wait: {wait}s, group_interval: {interval}s, repeat_interval: {repeat}s"
        );
        Scenario { route, send_resolved: pick(4) > 0, inhibits, events }
    }
}

fn file(scenarios: &[Scenario], port: u16) -> String {
    let mut text = "route:\n  receiver: nobody\n  routes:\n".to_string();
    for (number, scenario) in scenarios.iter().enumerate() {
        text += &format!("    - {{matchers: ['scenario=\"{number}\"'], receiver: s{number}, {}}}\n", scenario.route);
    }
    text += "inhibit_rules:\n";
    for (number, _) in scenarios.iter().enumerate().filter(|(_, scenario)| scenario.inhibits) {
        text += &format!(
            "  - source_matchers: [alertname=\"down\", scenario=\"{number}\"]\n    target_matchers: [alertname=\"hot\", scenario=\"{number}\"]\n    equal: [host]\n"
        );
    }
    text += "receivers:\n  - name: nobody\n";
    for (number, scenario) in scenarios.iter().enumerate() {
        text += &format!(
            "  - name: s{number}\n    webhook_configs: [{{url: 'http://127.0.0.1:{port}/{number}', send_resolved: {}}}]\n",
            scenario.send_resolved
        );
    }
    text
}

fn labels(number: usize, name: &str, host: &str) -> Labels {
    let scenario = number.to_string();
    let pairs = [("alertname", name), ("host", host), ("scenario", &scenario), ("severity", "warning")];
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).into()
}

fn got_of(body: &Value, at: u64) -> Got {
    let named = |status: &str| {
        let alerts = body["alerts"].as_array().unwrap().iter().filter(|alert| alert["status"] == status);
        let name = |label: &Value| label.as_str().unwrap().to_string();
        alerts
            .map(|alert| format!("{} {}", name(&alert["labels"]["alertname"]), name(&alert["labels"]["host"])))
            .collect()
    };
    Got { at, resolved: body["status"] == "resolved", firing: named("firing"), over: named("resolved") }
}

/// The silence of a host, from now on.
fn silence(number: usize, host: &str, now: Timestamp) -> Silence {
    Silence {
        id: format!("{number} {host}"),
        matchers: Matcher::parse_all(&format!("host=\"{host}\", scenario=\"{number}\"")).unwrap(),
        starts_at: now,
        ends_at: now + Span::hours(1),
        updated_at: now,
        created_by: "test".to_string(),
        comment: "test".to_string(),
    }
}

/// What Alertmanager tells, with real time.
fn theirs(scenarios: &[Scenario]) -> Option<Vec<(usize, Got)>> {
    let begun = Instant::now();
    let (address, posted) = webhooks();
    let peer = Alertmanager::start(&file(scenarios, address.port()))?;
    let post = |path: &str, body: &Value| -> Value {
        let (status, text) = ask("POST", &format!("{}{path}", peer.url), Asking::default(), Some(body)).unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap_or_default()
    };
    let offset = begun.elapsed().as_millis() as u64;
    let mut all: Vec<(usize, Event)> = Vec::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        all.extend(scenario.events.iter().map(|event| (number, event.clone())));
    }
    all.sort_by_key(|(_, event)| event.at);
    let mut silences: BTreeMap<String, String> = BTreeMap::new();
    for (number, Event { at, what }) in all {
        let due = Duration::from_millis(offset + at);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let now = SystemClock.now();
        match what {
            What::Fire(name, host) => {
                post(
                    "/api/v2/alerts",
                    &json!([{"labels": labels(number, name, host), "startsAt": now, "endsAt": now + Span::hours(1)}]),
                );
            }
            What::Resolve(name, host) => {
                let began = now.saturating_sub(Span::seconds(30));
                post(
                    "/api/v2/alerts",
                    &json!([{"labels": labels(number, name, host), "startsAt": began, "endsAt": now}]),
                );
            }
            What::Silence(host) => {
                let mut body = serde_json::to_value(silence(number, host, now)).unwrap();
                body.as_object_mut().unwrap().remove("id");
                let made = post("/api/v2/silences", &body);
                silences.insert(format!("{number} {host}"), made["silenceID"].as_str().unwrap().to_string());
            }
            What::Expire(host) => {
                let id = &silences[&format!("{number} {host}")];
                ask("DELETE", &format!("{}/api/v2/silence/{id}", peer.url), Asking::default(), None).unwrap();
            }
        }
    }
    std::thread::sleep((Duration::from_millis(offset) + LASTS).saturating_sub(begun.elapsed()));
    let got = posted.try_iter().map(|(came, path, body)| {
        let at = (came - begun).as_millis() as u64 - offset;
        (path.trim_start_matches('/').parse().unwrap(), got_of(&serde_json::from_str(&body).unwrap(), at))
    });
    Some(got.collect())
}

/// What we tell.
fn ours(scenarios: &[Scenario]) -> Vec<(usize, Got)> {
    let (file, faults) = parse(&file(scenarios, 1), Path::new("."));
    assert!(faults.iter().all(|fault| fault.level != Level::Error), "{faults:?}");
    let mut told = Vec::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        let mut dispatcher = Dispatcher::new(file.as_ref().unwrap().policy.clone());
        let instant = |at: u64| Timestamp(1_000_000_000_000_000 + at as i64 * 1_000);
        let mut events = scenario.events.iter().peekable();
        for at in 0..LASTS.as_millis() as u64 {
            let now = instant(at);
            while let Some(event) = events.next_if(|event| event.at <= at) {
                match event.what {
                    What::Fire(name, host) => {
                        dispatcher.observe(&alert(number, name, host, AlertState::Firing, now), now)
                    }
                    What::Resolve(name, host) => {
                        dispatcher.observe(&alert(number, name, host, AlertState::Resolved, now), now);
                    }
                    What::Silence(host) => dispatcher.set_silence(silence(number, host, now)),
                    What::Expire(host) => {
                        dispatcher.set_silence(Silence { ends_at: now, ..silence(number, host, now) })
                    }
                }
            }
            for notice in dispatcher.tick(now) {
                dispatcher.delivered(&notice, now).unwrap();
                let named = |state: AlertState| {
                    let alerts = notice.alerts.iter().filter(|alert| alert.state == state);
                    alerts.map(|alert| format!("{} {}", alert.labels["alertname"], alert.labels["host"])).collect()
                };
                let resolved = notice.status == NoticeStatus::Resolved;
                let got = Got { at, resolved, firing: named(AlertState::Firing), over: named(AlertState::Resolved) };
                told.push((number, got));
            }
        }
    }
    told
}

fn alert(number: usize, name: &str, host: &str, state: AlertState, now: Timestamp) -> Alert {
    let mut alert = sample(NoticeStatus::Firing).alerts.remove(0);
    alert.labels = labels(number, name, host);
    alert.labels.remove("severity");
    (alert.state, alert.severity, alert.fired_at) = (state, Severity::Warning, Some(now));
    alert.resolved_at = (state == AlertState::Resolved).then_some(now);
    alert
}

#[test]
fn alertmanager_tells_the_same_at_the_same_times() {
    let read = |name: &str, known: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(known);
    let (seed, count) = (read("TIDEWATCH_SEED", 1), read("TIDEWATCH_PEER_SCENARIOS", 24));
    println!("TIDEWATCH_SEED={seed} TIDEWATCH_PEER_SCENARIOS={count}");
    let random = SeededRandom::new(seed);
    let scenarios: Vec<Scenario> = (0..count).map(|_| Scenario::random(&random)).collect();
    let Some(theirs) = theirs(&scenarios) else { return };
    let ours = ours(&scenarios);
    let mut differences = Vec::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        let of = |all: &[(usize, Got)]| -> Vec<Got> {
            // What comes in the last second may be seen by one and not by the other.
            let last = LASTS.as_millis() as u64 - 1_000;
            let mut of: Vec<Got> =
                all.iter().filter(|(of, got)| *of == number && got.at < last).map(|(_, got)| got.clone()).collect();
            // Groups that are told at the same time have no order.
            of.sort_by_key(|got| (got.at / 1_500, format!("{got:?}")));
            of
        };
        let (theirs, ours) = (of(&theirs), of(&ours));
        let content = |got: &Got| (got.resolved, got.firing.clone(), got.over.clone());
        let mut left = ours.clone();
        let same = theirs.len() == ours.len()
            && theirs.iter().all(|got| {
                let near = |own: &Got| content(own) == content(got) && own.at.abs_diff(got.at) < 1_000;
                left.iter().position(near).map(|at| left.remove(at)).is_some()
            });
        if !same {
            let shown = |all: &[Got]| all.iter().map(|got| format!("\n    {got:?}")).collect::<String>();
            let events: Vec<String> =
                scenario.events.iter().map(|event| format!("{} {:?}", event.at, event.what)).collect();
            differences.push(format!(
                "{number}: {}, inhibits {}, {}\n  theirs {}\n  ours {}",
                scenario.route,
                scenario.inhibits,
                events.join(", "),
                shown(&theirs),
                shown(&ours)
            ));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    assert!(theirs.len() > scenarios.len(), "{} notices", theirs.len());
}

/// A named difference: whoever was told that it fires is told that it is over, silenced or not.
#[test]
fn we_differ_where_what_was_told_is_silenced_and_ends() {
    let event = |at: u64, what: What| Event { at, what };
    let scenario = Scenario {
        route: "group_by: [alertname], group_wait: 1s, group_interval: 2s, repeat_interval: 600s".to_string(),
        send_resolved: true,
        inhibits: false,
        events: vec![
            event(80, What::Fire("hot", "n1")),
            event(2_240, What::Silence("n1")),
            event(4_400, What::Resolve("hot", "n1")),
        ],
    };
    let scenarios = [scenario];
    let Some(theirs) = theirs(&scenarios) else { return };
    let ours = ours(&scenarios);
    let resolved = |all: &[(usize, Got)]| all.iter().map(|(_, got)| got.resolved).collect::<Vec<_>>();
    assert_eq!((resolved(&theirs), resolved(&ours)), (vec![false], vec![false, true]));
}
