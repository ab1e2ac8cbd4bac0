//! Reading the mapping: samples become cells.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use arrow::array::RecordBatch;
use tidewatch_model::Timestamp;
use tidewatch_model::table::{ColumnType, Table, find};

use super::TypedSample;
use super::exporters::{DCGM_XID, EXPORTERS, Exporter, Histogram, How, Measure, Name, Only, Word};
use crate::rows::{Cell, Rows, RowsError};

/// What a metric is for.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// A part of one way to have a column: the exporter, its measure, and the place among the row's parts.
    Part { exporter: usize, measure: usize, part: usize },
    /// A bucket of a histogram.
    Bucket { exporter: usize, histogram: usize },
    /// The last XID.
    Xid,
}

static USES: LazyLock<HashMap<String, Vec<Use>>> = LazyLock::new(|| {
    let mut uses: HashMap<String, Vec<Use>> = HashMap::new();
    for (exporter, of) in EXPORTERS.iter().enumerate() {
        let mut part = 0;
        for (measure, column) in of.measures.iter().enumerate() {
            for metric in column.ways.iter().flat_map(|way| way.iter()) {
                uses.entry(metric.to_string()).or_default().push(Use::Part { exporter, measure, part });
                part += 1;
            }
        }
        for (histogram, found) in of.histograms.iter().enumerate() {
            let metric = format!("{}_bucket", found.metric);
            uses.entry(metric).or_default().push(Use::Bucket { exporter, histogram });
        }
    }
    uses.entry(DCGM_XID.to_string()).or_default().push(Use::Xid);
    uses
});

/// The tables that a metric says something for.
pub fn tables_of(metric: &str) -> impl Iterator<Item = &'static str> {
    USES.get(metric).into_iter().flatten().map(|used| match used {
        Use::Part { exporter, .. } => EXPORTERS[*exporter].table,
        Use::Bucket { .. } => "serve_histogram",
        Use::Xid => "gpu_event",
    })
}

/// Rows of one exporter in the making: by time and identity.
type Pending = BTreeMap<(Timestamp, Vec<Option<String>>), Row>;

#[derive(Debug, Clone, Default)]
struct Row {
    /// The texts that do not identify the row.
    texts: Vec<Option<String>>,
    parts: Vec<Option<f64>>,
}

/// Buckets: by time, service, replica, metric and the bits of the bound, which sort as positive numbers do.
type Buckets = BTreeMap<(Timestamp, String, String, &'static str, u64), f64>;

/// All rows but those of XIDs, of the tables that are wanted.
pub fn rows(
    samples: &[TypedSample<'_>],
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<(&'static str, RecordBatch)>, RowsError> {
    let mut pending: BTreeMap<usize, Pending> = BTreeMap::new();
    let mut buckets = Buckets::new();
    for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
        for used in USES.get(sample.name).into_iter().flatten() {
            match *used {
                Use::Part { exporter, measure, part } if wanted(EXPORTERS[exporter].table) => {
                    let rows = pending.entry(exporter).or_default();
                    note_part(&EXPORTERS[exporter], &EXPORTERS[exporter].measures[measure], part, sample, rows);
                }
                Use::Bucket { exporter, histogram } if wanted("serve_histogram") => {
                    let of = &EXPORTERS[exporter];
                    note_bucket(of, &of.histograms[histogram], sample, &mut buckets);
                }
                _ => {}
            }
        }
    }
    let mut tables: BTreeMap<&'static str, Rows> = BTreeMap::new();
    for (exporter, rows) in pending {
        let of = &EXPORTERS[exporter];
        for ((ts, identity), row) in rows {
            let cells = cells(of, &identity, &row);
            table_rows(&mut tables, of.table)?.push(ts, cells)?;
        }
    }
    for ((ts, service, replica, metric, bound), count) in buckets {
        let cells = [
            ("service", service.into()),
            ("replica", replica.into()),
            ("metric", metric.into()),
            ("le", f64::from_bits(bound).into()),
            ("count_total", integer(count).into()),
        ];
        table_rows(&mut tables, "serve_histogram")?.push(ts, cells)?;
    }
    let finished = tables.into_iter().map(|(table, rows)| Ok((table, rows.finish()?)));
    let finished = finished.collect::<Result<Vec<_>, RowsError>>()?;
    Ok(finished.into_iter().filter_map(|(table, batch)| Some((table, batch?))).collect())
}

fn table_rows<'a>(
    tables: &'a mut BTreeMap<&'static str, Rows>,
    table: &'static str,
) -> Result<&'a mut Rows, RowsError> {
    use std::collections::btree_map::Entry;
    Ok(match tables.entry(table) {
        Entry::Occupied(found) => found.into_mut(),
        Entry::Vacant(free) => free.insert(Rows::of(table)?),
    })
}

