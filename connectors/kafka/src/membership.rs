//! A place in a consumer group: which partitions of one topic are this process's. Nothing is read through it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tidewatch_model::ports::{Change, LogError, Membership};

use crate::client::{Heard, code, network};
use crate::options::{KafkaError, KafkaOptions};

/// A member of a group, by the protocol of KIP-848: the broker decides, and takes a partition from one member before it
/// gives it to another.
pub struct KafkaMembership {
    consumer: BaseConsumer<Changes>,
    topic: String,
    place: String,
    /// What failed while changes were taken, told at the next call: they are not to be lost over it.
    failed: Option<LogError>,
}

/// Keeps what the group says until it is asked for. Assignments are acknowledged by us: one that is asked back only when its
/// work has ended.
#[derive(Debug, Default)]
struct Changes {
    heard: Mutex<Vec<Change>>,
    /// Nobody acknowledges any more: the member is leaving.
    leaving: AtomicBool,
    errors: Heard,
}

impl ClientContext for Changes {
    fn error(&self, error: ClientError, reason: &str) {
        self.errors.error(error, reason);
    }
}

impl ConsumerContext for Changes {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::SeqCst) {
            // Leaving waits until what is asked back is let go.
            drop(consumer.unassign());
            return;
        }
        let partitions = list.elements().iter().map(|element| element.partition() as u32).collect();
        let change = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Change::Given(partitions),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if consumer.assignment_lost() => {
                Change::Taken(partitions)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => Change::AskedBack(partitions),
            _ => return,
        };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

impl KafkaMembership {
    /// Joins. The topic must be there.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn join(options: &KafkaOptions, group: &str, topic: &str) -> Result<KafkaMembership, KafkaError> {
        let wrong = |error: ClientError| options.wrong(error);
        let topic = format!("{}{topic}", options.prefix);
        let mut config = options.reading()?;
        config.set("group.id", format!("{}{group}", options.prefix)).set("group.protocol", "consumer");
        // Claims are not read here.
        config.set("auto.offset.reset", "latest");
        let consumer: BaseConsumer<Changes> = config.create_with_context(Changes::default()).map_err(wrong)?;
        consumer.subscribe(&[&topic]).map_err(wrong)?;
        Ok(KafkaMembership { consumer, place: format!("group {group} at {}", options.brokers), topic, failed: None })
    }

    /// Does something with partitions at once. librdkafka refuses them all when one is not ours any more, or is already: then
    /// each is tried, and such a one needs nothing.
    fn with(
        &self,
        partitions: &[u32],
        act: &dyn Fn(&TopicPartitionList) -> Result<(), ClientError>,
    ) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        let add = |partition: &u32| list.add_partition_offset(&self.topic, *partition as i32, Offset::End);
        let done = partitions.iter().try_for_each(add).and_then(|()| act(&list));
        match (done, partitions) {
            (Ok(()), _) => Ok(()),
            (Err(error), _) if code(&error) != Some(RDKafkaErrorCode::InvalidArgument) => Err(self.at(error)),
            (Err(_), [] | [_]) => Ok(()),
            // All are tried; the first failure is told.
            (Err(_), several) => several.chunks(1).map(|one| self.with(one, act)).fold(Ok(()), Result::and),
        }
    }

    fn at(&self, error: impl ToString) -> LogError {
        network(&self.place, error, &self.consumer.context().errors)
    }
}

/// Errors that do not pass by themselves: a broker before Kafka 4, no right to the group, a refused password.
fn is_lasting(error: &ClientError) -> bool {
    let lasting = matches!(
        code(error),
        Some(
            RDKafkaErrorCode::UnsupportedVersion
                | RDKafkaErrorCode::UnsupportedFeature
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::InvalidGroupId
                | RDKafkaErrorCode::InconsistentGroupProtocol
        )
    );
    lasting || matches!(error, ClientError::MessageConsumptionFatal(_))
}

impl Membership for KafkaMembership {
    fn poll(&mut self) -> Result<Vec<Change>, LogError> {
        // Errors of single brokers pass; records are of no interest.
        let lasting = match self.consumer.poll(Duration::ZERO) {
            Some(Err(error)) if is_lasting(&error) => Some(self.at(error)),
            _ => None,
        };
        let mut waiting = self.consumer.context().heard.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = std::mem::take(&mut *waiting);
        drop(waiting);
        let mut failed = self.failed.take().or(lasting);
        for change in &changes {
            let done = match change {
                Change::Given(partitions) => self
                    .with(partitions, &|list| self.consumer.incremental_assign(list))
                    // Nothing is read through it.
                    .and_then(|()| self.with(partitions, &|list| self.consumer.pause(list))),
                Change::Taken(partitions) => self.with(partitions, &|list| self.consumer.incremental_unassign(list)),
                Change::AskedBack(_) => Ok(()),
            };
            failed = failed.or(done.err());
        }
        match failed {
            Some(error) if changes.is_empty() => Err(error),
            failed => {
                self.failed = failed;
                Ok(changes)
            }
        }
    }

    fn give_back(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        self.with(partitions, &|list| self.consumer.incremental_unassign(list))
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.consumer.context().leaving.store(true, Ordering::SeqCst);
    }
}
