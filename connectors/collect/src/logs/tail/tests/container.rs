//! The same of what containers write: two streams in one file, and lines in parts.

use super::*;
use crate::logs::container::Stream;

fn bench(pattern: &str) -> Bench {
    Bench { container: Some(Container::Cri), ..Bench::new(pattern, From::Start) }
}

/// A line of the file; the time tells them apart.
fn cri(second: u64, stream: &str, tag: &str, text: &str) -> String {
    format!("2027-01-15T08:00:{:02}.000000001Z {stream} {tag} {text}\n", second % 60)
}

/// What was read, with its stream and second.
fn shown(read: Vec<Read>) -> Vec<(Stream, i64, String)> {
    let second = |ts: Timestamp| (ts.0 - NOW.0) / 1_000_000;
    read.into_iter().map(|read| (read.entry.stream, read.entry.ts.map_or(-1, second), read.entry.text)).collect()
}

fn of(stream: Stream, second: i64, text: &str) -> (Stream, i64, String) {
    (stream, second, text.to_string())
}

use Stream::{Bare, Stderr, Stdout};

#[test]
fn parts_are_one_line_of_their_stream() {
    let mut bench = bench("0.log");
    let text = [
        cri(1, "stdout", "P", "one "),
        cri(2, "stderr", "F", "other"),
        cri(3, "stdout", "P:x", "and "),
        cri(4, "stdout", "F", "two"),
        "no envelope\n".to_string(),
        cri(5, "stderr", "F", ""),
    ];
    append(&bench.path("0.log"), &text.concat());
    assert_eq!(
        shown(bench.read(SECOND)),
        [of(Stderr, 2, "other"), of(Stdout, 1, "one and two"), of(Bare, -1, "no envelope"), of(Stderr, 5, "")]
    );
    assert_eq!(bench.tailer.as_mut().unwrap().take_problems().1, OddLines { bare: 1, ..OddLines::default() });
    // A part ends within a sequence that colours, another within a character.
    let mut file = File::options().append(true).open(bench.path("0.log")).unwrap();
    for (tag, bytes) in [("P", b"\x1b[".as_slice()), ("P", b"1m\xC3"), ("F", b"\xA9 red\x1b[0m")] {
        assert!(bench.read(SECOND).is_empty());
        let envelope = cri(6, "stdout", tag, "");
        file.write_all(&[envelope.trim_end_matches('\n').as_bytes(), bytes, b"\n"].concat()).unwrap();
    }
    assert_eq!(shown(bench.read(SECOND)), [of(Stdout, 6, "é red")]);
    assert_eq!(bench.tailer.as_mut().unwrap().take_problems().1, OddLines::default());
}

#[test]
fn a_traceback_goes_on_behind_lines_of_the_other_stream() {
    let mut bench = bench("0.log");
    bench.join = Join::Traceback;
    let lines = [
        ("stderr", "ERROR could not save"),
        ("stderr", "Traceback (most recent call last):"),
        ("stdout", "step 1"),
        ("stderr", "  File \"a.py\", line 1"),
        ("stdout", "step 2"),
        ("stderr", "OSError: no space"),
        ("stderr", "INFO next"),
    ];
    let text = lines.iter().zip(1..).map(|((stream, text), second)| cri(second, stream, "F", text));
    append(&bench.path("0.log"), &text.collect::<String>());
    let mut read = bench.read(SECOND);
    read.extend(bench.read(SECOND));
    let read = shown(read);
    assert!(read.contains(&of(Stdout, 3, "step 1")) && read.contains(&of(Stderr, 7, "INFO next")), "{read:?}");
    let error = read.iter().find(|(_, second, _)| *second == 1).unwrap();
    assert_eq!(error.2.lines().count(), 4, "{error:?}");
}

