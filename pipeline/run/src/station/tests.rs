//! The station is stopped and started at random, and its log and store fail at random: what it decided, stored and told is
//! what it would have been.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidewatch_collect::simulate::{Fleet, FleetOptions, Incident, Kind, Noise};
use tidewatch_flow::alerting::Target;
use tidewatch_lake::{Fault, JanitorOptions, LakeScan, ScriptedStore, verify};
use tidewatch_log::ScriptedLog;
use tidewatch_model::AlertState;
use tidewatch_model::ports::Record;
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::wire::{decode, encode_split};
use tidewatch_notifiers::ScriptedNotifier;
use tidewatch_sql::{Compiler, Loaded};

use super::*;

pub(crate) const RULES: &str = "
CREATE ALERT hot WITH (for = '20s', keep_firing_for = '10s', severity = 'critical') AS
SELECT host, gpu_uuid, avg(temperature_celsius) AS t FROM HOP(gpu, ts, INTERVAL '10 s', INTERVAL '30 s')
GROUP BY window_start, window_end, host, gpu_uuid HAVING avg(temperature_celsius) > 78;
CREATE ALERT xid WITH (keep_firing_for = '1 minute') AS SELECT host, gpu_uuid, code FROM gpu_event WHERE kind = 'xid';
CREATE ALERT glowing AS SELECT host, gpu_uuid, temperature_celsius FROM gpu WHERE temperature_celsius > 88;
CREATE ALERT silent AS SELECT host, gpu_uuid, silence FROM LAST_SEEN(gpu, ts) WHERE silence > INTERVAL '15 seconds';
CREATE STREAM heat_of_test AS SELECT host, avg(temperature_celsius) AS heat, count(*) AS n FROM TUMBLE(gpu, ts, '5 s') GROUP BY host;
CREATE ALERT warm AS SELECT host, max(heat) AS heat FROM HOP(heat_of_test, ts, '5 s', '15 s') GROUP BY host HAVING max(heat) > 65;
";

fn rules() -> Vec<CompiledRule> {
    compiled(RULES, 6)
}

pub(crate) fn compiled(text: &str, count: usize) -> Vec<CompiledRule> {
    let mut loaded = Loaded::default();
    Compiler::new().unwrap().load("rules.sql", text, &mut loaded);
    assert_eq!(loaded.rules.len(), count, "{:?}", loaded.faults);
    loaded.rules
}

/// Everything that outlives a process.
pub(crate) struct World {
    pub log: Arc<ScriptedLog>,
    pub store: Arc<ScriptedStore>,
    pub notifier: Arc<ScriptedNotifier>,
    pub lives: u64,
}

impl World {
    pub(crate) fn new(cluster: bool) -> Self {
        let world = World {
            log: Arc::new(ScriptedLog::default()),
            store: Arc::new(ScriptedStore::default()),
            notifier: Arc::new(ScriptedNotifier::new("ops", [])),
            lives: 0,
        };
        create_topics(world.log.as_ref(), cluster).unwrap();
        world
    }

    pub(crate) fn open(&mut self, now: Timestamp) -> Result<Station, StationError> {
        self.open_with(rules(), true, now)
    }

    fn open_with(
        &mut self,
        rules: Vec<CompiledRule>,
        rules_complete: bool,
        now: Timestamp,
    ) -> Result<Station, StationError> {
        Station::open(self.parts(rules, rules_complete), now)
    }

    /// The silences, once the log says what it has of them.
    fn silences(&self) -> Arc<Silences> {
        let opened = (0..20).find_map(|_| Silences::open(self.log.clone()).ok());
        Arc::new(opened.expect("opens once the scripted failures are spent"))
    }

    /// The acks, as the silences.
    fn acks(&self) -> Arc<Acks> {
        let opened = (0..20).find_map(|_| Acks::open(self.log.clone()).ok());
        Arc::new(opened.expect("opens once the scripted failures are spent"))
    }

