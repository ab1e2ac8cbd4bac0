//! What a station did and how it stands, for people and metrics.

use std::collections::BTreeMap;

use tidewatch_flow::admit::{AdmitCounts, FUTURE, LATE};
use tidewatch_model::Timestamp;

/// What happened since the start, for people and metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Rows taken, by table.
    pub rows: BTreeMap<String, u64>,
    /// Records that can't be read, by topic.
    pub dead_letters: BTreeMap<String, u64>,
    /// Rows too far ahead or behind, by table.
    pub odd_time_rows: BTreeMap<String, u64>,
    /// Values that cleaning changed, by table, column and reason.
    pub cleaned_values: BTreeMap<(String, &'static str, &'static str), u64>,
    /// Rows that were not taken, by table and reason.
    pub refused_rows: BTreeMap<(String, &'static str), u64>,
    /// Rows that came after the windows that wanted them, by table.
    pub late_rows: BTreeMap<String, u64>,
    /// Bytes that the engine holds of rows and windows, by table.
    pub engine_bytes: BTreeMap<String, u64>,
    /// Rows that the engine did not watch, since there were too many, by table.
    pub overflow_rows: BTreeMap<String, u64>,
    /// Rows of groups that no rule watches, since there are too many.
    pub overflow_groups: u64,
    /// Rows of an identity of which a worse row of the same time speaks, by rule.
    pub repeated_rows: BTreeMap<String, u64>,
    /// Records read twice.
    pub duplicates: u64,
    /// Offsets that the log could not give.
    pub missing: u64,
    /// Watermarks, by table.
    pub watermarks: BTreeMap<String, Timestamp>,
    /// Records not yet read, by table.
    pub lag: BTreeMap<String, u64>,
    /// Evaluations made.
    pub evaluations: u64,
    /// Evaluations that failed, by rule.
    pub rule_failures: BTreeMap<String, u64>,
    /// The last error of each rule that failed.
    pub rule_errors: BTreeMap<String, String>,
    /// Transitions.
    pub transitions: u64,
    /// Notices by outcome.
    pub notices: BTreeMap<&'static str, u64>,
    /// Notices that wait.
    pub notices_waiting: usize,
    /// Targets whose last attempt failed, and why.
    pub target_errors: BTreeMap<String, String>,
    /// Rows committed to the lake.
    pub lake_rows: u64,
    /// Bytes of hot files written.
    pub lake_bytes: u64,
    /// Rows that wait for the next commit.
    pub lake_waiting_rows: usize,
    /// Commits to the lake that failed.
    pub lake_failures: u64,
    /// Rows sorted into settled files.
    pub settled_rows: u64,
    /// Rows of settled files that became public.
    pub public_rows: u64,
    /// Files of the lake that were deleted: settled, never committed, or of days that are not kept.
    pub lake_deleted_files: u64,
    /// Windows of the lake that can't be settled, and why.
    pub unsettled: Vec<String>,
    /// When the lake was last written.
    pub last_flush: Option<Timestamp>,
    /// What is wrong right now, if anything.
    pub trouble: Option<String>,
}

impl Stats {
    /// Counts what admission turned away or changed.
    pub fn count(&mut self, table: &str, counts: &AdmitCounts) {
        for ((column, reason), values) in &counts.cleaned {
            *self.cleaned_values.entry((table.to_string(), column, reason)).or_default() += values;
        }
        for (reason, rows) in &counts.refused {
            *self.refused_rows.entry((table.to_string(), reason)).or_default() += rows;
            if [FUTURE, LATE].contains(reason) {
                *self.odd_time_rows.entry(table.to_string()).or_default() += rows;
            }
        }
    }

    /// Takes another part's figures into the sum: counts add up, and the slowest watermark counts.
    pub fn add(&mut self, other: &Stats) {
        let sum = |into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
            from.iter().for_each(|(name, count)| *into.entry(name.clone()).or_default() += count);
        };
        sum(&mut self.rows, &other.rows);
        sum(&mut self.dead_letters, &other.dead_letters);
        sum(&mut self.odd_time_rows, &other.odd_time_rows);
        for (place, count) in &other.cleaned_values {
            *self.cleaned_values.entry(place.clone()).or_default() += count;
        }
        for (place, count) in &other.refused_rows {
            *self.refused_rows.entry(place.clone()).or_default() += count;
        }
        sum(&mut self.late_rows, &other.late_rows);
        sum(&mut self.engine_bytes, &other.engine_bytes);
        sum(&mut self.overflow_rows, &other.overflow_rows);
        self.overflow_groups += other.overflow_groups;
        sum(&mut self.repeated_rows, &other.repeated_rows);
        sum(&mut self.lag, &other.lag);
        sum(&mut self.rule_failures, &other.rule_failures);
        self.rule_errors.extend(other.rule_errors.clone());
        other.notices.iter().for_each(|(outcome, count)| *self.notices.entry(outcome).or_default() += count);
        for (table, watermark) in &other.watermarks {
            let slowest = self.watermarks.entry(table.clone()).or_insert(*watermark);
            *slowest = (*slowest).min(*watermark);
        }
        self.duplicates += other.duplicates;
        self.missing += other.missing;
        self.evaluations += other.evaluations;
        self.transitions += other.transitions;
        self.notices_waiting += other.notices_waiting;
        self.target_errors.extend(other.target_errors.clone());
        self.lake_rows += other.lake_rows;
        self.lake_bytes += other.lake_bytes;
        self.lake_waiting_rows += other.lake_waiting_rows;
        self.lake_failures += other.lake_failures;
        self.settled_rows += other.settled_rows;
        self.public_rows += other.public_rows;
        self.lake_deleted_files += other.lake_deleted_files;
        self.unsettled.extend(other.unsettled.iter().cloned());
        self.last_flush = self.last_flush.max(other.last_flush);
        self.trouble = self.trouble.take().or_else(|| other.trouble.clone());
    }

    /// What is left of a station that is closed: its counts, and nothing of how things stood.
    pub fn counts_only(&self) -> Stats {
        Stats {
            watermarks: BTreeMap::new(),
            lag: BTreeMap::new(),
            engine_bytes: BTreeMap::new(),
            notices_waiting: 0,
            target_errors: BTreeMap::new(),
            lake_waiting_rows: 0,
            unsettled: vec![],
            trouble: None,
            ..self.clone()
        }
    }
}
