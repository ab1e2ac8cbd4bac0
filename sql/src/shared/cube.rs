//! One aggregate over one group list: panes of states, and windows that slide over them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use tidewatch_model::{Span, Timestamp};

use super::kernel::{Kernel, Run};
use crate::moments::Question;

/// How panes are called that are added and subtracted.
pub const SUBTRACT: &str = "subtract";
/// Those of which all of a window are merged at each slide.
pub const MERGED: &str = "panes are merged";

/// A cube, whatever its kernel.
pub trait Cube: Debug + Send {
    /// Takes the rows of one pane.
    fn update(&mut self, pane: Timestamp, run: &Run);
    /// Adds a window that slides over the panes; returns its number.
    fn add_window(&mut self) -> usize;
    /// Moves a window to the panes in `[from, to)`, forward mostly.
    fn slide(&mut self, window: usize, from: Timestamp, to: Timestamp);
    /// Answers for the rows of a window, for each of so many groups.
    ///
    /// # Errors
    /// What could not be aggregated.
    fn answer(&self, window: usize, groups: usize, question: Question) -> Result<ArrayRef>;
    /// Forgets the panes before an instant.
    fn forget_before(&mut self, floor: Timestamp);
    /// Bytes held.
    fn bytes(&self) -> usize;
    /// What happens to panes when a window moves on.
    fn sliding(&self) -> &'static str;
    /// Bytes of one state, without what it holds on the heap.
    fn state_bytes(&self) -> usize;
}

/// A cube with its kernel.
#[derive(Debug)]
pub struct Aggregate<K: Kernel> {
    kernel: K,
    panes: BTreeMap<Timestamp, Stored<K::Pane>>,
    windows: Vec<Window<K::State>>,
    /// No pane before this one is to be packed any more.
    packed_to: Timestamp,
}

/// A pane.
#[derive(Debug)]
enum Stored<P> {
    /// Rows may come.
    Open(P),
    /// All windows have taken it in: it waits, in few bytes, to be subtracted or stacked.
    Packed(Box<[u8]>),
}

/// Panes of cubes with more than so many are packed, if one comes less often than this: packing costs as much as a row or two.
const UNPACKED_PANES: usize = 64;
const PACKED_WIDTH: Span = Span::seconds(5);

/// Where a window stands, and the states of all that it covers.
#[derive(Debug)]
struct Window<S> {
    /// The panes covered are those in `[from, to)`.
    from: Timestamp,
    to: Timestamp,
    /// A row came for a pane that was covered already.
    stale: bool,
    /// All panes together, where states can be subtracted; else those since `turn`.
    back: Vec<S>,
    /// Where states can't be subtracted: for panes before `turn` that are still covered, each with all up to `turn`
    /// together; the earliest pane last. Two stacks: a queue that is asked for the sum of all (Tangwongsan et al. 2015).
    /// Of panes far ahead only every so many is here; the others are made from them when their time comes.
    front: Vec<(Timestamp, Vec<S>)>,
}

impl<K: Kernel> Aggregate<K> {
    /// No rows yet.
    pub fn new(kernel: K) -> Self {
        Aggregate { kernel, panes: BTreeMap::new(), windows: vec![], packed_to: Timestamp::MIN }
    }

    /// Calls with the states of a pane.
    fn with_states(pane: &mut Stored<K::Pane>, take: impl FnOnce(&[K::State])) {
        match pane {
            Stored::Open(pane) => take(K::states(pane)),
            Stored::Packed(bytes) => take(&Self::unpacked(bytes)),
        }
    }

    fn unpacked(mut bytes: &[u8]) -> Vec<K::State> {
        let Some(packing) = K::PACKING else { return vec![] };
        std::iter::from_fn(|| if bytes.is_empty() { None } else { (packing.unpack)(&mut bytes) }).collect()
    }

    /// Packs the panes that all windows have taken in.
    fn pack(&mut self) {
        let (Some((first, _)), Some((last, _))) = (self.panes.first_key_value(), self.panes.last_key_value()) else {
            return;
        };
        let is_long =
            self.panes.len() > UNPACKED_PANES && *last - *first > Span(PACKED_WIDTH.0 * self.panes.len() as i64);
        let Some(packing) = K::PACKING.filter(|_| is_long) else { return };
        let standing = self.windows.iter().filter(|window| window.from < window.to);
        let taken = standing.map(|window| window.to).min().unwrap_or(Timestamp::MIN);
        if taken <= self.packed_to {
            return;
        }
        for (_, pane) in self.panes.range_mut(self.packed_to..taken) {
            if let Stored::Open(open) = pane {
                let mut bytes = Vec::new();
                K::states(open).iter().for_each(|state| (packing.pack)(state, &mut bytes));
                *pane = Stored::Packed(bytes.into_boxed_slice());
            }
        }
        self.packed_to = taken;
    }

