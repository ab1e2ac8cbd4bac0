//! Rules that were begun together, and what their open windows need.

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use tidewatch_model::limits::{GONE_AFTER, SERIES_LOOKBACK};
use tidewatch_model::table::{self, TableKind};
use tidewatch_model::{Key, Rule, RuleShape, Span, Timestamp};

use super::general::{General, Queries};
use super::of_table::{TableState, Wanted, instants};
use super::row::RowRule;
use super::timeline::Timeline;
use super::{EngineError, Feed, Series, TableCounts};
use crate::compile::{CompiledRule, Strategy};
use crate::dimension::Dimensions;
use crate::explain::{Explanation, OverExplanation, WindowExplanation};
use crate::listener::Listener;
use crate::presence::Presence;
use crate::rows_table::{Source, scans};
use crate::shared::rule::SharedRule;

/// Some rules, and what their open windows need.
pub struct Generation {
    pub(super) queries: Queries,
    /// In the order of their names.
    pub(super) rules: Vec<Running>,
    /// In the order of their names.
    pub(super) tables: Vec<TableState>,
    /// When windows end.
    pub(super) timelines: Vec<Timeline>,
}

/// One rule and where it stands.
pub struct Running {
    /// The rule.
    pub rule: Rule,
    /// Its tables, by their place in the engine's list.
    pub tables: Vec<usize>,
    /// End of the last window emitted, or the last instant.
    pub emitted: Option<Timestamp>,
    /// Until when what is silent already changes nothing.
    pub quiet_until: Timestamp,
    /// Whether it is over: it was dropped, or another generation has it.
    pub ended: bool,
    /// How it is evaluated.
    pub kind: Kind,
}

/// How a rule is evaluated.
pub enum Kind {
    /// On shared windows.
    Shared(Box<SharedRule>),
    /// By running its plan.
    General(Box<General>),
    /// Row by row.
    Row(Box<RowRule>),
}

impl Generation {
    /// For these rules.
    pub fn new(mut rules: Vec<CompiledRule>) -> Result<Generation, EngineError> {
        // What ends at the same time is told in the order of names.
        rules.sort_by(|left, right| left.rule.name.cmp(&right.rule.name));
        Self::of_sorted(&rules).map_err(EngineError::Start)
    }

    fn of_sorted(rules: &[CompiledRule]) -> Result<Generation, DataFusionError> {
        let mut names: Vec<&str> = rules.iter().flat_map(|compiled| compiled.rule.tables()).collect();
        names.sort_unstable();
        names.dedup();
        let place = |name: &str| names.binary_search(&name).unwrap_or_default();
        let mut wanted: Vec<Wanted<'_>> = names.iter().map(|_| Wanted::default()).collect();
        let mut timelines: Vec<Timeline> = Vec::new();
        for (index, CompiledRule { rule, strategy, .. }) in rules.iter().enumerate() {
            let mut tables: Vec<usize> = rule.tables().map(place).collect();
            let own = &mut wanted[tables[0]];
            tables.sort_unstable();
            if let Some(spec) = rule.shape.window() {
                let (delay, presence) = (rule.options.delay, matches!(rule.shape, RuleShape::Presence(_)));
                let fits = |line: &&mut Timeline| {
                    (&line.tables, line.spec, line.delay, line.presence) == (&tables, spec, delay, presence)
                };
                match timelines.iter_mut().find(fits) {
                    Some(timeline) => timeline.rules.push(index),
                    None => timelines.push(Timeline::new(tables, spec, delay, presence, index)),
                }
                own.presence |= presence;
            }
            match (strategy, rule.shape.window()) {
                (Strategy::Shared(plan), Some(spec)) => own.shared.push((plan, spec, rule.options.delay)),
                (Strategy::General(plan), _) => {
                    for (table, columns) in &plan.columns {
                        wanted[place(table)].columns.extend(columns.iter().cloned());
                    }
                    for (source, _) in scans(&plan.matching) {
                        if let Source::Stalled(table, column) = source {
                            wanted[place(&table)].stalled.insert(column);
                        }
                    }
                }
                (Strategy::Row(plan), _) => {
                    own.row_rules.push(index);
                    if !plan.overs.is_empty() {
                        own.ordered.push((plan, rule.options.delay));
                    }
                }
                _ => own.row_rules.push(index),
            }
        }
        let mut tables = Vec::new();
        let (mut places, mut ordered) = (Vec::new(), Vec::new());
        for (name, wanted) in names.iter().zip(wanted) {
            let found = table::find(name).ok_or_else(|| DataFusionError::Plan(format!("unknown table '{name}'")))?;
            let (state, shared, of_overs) = TableState::new(found, wanted)?;
            tables.push(state);
            places.push(shared.into_iter());
            ordered.push(of_overs.into_iter());
        }
        let mut running = Vec::new();
        for CompiledRule { rule, strategy, .. } in rules {
            let own = place(&rule.table);
            let kind = match (strategy, rule.shape.window(), table::find(&rule.table)) {
                (Strategy::Shared(plan), Some(spec), _) => {
                    let place = places[own].next();
                    let place = place.ok_or_else(|| DataFusionError::Internal("a plan without a place".to_string()))?;
                    Kind::Shared(Box::new(SharedRule::new(rule, plan, spec, place)?))
                }
                (Strategy::General(plan), Some(spec), _) => {
                    Kind::General(Box::new(General::new(plan.as_ref().clone(), spec)))
                }
                (Strategy::Row(plan), _, Some(found)) if plan.overs.is_empty() => {
                    Kind::Row(Box::new(RowRule::new(plan, &found.schema())?))
                }
                (Strategy::Row(plan), ..) => {
                    let place = ordered[own].next();
                    let place = place.ok_or_else(|| DataFusionError::Internal("a plan without a place".to_string()))?;
                    Kind::Row(Box::new(RowRule::with_overs(plan, &tables[own].ordered.schema(plan), place)?))
                }
                (Strategy::RowGeneral(plan), ..) => Kind::Row(Box::new(RowRule::of_plan(plan.as_ref().clone()))),
                _ => return Err(DataFusionError::Internal(format!("rule '{}' has no window", rule.name))),
            };
            let tables = rule.tables().map(place).collect();
            running.push(Running::new(rule, tables, kind));
        }
        Ok(Generation { queries: Queries::new()?, rules: running, tables, timelines })
    }

