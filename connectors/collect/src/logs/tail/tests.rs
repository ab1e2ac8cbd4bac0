//! Files that are written to, rotated, emptied and removed while they are read, and a reader that dies: nothing is lost, and without a death
//! nothing comes twice.

mod container;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use tempfile::TempDir;

use super::super::kept;
use super::super::lines::PARTIAL_WAIT;
use super::follow::ROTATED_WAIT;
use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn append(path: &Path, text: &str) {
    File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A folder with `app.log`, and someone who reads what matches.
struct Bench {
    folder: TempDir,
    pattern: String,
    join: Join,
    container: Option<Container>,
    from: From,
    tailer: Option<Tailer>,
    kept: Option<Kept>,
    now: Timestamp,
}

impl Bench {
    fn new(pattern: &str, from: From) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let pattern = folder.path().join(pattern).display().to_string();
        Bench { folder, pattern, join: Join::Never, container: None, from, tailer: None, kept: None, now: NOW }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A pass so much later; the state is written down as a reader does.
    fn read(&mut self, later: Span) -> Vec<Read> {
        self.now = self.now + later;
        let tailer = self.tailer.get_or_insert_with(|| {
            let pattern = vec![self.pattern.clone()];
            Tailer::new(pattern, self.from, self.join.clone(), self.container, self.kept.clone())
        });
        tailer.confirm();
        let read = tailer.pass(self.now);
        // As it is after a way through its file.
        self.kept = Some(serde_json::from_str(&serde_json::to_string(&tailer.kept()).unwrap()).unwrap());
        read
    }

    fn texts(&mut self, later: Span) -> Vec<String> {
        self.read(later).into_iter().map(|read| read.entry.text).collect()
    }

    /// The process ends without a word.
    fn crash(&mut self) {
        self.tailer = None;
    }

    /// It ends after the log has everything.
    fn stop(&mut self) {
        if let Some(mut tailer) = self.tailer.take() {
            tailer.confirm();
            self.kept = Some(tailer.kept());
        }
    }

    fn problems(&mut self) -> Vec<String> {
        self.tailer.as_mut().unwrap().take_problems().0
    }
}

const SECOND: Span = Span::seconds(1);

#[test]
fn what_was_there_before_us_is_not_ours_and_what_comes_is() {
    let mut bench = Bench::new("*.log", From::End);
    append(&bench.path("old.log"), "old 1\nold 2 and a ha");
    assert_eq!(bench.texts(SECOND), Vec::<String>::new());
    append(&bench.path("old.log"), "lf\nold 3\n");
    append(&bench.path("new.log"), "new 1\nnew 2\n");
    append(&bench.path("new.log.gz"), "packed\n");
    assert_eq!(bench.texts(SECOND), ["old 3"]);
    assert_eq!(bench.texts(LOOK), ["new 1", "new 2"], "a file that came later, from its beginning");
    bench.stop();
    append(&bench.path("late.log"), "late 1\n");
    assert_eq!(bench.texts(SECOND), ["late 1"], "it came while nobody read");
    let mut bench = Bench::new("*.log", From::Start);
    append(&bench.path("old.log"), "old 1\n");
    assert_eq!(bench.texts(SECOND), ["old 1"]);
}

#[test]
fn a_file_that_is_renamed_is_read_to_its_end() {
    let mut bench = Bench::new("app.log", From::Start);
    append(&bench.path("app.log"), "1\n");
    assert_eq!(bench.texts(SECOND), ["1"]);
    std::fs::rename(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    append(&bench.path("app.log.1"), "2\n3");
    append(&bench.path("app.log"), "4\n");
    assert_eq!(bench.texts(LOOK), ["2", "4"]);
    append(&bench.path("app.log.1"), " and\n");
    assert_eq!(bench.texts(SECOND), ["3 and"], "its writer has it open still");
    append(&bench.path("app.log.1"), "5 without an end");
    assert!(bench.texts(SECOND).is_empty());
    assert_eq!(bench.texts(ROTATED_WAIT), ["5 without an end"]);
    bench.read(SECOND);
    assert_eq!(bench.tailer.as_mut().unwrap().files().len(), 1, "it is over");
    std::fs::remove_file(bench.path("app.log")).unwrap();
    (0..4).for_each(|_| drop(bench.read(LOOK)));
    assert!(bench.tailer.as_mut().unwrap().files().is_empty());
}

#[test]
fn a_file_that_was_rotated_while_nobody_read_is_found() {
    let mut bench = Bench::new("app.log", From::Start);
    append(&bench.path("app.log"), "1\n");
    bench.read(SECOND);
    bench.stop();
    append(&bench.path("app.log"), "2\n");
    std::fs::rename(bench.path("app.log"), bench.path("app.log-20260131")).unwrap();
    append(&bench.path("app.log"), "3\n");
    let mut texts = bench.texts(SECOND);
    texts.sort();
    assert_eq!(texts, ["2", "3"]);
    // Emptied after it was copied, and written to again, while nobody read.
    bench.stop();
    append(&bench.path("app.log"), "4\n");
    std::fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    std::fs::write(bench.path("app.log"), "5 is longer than all before\n").unwrap();
    let mut texts = bench.texts(SECOND);
    texts.sort();
    assert_eq!(texts, ["4", "5 is longer than all before"]);
}

#[test]
fn a_file_that_is_emptied_begins_anew_also_when_it_has_grown_beyond() {
    let mut bench = Bench::new("app.log*", From::Start);
    append(&bench.path("app.log"), "first line\n");
    assert_eq!(bench.texts(SECOND), ["first line"]);
    std::fs::write(bench.path("app.log"), "x\n").unwrap();
    assert_eq!(bench.texts(SECOND), ["x"]);
    std::fs::write(bench.path("app.log"), "another line that is longer\n").unwrap();
    assert_eq!(bench.texts(SECOND), ["another line that is longer"]);
    // A copy that another program makes before it empties the file: what was not read yet is in it.
    append(&bench.path("app.log"), "last words\n");
    std::fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    std::fs::write(bench.path("app.log"), "begin\n").unwrap();
    assert_eq!(bench.texts(SECOND), ["begin"]);
    assert_eq!(bench.texts(SECOND), ["last words"], "and nothing of the copy that was read before");
    assert_eq!(bench.texts(LOOK), Vec::<String>::new());
}

#[test]
fn a_partial_line_waits_and_a_backlog_is_taken_in_turns() {
    let mut bench = Bench::new("*.log", From::Start);
    append(&bench.path("a.log"), "half");
    assert!(bench.texts(SECOND).is_empty());
    assert!(bench.texts(PARTIAL_WAIT.min(Span::seconds(9))).is_empty());
    assert_eq!(bench.texts(SECOND), ["half"]);
    // Two files of 12 MiB: more than a pass.
    let line = format!("{}\n", "x".repeat(1_023));
    for name in ["b.log", "c.log"] {
        append(&bench.path(name), &line.repeat(12 << 10));
    }
    let mut counts = BTreeMap::new();
    let mut passes = 0;
    while counts.values().sum::<usize>() < 24 << 10 {
        let read = bench.read(LOOK);
        assert!(read.len() <= PASS_BYTES / 1_024);
        for read in &read {
            *counts.entry(read.file).or_insert(0) += 1;
        }
        passes += 1;
        assert!(passes <= 14, "{counts:?}");
        if passes == 3 {
            assert!(counts.values().all(|count| *count > 1_000) && counts.len() == 2, "each has its turn: {counts:?}");
        }
    }
    assert!(passes >= 4);
    assert!(bench.texts(SECOND).is_empty());
}

#[test]
fn more_files_than_may_be_open_are_all_read() {
    let mut bench = Bench::new("*.log", From::Start);
    let names: Vec<String> = (0..OPEN_FILES + 20).map(|number| format!("{number:03}.log")).collect();
    names.iter().for_each(|name| append(&bench.path(name), "1\n"));
    assert_eq!(bench.texts(SECOND).len(), names.len());
    let open =
        |bench: &mut Bench| bench.tailer.as_mut().unwrap().files().iter().filter(|file| file.file.is_some()).count();
    assert_eq!(open(&mut bench), OPEN_FILES);
    names.iter().for_each(|name| append(&bench.path(name), "2\n"));
    // One that is not open is rotated.
    std::fs::rename(bench.path("000.log"), bench.path("000.log.1")).unwrap();
    assert_eq!(bench.texts(SECOND).len(), names.len());
    assert_eq!(open(&mut bench), OPEN_FILES);
    assert_eq!(bench.problems(), Vec::<String>::new());
}

#[test]
fn after_a_crash_a_line_is_told_with_the_time_of_its_first_reading() {
    let mut bench = Bench::new("app.log", From::Start);
    append(&bench.path("app.log"), "1\n2\n");
    let first: Vec<Timestamp> = bench.read(SECOND).iter().map(|read| read.at).collect();
    bench.crash();
    append(&bench.path("app.log"), "3\n");
    let again: Vec<(String, Timestamp)> =
        (0..2).flat_map(|_| bench.read(SECOND)).map(|read| (read.entry.text, read.at)).collect();
    assert_eq!(again.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!((again[0].1, again[1].1), (first[0], first[1]));
    assert_eq!(again[2].1, NOW + Span::seconds(3));
}

#[test]
fn what_waits_in_a_file_without_envelopes_is_not_written_down_as_read() {
    let mut bench = Bench { join: Join::Traceback, ..Bench::new("app.log", From::Start) };
    let kept = |bench: &Bench| {
        let file = &bench.kept.as_ref().unwrap().files[0];
        (file.offset, file.ahead.map(|ahead| ahead.until), file.spots)
    };
    append(&bench.path("app.log"), "1\n");
    assert_eq!(bench.texts(Span::millis(1)), Vec::<String>::new());
    assert_eq!(kept(&bench), (0, None, None));
    append(&bench.path("app.log"), "2\n");
    assert_eq!(bench.texts(Span::millis(1)), ["1"]);
    assert_eq!(kept(&bench), (0, Some(2), None), "2 may yet be followed");
    bench.stop();
    assert_eq!(kept(&bench), (2, None, None));
}

#[test]
fn a_state_that_is_damaged_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.state");
    assert_eq!(kept::read(&path), Ok(None));
    std::fs::write(&path, "{\"files\": [").unwrap();
    assert!(kept::read(&path).unwrap_err().contains("x.state: EOF"));
    kept::write(&path, "{}").unwrap();
    assert_eq!(kept::read(&path), Ok(Some(Kept::default())));
}

/// A random number generator that is the same everywhere: xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What was written and what came of it.
struct World {
    bench: Bench,
    dice: Dice,
    seed: u64,
    /// Says what it does.
    is_loud: bool,
    /// Whether the pattern fits rotated files too.
    is_wide: bool,
    is_up: bool,
    deaths: usize,
    /// The lines of each generation of `app.log`.
    written: BTreeMap<u64, u64>,
    generation: u64,
    rotations: u64,
    /// Rotations since somebody read.
    unseen: u64,
    /// Emptied since somebody read: whoever copies it then copies a file that nobody knows.
    is_emptied: bool,
    /// Lines that nobody can read any more.
    lost: BTreeSet<(u64, u64)>,
    arrived: BTreeMap<(u64, u64), usize>,
    newest: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let is_wide = dice.roll(2) == 0;
        let mut bench = Bench::new(if is_wide { "app.log*" } else { "app.log" }, From::Start);
        if dice.roll(2) == 0 {
            bench.join = Join::Traceback;
        }
        World {
            bench,
            dice,
            seed,
            is_loud: false,
            is_wide,
            is_up: true,
            deaths: 0,
            written: BTreeMap::new(),
            generation: 0,
            rotations: 0,
            unseen: 0,
            is_emptied: false,
            lost: BTreeSet::new(),
            arrived: BTreeMap::new(),
            newest: BTreeMap::new(),
        }
    }

    fn live(&self) -> PathBuf {
        self.bench.path("app.log")
    }

    fn write(&mut self) {
        for _ in 0..=self.dice.roll(5) {
            let line = self.written.entry(self.generation).or_insert(0);
            *line += 1;
            let pad = "p".repeat(self.dice.roll(300) as usize);
            let text = format!("G{} L{line} {}{pad}\n", self.generation, self.dice.roll(1 << 30));
            let half = self.dice.roll(text.len() as u64) as usize;
            append(&self.live(), &text[..half]);
            if self.dice.roll(4) == 0 {
                self.pass();
            }
            append(&self.live(), &text[half..]);
        }
    }

    fn pass(&mut self) {
        if !self.is_up {
            return;
        }
        let later = Span::millis(200 + self.dice.roll(2_500) as i64);
        let read = self.bench.read(later);
        assert_eq!(self.bench.problems(), Vec::<String>::new(), "seed {}", self.seed);
        // It may die before the log has them.
        if self.dice.roll(40) == 0 && self.deaths > 0 {
            self.bench.crash();
            return;
        }
        self.arrive(read);
    }

    fn arrive(&mut self, read: Vec<Read>) {
        for read in read {
            let mut words = read.entry.text.split(' ');
            let number = |word: Option<&str>| word.and_then(|word| word.get(1..)?.parse::<u64>().ok());
            let (Some(generation), Some(line)) = (number(words.next()), number(words.next())) else {
                panic!("seed {}: '{}' was not written", self.seed, read.entry.text);
            };
            let is_first = !self.arrived.contains_key(&(generation, line));
            *self.arrived.entry((generation, line)).or_insert(0) += 1;
            if is_first {
                let before = self.newest.insert(generation, line).unwrap_or(0);
                assert!(before < line, "seed {}: {line} of {generation} after {before}", self.seed);
            }
        }
    }

    /// So long that every file was looked for.
    fn settle(&mut self) {
        for _ in 0..12 {
            if self.is_up {
                let read = self.bench.read(SECOND);
                self.arrive(read);
            }
        }
        if self.is_up {
            (self.unseen, self.is_emptied) = (0, false);
        }
    }

    /// Before a file goes where a narrow pattern does not see it, it must have been seen; and something of it, before it is copied.
    fn may_rotate(&mut self, by_copy: bool) -> bool {
        if !self.live().exists() {
            return false;
        }
        self.settle();
        self.unseen += 1;
        let live = FileId::of(&std::fs::metadata(self.live()).unwrap());
        let knows = |file: &KeptFile| file.id == live && !file.ended && !(by_copy && file.head.is_empty());
        let is_known = || self.bench.kept.iter().flat_map(|kept| &kept.files).any(knows);
        self.is_wide || self.is_up || (self.unseen <= 1 && is_known())
    }

    fn next_generation(&mut self) -> PathBuf {
        self.generation += 1;
        self.rotations += 1;
        self.bench.path(&format!("app.log.{}", self.rotations))
    }

    fn step(&mut self) {
        let roll = self.dice.roll(20);
        if self.is_loud {
            println!("{} {roll} generation {} up {}", self.bench.now, self.generation, self.is_up);
        }
        match roll {
            0..=8 => self.write(),
            9..=13 => self.pass(),
            14 => {
                if self.may_rotate(false) {
                    let to = self.next_generation();
                    std::fs::rename(self.live(), to).unwrap();
                }
            }
            15 => {
                if (self.is_wide || self.is_up || !self.is_emptied) && self.may_rotate(true) {
                    let to = self.next_generation();
                    std::fs::copy(self.live(), to).unwrap();
                    File::create(self.live()).unwrap();
                }
            }
            16 => {
                // Emptied without a copy: what did not arrive is lost.
                let all = 1..=self.written.get(&self.generation).copied().unwrap_or(0);
                let lines = all.map(|line| (self.generation, line));
                self.lost.extend(lines.filter(|line| !self.arrived.contains_key(line)));
                self.generation += 1;
                self.is_emptied = true;
                if self.live().exists() {
                    File::create(self.live()).unwrap();
                }
            }
            17 if self.is_up => {
                self.settle();
                for number in 1..=self.rotations {
                    drop(std::fs::remove_file(self.bench.path(&format!("app.log.{number}"))));
                }
            }
            18 if !self.seed.is_multiple_of(3) => {
                self.deaths += 1;
                match self.dice.roll(3) {
                    0 => self.bench.crash(),
                    _ => self.bench.stop(),
                }
                self.is_up = false;
            }
            _ => self.is_up = true,
        }
    }

    fn check(mut self) {
        self.is_up = true;
        self.settle();
        self.settle();
        let seed = self.seed;
        for (generation, lines) in &self.written {
            for line in (1..=*lines).map(|line| (*generation, line)) {
                let count = self.arrived.get(&line).copied().unwrap_or(0);
                assert!(count > 0 || self.lost.contains(&line), "seed {seed}: {line:?} did not arrive");
                assert!(count <= 1 || self.deaths > 0, "seed {seed}: {line:?} came {count} times");
            }
        }
    }
}

#[test]
fn every_line_arrives_whatever_is_done_to_its_file() {
    // TIDEWATCH_SEED=7 plays one of them, and TIDEWATCH_SEEDS=10000 so many.
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("TIDEWATCH_SEED");
    let seeds = one.map_or(0..number("TIDEWATCH_SEEDS").unwrap_or(300), |seed| seed..seed + 1);
    let (mut lines, mut twice) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        world.is_loud = one.is_some();
        (0..60).for_each(|_| world.step());
        lines += world.arrived.len();
        twice += world.arrived.values().filter(|count| **count > 1).count();
        world.check();
    }
    println!("{lines} lines, {twice} of them more than once");
}
