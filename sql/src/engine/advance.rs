//! Time moves on: which windows end, in which order, and what each yields.

use std::collections::BTreeSet;

use datafusion::common::DataFusionError;
use tidewatch_model::limits::ROW_SILENCE;
use tidewatch_model::table::TableKind;
use tidewatch_model::{Evaluation, Outcome, RuleShape, Timestamp};

use super::generation::{Generation, Kind, Running};
use super::of_table::ACTIVITY;
use super::timeline::Timeline;
use crate::listener::Listener;
use crate::rows_table::Source;

impl Generation {
    /// See [`super::Engine::advance`].
    pub fn advance(&mut self, table: &str, watermark: Timestamp, lagging: bool, listener: &mut dyn Listener) {
        let Some(at) = self.place(table) else { return };
        let state = &mut self.tables[at];
        state.watermark = state.watermark.max(watermark);
        state.reached = state.reached.max(watermark);
        state.lagging = lagging;
        let moved = self.lines_of(at, false);
        let row_rules: Vec<usize> = self.tables[at].row_rules.clone();
        let row_rules: Vec<usize> =
            row_rules.into_iter().filter(|index| self.rules[*index].time_passed(watermark)).collect();
        self.pass_rows(at, watermark, listener);
        self.judge(at, &moved, &row_rules, listener);
    }

    /// Lets rows pass to rules with OVERs, in order.
    fn pass_rows(&mut self, at: usize, watermark: Timestamp, listener: &mut dyn Listener) {
        let Generation { rules, tables, .. } = self;
        let state = &mut tables[at];
        let lines: Vec<_> = state.ordered.lines().collect();
        for (line, delay) in lines {
            let passed = state.ordered.pass(line, watermark.saturating_sub(delay));
            if matches!(passed, Ok(None)) {
                continue;
            }
            let restored = state.ordered.restored(line);
            for index in &state.row_rules {
                let Running { rule, kind: Kind::Row(row), quiet_until, emitted, .. } = &mut rules[*index] else {
                    continue;
                };
                if row.place().is_none_or(|place| place.line != line) {
                    continue;
                }
                let evaluations =
                    row.evaluate_passed(rule, &passed, emitted.or(restored), || listener.watched(&rule.name));
                if row.saw_watched {
                    *quiet_until = Timestamp::MIN;
                }
                for evaluation in evaluations {
                    listener.take(evaluation);
                }
            }
        }
    }

    /// See [`super::Engine::advance_joined`].
    pub fn advance_joined(&mut self, table: &str, reached: Timestamp, listener: &mut dyn Listener) {
        let Some(at) = self.place(table) else { return };
        let state = &mut self.tables[at];
        state.reached = state.reached.max(reached);
        let moved = self.lines_of(at, true);
        self.judge(at, &moved, &[], listener);
    }

    /// The timelines of a table, moved as far as their tables have come; `joined` are only those over several.
    fn lines_of(&mut self, table: usize, joined: bool) -> Vec<usize> {
        let mut moved = Vec::new();
        for (index, timeline) in self.timelines.iter_mut().enumerate() {
            let several = timeline.tables.len() > 1;
            if !timeline.tables.contains(&table) || (joined && !several) {
                continue;
            }
            let come = |table: &usize| match several {
                true => self.tables[*table].reached,
                false => self.tables[*table].watermark,
            };
            let reached = timeline.tables.iter().map(come).min().unwrap_or(Timestamp::MIN);
            timeline.closed = timeline.closed.max(reached.saturating_sub(timeline.delay));
            moved.push(index);
        }
        moved
    }

    fn judge(&mut self, at: usize, moved: &[usize], row_rules: &[usize], listener: &mut dyn Listener) {
        if row_rules.is_empty() && moved.iter().all(|line| self.timelines[*line].due().is_none()) {
            return;
        }
        let floor = self.floor(at);
        let fed = self.tables[at].shared.flush(floor);
        loop {
            let windows = moved.iter().filter_map(|line| self.timelines[*line].due());
            let rows = row_rules.iter().filter_map(|index| self.rules[*index].row_due());
            let Some(end) = windows.chain(rows).min() else { break };
            self.turn(end, moved, row_rules, &fed, listener);
        }
        let touched: BTreeSet<usize> = moved.iter().flat_map(|line| self.timelines[*line].tables.clone()).collect();
        for table in touched {
            let (floor, silence) = (self.floor(table), self.silence_floor(table));
            self.tables[table].forget_before(floor, silence);
        }
    }

