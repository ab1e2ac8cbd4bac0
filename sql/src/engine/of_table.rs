//! What the rules of one table keep of its rows.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use tidewatch_model::table::{self, Table};
use tidewatch_model::{Span, Timestamp, WindowSpec};

use crate::compile::RowPlan;
use crate::panes::{Panes, times};
use crate::presence::Presence;
use crate::rows_table::{Part, Source};
use crate::shared::ordered::{self, Ordered};
use crate::shared::plan::SharedPlan;
use crate::shared::table::{Place, SharedTable};

/// What the rules of one table need of its rows.
pub struct TableState {
    /// Its name.
    pub name: String,
    /// How far event time has come.
    pub watermark: Timestamp,
    /// How far it has come for windows over several tables.
    pub reached: Timestamp,
    /// Whether our own input of it is behind.
    pub lagging: bool,
    /// Rules without a window.
    pub row_rules: Vec<usize>,
    /// Shared windows.
    pub shared: SharedTable,
    /// Rows as they are, for rules without shared windows.
    pub panes: Panes,
    has_general: bool,
    /// OVERs.
    pub ordered: Ordered,
    /// What rules about silence look at.
    pub presence: Option<Presence>,
    /// Whether sources are just being heard again.
    pub blind: bool,
    /// Seconds in which rows came, as far as windows are open: where time may jump.
    pub active: BTreeSet<Timestamp>,
    /// Rows that came after the windows that wanted them were emitted.
    pub late_rows: u64,
}

/// The grain of [`TableState::active`].
pub const ACTIVITY: Span = Span::seconds(1);

/// What rules want of one table.
#[derive(Default)]
pub struct Wanted<'a> {
    /// Shared plans with their slides, sizes and delays.
    pub shared: Vec<(&'a SharedPlan, WindowSpec, Span)>,
    /// Plans with OVERs, with how long they wait.
    pub ordered: Vec<(&'a RowPlan, Span)>,
    /// Columns of rows as they are.
    pub columns: BTreeSet<String>,
    /// Whether any rule is about series.
    pub presence: bool,
    /// Columns that `STALLED` looks at.
    pub stalled: BTreeSet<String>,
    /// Rules without a window.
    pub row_rules: Vec<usize>,
}

impl TableState {
    /// For these wants; the places of the shared plans and of those with OVERs come back in their order.
    pub fn new(
        found: &'static Table,
        mut wanted: Wanted<'_>,
    ) -> Result<(TableState, Vec<Place>, Vec<ordered::Place>), DataFusionError> {
        let identity: Vec<String> = found.identity().map(str::to_string).collect();
        if !wanted.columns.is_empty() {
            wanted.columns.extend(identity.iter().cloned());
        }
        let (shared, places) = SharedTable::new(&found.schema(), &wanted.shared)?;
        let (ordered, ordered_places) = Ordered::new(&found.schema(), &identity, &wanted.ordered)?;
        let state = TableState {
            name: found.name.to_string(),
            watermark: Timestamp::MIN,
            reached: Timestamp::MIN,
            lagging: false,
            presence: wanted.presence.then(|| Presence::new(found, &wanted.stalled)).transpose()?,
            blind: false,
            row_rules: wanted.row_rules,
            shared,
            ordered,
            has_general: !wanted.columns.is_empty(),
            panes: Panes::new(wanted.columns.into_iter().collect(), identity),
            active: BTreeSet::new(),
            late_rows: 0,
        };
        Ok((state, places, ordered_places))
    }

    /// Takes rows; those before `floor`, the start of the earliest open window, are late.
    /// `again`: they were counted before a restart.
    pub fn push(&mut self, batch: &RecordBatch, floor: Timestamp, again: bool) -> Result<(), DataFusionError> {
        let mut last = None;
        for ts in instants(batch)? {
            if *ts < floor.0 && !again {
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

    /// What a plan reads of the table, for a window.
    pub fn parts(&mut self, source: &Source, window: (Timestamp, Timestamp)) -> Result<Vec<Part>, DataFusionError> {
        let (start, end) = window;
        let between = |panes: &mut Panes, start, end| -> Result<Vec<Part>, DataFusionError> {
            if start < panes.whole_from() {
                let message =
                    "rows of its window were given up, since there were too many: its alerts stay as they are";
                return Err(DataFusionError::Execution(message.to_string()));
            }
            Ok(panes.between(start, end)?.into_iter().map(|rows| (start, end, rows)).collect())
        };
        match source {
            Source::Window(_, spec) if spec.size != end - start => {
                let mut parts = Vec::new();
                let mut from = spec.first_start_of(start);
                while from + spec.size <= end {
                    if from >= start {
                        parts.extend(between(&mut self.panes, from, from + spec.size)?);
                    }
                    from = from + spec.slide;
                }
                Ok(parts)
            }
            Source::Rows(_) | Source::Window(..) => between(&mut self.panes, start, end),
            Source::Presence(_) => match &mut self.presence {
                Some(presence) => Ok(vec![(start, end, presence.rows(end)?)]),
                None => Ok(vec![]),
            },
            Source::Stalled(table, column) => match (&mut self.presence, table::find(table)) {
                (Some(presence), Some(found)) => Ok(vec![(start, end, presence.stalled_rows(end, found, column)?)]),
                _ => Ok(vec![]),
            },
            Source::Dimension(_) => Ok(vec![]),
        }
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        let presence = self.presence.as_ref().map_or(0, Presence::bytes);
        self.shared.bytes() + self.ordered.bytes() + self.panes.bytes() + presence
    }

    /// Takes no new series and groups any more, or takes them again.
    pub fn close(&mut self, closed: bool) {
        self.shared.close(closed);
        self.ordered.close(closed);
        if let Some(presence) = &mut self.presence {
            presence.close(closed);
        }
    }

    /// Whether any row of the table may lie in a window.
    pub fn has_rows(&self, start: Timestamp, end: Timestamp) -> bool {
        self.active.range(start.floor(ACTIVITY)..end).next().is_some()
    }

    /// Rows before this are asked for no more: by windows, and by rules about silence.
    pub fn forget_before(&mut self, floor: Timestamp, silence: Timestamp) {
        self.shared.forget_before(floor);
        self.panes.forget_before(floor);
        if let Some(presence) = &mut self.presence {
            presence.settle_before(silence);
        }
        self.active = self.active.split_off(&floor.floor(ACTIVITY));
    }
}

/// The times of rows.
pub fn instants(batch: &RecordBatch) -> Result<&[i64], DataFusionError> {
    let times = times(batch).map(|times| times.values().as_ref());
    times.ok_or_else(|| DataFusionError::Plan(format!("column '{}' is no time", table::TIME_COLUMN)))
}
