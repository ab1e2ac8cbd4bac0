//! A place in a consumer group: which partitions of one topic are this process's. Nothing is read through it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tidewatch_model::ports::{Change, LogError, Membership};

use crate::client::network;
use crate::options::{KafkaError, KafkaOptions};

/// A member of a group, by the protocol of KIP-848: the broker decides, and takes a partition from one member before it
/// gives it to another.
pub struct KafkaMembership {
    consumer: BaseConsumer<Changes>,
    topic: String,
    place: String,
}

/// Keeps what the group says until it is asked for. Assignments are acknowledged by us: one that is asked back only when its
/// work has ended.
#[derive(Debug, Default)]
struct Changes {
    heard: Mutex<Vec<Change>>,
    /// Nobody acknowledges any more: the member is leaving.
    leaving: AtomicBool,
}

impl ClientContext for Changes {}

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
        Ok(KafkaMembership { consumer, place: format!("group {group} at {}", options.brokers), topic })
    }

    fn list(&self, partitions: &[u32]) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition as i32, Offset::End).map_err(|error| self.at(error))?;
        }
        Ok(list)
    }

    fn at(&self, error: impl ToString) -> LogError {
        network(&self.place, error)
    }
}

impl Membership for KafkaMembership {
    fn poll(&mut self) -> Result<Vec<Change>, LogError> {
        // Errors of single brokers pass; records are of no interest.
        drop(self.consumer.poll(Duration::ZERO));
        let mut waiting = self.consumer.context().heard.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = std::mem::take(&mut *waiting);
        drop(waiting);
        for change in &changes {
            match change {
                Change::Given(partitions) => {
                    let list = self.list(partitions)?;
                    self.consumer.incremental_assign(&list).map_err(|error| self.at(error))?;
                    // Nothing is read through it.
                    self.consumer.pause(&list).map_err(|error| self.at(error))?;
                }
                Change::Taken(partitions) => {
                    self.consumer.incremental_unassign(&self.list(partitions)?).map_err(|error| self.at(error))?;
                }
                Change::AskedBack(_) => {}
            }
        }
        Ok(changes)
    }

    fn give_back(&mut self, partitions: &[u32]) -> Result<(), LogError> {
        self.consumer.incremental_unassign(&self.list(partitions)?).map_err(|error| self.at(error))
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.consumer.context().leaving.store(true, Ordering::SeqCst);
    }
}
