//! The engine: rows and watermarks in, evaluations out, and nothing else. It reads no clock and no configuration, so a
//! replay of the same rows and watermarks yields the same evaluations.
//!
//! A windowed rule is evaluated on shared windows ([`crate::shared`]) where all of its aggregates have kernels, else by
//! running its plan over the rows of its window (`general`). Rules without a window are asked for each batch (`row`).
//!
//! Rules change while it runs: those that are new or edited are begun as a generation of their own, which reads again what its open
//! windows need, as after a restart, and takes over when it has ([`Engine::begin_change`]).

mod advance;
mod general;
mod generation;
mod of_table;
mod row;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use tidewatch_model::limits::RULES;
use tidewatch_model::{Key, Rule, Timestamp};

use crate::compile::CompiledRule;
use crate::dimension::Dimensions;
use crate::explain::Explanation;
use crate::listener::Listener;
use generation::Generation;

/// Why the engine could not be made or fed; an evaluation that fails is a failed outcome (`tidewatch_model::Outcome::Failed`) instead.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// DataFusion could not be set up: a bug, or a machine without threads.
    #[error("the SQL engine can't start: {0}")]
    Start(DataFusionError),
    /// More rules than one engine takes.
    #[error("{found} rules are over the limit of {limit}")]
    TooManyRules {
        /// How many were given.
        found: usize,
        /// How many are taken.
        limit: usize,
    },
    /// A batch that is not of its table's schema: admit lets none through.
    #[error("table {table}: {source}")]
    Batch {
        /// The table.
        table: String,
        /// What DataFusion says.
        source: DataFusionError,
    },
}

/// Whether rows are new, or are read again after a restart to fill the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// New: row rules are evaluated.
    Live,
    /// Seen before the restart: they only fill windows.
    Replay,
}

/// What the engine counts about one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Rows held for open windows, as they are: those of rules without shared windows.
    pub held_rows: usize,
    /// Bytes of shared windows.
    pub shared_bytes: usize,
    /// Rows that came after the windows that wanted them were emitted.
    pub late_rows: u64,
    /// Rows that are not watched: of too many series, or the oldest of too many rows.
    pub overflow_rows: u64,
}

/// What a start must remember of the series of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series<'a> {
    /// The table.
    pub table: &'a str,
    /// Series that were seen from then on.
    pub from: Timestamp,
    /// Rows from then on will be pushed.
    pub before: Timestamp,
    /// Columns of which it matters when they last changed.
    pub stalled: Vec<&'a str>,
}

/// All rules, and what their open windows need.
pub struct Engine {
    /// Those from the start, then those that came since.
    generations: Vec<Generation>,
    /// Those that are about to take over.
    incoming: Option<Generation>,
    dimensions: Dimensions,
}

/// What a change of the rules comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Rules that are new, or are begun anew.
    pub begun: Vec<String>,
    /// Rules that are no longer there.
    pub dropped: Vec<String>,
}

impl Engine {
    /// An engine for these rules.
    ///
    /// # Errors
    /// Too many rules, or DataFusion can't be set up.
    pub fn new(rules: Vec<CompiledRule>) -> Result<Engine, EngineError> {
        few_enough(rules.len())?;
        let generations = vec![Generation::new(rules)?];
        Ok(Engine { generations, incoming: None, dimensions: Dimensions::default() })
    }

