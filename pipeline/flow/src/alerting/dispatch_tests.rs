//! Groups, waits, muting, and what everybody was told; and that nobody is told a lie, whatever happens.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidewatch_model::alert::Labels;
use tidewatch_model::{Alert, AlertState, Notice, NoticeStatus, Severity, Span, Timestamp};

use super::*;
use crate::alerting::{Ack, BUILT_IN, InhibitRule, Matcher, Target, TimeInterval};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_000_000 + seconds)
}

/// An alert of a host, firing since `fired`, or over since `resolved`.
fn alert(name: &str, host: &str, severity: Severity, fired: i64, resolved: Option<i64>) -> Alert {
    let labels = [("alertname", name), ("host", host)].map(|(name, value)| (name.to_string(), value.to_string()));
    Alert {
        rule_version: "1".to_string(),
        key: vec!["host".to_string()],
        state: if resolved.is_some() { AlertState::Resolved } else { AlertState::Firing },
        fired_at: Some(at(fired)),
        resolved_at: resolved.map(at),
        ..Alert::new(Labels::from(labels), severity, at(fired))
    }
}

fn hot(host: &str, fired: i64, resolved: Option<i64>) -> Alert {
    alert("hot", host, Severity::Warning, fired, resolved)
}

/// One receiver, groups by alertname: 30 s, 5 m, 4 h.
fn policy() -> Policy {
    let mut policy = Policy::built_in(vec![Target { name: "ops".to_string(), send_resolved: true }]);
    policy.trees[0].group_by = GroupBy::Labels(["alertname".to_string()].into());
    policy.trees[0].group_wait = Span::seconds(30);
    policy.trees[0].group_interval = Span::minutes(5);
    policy
}

/// What is told from one instant to another, looked at each second, every delivery well: `seconds reason hosts`, those that are over
/// in brackets.
fn run(dispatcher: &mut Dispatcher, from: i64, to: i64) -> Vec<String> {
    let mut told = Vec::new();
    for second in from..=to {
        for notice in dispatcher.tick(at(second)) {
            told.push(format!("{second} {}", text(&notice)));
            dispatcher.delivered(&notice, at(second)).unwrap();
        }
    }
    told
}

fn text(notice: &Notice) -> String {
    let mut hosts: Vec<String> = notice
        .alerts
        .iter()
        .map(|alert| match alert.state {
            AlertState::Resolved => format!("({})", alert.labels["host"]),
            _ => alert.labels["host"].clone(),
        })
        .collect();
    hosts.sort();
    format!("{}: {}", notice.reason, hosts.join(" "))
}

#[test]
fn groups_wait_change_repeat_and_end() {
    let mut dispatcher = Dispatcher::new(policy());
    dispatcher.observe(&hot("n1", 0, None), at(0));
    dispatcher.observe(&hot("n2", 20, None), at(20));
    assert_eq!(run(&mut dispatcher, 20, 100), ["30 first: n1 n2"]);
    dispatcher.observe(&hot("n3", 100, None), at(100));
    dispatcher.observe(&hot("n1", 0, Some(110)), at(110));
    assert_eq!(run(&mut dispatcher, 110, 400), ["330 new alerts: (n1) n2 n3"]);
    dispatcher.observe(&hot("n2", 20, Some(400)), at(400));
    assert_eq!(run(&mut dispatcher, 400, 700), ["630 some resolved: (n2) n3"]);
    // Four hours after it was told; the group's turns are every five minutes.
    assert_eq!(run(&mut dispatcher, 700, 16_000), ["15330 repeat: n3"]);
    dispatcher.observe(&hot("n3", 100, Some(16_000)), at(16_000));
    assert_eq!(run(&mut dispatcher, 16_000, 40_000), ["16230 all resolved: (n3)"]);
    assert_eq!((dispatcher.groups(), dispatcher.told().count(), dispatcher.next_at()), (vec![], 0, Timestamp::MAX));
}