    /// The rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|running| !running.ended).map(|running| &running.rule)
    }

    /// How far event time of a table has come, if it reads it.
    pub fn watermark(&self, table: &str) -> Option<Timestamp> {
        self.place(table).map(|at| self.tables[at].watermark)
    }

    /// Ends the rules whose names are not wanted.
    pub fn retain(&mut self, is_wanted: &dyn Fn(&str) -> bool) {
        for running in self.rules.iter_mut().filter(|running| !is_wanted(&running.rule.name)) {
            running.ended = true;
        }
        let Generation { rules, tables, timelines, .. } = self;
        for timeline in timelines.iter_mut() {
            timeline.rules.retain(|index| !rules[*index].ended);
        }
        timelines.retain(|timeline| !timeline.rules.is_empty());
        for table in tables {
            table.row_rules.retain(|index| !rules[*index].ended);
        }
    }

    /// Gives the dimension tables their rows, from now on.
    pub fn set_dimensions(&mut self, dimensions: &Dimensions) {
        self.queries.dimensions = dimensions.clone();
    }

    pub(super) fn place(&self, table: &str) -> Option<usize> {
        self.tables.binary_search_by(|state| state.name.as_str().cmp(table)).ok()
    }

    /// Puts a rule where it stood before a restart: `emitted` is the end of its last window, `groups` are those whose
    /// alerts are alive, with the event time at which they were seen last. Unknown rules are ignored.
    pub fn restore(&mut self, rule: &str, emitted: Timestamp, groups: impl IntoIterator<Item = (Key, Timestamp)>) {
        let place = self.rules.binary_search_by(|running| running.rule.name.as_str().cmp(rule));
        let Some(index) = place.ok().filter(|index| !self.rules[*index].ended) else { return };
        let running = &mut self.rules[index];
        running.emitted = Some(emitted);
        match &mut running.kind {
            Kind::Shared(_) => {}
            Kind::General(general) => general.restore(groups),
            Kind::Row(row) => {
                row.restore(groups, emitted);
                if let Some(place) = row.place() {
                    self.tables[running.tables[0]].ordered.restore(place.line, emitted);
                }
            }
        }
        for timeline in self.timelines.iter_mut().filter(|timeline| timeline.rules.contains(&index)) {
            timeline.restore(timeline.rules.iter().map(|rule| self.rules[*rule].emitted).collect());
        }
    }

    /// For each rule that has seen anything: its name and the end of its last window, or of the one before its first, so
    /// that a restart before that one closed does not begin later.
    pub fn positions(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let windows = self
            .timelines
            .iter()
            .flat_map(|timeline| timeline.rules.iter().filter_map(|rule| Some((*rule, timeline.stands()?))));
        let rows = self.tables.iter().flat_map(|table| &table.row_rules);
        let rows = rows.filter_map(|rule| {
            let Running { kind: Kind::Row(row), tables, emitted, .. } = &self.rules[*rule] else { return None };
            let passed = row.place().and_then(|place| self.tables[tables[0]].ordered.stands(place.line));
            Some((*rule, passed.or(*emitted)?))
        });
        windows.chain(rows).map(|(rule, stands)| {
            let running = &self.rules[rule];
            (running.rule.name.as_str(), running.emitted.map_or(stands, |emitted| emitted.max(stands)))
        })
    }

    /// The event time from which a table's rows must be read again after a restart; `None` when none are needed.
    pub fn replay_from(&self, table: &str) -> Option<Timestamp> {
        let at = self.place(table)?;
        let lines = self.timelines.iter().filter(|timeline| timeline.tables.contains(&at));
        let ordered = self.tables[at].ordered.replay_from();
        lines.filter_map(|timeline| timeline.next_start).chain(ordered).min()
    }

    /// The tables of rules about series, with what must be remembered for them.
    pub fn wants_series(&self) -> impl Iterator<Item = Series<'_>> {
        let wanting = self.tables.iter().enumerate().filter(|(_, table)| table.presence.is_some());
        wanting.filter_map(|(at, TableState { name, .. })| {
            let before = self.replay_from(name)?;
            let lines = self.timelines.iter().filter(|timeline| timeline.presence && timeline.tables.contains(&at));
            let longest = lines.flat_map(|timeline| &timeline.rules).filter_map(|rule| match &self.rules[*rule].kind {
                Kind::General(general) => Some(general.longest()),
                _ => None,
            });
            // Twice: once until it matters, and once for the time that the engine was away.
            // A rule that names no time may ask for any.
            let longest = longest.map(|longest| if longest == Span::ZERO { GONE_AFTER } else { longest });
            let twice = Span(longest.max().unwrap_or(Span::ZERO).0.saturating_mul(2)).min(GONE_AFTER);
            let stalled = self.tables[at].presence.iter().flat_map(Presence::stalled).collect();
            let from = before.saturating_sub(twice.max(SERIES_LOOKBACK));
            Some(Series { table: name, from, before, stalled })
        })
    }

    /// Takes series that were seen before the start: the identity columns of a table, and `ts`; perhaps a column that `STALLED` looks at,
    /// with the rows in which it changed.
    ///
    /// # Errors
    /// A batch without these columns.
    pub fn remember(&mut self, table: &str, seen: &RecordBatch) -> Result<(), EngineError> {
        let wrong = |source| EngineError::Batch { table: table.to_string(), source };
        let presence = self.place(table).and_then(|at| self.tables[at].presence.as_mut());
        match (presence, table::find(table)) {
            (Some(presence), Some(found)) => presence.remember(found, seen).map_err(wrong),
            _ => Ok(()),
        }
    }

    /// Says whether sources of a table are just being heard again, after a time in which nobody could be: what is silent then
    /// may be on its way.
    pub fn set_blind(&mut self, table: &str, blind: bool) {
        if let Some(at) = self.place(table) {
            self.tables[at].blind = blind;
        }
    }

    /// What the engine counts about a table.
    pub fn counts(&self, table: &str) -> TableCounts {
        self.place(table).map(|at| &self.tables[at]).map_or_else(TableCounts::default, |table| TableCounts {
            held_rows: table.panes.rows(),
            shared_bytes: table.shared.bytes() + table.ordered.bytes(),
            late_rows: table.late_rows + table.ordered.late_rows,
            overflow_rows: table.panes.overflow_rows
                + table.ordered.overflow_rows()
                + table.shared.overflow_rows()
                + table.presence.as_ref().map_or(0, Presence::overflow_rows),
        })
    }

    /// How the rules are evaluated, in the order of their names.
    pub fn explain(&self) -> impl Iterator<Item = Explanation> {
        self.rules.iter().filter(|running| !running.ended).map(|running| {
            let rule = &running.rule;
            let (strategy, because) = match &running.kind {
                Kind::Shared(_) => ("shared", None),
                Kind::General(general) if matches!(rule.shape, RuleShape::Presence(_)) => {
                    ("presence", Some(general.because().to_string()))
                }
                Kind::General(general) => ("general", Some(general.because().to_string())),
                Kind::Row(row) if row.place().is_some() => ("ordered", None),
                Kind::Row(row) => ("row", row.because().map(str::to_string)),
            };
            let window = rule.shape.window().map(|spec| {
                let [size_seconds, slide_seconds, delay_seconds] =
                    [spec.size, spec.slide, rule.options.delay].map(|span| span.0 as f64 / 1e6);
                WindowExplanation { size_seconds, slide_seconds, delay_seconds }
            });
            let shared = match &running.kind {
                Kind::Shared(shared) => Some(shared.explain(&self.tables[running.tables[0]].shared)),
                _ => None,
            };
            let budget_rows = match &running.kind {
                Kind::General(general) => Some(general.budget()),
                _ => None,
            };
            let overs = match &running.kind {
                Kind::Row(row) => row.place().map(|place| self.tables[running.tables[0]].ordered.explain(place)),
                _ => None,
            };
            let overs = overs.into_iter().flatten().map(OverExplanation::from).collect();
            let tables: Vec<&str> = rule.tables().collect();
            Explanation {
                rule: rule.name.clone(),
                table: tables.join(", "),
                strategy,
                because,
                window,
                budget_rows,
                overs,
                shared,
            }
        })
    }

    /// The rules whose rows pass in order, with OVER.
    pub fn ordered(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.rules.iter().filter(|running| !running.ended);
        rules
            .filter(|running| matches!(&running.kind, Kind::Row(row) if row.place().is_some()))
            .map(|running| &running.rule)
    }

    /// By rule whose plan is run: which share of its budget its last evaluation took.
    pub fn budget_shares(&self) -> impl Iterator<Item = (&str, f64)> {
        self.rules.iter().filter(|running| !running.ended).filter_map(|running| match &running.kind {
            Kind::General(general) => {
                Some((running.rule.name.as_str(), general.passed_rows as f64 / general.budget().max(1) as f64))
            }
            Kind::Shared(_) | Kind::Row(_) => None,
        })
    }

    /// By rule: rows that said something of an identity of which a worse row of the same time speaks.
    pub fn repeated_rows(&self) -> impl Iterator<Item = (&str, u64)> {
        let rules = self.rules.iter().map(|running| match &running.kind {
            Kind::Shared(_) => (running, 0),
            Kind::General(general) => (running, general.repeated_rows),
            Kind::Row(row) => (running, row.repeated_rows),
        });
        rules.filter(|(_, rows)| *rows > 0).map(|(running, rows)| (running.rule.name.as_str(), rows))
    }

    /// Rows that are not watched because there are too many groups.
    pub fn overflow_groups(&self) -> u64 {
        let rules = self.rules.iter().map(|running| match &running.kind {
            Kind::Shared(_) => 0,
            Kind::General(general) => general.overflow_groups,
            Kind::Row(row) => row.overflow_groups,
        });
        rules.sum()
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
        let wrong = |source| EngineError::Batch { table: table.to_string(), source };
        let Some(at) = self.place(table) else { return Ok(()) };
        let Some(first) = instants(batch).map_err(wrong)?.iter().min() else { return Ok(()) };
        let lines = self.timelines.iter_mut().filter(|timeline| timeline.tables.contains(&at));
        if lines.map(|timeline| timeline.saw(Timestamp(*first))).count() > 0 {
            let floor = self.floor(at);
            self.tables[at].push(batch, floor, feed == Feed::Replay).map_err(wrong)?;
        }
        self.tables[at].ordered.push(batch).map_err(wrong)?;
        if feed == Feed::Replay {
            return Ok(());
        }
        for index in &self.tables[at].row_rules {
            let Running { rule, kind: Kind::Row(row), quiet_until, .. } = &mut self.rules[*index] else { continue };
            if row.place().is_some() {
                continue;
            }
            let evaluations = row.evaluate(&self.queries, rule, batch, || listener.watched(&rule.name));
            if row.saw_watched {
                *quiet_until = Timestamp::MIN;
            }
            for evaluation in evaluations {
                listener.take(evaluation);
            }
        }
        Ok(())
    }
}

impl Running {
    fn new(rule: &Rule, tables: Vec<usize>, kind: Kind) -> Self {
        Running { rule: rule.clone(), tables, emitted: None, quiet_until: Timestamp::MIN, ended: false, kind }
    }

    /// For a rule without a window: takes the time; says whether it may be due.
    pub fn time_passed(&mut self, watermark: Timestamp) -> bool {
        let Kind::Row(row) = &mut self.kind else { return false };
        row.time_passed(watermark.saturating_sub(self.rule.options.delay), self.rule.table_kind)
    }

    /// The next instant at which a rule without a window yields something: for events, how far event time has come, so that
    /// their alerts can end; for samples, each minute in which something is silent.
    pub fn row_due(&self) -> Option<Timestamp> {
        let Kind::Row(row) = &self.kind else { return None };
        let end = match self.rule.table_kind {
            TableKind::Event => row.closed,
            TableKind::Sample => row.next_silence(self.emitted.unwrap_or(Timestamp::MIN), self.quiet_until)?,
        };
        (end <= row.closed && self.emitted.is_none_or(|emitted| emitted < end)).then_some(end)
    }
}
