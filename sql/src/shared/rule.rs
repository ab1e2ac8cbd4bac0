//! A rule on shared windows: its conditions on groups, HAVING and SELECT list over the answers of cubes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{filter_record_batch, take, take_arrays};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use tidewatch_model::limits::GONE_AFTER;
use tidewatch_model::{Finding, GroupState, Key, NoDataPolicy, Outcome, Rule, Span, Timestamp, Values, WindowSpec};

use super::bounds::Test;
use super::chunk::evaluate;
use super::plan::{SharedPlan, aggregate_name, group_name, physical};
use super::table::{Place, SharedTable};
use crate::explain::SharedExplanation;
use crate::guarded::values_of;
use crate::listener::Watched;
use crate::recovery::state_of;
use crate::rows_table::{WINDOW_END, WINDOW_START};
use crate::values::{batch_of, result_rows, truths};

/// A rule, ready to be asked at the end of each window.
#[derive(Debug)]
pub struct SharedRule {
    plan: Arc<SharedPlan>,
    place: Place,
    spec: WindowSpec,
    /// What its expressions read.
    inputs: Vec<Input>,
    schema: SchemaRef,
    having: Option<Arc<dyn PhysicalExpr>>,
    /// What of HAVING can be told from where the answers lie.
    test: Test,
    outputs: Vec<Arc<dyn PhysicalExpr>>,
    output_schema: SchemaRef,
    of_groups: Option<Arc<dyn PhysicalExpr>>,
    /// Names of the key columns, one per group column.
    key: Vec<String>,
    no_data: NoDataPolicy,
    selected: Selected,
    numbers: Numbers,
}

/// One column that a rule's expressions read.
#[derive(Debug, Clone, Copy)]
enum Input {
    Group(usize),
    Aggregate(usize),
    WindowStart,
    WindowEnd,
}

/// The groups that pass a rule's conditions on groups.
#[derive(Debug, Default)]
struct Selected {
    /// What the grouping's version was.
    version: Option<u64>,
    /// By group.
    passes: Option<BooleanArray>,
    /// Groups for which nobody can say, and why.
    faults: Vec<(usize, String)>,
}

/// Which group a key is.
#[derive(Debug, Default)]
struct Numbers {
    by_key: HashMap<Key, u32>,
    /// How many groups were looked at, and how many numbers had been given again then.
    looked_at: (u64, u64),
}

/// What fires in a window.
type Firing = BTreeMap<Key, Values>;

impl Selected {
    /// Whether a group is among them.
    fn has(&self, group: usize) -> bool {
        self.passes.as_ref().is_none_or(|passes| passes.value(group))
    }
}

