//! Rules whose plan is run over the rows of their window, at each slide: right for everything that DataFusion can do, and as
//! dear as the rows are many.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col};
use tidewatch_model::limits::{GONE_AFTER, PLAN_REST, PLAN_REST_LONGEST, PLAN_ROWS_PER_SECOND, RULE_GROUPS};
use tidewatch_model::table;
use tidewatch_model::{Finding, GroupState, Key, NoDataPolicy, Outcome, Rule, RuleShape, Span, Timestamp, WindowSpec};
use tokio::runtime::Runtime;

use crate::compile::{GeneralPlan, Present};
use crate::dimension::Dimensions;
use crate::guarded::guarded;
use crate::listener::Watched;
use crate::recovery::state_of;
use crate::rows_table::{Part, RowsTable, Source, bind, windowed_schema};
use crate::session::{rule_session, run};
use crate::values::{ResultRow, result_rows, worst};
use crate::{presence, stall};

/// Runs plans.
pub struct Queries {
    state: SessionState,
    runtime: Runtime,
    /// The rows of dimension tables.
    pub dimensions: Dimensions,
    /// Rows that passed through plans, ever.
    passed: Cell<u64>,
}

/// Where a plan's rows over time come from.
pub type Feed<'a> = dyn FnMut(&Source) -> Result<Vec<Part>> + 'a;

/// A rule, and the groups that it knows.
pub struct General {
    plan: GeneralPlan,
    /// Slide and size.
    pub spec: WindowSpec,
    /// Groups seen, with the end of the last window that had rows of theirs.
    groups: BTreeMap<Key, Timestamp>,
    /// Groups that are not watched because there are too many.
    pub overflow_groups: u64,
    /// Rows that said something of a group of which a worse row of the same evaluation speaks.
    pub repeated_rows: u64,
    /// Rows that passed through its plans in its last evaluation.
    pub passed_rows: u64,
    rest: Rest,
}

/// A rule that took more than its budget is left alone for a while, so that it costs the others little.
#[derive(Debug, Default)]
struct Rest {
    /// Slides still to rest.
    left: u32,
    /// Slides of the last rest.
    last: u32,
    /// What it took too much of.
    because: String,
}

impl Rest {
    /// Whether this slide is one of rest.
    fn rests(&mut self) -> bool {
        let rests = self.left > 0;
        self.left = self.left.saturating_sub(1);
        rests
    }

    fn tired(&mut self, because: String) {
        self.last = (self.last * 2).clamp(PLAN_REST, PLAN_REST_LONGEST);
        self.left = self.last;
        self.because = because;
    }
}

impl Queries {
    /// With our functions.
    pub fn new() -> Result<Queries> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(DataFusionError::IoError)?;
        let dimensions = Dimensions::default();
        Ok(Queries { state: rule_session(&dimensions)?.state(), runtime, dimensions, passed: Cell::new(0) })
    }

    /// The rows of a plan, which may pass `budget` rows through its operators.
    pub fn rows(
        &self,
        plan: &LogicalPlan,
        feed: &mut Feed<'_>,
        key: &[String],
        time: Option<&str>,
        budget: u64,
    ) -> Result<Vec<ResultRow>> {
        let bound = bind(plan, &mut |source| match source {
            Source::Dimension(name) => {
                let rows = self.dimensions.rows(name);
                Ok(rows.map(|rows| (Timestamp::MIN, Timestamp::MIN, rows.clone())).into_iter().collect())
            }
            source => feed(source),
        })?;
        let (batches, passed) = guarded(|| self.runtime.block_on(run(&self.state, &bound, budget)))?;
        self.passed.set(self.passed.get() + passed);
        Ok(result_rows(&batches, key, time)?)
    }

    /// What a leaf knows of identities: its distinct values of these columns, under the names that the rule gives them.
    fn known(
        &self,
        source: &Source,
        columns: &[(String, String)],
        feed: &mut Feed<'_>,
        budget: u64,
    ) -> Result<BTreeSet<Key>> {
        let Some(found) = source.stream().and_then(table::find) else { return Ok(BTreeSet::new()) };
        let schema = match source {
            Source::Presence(_) => presence::schema_of(found),
            Source::Stalled(_, column) => match stall::schema_of(found, column) {
                Some(schema) => schema,
                None => return Ok(BTreeSet::new()),
            },
            _ => windowed_schema(&found.schema()),
        };
        let rows = provider_as_source(Arc::new(RowsTable::empty(source.clone(), schema)));
        let names: Vec<Expr> = columns.iter().map(|(name, column)| col(column.as_str()).alias(name)).collect();
        let plan = LogicalPlanBuilder::scan(found.name, rows, None)?.project(names)?.distinct()?.build()?;
        let plan = self.state.optimize(&plan)?;
        let key: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        Ok(self.rows(&plan, feed, &key, None, budget)?.into_iter().map(|row| row.key).collect())
    }
}

/// What a plan found: the rows that fire, and the identities that had rows.
struct Found {
    matching: Vec<ResultRow>,
    present: Vec<Key>,
}

impl General {
    /// With its plan.
    pub fn new(plan: GeneralPlan, spec: WindowSpec) -> Self {
        General {
            plan,
            spec,
            groups: BTreeMap::new(),
            overflow_groups: 0,
            repeated_rows: 0,
            passed_rows: 0,
            rest: Rest::default(),
        }
    }

