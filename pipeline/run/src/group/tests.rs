//! Engines of a group are stopped, killed and paused at random while parts go from one to the other: what they decided,
//! stored and told together is what one engine would have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidewatch_collect::simulate::{Fleet, FleetOptions, Incident, Kind, Noise};
use tidewatch_lake::verify;
use tidewatch_model::ports::{Log, LogError, Random, partition_of};
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::wire::{Origin, encode_split};

use super::*;
use crate::station::tests::{RULES, World, compiled, start, told_of};
use crate::station::{ENGINE_TOPIC, shares};

const SHARES: u32 = 3;
/// A rule that needs rows of several hosts.
const WIDE: &str = "CREATE ALERT job_hot AS SELECT job, max(temperature_celsius) AS t
FROM HOP(gpu, ts, INTERVAL '10 s', INTERVAL '30 s') GROUP BY window_start, window_end, job HAVING max(temperature_celsius) > 78;";

/// The broker's side of the group.
#[derive(Default)]
struct Coordinator {
    /// What each living member has not heard yet, with the number of polls that it takes to reach it.
    news: BTreeMap<u64, Vec<(u32, Change)>>,
    owners: BTreeMap<u32, u64>,
    /// Partitions asked back, and who gets them then.
    promised: BTreeMap<u32, u64>,
}

impl Coordinator {
    fn say(&mut self, member: u64, after: u32, change: Change) {
        if let Some(news) = self.news.get_mut(&member) {
            news.push((after, change));
        }
    }

    fn give(&mut self, key: u32, member: u64) {
        self.owners.insert(key, member);
        self.say(member, 0, Change::Given(vec![key]));
    }

    /// Takes a partition away in an orderly way, or without waiting for the owner, who hears of it some polls later.
    fn move_to(&mut self, key: u32, member: u64, late_news: Option<u32>) {
        match (self.owners.get(&key).copied(), late_news) {
            (Some(owner), _) if owner == member => {}
            (Some(owner), None) if self.news.contains_key(&owner) => {
                if self.promised.insert(key, member).is_none() {
                    self.say(owner, 0, Change::AskedBack(vec![key]));
                }
            }
            (Some(owner), late) => {
                self.promised.remove(&key);
                self.say(owner, late.unwrap_or(0), Change::Taken(vec![key]));
                self.give(key, member);
            }
            (None, _) => self.give(key, member),
        }
    }

    fn leave(&mut self, member: u64) {
        self.news.remove(&member);
        let Some(heir) = self.news.keys().next().copied() else {
            self.owners.retain(|_, owner| *owner != member);
            return;
        };
        let left: Vec<u32> = self.owners.iter().filter(|(_, owner)| **owner == member).map(|(key, _)| *key).collect();
        for key in left {
            self.promised.remove(&key);
            self.give(key, heir);
        }
    }
}

struct Member {
    id: u64,
    coordinator: Arc<Mutex<Coordinator>>,
}

impl Membership for Member {
    fn poll(&mut self) -> Result<Vec<Change>, LogError> {
        let mut coordinator = self.coordinator.lock().unwrap();
        let Some(news) = coordinator.news.get_mut(&self.id) else { return Ok(vec![]) };
        let mut heard = Vec::new();
        // In order: what came later is heard later.
        while news.first().is_some_and(|(after, _)| *after == 0) {
            heard.push(news.remove(0).1);
        }
        if let Some((after, _)) = news.first_mut() {
            *after -= 1;
        }
        Ok(heard)
    }

    fn give_back(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        let mut coordinator = self.coordinator.lock().unwrap();
        for key in partitions {
            if let Some(next) = coordinator.promised.remove(key) {
                let next = if coordinator.news.contains_key(&next) { next } else { self.id };
                coordinator.give(*key, next);
            }
        }
        Ok(())
    }
}

fn fleet() -> Fleet {
    let incident = |kind, at, duration, gpu| Incident {
        kind,
        at: Span::seconds(at),
        duration: Span::seconds(duration),
        gpu,
        code: Some(79),
    };
    let incidents = vec![
        incident(Kind::Overheating, 20, 80, 1),
        incident(Kind::Xid, 50, 0, 2),
        incident(Kind::Overheating, 60, 60, 5),
        incident(Kind::Overheating, 40, 70, 9),
        incident(Kind::CollectorGap, 70, 20, 0),
    ];
    let options = FleetOptions {
        gpus: 10,
        gpus_per_host: 2,
        interval: Span::seconds(1),
        duration: Span::seconds(120),
        start: start(),
        seed: 1,
        noise: Noise::Low,
        incidents: Some(incidents),
    };
    Fleet::new(options).unwrap()
}

