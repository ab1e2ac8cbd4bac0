//! The log port on a Kafka cluster.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use tidewatch_model::Timestamp;
use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{Log, LogError, ReadBatch, Record, TopicOptions};

use crate::client::{Heard, Reports, code, is_unknown, network, timed_out};
use crate::message::to_message;
use crate::options::{KafkaError, KafkaOptions, REQUEST};
use crate::partition::{Polled, Reader, Reading};

/// A partition of a topic, by the topic's name on the cluster.
type Place = (String, u32);

/// A cluster as a log.
pub struct KafkaLog {
    options: KafkaOptions,
    reader: Arc<Reader>,
    /// Asks for offsets and topics. The reader's own connections are mostly held by a fetch that waits for rows, and a
    /// question behind it waits as long.
    asker: Reader,
    writer: BaseProducer<Reports>,
    /// Makes and deletes; and when it did so last.
    admin: Mutex<Option<(Arc<AdminClient<Heard>>, Instant)>>,
    heard: Heard,
    state: Mutex<State>,
    readings: Mutex<HashMap<Place, Arc<Mutex<Option<Reading>>>>>,
}

#[derive(Default)]
struct State {
    /// Partitions of the topics that were asked for.
    topics: HashMap<String, u32>,
    /// The end of what this process has appended.
    appended: HashMap<Place, u64>,
    /// Until then reads do not wait for a broker that did not answer.
    impatient_until: Option<Instant>,
}

/// How long a read waits for a fetch that is under way.
const FETCH: Duration = Duration::from_secs(2);
/// How long reads do not wait at all after one waited in vain.
const IMPATIENT: Duration = Duration::from_secs(5);
/// How long a client that makes topics is kept for the next.
const ADMIN_KEPT: Duration = Duration::from_secs(10);
/// How long the cause of a failure is waited for.
const CAUSE: Duration = Duration::from_millis(200);
/// How often an append looks for reports.
const REPORTS: Duration = Duration::from_millis(1);
/// How long the end of a partition that is read behind it is believed.
const END_BELIEVED: Duration = Duration::from_secs(1);
/// How long a created topic may take until every broker knows it.
const CREATED: Duration = Duration::from_secs(20);

