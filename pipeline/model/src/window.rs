//! Window arithmetic, once, for everybody: integer, half-open `[start, end)`, aligned to the epoch, floored toward
//! minus infinity.

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};

/// A hopping window: one ends every `slide` and covers the `size` before its end. `slide == size` is a tumbling one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WindowSpec {
    /// Time between the ends of two windows; positive.
    pub slide: Span,
    /// Length of each window; positive, not necessarily a multiple of `slide`.
    pub size: Span,
}

impl WindowSpec {
    /// The starts of the windows that hold `ts`, ascending. Windows start at multiples of `slide`, as in Flink's HOP.
    ///
    /// ```
    /// use tidewatch_model::{Span, Timestamp, WindowSpec};
    /// let hop = WindowSpec { slide: Span::seconds(10), size: Span::seconds(25) };
    /// let starts: Vec<i64> = hop.starts_of(Timestamp::from_seconds(31)).map(|t| t.0 / 1_000_000).collect();
    /// assert_eq!(starts, [10, 20, 30]);
    /// ```
    pub fn starts_of(self, ts: Timestamp) -> impl Iterator<Item = Timestamp> {
        let last = ts.floor(self.slide);
        let first = self.first_start_of(ts);
        let count = if first > last { 0 } else { (last - first).0 / self.slide.0 + 1 };
        (0..count).map(move |index| first + Span(index * self.slide.0))
    }

    /// The earliest start of a window that holds `ts` or something later.
    pub fn first_start_of(self, ts: Timestamp) -> Timestamp {
        ts.saturating_sub(self.size).floor(self.slide).saturating_add(self.slide)
    }

    /// The earliest start of a window that ends at `end` or later.
    pub fn first_start_ending(self, end: Timestamp) -> Timestamp {
        self.first_start_of(end.saturating_sub(Span(1)))
    }

    /// The end of the window that starts at `start`.
    pub fn end_of(self, start: Timestamp) -> Timestamp {
        start + self.size
    }

    /// The start of the last window whose end is at or before `watermark`: the newest one that may be emitted.
    pub fn last_closed_start(self, watermark: Timestamp) -> Timestamp {
        watermark.saturating_sub(self.size).floor(self.slide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_covers_its_row_and_no_other_does() {
        for (slide, size) in [(1, 1), (10, 60), (7, 20), (10, 3), (60, 60)] {
            let spec = WindowSpec { slide: Span(slide), size: Span(size) };
            for ts in -130..130 {
                let found: Vec<i64> = spec.starts_of(Timestamp(ts)).map(|start| start.0).collect();
                let expected: Vec<i64> = (-300..300).filter(|s| s % slide == 0 && *s <= ts && ts < s + size).collect();
                assert_eq!(found, expected, "slide {slide} size {size} ts {ts}");
                let first = (-300..300).find(|s| s % slide == 0 && s + size > ts).unwrap();
                assert_eq!(spec.first_start_of(Timestamp(ts)).0, first, "slide {slide} size {size} ts {ts}");
                let ending = (-300..300).find(|s| s % slide == 0 && s + size >= ts).unwrap();
                assert_eq!(spec.first_start_ending(Timestamp(ts)).0, ending, "slide {slide} size {size} ts {ts}");
            }
        }
    }

    #[test]
    fn a_window_closes_when_the_watermark_reaches_its_end() {
        let spec = WindowSpec { slide: Span(10), size: Span(25) };
        assert_eq!(spec.last_closed_start(Timestamp(44)), Timestamp(10));
        assert_eq!(spec.last_closed_start(Timestamp(45)), Timestamp(20));
    }
}
