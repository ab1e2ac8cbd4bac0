//! Prometheus' remote write, versions 1.0 and 2.0.
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>, <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>

use std::collections::BTreeMap;

use tidewatch_model::Timestamp;

use crate::histogram::{Exponential, bound};
use crate::protobuf::{Message, Value, zigzag};
use crate::series::{Gathering, Point, value};
use crate::{Decoded, IngestError, NUMBERS, SERIES_BYTES, SYMBOLS, Times};

/// Which message a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    One,
    /// `io.prometheus.write.v2.Request`.
    Two,
}

impl Version {
    /// By the text of `Content-Type`.
    pub fn of(content_type: &str) -> Option<Version> {
        let mut parts = content_type.split(';').map(str::trim);
        if parts.next() != Some("application/x-protobuf") {
            return None;
        }
        match parts.find_map(|part| part.strip_prefix("proto=")) {
            None | Some("prometheus.WriteRequest") => Some(Version::One),
            Some("io.prometheus.write.v2.Request") => Some(Version::Two),
            Some(_) => None,
        }
    }
}

/// A schema whose bounds are written out.
const CUSTOM_BOUNDS: i64 = -53;
/// The NaN that says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Decodes a message that is not packed. A series that is not good is left out, counted and told with its reason.
///
/// # Errors
/// It is no such message, or larger than is read at once.
pub fn decode(body: &[u8], version: Version, times: Times) -> Result<Decoded, IngestError> {
    let mut gathering = Gathering::new(times);
    let message = Message::new(body);
    let mut symbols = Vec::new();
    if version == Version::Two {
        for field in message.fields() {
            if let (4, value) = field? {
                if symbols.len() >= SYMBOLS {
                    return Err(IngestError::TooLarge(format!("more than {SYMBOLS} symbols in one request")));
                }
                symbols.push(value.text()?);
            }
        }
        // Of an empty message there is nothing to look up.
        if symbols.first().is_some_and(|first| !first.is_empty()) {
            return Err(IngestError::Malformed("symbols: expected the first to be empty".to_string()));
        }
    }
    for field in message.fields() {
        match (version, field?) {
            (Version::One, (1, series)) => one(series.message()?, &mut gathering)?,
            (Version::Two, (5, series)) => two(series.message()?, &symbols, &mut gathering)?,
            _ => {}
        }
    }
    Ok(gathering.decoded)
}

fn one(message: Message<'_>, gathering: &mut Gathering) -> Result<(), IngestError> {
    let mut pairs = Vec::new();
    for field in message.fields() {
        if let (1, label) = field? {
            let (mut name, mut value) = ("", "");
            for field in label.message()?.fields() {
                match field? {
                    (1, text) => name = text.text()?,
                    (2, text) => value = text.text()?,
                    _ => {}
                }
            }
            if pairs.len() >= NUMBERS {
                return Err(IngestError::TooLarge(format!("more than {NUMBERS} labels of one series")));
            }
            pairs.push((name, value));
        }
    }
    take(message, (2, 4), labels(&pairs), gathering)
}

fn two(message: Message<'_>, symbols: &[&str], gathering: &mut Gathering) -> Result<(), IngestError> {
    let mut references = Vec::new();
    for field in message.fields() {
        if let (1, value) = field? {
            value.varints(&mut references)?;
        }
    }
    let symbol = |reference: &u64| usize::try_from(*reference).ok().and_then(|index| symbols.get(index)).copied();
    let pairs: Option<Vec<(&str, &str)>> =
        references.chunks(2).map(|pair| Some((symbol(pair.first()?)?, symbol(pair.get(1)?)?))).collect();
    let found = match pairs {
        Some(pairs) => labels(&pairs),
        None => Err("labels_refs: a reference to no symbol, or a name without a value".to_string()),
    };
    take(message, (2, 3), found, gathering)
}

/// A metric's name, and its labels.
type Labels = (String, BTreeMap<String, String>);

/// The labels, or what is wrong with them.
fn labels(pairs: &[(&str, &str)]) -> Result<Labels, String> {
    if pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > SERIES_BYTES {
        return Err(format!("a series whose labels have more than {} KiB", SERIES_BYTES >> 10));
    }
    let mut name = None;
    let mut labels = BTreeMap::new();
    for (label, value) in pairs {
        let before = match *label {
            "" => return Err("a label without a name".to_string()),
            "__name__" => name.replace((*value).to_string()).is_some(),
            // An empty label is none.
            _ => !value.is_empty() && labels.insert((*label).to_string(), (*value).to_string()).is_some(),
        };
        if before {
            return Err(format!("label '{label}' is there twice"));
        }
    }
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Ok((name, labels)),
        None => Err("a series without a name (__name__)".to_string()),
    }
}

/// Takes the samples and histograms of a series, which are these fields of its message.
fn take(
    message: Message<'_>,
    (samples, histograms): (u64, u64),
    labels: Result<Labels, String>,
    gathering: &mut Gathering,
) -> Result<(), IngestError> {
    let (name, labels) = match labels {
        Ok(labels) => labels,
        Err(problem) => {
            let fields = message.fields().filter_map(Result::ok);
            let count = fields.filter(|(field, _)| [samples, histograms].contains(field)).count();
            gathering.reject(count as u64, || problem);
            return Ok(());
        }
    };
    let mut points = Vec::new();
    for field in message.fields() {
        match field? {
            (field, sample) if field == samples => {
                let (mut read, mut millis) = (0.0, 0);
                for field in sample.message()?.fields() {
                    match field? {
                        (1, value) => read = value.double()?,
                        (2, value) => millis = value.number()? as i64,
                        _ => {}
                    }
                }
                let ts = at(millis);
                if gathering.has_good_time(&name, ts) {
                    gathering.spend_rows(1)?;
                    gathering.decoded.samples += 1;
                    points.push(Point { ts, value: value(read) });
                }
            }
            (field, histogram) if field == histograms => native(histogram, &name, &labels, gathering)?,
            _ => {}
        }
    }
    gathering.push(name, labels, points)
}

