#![allow(clippy::unwrap_used)]

use super::*;
use crate::otlp::{decode_logs, response, status};
use crate::protobuf::write::{bytes, double, fixed, number, varint, zig};

const NANOS: u64 = 1_800_000_000_000_000_000;

/// The same request in both encodings.
fn both(json: &str, body: &[u8]) -> Decoded {
    let decoded = decode_metrics(body, Format::Protobuf, Times::ANY).unwrap();
    assert_eq!(decoded, decode_metrics(json.as_bytes(), Format::Json, Times::ANY).unwrap());
    decoded
}

fn shown(decoded: &Decoded) -> Vec<String> {
    let of = |series: &crate::Series| {
        let labels: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}} {:?}", series.name, labels.join(","), series.points[0].value)
    };
    decoded.series.iter().map(of).collect()
}

fn text_value(text: &str) -> Vec<u8> {
    bytes(1, text)
}

fn attribute(field: u64, key: &str, value: Vec<u8>) -> Vec<u8> {
    bytes(field, [bytes(1, key), bytes(2, value)].concat())
}

fn request(resource: &[Vec<u8>], scope: &str, metrics: &[Vec<u8>]) -> Vec<u8> {
    let metrics: Vec<u8> = metrics.iter().flat_map(|metric| bytes(2, metric)).collect();
    let scope = [bytes(1, bytes(1, scope)), metrics].concat();
    bytes(1, [bytes(1, resource.concat()), bytes(2, scope)].concat())
}

#[test]
fn numbers_in_both_encodings() {
    let json = r#"{"resourceMetrics": [{"resource": {"attributes": [
        {"key": "service.name", "value": {"stringValue": "chat"}},
        {"key": "service.instance.id", "value": {"stringValue": "c-1"}},
        {"key": "host.name", "value": {"stringValue": "n1"}},
        {"key": "os.type", "value": {"stringValue": "linux"}}]},
      "scopeMetrics": [{"scope": {"name": "s"}, "metrics": [
        {"name": "requests", "unit": "{request}", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
          {"attributes": [{"key": "code", "value": {"intValue": "200"}}], "timeUnixNano": "1800000000000000000", "asInt": "7"}]}},
        {"name": "load", "gauge": {"dataPoints": [
          {"timeUnixNano": 1800000000000000000, "asDouble": 0.5},
          {"timeUnixNano": "1800000000000000000", "asDouble": "NaN", "flags": 1}]}},
        {"name": "moved", "unit": "By", "sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA", "isMonotonic": true,
          "dataPoints": [{"timeUnixNano": "1800000000000000000", "asInt": 1}]}},
        {"name": "queue", "sum": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": "1800000000000000000", "asInt": -3}]}}
      ]}]}]}"#;
    let point = |parts: &[Vec<u8>]| bytes(1, [&[fixed(3, NANOS)][..], parts].concat().concat());
    let code = attribute(7, "code", number(3, 200));
    let cumulative = [number(2, 2), number(3, 1)].concat();
    let metrics = [
        [bytes(1, "requests"), bytes(3, "{request}"), bytes(7, [point(&[fixed(6, 7), code]), cumulative].concat())]
            .concat(),
        [bytes(1, "load"), bytes(5, [point(&[double(4, 0.5)]), point(&[double(4, f64::NAN), number(8, 1)])].concat())]
            .concat(),
        [bytes(1, "moved"), bytes(3, "By"), bytes(7, [point(&[fixed(6, 1)]), number(2, 1), number(3, 1)].concat())]
            .concat(),
        [bytes(1, "queue"), bytes(7, [point(&[fixed(6, -3i64 as u64)]), number(2, 2)].concat())].concat(),
    ];
    let resource =
        [("service.name", "chat"), ("service.instance.id", "c-1"), ("host.name", "n1"), ("os.type", "linux")]
            .map(|(key, value)| attribute(1, key, text_value(value)));
    let decoded = both(json, &request(&resource, "s", &metrics));
    let sender = "host_name=n1,instance=c-1,job=chat";
    let own = format!("{sender},otel_scope_name=s");
    assert_eq!(
        shown(&decoded),
        [
            format!("requests_total{{code=200,{own}}} Some(7.0)"),
            format!("load{{{own}}} Some(0.5)"),
            format!("load{{{own}}} None"),
            format!("queue{{{own}}} Some(-3.0)"),
            format!("target_info{{{sender},os_type=linux}} Some(1.0)"),
        ]
    );
    assert_eq!((decoded.samples, decoded.rejected), (4, 1));
    assert!(decoded.problems[0].starts_with("moved_bytes_total: delta temporality; expected cumulative"));
    assert_eq!(decoded.series[0].points[0].ts, Timestamp::from_seconds(1_800_000_000));
}

