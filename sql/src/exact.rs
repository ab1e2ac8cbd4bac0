//! Sums of Float64 that are exact and do not depend on order: the same rows give the same bits, in whatever order, batch
//! or process they arrive. That is what makes live, backtest and restart agree.
//!
//! Most values fit 128-bit fixed point with 64 fractional bits and cost one shift and one add. The rest (very large, or
//! with bits below 2^-64) goes to an accumulator as wide as Float64's whole range (Kulisch 1971), so no value is ever
//! rounded before the end; the sum itself is then rounded once, to nearest even. NaN and infinities are counted apart.

use crate::packed::{put, put_count, take, take_count};

/// Fractional bits of the fixed-point part.
const FRACTION_BITS: i32 = 64;
/// Bits that a shifted mantissa may occupy in the fixed-point part; the rest is headroom before an overflow is noticed.
const FIXED_BITS: i32 = 120;

/// An exact sum. It takes 32 bytes as long as every value fits the fixed-point part, and can be taken apart again: what was
/// merged can be subtracted, to the bit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExactSum {
    /// Multiples of 2^-64.
    fixed: i128,
    /// Values added, NaN and infinities included.
    count: u64,
    /// What does not fit above.
    rest: Option<Box<Rest>>,
}

/// The part of a sum that few sums have.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rest {
    wide: Wide,
    nan: u64,
    positive_infinity: u64,
    negative_infinity: u64,
}

