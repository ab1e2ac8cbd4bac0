//! What the shared rules of one table keep: streams of rows, numbered groups, and clusters of cubes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use tidewatch_model::limits::{RULE_GROUPS, TABLE_SERIES};
use tidewatch_model::table::TIME_COLUMN;
use tidewatch_model::{Span, Timestamp, WindowSpec};

use super::bounds::Bounds;
use super::chunk::Chunk;
use super::cluster::{Cluster, Filled, ROWS, RowFault};
use super::cube::{MERGED, SUBTRACT};
use super::grouping::{Grouping, NO_GROUP};
use super::plan::{Call, Function, SharedPlan, States, physical};
use crate::explain::{CubeExplanation, SharedExplanation};
use crate::panes::bytes_of;
use crate::values::batch_of;

/// Rows are taken in chunks of so many: enough to forget what each chunk costs, few enough to stay in the cache.
const CHUNK_ROWS: usize = 8_192;

/// The shared part of a table.
pub struct SharedTable {
    /// The columns that some rule reads, `ts` first.
    schema: SchemaRef,
    columns: Vec<usize>,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    streams: Vec<Stream>,
    groupings: Vec<Numbered>,
    clusters: Vec<Cluster>,
}

/// Rows that pass a condition.
#[derive(Debug)]
struct Stream {
    conditions: Vec<Expr>,
    /// The stream that these rows are of; `None` for that of all rows.
    parent: Option<usize>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    inputs: Vec<(Expr, Arc<dyn PhysicalExpr>)>,
}

/// A group list over the rows of a stream, and of all streams below.
#[derive(Debug)]
struct Numbered {
    exprs: Vec<Expr>,
    scope: usize,
    inputs: Vec<usize>,
    grouping: Grouping,
}

/// Where a rule finds what it shares.
#[derive(Debug, Clone)]
pub struct Place {
    cluster: usize,
    view: usize,
    /// The cluster and view that count rows before the conditions on values.
    seen: (usize, usize),
    /// Where the view has the answers to its aggregates.
    slots: Vec<usize>,
}

/// The groups that have rows in a window.
pub struct Present {
    /// Their numbers; `None` when all have.
    pub groups: Option<UInt32Array>,
    /// How many they are.
    pub count: usize,
}

impl SharedTable {
    /// For these rules, which read this table, at these slides, sizes and delays.
    pub fn new(table: &Schema, plans: &[(&SharedPlan, WindowSpec, Span)]) -> Result<(SharedTable, Vec<Place>)> {
        let mut columns = vec![table.index_of(TIME_COLUMN)?];
        for (plan, _, _) in plans {
            for expression in row_expressions(plan) {
                for column in expression.column_refs() {
                    let index = table.index_of(&column.name)?;
                    if !columns.contains(&index) {
                        columns.push(index);
                    }
                }
            }
        }
        let schema = Arc::new(table.project(&columns)?);
        let all = Stream { conditions: vec![], parent: None, condition: None, inputs: vec![] };
        let mut shared = SharedTable {
            schema,
            columns,
            pending: vec![],
            pending_rows: 0,
            streams: vec![all],
            groupings: vec![],
            clusters: vec![],
        };
        let places = plans.iter().map(|(plan, spec, delay)| shared.place(plan, *spec, *delay));
        let places = places.collect::<Result<Vec<_>>>()?;
        Ok((shared, places))
    }

    /// Finds or makes what a rule needs.
    fn place(&mut self, plan: &SharedPlan, spec: WindowSpec, delay: Span) -> Result<Place> {
        let labelled = self.stream(0, &plan.labels)?;
        let stream = self.stream(labelled, &plan.values)?;
        let scope = if plan.by_identity { 0 } else { labelled };
        let grouping = self.numbered(scope, &plan.groups)?;
        let pane = Span(gcd(spec.slide.0, spec.size.0));
        let cluster = self.cluster(grouping, stream, pane)?;
        let seen = self.cluster(grouping, labelled, pane)?;
        let cubes = plan.aggregates.iter().map(|(call, question)| Ok((self.cube(cluster, call)?, *question)));
        let cubes = cubes.collect::<Result<Vec<_>>>()?;
        let view = self.clusters[cluster].view(spec, delay);
        let seen = (seen, self.clusters[seen].view(spec, delay));
        let slots = cubes.iter().map(|(cube, question)| self.clusters[cluster].slot(view, *cube, *question));
        let slots = slots.collect();
        for cube in cubes.iter().map(|(cube, _)| *cube).chain([ROWS]).collect::<BTreeSet<_>>() {
            self.clusters[cluster].cubes[cube].rules += 1;
        }
        Ok(Place { cluster, view, seen, slots })
    }

