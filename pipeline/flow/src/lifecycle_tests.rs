//! The lifecycle by example, in one line per evaluation, and by property.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use tidewatch_model::{Key, RuleOptions, Severity, Value, WindowSpec};

use super::*;

const MINUTE: i64 = 60_000_000;

pub(super) fn rule(hold: i64, keep: i64, no_data: NoDataPolicy) -> Rule {
    let minute = Span::minutes(1);
    Rule {
        name: "hot".to_string(),
        version: "v1".to_string(),
        sql: String::new(),
        table: "gpu".to_string(),
        joined: vec![],
        stream: false,
        across: false,
        table_kind: TableKind::Sample,
        shape: RuleShape::Window(WindowSpec { slide: minute, size: minute }),
        spread: vec![],
        key: vec!["host".to_string()],
        options: RuleOptions {
            severity: Severity::Warning,
            hold: Span::minutes(hold),
            hold_evaluations: 1,
            recover_when: None,
            limit: None,
            flap_detection: false,
            keep_firing_for: Span::minutes(keep),
            no_data,
            delay: Span::ZERO,
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([("summary".to_string(), "{{ host }} {{ t }}".to_string())]),
        },
        lower_is_worse: false,
        source: "x.sql:1:1".to_string(),
    }
}

fn events(rule: Rule) -> Rule {
    Rule { table_kind: TableKind::Event, shape: RuleShape::Row, ..rule }
}

fn finding(state: char) -> Finding {
    let state = match state {
        'F' => GroupState::Firing(vec![("t".to_string(), Value::Float(1.0))]),
        'c' => GroupState::Clear,
        'h' => GroupState::Held,
        '_' => GroupState::NoData,
        '?' => GroupState::Unknown,
        other => panic!("no state {other}"),
    };
    Finding { key: Key::from([("host".to_string(), "n1".to_string())]), state }
}

pub(super) fn evaluation(minute: i64, state: char) -> Evaluation {
    let end = Timestamp(minute * MINUTE);
    let outcome = match state {
        '!' => Outcome::Failed("boom".to_string()),
        '.' => Outcome::Groups(vec![]),
        state => Outcome::Groups(vec![finding(state)]),
    };
    Evaluation { rule: "hot".to_string(), window_start: end, window_end: end, outcome }
}

fn show(transition: &Transition) -> String {
    format!("{} {}>{} {}", transition.ts.0 / MINUTE, transition.from_state, transition.to_state, transition.reason)
}

/// One evaluation a minute, from minute zero: F fires, c is clear, _ no data, ? unknown, ! failed, . nothing listed.
fn check(rule: &Rule, states: &str, expected: &[&str]) {
    let mut book = AlertBook::default();
    let found: Vec<String> = states
        .chars()
        .enumerate()
        .flat_map(|(minute, state)| book.advance(rule, &evaluation(minute as i64, state)))
        .map(|transition| show(&transition))
        .collect();
    assert_eq!(found, expected, "{states}");
}

#[test]
fn without_for_it_fires_at_once_and_resolves_at_once() {
    check(
        &rule(0, 0, NoDataPolicy::Keep),
        "cFFcc",
        &["1 inactive>firing condition_met", "3 firing>resolved condition_cleared"],
    );
}

/// Checked with promtool: for 2m, keep_firing_for 3m, breach at minutes 0 to 3: firing at 2..6, gone at 7.
#[test]
fn promtools_example() {
    check(
        &rule(2, 3, NoDataPolicy::Keep),
        "FFFFccccc",
        &[
            "0 inactive>pending condition_met",
            "2 pending>firing held_long_enough",
            "7 firing>resolved condition_cleared",
        ],
    );
}

#[test]
fn pending_that_clears_is_dropped_and_keep_is_forgotten_when_seen_again() {
    check(
        &rule(2, 0, NoDataPolicy::Keep),
        "FcF",
        &[
            "0 inactive>pending condition_met",
            "1 pending>inactive condition_cleared",
            "2 inactive>pending condition_met",
        ],
    );
    check(
        &rule(0, 2, NoDataPolicy::Keep),
        "FcFccc",
        &["0 inactive>firing condition_met", "5 firing>resolved condition_cleared"],
    );
}

