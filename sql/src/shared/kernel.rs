//! What is remembered of many rows for one aggregate: enough to answer for the rows of a pane, of a window, and of both
//! together. Whatever the order of arrival, the same rows give the same bits.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};

use super::grouping::NO_GROUP;
use crate::ends::End;
use crate::moments::{ExactState, Question};
use crate::packed::{put, put_count, put_option, take, take_count, take_option};

/// The rows of one run: their arguments, their groups, and which of them count.
pub struct Run<'a> {
    /// The arguments, evaluated over the whole chunk.
    pub arguments: &'a [ArrayRef],
    /// Which rows of the chunk pass FILTER; all, when absent.
    pub mask: Option<&'a BooleanArray>,
    /// Groups of the rows of the chunk.
    pub groups: &'a [u32],
    /// The rows of the chunk that are meant.
    pub rows: Range<usize>,
    /// How many groups there are.
    pub group_count: usize,
}

impl Run<'_> {
    /// Calls with each row that counts, and its group: it has one, passes FILTER, and its argument is not NULL.
    #[inline]
    pub fn each(&self, nulls: Option<&NullBuffer>, mut take: impl FnMut(usize, usize)) {
        let rows = self.rows.clone();
        if nulls.is_none() && self.mask.is_none() {
            for row in rows {
                let group = self.groups[row];
                if group != NO_GROUP {
                    take(row, group as usize);
                }
            }
            return;
        }
        for row in rows {
            let group = self.groups[row];
            let counts = nulls.is_none_or(|nulls| nulls.is_valid(row)) && self.mask.is_none_or(|mask| mask.value(row));
            if group != NO_GROUP && counts {
                take(row, group as usize);
            }
        }
    }
}

/// One aggregate function over one type of argument.
pub trait Kernel: Debug + Send + Sync + 'static {
    /// What is remembered per group; the default stands for no rows.
    type State: Clone + Default + Send + Debug;
    /// What is remembered of a pane while rows may still come: mostly one state per group.
    type Pane: Default + Send + Debug;

    /// Takes rows into a pane.
    fn update(&self, pane: &mut Self::Pane, run: &Run);
    /// The states of a pane, as far as there are groups with rows.
    fn states(pane: &mut Self::Pane) -> &[Self::State];
    /// Adds what came later in time.
    fn merge(&self, into: &mut Self::State, later: &Self::State);
    /// Takes out what was merged; `None` where that can't be done exactly.
    const SUBTRACT: Option<fn(&mut Self::State, &Self::State)>;
    /// The answers, one per group.
    fn finish(&self, states: &[Self::State], question: Question) -> ArrayRef;
    /// Heap bytes of a pane.
    fn pane_bytes(pane: &Self::Pane) -> usize;
    /// How a pane waits in few bytes until it is needed again, where that is worth while.
    const PACKING: Option<Packing<Self>> = None;
}

/// Panes as bytes and back.
pub struct Packing<K: Kernel + ?Sized> {
    /// Appends a state.
    pub pack: fn(&K::State, &mut Vec<u8>),
    /// Takes one.
    pub unpack: fn(&mut &[u8]) -> Option<K::State>,
    /// Makes a pane of states again.
    pub pane: fn(Vec<K::State>) -> K::Pane,
}

/// The state of a group, grown into being.
#[inline]
fn at<S: Clone + Default>(states: &mut Vec<S>, run: &Run) {
    if states.len() < run.group_count {
        states.resize(run.group_count, S::default());
    }
}

/// `count(*)` and `count(x)`.
#[derive(Debug)]
pub struct Count;

impl Kernel for Count {
    type State = i64;
    type Pane = Vec<i64>;

    fn update(&self, pane: &mut Vec<i64>, run: &Run) {
        at(pane, run);
        let nulls = run.arguments.first().and_then(|argument| argument.logical_nulls());
        run.each(nulls.as_ref(), |_, group| pane[group] += 1);
    }

    fn states(pane: &mut Vec<i64>) -> &[i64] {
        pane
    }

    fn merge(&self, into: &mut i64, later: &i64) {
        *into += later;
    }

    const SUBTRACT: Option<fn(&mut i64, &i64)> = Some(|from, gone| *from -= gone);

    const PACKING: Option<Packing<Self>> = Some(Packing {
        pack: |count, out| put_count(out, *count as u64),
        unpack: |bytes| take_count(bytes).map(|count| count as i64),
        pane: |states| states,
    });

    fn finish(&self, states: &[i64], _: Question) -> ArrayRef {
        Arc::new(Int64Array::from(states.to_vec()))
    }

    fn pane_bytes(pane: &Vec<i64>) -> usize {
        pane.capacity() * size_of::<i64>()
    }
}

/// `sum` over Int64, which wraps around as DataFusion's does.
#[derive(Debug)]
pub struct IntegerSum;