#[test]
fn histograms_and_summaries_in_both_encodings() {
    let json = r#"{"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "latency", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [
          {"timeUnixNano": "1800000000000000000", "count": "6", "sum": 1.5, "bucketCounts": ["1", "2", 3], "explicitBounds": [0.1, 1]},
          {"timeUnixNano": "1800000000000000000", "count": "6", "bucketCounts": ["1"], "explicitBounds": [0.1, 1]}]}},
        {"name": "size", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
          {"timeUnixNano": "1800000000000000000", "count": 4, "sum": 7, "scale": 0, "zeroCount": "1",
           "positive": {"offset": 0, "bucketCounts": ["1", "2"]}, "negative": {"offset": 0}}]}},
        {"name": "old", "summary": {"dataPoints": [
          {"timeUnixNano": "1800000000000000000", "count": "3", "sum": 6, "quantileValues": [{"quantile": 0.5, "value": 2}]}]}}
      ]}]}]}"#;
    let packed = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let bounds = packed(&[0.1f64.to_bits(), 1f64.to_bits()]);
    let good = [fixed(3, NANOS), fixed(4, 6), double(5, 1.5), bytes(6, packed(&[1, 2, 3])), bytes(7, &bounds)].concat();
    let bad = [fixed(3, NANOS), fixed(4, 6), bytes(6, packed(&[1])), bytes(7, &bounds)].concat();
    let positive = [number(1, zig(0)), bytes(2, [varint(1), varint(2)].concat())].concat();
    let exponential = [
        fixed(3, NANOS),
        fixed(4, 4),
        double(5, 7.0),
        number(6, zig(0)),
        fixed(7, 1),
        bytes(8, positive),
        bytes(9, number(1, 0)),
    ]
    .concat();
    let quantile = bytes(6, [double(1, 0.5), double(2, 2.0)].concat());
    let summary = [fixed(3, NANOS), fixed(4, 3), double(5, 6.0), quantile].concat();
    let metrics = [
        [bytes(1, "latency"), bytes(3, "s"), bytes(9, [bytes(1, good), bytes(1, bad), number(2, 2)].concat())].concat(),
        [bytes(1, "size"), bytes(10, [bytes(1, exponential), number(2, 2)].concat())].concat(),
        [bytes(1, "old"), bytes(11, bytes(1, summary))].concat(),
    ];
    let decoded = both(json, &request(&[], "", &metrics));
    assert_eq!(
        shown(&decoded),
        [
            "latency_seconds_bucket{le=0.1} Some(1.0)",
            "latency_seconds_bucket{le=1} Some(3.0)",
            "latency_seconds_bucket{le=+Inf} Some(6.0)",
            "latency_seconds_sum{} Some(1.5)",
            "latency_seconds_count{} Some(6.0)",
            "size_bucket{le=0} Some(1.0)",
            "size_bucket{le=1} Some(1.0)",
            "size_bucket{le=2} Some(2.0)",
            "size_bucket{le=4} Some(4.0)",
            "size_bucket{le=+Inf} Some(4.0)",
            "size_sum{} Some(7.0)",
            "size_count{} Some(4.0)",
            "old{quantile=0.5} Some(2.0)",
            "old_sum{} Some(6.0)",
            "old_count{} Some(3.0)",
            "target_info{} Some(1.0)",
        ]
    );
    assert_eq!(decoded.problems, ["latency_seconds: the bounds of a histogram do not fit its buckets"]);
}

