//! What changes around a station: topics made anew, logs that are slow, rules that move from one part of a group to another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidewatch_collect::simulate::Fleet;
use tidewatch_lake::verify;
use tidewatch_model::AlertState;
use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::Record;
use tidewatch_notifiers::ScriptedNotifier;

use super::letters::{CUT, dead_letter};
use super::tests::{RULES, World, compiled, fleet, start};
use super::*;

const SHARE: Part = Part::Share { index: 0, of: 1 };
const REST: Part = Part::Rest { of: 1 };

/// A world and the fleet that writes into it, second by second.
struct Play {
    world: World,
    fleet: Fleet,
    origins: BTreeMap<&'static str, Origin>,
    now: Timestamp,
}

impl Play {
    fn new() -> Play {
        Play { world: World::new(false), fleet: fleet(), origins: BTreeMap::new(), now: start() }
    }

    fn tick(&mut self) {
        let tick = self.fleet.next_tick().unwrap();
        self.now = tick.ts + Span::millis(100);
        self.world.append(&tick.batches, &mut self.origins);
    }

    fn run(&mut self, station: &mut Station, seconds: u32) {
        for _ in 0..seconds {
            self.tick();
            station.step(self.now).unwrap();
        }
    }

    fn part(&mut self, part: Part, rules: Vec<CompiledRule>) -> Result<Station, StationError> {
        shares(self.world.log.as_ref(), 1).unwrap();
        let parts = self.world.parts(rules, true);
        Station::open(Parts { part, ..parts }, self.now)
    }
}

fn rules() -> Vec<CompiledRule> {
    compiled(RULES, 6)
}

fn without(name: &str) -> Vec<CompiledRule> {
    rules().into_iter().filter(|compiled| compiled.rule.name != name).collect()
}

fn firing(station: &Station, rule: &str) -> Vec<(String, Option<Timestamp>)> {
    let alerts = station.live_alerts().into_iter();
    let firing = alerts.filter(|alert| alert.state == AlertState::Firing && alert.rule == rule);
    firing.map(|alert| (alert.fingerprint(), alert.fired_at)).collect()
}

#[test]
fn a_running_station_notices_that_a_topic_was_made_anew() {
    let mut play = Play::new();
    let mut station = play.world.open(play.now).unwrap();
    play.run(&mut station, 5);
    play.world.log.make_anew("tidewatch.gpu");
    play.tick();
    let error = station.step(play.now).unwrap_err().to_string();
    assert_eq!(error, "tidewatch.gpu/0: offset 5 is outside of 0..1");
    (0..9).for_each(|_| play.tick());
    for _ in 0..2 {
        let error = station.step(play.now).unwrap_err().to_string();
        assert!(error.contains("tidewatch.gpu/0, offset 4: not the record that was stored from there"), "{error}");
    }
    assert_eq!(station.stats().rows["gpu"], 20);
}

#[test]
fn a_log_that_is_slow_is_not_taken_for_an_empty_one() {
    let mut play = Play::new();
    let mut station = play.world.open(play.now).unwrap();
    play.run(&mut station, 130);
    let before = firing(&station, "hot");
    assert!(!before.is_empty());
    drop(station);
    for misses in [1, 2, 3] {
        play.world.log.slow_reads(misses);
        let refused = play.world.open(play.now).err().expect("the state was not read");
        assert!(refused.to_string().contains("does not give its records in time"), "{refused}");
    }
    play.world.log.slow_reads(0);
    let station = play.world.open(play.now).unwrap();
    assert_eq!(firing(&station, "hot"), before);
}

