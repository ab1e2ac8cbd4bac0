//! How far event time has come, per table.

use std::collections::BTreeMap;

use tidewatch_model::limits::FUTURE_SKEW;
use tidewatch_model::{Span, Timestamp};

/// An advance of event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Rows before this are not expected any more (rules still wait their own delay).
    pub watermark: Timestamp,
    /// Whether the wall clock decided it and not the rows: such ticks are written down, so that a replay can follow.
    pub from_clock: bool,
}

/// The watermark of one table: the smallest of its partitions' newest rows, idle partitions left out.
#[derive(Debug)]
pub struct Watermark {
    idle_timeout: Span,
    partitions: BTreeMap<u32, Partition>,
    last: Timestamp,
}

#[derive(Debug)]
struct Partition {
    /// Of its rows; [`Timestamp::MIN`] before the first.
    newest: Timestamp,
    seen_at: Timestamp,
    /// Whether it has rows that were not read yet: it is not idle then, and nobody knows how old they are.
    behind: bool,
}

impl Watermark {
    /// Nothing was seen yet. A partition without rows for `idle_timeout` of wall-clock time does not hold it back.
    pub fn new(idle_timeout: Span) -> Self {
        Watermark { idle_timeout, partitions: BTreeMap::new(), last: Timestamp::MIN }
    }

    /// Goes on where it stood before a restart.
    pub fn restore(&mut self, partition: u32, watermark: Timestamp, wall: Timestamp) {
        self.partitions.insert(partition, Partition { newest: watermark, seen_at: wall, behind: false });
        self.last = self.last.max(watermark);
    }

    /// Rows up to `newest` came from a partition, at this wall-clock time. One bad clock must not close everybody's windows:
    /// a ts that is ahead counts as now, and one far ahead not at all.
    pub fn observe(&mut self, partition: u32, newest: Timestamp, wall: Timestamp) {
        if newest > wall.saturating_add(FUTURE_SKEW) {
            return;
        }
        let newest = newest.min(wall);
        let entry = self.partitions.entry(partition).or_insert(Partition { newest, seen_at: wall, behind: false });
        entry.newest = entry.newest.max(newest);
        entry.seen_at = wall;
    }

    /// Says whether a partition has rows that were not read yet. While it has, it holds windows back: with several
    /// partitions, one that is read first must not close what the others are about to bring.
    pub fn behind(&mut self, partition: u32, behind: bool, wall: Timestamp) {
        match self.partitions.get_mut(&partition) {
            Some(known) => known.behind = behind,
            None if behind => {
                self.partitions.insert(partition, Partition { newest: Timestamp::MIN, seen_at: wall, behind });
            }
            None => {}
        }
    }

    /// Advances, if there is anything to advance to. With `wall`, idle partitions are left out, and when all are idle the
    /// wall clock less the idle timeout decides. Never goes back.
    pub fn advance(&mut self, wall: Option<Timestamp>) -> Option<Tick> {
        let idle = |partition: &Partition| {
            let silent = wall.is_some_and(|wall| wall - partition.seen_at >= self.idle_timeout);
            !partition.behind && (silent || partition.newest == Timestamp::MIN)
        };
        let from_rows =
            self.partitions.values().filter(|partition| !idle(partition)).map(|partition| partition.newest).min();
        let newest = self.partitions.values().map(|partition| partition.newest).max()?;
        let (watermark, from_clock) = match (from_rows, wall) {
            (Some(watermark), _) => (watermark, false),
            (None, Some(wall)) => {
                let by_clock = wall.saturating_sub(self.idle_timeout);
                (newest.max(by_clock), by_clock > newest)
            }
            (None, None) => return None,
        };
        if watermark <= self.last || watermark == Timestamp::MIN {
            return None;
        }
        self.last = watermark;
        Some(Tick { watermark, from_clock })
    }

    /// How far each partition has come: to go on from after a restart. One that was passed by, being idle, stands where
    /// the whole does.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, Timestamp)> {
        let known = self.partitions.iter().filter(|(_, known)| known.newest != Timestamp::MIN);
        known.map(|(partition, known)| (*partition, known.newest.max(self.last)))
    }

    /// Where it stands; `None` before the first row.
    pub fn current(&self) -> Option<Timestamp> {
        (self.last != Timestamp::MIN).then_some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    fn ticks(watermark: &mut Watermark, wall: i64) -> Option<(i64, bool)> {
        watermark.advance(Some(at(wall))).map(|tick| (tick.watermark.0 / 1_000_000, tick.from_clock))
    }

    #[test]
    fn the_slowest_partition_decides_until_it_is_idle() {
        let mut watermark = Watermark::new(Span::seconds(30));
        assert_eq!(ticks(&mut watermark, 100), None);
        watermark.observe(0, at(100), at(100));
        watermark.observe(1, at(90), at(100));
        assert_eq!(ticks(&mut watermark, 100), Some((90, false)));
        watermark.observe(0, at(125), at(125));
        assert_eq!(ticks(&mut watermark, 129), None);
        assert_eq!(ticks(&mut watermark, 130), Some((125, false)));
        assert_eq!(ticks(&mut watermark, 154), None);
        assert_eq!(ticks(&mut watermark, 160), Some((130, true)));
        watermark.observe(1, at(95), at(160));
        assert_eq!(ticks(&mut watermark, 161), None);
    }

    #[test]
    fn a_partition_with_unread_rows_is_waited_for() {
        let mut watermark = Watermark::new(Span::seconds(30));
        watermark.behind(1, true, at(100));
        watermark.behind(2, false, at(100));
        watermark.observe(0, at(100), at(100));
        assert_eq!(watermark.advance(None), None);
        assert_eq!(ticks(&mut watermark, 900), None, "however long it takes");
        watermark.observe(1, at(40), at(900));
        assert_eq!(ticks(&mut watermark, 900), Some((40, false)));
        watermark.observe(1, at(90), at(901));
        watermark.behind(1, false, at(901));
        assert_eq!(ticks(&mut watermark, 901), Some((90, false)));
    }

    #[test]
    fn a_clock_that_is_ahead_closes_nobodys_windows() {
        let mut watermark = Watermark::new(Span::seconds(30));
        watermark.observe(0, at(100), at(100));
        watermark.observe(0, at(100_000), at(101));
        assert_eq!(ticks(&mut watermark, 101), Some((100, false)));
        watermark.observe(0, at(110), at(102));
        assert_eq!(ticks(&mut watermark, 102), Some((102, false)), "what others send meanwhile is not late");
    }

    #[test]
    fn a_restart_goes_on_where_it_stood() {
        let mut watermark = Watermark::new(Span::seconds(30));
        watermark.restore(0, at(100), at(500));
        assert_eq!(watermark.current(), Some(at(100)));
        assert_eq!(ticks(&mut watermark, 529), None);
        assert_eq!(ticks(&mut watermark, 530), Some((500, true)));
    }

    #[test]
    fn a_replay_knows_only_rows() {
        let mut watermark = Watermark::new(Span::seconds(30));
        watermark.observe(0, at(100), at(1_000));
        assert_eq!(watermark.advance(None), Some(Tick { watermark: at(100), from_clock: false }));
        assert_eq!(watermark.advance(None), None);
    }
}