/// Rows as agents send them: each host is a source, and finds its partition.
fn append(world: &World, tick: &[(&'static str, arrow::array::RecordBatch)], origins: &mut BTreeMap<String, Origin>) {
    for (table, batch) in tick {
        let hosts = arrow::array::AsArray::as_string::<i32>(batch.column_by_name("host").unwrap()).clone();
        for host in hosts.iter().flatten().collect::<BTreeSet<_>>() {
            let mine: arrow::array::BooleanArray = hosts.iter().map(|one| Some(one == Some(host))).collect();
            let part = arrow::compute::filter_record_batch(batch, &mine).unwrap();
            let fresh = || Origin { source: host.to_string(), incarnation: "1".into(), seq: 0 };
            let origin = origins.entry(format!("{table}/{host}")).or_insert_with(fresh);
            let topic = format!("tidewatch.{table}");
            let partition = partition_of(host.as_bytes(), world.log.partitions(&topic).unwrap());
            for record in encode_split(table, origin, &part).unwrap() {
                while world.log.append(&topic, partition, std::slice::from_ref(&record)).is_err() {}
            }
        }
    }
}

fn engine(world: &mut World, coordinator: Option<&Arc<Mutex<Coordinator>>>, now: Timestamp) -> (u64, Stations) {
    let parts = world.parts(compiled(&format!("{RULES}{WIDE}"), 7), true);
    let id = world.lives;
    let division = match coordinator {
        None => Division::Alone,
        Some(coordinator) => {
            coordinator.lock().unwrap().news.insert(id, vec![]);
            let membership = Box::new(Member { id, coordinator: coordinator.clone() });
            Division::Group { membership, shares: SHARES }
        }
    };
    (id, Stations::open(parts, division, now).unwrap())
}

/// Plays the fleet through one engine, or with a seed through a group that is never left in peace.
fn play(seed: Option<u64>) -> World {
    println!("seed {seed:?}");
    let mut world = World::new(true);
    assert_eq!(shares(world.log.as_ref(), SHARES).unwrap(), SHARES);
    let coordinator = Arc::new(Mutex::new(Coordinator::default()));
    let group = seed.map(|_| &coordinator);
    let random = SeededRandom::new(seed.unwrap_or(0));
    let chance = |share: f64| seed.is_some() && random.unit() < share;
    let mut now = start();
    let mut engines = vec![engine(&mut world, group, now)];
    let mut paused: BTreeMap<u64, u32> = BTreeMap::new();
    let begin = engines[0].0;
    (0..=SHARES).for_each(|key| coordinator.lock().unwrap().give(key, begin));
    let mut fleet = fleet();
    let mut origins = BTreeMap::new();
    while let Some(tick) = fleet.next_tick() {
        now = tick.ts + Span::millis(100);
        append(&world, &tick.batches, &mut origins);
        if chance(0.04) {
            world.log.fail_appends(vec![std::io::ErrorKind::StorageFull; 2]);
        }
        if engines.len() < 3 && chance(0.1) {
            engines.push(engine(&mut world, group, now));
        }
        if engines.len() > 1 && chance(0.04) {
            // Killed: nothing is closed.
            let (id, stations) = engines.remove((random.next_u64() % engines.len() as u64) as usize);
            drop(stations);
            coordinator.lock().unwrap().leave(id);
        }
        if engines.len() > 1 && chance(0.03) {
            let (id, mut stations) = engines.remove(0);
            drop(stations.close(now));
            coordinator.lock().unwrap().leave(id);
        }
        if chance(0.35) {
            let to = engines[(random.next_u64() % engines.len() as u64) as usize].0;
            coordinator.lock().unwrap().move_to((random.next_u64() % u64::from(SHARES + 1)) as u32, to, None);
        }
        if engines.len() > 1 && chance(0.05) {
            // One is stopped, its parts go to another, and it goes on without knowing for a few steps.
            let (id, heir) = (engines[0].0, engines[1].0);
            paused.insert(id, (random.next_u64() % 8) as u32);
            let mut coordinator = coordinator.lock().unwrap();
            let mine: Vec<u32> =
                coordinator.owners.iter().filter(|(_, owner)| **owner == id).map(|(key, _)| *key).collect();
            for key in mine {
                coordinator.move_to(key, heir, Some((random.next_u64() % 4) as u32));
            }
        }
        for (id, stations) in &mut engines {
            match paused.get_mut(id) {
                Some(left) if *left > 0 => *left -= 1,
                _ => drop(stations.step(now)),
            }
        }
    }
    for _ in 0..150 {
        now = now + Span::seconds(1);
        for (_, stations) in &mut engines {
            drop(stations.step(now));
        }
    }
    for (id, mut stations) in engines {
        (0..20).find(|_| stations.close(now).is_ok()).expect("closes");
        coordinator.lock().unwrap().leave(id);
    }
    // What the last ones wrote about alerts while they closed is read by whoever comes next.
    let (id, mut last) = engine(&mut world, group, now);
    (0..=SHARES).for_each(|key| coordinator.lock().unwrap().give(key, id));
    for _ in 0..10 {
        now = now + Span::seconds(1);
        drop(last.step(now));
    }
    last.close(now).unwrap();
    world
}

#[test]
fn handovers_and_zombies_change_nothing() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("TIDEWATCH_SEED", 1), number("TIDEWATCH_SEEDS", 3));
    let expected = play(None);
    let transitions: BTreeSet<String> = expected.transitions().into_iter().collect();
    assert!(transitions.iter().any(|line| line.contains(" job_hot ")) && transitions.len() >= 12, "{transitions:#?}");
    for seed in first..first + count {
        let found = play(Some(seed));
        for table in ["gpu", "gpu_event", "train_step"] {
            assert_eq!(found.stored(table), expected.stored(table), "seed {seed}: rows of {table}, each once");
        }
        // A duplicate, which only a zombie makes, has the same id.
        let told: BTreeSet<String> = found.transitions().into_iter().collect();
        assert_eq!(told, transitions, "seed {seed}: every transition");
        assert_eq!(told_of(&found), told_of(&expected), "seed {seed}: who was told");
        let report = verify(found.store.as_ref()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "seed {seed}");
        assert!(found.log.range(ENGINE_TOPIC, 0).unwrap().end > 3, "seed {seed}: parts went from one to the other");
    }
}
