//! History as SQL: everything committed to the lake, as read-only tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion::common::config::Dialect;
use datafusion::common::{DataFusionError, SchemaError, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, GenericDialect, PostgreSqlDialect};
use tidewatch_model::ports::{Scan, ScanError};
use tidewatch_model::table;
use tokio::runtime::Runtime;

use crate::bounds;
use crate::bundled;
use crate::calls::write_out;
use crate::dimension::Dimensions;
use crate::fault::suggestion;
use crate::lake_table::LakeTable;
use crate::session::{history_session, stream};
use crate::views::{View, put_in};
use futures::StreamExt;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The question is wrong: whoever asked must change it. With its SQLSTATE.
    #[error("{1}")]
    Question(&'static str, String),
    /// The lake can't be read.
    #[error(transparent)]
    Lake(#[from] ScanError),
    /// It failed on the way. With its SQLSTATE.
    #[error("{1}")]
    Failed(&'static str, String),
}

impl QueryError {
    /// That something failed that no question is to blame for.
    pub fn failed(why: impl std::fmt::Display) -> QueryError {
        QueryError::Failed("XX000", why.to_string())
    }

    /// Its SQLSTATE (PostgreSQL's documentation, appendix A).
    pub fn sqlstate(&self) -> &'static str {
        match self {
            QueryError::Question(state, _) | QueryError::Failed(state, _) => state,
            QueryError::Lake(_) => "58030",
        }
    }
}

/// Stack of a thread that runs plans; only what is used of it takes memory.
pub const STACK_BYTES: usize = 16 << 20;

/// What an answer will look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its columns, as [`History::query`] hands them over.
    pub columns: SchemaRef,
    /// What `$1`, `$2`, ... are, as far as their places tell; text where they don't.
    pub parameters: Vec<DataType>,
}

/// What is laid over a session with tables: another system's catalog and functions.
pub type Overlay = Arc<dyn Fn(&SessionContext) -> Result<(), DataFusionError> + Send + Sync>;

/// Answers questions over what is committed at the moment each is asked.
pub struct History {
    scan: Arc<dyn Scan>,
    runtime: Runtime,
    partitions: usize,
    dimensions: Dimensions,
    /// With none set, the bundled ones.
    views: Option<Vec<View>>,
    /// Bytes that one question may hold; with a limit, questions are from outside and are looked at more closely.
    limit: Option<usize>,
    /// With one, questions are PostgreSQL's.
    overlay: Option<Overlay>,
}