    pub(crate) fn parts(&mut self, rules: Vec<CompiledRule>, rules_complete: bool) -> Parts {
        self.lives += 1;
        let lake = LakeOptions { window: Span::minutes(1), flush_interval: Span::seconds(7), ..LakeOptions::default() };
        Parts {
            log: self.log.clone(),
            store: self.store.clone(),
            random: Arc::new(SeededRandom::new(self.lives)),
            rules: RuleSet { rules, complete: rules_complete, ..RuleSet::default() },
            dimensions: Dimensions::default(),
            cluster: false,
            part: Part::Whole,
            mappings: vec![],
            cleaning: Arc::default(),
            from: From::Earliest,
            policy: Policy::built_in(vec![Target { name: "ops".to_string(), send_resolved: true }]),
            silences: self.silences(),
            acks: self.acks(),
            receivers: vec![self.notifier.clone()],
            inline: false,
            janitor: JanitorOptions::default(),
            works_aside: false,
            lake,
            idle_timeout: Span::seconds(30),
            memory_limit: 1 << 30,
            watches_itself: false,
        }
    }

    pub(crate) fn append(&self, tick: &[(&'static str, RecordBatch)], sequences: &mut BTreeMap<&'static str, Origin>) {
        for (table, batch) in tick {
            let origin = sequences.entry(table).or_insert_with(|| Origin {
                source: "sim".into(),
                incarnation: "1".into(),
                seq: 0,
            });
            for record in encode_split(table, origin, batch).unwrap() {
                // A log that fails is the station's trouble here, not the sender's: it tries until it is taken.
                while self.log.append(&format!("tidewatch.{table}"), 0, std::slice::from_ref(&record)).is_err() {}
            }
        }
    }

    /// Transitions in the log, as `ts rule from>to id`.
    pub(crate) fn transitions(&self) -> Vec<String> {
        let read = self.log.read("tidewatch.alert_event", 0, 0, usize::MAX).unwrap();
        let mut found = Vec::new();
        for (_, record) in read.records {
            let (_, rows) = decode(&record).unwrap();
            let column = |name: &str, row: usize| {
                ArrayFormatter::try_new(rows.column_by_name(name).unwrap(), &FormatOptions::default())
                    .unwrap()
                    .value(row)
                    .to_string()
            };
            for row in 0..rows.num_rows() {
                let names = ["ts", "rule", "from_state", "to_state", "fingerprint", "event_id"];
                found.push(names.map(|name| column(name, row)).join(" "));
            }
        }
        found.sort();
        found
    }

    /// Rows of a table in the lake, each as text, sorted.
    pub(crate) fn stored(&self, table: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for batch in LakeScan::new(self.store.clone()).rows(table).unwrap() {
            let formatters: Vec<ArrayFormatter> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap())
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| {
                formatters.iter().map(|formatter| formatter.value(row).to_string()).collect::<Vec<_>>().join("|")
            }));
        }
        rows.sort();
        rows
    }
}

pub(crate) fn start() -> Timestamp {
    Timestamp::from_seconds(1_767_225_600)
}

pub(crate) fn fleet() -> Fleet {
    let incident = |kind, at, duration, gpu| Incident {
        kind,
        at: Span::seconds(at),
        duration: Span::seconds(duration),
        gpu,
        code: Some(79),
    };
    let incidents = vec![
        incident(Kind::Overheating, 20, 120, 1),
        incident(Kind::Xid, 50, 0, 2),
        incident(Kind::Overheating, 60, 90, 3),
        incident(Kind::CollectorGap, 200, 20, 0),
    ];
    let options = FleetOptions {
        gpus: 4,
        gpus_per_host: 8,
        interval: Span::seconds(1),
        duration: Span::seconds(240),
        start: start(),
        seed: 1,
        noise: Noise::Low,
        incidents: Some(incidents),
    };
    Fleet::new(options).unwrap()
}

