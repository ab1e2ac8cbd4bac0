//! From a rule file to rules that can be evaluated, with every fault that was found on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DataFusionError, SchemaError, plan_err};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, Query, Spanned};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::{LABELS, PLAN_ROWS_PER_BATCH};
use tidewatch_model::table::{self, ColumnType};
use tidewatch_model::{NoDataPolicy, Rule, RuleShape, Span};
use tokio::runtime::Runtime;

use crate::bundled;
use crate::calls::{add_time, check_constants, write_out};
use crate::dimension::Dimensions;
use crate::fault::{Fault, Level, Location, suggestion};
use crate::guarded::guarded;
use crate::lineage::{Knowing, knowing, unfollowed};
use crate::options::{bounds, check_options};
use crate::presence::{longest_interval, with_plain_intervals};
use crate::reads::{Reads, check_relations};
use crate::recovery;
use crate::remarks::{check_severity, remark_on_joins, remarks_on};
use crate::rows_table::{RowsTable, Source, WINDOW_END, WINDOW_START, columns_read};
use crate::session::{rule_session, run};
use crate::settings::Settings;
use crate::shape::{self, RulePlan};
pub(crate) use crate::shared::plan::RowPlan;
use crate::shared::plan::{SharedPlan, take_apart, take_row_apart};
use crate::statement::{Statements, WrittenAlert, WrittenView, lower_first, place, read_statements};
use crate::views::{View, put_in, view};

/// A rule with its plans.
#[derive(Debug, Clone)]
pub struct CompiledRule {
    /// What everybody else needs to know.
    pub rule: Rule,
    /// How it is evaluated.
    pub(crate) strategy: Strategy,
    /// Names of all columns of the SELECT: what templates may use.
    pub outputs: Vec<String>,
}

/// How a rule is evaluated.
#[derive(Debug, Clone)]
pub(crate) enum Strategy {
    /// On windows that rules share.
    Shared(Arc<SharedPlan>),
    /// By running its plan over the rows of each window.
    General(Box<GeneralPlan>),
    /// Row by row.
    Row(Box<RowPlan>),
    /// By running its plan over each batch of rows.
    RowGeneral(Box<GeneralPlan>),
}

/// The plans of a rule that DataFusion runs.
#[derive(Debug, Clone)]
pub(crate) struct GeneralPlan {
    /// Optimised; yields the rows that fire.
    pub(crate) matching: LogicalPlan,
    /// Which identities had rows.
    pub(crate) present: Present,
    /// By table of rows over time: the columns that the plans read.
    pub(crate) columns: BTreeMap<String, Vec<String>>,
    /// Why its windows are not shared.
    pub(crate) because: String,
    /// The longest interval that it names.
    pub(crate) longest: Span,
}

/// How it is known which identities had rows, whether or not they fire.
#[derive(Debug, Clone)]
pub(crate) enum Present {
    /// An optimised plan yields them.
    Plan(LogicalPlan),
    /// Those that every one of these leaves has.
    Leaves(Knowing),
}

/// Leaves of the optimised plan are numbered from here on.
const LEAVES_OF_OPTIMISED: usize = 1 << 20;

/// What came out of rule files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The good rules, in order.
    pub rules: Vec<CompiledRule>,
    /// Errors, warnings and notes; a rule with an error is not among the rules.
    pub faults: Vec<Fault>,
    /// Views that rules may read.
    pub(crate) views: Vec<View>,
}

/// Compiles rules.
pub struct Compiler {
    session: SessionContext,
    runtime: Runtime,
    dimensions: Dimensions,
    settings: Settings,
    /// The bundled views, which every rule may read.
    views: Vec<View>,
}

impl Loaded {
    /// Views that rules, and questions, may read.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// Whether any fault is an error.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(|fault| fault.level == Level::Error)
    }
}

impl Compiler {
    /// A compiler over the registry's tables and the dimension tables whose columns are known.
    ///
    /// # Errors
    /// When DataFusion can't be set up.
    pub fn new() -> Result<Compiler, DataFusionError> {
        Compiler::with(&Dimensions::default())
    }

