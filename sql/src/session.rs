//! The DataFusion session that rules and history share: our functions, our window functions in FROM, one partition.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::physical_plan::{collect, execute_stream};
use datafusion::sql::sqlparser::ast::TableFactor;
use tidewatch_model::limits::PLAN_BYTES;
use tidewatch_model::table;

use crate::calendar::TruncAsBin;
use crate::dimension::Dimensions;
use crate::ends::{NullsOfEnds, ends};
use crate::histogram::histogram_quantile;
use crate::increase::growths;
use crate::meter::metered;
use crate::percentile::approx_percentile;
use crate::preprocess::of_numbers;
use crate::presence::schema_of;
use crate::ratio::ratio;
use crate::rows_table::{RowsTable, Source, windowed_schema};
use crate::smoothing::of_values;
use crate::stall;
use crate::stand_in::stand_ins;
use crate::window_call::{CallKind, window_call};

/// Plans `HOP(...)` and `TUMBLE(...)` in FROM as a table with `window_start` and `window_end` behind its columns.
#[derive(Debug)]
struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let call = match window_call(&relation) {
            None => return Ok(RelationPlanning::Original(Box::new(relation))),
            Some(Err(fault)) => return Err(DataFusionError::Plan(fault.message)),
            Some(Ok(call)) => call,
        };
        let Some(found) = table::find(&call.table) else {
            return Err(DataFusionError::Plan(format!("unknown table '{}'", call.table)));
        };
        let unknown = || DataFusionError::Plan(format!("'{}' has no such column", call.table));
        let (source, schema) = match &call.kind {
            CallKind::Window => (Source::Window(call.table.clone(), call.spec), windowed_schema(&found.schema())),
            CallKind::LastSeen => (Source::Presence(call.table.clone()), schema_of(found)),
            CallKind::Stalled(column) => {
                let schema = stall::schema_of(found, column).ok_or_else(unknown)?;
                (Source::Stalled(call.table.clone(), column.clone()), schema)
            }
        };
        let source = provider_as_source(Arc::new(RowsTable::empty(source, schema)));
        let plan = LogicalPlanBuilder::scan(call.table.as_str(), source, None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, call.alias))))
    }
}

/// A session for rules: every registry table and every dimension table, empty; one partition, so results come in a fixed order;
/// memory as far as one evaluation may have it.
pub fn rule_session(dimensions: &Dimensions) -> Result<SessionContext> {
    let memory = RuntimeEnvBuilder::new()
        .with_memory_limit(PLAN_BYTES, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled));
    let context = SessionContext::new_with_state(session_state(1, memory.build()?)?);
    context.state_ref().write().register_relation_planner(Arc::new(WindowPlanner))?;
    for table in table::all() {
        let source = Source::Rows(table.name.to_string());
        context.register_table(table.name, Arc::new(RowsTable::empty(source, table.schema())))?;
    }
    for (name, rows) in dimensions.tables() {
        let source = Source::Dimension(name.to_string());
        context.register_table(name, Arc::new(RowsTable::empty(source, rows.schema())))?;
    }
    Ok(context)
}

/// The name of a session's catalog.
pub const CATALOG: &str = "tidewatch";

/// A session for questions about history: no tables yet. With a limit, operators hold at most so many bytes, and put as many into
/// temporary files.
pub fn history_session(partitions: usize, limit: Option<usize>) -> Result<SessionContext> {
    let runtime = match limit {
        None => RuntimeEnv::default(),
        Some(bytes) => {
            RuntimeEnvBuilder::new().with_memory_limit(bytes, 1.0).with_max_temp_directory_size(bytes as u64).build()?
        }
    };
    let context = SessionContext::new_with_state(session_state(partitions, runtime)?);
    context.state_ref().write().register_function_rewrite(Arc::new(TruncAsBin))?;
    Ok(context)
}

fn session_state(partitions: usize, runtime: RuntimeEnv) -> Result<SessionState> {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(true);
    config = config.with_default_catalog_and_schema(CATALOG, "public");
    config.options_mut().sql_parser.collect_spans = true;
    config.options_mut().execution.time_zone = Some("UTC".to_string());
    let builder = SessionStateBuilder::new().with_default_features().with_config(config);
    let context = SessionContext::new_with_state(builder.with_runtime_env(Arc::new(runtime)).build());
    for aggregate in stand_ins().into_iter().chain(ends()).chain(growths()).chain(of_values()) {
        context.register_udaf(aggregate);
    }
    context.register_udaf(approx_percentile());
    context.register_udaf(histogram_quantile());
    context.register_udf(ratio());
    of_numbers().into_iter().for_each(|function| context.register_udf(function));
    context.state_ref().write().register_expr_planner(Arc::new(NullsOfEnds))?;
    Ok(context.state())
}

/// Runs an optimised plan, which may pass so many rows through its operators. The physical plan is made afresh each time: a plan
/// that is run twice piles up its metrics.
pub async fn run(state: &SessionState, plan: &LogicalPlan, rows: u64) -> Result<(Vec<RecordBatch>, u64)> {
    let physical = state.query_planner().create_physical_plan(plan, state).await?;
    let (metered, passed) = metered(physical, rows)?;
    let batches = collect(metered, state.task_ctx()).await?;
    Ok((batches, passed.rows()))
}

/// Runs an optimised plan without such a bound, batch by batch.
pub async fn stream(state: &SessionState, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
    let physical = state.query_planner().create_physical_plan(plan, state).await?;
    execute_stream(physical, state.task_ctx())
}
