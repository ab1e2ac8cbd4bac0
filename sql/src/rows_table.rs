//! A table whose rows are the rows of one window (or one batch): what a rule's plan is bound to at each evaluation.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use tidewatch_model::{Timestamp, WindowSpec};

use crate::values::batch_of;

/// The first of the two columns that a window function adds.
pub const WINDOW_START: &str = "window_start";
/// The second.
pub const WINDOW_END: &str = "window_end";

/// What a plan reads at one of its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The rows of a registry table.
    Rows(String),
    /// Its rows within windows.
    Window(String, WindowSpec),
    /// Its series: `LAST_SEEN`.
    Presence(String),
    /// Its series with the value of a column: `STALLED`.
    Stalled(String, String),
    /// A dimension table.
    Dimension(String),
}

impl Source {
    /// The table of rows over time that it reads, if it reads one.
    pub fn stream(&self) -> Option<&str> {
        match self {
            Source::Rows(table) | Source::Window(table, _) | Source::Presence(table) | Source::Stalled(table, _) => {
                Some(table)
            }
            Source::Dimension(_) => None,
        }
    }

    /// Whether its rows are all series as they stand, and not rows over time.
    pub fn is_of_series(&self) -> bool {
        matches!(self, Source::Presence(_) | Source::Stalled(..))
    }
}

/// Rows within a window: `window_start`, `window_end`, and the rows.
pub type Part = (Timestamp, Timestamp, RecordBatch);

/// Rows of a table, perhaps without the columns that no rule asks for.
#[derive(Debug)]
pub struct RowsTable {
    source: Source,
    /// The full schema that plans were made against.
    schema: SchemaRef,
    /// Batches with some of those columns, by name.
    parts: Vec<Part>,
}

/// A table's schema with the window's two columns behind.
pub fn windowed_schema(schema: &Schema) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let window = [WINDOW_START, WINDOW_END].map(|name| Arc::new(Field::new(name, time.clone(), false)));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(window).collect::<Vec<_>>()))
}

impl RowsTable {
    /// No rows: what plans are made against.
    pub fn empty(source: Source, schema: SchemaRef) -> Self {
        RowsTable { source, schema, parts: vec![] }
    }

    fn project((start, end, batch): &Part, schema: &SchemaRef) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let constant = |instant: Timestamp| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(instant.0, rows).with_timezone("UTC"))
        };
        let columns =
            schema.fields().iter().map(|field| match (batch.column_by_name(field.name()), field.name().as_str()) {
                (Some(column), _) => Ok(column.clone()),
                (None, WINDOW_START) => Ok(constant(*start)),
                (None, WINDOW_END) => Ok(constant(*end)),
                (None, name) => {
                    Err(DataFusionError::Internal(format!("column '{name}' was not kept for the rules that read it")))
                }
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
        let batches = self.parts.iter().map(|part| Self::project(part, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }
}

/// What a scan reads; `None` when it is none of ours.
pub fn source_of(scan: &TableScan) -> Option<Source> {
    let provider = source_as_provider(&scan.source).ok()?;
    let rows = (provider.as_ref() as &dyn Any).downcast_ref::<RowsTable>()?;
    Some(rows.source.clone())
}

/// The plan with the rows of each of its sources.
pub fn bind(plan: &LogicalPlan, rows: &mut dyn FnMut(&Source) -> Result<Vec<Part>>) -> Result<LogicalPlan> {
    let bound = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            let Some(source) = source_of(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
            let parts = rows(&source)?;
            let table = RowsTable { source, schema: scan.source.schema(), parts };
            scan.source = provider_as_source(Arc::new(table));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

/// Every scan of a plan, also within its subqueries, in the order of the plan.
pub fn scans(plan: &LogicalPlan) -> Vec<(Source, TableScan)> {
    let mut found = Vec::new();
    // The closure does not fail.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = source_of(scan)
        {
            found.push((source, scan.clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// By table of rows over time: the columns that a plan reads, without the window's two.
pub fn columns_read(plan: &LogicalPlan) -> BTreeMap<String, Vec<String>> {
    let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (source, scan) in scans(plan) {
        let (Source::Rows(table) | Source::Window(table, _)) = source else { continue };
        let schema = scan.source.schema();
        let columns: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let names = columns.into_iter().map(|index| schema.field(index).name().clone());
        let names = names.filter(|name| name != WINDOW_START && name != WINDOW_END);
        read.entry(table).or_default().extend(names);
    }
    read
}