impl ExactSum {
    /// Adds one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        if value == 0.0 {
            return;
        }
        let (mantissa, exponent) = decompose(value);
        let shift = exponent + FRACTION_BITS;
        // Not finite ones have the largest exponent, and end in the branch for what does not fit.
        if (0..=FIXED_BITS - 53).contains(&shift) {
            let scaled = i128::from(mantissa) << shift;
            if let Some(sum) = self.fixed.checked_add(if value < 0.0 { -scaled } else { scaled }) {
                self.fixed = sum;
                return;
            }
        }
        self.add_odd(value, mantissa, exponent);
    }

    /// Adds everything that `other` holds.
    #[inline]
    pub fn merge(&mut self, other: &ExactSum) {
        self.count += other.count;
        match self.fixed.checked_add(other.fixed) {
            Some(sum) => self.fixed = sum,
            None => {
                self.spill();
                self.fixed = other.fixed;
            }
        }
        if let Some(other) = &other.rest {
            let rest = self.rest.get_or_insert_default();
            rest.wide.merge(&other.wide);
            rest.nan += other.nan;
            rest.positive_infinity += other.positive_infinity;
            rest.negative_infinity += other.negative_infinity;
        }
    }

    /// Takes out what was merged before.
    #[inline]
    pub fn subtract(&mut self, other: &ExactSum) {
        self.count -= other.count;
        match self.fixed.checked_sub(other.fixed) {
            Some(sum) => self.fixed = sum,
            None => {
                self.spill();
                let wide = &mut self.rest.get_or_insert_default().wide;
                wide.add(other.fixed.unsigned_abs(), -FRACTION_BITS, other.fixed > 0);
            }
        }
        if let Some(other) = &other.rest {
            let rest = self.rest.get_or_insert_default();
            let mut wide = other.wide.clone();
            wide.negate();
            rest.wide.merge(&wide);
            rest.nan -= other.nan;
            rest.positive_infinity -= other.positive_infinity;
            rest.negative_infinity -= other.negative_infinity;
            if *rest.as_ref() == Rest::default() {
                self.rest = None;
            }
        }
    }

    /// How many values were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum, rounded once; `None` when nothing was added. NaN when a NaN or both infinities were.
    pub fn sum(&self) -> Option<f64> {
        (self.count > 0).then(|| self.special().unwrap_or_else(|| self.finite_sum()))
    }

    /// The sum divided by the count; `None` when nothing was added.
    pub fn mean(&self) -> Option<f64> {
        self.sum().map(|sum| sum / self.count as f64)
    }

    /// The sum as a number and what rounding it left, together good for 106 bits: for what cancels.
    pub fn in_two_parts(&self) -> (f64, f64) {
        if let Some(special) = self.special() {
            return (special, 0.0);
        }
        let high = self.finite_sum();
        let mut left = self.clone();
        left.add(-high);
        (high, if high.is_finite() { left.finite_sum() } else { 0.0 })
    }

    /// Heap bytes.
    pub fn heap_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |_| size_of::<Rest>())
    }

    /// As bytes, for the state that one stage of an aggregation hands to the next.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(self.fixed.to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        if let Some(rest) = &self.rest {
            let counts = [rest.nan, rest.positive_infinity, rest.negative_infinity];
            bytes.extend(counts.iter().chain(&rest.wide.limbs).flat_map(|word| word.to_le_bytes()));
        }
        bytes
    }

    /// Reads what [`ExactSum::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<ExactSum> {
        let (fixed, words) = bytes.split_first_chunk::<16>()?;
        let mut words = words.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        let (fixed, count) = (i128::from_le_bytes(*fixed), words.next()?);
        let rest = match words.next() {
            None => None,
            Some(nan) => Some(Box::new(Rest {
                nan,
                positive_infinity: words.next()?,
                negative_infinity: words.next()?,
                wide: Wide { limbs: words.collect::<Vec<_>>().try_into().ok()? },
            })),
        };
        Some(ExactSum { fixed, count, rest })
    }

    /// Appends itself in few bytes.
    pub fn pack(&self, out: &mut Vec<u8>) {
        put_count(out, self.count << 1 | u64::from(self.rest.is_some()));
        put(out, self.fixed);
        if self.rest.is_some() {
            let bytes = self.to_bytes();
            put_count(out, bytes.len() as u64);
            out.extend(bytes);
        }
    }

    /// Takes what [`ExactSum::pack`] appended.
    pub fn unpack(bytes: &mut &[u8]) -> Option<ExactSum> {
        let head = take_count(bytes)?;
        let fixed = take(bytes)?;
        if head & 1 == 0 {
            return Some(ExactSum { fixed, count: head >> 1, rest: None });
        }
        let length = take_count(bytes)? as usize;
        let (whole, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        ExactSum::from_bytes(whole)
    }

    /// What does not fit the fixed-point part, or only after a second look.
    #[cold]
    fn add_odd(&mut self, value: f64, mantissa: u64, exponent: i32) {
        let negative = value < 0.0;
        let too_low = -(exponent + FRACTION_BITS);
        if !value.is_finite() {
            let rest = self.rest.get_or_insert_default();
            match value {
                value if value.is_nan() => rest.nan += 1,
                value if value > 0.0 => rest.positive_infinity += 1,
                _ => rest.negative_infinity += 1,
            }
        } else if too_low > 0 && mantissa.trailing_zeros() as i32 >= too_low {
            let scaled = i128::from(mantissa >> too_low);
            match self.fixed.checked_add(if negative { -scaled } else { scaled }) {
                Some(sum) => self.fixed = sum,
                None => self.rest.get_or_insert_default().wide.add(u128::from(mantissa), exponent, negative),
            }
        } else {
            self.rest.get_or_insert_default().wide.add(u128::from(mantissa), exponent, negative);
        }
    }

    /// Moves the fixed-point part into the wide one.
    #[cold]
    fn spill(&mut self) {
        let wide = &mut self.rest.get_or_insert_default().wide;
        wide.add(self.fixed.unsigned_abs(), -FRACTION_BITS, self.fixed < 0);
        self.fixed = 0;
    }

    /// NaN or an infinity, when the sum is one whatever else was added.
    fn special(&self) -> Option<f64> {
        let rest = self.rest.as_ref()?;
        match (rest.nan > 0, rest.positive_infinity > 0, rest.negative_infinity > 0) {
            (true, _, _) | (_, true, true) => Some(f64::NAN),
            (_, true, _) => Some(f64::INFINITY),
            (_, _, true) => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }

    fn finite_sum(&self) -> f64 {
        match &self.rest {
            // Both steps are exact but for one rounding: a multiple of 2^-64 that i128 holds is far from subnormal.
            None => self.fixed as f64 * 2f64.powi(-FRACTION_BITS),
            Some(rest) => {
                let mut total = rest.wide.clone();
                total.add(self.fixed.unsigned_abs(), -FRACTION_BITS, self.fixed < 0);
                total.to_f64()
            }
        }
    }
}

/// `|value| = mantissa * 2^exponent`, exactly, for finite values.
pub fn decompose(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    match ((bits >> 52) & 0x7ff) as i32 {
        0 => (fraction, LOWEST_EXPONENT),
        biased => (fraction | (1 << 52), biased - 1075),
    }
}

/// Exponent of the smallest positive Float64, 2^-1074: bit zero of the wide accumulator.
const LOWEST_EXPONENT: i32 = -1074;
/// 1074 bits below one, 1024 above, and 78 of headroom and sign.
const LIMBS: usize = 34;

/// A two's-complement integer in units of 2^-1074.
#[derive(Debug, Clone, PartialEq)]
struct Wide {
    limbs: [u64; LIMBS],
}

impl Default for Wide {
    fn default() -> Self {
        Wide { limbs: [0; LIMBS] }
    }
}

impl Wide {
    /// Adds or subtracts `magnitude * 2^exponent`.
    fn add(&mut self, magnitude: u128, exponent: i32, negative: bool) {
        let bit = (exponent - LOWEST_EXPONENT) as usize;
        let (first, shift) = (bit / 64, bit % 64);
        let low = magnitude << shift;
        let high = if shift == 0 { 0 } else { (magnitude >> (128 - shift)) as u64 };
        let mut parts = Wide::default();
        for (index, part) in [low as u64, (low >> 64) as u64, high].into_iter().enumerate() {
            if part != 0 {
                parts.limbs[first + index] = part;
            }
        }
        if negative {
            parts.negate();
        }
        self.merge(&parts);
    }

    fn merge(&mut self, other: &Wide) {
        let mut carry = false;
        for (limb, part) in self.limbs.iter_mut().zip(other.limbs) {
            let (sum, first) = limb.overflowing_add(part);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    fn negate(&mut self) {
        let mut carry = true;
        for limb in &mut self.limbs {
            (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
        }
    }

    /// Rounded to nearest, ties to even.
    fn to_f64(&self) -> f64 {
        let negative = self.limbs[LIMBS - 1] >> 63 == 1;
        let mut magnitude = self.clone();
        if negative {
            magnitude.negate();
        }
        let value = magnitude.magnitude_to_f64();
        if negative { -value } else { value }
    }

    fn magnitude_to_f64(&self) -> f64 {
        let Some(top) = self.limbs.iter().rposition(|limb| *limb != 0) else { return 0.0 };
        let highest = top * 64 + 63 - self.limbs[top].leading_zeros() as usize;
        if highest <= 52 {
            // Below 2^53 units: exactly representable, the smallest ones as subnormals.
            return f64::from_bits(1) * self.limbs[0] as f64;
        }
        let lowest = highest - 52;
        let mut mantissa = self.bits(lowest);
        let half = self.bits(lowest - 1) & 1 == 1;
        let sticky = self.any_below(lowest - 1);
        if half && (sticky || mantissa & 1 == 1) {
            mantissa += 1;
        }
        // A carry into bit 53 makes the mantissa 2^53, whose fraction is zero: adding lets it step the exponent.
        let exponent = lowest as u64 + 1;
        let bits = (exponent << 52) + (mantissa - (1 << 52));
        if bits >= f64::INFINITY.to_bits() { f64::INFINITY } else { f64::from_bits(bits) }
    }

    /// The 53 bits from bit `from` on.
    fn bits(&self, from: usize) -> u64 {
        let (limb, shift) = (from / 64, from % 64);
        let next = self.limbs.get(limb + 1).copied().unwrap_or(0);
        let pair = u128::from(self.limbs[limb]) | (u128::from(next) << 64);
        (pair >> shift) as u64 & ((1 << 53) - 1)
    }

    fn any_below(&self, bit: usize) -> bool {
        let (limb, shift) = (bit / 64, bit % 64);
        self.limbs[..limb].iter().any(|limb| *limb != 0) || self.limbs[limb] & ((1 << shift) - 1) != 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum_of(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.sum().unwrap()
    }

    #[test]
    fn known_sums() {
        assert_eq!(sum_of(&[0.1; 10]), 1.0);
        assert_eq!(sum_of(&[1e300, 1.0, -1e300]), 1.0);
        assert_eq!(sum_of(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum_of(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum_of(&[f64::from_bits(1), f64::from_bits(1)]), f64::from_bits(2));
        assert_eq!(sum_of(&[1e-30, -1.0, 1.0]), 1e-30);
        assert_eq!(sum_of(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum_of(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum_of(&[f64::NAN, 1.0]).is_nan());
        assert_eq!(ExactSum::default().sum(), None);
    }

    proptest! {
        #[test]
        fn one_value_is_itself(value in prop::num::f64::ANY.prop_filter("finite", |value| value.is_finite())) {
            prop_assert_eq!(sum_of(&[value]), value);
            // The wide path alone gives the same.
            let mut wide = Wide::default();
            let (mantissa, exponent) = decompose(value);
            wide.add(u128::from(mantissa), exponent, value < 0.0);
            prop_assert_eq!(wide.to_f64(), value);
        }

        #[test]
        fn order_and_grouping_do_not_matter(
            values in prop::collection::vec(prop::num::f64::ANY.prop_filter("finite", |value| value.is_finite()), 1..40),
            cut in 0usize..40,
        ) {
            let mut reversed = values.clone();
            reversed.reverse();
            let whole = sum_of(&values);
            prop_assert_eq!(whole.to_bits(), sum_of(&reversed).to_bits());
            let (left, right) = values.split_at(cut.min(values.len()));
            let (mut first, mut second) = (ExactSum::default(), ExactSum::default());
            left.iter().for_each(|value| first.add(*value));
            right.iter().for_each(|value| second.add(*value));
            first.merge(&ExactSum::from_bytes(&second.to_bytes()).unwrap());
            prop_assert_eq!(whole.to_bits(), first.sum().unwrap().to_bits());
        }

        #[test]
        fn integers_sum_as_integers(values in prop::collection::vec(-(1i64 << 52)..(1i64 << 52), 1..100)) {
            let floats: Vec<f64> = values.iter().map(|value| *value as f64 / 1024.0).collect();
            let exact: i128 = values.iter().map(|value| i128::from(*value)).sum();
            prop_assert_eq!(sum_of(&floats), exact as f64 / 1024.0);
        }

        #[test]
        fn what_was_merged_can_be_taken_out(
            kept in prop::collection::vec(any::<f64>(), 0..20),
            gone in prop::collection::vec(any::<f64>(), 0..20),
        ) {
            let (mut expected, mut other) = (ExactSum::default(), ExactSum::default());
            kept.iter().for_each(|value| expected.add(*value));
            gone.iter().for_each(|value| other.add(*value));
            let mut sum = other.clone();
            sum.merge(&expected);
            sum.subtract(&other);
            prop_assert_eq!(sum.sum().map(f64::to_bits), expected.sum().map(f64::to_bits));
            prop_assert_eq!(sum.count(), expected.count());
        }

        #[test]
        fn a_value_and_its_negative_cancel(values in prop::collection::vec(prop::num::f64::NORMAL, 1..20), keep in prop::num::f64::NORMAL) {
            let mut all = values.clone();
            all.push(keep);
            all.extend(values.iter().map(|value| -value));
            prop_assert_eq!(sum_of(&all), keep);
        }
    }
}