#[test]
fn what_was_over_before_it_was_told_is_not_told() {
    let mut dispatcher = Dispatcher::new(policy());
    dispatcher.observe(&hot("n1", 0, None), at(0));
    dispatcher.observe(&hot("n1", 0, Some(10)), at(10));
    assert_eq!(run(&mut dispatcher, 10, 1_000), Vec::<String>::new());
    assert_eq!(dispatcher.groups(), vec![]);
}

fn ack(alert: &Alert, until: Option<i64>) -> Ack {
    Ack {
        fingerprint: alert.fingerprint(),
        fired_at: alert.fired_at.unwrap(),
        acked_by: "me".to_string(),
        comment: String::new(),
        acked_at: at(0),
        until: until.map(at),
    }
}

#[test]
fn what_somebody_knows_of_is_not_repeated() {
    let mut dispatcher = Dispatcher::new(policy());
    let (one, two) = (hot("n1", 0, None), hot("n2", 0, None));
    [&one, &two].into_iter().for_each(|alert| dispatcher.observe(alert, at(0)));
    assert_eq!(run(&mut dispatcher, 0, 100), ["30 first: n1 n2"]);
    dispatcher.set_acks([ack(&one, None)]);
    assert_eq!(run(&mut dispatcher, 100, 20_000), ["14730 repeat: n1 n2"], "of one of them nobody knows");
    dispatcher.set_acks([ack(&one, None), ack(&two, Some(60_000))]);
    assert_eq!(run(&mut dispatcher, 20_000, 59_999), [""; 0]);
    assert_eq!(run(&mut dispatcher, 60_000, 61_000), ["60030 repeat: n1 n2"], "one ack is over");
    dispatcher.set_acks([ack(&one, None), ack(&two, None)]);
    dispatcher.observe(&hot("n3", 61_000, None), at(61_000));
    assert_eq!(run(&mut dispatcher, 61_000, 61_400), ["61230 new alerts: n1 n2 n3"], "what comes is told");
    dispatcher.observe(&hot("n1", 0, Some(62_000)), at(62_000));
    assert_eq!(run(&mut dispatcher, 62_000, 62_300), ["62000 some resolved: (n1) n2 n3"], "and so is what is over");
}

#[test]
fn an_ack_is_of_one_time_and_wakes_a_group_that_waits_for_nothing() {
    let mut dispatcher = Dispatcher::new(Policy::built_in(policy().receivers[BUILT_IN].clone()));
    let one = hot("n1", 0, None);
    dispatcher.observe(&one, at(0));
    assert_eq!(run(&mut dispatcher, 0, 10), ["0 first: n1"]);
    dispatcher.set_acks([ack(&one, Some(20_000))]);
    assert_eq!(run(&mut dispatcher, 10, 20_100), ["20000 repeat: n1"]);
    dispatcher.set_acks([ack(&hot("n1", -5, None), None)]);
    assert_eq!(run(&mut dispatcher, 20_100, 35_000), ["34401 repeat: n1"], "another time was meant");
}