#[test]
fn a_part_without_an_end_is_bounded_and_waits_like_half_a_line() {
    let mut bench = bench("0.log*");
    append(&bench.path("0.log"), &cri(1, "stdout", "P", "half"));
    assert!(bench.texts(SECOND).is_empty());
    append(&bench.path("0.log"), &cri(2, "stderr", "F", "other"));
    assert_eq!(bench.texts(Span::seconds(8)), ["other"]);
    assert_eq!(bench.texts(Span::seconds(2)), ["half"]);
    bench.stop();
    append(&bench.path("0.log"), &cri(3, "stdout", "F", "rest"));
    assert_eq!(bench.texts(SECOND), ["rest"], "what was given is not read again");
    // Its end is in the next file.
    append(&bench.path("0.log"), &cri(4, "stdout", "P", "before"));
    assert!(bench.texts(SECOND).is_empty());
    std::fs::rename(bench.path("0.log"), bench.path("0.log.20270115-080004")).unwrap();
    append(&bench.path("0.log"), &cri(5, "stdout", "F", "behind"));
    assert_eq!(bench.texts(LOOK), ["behind"]);
    assert_eq!(bench.texts(PARTIAL_WAIT), ["before"]);
    // Of half an envelope nobody knows what it is.
    let whole = cri(6, "stdout", "F", "whole");
    append(&bench.path("0.log"), &whole[..40]);
    assert!(bench.texts(SECOND).is_empty() && bench.texts(PARTIAL_WAIT).is_empty());
    append(&bench.path("0.log"), &whole[40..]);
    assert_eq!(bench.texts(SECOND), ["whole"]);
    let parts = 100;
    let text = cri(6, "stdout", "P", &"x".repeat(4_096)).repeat(parts) + &cri(7, "stdout", "F", "end");
    append(&bench.path("0.log"), &(text + &cri(8, "stdout", "F", "next")));
    let read = bench.texts(SECOND);
    assert_eq!((read.len(), read[0].len(), read[1].as_str()), (2, 64 << 10, "next"));
    assert_eq!(bench.tailer.as_mut().unwrap().take_problems().1, OddLines { cut: 1, ..OddLines::default() });
}

#[test]
fn a_progress_bar_within_a_line_is_read_on_in_its_middle() {
    let mut bench = bench("0.log");
    bench.join = Join::Traceback;
    append(&bench.path("0.log"), &cri(1, "stderr", "P", "10%\r20%\r3"));
    let transient =
        |read: Vec<Read>| read.into_iter().map(|read| (read.entry.text, read.entry.transient)).collect::<Vec<_>>();
    assert_eq!(transient(bench.read(SECOND)), [("10%".to_string(), true)], "the last waits for what overwrites it");
    assert_eq!(transient(bench.read(SECOND)), [("20%".to_string(), true)]);
    append(&bench.path("0.log"), &cri(2, "stdout", "F", "loss 1"));
    bench.read(SECOND);
    assert_eq!(bench.texts(SECOND), ["loss 1"]);
    bench.stop();
    append(&bench.path("0.log"), &cri(3, "stderr", "F", "0%\rdone"));
    assert_eq!(transient(bench.read(SECOND)), [("30%".to_string(), true)]);
    assert_eq!(transient(bench.read(SECOND)), [("done".to_string(), false)]);
    assert!(bench.texts(SECOND).is_empty());
}

/// A line of a stream and its parts: `[generation.stream.line.part]` and something behind it.
type Part = (u64, u64, u64, u64);