impl History {
    /// Over this lake, with this many threads' worth of partitions per question.
    ///
    /// # Errors
    /// When no runtime can be made.
    pub fn new(scan: Arc<dyn Scan>, partitions: usize) -> Result<History, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(partitions.max(1))
            // A plan's depth is a stack's.
            .thread_stack_size(STACK_BYTES)
            // They read files; as many more would wait for the same disk.
            .max_blocking_threads(partitions.max(1) * 2)
            .build()
            .map_err(QueryError::failed)?;
        Ok(History {
            scan,
            runtime,
            partitions: partitions.max(1),
            dimensions: Dimensions::default(),
            views: None,
            limit: None,
            overlay: None,
        })
    }

    /// With these dimension tables.
    #[must_use]
    pub fn with_dimensions(self, dimensions: Dimensions) -> History {
        History { dimensions, ..self }
    }

    /// For questions from outside: each may hold so many bytes, and what is known to take all memory or never to end is refused.
    #[must_use]
    pub fn bounded(self, bytes: usize) -> History {
        History { limit: Some(bytes), ..self }
    }

    /// With these views, of which the bundled ones are some.
    #[must_use]
    pub fn with_views(self, views: &[View]) -> History {
        History { views: Some(views.to_vec()), ..self }
    }

    /// The views that a question may name: a table of the same name goes before one.
    fn views(&self) -> Vec<View> {
        let mut views = self.views.clone().unwrap_or_else(|| bundled::views(&self.dimensions));
        views.retain(|view| {
            !view.bundled || (table::find(&view.name).is_none() && self.dimensions.rows(&view.name).is_none())
        });
        views
    }

    /// All tables that can be asked, and their columns.
    pub fn tables(&self) -> impl Iterator<Item = (String, SchemaRef)> {
        let own = table::all().into_iter().map(|table| (table.name.to_string(), table.schema()));
        own.chain(self.dimensions.tables().map(|(name, rows)| (name.to_string(), rows.schema())))
    }

    /// For questions in PostgreSQL's dialect, with its catalog laid over the tables.
    #[must_use]
    pub fn as_postgresql(self, overlay: Overlay) -> History {
        History { overlay: Some(overlay), ..self }
    }

    /// Says what an answer will look like, without looking for it.
    ///
    /// # Errors
    /// As [`History::query`].
    pub fn describe(&self, sql: &str) -> Result<Description, QueryError> {
        self.runtime.block_on(async {
            let (context, plan) = self.plan(sql, None).await?;
            let types = plan.get_parameter_types().map_err(question)?;
            let count =
                types.keys().filter_map(|name| name.strip_prefix('$')?.parse::<usize>().ok()).max().unwrap_or(0);
            let of = |number: usize| types.get(&format!("${number}")).cloned().flatten().unwrap_or(DataType::Utf8);
            let parameters: Vec<DataType> = (1..=count).map(of).collect();
            // Columns are settled once a plan is analysed, and it is analysed with values.
            let nulls: Result<Vec<_>, _> = parameters.iter().map(ScalarValue::try_from).collect();
            let plan =
                if count > 0 { plan.with_param_values(nulls.map_err(question)?).map_err(question)? } else { plan };
            let plan = context.state().optimize(&plan).map_err(question)?;
            Ok(Description { columns: micros_schema(plan.schema().as_arrow()), parameters })
        })
    }

    /// Runs one read-only statement and hands each batch of the answer to `take`; timestamps are microseconds. The
    /// first batch may be empty: it carries the schema of an answer without rows.
    ///
    /// # Errors
    /// A question that can't be planned or is not read-only, a lake that can't be read, or what `take` returns.
    pub fn query(&self, sql: &str, take: impl FnMut(RecordBatch) -> Result<(), QueryError>) -> Result<(), QueryError> {
        self.query_with(sql, &[], take)
    }

    /// The same with values for `$1`, `$2`, ..., as texts that are read as what their places want; `None` is NULL.
    ///
    /// # Errors
    /// As [`History::query`], or a text that can't be read as what its place wants.
    pub fn query_with(
        &self,
        sql: &str,
        parameters: &[Option<String>],
        mut take: impl FnMut(RecordBatch) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.runtime.block_on(async {
            let (context, plan) = self.plan(sql, Some(parameters)).await?;
            let plan = context.state().optimize(&plan).map_err(question)?;
            let mut batches = stream(&context.state(), &plan).await.map_err(question)?;
            let schema = micros_schema(&batches.schema());
            take(RecordBatch::new_empty(schema.clone()))?;
            while let Some(batch) = batches.next().await {
                let batch = batch.map_err(on_the_way)?;
                let columns = batch
                    .columns()
                    .iter()
                    .zip(schema.fields())
                    .map(|(column, field)| to_type(column, field.data_type()));
                let columns = columns.collect::<Result<Vec<_>, _>>().map_err(QueryError::failed)?;
                let batch = RecordBatch::try_new(schema.clone(), columns).map_err(QueryError::failed)?;
                take(batch)?;
            }
            Ok(())
        })
    }

    /// The plan of a read-only statement, with values for its parameters when they are known.
    async fn plan(
        &self,
        sql: &str,
        parameters: Option<&[Option<String>]>,
    ) -> Result<(SessionContext, LogicalPlan), QueryError> {
        let context = history_session(self.partitions, self.limit).map_err(question)?;
        if self.overlay.is_some() {
            context.state_ref().write().config_mut().options_mut().sql_parser.dialect = Dialect::PostgreSQL;
        }
        let mut statement = self.statement(sql)?;
        write_in(&mut statement, &self.views()).map_err(refused)?;
        self.register_tables(&context, &statement)?;
        if let Some(overlay) = &self.overlay {
            overlay(&context).map_err(question)?;
        }
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let planned = context.state().statement_to_plan(statement).await;
        let planned = planned.and_then(|plan| options.verify_plan(&plan).map(|()| plan));
        let mut plan = planned.map_err(|error| self.explain(&error))?;
        if self.limit.is_some() {
            bounds::check_plan(&plan).map_err(refused)?;
        }
        if let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) {
            let types = plan.get_parameter_types().map_err(question)?;
            let values = parameters.iter().zip(1..).map(|(text, number)| {
                let wanted = types.get(&format!("${number}")).cloned().flatten().unwrap_or(DataType::Utf8);
                let Some(text) = text else { return ScalarValue::try_from(&wanted).map_err(question) };
                ScalarValue::try_from_string(text.clone(), &wanted)
                    .map_err(|_| QueryError::Question("22P02", format!("${number}: '{text}' is no {wanted}")))
            });
            let values = values.collect::<Result<Vec<_>, _>>()?;
            plan = plan.with_param_values(values).map_err(question)?;
        }
        Ok((context, plan))
    }

    /// Reads the one statement of a question.
    fn statement(&self, sql: &str) -> Result<Statement, QueryError> {
        if self.limit.is_some() {
            bounds::check_text(sql).map_err(refused)?;
        }
        let dialect: &dyn SqlDialect = if self.overlay.is_some() { &PostgreSqlDialect {} } else { &GenericDialect {} };
        let mut parser = DFParserBuilder::new(sql).with_dialect(dialect).build().map_err(question)?;
        let mut statements = parser.parse_statements().map_err(question)?;
        let count = statements.len();
        let one = statements.pop_front().filter(|_| count == 1);
        let statement =
            one.ok_or_else(|| QueryError::Question("42601", format!("expected one statement, found {count}")))?;
        if self.limit.is_some() {
            bounds::check_statement(&statement).map_err(refused)?;
        }
        Ok(statement)
    }

    /// Registers the tables that the statement names; a registry table without rows is an empty one.
    fn register_tables(&self, context: &SessionContext, statement: &Statement) -> Result<(), QueryError> {
        let asked = context.state().resolve_table_references(statement).map_err(question)?;
        let own = asked.iter().filter(|reference| reference.schema().is_none_or(|schema| schema == "public"));
        let mut names: Vec<String> = own.map(|reference| reference.table().to_string()).collect();
        let is_of_catalog = |reference: &TableReference| {
            reference.schema().is_some_and(|schema| schema == "pg_catalog" || schema == "information_schema")
                || reference.table().starts_with("pg_")
        };
        if self.limit.is_some() && asked.iter().any(|reference| reference.table() == "df_settings") {
            return Err(refused("df_settings is not for questions from outside".to_string()));
        }
        if asked.iter().any(is_of_catalog)
            || matches!(statement, Statement::Statement(asked) if asked.to_string().starts_with("SHOW"))
        {
            // A catalog lists all tables; their rows are not looked for.
            for (name, schema) in self.tables().filter(|(name, _)| !names.contains(name)) {
                let empty = MemTable::try_new(schema, vec![vec![]]).map_err(question)?;
                context.register_table(name.as_str(), Arc::new(empty)).map_err(question)?;
            }
            names.retain(|name| !name.starts_with("pg_"));
        }
        let mut stored = self.scan.snapshot(&names)?;
        for name in &names {
            let name = name.as_str();
            if let Some(snapshot) = stored.remove(name) {
                let table = LakeTable::new(snapshot, self.scan.clone()).map_err(question)?;
                context.register_table(name, Arc::new(table)).map_err(question)?;
            } else if let Some(known) = table::find(name) {
                let empty = MemTable::try_new(known.schema(), vec![vec![]]).map_err(question)?;
                context.register_table(name, Arc::new(empty)).map_err(question)?;
            } else if let Some(rows) = self.dimensions.rows(name) {
                let memory = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).map_err(question)?;
                context.register_table(name, Arc::new(memory)).map_err(question)?;
            }
        }
        Ok(())
    }

    fn explain(&self, error: &DataFusionError) -> QueryError {
        let text = error.find_root().strip_backtrace();
        let Some(missing) = text.split("table '").nth(1).and_then(|rest| rest.split('\'').next()) else {
            return QueryError::Question(state_of(error), text);
        };
        let name = missing.rsplit('.').next().unwrap_or(missing);
        let known =
            table::all().into_iter().map(|table| table.name).chain(self.dimensions.tables().map(|(name, _)| name));
        let views = self.views();
        let near = suggestion(name, known.chain(views.iter().map(|view| view.name.as_str())));
        QueryError::Question("42P01", format!("unknown table '{name}'{near}"))
    }
}