impl SharedRule {
    /// A rule at its place.
    pub fn new(rule: &Rule, plan: &Arc<SharedPlan>, spec: WindowSpec, place: Place) -> Result<SharedRule> {
        let after = plan.having.iter().chain(plan.outputs.iter().map(|(expression, _)| expression));
        let mut names = BTreeSet::new();
        for expression in after {
            names.extend(expression.column_refs().into_iter().map(|column| column.name.clone()));
        }
        let mut inputs = Vec::new();
        let mut fields = Vec::new();
        for field in plan.schema.fields().iter().filter(|field| names.contains(field.name())) {
            let named = |name: fn(usize) -> String, count| (0..count).find(|index| name(*index) == *field.name());
            let input = match field.name().as_str() {
                WINDOW_START => Input::WindowStart,
                WINDOW_END => Input::WindowEnd,
                _ => named(group_name, plan.groups.len())
                    .map(Input::Group)
                    .or_else(|| named(aggregate_name, plan.aggregates.len()).map(Input::Aggregate))
                    .ok_or_else(|| DataFusionError::Internal(format!("no column '{}'", field.name())))?,
            };
            inputs.push(input);
            fields.push(field.clone());
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let having = plan.having.as_ref().map(|having| physical(having, &schema)).transpose()?;
        let number = |column: &str| (0..plan.aggregates.len()).find(|index| aggregate_name(*index) == column);
        let test = plan.having.as_ref().map_or(Test::Perhaps, |having| Test::of(having, &number));
        let outputs =
            plan.outputs.iter().map(|(expression, _)| physical(expression, &schema)).collect::<Result<Vec<_>>>()?;
        let output_fields = outputs
            .iter()
            .zip(&plan.outputs)
            .map(|(expression, (_, name))| Ok(Field::new(name, expression.data_type(&schema)?, true)));
        let output_schema = Arc::new(Schema::new(output_fields.collect::<Result<Vec<_>>>()?));
        let group_schema = Schema::new(plan.schema.fields()[..plan.groups.len()].to_vec());
        let of_groups = plan.of_groups.as_ref().map(|condition| physical(condition, &group_schema)).transpose()?;
        Ok(SharedRule {
            plan: plan.clone(),
            place,
            spec,
            inputs,
            schema,
            having,
            test,
            outputs,
            output_schema,
            of_groups,
            key: rule.key.clone(),
            no_data: rule.options.no_data,
            selected: Selected::default(),
            numbers: Numbers::default(),
        })
    }

    /// What it shares.
    pub fn explain(&self, table: &SharedTable) -> SharedExplanation {
        table.explain(&self.place, &self.plan)
    }

    /// Length of its windows.
    pub fn size(&self) -> Span {
        self.spec.size
    }

    /// Evaluates the window that ends at `end`, whose rows are all there.
    pub fn evaluate(&mut self, table: &mut SharedTable, end: Timestamp, lagging: bool, watched: &Watched) -> Outcome {
        let start = end - self.spec.size;
        match self.firing(table, start, end).and_then(|firing| self.states(table, firing, end, lagging, watched)) {
            Ok(findings) => Outcome::Groups(findings),
            Err(DataFusionError::Execution(message)) => Outcome::Failed(message),
            Err(error) => Outcome::Failed(error.strip_backtrace()),
        }
    }

    /// The groups for which the condition holds.
    fn firing(&mut self, table: &mut SharedTable, start: Timestamp, end: Timestamp) -> Result<Firing> {
        let present = table.slide(&self.place, start, end)?;
        self.select(table)?;
        if let Some((_, message)) =
            self.selected.faults.iter().find(|(group, _)| table.has_rows(&self.place, *group as u32))
        {
            return Err(DataFusionError::Execution(message.clone()));
        }
        if let Some(message) = table.fault(&self.place, start, end, &|group| self.selected.has(group as usize)) {
            return Err(DataFusionError::Execution(message.to_string()));
        }
        if present.count == 0
            || !self.test.can_hold(&mut |aggregate| {
                table.answers(&self.place, aggregate, start, end).map(|(_, bounds)| bounds)
            })?
        {
            return Ok(Firing::new());
        }
        // Positions among the groups with rows; all of them, when absent.
        let passes = self.selected.passes.as_ref();
        let positions: Option<UInt32Array> = passes.map(|passes| match &present.groups {
            None => passes.values().set_indices().map(|group| group as u32).collect(),
            Some(groups) => {
                let groups = groups.values().iter().enumerate();
                groups.filter(|(_, group)| passes.value(**group as usize)).map(|(at, _)| at as u32).collect()
            }
        });
        let count = positions.as_ref().map_or(present.count, UInt32Array::len);
        if count == 0 {
            return Ok(Firing::new());
        }
        let mut rows = self.rows(table, (start, end), positions.as_ref(), count)?;
        if let Some(having) = &self.having {
            let holds = truths(&values_of(having, &rows)?);
            if holds.true_count() == 0 {
                return Ok(Firing::new());
            }
            rows = filter_record_batch(&rows, &holds)?;
        }
        let outputs = self.outputs.iter().map(|output| values_of(output, &rows));
        let outputs = batch_of(&self.output_schema, outputs.collect::<Result<Vec<_>>>()?, rows.num_rows())?;
        let rows = result_rows(&[outputs], &self.key, None)?;
        Ok(rows.into_iter().map(|row| (row.key, row.values)).collect())
    }

    /// What HAVING and the SELECT list read, for the groups at these positions among those with rows; for all, when absent.
    fn rows(
        &self,
        table: &mut SharedTable,
        (start, end): (Timestamp, Timestamp),
        positions: Option<&UInt32Array>,
        count: usize,
    ) -> Result<RecordBatch> {
        let constant = |instant: Timestamp| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(instant.0, count).with_timezone("UTC"))
        };
        let mut columns = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let column = match input {
                Input::WindowStart => constant(start),
                Input::WindowEnd => constant(end),
                Input::Group(index) => chosen(&table.keys(&self.place)?[*index], positions)?,
                Input::Aggregate(index) => {
                    let (answers, _) = table.answers(&self.place, *index, start, end)?;
                    chosen(answers, positions)?
                }
            };
            columns.push(column);
        }
        Ok(batch_of(&self.schema, columns, count)?)
    }

    /// Whether HAVING is NULL for a group: its rows say neither that it fires nor that it is well (a rate of one row, a mean of NULLs).
    fn is_undecided(&self, table: &mut SharedTable, group: u32, end: Timestamp) -> Result<bool> {
        let Some(having) = &self.having else { return Ok(false) };
        let start = end - self.spec.size;
        let present = table.slide(&self.place, start, end)?;
        let at = match &present.groups {
            None => group,
            Some(groups) => match groups.values().binary_search(&group) {
                Ok(at) => at as u32,
                // Its rows do not pass the conditions on values: there is nothing of it to look at.
                Err(_) => return Ok(false),
            },
        };
        let rows = self.rows(table, (start, end), Some(&UInt32Array::from(vec![at])), 1)?;
        Ok(values_of(having, &rows)?.is_null(0))
    }

    /// Which groups the rule looks at.
    fn select(&mut self, table: &mut SharedTable) -> Result<()> {
        let Some(condition) = &self.of_groups else { return Ok(()) };
        let grouping = table.grouping(&self.place);
        if self.selected.version == Some(grouping.version) {
            return Ok(());
        }
        let count = grouping.len();
        let columns = grouping.columns()?.to_vec();
        let batch = named(columns, (0..).map(group_name), count)?;
        let (passes, faults) = evaluate(condition, &batch)?;
        self.selected = Selected { version: Some(grouping.version), passes: Some(truths(&passes)), faults };
        Ok(())
    }

    /// What fires, and the state of what is watched.
    fn states(
        &mut self,
        table: &mut SharedTable,
        firing: Firing,
        end: Timestamp,
        lagging: bool,
        watched: &Watched,
    ) -> Result<Vec<Finding>> {
        let missing = if lagging { GroupState::Unknown } else { GroupState::NoData };
        let state = |table: &SharedTable, place: &Place, group: u32| match table.has_rows(place, group) {
            true => GroupState::Clear,
            false => missing.clone(),
        };
        let mut states: BTreeMap<Key, GroupState> = BTreeMap::new();
        if *watched == Watched::All || self.no_data == NoDataPolicy::Alert {
            let all = *watched == Watched::All;
            let keep_from =
                end.saturating_sub(GONE_AFTER).saturating_sub(self.spec.size).saturating_sub(self.spec.size);
            let last_seen = table.last_seen(&self.place).iter().enumerate();
            let known = last_seen.filter(|(group, last_seen)| {
                let silent = !table.has_rows(&self.place, *group as u32);
                self.selected.has(*group)
                    && **last_seen != Timestamp::MIN
                    && **last_seen >= keep_from
                    && (all || silent)
            });
            let groups: UInt32Array = known.map(|(group, _)| group as u32).collect();
            let keys = self.keys(table, &groups)?;
            let states_of = groups.values().iter().zip(keys);
            states.extend(states_of.map(|(group, key)| (key, state(table, &self.place, *group))));
        }
        if let Watched::Keys(keys) = watched {
            for key in keys.iter().filter(|key| !firing.contains_key(*key)) {
                let group = self.number_of(table, key)?;
                // A group that the rule does not look at has no rows for it.
                let group = group.filter(|group| self.selected.has(*group as usize));
                let state = match group {
                    None => missing.clone(),
                    Some(group) => match state(table, &self.place, group) {
                        GroupState::Clear if self.is_undecided(table, group, end)? => missing.clone(),
                        state => state,
                    },
                };
                states.insert(key.clone(), state);
            }
        }
        states.extend(firing.into_iter().map(|(key, values)| (key, state_of(values))));
        Ok(states.into_iter().map(|(key, state)| Finding { key, state }).collect())
    }

    /// The group that a key stands for, if rows of it were seen since the start.
    fn number_of(&mut self, table: &mut SharedTable, key: &Key) -> Result<Option<u32>> {
        let grouping = table.grouping(&self.place);
        let (version, reused) = (grouping.version, grouping.reused);
        if self.numbers.looked_at.1 != reused {
            self.numbers = Numbers::default();
        }
        if let Some(group) = self.numbers.by_key.get(key) {
            return Ok(Some(*group));
        }
        if self.numbers.looked_at == (version, reused) {
            return Ok(None);
        }
        // Numbers are given in order: what was looked at before is not looked at again.
        let from = if reused == 0 { self.numbers.looked_at.0 as u32 } else { 0 };
        let groups: UInt32Array = (from..grouping.len() as u32).filter(|group| grouping.is_known(*group)).collect();
        let keys = self.keys(table, &groups)?;
        self.numbers.by_key.extend(keys.into_iter().zip(groups.values().iter().copied()));
        self.numbers.looked_at = (version, reused);
        Ok(self.numbers.by_key.get(key).copied())
    }

    /// The keys of groups.
    fn keys(&self, table: &mut SharedTable, groups: &UInt32Array) -> Result<Vec<Key>> {
        let columns = take_arrays(table.grouping(&self.place).columns()?, groups, None)?;
        let batch = named(columns, self.key.iter().cloned(), groups.len())?;
        Ok(result_rows(&[batch], &self.key, None)?.into_iter().map(|row| row.key).collect())
    }
}

/// Columns under these names.
fn named(columns: Vec<ArrayRef>, names: impl IntoIterator<Item = String>, rows: usize) -> Result<RecordBatch> {
    let fields = columns.iter().zip(names).map(|(column, name)| Field::new(name, column.data_type().clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok(batch_of(&schema, columns, rows)?)
}

fn chosen(column: &ArrayRef, positions: Option<&UInt32Array>) -> Result<ArrayRef> {
    match positions {
        None => Ok(column.clone()),
        Some(positions) => Ok(take(column, positions, None)?),
    }
}
