//! `CREATE VIEW name AS SELECT ... FROM table`: a name for a table's rows after cleaning, conversion and derived columns. A rule that reads a
//! view is the same as one with the view's SELECT in its FROM; a window over a view is one over the table within.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, TableFunctionArgs, Visit, VisitMut, Visitor, VisitorMut,
};
use tidewatch_model::table::{self, TIME_COLUMN};

use crate::calls::add_time;
use crate::dimension::Dimensions;
use crate::fault::{Fault, Location};
use crate::rows_table::{WINDOW_END, WINDOW_START};
use crate::statement::WrittenView;
use crate::window_call::{CallKind, table_name, window_call};

/// A view, with the views that it reads put into it.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Where it was written.
    pub at: Location,
    /// Whether it ships with the binary: another of its name goes before it.
    pub bundled: bool,
    query: Box<Query>,
}

impl View {
    /// What it stands for.
    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    /// The same as one that ships with the binary.
    pub(crate) fn into_bundled(self) -> View {
        View { bundled: true, ..self }
    }
}

/// Reads a view; `known` are those before it.
pub fn view(written: &WrittenView, known: &[View], dimensions: &Dimensions) -> Result<View, Fault> {
    let fault = |message: String| Fault::error(written.at.clone(), message);
    let name = &written.name;
    if table::find(name).is_some() || dimensions.rows(name).is_some() {
        return Err(fault(format!("'{name}' is a table: expected another name for a view")));
    }
    if let Some(first) = known.iter().find(|view| view.name == *name && !view.bundled) {
        return Err(fault(format!("view '{name}' is defined twice: first at {}", first.at)));
    }
    let select = plain_select(&written.query).ok_or_else(|| {
        fault(format!("view '{name}': expected SELECT ... FROM table WHERE ..., without joins, groups and windows"))
    })?;
    let keeps_time = select.projection.iter().any(|item| match item {
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        SelectItem::UnnamedExpr(Expr::Identifier(column)) => column.value == TIME_COLUMN,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().is_some_and(|column| column.value == TIME_COLUMN)
        }
        _ => false,
    });
    if !keeps_time {
        return Err(fault(format!("view '{name}': expected {TIME_COLUMN} in its SELECT list: windows need it")));
    }
    let mut query = written.query.clone();
    put_in(&mut query, known).map_err(fault)?;
    add_time(&mut query);
    Ok(View { name: name.clone(), at: written.at.clone(), bundled: false, query })
}

/// A SELECT from one place, without groups.
fn plain_select(query: &Query) -> Option<&Select> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [from] = select.from.as_slice() else { return None };
    let is_plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let is_table = matches!(&from.relation, TableFactor::Table { args: None, .. }) && from.joins.is_empty();
    let no_groups = matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty());
    let is_row_wise = no_groups && select.having.is_none() && select.distinct.is_none() && select.qualify.is_none();
    (is_plain && is_table && is_row_wise).then_some(select)
}

/// Replaces names of views by what they stand for, in a query or a statement.
pub fn put_in<Q: Visit + VisitMut>(query: &mut Q, views: &[View]) -> Result<(), String> {
    if views.is_empty() {
        return Ok(());
    }
    // A name that WITH gives is nearer than a view.
    let mut given = Given(HashSet::new());
    let _ = Visit::visit(query, &mut given);
    let seen: Vec<&View> = views.iter().filter(|view| !given.0.contains(&view.name)).collect();
    match VisitMut::visit(query, &mut Inliner { views: seen }) {
        ControlFlow::Break(message) => Err(message),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Collects the names that WITH gives.
struct Given(HashSet<String>);

impl Visitor for Given {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let names =
            query.with.iter().flat_map(|with| &with.cte_tables).map(|given| given.alias.name.value.to_lowercase());
        self.0.extend(names);
        ControlFlow::Continue(())
    }
}

struct Inliner<'a> {
    views: Vec<&'a View>,
}