    /// Puts panes onto a stack, the latest first and every so many only, each with all that lies below it.
    fn stack(
        kernel: &K,
        panes: &mut BTreeMap<Timestamp, Stored<K::Pane>>,
        range: Range<Timestamp>,
        every: usize,
        stack: &mut Vec<(Timestamp, Vec<K::State>)>,
    ) {
        let mut all = stack.last().map(|(_, states)| states.clone()).unwrap_or_default();
        for (index, (start, pane)) in panes.range_mut(range).rev().enumerate() {
            Self::with_states(pane, |earlier| {
                let mut states = earlier.to_vec();
                Self::add(kernel, &mut states, &all);
                all = states;
            });
            if index % every == 0 {
                stack.push((*start, all.clone()));
            }
        }
    }

    fn add(kernel: &K, into: &mut Vec<K::State>, states: &[K::State]) {
        if into.len() < states.len() {
            into.resize(states.len(), K::State::default());
        }
        for (into, state) in into.iter_mut().zip(states) {
            kernel.merge(into, state);
        }
    }
}

impl<K: Kernel> Cube for Aggregate<K> {
    fn update(&mut self, pane: Timestamp, run: &Run) {
        for window in &mut self.windows {
            window.stale |= window.from <= pane && pane < window.to;
        }
        let stored = self.panes.entry(pane).or_insert_with(|| Stored::Open(K::Pane::default()));
        if let (Stored::Packed(bytes), Some(packing)) = (&*stored, K::PACKING) {
            *stored = Stored::Open((packing.pane)(Self::unpacked(bytes)));
        }
        if let Stored::Open(open) = stored {
            self.kernel.update(open, run);
        }
    }

    fn add_window(&mut self) -> usize {
        let never = Timestamp::MIN;
        self.windows.push(Window { from: never, to: never, stale: false, back: vec![], front: vec![] });
        self.windows.len() - 1
    }

    fn slide(&mut self, window: usize, from: Timestamp, to: Timestamp) {
        let Aggregate { kernel, panes, windows, .. } = self;
        let window = &mut windows[window];
        let goes_on = !window.stale && window.from <= from && from <= window.to && window.to <= to;
        if !goes_on {
            window.back.clear();
            window.front.clear();
            (window.from, window.to, window.stale) = (from, from, false);
        }
        for (_, pane) in panes.range_mut(window.to..to) {
            Self::with_states(pane, |states| Self::add(kernel, &mut window.back, states));
        }
        window.to = to;
        if window.from == from {
            self.pack();
            return;
        }
        if let Some(subtract) = K::SUBTRACT {
            for (_, pane) in panes.range_mut(window.from..from) {
                Self::with_states(pane, |states| {
                    window.back.iter_mut().zip(states).for_each(|(into, state)| subtract(into, state));
                });
            }
        } else {
            while window.front.last().is_some_and(|(pane, _)| *pane < from) {
                window.front.pop();
            }
            if window.front.is_empty() {
                window.back.clear();
                let count = panes.range(from..to).count();
                let every = if count > UNPACKED_PANES { count.isqrt() } else { 1 };
                Self::stack(kernel, panes, from..to, every, &mut window.front);
            }
            let next = window.front.last().map(|(next, _)| *next);
            if let Some(next) = next.filter(|next| panes.range(from..*next).next().is_some()) {
                Self::stack(kernel, panes, from..next, 1, &mut window.front);
            }
        }
        window.from = from;
        self.pack();
    }

    fn answer(&self, window: usize, groups: usize, question: Question) -> Result<ArrayRef> {
        let window = &self.windows[window];
        let mut padded;
        let states = match window.front.last() {
            None if window.back.len() == groups => &window.back,
            front => {
                padded = front.map(|(_, states)| states.clone()).unwrap_or_default();
                Self::add(&self.kernel, &mut padded, &window.back);
                padded.resize(groups, K::State::default());
                &padded
            }
        };
        Ok(self.kernel.finish(states, question))
    }

    fn forget_before(&mut self, floor: Timestamp) {
        for window in self.windows.iter_mut().filter(|window| window.to <= floor) {
            // Nobody has asked for a whole window's time: it is made anew when somebody does, and holds nothing until then.
            (window.from, window.to, window.stale) = (Timestamp::MIN, Timestamp::MIN, false);
            (window.back, window.front) = (vec![], vec![]);
        }
        // What a window covers it will have to subtract.
        let covered = self.windows.iter().filter(|window| window.from < window.to).map(|window| window.from);
        let floor = covered.fold(floor, Timestamp::min);
        while self.panes.first_key_value().is_some_and(|(pane, _)| *pane < floor) {
            self.panes.pop_first();
        }
    }

