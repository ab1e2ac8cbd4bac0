//! Sums of squares of Float64, as exact as [`ExactSum`]: what variance is made of. The square of a Float64 has up to 106 bits;
//! 256-bit fixed point with 128 fractional bits holds those of everything that is measured here.

use crate::exact::{ExactSum, decompose};
use crate::packed::{put, put_count, take, take_count};

/// Fractional bits.
const FRACTION_BITS: i32 = 128;
/// 2^-128.
const LAST_DIGIT: f64 = 1.0 / ((1u128 << 64) as f64 * (1u128 << 64) as f64);
/// The largest shift of a square: 224 bits, and 31 of headroom for two thousand million of them.
const LARGEST_SHIFT: i32 = 118;

/// An exact sum of squares; it can be taken apart again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SquareSum {
    /// The upper half, with the sign that a sum under subtraction may have on the way.
    high: i128,
    low: u128,
    /// Squares that do not fit: each as a product and what its rounding left.
    rest: Option<Box<ExactSum>>,
}

impl SquareSum {
    /// Adds the square of a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        if value == 0.0 {
            return;
        }
        let (mut mantissa, mut exponent) = decompose(value);
        let missing = -(2 * exponent + FRACTION_BITS);
        if missing > 0 {
            // Zeros at the end of the mantissa are no digits.
            let zeros = mantissa.trailing_zeros();
            (mantissa, exponent) = (mantissa >> zeros, exponent + zeros as i32);
        }
        let shift = 2 * exponent + FRACTION_BITS;
        if !(0..=LARGEST_SHIFT).contains(&shift) {
            self.add_odd(value);
            return;
        }
        let square = u128::from(mantissa) * u128::from(mantissa);
        let above = if shift == 0 { 0 } else { square >> (128 - shift) };
        self.add_parts(above as i128, square << shift);
    }

    /// Adds everything that `other` holds.
    #[inline]
    pub fn merge(&mut self, other: &SquareSum) {
        self.add_parts(other.high, other.low);
        if let Some(rest) = &other.rest {
            self.rest.get_or_insert_default().merge(rest);
        }
    }

    /// Takes out what was merged before.
    #[inline]
    pub fn subtract(&mut self, other: &SquareSum) {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        self.low = low;
        self.high = self.high.wrapping_sub(other.high).wrapping_sub(i128::from(borrow));
        if let (Some(mine), Some(rest)) = (&mut self.rest, &other.rest) {
            mine.subtract(rest);
            if mine.count() == 0 {
                self.rest = None;
            }
        }
    }

    /// The sum as a number and what rounding it left, good for about 106 bits.
    pub fn in_two_parts(&self) -> (f64, f64) {
        let (mut high, mut low) = (0.0, 0.0);
        // The sum is not negative. 32 bits at a time are exact numbers.
        for (half, last) in [(self.high as u128, 1.0), (self.low, LAST_DIGIT)] {
            let mut scale = last * (1u128 << 96) as f64;
            for part in (0..4).rev() {
                let digits = (half >> (32 * part)) as u32;
                if digits != 0 {
                    (high, low) = add(high, low, f64::from(digits) * scale);
                }
                scale /= (1u64 << 32) as f64;
            }
        }
        if let Some(rest) = &self.rest {
            let (more, less) = rest.in_two_parts();
            if !more.is_finite() {
                return (more, 0.0);
            }
            (high, low) = add(high, low, more);
            (high, low) = add(high, low, less);
        }
        (high, low)
    }

    /// As bytes, for the state that one stage of an aggregation hands to the next.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.high.to_le_bytes().into_iter().chain(self.low.to_le_bytes()).collect();
        bytes.extend(self.rest.iter().flat_map(|rest| rest.to_bytes()));
        bytes
    }

    /// Reads what [`SquareSum::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<SquareSum> {
        let (high, rest) = bytes.split_first_chunk::<16>()?;
        let (low, rest) = rest.split_first_chunk::<16>()?;
        let rest = match rest {
            [] => None,
            rest => Some(Box::new(ExactSum::from_bytes(rest)?)),
        };
        Some(SquareSum { high: i128::from_le_bytes(*high), low: u128::from_le_bytes(*low), rest })
    }

    /// Appends itself in few bytes.
    pub fn pack(&self, out: &mut Vec<u8>) {
        put(out, self.high);
        put(out, self.low as i128);
        let rest = self.rest.as_deref().map(|rest| rest.to_bytes()).unwrap_or_default();
        put_count(out, rest.len() as u64);
        out.extend(rest);
    }

    /// Takes what [`SquareSum::pack`] appended.
    pub fn unpack(bytes: &mut &[u8]) -> Option<SquareSum> {
        let (high, low) = (take(bytes)?, take(bytes)? as u128);
        let length = take_count(bytes)? as usize;
        let (rest, left) = bytes.split_at_checked(length)?;
        *bytes = left;
        let rest = if rest.is_empty() { None } else { Some(Box::new(ExactSum::from_bytes(rest)?)) };
        Some(SquareSum { high, low, rest })
    }

    /// Heap bytes.
    pub fn heap_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| size_of::<ExactSum>() + rest.heap_bytes())
    }

    #[inline]
    fn add_parts(&mut self, high: i128, low: u128) {
        let (sum, carry) = self.low.overflowing_add(low);
        self.low = sum;
        self.high = self.high.wrapping_add(high).wrapping_add(i128::from(carry));
    }

    #[cold]
    fn add_odd(&mut self, value: f64) {
        let rest = self.rest.get_or_insert_default();
        let square = value * value;
        rest.add(square);
        if square.is_finite() {
            rest.add(value.mul_add(value, -square));
        }
    }
}

/// Adds a number to a sum in two parts (Knuth's two-sum).
fn add(high: f64, low: f64, value: f64) -> (f64, f64) {
    let sum = high + value;
    let back = sum - high;
    let error = (high - (sum - back)) + (value - back);
    let low = low + error;
    let whole = sum + low;
    (whole, low - (whole - sum))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> SquareSum {
        let mut sum = SquareSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum
    }

    /// The same by [`ExactSum`] alone.
    fn reference(values: &[f64]) -> (f64, f64) {
        let mut sum = ExactSum::default();
        for value in values {
            let square = value * value;
            sum.add(square);
            sum.add(value.mul_add(*value, -square));
        }
        sum.in_two_parts()
    }

    fn measured() -> impl Strategy<Value = f64> {
        prop_oneof![-1e3..1e3f64, -1e-3..1e-3f64, -1e14..1e14f64, -1e20..1e20f64, Just(0.1), Just(-0.0)]
    }

    proptest! {
        #[test]
        fn squares_are_exact(values in prop::collection::vec(measured(), 0..30)) {
            let (high, low) = of(&values).in_two_parts();
            let (expected, less) = reference(&values);
            prop_assert_eq!(high, expected);
            prop_assert!((low - less).abs() <= expected * 1e-30, "{} {}", low, less);
        }

        #[test]
        fn what_was_merged_can_be_taken_out(kept in prop::collection::vec(measured(), 0..20), gone in prop::collection::vec(measured(), 0..20)) {
            let mut sum = of(&gone);
            sum.merge(&of(&kept));
            sum.subtract(&of(&gone));
            prop_assert_eq!(sum.in_two_parts(), of(&kept).in_two_parts());
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        assert!(of(&[1.0, f64::NAN]).in_two_parts().0.is_nan());
        assert_eq!(of(&[1.0, f64::INFINITY]).in_two_parts().0, f64::INFINITY);
        assert_eq!(of(&[1e300]).in_two_parts().0, f64::INFINITY);
    }
}
