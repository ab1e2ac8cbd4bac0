//! The engine: rows and watermarks in, evaluations out, and nothing else. It reads no clock and no configuration, so a
//! replay of the same rows and watermarks yields the same evaluations.
//!
//! This first form re-runs each rule's plan over the rows of its window at every slide. It is simple and correct, and
//! costs size/slide times the rows; the shared-window engine replaces the inside.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::session_state::SessionState;
use tidewatch_model::limits::{GONE_AFTER, ROW_SILENCE, ROW_SILENCE_CHECK, RULE_GROUPS, RULES};
use tidewatch_model::table::TableKind;
use tidewatch_model::{Evaluation, Finding, GroupState, Key, Outcome, RuleShape, Span, Timestamp, Values};
use tokio::runtime::Runtime;

use crate::compile::CompiledRule;
use crate::panes::{Panes, times};
use crate::rows_table::bind;
use crate::session::{rule_session, run};
use crate::shape::ROW_TIME;
use crate::values::{ResultRow, result_rows};

/// Why the engine could not be made or fed; an evaluation that fails is an [`Outcome::Failed`] instead.
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
        /// What Arrow says.
        source: arrow::error::ArrowError,
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
    /// Rows held for open windows.
    pub held_rows: usize,
    /// Rows that came after the windows that wanted them were emitted.
    pub late_rows: u64,
    /// Rows dropped because the table held too many.
    pub overflow_rows: u64,
}

/// All rules, and the rows that their open windows need.
pub struct Engine {
    state: SessionState,
    runtime: Runtime,
    rules: Vec<Running>,
    tables: HashMap<String, Panes>,
    overflow_groups: u64,
}

/// One rule and where it stands.
struct Running {
    compiled: CompiledRule,
    /// Start of the next window to emit, once a row was seen.
    next_start: Option<Timestamp>,
    /// End of the last window emitted.
    emitted: Option<Timestamp>,
    /// Where the watermark, less the rule's delay, has been: no window that ends there or before is opened any more.
    closed: Timestamp,
    /// Groups seen, with the end of the last window that had rows of theirs.
    groups: BTreeMap<Key, Timestamp>,
    /// For rows of samples: until when what is silent already changes nothing.
    quiet_until: Timestamp,
    /// For rows of samples: the last minute that was looked at.
    looked: Timestamp,
}

