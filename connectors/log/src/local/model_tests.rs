//! The local log against a model, on a file system that crashes: what was acknowledged survives the process, what was
//! synced survives a loss of power, nothing is ever wrong, and every read ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::files::Lock;

/// A file: its bytes, and how many of them were synced.
#[derive(Debug, Clone, Default)]
struct FakeFile {
    bytes: Vec<u8>,
    synced: usize,
    /// Whether its name was synced.
    named: bool,
}

#[derive(Debug, Default)]
struct FakeFiles {
    files: Mutex<BTreeMap<PathBuf, FakeFile>>,
    locks: Mutex<BTreeMap<PathBuf, Arc<AtomicBool>>>,
    /// The next append writes this many bytes and fails.
    full: Mutex<Option<usize>>,
    /// The next sync fails.
    sync_fails: AtomicBool,
}

struct FakeLock(Arc<AtomicBool>);

impl Drop for FakeLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl FakeFiles {
    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, FakeFile>> {
        self.files.lock().unwrap()
    }

    /// The power goes: of what was not synced some bytes remain, perhaps; names that were not synced are gone.
    fn lose_power(&self, keep: usize) {
        let mut files = self.files();
        files.retain(|_, file| file.named);
        for file in files.values_mut() {
            let unsynced = file.bytes.len().saturating_sub(file.synced);
            file.bytes.truncate(file.synced + unsynced * (keep % 4) / 4);
            file.synced = file.bytes.len();
        }
    }
}

impl Files for FakeFiles {
    fn create_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let files = self.files();
        let below = files.keys().filter_map(|file| file.strip_prefix(path).ok()?.components().next());
        let names: BTreeSet<String> = below.map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
        Ok(names.into_iter().collect())
    }

    fn len(&self, path: &Path) -> Result<u64> {
        self.files().get(path).map(|file| file.bytes.len() as u64).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn read(&self, path: &Path, from: u64, most: usize) -> Result<Vec<u8>> {
        let files = self.files();
        let file = files.get(path).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        let from = (from as usize).min(file.bytes.len());
        Ok(file.bytes[from..from.saturating_add(most).min(file.bytes.len())].to_vec())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut files = self.files();
        let file = files.entry(path.to_path_buf()).or_default();
        match self.full.lock().unwrap().take() {
            Some(written) => {
                file.bytes.extend(&bytes[..written.min(bytes.len())]);
                Err(ErrorKind::StorageFull.into())
            }
            None => {
                file.bytes.extend(bytes);
                Ok(())
            }
        }
    }

    fn truncate(&self, path: &Path, length: u64) -> Result<()> {
        let mut files = self.files();
        let file = files.get_mut(path).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        file.bytes.truncate(length as usize);
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }

    fn sync(&self, path: &Path) -> Result<()> {
        if self.sync_fails.swap(false, Ordering::SeqCst) {
            return Err(Error::other("sync failed"));
        }
        let mut files = self.files();
        let file = files.get_mut(path).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        file.synced = file.bytes.len();
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.files().iter_mut().filter(|(file, _)| file.parent() == Some(path)).for_each(|(_, file)| file.named = true);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.files().remove(path);
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Option<Lock>> {
        let mut locks = self.locks.lock().unwrap();
        let held = locks.entry(path.to_path_buf()).or_default().clone();
        match held.swap(true, Ordering::SeqCst) {
            true => Ok(None),
            false => Ok(Some(Box::new(FakeLock(held)))),
        }
    }
}

/// What happens to the log.
#[derive(Debug, Clone)]
enum Act {
    Append(Vec<usize>),
    Sync,
    SyncFails,
    FullDisk(usize, usize),
    Kill,
    LosePower(usize),
    Flip(prop::sample::Index),
    Compact,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => prop::collection::vec(0usize..300, 1..6).prop_map(Act::Append),
        3 => Just(Act::Sync),
        1 => Just(Act::SyncFails),
        2 => (0usize..400, 0usize..300).prop_map(|(written, size)| Act::FullDisk(written, size)),
        2 => Just(Act::Kill),
        2 => (0usize..8).prop_map(Act::LosePower),
        1 => any::<prop::sample::Index>().prop_map(Act::Flip),
        1 => Just(Act::Compact),
    ];
    prop::collection::vec(act, 1..40)
}

const TOPIC: &str = "t";

fn open(files: &Arc<FakeFiles>, compacted: bool) -> LocalLog {
    let options = LocalLogOptions { segment_bytes: 1_000, ..LocalLogOptions::default() };
    let log = LocalLog::with_files(Path::new("/log"), options, files.clone()).unwrap();
    log.create_topic(TOPIC, &TopicOptions { partitions: 1, compacted, retention: None, retention_bytes: None })
        .unwrap();
    log
}

