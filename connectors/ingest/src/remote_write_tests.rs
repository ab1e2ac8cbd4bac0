#![allow(clippy::unwrap_used)]

use super::*;
use crate::protobuf::write::{bytes, double, number, varint, zig};

fn label(name: &str, value: &str) -> Vec<u8> {
    bytes(1, [bytes(1, name), bytes(2, value)].concat())
}

fn sample(value: f64, millis: i64) -> Vec<u8> {
    bytes(2, [double(1, value), number(2, millis as u64)].concat())
}

fn shown(decoded: &Decoded) -> Vec<String> {
    let of = |series: &Series| {
        let labels: Vec<String> = series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let points: Vec<String> =
            series.points.iter().map(|point| format!("{:?}@{}", point.value, point.ts.0 / 1_000)).collect();
        format!("{}{{{}}} {}", series.name, labels.join(","), points.join(" "))
    };
    decoded.series.iter().map(of).collect()
}

use crate::Series;

#[test]
fn content_types_choose_the_message() {
    for (text, version) in [
        ("application/x-protobuf", Some(Version::One)),
        ("application/x-protobuf;proto=prometheus.WriteRequest", Some(Version::One)),
        ("application/x-protobuf; proto=io.prometheus.write.v2.Request", Some(Version::Two)),
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", None),
        ("application/json", None),
    ] {
        assert_eq!(Version::of(text), version, "{text}");
    }
}

#[test]
fn samples_of_version_one() {
    let good = [
        label("__name__", "up"),
        label("job", "node"),
        label("empty", ""),
        sample(1.0, 5_000),
        sample(f64::from_bits(STALE), 6_000),
    ]
    .concat();
    let nameless = [label("job", "node"), sample(1.0, 5_000), sample(1.0, 6_000)].concat();
    let twice = [label("__name__", "x"), label("a", "1"), label("a", "2"), sample(1.0, 5_000)].concat();
    let old = [label("__name__", "old"), sample(1.0, 1), sample(2.0, 5_000)].concat();
    // Field 3 is metadata, and nothing of ours.
    let body = [bytes(1, good), bytes(3, number(1, 2)), bytes(1, nameless), bytes(1, twice), bytes(1, old)].concat();
    let times = Times { oldest: at(1_000), newest: at(10_000) };
    let decoded = decode(&body, Version::One, times).unwrap();
    assert_eq!(shown(&decoded), ["up{job=node} Some(1.0)@5000 None@6000", "old{} Some(2.0)@5000"]);
    assert_eq!((decoded.samples, decoded.rejected, decoded.histograms), (3, 4, 0));
    assert_eq!(decoded.problems[0], "a series without a name (__name__)");
    assert_eq!(decoded.problems[1], "label 'a' is there twice");
    assert!(decoded.problems[2].starts_with("old: the time 1970-01-01T00:00:00.001Z is more than"), "{decoded:?}");
    assert!(matches!(decode(&[0x0a, 9], Version::One, times), Err(IngestError::Malformed(_))));
}

#[test]
fn samples_of_version_two() {
    let symbols = ["", "__name__", "up", "job", "node"].map(|symbol| bytes(4, symbol)).concat();
    let references = |numbers: &[u64]| bytes(1, numbers.iter().flat_map(|number| varint(*number)).collect::<Vec<u8>>());
    let series = |numbers: &[u64]| bytes(5, [references(numbers), sample(1.5, 5_000)].concat());
    let body = [symbols.clone(), series(&[1, 2, 3, 4]), series(&[1, 2, 3]), series(&[1, 9]), series(&[3, 4])].concat();
    let decoded = decode(&body, Version::Two, Times::ANY).unwrap();
    assert_eq!(shown(&decoded), ["up{job=node} Some(1.5)@5000"]);
    assert_eq!((decoded.samples, decoded.rejected), (1, 3));
    // A message of the one version is empty to the other.
    assert_eq!(decode(&body, Version::One, Times::ANY).unwrap(), Decoded::default());
    let wrong = [bytes(4, "up"), series(&[0, 0])].concat();
    assert!(
        decode(&wrong, Version::Two, Times::ANY).unwrap_err().to_string().contains("expected the first to be empty")
    );
    // A name that is referred to two thousand times is two thousand names.
    let named =
        |bytes_of_name: usize| [bytes(4, ""), bytes(4, "__name__"), bytes(4, "x".repeat(bytes_of_name))].concat();
    let large = named(60 << 10);
    let many: Vec<u8> = (0..2_000).flat_map(|_| series(&[1, 2])).collect();
    let one = decode(&[named(65 << 10), series(&[1, 2])].concat(), Version::Two, Times::ANY).unwrap();
    assert_eq!((one.series.len(), one.rejected), (0, 1), "{:?}", one.problems);
    // And so are the samples of one series.
    let samples: Vec<u8> = (0..2_000).flat_map(|at| sample(1.0, at)).collect();
    let long = bytes(5, [references(&[1, 2]), samples].concat());
    assert!(matches!(decode(&[large.clone(), long].concat(), Version::Two, Times::ANY), Err(IngestError::TooLarge(_))));
    assert!(matches!(decode(&[large, many].concat(), Version::Two, Times::ANY), Err(IngestError::TooLarge(_))));
}

