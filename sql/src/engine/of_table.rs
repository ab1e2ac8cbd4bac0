//! The rules of one table: what they keep of its rows, and what is evaluated when time moves on.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use tidewatch_model::limits::ROW_SILENCE;
use tidewatch_model::table::{self, TableKind};
use tidewatch_model::{Evaluation, Outcome, RuleShape, Span, Timestamp};

use super::general::{General, Queries};
use super::row::RowRule;
use super::timeline::Timeline;
use super::{Kind, Running};
use crate::compile::{CompiledRule, Strategy};
use crate::listener::Listener;
use crate::panes::{Panes, times};
use crate::presence::Presence;
use crate::shared::rule::SharedRule;
use crate::shared::table::SharedTable;

/// What the rules of one table need of its rows.
pub struct TableState {
    /// When their windows end.
    pub timelines: Vec<Timeline>,
    /// Rules without a window.
    pub row_rules: Vec<usize>,
    /// Shared windows.
    pub shared: SharedTable,
    /// Rows as they are, for rules without shared windows.
    pub panes: Panes,
    has_general: bool,
    /// What rules about silence look at.
    pub presence: Option<Presence>,
    /// Whether sources are just being heard again.
    pub blind: bool,
    /// Seconds in which rows came, as far as windows are open: where time may jump.
    active: BTreeSet<Timestamp>,
    /// Rows that came after the windows that wanted them were emitted.
    pub late_rows: u64,
}

/// The grain of [`TableState::active`].
const ACTIVITY: Span = Span::seconds(1);

impl TableState {
    /// For these rules of the table, by their place in `rules`; each is put into `running` under its place.
    pub fn new(
        name: &str,
        of_table: &[usize],
        rules: &[CompiledRule],
        running: &mut BTreeMap<usize, Running>,
    ) -> Result<TableState, DataFusionError> {
        let found = table::find(name).ok_or_else(|| DataFusionError::Plan(format!("unknown table '{name}'")))?;
        let mut timelines: Vec<Timeline> = Vec::new();
        let (mut row_rules, mut plans, mut shared_rules) = (vec![], vec![], vec![]);
        let mut columns = BTreeSet::new();
        for index in of_table {
            let CompiledRule { rule, strategy, .. } = &rules[*index];
            if let Some(spec) = rule.shape.window() {
                let delay = rule.options.delay;
                let presence = matches!(rule.shape, RuleShape::Presence(_));
                let fits = |timeline: &&mut Timeline| {
                    (timeline.spec, timeline.delay, timeline.presence) == (spec, delay, presence)
                };
                match timelines.iter_mut().find(fits) {
                    Some(timeline) => timeline.rules.push(*index),
                    None => timelines.push(Timeline::new(spec, delay, presence, *index)),
                }
                match strategy {
                    Strategy::Shared(plan) => {
                        plans.push((plan.as_ref(), spec, delay));
                        shared_rules.push((*index, rule, plan, spec));
                    }
                    Strategy::General(plan) => {
                        if !presence {
                            columns.extend(plan.columns.iter().cloned());
                        }
                        let kind = Kind::General(Box::new(General::new(plan.as_ref().clone(), spec)));
                        running.insert(*index, Running::new(rule, kind));
                    }
                    Strategy::Row(_) => {}
                }
            } else if let Strategy::Row(plan) = strategy {
                row_rules.push(*index);
                let kind = Kind::Row(Box::new(RowRule::new(plan, &found.schema())?));
                running.insert(*index, Running::new(rule, kind));
            }
        }
        let (shared, places) = SharedTable::new(&found.schema(), &plans)?;
        for ((index, rule, plan, spec), place) in shared_rules.into_iter().zip(places) {
            let kind = Kind::Shared(Box::new(SharedRule::new(rule, plan, spec, place)?));
            running.insert(index, Running::new(rule, kind));
        }
        let presence = timelines.iter().any(|timeline| timeline.presence);
        Ok(TableState {
            presence: presence.then(|| Presence::new(found)).transpose()?,
            blind: false,
            timelines,
            row_rules,
            shared,
            has_general: !columns.is_empty(),
            panes: Panes::new(columns.into_iter().collect()),
            active: BTreeSet::new(),
            late_rows: 0,
        })
    }

    /// Start of the earliest open window: rows before it are of no use.
    fn floor(&self) -> Timestamp {
        self.timelines.iter().filter_map(|timeline| timeline.next_start).min().unwrap_or(Timestamp::MIN)
    }