#[test]
fn what_nobody_knows_of_is_escalated() {
    let mut policy = policy();
    policy.receivers.insert("boss".to_string(), vec![Target { name: "boss".to_string(), send_resolved: true }]);
    let mut boss = policy.trees[0].clone();
    (boss.receiver, boss.path, boss.escalate_after) = ("boss".to_string(), "boss".to_string(), Span::minutes(15));
    policy.trees.push(boss);
    let mut dispatcher = Dispatcher::new(policy);
    let told = |dispatcher: &mut Dispatcher, from: i64, to: i64| -> Vec<String> {
        let mut told = Vec::new();
        for second in from..=to {
            for notice in dispatcher.tick(at(second)).into_iter() {
                dispatcher.delivered(&notice, at(second)).unwrap();
                told.extend((notice.target == "boss").then(|| format!("{second} {}", text(&notice))));
            }
        }
        told
    };
    let (one, two) = (hot("n1", 0, None), hot("n2", 0, None));
    [&one, &two].into_iter().for_each(|alert| dispatcher.observe(alert, at(0)));
    assert_eq!(told(&mut dispatcher, 0, 600), [""; 0]);
    dispatcher.set_acks([ack(&two, None)]);
    assert_eq!(told(&mut dispatcher, 600, 5_000), ["900 first: n1"], "somebody knows of n2");
    dispatcher.observe(&hot("n2", 0, Some(5_000)), at(5_000));
    assert_eq!(told(&mut dispatcher, 5_000, 5_500), [""; 0], "the boss never heard of n2");
    // Whoever heard of an alert and acknowledges it is not told that all is over when the other one is.
    dispatcher.observe(&hot("n3", 4_000, None), at(5_500));
    assert_eq!(told(&mut dispatcher, 5_500, 5_800), ["5700 new alerts: n1 n3"]);
    dispatcher.set_acks([ack(&one, None)]);
    let severe = Alert { severity: Severity::Critical, ..one.clone() };
    dispatcher.observe(&severe, at(5_800));
    dispatcher.observe(&hot("n3", 4_000, Some(5_801)), at(5_801));
    assert_eq!(told(&mut dispatcher, 5_801, 6_000), ["6000 more severe: (n3) n1"], "and hears that it got worse");
    dispatcher.observe(&one, at(6_000));
    dispatcher.observe(&hot("n1", 0, Some(6_000)), at(6_000));
    assert_eq!(told(&mut dispatcher, 6_001, 7_000), ["6300 all resolved: (n1)"]);
}

#[test]
fn what_comes_and_goes_is_told_once() {
    let mut dispatcher = Dispatcher::new(Policy::built_in(policy().receivers[BUILT_IN].clone()));
    dispatcher.observe(&hot("n1", 0, None), at(0));
    assert_eq!(run(&mut dispatcher, 0, 10), ["0 first: n1"]);
    dispatcher.observe(&Alert { flaps: true, ..hot("n1", 0, None) }, at(10));
    dispatcher.observe(&Alert { flaps: true, last_match: at(20), ..hot("n1", 0, None) }, at(20));
    assert_eq!(run(&mut dispatcher, 10, 100), ["10 flapping: n1"]);
}

#[test]
fn the_built_in_route_tells_each_change_at_once() {
    let mut dispatcher = Dispatcher::new(Policy::built_in(policy().receivers[BUILT_IN].clone()));
    let mut step = |second: i64, alert: &Alert| {
        dispatcher.observe(alert, at(second));
        run(&mut dispatcher, second, second)
    };
    assert_eq!(step(0, &hot("n1", 0, None)), ["0 first: n1"]);
    assert_eq!(step(1, &hot("n2", 1, None)), ["1 first: n2"]);
    let stale = Alert { stale_since: Some(at(2)), ..hot("n1", 0, None) };
    assert_eq!(step(2, &stale), ["2 data missing: n1"]);
    assert_eq!(step(3, &stale), Vec::<String>::new());
    let worse = Alert { severity: Severity::Critical, ..hot("n2", 1, None) };
    assert_eq!(step(4, &worse), ["4 more severe: n2"]);
    assert_eq!(step(5, &hot("n2", 1, None)), Vec::<String>::new(), "less severe is no news");
    assert_eq!(step(6, &hot("n1", 0, Some(6))), ["6 all resolved: (n1)"]);
    assert_eq!(step(7, &hot("n1", 7, None)), ["7 first: n1"]);
}

#[test]
fn a_notice_in_flight_is_not_decided_again_and_one_given_up_is() {
    let mut dispatcher = Dispatcher::new(policy());
    dispatcher.observe(&hot("n1", 0, None), at(0));
    let first = dispatcher.tick(at(30)).remove(0);
    assert_eq!(dispatcher.tick(at(330)), vec![]);
    dispatcher.gave_up(&first, false, at(331));
    assert_eq!(run(&mut dispatcher, 331, 700), ["630 first: n1"]);
    assert_eq!(dispatcher.delivered(&first, at(700)), None, "too late: it was given up");
}

