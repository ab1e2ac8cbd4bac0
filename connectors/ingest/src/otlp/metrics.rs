//! OTLP's metrics as series.

use std::collections::BTreeMap;

use tidewatch_model::Timestamp;

use super::binary::Reader;
use super::names::{Kind, label_name, metric_name};
use super::parts::{DELTA, KeyValue, Metric, MetricsRequest, Resource};
use super::{Format, from_json};
use crate::histogram::Exponential;
use crate::remote_write::classic;
use crate::series::{Gathering, Point, size_of, value};
use crate::{Decoded, IngestError, SERIES_BYTES, Times};

/// Attributes of the sender that become labels of each of its series. All of them are labels of its `target_info`.
const PROMOTED: [&str; 8] = [
    "host.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.node.name",
    "k8s.container.name",
    "deployment.environment",
    "deployment.environment.name",
    "service.version",
];
/// The flag of a point that says that there is no value.
const NO_VALUE: u32 = 1;

type Labels = BTreeMap<String, String>;

/// Decodes a request with metrics. What can't be a series is left out, counted and told with its reason.
///
/// # Errors
/// It is no such request, or larger than is read at once.
pub fn decode_metrics(body: &[u8], format: Format, times: Times) -> Result<Decoded, IngestError> {
    let request: MetricsRequest = match format {
        Format::Protobuf => Reader::default().metrics(body)?,
        Format::Json => from_json(body)?,
    };
    let mut gathering = Gathering::new(times);
    for of in request.resource_metrics {
        let own = own_labels(&of.resource);
        let mut newest = None;
        for scope in of.scope_metrics {
            for metric in scope.metrics {
                let taking = Metrics { own: &own, scope: &scope.scope.name, gathering: &mut gathering }.take(metric);
                newest = newest.max(taking?);
            }
        }
        if let Some(ts) = newest {
            target_info(&of.resource, own, ts, &mut gathering)?;
        }
    }
    Ok(gathering.decoded)
}

fn attribute<'a>(resource: &'a Resource, key: &str) -> Option<&'a KeyValue> {
    resource.attributes.iter().find(|pair| pair.key == key)
}

/// `job` and `instance`, and what is promoted.
fn own_labels(resource: &Resource) -> Labels {
    let text = |key: &str| attribute(resource, key).map(|pair| pair.value.text()).filter(|text| !text.is_empty());
    let mut labels = Labels::new();
    let service = text("service.name");
    let job = text("service.namespace")
        .map_or_else(|| service.clone(), |space| Some(format!("{space}/{}", service.clone()?)));
    labels.extend(job.map(|job| ("job".to_string(), job)));
    labels.extend(text("service.instance.id").map(|instance| ("instance".to_string(), instance)));
    labels.extend(PROMOTED.iter().filter_map(|key| Some((label_name(key), text(key)?))));
    labels
}

fn target_info(resource: &Resource, own: Labels, ts: Timestamp, gathering: &mut Gathering) -> Result<(), IngestError> {
    let mut labels = own;
    for pair in &resource.attributes {
        if !["service.name", "service.namespace", "service.instance.id"].contains(&pair.key.as_str()) {
            labels.insert(label_name(&pair.key), pair.value.text());
        }
    }
    labels.retain(|_, value| !value.is_empty());
    gathering.spend_rows(1)?;
    gathering.push("target_info".to_string(), labels, vec![Point { ts, value: Some(1.0) }])
}

fn at(nanos: u64) -> Timestamp {
    Timestamp((nanos / 1_000) as i64)
}

/// Takes the metrics of one sender.
struct Metrics<'a> {
    own: &'a Labels,
    /// The instrumentation: two of them may have a metric of the same name.
    scope: &'a str,
    gathering: &'a mut Gathering,
}

