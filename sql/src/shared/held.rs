//! What an OVER remembers whose function needs the values of its frame themselves: medians, deviations, smoothed means.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::Result;

use super::frame::{Over, Rows};
use crate::robust::{Decay, Sample, deviation, key, median, smoothed, whole_median};

/// A function of the values of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OfFrame {
    /// The median.
    Median {
        /// Of whole numbers.
        whole: bool,
    },
    /// The median absolute deviation.
    Deviation,
    /// The smoothed mean. Its arguments are the value and the time.
    Smoothed(Decay),
}

impl fmt::Display for OfFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfFrame::Median { .. } => f.write_str("median"),
            OfFrame::Deviation => f.write_str("mad"),
            OfFrame::Smoothed(decay) => write!(f, "ewma by {decay}"),
        }
    }
}

/// The values of frames. The cost of a row grows with the values in its frame; with their number for means, with a move of their
/// bytes for medians.
#[derive(Debug)]
pub struct Held {
    asked: OfFrame,
    partitions: Vec<Frame>,
}

/// The frame of one partition.
#[derive(Debug, Clone, Default)]
struct Frame {
    /// The rows of the frame and those after it; those without a value too.
    rows: VecDeque<Option<Sample>>,
    /// The number of the first of them: where the frame starts.
    start: u64,
    /// Where the frame ends.
    end: u64,
    /// The values of the frame in order, for medians.
    sorted: Vec<i64>,
}

impl Held {
    /// Nothing remembered.
    pub fn new(asked: OfFrame) -> Held {
        Held { asked, partitions: vec![] }
    }

    /// The values of rows; `None` where there is none, or FILTER does not let it pass.
    fn samples(&self, rows: &Rows) -> Vec<Option<Sample>> {
        let passes = |row: usize| rows.mask.is_none_or(|mask| mask.value(row));
        let value = &rows.arguments[0];
        let count = rows.partitions.len();
        let counts = |row: &usize| value.is_valid(*row) && passes(*row);
        let times = |row: usize| -> Option<i64> {
            let OfFrame::Smoothed(_) = self.asked else { return Some(0) };
            let times = rows.arguments[1].as_primitive::<TimestampMicrosecondType>();
            times.is_valid(row).then(|| times.value(row))
        };
        match value.data_type() {
            DataType::Int64 => {
                let numbers = value.as_primitive::<Int64Type>();
                (0..count).map(|row| counts(&row).then(|| (0, numbers.value(row)))).collect()
            }
            _ => {
                let numbers = value.as_primitive::<Float64Type>();
                (0..count).map(|row| Some((times(row).filter(|_| counts(&row))?, key(numbers.value(row))))).collect()
            }
        }
    }
}

impl Frame {
    fn slide(&mut self, (from, to): (u64, u64), in_order: bool) {
        let to = to.max(from);
        if from >= self.end {
            // Nothing of the old frame is in the new one.
            self.sorted.clear();
            self.rows.drain(..((from - self.start) as usize).min(self.rows.len()));
            (self.start, self.end) = (from, from);
        }
        while self.end < to {
            if let Some(Some((_, value))) = self.rows.get((self.end - self.start) as usize)
                && in_order
            {
                self.sorted.insert(self.sorted.partition_point(|known| known < value), *value);
            }
            self.end += 1;
        }
        while self.start < from {
            if let Some(Some((_, value))) = self.rows.pop_front()
                && let Ok(place) = self.sorted.binary_search(&value)
            {
                self.sorted.remove(place);
            }
            self.start += 1;
        }
    }

    fn smoothed(&self, decay: Decay) -> Option<f64> {
        let mut samples: Vec<Sample> =
            self.rows.iter().take((self.end - self.start) as usize).flatten().copied().collect();
        // Rows of one time are in the order of their identity.
        samples.sort();
        smoothed(&samples, decay)
    }
}

impl Over for Held {
    fn answer(&mut self, rows: &Rows) -> Result<ArrayRef> {
        if self.partitions.len() < rows.partition_count {
            self.partitions.resize_with(rows.partition_count, Frame::default);
        }
        for (row, sample) in self.samples(rows).into_iter().enumerate().filter(|(row, _)| (rows.counts)(*row)) {
            self.partitions[rows.partitions[row] as usize].rows.push_back(sample);
        }
        let mut numbers = Vec::new();
        let mut wholes = Vec::new();
        let in_order = !matches!(self.asked, OfFrame::Smoothed(_));
        for row in 0..rows.partitions.len() {
            if !(rows.counts)(row) {
                numbers.push(None);
                wholes.push(None);
                continue;
            }
            let frame = &mut self.partitions[rows.partitions[row] as usize];
            frame.slide(rows.frames[row], in_order);
            match self.asked {
                OfFrame::Median { whole: true } => wholes.push(whole_median(&frame.sorted)),
                OfFrame::Median { whole: false } => numbers.push(median(&frame.sorted)),
                OfFrame::Deviation => numbers.push(deviation(&frame.sorted)),
                OfFrame::Smoothed(decay) => numbers.push(frame.smoothed(decay)),
            }
        }
        Ok(match self.asked {
            OfFrame::Median { whole: true } => Arc::new(Int64Array::from(wholes)),
            _ => Arc::new(Float64Array::from(numbers)),
        })
    }

    fn forget(&mut self, partition: u32) {
        if let Some(known) = self.partitions.get_mut(partition as usize) {
            *known = Frame::default();
        }
    }

    fn bytes(&self) -> usize {
        let values = self.partitions.iter().map(|known| {
            known.rows.capacity() * size_of::<Option<Sample>>() + known.sorted.capacity() * size_of::<i64>()
        });
        self.partitions.capacity() * size_of::<Frame>() + values.sum::<usize>()
    }
}
