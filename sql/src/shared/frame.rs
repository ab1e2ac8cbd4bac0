//! What an OVER remembers of its frames.
//!
//! Rows come in order. A frame only moves forward, so what is remembered of its rows is added to and taken from, as with the
//! panes of a window: by the same kernels, one row being a pane of its own.

use std::collections::VecDeque;
use std::fmt;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};

use super::held;
use super::kernel::{Kernel, Run};
use super::over::{Asked, OverCall, Place};
use super::plan::Make;
use crate::moments::Question;

/// Rows in order, evaluated.
pub struct Rows<'a> {
    /// The arguments.
    pub arguments: &'a [ArrayRef],
    /// Which rows pass FILTER; all, when absent.
    pub mask: Option<&'a BooleanArray>,
    /// The partition of each.
    pub partitions: &'a [u32],
    /// How many partitions there are.
    pub partition_count: usize,
    /// By row: its frame, as numbers of rows of its partition, from the partition's first on; the end is not in it.
    pub frames: &'a [(u64, u64)],
    /// Whether a row is of any partition.
    pub counts: &'a dyn Fn(usize) -> bool,
}

/// What an OVER remembers.
pub trait Over: fmt::Debug + Send {
    /// Takes rows, and answers for each; NULL for one of no partition.
    fn answer(&mut self, rows: &Rows) -> Result<ArrayRef>;
    /// Forgets everything of a partition.
    fn forget(&mut self, partition: u32);
    /// Bytes held, about.
    fn bytes(&self) -> usize;
}

impl OverCall {
    /// Nothing remembered.
    pub fn begin(&self) -> Box<dyn Over> {
        match &self.asked {
            Asked::Aggregate(call, question) => call.function.with(Begin(*question)),
            Asked::Held { function, .. } => Box::new(held::Held::new(*function)),
            Asked::Value { place, default, .. } => {
                Box::new(Values { place: *place, default: default.clone(), partitions: vec![] })
            }
        }
    }
}

struct Begin(Question);

impl Make for Begin {
    type Made = Box<dyn Over>;
    fn make<K: Kernel>(self, kernel: K) -> Box<dyn Over> {
        Box::new(Sliding { kernel, question: self.0, partitions: vec![] })
    }
}

/// An aggregate over frames.
#[derive(Debug)]
struct Sliding<K: Kernel> {
    kernel: K,
    question: Question,
    partitions: Vec<Slider<K::State>>,
}

/// The frame of one partition.
#[derive(Debug, Clone, Default)]
struct Slider<S> {
    /// States of single rows: those of the frame, and those after it.
    rows: VecDeque<S>,
    /// The number of the first of them: where the frame starts.
    start: u64,
    /// Where the frame ends.
    end: u64,
    /// All of the frame, where states can be subtracted; else those since the turn.
    back: S,
    /// Where states can't be subtracted: for each row before the turn, it and all up to the turn together; the earliest last.
    front: Vec<S>,
}

impl<S: Clone + Default> Slider<S> {
    fn slide<K: Kernel<State = S>>(&mut self, kernel: &K, (from, to): (u64, u64)) -> S {
        let to = to.max(from);
        if from >= self.end {
            // Nothing of the old frame is in the new one.
            (self.back, self.front) = (S::default(), vec![]);
            self.rows.drain(..((from - self.start) as usize).min(self.rows.len()));
            (self.start, self.end) = (from, from);
        }
        while self.end < to {
            if let Some(row) = self.rows.get((self.end - self.start) as usize) {
                kernel.merge(&mut self.back, row);
            }
            self.end += 1;
        }
        while self.start < from {
            match K::SUBTRACT {
                Some(subtract) => {
                    if let Some(gone) = self.rows.pop_front() {
                        subtract(&mut self.back, &gone);
                    }
                }
                None => {
                    if self.front.is_empty() {
                        self.turn(kernel);
                    }
                    self.front.pop();
                    self.rows.pop_front();
                }
            }
            self.start += 1;
        }
        match self.front.last() {
            Some(front) => {
                let mut all = front.clone();
                kernel.merge(&mut all, &self.back);
                all
            }
            None => self.back.clone(),
        }
    }

    fn turn<K: Kernel<State = S>>(&mut self, kernel: &K) {
        let mut all = S::default();
        for row in self.rows.iter().take((self.end - self.start) as usize).rev() {
            let mut with = row.clone();
            kernel.merge(&mut with, &all);
            all = with.clone();
            self.front.push(with);
        }
        self.back = S::default();
    }
}