impl Metrics<'_> {
    /// The newest time of its points, if it has some.
    fn take(&mut self, metric: Metric) -> Result<Option<Timestamp>, IngestError> {
        let mut newest = None;
        let name = |kind| metric_name(&metric.name, &metric.unit, kind);
        let numbers = [(metric.gauge, Kind::Gauge), (metric.sum, Kind::Counter)];
        for (numbers, kind) in numbers.into_iter().filter_map(|(numbers, kind)| Some((numbers?, kind))) {
            let kind = if kind == Kind::Counter && !numbers.is_monotonic { Kind::Other } else { kind };
            let name = name(kind);
            for point in self.cumulative(&name, numbers.aggregation_temporality, numbers.data_points) {
                let read = point.as_double.or(point.as_int.map(|number| number as f64));
                let read = read.filter(|_| point.flags & NO_VALUE == 0).and_then(value);
                if let Some((ts, labels)) = self.begin(&name, point.time_unix_nano, &point.attributes)? {
                    newest = newest.max(Some(ts));
                    self.one(name.clone(), labels, Point { ts, value: read })?;
                }
            }
        }
        if let Some(histograms) = metric.histogram {
            let name = name(Kind::Other);
            for point in self.cumulative(&name, histograms.aggregation_temporality, histograms.data_points) {
                let fits = point.bucket_counts.len() == point.explicit_bounds.len() + 1
                    || point.bucket_counts.is_empty() && point.explicit_bounds.is_empty();
                if !fits || !point.explicit_bounds.is_sorted_by(|one, next| one < next) {
                    self.gathering.reject(1, || format!("{name}: the bounds of a histogram do not fit its buckets"));
                    continue;
                }
                let mut total = 0.0;
                let cumulative: Vec<(f64, f64)> = point
                    .explicit_bounds
                    .iter()
                    .zip(&point.bucket_counts)
                    .map(|(bound, count)| {
                        total += *count as f64;
                        (*bound, total)
                    })
                    .collect();
                let count = (point.flags & NO_VALUE == 0).then_some(point.count as f64);
                if let Some((ts, labels)) = self.begin(&name, point.time_unix_nano, &point.attributes)? {
                    newest = newest.max(Some(ts));
                    self.gathering.decoded.samples += 1;
                    classic(&name, &labels, ts, &cumulative, (point.sum, count), self.gathering)?;
                }
            }
        }
        if let Some(histograms) = metric.exponential_histogram {
            let name = name(Kind::Other);
            for point in self.cumulative(&name, histograms.aggregation_temporality, histograms.data_points) {
                let at_most_zero = point.negative.bucket_counts.iter().map(|count| *count as f64).sum::<f64>();
                // Bucket i of theirs is above base^i.
                let numbers = (i64::from(point.positive.offset) + 1..).zip(&point.positive.bucket_counts);
                let exponential = Exponential {
                    scale: point.scale,
                    at_most_zero: at_most_zero + point.zero_count as f64,
                    buckets: numbers.map(|(number, count)| (number, *count as f64)).collect(),
                };
                let count = (point.flags & NO_VALUE == 0).then_some(point.count as f64);
                if let Some((ts, labels)) = self.begin(&name, point.time_unix_nano, &point.attributes)? {
                    newest = newest.max(Some(ts));
                    self.gathering.decoded.samples += 1;
                    let cumulative = exponential.cumulative();
                    classic(&name, &labels, ts, &cumulative, (point.sum, count), self.gathering)?;
                }
            }
        }
        for point in metric.summary.into_iter().flat_map(|summary| summary.data_points) {
            let name = name(Kind::Other);
            let is_value = point.flags & NO_VALUE == 0;
            let Some((ts, labels)) = self.begin(&name, point.time_unix_nano, &point.attributes)? else { continue };
            newest = newest.max(Some(ts));
            self.gathering.decoded.samples += 1;
            for quantile in point.quantile_values {
                let mut labels = labels.clone();
                labels.insert("quantile".to_string(), quantile.quantile.to_string());
                self.add(name.clone(), labels, Point { ts, value: value(quantile.value).filter(|_| is_value) })?;
            }
            for (suffix, number) in [("_sum", point.sum), ("_count", point.count as f64)] {
                let point = Point { ts, value: value(number).filter(|_| is_value) };
                self.add(format!("{name}{suffix}"), labels.clone(), point)?;
            }
        }
        Ok(newest)
    }

    /// The points, if they count from the start. What was counted since the last time can't be told from what was counted twice, or lost:
    /// it is refused, as Prometheus does.
    fn cumulative<T>(&mut self, name: &str, temporality: i64, points: Vec<T>) -> Vec<T> {
        if temporality != DELTA {
            return points;
        }
        self.gathering.reject(points.len() as u64, || {
            format!(
                "{name}: delta temporality; expected cumulative (OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE)"
            )
        });
        vec![]
    }

    /// A point's time and labels, if it can be taken.
    fn begin(
        &mut self,
        name: &str,
        nanos: u64,
        attributes: &[KeyValue],
    ) -> Result<Option<(Timestamp, Labels)>, IngestError> {
        let ts = at(nanos);
        if name.is_empty() {
            self.gathering.reject(1, || "a metric without a name".to_string());
            return Ok(None);
        }
        if !self.gathering.has_good_time(name, ts) {
            return Ok(None);
        }
        let mut labels = Labels::new();
        for pair in attributes {
            let (name, value) = (label_name(&pair.key), pair.value.text());
            if !value.is_empty() && !name.is_empty() {
                // Two that become one name stand beside each other, as Prometheus has it.
                let joined = labels.entry(name).or_default();
                joined.push_str(if joined.is_empty() { "" } else { ";" });
                joined.push_str(&value);
            }
        }
        // The sender's own win: who sends is not a matter of a point.
        labels.extend(self.own.iter().map(|(name, value)| (name.clone(), value.clone())));
        if !self.scope.is_empty() {
            labels.insert("otel_scope_name".to_string(), self.scope.to_string());
        }
        if size_of(name, &labels) > SERIES_BYTES {
            self.gathering.reject(1, || format!("a series whose labels have more than {} KiB", SERIES_BYTES >> 10));
            return Ok(None);
        }
        Ok(Some((ts, labels)))
    }

    fn one(&mut self, name: String, labels: Labels, point: Point) -> Result<(), IngestError> {
        self.gathering.decoded.samples += 1;
        self.add(name, labels, point)
    }

    fn add(&mut self, name: String, labels: Labels, point: Point) -> Result<(), IngestError> {
        self.gathering.spend_rows(1)?;
        self.gathering.push(name, labels, vec![point])
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