impl Kernel for IntegerSum {
    /// The sum, and how many values it is of.
    type State = (i64, i64);
    type Pane = Vec<(i64, i64)>;

    fn update(&self, pane: &mut Self::Pane, run: &Run) {
        at(pane, run);
        let values = run.arguments[0].as_primitive::<Int64Type>();
        run.each(values.nulls(), |row, group| {
            let (sum, count) = &mut pane[group];
            *sum = sum.wrapping_add(values.value(row));
            *count += 1;
        });
    }

    fn states(pane: &mut Self::Pane) -> &[Self::State] {
        pane
    }

    fn merge(&self, into: &mut Self::State, later: &Self::State) {
        *into = (into.0.wrapping_add(later.0), into.1 + later.1);
    }

    const SUBTRACT: Option<fn(&mut Self::State, &Self::State)> =
        Some(|from, gone| *from = (from.0.wrapping_sub(gone.0), from.1 - gone.1));

    const PACKING: Option<Packing<Self>> = Some(Packing {
        pack: |(sum, count), out| {
            put(out, i128::from(*sum));
            put_count(out, *count as u64);
        },
        unpack: |bytes| Some((i64::try_from(take(bytes)?).ok()?, take_count(bytes)? as i64)),
        pane: |states| states,
    });

    fn finish(&self, states: &[Self::State], _: Question) -> ArrayRef {
        Arc::new(states.iter().map(|(sum, count)| (*count > 0).then_some(*sum)).collect::<Int64Array>())
    }

    fn pane_bytes(pane: &Self::Pane) -> usize {
        pane.capacity() * size_of::<Self::State>()
    }
}

/// Aggregates over Float64 whose states are exact: sums, means, spreads, percentiles.
#[derive(Debug)]
pub struct Exact<S> {
    over: PhantomData<S>,
}

impl<S> Default for Exact<S> {
    fn default() -> Self {
        Exact { over: PhantomData }
    }
}

impl<S: ExactState> Kernel for Exact<S> {
    type State = S;
    type Pane = Vec<S>;

    fn update(&self, pane: &mut Self::Pane, run: &Run) {
        at(pane, run);
        let values = run.arguments[0].as_primitive::<Float64Type>();
        let numbers = values.values();
        run.each(values.nulls(), |row, group| pane[group].add(numbers[row]));
    }

    fn states(pane: &mut Self::Pane) -> &[S] {
        pane
    }

    fn merge(&self, into: &mut S, later: &S) {
        into.merge(later);
    }

    const SUBTRACT: Option<fn(&mut S, &S)> = Some(S::subtract);

    const PACKING: Option<Packing<Self>> = Some(Packing { pack: S::pack, unpack: S::unpack, pane: |states| states });

    fn finish(&self, states: &[S], question: Question) -> ArrayRef {
        Arc::new(states.iter().map(|state| state.answer(question)).collect::<Float64Array>())
    }

    fn pane_bytes(pane: &Self::Pane) -> usize {
        pane.capacity() * size_of::<S>() + pane.iter().map(S::heap_bytes).sum::<usize>()
    }
}

/// A type whose smallest and largest value can be asked for.
pub trait Extreme: Debug + Send + Sync + 'static {
    /// One value.
    type Value: Clone + Send + Debug;
    /// The order; NaN is above everything.
    fn order(left: &Self::Value, right: &Self::Value) -> Ordering;
    /// Takes rows: a value that is in this order to the known one replaces it.
    fn update(found: &mut [Option<Self::Value>], run: &Run, better: Ordering);
    /// The value of a row.
    fn value(array: &ArrayRef, row: usize) -> Self::Value;
    /// The answers as an array of this type.
    fn array(values: &[Option<Self::Value>], data_type: &DataType) -> ArrayRef;
    /// Heap bytes of a value.
    fn heap(_: &Self::Value) -> usize {
        0
    }
    /// Appends a value in few bytes, first [`put`] of a number.
    fn pack(value: &Self::Value, out: &mut Vec<u8>);
    /// Takes what [`Extreme::pack`] appended.
    fn unpack(bytes: &mut &[u8]) -> Option<Self::Value>;
}

/// Float64.
#[derive(Debug)]
pub struct Floats;
/// Int64, and whatever is an i64 inside: timestamps.
#[derive(Debug)]
pub struct Integers;
/// Utf8.
#[derive(Debug)]
pub struct Texts;
/// Bool.
#[derive(Debug)]
pub struct Bools;

/// The same for all that is cheap to copy.
#[inline]
fn replace<V: Copy>(found: &mut Option<V>, value: V, order: fn(&V, &V) -> Ordering, better: Ordering) {
    match found {
        Some(known) if order(&value, known) != better => {}
        _ => *found = Some(value),
    }
}

