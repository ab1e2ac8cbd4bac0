//! The protocol among processes that die, sleep and lose answers. Two writers, two settlers, two janitors and a reader do what
//! they do in production, each on a thread of its own, and one of them at a time makes one call of the store: a seed says who.
//! Between calls, what lies in the store is looked at. What the protocol forbids is then left out piece by piece, and must be found.
//!
//! The design was checked as a model before; here the code itself runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tidewatch_model::ports::{Created, Random, Store, StoreError};
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::{Span, Timestamp};

use crate::claim::{Compaction, SettledFile};
use crate::ls::entries;
use crate::tests::{batch, numbers};
use crate::view::View;
use crate::*;
use crate::{chain, layout, parquet_files};

const TOPIC: &str = "tidewatch.host";
const GRACE: Span = Span::hours(2);

/// A piece of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// That somebody's entry is there is taken for one's own success.
    ExistsIsSuccess,
    /// Settlers don't see each other's claims.
    NoClaim,
    /// Settlers don't see each other's compactions.
    NoCompaction,
    /// Nobody but the janitor knows of floors.
    NoFloor,
    /// A writer does not look at the floor after it has committed.
    NoSecondLook,
    /// Files that were replaced are deleted at once.
    NoGrace,
}

/// What an actor is told when it asks for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Go,
    FailBefore,
    FailAfter,
    Die,
    End,
}

/// One actor's way to the store.
struct Door {
    inner: Arc<ScriptedStore>,
    actor: usize,
    role: Role,
    broken: Option<Broken>,
    /// Says who asks, and whether it is about to create something: the worst moment to fall asleep.
    asks: Sender<(usize, bool)>,
    answers: Mutex<Receiver<Turn>>,
    /// Dead: whatever it calls fails, until it is born again.
    is_dead: AtomicBool,
    is_over: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Writer,
    Settler,
    Janitor,
    Reader,
}

const ROLES: [Role; 7] =
    [Role::Writer, Role::Writer, Role::Settler, Role::Settler, Role::Janitor, Role::Janitor, Role::Reader];

impl Door {
    /// Waits for a turn; an error when the call is to fail before anything happened.
    fn turn(&self, path: &str, creates: bool) -> Result<Turn, StoreError> {
        let failed = || StoreError::Io { path: path.to_string(), source: std::io::Error::other("simulated") };
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(failed());
        }
        self.asks.send((self.actor, creates)).unwrap();
        let turn = self.answers.lock().unwrap().recv().unwrap();
        if matches!(turn, Turn::Die | Turn::End) {
            self.is_dead.store(true, Ordering::SeqCst);
            self.is_over.store(turn == Turn::End, Ordering::SeqCst);
        }
        if matches!(turn, Turn::Go | Turn::FailAfter) { Ok(turn) } else { Err(failed()) }
    }

    /// Lives again; false when the simulation is over.
    fn lives_again(&self) -> bool {
        self.is_dead.store(false, Ordering::SeqCst);
        !self.is_over.load(Ordering::SeqCst)
    }

    /// Where this actor finds something.
    fn seen(&self, path: &str) -> String {
        let hidden = match self.broken {
            Some(Broken::NoClaim) => layout::SETTLE,
            Some(Broken::NoCompaction) => layout::COMPACT,
            _ => return path.to_string(),
        };
        match (self.role, path.strip_prefix(hidden)) {
            (Role::Settler, Some(rest)) => format!("own-{}/{rest}", self.actor),
            _ => path.to_string(),
        }
    }

    fn hides(&self, prefix: &str, path: &str) -> bool {
        layout::is_floor(path)
            && match self.broken {
                Some(Broken::NoFloor) => self.role != Role::Janitor,
                Some(Broken::NoSecondLook) => self.role == Role::Writer && layout::is_floor(prefix),
                _ => false,
            }
    }
}

impl Store for Door {
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Created, StoreError> {
        let turn = self.turn(path, true)?;
        let created = self.inner.create(&self.seen(path), bytes)?;
        if turn == Turn::FailAfter {
            return Err(StoreError::Io { path: path.to_string(), source: std::io::Error::other("answer lost") });
        }
        let is_entry = path.starts_with(layout::LOG) && !layout::is_floor(path);
        if self.broken == Some(Broken::ExistsIsSuccess) && is_entry {
            return Ok(Created::Now);
        }
        Ok(created)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.turn(path, false)?;
        self.inner.get(&self.seen(path))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.turn(prefix, false)?;
        let seen = self.seen(prefix);
        let listed = self.inner.list(&seen)?.into_iter().filter(|(path, _)| !self.hides(prefix, path));
        Ok(listed.map(|(path, bytes)| (path.replacen(&seen, prefix, 1), bytes)).collect())
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.turn(path, false)?;
        self.inner.delete(&self.seen(path))
    }

