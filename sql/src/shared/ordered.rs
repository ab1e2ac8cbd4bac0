//! OVERs as rows come: rows wait until no earlier one can come, then pass in order, and each gets its columns. Rules over the same rows with
//! the same OVER share it.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, not, nullif};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use tidewatch_model::limits::{OVER_SWEEP, RULE_GROUPS, WINDOW_ROWS};
use tidewatch_model::table::TIME_COLUMN;
use tidewatch_model::{Span, Timestamp};

use super::chunk::evaluate;
use super::frame::{Over, Rows, as_type};
use super::grouping::{Grouping, NO_GROUP};
use super::over::{Frame, OverCall};
use super::plan::{RowPlan, physical};
use crate::flat::over_name;
use crate::panes::{bytes_of, canonical, times};
use crate::values::truths;

/// The OVERs of one table.
#[derive(Debug)]
pub struct Ordered {
    /// The columns that some rule reads, `ts` first.
    schema: SchemaRef,
    columns: Vec<usize>,
    /// Columns that put rows of one time in order.
    identity: Vec<String>,
    lines: Vec<Line>,
    /// Rows that came after later ones had passed.
    pub late_rows: u64,
    /// Rows that were forgotten before their frames ended, since there were too many.
    forgotten_rows: u64,
}

/// Rows that wait equally long.
#[derive(Debug)]
struct Line {
    delay: Span,
    /// Rows before this have passed.
    passed: Timestamp,
    /// The earliest row that was seen.
    begun: Option<Timestamp>,
    /// Where it stood before a restart: rows before were judged, if not by all of its rules.
    restored: Option<Timestamp>,
    waiting: Vec<Waiting>,
    streams: Vec<Stream>,
}

/// Rows that wait, and their earliest and latest time.
#[derive(Debug)]
struct Waiting {
    rows: RecordBatch,
    first: i64,
    last: i64,
}

impl Waiting {
    fn of(rows: RecordBatch) -> Option<Waiting> {
        let found = times(&rows)?.values();
        let (first, last) = (*found.iter().min()?, *found.iter().max()?);
        Some(Waiting { rows, first, last })
    }
}

/// Rows that pass a condition.
#[derive(Debug)]
struct Stream {
    conditions: Vec<Expr>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    partitions: Vec<Partitioned>,
    calls: Vec<Called>,
}

/// A PARTITION BY.
#[derive(Debug)]
struct Partitioned {
    exprs: Vec<Expr>,
    inputs: Vec<Arc<dyn PhysicalExpr>>,
    grouping: Grouping,
    /// By partition.
    rings: Vec<Ring>,
    /// How many of the grouping's numbers have been given to another partition since.
    reused: u64,
    /// How far back its frames reach.
    reach: Span,
    /// When its rings were looked through last.
    swept: i64,
}

/// The times of the rows of one partition, as far back as frames reach.
#[derive(Debug, Clone, Default)]
struct Ring {
    /// The number of the first.
    first: u64,
    times: VecDeque<i64>,
}

/// An OVER and what it remembers.
#[derive(Debug)]
struct Called {
    call: OverCall,
    partition: usize,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    over: Box<dyn Over>,
    /// Rules that use it.
    rules: usize,
}

/// Where a rule finds its OVERs.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its line.
    pub line: usize,
    stream: usize,
    calls: Vec<usize>,
}

/// Rows that passed.
pub struct Passed {
    /// All of them, in order, with the columns that some rule reads.
    pub rows: RecordBatch,
    streams: Vec<Result<Entered>>,
}

/// Those that pass the condition of a stream, and the columns of its OVERs.
struct Entered {
    rows: RecordBatch,
    /// The columns, and what went wrong with single rows of each.
    columns: Vec<(ArrayRef, Option<String>)>,
    /// What went wrong with the condition, or the partition, of single rows.
    fault: Option<String>,
}