#[test]
fn missing_data_never_resolves_by_itself() {
    check(&rule(0, 0, NoDataPolicy::Keep), "F____", &["0 inactive>firing condition_met", "1 firing>firing stale"]);
    check(
        &rule(0, 0, NoDataPolicy::Keep),
        "F__F_c",
        &[
            "0 inactive>firing condition_met",
            "1 firing>firing stale",
            "3 firing>firing data_returned",
            "4 firing>firing stale",
            "5 firing>resolved condition_cleared",
        ],
    );
    check(&rule(0, 0, NoDataPolicy::Keep), "F???!!!", &["0 inactive>firing condition_met"]);
}

#[test]
fn for_does_not_progress_without_data() {
    check(
        &rule(2, 0, NoDataPolicy::Keep),
        "F____FFF",
        &["0 inactive>pending condition_met", "6 pending>firing held_long_enough"],
    );
}

#[test]
fn the_other_policies() {
    check(&rule(0, 0, NoDataPolicy::Resolve), "F_", &["0 inactive>firing condition_met", "1 firing>resolved no_data"]);
    check(
        &rule(0, 0, NoDataPolicy::Ignore),
        "F__c",
        &["0 inactive>firing condition_met", "3 firing>resolved condition_cleared"],
    );
    check(
        &rule(1, 0, NoDataPolicy::Alert),
        "c__c",
        &["1 inactive>pending no_data", "2 pending>firing held_long_enough", "3 firing>resolved condition_cleared"],
    );
}

#[test]
fn a_silent_alert_is_gone_after_seven_days() {
    let keep = rule(0, 0, NoDataPolicy::Keep);
    let mut book = AlertBook::default();
    book.advance(&keep, &evaluation(0, 'F'));
    book.advance(&keep, &evaluation(1, '_'));
    let week = 7 * 24 * 60;
    assert!(book.advance(&keep, &evaluation(week, '_')).is_empty());
    let gone = book.advance(&keep, &evaluation(week + 1, '_'));
    assert_eq!(show(&gone[0]), format!("{} firing>resolved gone", week + 1));
}

#[test]
fn an_event_holds_for_its_time_and_ends_exactly_then() {
    let rule = events(rule(0, 3, NoDataPolicy::Resolve));
    check(&rule, "F.....", &["0 inactive>firing condition_met", "3 firing>resolved condition_cleared"]);
    check(
        &rule,
        "FF...F",
        &["0 inactive>firing condition_met", "4 firing>resolved condition_cleared", "5 inactive>firing condition_met"],
    );
    // Asked late, and together with a new event: first the old episode ends, at its own time.
    let mut book = AlertBook::default();
    book.advance(&rule, &evaluation(0, 'F'));
    let found: Vec<String> = book.advance(&rule, &evaluation(9, 'F')).iter().map(show).collect();
    assert_eq!(found, ["3 firing>resolved condition_cleared", "9 inactive>firing condition_met"]);
    assert!(book.advance(&rule, &evaluation(8, 'F')).is_empty(), "older than what was seen");
}

#[test]
fn rules_that_change() {
    let before = rule(0, 0, NoDataPolicy::Keep);
    let mut book = AlertBook::default();
    book.advance(&before, &evaluation(0, 'F'));
    let now = Timestamp(5 * MINUTE);
    let mut same = before.clone();
    same.version = "v2".to_string();
    same.options.severity = Severity::Critical;
    let positions = BTreeMap::from([(before.name.clone(), now)]);
    let gone: &dyn Fn(&str) -> Fate = &|_| Fate::Gone;
    let told: Vec<String> = book.reload(std::slice::from_ref(&same), gone, &positions).iter().map(show).collect();
    assert_eq!(told, ["5 firing>firing severity_raised"], "another severity is a change too");
    assert!(book.reload(std::slice::from_ref(&same), gone, &positions).is_empty(), "once");
    assert_eq!(book.alerts().next().unwrap().severity, Severity::Critical);
    let mut raised = rule(10, 0, NoDataPolicy::Keep);
    raised.options.severity = Severity::Critical;
    assert!(book.clone().advance(&raised, &evaluation(6, 'F')).is_empty(), "what fires goes on firing");
    for key in [vec!["gpu_uuid".to_string()], vec!["host".to_string(), "core".to_string()], vec![]] {
        let other_key = Rule { key, ..before.clone() };
        let ended = book.clone().reload(&[other_key], gone, &positions);
        assert_eq!(show(&ended[0]), "5 firing>resolved rule_changed");
        assert_eq!(ended.len(), 1);
    }
    assert!(
        book.clone().reload(&[], &|_| Fate::Unknown, &positions).is_empty(),
        "a rule with a fault is not a rule removed"
    );
    let mut elsewhere = book.clone();
    assert!(elsewhere.reload(&[], &|_| Fate::Elsewhere, &positions).is_empty() && elsewhere.alerts().next().is_none());
    let removed = book.clone().reload(&[], gone, &positions);
    assert_eq!(show(&removed[0]), "5 firing>resolved rule_removed");
    assert_eq!(book.reload(&[], gone, &positions), removed, "the same after a crash");
}

