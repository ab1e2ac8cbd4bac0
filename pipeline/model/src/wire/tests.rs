//! Round trips, and the property that nothing damaged gets through: whatever bit is flipped, whatever is cut off, the
//! answer is a typed error, never a panic, an abort or other rows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use proptest::prelude::*;

use super::json::{TimeUnitChoice, decode_lines};
use super::*;
use crate::table;

fn origin() -> Origin {
    Origin { source: "n1".into(), incarnation: "i1".into(), seq: 3 }
}

fn small() -> RecordBatch {
    let host: DictionaryArray<Int32Type> = vec![Some("n1"), None, Some("n2")].into_iter().collect();
    let ts = TimestampMicrosecondArray::from(vec![30, 10, 20]).with_timezone("UTC");
    RecordBatch::try_from_iter_with_nullable([
        ("ts", Arc::new(ts) as ArrayRef, false),
        ("host", Arc::new(host), true),
        ("value", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN)])), true),
        ("name", Arc::new(StringArray::from(vec![Some(""), Some("x"), None])), true),
        ("count", Arc::new(Int64Array::from(vec![Some(7), Some(-1), None])), true),
    ])
    .unwrap()
}

fn with_map() -> RecordBatch {
    let lines = b"{\"ts\": 1, \"host\": \"n1\", \"source\": \"s\", \"message\": \"hello\", \"b\": 2, \"a\": null}\n{\"ts\": 2, \"source\": \"s\"}";
    decode_lines(table::find("log").unwrap(), lines, TimeUnitChoice::Micros).0
}

/// Damaged content is never taken for good: an error, or (where only a header that nobody wrote was touched) the same rows.
fn must_fail(record: &Record, what: &str) {
    assert!(decode(record).is_err(), "{what} was accepted");
}

#[test]
fn round_trips() {
    for (name, batch) in [("host", small()), ("log", with_map()), ("host", small().slice(1, 1))] {
        let record = encode(name, &origin(), &batch).unwrap();
        let (header, same) = decode(&record).unwrap();
        assert_eq!(same, batch);
        assert_eq!((header.table.as_str(), header.seq, header.rows), (name, 3, batch.num_rows() as u64));
        assert_eq!(record.timestamp, header.max_ts);
    }
}

#[test]
fn a_frame_without_rows_is_not_made() {
    assert_eq!(encode("host", &origin(), &small().slice(0, 0)), Err(WireError::Decode("no rows".to_string())));
}

#[test]
fn large_batches_are_split_and_numbered() {
    let rows = 300_000;
    let ts = TimestampMicrosecondArray::from_iter_values(0..rows).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([("ts", Arc::new(ts) as ArrayRef)]).unwrap();
    assert!(matches!(encode("host", &origin(), &batch), Err(WireError::TooLarge { .. })));
    let mut from = origin();
    let records = encode_split("host", &mut from, &batch).unwrap();
    assert_eq!(from.seq, 3 + records.len() as u64);
    let decoded: Vec<(Header, RecordBatch)> = records.iter().map(|record| decode(record).unwrap()).collect();
    assert_eq!(decoded.iter().map(|(_, batch)| batch.num_rows() as i64).sum::<i64>(), rows);
    assert!(decoded.windows(2).all(|pair| pair[0].0.seq + 1 == pair[1].0.seq && pair[0].0.max_ts < pair[1].0.min_ts));
}

#[test]
fn every_single_bit_flip_is_noticed() {
    for batch in [small(), with_map()] {
        let good = encode("host", &origin(), &batch).unwrap();
        let payload = good.value.clone().unwrap();
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            must_fail(&Record { value: Some(damaged), ..good.clone() }, &format!("payload bit {bit}"));
        }
        for header in 0..good.headers.len() {
            for bit in 0..good.headers[header].1.len() * 8 {
                let mut record = good.clone();
                record.headers[header].1[bit / 8] ^= 1 << (bit % 8);
                // Upper case hex digits of a checksum are the same checksum.
                let same = good.headers[header].1.eq_ignore_ascii_case(&record.headers[header].1);
                match decode(&record) {
                    Ok((_, rows)) => assert!(same && rows == batch, "header {header} bit {bit}"),
                    Err(_) => continue,
                }
            }
        }
        for bit in 0..good.key.len() * 8 {
            let mut record = good.clone();
            record.key[bit / 8] ^= 1 << (bit % 8);
            must_fail(&record, &format!("key bit {bit}"));
        }
        let coarse = Record { timestamp: Timestamp(good.timestamp.0 / 1_000 * 1_000 - 1_000), ..good.clone() };
        assert!(decode(&coarse).is_ok(), "Kafka keeps milliseconds, or the time of the append");
    }
}

