//! `tidewatch dlq`: what could not be read, and why; and another try.

use serde_json::{Map, Value, json};
use tidewatch_model::ports::{Log, LogError, Record, read_to_end};
use tidewatch_model::wire::{self, Origin};

use crate::config::Config;
use crate::failure::Failure;
use crate::log_choice::LogChoice;
use crate::output::{Format, format_or_default, print_objects};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the dead letters: topic, partition, offset and reason.
    #[command(
        after_help = "Examples:\n  tidewatch dlq list\n  tidewatch dlq list --kafka 127.0.0.1:9092 --format json | jq .error"
    )]
    List {
        /// Only letters of this topic.
        #[arg(long)]
        topic: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// Show one dead letter whole: its headers and its bytes.
    #[command(
        after_help = "Example:\n  tidewatch dlq show tidewatch.gpu 3      the fourth letter of tidewatch.gpu.dlq"
    )]
    Show {
        /// The topic that it was on.
        topic: String,
        /// Its offset on the dead-letter topic.
        offset: u64,
        #[command(flatten)]
        which: Which,
    },
    /// Put dead letters back on the topics that they came from, as they were: after a fix they are read, else they come
    /// back here. A letter stays listed until its topic's retention deletes it.
    #[command(
        after_help = "Examples:\n  tidewatch dlq replay --topic tidewatch.gpu\n  tidewatch dlq replay --topic tidewatch.gpu --offset 3"
    )]
    Replay {
        /// Only letters of this topic.
        #[arg(long)]
        topic: Option<String>,
        /// Only this one of the topic's letters.
        #[arg(long, requires = "topic")]
        offset: Option<u64>,
        #[command(flatten)]
        which: Which,
    },
}

/// Which log, and how letters are printed.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Kafka's brokers, host:port, comma separated, instead of the log in the data folder.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// How to print.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// One dead letter.
struct Letter {
    topic: String,
    offset: u64,
    record: Record,
}

const ENDING: &str = ".dlq";
/// Headers that were added when the letter was written.
const ADDED: &str = "tidewatch-dlq-";

/// Runs the command.
pub fn run(command: &Command, mut config: Config) -> Result<(), Failure> {
    let which = match command {
        Command::List { which, .. } | Command::Show { which, .. } | Command::Replay { which, .. } => which,
    };
    if which.kafka.is_some() {
        config.kafka_brokers.clone_from(&which.kafka);
    }
    let log = LogChoice::open(&config)?.log();
    let format = format_or_default(which.format);
    match command {
        Command::List { topic, .. } => {
            let letters = letters(log.as_ref(), topic.as_deref()).map_err(Failure::no)?;
            print_objects(format, &letters.iter().map(summary).collect::<Vec<_>>())
        }
        Command::Show { topic, offset, .. } => {
            let letters = letters(log.as_ref(), Some(topic)).map_err(Failure::no)?;
            let letter = letters.into_iter().find(|letter| letter.offset == *offset);
            let letter =
                letter.ok_or_else(|| Failure::no(format!("{topic}{ENDING} has no letter at offset {offset}")))?;
            print_objects(Format::Json, &[whole(&letter)])
        }
        Command::Replay { topic, offset, .. } => {
            let mut letters = letters(log.as_ref(), topic.as_deref()).map_err(Failure::no)?;
            letters.retain(|letter| offset.is_none_or(|offset| letter.offset == offset));
            let (cut, whole): (Vec<Letter>, Vec<Letter>) =
                letters.into_iter().partition(|letter| added(letter, "cut").is_some());
            for letter in &whole {
                replay(log.as_ref(), letter).map_err(Failure::no)?;
            }
            eprintln!("{} letters were put back", whole.len());
            match cut.first() {
                None => Ok(()),
                Some(first) => Err(Failure::no(format!(
                    "{} letters hold only the beginning of a message that was too long, and stay; the first is of {}/{}, offset {}",
                    cut.len(),
                    first.topic,
                    number(first, "partition"),
                    number(first, "offset")
                ))),
            }
        }
    }
}

/// The letters of a topic, or of all.
fn letters(log: &dyn Log, only: Option<&str>) -> Result<Vec<Letter>, LogError> {
    let mut letters = Vec::new();
    for name in log.topics()? {
        let Some(topic) = name.strip_suffix(ENDING).filter(|topic| only.is_none_or(|only| only == *topic)) else {
            continue;
        };
        for partition in 0..log.partitions(&name)? {
            let from = log.range(&name, partition)?.start;
            read_to_end(log, &name, partition, from, &mut |offset, record| {
                letters.push(Letter { topic: topic.to_string(), offset, record });
            })?;
        }
    }
    Ok(letters)
}

fn added(letter: &Letter, name: &str) -> Option<String> {
    let header = letter.record.headers.iter().rfind(|(header, _)| header.strip_prefix(ADDED) == Some(name));
    header.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

fn number(letter: &Letter, name: &str) -> Value {
    added(letter, name).and_then(|text| text.parse::<u64>().ok()).map_or(Value::Null, Value::from)
}

fn summary(letter: &Letter) -> Map<String, Value> {
    let held = letter.record.value.as_ref().map_or(0, Vec::len);
    let bytes = number(letter, "cut").as_u64().unwrap_or(held as u64);
    let fields = [
        ("topic", json!(letter.topic)),
        ("letter", json!(letter.offset)),
        ("partition", number(letter, "partition")),
        ("offset", number(letter, "offset")),
        ("ts", json!(letter.record.timestamp.to_string())),
        ("bytes", json!(bytes)),
        ("error", json!(added(letter, "error"))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn whole(letter: &Letter) -> Map<String, Value> {
    let mut object = summary(letter);
    let headers: Map<String, Value> = letter
        .record
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(ADDED))
        .map(|(name, value)| (name.clone(), json!(String::from_utf8_lossy(value))))
        .collect();
    object.insert("key".to_string(), json!(String::from_utf8_lossy(&letter.record.key)));
    object.insert("headers".to_string(), Value::Object(headers));
    object.insert("payload_hex".to_string(), json!(letter.record.value.as_deref().map(tidewatch_model::alert::hex)));
    object
}

/// Puts a letter back where it came from, without what was added to it. One that can be read is sent under a name of its
/// own: under the old one it would be taken for a frame that was seen before, and replayed twice its rows would count
/// twice.
fn replay(log: &dyn Log, letter: &Letter) -> Result<(), LogError> {
    let mut record = letter.record.clone();
    record.headers.retain(|(name, _)| !name.starts_with(ADDED));
    if let Ok((header, rows)) = wire::decode(&record) {
        let source = format!("dlq/{}/{}", letter.topic, letter.offset);
        let origin = Origin { source, incarnation: "replay".to_string(), seq: 0 };
        if let Ok(renamed) = wire::encode(&header.table, &origin, &rows) {
            record = renamed;
        }
    }
    let partition = number(letter, "partition").as_u64().unwrap_or(0) as u32;
    log.append(&letter.topic, partition, &[record]).map(drop)
}