/// The model: every record that was acknowledged, by offset, and whether it must still be there.
#[derive(Debug, Default)]
struct Model {
    acknowledged: BTreeMap<u64, (Record, Fate)>,
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not synced: survives the process.
    Acknowledged,
    /// Survives everything.
    Synced,
    /// A byte of the log was changed, or a sync failed: may be gone, must not be wrong.
    Uncertain,
    /// The power went before it was synced: may be gone, and if it is, nothing tells that its offset was given out.
    PowerLost,
}

impl Model {
    fn record(&mut self, bytes: usize) -> Record {
        self.count += 1;
        Record {
            key: format!("k{}", self.count % 5).into_bytes(),
            headers: vec![("n".to_string(), self.count.to_string().into_bytes())],
            value: (!self.count.is_multiple_of(7)).then(|| vec![self.count as u8; bytes]),
            timestamp: Timestamp(self.count as i64),
        }
    }

    fn turn(&mut self, to: Fate, which: impl Fn(Fate) -> bool) {
        self.acknowledged.values_mut().filter(|(_, fate)| which(*fate)).for_each(|(_, fate)| *fate = to);
    }

    /// What the log holds is what was acknowledged, nothing else, in order, once.
    fn check(&self, log: &LocalLog, compacted: bool) {
        let mut found = BTreeMap::new();
        let range = log.range(TOPIC, 0).unwrap();
        let mut from = range.start;
        for _ in 0..10_000 {
            let batch = log.read(TOPIC, 0, from, 700).unwrap();
            for (offset, record) in batch.records {
                assert!(offset >= from, "order");
                assert!(found.insert(offset, record).is_none(), "once");
            }
            if batch.next == from {
                break;
            }
            from = batch.next;
        }
        assert_eq!(from, range.end, "every read ends, at the end");
        for (offset, record) in &found {
            let known = self.acknowledged.get(offset).map(|(record, _)| record);
            assert_eq!(known, Some(record), "offset {offset} holds what was never acknowledged there");
        }
        for (offset, (record, fate)) in &self.acknowledged {
            let newer = compacted
                && self.acknowledged.iter().any(|(other, (later, _))| other > offset && later.key == record.key);
            let may_be_gone =
                matches!(fate, Fate::Uncertain | Fate::PowerLost) || newer || (compacted && record.value.is_none());
            assert!(may_be_gone || found.contains_key(offset), "offset {offset} is lost");
        }
    }
}

