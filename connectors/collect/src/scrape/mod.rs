//! The table `metrics` from other people's exporters: node_exporter, DCGM, vLLM, SGLang, Triton, Ray, and whatever else shows Prometheus'
//! text; those that everybody runs fill tables of their own besides (`typed`). Each target has a thread of its own; one that hangs holds up
//! no other.

mod ask;
mod exposition;
mod file;
mod known;
mod rows;
mod targets;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use arrow::array::RecordBatch;
use tidewatch_model::{Span, Timestamp};

use crate::collector::{Collected, Collector};
use crate::desk::Desk;
use crate::fault::Faults;
use crate::reading::Unreadable;
use crate::typed::{Typed, TypedSample, TypedTables};
use ask::{Asker, Question, Scrape};
use exposition::Sample;
use file::Watched;
use known::Known;
use rows::{Labels, Rows};
pub use targets::Target;

/// Targets of one agent; those beyond are not scraped, and said.
const TARGETS: usize = 500;
/// Samples that are taken in one pass; what other targets answered waits for the next.
const PASS_SAMPLES: usize = 200_000;
/// Bytes that the series of all targets may take, so that it can be said of each that it has ended.
const KNOWN_BYTES: usize = 64 << 20;
/// How often files of targets are looked at.
const LOOK: Span = Span::seconds(5);
/// The longest that a target may take, if its interval is longer and it says nothing else.
const PATIENCE: Span = Span::seconds(10);
/// What is told of each scrape, as Prometheus does.
const OWN: [&str; 3] = ["up", "scrape_duration_seconds", "scrape_samples_scraped"];

/// What to scrape, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrapeOptions {
    /// Targets that were named.
    pub targets: Vec<Target>,
    /// Files of targets.
    pub files: Vec<PathBuf>,
    /// How often each is asked.
    pub interval: Span,
    /// Files of bearer tokens, by job.
    pub tokens: Vec<TokenFile>,
    /// Which tables are filled besides `metrics`.
    pub typed: TypedTables,
    /// Whether each is asked first when it is first seen, and not at its place within the interval.
    pub at_once: bool,
}

/// A bearer token for the targets of one job, and for no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// The job.
    pub job: String,
    /// The file; it is read at every scrape.
    pub file: PathBuf,
}

impl std::str::FromStr for TokenFile {
    type Err = String;

    /// `JOB=FILE`.
    fn from_str(text: &str) -> Result<TokenFile, String> {
        match text.split_once('=') {
            Some((job, file)) if !job.is_empty() && !file.is_empty() => {
                Ok(TokenFile { job: job.to_string(), file: PathBuf::from(file) })
            }
            _ => Err(format!("'{text}': expected JOB=FILE")),
        }
    }
}

/// Scrapes targets.
pub struct ScrapeCollector {
    options: ScrapeOptions,
    host: String,
    files: Vec<Watched>,
    looked: Timestamp,
    targets: BTreeMap<Target, Asked>,
    /// Targets that are no more, and of whose series that has to be said.
    gone: Vec<(Target, Known)>,
    typed: Typed,
    faults: Faults,
}

/// A target, and whoever asks it.
struct Asked {
    desk: Option<Desk<Question, Scrape>>,
    due: Timestamp,
    /// Whether it was ever asked to the end.
    told: bool,
    known: Known,
}

impl ScrapeCollector {
    /// Of these targets, into these tables besides `metrics`. `host` is this machine.
    pub fn new(options: ScrapeOptions, host: &str, tables: Vec<&'static str>) -> ScrapeCollector {
        let files = options.files.iter().cloned().map(Watched::new).collect();
        ScrapeCollector {
            options,
            host: host.to_string(),
            files,
            looked: Timestamp::MIN,
            targets: BTreeMap::new(),
            gone: vec![],
            typed: Typed::new(tables),
            faults: Faults::default(),
        }
    }

