//! Silences: a compacted topic, so that every engine has them, and the API's answers follow it at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidewatch_flow::alerting::{SILENCE_KEPT, Silence};
use tidewatch_model::Timestamp;
use tidewatch_model::ports::{Log, LogError, Record, TopicOptions, read_to_end};

/// Where they are kept, by id.
const TOPIC: &str = "tidewatch.silence";

/// All silences that the log has.
pub struct Silences {
    log: Arc<dyn Log>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    known: BTreeMap<String, Silence>,
    version: u64,
}

impl Silences {
    /// Reads those of the log.
    ///
    /// # Errors
    /// The log's.
    pub fn open(log: Arc<dyn Log>) -> Result<Silences, LogError> {
        let options = TopicOptions { partitions: 1, compacted: true, retention: None, retention_bytes: None };
        log.create_topic(TOPIC, &options)?;
        let next = log.range(TOPIC, 0)?.start;
        let silences = Silences { log, state: Mutex::new(State { next, ..State::default() }) };
        silences.refresh()?;
        Ok(silences)
    }

    /// Takes what came since. Returns a number that grows with every change.
    ///
    /// # Errors
    /// The log's.
    pub fn refresh(&self) -> Result<u64, LogError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let range = self.log.range(TOPIC, 0)?;
        // Compaction may have moved the beginning beyond us.
        let from = state.next.clamp(range.start, range.end);
        if from < range.end {
            let State { next, known, version } = &mut *state;
            read_to_end(self.log.as_ref(), TOPIC, 0, from, &mut |offset, record| {
                let id = String::from_utf8_lossy(&record.key).into_owned();
                // One that can't be read mutes nobody.
                match record.value.and_then(|value| serde_json::from_slice::<Silence>(&value).ok()) {
                    Some(silence) => drop(known.insert(id, silence)),
                    None => drop(known.remove(&id)),
                }
                *next = offset + 1;
            })?;
            *version += 1;
        }
        Ok(state.version)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Silence> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).known.values().cloned().collect()
    }

    /// Keeps a silence.
    ///
    /// # Errors
    /// The log's: nothing is silenced then.
    pub fn put(&self, silence: &Silence, now: Timestamp) -> Result<(), LogError> {
        let value = serde_json::to_vec(silence).unwrap_or_default();
        let key = silence.id.clone().into_bytes();
        self.log.append(TOPIC, 0, &[Record { key, headers: vec![], value: Some(value), timestamp: now }])?;
        self.log.sync()?;
        self.refresh().map(drop)
    }

    /// Forgets those that ended long ago.
    ///
    /// # Errors
    /// The log's.
    pub fn forget_old(&self, now: Timestamp) -> Result<(), LogError> {
        let old: Vec<Record> = self
            .all()
            .into_iter()
            .filter(|silence| silence.ends_at.saturating_add(SILENCE_KEPT) <= now)
            .map(|silence| Record { key: silence.id.into_bytes(), headers: vec![], value: None, timestamp: now })
            .collect();
        if old.is_empty() { Ok(()) } else { self.log.append(TOPIC, 0, &old).map(drop) }
    }
}
