//! States of sums and of spreads over Float64, for whoever aggregates: kernels of shared windows and DataFusion's aggregates.

use crate::exact::ExactSum;
use crate::exact_squares::SquareSum;

/// What is asked of states: functions that need the same states share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// What they are the states of: a count, a sum, an extreme, an increase.
    Plain,
    /// The sum by the count.
    Mean,
    /// The spread of the values around their mean.
    Spread {
        /// Of a sample, not of the population.
        sample: bool,
        /// The standard deviation, not the variance.
        root: bool,
    },
    /// The increase per second.
    Rate,
    /// The value at which this share of all lies, as the bits of a number between 0 and 1.
    Quantile(u64),
}

/// A state that is exact and does not depend on order, over Float64.
pub trait ExactState: Clone + Default + std::fmt::Debug + Send + Sync + 'static {
    /// Adds a value.
    fn add(&mut self, value: f64);
    /// Adds everything that `other` holds.
    fn merge(&mut self, other: &Self);
    /// Takes out what was merged before.
    fn subtract(&mut self, other: &Self);
    /// The answer; `None` when there are too few values.
    fn answer(&self, question: Question) -> Option<f64>;
    /// As bytes, for the state that one stage of an aggregation hands to the next.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads them; `None` for anything else.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
    /// Appends itself in few bytes.
    fn pack(&self, out: &mut Vec<u8>);
    /// Takes what [`ExactState::pack`] appended; `None` for anything else.
    fn unpack(bytes: &mut &[u8]) -> Option<Self>;
    /// Heap bytes.
    fn heap_bytes(&self) -> usize;
}

impl ExactState for ExactSum {
    fn add(&mut self, value: f64) {
        ExactSum::add(self, value);
    }

    fn merge(&mut self, other: &Self) {
        ExactSum::merge(self, other);
    }

    fn subtract(&mut self, other: &Self) {
        ExactSum::subtract(self, other);
    }

    fn answer(&self, question: Question) -> Option<f64> {
        if question == Question::Mean { self.mean() } else { self.sum() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        ExactSum::to_bytes(self)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        ExactSum::from_bytes(bytes)
    }

    fn pack(&self, out: &mut Vec<u8>) {
        ExactSum::pack(self, out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        ExactSum::unpack(bytes)
    }

    fn heap_bytes(&self) -> usize {
        ExactSum::heap_bytes(self)
    }
}

/// Exact sums of values and of their squares.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    sum: ExactSum,
    squares: SquareSum,
}

impl ExactState for Moments {
    fn add(&mut self, value: f64) {
        self.sum.add(value);
        self.squares.add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    fn subtract(&mut self, other: &Self) {
        self.sum.subtract(&other.sum);
        self.squares.subtract(&other.squares);
    }

    fn answer(&self, question: Question) -> Option<f64> {
        match question {
            Question::Spread { sample, root } => {
                let variance = self.variance(sample)?;
                Some(if root { variance.sqrt() } else { variance })
            }
            other => self.sum.answer(other),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let sum = self.sum.to_bytes();
        let mut bytes = (sum.len() as u64).to_le_bytes().to_vec();
        bytes.extend(sum);
        bytes.extend(self.squares.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (sum, squares) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
        Some(Moments { sum: ExactSum::from_bytes(sum)?, squares: SquareSum::from_bytes(squares)? })
    }

    fn pack(&self, out: &mut Vec<u8>) {
        self.sum.pack(out);
        self.squares.pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        Some(Moments { sum: ExactSum::unpack(bytes)?, squares: SquareSum::unpack(bytes)? })
    }

    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }
}

impl Moments {
    /// `(sum of squares - sum^2 / n) / divisor`, in twice the digits until the last step: the difference cancels.
    fn variance(&self, sample: bool) -> Option<f64> {
        let count = self.sum.count() as f64;
        let divisor = count - f64::from(u8::from(sample));
        if divisor <= 0.0 {
            return None;
        }
        let (high, low) = self.sum.in_two_parts();
        let (squares, squares_low) = self.squares.in_two_parts();
        // n * squares - sum^2, each product with its rounding error (Dekker 1971).
        let product = count * squares;
        let product_low = count.mul_add(squares, -product) + count * squares_low;
        let square = high * high;
        let square_low = high.mul_add(high, -square) + 2.0 * high * low;
        let difference = (product - square) + (product_low - square_low);
        let variance = difference / count / divisor;
        // Infinity less infinity is a NaN below everything; ours is above.
        Some(if variance.is_nan() { f64::NAN } else { variance.max(0.0) })
    }
}