#[test]
fn the_latest_is_what_was_so_at_the_first_start() {
    let mut play = Play::new();
    play.tick();
    let open = |play: &mut Play| {
        let parts = play.world.parts(rules(), true);
        Station::open(Parts { from: From::Latest, ..parts }, play.now).unwrap()
    };
    let mut station = open(&mut play);
    assert!(!station.step(play.now).unwrap());
    drop(station);
    // Nothing was read by the first, and what comes before the second is not to be missed.
    play.tick();
    let mut station = open(&mut play);
    play.run(&mut station, 1);
    station.close(play.now).unwrap();
    assert_eq!(play.world.stored("gpu").len(), 8);
    assert_eq!(verify(play.world.store.as_ref()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_rule_that_another_part_judges_now_goes_on_there() {
    let mut play = Play::new();
    let mut share = play.part(SHARE, rules()).unwrap();
    play.run(&mut share, 130);
    let before = firing(&share, "hot");
    assert!(!before.is_empty());
    share.close(play.now).unwrap();
    let told = play.world.transitions();
    // Other people's topics feed the table from now on: its rules are the rest's.
    let mapping: Arc<Mapping> = Arc::new("temps table=gpu".parse().unwrap());
    play.world.log.create_topic("temps", &row_topic(1)).unwrap();
    let open = |play: &mut Play, part: Part| {
        let parts = play.world.parts(rules(), true);
        Station::open(Parts { part, mappings: vec![mapping.clone()], ..parts }, play.now).unwrap()
    };
    let mut share = open(&mut play, SHARE);
    let mut rest = open(&mut play, REST);
    assert_eq!(firing(&rest, "hot"), before);
    for station in [&mut share, &mut rest] {
        station.step(play.now).unwrap();
    }
    assert_eq!(play.world.transitions(), told, "nobody hears of it");
    play.now = play.now + Span::minutes(11);
    share.step(play.now).unwrap();
    assert!(firing(&share, "hot").is_empty());
    assert_eq!(firing(&rest, "hot"), before);
    let of_hot = |lines: Vec<String>| lines.into_iter().filter(|line| line.contains(" hot ")).collect::<Vec<_>>();
    assert_eq!(of_hot(play.world.transitions()), of_hot(told));
}

#[test]
fn an_edited_rule_ends_its_alerts_where_it_stood() {
    let mut play = Play::new();
    let mut station = play.world.open(play.now).unwrap();
    play.run(&mut station, 130);
    // The last window that holds a row ends before this.
    let silent = (play.now + Span::minutes(1)).to_string();
    // Nothing comes any more, and the clock closes windows without rows.
    for _ in 0..60 {
        play.now = play.now + Span::seconds(5);
        station.step(play.now).unwrap();
    }
    let before = firing(&station, "hot").len();
    assert!(before > 0);
    station.close(play.now).unwrap();
    let already = play.world.transitions();
    let edited = RULES.replace("host, gpu_uuid, avg", "host, avg").replace("host, gpu_uuid HAVING", "host HAVING");
    let parts = play.world.parts(compiled(&edited, 6), true);
    let mut station = Station::open(parts, play.now).unwrap();
    station.step(play.now).unwrap();
    let ended: Vec<String> = play.world.transitions().into_iter().filter(|line| !already.contains(line)).collect();
    let of_hot: Vec<&String> = ended.iter().filter(|line| line.contains(" hot firing resolved")).collect();
    assert_eq!(of_hot.len(), before, "{ended:?}");
    assert!(of_hot.iter().all(|line| line.as_str() > silent.as_str()), "{of_hot:?}, silent since {silent}");
}

#[test]
fn a_group_ends_the_alerts_of_a_removed_rule_when_all_engines_have_heard_of_it() {
    let mut play = Play::new();
    let mut share = play.part(SHARE, rules()).unwrap();
    play.run(&mut share, 130);
    let before = firing(&share, "hot").len();
    assert!(before > 0);
    let of_hot = |play: &Play| {
        let ended = play.world.transitions().into_iter().filter(|line| line.contains(" hot firing resolved"));
        ended.count()
    };
    let already = of_hot(&play);
    drop(share);
    let mut other = play.part(SHARE, without("hot")).unwrap();
    play.run(&mut other, 10);
    assert_eq!(of_hot(&play), already, "this engine may be the last with old rules, or the first with new ones");
    drop(other);
    let mut again = play.part(SHARE, without("hot")).unwrap();
    play.now = play.now + Span::minutes(10);
    again.step(play.now).unwrap();
    assert_eq!(of_hot(&play), already + before);
}

#[test]
fn notices_that_a_single_engine_left_waiting_are_told_by_the_group() {
    let mut play = Play::new();
    let down = || tidewatch_model::ports::Delivery::Retry { after: None, error: "down".to_string(), perhaps: false };
    play.world.notifier = Arc::new(ScriptedNotifier::new("ops", std::iter::repeat_with(down).take(1_000)));
    let mut station = play.world.open(play.now).unwrap();
    play.run(&mut station, 130);
    let waiting = station.stats().notices_waiting;
    assert!(waiting > 0);
    drop(station);
    play.world.notifier = Arc::new(ScriptedNotifier::new("ops", []));
    let mut rest = play.part(REST, rules()).unwrap();
    rest.step(play.now).unwrap();
    rest.close(play.now).unwrap();
    let told = play.world.notifier.seen().len();
    assert!(told > 0, "{waiting} wait");
    // What is told is off the books, under its old name too.
    let mut left = play.part(REST, rules()).unwrap();
    left.step(play.now).unwrap();
    assert!(left.stats().notices_waiting + told <= waiting, "{told} of {waiting} were told");
}

#[test]
fn of_a_message_that_no_log_takes_the_beginning_is_kept() {
    let log = tidewatch_log::ScriptedLog::default();
    let headers = vec![("h".to_string(), vec![1])];
    let record = Record { value: Some(vec![b'x'; 3 * RECORD_BYTES]), headers, ..Record::default() };
    dead_letter(&log, "temps", 2, 7, &record, "no JSON").unwrap();
    let letter = log.read("temps.dlq", 0, 0, usize::MAX).unwrap().records.remove(0).1;
    let length = letter.value.unwrap().len();
    assert!(length < RECORD_BYTES && length > RECORD_BYTES * 9 / 10);
    assert!(letter.headers.contains(&(CUT.to_string(), (3 * RECORD_BYTES).to_string().into_bytes())));
}

/// Rules as a set that is complete.
fn set(rules: Vec<CompiledRule>) -> RuleSet {
    RuleSet { rules, complete: true, ..RuleSet::default() }
}

fn said(play: &Play, rule: &str) -> Vec<String> {
    play.world.transitions().into_iter().filter(|line| line.contains(rule)).collect()
}

#[test]
fn rules_change_while_the_station_runs() {
    let mut play = Play::new();
    let mut station = Station::open(play.world.parts(without("hot"), true), play.now).unwrap();
    play.run(&mut station, 100);
    assert!(firing(&station, "hot").is_empty() && !firing(&station, "glowing").is_empty());
    // A new rule is right at its first window: the temperature has been high for a while.
    let renewed = station.change_rules(set(rules())).unwrap();
    assert_eq!((renewed.begun, renewed.dropped), (vec!["hot".to_string()], vec![]));
    play.run(&mut station, 1);
    assert!(!station.is_renewing());
    play.run(&mut station, 25);
    let hot = firing(&station, "hot");
    assert!(!hot.is_empty());
    // Edited, its alerts go on; the others do not notice.
    let glowing = firing(&station, "glowing");
    let edited = RULES.replace("HAVING avg(temperature_celsius) > 78", "HAVING avg(temperature_celsius) > 77");
    let renewed = station.change_rules(set(compiled(&edited, 6))).unwrap();
    assert_eq!(renewed.begun, ["hot"]);
    play.run(&mut station, 3);
    assert_eq!((firing(&station, "hot"), firing(&station, "glowing")), (hot.clone(), glowing));
    // Dropped, what fires ends.
    let edited: Vec<CompiledRule> =
        compiled(&edited, 6).into_iter().filter(|compiled| compiled.rule.name != "glowing").collect();
    assert_eq!(station.change_rules(set(edited.clone())).unwrap().dropped, ["glowing"]);
    play.run(&mut station, 2);
    assert!(firing(&station, "glowing").is_empty());
    assert!(said(&play, "glowing").last().unwrap().contains("firing resolved"), "{:?}", said(&play, "glowing"));
    // Suspended, alerts stay as they are.
    let before = said(&play, "hot");
    let suspended = RuleSet { suspended: ["hot".to_string()].into(), ..set(edited.clone()) };
    station.change_rules(suspended.clone()).unwrap();
    play.run(&mut station, 60);
    assert_eq!((firing(&station, "hot"), said(&play, "hot")), (hot.clone(), before.clone()));
    // Also over a restart.
    drop(station);
    let parts = play.world.parts(vec![], true);
    let mut station = Station::open(Parts { rules: suspended, ..parts }, play.now).unwrap();
    play.run(&mut station, 3);
    assert_eq!((firing(&station, "hot"), said(&play, "hot")), (hot, before));
    // Resumed, what has passed meanwhile is noticed.
    station.change_rules(set(edited)).unwrap();
    play.run(&mut station, 45);
    assert!(said(&play, "hot").iter().any(|line| line.contains("firing resolved")), "{:?}", said(&play, "hot"));
    station.close(play.now).unwrap();
    assert_eq!(verify(play.world.store.as_ref()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_station_whose_rules_changed_says_what_one_that_had_them_said() {
    for seconds in [3, 17, 47, 95, 131] {
        let mut changing = Play::new();
        let mut station = Station::open(changing.world.parts(without("hot"), true), changing.now).unwrap();
        changing.run(&mut station, seconds);
        station.change_rules(set(rules())).unwrap();
        changing.run(&mut station, 240 - seconds);
        let mut always = Play::new();
        let mut station = Station::open(always.world.parts(rules(), true), always.now).unwrap();
        always.run(&mut station, 240);
        let others = |play: &Play| -> Vec<String> {
            play.world.transitions().into_iter().filter(|line| !line.contains("hot")).collect()
        };
        assert_eq!(others(&changing), others(&always), "after {seconds}");
        let resolved = |play: &Play| said(play, "hot").into_iter().filter(|line| line.contains("resolved")).count();
        assert_eq!(resolved(&changing), resolved(&always), "after {seconds}");
        if seconds < 20 {
            assert_eq!(said(&changing, "hot"), said(&always, "hot"), "nothing was hot yet after {seconds}");
        }
    }
}

#[test]
fn a_stream_and_a_rule_over_it_may_come_later() {
    use crate::group::{Division, Stations};
    let mut play = Play::new();
    let rules: Vec<CompiledRule> =
        without("warm").into_iter().filter(|compiled| compiled.rule.name != "heat_of_test").collect();
    let parts = play.world.parts(rules, true);
    let mut stations = Stations::open(parts, Division::Alone, play.now).unwrap();
    let run = |stations: &mut Stations, play: &mut Play, seconds: u32| {
        for _ in 0..seconds {
            play.tick();
            stations.step(play.now).unwrap();
        }
    };
    run(&mut stations, &mut play, 20);
    let text = format!(
        "{RULES} CREATE STREAM late_heat AS SELECT host, max(temperature_celsius) AS heat FROM TUMBLE(gpu, ts, '5 s') GROUP BY host;
         CREATE ALERT late AS SELECT host, max(heat) AS heat FROM HOP(late_heat, ts, '5 s', '15 s') GROUP BY host HAVING max(heat) > 70;"
    );
    let renewed = stations.change_rules(set(compiled(&text, 8)), play.now).unwrap();
    assert_eq!(renewed.begun, ["heat_of_test", "late", "late_heat", "warm"]);
    run(&mut stations, &mut play, 60);
    assert!(said(&play, "late").iter().any(|line| line.contains("inactive firing")), "{:?}", play.world.transitions());
    stations.close(play.now).unwrap();
    assert!(play.world.stored("late_heat").len() > 8);
}

/// A stream made of a table that nobody ever wrote goes on by the clock like any other: a trainer that tells no events is watched too.
#[test]
fn a_table_that_nobody_wrote_holds_no_stream_back() {
    let mut play = Play::new();
    let text = "CREATE STREAM heat_and_kernel WITH (every = '5 seconds', over = '10 seconds', key = 'host') AS
            SELECT g.host, max(g.temperature_celsius) AS heat, count(k.ts) AS said
            FROM gpu g LEFT JOIN kernel_event k ON k.host = g.host GROUP BY g.host;
        CREATE ALERT of_both AS SELECT host, max(heat) AS heat FROM TUMBLE(heat_and_kernel, ts, '10 s') GROUP BY host HAVING max(heat) > 0;";
    let mut station = Station::open(play.world.parts(compiled(text, 2), true), play.now).unwrap();
    play.run(&mut station, 60);
    assert!(
        said(&play, "of_both").iter().any(|line| line.contains("inactive firing")),
        "{:?}",
        play.world.transitions()
    );
    // Its last rows are judged although no row comes after them.
    let behind = |station: &Station, now: Timestamp| now - station.watermarks["heat_and_kernel"].current().unwrap();
    let last = play.now;
    while play.now - last < Span::minutes(2) {
        play.now = play.now + Span::seconds(1);
        station.step(play.now).unwrap();
    }
    assert!(behind(&station, play.now) <= Span::seconds(90), "{:?}", behind(&station, play.now));
}

#[test]
fn what_spans_hosts_is_no_share_s() {
    let judges = |select: &str| {
        let rules = compiled(&format!("CREATE ALERT x AS {select};"), 1);
        SHARE.judges(&rules[0].rule, &[])
    };
    assert!(judges("SELECT host, gpu_uuid FROM gpu WHERE temperature_celsius > 1"));
    assert!(judges(
        "SELECT host, gpu_uuid, lag(power_watts) OVER (PARTITION BY host ORDER BY ts) AS a FROM gpu QUALIFY a > 1"
    ));
    assert!(!judges("SELECT host, gpu_uuid, lag(power_watts) OVER (ORDER BY ts) AS a FROM gpu QUALIFY a > 1"));
    assert!(!judges(
        "SELECT a.host FROM TUMBLE(host, ts, '10s') a WHERE a.load1 > (SELECT 3 * avg(load1) FROM TUMBLE(host, ts, '10s'))"
    ));
    // Which makes the stream known.
    compiled(RULES, 6);
    assert!(!judges("SELECT host, max(heat) AS heat FROM TUMBLE(heat_of_test, ts, '10s') GROUP BY host"));
}