impl VisitorMut for Inliner<'_> {
    type Break = String;

    fn post_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<String> {
        match self.replacement(relation) {
            Ok(Some(replaced)) => *relation = replaced,
            Ok(None) => {}
            Err(message) => return ControlFlow::Break(message),
        }
        ControlFlow::Continue(())
    }
}

impl Inliner<'_> {
    fn find(&self, name: &str) -> Option<&View> {
        self.views.iter().copied().find(|view| view.name == name)
    }

    fn replacement(&self, relation: &TableFactor) -> Result<Option<TableFactor>, String> {
        if let TableFactor::Table { name, args: None, alias, .. } = relation {
            let view = table_name(name).and_then(|name| self.find(&name));
            return Ok(view.map(|view| derived(view.query.clone(), alias.as_ref(), &view.name)));
        }
        let Some(Ok(call)) = window_call(relation) else { return Ok(None) };
        let Some(view) = self.find(&call.table) else { return Ok(None) };
        if call.kind != CallKind::Window {
            return Err(format!("'{}' is a view: LAST_SEEN and STALLED read tables", view.name));
        }
        let (TableFactor::Table { args: Some(TableFunctionArgs { args, .. }), .. }
        | TableFactor::Function { args, .. }) = relation
        else {
            return Ok(None);
        };
        let mut query = view.query.clone();
        window_within(&mut query, relation, args, &view.name)?;
        Ok(Some(derived(query, call.alias.as_ref(), &view.name)))
    }
}

/// `FROM table` within a view becomes `FROM HOP(table, ...)`, and the window's bounds are selected.
fn window_within(query: &mut Query, call: &TableFactor, arguments: &[FunctionArg], view: &str) -> Result<(), String> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some(from) = select.from.first_mut() else { return Ok(()) };
    match &mut from.relation {
        // A view of a view.
        TableFactor::Derived { subquery, .. } => window_within(subquery, call, arguments, view)?,
        TableFactor::Table { name, alias, .. } => {
            let table = table_name(name).ok_or_else(|| format!("view '{view}': '{name}' is not a table's name"))?;
            let own = alias.clone().unwrap_or_else(|| named(&table));
            let mut windowed = call.clone();
            let given = FunctionArgExpr::Expr(Expr::Identifier(Ident::new(&table)));
            let renamed: Vec<FunctionArg> =
                arguments.iter().map(|argument| with_table(argument, view, &given)).collect();
            match &mut windowed {
                TableFactor::Table { args: Some(args), alias, .. } => {
                    args.args = renamed;
                    *alias = Some(own);
                }
                TableFactor::Function { args, alias, .. } => {
                    *args = renamed;
                    *alias = Some(own);
                }
                _ => {}
            }
            from.relation = windowed;
        }
        _ => {}
    }
    let is_whole = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    if !is_whole {
        let bounds =
            [WINDOW_START, WINDOW_END].map(|bound| SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(bound))));
        select.projection.extend(bounds);
    }
    Ok(())
}

/// The argument that names the view, with the table's name in its place.
fn with_table(argument: &FunctionArg, view: &str, given: &FunctionArgExpr) -> FunctionArg {
    let is_view = |arg: &FunctionArgExpr| matches!(arg, FunctionArgExpr::Expr(Expr::Identifier(ident)) if ident.value.eq_ignore_ascii_case(view));
    match argument.clone() {
        FunctionArg::Unnamed(arg) if is_view(&arg) => FunctionArg::Unnamed(given.clone()),
        FunctionArg::Named { name, arg, operator } if is_view(&arg) => {
            FunctionArg::Named { name, arg: given.clone(), operator }
        }
        FunctionArg::ExprNamed { name, arg, operator } if is_view(&arg) => {
            FunctionArg::ExprNamed { name, arg: given.clone(), operator }
        }
        other => other,
    }
}

fn derived(subquery: Box<Query>, alias: Option<&TableAlias>, name: &str) -> TableFactor {
    let alias = Some(alias.cloned().unwrap_or_else(|| named(name)));
    TableFactor::Derived { lateral: false, subquery, alias, sample: None }
}

fn named(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::new(name), columns: vec![], at: None }
}