fn note_part(of: &Exporter, measure: &Measure, part: usize, sample: &TypedSample<'_>, rows: &mut Pending) {
    if !counts(of, measure.only, sample) {
        return;
    }
    let (Some(value), Some(identity)) = (value_of(measure.how, sample), identity(of, sample)) else { return };
    let row = rows.entry((sample.ts, identity)).or_default();
    let texts = of.names.iter().filter(|name| !is_identity(of, name));
    row.texts.resize(texts.clone().count(), None);
    for (name, text) in texts.zip(&mut row.texts) {
        if text.is_none() {
            *text = text_of(name, sample);
        }
    }
    row.parts.resize(of.measures.iter().flat_map(|measure| measure.ways).map(|way| way.len()).sum(), None);
    let adds = of.adds && column_type(of.table, measure.column) == Some(ColumnType::Int64);
    let merged = match row.parts[part] {
        Some(known) if adds => known + value,
        Some(known) => known.max(value),
        None => value,
    };
    row.parts[part] = Some(merged);
}

fn note_bucket(of: &Exporter, histogram: &Histogram, sample: &TypedSample<'_>, buckets: &mut Buckets) {
    let bound = match sample.label("le") {
        Some("+Inf" | "Inf" | "inf") => Some(f64::INFINITY),
        Some(text) => text.parse::<f64>().ok().map(|bound| bound * histogram.seconds),
        None => None,
    };
    let text = |column: &str| of.names.iter().find(|name| name.column == column).and_then(|name| text_of(name, sample));
    let (Some(bound), Some(service), Some(replica)) = (bound, text("service"), text("replica")) else { return };
    // A negative bound has no place in a latency, and its bits would not sort.
    if bound.is_nan() || bound.is_sign_negative() || !counts(of, Only::All, sample) {
        return;
    }
    *buckets.entry((sample.ts, service, replica, histogram.name, bound.to_bits())).or_default() += sample.value;
}

/// Whether a series is one of those that count.
fn counts(of: &Exporter, only: Only, sample: &TypedSample<'_>) -> bool {
    let of_first = of.ranks.iter().all(|rank| sample.label(rank).is_none_or(|number| number == "0"));
    of_first
        && match only {
            Only::All => true,
            Only::Is(label, values) => sample.label(label).is_some_and(|value| values.contains(&value)),
            Only::Not(label, values) => sample.label(label).is_none_or(|value| !values.contains(&value)),
        }
}

/// Numbers that DCGM and Flink have where there is none: the ends of 64 bits, and DCGM's blanks of 32 bits and of floats with their reasons.
fn is_blank(value: f64) -> bool {
    const BLANK_INT: f64 = 2_147_483_632.0;
    const BLANK_FLOAT: f64 = 140_737_488_355_328.0;
    value.abs() >= 9.2e18
        || (BLANK_INT..=BLANK_INT + 4.0).contains(&value)
        || (BLANK_FLOAT..=BLANK_FLOAT + 4.0).contains(&value)
}

