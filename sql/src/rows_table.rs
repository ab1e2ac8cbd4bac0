//! A table whose rows are the rows of one window (or one batch): what a rule's plan is bound to at each evaluation.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use tidewatch_model::Timestamp;

use crate::values::batch_of;

/// The first of the two columns that a window function adds.
pub const WINDOW_START: &str = "window_start";
/// The second.
pub const WINDOW_END: &str = "window_end";

/// Rows of a registry table, perhaps without the columns that no rule asks for, and perhaps within a window.
#[derive(Debug)]
pub struct RowsTable {
    /// The full schema that plans were made against.
    schema: SchemaRef,
    /// Batches with some of those columns, by name.
    batches: Vec<RecordBatch>,
    /// Values of `window_start` and `window_end`.
    window: (Timestamp, Timestamp),
}

/// A table's schema with the window's two columns behind.
pub fn windowed_schema(schema: &Schema) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let window = [WINDOW_START, WINDOW_END].map(|name| Arc::new(Field::new(name, time.clone(), false)));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(window).collect::<Vec<_>>()))
}

impl RowsTable {
    /// No rows: what plans are made against.
    pub fn empty(schema: SchemaRef) -> Self {
        RowsTable { schema, batches: vec![], window: (Timestamp(0), Timestamp(0)) }
    }

    fn project(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let constant = |instant: Timestamp| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(instant.0, rows).with_timezone("UTC"))
        };
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            WINDOW_START => Ok(constant(self.window.0)),
            WINDOW_END => Ok(constant(self.window.1)),
            name => batch.column_by_name(name).cloned().ok_or_else(|| {
                DataFusionError::Internal(format!("column '{name}' was not kept for the rules that read it"))
            }),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(batch_of(schema, columns, rows)?)
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let batches = self.batches.iter().map(|batch| self.project(batch, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }
}

/// The plan with its table replaced by these rows.
pub fn bind(plan: &LogicalPlan, batches: Vec<RecordBatch>, window: (Timestamp, Timestamp)) -> Result<LogicalPlan> {
    let mut batches = Some(batches);
    let bound = plan.clone().transform_up(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            let rows = RowsTable { schema: scan.source.schema(), batches: batches.take().unwrap_or_default(), window };
            scan.source = provider_as_source(Arc::new(rows));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

/// Names of the columns that a plan reads from its table, without the window's two.
pub fn columns_read(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut names = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let schema = scan.source.schema();
            let read: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..schema.fields().len()).collect());
            names.extend(read.into_iter().map(|index| schema.field(index).name().clone()));
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    names.retain(|name| name != WINDOW_START && name != WINDOW_END);
    Ok(names)
}