    /// The targets as they are to be now.
    fn look(&mut self, now: Timestamp) {
        if now - self.looked.max(Timestamp(0)) < LOOK {
            return;
        }
        self.looked = now;
        let mut wanted = self.options.targets.clone();
        for file in &mut self.files {
            let (targets, problem) = file.look();
            wanted.extend_from_slice(targets);
            if let Some(problem) = problem {
                self.faults.note("", Unreadable::damaged(problem));
            }
        }
        let mut wanted: Vec<Target> = wanted.into_iter().map(|target| target.seen_from_elsewhere(&self.host)).collect();
        wanted.sort();
        wanted.dedup();
        if wanted.len() > TARGETS {
            self.faults.note("", Unreadable::damaged(format!("{} targets: expected at most {TARGETS}", wanted.len())));
            wanted.truncate(TARGETS);
        }
        let gone = self.targets.extract_if(.., |target, _| wanted.binary_search(target).is_err());
        self.gone.extend(gone.filter(|(_, asked)| asked.told).map(|(target, asked)| (target, asked.known)));
        for target in wanted {
            let interval = target.interval.unwrap_or(self.options.interval);
            self.targets.entry(target).or_insert_with_key(|target| {
                // Spread over the interval, each at the same place after a restart.
                let mut hasher = DefaultHasher::new();
                target.hash(&mut hasher);
                let place = (hasher.finish() % interval.0.max(1) as u64) as i64;
                let due = now.floor(interval) + Span::micros(place);
                let due = match self.options.at_once {
                    true => now,
                    false if due < now => due + interval,
                    false => due,
                };
                Asked { desk: None, due, told: false, known: Known::default() }
            });
        }
    }

    /// Asks those that are due, and takes what others answered.
    fn scraped(&mut self, now: Timestamp) -> Vec<(Target, Timestamp, Scrape)> {
        let (mut scraped, mut samples) = (Vec::new(), 0);
        for (target, asked) in &mut self.targets {
            if let Some(desk) = asked.desk.as_mut().filter(|_| samples < PASS_SAMPLES) {
                if let Some((at, scrape)) = desk.answer(Duration::ZERO) {
                    samples += scrape.samples.as_ref().map_or(0, Vec::len);
                    scraped.push((target.clone(), at, scrape));
                }
                if desk.is_gone() {
                    asked.desk = None;
                }
            }
            if asked.due > now {
                continue;
            }
            let interval = target.interval.unwrap_or(self.options.interval);
            // Times that were missed are not made up for.
            let missed = (now - asked.due).0 / interval.0.max(1) + 1;
            asked.due = asked.due + Span::micros(interval.0 * missed);
            if asked.desk.is_none() {
                let patience = target.timeout.unwrap_or(PATIENCE).min(interval).to_std();
                asked.desk = Desk::open("scrape", move |questions: Receiver<Question>, answers| {
                    let asker = Asker::new(patience);
                    for question in questions {
                        if answers.send(asker.scrape(&question)).is_err() {
                            return;
                        }
                    }
                })
                .ok();
            }
            if let Some(desk) = &mut asked.desk {
                let token = self.options.tokens.iter().find(|token| target.labels.get("job") == Some(&token.job));
                let token = token.map(|token| token.file.clone());
                desk.ask(Question { url: target.url.clone(), token }, now);
            }
        }
        scraped
    }

    /// What a target's series have become: samples without a number of those that have ended.
    fn ended(&mut self, target: &Target, samples: &Result<Vec<Sample>, String>) -> Vec<Sample> {
        let others: usize =
            self.targets.iter().filter(|(other, _)| *other != target).map(|(_, of)| of.known.bytes()).sum();
        let Some(asked) = self.targets.get_mut(target) else { return vec![] };
        asked.told = true;
        let Ok(samples) = samples else { return asked.known.end() };
        let followed = asked.known.follow(samples, KNOWN_BYTES.saturating_sub(others));
        if followed.unseen > 0 {
            let problem = format!(
                "{}: {} of {} series are not watched for their end: all together are over {} MiB",
                target.labels["instance"],
                followed.unseen,
                samples.len(),
                KNOWN_BYTES >> 20
            );
            self.faults.note("", Unreadable::damaged(problem));
        }
        followed.ended
    }

