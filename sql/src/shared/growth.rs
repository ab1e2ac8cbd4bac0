//! By how much a counter grew, over its resets: what `increase` and `rate` are made of.
//!
//! Between two neighbours in time the growth is their difference, or the later value where that is smaller: the counter
//! began anew at zero. This is Prometheus' rule for resets, without its extrapolation to the window's ends: the result is
//! what was counted between the first and the last row, and an integer counter stays an integer.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

use super::kernel::{Kernel, Run};
use crate::exact::ExactSum;
use crate::moments::Question;

/// A type that counters have. A sample is the value's 64 bits.
pub trait Counter: Debug + Send + Sync + 'static {
    /// Sums growths, exactly.
    type Sum: Clone + Default + Debug + Send;
    /// The bits of each row.
    fn bits(array: &dyn Array) -> Vec<i64>;
    /// Adds the growth from one sample to the next.
    fn grow(sum: &mut Self::Sum, before: i64, after: i64);
    /// Adds another sum.
    fn add(sum: &mut Self::Sum, other: &Self::Sum);
    /// As a number.
    fn number(sum: &Self::Sum) -> f64;
    /// As the counter's own type.
    fn array(sums: Vec<Option<&Self::Sum>>) -> ArrayRef;
}

/// Int64.
#[derive(Debug, Default)]
pub struct IntegerCounter;
/// Float64.
#[derive(Debug, Default)]
pub struct FloatCounter;

impl Counter for IntegerCounter {
    type Sum = i128;
    fn bits(array: &dyn Array) -> Vec<i64> {
        array.as_primitive::<Int64Type>().values().to_vec()
    }
    fn grow(sum: &mut i128, before: i64, after: i64) {
        let (before, after) = (i128::from(before), i128::from(after));
        *sum += if after < before { after } else { after - before };
    }
    fn add(sum: &mut i128, other: &i128) {
        *sum += other;
    }
    fn number(sum: &i128) -> f64 {
        *sum as f64
    }
    fn array(sums: Vec<Option<&i128>>) -> ArrayRef {
        let fit = |sum: &i128| (*sum).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        Arc::new(sums.into_iter().map(|sum| sum.map(fit)).collect::<Int64Array>())
    }
}

impl Counter for FloatCounter {
    type Sum = ExactSum;
    fn bits(array: &dyn Array) -> Vec<i64> {
        array.as_primitive::<Float64Type>().values().iter().map(|value| value.to_bits() as i64).collect()
    }
    fn grow(sum: &mut ExactSum, before: i64, after: i64) {
        let (before, after) = (f64::from_bits(before as u64), f64::from_bits(after as u64));
        sum.add(if after < before { after } else { after - before });
    }
    fn add(sum: &mut ExactSum, other: &ExactSum) {
        sum.merge(other);
    }
    fn number(sum: &ExactSum) -> f64 {
        sum.sum().unwrap_or_default()
    }
    fn array(sums: Vec<Option<&ExactSum>>) -> ArrayRef {
        Arc::new(sums.into_iter().map(|sum| sum.map(Self::number)).collect::<Float64Array>())
    }
}

/// The growth of one counter over some time.
#[derive(Debug, Clone)]
pub struct Grown<S> {
    /// Time and bits of the first sample.
    first: (i64, i64),
    /// Of the last.
    last: (i64, i64),
    /// Whether there is more than one.
    several: bool,
    sum: S,
}

impl<S: Default> Grown<S> {
    /// Over samples in order of time, then of bits; `None` without any.
    pub fn over<C: Counter<Sum = S>>(samples: impl IntoIterator<Item = (i64, i64)>) -> Option<Self> {
        let mut samples = samples.into_iter();
        let first = samples.next()?;
        let mut grown = Grown { first, last: first, several: false, sum: S::default() };
        for sample in samples {
            C::grow(&mut grown.sum, grown.last.1, sample.1);
            grown.last = sample;
            grown.several = true;
        }
        Some(grown)
    }
}

