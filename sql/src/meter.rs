//! What a plan may cost: rows are counted as they leave its operators, and a plan that passes too many is stopped. Counted in
//! rows and not in seconds, so that a replay stops where the live run stopped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// Rows so far, of so many.
#[derive(Debug)]
struct Meter {
    rows: AtomicU64,
    limit: u64,
}

impl Meter {
    fn check(&self, rows: u64) -> Result<()> {
        match rows <= self.limit {
            true => Ok(()),
            false => Err(DataFusionError::ResourcesExhausted(format!(
                "over its budget: more than {} rows pass through its plan in one evaluation; \
                 expected a narrower join or WHERE, a shorter 'over', or a longer 'every'",
                self.limit
            ))),
        }
    }

    fn pass(&self, rows: usize) -> Result<()> {
        self.check(self.rows.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64)
    }
}

/// An operator whose output is counted.
#[derive(Debug)]
struct Metered {
    input: Arc<dyn ExecutionPlan>,
    meter: Arc<Meter>,
    /// One side of a join that looks at all pairs: the rows of both, and which of the two this is.
    side: Option<(Arc<[AtomicU64; 2]>, usize)>,
}

/// How many rows have passed through a plan.
#[derive(Debug, Clone)]
pub struct Passed(Arc<Meter>);

impl Passed {
    /// So far.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }
}

/// The plan, which fails where it passes more than `limit` rows.
pub fn metered(plan: Arc<dyn ExecutionPlan>, limit: u64) -> Result<(Arc<dyn ExecutionPlan>, Passed)> {
    let meter = Arc::new(Meter { rows: AtomicU64::new(0), limit });
    let wrap = |input, side| Arc::new(Metered { input, meter: meter.clone(), side }) as Arc<dyn ExecutionPlan>;
    let wrapped = plan.transform_up(|node| {
        // Such a join may look at many pairs and let none out.
        let node = match node.downcast_ref::<NestedLoopJoinExec>() {
            Some(_) => {
                let pairs = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
                let sides = node.children().into_iter().cloned().enumerate();
                let sides = sides.map(|(index, side)| wrap(side, Some((pairs.clone(), index)))).collect();
                node.replace_children(sides, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?
            }
            None => node,
        };
        Ok(Transformed::yes(wrap(node, None)))
    })?;
    Ok((wrapped.data, Passed(meter)))
}

impl DisplayAs for Metered {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered: {} rows", self.meter.limit)
    }
}

impl ExecutionPlan for Metered {
    fn name(&self) -> &'static str {
        "Metered"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children
            .into_iter()
            .next()
            .ok_or_else(|| DataFusionError::Internal("a metered operator has one input".to_string()))?;
        Ok(Arc::new(Metered { input, meter: self.meter.clone(), side: self.side.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (meter, side) = (self.meter.clone(), self.side.clone());
        let counted = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            let rows = batch.num_rows();
            match &side {
                None => meter.pass(rows)?,
                Some((pairs, index)) => {
                    let own = pairs[*index].fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
                    meter.check(own.saturating_mul(pairs[1 - index].load(Ordering::Relaxed)))?;
                }
            }
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), counted)))
    }
}
