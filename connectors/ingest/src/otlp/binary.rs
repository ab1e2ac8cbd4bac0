//! The same parts from protobuf. Numbers of fields: opentelemetry-proto 1.x.

use super::MESSAGES;
use super::parts::{
    AnyValue, Buckets, ExponentialHistograms, ExponentialPoint, HistogramPoint, Histograms, KeyValue, LogRecord,
    LogsRequest, Metric, MetricsRequest, NumberPoint, Numbers, Pairs, Quantile, Resource, ResourceLogs,
    ResourceMetrics, Scope, ScopeLogs, ScopeMetrics, Summaries, SummaryPoint, Values,
};
use crate::IngestError;
use crate::protobuf::{Message, Value, zigzag};

/// How deep values lie in each other.
const DEPTH: usize = 32;

/// Reads parts, and counts them.
#[derive(Default)]
pub struct Reader {
    messages: usize,
    depth: usize,
}

type Read<T> = Result<T, IngestError>;

/// What each field of a message does to a part.
type Field<T> = fn(&mut Reader, &mut T, u64, Value<'_>) -> Read<()>;

impl Reader {
    fn part<T: Default>(&mut self, value: Value<'_>, field: Field<T>) -> Read<T> {
        self.whole(value.message()?, field)
    }

    fn whole<T: Default>(&mut self, message: Message<'_>, field: Field<T>) -> Read<T> {
        self.messages += 1;
        if self.messages > MESSAGES {
            return Err(IngestError::TooLarge(format!("more than {MESSAGES} messages in one request")));
        }
        let mut part = T::default();
        for read in message.fields() {
            let (number, value) = read?;
            field(self, &mut part, number, value)?;
        }
        Ok(part)
    }

    /// A request with metrics.
    pub fn metrics(&mut self, body: &[u8]) -> Read<MetricsRequest> {
        self.whole(Message::new(body), |reader, request: &mut MetricsRequest, number, value| {
            if number == 1 {
                request.resource_metrics.push(reader.part(value, resource_metrics)?);
            }
            Ok(())
        })
    }

    /// A request with logs.
    pub fn logs(&mut self, body: &[u8]) -> Read<LogsRequest> {
        self.whole(Message::new(body), |reader, request: &mut LogsRequest, number, value| {
            if number == 1 {
                request.resource_logs.push(reader.part(value, resource_logs)?);
            }
            Ok(())
        })
    }
}

fn resource(reader: &mut Reader, resource: &mut Resource, number: u64, value: Value<'_>) -> Read<()> {
    if number == 1 {
        resource.attributes.push(reader.part(value, key_value)?);
    }
    Ok(())
}

fn scope(_: &mut Reader, scope: &mut Scope, number: u64, value: Value<'_>) -> Read<()> {
    if number == 1 {
        scope.name = value.text()?.to_string();
    }
    Ok(())
}

fn resource_metrics(reader: &mut Reader, of: &mut ResourceMetrics, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => of.resource = reader.part(value, resource)?,
        2 => of.scope_metrics.push(reader.part(value, scope_metrics)?),
        _ => {}
    }
    Ok(())
}

fn scope_metrics(reader: &mut Reader, of: &mut ScopeMetrics, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => of.scope = reader.part(value, scope)?,
        2 => of.metrics.push(reader.part(value, metric)?),
        _ => {}
    }
    Ok(())
}

fn metric(reader: &mut Reader, metric: &mut Metric, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => metric.name = value.text()?.to_string(),
        3 => metric.unit = value.text()?.to_string(),
        5 => metric.gauge = Some(reader.part(value, numbers)?),
        7 => metric.sum = Some(reader.part(value, numbers)?),
        9 => metric.histogram = Some(reader.part(value, histograms)?),
        10 => metric.exponential_histogram = Some(reader.part(value, exponential_histograms)?),
        11 => metric.summary = Some(reader.part(value, summaries)?),
        _ => {}
    }
    Ok(())
}

fn numbers(reader: &mut Reader, numbers: &mut Numbers, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => numbers.data_points.push(reader.part(value, number_point)?),
        2 => numbers.aggregation_temporality = value.number()? as i64,
        3 => numbers.is_monotonic = value.number()? != 0,
        _ => {}
    }
    Ok(())
}

fn number_point(reader: &mut Reader, point: &mut NumberPoint, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        3 => point.time_unix_nano = value.number()?,
        4 => point.as_double = Some(value.double()?),
        6 => point.as_int = Some(value.number()? as i64),
        7 => point.attributes.push(reader.part(value, key_value)?),
        8 => point.flags = value.number()? as u32,
        _ => {}
    }
    Ok(())
}

fn histograms(reader: &mut Reader, histograms: &mut Histograms, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => histograms.data_points.push(reader.part(value, histogram_point)?),
        2 => histograms.aggregation_temporality = value.number()? as i64,
        _ => {}
    }
    Ok(())
}

