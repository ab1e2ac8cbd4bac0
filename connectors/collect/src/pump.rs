//! The pump: runs the collectors that are due and hands their rows to the log.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use tidewatch_model::ports::{Log, LogError, Record, partition_for};
use tidewatch_model::table::{TOPIC_PREFIX, find};
use tidewatch_model::wire::{Origin, encode_split};
use tidewatch_model::{Span, Timestamp};

use crate::aside::Aside;
use crate::cgroup::CgroupCollector;
use crate::collector::Collector;
use crate::cpu::CpuCollector;
use crate::disk::DiskCollector;
use crate::edac::EdacCollector;
use crate::health::HealthBook;
use crate::host::HostCollector;
use crate::ib::IbCollector;
use crate::net::NetCollector;
use crate::pcie::PcieCollector;
use crate::pods::Pods;
use crate::process::ProcessCollector;
use crate::reading::Roots;

/// Every collector of a host's own metrics.
pub(crate) fn host_collectors(roots: &Roots, host: &str, pods: &Pods) -> Vec<Box<dyn Collector>> {
    vec![
        Box::new(HostCollector::new(roots.clone(), host)),
        Box::new(CpuCollector::new(roots.clone(), host)),
        Box::new(DiskCollector::new(roots.clone(), host)),
        Box::new(NetCollector::new(roots.clone(), host)),
        Box::new(Aside::new(IbCollector::new(roots.clone(), host))),
        Box::new(ProcessCollector::new(roots.clone(), host, pods.clone())),
        Box::new(CgroupCollector::new(roots.clone(), host, pods.clone())),
        Box::new(EdacCollector::new(roots.clone(), host)),
        Box::new(Aside::new(PcieCollector::new(roots.clone(), host))),
    ]
}

/// Runs collectors on a grid of their intervals.
pub struct Pump {
    collectors: Vec<(Box<dyn Collector>, Timestamp)>,
    host: String,
    incarnation: String,
    log: Arc<dyn Log>,
    sequences: BTreeMap<&'static str, Origin>,
    health: HealthBook,
    health_due: Timestamp,
}

impl Pump {
    /// With everything due at once. `host` names the source of the frames, `incarnation` this start of it.
    pub fn new(collectors: Vec<Box<dyn Collector>>, host: String, incarnation: String, log: Arc<dyn Log>) -> Self {
        let collectors = collectors.into_iter().map(|collector| (collector, Timestamp::MIN)).collect();
        Pump {
            collectors,
            host,
            incarnation,
            log,
            sequences: BTreeMap::new(),
            health: HealthBook::default(),
            health_due: Timestamp::MIN,
        }
    }

    /// Says what the spool holds, and which rows of a table it had to drop before they were sent: both become part of the
    /// `collector` rows.
    pub fn spool(&mut self, bytes: u64, dropped: impl IntoIterator<Item = (&'static str, u64)>) {
        self.health.spool(bytes);
        for (table, rows) in dropped {
            self.health.dropped(
                table,
                rows as usize,
                format!("{rows} rows were dropped unsent: the spool is full or old"),
            );
        }
    }

    /// Runs what is due and returns when something is due next. Ticks that were missed are not made up for.
    pub fn tick(&mut self, now: Timestamp) -> Timestamp {
        let mut next = Timestamp::MAX;
        for index in 0..self.collectors.len() {
            if self.collectors[index].1 <= now {
                self.run(index, now);
            }
            next = next.min(self.collectors[index].1);
        }
        if self.health_due <= now {
            self.health_due = after(now, find("collector").map_or(Span::seconds(10), |table| table.interval));
            if let Ok(Some(batch)) = self.health.batch(&self.host, now)
                && let Err(message) = self.send("collector", &batch)
            {
                self.health.dropped("collector", batch.num_rows(), message);
            }
        }
        next.min(self.health_due)
    }

    fn run(&mut self, index: usize, now: Timestamp) {
        let (collector, due) = &mut self.collectors[index];
        *due = after(now, collector.interval());
        let table = collector.table();
        // How long a pass took is a measurement of ourselves; nothing is decided by it.
        let begun = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| collector.collect(now))) {
            Ok(collected) => {
                let duration = Span::micros(begun.elapsed().as_micros() as i64);
                let own = collected.batch.map(|batch| (table, batch));
                let batches: Vec<_> = own.into_iter().chain(collected.more).collect();
                let rows = batches.iter().map(|(_, batch)| batch.num_rows()).sum();
                self.health.ran(table, duration, rows, &collected.faults);
                self.health.stuck(table, self.collectors[index].0.stuck());
                if batches.is_empty() {
                    return;
                }
                let refused: Vec<_> = batches
                    .iter()
                    .enumerate()
                    .filter_map(|(at, (table, batch))| Some((at, *table, batch, self.send(table, batch).err()?)))
                    .collect();
                let again = {
                    let numbers: Vec<usize> = refused.iter().map(|(at, ..)| *at).collect();
                    self.collectors[index].0.taken(&numbers)
                };
                for (_, of, batch, message) in refused {
                    match again {
                        true => self.health.waits(table, message),
                        false => self.health.dropped(of, batch.num_rows(), message),
                    }
                }
            }
            Err(_) => self.health.broke(table, "the collector panicked".to_string()),
        }
    }

    /// Hands rows to the log. What can't be encoded never will be: it is counted as lost. The error is of a log that does not take them now.
    fn send(&mut self, table: &'static str, batch: &RecordBatch) -> Result<(), String> {
        let origin = self.sequences.entry(table).or_insert_with(|| Origin {
            source: self.host.clone(),
            incarnation: self.incarnation.clone(),
            seq: 0,
        });
        match encode_split(table, origin, batch) {
            Ok(records) => {
                append_frames(self.log.as_ref(), table, &self.host, &records).map_err(|error| error.to_string())
            }
            Err(error) => {
                self.health.dropped(table, batch.num_rows(), error.to_string());
                Ok(())
            }
        }
    }
}

/// Appends a source's frames of a table: one source is one partition.
///
/// # Errors
/// The log's.
pub fn append_frames(log: &dyn Log, table: &str, source: &str, records: &[Record]) -> Result<(), LogError> {
    let topic = format!("{TOPIC_PREFIX}{table}");
    let partition = partition_for(log, &topic, source)?;
    log.append(&topic, partition, records).map(drop)
}

/// The next multiple of an interval.
fn after(now: Timestamp, interval: Span) -> Timestamp {
    now.floor(interval) + interval
}

#[cfg(test)]
mod tests;