    /// Why its windows are not shared.
    pub fn because(&self) -> &str {
        &self.plan.because
    }

    /// Rows that may pass through its plan in one evaluation.
    pub fn budget(&self) -> u64 {
        (PLAN_ROWS_PER_SECOND as f64 * self.spec.slide.0 as f64 / 1e6) as u64
    }

    /// The longest interval that it names.
    pub fn longest(&self) -> Span {
        self.plan.longest
    }

    /// Groups known before a restart.
    pub fn restore(&mut self, groups: impl IntoIterator<Item = (Key, Timestamp)>) {
        self.groups.extend(groups);
    }

    /// Evaluates the window that ends at `end`. `heard`: whether it has any rows over time at all. `lagging`: whether our own input
    /// is behind.
    pub fn evaluate(
        &mut self,
        queries: &Queries,
        feed: &mut Feed<'_>,
        rule: &Rule,
        end: Timestamp,
        (heard, lagging): (bool, bool),
        watched: &Watched,
    ) -> Outcome {
        let keep_from = end.saturating_sub(GONE_AFTER).saturating_sub(self.spec.size).saturating_sub(self.spec.size);
        self.groups.retain(|_, last_seen| *last_seen >= keep_from);
        if self.rest.rests() {
            return Outcome::Failed(format!("it rests for {} slides: {}", self.rest.left + 1, self.rest.because));
        }
        // Rows that are missing may make a row of the result as well as take one away.
        let blind = lagging && matches!(self.plan.present, Present::Leaves(_));
        let before = queries.passed.get();
        let found = match heard && !blind {
            true => self.find(queries, feed, rule, watched),
            false => Ok(Found { matching: vec![], present: vec![] }),
        };
        self.passed_rows = queries.passed.get() - before;
        // A series that a rule about silence does not know was seen before what is remembered: nobody can say.
        let lagging = lagging || matches!(rule.shape, RuleShape::Presence(_));
        match found {
            Ok(found) => {
                if heard && !blind {
                    self.rest.last = 0;
                }
                Outcome::Groups(self.states(found, rule, end, lagging, watched))
            }
            Err(error) => {
                let message = error.strip_backtrace();
                if let DataFusionError::ResourcesExhausted(because) = error.find_root() {
                    self.rest.tired(because.clone());
                }
                Outcome::Failed(message)
            }
        }
    }

    fn find(&self, queries: &Queries, feed: &mut Feed<'_>, rule: &Rule, watched: &Watched) -> Result<Found> {
        let budget = self.budget();
        let matching = queries.rows(&self.plan.matching, feed, &rule.key, None, budget)?;
        let present = match &self.plan.present {
            Present::Plan(plan) => {
                queries.rows(plan, feed, &rule.key, None, budget)?.into_iter().map(|row| row.key).collect()
            }
            Present::Leaves(leaves) => {
                let asked: BTreeSet<&Key> = match watched {
                    // What is silent is told then, whoever watches.
                    Watched::Keys(keys) if rule.options.no_data != NoDataPolicy::Alert => keys.iter().collect(),
                    Watched::Keys(keys) => keys.iter().chain(self.groups.keys()).collect(),
                    Watched::All => self.groups.keys().collect(),
                };
                let mut present: Vec<Key> = asked.into_iter().cloned().collect();
                for (source, columns) in leaves.values() {
                    if present.is_empty() {
                        break;
                    }
                    let known = queries.known(source, columns, feed, budget)?;
                    present.retain(|key| known.contains(&part_of(key, columns)));
                }
                present
            }
        };
        Ok(Found { matching, present })
    }

    fn states(&mut self, found: Found, rule: &Rule, end: Timestamp, lagging: bool, watched: &Watched) -> Vec<Finding> {
        // Without an aggregate a group may match more than once.
        let (mut firing, repeated) = worst(rule, found.matching.into_iter().map(|row| (row.key, row.values)));
        self.repeated_rows += repeated;
        for key in found.present.into_iter().chain(firing.keys().cloned()) {
            if self.groups.len() < RULE_GROUPS || self.groups.contains_key(&key) {
                self.groups.insert(key, end);
            } else {
                self.overflow_groups += 1;
            }
        }
        let watched: Option<BTreeSet<&Key>> = match watched {
            Watched::All => None,
            Watched::Keys(keys) => Some(keys.iter().collect()),
        };
        let findings = self.groups.iter().filter_map(|(key, last_seen)| {
            let silent = *last_seen < end;
            let state = match firing.remove(key) {
                Some(values) => state_of(values),
                None if watched.as_ref().is_some_and(|watched| !watched.contains(key))
                    && !(silent && rule.options.no_data == NoDataPolicy::Alert) =>
                {
                    return None;
                }
                None if !silent => GroupState::Clear,
                None if lagging => GroupState::Unknown,
                None => GroupState::NoData,
            };
            Some(Finding { key: key.clone(), state })
        });
        findings.collect()
    }
}

/// The part of an identity that these columns say.
fn part_of(key: &Key, columns: &[(String, String)]) -> Key {
    let named = |(name, _): &(String, String)| key.get(name).map(|value| (name.clone(), value.clone()));
    columns.iter().filter_map(named).collect()
}
