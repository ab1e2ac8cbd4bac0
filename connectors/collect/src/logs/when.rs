//! When a line was written, from what it says.

use std::str::FromStr;
use std::sync::LazyLock;

use chrono::{DateTime, Datelike, Duration, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};
use chrono_tz::Tz;
use regex::{Captures, Regex};
use tidewatch_model::{Span, Timestamp};

/// Where the clock stands by which times without a zone are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zone {
    /// This machine's zone.
    #[default]
    Local,
    /// A zone by its name.
    Named(Tz),
}

impl FromStr for Zone {
    type Err = String;

    /// `local`, or a name of the tz database such as `UTC` or `Europe/Berlin`.
    fn from_str(text: &str) -> Result<Zone, String> {
        if text == "local" {
            return Ok(Zone::Local);
        }
        let wrong = || format!("'{text}' is not a zone: expected local, UTC, or a name such as Europe/Berlin");
        text.parse().map(Zone::Named).map_err(|_| wrong())
    }
}

impl Zone {
    /// The instant of a wall clock's time. Of two the first; one that a clock skipped counts an hour on.
    fn instant(self, time: NaiveDateTime) -> Option<Timestamp> {
        let one = |time: &NaiveDateTime| match self {
            Zone::Local => Local.from_local_datetime(time).earliest().map(|at| at.timestamp_micros()),
            Zone::Named(zone) => zone.from_local_datetime(time).earliest().map(|at| at.timestamp_micros()),
        };
        one(&time).or_else(|| one(&(time + Duration::hours(1)))).map(Timestamp)
    }

    fn year(self, now: Timestamp) -> i32 {
        match self {
            Zone::Local => now.utc().with_timezone(&Local).year(),
            Zone::Named(zone) => now.utc().with_timezone(&zone).year(),
        }
    }
}

/// The times of most loggers: ISO 8601 with its variants, syslog's `Jan 31 12:00:00`, klog's `I0131 12:00:00.123456`. They may stand in
/// brackets and behind a word or two.
static TIMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        ^[\s\[(<]*
        (?: (?: \[[\w\ .:/-]{1,24}\]:? | [A-Z]{4,8}:? | [\w.-]{1,24}[:|] ) [\s\[(]+ ){0,2}?
        (?:
            (?P<year>\d{4})[-/.](?P<month>\d\d)[-/.](?P<day>\d\d)[T\ _]+(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))?
            (?:\ ?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)\b)?
          | (?P<name>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\ +(?P<date>\d{1,2})\ (?P<wall>\d\d:\d\d:\d\d)(?:[.,](?P<rest>\d{1,9}))?
          | [IWEF](?P<kmonth>\d\d)(?P<kday>\d\d)\ (?P<kclock>\d\d:\d\d:\d\d)\.(?P<kpart>\d{1,9})
        )",
    )
    .ok()
});

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// When a line says that it was written. A time without a year is of the year that puts it nearest before `now`, give or take a day.
pub fn time_of(text: &str, zone: Zone, now: Timestamp) -> Option<Timestamp> {
    let found = TIMES.as_ref()?.captures(text)?;
    let number = |name: &str| found.name(name).and_then(|text| text.as_str().parse::<u32>().ok());
    if let (Some(year), Some(month), Some(day)) = (number("year"), number("month"), number("day")) {
        let time = NaiveDate::from_ymd_opt(year as i32, month, day)?.and_time(clock(&found, "clock", "part")?);
        return match found.name("zone").map(|zone| zone.as_str()) {
            None => zone.instant(time),
            Some("Z" | "UTC") => Some(Timestamp(time.and_utc().timestamp_micros())),
            Some(text) => Some(Timestamp(offset(text)?.from_local_datetime(&time).earliest()?.timestamp_micros())),
        };
    }
    let (month, day, time) = match found.name("name") {
        Some(name) => {
            let month = MONTHS.iter().position(|month| *month == name.as_str())? as u32 + 1;
            (month, number("date")?, clock(&found, "wall", "rest")?)
        }
        None => (number("kmonth")?, number("kday")?, clock(&found, "kclock", "kpart")?),
    };
    let year = zone.year(now);
    let of = |year: i32| zone.instant(NaiveDate::from_ymd_opt(year, month, day)?.and_time(time));
    let latest = now.saturating_add(Span::days(1));
    [year + 1, year, year - 1].into_iter().filter_map(of).find(|at| *at <= latest)
}

/// A text that is nothing but a time: as in a line, or seconds, milliseconds, microseconds or nanoseconds since 1970, told by their size.
pub fn time_of_value(text: &str, zone: Zone, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(number) => of_epoch(number),
        Err(_) => text.parse().ok().or_else(|| time_of(text, zone, now)),
    }
}

/// By a pattern of strftime's kind; without a zone in it, in this zone.
pub fn time_by(text: &str, pattern: &str, zone: Zone) -> Option<Timestamp> {
    let fixed = DateTime::parse_from_str(text, pattern).map(|at| Timestamp(at.timestamp_micros()));
    fixed.ok().or_else(|| zone.instant(NaiveDateTime::parse_from_str(text, pattern).ok()?))
}