/// The answers: NULL below two samples, and for a rate when no time passed.
pub fn answers<C: Counter>(states: &[Option<Grown<C::Sum>>], question: Question) -> ArrayRef {
    let several = states.iter().map(|state| state.as_ref().filter(|grown| grown.several));
    match question {
        Question::Rate => {
            let rate = |grown: &Grown<C::Sum>| {
                let seconds = (grown.last.0 - grown.first.0) as f64 / 1e6;
                (seconds > 0.0).then(|| C::number(&grown.sum) / seconds)
            };
            Arc::new(several.map(|grown| grown.and_then(rate)).collect::<Float64Array>())
        }
        _ => C::array(several.map(|grown| grown.map(|grown| &grown.sum)).collect()),
    }
}

/// `increase(counter, ts)` and `rate(counter, ts)`.
#[derive(Debug, Default)]
pub struct Growth<C> {
    over: PhantomData<C>,
}

/// A sample: group, time, bits.
type Sample = (u32, i64, i64);

/// The samples of a pane. A late one may fall between any two, so they are kept; of values that stay the same only the first
/// and the last are.
#[derive(Debug)]
pub struct Samples<S> {
    /// Sorted by group, time and bits.
    sorted: Vec<Sample>,
    arrived: Vec<Sample>,
    groups: usize,
    states: Vec<Option<Grown<S>>>,
}

impl<S> Default for Samples<S> {
    fn default() -> Self {
        Samples { sorted: vec![], arrived: vec![], groups: 0, states: vec![] }
    }
}

impl<S: Clone + Default> Samples<S> {
    /// Brings what arrived into order.
    fn seal<C: Counter<Sum = S>>(&mut self) {
        if self.arrived.is_empty() {
            return;
        }
        let mut ends = vec![0usize; self.groups + 1];
        for (group, _, _) in self.sorted.iter().chain(&self.arrived) {
            ends[*group as usize + 1] += 1;
        }
        for group in 0..self.groups {
            ends[group + 1] += ends[group];
        }
        let mut places = ends.clone();
        let mut all: Vec<Sample> = vec![(0, 0, 0); self.sorted.len() + self.arrived.len()];
        for sample in self.sorted.drain(..).chain(self.arrived.drain(..)) {
            let place = &mut places[sample.0 as usize];
            all[*place] = sample;
            *place += 1;
        }
        self.states.clear();
        for group in 0..self.groups {
            let samples = &mut all[ends[group]..ends[group + 1]];
            if !samples.is_sorted() {
                samples.sort_unstable();
            }
            self.states.push(Grown::over::<C>(samples.iter().map(|(_, ts, bits)| (*ts, *bits))));
            for (index, sample) in samples.iter().enumerate() {
                let same = |other: Option<&Sample>| other.is_some_and(|other| other.2 == sample.2);
                if !(index > 0 && same(samples.get(index - 1)) && same(samples.get(index + 1))) {
                    self.sorted.push(*sample);
                }
            }
        }
        self.arrived.shrink_to(64);
        self.sorted.shrink_to_fit();
    }
}

impl<C: Counter> Kernel for Growth<C> {
    type State = Option<Grown<C::Sum>>;
    type Pane = Samples<C::Sum>;

    fn update(&self, pane: &mut Self::Pane, run: &Run) {
        pane.groups = pane.groups.max(run.group_count);
        let first = run.rows.start;
        let bits = C::bits(run.arguments[0].slice(first, run.rows.len()).as_ref());
        let times = run.arguments[1].as_primitive::<TimestampMicrosecondType>();
        run.each(run.arguments[0].nulls(), |row, group| {
            if times.is_valid(row) {
                pane.arrived.push((group as u32, times.value(row), bits[row - first]));
            }
        });
    }

    fn states(pane: &mut Self::Pane) -> &[Self::State] {
        pane.seal::<C>();
        &pane.states
    }

    fn merge(&self, into: &mut Self::State, later: &Self::State) {
        let Some(later) = later else { return };
        match into {
            None => *into = Some(later.clone()),
            Some(grown) => {
                C::grow(&mut grown.sum, grown.last.1, later.first.1);
                C::add(&mut grown.sum, &later.sum);
                grown.last = later.last;
                grown.several = true;
            }
        }
    }

    const SUBTRACT: Option<fn(&mut Self::State, &Self::State)> = None;

    fn finish(&self, states: &[Self::State], question: Question) -> ArrayRef {
        answers::<C>(states, question)
    }

    fn pane_bytes(pane: &Self::Pane) -> usize {
        (pane.sorted.capacity() + pane.arrived.capacity()) * size_of::<Sample>()
            + pane.states.capacity() * size_of::<Self::State>()
    }
}
