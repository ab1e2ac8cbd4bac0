//! From a rule file to rules that can be evaluated, with every fault that was found on the way.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, Select, SetExpr, Spanned, TableFactor,
    visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use sha2::{Digest, Sha256};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::LABELS;
use tidewatch_model::table::{self, ColumnType, TABLES, Table};
use tidewatch_model::{Rule, RuleShape, Span};
use tokio::runtime::Runtime;

use crate::ends::is_last;
use crate::fault::{Fault, Level, Location, suggestion};
use crate::increase::growth_question;
use crate::options::check_options;
use crate::presence::{longest_interval, with_plain_intervals};
use crate::rows_table::columns_read;
use crate::session::{rule_session, run};
use crate::shape::{self, RulePlan};
pub(crate) use crate::shared::plan::RowPlan;
use crate::shared::plan::{SharedPlan, take_apart, take_row_apart};
use crate::statement::{WrittenAlert, lower_first, read_statements};
use crate::window_call::{table_name, window_call};

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
}

/// The plans of a rule that DataFusion runs.
#[derive(Debug, Clone)]
pub(crate) struct GeneralPlan {
    /// Optimised; yields the rows that fire.
    pub(crate) matching: LogicalPlan,
    /// Optimised; yields the identities that had rows.
    pub(crate) present: LogicalPlan,
    /// Columns that the two read.
    pub(crate) columns: Vec<String>,
    /// Why its windows are not shared.
    pub(crate) because: String,
    /// The longest interval that it names.
    pub(crate) longest: Span,
}

/// What came out of rule files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The good rules, in order.
    pub rules: Vec<CompiledRule>,
    /// Errors, warnings and notes; a rule with an error is not among the rules.
    pub faults: Vec<Fault>,
}

/// Compiles rules.
pub struct Compiler {
    session: SessionContext,
    runtime: Runtime,
}

impl Loaded {
    /// Whether any fault is an error.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(|fault| fault.level == Level::Error)
    }
}

