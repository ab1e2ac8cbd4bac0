//! Approximate percentiles: counts of values in buckets whose width is a fixed share of the value (as in DDSketch, Masson et al.
//! 2019, with the exponent and the first bits of the mantissa in place of a logarithm, as in HdrHistogram). Counts do not
//! depend on order and can be subtracted, so live, backtest and restart agree; a t-digest's would not.

use crate::moments::{ExactState, Question};
use crate::packed::{put, put_count, take, take_count};

/// Bits of the mantissa that tell buckets apart: 64 buckets between a power of two and the next.
const BITS: u32 = 6;
/// What is left out.
const SHIFT: u32 = 52 - BITS;
/// The bucket of NaN, above all others.
const NAN: i32 = i32::MAX;

/// The largest relative error of a percentile: half a bucket.
pub const RELATIVE_ERROR: f64 = 1.0 / (2 << BITS) as f64;

/// Counts by bucket, ascending; none is zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sketch {
    buckets: Vec<(i32, u32)>,
}

/// The bucket of a value; buckets are in the order of their values.
fn bucket_of(value: f64) -> i32 {
    if value.is_nan() {
        return NAN;
    }
    let bucket = (value.abs().to_bits() >> SHIFT) as i32;
    if value < 0.0 { -bucket } else { bucket }
}

/// The middle of a bucket.
fn value_of(bucket: i32) -> f64 {
    if bucket == NAN {
        return f64::NAN;
    }
    let bits = u64::from(bucket.unsigned_abs());
    let (low, high) = (f64::from_bits(bits << SHIFT), f64::from_bits((bits + 1) << SHIFT));
    let middle = match bits {
        0 => 0.0,
        _ if high.is_finite() => low + (high - low) / 2.0,
        _ => low,
    };
    if bucket < 0 { -middle } else { middle }
}

impl Sketch {
    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The value below or at which the share `quantile` of all values lies (nearest rank); `None` without values.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = ((quantile * self.count() as f64).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            below += u64::from(*count);
            below >= rank
        });
        bucket.or(self.buckets.last()).map(|(bucket, _)| value_of(*bucket))
    }
}

impl ExactState for Sketch {
    fn add(&mut self, value: f64) {
        let bucket = bucket_of(value);
        match self.buckets.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (bucket, 1)),
        }
    }

    fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut left, mut right) = (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        loop {
            merged.push(match (left.peek(), right.peek()) {
                (Some((mine, count)), Some((theirs, more))) if mine == theirs => {
                    let both = (*mine, count + more);
                    left.next();
                    right.next();
                    both
                }
                (Some((mine, _)), Some((theirs, _))) if mine > theirs => *right.next().unwrap_or(&(0, 0)),
                (Some(_), _) => *left.next().unwrap_or(&(0, 0)),
                (None, Some(_)) => *right.next().unwrap_or(&(0, 0)),
                (None, None) => break,
            });
        }
        self.buckets = merged;
    }

    fn subtract(&mut self, other: &Self) {
        let mut gone = other.buckets.iter().peekable();
        self.buckets.retain_mut(|(bucket, count)| {
            if let Some((_, less)) = gone.next_if(|(theirs, _)| theirs == bucket) {
                *count -= less;
            }
            *count > 0
        });
    }

    fn answer(&self, question: Question) -> Option<f64> {
        match question {
            Question::Quantile(bits) => self.quantile(f64::from_bits(bits)),
            _ => None,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let parts = self.buckets.iter().map(|(bucket, count)| [bucket.to_le_bytes(), count.to_le_bytes()].concat());
        parts.flatten().collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let part = |part: &[u8]| Some((i32::from_le_bytes(part[..4].try_into().ok()?), part[4..].try_into().ok()?));
        let buckets =
            bytes.chunks_exact(8).map(|chunk| part(chunk).map(|(bucket, count)| (bucket, u32::from_le_bytes(count))));
        Some(Sketch { buckets: buckets.collect::<Option<_>>()? })
    }

    fn pack(&self, out: &mut Vec<u8>) {
        put_count(out, self.buckets.len() as u64);
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            put(out, i128::from(*bucket) - before);
            put_count(out, u64::from(*count));
            before = i128::from(*bucket);
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let length = take_count(bytes)?;
        let mut before = 0;
        let buckets = (0..length).map(|_| {
            before += take(bytes)?;
            Some((i32::try_from(before).ok()?, u32::try_from(take_count(bytes)?).ok()?))
        });
        Some(Sketch { buckets: buckets.collect::<Option<_>>()? })
    }

    fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(i32, u32)>()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        sketch
    }

    proptest! {
        #[test]
        fn percentiles_are_as_near_as_promised(
            values in prop::collection::vec(prop_oneof![-1e6..1e6f64, 0.0..1.0f64, Just(0.0)], 1..80),
            quantile in 0.0..=1.0f64,
        ) {
            let found = of(&values).answer(Question::Quantile(quantile.to_bits())).unwrap();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1];
            prop_assert!((found - exact).abs() <= exact.abs() * RELATIVE_ERROR + f64::MIN_POSITIVE, "{found}, {exact}");
        }

        #[test]
        fn sketches_come_together_and_apart(
            kept in prop::collection::vec(any::<f64>(), 0..40),
            gone in prop::collection::vec(any::<f64>(), 0..40),
        ) {
            let mut both = of(&gone);
            both.merge(&of(&kept));
            let all: Vec<f64> = kept.iter().chain(&gone).copied().collect();
            prop_assert_eq!(&both, &of(&all));
            both.subtract(&of(&gone));
            prop_assert_eq!(&both, &of(&kept));
            let mut packed = vec![];
            both.pack(&mut packed);
            prop_assert_eq!(&Sketch::unpack(&mut packed.as_slice()).unwrap(), &both);
            prop_assert_eq!(Sketch::from_bytes(&both.to_bytes()).unwrap(), both);
        }
    }
}