/// What was written and what came of it.
struct World {
    bench: Bench,
    dice: Dice,
    seed: u64,
    is_wide: bool,
    is_up: bool,
    crashes: usize,
    generation: u64,
    rotations: u64,
    /// The line under way of each stream, and how many parts it has.
    under_way: [(u64, u64); 2],
    second: u64,
    /// By the line that it is of; whether the line has its end in the same file, and came within seconds.
    written: BTreeMap<(u64, u64, u64), (u64, bool)>,
    /// When the first part of the line under way was written.
    begun: [Timestamp; 2],
    arrived: BTreeMap<Part, usize>,
    newest: BTreeMap<(u64, u64), (u64, u64)>,
    /// Lines that came in one piece.
    whole: BTreeSet<(u64, u64, u64)>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let is_wide = dice.roll(2) == 0;
        let mut bench = bench(if is_wide { "0.log*" } else { "0.log" });
        if dice.roll(2) == 0 {
            bench.join = Join::Traceback;
        }
        World {
            bench,
            dice,
            seed,
            is_wide,
            is_up: true,
            crashes: 0,
            generation: 0,
            rotations: 0,
            under_way: [(0, 0); 2],
            second: 0,
            written: BTreeMap::new(),
            begun: [NOW; 2],
            arrived: BTreeMap::new(),
            newest: BTreeMap::new(),
            whole: BTreeSet::new(),
        }
    }

    fn live(&self) -> PathBuf {
        self.bench.path("0.log")
    }

    fn write(&mut self) {
        for _ in 0..=self.dice.roll(6) {
            let stream = self.dice.roll(2);
            let is_part = self.dice.roll(3) == 0;
            let (line, parts) = &mut self.under_way[stream as usize];
            if *parts == 0 {
                self.begun[stream as usize] = self.bench.now;
            }
            *parts += 1;
            let (line, part) = (*line, *parts);
            let pad = "p".repeat(self.dice.roll(300) as usize);
            let progress = if self.dice.roll(8) == 0 { "\r" } else { "" };
            let text = format!("[{}.{stream}.{line}.{part}]{pad}{progress}", self.generation);
            self.second += 1;
            let name = ["stdout", "stderr"][stream as usize];
            let text = cri(self.second, name, if is_part { "P" } else { "F" }, &text);
            let half = self.dice.roll(text.len() as u64) as usize;
            append(&self.live(), &text[..half]);
            if self.dice.roll(4) == 0 {
                let is_long = self.dice.roll(6) == 0;
                self.pass(if is_long { Span::seconds(11) } else { Span::millis(500) });
            }
            append(&self.live(), &text[half..]);
            let key = (self.generation, stream, line);
            let is_timely = self.bench.now - self.begun[stream as usize] < Span::seconds(9);
            let entry = self.written.entry(key).or_insert((0, true));
            *entry = (part, entry.1 && is_timely && (progress.is_empty() || !is_part));
            if !is_part {
                self.end_line(stream);
            }
        }
    }

    fn end_line(&mut self, stream: u64) {
        let (line, parts) = &mut self.under_way[stream as usize];
        (*line, *parts) = (*line + 1, 0);
    }

    fn pass(&mut self, later: Span) {
        if !self.is_up {
            return;
        }
        let read = self.bench.read(later);
        assert_eq!(self.bench.problems(), Vec::<String>::new(), "seed {}", self.seed);
        // It may die before the log has them.
        if self.seed % 3 == 2 && self.dice.roll(30) == 0 {
            self.crashes += 1;
            return self.bench.crash();
        }
        for read in read {
            self.arrive(&read.entry.text, read.entry.stream);
        }
    }

    fn arrive(&mut self, text: &str, of: Stream) {
        let numbers = |head: &str| -> Option<Vec<u64>> { head.split('.').map(|word| word.parse().ok()).collect() };
        let mut parts: Vec<Part> = Vec::new();
        for piece in text.split('[').skip(1) {
            let head = piece.split_once(']').and_then(|(head, _)| numbers(head));
            let Some([generation, stream, line, part]) = head.as_deref() else {
                panic!("seed {}: '{text}' was not written", self.seed)
            };
            parts.push((*generation, *stream, *line, *part));
        }
        let Some(first) = parts.first().copied() else { panic!("seed {}: '{text}' was not written", self.seed) };
        assert_eq!(of, [Stdout, Stderr][first.1 as usize], "seed {}: '{text}'", self.seed);
        for (place, part) in (0..).zip(&parts) {
            let expected = (first.0, first.1, first.2, first.3 + place);
            assert_eq!(*part, expected, "seed {}: '{text}' is of several lines", self.seed);
            if !self.arrived.contains_key(part) {
                let before = self.newest.insert((part.0, part.1), (part.2, part.3));
                assert!(before < Some((part.2, part.3)), "seed {}: {part:?} after {before:?}", self.seed);
            }
            *self.arrived.entry(*part).or_insert(0) += 1;
        }
        let line = (first.0, first.1, first.2);
        if first.3 == 1 && self.written.get(&line).is_some_and(|(count, _)| *count == parts.len() as u64) {
            self.whole.insert(line);
        }
    }

    /// Where the pattern does not see the next name, the file must be one that is read.
    fn rotate(&mut self) {
        let Ok(metadata) = std::fs::metadata(self.live()) else { return };
        let id = FileId::of(&metadata);
        let knows = |tailer: &mut Tailer| tailer.files().iter().any(|file| file.id == id);
        let is_known = self.is_up && self.bench.tailer.as_mut().is_some_and(knows);
        if !self.is_wide && !is_known {
            return;
        }
        self.rotations += 1;
        std::fs::rename(self.live(), self.bench.path(&format!("0.log.{}", self.rotations))).unwrap();
        for stream in 0..2 {
            if self.under_way[stream as usize].1 > 0 {
                // Its end, if it had one, is in another file.
                let key = (self.generation, stream, self.under_way[stream as usize].0);
                self.written.entry(key).and_modify(|(_, is_whole)| *is_whole = false);
                self.end_line(stream);
            }
        }
        self.generation += 1;
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0..=9 => self.write(),
            10..=14 => {
                let later = Span::millis(200 + self.dice.roll(2_500) as i64);
                self.pass(later);
            }
            15 => self.rotate(),
            16 if self.dice.roll(3) == 0 => self.pass(PARTIAL_WAIT),
            17 if !self.seed.is_multiple_of(3) => {
                // It begins again at the next step or some later.
                self.bench.stop();
                self.is_up = false;
            }
            18 if self.seed % 3 == 2 => {
                self.crashes += 1;
                self.bench.crash();
            }
            _ => self.is_up = true,
        }
    }

    fn check(mut self) -> (usize, usize, usize) {
        self.is_up = true;
        for _ in 0..40 {
            let read = self.bench.read(SECOND);
            read.into_iter().for_each(|read| self.arrive(&read.entry.text, read.entry.stream));
        }
        let mut joined = 0;
        for ((generation, stream, line), (parts, is_whole)) in &self.written {
            for part in 1..=*parts {
                let part = (*generation, *stream, *line, part);
                let count = self.arrived.get(&part).copied().unwrap_or(0);
                assert!(count > 0, "seed {}: {part:?} did not arrive", self.seed);
                assert!(count == 1 || self.crashes > 0, "seed {}: {part:?} came {count} times", self.seed);
            }
            let line = (*generation, *stream, *line);
            assert!(!is_whole || self.whole.contains(&line), "seed {}: {line:?} came in pieces", self.seed);
            joined += usize::from(*parts > 1 && *is_whole);
        }
        let twice = self.arrived.values().filter(|count| **count > 1).count();
        (self.arrived.len(), twice, joined)
    }
}

#[test]
fn every_part_arrives_and_what_belongs_together_is_one_line() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("TIDEWATCH_SEED");
    let seeds = one.map_or(0..number("TIDEWATCH_SEEDS").unwrap_or(300), |seed| seed..seed + 1);
    let (mut parts, mut twice, mut joined) = (0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        (0..60).for_each(|_| world.step());
        let found = world.check();
        (parts, twice, joined) = (parts + found.0, twice + found.1, joined + found.2);
    }
    println!("{parts} parts, {twice} of them more than once, {joined} lines of several");
    assert!(joined > 0);
}
