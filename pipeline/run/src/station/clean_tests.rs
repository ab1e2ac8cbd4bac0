//! Cleaning within a station: nothing is lost without a letter or a number, and what a restart reads again is counted once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use tidewatch_model::limits::READ_BYTES;
use tidewatch_model::wire::decode;

use super::tests::{RULES, World, compiled, fleet, start};
use super::*;

/// The rows of dead letters, by reason.
fn letters(log: &dyn Log) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (_, mut record) in log.read("tidewatch.gpu.dlq", 0, 0, READ_BYTES).unwrap().records {
        let reason = record.headers.iter().find(|(name, _)| name == "tidewatch-dlq-error").unwrap();
        let reason = String::from_utf8(reason.1.clone()).unwrap();
        let reason = reason.split_once(" rows ").unwrap().1.to_string();
        // Without what a letter says of itself it is a frame.
        record.headers.retain(|(name, _)| !name.starts_with("tidewatch-dlq"));
        *found.entry(reason).or_default() += decode(&record).unwrap().1.num_rows() as u64;
    }
    found
}

#[test]
fn every_row_is_stored_or_has_a_letter_or_is_a_copy() {
    let mut world = World::new(false);
    // Half of the temperatures are above it.
    let mut temperatures: Vec<f64> = Vec::new();
    let mut same = fleet();
    for _ in 0..25 {
        for (_, rows) in same.next_tick().unwrap().batches.iter().filter(|(table, _)| *table == "gpu") {
            let column = rows.column_by_name("temperature_celsius").unwrap();
            temperatures.extend(column.as_primitive::<Float64Type>().iter().flatten());
        }
    }
    temperatures.sort_by(f64::total_cmp);
    let middle = temperatures[temperatures.len() / 2];
    let rules =
        format!("gpu.temperature_celsius range=..{middle} action=drop,gpu.power_watts range=..0,gpu duplicates=drop");
    let cleaning: Arc<Cleaning> = Arc::new(rules.parse().unwrap());
    let open = |world: &mut World, now: Timestamp| {
        let parts = world.parts(compiled(RULES, 6), true);
        Station::open(Parts { cleaning: cleaning.clone(), ..parts }, now).unwrap()
    };
    let (mut fleet, mut origins, mut now) = (fleet(), BTreeMap::new(), start());
    let mut total = Stats::default();
    let mut written = 0;
    for _ in 0..3 {
        let mut station = open(&mut world, now);
        for _ in 0..25 {
            let tick = fleet.next_tick().unwrap();
            now = tick.ts + Span::millis(100);
            let gpu: Vec<_> = tick.batches.into_iter().filter(|(table, _)| *table == "gpu").collect();
            written += gpu.iter().map(|(_, rows)| rows.num_rows() as u64).sum::<u64>();
            world.append(&gpu, &mut origins);
            // The same rows in other frames.
            world.append(&gpu, &mut origins);
            station.step(now).unwrap();
        }
        station.close(now).unwrap();
        total.add(station.stats());
    }
    let refused = |reason: &'static str| total.refused_rows.get(&("gpu".to_string(), reason)).copied().unwrap_or(0);
    let (copies, impossible) = (refused("duplicate"), refused("range"));
    assert_eq!(total.rows["gpu"] + copies + impossible, 2 * written);
    assert_eq!(copies, written);
    assert!(impossible > 0 && total.rows["gpu"] > 0, "{impossible} of {written}");
    let letters = letters(world.log.as_ref());
    assert_eq!(letters["whose temperature_celsius is outside of what clean.rules allows"], impossible);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let cleaned = total.cleaned_values[&("gpu".to_string(), "power_watts", "range")];
    assert!(cleaned > 0 && cleaned <= total.rows["gpu"], "{cleaned}");
    assert!(total.odd_time_rows.is_empty());
}

/// A rule with OVER that is new at a start reads again what its frames need, and says nothing of it.
#[test]
fn a_new_rule_says_nothing_of_the_past() {
    let mut world = World::new(false);
    let always = "CREATE ALERT always WITH (severity = 'info') AS
        SELECT host, gpu_uuid, avg(temperature_celsius) OVER (PARTITION BY host, gpu_uuid ORDER BY ts ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS t
        FROM gpu QUALIFY t > 0;";
    let row = "CREATE ALERT never WITH (severity = 'info') AS SELECT host, gpu_uuid, temperature_celsius FROM gpu WHERE temperature_celsius > 1000;";
    let (mut fleet, mut origins, mut now) = (fleet(), BTreeMap::new(), start());
    let mut stopped = now;
    for rules in [row.to_string(), format!("{row}{always}")] {
        let parts = world.parts(compiled(&rules, rules.matches("ALERT").count()), true);
        let mut station = Station::open(parts, now).unwrap();
        for _ in 0..30 {
            let tick = fleet.next_tick().unwrap();
            now = tick.ts + Span::millis(100);
            world.append(&tick.batches, &mut origins);
            station.step(now).unwrap();
        }
        station.close(now).unwrap();
        if !rules.contains("always") {
            stopped = now;
            assert!(world.transitions().is_empty());
        }
    }
    let said = world.transitions();
    assert!(!said.is_empty());
    let before =
        |line: &String| line.split(' ').next().unwrap().parse::<Timestamp>().unwrap() < stopped - Span::seconds(1);
    assert!(!said.iter().any(before), "{stopped}: {said:?}");
}