    /// Begins to change the rules to these. What is new or edited is begun beside what runs, which goes on as it is until
    /// [`Engine::commit_change`]; a change that was begun before is given up. `reached` says how far tables have come that no rule
    /// has read yet. Rows that the new rules' windows need are given to
    /// [`Engine::prefill`].
    ///
    /// # Errors
    /// Too many rules, or DataFusion can't be set up.
    pub fn begin_change(
        &mut self,
        rules: Vec<CompiledRule>,
        reached: &BTreeMap<String, Timestamp>,
    ) -> Result<Renewed, EngineError> {
        few_enough(rules.len())?;
        let running: BTreeMap<String, Rule> = self.rules().map(|rule| (rule.name.clone(), rule.clone())).collect();
        let wanted: BTreeSet<&str> = rules.iter().map(|wanted| wanted.rule.name.as_str()).collect();
        let dropped = running.keys().filter(|name| !wanted.contains(name.as_str())).cloned();
        let dropped: Vec<String> = dropped.collect();
        // Those that came since the start are begun anew together: there are never more than two generations.
        let first: BTreeMap<&str, &Rule> = self.generations[0].rules().map(|rule| (rule.name.as_str(), rule)).collect();
        let stays = |rule: &Rule| first.get(rule.name.as_str()).is_some_and(|known| same_work(known, rule));
        let begun: Vec<CompiledRule> = rules.iter().filter(|wanted| !stays(&wanted.rule)).cloned().collect();
        let changed = begun
            .iter()
            .filter(|wanted| !running.get(&wanted.rule.name).is_some_and(|known| same_work(known, &wanted.rule)));
        let change = Renewed { begun: changed.map(|wanted| wanted.rule.name.clone()).collect(), dropped };
        let mut incoming = Generation::new(begun)?;
        incoming.set_dimensions(&self.dimensions);
        self.place_incoming(&mut incoming, reached, &mut |_| vec![]);
        self.incoming = Some(incoming);
        Ok(change)
    }

    /// Puts new rules where those of the same name stand, or where event time is.
    fn place_incoming(
        &self,
        incoming: &mut Generation,
        reached: &BTreeMap<String, Timestamp>,
        groups: &mut dyn FnMut(&Rule) -> Vec<(Key, Timestamp)>,
    ) {
        let positions: BTreeMap<&str, Timestamp> = self.positions().collect();
        let rules: Vec<Rule> = incoming.rules().cloned().collect();
        for rule in rules {
            let come = |table: &str| self.watermark(table).max(reached.get(table).copied());
            let come = rule.tables().map(come).min().flatten();
            let now = come.map(|reached| reached.saturating_sub(rule.options.delay));
            let known = groups(&rule);
            if let Some(stands) = positions.get(rule.name.as_str()).copied().or(now) {
                incoming.restore(&rule.name, stands, known);
            }
        }
    }

    /// How far event time of a table has come, if any rule reads it.
    fn watermark(&self, table: &str) -> Option<Timestamp> {
        let known = self.generations.iter().filter_map(|generation| generation.watermark(table));
        known.filter(|watermark| *watermark > Timestamp::MIN).max()
    }

    /// Gives rows to the rules that are about to take over: for each table those from [`Engine::prefill_from`] up to where the other
    /// rules have read.
    ///
    /// # Errors
    /// A batch that is not of the table's schema.
    pub fn prefill(
        &mut self,
        table: &str,
        batch: &RecordBatch,
        listener: &mut dyn Listener,
    ) -> Result<(), EngineError> {
        match &mut self.incoming {
            Some(incoming) => incoming.push(table, batch, Feed::Replay, listener),
            None => Ok(()),
        }
    }

    /// The event time from which the rules that are about to take over need the rows of a table; `None` when they need none.
    pub fn prefill_from(&self, table: &str) -> Option<Timestamp> {
        self.incoming.as_ref()?.replay_from(table)
    }