impl KafkaLog {
    /// Connects. The cluster need not be there yet; the settings must be right.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn connect(options: KafkaOptions) -> Result<KafkaLog, KafkaError> {
        let wrong = |error: ClientError| options.wrong(error);
        let heard = Heard::default();
        let reader: Reader = options.reading()?.create_with_context(heard.clone()).map_err(wrong)?;
        let asker: Reader = options.reading()?.create_with_context(heard.clone()).map_err(wrong)?;
        let writer = options.writing()?.create_with_context(Reports(heard.clone())).map_err(wrong)?;
        let (admin, state, readings) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(KafkaLog { reader: Arc::new(reader), asker, writer, admin, heard, state, readings, options })
    }

    /// How it was connected.
    pub fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// Deletes a topic, for ever.
    ///
    /// # Errors
    /// What the cluster answers.
    pub fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        let name = self.name(topic);
        let asked = AdminOptions::new().operation_timeout(Some(REQUEST));
        let admin = self.admin(topic)?;
        let outcomes = block_on(admin.delete_topics(&[&name], &asked)).map_err(|error| self.at(topic, error))?;
        self.state().topics.remove(&name);
        match outcomes.into_iter().next() {
            Some(Err((_, error))) => Err(self.at(topic, error)),
            _ => Ok(()),
        }
    }

    /// Deletes a partition's records before an offset, as retention does.
    ///
    /// # Errors
    /// What the cluster answers.
    pub fn delete_before(&self, topic: &str, partition: u32, offset: u64) -> Result<(), LogError> {
        let mut asked = TopicPartitionList::new();
        asked
            .add_partition_offset(&self.name(topic), partition as i32, Offset::Offset(offset as i64))
            .map_err(|error| self.at(topic, error))?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST));
        let done =
            block_on(self.admin(topic)?.delete_records(&asked, &options)).map_err(|error| self.at(topic, error))?;
        match done.elements().first().map(|element| element.error()) {
            Some(Err(error)) => Err(self.at(topic, error)),
            _ => Ok(()),
        }
    }

    /// What was told of each partition's progress, 0 where nothing was: what lag tools show.
    ///
    /// # Errors
    /// What the cluster answers.
    pub fn told_progress(&self, topic: &str) -> Result<Vec<u64>, LogError> {
        let name = self.name(topic);
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions(topic)? {
            asked.add_partition(&name, partition as i32);
        }
        let told = self.asker.committed_offsets(asked, REQUEST).map_err(|error| self.at(topic, error))?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem| match element.offset() {
            Offset::Offset(offset) => offset as u64,
            _ => 0,
        };
        Ok(told.elements().iter().map(offset).collect())
    }

    /// Deletes the group that progress is told to. Nothing depends on it.
    ///
    /// # Errors
    /// What the cluster answers.
    pub fn forget_progress(&self) -> Result<(), LogError> {
        let asked = AdminOptions::new().operation_timeout(Some(REQUEST));
        let done = block_on(self.admin("*")?.delete_groups(&[&self.options.progress_group()], &asked))
            .map_err(|error| self.at("*", error))?;
        match done.into_iter().next() {
            Some(Err((_, error))) if error != RDKafkaErrorCode::GroupIdNotFound => Err(self.at("*", error)),
            _ => Ok(()),
        }
    }

    /// The client that makes and deletes.
    fn admin(&self, topic: &str) -> Result<Arc<AdminClient<Heard>>, LogError> {
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match admin.take() {
            Some((client, _)) => client,
            None => {
                let config = self.options.common().map_err(|error| self.at(topic, error))?;
                Arc::new(config.create_with_context(self.heard.clone()).map_err(|error| self.at(topic, error))?)
            }
        };
        *admin = Some((client.clone(), Instant::now()));
        Ok(client)
    }

    /// Lets go of the client that makes and deletes, when there was nothing for it for a while: its threads and connections are
    /// idle, and not for nothing.
    fn retire_admin(&self) {
        let idle = {
            let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
            admin.take_if(|(_, used)| used.elapsed() > ADMIN_KEPT)
        };
        if let Some(idle) = idle {
            // It waits for its threads, and they perhaps for the network.
            std::thread::spawn(move || drop(idle));
        }
    }

    /// The name of a topic on the cluster.
    fn name(&self, topic: &str) -> String {
        match self.options.verbatim.iter().any(|other| other == topic) {
            true => topic.to_string(),
            false => format!("{}{topic}", self.options.prefix),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many partitions a topic has, asked of the cluster once.
    fn known_partitions(&self, topic: &str) -> Result<Option<u32>, LogError> {
        let name = self.name(topic);
        if let Some(count) = self.state().topics.get(&name) {
            return Ok(Some(*count));
        }
        let metadata = self.asker.fetch_metadata(Some(&name), REQUEST).map_err(|error| self.at(topic, error))?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        let count = match found.map(|found| (found.error(), found.partitions())) {
            None | Some((Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART), _)) => return Ok(None),
            Some((Some(error), _)) => return Err(self.at(topic, RDKafkaErrorCode::from(error))),
            Some((None, [])) => return Ok(None),
            // A partition without a leader can be neither read nor written yet.
            Some((None, partitions)) if partitions.iter().any(|partition| partition.leader() < 0) => {
                return Err(timed_out(&self.place(topic), "a partition has no leader"));
            }
            Some((None, partitions)) => partitions.len() as u32,
        };
        self.state().topics.insert(name, count);
        Ok(Some(count))
    }

    /// Makes a topic, or finds that it is there. The error has its code, where the cluster gave one.
    fn create(&self, topic: &str, new: &NewTopic) -> Result<(), (Option<RDKafkaErrorCode>, LogError)> {
        let asked = AdminOptions::new().operation_timeout(Some(REQUEST)).request_timeout(Some(REQUEST));
        let admin = self.admin(topic).map_err(|error| (None, error))?;
        let outcomes =
            block_on(admin.create_topics([new], &asked)).map_err(|error| (code(&error), self.at(topic, error)))?;
        for outcome in outcomes {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, error)) => return Err((Some(error), self.at(topic, error))),
            }
        }
        Ok(())
    }

    fn check(&self, topic: &str, partition: u32) -> Result<(), LogError> {
        match self.known_partitions(topic)? {
            Some(count) if partition < count => Ok(()),
            _ => Err(LogError::NoSuchPartition { topic: topic.to_string(), partition }),
        }
    }

    fn place(&self, topic: &str) -> String {
        format!("{} at {}", self.name(topic), self.options.brokers)
    }

    fn at(&self, topic: &str, error: impl ToString) -> LogError {
        // What the clients have to say waits until they are asked.
        while self.asker.poll(Duration::ZERO).is_some() || self.reader.poll(Duration::ZERO).is_some() {}
        if self.heard.recent().is_none() {
            drop(self.asker.poll(CAUSE));
        }
        network(&self.place(topic), error, &self.heard)
    }

    /// Whoever waits is the one that asks for reports, its own and others'. The client's own waiting turns in circles for the last
    /// millisecond.
    fn wait_for_reports(&self) {
        self.writer.poll(Duration::ZERO);
        std::thread::sleep(REPORTS);
    }

    fn watermarks(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        let asked = self.asker.fetch_watermarks(&self.name(topic), partition as i32, REQUEST);
        match asked {
            Ok((low, high)) => Ok(low.max(0) as u64..high.max(0) as u64),
            Err(error) if is_unknown(&error) => Err(LogError::NoSuchPartition { topic: topic.to_string(), partition }),
            Err(error) => Err(self.at(topic, error)),
        }
    }

    /// Places the reading of a partition at an offset that the broker has.
    fn seek(&self, topic: &str, partition: u32, from: u64) -> Result<Reading, LogError> {
        self.check(topic, partition)?;
        let available = self.watermarks(topic, partition)?;
        if from < available.start || from > available.end {
            return Err(LogError::OutOfRange { topic: topic.to_string(), partition, offset: from, available });
        }
        let name = self.name(topic);
        let mut place = TopicPartitionList::new();
        place.add_partition(&name, partition as i32);
        // Not assigned is what it is the first time.
        drop(self.reader.incremental_unassign(&place));
        let queue = self
            .reader
            .split_partition_queue(&name, partition as i32)
            .ok_or_else(|| self.at(topic, "the partition has no queue"))?;
        place
            .set_partition_offset(&name, partition as i32, Offset::Offset(from as i64))
            .and_then(|()| self.reader.incremental_assign(&place))
            .map_err(|error| self.at(topic, error))?;
        Ok(Reading::new(queue, from, available.end))
    }

    /// How long a read may wait for something that is known to be there.
    fn patience(&self) -> Duration {
        match self.state().impatient_until {
            Some(until) if until > Instant::now() => Duration::ZERO,
            _ => FETCH,
        }
    }

    fn read_on(
        &self,
        topic: &str,
        partition: u32,
        reading: &mut Reading,
        max_bytes: usize,
    ) -> Result<ReadBatch, LogError> {
        let place = (self.name(topic), partition);
        reading.end = reading.end.max(self.state().appended.get(&place).copied().unwrap_or(0));
        let mut batch = ReadBatch { next: reading.next, ..ReadBatch::default() };
        let mut bytes = 0;
        while batch.records.is_empty() || bytes < max_bytes {
            // What lies before the known end is on its way; what comes behind it comes when it comes.
            let expected = batch.records.is_empty() && reading.next < reading.end;
            let wait = if expected { self.patience() } else { Duration::ZERO };
            match reading.poll(wait) {
                Polled::Record(offset, record) => {
                    bytes += record.value.as_ref().map_or(0, Vec::len) + record.key.len();
                    batch.records.push((offset, record));
                }
                Polled::End if reading.next < reading.end => {}
                Polled::End => break,
                // The last offsets may hold nothing for us (compaction, marks of transactions): the broker's word counts.
                Polled::Nothing if reading.at_end() => {
                    reading.end = reading.next;
                    break;
                }
                Polled::Nothing => {
                    if expected && !wait.is_zero() {
                        self.state().impatient_until = Some(Instant::now() + IMPATIENT);
                    }
                    break;
                }
                Polled::OutOfRange => {
                    let available = self.watermarks(topic, partition)?;
                    let (topic, offset) = (topic.to_string(), reading.next);
                    return Err(LogError::OutOfRange { topic, partition, offset, available });
                }
                Polled::Failed(error) if is_unknown(&error) => {
                    self.state().topics.remove(&place.0);
                    return Err(LogError::NoSuchPartition { topic: topic.to_string(), partition });
                }
                Polled::Failed(error) => return Err(self.at(topic, error)),
            }
        }
        batch.next = reading.next;
        if !reading.at_end() && reading.end_at.elapsed() > END_BELIEVED {
            reading.end = self.watermarks(topic, partition)?.end.max(reading.next);
            reading.end_at = Instant::now();
        }
        batch.end = reading.end.max(reading.next);
        Ok(batch)
    }
}

