//! Rules without a window: each row that passes WHERE fires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, new_null_array};
use arrow::compute::{filter_record_batch, is_not_null, is_null};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use tidewatch_model::limits::{GONE_AFTER, PLAN_ROWS_PER_BATCH, ROW_SILENCE, ROW_SILENCE_CHECK, RULE_GROUPS};
use tidewatch_model::table::TableKind;
use tidewatch_model::{Evaluation, Finding, GroupState, Key, Outcome, Rule, Timestamp};

use super::general::Queries;
use crate::compile::{GeneralPlan, Present, RowPlan};
use crate::guarded::values_of;
use crate::listener::Watched;
use crate::panes::times;
use crate::recovery::state_of;
use crate::rows_table::Source;
use crate::shape::ROW_TIME;
use crate::shared::ordered::{Passed, Place};
use crate::shared::plan::physical;
use crate::values::{ResultRow, batch_of, result_rows, truths, worst};

/// A rule without a window, and the keys whose silence it watches.
pub struct RowRule {
    way: Way,
    /// On samples: keys that ever fired, with the time of their last row.
    groups: BTreeMap<Key, Timestamp>,
    /// The last minute that was looked at.
    looked: Timestamp,
    /// How far event time has come, less the delay.
    pub closed: Timestamp,
    /// Whether the last batch had rows of such keys.
    pub saw_watched: bool,
    /// Keys whose silence is not watched because there are too many.
    pub overflow_groups: u64,
    /// Rows that said something of a key of which a worse row of the same time speaks.
    pub repeated_rows: u64,
}

/// How rows are judged.
enum Way {
    /// By expressions over the table's columns.
    Expressions(Box<Expressions>),
    /// By running a plan over each batch.
    Plan(Box<GeneralPlan>),
    /// By expressions over the columns and those of OVERs, as rows pass in order.
    Overs(Box<Overs>),
}

struct Overs {
    place: Place,
    schema: SchemaRef,
    labels: Option<Arc<dyn PhysicalExpr>>,
    after: Option<Arc<dyn PhysicalExpr>>,
    matching: Select,
    present: Select,
}

struct Expressions {
    labels: Option<Arc<dyn PhysicalExpr>>,
    values: Option<Arc<dyn PhysicalExpr>>,
    matching: Select,
    /// The key columns and the time.
    present: Select,
}

/// The rows of one batch.
struct Judged<'a> {
    way: &'a Way,
    queries: Option<&'a Queries>,
    key: &'a [String],
    /// Those that exist for the rule.
    rows: RecordBatch,
    /// With OVERs: those that have them.
    entered: Option<RecordBatch>,
}

impl Judged<'_> {
    /// Rows that fire.
    fn matching(&self) -> Result<Vec<ResultRow>> {
        match self.way {
            Way::Expressions(of) => {
                let matching = passing(of.values.as_ref(), &self.rows)?;
                if matching.num_rows() == 0 { Ok(vec![]) } else { of.matching.rows(&matching, self.key) }
            }
            Way::Plan(plan) => self.run(&plan.matching),
            Way::Overs(of) => {
                let Some(entered) = &self.entered else { return Ok(vec![]) };
                let matching = passing(of.after.as_ref(), entered)?;
                if matching.num_rows() == 0 { Ok(vec![]) } else { of.matching.rows(&matching, self.key) }
            }
        }
    }

    /// Keys and times of all of them.
    fn present(&self) -> Result<Vec<ResultRow>> {
        match self.way {
            Way::Expressions(of) => {
                // A row whose condition is NULL says neither that it fires nor that it is well.
                let decided = match &of.values {
                    None => self.rows.clone(),
                    Some(condition) => {
                        let values = values_of(condition, &self.rows)?;
                        match values.null_count() {
                            0 => self.rows.clone(),
                            _ => filter_record_batch(&self.rows, &is_not_null(&values)?)?,
                        }
                    }
                };
                of.present.rows(&decided, self.key)
            }
            Way::Overs(of) => {
                let mut present = of.present.rows(&self.rows, self.key)?;
                let (Some(condition), Some(entered)) = (&of.after, &self.entered) else { return Ok(present) };
                let decided = values_of(condition, entered)?;
                if decided.null_count() > 0 {
                    // As with any row whose condition is NULL.
                    let undecided = filter_record_batch(entered, &is_null(&decided)?)?;
                    let undecided: BTreeSet<(Option<Timestamp>, Key)> =
                        of.present.rows(&undecided, self.key)?.into_iter().map(|row| (row.ts, row.key)).collect();
                    present.retain(|row| !undecided.contains(&(row.ts, row.key.clone())));
                }
                Ok(present)
            }
            Way::Plan(plan) => match &plan.present {
                Present::Plan(present) => self.run(present),
                Present::Leaves(_) => Ok(vec![]),
            },
        }
    }

    fn run(&self, plan: &LogicalPlan) -> Result<Vec<ResultRow>> {
        let mut feed = |_: &Source| Ok(vec![(Timestamp::MIN, Timestamp::MIN, self.rows.clone())]);
        let Some(queries) = self.queries else { return Ok(vec![]) };
        queries.rows(plan, &mut feed, self.key, Some(ROW_TIME), PLAN_ROWS_PER_BATCH)
    }
}