/// What is shared, for `explain`.
pub struct Shared {
    /// The OVER.
    pub call: String,
    /// Rules that use it.
    pub rules: usize,
    /// How far back its frame reaches.
    pub reach: Span,
    /// Rows held now.
    pub rows: usize,
    /// Bytes held now, about.
    pub bytes: usize,
}

impl Ordered {
    /// For these rules of a table, with the time that they wait; their places come in their order.
    pub fn new(table: &Schema, identity: &[String], plans: &[(&RowPlan, Span)]) -> Result<(Ordered, Vec<Place>)> {
        let mut columns = vec![table.index_of(TIME_COLUMN)?];
        for name in identity.iter().filter(|_| !plans.is_empty()) {
            columns.push(table.index_of(name)?);
        }
        for (plan, _) in plans {
            for name in columns_of(plan) {
                match table.index_of(&name) {
                    Ok(index) if !columns.contains(&index) => columns.push(index),
                    // The columns of OVERs are not the table's.
                    _ => {}
                }
            }
        }
        let schema = Arc::new(table.project(&columns)?);
        let identity = identity.to_vec();
        let mut ordered = Ordered { schema, columns, identity, lines: vec![], late_rows: 0, forgotten_rows: 0 };
        let places = plans.iter().map(|(plan, delay)| ordered.place(plan, *delay)).collect::<Result<Vec<_>>>()?;
        Ok((ordered, places))
    }

    /// The schema that rules' expressions are over: the columns of rows, then those of the rule's OVERs.
    pub fn schema(&self, plan: &RowPlan) -> SchemaRef {
        let overs = plan
            .overs
            .iter()
            .enumerate()
            .map(|(index, call)| Arc::new(Field::new(over_name(index), call.data_type.clone(), true)));
        Arc::new(Schema::new(self.schema.fields().iter().cloned().chain(overs).collect::<Vec<_>>()))
    }

    fn place(&mut self, plan: &RowPlan, delay: Span) -> Result<Place> {
        let line = match self.lines.iter().position(|line| line.delay == delay) {
            Some(line) => line,
            None => {
                let (passed, waiting) = (Timestamp::MIN, vec![]);
                self.lines.push(Line { delay, passed, begun: None, restored: None, waiting, streams: vec![] });
                self.lines.len() - 1
            }
        };
        let conditions: Vec<Expr> = plan.labels.iter().chain(&plan.values).cloned().collect();
        let streams = &mut self.lines[line].streams;
        let stream = match streams.iter().position(|stream| stream.conditions == conditions) {
            Some(stream) => stream,
            None => {
                let condition = conjunction(conditions.clone());
                let condition = condition.map(|condition| physical(&condition, &self.schema)).transpose()?;
                streams.push(Stream { conditions, condition, partitions: vec![], calls: vec![] });
                streams.len() - 1
            }
        };
        let calls =
            plan.overs.iter().map(|call| streams[stream].call(call, &self.schema)).collect::<Result<Vec<_>>>()?;
        Ok(Place { line, stream, calls })
    }