    /// Takes rows.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        let Some(times) = times(batch) else {
            return Err(DataFusionError::Plan(format!("column '{}' is no time", table::TIME_COLUMN)));
        };
        let Some(first) = times.values().iter().min() else { return Ok(()) };
        if self.timelines.is_empty() {
            return Ok(());
        }
        for timeline in &mut self.timelines {
            timeline.saw(Timestamp(*first));
        }
        let floor = self.floor();
        let mut last = None;
        for ts in times.values() {
            if *ts < floor.0 {
                self.late_rows += 1;
            }
            let second = Timestamp(*ts).floor(ACTIVITY);
            if last.replace(second) != Some(second) && second + ACTIVITY > floor {
                self.active.insert(second);
            }
        }
        self.shared.push(batch, floor)?;
        if let Some(presence) = &mut self.presence {
            presence.push(batch)?;
        }
        if self.has_general {
            self.panes.push(batch, floor)?;
        }
        Ok(())
    }

    /// Moves the watermark; see [`super::Engine::advance`].
    pub fn advance(
        &mut self,
        watermark: Timestamp,
        lagging: bool,
        rules: &mut [Running],
        queries: &Queries,
        listener: &mut dyn Listener,
    ) {
        for timeline in &mut self.timelines {
            timeline.closed = timeline.closed.max(watermark.saturating_sub(timeline.delay));
        }
        let row_rules: Vec<usize> =
            self.row_rules.iter().copied().filter(|index| rules[*index].time_passed(watermark)).collect();
        if row_rules.is_empty() && self.timelines.iter().all(|timeline| timeline.due().is_none()) {
            return;
        }
        let fed = self.shared.flush(self.floor());
        loop {
            let windows = self.timelines.iter().filter_map(Timeline::due);
            let rows = row_rules.iter().filter_map(|index| rules[*index].row_due());
            let Some(end) = windows.chain(rows).min() else { break };
            let due: Vec<usize> =
                (0..self.timelines.len()).filter(|at| self.timelines[*at].due() == Some(end)).collect();
            let quiet: Vec<bool> =
                due.iter().map(|at| !self.has_rows(end - self.timelines[*at].spec.size, end)).collect();
            let mut asked: Vec<(usize, Option<bool>)> = row_rules
                .iter()
                .filter(|index| rules[**index].row_due() == Some(end))
                .map(|index| (*index, None))
                .collect();
            for (at, quiet) in due.iter().zip(&quiet) {
                let of_window = self.timelines[*at].rules.iter();
                asked.extend(
                    of_window.filter(|index| rules[**index].emitted < Some(end)).map(|index| (*index, Some(*quiet))),
                );
            }
            asked.sort_unstable();
            for (index, quiet) in asked {
                let running = &mut rules[index];
                let mut evaluation = self.evaluate(running, end, lagging, queries, listener);
                if let (Err(error), Kind::Shared(_)) = (&fed, &running.kind) {
                    evaluation.outcome = Outcome::Failed(error.strip_backtrace());
                }
                running.emitted = Some(end);
                let until = listener.take(evaluation);
                // What is not known now changes something later.
                let is_quiet = quiet.unwrap_or(matches!(running.rule.table_kind, TableKind::Sample));
                running.quiet_until = if is_quiet && !lagging { until } else { Timestamp::MIN };
            }
            for (at, quiet) in due.into_iter().zip(quiet) {
                let timeline = &mut self.timelines[at];
                timeline.emit(end);
                if quiet && !lagging {
                    // Time that passed over all series at once, in one step, is time in which nobody listened: a rule about
                    // silence goes on where rows come again. The clock moves in small steps.
                    let until = match timeline.presence {
                        true => Some(Timestamp::MAX),
                        false => timeline.rules.iter().map(|index| rules[*index].quiet_until).min(),
                    };
                    let next = timeline.next_start.unwrap_or(end);
                    let first_row = self.active.range(next.floor(ACTIVITY)..).next().copied();
                    timeline.skip_quiet(first_row.map(|second| second.max(next)), until.unwrap_or(Timestamp::MIN));
                }
            }
        }
        let floor = self.floor();
        self.shared.forget_before(floor);
        self.panes.forget_before(floor);
        if let Some(presence) = &mut self.presence {
            let open = self.timelines.iter().filter(|timeline| timeline.presence);
            presence.settle_before(open.filter_map(|timeline| timeline.next_start).min().unwrap_or(Timestamp::MIN));
        }
        self.active = self.active.split_off(&floor.floor(ACTIVITY));
    }

    /// Whether any row of the table may lie in a window.
    fn has_rows(&self, start: Timestamp, end: Timestamp) -> bool {
        self.active.range(start.floor(ACTIVITY)..end).next().is_some()
    }

    fn evaluate(
        &mut self,
        running: &mut Running,
        end: Timestamp,
        lagging: bool,
        queries: &Queries,
        listener: &mut dyn Listener,
    ) -> Evaluation {
        let rule = running.rule.name.clone();
        let (start, outcome) = match &mut running.kind {
            Kind::Shared(shared) => {
                let watched = listener.watched(&rule);
                (end - shared.size(), shared.evaluate(&mut self.shared, end, lagging, &watched))
            }
            Kind::General(general) => {
                let watched = listener.watched(&rule);
                let start = end - general.spec.size;
                let rows = match (&mut self.presence, running.rule.shape) {
                    // What our own input does not bring is not absent.
                    (Some(_), RuleShape::Presence(_)) if lagging || self.blind => Ok(vec![]),
                    (Some(presence), RuleShape::Presence(_)) => presence.rows(end).map(|rows| vec![rows]),
                    _ => self.panes.between(start, end).map_err(DataFusionError::from),
                };
                (start, general.evaluate(queries, rows, &running.rule, end, lagging, &watched))
            }
            Kind::Row(row) => match running.rule.table_kind {
                TableKind::Event => (end, Outcome::Groups(vec![])),
                TableKind::Sample => (end - ROW_SILENCE, row.silent(end, lagging)),
            },
        };
        Evaluation { rule, window_start: start, window_end: end, outcome }
    }
}