#[test]
fn native_histograms_become_classic_ones() {
    let histogram = |parts: &[Vec<u8>]| bytes(4, parts.concat());
    let span = |offset: i64, length: u64| bytes(11, [number(1, zig(offset)), number(2, length)].concat());
    let deltas = |numbers: &[i64]| bytes(12, numbers.iter().flat_map(|delta| varint(zig(*delta))).collect::<Vec<u8>>());
    let good = histogram(&[
        number(1, 10),
        double(3, 12.5),
        number(4, zig(0)),
        number(6, 1),
        span(1, 2),
        span(1, 1),
        // (1, 2]: 2, (2, 4]: 3, (8, 16]: 4.
        deltas(&[2, 1, 1]),
        number(15, 5_000),
    ]);
    let custom = histogram(&[
        number(1, 6),
        double(3, 1.0),
        number(4, zig(CUSTOM_BOUNDS)),
        span(0, 3),
        deltas(&[1, 1, 1]),
        number(15, 5_000),
        double(16, 0.1),
        double(16, 0.5),
    ]);
    let torn = histogram(&[
        number(1, 6),
        span(0, 1_000_000_000),
        deltas(&[1, 1]),
        number(15, 5_000),
        span(0, 1),
        deltas(&[1]),
    ]);
    let stale = histogram(&[double(3, f64::from_bits(STALE)), number(15, 6_000)]);
    let series = |name: &str, histogram: Vec<u8>| bytes(1, [label("__name__", name), histogram].concat());
    let body = [series("a", good), series("b", custom), series("c", torn), series("d", stale)].concat();
    let decoded = decode(&body, Version::One, Times::ANY).unwrap();
    let expected = [
        "a_bucket{le=0} Some(1.0)@5000",
        "a_bucket{le=1} Some(1.0)@5000",
        "a_bucket{le=2} Some(3.0)@5000",
        "a_bucket{le=4} Some(6.0)@5000",
        "a_bucket{le=8} Some(6.0)@5000",
        "a_bucket{le=16} Some(10.0)@5000",
        "a_bucket{le=+Inf} Some(10.0)@5000",
        "a_sum{} Some(12.5)@5000",
        "a_count{} Some(10.0)@5000",
        "b_bucket{le=0.1} Some(1.0)@5000",
        "b_bucket{le=0.5} Some(3.0)@5000",
        "b_bucket{le=+Inf} Some(6.0)@5000",
        "b_sum{} Some(1.0)@5000",
        "b_count{} Some(6.0)@5000",
    ];
    assert_eq!(shown(&decoded)[..expected.len()], expected);
    // A span may claim a billion buckets: those that have no value are none.
    assert!(shown(&decoded).iter().any(|series| series == "c_count{} Some(6.0)@5000"), "{:?}", shown(&decoded));
    assert_eq!(shown(&decoded)[shown(&decoded).len() - 2..], ["d_sum{} None@6000", "d_count{} None@6000"]);
    assert_eq!((decoded.samples, decoded.histograms, decoded.rejected), (0, 4, 0));
    let short = histogram(&[number(1, 6), span(0, 1), deltas(&[1, 1]), number(15, 5_000)]);
    let decoded = decode(&series("e", short), Version::One, Times::ANY).unwrap();
    assert_eq!((decoded.series.len(), decoded.rejected), (0, 1));
}