#[test]
fn silences_mute_and_the_end_is_told_all_the_same() {
    let mut dispatcher = Dispatcher::new(policy());
    dispatcher.observe(&hot("n1", 0, None), at(0));
    dispatcher.observe(&hot("n2", 0, None), at(0));
    assert_eq!(run(&mut dispatcher, 0, 40), ["30 first: n1 n2"]);
    let silence = Silence {
        id: "s".to_string(),
        matchers: Matcher::parse_all("host=n1").unwrap(),
        starts_at: at(40),
        ends_at: at(4_000),
        updated_at: at(40),
        created_by: "me".to_string(),
        comment: String::new(),
    };
    dispatcher.set_silence(silence);
    assert_eq!(dispatcher.muting(&hot("n1", 0, None).labels, at(50)).silenced_by, ["s"]);
    dispatcher.observe(&hot("n3", 50, None), at(50));
    assert_eq!(run(&mut dispatcher, 50, 400), ["330 new alerts: n2 n3"]);
    // Alertmanager would not say so.
    dispatcher.observe(&hot("n1", 0, Some(400)), at(400));
    assert_eq!(run(&mut dispatcher, 400, 700), ["630 some resolved: (n1) n2 n3"]);
}

#[test]
fn what_is_still_silenced_is_told_when_the_silence_ends() {
    let mut dispatcher = Dispatcher::new(policy());
    dispatcher.set_silence(Silence {
        id: "s".to_string(),
        matchers: Matcher::parse_all("host=n1").unwrap(),
        starts_at: at(0),
        ends_at: at(400),
        updated_at: at(0),
        created_by: "me".to_string(),
        comment: String::new(),
    });
    dispatcher.observe(&hot("n1", 0, None), at(0));
    assert_eq!(run(&mut dispatcher, 0, 700), ["630 first: n1"]);
}

#[test]
fn sources_inhibit_and_intervals_mute() {
    let mut policy = policy();
    policy.inhibit_rules = vec![InhibitRule {
        sources: Matcher::parse_all("alertname=down").unwrap(),
        targets: Matcher::parse_all("alertname=hot").unwrap(),
        equal: vec!["host".to_string()],
    }];
    let mut dispatcher = Dispatcher::new(policy.clone());
    dispatcher.observe(&hot("n1", 0, None), at(0));
    dispatcher.observe(&hot("n2", 0, None), at(0));
    // Told 30 s after it began: inhibition knows it before.
    dispatcher.observe(&alert("down", "n1", Severity::Critical, 20, None), at(20));
    assert_eq!(run(&mut dispatcher, 20, 60), ["30 first: n2", "50 first: n1"]);
    // 1970-01-12T13:46:40Z is a Monday.
    policy
        .intervals
        .insert("mondays".to_string(), vec![TimeInterval { weekdays: Some(vec![1..=1]), ..TimeInterval::default() }]);
    policy.trees[0].mute_time_intervals = vec!["mondays".to_string()];
    let mut dispatcher = Dispatcher::new(policy);
    dispatcher.observe(&hot("n1", 0, None), at(0));
    let told = run(&mut dispatcher, 0, 40_000);
    assert_eq!(told, ["36930 first: n1"], "at the group's first turn on Tuesday");
}

#[test]
fn the_tree_finds_receivers_as_alertmanagers() {
    let route = |receiver: &str, matchers: &str, continues, routes: Vec<Route>| Route {
        receiver: receiver.to_string(),
        matchers: Matcher::parse_all(matchers).unwrap(),
        continues,
        routes,
        ..policy().trees.remove(0)
    };
    let tree = route(
        "root",
        "",
        false,
        vec![
            route("log", "alertname=~.+", true, vec![]),
            route("gpu", "alertname=hot", false, vec![route("pager", "severity=critical", false, vec![])]),
            route("rest", "host=n1", false, vec![]),
        ],
    );
    let receivers = |alert: Alert| -> Vec<String> {
        tree.matching(&alert.wire_labels()).into_iter().map(|route| route.receiver.clone()).collect()
    };
    assert_eq!(receivers(hot("n1", 0, None)), ["log", "gpu"]);
    assert_eq!(receivers(alert("hot", "n1", Severity::Critical, 0, None)), ["log", "pager"]);
    assert_eq!(receivers(alert("down", "n1", Severity::Info, 0, None)), ["log", "rest"]);
    assert!(tree.matching(&Labels::new()).iter().all(|route| route.receiver == "root"));
}

