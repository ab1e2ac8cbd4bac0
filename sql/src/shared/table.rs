//! What the shared rules of one table keep: numbered groups, cubes, and the windows over them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, concat_batches, filter_record_batch, take};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use tidewatch_model::limits::{RULE_GROUPS, TABLE_SERIES};
use tidewatch_model::table::TIME_COLUMN;
use tidewatch_model::{Span, Timestamp, WindowSpec};

use super::bounds::Bounds;
use super::cube::{Cube, pane_of};
use super::grouping::{Grouping, NO_GROUP};
use super::kernel::Run;
use super::plan::{Call, Function, SharedPlan, physical};
use crate::explain::{CubeExplanation, SharedExplanation};
use crate::moments::Question;
use crate::panes::times;
use crate::values::truths;

/// Rows are taken in chunks of so many: enough to forget what each chunk costs, few enough to stay in the cache.
const CHUNK_ROWS: usize = 8_192;
/// Faults of one pane that are told apart; beyond them all its groups are taken for faulty.
const FAULTS: usize = 64;

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

/// Cubes that agree in rows, groups and panes.
#[derive(Debug)]
struct Cluster {
    grouping: usize,
    stream: usize,
    pane: Span,
    cubes: Vec<Filled>,
    views: Vec<View>,
    /// By pane: rows that could not be evaluated.
    faults: BTreeMap<Timestamp, Vec<RowFault>>,
}

/// A cube and what it is filled from.
#[derive(Debug)]
struct Filled {
    call: Call,
    cube: Box<dyn Cube>,
    /// How many rules use it.
    rules: usize,
    arguments: Vec<usize>,
    filter: Option<usize>,
}

/// A row that could not be evaluated.
#[derive(Debug)]
struct RowFault {
    /// Its group, or [`NO_GROUP`] for any.
    group: u32,
    /// The cube that missed it; `None` for all.
    cube: Option<usize>,
    message: String,
}

/// One slide and size over a cluster, at one delay.
#[derive(Debug)]
struct View {
    spec: WindowSpec,
    delay: Span,
    /// The window over the cube that counts rows.
    rows: usize,
    /// What rules ask of its windows, each once.
    slots: Vec<Slot>,
    /// By group: the end of the last window with rows of its.
    last_seen: Vec<Timestamp>,
    slid: Option<Slid>,
}

/// One question to one cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    cube: usize,
    window: usize,
    question: Question,
}

/// A view at the end of a window.
#[derive(Debug)]
struct Slid {
    end: Timestamp,
    /// The groups with rows, ascending; `None` when all have.
    present: Option<UInt32Array>,
    /// By group: rows in the window.
    counts: ArrayRef,
    /// By slot: the answers for the groups with rows, and where they lie; absent until asked for.
    answers: Vec<Option<(ArrayRef, Bounds)>>,
    /// Key columns of the groups with rows.
    keys: Vec<ArrayRef>,
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
        let view = self.view(cluster, spec, delay);
        let seen = (seen, self.view(seen, spec, delay));
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
        self.clusters.push(Cluster { grouping, stream, pane, cubes: vec![], views: vec![], faults: BTreeMap::new() });
        let index = self.clusters.len() - 1;
        self.cube(index, &Call { function: Function::Count, arguments: vec![], filter: None })?;
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

    fn view(&mut self, cluster: usize, spec: WindowSpec, delay: Span) -> usize {
        let Cluster { views, cubes, .. } = &mut self.clusters[cluster];
        if let Some(index) = views.iter().position(|view| view.spec == spec && view.delay == delay) {
            return index;
        }
        let rows = cubes[ROWS].cube.add_window();
        views.push(View { spec, delay, rows, slots: vec![], last_seen: vec![], slid: None });
        views.len() - 1
    }

    /// Takes rows. Those before `floor` are of no use to any window.
    pub fn push(&mut self, batch: &RecordBatch, floor: Timestamp) -> Result<()> {
        let columns = self.columns.iter().map(|index| batch.column(*index).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        self.pending.push(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?);
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
            cluster.take(&chunks[cluster.stream], numbered, floor);
        }
        Ok(())
    }