#[test]
fn labels_and_annotations() {
    let mut rule = rule(0, 0, NoDataPolicy::Keep);
    rule.options.labels.insert("team".to_string(), "infra".to_string());
    let alert = AlertBook::default().advance(&rule, &evaluation(0, 'F')).remove(0).alert;
    let labels: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["alertname=hot", "host=n1", "team=infra"]);
    assert_eq!(alert.annotations["summary"], "n1 1.0");
}

#[test]
fn an_alert_ends_when_its_recovery_comes_and_not_before() {
    check(
        &rule(0, 0, NoDataPolicy::Keep),
        "hFhhFhc",
        &["1 inactive>firing condition_met", "6 firing>resolved condition_cleared"],
    );
    // What has not fired needs no recovery, and `keep_firing_for` begins with it.
    check(
        &rule(1, 2, NoDataPolicy::Keep),
        "FhFFchccc",
        &[
            "0 inactive>pending condition_met",
            "1 pending>inactive condition_cleared",
            "2 inactive>pending condition_met",
            "3 pending>firing held_long_enough",
            "8 firing>resolved condition_cleared",
        ],
    );
    check(
        &rule(0, 0, NoDataPolicy::Keep),
        "F_h",
        &["0 inactive>firing condition_met", "1 firing>firing stale", "2 firing>firing data_returned"],
    );
}

#[test]
fn evaluations_are_counted_besides_time() {
    let mut counted = rule(0, 0, NoDataPolicy::Keep);
    counted.options.hold_evaluations = 3;
    check(
        &counted,
        "FFcF_FFF",
        &[
            "0 inactive>pending condition_met",
            "2 pending>inactive condition_cleared",
            "3 inactive>pending condition_met",
            "6 pending>firing held_long_enough",
        ],
    );
    counted.options.hold = Span::minutes(5);
    check(&counted, "FFFFFFF", &["0 inactive>pending condition_met", "5 pending>firing held_long_enough"]);
    let mut silent = rule(0, 0, NoDataPolicy::Alert);
    silent.options.hold_evaluations = 2;
    check(&silent, "__", &["0 inactive>pending no_data", "1 pending>firing held_long_enough"]);
}

#[test]
fn what_comes_and_goes_is_held_and_told_once() {
    let mut flapping = rule(0, 0, NoDataPolicy::Keep);
    flapping.options.flap_detection = true;
    let states = "FcFcFcFcFcFcFcFcFcFcFcccccccccccccccccccccccccccc";
    let mut book = AlertBook::default();
    let mut found = Vec::new();
    for (minute, state) in states.chars().enumerate() {
        found.extend(book.advance(&flapping, &evaluation(minute as i64, state)).iter().map(show));
    }
    // Half of twenty changes, the newest weighing most: it takes nine. Below a quarter it has come to rest.
    assert_eq!(found[..9].iter().filter(|line| line.contains("inactive>firing")).count(), 5, "{found:?}");
    assert_eq!(found[9], "8 firing>firing flapping", "{found:?}");
    assert_eq!(found.len(), 11, "{found:?}");
    assert_eq!(found[10], "36 firing>resolved condition_cleared", "{found:?}");
    // Without the option each time is told.
    check(
        &rule(0, 0, NoDataPolicy::Keep),
        "FcFc",
        &[
            "0 inactive>firing condition_met",
            "1 firing>resolved condition_cleared",
            "2 inactive>firing condition_met",
            "3 firing>resolved condition_cleared",
        ],
    );
}

