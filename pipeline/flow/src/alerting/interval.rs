//! Time intervals: when a route is active, or mute. Alertmanager's: minutes of the day, days of the week and of the month, months,
//! years, in a time zone.

use std::ops::RangeInclusive;

use chrono::{Datelike, Timelike};
use chrono_tz::Tz;
use tidewatch_model::Timestamp;

/// Some times; what is absent says nothing, and all that is there must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeInterval {
    /// Minutes of the day, the end not in it.
    pub times: Option<Vec<(u32, u32)>>,
    /// Days of the week, Sunday 0.
    pub weekdays: Option<Vec<RangeInclusive<i32>>>,
    /// Days of the month; negative ones count from its end.
    pub days_of_month: Option<Vec<RangeInclusive<i32>>>,
    /// Months, January 1.
    pub months: Option<Vec<RangeInclusive<i32>>>,
    /// Years.
    pub years: Option<Vec<RangeInclusive<i32>>>,
    /// Where the clock hangs.
    pub location: Tz,
}

impl Default for TimeInterval {
    fn default() -> Self {
        TimeInterval { times: None, weekdays: None, days_of_month: None, months: None, years: None, location: Tz::UTC }
    }
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl TimeInterval {
    /// Whether an instant is in it.
    pub fn contains(&self, now: Timestamp) -> bool {
        let local = now.utc().with_timezone(&self.location);
        let minute = local.hour() * 60 + local.minute();
        let within = |ranges: &Option<Vec<RangeInclusive<i32>>>, value: i32| {
            ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&value)))
        };
        let days = days_in_month(local.year(), local.month());
        let day = local.day() as i32;
        let in_month = self.days_of_month.as_ref().is_none_or(|ranges| {
            ranges.iter().any(|range| {
                let place = |day: i32| if day < 0 { days + day + 1 } else { day };
                (place(*range.start()).max(1)..=place(*range.end()).min(days)).contains(&day)
            })
        });
        self.times.as_ref().is_none_or(|times| times.iter().any(|(start, end)| (*start..*end).contains(&minute)))
            && in_month
            && within(&self.weekdays, local.weekday().num_days_from_sunday() as i32)
            && within(&self.months, local.month() as i32)
            && within(&self.years, local.year())
    }
}

fn days_in_month(year: i32, month: u32) -> i32 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let first = |year, month| chrono::NaiveDate::from_ymd_opt(year, month, 1);
    match (first(year, month), first(next_year, next)) {
        (Some(this), Some(next)) => (next - this).num_days() as i32,
        _ => 31,
    }
}

/// Minutes of the day of `HH:MM`; 24:00 is its end.
///
/// # Errors
/// What is no time of day.
pub fn parse_minute(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is no time of day: expected HH:MM from 00:00 to 24:00");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    if hours.len() != 2 || minutes.len() != 2 {
        return Err(wrong());
    }
    let (hours, minutes): (u32, u32) = (hours.parse().map_err(|_| wrong())?, minutes.parse().map_err(|_| wrong())?);
    let minute = hours * 60 + minutes;
    if minutes > 59 || minute > 24 * 60 { Err(wrong()) } else { Ok(minute) }
}

/// A range of weekdays: `monday`, `monday:friday`.
///
/// # Errors
/// What is none.
pub fn parse_weekdays(text: &str) -> Result<RangeInclusive<i32>, String> {
    parse_range(text, 0..=6, |word| WEEKDAYS.iter().position(|day| *day == word).map(|day| day as i32))
}

/// A range of months: `march`, `1:3`, `may:august`.
///
/// # Errors
/// What is none.
pub fn parse_months(text: &str) -> Result<RangeInclusive<i32>, String> {
    parse_range(text, 1..=12, |word| {
        let named = MONTHS.iter().position(|month| *month == word).map(|month| month as i32 + 1);
        named.or_else(|| word.parse().ok())
    })
}

/// A range of days of the month: `1:5`, `-3:-1`.
///
/// # Errors
/// What is none.
pub fn parse_days_of_month(text: &str) -> Result<RangeInclusive<i32>, String> {
    let range = parse_range(text, -31..=31, |word| word.parse().ok())?;
    if *range.start() == 0 || *range.end() == 0 || (*range.start() < 0) != (*range.end() < 0) && *range.start() < 0 {
        return Err(format!("'{text}': expected days from 1 to 31, or from -31 to -1 counted from the month's end"));
    }
    Ok(range)
}

/// A range of years.
///
/// # Errors
/// What is none.
pub fn parse_years(text: &str) -> Result<RangeInclusive<i32>, String> {
    parse_range(text, 1970..=9999, |word| word.parse().ok())
}

fn parse_range(
    text: &str,
    within: RangeInclusive<i32>,
    read: impl Fn(&str) -> Option<i32>,
) -> Result<RangeInclusive<i32>, String> {
    let lower = text.trim().to_lowercase();
    let (start, end) = lower.split_once(':').unwrap_or((&lower, &lower));
    match (read(start), read(end)) {
        (Some(from), Some(to)) if within.contains(&from) && within.contains(&to) => {
            // -1 is after 5: which day it is depends on the month.
            if from > to && !(from > 0 && to < 0) {
                return Err(format!("'{text}': its start is after its end"));
            }
            Ok(from..=to)
        }
        _ => Err(format!(
            "'{text}' is no range of these: expected one of {} to {}, or start:end",
            within.start(),
            within.end()
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn office_hours_in_their_own_zone() {
        let office = TimeInterval {
            times: Some(vec![(parse_minute("09:00").unwrap(), parse_minute("17:00").unwrap())]),
            weekdays: Some(vec![parse_weekdays("monday:friday").unwrap()]),
            location: "Europe/Berlin".parse().unwrap(),
            ..TimeInterval::default()
        };
        // Summer: two hours ahead of UTC; winter: one.
        assert!(office.contains(at("2026-07-01T07:00:00Z")));
        assert!(!office.contains(at("2026-12-01T07:00:00Z")));
        assert!(office.contains(at("2026-12-01T08:00:00Z")));
        assert!(!office.contains(at("2026-12-01T16:00:00Z")));
        assert!(!office.contains(at("2026-12-05T10:00:00Z")));
    }

    #[test]
    fn days_from_the_end_of_the_month() {
        let last = TimeInterval {
            days_of_month: Some(vec![parse_days_of_month("-3:-1").unwrap()]),
            ..TimeInterval::default()
        };
        assert!(last.contains(at("2028-02-27T00:00:00Z")));
        assert!(!last.contains(at("2028-02-26T00:00:00Z")));
        assert!(last.contains(at("2026-01-31T23:59:00Z")));
        let most =
            TimeInterval { days_of_month: Some(vec![parse_days_of_month("2:-2").unwrap()]), ..TimeInterval::default() };
        assert!(!most.contains(at("2026-01-01T00:00:00Z")));
        assert!(most.contains(at("2026-01-30T00:00:00Z")));
        assert!(!most.contains(at("2026-01-31T00:00:00Z")));
    }

    #[test]
    fn what_is_no_interval() {
        assert!(parse_minute("9:00").is_err());
        assert!(parse_minute("24:01").is_err());
        assert_eq!(parse_minute("24:00"), Ok(1440));
        assert!(parse_weekdays("friday:monday").unwrap_err().contains("after its end"));
        assert!(parse_weekdays("fryday").is_err());
        assert!(parse_months("0:3").is_err());
        assert_eq!(parse_months("may:8"), Ok(5..=8));
        assert!(parse_days_of_month("0").is_err());
        assert!(parse_days_of_month("-3:5").is_err());
        assert!(parse_years("196").is_err());
    }
}
