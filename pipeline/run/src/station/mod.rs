//! The station: one loop that reads the log, judges, writes the lake, keeps the state and tells people.
//!
//! It has no clock of its own, and threads only beside it, for the lake (`aside`) and for sending, none in simulations:
//! [`Station::step`] is called with the time, does what there is to do, and returns. Everything that must survive is in the log
//! or in the lake before anything that depends on it is.

mod aside;
mod caretaker;
#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod clean_tests;
mod figures;
mod follow;
mod letters;
mod messages;
#[cfg(test)]
mod notify_tests;
mod renewal;
mod scope;
mod sight;
mod source;
mod state;
mod stats;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tidewatch_flow::alerting::{Dispatcher, GroupView, Place, Policy};
use tidewatch_flow::outbox::Outbox;
use tidewatch_flow::watermark::Watermark;
use tidewatch_lake::{
    Flush, Janitor, JanitorOptions, KeptRows, LakeError, LakeOptions, LakeWriter, SettleOptions, Settler,
};
use tidewatch_model::limits::{LAKE_WAITING_BYTES, LOCAL_PARTITIONS, LOG_RETENTION, LOG_RETENTION_BYTES};
use tidewatch_model::ports::{Log, LogError, Notify, Random, Record, Store, TopicOptions};
use tidewatch_model::table;
use tidewatch_model::wire::{Origin, WireError};
use tidewatch_model::{Alert, Notice, Rule, Span, Timestamp, Transition};
use tidewatch_sql::{CompiledRule, Dimensions, EngineError, QueryError};

use crate::api::RuleHealth;
use crate::cleaning::Cleaning;
use crate::judge::Judge;
use crate::mapping::{From, Mapping};
use crate::said::{Acks, Silences};
use crate::stream_rows::StreamRows;
use aside::Aside;
use caretaker::{Caretaker, Round};
use messages::Messages;
pub use renewal::RuleSet;
pub use scope::{ENGINE_TOPIC, Part, Tenure, shares};
pub use source::{Source, Taken, read_record};
pub use stats::Stats;