impl Engine {
    /// An engine for these rules.
    ///
    /// # Errors
    /// Too many rules, or DataFusion can't be set up.
    pub fn new(rules: Vec<CompiledRule>) -> Result<Engine, EngineError> {
        if rules.len() > RULES {
            return Err(EngineError::TooManyRules { found: rules.len(), limit: RULES });
        }
        let session = rule_session().map_err(EngineError::Start)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| EngineError::Start(DataFusionError::IoError(error)))?;
        let mut columns: HashMap<String, BTreeSet<String>> = HashMap::new();
        for compiled in rules.iter().filter(|compiled| matches!(compiled.rule.shape, RuleShape::Window(_))) {
            columns.entry(compiled.rule.table.clone()).or_default().extend(compiled.columns.iter().cloned());
        }
        let tables =
            columns.into_iter().map(|(table, columns)| (table, Panes::new(columns.into_iter().collect()))).collect();
        let mut rules: Vec<Running> = rules.into_iter().map(Running::new).collect();
        // Ends of windows are worked off in the order of their ends, then of names.
        rules.sort_by(|left, right| left.compiled.rule.name.cmp(&right.compiled.rule.name));
        Ok(Engine { state: session.state(), runtime, rules, tables, overflow_groups: 0 })
    }

    /// Puts a rule where it stood before a restart: `emitted` is the end of its last window, `groups` are those whose
    /// alerts are alive, with the event time at which they were seen last. Unknown rules are ignored.
    pub fn restore(&mut self, rule: &str, emitted: Timestamp, groups: impl IntoIterator<Item = (Key, Timestamp)>) {
        let Some(running) = self.rules.iter_mut().find(|running| running.compiled.rule.name == rule) else { return };
        running.groups.extend(groups);
        running.emitted = Some(emitted);
        running.closed = emitted;
        if let RuleShape::Window(spec) = running.compiled.rule.shape {
            running.next_start = Some(spec.last_closed_start(emitted) + spec.slide);
        }
    }

    /// For each rule that has seen anything: its name and the end of its last window, or of the one before its first, so
    /// that a restart before that one closed does not begin later.
    pub fn positions(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.rules.iter().filter_map(|running| {
            let stands = match running.compiled.rule.shape {
                RuleShape::Window(spec) => running.next_start.map(|next| spec.end_of(next) - spec.slide),
                RuleShape::Row => running.emitted,
            };
            Some((running.compiled.rule.name.as_str(), stands?))
        })
    }

    /// The event time from which a table's rows must be read again after a restart; `None` when none are needed.
    pub fn replay_from(&self, table: &str) -> Option<Timestamp> {
        let of_table = self.rules.iter().filter(|running| running.compiled.rule.table == table);
        of_table.filter_map(|running| running.next_start).min()
    }

    /// What the engine counts about a table.
    pub fn counts(&self, table: &str) -> TableCounts {
        self.tables.get(table).map_or_else(TableCounts::default, |panes| TableCounts {
            held_rows: panes.rows(),
            late_rows: panes.late_rows,
            overflow_rows: panes.overflow_rows,
        })
    }

    /// Groups that were not watched because their rule had too many.
    pub fn overflow_groups(&self) -> u64 {
        self.overflow_groups
    }

    /// Takes admitted rows of a table. Returns the evaluations of row rules, one per rule and distinct ts, ascending.
    ///
    /// # Errors
    /// A batch that is not of the table's schema.
    pub fn push(&mut self, table: &str, batch: &RecordBatch, feed: Feed) -> Result<Vec<Evaluation>, EngineError> {
        let wrong = |source| EngineError::Batch { table: table.to_string(), source };
        let Some(first) = times(batch).and_then(|times| times.values().iter().min().copied()) else {
            return Ok(vec![]);
        };
        for running in self.rules.iter_mut().filter(|running| running.compiled.rule.table == table) {
            running.saw(Timestamp(first));
        }
        let floor = self.floor(table);
        if let Some(panes) = self.tables.get_mut(table) {
            panes.push(batch, floor).map_err(wrong)?;
        }
        if feed == Feed::Replay {
            return Ok(vec![]);
        }
        let mut evaluations = Vec::new();
        for index in 0..self.rules.len() {
            let rule = &self.rules[index].compiled.rule;
            if rule.table == table && rule.shape == RuleShape::Row {
                evaluations.extend(self.evaluate_rows(index, batch));
            }
        }
        Ok(evaluations)
    }

    /// Moves a table's watermark (before any rule's delay). Hands over what the windows that closed yield, one by one, in
    /// order of their ends, then of rule names. `lagging` says that our own input is behind, so that missing rows mean
    /// nothing.
    ///
    /// `judge` answers until when further evaluations of the rule would change nothing as long as none of its groups has
    /// rows. Empty windows that end before that are left out: a gap of a day costs a few evaluations, not one per slide.
    /// [`Timestamp::MIN`] leaves nothing out.
    pub fn advance(
        &mut self,
        table: &str,
        watermark: Timestamp,
        lagging: bool,
        judge: &mut dyn FnMut(Evaluation) -> Timestamp,
    ) {
        let mut due: BinaryHeap<Reverse<(Timestamp, usize)>> = BinaryHeap::new();
        for (index, running) in self.rules.iter_mut().enumerate() {
            if running.compiled.rule.table == table {
                running.closed = running.closed.max(watermark.saturating_sub(running.compiled.rule.options.delay));
                if running.was_looked_at() {
                    continue;
                }
                due.extend(running.due().map(|end| Reverse((end, index))));
            }
        }
        while let Some(Reverse((end, index))) = due.pop() {
            let (evaluation, quiet) = self.evaluate_next(index, end, lagging);
            let until = judge(evaluation);
            // What is not known now changes something later.
            if quiet && !lagging {
                self.skip_quiet(index, until);
            }
            due.extend(self.rules[index].due().map(|end| Reverse((end, index))));
        }
        let floor = self.floor(table);
        if let Some(panes) = self.tables.get_mut(table) {
            panes.forget_before(floor);
        }
    }

    /// What a rule yields at the next instant at which it is due, and whether nothing at all was seen in it.
    fn evaluate_next(&mut self, index: usize, end: Timestamp, lagging: bool) -> (Evaluation, bool) {
        let running = &self.rules[index];
        let rule = running.compiled.rule.name.clone();
        match (running.compiled.rule.shape, running.compiled.rule.table_kind) {
            (RuleShape::Window(spec), _) => {
                let start = end - spec.size;
                let (outcome, quiet) = self.evaluate_window(index, start, end, lagging);
                let running = &mut self.rules[index];
                running.next_start = Some(start + spec.slide);
                running.emitted = Some(end);
                running.forget_gone(end, spec.size);
                (Evaluation { rule, window_start: start, window_end: end, outcome }, quiet)
            }
            (RuleShape::Row, TableKind::Event) => {
                self.rules[index].emitted = Some(end);
                (Evaluation { rule, window_start: end, window_end: end, outcome: Outcome::Groups(vec![]) }, false)
            }
            (RuleShape::Row, TableKind::Sample) => {
                let running = &mut self.rules[index];
                running.emitted = Some(end);
                running.forget_gone(end, ROW_SILENCE);
                let silent = running.groups.iter().filter(|(_, last_seen)| end - **last_seen >= ROW_SILENCE);
                let state = if lagging { GroupState::Unknown } else { GroupState::NoData };
                let findings = silent.map(|(key, _)| Finding { key: key.clone(), state: state.clone() }).collect();
                let window_start = end - ROW_SILENCE;
                (Evaluation { rule, window_start, window_end: end, outcome: Outcome::Groups(findings) }, true)
            }
        }
    }

    /// Passes over windows without rows that end before `until`, and are closed.
    fn skip_quiet(&mut self, index: usize, until: Timestamp) {
        let running = &mut self.rules[index];
        match running.compiled.rule.shape {
            RuleShape::Window(spec) => {
                let Some(next) = running.next_start else { return };
                let first_row =
                    self.tables.get(&running.compiled.rule.table).and_then(|panes| panes.first_at_or_after(next));
                let with_rows = first_row.map_or(Timestamp::MAX, |ts| spec.first_start_of(ts));
                let changing = spec.first_start_ending(until);
                let open = spec.last_closed_start(running.closed) + spec.slide;
                running.next_start = Some(next.max(with_rows.min(changing).min(open)));
            }
            // The next silent key is looked for by `due`; one that is silent already changes nothing before `until`.
            RuleShape::Row => running.quiet_until = until,
        }
    }

    /// Start of the earliest open window of any rule on the table: rows before it are of no use.
    fn floor(&self, table: &str) -> Timestamp {
        let windowed = self.rules.iter().filter(|running| {
            running.compiled.rule.table == table && matches!(running.compiled.rule.shape, RuleShape::Window(_))
        });
        windowed.filter_map(|running| running.next_start).min().unwrap_or(Timestamp::MIN)
    }

    /// The outcome of a window, and whether it had no row.
    fn evaluate_window(&mut self, index: usize, start: Timestamp, end: Timestamp, lagging: bool) -> (Outcome, bool) {
        let running = &self.rules[index];
        let rows = match self.tables.get_mut(&running.compiled.rule.table) {
            Some(panes) => panes.between(start, end),
            None => Ok(vec![]),
        };
        let quiet = rows.as_ref().is_ok_and(Vec::is_empty);
        let found = match rows {
            Ok(rows) if rows.is_empty() => Ok((vec![], vec![])),
            Ok(rows) => self.query_both(&running.compiled, rows, (start, end), None),
            Err(error) => Err(DataFusionError::from(error)),
        };
        let outcome = match found {
            Ok((matching, present)) => self.group_states(index, end, lagging, matching, present),
            Err(error) => Outcome::Failed(error.strip_backtrace()),
        };
        (outcome, quiet)
    }

    /// Runs both plans of a rule over the same rows.
    fn query_both(
        &self,
        compiled: &CompiledRule,
        rows: Vec<RecordBatch>,
        window: (Timestamp, Timestamp),
        time: Option<&str>,
    ) -> Result<(Vec<ResultRow>, Vec<ResultRow>), DataFusionError> {
        let query = |plan, rows| -> Result<Vec<ResultRow>, DataFusionError> {
            let bound = bind(plan, rows, window)?;
            let batches = self.runtime.block_on(run(&self.state, &bound))?;
            Ok(result_rows(&batches, &compiled.rule.key, time)?)
        };
        Ok((query(&compiled.matching, rows.clone())?, query(&compiled.present, rows)?))
    }

    /// Every known group with its state: what fires, what had rows, what had none.
    fn group_states(
        &mut self,
        index: usize,
        end: Timestamp,
        lagging: bool,
        matching: Vec<ResultRow>,
        present: Vec<ResultRow>,
    ) -> Outcome {
        // Without an aggregate a group may match more than once; the newest row, which comes last, speaks for it.
        let mut firing: BTreeMap<Key, Values> = matching.into_iter().map(|row| (row.key, row.values)).collect();
        let running = &mut self.rules[index];
        for key in present.into_iter().map(|row| row.key).chain(firing.keys().cloned()) {
            if running.groups.len() < RULE_GROUPS || running.groups.contains_key(&key) {
                running.groups.insert(key, end);
            } else {
                self.overflow_groups += 1;
            }
        }
        let findings = running.groups.iter().map(|(key, last_seen)| {
            let state = match firing.remove(key) {
                Some(values) => GroupState::Firing(values),
                None if *last_seen == end => GroupState::Clear,
                None if lagging => GroupState::Unknown,
                None => GroupState::NoData,
            };
            Finding { key: key.clone(), state }
        });
        Outcome::Groups(findings.collect())
    }

    /// Remembers when the keys that ever fired were seen last, so that their silence is noticed.
    fn watch_rows(&mut self, index: usize, instants: &BTreeMap<Timestamp, BTreeMap<Key, GroupState>>) {
        self.rules[index].quiet_until = Timestamp::MIN;
        let groups = &mut self.rules[index].groups;
        for (ts, states) in instants {
            for (key, state) in states {
                if let Some(last_seen) = groups.get_mut(key) {
                    *last_seen = (*last_seen).max(*ts);
                } else if matches!(state, GroupState::Clear) {
                    continue;
                } else if groups.len() < RULE_GROUPS {
                    groups.insert(key.clone(), *ts);
                } else {
                    self.overflow_groups += 1;
                }
            }
        }
    }

    /// A row rule over one batch: one evaluation per distinct ts among the rows that it looks at.
    fn evaluate_rows(&mut self, index: usize, batch: &RecordBatch) -> Vec<Evaluation> {
        let compiled = &self.rules[index].compiled;
        let rule = compiled.rule.name.clone();
        let rows = vec![batch.clone()];
        let (matching, present) = match self.query_both(compiled, rows, (Timestamp(0), Timestamp(0)), Some(ROW_TIME)) {
            Ok(found) => found,
            Err(error) => {
                let newest = times(batch).and_then(|times| times.values().iter().max().copied()).unwrap_or_default();
                let ts = Timestamp(newest);
                let outcome = Outcome::Failed(error.strip_backtrace());
                return vec![Evaluation { rule, window_start: ts, window_end: ts, outcome }];
            }
        };
        let mut instants: BTreeMap<Timestamp, BTreeMap<Key, GroupState>> = BTreeMap::new();
        if compiled.rule.table_kind == TableKind::Sample {
            for ResultRow { ts, key, .. } in present {
                instants.entry(ts.unwrap_or_default()).or_default().insert(key, GroupState::Clear);
            }
        }
        for ResultRow { ts, key, values } in matching {
            instants.entry(ts.unwrap_or_default()).or_default().insert(key, GroupState::Firing(values));
        }
        if compiled.rule.table_kind == TableKind::Sample {
            self.watch_rows(index, &instants);
        }
        let evaluations = instants.into_iter().map(|(ts, groups)| {
            let findings = groups.into_iter().map(|(key, state)| Finding { key, state }).collect();
            Evaluation { rule: rule.clone(), window_start: ts, window_end: ts, outcome: Outcome::Groups(findings) }
        });
        evaluations.collect()
    }
}