fn value_of(how: How, sample: &TypedSample<'_>) -> Option<f64> {
    let value = Some(sample.value).filter(|value| !is_blank(*value))?;
    Some(match how {
        How::Times(factor) => value * factor,
        How::MillisAgo => sample.ts.0 as f64 / 1e6 - value / 1e3,
    })
}

/// The identity, in the order of the exporter's names; `None` when a part of it is not known.
fn identity(of: &Exporter, sample: &TypedSample<'_>) -> Option<Vec<Option<String>>> {
    let names = of.names.iter().filter(|name| is_identity(of, name));
    names.map(|name| text_of(name, sample).map(|text| Some(text).filter(|text| !text.is_empty()))).collect()
}

fn is_identity(of: &Exporter, name: &Name) -> bool {
    find(of.table).and_then(|table| table.column(name.column)).is_some_and(|column| column.identity)
}

fn column_type(table: &str, column: &str) -> Option<ColumnType> {
    find(table).and_then(|table: &Table| table.column(column)).map(|column| column.column_type)
}

/// The text of a name; empty where all that it is made of may be absent and is.
pub fn text_of(name: &Name, sample: &TypedSample<'_>) -> Option<String> {
    let first = |labels: &[&str]| labels.iter().find_map(|label| sample.label(label));
    let mut text = String::new();
    for word in name.words {
        match word {
            Word::Label(labels) => text += first(labels)?,
            Word::After(before, labels) => {
                if let Some(label) = first(labels) {
                    text += before;
                    text += label;
                }
            }
            Word::Text(fixed) => text += fixed,
            Word::Host(labels) => text += first(labels).or_else(|| sample.label("instance").map(without_port))?,
        }
    }
    Some(text)
}

/// `gpu-7` of `gpu-7:8000`, `::1` of `[::1]:8000`.
fn without_port(instance: &str) -> &str {
    if let Some((address, _)) = instance.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match instance.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => instance,
    }
}

/// A whole number; one that is none, or too large, is not known.
fn integer(value: f64) -> Option<i64> {
    let value = value.round();
    (value.abs() < 9e18).then_some(value as i64)
}

fn cells(of: &Exporter, identity: &[Option<String>], row: &Row) -> Vec<(&'static str, Cell)> {
    let (mut identities, mut texts) = (identity.iter(), row.texts.iter());
    let mut cells: Vec<(&'static str, Cell)> = Vec::with_capacity(of.names.len() + of.measures.len());
    for name in of.names {
        let text = if is_identity(of, name) { identities.next() } else { texts.next() };
        let text = text.and_then(Option::as_ref).filter(|text| !text.is_empty());
        let cell = match column_type(of.table, name.column) {
            Some(ColumnType::Int64) => text.and_then(|text| text.parse::<i64>().ok()).into(),
            _ => text.cloned().into(),
        };
        cells.push((name.column, cell));
    }
    let mut next = 0;
    for measure in of.measures {
        let value = way_of(measure, &row.parts, &mut next);
        let has = cells.iter().any(|(column, cell)| *column == measure.column && *cell != Cell::Null);
        let Some(value) = value.filter(|_| !has) else { continue };
        let cell = match column_type(of.table, measure.column) {
            Some(ColumnType::Int64) => integer(value).into(),
            Some(ColumnType::Bool) => (value != 0.0).into(),
            _ => value.into(),
        };
        cells.push((measure.column, cell));
    }
    cells
}

/// The value of the first way of which every part came; `next` is where the measure's parts begin, and is moved behind them.
fn way_of(measure: &Measure, parts: &[Option<f64>], next: &mut usize) -> Option<f64> {
    let mut found = None;
    for way in measure.ways {
        let of_way = &parts[*next..*next + way.len()];
        *next += way.len();
        found = found.or_else(|| of_way.iter().copied().sum::<Option<f64>>());
    }
    found
}
