//! Which log: the local one in the data folder, or a Kafka cluster.

use std::sync::Arc;

use tidewatch_kafka::{KafkaLog, KafkaOptions};
use tidewatch_log::{LocalLog, LocalLogOptions};
use tidewatch_model::Timestamp;
use tidewatch_model::limits::LOCAL_PARTITIONS;
use tidewatch_model::ports::{Log, LogError};

use crate::config::Config;
use crate::failure::Failure;
use crate::lake_access::log_folder;

/// The log that is used.
pub enum LogChoice {
    /// In the data folder.
    Local(Arc<LocalLog>),
    /// A cluster.
    Kafka(Arc<KafkaLog>),
}

impl LogChoice {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// A folder that can't be used, or a setting that Kafka's client refuses; a cluster may come later.
    pub fn open(config: &Config) -> Result<LogChoice, Failure> {
        if let Some(options) = kafka_options(config) {
            return Ok(LogChoice::Kafka(Arc::new(KafkaLog::connect(options).map_err(Failure::usage)?)));
        }
        let folder = log_folder(config);
        // Agents have the first lane.
        let options = LocalLogOptions { lane: LOCAL_PARTITIONS - 1, ..LocalLogOptions::default() };
        let unusable =
            |error| Failure::usage(format!("can't use the data folder {}: {error}", config.data_dir.display()));
        Ok(LogChoice::Local(Arc::new(LocalLog::open(&folder, options).map_err(unusable)?)))
    }

    /// The port.
    pub fn log(&self) -> Arc<dyn Log> {
        match self {
            LogChoice::Local(log) => log.clone(),
            LogChoice::Kafka(log) => log.clone(),
        }
    }

    /// Whether topics get a cluster's partitions.
    pub fn is_cluster(&self) -> bool {
        matches!(self, LogChoice::Kafka(_))
    }

    /// What it is called in messages.
    pub fn describe(&self) -> String {
        match self {
            LogChoice::Local(_) => "the local log".to_string(),
            LogChoice::Kafka(log) => format!("Kafka at {}", log.options().brokers),
        }
    }

    /// Deletes what is beyond retention; a cluster does so itself.
    ///
    /// # Errors
    /// The disk's.
    pub fn retain(&self, now: Timestamp) -> Result<(), LogError> {
        match self {
            LogChoice::Local(log) => log.retain(now).map(drop),
            LogChoice::Kafka(_) => Ok(()),
        }
    }

    /// Damaged frames that were skipped.
    pub fn corrupt_frames(&self) -> u64 {
        match self {
            LogChoice::Local(log) => log.corrupt_frames(),
            LogChoice::Kafka(_) => 0,
        }
    }
}

/// How to reach the cluster, if one is configured.
pub fn kafka_options(config: &Config) -> Option<KafkaOptions> {
    let brokers = config.kafka_brokers.clone()?;
    Some(KafkaOptions {
        brokers,
        prefix: config.kafka_prefix.clone(),
        replication: config.kafka_replication,
        verbatim: config.kafka_topics.iter().map(|mapping| mapping.topic.clone()).collect(),
        settings: config.kafka_settings.clone(),
    })
}