/// A good row, and one of a machine whose clock is an hour ahead.
fn host_rows(now: Timestamp) -> RecordBatch {
    let instants = vec![now.0, (now + Span::hours(1)).0];
    let ts = arrow::array::TimestampMicrosecondArray::from(instants).with_timezone("UTC");
    let hosts = arrow::array::StringArray::from(vec!["n1", "n2"]);
    RecordBatch::try_from_iter([("ts", Arc::new(ts) as _), ("host", Arc::new(hosts) as _)]).unwrap()
}

/// Plays the fleet through a station. With a seed, the process is killed and the disk fails, at random.
fn play(seed: Option<u64>) -> World {
    // Printed with a failure: the seed alone repeats the run.
    println!("seed {seed:?}");
    let mut world = World::new(false);
    let random = SeededRandom::new(seed.unwrap_or(0));
    let chance = |share: f64| seed.is_some() && random.unit() < share;
    let mut fleet = fleet();
    let mut sequences = BTreeMap::new();
    let mut now = start();
    let mut station = Some(world.open(now).unwrap());
    while let Some(tick) = fleet.next_tick() {
        now = tick.ts + Span::millis(100);
        world.append(&tick.batches, &mut sequences);
        world.append(&[("host", host_rows(now))], &mut sequences);
        if chance(0.05) {
            world.log.fail_appends(vec![std::io::ErrorKind::StorageFull; 1 + (random.next_u64() % 3) as usize]);
        }
        if chance(0.05) {
            let fault = if random.next_u64().is_multiple_of(2) { Fault::Before } else { Fault::After };
            world.store.fail_put((random.next_u64() % 6) as u32, fault);
        }
        if chance(0.08) {
            station = None;
        }
        if station.is_none() && !chance(0.5) {
            station = world.open(now).ok();
        }
        if let Some(running) = &mut station {
            // A step that fails is tried again with the next tick.
            drop(running.step(now));
        }
    }
    drop(station);
    // In the end a process lives that nothing happens to.
    world.log.fail_appends([]);
    let mut last = (0..20).find_map(|_| world.open(now).ok()).expect("opens once the scripted failures are spent");
    for _ in 0..1_000 {
        if matches!(last.step(now), Ok(false)) && now > start() + Span::minutes(6) {
            break;
        }
        now = now + Span::seconds(1);
    }
    assert!(now < start() + Span::minutes(12), "the log is read to its end");
    (0..20).find(|_| last.close(now).is_ok()).expect("closes once the scripted failures are spent");
    world
}

/// What people were told: each time that an alert began to fire, or fell silent, and of what they heard last that it is over.
pub(crate) fn told_of(world: &World) -> BTreeSet<(String, Option<Timestamp>, String)> {
    let mut last = BTreeMap::new();
    let mut told = BTreeSet::new();
    for alert in world.notifier.seen().into_iter().flat_map(|notice| notice.alerts) {
        let word = match (alert.state, alert.stale_since) {
            (AlertState::Resolved, _) => "resolved",
            (_, Some(_)) => "stale",
            _ => "firing",
        };
        if word != "resolved" {
            told.insert((alert.fingerprint(), alert.fired_at, word.to_string()));
        }
        last.insert(alert.fingerprint(), (alert.fired_at, word));
    }
    let over = last.into_iter().filter(|(_, (_, word))| *word == "resolved");
    told.extend(over.map(|(fingerprint, (fired_at, word))| (fingerprint, fired_at, word.to_string())));
    told
}