/// A SELECT list.
struct Select {
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Select {
    fn new(columns: &[(Expr, String)], table: &Schema) -> Result<Select> {
        let expressions =
            columns.iter().map(|(expression, _)| physical(expression, table)).collect::<Result<Vec<_>>>()?;
        let fields = expressions
            .iter()
            .zip(columns)
            .map(|(expression, (_, name))| Ok(Field::new(name, expression.data_type(table)?, true)));
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        Ok(Select { expressions, schema })
    }

    fn rows(&self, batch: &RecordBatch, key: &[String]) -> Result<Vec<ResultRow>> {
        let columns = self.expressions.iter().map(|output| values_of(output, batch));
        let selected = batch_of(&self.schema, columns.collect::<Result<Vec<_>>>()?, batch.num_rows())?;
        Ok(result_rows(&[selected], key, Some(ROW_TIME))?)
    }
}

impl RowRule {
    /// Over rows of this schema.
    pub fn new(plan: &RowPlan, table: &Schema) -> Result<RowRule> {
        let condition = |conditions: &[Expr]| {
            conjunction(conditions.to_vec()).map(|condition| physical(&condition, table)).transpose()
        };
        Ok(RowRule::judging(Way::Expressions(Box::new(Expressions {
            labels: condition(&plan.labels)?,
            values: condition(&plan.values)?,
            matching: Select::new(&plan.matching, table)?,
            present: Select::new(&plan.present, table)?,
        }))))
    }

    /// With OVERs; `schema` is that of rows with their columns.
    pub fn with_overs(plan: &RowPlan, schema: &SchemaRef, place: Place) -> Result<RowRule> {
        let condition = |conditions: &[Expr]| {
            conjunction(conditions.to_vec()).map(|condition| physical(&condition, schema)).transpose()
        };
        Ok(RowRule::judging(Way::Overs(Box::new(Overs {
            place,
            schema: schema.clone(),
            labels: condition(&plan.labels)?,
            after: condition(&plan.after)?,
            matching: Select::new(&plan.matching, schema)?,
            present: Select::new(&plan.present, schema)?,
        }))))
    }

    /// Where its OVERs are, if it has any.
    pub fn place(&self) -> Option<&Place> {
        match &self.way {
            Way::Overs(of) => Some(&of.place),
            _ => None,
        }
    }

    /// With a plan that is run over each batch.
    pub fn of_plan(plan: GeneralPlan) -> RowRule {
        RowRule::judging(Way::Plan(Box::new(plan)))
    }

    fn judging(way: Way) -> RowRule {
        RowRule {
            way,
            groups: BTreeMap::new(),
            looked: Timestamp::MIN,
            closed: Timestamp::MIN,
            saw_watched: false,
            overflow_groups: 0,
            repeated_rows: 0,
        }
    }

    /// Why it is not judged by expressions, if it is not.
    pub fn because(&self) -> Option<&str> {
        match &self.way {
            Way::Expressions(_) | Way::Overs(_) => None,
            Way::Plan(plan) => Some(&plan.because),
        }
    }

    /// Keys whose alerts were alive before a restart.
    pub fn restore(&mut self, groups: impl IntoIterator<Item = (Key, Timestamp)>, emitted: Timestamp) {
        self.groups.extend(groups);
        self.closed = emitted;
    }