/// Why the station can't go on, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StationError {
    /// The log's: mostly a disk.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lake's: mostly a disk.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The history, which knows what was seen before the start.
    #[error(transparent)]
    History(#[from] QueryError),
    /// The engine's: a bug, or too many rules.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A frame of our own could not be made: a bug.
    #[error("a frame of our own: {0}")]
    Wire(#[from] WireError),
    /// Rows of our own could not be made: a bug.
    #[error("rows of our own: {0}")]
    Rows(#[from] arrow::error::ArrowError),
    /// The system has no thread to give, or one that we had is gone.
    #[error("the lake's thread: {0}")]
    Thread(std::io::Error),
    /// Rows wait for a lake that has not taken any for long.
    #[error("the lake is not written: nothing more is read from the log until it is")]
    LakeBehind,
    /// Another process does this part of the work now.
    #[error("{part} was taken over by another engine")]
    Superseded {
        /// The part.
        part: String,
    },
    /// Where the last record that was stored should be, there is another: positions mean nothing here any more.
    #[error("{topic}/{partition}, offset {offset}: not the record that was stored from there: the topic was made anew")]
    OtherTopic {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The record.
        offset: u64,
    },
    /// The state is of the other kind of operation.
    #[error("a group of engines keeps its state in this log: start with --group")]
    OfGroup,
    /// State that can't be read.
    #[error("{topic}, offset {offset}: not a state that this version knows: {problem}")]
    State {
        /// The topic.
        topic: &'static str,
        /// The record.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
}

/// What the station is made of.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The lake's store.
    pub store: Arc<dyn Store>,
    /// Names that must not collide.
    pub random: Arc<dyn Random>,
    /// The rules.
    pub rules: RuleSet,
    /// The dimension tables.
    pub dimensions: Dimensions,
    /// Which part of the work it does.
    pub part: Part,
    /// Other people's topics.
    pub mappings: Vec<Arc<Mapping>>,
    /// What is checked of rows.
    pub cleaning: Arc<Cleaning>,
    /// Where our topics' partitions are begun that the lake has nothing of.
    pub from: From,
    /// The rules of telling.
    pub policy: Policy,
    /// The silences.
    pub silences: Arc<Silences>,
    /// The acks.
    pub acks: Arc<Acks>,
    /// Whom to tell: its targets.
    pub receivers: Vec<Arc<dyn Notify>>,
    /// Whether they are told within the step, and not by threads of their own: in simulations.
    pub inline: bool,
    /// Whether topics that are not there are made with the partitions of a cluster, or with one.
    pub cluster: bool,
    /// The lake's settings.
    pub lake: LakeOptions,
    /// How long the lake's days are kept.
    pub janitor: JanitorOptions,
    /// Whether the lake is written and settled beside the steps, and not within them, as in simulations: a slow disk, or a window
    /// that is compressed, holds up no page.
    pub works_aside: bool,
    /// When a silent source does not hold windows back.
    pub idle_timeout: Span,
    /// Bytes that its engine may hold.
    pub memory_limit: u64,
    /// Whether it writes figures about itself into the table `metrics`, where rules watch them.
    pub watches_itself: bool,
}

/// The loop's body and everything it holds.
pub struct Station {
    log: Arc<dyn Log>,
    lake: LakeWriter,
    /// Writes what the lake's writer hands out.
    flushes: Aside<(Flush, Timestamp), Flushing>,
    commit: Commit,
    /// Settles; `None` for a part that does not.
    rounds: Option<Aside<(Timestamp, bool), Result<Round, LakeError>>>,
    judge: Judge,
    sources: Vec<Source>,
    watermarks: BTreeMap<&'static str, Watermark>,
    messages: Messages,
    dispatcher: Dispatcher,
    /// Of the rest of a group: what the shares say.
    follower: Option<follow::Follower>,
    silences: Arc<Silences>,
    acks: Arc<Acks>,
    /// Which silences and acks the dispatcher has, and when they are looked at again.
    silences_known: u64,
    acks_known: u64,
    silences_due: Timestamp,
    /// Notices that are decided and not written down.
    decided: Vec<Notice>,
    /// What became of notices and is not in the log yet.
    unwritten: Vec<Record>,
    /// What was told and stands in the log.
    kept_told: BTreeSet<Place>,
    outbox: Outbox,
    origin: Origin,
    tenure: Tenure,
    mappings: Vec<Arc<Mapping>>,
    cleaning: Arc<Cleaning>,
    from: From,
    /// Keys of states that predecessors left: deleted once a state of our own stands.
    left_behind: Vec<Vec<u8>>,
    /// Transitions whose records are not in the log yet.
    pending: Vec<Transition>,
    /// Rows of streams that are not in the log yet.
    pending_streams: Vec<StreamRows>,
    /// Ids of transitions that were in the log before this start.
    known_events: HashSet<String>,
    /// Alerts as they stand in the log, by key.
    saved_alerts: BTreeMap<String, Alert>,
    /// Where rules stood that are not judged here, and whose alerts are kept.
    kept_positions: BTreeMap<String, Timestamp>,
    /// All rules that there are, judged here or by another part.
    rule_names: BTreeSet<String>,
    /// Whether none was left out for a fault.
    rules_complete: bool,
    /// Rules that are not judged for now.
    suspended: BTreeSet<String>,
    /// Rules that are about to take over.
    renewal: Option<renewal::Renewal>,
    /// The lake's store.
    store: Arc<dyn Store>,
    /// See [`Parts::cluster`].
    cluster: bool,
    /// See [`Parts::memory_limit`].
    memory_limit: u64,
    /// See [`Parts::watches_itself`].
    watches_itself: bool,
    /// When it looks at itself next.
    figures_due: Timestamp,
    /// Rows and late rows of each table at the last look.
    looked_at: BTreeMap<String, (u64, u64)>,
    /// Requests to Alertmanagers that failed, as whoever feeds them says.
    feed_failures: f64,
    /// What was written of each before.
    written_figures: BTreeSet<(String, String)>,
    /// When the alerts of rules that are gone are ended.
    removed_at: Option<Timestamp>,
    /// By table: what the log said about how far it goes.
    confirmations: BTreeMap<&'static str, sight::Confirmation>,
    stepped_at: Timestamp,
    /// See [`Parts::idle_timeout`].
    idle_timeout: Span,
    /// By stream: the tables that it is made of, and how much later than their time its rows come.
    feeds: BTreeMap<String, (Vec<String>, Span)>,
    /// Until then we have just gone on after a pause: sources that were silent meanwhile were not asked.
    seeing_from: Timestamp,
    saved_at: Timestamp,
    ticked_at: Timestamp,
    settled_at: Timestamp,
    retained_at: Timestamp,
    stats: Stats,
}

/// Topics of the station's own.
const STATE_TOPIC: &str = "tidewatch.alert_state";
const NOTICE_TOPIC: &str = "tidewatch.notice_state";
const TICK_TOPIC: &str = "tidewatch.tick";

/// Whether what was read is to be committed before it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    AsDue,
    Wanted,
    UnderWay,
}

/// A flush that was carried out, when it was begun, and how that ended.
type Flushing = (Flush, Timestamp, Result<(), LakeError>);

impl Drop for Station {
    /// What is under way is a commit: whoever takes over here must not meet it.
    fn drop(&mut self) {
        drop(self.flushes.wait());
    }
}

/// How often the state is written when no alert changes.
const SAVE_INTERVAL: Span = Span::seconds(5);
/// How often the settler looks for windows that are over.
const SETTLE_INTERVAL: Span = Span::seconds(10);
/// How often ids from before the start are looked at.
const RETAIN_INTERVAL: Span = Span::minutes(1);
/// How long a group keeps the alerts of a rule that an engine does not have: time to give all engines the same rules.
const REMOVED_AFTER: Span = Span::minutes(10);
/// How often the station writes figures about itself.
const FIGURES_INTERVAL: Span = Span::seconds(10);
/// How often the station looks for silences of other engines.
const SILENCES_INTERVAL: Span = Span::millis(500);

impl Station {
    /// Opens everything, restores the state, and goes back in the log as far as open windows need.
    ///
    /// # Errors
    /// A disk, a damaged lake or state, or another process that writes here.
    pub fn open(parts: Parts, now: Timestamp) -> Result<Station, StationError> {
        create_topics(parts.log.as_ref(), parts.cluster)?;
        let incarnation = format!("{:016x}", parts.random.next_u64());
        let tenure = Tenure::claim(parts.part, parts.log.as_ref(), &incarnation, now)?;
        let RuleSet { rules, complete, suspended } = parts.rules.clone();
        let is_judged = |compiled: &CompiledRule| {
            parts.part.judges(&compiled.rule, &parts.mappings) && !suspended.contains(&compiled.rule.name)
        };
        let rules = rules.into_iter().filter(is_judged).collect();
        // A share does not settle: it keeps nothing for it.
        let kept = parts.part.settles().then(KeptRows::default);
        let lake = LakeWriter::new(parts.store.clone(), parts.random.clone(), parts.lake).with_kept(kept.clone());
        let caretaker = parts.part.settles().then(|| {
            let settler = Settler::new(parts.store.clone(), SettleOptions::default()).with_kept(kept);
            let janitor = Janitor::new(parts.store.clone(), parts.janitor);
            let mut caretaker = Caretaker::new(settler, janitor);
            Aside::start("settle", parts.works_aside, move |(now, force)| caretaker.round(now, force))
        });
        let write = |(mut flush, now): (Flush, Timestamp)| {
            let carried_out = flush.carry_out(now);
            (flush, now, carried_out)
        };
        let mut station = Station {
            rounds: caretaker.transpose().map_err(StationError::Thread)?,
            flushes: Aside::start("flush", parts.works_aside, write).map_err(StationError::Thread)?,
            commit: Commit::AsDue,
            store: parts.store,
            judge: Judge::new(rules)?,
            watermarks: table::all()
                .into_iter()
                .map(|table| (table.name, Watermark::new(parts.idle_timeout)))
                .collect(),
            messages: Messages::start(parts.receivers, parts.inline),
            dispatcher: Dispatcher::new(parts.policy),
            follower: None,
            silences: parts.silences,
            acks: parts.acks,
            silences_known: 0,
            acks_known: 0,
            silences_due: now,
            decided: vec![],
            unwritten: vec![],
            kept_told: BTreeSet::new(),
            outbox: Outbox::default(),
            origin: Origin { source: "engine".to_string(), incarnation, seq: 0 },
            tenure,
            mappings: parts.mappings,
            cleaning: parts.cleaning,
            from: parts.from,
            left_behind: vec![],
            log: parts.log,
            lake,
            sources: vec![],
            pending: vec![],
            pending_streams: vec![],
            known_events: HashSet::new(),
            saved_alerts: BTreeMap::new(),
            kept_positions: BTreeMap::new(),
            rule_names: parts.rules.names(),
            rules_complete: complete,
            suspended,
            renewal: None,
            feeds: feeds(&parts.rules.rules),
            cluster: parts.cluster,
            memory_limit: parts.memory_limit,
            watches_itself: parts.watches_itself,
            figures_due: now,
            looked_at: BTreeMap::new(),
            feed_failures: 0.0,
            written_figures: BTreeSet::new(),
            removed_at: Some(now + REMOVED_AFTER),
            confirmations: BTreeMap::new(),
            stepped_at: now,
            idle_timeout: parts.idle_timeout,
            seeing_from: now,
            saved_at: now,
            ticked_at: now,
            settled_at: now,
            retained_at: now,
            stats: Stats::default(),
        };
        station.set_dimensions(&parts.dimensions);
        station.restore(now)?;
        station.remember_series(false)?;
        Ok(station)
    }

    /// Does what there is to do. Returns whether more is waiting in the log, so that the caller need not sleep.
    ///
    /// # Errors
    /// What keeps it from going on now; nothing is lost, and the next step tries again.
    pub fn step(&mut self, now: Timestamp) -> Result<bool, StationError> {
        self.look_around(now);
        self.collect_deliveries(now)?;
        // Nothing new is read while what was decided is not written down.
        self.persist(now)?;
        let (mut more, mut failure) = (false, None);
        for index in 0..self.sources.len() {
            if self.lake.waiting_bytes() >= LAKE_WAITING_BYTES {
                // The lake has not been written for long: the log keeps what is not read.
                self.sources[index].unread = true;
                failure = failure.or(Some(StationError::LakeBehind));
                continue;
            }
            let read = self.read_source(index, now);
            self.sources[index].unread = read.is_err();
            match read {
                Ok(waiting) => more |= waiting,
                // One partition that can't be read holds up none of the others.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        self.renew(now)?;
        self.tick(now)?;
        if self.removed_at.is_some_and(|at| at <= now) {
            self.reload_rules(true, &self.kept_positions.clone());
        }
        self.persist(now)?;
        self.look_at_silences(now)?;
        self.follow(now)?;
        self.tell(now)?;
        self.send_due(now);
        self.maintain(now)?;
        self.update_stats();
        failure.map_or(Ok(more), Err)
    }

    /// A clean stop: everything read is committed, every window settled, so that plain readers see what SQL sees.
    ///
    /// # Errors
    /// A disk; what was committed stays so.
    pub fn close(&mut self, now: Timestamp) -> Result<(), StationError> {
        // A bounded last look at what the collectors just wrote; what is left stays in the log for the next start.
        for index in 0..self.sources.len() {
            self.read_source(index, now)?;
            self.persist(now)?;
        }
        self.tell(now)?;
        self.send_due(now);
        self.messages.stop();
        self.collect_deliveries(now)?;
        // Changes of alerts are rows too: read what was just written. No rule reads them, so nothing follows from it.
        for index in 0..self.sources.len() {
            while self.sources[index].table.is_own() && self.read_source(index, now)? {}
        }
        self.save_state(now)?;
        self.log.sync()?;
        if let Some(flushing) = self.flushes.wait().map_err(StationError::Thread)? {
            self.take_flush(flushing)?;
        }
        while let Some(flush) = self.lake.begin_flush() {
            self.flushes.begin((flush, now));
            let flushing = self.flushes.wait().map_err(StationError::Thread)?;
            flushing.map_or(Ok(()), |flushing| self.take_flush(flushing))?;
        }
        // One part of several leaves open windows to the others, and what is under way to its thread.
        let Some(rounds) = self.rounds.as_mut().filter(|_| self.tenure.part == Part::Whole) else { return Ok(()) };
        let before = rounds.wait().map_err(StationError::Thread)?;
        rounds.begin((now, true));
        let last = rounds.wait().map_err(StationError::Thread)?;
        before.into_iter().chain(last).try_for_each(|round| self.take_round(round))
    }

    /// Commits what is read by the end of the next step, without waiting until it is due.
    pub fn commit_soon(&mut self) {
        self.commit = Commit::Wanted;
    }

    /// Whether that is done, or has failed.
    pub fn is_committed(&self) -> bool {
        self.commit == Commit::AsDue
    }

    /// Gives the dimension tables other rows, from now on.
    pub fn set_dimensions(&mut self, dimensions: &Dimensions) {
        self.judge.set_dimensions(dimensions);
    }

    /// What happened since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Alerts that are pending or firing; the rest of a group knows those of all shares.
    pub fn live_alerts(&self) -> Vec<Alert> {
        self.judge.alerts().chain(self.others()).filter(|alert| alert.state.is_alive()).cloned().collect()
    }

    /// Requests to Alertmanagers that failed so far: a figure for rules to watch.
    pub fn set_feed_failures(&mut self, failures: u64) {
        self.feed_failures = failures as f64;
    }

    /// How the rules do that are judged here.
    pub fn rule_health(&self) -> RuleHealth {
        let failing = self.stats.rule_errors.iter().filter(|(rule, _)| self.judge.fails(rule));
        RuleHealth {
            positions: self.judge.engine().positions().map(|(rule, ts)| (rule.to_string(), ts)).collect(),
            failing: failing.map(|(rule, error)| (rule.clone(), error.clone())).collect(),
        }
    }

    /// Alerts that are pending, firing, or over for a short while.
    pub fn known_alerts(&self) -> impl Iterator<Item = &Alert> {
        self.judge.alerts()
    }

    /// Groups of alerts that are told together.
    pub fn alert_groups(&self) -> Vec<GroupView> {
        self.dispatcher.groups()
    }

    fn maintain(&mut self, now: Timestamp) -> Result<(), StationError> {
        // A lake that does not take rows is asked as often as ever.
        if self.commit == Commit::Wanted && self.lake.is_failing() {
            self.commit = Commit::AsDue;
        }
        if !self.flushes.is_busy() && (self.commit == Commit::Wanted || self.lake.due(now)) {
            self.save_state(now)?;
            // An offset is committed only when the state that its rows made is durable.
            self.log.sync()?;
            let flush = self.lake.begin_flush();
            self.commit = match self.commit {
                Commit::Wanted if flush.is_some() => Commit::UnderWay,
                _ => Commit::AsDue,
            };
            if let Some(flush) = flush {
                self.flushes.begin((flush, now));
            }
        }
        let flushing = self.flushes.done().map_err(StationError::Thread)?;
        let flushed = flushing.map_or(Ok(()), |flushing| self.take_flush(flushing));
        // People are told that the lake can't be written: the log can.
        self.write_figures(now)?;
        flushed?;
        if let Some(rounds) = &mut self.rounds {
            if !rounds.is_busy() && now - self.settled_at >= SETTLE_INTERVAL {
                self.settled_at = now;
                rounds.begin((now, false));
            }
            let round = rounds.done().map_err(StationError::Thread)?;
            round.map_or(Ok(()), |round| self.take_round(round))?;
        }
        if now - self.retained_at >= RETAIN_INTERVAL {
            self.retained_at = now;
            self.tidy_messages(now)?;
            if self.tenure.part.settles() {
                self.silences.forget_old(now)?;
                self.acks.forget_old(now)?;
            }
            if self.removed_at.is_none() && self.sources.iter().all(|source| source.lag == 0) {
                // What was judged again after the start is judged.
                self.known_events.clear();
            }
        }
        Ok(())
    }

    fn take_round(&mut self, round: Result<Round, LakeError>) -> Result<(), StationError> {
        let Round { settled, cleaned } = round?;
        self.stats.settled_rows += settled.settled_rows;
        self.stats.public_rows += settled.public_rows;
        self.stats.unsettled = settled.problems;
        self.stats.lake_deleted_files += cleaned.files();
        Ok(())
    }

    fn take_flush(&mut self, (flush, now, carried_out): Flushing) -> Result<(), StationError> {
        let flushed = self.lake.end_flush(flush, now);
        if self.commit == Commit::UnderWay {
            self.commit = Commit::AsDue;
        }
        self.stats.lake_rows += flushed.rows;
        self.stats.lake_bytes += flushed.bytes;
        self.stats.lake_failures += u64::from(carried_out.is_err());
        if flushed.entries > 0 {
            self.stats.last_flush = Some(now);
            self.log.tell_progress(&flushed.positions);
        }
        Ok(carried_out?)
    }

    fn update_stats(&mut self) {
        let stats = &mut self.stats;
        stats.evaluations = self.judge.evaluations();
        for (rule, error) in self.judge.take_failures() {
            *stats.rule_failures.entry(rule.clone()).or_default() += 1;
            stats.rule_errors.insert(rule, error);
        }
        let tables: BTreeSet<&'static str> = self.sources.iter().map(|source| source.table.name).collect();
        for table in tables {
            if let Some(watermark) = self.watermarks.get(table).and_then(Watermark::current) {
                stats.watermarks.insert(table.to_string(), watermark);
            }
            let lag = self.sources.iter().filter(|source| source.table.name == table).map(|source| source.lag).sum();
            stats.lag.insert(table.to_string(), lag);
            let counts = self.judge.engine().counts(table);
            stats.late_rows.insert(table.to_string(), counts.late_rows);
            // What rules that are gone had counted stays counted.
            let known = stats.overflow_rows.entry(table.to_string()).or_default();
            *known = counts.overflow_rows.max(*known);
        }
        stats.overflow_groups = self.judge.engine().overflow_groups().max(stats.overflow_groups);
        for (rule, rows) in self.judge.engine().repeated_rows() {
            let known = stats.repeated_rows.entry(rule.to_string()).or_default();
            *known = rows.max(*known);
        }
        stats.lake_waiting_rows = self.lake.waiting_rows();
        stats.notices_waiting = self.outbox.waiting();
    }
}

/// By stream: the tables that it is made of, and how much later than their time its rows come.
fn feeds(rules: &[CompiledRule]) -> BTreeMap<String, (Vec<String>, Span)> {
    let streams = rules.iter().map(|compiled| &compiled.rule).filter(|rule| rule.stream);
    let of = |rule: &Rule| (rule.tables().map(str::to_string).collect(), rule.options.delay);
    streams.map(|rule| (rule.name.clone(), of(rule))).collect()
}

/// How the log keeps rows.
pub fn row_topic(partitions: u32) -> TopicOptions {
    TopicOptions {
        partitions,
        compacted: false,
        retention: Some(LOG_RETENTION),
        retention_bytes: Some(LOG_RETENTION_BYTES),
    }
}

/// Makes the topics of all tables, and those of the engine's own, that are not there.
pub fn create_topics(log: &dyn Log, cluster: bool) -> Result<(), LogError> {
    for table in table::all() {
        let partitions = match (cluster, log.lane()) {
            (true, _) => table.cluster_partitions(),
            // Nobody else brings what is ours.
            (false, Some(_)) if !table.is_own() => LOCAL_PARTITIONS,
            (false, _) => 1,
        };
        log.create_topic(&table.topic(), &row_topic(partitions))?;
    }
    log.create_topic(TICK_TOPIC, &row_topic(1))?;
    let compacted = TopicOptions { partitions: 1, compacted: true, retention: None, retention_bytes: None };
    log.create_topic(STATE_TOPIC, &compacted)?;
    log.create_topic(NOTICE_TOPIC, &compacted)
}
