//! What a rule reads: the names in its FROMs, checked where they stand, and what its plan comes to.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Query, Spanned, TableFactor, Visit, Visitor};
use tidewatch_model::table::{self, Table, TableKind};
use tidewatch_model::{RuleShape, WindowSpec};

use crate::dimension::Dimensions;
use crate::fault::{Fault, suggestion};
use crate::presence::PRESENCE;
use crate::rows_table::{Source, scans, source_of};
use crate::statement::{WrittenAlert, place};
use crate::views::View;
use crate::window_call::{table_name, window_call};

/// What the leaves of a plan are.
#[derive(Debug)]
pub struct Reads {
    /// Every leaf.
    pub leaves: Vec<Source>,
    /// The tables of rows over time, each once, in the order of the plan.
    pub streams: Vec<&'static Table>,
}

impl Reads {
    /// Of a plan.
    pub fn of(plan: &LogicalPlan) -> Reads {
        let leaves: Vec<Source> = scans(plan).into_iter().map(|(source, _)| source).collect();
        let mut streams: Vec<&'static Table> = Vec::new();
        for found in leaves.iter().filter_map(Source::stream).filter_map(table::find) {
            if !streams.contains(&found) {
                streams.push(found);
            }
        }
        Reads { leaves, streams }
    }

    /// Samples, where any of its tables has samples.
    pub fn kind(&self) -> TableKind {
        match self.streams.iter().any(|table| table.kind == TableKind::Sample) {
            true => TableKind::Sample,
            false => TableKind::Event,
        }
    }

    /// Whether one place of the plan reads rows over time, and no other reads anything.
    pub fn is_alone(&self) -> bool {
        self.leaves.len() == 1 && self.streams.len() == 1
    }

    /// When the rule is evaluated; `bounds` are its options `every` and `over`. Why it can't be, where nothing bounds what it reads.
    pub fn shape(&self, plan: &LogicalPlan, bounds: Option<WindowSpec>) -> Result<RuleShape, String> {
        let streams: Vec<&Source> = self.leaves.iter().filter(|source| source.stream().is_some()).collect();
        let Some(first) = streams.first() else {
            return Err("it reads no table of rows over time: expected one in FROM".to_string());
        };
        let has_presence = streams.iter().any(|source| source.is_of_series());
        if has_presence && (streams.len() > 1 || bounds.is_some()) {
            let message = "LAST_SEEN and STALLED join dimension tables, and nothing else: every ten seconds it has all series anyway";
            return Err(message.to_string());
        }
        if let Some(spec) = bounds {
            let longer = |source: &&&Source| matches!(source, Source::Window(_, window) if window.size > spec.size);
            return match streams.iter().find(longer) {
                Some(Source::Window(_, window)) => {
                    Err(format!("a window of {} does not fit in over = '{}'", window.size, spec.size))
                }
                _ => Ok(RuleShape::Window(spec)),
            };
        }
        let alike = |source: &&Source| match (source, first) {
            (Source::Window(_, spec), Source::Window(_, wanted)) => spec == wanted,
            (Source::Rows(_), Source::Rows(_)) => streams.len() == 1,
            (source, first) if source.is_of_series() && first.is_of_series() => true,
            _ => false,
        };
        if !streams.iter().all(alike) {
            return Err(
                "no window bound: it reads several tables of rows over time; expected HOP or TUMBLE with one slide and one size \
                 on each, or the options every = '10 seconds', over = '5 minutes'"
                    .to_string(),
            );
        }
        match first {
            Source::Window(_, spec) => Ok(RuleShape::Window(*spec)),
            source if source.is_of_series() => Ok(RuleShape::Presence(PRESENCE)),
            _ => match gathering(plan) {
                None => Ok(RuleShape::Row),
                Some(what) => Err(self.no_bound(what)),
            },
        }
    }