#[test]
fn logs_in_both_encodings() {
    let json = r#"{"resourceLogs": [{"resource": {"attributes": [
        {"key": "service.name", "value": {"stringValue": "trainer"}}, {"key": "host.name", "value": {"stringValue": "n1"}}]},
      "scopeLogs": [{"scope": {"name": "root"}, "logRecords": [
        {"timeUnixNano": "1800000000000000000", "severityNumber": 17, "severityText": "ERROR", "body": {"stringValue": "NCCL timeout"},
         "attributes": [{"key": "rank", "value": {"intValue": 3}},
                        {"key": "where", "value": {"kvlistValue": {"values": [{"key": "line", "value": {"doubleValue": 1.5}}]}}}],
         "traceId": "0102", "spanId": "ff"},
        {"observedTimeUnixNano": "1", "body": {"arrayValue": {"values": [{"boolValue": true}]}}},
        {"body": {"stringValue": "no time"}}]}]}]}"#;
    let nested = bytes(6, bytes(1, [bytes(1, "line"), bytes(2, double(4, 1.5))].concat()));
    let records = [
        [
            fixed(1, NANOS),
            number(2, 17),
            bytes(3, "ERROR"),
            bytes(5, text_value("NCCL timeout")),
            attribute(6, "rank", number(3, 3)),
            attribute(6, "where", nested),
            bytes(9, [1, 2]),
            bytes(10, [0xff]),
        ]
        .concat(),
        [fixed(11, 1), bytes(5, bytes(5, bytes(1, number(2, 1))))].concat(),
        bytes(5, text_value("no time")),
    ];
    let scope = [bytes(1, bytes(1, "root")), records.iter().flat_map(|record| bytes(2, record)).collect()].concat();
    let resource = [attribute(1, "service.name", text_value("trainer")), attribute(1, "host.name", text_value("n1"))];
    let body = bytes(1, [bytes(1, resource.concat()), bytes(2, scope)].concat());
    let now = Timestamp::from_seconds(1_800_000_100);
    let times = Times { oldest: Timestamp::from_seconds(1_700_000_000), newest: now };
    let lines = decode_logs(&body, Format::Protobuf, times, now).unwrap();
    assert_eq!(lines, decode_logs(json.as_bytes(), Format::Json, times, now).unwrap());
    let first = &lines.lines[0];
    assert_eq!((first.host.as_str(), first.source.as_str(), first.level.as_deref()), ("n1", "trainer", Some("error")));
    let fields: Vec<_> = first.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(fields, ["rank=3", "span_id=ff", "trace_id=0102", "where={\"line\":1.5}"]);
    assert_eq!(
        (lines.lines[1].message.as_str(), lines.lines[1].ts, lines.lines[1].level.as_ref()),
        ("no time", now, None)
    );
    assert_eq!((lines.lines.len(), lines.rejected), (2, 1));
    // A value within a value within a value.
    let deep = (0..100).fold(number(2, 1), |value, _| bytes(5, bytes(1, value)));
    let body = bytes(1, bytes(2, bytes(2, bytes(5, deep))));
    assert!(matches!(decode_logs(&body, Format::Protobuf, times, now), Err(IngestError::Malformed(_))));
}

#[test]
fn more_than_can_be_kept_is_refused_before_it_is_read() {
    // Empty points: two bytes each.
    let points: Vec<u8> = (0..1_000_000).flat_map(|_| bytes(1, [])).collect();
    let body = request(&[], "", &[[bytes(1, "x"), bytes(5, points)].concat()]);
    assert!(matches!(decode_metrics(&body, Format::Protobuf, Times::ANY), Err(IngestError::TooLarge(_))));
    let points = vec!["{}"; 1_000_000].join(",");
    let json = format!(
        "{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{\"gauge\":{{\"dataPoints\":[{points}]}}}}]}}]}}]}}"
    );
    assert!(matches!(decode_metrics(json.as_bytes(), Format::Json, Times::ANY), Err(IngestError::TooLarge(_))));
}

#[test]
fn answers_say_what_was_not_taken() {
    let problems = ["a".to_string(), "b".to_string()];
    assert_eq!(response(Format::Protobuf, "rejectedDataPoints", 0, &problems), b"");
    assert_eq!(
        response(Format::Protobuf, "rejectedDataPoints", 300, &problems),
        bytes(1, [number(1, 300), bytes(2, "a; b")].concat())
    );
    assert_eq!(
        response(Format::Json, "rejectedLogRecords", 2, &problems),
        br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"a; b"}}"#
    );
    assert_eq!(status(Format::Protobuf, "no"), bytes(2, "no"));
    assert_eq!(status(Format::Json, "no"), br#"{"message":"no"}"#);
}