#[test]
fn routes_side_by_side_with_the_same_matchers_tell_both() {
    let mut policy = policy();
    let child = |receiver: &str, continues| Route {
        receiver: receiver.to_string(),
        matchers: Matcher::parse_all("alertname=hot").unwrap(),
        continues,
        path: "{}/{alertname=\"hot\"}".to_string(),
        ..policy.trees[0].clone()
    };
    policy.trees[0].routes = vec![child("a", true), child("b", false)];
    for name in ["a", "b"] {
        let target = Target { name: name.to_string(), send_resolved: name == "a" };
        policy.receivers.insert(name.to_string(), vec![target]);
    }
    let mut dispatcher = Dispatcher::new(policy);
    dispatcher.observe(&hot("n1", 0, None), at(0));
    assert_eq!(run(&mut dispatcher, 0, 40), ["30 first: n1", "30 first: n1"]);
    dispatcher.observe(&hot("n1", 0, Some(50)), at(50));
    assert_eq!(run(&mut dispatcher, 50, 400), ["330 all resolved: (n1)"], "b does not want to hear of the end");
    assert_eq!((dispatcher.groups(), dispatcher.told().count()), (vec![], 0));
}

#[test]
fn another_severity_goes_other_ways_and_missing_data_is_told_each_time() {
    let mut policy = Policy::built_in(policy().receivers[BUILT_IN].clone());
    let pager = Route {
        receiver: "pager".to_string(),
        matchers: Matcher::parse_all("severity=critical").unwrap(),
        continues: true,
        path: "p".to_string(),
        ..policy.trees[0].clone()
    };
    policy.receivers.insert("pager".to_string(), vec![Target { name: "pager".to_string(), send_resolved: true }]);
    let rest = Route { path: "r".to_string(), ..policy.trees[0].clone() };
    policy.trees[0].routes = vec![pager, rest];
    let mut dispatcher = Dispatcher::new(policy);
    dispatcher.observe(&hot("n1", 0, None), at(0));
    assert_eq!(run(&mut dispatcher, 0, 10), ["0 first: n1"]);
    dispatcher.refresh(&Alert { severity: Severity::Critical, ..hot("n1", 0, None) }, at(20));
    assert_eq!(run(&mut dispatcher, 20, 30), ["20 first: n1", "20 more severe: n1"]);
    let stale = |since: i64| Alert { stale_since: Some(at(since)), severity: Severity::Critical, ..hot("n1", 0, None) };
    let fresh = Alert { stale_since: None, ..stale(0) };
    for (second, alert, expected) in [(40, stale(40), 2), (50, fresh, 0), (60, stale(60), 2)] {
        dispatcher.observe(&alert, at(second));
        assert_eq!(run(&mut dispatcher, second, second).len(), expected, "at {second}");
    }
}