    fn no_bound(&self, what: &str) -> String {
        let name = self.streams.first().map_or("", |table| table.name);
        format!(
            "no window bound: {what} over '{name}' would never end; \
             expected FROM HOP({name}, ts, INTERVAL '10 seconds', INTERVAL '1 minute') or TUMBLE({name}, ts, INTERVAL '1 minute'), \
             or the options every = '10 seconds', over = '1 minute'"
        )
    }
}

/// The first node above rows over time that needs all of them before it yields anything.
fn gathering(plan: &LogicalPlan) -> Option<&'static str> {
    let mut found = None;
    // The closure does not fail.
    let _ = plan.apply_with_subqueries(|node| {
        let what = match node {
            LogicalPlan::Aggregate(_) => "an aggregate",
            LogicalPlan::Distinct(_) => "DISTINCT",
            LogicalPlan::Union(_) => "a UNION",
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => "ORDER BY and LIMIT",
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        if has_stream(node) {
            found = found.or(Some(what));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn has_stream(plan: &LogicalPlan) -> bool {
    let mut found = false;
    // The closure does not fail.
    let _ = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= source_of(scan).is_some_and(|source| source.stream().is_some());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Every name in a FROM, checked where it stands.
pub fn check_relations(
    alert: &WrittenAlert,
    query: &Query,
    views: &[View],
    dimensions: &Dimensions,
) -> Result<(), Fault> {
    let known = views.iter().map(|view| view.name.clone()).collect();
    let mut names = Names { alert, dimensions, known };
    match query.visit(&mut names) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Names<'a> {
    alert: &'a WrittenAlert,
    dimensions: &'a Dimensions,
    /// Names of views, and those that WITH gave.
    known: Vec<String>,
}

impl Visitor for Names<'_> {
    type Break = Fault;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Fault> {
        let given = query.with.iter().flat_map(|with| &with.cte_tables);
        self.known.extend(given.map(|given| given.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<Fault> {
        match self.check(relation) {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => ControlFlow::Break(fault),
        }
    }
}

impl Names<'_> {
    fn check(&self, relation: &TableFactor) -> Result<(), Fault> {
        let at = place(self.alert, relation.span().start);
        match window_call(relation) {
            Some(Ok(call)) if self.dimensions.rows(&call.table).is_some() => Err(Fault::error(
                at,
                format!("'{}' is a dimension table: it has no rows over time, and no windows", call.table),
            )),
            Some(Ok(call)) => {
                known_table(&call.table, &self.known, self.dimensions).map_err(|message| Fault::error(at, message))
            }
            Some(Err(fault)) => Err(Fault::error(place(self.alert, fault.at), fault.message)),
            None => self.check_plain(relation).map_err(|message| Fault::error(at, message)),
        }
    }

    fn check_plain(&self, relation: &TableFactor) -> Result<(), String> {
        match relation {
            TableFactor::Table { name, args: None, .. } => {
                let written = table_name(name).unwrap_or_else(|| name.to_string());
                known_table(&written, &self.known, self.dimensions)
            }
            TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => {
                let near = suggestion(&name.to_string(), ["HOP", "TUMBLE", "LAST_SEEN", "STALLED"]);
                Err(format!(
                    "unknown table function '{name}': expected HOP(table, ts, slide, size), TUMBLE(table, ts, size), LAST_SEEN(table, ts) or STALLED(table, ts, column){near}"
                ))
            }
            _ => Ok(()),
        }
    }
}

fn known_table(name: &str, given: &[String], dimensions: &Dimensions) -> Result<(), String> {
    match table::find(name) {
        Some(table) if table.is_own() => {
            Err(format!("a rule can't read '{name}': the alerts that it makes are rows there, so it would feed itself"))
        }
        Some(_) => Ok(()),
        None if dimensions.rows(name).is_some() || given.iter().any(|known| known == &name.to_lowercase()) => Ok(()),
        None => {
            let names =
                table::all().into_iter().map(|table| table.name).chain(dimensions.tables().map(|(name, _)| name));
            let near = suggestion(name, names.chain(given.iter().map(String::as_str)));
            Err(format!("unknown table '{name}'{near}; 'tidewatch tables' lists them"))
        }
    }
}