#[test]
fn kills_and_failing_disks_change_nothing() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    // The soak asks for others, and for more.
    let (first, count) = (number("TIDEWATCH_SEED", 1), number("TIDEWATCH_SEEDS", 8));
    let expected = play(None);
    let transitions = expected.transitions();
    assert!(transitions.len() >= 9, "{transitions:#?}");
    let letters = |world: &World| {
        let read = world.log.read("tidewatch.host.dlq", 0, 0, usize::MAX).unwrap().records;
        read.into_iter().map(|(_, record)| record.value).collect::<BTreeSet<_>>()
    };
    assert_eq!(letters(&expected).len(), 240);
    for seed in first..first + count {
        let found = play(Some(seed));
        assert_eq!(found.transitions(), transitions, "seed {seed}: every transition once");
        for table in ["gpu", "gpu_event", "train_step", "host", "heat_of_test"] {
            assert_eq!(found.stored(table), expected.stored(table), "seed {seed}: rows of {table}");
        }
        assert_eq!(found.stored("alert_event").len(), transitions.len(), "seed {seed}: transitions in the lake");
        assert_eq!(told_of(&found), told_of(&expected), "seed {seed}: who was told");
        assert!(letters(&found).is_superset(&letters(&expected)), "seed {seed}: odd rows are kept");
        let report = verify(found.store.as_ref()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn what_can_not_be_read_is_kept_and_the_rest_goes_on() {
    let mut world = World::new(false);
    let mut station = world.open(start()).unwrap();
    let mut fleet = fleet();
    let mut sequences = BTreeMap::new();
    let first = fleet.next_tick().unwrap();
    world.append(&first.batches, &mut sequences);
    let good = world.log.read("tidewatch.gpu", 0, 0, usize::MAX).unwrap().records.remove(0).1;
    let mut flipped = good.clone();
    flipped.value.as_mut().unwrap()[300] ^= 1;
    let wrong_schema = {
        let ts = arrow::array::TimestampMicrosecondArray::from(vec![start().0]).with_timezone("UTC");
        let column = arrow::array::StringArray::from(vec!["hot"]);
        let batch =
            RecordBatch::try_from_iter([("ts", Arc::new(ts) as _), ("temperature_celsius", Arc::new(column) as _)])
                .unwrap();
        encode_split("gpu", &mut Origin { source: "x".into(), incarnation: "1".into(), seq: 0 }, &batch)
            .unwrap()
            .remove(0)
    };
    let duplicate = good.clone();
    world
        .log
        .append(
            "tidewatch.gpu",
            0,
            &[flipped.clone(), wrong_schema, duplicate, Record { value: Some(b"{}".to_vec()), ..Record::default() }],
        )
        .unwrap();
    world.append(&fleet.next_tick().unwrap().batches, &mut sequences);
    station.step(start() + Span::seconds(1)).unwrap();
    assert_eq!(station.stats().rows["gpu"], 8);
    assert_eq!(station.stats().duplicates, 1);
    let letters = world.log.read("tidewatch.gpu.dlq", 0, 0, usize::MAX).unwrap().records;
    let reasons: Vec<String> = letters
        .iter()
        .map(|(_, letter)| {
            let header = |name: &str| {
                letter
                    .headers
                    .iter()
                    .find(|(other, _)| other == name)
                    .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                    .unwrap()
            };
            format!(
                "{}/{} {}",
                header("tidewatch-dlq-topic"),
                header("tidewatch-dlq-offset"),
                header("tidewatch-dlq-error")
            )
        })
        .collect();
    assert!(reasons[0].starts_with("tidewatch.gpu/1 checksum "), "{reasons:?}");
    assert_eq!(reasons[1], "tidewatch.gpu/2 table gpu, column 'temperature_celsius': expected Float64, found Utf8");
    assert_eq!(reasons[2], "tidewatch.gpu/4 header tidewatch-version: is missing");
    assert_eq!(letters[0].1.value, flipped.value, "the original bytes are kept");
    station.close(start() + Span::seconds(2)).unwrap();
    let report = verify(world.store.as_ref()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(world.stored("gpu").len(), 8);
}

#[test]
fn a_firing_alert_stays_firing_over_a_restart_and_over_silence() {
    let mut world = World::new(false);
    let mut fleet = fleet();
    let mut sequences = BTreeMap::new();
    let mut station = world.open(start()).unwrap();
    let mut now = start();
    while now < start() + Span::seconds(130) {
        let tick = fleet.next_tick().unwrap();
        now = tick.ts + Span::millis(100);
        world.append(&tick.batches, &mut sequences);
        station.step(now).unwrap();
    }
    let firing = |station: &Station| -> Vec<(String, Option<Timestamp>)> {
        let alerts = station.live_alerts().into_iter().filter(|alert| alert.state == AlertState::Firing);
        alerts.map(|alert| (alert.fingerprint(), alert.fired_at)).collect()
    };
    let before = firing(&station);
    assert!(before.len() >= 3, "{before:?}");
    let xid = station.live_alerts().into_iter().find(|alert| alert.rule == "xid").unwrap().fingerprint();
    drop(station);
    let mut station = world.open(now + Span::minutes(3)).unwrap();
    for step in 0..84 {
        station.step(now + Span::minutes(3) + Span::seconds(5 * step)).unwrap();
    }
    let after = firing(&station);
    let on_samples: Vec<_> = before.iter().filter(|(fingerprint, _)| *fingerprint != xid).collect();
    assert!(on_samples.iter().all(|alert| after.contains(alert)), "alerts on samples stay: {before:?} {after:?}");
    assert!(after.iter().all(|(fingerprint, _)| *fingerprint != xid), "the one on an event is over after its minute");
    let resolved =
        world.transitions().into_iter().filter(|transition| transition.contains(" hot firing resolved")).count();
    assert_eq!(resolved, 0, "nothing resolved because nothing came");
    let silent = world.transitions().into_iter().filter(|change| change.contains(" silent inactive firing")).count();
    assert_eq!(silent, 4, "all four were seen before the restart, and are silent since");
    let ticks = world.log.read("tidewatch.tick", 0, 0, usize::MAX).unwrap().records.len();
    assert!(ticks > 0, "ticks of the clock are written down");
}

#[test]
fn what_can_not_be_seen_is_not_silent() {
    let mut world = World::new(false);
    let mut fleet = fleet();
    let mut sequences = BTreeMap::new();
    let mut station = world.open(start()).unwrap();
    let silent = |world: &World| world.transitions().into_iter().filter(|change| change.contains(" silent ")).count();
    let mut feed = |world: &World, station: &mut Station, from: i64, to: i64| {
        for second in from..to {
            let tick = fleet.next_tick().unwrap();
            world.append(&tick.batches, &mut sequences);
            station.step(start() + Span::seconds(second) + Span::millis(100)).unwrap();
        }
    };
    feed(&world, &mut station, 0, 60);
    // The broker is gone for two minutes; what was sent is there when it comes back.
    world.log.lose(Some("tidewatch.gpu"));
    feed(&world, &mut station, 60, 180);
    world.log.lose(None);
    feed(&world, &mut station, 180, 190);
    assert_eq!(silent(&world), 0, "the broker was silent, not the GPUs");
    // The machine sleeps for an hour; the agents' rows come a little after it woke up.
    let woken = start() + Span::hours(1);
    for second in 0..20 {
        station.step(woken + Span::seconds(second)).unwrap();
    }
    assert_eq!(silent(&world), 0, "nobody was asked");
    for second in 20..80 {
        station.step(woken + Span::seconds(second)).unwrap();
    }
    assert_eq!(silent(&world), 4, "nobody has answered since");
}

#[test]
fn a_stop_loses_nothing_that_was_not_read_yet() {
    let expected = play(None);
    let mut world = World::new(false);
    let mut fleet = fleet();
    let mut sequences = BTreeMap::new();
    let mut now = start();
    let mut station = world.open(now).unwrap();
    while let Some(tick) = fleet.next_tick() {
        now = tick.ts + Span::millis(100);
        world.append(&tick.batches, &mut sequences);
        world.append(&[("host", host_rows(now))], &mut sequences);
        // Every stop comes upon rows that no step has seen.
        station.close(now).unwrap();
        drop(station);
        station = world.open(now).unwrap();
    }
    for _ in 0..240 {
        now = now + Span::seconds(1);
        station.step(now).unwrap();
    }
    let of = |world: &World| -> BTreeSet<String> {
        world.transitions().into_iter().filter(|line| line.contains(" hot ") || line.contains(" glowing ")).collect()
    };
    assert!(of(&world).len() >= 6);
    assert_eq!(of(&world), of(&expected));
    station.close(now).unwrap();
    assert_eq!(verify(world.store.as_ref()).unwrap().problems, Vec::<String>::new());
    assert_eq!(world.stored("gpu"), expected.stored("gpu"));
}

#[test]
fn a_rule_with_a_fault_resolves_nothing() {
    let mut world = World::new(false);
    let mut fleet = fleet();
    let mut sequences = BTreeMap::new();
    let mut station = world.open(start()).unwrap();
    let mut now = start();
    while now < start() + Span::seconds(130) {
        let tick = fleet.next_tick().unwrap();
        now = tick.ts + Span::millis(100);
        world.append(&tick.batches, &mut sequences);
        station.step(now).unwrap();
    }
    let firing = |station: &Station| -> Vec<(String, Option<Timestamp>)> {
        let alerts =
            station.live_alerts().into_iter().filter(|alert| alert.state == AlertState::Firing && alert.rule == "hot");
        alerts.map(|alert| (alert.fingerprint(), alert.fired_at)).collect()
    };
    let before = firing(&station);
    assert!(!before.is_empty());
    drop(station);
    let without_hot = || rules().into_iter().filter(|compiled| compiled.rule.name != "hot").collect::<Vec<_>>();
    let mut station = world.open_with(without_hot(), false, now).unwrap();
    station.step(now + Span::seconds(1)).unwrap();
    station.close(now + Span::seconds(2)).unwrap();
    drop(station);
    let mut station = world.open(now + Span::seconds(3)).unwrap();
    station.step(now + Span::seconds(4)).unwrap();
    assert_eq!(firing(&station), before, "the repaired rule goes on where it stood");
    drop(station);
    let again = |world: &mut World| {
        let mut station = world.open_with(without_hot(), true, now + Span::seconds(5)).unwrap();
        station.step(now + Span::seconds(6)).unwrap();
    };
    again(&mut world);
    let ended = world.transitions();
    let of_hot = ended.iter().filter(|line| line.contains(" hot firing resolved")).count();
    assert_eq!(of_hot, before.len(), "a rule that is gone ends its alerts");
    again(&mut world);
    assert_eq!(world.transitions(), ended, "once");
}

#[test]
fn a_partition_that_is_another_one_now_stops_and_the_others_go_on() {
    let mut world = World::new(false);
    let mut sequences = BTreeMap::new();
    let mut station = world.open(start()).unwrap();
    let mut fleet = fleet();
    for _ in 0..3 {
        world.append(&fleet.next_tick().unwrap().batches, &mut sequences);
    }
    station.close(start() + Span::seconds(4)).unwrap();
    drop(station);
    assert_eq!(world.stored("gpu").len(), 12);
    // Somebody deleted the topics and made them anew: offsets begin at 0 again.
    world.log = Arc::new(ScriptedLog::default());
    let mut station = world.open(start() + Span::seconds(5)).unwrap();
    world.append(&[("host", host_rows(start()))], &mut sequences);
    world.append(&fleet.next_tick().unwrap().batches, &mut sequences);
    let error = station.step(start() + Span::seconds(6)).unwrap_err().to_string();
    assert_eq!(error, "tidewatch.gpu/0: offset 2 is outside of 0..1");
    assert_eq!(station.stats().rows.get("host"), Some(&1), "the others are read");
    for second in 7..12 {
        world.append(&fleet.next_tick().unwrap().batches, &mut sequences);
        drop(station.step(start() + Span::seconds(second)));
    }
    let error = station.step(start() + Span::seconds(12)).unwrap_err().to_string();
    assert_eq!(
        error, "tidewatch.gpu/0, offset 2: not the record that was stored from there: the topic was made anew",
        "nor when it has grown beyond"
    );
    assert!(!station.stats().rows.contains_key("gpu"), "nothing is taken for what it is not");
}