    /// A compiler over the registry's tables and these dimension tables.
    ///
    /// # Errors
    /// When DataFusion can't be set up.
    pub fn with(dimensions: &Dimensions) -> Result<Compiler, DataFusionError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(DataFusionError::IoError)?;
        let settings = Settings::of(dimensions);
        let views = bundled::views(dimensions);
        Ok(Compiler { session: rule_session(dimensions)?, runtime, dimensions: dimensions.clone(), settings, views })
    }

    /// The columns of a bundled view, with their types; `None` of what is none.
    ///
    /// # Errors
    /// A view that can't be planned: a bug.
    pub fn columns_of_view(&self, name: &str) -> Result<Option<Vec<(String, DataType)>>, DataFusionError> {
        let Some(view) = self.views.iter().find(|view| view.name == name) else { return Ok(None) };
        let plan = self.plan(view.query())?;
        let fields = plan.schema().fields().iter();
        Ok(Some(fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()))
    }

    /// Compiles the text of one file into `loaded`; see [`Compiler::load_files`].
    pub fn load(&self, file: &str, text: &str, loaded: &mut Loaded) {
        self.load_files([(file, text)], loaded);
    }

    /// Compiles the texts of files, each with the file's name, into `loaded`. What other statements may name, the views and streams
    /// of all files, comes before the alerts of any. A name that is already taken there is an error.
    /// Bundled views are there before them all; another one of the same name replaces one.
    pub fn load_files<'a>(&self, files: impl IntoIterator<Item = (&'a str, &'a str)>, loaded: &mut Loaded) {
        if loaded.views.is_empty() {
            loaded.views.clone_from(&self.views);
        }
        let mut rest = Vec::new();
        for (file, text) in files {
            let Statements { alerts, views, faults } = read_statements(file, text, &self.settings);
            self.load_views(views, loaded);
            let (streams, alerts): (Vec<_>, Vec<_>) = alerts.into_iter().partition(|written| written.stream);
            streams.iter().for_each(|written| self.load_rule(written, loaded));
            rest.push((alerts, faults));
        }
        for (alerts, faults) in rest {
            loaded.faults.extend(faults);
            alerts.iter().for_each(|written| self.load_rule(written, loaded));
        }
    }

    fn load_views(&self, views: Vec<WrittenView>, loaded: &mut Loaded) {
        for written in views {
            let checked = view(&written, &loaded.views, &self.dimensions).and_then(|view| {
                // As a rule would read it.
                let select = format!("SELECT * FROM {}", written.name);
                let parsed = Parser::parse_sql(&GenericDialect {}, &select).ok().and_then(|mut parsed| parsed.pop());
                let Some(ast::Statement::Query(mut query)) = parsed else { return Ok(view) };
                let alert = WrittenAlert {
                    name: written.name.clone(),
                    at: written.at.clone(),
                    stream: false,
                    options: vec![],
                    query: written.query.clone(),
                    tokens: vec![],
                };
                check_relations(&alert, &written.query, &loaded.views, &self.dimensions)?;
                put_in(&mut query, std::slice::from_ref(&view))
                    .map_err(|message| Fault::error(written.at.clone(), message))?;
                self.plan(&query).map_err(|error| self.planning_fault(&alert, &error))?;
                Ok(view)
            });
            match checked {
                Ok(view) => {
                    loaded.views.retain(|known| known.name != view.name);
                    loaded.views.push(view);
                }
                Err(fault) => loaded.faults.push(fault),
            }
        }
    }

    fn load_rule(&self, alert: &WrittenAlert, loaded: &mut Loaded) {
        if let Some(first) = loaded.rules.iter().find(|other| other.rule.name == alert.name) {
            let message = format!("'{}' is defined twice: first at {}", alert.name, first.rule.source);
            loaded.faults.push(Fault::error(alert.at.clone(), message).of_rule(&alert.name));
            return;
        }
        let compiled = guarded(|| Ok(self.compile(alert, &loaded.views, &mut loaded.faults)));
        let compiled =
            compiled.unwrap_or_else(|broken| Err(vec![Fault::error(alert.at.clone(), broken.strip_backtrace())]));
        match compiled {
            Ok(rule) => {
                if rule.rule.stream {
                    // Its table is meant from here on, and not a bundled view.
                    loaded.views.retain(|view| view.name != rule.rule.name);
                }
                loaded.rules.push(rule);
            }
            Err(faults) => loaded.faults.extend(faults.into_iter().map(|fault| fault.of_rule(&alert.name))),
        }
    }

    fn compile(
        &self,
        alert: &WrittenAlert,
        views: &[View],
        remarks: &mut Vec<Fault>,
    ) -> Result<CompiledRule, Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let here = |reason: String| vec![Fault::error(alert.at.clone(), reason)];
        check_query(alert).map_err(one)?;
        check_relations(alert, &alert.query, views, &self.dimensions).map_err(one)?;
        let bounds = bounds(&alert.options).map_err(one)?;
        let mut query = alert.query.clone();
        put_in(&mut query, views).map_err(here)?;
        let mut plan = self.plan(&query).map_err(|error| one(self.planning_fault(alert, &error)))?;
        let outputs = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        let lower_is_worse = recovery::asks_for_less(&query);
        if let Some(option) = alert.options.iter().find(|option| option.name == "recover_when") {
            recovery::put_in(&mut query, option, &Reads::of(&plan)).map_err(one)?;
            plan = self.plan(&query).map_err(|error| {
                let fault = self.planning_fault(alert, &error);
                vec![Fault::error(option.at.clone(), format!("recover_when: {}", fault.message))]
            })?;
        }
        if let Some(reason) = shape::refusal(&plan) {
            return Err(here(reason));
        }
        let reads = Reads::of(&plan);
        let shape = reads.shape(&plan, bounds).map_err(here)?;
        if alert.stream {
            if let Some(view) = views.iter().find(|view| view.name == alert.name && !view.bundled) {
                return Err(here(format!(
                    "'{}' is a view, defined at {}: expected another name for a stream",
                    alert.name, view.at
                )));
            }
            check_stream(alert, shape).map_err(one)?;
        }
        let written = check_options(&alert.options, reads.kind(), shape)?;
        let parts = shape::take_apart(&plan, &reads, shape, written.key.as_deref())
            .map_err(|error| one(self.planning_fault(alert, &error)))?
            .map_err(here)?;
        let key = parts.key.clone();
        let keeps = !alert.stream && written.options.no_data != NoDataPolicy::Resolve;
        if matches!(parts.present, Present::Leaves(_)) && keeps {
            // A group that is not in the result may be well, or its rows may be missing: who can't tell must not say that it is well.
            if let Some(column) = unfollowed(&plan, &key) {
                return Err(here(format!(
                    "'{column}' identifies its alerts and is no column of a table: rows that are missing could not be told from recovery; \
                     expected a plain column, or the option no_data = 'resolve'"
                )));
            }
        }
        if key.len() > LABELS {
            return Err(here(format!("{} key columns: an alert has {LABELS} labels at most", key.len())));
        }
        if let Some(hidden) = key.iter().find(|column| written.options.labels.contains_key(*column)) {
            return Err(here(format!(
                "label '{hidden}' would hide the key column of that name: expected another name for one of them"
            )));
        }
        let strategy = self.strategy(&reads, shape, parts).map_err(|error| one(self.planning_fault(alert, &error)))?;
        let severity = check_severity(alert, &plan, &key).map_err(one)?;
        let found = remarks_on(alert, &reads, &plan, shape).into_iter().chain(remark_on_joins(alert, &strategy));
        let found = found.chain(severity);
        remarks.extend(found.map(|fault| fault.of_rule(&alert.name)));
        let sql = alert.query.to_string();
        let tables: Vec<String> = reads.streams.iter().map(|table| table.name.to_string()).collect();
        let rule = Rule {
            name: alert.name.clone(),
            // With the views in it: a rule changes when they do.
            version: hex(&Sha256::digest(query.to_string().as_bytes())[..8]),
            sql,
            table: tables[0].clone(),
            joined: tables[1..].to_vec(),
            stream: alert.stream,
            across: is_across(&strategy),
            table_kind: reads.kind(),
            shape,
            spread: plan
                .schema()
                .fields()
                .iter()
                .filter(|field| is_map(field, &key))
                .map(|field| field.name().clone())
                .collect(),
            key,
            options: written.options,
            lower_is_worse,
            source: alert.at.to_string(),
        };
        if rule.stream {
            self.make_known(&rule, &plan).map_err(here)?;
        }
        Ok(CompiledRule { rule, strategy, outputs })
    }

    /// Makes a stream known as a table.
    fn make_known(&self, rule: &Rule, plan: &LogicalPlan) -> Result<(), String> {
        let name = &rule.name;
        if self.dimensions.rows(name).is_some() {
            return Err(format!("'{name}' is a dimension table: expected another name for a stream"));
        }
        let mut columns = Vec::new();
        for field in plan.schema().fields().iter().filter(|field| !is_time_of_window(field.name())) {
            let identity = rule.key.contains(field.name());
            let column_type = match field.data_type() {
                data_type if data_type.is_integer() => ColumnType::Int64,
                data_type if data_type.is_floating() => ColumnType::Float64WithNan,
                DataType::Boolean => ColumnType::Bool,
                DataType::Timestamp(..) if !identity => ColumnType::Timestamp,
                _ => ColumnType::Utf8,
            };
            columns.push((field.name().clone(), column_type, identity));
        }
        if rule.key.is_empty() {
            return Err("nothing identifies its rows: expected a GROUP BY column besides the window's".to_string());
        }
        let interval = rule.shape.window().map_or(Span::ZERO, |spec| spec.slide);
        let table = table::register(name, interval, &columns).map_err(|error| error.to_string())?;
        let rows = RowsTable::empty(Source::Rows(name.clone()), table.schema());
        // Another compiler of this process may have made it known.
        self.session.deregister_table(name.as_str()).map_err(|error| error.to_string())?;
        self.session.register_table(name.as_str(), Arc::new(rows)).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// The cheapest way to evaluate a rule.
    fn strategy(&self, reads: &Reads, shape: RuleShape, parts: RulePlan) -> Result<Strategy, DataFusionError> {
        let state = self.session.state();
        let is_alone = reads.is_alone();
        let because = match (shape, reads.leaves.as_slice()) {
            (RuleShape::Row, _) if is_alone => match take_row_apart(&state, &parts, reads.streams[0])? {
                Ok(plan) => return Ok(Strategy::Row(Box::new(plan))),
                Err(because) if has_over(&parts.matching) => {
                    return plan_err!(
                        "{because}; or a bound for any query: the options every = '10 seconds', over = '10 minutes'"
                    );
                }
                Err(because) => because,
            },
            (RuleShape::Row, _) if has_over(&parts.matching) => {
                return plan_err!(
                    "OVER and a join: expected a bound: the options every = '10 seconds', over = '10 minutes'"
                );
            }
            (RuleShape::Presence(_), _) => "it looks at all series".to_string(),
            (RuleShape::Window(_), [Source::Window(..)]) => {
                match take_apart(&state, &parts.matching, reads.streams[0])? {
                    Ok(plan) => return Ok(Strategy::Shared(Arc::new(plan))),
                    Err(because) => because,
                }
            }
            _ if is_alone => "its window is that of 'every' and 'over'".to_string(),
            _ => "it reads more than one table".to_string(),
        };
        let plain = |plan: &LogicalPlan| state.optimize(&with_plain_intervals(plan)?);
        let matching = plain(&parts.matching)?;
        check_constants(&matching)?;
        let mut columns = columns_read(&matching);
        let present = match parts.present {
            Present::Plan(present) => {
                let present = plain(&present)?;
                for (table, read) in columns_read(&present) {
                    columns.entry(table).or_default().extend(read);
                }
                Present::Plan(present)
            }
            Present::Leaves(leaves) => {
                // What follows from the plan as it runs, where IN and EXISTS are joins, holds as well.
                let mut leaves = leaves;
                for (leaf, known) in knowing(&matching, &parts.key) {
                    leaves.insert(leaf + LEAVES_OF_OPTIMISED, known);
                }
                for (source, known) in leaves.values() {
                    // Series have rows of their own.
                    let (Source::Rows(table) | Source::Window(table, _)) = source else { continue };
                    let of_rows = known.iter().map(|(_, column)| column.clone());
                    let of_rows = of_rows.filter(|column| column != WINDOW_START && column != WINDOW_END);
                    columns.entry(table.clone()).or_default().extend(of_rows);
                }
                Present::Leaves(leaves)
            }
        };
        for read in columns.values_mut() {
            read.push(table::TIME_COLUMN.to_string());
            read.sort();
            read.dedup();
        }
        // Over no rows: what DataFusion finds out only when it runs is found out now.
        self.runtime.block_on(run(&state, &matching, PLAN_ROWS_PER_BATCH))?;
        let longest = longest_interval(&matching);
        let plan = Box::new(GeneralPlan { matching, present, columns, because, longest });
        Ok(if shape == RuleShape::Row { Strategy::RowGeneral(plan) } else { Strategy::General(plan) })
    }

    fn plan(&self, query: &Query) -> Result<LogicalPlan, DataFusionError> {
        let mut query = query.clone();
        add_time(&mut query);
        write_out(&mut query);
        let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        self.runtime.block_on(self.session.state().statement_to_plan(statement))
    }

    /// A planning error, at the place of the name that it complains about.
    fn planning_fault(&self, alert: &WrittenAlert, error: &DataFusionError) -> Fault {
        let root = error.find_root();
        if let DataFusionError::SchemaError(schema_error, _) = root
            && let SchemaError::FieldNotFound { field, valid_fields } = schema_error.as_ref()
        {
            let near = suggestion(&field.name, valid_fields.iter().map(|valid| valid.name.as_str()));
            let tables: BTreeSet<&str> = valid_fields
                .iter()
                .filter_map(|valid| valid.relation.as_ref())
                .map(|relation| relation.table())
                .collect();
            let of = match Vec::from_iter(tables).as_slice() {
                [] => String::new(),
                [table] => format!(" in table '{table}'"),
                tables => format!(" in any of {}", tables.join(", ")),
            };
            let message = format!("unknown column '{}'{of}{near}", field.name);
            return Fault::error(place_of_word(alert, &field.name), message);
        }
        let text = root.strip_backtrace();
        let text = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest).replace('\n', " ");
        let quoted = text.split(['\'', '"', '`']).nth(1).unwrap_or_default();
        Fault::error(place_of_word(alert, quoted), lower_first(&text))
    }
}