/// Seconds since 1970 have ten digits in our time, and each finer unit three more.
fn of_epoch(number: f64) -> Option<Timestamp> {
    let scale = match number {
        number if !(1e8..1e20).contains(&number) => return None,
        number if number < 1e11 => 1e6,
        number if number < 1e14 => 1e3,
        number if number < 1e17 => 1.0,
        _ => 1e-3,
    };
    Some(Timestamp((number * scale).round() as i64))
}

fn clock(found: &Captures<'_>, clock: &str, part: &str) -> Option<NaiveTime> {
    let time = NaiveTime::parse_from_str(found.name(clock)?.as_str(), "%H:%M:%S").ok()?;
    let nanos = found.name(part).map_or(0, |part| format!("{:0<9}", part.as_str()).parse().unwrap_or(0));
    Some(time + Duration::nanoseconds(nanos))
}

fn offset(text: &str) -> Option<FixedOffset> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes): (i32, i32) = (digits.get(..2)?.parse().ok()?, digits.get(2..4)?.parse().ok()?);
    let seconds = hours * 3_600 + minutes * 60;
    FixedOffset::east_opt(if text.starts_with('-') { -seconds } else { seconds })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(line: &str, zone: &str) -> Option<String> {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        time_of(line, zone.parse().unwrap(), now).map(|ts| ts.to_string())
    }

    #[test]
    fn the_times_of_the_usual_loggers() {
        for (line, expected) in [
            ("2026-01-31 11:22:33,456 - root - INFO - x", "2026-01-31T11:22:33.456Z"),
            ("2026-01-31T11:22:33.123456789Z stdout F x", "2026-01-31T11:22:33.123456Z"),
            ("[2026-01-31T13:22:33+02:00] x", "2026-01-31T11:22:33Z"),
            ("2026-01-31T05:52:33-0530 x", "2026-01-31T11:22:33Z"),
            (" [2026-01-31 11:22:33] iteration 100/ 1000 |", "2026-01-31T11:22:33Z"),
            ("[rank3]: [2026-01-31 11:22:33,4] x", "2026-01-31T11:22:33.400Z"),
            ("[INFO] 2026/01/31 11:22:33 x", "2026-01-31T11:22:33Z"),
            ("INFO 01-31 x", ""),
            ("WARNING 2026-01-31 11:22:33 x", "2026-01-31T11:22:33Z"),
            ("Jan 31 11:22:33 n1 sshd[1]: x", "2026-01-31T11:22:33Z"),
            ("Jan  3 11:22:33 n1 x", "2026-01-03T11:22:33Z"),
            ("Dec 31 23:59:59 n1 x", "2025-12-31T23:59:59Z"),
            ("Feb  1 00:30:00 n1 x", "2026-02-01T00:30:00Z"),
            ("I0131 11:22:33.123456 42 a.cc:1] x", "2026-01-31T11:22:33.123456Z"),
            ("[rank0]:[E0131 11:22:33.100 x", "2026-01-31T11:22:33.100Z"),
            ("loading what was saved at 2026-01-30 00:00:00", ""),
            ("2026-13-31 11:22:33 x", ""),
            ("", ""),
        ] {
            assert_eq!(of(line, "UTC").unwrap_or_default(), expected, "{line}");
        }
    }

    #[test]
    fn zones_with_their_odd_hours() {
        assert_eq!(of("2026-01-31 12:00:00", "Europe/Berlin").unwrap(), "2026-01-31T11:00:00Z");
        assert_eq!(of("2026-07-31 12:00:00", "Europe/Berlin").unwrap(), "2026-07-31T10:00:00Z");
        assert_eq!(of("2026-10-25 02:30:00", "Europe/Berlin").unwrap(), "2026-10-25T00:30:00Z", "the first of two");
        assert_eq!(
            of("2026-03-29 02:30:00", "Europe/Berlin").unwrap(),
            "2026-03-29T01:30:00Z",
            "there is no such time"
        );
        assert!("Mars/Olympus".parse::<Zone>().is_err());
    }

    #[test]
    fn values_and_patterns() {
        let (utc, now) = (Zone::Named(Tz::UTC), "2026-01-31T12:00:00Z".parse().unwrap());
        for text in ["1769858553", "1769858553000", "1769858553000000", "1769858553000000000", "2026-01-31T11:22:33Z"] {
            assert_eq!(time_of_value(text, utc, now).unwrap().to_string(), "2026-01-31T11:22:33Z", "{text}");
        }
        assert_eq!([time_of_value("7", utc, now), time_of_value("nan", utc, now)], [None, None]);
        let by = |text: &str, pattern: &str| time_by(text, pattern, utc).map(|ts| ts.to_string());
        assert_eq!(by("31.01.2026 11:22:33", "%d.%m.%Y %H:%M:%S").unwrap(), "2026-01-31T11:22:33Z");
        assert_eq!(by("31/Jan/2026:11:22:33 +0100", "%d/%b/%Y:%H:%M:%S %z").unwrap(), "2026-01-31T10:22:33Z");
        assert_eq!(by("soon", "%d.%m.%Y"), None);
    }
}