    /// Takes rows.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.project(&self.columns)?;
        let Some(found) = times(&rows) else { return Ok(()) };
        let (Some(first), Some(last)) = (found.values().iter().min(), found.values().iter().max()) else {
            return Ok(());
        };
        for line in &mut self.lines {
            line.begun = Some(line.begun.map_or(Timestamp(*first), |begun| begun.min(Timestamp(*first))));
            if *first >= line.passed.0 {
                line.waiting.push(Waiting { rows: rows.clone(), first: *first, last: *last });
                continue;
            }
            let late = found.values().iter().filter(|ts| **ts < line.passed.0).count();
            self.late_rows += late as u64;
            if *last >= line.passed.0 {
                let kept: BooleanArray = found.values().iter().map(|ts| Some(*ts >= line.passed.0)).collect();
                line.waiting.extend(Waiting::of(filter_record_batch(&rows, &kept)?));
            }
        }
        Ok(())
    }

    /// Lets the rows of a line pass that are before `until`.
    pub fn pass(&mut self, line: usize, until: Timestamp) -> Result<Option<Passed>> {
        let Some(rows) = self.lines[line].due(until, &self.schema, &self.identity)? else { return Ok(None) };
        let overflow = &mut self.forgotten_rows;
        let streams = self.lines[line].streams.iter_mut().map(|stream| stream.enter(&rows, overflow)).collect();
        Ok(Some(Passed { rows, streams }))
    }

    /// The lines and how long each waits.
    pub fn lines(&self) -> impl Iterator<Item = (usize, Span)> {
        self.lines.iter().enumerate().map(|(index, line)| (index, line.delay))
    }

    /// Rows of a line before this have passed, or none came.
    pub fn stands(&self, line: usize) -> Option<Timestamp> {
        let line = &self.lines[line];
        if line.passed > Timestamp::MIN { Some(line.passed) } else { line.begun }
    }

    /// The event time from which rows must be read again after a restart.
    pub fn replay_from(&self) -> Option<Timestamp> {
        let from = self.lines.iter().enumerate().filter_map(|(index, line)| {
            let reach = line.streams.iter().flat_map(|stream| &stream.partitions).map(|by| by.reach).max();
            Some(self.stands(index)?.saturating_sub(reach.unwrap_or(Span::ZERO)))
        });
        from.min()
    }

    /// What a rule shares.
    pub fn explain(&self, place: &Place) -> Vec<Shared> {
        let stream = &self.lines[place.line].streams[place.stream];
        let shared = place.calls.iter().map(|index| {
            let Called { call, partition, over, rules, .. } = &stream.calls[*index];
            let rings = &stream.partitions[*partition].rings;
            let rows = rings.iter().map(|ring| ring.times.len()).sum();
            Shared { call: call.to_string(), rules: *rules, reach: call.frame.reach(), rows, bytes: over.bytes() }
        });
        shared.collect()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        let waiting = self.lines.iter().flat_map(|line| &line.waiting).map(|waiting| bytes_of(&waiting.rows));
        let streams = self.lines.iter().flat_map(|line| &line.streams);
        let overs = streams.clone().flat_map(|stream| &stream.calls).map(|called| called.over.bytes());
        let rings = streams.flat_map(|stream| &stream.partitions).flat_map(|by| &by.rings);
        waiting.sum::<usize>()
            + overs.sum::<usize>()
            + rings.map(|ring| ring.times.capacity() * size_of::<i64>()).sum::<usize>()
    }

    /// Takes no new partition any more, or takes them again.
    pub fn close(&mut self, closed: bool) {
        let streams = self.lines.iter_mut().flat_map(|line| &mut line.streams);
        streams.flat_map(|stream| &mut stream.partitions).for_each(|by| by.grouping.close(closed));
    }

    /// Rows of no partition, since there are too many, and rows that were forgotten too early.
    pub fn overflow_rows(&self) -> u64 {
        let streams = self.lines.iter().flat_map(|line| &line.streams);
        let of_none = streams.flat_map(|stream| &stream.partitions).map(|by| by.grouping.overflow_rows);
        self.forgotten_rows + of_none.sum::<u64>()
    }

    /// Puts a line where one of its rules stood before a restart.
    pub fn restore(&mut self, line: usize, stood: Timestamp) {
        let line = &mut self.lines[line];
        line.begun = Some(line.begun.map_or(stood, |begun| begun.min(stood)));
        line.restored = Some(line.restored.map_or(stood, |before| before.min(stood)));
    }

    /// Where a line stood before a restart; its new rules begin there.
    pub fn restored(&self, line: usize) -> Option<Timestamp> {
        self.lines[line].restored
    }
}