    fn stream(&mut self, parent: usize, conditions: &[Expr]) -> Result<usize> {
        let Some(condition) = conjunction(conditions.to_vec()) else { return Ok(parent) };
        let known = |stream: &Stream| stream.parent == Some(parent) && stream.conditions == conditions;
        if let Some(index) = self.streams.iter().position(known) {
            return Ok(index);
        }
        let condition = Some(physical(&condition, &self.schema)?);
        self.streams.push(Stream { conditions: conditions.to_vec(), parent: Some(parent), condition, inputs: vec![] });
        Ok(self.streams.len() - 1)
    }

    fn input(&mut self, stream: usize, expression: &Expr) -> Result<usize> {
        let inputs = &mut self.streams[stream].inputs;
        if let Some(index) = inputs.iter().position(|(known, _)| known == expression) {
            return Ok(index);
        }
        inputs.push((expression.clone(), physical(expression, &self.schema)?));
        Ok(inputs.len() - 1)
    }

    fn numbered(&mut self, scope: usize, exprs: &[Expr]) -> Result<usize> {
        if let Some(index) = self.groupings.iter().position(|known| known.scope == scope && known.exprs == exprs) {
            return Ok(index);
        }
        let inputs = exprs.iter().map(|expression| self.input(scope, expression)).collect::<Result<Vec<_>>>()?;
        let types = inputs.iter().map(|input| self.streams[scope].inputs[*input].1.data_type(&self.schema));
        // Series are numbered for all rules together, whatever each looks at.
        let limit = if scope == 0 { TABLE_SERIES } else { RULE_GROUPS };
        let grouping = Grouping::new(&types.collect::<Result<Vec<_>>>()?, limit)?;
        self.groupings.push(Numbered { exprs: exprs.to_vec(), scope, inputs, grouping });
        Ok(self.groupings.len() - 1)
    }

    fn cluster(&mut self, grouping: usize, stream: usize, pane: Span) -> Result<usize> {
        let known = |cluster: &Cluster| (cluster.grouping, cluster.stream, cluster.pane) == (grouping, stream, pane);
        if let Some(index) = self.clusters.iter().position(known) {
            return Ok(index);
        }
        self.clusters.push(Cluster::new(grouping, stream, pane));
        let index = self.clusters.len() - 1;
        self.cube(index, &Call { function: Function::Own(States::Count), arguments: vec![], filter: None })?;
        Ok(index)
    }

    fn cube(&mut self, cluster: usize, call: &Call) -> Result<usize> {
        if let Some(index) = self.clusters[cluster].cubes.iter().position(|known| known.call == *call) {
            return Ok(index);
        }
        let stream = self.clusters[cluster].stream;
        let arguments =
            call.arguments.iter().map(|argument| self.input(stream, argument)).collect::<Result<Vec<_>>>()?;
        let filter = call.filter.as_ref().map(|filter| self.input(stream, filter)).transpose()?;
        let cubes = &mut self.clusters[cluster].cubes;
        cubes.push(Filled { call: call.clone(), cube: call.function.cube(), rules: 0, arguments, filter });
        Ok(cubes.len() - 1)
    }

    /// Takes rows. Those before `floor` are of no use to any window.
    pub fn push(&mut self, batch: &RecordBatch, floor: Timestamp) -> Result<()> {
        let columns = self.columns.iter().map(|index| batch.column(*index).clone()).collect();
        self.pending.push(batch_of(&self.schema, columns, batch.num_rows())?);
        self.pending_rows += batch.num_rows();
        if self.pending_rows >= CHUNK_ROWS {
            self.flush(floor)?;
        }
        Ok(())
    }