/// Puts views into a statement, and writes out what its calls mean.
fn write_in(statement: &mut Statement, views: &[View]) -> Result<(), String> {
    match statement {
        Statement::Statement(asked) => {
            put_in(asked.as_mut(), views)?;
            write_out(asked.as_mut());
            Ok(())
        }
        Statement::Explain(explained) => write_in(&mut explained.statement, views),
        _ => Ok(()),
    }
}

fn question(error: DataFusionError) -> QueryError {
    QueryError::Question(state_of(&error), error.find_root().strip_backtrace())
}

fn refused(why: String) -> QueryError {
    QueryError::Question("0A000", why)
}

/// What comes up while rows are read: a value that an operation has no answer for is the question's fault.
fn on_the_way(error: DataFusionError) -> QueryError {
    match state_of(&error) {
        state if state.starts_with("22") => QueryError::Question(state, error.find_root().strip_backtrace()),
        state @ ("53200" | "53100") => QueryError::Failed(state, error.strip_backtrace()),
        _ => QueryError::failed(error.strip_backtrace()),
    }
}

/// The SQLSTATE of what DataFusion says.
fn state_of(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::SchemaError(problem, _) => match problem.as_ref() {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42701",
        },
        DataFusionError::SQL(..) => "42601",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ArrowError(problem, _) => match problem.as_ref() {
            ArrowError::DivideByZero => "22012",
            ArrowError::ArithmeticOverflow(_) => "22003",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            _ => "42000",
        },
        DataFusionError::Plan(text) if text.contains("Invalid function") => "42883",
        DataFusionError::Plan(text) if text.contains("must appear in the GROUP BY clause") => "42803",
        DataFusionError::Plan(text) if text.contains("type coercion") || text.contains("coerce") => "42804",
        _ => "42000",
    }
}

/// The same schema with every timestamp in microseconds: DataFusion's own functions make nanoseconds, which Spark
/// refuses to read.
fn micros_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(_, zone) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            Arc::new(Field::new(field.name(), micros, field.is_nullable()))
        }
        DataType::Utf8View | DataType::LargeUtf8 => {
            Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable()))
        }
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn to_type(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == wanted { Ok(column.clone()) } else { cast(column, wanted) }
}