impl Passed {
    /// The rows of a rule, with the columns of its OVERs behind; and what went wrong with single ones of them.
    pub fn of(&self, place: &Place, schema: &SchemaRef) -> Result<(RecordBatch, Option<String>)> {
        let entered = match &self.streams[place.stream] {
            Ok(entered) => entered,
            Err(error) => return Err(again(error)),
        };
        let mut columns = entered.rows.columns().to_vec();
        let mut fault = entered.fault.clone();
        for call in &place.calls {
            let (column, of_call) = &entered.columns[*call];
            columns.push(column.clone());
            fault = fault.or_else(|| of_call.clone());
        }
        Ok((RecordBatch::try_new(schema.clone(), columns)?, fault))
    }
}

/// The same error for another rule.
fn again(error: &DataFusionError) -> DataFusionError {
    DataFusionError::Execution(error.strip_backtrace())
}

/// The columns that a plan reads.
fn columns_of(plan: &RowPlan) -> Vec<String> {
    let calls = plan.overs.iter().flat_map(|call| call.arguments().iter().chain(call.filter()).chain(&call.partition));
    let selected = plan.matching.iter().chain(&plan.present).map(|(expression, _)| expression);
    let conditions = plan.labels.iter().chain(&plan.values).chain(&plan.after);
    let all = calls.chain(selected).chain(conditions).flat_map(Expr::column_refs);
    all.map(|column| column.name.clone()).collect()
}

impl Line {
    /// The rows that wait and are before `until`, in order.
    fn due(&mut self, until: Timestamp, schema: &SchemaRef, identity: &[String]) -> Result<Option<RecordBatch>> {
        self.passed = self.passed.max(until);
        if self.waiting.iter().all(|waiting| waiting.first >= until.0) {
            return Ok(None);
        }
        let mut due = Vec::new();
        let mut waits = Vec::new();
        for waiting in self.waiting.drain(..) {
            match (waiting.first < until.0, waiting.last < until.0) {
                (false, _) => waits.push(waiting),
                (true, true) => due.push(waiting.rows),
                (true, false) => {
                    let found = times(&waiting.rows).map(|times| times.values().clone()).unwrap_or_default();
                    let early: BooleanArray = found.iter().map(|ts| Some(*ts < until.0)).collect();
                    due.push(filter_record_batch(&waiting.rows, &early)?);
                    waits.extend(Waiting::of(filter_record_batch(&waiting.rows, &not(&early)?)?));
                }
            }
        }
        self.waiting = waits;
        Ok(Some(canonical(&concat_batches(schema, &due)?, identity)?))
    }
}

impl Stream {
    fn call(&mut self, call: &OverCall, schema: &Schema) -> Result<usize> {
        if let Some(index) = self.calls.iter().position(|known| known.call == *call) {
            self.calls[index].rules += 1;
            return Ok(index);
        }
        let partition = match self.partitions.iter().position(|known| known.exprs == call.partition) {
            Some(partition) => partition,
            None => {
                let inputs = call.partition.iter().map(|part| physical(part, schema)).collect::<Result<Vec<_>>>()?;
                let types = inputs.iter().map(|input| input.data_type(schema)).collect::<Result<Vec<_>>>()?;
                let grouping = Grouping::new(&types, RULE_GROUPS)?;
                let (exprs, rings) = (call.partition.clone(), vec![]);
                self.partitions.push(Partitioned {
                    exprs,
                    inputs,
                    grouping,
                    rings,
                    reused: 0,
                    reach: Span::ZERO,
                    swept: i64::MIN,
                });
                self.partitions.len() - 1
            }
        };
        let by = &mut self.partitions[partition];
        by.reach = by.reach.max(call.frame.reach());
        let arguments =
            call.arguments().iter().map(|argument| physical(argument, schema)).collect::<Result<Vec<_>>>()?;
        let filter = call.filter().map(|filter| physical(filter, schema)).transpose()?;
        let (over, call) = (call.begin(), call.clone());
        self.calls.push(Called { call, partition, arguments, filter, over, rules: 1 });
        Ok(self.calls.len() - 1)
    }

