//! The lake in a bucket of a real S3 server, which loses answers, is too busy, and can't decide between two puts.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Random, Store, StoreError};
use tidewatch_model::scripted::SeededRandom;
use tidewatch_tests::peers::S3;

use crate::tests::{Log, all_numbers, batch, glob_numbers, live, snapshot_numbers};
use crate::*;

fn open(server: &S3, prefix: &str) -> Arc<S3Store> {
    Arc::new(S3Store::open(&format!("s3://tidewatch{prefix}"), server.variables()).unwrap())
}

#[test]
fn a_bucket_keeps_the_contract() {
    let Some(server) = S3::start() else { return };
    contract::run(open(&server, "").as_ref());
    contract::run(open(&server, "/below/here/").as_ref());
    assert!(matches!(open(&server, "").create("../x", b""), Err(StoreError::BadPath(_))));
    for url in ["tidewatch", "s3://", "s3:///x", "http://tidewatch"] {
        assert!(S3Store::open(url, server.variables()).is_err(), "{url}");
    }
}

/// Whatever goes wrong with puts, every row is there once in the end, and nobody takes its own commit for somebody else's.
#[test]
fn every_row_once_in_a_bucket_that_fails() {
    let Some(mut server) = S3::start() else { return };
    let store = open(&server, "/lake");
    let log: Log = (0..12).map(|record| vec![(record * 97, 1), (record * 97 + 40, record as usize % 3)]).collect();
    let random = SeededRandom::new(7);
    let mut failures = 0;
    for life in 0..30 {
        let kind = ["cut", "503", "409", "none"][random.next_u64() as usize % 4];
        server.fail(kind, 1 + (random.next_u64() % 3) as u32);
        match live(&store, &log[..log.len().min(1 + life)].to_vec(), 2, life as u64) {
            Ok(()) => {}
            Err(LakeError::Store(_)) => failures += 1,
            Err(error) => panic!("life {life}, {kind}: {error}"),
        }
        assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new(), "life {life}, {kind}");
    }
    server.fail("none", 0);
    live(&store, &log, 2, 99).unwrap();
    assert!(failures > 0);
    assert_eq!(snapshot_numbers(&store), all_numbers(&log));
    assert_eq!(glob_numbers(&store), all_numbers(&log));
    let mut janitor = Janitor::new(store.clone(), JanitorOptions::default());
    for hours in [1, 4, 7, 10] {
        janitor.run(Timestamp::from_seconds(hours * 3_600)).unwrap();
    }
    assert_eq!(store.list("internal/hot/").unwrap(), []);
    assert_eq!(snapshot_numbers(&store), all_numbers(&log));
    assert_eq!(verify(store.as_ref()).unwrap().problems, Vec::<String>::new());
}

/// A store that is too busy for a while: rows wait, and what was under way is not begun anew.
#[test]
fn a_store_that_is_too_busy_loses_nothing() {
    let Some(mut server) = S3::start() else { return };
    let store = open(&server, "/busy");
    let random = Arc::new(SeededRandom::new(1));
    let mut writer = LakeWriter::new(store.clone(), random, LakeOptions::default());
    let push = |writer: &mut LakeWriter, offset: usize| {
        writer.rows("tidewatch.host", 0, "host", &batch(&[(offset as i64, 1)], offset)).unwrap();
        let counts = Counts { records: 1, ..Counts::default() };
        let progress = Progress { next: offset as u64 + 1, counts, sources: vec![] };
        writer.advance("tidewatch.host", 0, &progress, Timestamp(0)).unwrap();
    };
    push(&mut writer, 0);
    writer.flush(Timestamp(0)).unwrap();
    server.fail("all503", 10_000);
    for offset in 1..3 {
        push(&mut writer, offset);
        assert!(matches!(writer.flush(Timestamp(0)), Err(LakeError::Store(_))));
    }
    assert_eq!(writer.waiting_rows(), 2);
    server.fail("none", 0);
    assert_eq!(writer.flush(Timestamp(0)).unwrap().rows, 2);
    assert_eq!(snapshot_numbers(&store), [0, 1, 2]);
}
