//! The table `log`, and rows of other tables that lines tell of: files that grow and are rotated, and systemd's journal (docs/logs.md).
//!
//! Each source has a thread of its own: a file system that hangs holds up no other. It reads on only when the log has what it read before.

mod container;
mod extract;
mod file;
mod join;
mod journal;
mod kept;
mod lanes;
mod level;
mod lines;
mod options;
mod presets;
mod tail;
mod when;

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::desk::Desk;
use crate::fault::{Fault, FaultKind};
use crate::rows::RowsError;
use container::Container;
use extract::{Known, Maker, Message};
use journal::Journal;
use kept::Kept;
use options::{Extract, Feed};
pub use options::{LogOptions, LogSource};
use tail::Tailer;

/// How long a pass waits for its sources.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long one may take before it is told that it hangs.
const STUCK: Span = Span::seconds(30);
/// How long an end waits until it is written down how far was read.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// One fault of a file of sources, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFault(pub String);

impl fmt::Display for LogFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads log lines.
pub struct LogCollector {
    host: String,
    state: Option<PathBuf>,
    sources: Vec<Watched>,
    /// Rows that the log may not have yet: they are given again until it has.
    given: Vec<(&'static str, RecordBatch)>,
    stuck: Option<Span>,
}

/// A source and whoever reads it.
struct Watched {
    source: LogSource,
    desk: Option<Desk<Question, Pass>>,
}

enum Question {
    /// The log has what was given before: read on.
    Read(Timestamp),
    /// The log has what was given before, and that is all.
    End,
}

#[derive(Default)]
struct Pass {
    batches: Vec<(&'static str, RecordBatch)>,
    faults: Vec<Fault>,
}

impl LogCollector {
    /// Of these sources on this machine. With a folder for `state` a restart goes on where it was.
    pub fn new(options: LogOptions, host: &str, state: Option<PathBuf>) -> LogCollector {
        let sources = options.sources.into_iter().map(|source| Watched { source, desk: None }).collect();
        LogCollector { host: host.to_string(), state, sources, given: vec![], stuck: None }
    }

    fn open(watched: &Watched, host: &str, state: Option<PathBuf>) -> Option<Desk<Question, Pass>> {
        let (source, host) = (watched.source.clone(), host.to_string());
        let opened = Desk::open("logs", move |questions: Receiver<Question>, answers| {
            let mut reader = Reader::new(source, host, state);
            for question in questions {
                let pass = match question {
                    Question::Read(now) => reader.read(now),
                    Question::End => reader.end(),
                };
                if answers.send(pass).is_err() {
                    return;
                }
            }
        });
        opened.ok()
    }
}

impl Collector for LogCollector {
    fn table(&self) -> &'static str {
        "log"
    }