fn histogram_point(reader: &mut Reader, point: &mut HistogramPoint, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        3 => point.time_unix_nano = value.number()?,
        4 => point.count = value.number()?,
        5 => point.sum = Some(value.double()?),
        6 => value.fixed64s(&mut point.bucket_counts)?,
        7 => {
            let mut bits = Vec::new();
            value.fixed64s(&mut bits)?;
            point.explicit_bounds.extend(bits.into_iter().map(f64::from_bits));
        }
        9 => point.attributes.push(reader.part(value, key_value)?),
        10 => point.flags = value.number()? as u32,
        _ => {}
    }
    Ok(())
}

fn exponential_histograms(
    reader: &mut Reader,
    of: &mut ExponentialHistograms,
    number: u64,
    value: Value<'_>,
) -> Read<()> {
    match number {
        1 => of.data_points.push(reader.part(value, exponential_point)?),
        2 => of.aggregation_temporality = value.number()? as i64,
        _ => {}
    }
    Ok(())
}

fn exponential_point(reader: &mut Reader, point: &mut ExponentialPoint, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => point.attributes.push(reader.part(value, key_value)?),
        3 => point.time_unix_nano = value.number()?,
        4 => point.count = value.number()?,
        5 => point.sum = Some(value.double()?),
        6 => point.scale = zigzag(value.number()?) as i32,
        7 => point.zero_count = value.number()?,
        8 => point.positive = reader.part(value, buckets)?,
        9 => point.negative = reader.part(value, buckets)?,
        10 => point.flags = value.number()? as u32,
        _ => {}
    }
    Ok(())
}

fn buckets(_: &mut Reader, buckets: &mut Buckets, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => buckets.offset = zigzag(value.number()?) as i32,
        2 => value.varints(&mut buckets.bucket_counts)?,
        _ => {}
    }
    Ok(())
}

fn summaries(reader: &mut Reader, summaries: &mut Summaries, number: u64, value: Value<'_>) -> Read<()> {
    if number == 1 {
        summaries.data_points.push(reader.part(value, summary_point)?);
    }
    Ok(())
}

fn summary_point(reader: &mut Reader, point: &mut SummaryPoint, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        3 => point.time_unix_nano = value.number()?,
        4 => point.count = value.number()?,
        5 => point.sum = value.double()?,
        6 => point.quantile_values.push(reader.part(value, quantile)?),
        7 => point.attributes.push(reader.part(value, key_value)?),
        8 => point.flags = value.number()? as u32,
        _ => {}
    }
    Ok(())
}

fn quantile(_: &mut Reader, quantile: &mut Quantile, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => quantile.quantile = value.double()?,
        2 => quantile.value = value.double()?,
        _ => {}
    }
    Ok(())
}

fn resource_logs(reader: &mut Reader, of: &mut ResourceLogs, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => of.resource = reader.part(value, resource)?,
        2 => of.scope_logs.push(reader.part(value, scope_logs)?),
        _ => {}
    }
    Ok(())
}

fn scope_logs(reader: &mut Reader, of: &mut ScopeLogs, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => of.scope = reader.part(value, scope)?,
        2 => of.log_records.push(reader.part(value, log_record)?),
        _ => {}
    }
    Ok(())
}

fn log_record(reader: &mut Reader, record: &mut LogRecord, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => record.time_unix_nano = value.number()?,
        2 => record.severity_number = value.number()? as i64,
        3 => record.severity_text = value.text()?.to_string(),
        5 => record.body = reader.part(value, any_value)?,
        6 => record.attributes.push(reader.part(value, key_value)?),
        9 => record.trace_id = hex(value.message()?.bytes()),
        10 => record.span_id = hex(value.message()?.bytes()),
        11 => record.observed_time_unix_nano = value.number()?,
        12 => record.event_name = value.text()?.to_string(),
        _ => {}
    }
    Ok(())
}

fn key_value(reader: &mut Reader, pair: &mut KeyValue, number: u64, value: Value<'_>) -> Read<()> {
    match number {
        1 => pair.key = value.text()?.to_string(),
        2 => pair.value = reader.part(value, any_value)?,
        _ => {}
    }
    Ok(())
}

fn any_value(reader: &mut Reader, any: &mut AnyValue, number: u64, value: Value<'_>) -> Read<()> {
    reader.depth += 1;
    if reader.depth > DEPTH {
        return Err(IngestError::Malformed(format!("values lie in each other more than {DEPTH} deep")));
    }
    match number {
        1 => any.string_value = Some(value.text()?.to_string()),
        2 => any.bool_value = Some(value.number()? != 0),
        3 => any.int_value = Some(value.number()? as i64),
        4 => any.double_value = Some(value.double()?),
        5 => {
            any.array_value = Some(reader.part(value, |reader, values: &mut Values, number, value| {
                if number == 1 {
                    values.values.push(reader.part(value, any_value)?);
                }
                Ok(())
            })?);
        }
        6 => {
            any.kvlist_value = Some(reader.part(value, |reader, pairs: &mut Pairs, number, value| {
                if number == 1 {
                    pairs.values.push(reader.part(value, key_value)?);
                }
                Ok(())
            })?);
        }
        7 => any.bytes_value = Some(hex(value.message()?.bytes())),
        _ => {}
    }
    reader.depth -= 1;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