    /// What the rules that are about to take over must be told of series.
    pub fn prefill_series(&self) -> impl Iterator<Item = Series<'_>> {
        self.incoming.iter().flat_map(Generation::wants_series)
    }

    /// Lets the new rules take over; `groups` are those of a rule whose alerts are alive, with the event time at which they were seen
    /// last. Rules that are not among `names` end.
    pub fn commit_change(
        &mut self,
        names: &dyn Fn(&str) -> bool,
        reached: &BTreeMap<String, Timestamp>,
        groups: &mut dyn FnMut(&Rule) -> Vec<(Key, Timestamp)>,
    ) {
        let Some(mut incoming) = self.incoming.take() else { return };
        self.place_incoming(&mut incoming, reached, groups);
        let begun: BTreeSet<String> = incoming.rules().map(|rule| rule.name.clone()).collect();
        self.generations.truncate(1);
        self.generations[0].retain(&|name| names(name) && !begun.contains(name));
        self.generations.push(incoming);
    }

    /// Gives up a change that was begun.
    pub fn cancel_change(&mut self) {
        self.incoming = None;
    }

    /// Whether new rules are about to take over.
    pub fn is_changing(&self) -> bool {
        self.incoming.is_some()
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.generations.iter().flat_map(Generation::rules)
    }

    /// Gives the dimension tables their rows, from now on.
    pub fn set_dimensions(&mut self, dimensions: &Dimensions) {
        self.dimensions = dimensions.clone();
        let all = self.generations.iter_mut().chain(&mut self.incoming);
        all.for_each(|generation| generation.set_dimensions(dimensions));
    }

    /// Puts a rule where it stood before a restart: `emitted` is the end of its last window, `groups` are those whose
    /// alerts are alive, with the event time at which they were seen last. Unknown rules are ignored.
    pub fn restore(&mut self, rule: &str, emitted: Timestamp, groups: impl IntoIterator<Item = (Key, Timestamp)>) {
        let of_rule = |generation: &&mut Generation| generation.rules().any(|known| known.name == rule);
        if let Some(generation) = self.generations.iter_mut().find(of_rule) {
            generation.restore(rule, emitted, groups);
        }
    }

    /// The rules whose rows pass in order, with OVER: one that begins anew must be told from when on it judges.
    pub fn ordered(&self) -> impl Iterator<Item = &Rule> {
        self.generations.iter().flat_map(Generation::ordered)
    }

    /// For each rule that has seen anything: its name and the end of its last window, or of the one before its first, so
    /// that a restart before that one closed does not begin later.
    pub fn positions(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.generations.iter().flat_map(Generation::positions)
    }

    /// The event time from which a table's rows must be read again after a restart; `None` when none are needed.
    pub fn replay_from(&self, table: &str) -> Option<Timestamp> {
        self.generations.iter().filter_map(|generation| generation.replay_from(table)).min()
    }

    /// The tables of rules about series, with what must be remembered for them.
    pub fn wants_series(&self) -> impl Iterator<Item = Series<'_>> {
        self.generations.iter().flat_map(Generation::wants_series)
    }

    /// Takes series that were seen before the start: the identity columns of a table, and `ts`; perhaps a column that `STALLED` looks at,
    /// with the rows in which it changed.
    ///
    /// # Errors
    /// A batch without these columns.
    pub fn remember(&mut self, table: &str, seen: &RecordBatch) -> Result<(), EngineError> {
        let mut all = self.generations.iter_mut().chain(&mut self.incoming);
        all.try_for_each(|generation| generation.remember(table, seen))
    }

    /// Says whether sources of a table are just being heard again, after a time in which nobody could be: what is silent then
    /// may be on its way.
    pub fn set_blind(&mut self, table: &str, blind: bool) {
        self.generations.iter_mut().for_each(|generation| generation.set_blind(table, blind));
    }

    /// What the engine counts about a table.
    pub fn counts(&self, table: &str) -> TableCounts {
        let mut counts = TableCounts::default();
        for other in self.generations.iter().map(|generation| generation.counts(table)) {
            counts.held_rows += other.held_rows;
            counts.shared_bytes += other.shared_bytes;
            // Of the same rows.
            counts.late_rows = counts.late_rows.max(other.late_rows);
            counts.overflow_rows = counts.overflow_rows.max(other.overflow_rows);
        }
        counts
    }

    /// How the rules are evaluated, in the order of their names.
    pub fn explain(&self) -> impl Iterator<Item = Explanation> {
        let mut all: Vec<Explanation> = self.generations.iter().flat_map(Generation::explain).collect();
        all.sort_by(|left, right| left.rule.cmp(&right.rule));
        all.into_iter()
    }

    /// Bytes held for each table, about; looks at everything, so not too often.
    pub fn bytes(&self) -> BTreeMap<String, u64> {
        let mut bytes = BTreeMap::new();
        for table in self.generations.iter().chain(&self.incoming).flat_map(|generation| &generation.tables) {
            *bytes.entry(table.name.clone()).or_default() += table.bytes() as u64;
        }
        bytes
    }

    /// Keeps what is held within so many bytes: beyond it no new series and groups are watched, and the oldest rows that are held
    /// as they are go; both are counted. Returns the bytes held for each table. To be called now and then.
    pub fn keep_within(&mut self, limit: u64) -> BTreeMap<String, u64> {
        let held = self.bytes();
        let all: u64 = held.values().sum();
        let mut over = all.saturating_sub(limit) as usize;
        // Not open again at once: closing and opening in turn would watch some of each.
        let close = match (all > limit, all > limit / 10 * 9) {
            (true, _) => Some(true),
            (false, false) => Some(false),
            (false, true) => None,
        };
        for table in self.generations.iter_mut().chain(&mut self.incoming).flat_map(|generation| &mut generation.tables)
        {
            if let Some(closed) = close {
                table.close(closed);
            }
        }
        while over > 0 {
            let all =
                self.generations.iter_mut().chain(&mut self.incoming).flat_map(|generation| &mut generation.tables);
            let oldest = all.filter(|table| table.panes.rows() > 0).min_by_key(|table| table.panes.oldest());
            let Some(oldest) = oldest else { break };
            over = over.saturating_sub(oldest.panes.give_up());
        }
        held
    }

    /// By rule whose plan is run: which share of its budget its last evaluation took.
    pub fn budget_shares(&self) -> impl Iterator<Item = (&str, f64)> {
        self.generations.iter().flat_map(Generation::budget_shares)
    }

    /// By rule: rows that said something of an identity of which a worse row of the same time speaks.
    pub fn repeated_rows(&self) -> impl Iterator<Item = (&str, u64)> {
        self.generations.iter().flat_map(Generation::repeated_rows)
    }

    /// Rows that are not watched because there are too many groups.
    pub fn overflow_groups(&self) -> u64 {
        self.generations.iter().map(Generation::overflow_groups).sum()
    }

    /// Takes admitted rows of a table. Hands over the evaluations of row rules, one per rule and distinct ts, ascending.
    ///
    /// # Errors
    /// A batch that is not of the table's schema.
    pub fn push(
        &mut self,
        table: &str,
        batch: &RecordBatch,
        feed: Feed,
        listener: &mut dyn Listener,
    ) -> Result<(), EngineError> {
        self.generations.iter_mut().try_for_each(|generation| generation.push(table, batch, feed, listener))
    }

    /// Moves a table's watermark (before any rule's delay). Hands over what the windows that closed yield, one by one, in
    /// order of their ends, then of rule names; rules that came while it ran come after the others. Windows over several tables close
    /// when the last of them has come so far. `lagging` says that our own input is behind, so that missing rows mean nothing.
    ///
    /// Windows without any row are left out where the listener said that they would change nothing: a gap of a day costs a few
    /// evaluations, not one per slide.
    pub fn advance(&mut self, table: &str, watermark: Timestamp, lagging: bool, listener: &mut dyn Listener) {
        self.generations.iter_mut().for_each(|generation| generation.advance(table, watermark, lagging, listener));
    }

    /// Says that no row of a table before this will come, though it may have none of that time itself: windows over several tables
    /// need not wait for it. Its own windows close when its watermark moves.
    pub fn advance_joined(&mut self, table: &str, reached: Timestamp, listener: &mut dyn Listener) {
        self.generations.iter_mut().for_each(|generation| generation.advance_joined(table, reached, listener));
    }
}

fn few_enough(found: usize) -> Result<(), EngineError> {
    if found > RULES { Err(EngineError::TooManyRules { found, limit: RULES }) } else { Ok(()) }
}

/// Whether two rules are evaluated alike, whatever they are called elsewhere.
fn same_work(known: &Rule, wanted: &Rule) -> bool {
    *known == Rule { source: known.source.clone(), ..wanted.clone() }
}
