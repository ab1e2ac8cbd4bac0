//! Aggregates that have no kernel of ours: any of DataFusion's, and user-defined ones, by their own accumulators. Panes are aggregated once;
//! a window merges its panes, from the first to the last, so that the same rows give the same bits whatever came before.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use tidewatch_model::Timestamp;

use super::cube::{Cube, MERGED};
use super::kernel::Run;
use crate::guarded::guarded;
use crate::moments::Question;

/// An aggregate of DataFusion's.
#[derive(Clone)]
pub struct Stock(Arc<AggregateFunctionExpr>);

impl Stock {
    /// `None` for one that depends on the order of rows, or whose arguments can't be put in order.
    pub fn of(aggregate: Arc<AggregateFunctionExpr>, arguments: &[DataType]) -> Option<Stock> {
        let is_free = aggregate.order_sensitivity() == AggregateOrderSensitivity::Insensitive;
        let fields: Vec<SortField> = arguments.iter().cloned().map(SortField::new).collect();
        (is_free && aggregate.order_bys().is_empty() && RowConverter::supports_fields(&fields))
            .then_some(Stock(aggregate))
    }

    /// No rows.
    pub fn cube(&self) -> Box<dyn Cube> {
        Box::new(StockCube { aggregate: self.clone(), panes: BTreeMap::new(), windows: vec![] })
    }

    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.0.groups_accumulator_supported() {
            return self.0.create_groups_accumulator();
        }
        let aggregate = self.0.clone();
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.fun().name()
    }
}

impl fmt::Debug for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

/// Calls also compare their arguments and conditions.
impl PartialEq for Stock {
    fn eq(&self, other: &Stock) -> bool {
        self.0.fun() == other.0.fun() && self.0.is_distinct() == other.0.is_distinct()
    }
}

impl Eq for Stock {}

impl Hash for Stock {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.fun(), self.0.is_distinct()).hash(state);
    }
}

#[derive(Debug)]
struct StockCube {
    aggregate: Stock,
    panes: BTreeMap<Timestamp, Pane>,
    /// The panes of each window.
    windows: Vec<(Timestamp, Timestamp)>,
}

/// One pane.
#[derive(Debug, Default)]
struct Pane {
    /// Rows that are not aggregated yet: their groups and arguments.
    arrived: Vec<(Vec<u32>, Vec<ArrayRef>)>,
    /// The states of the others, by group.
    states: Option<Vec<ArrayRef>>,
    /// What went wrong with them.
    fault: Option<String>,
}

impl Pane {
    /// Aggregates what arrived, in an order that does not depend on how it did.
    fn settle(&mut self, aggregate: &Stock) {
        if self.arrived.is_empty() {
            return;
        }
        match guarded(|| self.aggregated(aggregate)) {
            Ok(states) => self.states = Some(states),
            Err(error) => self.fault = Some(error.strip_backtrace()),
        }
        self.arrived.clear();
    }

    fn aggregated(&self, aggregate: &Stock) -> Result<Vec<ArrayRef>> {
        let groups: Vec<u32> = self.arrived.iter().flat_map(|(groups, _)| groups.iter().copied()).collect();
        let count = self.arrived[0].1.len();
        let whole = (0..count).map(|argument| {
            let parts: Vec<&dyn Array> =
                self.arrived.iter().map(|(_, arguments)| arguments[argument].as_ref()).collect();
            concat(&parts)
        });
        let arguments = whole.collect::<std::result::Result<Vec<_>, _>>()?;
        let fields = arguments.iter().map(|argument| SortField::new(argument.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&arguments)?;
        let mut order: Vec<u32> = (0..groups.len() as u32).collect();
        order.sort_by(|left, right| rows.row(*left as usize).cmp(&rows.row(*right as usize)));
        let order = UInt32Array::from(order);
        let sorted = arguments.iter().map(|argument| take(argument, &order, None));
        let sorted = sorted.collect::<std::result::Result<Vec<_>, _>>()?;
        let indices: Vec<usize> = order.values().iter().map(|row| groups[*row as usize] as usize).collect();
        let total = indices.iter().max().map_or(0, |last| last + 1);
        let mut accumulator = aggregate.accumulator()?;
        let known = self.states.as_ref().map_or(0, |states| states[0].len());
        if let Some(states) = &self.states {
            accumulator.merge_batch(states, &(0..known).collect::<Vec<_>>(), total.max(known))?;
        }
        accumulator.update_batch(&sorted, &indices, None, total.max(known))?;
        accumulator.state(EmitTo::All)
    }
}

impl StockCube {
    /// The answers of a window, from the states of its panes.
    fn merged(&self, window: usize, groups: usize) -> Result<ArrayRef> {
        let (from, to) = self.windows[window];
        let mut accumulator = self.aggregate.accumulator()?;
        let mut is_empty = true;
        for (_, pane) in self.panes.range(from..to) {
            if let Some(fault) = &pane.fault {
                return Err(DataFusionError::Execution(fault.clone()));
            }
            if let Some(states) = &pane.states {
                let known: Vec<usize> = (0..states[0].len()).collect();
                accumulator.merge_batch(states, &known, groups)?;
                is_empty = false;
            }
        }
        match is_empty {
            true => Ok(new_null_array(self.aggregate.0.field().data_type(), groups)),
            false => accumulator.evaluate(EmitTo::All),
        }
    }
}

impl Cube for StockCube {
    fn update(&mut self, pane: Timestamp, run: &Run) {
        let mut kept = Vec::new();
        run.each(None, |row, group| kept.push((row as u32, group as u32)));
        if kept.is_empty() {
            return;
        }
        let rows = UInt32Array::from_iter_values(kept.iter().map(|(row, _)| *row));
        let pane = self.panes.entry(pane).or_default();
        let taken: std::result::Result<Vec<ArrayRef>, _> =
            run.arguments.iter().map(|argument| take(argument, &rows, None)).collect();
        match taken {
            Ok(arguments) => pane.arrived.push((kept.into_iter().map(|(_, group)| group).collect(), arguments)),
            Err(error) => pane.fault = Some(error.to_string()),
        }
    }

    fn add_window(&mut self) -> usize {
        self.windows.push((Timestamp::MIN, Timestamp::MIN));
        self.windows.len() - 1
    }

    fn slide(&mut self, window: usize, from: Timestamp, to: Timestamp) {
        self.windows[window] = (from, to);
        for (_, pane) in self.panes.range_mut(from..to) {
            pane.settle(&self.aggregate);
        }
    }

    fn answer(&self, window: usize, groups: usize, _: Question) -> Result<ArrayRef> {
        guarded(|| self.merged(window, groups))
    }

    fn forget_before(&mut self, floor: Timestamp) {
        while self.panes.first_key_value().is_some_and(|(pane, _)| *pane < floor) {
            self.panes.pop_first();
        }
    }

    fn bytes(&self) -> usize {
        let arrays = self.panes.values().flat_map(|pane| {
            pane.states.iter().flatten().chain(pane.arrived.iter().flat_map(|(_, arguments)| arguments))
        });
        arrays.map(|array| array.get_array_memory_size()).sum()
    }

    fn sliding(&self) -> &'static str {
        MERGED
    }

    fn state_bytes(&self) -> usize {
        // What they hold is their own affair.
        size_of::<ArrayRef>()
    }
}