    fn enter(&mut self, rows: &RecordBatch, overflow: &mut u64) -> Result<Entered> {
        let mut fault = None;
        let rows = match &self.condition {
            None => rows.clone(),
            Some(condition) => {
                let passes = evaluated(condition, rows, &mut fault)?;
                filter_record_batch(rows, &truths(&passes))?
            }
        };
        let found = times(&rows).map(|times| times.values().to_vec()).unwrap_or_default();
        let mut numbers = Vec::new();
        for (index, by) in self.partitions.iter_mut().enumerate() {
            let (partitions, gone) = by.number(&rows, &found, &mut fault)?;
            for partition in gone {
                let of_partition = self.calls.iter_mut().filter(|called| called.partition == index);
                of_partition.for_each(|called| called.over.forget(partition));
            }
            numbers.push(partitions);
        }
        let columns = self
            .calls
            .iter_mut()
            .map(|called| called.answer(&rows, &found, &numbers[called.partition], &self.partitions[called.partition]));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        if let Some(last) = found.last() {
            for (index, by) in self.partitions.iter_mut().enumerate() {
                let (lost, empty) = by.forget(*last);
                *overflow += lost;
                for called in self.calls.iter_mut().filter(|called| called.partition == index) {
                    empty.iter().for_each(|partition| called.over.forget(*partition));
                }
            }
        }
        Ok(Entered { rows, columns, fault })
    }
}

/// An expression over rows: NULL where it fails, and why is put into `fault`.
fn evaluated(expression: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, fault: &mut Option<String>) -> Result<ArrayRef> {
    let (values, faults) = evaluate(expression, rows)?;
    if let Some((_, why)) = faults.into_iter().next() {
        fault.get_or_insert(why);
    }
    Ok(values)
}

impl Partitioned {
    /// The partition of each row, whose times join the rings; and the partitions that were given up, whose numbers others have now.
    fn number(
        &mut self,
        rows: &RecordBatch,
        times: &[i64],
        fault: &mut Option<String>,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let keys = self.inputs.iter().map(|input| evaluated(input, rows, fault)).collect::<Result<Vec<_>>>()?;
        let partitions = self.grouping.number(&keys, times)?;
        let mut gone = Vec::new();
        if std::mem::replace(&mut self.reused, self.grouping.reused) != self.grouping.reused {
            // Which of them have another meaning now is not told: those whose last row is long ago.
            let is_old = |ring: &Ring, ts: i64| ring.times.back().is_none_or(|last| ts - last > self.reach.0);
            for (partition, ts) in partitions.iter().zip(times) {
                if self.rings.get(*partition as usize).is_some_and(|ring| is_old(ring, *ts)) {
                    gone.push(*partition);
                }
            }
            gone.sort_unstable();
            gone.dedup();
            gone.iter().for_each(|partition| self.rings[*partition as usize] = Ring::default());
        }
        self.rings.resize_with(self.rings.len().max(self.grouping.len()), Ring::default);
        for (partition, ts) in partitions.iter().zip(times).filter(|(partition, _)| **partition != NO_GROUP) {
            self.rings[*partition as usize].times.push_back(*ts);
        }
        Ok((partitions, gone))
    }