    fn interval(&self) -> Span {
        Span::seconds(1)
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        // What the log refused comes first; until it has that, nothing more is read.
        if !self.given.is_empty() {
            return Collected { more: self.given.clone(), ..Collected::default() };
        }
        let mut faults = Vec::new();
        let mut late = Vec::new();
        for watched in &mut self.sources {
            if watched.desk.is_none() {
                let state =
                    self.state.as_ref().map(|folder| folder.join(format!("logs-{}.state", watched.source.name)));
                watched.desk = LogCollector::open(watched, &self.host, state);
            }
            let Some(desk) = &mut watched.desk else { continue };
            late.push(desk.is_busy());
            desk.ask(Question::Read(now), now);
        }
        let until = Instant::now() + PATIENCE;
        self.stuck = None;
        for (watched, was_late) in self.sources.iter_mut().filter(|watched| watched.desk.is_some()).zip(late) {
            let Some(desk) = &mut watched.desk else { continue };
            let wait = if was_late { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            if let Some((_, pass)) = desk.answer(wait) {
                self.given.extend(pass.batches);
                faults.extend(pass.faults);
            }
            if desk.is_gone() {
                watched.desk = None;
                faults.push(failed(&watched.source.name, "its reader broke, and begins again"));
                continue;
            }
            self.stuck = self.stuck.max(desk.busy_for(now).filter(|busy| *busy > STUCK));
        }
        Collected { batch: None, more: self.given.clone(), faults }
    }

    fn taken(&mut self, refused: &[usize]) -> bool {
        let mut number = 0..;
        self.given.retain(|_| number.next().is_some_and(|number| refused.contains(&number)));
        true
    }

    fn stuck(&self) -> Option<Span> {
        self.stuck
    }
}

impl Drop for LogCollector {
    /// Writes down how far was read, so that an orderly end makes no row twice.
    fn drop(&mut self) {
        if !self.given.is_empty() {
            return;
        }
        let desks = self.sources.iter_mut().filter_map(|watched| watched.desk.as_mut());
        let mut asked: Vec<_> = desks.filter(|desk| !desk.is_busy()).collect();
        asked.iter_mut().for_each(|desk| desk.ask(Question::End, Timestamp::MIN));
        let until = Instant::now() + LAST_PATIENCE;
        for desk in asked {
            drop(desk.answer(until.saturating_duration_since(Instant::now())));
        }
    }
}

fn failed(source: &str, reason: impl fmt::Display) -> Fault {
    Fault { column: "", reason: format!("{source}: {reason}"), kind: FaultKind::Failed }
}

/// Reads one source, on its thread.
struct Reader {
    name: String,
    feed: Reading,
    path_regex: Option<regex::Regex>,
    container: Option<Container>,
    extract: Vec<Extract>,
    maker: Maker,
    state: Option<PathBuf>,
    /// What is written down.
    written: Option<String>,
    faults: Vec<Fault>,
    /// What this machine does not have was told.
    told_absent: bool,
}

enum Reading {
    Files(Box<Tailer>),
    Journal(Box<Journal>, presets::State),
}

impl Reader {
    fn new(source: LogSource, host: String, state: Option<PathBuf>) -> Reader {
        let mut faults = Vec::new();
        let kept = state.as_ref().map_or(Ok(None), |path| kept::read(path)).unwrap_or_else(|problem| {
            faults.push(failed(&source.name, format!("{problem}: it begins as if for the first time")));
            None
        });
        let (feed, path_regex, container) = match &source.feed {
            Feed::Files { paths, path_regex, container } => {
                let tailer = Tailer::new(paths.clone(), source.from, source.join.clone(), *container, kept);
                (Reading::Files(Box::new(tailer)), path_regex.clone(), *container)
            }
            Feed::Journal { program, arguments, units } => {
                let cursor = kept.and_then(|kept| kept.cursor);
                let journal = Journal::new(program.clone(), arguments.clone(), units.clone(), source.from, cursor);
                (Reading::Journal(Box::new(journal), presets::State::default()), None, None)
            }
        };
        let (name, extract) = (source.name.clone(), source.extract.clone());
        let maker = Maker::new(source, host);
        Reader { name, feed, path_regex, container, extract, maker, state, written: None, faults, told_absent: false }
    }

    fn read(&mut self, now: Timestamp) -> Pass {
        self.confirm();
        let batches = self.rows(now).and_then(|()| self.maker.finish());
        let batches = batches.unwrap_or_else(|error| {
            self.faults.push(failed(&self.name, error));
            vec![]
        });
        // Before the rows are on their way: should they be read again, they are to be the same.
        self.write();
        for remark in self.maker.remarks.take() {
            self.remark(remark);
        }
        Pass { batches, faults: std::mem::take(&mut self.faults) }
    }

    fn end(&mut self) -> Pass {
        self.confirm();
        self.write();
        Pass::default()
    }

    fn confirm(&mut self) {
        match &mut self.feed {
            Reading::Files(tailer) => tailer.confirm(),
            Reading::Journal(journal, _) => journal.confirm(),
        }
    }

