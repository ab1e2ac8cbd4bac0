//! Time: instants and spans in integer microseconds. Nothing here is a float, and nothing rounds silently.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// An instant: microseconds since 1970-01-01T00:00:00Z, as in Arrow's `Timestamp(us, "UTC")`.
///
/// ```
/// use tidewatch_model::{Span, Timestamp};
/// let start: Timestamp = "2026-11-24T05:00:00Z".parse().unwrap();
/// assert_eq!((start + Span::seconds(90)).to_string(), "2026-11-24T05:01:30Z");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A length of time in microseconds; may be negative as a difference, never as an option of a rule.
///
/// ```
/// use tidewatch_model::Span;
/// assert_eq!("2 minutes".parse::<Span>().unwrap(), Span::seconds(120));
/// assert_eq!("1h30m".parse::<Span>().unwrap().to_string(), "1h30m");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub i64);

/// What was wrong with a written instant or duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not an instant.
    #[error("'{0}' is not a time: expected RFC 3339 such as 2026-11-24T05:00:00Z")]
    Instant(String),
    /// Not a duration.
    #[error(
        "'{0}' is not a duration: expected a number and a unit (ms, s, m, h, d, w), such as 30s, 1h30m or '2 minutes'"
    )]
    Span(String),
}

impl Timestamp {
    /// The smallest instant; a watermark that has seen nothing.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The largest instant.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// From whole seconds since the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Timestamp(seconds * 1_000_000)
    }

    /// Rounded down to a multiple of `step` since the epoch, toward minus infinity for instants before it.
    ///
    /// # Panics
    /// When `step` is not positive.
    pub fn floor(self, step: Span) -> Self {
        assert!(step.0 > 0, "step must be positive, got {}us", step.0);
        Timestamp(self.0.div_euclid(step.0).saturating_mul(step.0))
    }

    /// The UTC date, `YYYY-MM-DD`, as used in `dt=` folders.
    pub fn date(self) -> String {
        self.utc().format("%Y-%m-%d").to_string()
    }

    /// As chrono's type, for formatting.
    pub fn utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// `self - span`, stopping at the ends of the range instead of wrapping.
    pub fn saturating_sub(self, span: Span) -> Self {
        Timestamp(self.0.saturating_sub(span.0))
    }

    /// `self + span`, stopping at the ends of the range instead of wrapping.
    pub fn saturating_add(self, span: Span) -> Self {
        Timestamp(self.0.saturating_add(span.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// Whole microseconds.
    pub const fn micros(micros: i64) -> Self {
        Span(micros)
    }

    /// Whole milliseconds.
    pub const fn millis(millis: i64) -> Self {
        Span(millis * 1_000)
    }

    /// Whole seconds.
    pub const fn seconds(seconds: i64) -> Self {
        Span(seconds * 1_000_000)
    }

    /// Whole minutes.
    pub const fn minutes(minutes: i64) -> Self {
        Span::seconds(minutes * 60)
    }

    /// Whole hours.
    pub const fn hours(hours: i64) -> Self {
        Span::minutes(hours * 60)
    }

    /// Whole days of 24 hours.
    pub const fn days(days: i64) -> Self {
        Span::hours(days * 24)
    }

    /// In seconds, for people and for metrics.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// As the standard library's duration; a negative span becomes zero.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.max(0) as u64)
    }
}

impl Add<Span> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Span) -> Timestamp {
        Timestamp(self.0 + span.0)
    }
}

impl Sub<Span> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Span) -> Timestamp {
        Timestamp(self.0 - span.0)
    }
}

impl Sub for Timestamp {
    type Output = Span;
    /// Stops at the ends of the range: an instant may be [`Timestamp::MIN`], which stands for none.
    fn sub(self, other: Timestamp) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0 + other.0)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC; fractions only when there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        DateTime::parse_from_rfc3339(text.trim())
            .map(|instant| Timestamp(instant.timestamp_micros()))
            .map_err(|_| TimeError::Instant(text.to_string()))
    }
}

/// Units of a duration: every accepted spelling and its microseconds, the largest first.
const UNITS: [(&[&str], i64); 7] = [
    (&["w", "week", "weeks"], Span::days(7).0),
    (&["d", "day", "days"], Span::days(1).0),
    (&["h", "hour", "hours"], Span::hours(1).0),
    (&["m", "min", "minute", "minutes"], Span::minutes(1).0),
    (&["s", "sec", "second", "seconds"], Span::seconds(1).0),
    (&["ms", "millisecond", "milliseconds"], Span::millis(1).0),
    (&["us", "microsecond", "microseconds"], 1),
];

impl fmt::Display for Span {
    /// Prometheus' way: `1h30m`, `250ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        for (names, micros) in &UNITS[1..] {
            let count = rest / *micros as u64;
            if count > 0 {
                write!(f, "{count}{}", names[0])?;
                rest %= *micros as u64;
            }
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = TimeError;
    /// Reads `30s`, `1h30m`, `2 minutes`, `1 hour 30 minutes`; never negative, never without a unit but `0`.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::Span(text.to_string());
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Span::ZERO);
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let count: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let unit = rest[..letters].to_ascii_lowercase();
            let (_, micros) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str())).ok_or_else(wrong)?;
            let part = count.checked_mul(*micros).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = rest[letters..].trim_start();
        }
        Ok(Span(total))
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_text!(Timestamp);
serde_as_text!(Span);

/// The machine's clock: the only place in Tidewatch that asks what time it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl crate::ports::Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(Utc::now().timestamp_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_floor_toward_minus_infinity() {
        let ten = Span::seconds(10);
        assert_eq!(Timestamp(-1).floor(ten), Timestamp(-10_000_000));
        assert_eq!(Timestamp::from_seconds(19).floor(ten), Timestamp::from_seconds(10));
        assert_eq!(Timestamp::from_seconds(20).floor(ten), Timestamp::from_seconds(20));
    }

    #[test]
    fn spans_read_what_people_write() {
        for (text, seconds) in [("30s", 30), ("2 minutes", 120), ("1h30m", 5400), ("1 hour 30 minutes", 5400), ("0", 0)]
        {
            assert_eq!(text.parse::<Span>().unwrap(), Span::seconds(seconds), "{text}");
        }
        for text in ["", "30", "s", "-5s", "5 parsecs", "99999999999999999w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_print_as_they_are_read() {
        for span in [Span::ZERO, Span::millis(250), Span::seconds(90), Span::days(9), Span(1)] {
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
    }
}