#[test]
fn the_share_of_changes_is_weighted() {
    let minute = Span::minutes(1);
    let mut swings = Swings::default();
    for at in 0..21 {
        swings.add(at % 2 == 0, Timestamp(at * MINUTE), minute);
    }
    assert!((swings.share() - 1.0).abs() < 1e-9, "all of twenty changed: {}", swings.share());
    let mut once = Swings::default();
    once.add(false, Timestamp(0), minute);
    once.add(true, Timestamp(MINUTE), minute);
    assert!((once.share() - 1.2 / 20.0).abs() < 1e-9, "the newest weighs 1.2: {}", once.share());
    // Twenty silent minutes in between, in which it did not hold.
    let mut pause = once;
    pause.add(false, Timestamp(21 * MINUTE), minute);
    assert!((pause.share() - 0.8 / 20.0).abs() < 0.03, "{}", pause.share());
}

fn hosts(minute: i64, hosts: &[(&str, f64)]) -> Evaluation {
    let finding = |(host, t): &(&str, f64)| Finding {
        key: Key::from([("host".to_string(), host.to_string())]),
        state: if *t > 0.0 {
            GroupState::Firing(vec![("t".to_string(), Value::Float(*t))])
        } else if *t < 0.0 {
            GroupState::NoData
        } else {
            GroupState::Clear
        },
    };
    Evaluation { outcome: Outcome::Groups(hosts.iter().map(finding).collect()), ..evaluation(minute, 'c') }
}

#[test]
fn beyond_its_limit_a_rule_keeps_the_worst_and_says_how_many_it_left_out() {
    let mut limited = rule(0, 0, NoDataPolicy::Keep);
    limited.options.limit = Some(2);
    let mut book = AlertBook::default();
    let mut step = |rule: &Rule, minute: i64, states: &[(&str, f64)]| -> Vec<String> {
        let name = |alert: &Alert| alert.labels.get("host").cloned().unwrap_or_else(|| "others".to_string());
        let of = |t: &Transition| format!("{} {}>{}", name(&t.alert), t.from_state, t.to_state);
        let mut found: Vec<String> = book.advance(rule, &hosts(minute, states)).iter().map(of).collect();
        found.sort();
        found
    };
    let four = [("n1", 91.0), ("n2", 99.0), ("n3", 95.0), ("n4", 90.0)];
    assert_eq!(step(&limited, 0, &four), ["n2 inactive>firing", "n3 inactive>firing", "others inactive>firing"]);
    // Nobody is pushed out by what is worse: people were told of it.
    assert_eq!(step(&limited, 1, &[("n1", 120.0), ("n2", 86.0), ("n3", 95.0)]), [""; 0]);
    assert_eq!(
        step(&limited, 2, &[("n1", 91.0), ("n2", 0.0), ("n3", 95.0)]),
        ["n1 inactive>firing", "n2 firing>resolved"],
        "there is no room for another yet"
    );
    // Silence says nothing of those that were left out.
    assert_eq!(step(&limited, 4, &[("n1", -1.0), ("n3", 95.0)]), ["n1 firing>firing"]);
    assert_eq!(step(&limited, 5, &[("n1", 91.0), ("n3", 95.0)]), ["n1 firing>firing"]);
    assert_eq!(step(&limited, 6, &[("n1", 0.0), ("n3", 95.0)]), ["n1 firing>resolved", "others firing>resolved"]);
    let mut low = rule(0, 0, NoDataPolicy::Keep);
    low.options.limit = Some(1);
    low.lower_is_worse = true;
    let worst =
        AlertBook::default().advance(&low, &hosts(0, &four)).into_iter().find(|t| t.alert.labels.contains_key("host"));
    assert_eq!(worst.unwrap().alert.labels["host"], "n4");
}

