//! Rules whose plan is run over the rows of their window, at each slide: right for everything that DataFusion can do, and as
//! dear as the rows are many.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use tidewatch_model::limits::{GONE_AFTER, RULE_GROUPS};
use tidewatch_model::{
    Finding, GroupState, Key, NoDataPolicy, Outcome, Rule, RuleShape, Span, Timestamp, Values, WindowSpec,
};
use tokio::runtime::Runtime;

use crate::compile::GeneralPlan;
use crate::listener::Watched;
use crate::rows_table::bind;
use crate::session::{rule_session, run};
use crate::values::{ResultRow, result_rows};

/// Runs plans.
pub struct Queries {
    state: SessionState,
    runtime: Runtime,
}

/// A rule, and the groups that it knows.
pub struct General {
    plan: GeneralPlan,
    /// Slide and size.
    pub spec: WindowSpec,
    /// Groups seen, with the end of the last window that had rows of theirs.
    groups: BTreeMap<Key, Timestamp>,
    /// Groups that are not watched because there are too many.
    pub overflow_groups: u64,
}

impl Queries {
    /// With our functions.
    pub fn new() -> Result<Queries, DataFusionError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(DataFusionError::IoError)?;
        Ok(Queries { state: rule_session()?.state(), runtime })
    }

    fn rows(
        &self,
        plan: &LogicalPlan,
        rows: Vec<RecordBatch>,
        window: (Timestamp, Timestamp),
        key: &[String],
    ) -> Result<Vec<ResultRow>, DataFusionError> {
        let bound = bind(plan, rows, window)?;
        let batches = self.runtime.block_on(run(&self.state, &bound))?;
        Ok(result_rows(&batches, key, None)?)
    }
}

impl General {
    /// With its plan.
    pub fn new(plan: GeneralPlan, spec: WindowSpec) -> Self {
        General { plan, spec, groups: BTreeMap::new(), overflow_groups: 0 }
    }

    /// Why its windows are not shared.
    pub fn because(&self) -> &str {
        &self.plan.because
    }

    /// The longest interval that it names.
    pub fn longest(&self) -> Span {
        self.plan.longest
    }

    /// Groups known before a restart.
    pub fn restore(&mut self, groups: impl IntoIterator<Item = (Key, Timestamp)>) {
        self.groups.extend(groups);
    }

    /// Evaluates the window that ends at `end`, which has these rows.
    pub fn evaluate(
        &mut self,
        queries: &Queries,
        rows: Result<Vec<RecordBatch>, DataFusionError>,
        rule: &Rule,
        end: Timestamp,
        lagging: bool,
        watched: &Watched,
    ) -> Outcome {
        let window = (end - self.spec.size, end);
        let found = rows.and_then(|rows| match rows.is_empty() {
            true => Ok((vec![], vec![])),
            false => Ok((
                queries.rows(&self.plan.matching, rows.clone(), window, &rule.key)?,
                queries.rows(&self.plan.present, rows, window, &rule.key)?,
            )),
        });
        let keep_from = end.saturating_sub(GONE_AFTER).saturating_sub(self.spec.size).saturating_sub(self.spec.size);
        self.groups.retain(|_, last_seen| *last_seen >= keep_from);
        // A series that a rule about silence does not know was seen before what is remembered: nobody can say.
        let lagging = lagging || matches!(rule.shape, RuleShape::Presence(_));
        match found {
            Ok((matching, present)) => {
                Outcome::Groups(self.states(matching, present, rule.options.no_data, end, lagging, watched))
            }
            Err(error) => Outcome::Failed(error.strip_backtrace()),
        }
    }

    fn states(
        &mut self,
        matching: Vec<ResultRow>,
        present: Vec<ResultRow>,
        no_data: NoDataPolicy,
        end: Timestamp,
        lagging: bool,
        watched: &Watched,
    ) -> Vec<Finding> {
        // Without an aggregate a group may match more than once; the newest row, which comes last, speaks for it.
        let mut firing: BTreeMap<Key, Values> = matching.into_iter().map(|row| (row.key, row.values)).collect();
        for key in present.into_iter().map(|row| row.key).chain(firing.keys().cloned()) {
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
                Some(values) => GroupState::Firing(values),
                None if watched.as_ref().is_some_and(|watched| !watched.contains(key))
                    && !(silent && no_data == NoDataPolicy::Alert) =>
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