impl<K: Kernel> Over for Sliding<K> {
    fn answer(&mut self, rows: &Rows) -> Result<ArrayRef> {
        let count = rows.partitions.len();
        if self.partitions.len() < rows.partition_count {
            self.partitions.resize_with(rows.partition_count, Slider::default);
        }
        // Each row is a group of its own.
        let alone: Vec<u32> = (0..count as u32).collect();
        let run =
            Run { arguments: rows.arguments, mask: rows.mask, groups: &alone, rows: 0..count, group_count: count };
        let mut pane = K::Pane::default();
        self.kernel.update(&mut pane, &run);
        let singles = K::states(&mut pane);
        for row in (0..count).filter(|row| (rows.counts)(*row)) {
            let state = singles.get(row).cloned().unwrap_or_default();
            self.partitions[rows.partitions[row] as usize].rows.push_back(state);
        }
        let mut states = Vec::with_capacity(count);
        for row in 0..count {
            states.push(match (rows.counts)(row) {
                true => self.partitions[rows.partitions[row] as usize].slide(&self.kernel, rows.frames[row]),
                false => K::State::default(),
            });
        }
        Ok(self.kernel.finish(&states, self.question))
    }

    fn forget(&mut self, partition: u32) {
        if let Some(known) = self.partitions.get_mut(partition as usize) {
            *known = Slider::default();
        }
    }

    fn bytes(&self) -> usize {
        let states = self.partitions.iter().map(|known| known.rows.capacity() + known.front.capacity());
        self.partitions.capacity() * size_of::<Slider<K::State>>() + states.sum::<usize>() * size_of::<K::State>()
    }
}

/// Single values of frames.
#[derive(Debug)]
struct Values {
    place: Place,
    default: ScalarValue,
    partitions: Vec<Held>,
}

/// The values of one partition that some frame may still ask for.
#[derive(Debug, Clone, Default)]
struct Held {
    /// One array per batch of rows.
    values: VecDeque<ArrayRef>,
    /// The number of the first value.
    start: u64,
}

impl Held {
    fn get(&self, number: u64) -> Result<Option<ScalarValue>> {
        let Some(mut place) = number.checked_sub(self.start) else { return Ok(None) };
        for values in &self.values {
            match place < values.len() as u64 {
                true => return ScalarValue::try_from_array(values, place as usize).map(Some),
                false => place -= values.len() as u64,
            }
        }
        Ok(None)
    }

    fn forget_before(&mut self, number: u64) {
        while let Some(first) = self.values.front()
            && self.start + first.len() as u64 <= number
        {
            self.start += first.len() as u64;
            self.values.pop_front();
        }
        // One array per batch would be many small ones.
        if self.values.len() > 64
            && let Ok(all) = concat(&self.values.iter().map(AsRef::as_ref).collect::<Vec<_>>())
        {
            let skipped = number.saturating_sub(self.start).min(all.len() as u64);
            self.start += skipped;
            // A slice would keep all of them.
            let kept = UInt32Array::from_iter_values(skipped as u32..all.len() as u32);
            self.values = take(&all, &kept, None).into_iter().collect();
        }
    }
}

impl Over for Values {
    fn answer(&mut self, rows: &Rows) -> Result<ArrayRef> {
        if self.partitions.len() < rows.partition_count {
            self.partitions.resize_with(rows.partition_count, Held::default);
        }
        let argument = &rows.arguments[0];
        let mut of_partition: Vec<(u32, u32)> = (0..rows.partitions.len())
            .filter(|row| (rows.counts)(*row))
            .map(|row| (rows.partitions[row], row as u32))
            .collect();
        of_partition.sort_unstable();
        for run in of_partition.chunk_by(|left, right| left.0 == right.0) {
            let places = UInt32Array::from_iter_values(run.iter().map(|(_, row)| *row));
            self.partitions[run[0].0 as usize].values.push_back(take(argument, &places, None)?);
        }
        let mut answers = Vec::with_capacity(rows.partitions.len());
        for (row, (from, to)) in rows.frames.iter().enumerate() {
            let number = match self.place {
                Place::FromStart(rows) => from.saturating_add(rows),
                Place::Last => to.saturating_sub(1),
            };
            let held = self.partitions.get(rows.partitions[row] as usize);
            let found = match held.filter(|_| (rows.counts)(row) && number >= *from && number < *to) {
                Some(held) => held.get(number)?,
                None => None,
            };
            answers.push(found.unwrap_or_else(|| self.default.clone()));
        }
        for run in of_partition.chunk_by(|left, right| left.0 == right.0) {
            let last = run[run.len() - 1].1 as usize;
            self.partitions[run[0].0 as usize].forget_before(rows.frames[last].0);
        }
        match answers.is_empty() {
            true => Ok(new_empty_array(&self.default.data_type())),
            false => ScalarValue::iter_to_array(answers),
        }
    }

    fn forget(&mut self, partition: u32) {
        if let Some(known) = self.partitions.get_mut(partition as usize) {
            *known = Held::default();
        }
    }

    fn bytes(&self) -> usize {
        let held = self.partitions.iter().flat_map(|known| &known.values).map(|values| values.get_array_memory_size());
        self.partitions.capacity() * size_of::<Held>() + held.sum::<usize>()
    }
}

/// An answer in the type that DataFusion gives it.
pub fn as_type(answer: ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    Ok(if answer.data_type() == wanted { answer } else { cast(&answer, wanted)? })
}