#[test]
fn severity_is_a_column_that_may_change() {
    let severe = |minute: i64, word: &str| {
        let values = vec![("severity".to_string(), Value::Text(word.to_string()))];
        let key = Key::from([("host".to_string(), "n1".to_string())]);
        let finding = Finding { key, state: GroupState::Firing(values) };
        Evaluation { outcome: Outcome::Groups(vec![finding]), ..evaluation(minute, 'c') }
    };
    let rule = rule(0, 0, NoDataPolicy::Keep);
    let mut book = AlertBook::default();
    let mut found = Vec::new();
    for (minute, word) in ["info", "critical", "critical", "no such word", "warning"].into_iter().enumerate() {
        for transition in book.advance(&rule, &severe(minute as i64, word)) {
            found.push(format!("{} {}", show(&transition), transition.alert.severity));
        }
    }
    assert_eq!(
        found,
        [
            "0 inactive>firing condition_met info",
            "1 firing>firing severity_raised critical",
            "3 firing>firing severity_lowered warning"
        ]
    );
}

#[test]
fn what_waits_for_more_events_is_forgotten_when_none_comes() {
    let mut counted = events(rule(0, 3, NoDataPolicy::Resolve));
    counted.options.hold_evaluations = 2;
    check(
        &counted,
        "F.....FF",
        &[
            "0 inactive>pending condition_met",
            "3 pending>inactive condition_cleared",
            "6 inactive>pending condition_met",
            "7 pending>firing held_long_enough",
        ],
    );
}

#[test]
fn missing_data_does_not_make_an_alert_less_urgent() {
    let rule = rule(0, 0, NoDataPolicy::Alert);
    let mut book = AlertBook::default();
    let key = Key::from([("host".to_string(), "n1".to_string())]);
    let values = vec![("severity".to_string(), Value::Text("Critical".to_string()))];
    let finding = Finding { key, state: GroupState::Firing(values) };
    book.advance(&rule, &Evaluation { outcome: Outcome::Groups(vec![finding]), ..evaluation(0, 'c') });
    assert!(book.advance(&rule, &evaluation(1, '_')).is_empty());
    assert_eq!(book.alerts().next().unwrap().severity, Severity::Critical);
}

fn any_states() -> impl Strategy<Value = Vec<char>> {
    prop::collection::vec(prop::sample::select(vec!['F', 'F', 'c', 'h', '_', '?', '!']), 1..60)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let policy = prop::sample::select(vec![
        NoDataPolicy::Keep,
        NoDataPolicy::Resolve,
        NoDataPolicy::Alert,
        NoDataPolicy::Ignore,
    ]);
    (0i64..4, 0i64..4, policy).prop_map(|(hold, keep, no_data)| rule(hold, keep, no_data))
}

proptest! {
    #[test]
    fn quiet_evaluations_may_be_left_out(rule in any_rule(), counted in 1u32..4, flap_detection in any::<bool>(), states in any_states()) {
        let mut rule = rule;
        (rule.options.hold_evaluations, rule.options.flap_detection) = (counted, flap_detection);
        let mut book = AlertBook::default();
        for (at, state) in states.iter().enumerate() {
            book.advance(&rule, &evaluation(at as i64, *state));
        }
        let begun = states.len() as i64;
        book.advance(&rule, &evaluation(begun, '_'));
        let until = book.quiet_until(&rule);
        let quiet_minutes = if until == Timestamp::MAX { 20 } else { (begun + 1..).take_while(|at| Timestamp(*at * MINUTE) < until).count() as i64 };
        let mut every = book.clone();
        // Seven days are too many minutes to walk in a test that runs often.
        for at in (begun + 1..=begun + quiet_minutes).take(20) {
            prop_assert!(every.advance(&rule, &evaluation(at, '_')).is_empty(), "minute {at}: until {until}");
        }
        if until != Timestamp::MAX {
            let at = begun + quiet_minutes + 1;
            // Where evaluations are counted, each counts, and the last of them changes something.
            let counts = until <= Timestamp(begun * MINUTE);
            let changes = !book.clone().advance(&rule, &evaluation(at, '_')).is_empty();
            prop_assert!(counts || changes, "something changes at {until}");
            prop_assert_eq!(book.advance(&rule, &evaluation(at, '_')), every.advance(&rule, &evaluation(at, '_')));
        }
    }

    #[test]
    fn the_promises_hold(rule in any_rule(), counted in 1u32..4, flap_detection in any::<bool>(), states in any_states(), cut in any::<prop::sample::Index>()) {
        let mut rule = rule;
        (rule.options.hold_evaluations, rule.options.flap_detection) = (counted, flap_detection);
        let mut book = AlertBook::default();
        let mut restored = None;
        let cut = cut.index(states.len());
        let mut last: HashMap<String, AlertState> = HashMap::new();
        let mut ids = HashSet::new();
        for (minute, state) in states.iter().enumerate() {
            if minute == cut {
                // A restart: everything through JSON.
                let text: Vec<String> = book.alerts().map(|alert| serde_json::to_string(alert).unwrap()).collect();
                let mut again = AlertBook::default();
                again.restore(text.iter().map(|alert| serde_json::from_str::<Alert>(alert).unwrap()));
                restored = Some(again);
            }
            let evaluation = evaluation(minute as i64, *state);
            let transitions = book.advance(&rule, &evaluation);
            if let Some(again) = &mut restored {
                prop_assert_eq!(&again.advance(&rule, &evaluation), &transitions, "a restart changes nothing");
            }
            prop_assert!(transitions.is_empty() || !matches!(state, '?' | '!'), "nothing follows from what is not known");
            for transition in &transitions {
                let fingerprint = transition.alert.fingerprint();
                let before = last.insert(fingerprint, transition.to_state).unwrap_or(AlertState::Inactive);
                let before = if before == AlertState::Resolved { AlertState::Inactive } else { before };
                prop_assert_eq!(transition.from_state, before, "states follow each other");
                prop_assert!(ids.insert(transition.event_id.clone()), "event ids are unique");
                if transition.to_state == AlertState::Resolved {
                    prop_assert_eq!(before, AlertState::Firing, "only what fired resolves");
                    let missing = *state == '_' && matches!(rule.options.no_data, NoDataPolicy::Keep | NoDataPolicy::Ignore | NoDataPolicy::Alert);
                    prop_assert!(!missing, "missing data resolved an alert");
                }
            }
        }
    }
}