impl Log for KafkaLog {
    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), LogError> {
        if self.known_partitions(topic)?.is_some() {
            return Ok(());
        }
        let name = self.name(topic);
        let (retention, bytes) = (
            options.retention.map_or("-1".to_string(), |keep| (keep.0 / 1_000).to_string()),
            options.retention_bytes.map_or("-1".to_string(), |bytes| bytes.to_string()),
        );
        let new = || {
            let replication = TopicReplication::Fixed(self.options.replication);
            NewTopic::new(&name, options.partitions as i32, replication)
                .set("cleanup.policy", if options.compacted { "compact" } else { "delete" })
                .set("retention.ms", &retention)
                .set("retention.bytes", &bytes)
        };
        // By default a broker refuses records that are more than an hour ahead of its clock: an agent whose clock is wrong
        // would be stuck behind its first one. Whether a time can be right is the engine's to say. Brokers before 3.6 do not
        // know the setting, and do not refuse either.
        let tolerant = new().set("message.timestamp.after.max.ms", "9223372036854775807");
        match self.create(topic, &tolerant) {
            Err((Some(RDKafkaErrorCode::InvalidConfig), _)) => {
                self.create(topic, &new()).map_err(|(_, error)| error)?
            }
            created => created.map_err(|(_, error)| error)?,
        }
        // The broker that made it knows it; the others hear of it.
        let deadline = Instant::now() + CREATED;
        loop {
            match self.known_partitions(topic) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if Instant::now() > deadline => {
                    return Err(timed_out(&self.place(topic), "the topic was created and is not there"));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn topics(&self) -> Result<Vec<String>, LogError> {
        let metadata = self.asker.fetch_metadata(None, REQUEST).map_err(|error| self.at("*", error))?;
        let names = metadata.topics().iter().map(|topic| topic.name());
        let ours =
            names.filter(|name| !name.starts_with("__")).filter_map(|name| name.strip_prefix(&self.options.prefix));
        let mut topics: Vec<String> = ours.map(str::to_string).collect();
        topics.sort();
        Ok(topics)
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.known_partitions(topic)?
            .ok_or_else(|| LogError::NoSuchPartition { topic: topic.to_string(), partition: 0 })
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record]) -> Result<u64, LogError> {
        self.retire_admin();
        self.check(topic, partition)?;
        if records.is_empty() {
            return Ok(self.watermarks(topic, partition)?.end);
        }
        let too_large =
            |bytes: usize| LogError::TooLarge { topic: topic.to_string(), partition, bytes, limit: RECORD_BYTES };
        let sizes = |record: &Record| record.value.as_ref().map_or(0, Vec::len) + record.key.len();
        if let Some(bytes) = records.iter().map(sizes).find(|bytes| *bytes > RECORD_BYTES) {
            return Err(too_large(bytes));
        }
        let name = self.name(topic);
        let (reports, delivered) = channel();
        for (index, record) in records.iter().enumerate() {
            let mut message = to_message(&name, partition, record, Box::new((index, reports.clone())));
            loop {
                match self.writer.send(message) {
                    Ok(()) => break,
                    Err((error, again)) if code(&error) == Some(RDKafkaErrorCode::QueueFull) => {
                        self.wait_for_reports();
                        message = again;
                    }
                    Err((error, _)) => return Err(self.at(topic, error)),
                }
            }
        }
        drop(reports);
        let (mut first, mut last, mut failure) = (None, 0, None);
        // Every record is reported, by its delivery or by the message timeout.
        loop {
            let (index, outcome) = match delivered.try_recv() {
                Ok(report) => report,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.wait_for_reports();
                    continue;
                }
            };
            match outcome {
                Ok(offset) => {
                    if index == 0 {
                        first = Some(offset as u64);
                    }
                    last = last.max(offset as u64 + 1);
                }
                Err(error) if code(&error) == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(too_large(sizes(&records[index])));
                }
                Err(error) => failure = Some(error),
            }
        }
        let mut state = self.state();
        let appended = state.appended.entry((name, partition)).or_default();
        *appended = last.max(*appended);
        drop(state);
        match (failure, first) {
            (None, Some(first)) => Ok(first),
            (Some(error), _) => {
                // A topic that was deleted meanwhile is looked for anew.
                self.state().topics.remove(&self.name(topic));
                Err(self.at(topic, error))
            }
            (None, None) => Err(self.at(topic, "a record was not reported")),
        }
    }

    fn read(&self, topic: &str, partition: u32, from: u64, max_bytes: usize) -> Result<ReadBatch, LogError> {
        // Events that belong to no partition.
        drop(self.reader.poll(Duration::ZERO));
        let key = (self.name(topic), partition);
        let slot = self.readings.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reading = match slot.take() {
            Some(reading) if reading.next == from => reading,
            _ => self.seek(topic, partition, from)?,
        };
        let batch = self.read_on(topic, partition, &mut reading, max_bytes)?;
        *slot = Some(reading);
        Ok(batch)
    }

    fn range(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        self.check(topic, partition)?;
        self.watermarks(topic, partition)
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ts: Timestamp) -> Result<u64, LogError> {
        self.check(topic, partition)?;
        let name = self.name(topic);
        let mut asked = TopicPartitionList::new();
        asked
            .add_partition_offset(&name, partition as i32, Offset::Offset(ts.0.div_euclid(1_000).max(0)))
            .map_err(|error| self.at(topic, error))?;
        let found = self.asker.offsets_for_times(asked, REQUEST).map_err(|error| self.at(topic, error))?;
        match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset as u64),
            _ => Ok(self.watermarks(topic, partition)?.end),
        }
    }

    fn tell_progress(&self, positions: &[(String, u32, u64)]) {
        let mut list = TopicPartitionList::new();
        for (topic, partition, next) in positions {
            // Not told is no harm.
            drop(list.add_partition_offset(&self.name(topic), *partition as i32, Offset::Offset(*next as i64)));
        }
        if !positions.is_empty() {
            drop(self.asker.commit(&list, CommitMode::Async));
        }
    }

    fn sync(&self) -> Result<(), LogError> {
        self.writer.flush(Timeout::After(REQUEST)).map_err(|error| self.at("*", error))
    }
}