impl Compiler {
    /// A compiler over the registry's tables.
    ///
    /// # Errors
    /// When DataFusion can't be set up.
    pub fn new() -> Result<Compiler, DataFusionError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(DataFusionError::IoError)?;
        Ok(Compiler { session: rule_session()?, runtime })
    }

    /// Compiles the text of one file into `loaded`. A name that is already taken there is an error.
    pub fn load(&self, file: &str, text: &str, loaded: &mut Loaded) {
        let (alerts, faults) = read_statements(file, text);
        loaded.faults.extend(faults);
        for alert in alerts {
            if let Some(first) = loaded.rules.iter().find(|other| other.rule.name == alert.name) {
                let message = format!("alert '{}' is defined twice: first at {}", alert.name, first.rule.source);
                loaded.faults.push(Fault::error(alert.at.clone(), message).of_rule(&alert.name));
                continue;
            }
            match self.compile(&alert, &mut loaded.faults) {
                Ok(rule) => loaded.rules.push(rule),
                Err(faults) => loaded.faults.extend(faults.into_iter().map(|fault| fault.of_rule(&alert.name))),
            }
        }
    }

    fn compile(&self, alert: &WrittenAlert, remarks: &mut Vec<Fault>) -> Result<CompiledRule, Vec<Fault>> {
        let one = |fault: Fault| vec![fault];
        let select = plain_select(alert).map_err(one)?;
        let (table, shape) = source_of(alert, select).map_err(one)?;
        let written = check_options(&alert.options, table.kind, shape)?;
        let plan = self.plan(&alert.query).map_err(|error| one(planning_fault(alert, table, &error)))?;
        if let Some(reason) = shape::refusal(&plan) {
            return Err(one(Fault::error(alert.at.clone(), reason)));
        }
        let parts = match shape {
            RuleShape::Window(_) | RuleShape::Presence(_) => shape::windowed(&plan, table, written.key.as_deref()),
            RuleShape::Row if shape::aggregate_of(&plan).is_some() => return Err(one(no_window_bound(alert, table))),
            RuleShape::Row => shape::row(&plan, table, written.key.as_deref()),
        };
        let parts = parts
            .map_err(|error| one(planning_fault(alert, table, &error)))?
            .map_err(|reason| one(Fault::error(alert.at.clone(), reason)))?;
        let key = parts.key.clone();
        if key.len() > LABELS {
            let message = format!("{} key columns: an alert has {LABELS} labels at most", key.len());
            return Err(one(Fault::error(alert.at.clone(), message)));
        }
        if let Some(hidden) = key.iter().find(|column| written.options.labels.contains_key(*column)) {
            let message = format!(
                "label '{hidden}' would hide the key column of that name: expected another name for one of them"
            );
            return Err(one(Fault::error(alert.at.clone(), message)));
        }
        let strategy = self.strategy(table, shape, parts).map_err(|error| one(planning_fault(alert, table, &error)))?;
        remarks
            .extend(remarks_on(alert, select, table, &plan, shape).into_iter().map(|fault| fault.of_rule(&alert.name)));
        let sql = alert.query.to_string();
        let rule = Rule {
            name: alert.name.clone(),
            version: hex(&Sha256::digest(sql.as_bytes())[..8]),
            sql,
            table: table.name.to_string(),
            table_kind: table.kind,
            shape,
            key,
            options: written.options,
            source: alert.at.to_string(),
        };
        let outputs = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        Ok(CompiledRule { rule, strategy, outputs })
    }

    /// The cheapest way to evaluate a rule.
    fn strategy(&self, table: &Table, shape: RuleShape, parts: RulePlan) -> Result<Strategy, DataFusionError> {
        let state = self.session.state();
        if shape == RuleShape::Row {
            return Ok(Strategy::Row(Box::new(take_row_apart(&state, &parts, table)?)));
        }
        let (matching, present, because) = if let RuleShape::Presence(_) = shape {
            let (matching, present) = (&parts.matching, &parts.present);
            let because = "it looks at all series".to_string();
            (with_plain_intervals(matching)?, with_plain_intervals(present)?, because)
        } else {
            match take_apart(&state, &parts.matching, table)? {
                Ok(plan) => return Ok(Strategy::Shared(Arc::new(plan))),
                Err(because) => (parts.matching, parts.present, because),
            }
        };
        let (matching, present) = (state.optimize(&matching)?, state.optimize(&present)?);
        let columns = needed_columns(&[&matching, &present])?;
        // Over no rows: what DataFusion finds out only when it runs is found out now.
        self.runtime.block_on(run(&state, &matching))?;
        Ok(Strategy::General(Box::new(GeneralPlan {
            longest: longest_interval(&matching),
            matching,
            present,
            columns,
            because,
        })))
    }

    fn plan(&self, query: &Query) -> Result<LogicalPlan, DataFusionError> {
        let mut query = query.clone();
        add_time(&mut query);
        let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        self.runtime.block_on(self.session.state().statement_to_plan(statement))
    }
}

/// `increase(counter)` means `increase(counter, ts)`, and so with the other functions that need the time.
fn add_time(query: &mut Query) {
    let _ = visit_expressions_mut(query, |expression| {
        if let ast::Expr::Function(call) = expression
            && needs_time(&call.name.to_string().to_lowercase())
            && let FunctionArguments::List(list) = &mut call.args
            && list.args.len() == 1
        {
            let time = ast::Expr::Identifier(ast::Ident::new(table::TIME_COLUMN));
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(time)));
        }
        ControlFlow::<()>::Continue(())
    });
}

fn needs_time(function: &str) -> bool {
    growth_question(function).is_some() || is_last(function).is_some()
}