fn at(millis: i64) -> Timestamp {
    Timestamp(millis.saturating_mul(1_000))
}

/// A native histogram as the series of a classic one.
fn native(
    histogram: Value<'_>,
    name: &str,
    labels: &BTreeMap<String, String>,
    gathering: &mut Gathering,
) -> Result<(), IngestError> {
    let (mut count, mut sum, mut schema, mut zero, mut millis) = (0.0, 0.0, 0, 0.0, 0);
    let (mut spans, mut deltas, mut counts, mut below, mut below_counts) = (vec![], vec![], vec![], vec![], vec![]);
    let mut bounds = vec![];
    for field in histogram.message()?.fields() {
        match field? {
            (1, value) => count = value.number()? as f64,
            (2, value) => count = value.double()?,
            (3, value) => sum = value.double()?,
            (4, value) => schema = zigzag(value.number()?),
            (6, value) => zero = value.number()? as f64,
            (7, value) => zero = value.double()?,
            (9, value) => value.varints(&mut below)?,
            (10, value) => value.fixed64s(&mut below_counts)?,
            (11, span) => {
                let (mut offset, mut length) = (0, 0);
                for field in span.message()?.fields() {
                    match field? {
                        (1, value) => offset = zigzag(value.number()?),
                        (2, value) => length = value.number()?,
                        _ => {}
                    }
                }
                if spans.len() >= NUMBERS {
                    return Err(IngestError::TooLarge(format!("more than {NUMBERS} spans of one histogram")));
                }
                spans.push((offset, length));
            }
            (12, value) => value.varints(&mut deltas)?,
            (13, value) => value.fixed64s(&mut counts)?,
            (15, value) => millis = value.number()? as i64,
            (16, value) => value.fixed64s(&mut bounds)?,
            _ => {}
        }
    }
    let ts = at(millis);
    if !gathering.has_good_time(name, ts) {
        return Ok(());
    }
    let of_counts = |deltas: &[u64], counts: &[u64]| -> Vec<f64> {
        let mut running = 0i64;
        let absolute = deltas.iter().map(|delta| {
            running = running.saturating_add(zigzag(*delta));
            running as f64
        });
        match counts.is_empty() {
            true => absolute.collect(),
            false => counts.iter().map(|bits| f64::from_bits(*bits)).collect(),
        }
    };
    let values = of_counts(&deltas, &counts);
    // Which bucket each value is of: spans say where some follow each other. Never more of them than there are values.
    let mut numbers = Vec::new();
    let mut next = 0i64;
    for (offset, length) in spans {
        next = next.saturating_add(offset);
        for _ in 0..length.min((values.len() - numbers.len()) as u64) {
            numbers.push(next);
            next = next.saturating_add(1);
        }
    }
    if numbers.len() != values.len() {
        gathering.reject(1, || format!("{name}: the spans of a histogram do not fit its buckets"));
        return Ok(());
    }
    let buckets = numbers.into_iter().zip(values);
    let cumulative = if schema == CUSTOM_BOUNDS {
        let mut total = 0.0;
        let by_number: BTreeMap<i64, f64> = buckets.collect();
        let bounds = (0..).zip(bounds.iter().map(|bits| f64::from_bits(*bits)));
        let added = bounds.map(|(number, bound)| {
            total += by_number.get(&number).copied().unwrap_or(0.0);
            (bound, total)
        });
        added.collect()
    } else {
        let at_most_zero = zero + of_counts(&below, &below_counts).iter().sum::<f64>();
        Exponential { scale: schema.clamp(-20, 40) as i32, at_most_zero, buckets: buckets.collect() }.cumulative()
    };
    gathering.decoded.histograms += 1;
    let count = value(count).filter(|_| sum.to_bits() != STALE);
    classic(name, labels, ts, &cumulative, (Some(sum), count), gathering)
}

/// A histogram as the series that a classic one has: `_bucket`, `_sum` and `_count`. A count that is none is a stale marker.
pub(crate) fn classic(
    name: &str,
    labels: &BTreeMap<String, String>,
    ts: Timestamp,
    cumulative: &[(f64, f64)],
    (sum, count): (Option<f64>, Option<f64>),
    gathering: &mut Gathering,
) -> Result<(), IngestError> {
    gathering.spend_rows(cumulative.len() + 3)?;
    let mut add = |suffix: &str, labels: BTreeMap<String, String>, value: Option<f64>| {
        gathering.push(format!("{name}{suffix}"), labels, vec![Point { ts, value }])
    };
    if let Some(count) = count {
        let infinite = [(f64::INFINITY, count)];
        for (le, below) in cumulative.iter().filter(|(le, _)| le.is_finite()).chain(&infinite) {
            let mut labels = labels.clone();
            labels.insert("le".to_string(), bound(*le));
            add("_bucket", labels, Some(*below))?;
        }
    }
    if let Some(sum) = sum {
        add("_sum", labels.clone(), value(sum))?;
    }
    add("_count", labels.clone(), count)
}

#[cfg(test)]
#[path = "remote_write_tests.rs"]
mod tests;