    /// Forgets panes before an instant.
    pub fn forget_before(&mut self, floor: Timestamp) {
        for cluster in &mut self.clusters {
            let floor = floor.floor(cluster.pane);
            for filled in &mut cluster.cubes {
                filled.cube.forget_before(floor);
            }
            while cluster.faults.first_key_value().is_some_and(|(pane, _)| *pane < floor) {
                cluster.faults.pop_first();
            }
        }
    }

    /// Moves what a rule reads to a window. All rules of a window ask before rows are pushed again.
    pub fn slide(&mut self, place: &Place, start: Timestamp, end: Timestamp) -> Result<Present> {
        self.slide_view(place.seen.0, place.seen.1, start, end)?;
        self.slide_view(place.cluster, place.view, start, end)?;
        let slid = self.slid(place.cluster, place.view)?;
        let count = slid.present.as_ref().map_or(slid.counts.len(), UInt32Array::len);
        Ok(Present { groups: slid.present.clone(), count })
    }

    fn slide_view(&mut self, cluster: usize, view: usize, start: Timestamp, end: Timestamp) -> Result<()> {
        let Cluster { grouping, cubes, views, .. } = &mut self.clusters[cluster];
        let grouping = &mut self.groupings[*grouping].grouping;
        let view = &mut views[view];
        if view.slid.as_ref().is_some_and(|slid| slid.end == end && slid.counts.len() == grouping.len()) {
            return Ok(());
        }
        let rows = &mut cubes[ROWS].cube;
        rows.slide(view.rows, start, end);
        let counts = rows.answer(view.rows, grouping.len(), Question::Plain);
        let numbers = counts.as_primitive::<Int64Type>().values();
        view.last_seen.resize(numbers.len(), Timestamp::MIN);
        for (last_seen, count) in view.last_seen.iter_mut().zip(numbers) {
            if *count > 0 {
                *last_seen = end;
            }
        }
        let all = numbers.iter().all(|count| *count > 0);
        let present = (!all).then(|| {
            let present = numbers.iter().enumerate().filter(|(_, count)| **count > 0);
            UInt32Array::from_iter_values(present.map(|(group, _)| group as u32))
        });
        let keys = grouping.columns()?.iter().map(|column| only(column, present.as_ref()));
        let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
        view.slid = Some(Slid { end, present, counts, answers: vec![None; view.slots.len()], keys });
        Ok(())
    }

    fn slid(&self, cluster: usize, view: usize) -> Result<&Slid> {
        let slid = self.clusters[cluster].views[view].slid.as_ref();
        slid.ok_or_else(|| DataFusionError::Internal("a window was read before it was moved".to_string()))
    }