/// `ts` and everything that the plans read, each once.
fn needed_columns(plans: &[&LogicalPlan]) -> Result<Vec<String>, DataFusionError> {
    let mut columns = vec![table::TIME_COLUMN.to_string()];
    for plan in plans {
        columns.extend(columns_read(plan)?);
    }
    let mut seen = std::collections::HashSet::new();
    columns.retain(|column| seen.insert(column.clone()));
    Ok(columns)
}

/// The SELECT of a rule, when it is nothing but one.
fn plain_select(alert: &WrittenAlert) -> Result<&Select, Fault> {
    let later = |what: &str, at: Location| {
        Fault::error(
            at,
            format!("{what} needs the general path (options 'every' and 'over'), which this version does not have yet"),
        )
    };
    let at = || place(alert, alert.query.span().start);
    if alert.query.with.is_some() {
        return Err(later("WITH", at()));
    }
    if alert.query.order_by.is_some() || alert.query.limit_clause.is_some() || alert.query.fetch.is_some() {
        return Err(Fault::error(at(), "ORDER BY and LIMIT have no meaning in a rule: every row is an alert"));
    }
    match alert.query.body.as_ref() {
        SetExpr::Select(select) if select.distinct.is_some() => Err(later("DISTINCT", at())),
        SetExpr::Select(select) if select.qualify.is_some() => {
            Err(Fault::error(at(), "QUALIFY is not supported by this version yet"))
        }
        SetExpr::Select(select) => Ok(select),
        SetExpr::SetOperation { op, .. } => Err(later(&op.to_string(), at())),
        _ => Err(Fault::error(at(), "expected a SELECT")),
    }
}

/// The table that a rule reads, and whether through a window.
fn source_of(alert: &WrittenAlert, select: &Select) -> Result<(&'static Table, RuleShape), Fault> {
    let at = place(alert, select.span().start);
    let [from] = select.from.as_slice() else {
        let message = match select.from.is_empty() {
            true => "expected FROM and a table".to_string(),
            false => "a join needs the general path (options 'every' and 'over'), which this version does not have yet"
                .to_string(),
        };
        return Err(Fault::error(at, message));
    };
    if !from.joins.is_empty() {
        let message =
            "a join needs the general path (options 'every' and 'over'), which this version does not have yet";
        return Err(Fault::error(place(alert, from.span().start), message));
    }
    match window_call(&from.relation) {
        Some(Ok(call)) => {
            let found = known_table(&call.table, place(alert, from.relation.span().start))?;
            let shape = if call.presence { RuleShape::Presence } else { RuleShape::Window };
            Ok((found, shape(call.spec)))
        }
        Some(Err(fault)) => Err(Fault::error(place(alert, fault.at), fault.message)),
        None => row_source(alert, &from.relation),
    }
}

fn row_source(alert: &WrittenAlert, relation: &TableFactor) -> Result<(&'static Table, RuleShape), Fault> {
    let at = place(alert, relation.span().start);
    match relation {
        TableFactor::Table { name, args: None, .. } => {
            let written = table_name(name).unwrap_or_else(|| name.to_string());
            Ok((known_table(&written, at)?, RuleShape::Row))
        }
        TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => {
            let near = suggestion(&name.to_string(), ["HOP", "TUMBLE", "LAST_SEEN"]);
            let message = format!(
                "unknown table function '{name}': expected HOP(table, ts, slide, size), TUMBLE(table, ts, size) or LAST_SEEN(table, ts){near}"
            );
            Err(Fault::error(at, message))
        }
        other => Err(Fault::error(
            at,
            format!("'{other}' in FROM needs the general path, which this version does not have yet"),
        )),
    }
}

fn known_table(name: &str, at: Location) -> Result<&'static Table, Fault> {
    match table::find(name) {
        Some(table) if table.is_own() => {
            let message =
                format!("a rule can't read '{name}': the alerts that it makes are rows there, so it would feed itself");
            Err(Fault::error(at, message))
        }
        Some(table) => Ok(table),
        None => {
            let near = suggestion(name, TABLES.iter().map(|table| table.name));
            Err(Fault::error(at, format!("unknown table '{name}'{near}; 'tidewatch tables' lists them")))
        }
    }
}