    fn bytes(&self) -> usize {
        let state = size_of::<K::State>();
        let panes: usize = self
            .panes
            .values()
            .map(|pane| match pane {
                Stored::Open(pane) => K::pane_bytes(pane),
                Stored::Packed(bytes) => bytes.len(),
            })
            .sum();
        let windows = self.windows.iter().map(|window| {
            let front: usize = window.front.iter().map(|(_, states)| states.capacity()).sum();
            (window.back.capacity() + front) * state
        });
        panes + windows.sum::<usize>()
    }

    fn sliding(&self) -> &'static str {
        if K::SUBTRACT.is_some() { SUBTRACT } else { "two stacks" }
    }

    fn state_bytes(&self) -> usize {
        size_of::<K::State>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Float64Array};
    use arrow::datatypes::{DataType, Float64Type, Int64Type};
    use proptest::prelude::*;

    use super::super::kernel::{Bools, Count, Ends, Exact, Extremes, Floats, Integers, Texts};
    use super::*;

    /// Texts and ends come back from panes that were packed.
    #[test]
    fn what_was_packed_comes_back() {
        fn packed<K: Kernel>(states: &[K::State]) -> Vec<K::State> {
            let mut bytes = vec![];
            states.iter().for_each(|state| (K::PACKING.unwrap().pack)(state, &mut bytes));
            Aggregate::<K>::unpacked(&bytes)
        }
        let texts = [None, Some(Box::from("")), Some(Box::from("x".repeat(300)))];
        assert_eq!(packed::<Extremes<Texts>>(&texts), texts);
        assert_eq!(packed::<Extremes<Bools>>(&[Some(true), None, Some(false)]), [Some(true), None, Some(false)]);
        assert_eq!(packed::<Extremes<Integers>>(&[None, Some(i64::MIN), Some(-1)]), [None, Some(i64::MIN), Some(-1)]);
        let ends = [Some((i64::MAX, Some(-0.0))), None, Some((0, Some(f64::INFINITY))), Some((7, None))];
        assert_eq!(packed::<Ends<Floats>>(&ends), ends);
    }

    /// Panes as long as those that are packed.
    const WIDTH: i64 = 10_000_000;

    proptest! {
        /// Whatever the windows do, they answer as if they were made anew from the rows.
        #[test]
        fn windows_slide_as_if_made_anew(
            rows in prop::collection::vec((0..240i64, 0..3u32, -9.0..9.0f64), 1..400),
            steps in prop::collection::vec((0..5i64, prop_oneof![1..12i64, 100..160i64], 0..60usize), 1..20),
        ) {
            let mut count = Aggregate::new(Count);
            let mut sum = Aggregate::new(Exact::<crate::exact::ExactSum>::default());
            let mut max = Aggregate::new(Extremes::<Floats>::new(true, &DataType::Float64));
            for cube in [&mut count as &mut dyn Cube, &mut sum, &mut max] {
                cube.add_window();
            }
            let mut rows = rows.into_iter();
            let mut taken: Vec<(i64, u32, f64)> = vec![];
            let mut from = 0i64;
            for (forward, size, arrive) in steps {
                for (pane, group, value) in rows.by_ref().take(arrive) {
                    let values: ArrayRef = Arc::new(Float64Array::from(vec![value]));
                    let run = Run { arguments: &[values], mask: None, groups: &[group], rows: 0..1, group_count: 3 };
                    for cube in [&mut count as &mut dyn Cube, &mut sum, &mut max] {
                        cube.update(Timestamp(pane * WIDTH), &run);
                    }
                    taken.push((pane, group, value));
                }
                from += forward;
                let (start, end) = (Timestamp(from * WIDTH), Timestamp((from + size) * WIDTH));
                count.slide(0, start, end);
                let counts = count.answer(0, 3, Question::Plain).unwrap();
                sum.slide(0, start, end);
                let sums = sum.answer(0, 3, Question::Plain).unwrap();
                max.slide(0, start, end);
                let maxima = max.answer(0, 3, Question::Plain).unwrap();
                for group in 0..3u32 {
                    let inside: Vec<f64> = taken.iter().filter(|(pane, g, _)| *g == group && start.0 <= *pane * WIDTH && *pane * WIDTH < end.0).map(|row| row.2).collect();
                    prop_assert_eq!(counts.as_primitive::<Int64Type>().value(group as usize), inside.len() as i64);
                    let maximum = inside.iter().copied().reduce(f64::max);
                    let found = maxima.as_primitive::<Float64Type>();
                    prop_assert_eq!(found.is_valid(group as usize).then(|| found.value(group as usize)), maximum);
                    let found = sums.as_primitive::<Float64Type>();
                    let mut exact = crate::exact::ExactSum::default();
                    inside.iter().for_each(|value| exact.add(*value));
                    prop_assert_eq!(found.is_valid(group as usize).then(|| found.value(group as usize)), exact.sum());
                }
            }
        }
    }
}