    /// The answers of an aggregate for the groups with rows, and where they lie, after [`SharedTable::slide`].
    pub fn answers(
        &mut self,
        place: &Place,
        aggregate: usize,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(&ArrayRef, Bounds)> {
        let Cluster { grouping, cubes, views, .. } = &mut self.clusters[place.cluster];
        let groups = self.groupings[*grouping].grouping.len();
        let view = &mut views[place.view];
        let slot = place.slots[aggregate];
        let Some(slid) = &mut view.slid else {
            return Err(DataFusionError::Internal("a window was read before it was moved".to_string()));
        };
        let known = &mut slid.answers[slot];
        let (answers, bounds) = match known {
            Some(known) => known,
            None => {
                let Slot { cube, window, question } = view.slots[slot];
                cubes[cube].cube.slide(window, start, end);
                let answers = only(&cubes[cube].cube.answer(window, groups, question), slid.present.as_ref())?;
                let bounds = Bounds::of(&answers);
                known.insert((answers, bounds))
            }
        };
        Ok((answers, *bounds))
    }

    /// The key columns of the groups with rows, after [`SharedTable::slide`].
    pub fn keys(&self, place: &Place) -> Result<&[ArrayRef]> {
        Ok(&self.slid(place.cluster, place.view)?.keys)
    }

    /// Rows of a group before the conditions on values, after [`SharedTable::slide`].
    pub fn has_rows(&self, place: &Place, group: u32) -> bool {
        let counts = self.slid(place.seen.0, place.seen.1).map(|slid| &slid.counts);
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
        let slots = &self.clusters[place.cluster].views[place.view].slots;
        let uses = |cube| place.slots.iter().any(|slot| slots[*slot].cube == cube);
        [place.cluster, place.seen.0].into_iter().find_map(|cluster| {
            let concerns = |fault: &&RowFault| {
                fault.cube.is_none_or(|cube| cluster == place.cluster && uses(cube))
                    && (fault.group == NO_GROUP || selected(fault.group))
            };
            let mut faults = self.clusters[cluster].faults.range(start..end).flat_map(|(_, faults)| faults);
            faults.find(concerns).map(|fault| fault.message.as_str())
        })
    }

    /// What a rule shares.
    pub fn explain(&self, place: &Place, plan: &SharedPlan) -> SharedExplanation {
        let cluster = &self.clusters[place.cluster];
        let panes = cluster.views[place.view].spec.size.0 / cluster.pane.0;
        let slots = place.slots.iter().map(|slot| cluster.views[place.view].slots[*slot].cube);
        let used: BTreeSet<usize> = slots.chain([ROWS]).collect();
        let limit = self.groupings[cluster.grouping].grouping.limit();
        let cubes = used.into_iter().map(|cube| {
            let Filled { call, cube, rules, .. } = &cluster.cubes[cube];
            // Each pane once, and all together once more; each once again on the stack.
            let states = if cube.subtracts() { panes + 1 } else { 2 * panes + 1 };
            CubeExplanation {
                aggregate: call.to_string(),
                rules: *rules,
                sliding: if cube.subtracts() { "subtract" } else { "two stacks" },
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
            groups: self.groupings[cluster.grouping].grouping.len(),
            group_limit: limit,
        }
    }

    /// Rows that belong to no group, since there are too many.
    pub fn overflow_rows(&self) -> u64 {
        self.groupings.iter().map(|numbered| numbered.grouping.overflow_rows).sum()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let groupings: usize = self.groupings.iter().map(|numbered| numbered.grouping.bytes()).sum();
        let cubes = self.clusters.iter().flat_map(|cluster| &cluster.cubes).map(|filled| filled.cube.bytes());
        groupings + cubes.sum::<usize>() + self.pending.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
    }
}

/// The cube of each cluster that counts its rows.
const ROWS: usize = 0;

fn row_expressions(plan: &SharedPlan) -> impl Iterator<Item = &Expr> {
    let calls = plan.aggregates.iter().flat_map(|(call, _)| call.arguments.iter().chain(&call.filter));
    plan.labels.iter().chain(&plan.values).chain(&plan.groups).chain(calls)
}

fn gcd(left: i64, right: i64) -> i64 {
    if right == 0 { left } else { gcd(right, left % right) }
}

/// The elements of the groups with rows.
fn only(column: &ArrayRef, present: Option<&UInt32Array>) -> std::result::Result<ArrayRef, ArrowError> {
    match present {
        None => Ok(column.clone()),
        Some(present) => take(column, present, None),
    }
}

/// The rows of a chunk that pass a stream's conditions.
struct Chunk {
    batch: RecordBatch,
    times: Vec<i64>,
    inputs: Vec<ArrayRef>,
    /// By grouping: the group of each row.
    groups: HashMap<usize, Vec<u32>>,
    /// Rows whose input could not be evaluated.
    input_faults: Vec<(usize, usize, String)>,
    /// Times of rows whose condition could not be evaluated.
    condition_faults: Vec<(i64, String)>,
}

impl Chunk {
    fn new(batch: RecordBatch) -> Chunk {
        let times = times(&batch).map(|times| times.values().to_vec()).unwrap_or_default();
        Chunk { batch, times, inputs: vec![], groups: HashMap::new(), input_faults: vec![], condition_faults: vec![] }
    }

    /// The rows that pass a condition, with their groups.
    fn filtered(&self, condition: &Arc<dyn PhysicalExpr>) -> Result<Chunk> {
        let (passes, faults) = evaluate(condition, &self.batch)?;
        let passes = truths(&passes);
        let mut chunk = Chunk::new(filter_record_batch(&self.batch, &passes)?);
        for (grouping, groups) in &self.groups {
            let groups = groups.iter().zip(passes.values().iter()).filter(|(_, passes)| *passes);
            chunk.groups.insert(*grouping, groups.map(|(group, _)| *group).collect());
        }
        chunk.condition_faults.clone_from(&self.condition_faults);
        chunk.condition_faults.extend(faults.into_iter().map(|(row, message)| (self.times[row], message)));
        Ok(chunk)
    }

    fn evaluate(&mut self, inputs: &[(Expr, Arc<dyn PhysicalExpr>)]) -> Result<()> {
        for (index, (_, expression)) in inputs.iter().enumerate() {
            let (values, faults) = evaluate(expression, &self.batch)?;
            self.inputs.push(values);
            self.input_faults.extend(faults.into_iter().map(|(row, message)| (index, row, message)));
        }
        Ok(())
    }
}

/// The values of an expression, and the rows where it fails, with why: NULL stands there.
pub fn evaluate(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<(ArrayRef, Vec<(usize, String)>)> {
    let whole = |batch: &RecordBatch| expression.evaluate(batch)?.into_array(batch.num_rows());
    if let Ok(values) = whole(batch) {
        return Ok((values, vec![]));
    }
    let null = arrow::array::new_null_array(&expression.data_type(batch.schema_ref())?, 1);
    let mut faults = Vec::new();
    let mut values: Vec<ArrayRef> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        match whole(&batch.slice(row, 1)) {
            Ok(value) => values.push(value),
            Err(error) => {
                values.push(null.clone());
                faults.push((row, error.strip_backtrace()));
            }
        }
    }
    let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    Ok((concat(&values)?, faults))
}

impl Cluster {
    /// Where a view has the answers to a question.
    fn slot(&mut self, view: usize, cube: usize, question: Question) -> usize {
        let slots = &mut self.views[view].slots;
        if let Some(known) = slots.iter().position(|slot| (slot.cube, slot.question) == (cube, question)) {
            return known;
        }
        let shared = slots.iter().find(|slot| slot.cube == cube).map(|slot| slot.window);
        let window = shared.unwrap_or_else(|| self.cubes[cube].cube.add_window());
        slots.push(Slot { cube, window, question });
        slots.len() - 1
    }

    fn take(&mut self, chunk: &Chunk, numbered: &Numbered, floor: Timestamp) {
        let Some(groups) = chunk.groups.get(&self.grouping) else { return };
        let group_count = numbered.grouping.len();
        let floor = floor.floor(self.pane);
        let runs: Vec<(Timestamp, Range<usize>)> =
            runs(&chunk.times, self.pane).filter(|(pane, _)| *pane >= floor).collect();
        for filled in &mut self.cubes {
            let arguments: Vec<ArrayRef> = filled.arguments.iter().map(|input| chunk.inputs[*input].clone()).collect();
            let mask: Option<BooleanArray> = filled.filter.map(|input| truths(&chunk.inputs[input]));
            for (pane, rows) in runs.iter().cloned() {
                let run = Run { arguments: &arguments, mask: mask.as_ref(), groups, rows, group_count };
                filled.cube.update(pane, &run);
            }
        }
        for (ts, message) in &chunk.condition_faults {
            self.fault(pane_of(*ts, self.pane), NO_GROUP, None, message);
        }
        for (input, row, message) in &chunk.input_faults {
            let pane = pane_of(chunk.times[*row], self.pane);
            if numbered.scope == self.stream && numbered.inputs.contains(input) {
                self.fault(pane, NO_GROUP, None, message);
            }
            let reads = |filled: &Filled| filled.arguments.contains(input) || filled.filter == Some(*input);
            let cubes: Vec<usize> = (0..self.cubes.len()).filter(|cube| reads(&self.cubes[*cube])).collect();
            for cube in cubes {
                self.fault(pane, groups[*row], Some(cube), message);
            }
        }
    }

    fn fault(&mut self, pane: Timestamp, group: u32, cube: Option<usize>, message: &str) {
        let faults = self.faults.entry(pane).or_default();
        let fault = match faults.len() {
            ..FAULTS => RowFault { group, cube, message: message.to_string() },
            FAULTS => RowFault { group: NO_GROUP, cube: None, message: message.to_string() },
            _ => return,
        };
        if !faults.iter().any(|known| (known.group, known.cube) == (fault.group, fault.cube)) {
            faults.push(fault);
        }
    }
}

/// Rows that follow each other in one pane.
fn runs(times: &[i64], width: Span) -> impl Iterator<Item = (Timestamp, Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = times.get(start)?;
        let pane = pane_of(*first, width);
        let (low, high) = (pane.0, pane.0 + width.0);
        let length = times[start..].iter().position(|ts| !(low..high).contains(ts)).unwrap_or(times.len() - start);
        let rows = start..start + length;
        start += length;
        Some((pane, rows))
    })
}
