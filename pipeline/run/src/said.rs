//! What people say: silences and acks, each in a compacted topic, so that every engine has them, and the API's answers follow it at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidewatch_flow::alerting::{Ack, SILENCE_KEPT, Silence};
use tidewatch_model::ports::{Log, LogError, Record, TopicOptions, read_to_end};
use tidewatch_model::{Span, Timestamp};

/// What people say, as it is kept.
pub trait Said: Serialize + DeserializeOwned + Clone {
    /// Where it is kept.
    const TOPIC: &'static str;
    /// By what it is kept.
    fn id(&self) -> &str;
    /// When it may be forgotten.
    fn forgotten_at(&self) -> Timestamp;
}

impl Said for Silence {
    const TOPIC: &'static str = "tidewatch.silence";

    fn id(&self) -> &str {
        &self.id
    }

    fn forgotten_at(&self) -> Timestamp {
        self.ends_at.saturating_add(SILENCE_KEPT)
    }
}

/// How long an ack without an end is kept: an alert that fires for longer is told again.
const ACK_KEPT: Span = Span::days(30);

impl Said for Ack {
    const TOPIC: &'static str = "tidewatch.ack";

    fn id(&self) -> &str {
        &self.fingerprint
    }

    fn forgotten_at(&self) -> Timestamp {
        self.until.unwrap_or_else(|| self.acked_at.saturating_add(ACK_KEPT))
    }
}

/// All silences that the log has.
pub type Silences = Kept<Silence>;
/// All acks that the log has.
pub type Acks = Kept<Ack>;

/// All of one kind that the log has.
pub struct Kept<T> {
    log: Arc<dyn Log>,
    state: Mutex<State<T>>,
}

struct State<T> {
    next: u64,
    known: BTreeMap<String, T>,
    version: u64,
}

impl<T: Said> Kept<T> {
    /// Reads those of the log.
    ///
    /// # Errors
    /// The log's.
    pub fn open(log: Arc<dyn Log>) -> Result<Self, LogError> {
        let options = TopicOptions { partitions: 1, compacted: true, retention: None, retention_bytes: None };
        log.create_topic(T::TOPIC, &options)?;
        let next = log.range(T::TOPIC, 0)?.start;
        let kept = Kept { log, state: Mutex::new(State { next, known: BTreeMap::new(), version: 0 }) };
        kept.refresh()?;
        Ok(kept)
    }

    /// Takes what came since. Returns a number that grows with every change.
    ///
    /// # Errors
    /// The log's.
    pub fn refresh(&self) -> Result<u64, LogError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let range = self.log.range(T::TOPIC, 0)?;
        // Compaction may have moved the beginning beyond us.
        let from = state.next.clamp(range.start, range.end);
        if from < range.end {
            let State { next, known, version } = &mut *state;
            read_to_end(self.log.as_ref(), T::TOPIC, 0, from, &mut |offset, record| {
                let id = String::from_utf8_lossy(&record.key).into_owned();
                // One that can't be read mutes nobody.
                match record.value.and_then(|value| serde_json::from_slice::<T>(&value).ok()) {
                    Some(said) => drop(known.insert(id, said)),
                    None => drop(known.remove(&id)),
                }
                *next = offset + 1;
            })?;
            *version += 1;
        }
        Ok(state.version)
    }

    /// All of them.
    pub fn all(&self) -> Vec<T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).known.values().cloned().collect()
    }

    /// Keeps one.
    ///
    /// # Errors
    /// The log's: nothing has changed then.
    pub fn put(&self, said: &T, now: Timestamp) -> Result<(), LogError> {
        let value = serde_json::to_vec(said).unwrap_or_default();
        self.write(said.id(), Some(value), now)
    }

    /// Takes one back.
    ///
    /// # Errors
    /// The log's: nothing has changed then.
    pub fn remove(&self, id: &str, now: Timestamp) -> Result<(), LogError> {
        self.write(id, None, now)
    }

    fn write(&self, id: &str, value: Option<Vec<u8>>, now: Timestamp) -> Result<(), LogError> {
        let record = Record { key: id.as_bytes().to_vec(), headers: vec![], value, timestamp: now };
        self.log.append(T::TOPIC, 0, &[record])?;
        self.log.sync()?;
        self.refresh().map(drop)
    }

    /// Forgets those that are long over.
    ///
    /// # Errors
    /// The log's.
    pub fn forget_old(&self, now: Timestamp) -> Result<(), LogError> {
        let old = self.all().into_iter().filter(|said| said.forgotten_at() <= now);
        let forget =
            |said: T| Record { key: said.id().as_bytes().to_vec(), headers: vec![], value: None, timestamp: now };
        let old: Vec<Record> = old.map(forget).collect();
        if old.is_empty() { Ok(()) } else { self.log.append(T::TOPIC, 0, &old).map(drop) }
    }
}