/// Comparisons in SQL put a NaN with a sign below everything and one without above: there is one NaN here, above.
pub fn plain_nan(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

/// The order of numbers, with NaN above everything and equal to itself.
#[inline]
pub fn order_floats(left: &f64, right: &f64) -> Ordering {
    left.partial_cmp(right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

impl Extreme for Floats {
    type Value = f64;
    fn order(left: &f64, right: &f64) -> Ordering {
        order_floats(left, right)
    }
    fn update(found: &mut [Option<f64>], run: &Run, better: Ordering) {
        let values = run.arguments[0].as_primitive::<Float64Type>();
        let numbers = values.values();
        run.each(values.nulls(), |row, group| replace(&mut found[group], numbers[row], Self::order, better));
    }
    fn value(array: &ArrayRef, row: usize) -> f64 {
        array.as_primitive::<Float64Type>().value(row)
    }
    fn array(values: &[Option<f64>], _: &DataType) -> ArrayRef {
        Arc::new(values.iter().map(|value| value.map(plain_nan)).collect::<Float64Array>())
    }
    fn pack(value: &f64, out: &mut Vec<u8>) {
        put(out, i128::from(value.to_bits() as i64));
    }
    fn unpack(bytes: &mut &[u8]) -> Option<f64> {
        Some(f64::from_bits(take(bytes)? as u64))
    }
}

impl Extreme for Integers {
    type Value = i64;
    fn order(left: &i64, right: &i64) -> Ordering {
        left.cmp(right)
    }
    fn update(found: &mut [Option<i64>], run: &Run, better: Ordering) {
        let data = run.arguments[0].to_data();
        let values = &data.buffer::<i64>(0)[..data.len()];
        run.each(data.nulls(), |row, group| replace(&mut found[group], values[row], Self::order, better));
    }
    fn value(array: &ArrayRef, row: usize) -> i64 {
        match array.data_type() {
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row),
            _ => array.to_data().buffer::<i64>(0)[row],
        }
    }
    fn array(values: &[Option<i64>], data_type: &DataType) -> ArrayRef {
        let array: Int64Array = values.iter().copied().collect();
        // A timestamp is an Int64 with a unit: the cast takes the number as it is.
        cast(&array, data_type).unwrap_or_else(|_| Arc::new(array))
    }
    fn pack(value: &i64, out: &mut Vec<u8>) {
        put(out, i128::from(*value));
    }
    fn unpack(bytes: &mut &[u8]) -> Option<i64> {
        take(bytes)?.try_into().ok()
    }
}

impl Extreme for Texts {
    type Value = Box<str>;
    fn order(left: &Box<str>, right: &Box<str>) -> Ordering {
        left.cmp(right)
    }
    fn update(found: &mut [Option<Box<str>>], run: &Run, better: Ordering) {
        let values = run.arguments[0].as_string::<i32>();
        run.each(values.nulls(), |row, group| match &mut found[group] {
            Some(known) if values.value(row).cmp(known) != better => {}
            known => *known = Some(Box::from(values.value(row))),
        });
    }
    fn value(array: &ArrayRef, row: usize) -> Box<str> {
        Box::from(array.as_string::<i32>().value(row))
    }
    fn array(values: &[Option<Box<str>>], _: &DataType) -> ArrayRef {
        Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>())
    }
    fn heap(value: &Box<str>) -> usize {
        value.len()
    }
    fn pack(value: &Box<str>, out: &mut Vec<u8>) {
        put(out, value.len() as i128);
        out.extend_from_slice(value.as_bytes());
    }
    fn unpack(bytes: &mut &[u8]) -> Option<Box<str>> {
        let length = take(bytes)?.try_into().ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        std::str::from_utf8(text).ok().map(Box::from)
    }
}

impl Extreme for Bools {
    type Value = bool;
    fn order(left: &bool, right: &bool) -> Ordering {
        left.cmp(right)
    }
    fn update(found: &mut [Option<bool>], run: &Run, better: Ordering) {
        let values = run.arguments[0].as_boolean();
        run.each(values.nulls(), |row, group| replace(&mut found[group], values.value(row), Self::order, better));
    }
    fn value(array: &ArrayRef, row: usize) -> bool {
        array.as_boolean().value(row)
    }
    fn array(values: &[Option<bool>], _: &DataType) -> ArrayRef {
        Arc::new(values.iter().copied().collect::<BooleanArray>())
    }
    fn pack(value: &bool, out: &mut Vec<u8>) {
        put(out, i128::from(*value));
    }
    fn unpack(bytes: &mut &[u8]) -> Option<bool> {
        take(bytes).map(|value| value == 1)
    }
}

/// `min` and `max`; `bool_and` and `bool_or` are those of Bool.
#[derive(Debug)]
pub struct Extremes<E> {
    /// How a value must stand to the known one to replace it.
    better: Ordering,
    /// The type of the answer.
    data_type: DataType,
    over: PhantomData<E>,
}

impl<E> Extremes<E> {
    /// The largest or the smallest.
    pub fn new(largest: bool, data_type: &DataType) -> Self {
        let better = if largest { Ordering::Greater } else { Ordering::Less };
        Extremes { better, data_type: data_type.clone(), over: PhantomData }
    }
}

impl<E: Extreme> Kernel for Extremes<E> {
    type State = Option<E::Value>;
    type Pane = Vec<Self::State>;

    fn update(&self, pane: &mut Self::Pane, run: &Run) {
        at(pane, run);
        E::update(pane, run, self.better);
    }

    fn states(pane: &mut Self::Pane) -> &[Self::State] {
        pane
    }

    fn merge(&self, into: &mut Self::State, later: &Self::State) {
        match (&into, later) {
            (_, None) => {}
            (Some(known), Some(value)) if E::order(value, known) != self.better => {}
            (_, Some(value)) => *into = Some(value.clone()),
        }
    }

    const SUBTRACT: Option<fn(&mut Self::State, &Self::State)> = None;

    const PACKING: Option<Packing<Self>> = Some(Packing {
        pack: |state, out| put_option(out, state.as_ref(), E::pack),
        unpack: |bytes| take_option(bytes, E::unpack),
        pane: |states| states,
    });

    fn finish(&self, states: &[Self::State], _: Question) -> ArrayRef {
        E::array(states, &self.data_type)
    }

    fn pane_bytes(pane: &Self::Pane) -> usize {
        pane.capacity() * size_of::<Self::State>() + pane.iter().flatten().map(E::heap).sum::<usize>()
    }
}

/// `first` and `last`.
#[derive(Debug)]
pub struct Ends<E> {
    extremes: Extremes<E>,
    /// Whether rows count whose value is NULL.
    nulls: bool,
}

impl<E> Ends<E> {
    /// The latest or the earliest.
    pub fn new(end: End, data_type: &DataType) -> Self {
        Ends { extremes: Extremes::new(end.last, data_type), nulls: end.nulls }
    }
}

impl<E: Extreme> Ends<E> {
    fn take(&self, found: &mut EndState<E>, ts: i64, value: impl FnOnce() -> Option<E::Value>) {
        let better = self.extremes.better;
        if let Some((known, other)) = found {
            match ts.cmp(known) {
                Ordering::Equal => {
                    let value = value();
                    let order = match (&value, &*other) {
                        (Some(value), Some(other)) => E::order(value, other),
                        (value, other) => value.is_some().cmp(&other.is_some()),
                    };
                    if order == better {
                        *other = value;
                    }
                    return;
                }
                order if order != better => return,
                _ => {}
            }
        }
        *found = Some((ts, value()));
    }
}

/// Time and value of a row.
type EndState<E> = Option<(i64, Option<<E as Extreme>::Value>)>;

impl<E: Extreme> Kernel for Ends<E> {
    type State = EndState<E>;
    type Pane = Vec<Self::State>;

    fn update(&self, pane: &mut Self::Pane, run: &Run) {
        at(pane, run);
        let times = run.arguments[1].as_primitive::<TimestampMicrosecondType>();
        let values = &run.arguments[0];
        run.each(values.nulls().filter(|_| !self.nulls), |row, group| {
            if times.is_valid(row) {
                let value = || values.is_valid(row).then(|| E::value(values, row));
                self.take(&mut pane[group], times.value(row), value);
            }
        });
    }

    fn states(pane: &mut Self::Pane) -> &[Self::State] {
        pane
    }

    fn merge(&self, into: &mut Self::State, later: &Self::State) {
        if let Some((ts, value)) = later {
            self.take(into, *ts, || value.clone());
        }
    }

    const SUBTRACT: Option<fn(&mut Self::State, &Self::State)> = None;

    const PACKING: Option<Packing<Self>> = Some(Packing {
        pack: |state, out| {
            put_option(out, state.as_ref(), |(ts, value), out| {
                put(out, i128::from(*ts));
                put_option(out, value.as_ref(), E::pack);
            });
        },
        unpack: |bytes| {
            take_option(bytes, |bytes| Some((take(bytes)?.try_into().ok()?, take_option(bytes, E::unpack)?)))
        },
        pane: |states| states,
    });

    fn finish(&self, states: &[Self::State], _: Question) -> ArrayRef {
        let values: Vec<_> = states.iter().map(|state| state.as_ref().and_then(|(_, value)| value.clone())).collect();
        E::array(&values, &self.extremes.data_type)
    }

    fn pane_bytes(pane: &Self::Pane) -> usize {
        let heap = pane.iter().flatten().filter_map(|(_, value)| value.as_ref()).map(E::heap);
        pane.capacity() * size_of::<Self::State>() + heap.sum::<usize>()
    }
}