    /// One evaluation per distinct ts among the rows of a batch that fire or are watched.
    pub fn evaluate(
        &mut self,
        queries: &Queries,
        rule: &Rule,
        batch: &RecordBatch,
        watched: impl FnOnce() -> Watched,
    ) -> Vec<Evaluation> {
        let rows = match &self.way {
            Way::Expressions(of) => passing(of.labels.as_ref(), batch),
            Way::Plan(_) | Way::Overs(_) => Ok(batch.clone()),
        };
        let rows = rows.map(|rows| (rows, None));
        self.evaluate_rows(Some(queries), rule, batch, rows, Timestamp::MIN, watched)
    }

    /// The same for a rule with OVERs, over rows that passed; those before `emitted` were evaluated before a restart.
    pub fn evaluate_passed(
        &mut self,
        rule: &Rule,
        passed: &Result<Option<Passed>>,
        emitted: Option<Timestamp>,
        watched: impl FnOnce() -> Watched,
    ) -> Vec<Evaluation> {
        let Way::Overs(of) = &self.way else { return vec![] };
        let mut fault = None;
        let (batch, rows) = match passed {
            Ok(None) => return vec![],
            Ok(Some(passed)) => {
                let entered = passed.of(&of.place, &of.schema);
                let rows = entered.and_then(|(entered, found)| {
                    fault = found;
                    Ok((of.exist(&passed.rows)?, Some(entered)))
                });
                (passed.rows.clone(), rows)
            }
            Err(error) => {
                let error = DataFusionError::Execution(error.strip_backtrace());
                (RecordBatch::new_empty(of.schema.clone()), Err(error))
            }
        };
        let emitted = emitted.unwrap_or(Timestamp::MIN);
        let mut evaluations = self.evaluate_rows(None, rule, &batch, rows, emitted, watched);
        // The other rows were judged; that one was not is told.
        evaluations.extend(fault.map(|fault| failed(rule, &batch, emitted, fault)));
        evaluations
    }

    fn evaluate_rows(
        &mut self,
        queries: Option<&Queries>,
        rule: &Rule,
        batch: &RecordBatch,
        rows: Result<(RecordBatch, Option<RecordBatch>)>,
        emitted: Timestamp,
        watched: impl FnOnce() -> Watched,
    ) -> Vec<Evaluation> {
        self.saw_watched = false;
        let instants = match rows.and_then(|rows| self.instants(queries, rule, rows, watched)) {
            Ok(instants) => instants,
            Err(error) => {
                return vec![failed(rule, batch, emitted, error.strip_backtrace())];
            }
        };
        let evaluations = instants.into_iter().filter(|(ts, _)| *ts >= emitted).map(|(ts, groups)| {
            let findings = groups.into_iter().map(|(key, state)| Finding { key, state }).collect();
            let outcome = Outcome::Groups(findings);
            Evaluation { rule: rule.name.clone(), window_start: ts, window_end: ts, outcome }
        });
        evaluations.collect()
    }

    fn instants(
        &mut self,
        queries: Option<&Queries>,
        rule: &Rule,
        (rows, entered): (RecordBatch, Option<RecordBatch>),
        watched: impl FnOnce() -> Watched,
    ) -> Result<BTreeMap<Timestamp, BTreeMap<Key, GroupState>>> {
        let judged = Judged { way: &self.way, queries, key: &rule.key, rows, entered };
        let matching = judged.matching()?;
        let mut instants: BTreeMap<Timestamp, BTreeMap<Key, GroupState>> = BTreeMap::new();
        if rule.table_kind == TableKind::Sample && judged.rows.num_rows() > 0 {
            let mut asked: BTreeSet<&Key> = self.groups.keys().collect();
            let watched = watched();
            if let Watched::Keys(keys) = &watched {
                asked.extend(keys);
            }
            asked.extend(matching.iter().map(|row| &row.key));
            if watched == Watched::All || !asked.is_empty() {
                for row in judged.present()? {
                    if watched == Watched::All || asked.contains(&row.key) {
                        instants.entry(row.ts.unwrap_or_default()).or_default().insert(row.key, GroupState::Clear);
                    }
                }
            }
        }
        let matching = matching.into_iter().map(|row| ((row.ts.unwrap_or_default(), row.key), row.values));
        let (matching, repeated) = worst(rule, matching);
        self.repeated_rows += repeated;
        for ((ts, key), values) in matching {
            instants.entry(ts).or_default().insert(key, state_of(values));
        }
        if rule.table_kind == TableKind::Sample {
            self.watch(&instants);
        }
        Ok(instants)
    }