    /// Everything that ends at one instant.
    fn turn(
        &mut self,
        end: Timestamp,
        moved: &[usize],
        row_rules: &[usize],
        fed: &Result<(), DataFusionError>,
        listener: &mut dyn Listener,
    ) {
        let due: Vec<usize> = moved.iter().copied().filter(|line| self.timelines[*line].due() == Some(end)).collect();
        let heard: Vec<bool> = due.iter().map(|line| self.heard(&self.timelines[*line], end)).collect();
        let rows = row_rules.iter().filter(|index| self.rules[**index].row_due() == Some(end));
        let mut asked: Vec<(usize, Option<bool>)> = rows.map(|index| (*index, None)).collect();
        for (line, heard) in due.iter().zip(&heard) {
            let of_window = self.timelines[*line].rules.iter();
            let open = of_window.filter(|index| self.rules[**index].emitted < Some(end));
            asked.extend(open.map(|index| (*index, Some(*heard))));
        }
        asked.sort_unstable();
        for (index, heard) in asked {
            let lagging = self.is_lagging(index);
            let mut evaluation = self.evaluate(index, end, heard.unwrap_or(false), lagging, listener);
            let running = &mut self.rules[index];
            if let (Err(error), Kind::Shared(_)) = (fed, &running.kind) {
                evaluation.outcome = Outcome::Failed(error.strip_backtrace());
            }
            running.emitted = Some(end);
            let until = listener.take(evaluation);
            // What is not known now changes something later.
            let is_quiet = heard.map_or(matches!(running.rule.table_kind, TableKind::Sample), |heard| !heard);
            running.quiet_until = if is_quiet && !lagging { until } else { Timestamp::MIN };
        }
        for (line, heard) in due.into_iter().zip(heard) {
            self.timelines[line].emit(end);
            let lagging = self.timelines[line].tables.iter().any(|table| self.tables[*table].lagging);
            if !heard && !lagging {
                self.skip_quiet(line, end);
            }
        }
    }

    /// Leaves out windows that would change nothing.
    fn skip_quiet(&mut self, line: usize, end: Timestamp) {
        let timeline = &self.timelines[line];
        // Time that passed over all series at once, in one step, is time in which nobody listened: a rule about silence goes on
        // where rows come again. The clock moves in small steps.
        let until = match timeline.presence {
            true => Some(Timestamp::MAX),
            false => timeline.rules.iter().map(|index| self.rules[*index].quiet_until).min(),
        };
        let next = timeline.next_start.unwrap_or(end);
        let first_rows = timeline
            .tables
            .iter()
            .filter_map(|table| self.tables[*table].active.range(next.floor(ACTIVITY)..).next().copied());
        let first_row = first_rows.min().map(|second| second.max(next));
        self.timelines[line].skip_quiet(first_row, until.unwrap_or(Timestamp::MIN));
    }

    /// Whether any row may lie in the window of a timeline that ends here.
    fn heard(&self, timeline: &Timeline, end: Timestamp) -> bool {
        timeline.tables.iter().any(|table| self.tables[*table].has_rows(end - timeline.spec.size, end))
    }

    fn is_lagging(&self, rule: usize) -> bool {
        self.rules[rule].tables.iter().any(|table| self.tables[*table].lagging)
    }

    fn evaluate(
        &mut self,
        index: usize,
        end: Timestamp,
        heard: bool,
        lagging: bool,
        listener: &mut dyn Listener,
    ) -> Evaluation {
        let Generation { queries, rules, tables, .. } = self;
        let running = &mut rules[index];
        let rule = running.rule.name.clone();
        let (start, outcome) = match &mut running.kind {
            Kind::Shared(shared) => {
                let watched = listener.watched(&rule);
                let table = &mut tables[running.tables[0]].shared;
                (end - shared.size(), shared.evaluate(table, end, lagging, &watched))
            }
            Kind::General(general) => {
                let watched = listener.watched(&rule);
                let start = end - general.spec.size;
                // What our own input does not bring is not absent.
                let heard = match running.rule.shape {
                    RuleShape::Presence(_) => !lagging && !tables[running.tables[0]].blind,
                    _ => heard,
                };
                let mut feed = |source: &Source| {
                    let table = tables.iter_mut().find(|table| source.stream() == Some(&table.name));
                    table.map_or_else(|| Ok(vec![]), |table| table.parts(source, (start, end)))
                };
                (start, general.evaluate(queries, &mut feed, &running.rule, end, (heard, lagging), &watched))
            }
            Kind::Row(row) => match running.rule.table_kind {
                TableKind::Event => (end, Outcome::Groups(vec![])),
                TableKind::Sample => (end - ROW_SILENCE, row.silent(end, lagging)),
            },
        };
        Evaluation { rule, window_start: start, window_end: end, outcome }
    }

    /// Start of the earliest open window over a table: rows before it are of no use.
    pub(super) fn floor(&self, table: usize) -> Timestamp {
        let lines = self.timelines.iter().filter(|timeline| timeline.tables.contains(&table));
        lines.filter_map(|timeline| timeline.next_start).min().unwrap_or(Timestamp::MIN)
    }

    fn silence_floor(&self, table: usize) -> Timestamp {
        let lines = self.timelines.iter().filter(|timeline| timeline.presence && timeline.tables.contains(&table));
        lines.filter_map(|timeline| timeline.next_start).min().unwrap_or(Timestamp::MIN)
    }
}