    /// The frame of each row.
    fn frames(&self, frame: Frame, partitions: &[u32], times: &[i64]) -> Vec<(u64, u64)> {
        // By partition: where its next row is, and where the frame of the last one stood.
        let mut cursors: Vec<Option<(u64, u64, u64)>> = vec![None; self.rings.len()];
        let mut new_rows = vec![0u64; self.rings.len()];
        partitions
            .iter()
            .filter(|partition| **partition != NO_GROUP)
            .for_each(|partition| new_rows[*partition as usize] += 1);
        let frames = partitions.iter().zip(times).map(|(partition, ts)| {
            if *partition == NO_GROUP {
                return (0, 0);
            }
            let ring = &self.rings[*partition as usize];
            let end = ring.first + ring.times.len() as u64;
            let begun = end - new_rows[*partition as usize];
            let (number, mut from, mut to) = cursors[*partition as usize].unwrap_or_else(|| match frame {
                // The first of these rows: those before it are not walked over.
                Frame::Range { from: earliest, to: latest } => {
                    let from = ring.times.partition_point(|time| *time < ts - earliest.0);
                    let to = ring.times.partition_point(|time| *time <= ts - latest.0);
                    (begun, ring.first + from as u64, ring.first + to as u64)
                }
                Frame::Rows { .. } => {
                    let from = ring.times.partition_point(|time| *time < ts - frame.reach().0);
                    (begun, ring.first + from as u64, ring.first)
                }
            });
            let at = |number: u64| ring.times.get((number - ring.first) as usize).copied();
            match frame {
                Frame::Range { from: earliest, to: latest } => {
                    while from < end && at(from).is_some_and(|time| time < ts - earliest.0) {
                        from += 1;
                    }
                    to = to.max(from);
                    while to < end && at(to).is_some_and(|time| time <= ts - latest.0) {
                        to += 1;
                    }
                }
                Frame::Rows { from: earliest, to: latest } => {
                    from = from.max(number.saturating_sub(earliest));
                    while from < number && at(from).is_some_and(|time| time < ts - frame.reach().0) {
                        from += 1;
                    }
                    to = (number + 1).saturating_sub(latest).max(from);
                }
            }
            cursors[*partition as usize] = Some((number + 1, from, to));
            (from, to)
        });
        frames.collect()
    }

    /// Forgets times that no frame asks for any more: how many were forgotten before their time, and the partitions that have none left.
    fn forget(&mut self, now: i64) -> (u64, Vec<u32>) {
        if now < self.swept.saturating_add(OVER_SWEEP.0) {
            return (0, vec![]);
        }
        self.swept = now;
        let mut held: usize = 0;
        let mut empty = Vec::new();
        for (partition, ring) in self.rings.iter_mut().enumerate() {
            let had = ring.times.len();
            while ring.times.front().is_some_and(|ts| *ts < now - self.reach.0 - OVER_SWEEP.0) {
                ring.times.pop_front();
                ring.first += 1;
            }
            if had > 0 && ring.times.is_empty() {
                *ring = Ring::default();
                empty.push(partition as u32);
            }
            held += ring.times.len();
        }
        let mut lost = 0;
        while held > WINDOW_ROWS {
            // The longest first: it is the one that is not as others are.
            let Some(longest) = self.rings.iter_mut().max_by_key(|ring| ring.times.len()) else { break };
            let dropped = longest.times.len().div_ceil(2);
            longest.times.drain(..dropped);
            longest.first += dropped as u64;
            (held, lost) = (held - dropped, lost + dropped as u64);
        }
        (lost, empty)
    }
}

impl Called {
    /// The answers, and what went wrong with single rows.
    fn answer(
        &mut self,
        rows: &RecordBatch,
        times: &[i64],
        partitions: &[u32],
        by: &Partitioned,
    ) -> Result<(ArrayRef, Option<String>)> {
        let mut fault = None;
        // What could not be evaluated is NULL to its frames.
        let arguments = self.arguments.iter().map(|input| evaluated(input, rows, &mut fault));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        let mask: Option<BooleanArray> = match &self.filter {
            Some(filter) => Some(truths(&evaluated(filter, rows, &mut fault)?)),
            None => None,
        };
        let frames = by.frames(self.call.frame, partitions, times);
        let counts = |row: usize| partitions[row] != NO_GROUP;
        let partition_count = by.rings.len();
        let rows = Rows {
            arguments: &arguments,
            mask: mask.as_ref(),
            partitions,
            partition_count,
            frames: &frames,
            counts: &counts,
        };
        let answer = as_type(self.over.answer(&rows)?, &self.call.data_type)?;
        if !partitions.contains(&NO_GROUP) {
            return Ok((answer, fault));
        }
        // Too many partitions: a row of none has no answer.
        let none: BooleanArray = partitions.iter().map(|partition| Some(*partition == NO_GROUP)).collect();
        Ok((nullif(&answer, &none)?, fault))
    }
}