    /// Remembers when the keys that ever fired were seen last, so that their silence is noticed.
    fn watch(&mut self, instants: &BTreeMap<Timestamp, BTreeMap<Key, GroupState>>) {
        for (ts, states) in instants {
            for (key, state) in states {
                if let Some(last_seen) = self.groups.get_mut(key) {
                    *last_seen = (*last_seen).max(*ts);
                    self.saw_watched = true;
                } else if matches!(state, GroupState::Clear | GroupState::Held) {
                    continue;
                } else if self.groups.len() < RULE_GROUPS {
                    self.groups.insert(key.clone(), *ts);
                    self.saw_watched = true;
                } else {
                    self.overflow_groups += 1;
                }
            }
        }
    }

    /// Event time has come this far; says whether something may be due. Samples are looked at for silence once a minute,
    /// however often time moves.
    pub fn time_passed(&mut self, closed: Timestamp, kind: TableKind) -> bool {
        self.closed = self.closed.max(closed);
        let minute = self.closed.floor(ROW_SILENCE_CHECK);
        kind == TableKind::Event || minute > std::mem::replace(&mut self.looked, minute)
    }

    /// The next minute in which a key is silent: one that fell silent since the last look, at `checked`, or one that is silent
    /// already and whose alert changes after `quiet_until`.
    pub fn next_silence(&self, checked: Timestamp, quiet_until: Timestamp) -> Option<Timestamp> {
        let silent = |last_seen: &Timestamp| last_seen.saturating_add(ROW_SILENCE);
        let newly = self.groups.values().map(silent).filter(|at| *at > checked).min();
        let again = self.groups.values().map(silent).any(|at| at <= checked).then_some(quiet_until);
        let at = newly.into_iter().chain(again).min()?.max(checked);
        Some(at.floor(ROW_SILENCE_CHECK).saturating_add(ROW_SILENCE_CHECK))
    }

    /// The keys that are silent at an instant.
    pub fn silent(&mut self, end: Timestamp, lagging: bool) -> Outcome {
        let keep_from = end.saturating_sub(GONE_AFTER).saturating_sub(ROW_SILENCE).saturating_sub(ROW_SILENCE);
        self.groups.retain(|_, last_seen| *last_seen >= keep_from);
        let silent = self.groups.iter().filter(|(_, last_seen)| end - **last_seen >= ROW_SILENCE);
        let state = if lagging { GroupState::Unknown } else { GroupState::NoData };
        Outcome::Groups(silent.map(|(key, _)| Finding { key: key.clone(), state: state.clone() }).collect())
    }
}

/// An evaluation that could not be made, at the newest of its rows.
fn failed(rule: &Rule, batch: &RecordBatch, emitted: Timestamp, message: String) -> Evaluation {
    let newest = times(batch).and_then(|times| times.values().iter().max().copied()).unwrap_or_default();
    let ts = Timestamp(newest).max(emitted);
    Evaluation { rule: rule.name.clone(), window_start: ts, window_end: ts, outcome: Outcome::Failed(message) }
}

impl Overs {
    /// The rows that exist for the rule, with NULL where rows that have OVERs have their columns.
    fn exist(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        let overs = &self.schema.fields()[columns.len()..];
        columns.extend(overs.iter().map(|field| new_null_array(field.data_type(), rows.num_rows())));
        passing(self.labels.as_ref(), &batch_of(&self.schema, columns, rows.num_rows())?)
    }
}

fn passing(condition: Option<&Arc<dyn PhysicalExpr>>, batch: &RecordBatch) -> Result<RecordBatch> {
    let Some(condition) = condition else { return Ok(batch.clone()) };
    let passes = truths(&values_of(condition, batch)?);
    match passes.true_count() {
        0 => Ok(batch.slice(0, 0)),
        _ => Ok(filter_record_batch(batch, &passes)?),
    }
}