/// A decoder that knows the schema says the same as one that does not, of every damage that a checksum would not show.
#[test]
fn what_a_decoder_remembers_changes_no_answer() {
    let ts = TimestampMicrosecondArray::from(vec![30, 10]).with_timezone("UTC");
    let texts = StringArray::from(vec![Some("x"), None]);
    let plain = RecordBatch::try_from_iter_with_nullable([
        ("ts", Arc::new(ts) as ArrayRef, false),
        ("name", Arc::new(texts) as ArrayRef, true),
    ]);
    for batch in [plain.unwrap(), with_map(), small()] {
        let good = encode("host", &origin(), &batch).unwrap();
        let mut warm = Decoder::default();
        assert_eq!(warm.decode(&good).unwrap(), decode(&good).unwrap());
        let payload = good.value.clone().unwrap();
        let flips = (0..payload.len() * 8).map(|bit| {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            damaged
        });
        let cuts = (0..payload.len()).map(|length| payload[..length].to_vec());
        let twice = std::iter::once([payload.clone(), payload.clone()].concat());
        for damaged in flips.chain(cuts).chain(twice) {
            let mut record = Record { value: Some(damaged), ..good.clone() };
            let crc = format!("{:08x}", checksum(&record));
            record.headers.last_mut().unwrap().1 = crc.into_bytes();
            let (fresh, again) = (decode(&record), warm.decode(&record));
            // NaN is not equal to itself.
            assert_eq!(format!("{:?}", fresh.ok()), format!("{:?}", again.ok()));
            // What it was shown in between may have been remembered too: the good one is known again.
            warm.decode(&good).unwrap();
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let good = encode("host", &origin(), &small()).unwrap();
    let payload = good.value.clone().unwrap();
    for length in 0..payload.len() {
        must_fail(&Record { value: Some(payload[..length].to_vec()), ..good.clone() }, &format!("{length} bytes"));
        assert!(guard(&payload[..length]).is_err(), "the guard alone took {length} bytes");
    }
    must_fail(&Record { value: None, ..good.clone() }, "a tombstone");
    for header in 0..good.headers.len() {
        let mut record = good.clone();
        let removed = record.headers.remove(header);
        must_fail(&record, &removed.0);
        record.headers.push(removed.clone());
        record.headers.push(removed);
        must_fail(&record, "a doubled header");
    }
}

/// Without the checksum: the guard keeps everything out that could abort or allocate without bound; what Arrow then
/// makes of it is an error or some batch.
#[test]
fn the_guard_alone_never_lets_the_decoder_abort() {
    for batch in [small(), with_map()] {
        let payload = encode("host", &origin(), &batch).unwrap().value.unwrap();
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if guard(&damaged).is_ok() {
                drop(decode_guarded(&damaged));
            }
        }
    }
}

#[test]
fn what_is_not_on_the_list_is_refused() {
    let write = |batch: &RecordBatch, options: IpcWriteOptions| {
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.into_inner().unwrap()
    };
    let problem = |payload: &[u8]| guard(payload).unwrap_err().to_string();
    let column = |kind: DataType| {
        let schema = Arc::new(Schema::new(vec![Field::new("x", kind.clone(), true)]));
        write(
            &RecordBatch::try_new(schema, vec![arrow::array::new_null_array(&kind, 3)]).unwrap(),
            IpcWriteOptions::default(),
        )
    };
    for kind in [
        DataType::UInt64,
        DataType::Float32,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Null,
        DataType::Date32,
        DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
        DataType::List(Arc::new(Field::new("item", DataType::Int64, true))),
    ] {
        assert!(problem(&column(kind.clone())).contains("is not accepted"), "{kind}");
    }
    let mut two = StreamWriter::try_new(Vec::new(), &small().schema()).unwrap();
    two.write(&small()).unwrap();
    two.write(&small()).unwrap();
    assert!(guard(&two.into_inner().unwrap()).is_err());
    let mut longer = write(&small(), IpcWriteOptions::default());
    longer.push(0);
    assert!(problem(&longer).contains("the end of the payload"));
    assert!(IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).is_ok());
}

#[test]
fn a_frame_of_the_first_version_reads_for_ever() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/frame-1.hex");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let record = encode("host", &origin(), &small()).unwrap();
        let crc = String::from_utf8(record.headers.last().unwrap().1.clone()).unwrap();
        std::fs::write(path, format!("{crc}\n{}\n", crate::alert::hex(&record.value.unwrap()))).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    let (crc, payload) = golden.trim().split_once('\n').unwrap();
    let bytes = (0..payload.len()).step_by(2).map(|at| u8::from_str_radix(&payload[at..at + 2], 16).unwrap()).collect();
    let mut record = encode("host", &origin(), &small()).unwrap();
    record.value = Some(bytes);
    record.headers.last_mut().unwrap().1 = crc.as_bytes().to_vec();
    assert_eq!(decode(&record).unwrap().1, small());
}

#[test]
fn json_lines() {
    let metrics = table::find("metrics").unwrap();
    let text = b"{\"ts\":\"2026-01-01T00:00:00Z\",\"name\":\"up\",\"value\":\"NaN\",\"job\":\"x\",\"labels\":{\"b\":\"2\",\"a\":1}}\n\n[1]\n{\"name\":\"up\"}\n{\"ts\":1,\"name\":5}\n{";
    let (rows, report) = decode_lines(metrics, text, TimeUnitChoice::Seconds);
    assert_eq!(rows.num_rows(), 1);
    let reasons: Vec<String> =
        report.rejected.iter().map(|rejected| format!("{}: {}", rejected.line, rejected.reason)).collect();
    assert_eq!(
        reasons[..3],
        [
            "3: expected a JSON object, found an array",
            "4: field 'ts' is missing",
            "5: field 'name': expected a string, found 5",
        ]
    );
    assert!(reasons[3].starts_with("6: not JSON: EOF"));
    let labels = rows.column_by_name("labels").unwrap().as_map().value(0);
    assert_eq!(labels.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b", "job"]);
    let (_, report) = decode_lines(table::find("host").unwrap(), b"{\"ts\":1,\"nonsense\":1}", TimeUnitChoice::Seconds);
    assert_eq!(report.unknown_fields["nonsense"], 1);
}

proptest! {
    #[test]
    fn random_damage_is_noticed(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let good = encode("host", &origin(), &small()).unwrap();
        let mut payload = good.value.clone().unwrap();
        for (index, byte) in &changes {
            let at = index.index(payload.len());
            payload[at] = *byte;
        }
        if guard(&payload).is_ok() {
            drop(decode_guarded(&payload));
        }
        if Some(&payload) != good.value.as_ref() {
            must_fail(&Record { value: Some(payload), ..good }, "random damage");
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(guard(&bytes).is_err());
    }
}