    /// What is said of targets that are no more.
    fn end(&mut self, now: Timestamp, rows: &mut Rows) {
        for (target, mut known) in std::mem::take(&mut self.gone) {
            for sample in known.end() {
                rows.push(now, &sample.name, &labels_of(&target, &sample), sample.value);
            }
            for name in OWN {
                rows.push(now, name, &own_labels(&target), f64::NAN);
            }
        }
    }

    fn rows(&mut self, now: Timestamp) -> (Rows, Vec<(&'static str, RecordBatch)>) {
        self.look(now);
        let mut rows = Rows::default();
        self.end(now, &mut rows);
        let scraped = self.scraped(now);
        for (target, at, Scrape { samples, seconds }) in &scraped {
            let ended = self.ended(target, samples);
            for sample in samples.iter().flatten().chain(&ended) {
                rows.push(sample.at.map_or(*at, Timestamp), &sample.name, &labels_of(target, sample), sample.value);
            }
            if let Err(problem) = samples {
                self.faults.note("", Unreadable::damaged(format!("{}: {problem}", target.labels["instance"])));
            }
            let up = if samples.is_ok() { 1.0 } else { 0.0 };
            let count = samples.as_ref().map_or(0, Vec::len) as f64;
            let own = own_labels(target);
            for (name, value) in OWN.into_iter().zip([up, *seconds, count]) {
                rows.push(*at, name, &own, value);
            }
        }
        let typed = self.typed_rows(&scraped);
        (rows, typed)
    }

    /// The same samples, as rows of the tables that are made for them.
    fn typed_rows(&mut self, scraped: &[(Target, Timestamp, Scrape)]) -> Vec<(&'static str, RecordBatch)> {
        let all = scraped
            .iter()
            .flat_map(|(target, at, scrape)| scrape.samples.iter().flatten().map(move |sample| (target, *at, sample)));
        let known = all.filter(|(.., sample)| self.typed.knows(&sample.name));
        let known: Vec<_> = known.map(|(target, at, sample)| (at, sample, labels_of(target, sample))).collect();
        let samples = known.iter().map(|(at, sample, labels)| TypedSample {
            ts: sample.at.map_or(*at, Timestamp),
            name: &sample.name,
            labels: labels.iter().map(|(name, value)| (name.as_ref(), *value)).collect(),
            value: sample.value,
        });
        let samples: Vec<TypedSample<'_>> = samples.collect();
        let rows = self.typed.rows(&samples).map_err(|error| Unreadable::damaged(error.to_string()));
        self.faults.keep("", rows).unwrap_or_default()
    }
}

/// A sample's labels and its target's. A label that is the target's already is `exported_NAME`, as Prometheus has it.
fn labels_of<'a>(target: &'a Target, sample: &'a Sample) -> Labels<'a> {
    let mut labels = own_labels(target);
    for (name, value) in sample.labels.iter().filter(|(_, value)| !value.is_empty()) {
        let mut name = Cow::Borrowed(name.as_str());
        while labels.contains_key(&name) {
            name = Cow::Owned(format!("exported_{name}"));
        }
        labels.insert(name, value);
    }
    labels
}

fn own_labels(target: &Target) -> Labels<'_> {
    target.labels.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.as_str())).collect()
}

impl Collector for ScrapeCollector {
    fn table(&self) -> &'static str {
        "metrics"
    }

    fn interval(&self) -> Span {
        Span::seconds(1)
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let (rows, more) = self.rows(now);
        let batch = rows.finish().map_err(|error| Unreadable::damaged(error.to_string()));
        let batch = self.faults.keep("", batch).flatten();
        Collected { batch, more, faults: self.faults.take() }
    }
}
