//! Medians, deviations and smoothed means of values that are at hand: what `median`, `mad` and `ewma` are made of.

use std::fmt;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::ScalarValue;

/// A sample: its time and the [`key`] of its value. In order of time, and of values where times are the same, whatever came first.
pub type Sample = (i64, i64);

/// The bits of a number, in the order of numbers: -NaN, -infinity, .. -0, 0, .. infinity, NaN (IEEE 754, totalOrder).
pub fn key(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The number of a [`key`].
pub fn number(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// The value in the middle, or the mean of the two there; `None` without any.
pub fn median(sorted: &[i64]) -> Option<f64> {
    let high = number(*sorted.get(sorted.len() / 2)?);
    match sorted.len() % 2 {
        0 => Some((number(sorted[sorted.len() / 2 - 1]) + high) / 2.0),
        _ => Some(high),
    }
}

/// The same of whole numbers, toward zero.
pub fn whole_median(sorted: &[i64]) -> Option<i64> {
    let high = *sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        0 => Some(((i128::from(sorted[sorted.len() / 2 - 1]) + i128::from(high)) / 2) as i64),
        _ => Some(high),
    }
}

/// The median of the distances from the median: MAD, not scaled. F. R. Hampel, "The Influence Curve and Its Role in Robust Estimation", Journal
/// of the American Statistical Association 69 (1974).
pub fn deviation(sorted: &[i64]) -> Option<f64> {
    let middle = median(sorted)?;
    let mut distances: Vec<i64> = sorted.iter().map(|value| key((number(*value) - middle).abs())).collect();
    distances.sort_unstable();
    median(&distances)
}

/// How fast the past loses its weight. Bits of a number, so that it can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decay {
    /// By value: the newest has the weight a of all before it and itself, where there are many.
    Alpha(u64),
    /// By time: half of it in so many microseconds.
    HalfLife(u64),
}

impl Decay {
    /// What a constant says: a number above 0 and at most 1, or an interval without months.
    pub fn of(value: &ScalarValue) -> Option<Decay> {
        let half_life = |micros: f64| (micros > 0.0).then(|| Decay::HalfLife(micros.to_bits()));
        match value {
            ScalarValue::Float64(Some(alpha)) if *alpha > 0.0 && *alpha <= 1.0 => Some(Decay::Alpha(alpha.to_bits())),
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months: 0, days, nanoseconds })) => {
                half_life(f64::from(*days) * 86_400e6 + *nanoseconds as f64 / 1e3)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decay::Alpha(alpha) => write!(f, "{}", f64::from_bits(*alpha)),
            Decay::HalfLife(micros) => write!(f, "{} s", f64::from_bits(*micros) / 1e6),
        }
    }
}

/// The exponentially weighted moving average (S. W. Roberts, "Control Chart Tests Based on Geometric Moving Averages", Technometrics 1
/// (1959)) at the last of sorted samples: weights (1 - a)^k for the k-th value before it, or 2^(-t / half-life) for one t before it,
/// over their sum. Roberts' has an endless past; of a past that begins, the sum of the weights is what there is.
pub fn smoothed(sorted: &[Sample], decay: Decay) -> Option<f64> {
    let (first, rest) = sorted.split_first()?;
    let (mut sum, mut weight, mut before) = (number(first.1), 1.0, first.0);
    for (ts, value) in rest {
        let kept = match decay {
            Decay::Alpha(alpha) => 1.0 - f64::from_bits(alpha),
            Decay::HalfLife(micros) => (-((*ts - before) as f64) / f64::from_bits(micros)).exp2(),
        };
        // What lost all of its weight is gone, infinities too.
        (sum, weight) = if kept > 0.0 { (sum * kept, weight * kept) } else { (0.0, 0.0) };
        (sum, weight, before) = (sum + number(*value), weight + 1.0, *ts);
    }
    Some(sum / weight)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sorted(values: &[f64]) -> Vec<i64> {
        let mut keys: Vec<i64> = values.iter().map(|value| key(*value)).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn keys_are_in_the_order_of_numbers() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.0, -0.0, 0.0, 1e-300, 1.0, f64::INFINITY, f64::NAN];
        let keys: Vec<i64> = numbers.iter().map(|value| key(*value)).collect();
        assert!(keys.is_sorted());
        assert!(keys.iter().zip(numbers).all(|(key, value)| number(*key).to_bits() == value.to_bits()));
    }

    #[test]
    fn medians_and_deviations() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&sorted(&[3.0, 1.0])), Some(2.0));
        assert_eq!(whole_median(&[-4, -1]), Some(-2));
        assert_eq!(whole_median(&[i64::MAX - 2, i64::MAX]), Some(i64::MAX - 1));
        // 1 1 2 2 4 6 9: median 2, distances 1 1 0 0 2 4 7.
        assert_eq!(deviation(&sorted(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0])), Some(1.0));
        assert_eq!(deviation(&sorted(&[5.0, 5.0, 5.0, 90.0])), Some(0.0));
    }

    #[test]
    fn the_newest_weighs_most() {
        let samples = |values: &[(i64, f64)]| -> Vec<Sample> {
            values.iter().map(|(ts, value)| (*ts * 1_000_000, key(*value))).collect()
        };
        let half = Decay::Alpha(0.5f64.to_bits());
        assert_eq!(smoothed(&samples(&[]), half), None);
        assert_eq!(smoothed(&samples(&[(0, 8.0)]), half), Some(8.0));
        // (1 * 8 + 0.5 * 0 + 0.25 * 4) / 1.75
        let found = smoothed(&samples(&[(0, 4.0), (1, 0.0), (9, 8.0)]), half).unwrap();
        assert!((found - 9.0 / 1.75).abs() < 1e-12, "{found}");
        let ten = Decay::of(&ScalarValue::new_interval_mdn(0, 0, 10_000_000_000)).unwrap();
        // Ten seconds ago half, twenty a quarter.
        let found = smoothed(&samples(&[(0, 4.0), (10, 0.0), (20, 8.0)]), ten).unwrap();
        assert!((found - 9.0 / 1.75).abs() < 1e-12, "{found}");
        assert_eq!(smoothed(&samples(&[(0, f64::INFINITY), (1, 3.0)]), Decay::Alpha(1.0f64.to_bits())), Some(3.0));
    }

    #[test]
    fn what_is_no_decay() {
        for value in [ScalarValue::Float64(Some(0.0)), ScalarValue::Float64(Some(1.5)), ScalarValue::Float64(None)] {
            assert_eq!(Decay::of(&value), None, "{value}");
        }
        assert_eq!(Decay::of(&ScalarValue::new_interval_mdn(1, 0, 0)), None);
        assert_eq!(Decay::of(&ScalarValue::new_interval_mdn(0, 0, -5)), None);
    }
}