impl Running {
    fn new(compiled: CompiledRule) -> Self {
        Running {
            compiled,
            next_start: None,
            emitted: None,
            closed: Timestamp::MIN,
            groups: BTreeMap::new(),
            quiet_until: Timestamp::MIN,
            looked: Timestamp::MIN,
        }
    }

    /// Rows of samples are looked at for silence once a minute, however often event time moves.
    fn was_looked_at(&mut self) -> bool {
        if self.compiled.rule.shape != RuleShape::Row || self.compiled.rule.table_kind != TableKind::Sample {
            return false;
        }
        let minute = self.closed.floor(ROW_SILENCE_CHECK);
        minute <= std::mem::replace(&mut self.looked, minute)
    }

    /// The next instant at which the rule yields something, if event time has come that far: the end of a window; for
    /// events, how far event time has come, so that their alerts can end; for rows of samples, each minute in which
    /// something is silent.
    fn due(&self) -> Option<Timestamp> {
        let end = match (self.compiled.rule.shape, self.compiled.rule.table_kind) {
            (RuleShape::Window(spec), _) => spec.end_of(self.next_start?),
            (RuleShape::Row, TableKind::Event) => self.closed,
            (RuleShape::Row, TableKind::Sample) => {
                let checked = self.emitted.unwrap_or(Timestamp::MIN);
                let silent = |last_seen: &Timestamp| last_seen.saturating_add(ROW_SILENCE);
                // A key that fell silent since the last look, or one that is silent and whose alert changes then.
                let newly = self.groups.values().map(silent).filter(|at| *at > checked).min();
                let again = self.groups.values().map(silent).any(|at| at <= checked).then_some(self.quiet_until);
                let at = newly.into_iter().chain(again).min()?.max(checked);
                at.floor(ROW_SILENCE_CHECK).saturating_add(ROW_SILENCE_CHECK)
            }
        };
        (end <= self.closed && self.emitted.is_none_or(|emitted| emitted < end)).then_some(end)
    }

    /// A row at `ts`: the first window that holds it and was not emitted is the next one, unless an earlier one is.
    fn saw(&mut self, ts: Timestamp) {
        let RuleShape::Window(spec) = self.compiled.rule.shape else { return };
        let Some(first) = spec.starts_of(ts).next() else { return };
        let open = match self.closed {
            Timestamp::MIN => first,
            closed => spec.last_closed_start(closed) + spec.slide,
        };
        let start = first.max(open);
        self.next_start = Some(self.next_start.map_or(start, |next| next.min(start)));
    }

    /// Groups without rows for so long that their alerts are over.
    fn forget_gone(&mut self, end: Timestamp, size: Span) {
        let keep_from = end.saturating_sub(GONE_AFTER).saturating_sub(size).saturating_sub(size);
        self.groups.retain(|_, last_seen| *last_seen >= keep_from);
    }
}