/// Whether a column is one of the window's bounds, or the time that a stream's rows get from them.
fn is_time_of_window(name: &str) -> bool {
    [WINDOW_START, WINDOW_END, table::TIME_COLUMN].contains(&name)
}

/// What a stream must be, besides a good rule.
fn check_stream(alert: &WrittenAlert, shape: RuleShape) -> Result<(), Fault> {
    if !matches!(shape, RuleShape::Window(_)) {
        let message = "a stream has one row per group and window: expected HOP or TUMBLE in its FROM, or the options every and over";
        return Err(Fault::error(alert.at.clone(), message));
    }
    match alert.options.iter().find(|option| !["delay", "every", "over", "key"].contains(&option.name.as_str())) {
        Some(other) => {
            let message = format!("a stream has no option '{}': expected delay, every, over or key", other.name);
            Err(Fault::error(other.at.clone(), message))
        }
        None => Ok(()),
    }
}

fn has_over(plan: &LogicalPlan) -> bool {
    // The closure does not fail.
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Window(_)))).unwrap_or(false)
}

/// Whether rows of one identity may change what is said of another.
fn is_across(strategy: &Strategy) -> bool {
    match strategy {
        Strategy::Shared(_) | Strategy::RowGeneral(_) => false,
        Strategy::General(plan) => matches!(plan.present, Present::Leaves(_)),
        Strategy::Row(plan) => plan.overs.iter().any(|over| {
            let by_host = |part: &Expr| part.try_as_col().is_some_and(|column| column.name == "host");
            !over.partition.iter().any(by_host)
        }),
    }
}

/// What no rule may have at its top.
fn check_query(alert: &WrittenAlert) -> Result<(), Fault> {
    let query = &alert.query;
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        let at = place(alert, query.span().start);
        return Err(Fault::error(at, "ORDER BY and LIMIT have no meaning in a rule: every row is an alert"));
    }
    Ok(())
}

/// Where a word of the SELECT stands; the name of the alert when it is not there.
pub(crate) fn place_of_word(alert: &WrittenAlert, name: &str) -> Location {
    let found = alert.tokens.iter().find(|token| match &token.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        _ => false,
    });
    match found {
        Some(token) => place(alert, token.span.start),
        None => alert.at.clone(),
    }
}

/// Whether a column of the key is a map.
fn is_map(field: &Field, key: &[String]) -> bool {
    key.contains(field.name()) && matches!(field.data_type(), DataType::Map(..))
}
