//! Rules that change while the station runs: what runs goes on, while those that are new or edited read in the log what their open
//! windows need; then they take over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidewatch_flow::watermark::Watermark;
use tidewatch_model::Timestamp;
use tidewatch_model::limits::READ_BYTES;
use tidewatch_model::ports::{Log, LogError};
use tidewatch_model::table::{self, TABLES, Table};
use tidewatch_model::wire;
use tidewatch_sql::{CompiledRule, Renewed};

use super::scope::Part;
use super::source::{Source, Taken, read_record};
use super::state::Position;
use super::{REMOVED_AFTER, Station, StationError, create_topics, feeds};

/// All rules that there are to be.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// All of them, suspended ones too.
    pub rules: Vec<CompiledRule>,
    /// Whether none was left out for a fault.
    pub complete: bool,
    /// Rules that are not judged for now, and whose alerts stay as they are.
    pub suspended: BTreeSet<String>,
}

impl RuleSet {
    /// The names of all rules that there are, suspended ones too.
    pub fn names(&self) -> BTreeSet<String> {
        self.rules.iter().map(|compiled| compiled.rule.name.clone()).collect()
    }
}

/// Rules that are about to take over.
pub struct Renewal {
    set: RuleSet,
    /// Second readers of partitions, on their way to where the first ones are.
    readers: Vec<Source>,
}

impl Station {
    /// Begins to change the rules to these. What is there of them to be judged by this part is judged once it has read what it needs, a
    /// few steps later; a change that is still under way is given up for this one.
    ///
    /// # Errors
    /// The log's, or too many rules.
    pub fn change_rules(&mut self, set: RuleSet) -> Result<Renewed, StationError> {
        // One that is still under way must not take over what is begun here.
        self.renewal = None;
        let begun = self.begin_renewal(set);
        if begun.is_err() {
            self.judge.cancel_change();
        }
        begun
    }

    fn begin_renewal(&mut self, set: RuleSet) -> Result<Renewed, StationError> {
        let here = |compiled: &&CompiledRule| {
            self.tenure.part.judges(&compiled.rule, &self.mappings) && !set.suspended.contains(&compiled.rule.name)
        };
        let judged: Vec<CompiledRule> = set.rules.iter().filter(here).cloned().collect();
        self.add_streams()?;
        let change = self.judge.begin_change(judged, &self.reached())?;
        let mut readers = Vec::new();
        for source in &self.sources {
            let Some(from) = self.judge.engine().prefill_from(source.table.name) else { continue };
            let range = self.log.range(&source.topic, source.partition)?;
            let begin = self.log.offset_for_time(&source.topic, source.partition, from)?;
            readers.push(Source {
                next: begin.clamp(range.start, range.end).min(source.next),
                admit: source.admit.anew(),
                decoder: wire::Decoder::default(),
                topic: source.topic.clone(),
                mapping: source.mapping.clone(),
                last: None,
                stored: false,
                ..*source
            });
        }
        self.remember_series(true)?;
        self.renewal = Some(Renewal { set, readers });
        Ok(change)
    }

    /// How far tables have come, whether or not a rule reads them.
    fn reached(&self) -> BTreeMap<String, Timestamp> {
        let known = self.watermarks.iter();
        known.filter_map(|(table, watermark)| Some((table.to_string(), watermark.current()?))).collect()
    }

    /// Makes the topics of streams that were not there before, and reads them from now on.
    fn add_streams(&mut self) -> Result<(), StationError> {
        let read: BTreeSet<&str> = self.sources.iter().map(|source| source.table.name).collect();
        let fresh: Vec<&'static Table> = table::all().into_iter().filter(|table| !read.contains(table.name)).collect();
        for table in fresh.into_iter().filter(|table| TABLES.iter().all(|known| known.name != table.name)) {
            create_topics(self.log.as_ref(), self.cluster)?;
            self.watermarks.entry(table.name).or_insert_with(|| Watermark::new(self.idle_timeout));
            for partition in 0..self.log.partitions(&table.topic())? {
                self.add_source(table, None, partition, &Position::default(), self.stepped_at)?;
            }
        }
        Ok(())
    }

    /// Whether new rules are still reading what they need.
    #[cfg(test)]
    pub fn is_renewing(&self) -> bool {
        self.renewal.is_some()
    }

    /// Whether this part reads every table that these rules need here: the rest of a group reads only what its rules did at its start.
    pub fn reads_enough(&self, set: &RuleSet) -> bool {
        if !matches!(self.tenure.part, Part::Rest { .. }) {
            return true;
        }
        let judged = set.rules.iter().filter(|compiled| self.tenure.part.judges(&compiled.rule, &self.mappings));
        let is_read = |table: &str| self.sources.iter().any(|source| source.table.name == table);
        judged.flat_map(|compiled| compiled.rule.tables()).all(is_read)
    }

    /// Reads on for the new rules; when they have what the others have, they take over.
    pub(super) fn renew(&mut self, now: Timestamp) -> Result<(), StationError> {
        let Some(mut renewal) = self.renewal.take() else { return Ok(()) };
        let mut done = true;
        for reader in &mut renewal.readers {
            let first =
                self.sources.iter().find(|source| source.topic == reader.topic && source.partition == reader.partition);
            let until = first.map_or(reader.next, |source| source.next);
            match self.read_for_renewal(reader, until, now) {
                Ok(()) => done &= reader.next >= until,
                Err(error) => {
                    self.renewal = Some(renewal);
                    return Err(error);
                }
            }
        }
        match done {
            true => self.take_over(renewal.set, now),
            false => self.renewal = Some(renewal),
        }
        Ok(())
    }

    fn read_for_renewal(&mut self, reader: &mut Source, until: u64, now: Timestamp) -> Result<(), StationError> {
        if reader.next >= until {
            return Ok(());
        }
        let log: Arc<dyn Log> = self.log.clone();
        let read = match log.read(&reader.topic, reader.partition, reader.next, READ_BYTES) {
            // Retention was quicker.
            Err(LogError::OutOfRange { available, .. }) if reader.next < available.start => {
                reader.next = available.start;
                return Ok(());
            }
            read => read?,
        };
        for (offset, record) in read.records.iter().take_while(|(offset, _)| *offset < until) {
            let (header, taken) = read_record(reader, record, now);
            if let Some(header) = header {
                reader.admit.remember(header.source, header.incarnation, header.seq);
            }
            reader.admit.keep();
            if let Taken::Rows { rows, .. } = taken {
                self.judge.prefill(reader.table.name, &rows)?;
            }
            reader.next = offset + 1;
        }
        // What the log does not have, it does not have for them either.
        reader.next = reader.next.max(read.next.min(until));
        Ok(())
    }

    fn take_over(&mut self, set: RuleSet, now: Timestamp) {
        // Of dropped and suspended rules too: where their alerts end, or wait.
        let mut positions = self.kept_positions.clone();
        positions.extend(self.judge.engine().positions().map(|(rule, ts)| (rule.to_string(), ts)));
        self.judge.commit_change(&self.reached());
        self.rule_names = set.names();
        self.rules_complete = set.complete;
        self.suspended = set.suspended.clone();
        self.feeds = feeds(&set.rules);
        // In a group, the others may have the new rules a little later.
        let settled = self.tenure.part == Part::Whole;
        self.removed_at = Some(now + REMOVED_AFTER);
        self.reload_rules(settled, &positions);
    }
}
