//! Which part of the work a station does, and how two stations that both believe in one part are told apart.
//!
//! One engine does everything. Engines of a group divide the partitions of every table into shares, each done by a station of
//! its own: its rows go into the lake and through the rules whose alerts are of one host, since a host's rows are all in one
//! partition. The rules that need rows of several hosts are judged by one more part, which reads all partitions of their
//! tables and stores nothing.
//!
//! Whoever takes a part over writes a claim to the part's own partition of [`ENGINE_TOPIC`]. The claim's offset is the epoch:
//! it is part of the key of every state that this station writes, and the highest epoch with a state counts. So a
//! process that was thought dead and goes on can't disturb its successor, whatever it writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewatch_model::ports::{Log, LogError, Record, TopicOptions, partition_of};
use tidewatch_model::table::{TABLES, Table};
use tidewatch_model::{Alert, Rule, RuleShape, Timestamp};

use super::StationError;
use crate::mapping::Mapping;

/// One partition per share, and one for the rest; its records are claims.
pub const ENGINE_TOPIC: &str = "tidewatch.engine";

/// What the names of shares begin with.
pub const SHARE: &str = "share-";
/// Whose agent writes a row.
const HOST: &str = "host";

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// One of the shares of a group.
    Share {
        /// Which, from 0.
        index: u32,
        /// Of how many.
        of: u32,
    },
    /// The rules that no share can judge alone.
    Rest {
        /// How many shares there are.
        of: u32,
    },
}

/// What a station does with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Its rows are judged and stored.
    Stored,
    /// They are judged; another station stores them.
    Judged,
}

impl Part {
    /// The part behind a partition of the engines' topic.
    pub fn of_partition(partition: u32, of: u32) -> Part {
        if partition < of { Part::Share { index: partition, of } } else { Part::Rest { of } }
    }

    /// Its name in the keys of states; empty for the whole.
    pub fn name(&self) -> String {
        match self {
            Part::Whole => String::new(),
            Part::Share { index, .. } => format!("{SHARE}{index}/"),
            Part::Rest { .. } => "rest/".to_string(),
        }
    }

    /// Its partition of the engines' topic.
    pub fn partition(&self) -> Option<u32> {
        match self {
            Part::Whole => None,
            Part::Share { index, .. } => Some(*index),
            Part::Rest { of } => Some(*of),
        }
    }

    /// Whether the rule is judged here: one whose alerts are of one host each can be judged where that host's rows are. Those
    /// are tables that the host's own agent writes; a job's rows come from wherever the job's processes run, and nobody
    /// knows which rows share a partition in other people's topics.
    pub fn judges(&self, rule: &Rule, mappings: &[Arc<Mapping>]) -> bool {
        let is_mapped = mappings.iter().any(|mapping| mapping.table.name == rule.table);
        // A stream's rows are written by whichever engine makes them.
        let of_registry = TABLES.iter().find(|table| table.name == rule.table);
        let of_host = of_registry.and_then(|table| table.identity().next()) == Some(HOST);
        // What was seen of a series before the start is looked up in the lake, which does not know shares.
        let is_presence = matches!(rule.shape, RuleShape::Presence(_));
        // Two tables' rows of one host are in partitions that different engines may have.
        let is_local = of_host
            && !is_mapped
            && !is_presence
            && rule.joined.is_empty()
            // One host's alert may depend on another host's rows.
            && !rule.across
            && rule.key.iter().any(|column| column == HOST);
        match self {
            Part::Whole => true,
            Part::Share { .. } => is_local,
            Part::Rest { .. } => !is_local,
        }
    }

    /// What is done with a partition of a table here, if anything; `judged` are the tables of the rules that are judged here.
    pub fn uses(&self, table: &Table, partition: u32, judged: &BTreeSet<String>) -> Option<Use> {
        match self {
            Part::Whole => Some(Use::Stored),
            Part::Share { index, of } => (partition % of == *index).then_some(Use::Stored),
            Part::Rest { .. } => judged.contains(table.name).then_some(Use::Judged),
        }
    }

    /// Whether an alert of a rule that is judged here is of this part; `partitions` are those of the rule's table.
    pub fn has_alert(&self, alert: &Alert, partitions: u32) -> bool {
        match self {
            Part::Whole | Part::Rest { .. } => true,
            Part::Share { index, of } => {
                let host = alert.labels.get(HOST).map(String::as_str).unwrap_or_default();
                partition_of(host.as_bytes(), partitions.max(1)) % of == *index
            }
        }
    }

    /// Whether it looks after the files of all others.
    pub fn settles(&self) -> bool {
        !matches!(self, Part::Share { .. })
    }
}

/// A part that was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// The part.
    pub part: Part,
    /// The offset of the claim; 0 for the whole, which nobody else can have.
    pub epoch: u64,
}

impl Tenure {
    /// Takes the part over.
    ///
    /// # Errors
    /// The log's.
    pub fn claim(part: Part, log: &dyn Log, who: &str, now: Timestamp) -> Result<Tenure, LogError> {
        let Some(partition) = part.partition() else { return Ok(Tenure { part, epoch: 0 }) };
        let value = serde_json::json!({ "engine": who, "at": now }).to_string();
        let record =
            Record { key: part.name().into_bytes(), headers: vec![], value: Some(value.into_bytes()), timestamp: now };
        Ok(Tenure { part, epoch: log.append(ENGINE_TOPIC, partition, &[record])? })
    }

    /// Makes sure that nobody has taken it over since.
    ///
    /// # Errors
    /// Somebody has, or the log can't say.
    pub fn check(&self, log: &dyn Log) -> Result<(), StationError> {
        let Some(partition) = self.part.partition() else { return Ok(()) };
        match log.range(ENGINE_TOPIC, partition)?.end == self.epoch + 1 {
            true => Ok(()),
            false => Err(StationError::Superseded { part: self.part.name() }),
        }
    }

    /// What the keys of its states begin with.
    pub fn prefix(&self) -> String {
        match self.part {
            Part::Whole => String::new(),
            _ => format!("{}{:016x}/", self.part.name(), self.epoch),
        }
    }
}

/// Makes the engines' topic if it is not there; returns how many shares it was made for.
///
/// # Errors
/// The log's.
pub fn shares(log: &dyn Log, wanted: u32) -> Result<u32, LogError> {
    // Claims are few, and only the offset of the newest counts.
    let options = TopicOptions { partitions: wanted + 1, compacted: true, retention: None, retention_bytes: None };
    log.create_topic(ENGINE_TOPIC, &options)?;
    Ok(log.partitions(ENGINE_TOPIC)?.saturating_sub(1).max(1))
}