    fn rows(&mut self, now: Timestamp) -> Result<(), RowsError> {
        match &mut self.feed {
            Reading::Files(tailer) => {
                let read = tailer.pass(now);
                let (problems, odd) = tailer.take_problems();
                for one in read {
                    let Some(file) = tailer.files().get_mut(one.file) else { continue };
                    if file.labels.is_none() {
                        file.labels = Some(labels_of(&self.path_regex, self.container, &file.source));
                        begin(&self.extract, file, one.entry.start);
                    }
                    let message = Message {
                        source: &file.source,
                        labels: file.labels.as_deref().unwrap_or_default(),
                        text: &one.entry.text,
                        transient: one.entry.transient,
                        read_at: one.at,
                        known: known_of(&one.entry),
                    };
                    self.maker.add(message, &mut file.states[one.entry.stream as usize])?;
                }
                self.faults.extend(problems.into_iter().map(|problem| failed(&self.name, problem)));
                let mut told = vec![(odd.cut, "were cut at 64 KiB"), (odd.replaced, "are not UTF-8")];
                let bare = self.container.map(bare);
                told.extend(bare.as_ref().map(|what| (odd.bare, what.as_str())));
                for (count, what) in told.into_iter().filter(|(count, _)| *count > 0) {
                    self.remark(format!("{count} lines {what}"));
                }
            }
            Reading::Journal(journal, state) => {
                let (entries, faults) = journal.pass(now);
                for entry in entries {
                    let message = Message {
                        source: &entry.source,
                        labels: &[],
                        text: &entry.text,
                        transient: false,
                        read_at: now,
                        known: Some(entry.known),
                    };
                    self.maker.add(message, state)?;
                }
                for fault in faults {
                    // This machine's lack of a journal is told once.
                    if fault.absent && std::mem::replace(&mut self.told_absent, true) {
                        continue;
                    }
                    let kind = if fault.absent { FaultKind::Absent } else { FaultKind::Failed };
                    self.faults.push(Fault { kind, ..failed(&self.name, fault.reason) });
                }
            }
        }
        Ok(())
    }

    fn remark(&mut self, what: String) {
        self.faults.push(Fault { kind: FaultKind::Remark, ..failed(&self.name, what) });
    }

    fn write(&mut self) {
        let Some(path) = &self.state else { return };
        let kept = match &self.feed {
            Reading::Files(tailer) => tailer.kept(),
            Reading::Journal(journal, _) => Kept { files: vec![], cursor: journal.cursor() },
        };
        let Ok(text) = serde_json::to_string(&kept) else { return };
        if self.written.as_ref() == Some(&text) {
            return;
        }
        match kept::write(path, &text) {
            Ok(()) => self.written = Some(text),
            Err(problem) => self.faults.push(failed(&self.name, problem)),
        }
    }
}

/// What a container's envelope says of an entry.
fn known_of(entry: &join::Entry) -> Option<Known> {
    let stream = entry.stream.name()?;
    Some(Known { ts: entry.ts, level: None, fields: vec![("stream".to_string(), stream.to_string())] })
}

fn bare(container: Container) -> String {
    format!("have no envelope of container = \"{}\", and are taken as they are", container.name())
}

/// What a file's name tells: what the pattern says, and of a container also what its runtime puts into the path.
fn labels_of(path_regex: &Option<regex::Regex>, container: Option<Container>, path: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    if let Some((regex, found)) = path_regex.as_ref().and_then(|regex| Some((regex, regex.captures(path)?))) {
        let group = |name: &str| Some((name.to_string(), found.name(name)?.as_str().to_string()));
        labels.extend(regex.capture_names().flatten().filter_map(group));
    }
    for (name, value) in container.map(|_| container::labels_of_path(path)).unwrap_or_default() {
        if labels.iter().all(|(known, _)| known != name) {
            labels.push((name.to_string(), value));
        }
    }
    labels
}

/// A file that is read from its middle has told something at its beginning.
fn begin(extract: &[Extract], file: &mut tail::Follow, start: u64) {
    if start == 0 {
        return;
    }
    let presets: Vec<_> = extract
        .iter()
        .filter_map(|extract| match extract {
            Extract::Preset(preset, _) => Some(*preset),
            _ => None,
        })
        .collect();
    if presets.is_empty() {
        return;
    }
    for line in file.first_lines() {
        let state = &mut file.states[line.stream as usize];
        presets.iter().for_each(|preset| presets::begin(*preset, &line.text, state));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
