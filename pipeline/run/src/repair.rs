//! Writes damaged hot files of the lake anew from the log.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewatch_lake::{Hurt, hurt};
use tidewatch_model::limits::READ_BYTES;
use tidewatch_model::ports::{Log, Store};
use tidewatch_model::table;

use crate::config::Config;
use crate::station::{Source, Taken, read_record};

/// Records before those of a file that are read first where cleaning remembers rows.
const WARM_RECORDS: u64 = 1_000;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Files that are whole again.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
    /// Why others are not.
    pub problems: Vec<String>,
}

/// Mends what can be mended.
///
/// # Errors
/// A lake that can't be read.
pub fn repair(store: &dyn Store, log: &dyn Log, config: &Config) -> Result<Repaired, String> {
    let mut repaired = Repaired::default();
    for hurt in hurt(store).map_err(|error| error.to_string())? {
        let mended =
            rows_of(log, &hurt, config).and_then(|rows| hurt.mend(store, &rows).map_err(|error| error.to_string()));
        match mended {
            Ok(()) => {
                repaired.files += hurt.files.len();
                repaired.rows += hurt.files.iter().map(|file| file.rows).sum::<u64>();
            }
            Err(problem) => {
                let names: Vec<&str> = hurt.files.iter().map(|file| file.path.as_str()).collect();
                repaired.problems.push(format!("{}: {problem}", names.join(", ")));
            }
        }
    }
    Ok(repaired)
}

/// The rows that were taken of an entry's records.
fn rows_of(log: &dyn Log, Hurt { entry, before, .. }: &Hurt, config: &Config) -> Result<Vec<RecordBatch>, String> {
    let (topic, partition) = (entry.topic.as_str(), entry.partition);
    let mapping = config.kafka_topics.iter().find(|mapping| mapping.topic == topic).cloned().map(Arc::new);
    let name = mapping
        .as_ref()
        .map_or_else(|| topic.strip_prefix("tidewatch.").unwrap_or(topic), |mapping| mapping.table.name);
    let table = table::find(name).ok_or_else(|| format!("topic {topic}: expected one of ours or of kafka.topics"))?;
    let mut source = Source::new(table, mapping, partition, &config.clean_rules);
    // What cleaning decided of the entry's rows depends on those before them.
    let mut next = entry.from;
    if source.admit.remembers() {
        let start = log.range(topic, partition).map_err(|error| error.to_string())?.start;
        next = entry.from.saturating_sub(WARM_RECORDS).max(start).min(entry.from);
    }
    let mut rows = Vec::new();
    let mut restored = false;
    while next < entry.to {
        let read = log.read(topic, partition, next, READ_BYTES).map_err(|error| error.to_string())?;
        if read.next <= next {
            return Err(format!("{topic}/{partition}: the log gives nothing at offset {next}"));
        }
        for (offset, record) in read.records.iter().filter(|(offset, _)| (next..entry.to).contains(offset)) {
            if *offset >= entry.from && !std::mem::replace(&mut restored, true) {
                let last = before.iter().map(|(name, seq)| (name.clone(), (seq.incarnation.clone(), seq.seq)));
                source.admit.restore(last);
            }
            // What is too old now was not when it was committed.
            let (header, taken) = read_record(&mut source, record, entry.committed_at);
            if let Taken::Rows { rows: taken, .. } = taken
                && *offset >= entry.from
            {
                rows.push(taken);
            }
            if let Some(header) = header {
                source.admit.remember(header.source, header.incarnation, header.seq);
            }
            source.admit.keep();
        }
        next = read.next;
    }
    rows.retain(|batch| batch.num_rows() > 0);
    Ok(rows)
}
