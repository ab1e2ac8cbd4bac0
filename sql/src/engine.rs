//! The engine: rows and watermarks in, evaluations out, and nothing else. It reads no clock and no configuration, so a
//! replay of the same rows and watermarks yields the same evaluations.
//!
//! This first form re-runs each rule's plan over the rows of its window at every slide. It is simple and correct, and
//! costs size/slide times the rows; the shared-window engine replaces the inside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::session_state::SessionState;
use tidewatch_model::limits::{GONE_AFTER, RULE_GROUPS, RULES};
use tidewatch_model::table::TableKind;
use tidewatch_model::{Evaluation, Finding, GroupState, Key, Outcome, RuleShape, Span, Timestamp, Values, WindowSpec};
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
        let rules = rules.into_iter().map(Running::new).collect();
        Ok(Engine { state: session.state(), runtime, rules, tables, overflow_groups: 0 })
    }

    /// Puts a rule where it stood before a restart: `emitted` is the end of its last window, `groups` are those whose
    /// alerts are alive. Unknown rules are ignored.
    pub fn restore(&mut self, rule: &str, emitted: Timestamp, groups: impl IntoIterator<Item = Key>) {
        let Some(running) = self.rules.iter_mut().find(|running| running.compiled.rule.name == rule) else { return };
        running.groups.extend(groups.into_iter().map(|key| (key, emitted)));
        running.emitted = Some(emitted);
        running.closed = emitted;
        if let RuleShape::Window(spec) = running.compiled.rule.shape {
            running.next_start = Some(spec.last_closed_start(emitted) + spec.slide);
        }
    }

    /// For each rule that has emitted something: its name and the end of its last window.
    pub fn positions(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.rules.iter().filter_map(|running| Some((running.compiled.rule.name.as_str(), running.emitted?)))
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

    /// Moves a table's watermark (before any rule's delay). Returns what the windows that closed yield, in order of
    /// their ends, then of rule names. `lagging` says that our own input is behind, so that missing rows mean nothing.
    pub fn advance(&mut self, table: &str, watermark: Timestamp, lagging: bool) -> Vec<Evaluation> {
        let mut evaluations = Vec::new();
        for index in 0..self.rules.len() {
            let rule = &self.rules[index].compiled.rule;
            if rule.table != table {
                continue;
            }
            let closed = watermark.saturating_sub(rule.options.delay);
            match rule.shape {
                RuleShape::Window(spec) => evaluations.extend(self.close_windows(index, spec, closed, lagging)),
                RuleShape::Row if rule.table_kind == TableKind::Event => {
                    evaluations.extend(self.row_heartbeat(index, closed))
                }
                RuleShape::Row => {}
            }
        }
        evaluations.sort_by(|left, right| (left.window_end, &left.rule).cmp(&(right.window_end, &right.rule)));
        let floor = self.floor(table);
        if let Some(panes) = self.tables.get_mut(table) {
            panes.forget_before(floor);
        }
        evaluations
    }

    /// Start of the earliest open window of any rule on the table: rows before it are of no use.
    fn floor(&self, table: &str) -> Timestamp {
        let windowed = self.rules.iter().filter(|running| {
            running.compiled.rule.table == table && matches!(running.compiled.rule.shape, RuleShape::Window(_))
        });
        windowed.filter_map(|running| running.next_start).min().unwrap_or(Timestamp::MIN)
    }

    fn close_windows(&mut self, index: usize, spec: WindowSpec, closed: Timestamp, lagging: bool) -> Vec<Evaluation> {
        let mut evaluations = Vec::new();
        self.rules[index].closed = self.rules[index].closed.max(closed);
        while let Some(start) = self.rules[index].next_start.filter(|start| spec.end_of(*start) <= closed) {
            let end = spec.end_of(start);
            let outcome = self.evaluate_window(index, start, end, lagging);
            let running = &mut self.rules[index];
            running.next_start = Some(start + spec.slide);
            running.emitted = Some(end);
            running.forget_gone(end, spec.size);
            let rule = running.compiled.rule.name.clone();
            evaluations.push(Evaluation { rule, window_start: start, window_end: end, outcome });
        }
        evaluations
    }

    fn evaluate_window(&mut self, index: usize, start: Timestamp, end: Timestamp, lagging: bool) -> Outcome {
        let running = &self.rules[index];
        let rows = match self.tables.get_mut(&running.compiled.rule.table) {
            Some(panes) => panes.between(start, end),
            None => Ok(vec![]),
        };
        let found = match rows {
            Ok(rows) if rows.is_empty() => Ok((vec![], vec![])),
            Ok(rows) => self.query_both(&running.compiled, rows, (start, end), None),
            Err(error) => Err(DataFusionError::from(error)),
        };
        match found {
            Ok((matching, present)) => self.group_states(index, end, lagging, matching, present),
            Err(error) => Outcome::Failed(error.strip_backtrace()),
        }
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
        let evaluations = instants.into_iter().map(|(ts, groups)| {
            let findings = groups.into_iter().map(|(key, state)| Finding { key, state }).collect();
            Evaluation { rule: rule.clone(), window_start: ts, window_end: ts, outcome: Outcome::Groups(findings) }
        });
        evaluations.collect()
    }

    /// Tells the lifecycle how far event time has come, so that alerts on events can end.
    fn row_heartbeat(&mut self, index: usize, closed: Timestamp) -> Option<Evaluation> {
        let running = &mut self.rules[index];
        if running.emitted.is_some_and(|emitted| emitted >= closed) {
            return None;
        }
        running.emitted = Some(closed);
        let rule = running.compiled.rule.name.clone();
        Some(Evaluation { rule, window_start: closed, window_end: closed, outcome: Outcome::Groups(vec![]) })
    }
}

impl Running {
    fn new(compiled: CompiledRule) -> Self {
        Running { compiled, next_start: None, emitted: None, closed: Timestamp::MIN, groups: BTreeMap::new() }
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