/// A map in the key is labels: each of its entries, but where another column of the key has its name, also one that is NULL.
#[test]
fn the_entries_of_a_map_are_labels() {
    let spread = Rule {
        key: vec!["labels".to_string(), "zone".to_string()],
        spread: vec!["labels".to_string()],
        ..rule(0, 0, NoDataPolicy::Resolve)
    };
    let text = r#"{"alertname":"theirs","job":"a","zone":"z"}"#;
    let key: Key = [("labels".to_string(), text.to_string())].into();
    let mut book = AlertBook::default();
    let mut step = |minute: i64, state: GroupState| {
        let outcome = Outcome::Groups(vec![Finding { key: key.clone(), state }]);
        let found = book.advance(&spread, &Evaluation { outcome, ..evaluation(minute, '.') });
        (found.len(), book.alerts().next().cloned())
    };
    let (count, alert) = step(1, GroupState::Firing(vec![]));
    let alert = alert.unwrap();
    let shown: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        (count, shown),
        (1, ["alertname=hot", "exported_alertname=theirs", "job=a"].map(str::to_string).to_vec())
    );
    assert_eq!(alert.group, key);
    assert_eq!(step(2, GroupState::Clear).0, 1, "the same alert is over");
    // What was cut is a label as it is.
    let cut: Key = [("labels".to_string(), "{\"job\":\"aaa".to_string())].into();
    assert_eq!(labels_of(&spread, &Finding { key: cut, state: GroupState::Clear })["labels"], "{\"job\":\"aaa");
}

/// A label of the rule does not make one alert of two groups: the entry of the map that is in its way goes by another name.
#[test]
fn a_label_of_the_rule_hides_no_group() {
    let mut spread =
        Rule { key: vec!["labels".to_string()], spread: vec!["labels".to_string()], ..rule(0, 0, NoDataPolicy::Keep) };
    spread.options.labels.insert("zone".to_string(), "all".to_string());
    let labels = |text: &str| {
        let key: Key = [("labels".to_string(), text.to_string())].into();
        let labels = labels_of(&spread, &Finding { key, state: GroupState::Clear });
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(labels(r#"{"zone":"x"}"#), "alertname=hot exported_zone=x zone=all");
    assert_eq!(labels(r#"{"zone":"y"}"#), "alertname=hot exported_zone=y zone=all");
    assert_eq!(labels(r#"{"zone":"all","alertname":"theirs"}"#), "alertname=hot exported_alertname=theirs zone=all");
    assert_eq!(labels(r#"{"zone":"x","exported_zone":"z"}"#), "alertname=hot exported_zone=z zone=all");
}