/// What happens in a simulation.
#[derive(Debug, Clone)]
enum Event {
    Fires(usize),
    Ends(usize),
    Silence(usize, i64),
    /// The process ends and begins anew.
    Crash,
    /// From now on deliveries go well, fail, or are lost on the way: it was delivered, and nobody knows.
    Deliveries(u8),
    Wait(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..5usize).prop_map(Event::Fires),
        5 => (0..5usize).prop_map(Event::Ends),
        1 => (0..5usize, 1..900i64).prop_map(|(host, seconds)| Event::Silence(host, seconds)),
        2 => Just(Event::Crash),
        2 => (0..3u8).prop_map(Event::Deliveries),
        8 => prop_oneof![1..40i64, 100..700i64].prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    /// Whatever happens, with a crash between any two effects: nobody hears that something is over who did not hear that it fires;
    /// in the end everybody knows how things stand; and only a crash or a lost answer makes somebody hear the same twice.
    #[test]
    fn nobody_is_told_a_lie(events in events(), at_once in any::<bool>()) {
        let mut policy = policy();
        if at_once {
            (policy.trees[0].group_wait, policy.trees[0].group_interval) = (Span::ZERO, Span::ZERO);
        }
        let mut dispatcher = Dispatcher::new(policy.clone());
        let mut alerts: BTreeMap<usize, Alert> = BTreeMap::new();
        let mut kept: BTreeMap<Place, Told> = BTreeMap::new();
        let mut silences: Vec<Silence> = vec![];
        // What the person at the other end believes to fire.
        let mut believes: BTreeSet<String> = BTreeSet::new();
        let mut last_id = String::new();
        let (mut now, mut delivery, mut clean) = (0i64, 0u8, true);
        let quiet = [Event::Deliveries(0), Event::Wait(3_000)];
        for event in events.into_iter().chain(quiet) {
            let mut pass = 0;
            match event {
                Event::Fires(host) => {
                    let firing = alerts.get(&host).is_some_and(|alert| alert.state == AlertState::Firing);
                    if !firing {
                        let alert = hot(&format!("n{host}"), now, None);
                        dispatcher.observe(&alert, at(now));
                        alerts.insert(host, alert);
                    }
                }
                Event::Ends(host) => {
                    if let Some(alert) = alerts.get_mut(&host).filter(|alert| alert.state == AlertState::Firing) {
                        (alert.state, alert.resolved_at) = (AlertState::Resolved, Some(at(now)));
                        dispatcher.observe(alert, at(now));
                    }
                }
                Event::Silence(host, seconds) => {
                    let silence = Silence {
                        id: silences.len().to_string(),
                        matchers: vec![Matcher::new("host", super::super::Comparison::Equal, &format!("n{host}")).unwrap()],
                        starts_at: at(now),
                        ends_at: at(now + seconds),
                        updated_at: at(now),
                        created_by: String::new(),
                        comment: String::new(),
                    };
                    silences.push(silence.clone());
                    dispatcher.set_silence(silence);
                }
                Event::Crash => {
                    dispatcher = Dispatcher::new(policy.clone());
                    silences.iter().for_each(|silence| dispatcher.set_silence(silence.clone()));
                    dispatcher.restore(kept.clone());
                    alerts.values().for_each(|alert| dispatcher.observe(alert, at(now)));
                    clean = false;
                }
                Event::Deliveries(how) => delivery = how,
                Event::Wait(seconds) => pass = seconds,
            }
            for _ in 0..=pass {
                for notice in dispatcher.tick(at(now)) {
                    if delivery == 1 {
                        dispatcher.gave_up(&notice, false, at(now));
                        continue;
                    }
                    let fresh = notice.notice_id != last_id;
                    prop_assert!(fresh || !clean, "the same twice at {now}");
                    last_id.clone_from(&notice.notice_id);
                    prop_assert_eq!(notice.status == NoticeStatus::Firing, notice.alerts.iter().any(|a| a.state == AlertState::Firing));
                    for alert in &notice.alerts {
                        match alert.state {
                            AlertState::Resolved => {
                                let knew = believes.remove(&alert.fingerprint());
                                // In a group that waits, one that began and ended between two notices is told beside others.
                                prop_assert!(knew || !clean || notice.alerts.len() > 1, "resolved and never told, at {now}");
                            }
                            _ => drop(believes.insert(alert.fingerprint())),
                        }
                    }
                    // With 2, the answer is lost.
                    clean &= delivery != 2;
                    let told = match delivery {
                        2 => dispatcher.gave_up(&notice, true, at(now)),
                        _ => dispatcher.delivered(&notice, at(now)),
                    };
                    kept.insert((notice.group_key.clone(), notice.target.clone()), told.unwrap());
                }
                now += 1;
            }
        }
        let fires: BTreeSet<String> = alerts.values().filter(|alert| alert.state == AlertState::Firing).map(Alert::fingerprint).collect();
        prop_assert_eq!(believes, fires, "in the end, at {}", now);
    }
}