    fn local_path(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

/// What all actors share.
struct World {
    log: Vec<Vec<(i64, usize)>>,
    now: AtomicI64,
    /// How far each writer believes that its rows are committed.
    believed: [AtomicU64; 2],
    /// Since when a question is under way; nothing it needs may be deleted within the grace.
    asked: AtomicI64,
    /// What should not have been.
    wrong: Mutex<Vec<String>>,
    /// The rows of files that were read: they never change.
    read: Mutex<HashMap<String, Vec<usize>>>,
}

impl World {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn wrong(&self, problem: String) {
        self.wrong.lock().unwrap().push(problem);
    }

    fn rows(&self, records: std::ops::Range<usize>) -> usize {
        self.log[records].iter().map(Vec::len).sum()
    }
}

fn options() -> LakeOptions {
    LakeOptions { window: Span::minutes(15), ..LakeOptions::default() }
}

fn write(world: &World, door: &Arc<Door>, random: &Arc<SeededRandom>, kept: &KeptRows) -> Result<(), LakeError> {
    let believed = &world.believed[door.actor];
    let mut writer = LakeWriter::new(door.clone(), random.clone(), options()).with_kept(Some(kept.clone()));
    let mut next = writer.position(TOPIC, 0)? as usize;
    believed.store(next as u64, Ordering::SeqCst);
    loop {
        let now = world.now();
        let end = world.log.len().min(next + 1 + random.next_u64() as usize % 3);
        for offset in next..end {
            writer.rows(TOPIC, 0, "host", &batch(&world.log[offset], world.rows(0..offset)))?;
            let counts = Counts { records: 1, ..Counts::default() };
            writer.advance(TOPIC, 0, &Progress { next: offset as u64 + 1, counts, sources: vec![] }, now)?;
        }
        next = end;
        match writer.flush(now) {
            Ok(_) => believed.store(next as u64, Ordering::SeqCst),
            // A store that fails is asked again, unless it is we who are dead.
            Err(LakeError::Store(_)) if !door.is_dead.load(Ordering::SeqCst) => {}
            Err(error) => return Err(error),
        }
        if next == world.log.len() {
            // Nothing to do is a turn as well.
            door.list("nothing/")?;
        }
    }
}

fn ask(world: &World, door: &Arc<Door>) -> Result<(), LakeError> {
    world.asked.store(world.now().0, Ordering::SeqCst);
    let mut view = View::default();
    view.refresh(door.as_ref())?;
    let files: Vec<String> = entries(&view, true).into_iter().map(|file| file.path).collect();
    let mut found = Vec::new();
    for path in &files {
        match door.get(path) {
            Err(StoreError::NotFound(path)) => world.wrong(format!("a question misses {path}")),
            bytes => found.extend(numbers(&parquet_files::from_bytes(path, bytes?)?)),
        }
    }
    found.sort_unstable();
    let unique: BTreeSet<usize> = found.iter().copied().collect();
    if unique.len() != found.len() {
        world.wrong(format!("a question finds rows twice: {found:?}"));
    }
    Ok(())
}

/// Everything that an actor does, until the end.
fn act(world: &World, door: &Arc<Door>, seed: u64, kept: &KeptRows) {
    let random = Arc::new(SeededRandom::new(seed));
    let grace = if door.broken == Some(Broken::NoGrace) { Span::ZERO } else { GRACE };
    while door.lives_again() {
        let mut settler = Settler::new(door.clone(), SettleOptions::default()).with_kept(Some(kept.clone()));
        let mut janitor = Janitor::new(door.clone(), JanitorOptions { grace, retention: None });
        let ended = loop {
            let work = match door.role {
                Role::Writer => write(world, door, &random, kept),
                Role::Settler => settler.run(world.now(), random.next_u64().is_multiple_of(4)).map(drop),
                Role::Janitor => janitor.run(world.now()).map(drop),
                Role::Reader => ask(world, door),
            };
            if door.is_dead.load(Ordering::SeqCst) || matches!(work, Err(LakeError::Fenced { .. })) {
                break work;
            }
            if work.is_err() && !matches!(work, Err(LakeError::Store(StoreError::Io { .. }))) {
                break work;
            }
        };
        match ended {
            Err(LakeError::Damaged { path, problem }) => world.wrong(format!("{:?}: {path}: {problem}", door.role)),
            Err(LakeError::Store(StoreError::NotFound(path))) => {
                world.wrong(format!("{:?}: {path} is gone", door.role))
            }
            _ => {}
        }
        if door.role == Role::Reader {
            world.asked.store(i64::MAX, Ordering::SeqCst);
        }
    }
}

/// Looks at what lies in the store: every committed row once, in the tables and in a plain listing.
fn inspect(world: &World, store: &Arc<ScriptedStore>) {
    let committed = chain::newest(store.as_ref(), TOPIC, 0).unwrap().map_or(0, |entry| entry.to) as usize;
    for believed in &world.believed {
        let believed = believed.load(Ordering::SeqCst) as usize;
        if believed > committed {
            world.wrong(format!("a writer believes in {believed} records, the chain has {committed}"));
        }
    }
    let expected: Vec<usize> = (0..world.rows(0..committed)).collect();
    let read = |paths: Vec<String>| {
        let mut known = world.read.lock().unwrap();
        let rows = |path: &String| match known.get(path) {
            Some(rows) => rows.clone(),
            None => {
                let Ok(bytes) = store.get(path) else { return vec![usize::MAX] };
                let rows = numbers(&parquet_files::from_bytes(path, bytes).unwrap());
                known.insert(path.clone(), rows.clone());
                rows
            }
        };
        let mut rows: Vec<usize> = paths.iter().flat_map(rows).collect();
        rows.sort_unstable();
        rows
    };
    let files = ls(store.as_ref(), Some("host"), None, None, true).unwrap();
    let lying: BTreeSet<String> = [layout::PUBLIC, layout::SETTLED, layout::HOT]
        .iter()
        .flat_map(|root| store.list(root).unwrap())
        .map(|(path, _)| path)
        .collect();
    for missing in files.iter().filter(|file| !lying.contains(&file.path)) {
        world.wrong(format!("{} is missing", missing.path));
    }
    let found = read(files.into_iter().map(|file| file.path).collect());
    if found != expected {
        world.wrong(format!("{} rows expected: {found:?}", expected.len()));
    }
    let found = read(store.list(layout::PUBLIC).unwrap().into_iter().map(|(path, _)| path).collect());
    if found.iter().collect::<BTreeSet<_>>().len() != found.len() {
        world.wrong(format!("rows lie twice in public files: {found:?}"));
    }
}

/// Plays one seed; what went wrong, and how far the chain was cut off.
fn play(seed: u64, broken: Option<Broken>, steps: usize) -> (Vec<String>, u64) {
    let random = SeededRandom::new(seed);
    let below = |bound: u64| random.next_u64() % bound;
    let log = (0..30).map(|record| (0..below(3)).map(|_| (record * 60 + below(400) as i64, 1)).collect()).collect();
    let world = Arc::new(World {
        log,
        now: AtomicI64::new(0),
        believed: Default::default(),
        asked: AtomicI64::new(i64::MAX),
        wrong: Mutex::default(),
        read: Mutex::default(),
    });
    let store = Arc::new(ScriptedStore::default());
    let (asks, asked) = channel();
    let processes = [KeptRows::default(), KeptRows::default()];
    let mut doors = Vec::new();
    let mut threads = Vec::new();
    for (actor, role) in ROLES.into_iter().enumerate() {
        let (answer, answers) = channel();
        let door = Arc::new(Door {
            inner: store.clone(),
            actor,
            role,
            broken,
            asks: asks.clone(),
            answers: Mutex::new(answers),
            is_dead: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let (world, kept) = (world.clone(), processes[actor % 2].clone());
        threads.push(std::thread::spawn(move || act(&world, &door, seed * 31 + actor as u64, &kept)));
        doors.push(answer);
    }
    // Everybody stands at the door before anybody goes in.
    let mut asleep = [0u64; ROLES.len()];
    for _ in ROLES {
        asked.recv().unwrap();
    }
    for step in 0..steps as u64 {
        let awake: Vec<usize> = (0..ROLES.len()).filter(|actor| asleep[*actor] <= step).collect();
        if awake.is_empty() {
            continue;
        }
        let actor = awake[below(awake.len() as u64) as usize];
        let turn = match below(400) {
            0 => Turn::FailBefore,
            1 => Turn::FailAfter,
            2 => Turn::Die,
            _ => Turn::Go,
        };
        doors[actor].send(turn).unwrap();
        let (_, creates) = asked.recv().unwrap();
        // Whoever sleeps while the world goes on is what all the care is for.
        if below(if creates { 12 } else { 120 }) == 0 {
            asleep[actor] = step + below(steps as u64 * 3 / 4);
        }
        if below(40) == 0 {
            let limit = world.asked.load(Ordering::SeqCst).saturating_add(GRACE.0 - 1);
            let later = world.now().0 + below(3 * 3_600) as i64 * 1_000_000;
            world.now.store(later.min(limit), Ordering::SeqCst);
        }
        if step % 10 == 0 {
            inspect(&world, &store);
        }
        if !world.wrong.lock().unwrap().is_empty() {
            break;
        }
    }
    for (actor, door) in doors.iter().enumerate() {
        door.send(Turn::End).unwrap();
        threads.remove(0).join().unwrap_or_else(|_| panic!("actor {actor}"));
    }
    let mut wrong = std::mem::take(&mut *world.wrong.lock().unwrap());
    let floor = chain::floor(store.as_ref(), &layout::chain_folder(TOPIC, 0)).unwrap();
    if wrong.is_empty() {
        finish(&world, &store);
        wrong = std::mem::take(&mut *world.wrong.lock().unwrap());
    }
    (wrong, floor)
}

/// Afterwards one process does what is left: everything is settled, and nothing but public files and one entry remains.
fn finish(world: &World, store: &Arc<ScriptedStore>) {
    let mut writer = LakeWriter::new(store.clone(), Arc::new(SeededRandom::new(1)), options());
    let start = writer.position(TOPIC, 0).unwrap() as usize;
    for offset in start..world.log.len() {
        writer.rows(TOPIC, 0, "host", &batch(&world.log[offset], world.rows(0..offset))).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        let progress = Progress { next: offset as u64 + 1, counts, sources: vec![] };
        writer.advance(TOPIC, 0, &progress, world.now()).unwrap();
    }
    writer.flush(world.now()).unwrap();
    let mut settler = Settler::new(store.clone(), SettleOptions::default());
    let report = settler.run(world.now(), true).unwrap();
    if !report.problems.is_empty() {
        world.wrong(format!("{report:?}"));
    }
    let mut janitor = Janitor::new(store.clone(), JanitorOptions { grace: GRACE, retention: None });
    for round in 1..=4 {
        inspect(world, store);
        for problem in verify(store.as_ref()).unwrap().problems {
            world.wrong(problem);
        }
        janitor.run(world.now() + Span::hours(3 * round)).unwrap();
    }
    let hot = store.list(layout::HOT).unwrap().len() + store.list(layout::SETTLED).unwrap().len();
    let mut view = View::default();
    view.refresh(store.as_ref()).unwrap();
    let claim = |input: &SettledFile| layout::claim(&input.table, input.window_start, input.window, input.generation);
    // The newest entry stays, and so does what was made of it.
    let is_needed = |made: &&Compaction| {
        let claims = made.inputs().map(|input| &view.claims[&claim(input)]);
        claims.flat_map(|claim| &claim.inputs).any(|input| !view.is_trimmed(input))
    };
    let needed: Vec<&Compaction> = view.compactions.values().filter(is_needed).collect();
    let claims = needed.iter().map(|made| made.inputs().count()).sum::<usize>();
    let entries = store.list(&layout::chain_folder(TOPIC, 0)).unwrap();
    let entries = entries.iter().filter(|(path, _)| !layout::is_floor(path)).count();
    if hot > 0 || entries > 1 || view.compactions.len() > needed.len() || view.claims.len() > claims {
        world.wrong(format!(
            "{hot} private files, {entries} entries, {} compactions and {} claims are left, {} and {claims} are needed",
            view.compactions.len(),
            view.claims.len(),
            needed.len()
        ));
    }
}

fn seeds(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_is_lost_and_nothing_is_twice() {
    let mut trimmed = 0;
    let first = seeds("TIDEWATCH_SEED", 0);
    for seed in first..first + seeds("TIDEWATCH_SEEDS", 30) {
        let (wrong, floor) = play(seed, None, 1_500);
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
        trimmed += u64::from(floor > 0);
    }
    assert!(trimmed > 0, "chains were cut off");
}

/// Each variant must be found, from a seed on that was seen to find it soon.
#[test]
fn whatever_is_left_out_is_found() {
    let variants = [
        (Broken::ExistsIsSuccess, 0),
        (Broken::NoClaim, 0),
        (Broken::NoCompaction, 0),
        (Broken::NoFloor, 0),
        (Broken::NoSecondLook, 25),
        (Broken::NoGrace, 0),
    ];
    for (broken, first) in variants {
        let found = (first..first + 600).find_map(|seed| {
            let (wrong, _) = play(seed, Some(broken), 2_000);
            wrong.into_iter().next().map(|problem| (seed, problem))
        });
        let (seed, problem) = found.unwrap_or_else(|| panic!("{broken:?} was not found"));
        eprintln!("{broken:?}: seed {seed}: {problem}");
    }
}
