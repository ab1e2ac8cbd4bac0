//! Series and their points, as they are gathered from a request within its bounds.

use std::collections::BTreeMap;

use tidewatch_model::Timestamp;

use crate::{IngestError, LABEL_BYTES, SAMPLES};

/// Reasons that are told.
const NAMED: usize = 10;

/// A value at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When.
    pub ts: Timestamp,
    /// What; `None` says that there is none from here on: a stale marker, or another NaN.
    pub value: Option<f64>,
}

/// Points of one name and one set of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The metric.
    pub name: String,
    /// Its labels without the name, sorted; none is empty.
    pub labels: BTreeMap<String, String>,
    /// In the order in which they were sent.
    pub points: Vec<Point>,
}

/// Between which times a point is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The oldest.
    pub oldest: Timestamp,
    /// The newest.
    pub newest: Timestamp,
}

impl Times {
    /// Any.
    pub const ANY: Times = Times { oldest: Timestamp::MIN, newest: Timestamp::MAX };

    /// Whether a time is one of them.
    pub fn contains(self, ts: Timestamp) -> bool {
        (self.oldest..=self.newest).contains(&ts)
    }
}

/// What was decoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// The series that are good.
    pub series: Vec<Series>,
    /// Values that were taken, each bucket of a histogram being part of one.
    pub samples: u64,
    /// Native histograms that were taken.
    pub histograms: u64,
    /// Values and histograms that were not.
    pub rejected: u64,
    /// Why, for the first of them.
    pub problems: Vec<String>,
}

/// Gathers series, and keeps count of what they cost.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub decoded: Decoded,
    times: Times,
    rows: usize,
    bytes: usize,
}

impl Gathering {
    pub fn new(times: Times) -> Gathering {
        Gathering { decoded: Decoded::default(), times, rows: 0, bytes: 0 }
    }

    /// Says that so many bytes are about to be kept.
    pub fn spend_bytes(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.bytes += bytes;
        match self.bytes > LABEL_BYTES {
            true => Err(IngestError::TooLarge(format!("labels of more than {} MiB in one request", LABEL_BYTES >> 20))),
            false => Ok(()),
        }
    }

    /// Says that so many values are about to be kept.
    pub fn spend_rows(&mut self, rows: usize) -> Result<(), IngestError> {
        self.rows += rows;
        match self.rows > SAMPLES {
            true => Err(IngestError::TooLarge(format!("more than {SAMPLES} samples in one request"))),
            false => Ok(()),
        }
    }

    /// Refuses so many values.
    pub fn reject(&mut self, count: u64, problem: impl FnOnce() -> String) {
        if count > 0 {
            self.decoded.rejected += count;
            if self.decoded.problems.len() < NAMED {
                self.decoded.problems.push(problem());
            }
        }
    }

    /// Whether a time can be that of a row; one that can't is counted.
    pub fn has_good_time(&mut self, what: &str, ts: Timestamp) -> bool {
        let good = self.times.contains(ts);
        if !good {
            self.reject(1, || format!("{what}: the time {ts} is more than 24h behind the clock, or ahead of it"));
        }
        good
    }

    /// Adds a series that has points. Each of them will be a row with all of its labels.
    pub fn push(
        &mut self,
        name: String,
        labels: BTreeMap<String, String>,
        points: Vec<Point>,
    ) -> Result<(), IngestError> {
        self.spend_bytes(size_of(&name, &labels).saturating_mul(points.len()))?;
        if !points.is_empty() {
            self.decoded.series.push(Series { name, labels, points });
        }
        Ok(())
    }
}

/// Bytes of a name and its labels.
pub(crate) fn size_of(name: &str, labels: &BTreeMap<String, String>) -> usize {
    name.len() + labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

/// A value as it is kept: NaN is none.
pub(crate) fn value(value: f64) -> Option<f64> {
    Some(value).filter(|value| !value.is_nan())
}
