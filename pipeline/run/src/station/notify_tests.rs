//! The whole way from a row to a person, with a process that is killed between any two effects, a log that fails and receivers that
//! answer badly, or whose answers are lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tidewatch_flow::alerting::{GroupBy, Target};
use tidewatch_model::AlertState;
use tidewatch_model::ports::Delivery;
use tidewatch_model::scripted::SeededRandom;

use super::tests::{World, compiled, start};
use super::*;

const RULE: &str = "CREATE ALERT hot AS SELECT host, temperature_celsius AS t FROM gpu WHERE temperature_celsius > 80;";
const HOSTS: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn rows(now: Timestamp, hot: &BTreeMap<&str, bool>) -> RecordBatch {
    let ts = TimestampMicrosecondArray::from(vec![now.0; hot.len()]).with_timezone("UTC");
    let hosts: StringArray = hot.keys().copied().map(Some).collect();
    let temperatures: Float64Array = hot.values().map(|hot| Some(if *hot { 90.0 } else { 50.0 })).collect();
    let columns: [(&str, arrow::array::ArrayRef); 4] = [
        ("ts", Arc::new(ts)),
        ("host", Arc::new(hosts.clone())),
        ("gpu_uuid", Arc::new(hosts)),
        ("temperature_celsius", Arc::new(temperatures)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// One life of a fleet: what a receiver heard, notice by notice, and what fires in the end.
struct Played {
    world: World,
    firing: BTreeSet<String>,
    /// Alerts that fired when nothing waited to be told: the fingerprint, and since when.
    episodes: BTreeSet<(String, Timestamp)>,
    /// Whether any notice was given up: then one may have gone by untold.
    gave_up: bool,
}

fn play(seed: u64, rules: &[CompiledRule]) -> Played {
    let random = SeededRandom::new(seed);
    let chance = |share: f64| random.unit() < share;
    let mut world = World::new(false);
    let grouped = chance(0.5);
    let mut policy = Policy::built_in(vec![Target { name: "ops".to_string(), send_resolved: true }]);
    if grouped {
        let route = &mut policy.trees[0];
        route.group_by = GroupBy::Labels(["alertname".to_string()].into());
        route.group_wait = Span::seconds(2);
        route.group_interval = Span::seconds(5);
    }
    let open = |world: &mut World, now: Timestamp| {
        let parts = Parts { policy: policy.clone(), inline: true, ..world.parts(rules.to_vec(), true) };
        Station::open(parts, now).ok()
    };
    let mut now = start();
    let mut station = open(&mut world, now);
    let mut sequences = BTreeMap::new();
    let mut hot: BTreeMap<&str, bool> = HOSTS.iter().map(|host| (*host, false)).collect();
    let (mut gave_up, mut episodes) = (false, BTreeSet::new());
    for tick in 0..40 {
        now = now + Span::millis(1_000);
        for host in HOSTS {
            if chance(0.15) {
                hot.entry(host).and_modify(|hot| *hot = !*hot);
            }
        }
        world.append(&[("gpu", rows(now, &hot))], &mut sequences);
        // The last third is without trouble: in the end everybody must know how things stand.
        let trouble = tick < 28;
        if trouble && chance(0.15) {
            world.log.fail_appends(vec![std::io::ErrorKind::StorageFull; 1 + (random.next_u64() % 4) as usize]);
        }
        if trouble && chance(0.2) {
            let perhaps = chance(0.5);
            let error = "no answer".to_string();
            let give_up = chance(0.3);
            gave_up |= give_up;
            world.notifier.answer(match give_up {
                true => Delivery::GiveUp { error },
                false => Delivery::Retry { after: None, error, perhaps },
            });
        }
        // A kill before the answer of a receiver was read, or after.
        if trouble && chance(0.15) {
            station = None;
        }
        if station.is_none() && (!trouble || chance(0.6)) {
            world.log.fail_appends([]);
            station = (0..20).find_map(|_| open(&mut world, now));
        }
        for part in 0..3 {
            let Some(running) = &mut station else { break };
            let done = running.step(now + Span::millis(300 * part)).is_ok() && running.stats().notices_waiting == 0;
            // What fires when all is done was told.
            for alert in running.live_alerts().iter().filter(|alert| done && alert.state == AlertState::Firing) {
                episodes.insert((alert.fingerprint(), alert.fired_at.unwrap()));
            }
            if trouble && chance(0.03) {
                station = None;
            }
        }
    }
    let mut station = station.or_else(|| (0..20).find_map(|_| open(&mut world, now))).unwrap();
    // What was given up is decided anew after five minutes, and a receiver that failed is waited for. The rows go on, so that nobody
    // falls silent.
    for _ in 0..45 {
        now = now + Span::seconds(15);
        world.append(&[("gpu", rows(now, &hot))], &mut sequences);
        for part in 0..2 {
            drop(station.step(now + Span::millis(100 * part)));
        }
    }
    let firing = station.live_alerts().into_iter().filter(|alert| alert.state == AlertState::Firing);
    let firing = firing.map(|alert| alert.fingerprint()).collect();
    Played { world, firing, episodes: if grouped { BTreeSet::new() } else { episodes }, gave_up }
}

/// What was about to be told at any time, as the log has it.
fn intended(world: &World) -> BTreeSet<String> {
    let records = world.log.read(NOTICE_TOPIC, 0, 0, usize::MAX).unwrap().records;
    let intents = records.into_iter().filter_map(|(_, record)| messages::promised_in(&record.value?));
    intents.flatten().collect()
}

#[test]
fn crashes_anywhere_tell_nobody_a_lie() {
    let number = |name: &str, known: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(known);
    let (first, count) = (number("TIDEWATCH_SEED", 1), number("TIDEWATCH_NOTIFY_SEEDS", 200));
    println!("TIDEWATCH_SEED={first} TIDEWATCH_NOTIFY_SEEDS={count}");
    let rules = compiled(RULE, 1);
    let (mut notices, mut repeated, mut unheard) = (0, 0, 0);
    for seed in first..first + count {
        let Played { world, firing, episodes, gave_up } = play(seed, &rules);
        // By fingerprint: whether its receiver believes that it fires.
        let mut believed: BTreeMap<String, bool> = BTreeMap::new();
        let mut told = BTreeSet::new();
        let intended = intended(&world);
        let mut contents: BTreeMap<String, String> = BTreeMap::new();
        for (notice, answer) in world.notifier.answered() {
            notices += 1;
            let content = format!(
                "{:?}",
                notice.alerts.iter().map(|a| (a.fingerprint(), a.state, a.fired_at)).collect::<Vec<_>>()
            );
            let known = contents.insert(notice.notice_id.clone(), content.clone());
            repeated += u32::from(known.is_some());
            assert!(known.as_ref().is_none_or(|known| *known == content), "seed {seed}: one key: {known:?}, {content}");
            let reached = match answer {
                Delivery::Delivered => true,
                Delivery::Retry { perhaps, .. } => perhaps,
                Delivery::GiveUp { .. } => false,
            };
            for alert in notice.alerts.iter().filter(|_| reached) {
                let fires = alert.state == AlertState::Firing;
                let before = believed.insert(alert.fingerprint(), fires);
                // A process that died between the writing down of a notice and its sending leaves nobody who knows whether it was
                // sent: of that the end is told, since a page that never ends is worse.
                let heard = before.is_some() || intended.contains(&alert.fingerprint());
                unheard += u32::from(before.is_none() && !fires);
                assert!(fires || heard, "seed {seed}: told the end of what was never told: {alert:?}");
                if fires {
                    told.insert((alert.fingerprint(), alert.fired_at.unwrap()));
                }
            }
        }
        let believed: BTreeSet<String> =
            believed.into_iter().filter(|(_, fires)| *fires).map(|(fingerprint, _)| fingerprint).collect();
        assert_eq!(believed, firing, "seed {seed}: what is believed in the end is what is true");
        if !gave_up {
            let missed: Vec<_> = episodes.difference(&told).collect();
            assert!(missed.is_empty(), "seed {seed}: nobody was told of {missed:?}");
        }
    }
    println!("{notices} notices, {repeated} repeated, {unheard} ends of what may not have been heard");
    assert!(notices > 10 * count as u32 && repeated > 0 && unheard * 200 < notices);
}