fn no_window_bound(alert: &WrittenAlert, table: &Table) -> Fault {
    let name = table.name;
    Fault::error(
        alert.at.clone(),
        format!(
            "no window bound: an aggregate over '{name}' would never end; \
             expected FROM HOP({name}, ts, INTERVAL '10 seconds', INTERVAL '1 minute') or TUMBLE({name}, ts, INTERVAL '1 minute')"
        ),
    )
}

/// A planning error, at the place of the name that it complains about.
fn planning_fault(alert: &WrittenAlert, table: &Table, error: &DataFusionError) -> Fault {
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema_error, _) = root
        && let SchemaError::FieldNotFound { field, .. } = schema_error.as_ref()
    {
        let near = suggestion(&field.name, table.columns.iter().map(|column| column.name));
        let message = format!("unknown column '{}' in table '{}'{near}", field.name, table.name);
        return Fault::error(place_of_word(alert, &field.name), message);
    }
    let text = root.strip_backtrace();
    let text = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest).replace('\n', " ");
    let quoted = text.split(['\'', '"', '`']).nth(1).unwrap_or_default();
    Fault::error(place_of_word(alert, quoted), lower_first(&text))
}

/// Where a word of the SELECT stands; the name of the alert when it is not there.
fn place_of_word(alert: &WrittenAlert, name: &str) -> Location {
    let found = alert.tokens.iter().find(|token| match &token.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        _ => false,
    });
    match found {
        Some(token) => place(alert, token.span.start),
        None => alert.at.clone(),
    }
}

fn place(alert: &WrittenAlert, at: datafusion::sql::sqlparser::tokenizer::Location) -> Location {
    match at.line {
        0 => alert.at.clone(),
        _ => Location::new(&alert.at.file, at),
    }
}

/// Things that run and may not do what their author expects.
fn remarks_on(
    alert: &WrittenAlert,
    select: &Select,
    table: &Table,
    plan: &LogicalPlan,
    shape: RuleShape,
) -> Vec<Fault> {
    let mut remarks = Vec::new();
    if let (RuleShape::Window(_), GroupByExpr::Expressions(groups, _)) = (shape, &select.group_by) {
        let names_window = groups.iter().any(|group| group.to_string().to_lowercase().starts_with("window_"));
        if !groups.is_empty() && !names_window {
            remarks.push(Fault::note(alert.at.clone(), "GROUP BY without window_start, window_end means them"));
        }
    }
    let _ = plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            let _ = expression.apply(|part| {
                remarks.extend(remark_on_expression(alert, table, part));
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    remarks.dedup();
    remarks
}

fn remark_on_expression(alert: &WrittenAlert, table: &Table, expression: &Expr) -> Option<Fault> {
    let Expr::BinaryExpr(binary) = expression else { return None };
    match binary.op {
        Operator::Divide | Operator::Modulo if !matches!(binary.right.as_ref(), Expr::Literal(..)) => {
            let message = format!(
                "'{expression}' fails for the whole fleet when an integer divisor is zero: ratio(a, b) gives NULL instead"
            );
            Some(Fault::warning(alert.at.clone(), message))
        }
        Operator::Gt | Operator::GtEq => {
            let columns = binary.left.column_refs();
            let nan = columns.iter().find(|column| {
                table.column(&column.name).is_some_and(|found| found.column_type == ColumnType::Float64WithNan)
            })?;
            let message = format!(
                "'{}' may hold NaN, and NaN > x is true: say isnan({}) or NOT isnan({}) too",
                nan.name, nan.name, nan.name
            );
            Some(Fault::warning(place_of_word(alert, &nan.name), message))
        }
        _ => None,
    }
}