    /// Brings what was pushed into the panes.
    pub fn flush(&mut self, floor: Timestamp) -> Result<()> {
        self.pending_rows = 0;
        let pending = std::mem::take(&mut self.pending);
        match pending.as_slice() {
            [] => Ok(()),
            [one] => self.take_chunk(one.clone(), floor),
            several => self.take_chunk(concat_batches(&self.schema, several)?, floor),
        }
    }

    fn take_chunk(&mut self, batch: RecordBatch, floor: Timestamp) -> Result<()> {
        let mut chunks: Vec<Chunk> = Vec::with_capacity(self.streams.len());
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            let mut chunk = match (stream.parent, &stream.condition) {
                (Some(parent), Some(condition)) => chunks[parent].filtered(condition)?,
                _ => Chunk::new(batch.clone()),
            };
            chunk.evaluate(&stream.inputs)?;
            for (number, numbered) in self.groupings.iter_mut().enumerate() {
                if numbered.scope == index {
                    let keys: Vec<ArrayRef> =
                        numbered.inputs.iter().map(|input| chunk.inputs[*input].clone()).collect();
                    let groups = numbered.grouping.number(&keys, &chunk.times)?;
                    chunk.groups.insert(number, groups);
                }
            }
            chunks.push(chunk);
        }
        for cluster in &mut self.clusters {
            let numbered = &self.groupings[cluster.grouping];
            // Where the rows of this cluster were numbered, what could not be numbered is a fault too.
            let keys: &[usize] = if numbered.scope == cluster.stream { &numbered.inputs } else { &[] };
            cluster.take(&chunks[cluster.stream], keys, numbered.grouping.len(), floor);
        }
        Ok(())
    }

    /// Forgets panes before an instant.
    pub fn forget_before(&mut self, floor: Timestamp) {
        for cluster in &mut self.clusters {
            cluster.forget_before(floor);
        }
    }

    /// Moves what a rule reads to a window. All rules of a window ask before rows are pushed again.
    pub fn slide(&mut self, place: &Place, start: Timestamp, end: Timestamp) -> Result<Present> {
        for (cluster, view) in [place.seen, (place.cluster, place.view)] {
            let cluster = &mut self.clusters[cluster];
            cluster.slide(view, &mut self.groupings[cluster.grouping].grouping, start, end)?;
        }
        let slid = self.clusters[place.cluster].slid(place.view)?;
        let count = slid.present.as_ref().map_or(slid.counts.len(), UInt32Array::len);
        Ok(Present { groups: slid.present.clone(), count })
    }

    /// The answers of an aggregate for the groups with rows, and where they lie, after [`SharedTable::slide`].
    pub fn answers(
        &mut self,
        place: &Place,
        aggregate: usize,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(&ArrayRef, Bounds)> {
        let cluster = &mut self.clusters[place.cluster];
        let groups = self.groupings[cluster.grouping].grouping.len();
        cluster.answers(place.view, place.slots[aggregate], groups, start, end)
    }

    /// The key columns of the groups with rows, after [`SharedTable::slide`].
    pub fn keys(&self, place: &Place) -> Result<&[ArrayRef]> {
        Ok(&self.clusters[place.cluster].slid(place.view)?.keys)
    }

    /// Rows of a group before the conditions on values, after [`SharedTable::slide`].
    pub fn has_rows(&self, place: &Place, group: u32) -> bool {
        let counts = self.clusters[place.seen.0].slid(place.seen.1).map(|slid| &slid.counts);
        counts.is_ok_and(|counts| {
            let counts = counts.as_primitive::<Int64Type>().values();
            counts.get(group as usize).is_some_and(|count| *count > 0)
        })
    }

    /// By group: when it had rows last, before the conditions on values.
    pub fn last_seen(&self, place: &Place) -> &[Timestamp] {
        &self.clusters[place.seen.0].views[place.seen.1].last_seen
    }

    /// The groups of a rule.
    pub fn grouping(&mut self, place: &Place) -> &mut Grouping {
        &mut self.groupings[self.clusters[place.cluster].grouping].grouping
    }

    /// What could not be evaluated among the rows of a window that a rule reads, if anything: `selected` says which groups it
    /// looks at.
    pub fn fault(
        &self,
        place: &Place,
        start: Timestamp,
        end: Timestamp,
        selected: &dyn Fn(u32) -> bool,
    ) -> Option<&str> {
        let uses =
            |cube| place.slots.iter().any(|slot| self.clusters[place.cluster].cube_of(place.view, *slot) == cube);
        [place.cluster, place.seen.0].into_iter().find_map(|cluster| {
            let concerns = |fault: &&RowFault| {
                fault.cube.is_none_or(|cube| cluster == place.cluster && uses(cube))
                    && (fault.group == NO_GROUP || selected(fault.group))
            };
            let mut faults = self.clusters[cluster].faults_between(start, end);
            faults.find(concerns).map(|fault| fault.message.as_str())
        })
    }

    /// What a rule shares.
    pub fn explain(&self, place: &Place, plan: &SharedPlan) -> SharedExplanation {
        let cluster = &self.clusters[place.cluster];
        let panes = cluster.views[place.view].spec.size.0 / cluster.pane.0;
        let slots = place.slots.iter().map(|slot| cluster.cube_of(place.view, *slot));
        let used: BTreeSet<usize> = slots.chain([ROWS]).collect();
        let limit = self.groupings[cluster.grouping].grouping.limit();
        let groups = self.groupings[cluster.grouping].grouping.len();
        let cubes = used.into_iter().map(|cube| {
            let Filled { call, cube, rules, .. } = &cluster.cubes[cube];
            // Each pane once, and all together once more; each once again on the stack.
            let states = if cube.sliding() == SUBTRACT { panes + 1 } else { 2 * panes + 1 };
            // A pane comes and a pane goes; on two stacks each is moved over once more; else all panes are merged.
            let per_slide = match cube.sliding() {
                SUBTRACT => 2,
                MERGED => panes as usize,
                _ => 3,
            };
            CubeExplanation {
                aggregate: call.to_string(),
                rules: *rules,
                sliding: cube.sliding(),
                states_per_slide: per_slide * groups,
                bytes: cube.bytes(),
                bytes_at_limit: cube.state_bytes() * states as usize * limit,
            }
        });
        SharedExplanation {
            group_by: plan.groups.iter().map(ToString::to_string).collect(),
            group_condition: plan.of_groups.as_ref().map(ToString::to_string),
            row_conditions: plan.labels.iter().chain(&plan.values).map(ToString::to_string).collect(),
            pane_seconds: cluster.pane.0 as f64 / 1e6,
            panes,
            cubes: cubes.collect(),
            groups,
            group_limit: limit,
        }
    }

    /// Takes no new group any more, or takes them again.
    pub fn close(&mut self, closed: bool) {
        self.groupings.iter_mut().for_each(|numbered| numbered.grouping.close(closed));
    }

    /// Rows that belong to no group, since there are too many.
    pub fn overflow_rows(&self) -> u64 {
        self.groupings.iter().map(|numbered| numbered.grouping.overflow_rows).sum()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let groupings: usize = self.groupings.iter().map(|numbered| numbered.grouping.bytes()).sum();
        let cubes = self.clusters.iter().flat_map(|cluster| &cluster.cubes).map(|filled| filled.cube.bytes());
        groupings + cubes.sum::<usize>() + self.pending.iter().map(bytes_of).sum::<usize>()
    }
}

fn row_expressions(plan: &SharedPlan) -> impl Iterator<Item = &Expr> {
    let calls = plan.aggregates.iter().flat_map(|(call, _)| call.arguments.iter().chain(&call.filter));
    plan.labels.iter().chain(&plan.values).chain(&plan.groups).chain(calls)
}

fn gcd(left: i64, right: i64) -> i64 {
    if right == 0 { left } else { gcd(right, left % right) }
}
