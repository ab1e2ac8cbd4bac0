//! Histograms with exponential buckets (OTLP's, and Prometheus' native ones) as cumulative buckets with an `le`, which rules and
//! other tools know.

use std::collections::BTreeMap;

/// Bounds are at most this dense: four to each power of two. A histogram changes its scale as its range grows; bounds of a coarser scale
/// are among those of a finer one, so that the buckets of one series stay comparable.
const FINEST: i32 = 2;

/// A histogram whose bucket `i` counts what is in `(base^(i-1), base^i]`, where `base = 2^(2^-scale)`.
#[derive(Debug, Default)]
pub struct Exponential {
    /// The scale, or schema.
    pub scale: i32,
    /// What is zero or less.
    pub at_most_zero: f64,
    /// The number of a bucket, and how many are in it.
    pub buckets: Vec<(i64, f64)>,
}

impl Exponential {
    /// Upper bounds and how many observations are at or below each. The bounds of every bucket that is not empty are among them.
    pub fn cumulative(&self) -> Vec<(f64, f64)> {
        let scale = self.scale.clamp(-20, FINEST);
        let coarser = self.scale.clamp(-20, 40) - scale;
        let mut merged: BTreeMap<i64, f64> = BTreeMap::new();
        for (index, count) in self.buckets.iter().filter(|(_, count)| *count > 0.0) {
            // Bounded, so that neighbours exist.
            let index = (((*index).clamp(-(1 << 40), 1 << 40) - 1) >> coarser) + 1;
            *merged.entry(index).or_default() += count;
            merged.entry(index - 1).or_default();
        }
        let step = f64::from(-scale).exp2();
        let mut total = self.at_most_zero;
        let mut cumulative: Vec<(f64, f64)> = if total > 0.0 { vec![(0.0, total)] } else { vec![] };
        for (index, count) in merged {
            total += count;
            let bound = (index as f64 * step).exp2();
            if bound.is_finite() && bound > 0.0 {
                cumulative.push((bound, total));
            }
        }
        cumulative
    }
}

/// A bound as Prometheus writes it.
pub fn bound(le: f64) -> String {
    if le == f64::INFINITY { "+Inf".to_string() } else { le.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_added_up_at_bounds_that_stay() {
        // Scale 0: (1, 2], (2, 4], and one far away.
        let histogram =
            Exponential { scale: 0, at_most_zero: 2.0, buckets: vec![(1, 3.0), (2, 4.0), (3, 0.0), (10, 1.0)] };
        assert_eq!(
            histogram.cumulative(),
            [(0.0, 2.0), (1.0, 2.0), (2.0, 5.0), (4.0, 9.0), (512.0, 9.0), (1024.0, 10.0)]
        );
        // The same at scale 4: eight buckets make one half of a power of two at scale 1, and four one at scale 2.
        let fine = Exponential { scale: 4, at_most_zero: 0.0, buckets: (1..=16).map(|index| (index, 1.0)).collect() };
        let cumulative = fine.cumulative();
        assert_eq!(cumulative.len(), 5);
        assert_eq!((cumulative[0], cumulative[4]), ((1.0, 0.0), (2.0, 16.0)));
        assert!(cumulative.iter().any(|(le, count)| (le - 2f64.sqrt()).abs() < 1e-12 && *count == 8.0));
        // What has no finite bound is in the last bucket alone.
        let wild =
            Exponential { scale: -10, at_most_zero: 0.0, buckets: vec![(i64::MAX, 1.0), (i64::MIN, 1.0), (1, 1.0)] };
        assert_eq!(wild.cumulative(), [(1.0, 1.0)]);
    }
}
