//! How to reach a cluster, and the settings that make it keep its promises.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError as ClientError;

/// How to reach a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port`, comma separated: where to begin.
    pub brokers: String,
    /// What every topic's name begins with on the cluster, so that several installations can share one. Empty by default.
    pub prefix: String,
    /// Topics of other people, whose names have no prefix.
    pub verbatim: Vec<String>,
    /// Copies of each topic that is created; -1 asks for the cluster's default.
    pub replication: i32,
    /// Further settings of librdkafka, by their names there; they win over ours.
    pub settings: Vec<(String, String)>,
}

/// Settings that are refused, or a cluster that does not answer.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka does not know a setting, or not this value of it.
    #[error("Kafka setting {name}: {message}")]
    Setting {
        /// The setting. What was given for it may be a secret, and is not told.
        name: String,
        /// What librdkafka says.
        message: String,
    },
    /// Anything else.
    #[error("Kafka at {brokers}: {message}")]
    Client {
        /// The brokers that were given.
        brokers: String,
        /// What librdkafka says.
        message: String,
    },
}

impl Default for KafkaOptions {
    fn default() -> Self {
        KafkaOptions {
            brokers: "127.0.0.1:9092".to_string(),
            prefix: String::new(),
            verbatim: vec![],
            replication: -1,
            settings: vec![],
        }
    }
}

/// How long one request to the cluster may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// Positions are told to the group of this name, behind the prefix, for lag tools, and never asked of it. Members would keep
/// them from being told: it is no name for a group of engines.
pub const PROGRESS_GROUP: &str = "tidewatch";

/// For every client. Broker addresses are tried for a short time each; a topic is never made by asking for it.
const COMMON: [(&str, &str); 4] = [
    ("client.id", "tidewatch"),
    ("allow.auto.create.topics", "false"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// For reading. The defaults of `auto.offset.reset` (jump to the end) and `check.crcs` (false) lose and damage silently.
const READING: [(&str, &str); 9] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("receive.message.max.bytes", "33554432"),
    // A limit per queue, and each partition has one. A queue that was full is filled again soon: by default only a second later.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.queue.backoff.ms", "20"),
];

/// For writing. Without idempotence a retry doubles and reorders; the message timeout bounds one append, whose caller
/// still has the records and tries again.
const WRITING: [(&str, &str); 6] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("compression.type", "zstd"),
    ("linger.ms", "5"),
    ("message.timeout.ms", "30000"),
    ("message.max.bytes", "2097152"),
];

impl KafkaOptions {
    /// Settings of a client that reads.
    pub(crate) fn reading(&self) -> Result<ClientConfig, KafkaError> {
        self.config(&[&READING[..], &[("group.id", self.progress_group().as_str())]].concat())
    }

    /// The group that progress is told to.
    pub(crate) fn progress_group(&self) -> String {
        format!("{}{PROGRESS_GROUP}", self.prefix)
    }

    /// Settings of a client that writes.
    pub(crate) fn writing(&self) -> Result<ClientConfig, KafkaError> {
        self.config(&WRITING)
    }

    /// Settings of a client that creates topics.
    pub(crate) fn common(&self) -> Result<ClientConfig, KafkaError> {
        self.config(&[])
    }

    fn config(&self, ours: &[(&str, &str)]) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in COMMON.iter().chain(ours) {
            config.set(*name, *value);
        }
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        // Refused settings are named now, and not by the first client that is made of them.
        config.create_native_config().map(drop).map_err(|error| self.wrong(error))?;
        Ok(config)
    }

    pub(crate) fn wrong(&self, error: ClientError) -> KafkaError {
        match error {
            ClientError::ClientConfig(_, message, name, _) => KafkaError::Setting { name, message },
            other => KafkaError::Client { brokers: self.brokers.clone(), message: other.to_string() },
        }
    }
}