fn play(acts: &[Act], compacted: bool) {
    let files = Arc::new(FakeFiles::default());
    let mut log = Some(open(&files, compacted));
    let mut model = Model::default();
    for act in acts {
        let current = log.get_or_insert_with(|| open(&files, compacted));
        match act {
            Act::Append(sizes) => {
                let records: Vec<Record> = sizes.iter().map(|bytes| model.record(*bytes)).collect();
                if let Ok(first) = current.append(TOPIC, 0, &records) {
                    for (index, record) in records.into_iter().enumerate() {
                        let before = model.acknowledged.insert(first + index as u64, (record, Fate::Acknowledged));
                        let reused = before.is_some_and(|(_, fate)| fate != Fate::PowerLost);
                        assert!(!reused, "an offset was given out twice");
                    }
                }
            }
            Act::Sync => {
                if current.sync().is_ok() {
                    model
                        .acknowledged
                        .values_mut()
                        .filter(|(_, fate)| *fate == Fate::Acknowledged)
                        .for_each(|(_, fate)| *fate = Fate::Synced);
                }
            }
            Act::SyncFails => {
                files.sync_fails.store(true, Ordering::SeqCst);
                if current.sync().is_err() {
                    model.turn(Fate::Uncertain, |fate| fate == Fate::Acknowledged);
                }
                files.sync_fails.store(false, Ordering::SeqCst);
            }
            Act::FullDisk(written, size) => {
                let record = model.record(*size);
                *files.full.lock().unwrap() = Some(*written);
                assert!(current.append(TOPIC, 0, &[record]).is_err(), "a full disk acknowledges nothing");
                *files.full.lock().unwrap() = None;
            }
            Act::Kill => log = None,
            Act::LosePower(keep) => {
                log = None;
                files.lose_power(*keep);
                model.turn(Fate::PowerLost, |fate| fate != Fate::Synced);
            }
            Act::Flip(index) => {
                log = None;
                let mut all = files.files();
                let mut segments: Vec<&mut FakeFile> = all
                    .iter_mut()
                    .filter(|(path, file)| path.to_string_lossy().ends_with(".seg") && file.bytes.len() > 16)
                    .map(|(_, file)| file)
                    .collect();
                if !segments.is_empty() {
                    let chosen = index.index(segments.len());
                    let file = &mut segments[chosen];
                    let at = 16 + index.index(file.bytes.len() - 16);
                    file.bytes[at] ^= 0x10;
                }
                model.turn(Fate::Uncertain, |fate| fate != Fate::PowerLost);
            }
            Act::Compact => {
                let partition = current.partition(TOPIC, 0).unwrap();
                lock(&partition).compact(files.as_ref()).unwrap();
            }
        }
        let current = log.get_or_insert_with(|| open(&files, compacted));
        model.check(current, compacted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_its_model(acts in acts()) {
        play(&acts, false);
    }

    #[test]
    fn a_compacted_log_is_its_model(acts in acts()) {
        play(&acts, true);
    }
}

#[test]
fn one_process_writes_and_others_follow() {
    let folder = tempfile::tempdir().unwrap();
    let options = LocalLogOptions { segment_bytes: 500, ..LocalLogOptions::default() };
    let writer = LocalLog::open(folder.path(), options).unwrap();
    let reader = LocalLog::open(folder.path(), options).unwrap();
    let topic =
        TopicOptions { partitions: 1, compacted: false, retention: Some(Span::seconds(10)), retention_bytes: None };
    writer.create_topic(TOPIC, &topic).unwrap();
    let mut model = Model::default();
    let mut from = 0;
    for round in 0..30 {
        let record = model.record(100);
        writer.append(TOPIC, 0, std::slice::from_ref(&record)).unwrap();
        let read = reader.read(TOPIC, 0, from, 1 << 20).unwrap();
        assert_eq!(read.records, [(round, record)]);
        from = read.next;
    }
    assert!(matches!(reader.append(TOPIC, 0, &[model.record(1)]), Err(LogError::Locked { .. })));
    drop(writer);
    assert_eq!(reader.append(TOPIC, 0, &[model.record(1)]).unwrap(), 30);
    let deleted = reader.retain(Timestamp(31) + Span::seconds(10) - Span(5)).unwrap();
    assert!(deleted > 0);
    assert!(matches!(reader.read(TOPIC, 0, 0, 10), Err(LogError::OutOfRange { .. })));
}

#[test]
fn a_reader_misses_nothing_of_a_writer_that_is_many_segments_ahead() {
    for ahead in 1..40 {
        let folder = tempfile::tempdir().unwrap();
        let options = LocalLogOptions { segment_bytes: 500, ..LocalLogOptions::default() };
        let writer = LocalLog::open(folder.path(), options).unwrap();
        let reader = LocalLog::open(folder.path(), options).unwrap();
        let topic = TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None };
        writer.create_topic(TOPIC, &topic).unwrap();
        let mut model = Model::default();
        let mut from = 0;
        for round in 0..4 {
            let records: Vec<Record> = (0..ahead).map(|_| model.record(100)).collect();
            for record in &records {
                writer.append(TOPIC, 0, std::slice::from_ref(record)).unwrap();
            }
            let mut read = Vec::new();
            while read.len() < records.len() {
                let batch = reader.read(TOPIC, 0, from, 1 << 20).unwrap();
                assert!(
                    batch.next > from,
                    "{ahead} records at a time, round {round}: {} are missing",
                    records.len() - read.len()
                );
                from = batch.next;
                read.extend(batch.records.into_iter().map(|(_, record)| record));
            }
            assert_eq!(read, records, "{ahead} records at a time, round {round}");
        }
    }
}

#[test]
fn files_that_are_not_ours_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = LocalLog::open(folder.path(), LocalLogOptions::default()).unwrap();
    log.create_topic(TOPIC, &TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None })
        .unwrap();
    let path = folder.path().join("t/00000/00000000000000000000.seg");
    std::fs::write(&path, b"TWLOG\0\0\x09\0\0\0\0\0\0\0\0").unwrap();
    let error = log.range(TOPIC, 0).unwrap_err().to_string();
    assert!(error.contains("format version 9: expected 1"), "{error}");
    std::fs::write(&path, b"TWLOG").unwrap();
    let log = LocalLog::open(folder.path(), LocalLogOptions::default()).unwrap();
    assert_eq!(log.range(TOPIC, 0).unwrap(), 0..0, "a truncated header is a torn tail");
    assert_eq!(log.append(TOPIC, 0, &[Record::default()]).unwrap(), 1);
    assert!(
        log.create_topic(
            "../evil",
            &TopicOptions { partitions: 1, compacted: false, retention: None, retention_bytes: None }
        )
        .is_err()
    );
}
