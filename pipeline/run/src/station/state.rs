//! What survives a restart: alerts and positions in a compacted topic, transitions as rows, notices not yet told.
//!
//! Order of writing: transitions, then alerts with the position, then what is to be told. A crash in between makes the next
//! start judge again from the older position; what it finds has the same ids and is not written twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use serde::{Deserialize, Serialize};
use tidewatch_flow::lifecycle::Fate;
use tidewatch_lake::LakeScan;
use tidewatch_model::ports::{Log, Record, read_to_end};
use tidewatch_model::table::{self, TOPIC_PREFIX, Table};
use tidewatch_model::wire::{self, Origin};
use tidewatch_model::{Alert, AlertState, Rule, Span, Timestamp, Transition};
use tidewatch_sql::{History, Series};

use super::follow::Follower;
use super::scope::{Part, SHARE, Use};
use super::source::Source;
use super::{SAVE_INTERVAL, STATE_TOPIC, Station, StationError};
use crate::alert_rows::transition_batch;
use crate::mapping::{From, Mapping};
use crate::stream_rows::StreamRows;

/// Up to where everything was judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    version: u32,
    /// End of the last window of each rule.
    rules: BTreeMap<String, Timestamp>,
    /// The next record to judge, by `topic/partition`.
    offsets: BTreeMap<String, u64>,
    /// Event time by `table/partition`: where it goes on when no row comes any more.
    watermarks: BTreeMap<String, Timestamp>,
    /// Of the rest of a group: up to where it has heard what shares wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    followed: Option<u64>,
}

/// More partitions than a topic has.
const LANES: u32 = 1 << 20;

/// Frames of one window of a stream, at most: a window has 1 GiB then.
const FRAMES_OF_WINDOW: u64 = 1 << 10;
/// The end of the key of a position.
pub(super) const POSITION_KEY: &str = "position";
/// The beginning of the keys of alerts, behind the part's and the epoch's.
pub(super) const ALERT_KEY: &str = "alert/";
/// The same for alerts that others judge, and of which people were told here.
const TOLD_KEY: &str = "told/";
/// Transitions are looked for this far before the oldest position: rules that ended alerts exactly at a time in the past.
const EVENT_SLACK: Span = Span::hours(1);

impl Station {
    /// Reads the state back and places every source.
    pub(super) fn restore(&mut self, now: Timestamp) -> Result<(), StationError> {
        let (alerts, mut position) = self.read_state()?;
        self.begin_new_rules(&mut position);
        let oldest = position.rules.values().min().copied().unwrap_or(Timestamp::MIN);
        self.known_events = read_event_ids(self.log.as_ref(), oldest.saturating_sub(EVENT_SLACK))?;
        self.judge.restore(alerts.clone(), &position.rules);
        if self.tells() {
            let all = self.with_others(alerts, position.followed)?;
            self.restore_messages(&all, now)?;
        }
        self.reload_rules(self.tenure.part == Part::Whole, &position.rules);
        for (place, newest) in &position.watermarks {
            let Some((table, partition)) = place.split_once('/') else { continue };
            let Ok(lane) = partition.parse::<u32>() else { continue };
            let is_ours =
                table::all().into_iter().any(|known| known.name == table && self.uses(known, lane % LANES).is_some());
            if let (Some(watermark), true) = (self.watermarks.get_mut(table), is_ours) {
                watermark.restore(lane, *newest, now);
            }
        }
        for table in table::all() {
            for partition in 0..self.log.partitions(&table.topic())? {
                self.add_source(table, None, partition, &position, now)?;
            }
        }
        for (number, mapping) in self.mappings.clone().into_iter().enumerate() {
            for partition in 0..self.log.partitions(&mapping.topic)? {
                self.add_source(mapping.table, Some((number, mapping.clone())), partition, &position, now)?;
            }
        }
        Ok(())
    }

    /// A rule with OVER that is new since the last stop judges what comes from now on: what is read again before, for its frames, was there
    /// when it was not.
    fn begin_new_rules(&self, position: &mut Position) {
        for rule in self.judge.engine().ordered() {
            let of_table = position
                .watermarks
                .iter()
                .filter(|(place, _)| place.split_once('/').is_some_and(|(table, _)| table == rule.table));
            if let Some(reached) = of_table.map(|(_, newest)| *newest).max() {
                position.rules.entry(rule.name.clone()).or_insert(reached);
            }
        }
    }

    /// Looks up the series that rules about silence must know: what fell silent shortly before the stop, or since, is in no row that
    /// will be read. `incoming`: for rules that are about to take over.
    pub(super) fn remember_series(&mut self, incoming: bool) -> Result<(), StationError> {
        let mut asked: Vec<(String, String)> = Vec::new();
        let engine = self.judge.engine();
        let wanted: Vec<Series<'_>> =
            if incoming { engine.prefill_series().collect() } else { engine.wants_series().collect() };
        for Series { table: name, from, before, stalled } in wanted {
            let Some(found) = table::find(name) else { continue };
            let quoted = |column: &str| format!("\"{column}\"");
            let identity = found.identity().map(quoted).collect::<Vec<_>>().join(", ");
            let name_of_table = quoted(name);
            let rows = format!("{name_of_table} WHERE ts >= TIMESTAMP '{from}' AND ts < TIMESTAMP '{before}'");
            asked.push((name.to_string(), format!("SELECT {identity}, max(ts) AS ts FROM {rows} GROUP BY {identity}")));
            for column in stalled.into_iter().map(quoted) {
                let changes = format!(
                    "SELECT {identity}, ts, {column}, lag({column}) OVER (PARTITION BY {identity} ORDER BY ts) AS before \
                     FROM {rows} AND {column} IS NOT NULL"
                );
                let changed =
                    format!("SELECT {identity}, ts, {column} FROM ({changes}) WHERE before IS DISTINCT FROM {column}");
                asked.push((name.to_string(), changed));
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let history = History::new(Arc::new(LakeScan::new(self.store.clone())), 1)?;
        for (name, sql) in asked {
            let mut seen = Vec::new();
            history.query(&sql, |batch| {
                seen.push(batch);
                Ok(())
            })?;
            for batch in seen {
                self.judge.remember(&name, &batch)?;
            }
        }
        Ok(())
    }

    /// Ends the alerts of rules that were edited, and, where all engines have the same rules by now, of those that are gone;
    /// those of rules that another part judges are dropped. `positions` say where the rules stood; those of rules that are not
    /// judged here and whose alerts are kept are remembered.
    pub(super) fn reload_rules(&mut self, settled: bool, positions: &BTreeMap<String, Timestamp>) {
        let Station { judge, pending, rule_names, rules_complete, suspended, .. } = self;
        let fate = |rule: &str| match (rule_names.contains(rule), *rules_complete) {
            (true, _) if suspended.contains(rule) => Fate::Unknown,
            _ if !settled => Fate::Unknown,
            (true, _) => Fate::Elsewhere,
            (false, true) => Fate::Gone,
            (false, false) => Fate::Unknown,
        };
        pending.extend(judge.reload(&fate, positions));
        self.removed_at = self.removed_at.filter(|_| !settled);
        let has_alerts = |rule: &String| self.judge.alerts().any(|alert| alert.rule == *rule);
        let is_left_out = |rule: &String| self.judge.rules().all(|known| known.name != *rule);
        let left_out = positions.iter().filter(|(rule, _)| is_left_out(rule) && has_alerts(rule));
        self.kept_positions = left_out.map(|(rule, ts)| (rule.clone(), *ts)).collect();
    }

    /// For the rest of a group: besides its own the alerts of all shares as they stand, and those that people were told of here and
    /// that nobody has any more.
    fn with_others(&mut self, own: Vec<Alert>, followed: Option<u64>) -> Result<Vec<Alert>, StationError> {
        let name = self.tenure.part.name();
        if !matches!(self.tenure.part, Part::Rest { .. }) {
            return Ok(own);
        }
        let mut all: BTreeMap<String, Alert> = BTreeMap::new();
        let records = read_compacted(self.log.as_ref(), STATE_TOPIC)?;
        if let Some(prefix) = newest_prefixes(&records).get(&name) {
            let told = format!("{prefix}{TOLD_KEY}");
            for (key, (offset, value)) in records.iter().filter(|(key, _)| key.starts_with(told.as_bytes())) {
                let wrong = |error: serde_json::Error| StationError::State {
                    topic: STATE_TOPIC,
                    offset: *offset,
                    problem: format!("{}: {error}", String::from_utf8_lossy(key)),
                };
                let alert: Alert = serde_json::from_slice(value).map_err(wrong)?;
                all.insert(alert.fingerprint(), alert);
            }
        }
        // The first of its kind hears of how things stand, and not of how they came to it.
        let followed = followed.unwrap_or(self.log.range(STATE_TOPIC, 0)?.end);
        self.follower = Some(Follower::start(self.log.as_ref(), followed)?);
        let theirs: Vec<Alert> = self.others().cloned().collect();
        // Of rules that are judged elsewhere now the shares know more.
        let (own, left): (Vec<Alert>, Vec<Alert>) = own.into_iter().partition(|alert| self.judge.judges(&alert.rule));
        all.extend(left.into_iter().chain(theirs).chain(own).map(|alert| (alert.fingerprint(), alert)));
        Ok(all.into_values().collect())
    }

    /// What this part does with a partition.
    fn uses(&self, table: &Table, partition: u32) -> Option<Use> {
        let judged: BTreeSet<String> =
            self.judge.rules().flat_map(|rule| rule.tables().map(str::to_string).collect::<Vec<_>>()).collect();
        self.tenure.part.uses(table, partition, &judged)
    }

    pub(super) fn add_source(
        &mut self,
        table: &'static Table,
        mapping: Option<(usize, Arc<Mapping>)>,
        partition: u32,
        position: &Position,
        now: Timestamp,
    ) -> Result<(), StationError> {
        let Some(used) = self.uses(table, partition) else { return Ok(()) };
        // Partitions of several topics feed one table: each has a number of its own in the table's watermark.
        let lane = partition + mapping.as_ref().map_or(0, |(number, _)| (*number as u32 + 1) * LANES);
        let source = self.place(table, mapping.map(|(_, mapping)| mapping), lane, used, position, now)?;
        if let Some(watermark) = self.watermarks.get_mut(table.name) {
            watermark.behind(lane, source.lag > 0, now);
        }
        self.sources.push(source);
        Ok(())
    }

    /// Where a partition is begun that the lake has nothing of.
    fn beginning(&self, topic: &str, partition: u32, from: From) -> Result<Option<u64>, StationError> {
        match from {
            From::Earliest => Ok(None),
            From::Latest => Ok(Some(self.log.range(topic, partition)?.end)),
            From::Time(ts) => Ok(Some(self.log.offset_for_time(topic, partition, ts)?)),
        }
    }

    fn place(
        &mut self,
        table: &'static Table,
        mapping: Option<Arc<Mapping>>,
        lane: u32,
        used: Use,
        position: &Position,
        now: Timestamp,
    ) -> Result<Source, StationError> {
        let partition = lane % LANES;
        let topic = mapping.as_ref().map_or_else(|| table.topic(), |mapping| mapping.topic.clone());
        let from = mapping.as_ref().map_or(self.from, |mapping| mapping.from);
        let stored = used == Use::Stored;
        let begin = match !table.is_own() && self.lake.is_new(&topic, partition)? {
            true => self.beginning(&topic, partition, from)?,
            false => None,
        };
        if let Some(start) = begin.filter(|_| stored) {
            self.lake.begin_at(&topic, partition, start, now)?;
        }
        let range = self.log.range(&topic, partition)?;
        let lake_from = match begin.filter(|_| !stored) {
            Some(start) => start,
            None => self.lake.position(&topic, partition)?,
        };
        // After a loss of power the position may have survived and the newest records not: what comes in their place was
        // not judged.
        let judge_from =
            position.offsets.get(&format!("{topic}/{partition}")).copied().unwrap_or(lake_from).min(range.end);
        // The last record that was stored is read again, to see whether it still is that one.
        let mut next = if stored { lake_from.saturating_sub(1).min(judge_from) } else { judge_from };
        if let Some(ts) = self.judge.engine().replay_from(table.name) {
            next = next.min(self.log.offset_for_time(&topic, partition, ts)?);
        }
        let next = match stored && lake_from > range.end {
            // The log has less than the lake took from it: it is another one. Reading there says so, or finds another record.
            true => lake_from.saturating_sub(1),
            false if stored => next.clamp(range.start.min(lake_from), range.end),
            false => next.clamp(range.start, range.end),
        };
        let lag = range.end.saturating_sub(next);
        let source = Source::new(table, mapping, partition, &self.cleaning);
        Ok(Source { lane, next, stored, lake_from, judge_from, lag, ..source })
    }

    /// Writes what was decided, and now and then the state.
    pub(super) fn persist(&mut self, now: Timestamp) -> Result<(), StationError> {
        self.write_streams()?;
        if !self.pending.is_empty() {
            self.write_transitions(now)?;
            self.save_state(now)?;
        } else if now - self.saved_at >= SAVE_INTERVAL {
            self.save_state(now)?;
        }
        Ok(())
    }

    fn write_transitions(&mut self, now: Timestamp) -> Result<(), StationError> {
        self.tenure.check(self.log.as_ref())?;
        let fresh: Vec<Transition> = self
            .pending
            .iter()
            .filter(|transition| !self.known_events.contains(&transition.event_id))
            .cloned()
            .collect();
        if !fresh.is_empty() {
            let rows = transition_batch(&fresh, now)?;
            self.append_rows("alert_event", &rows)?;
        }
        self.stats.transitions += fresh.len() as u64;
        // From here on a failure must not write them again.
        self.known_events.extend(fresh.into_iter().map(|transition| transition.event_id));
        if !self.tells() {
            // One after the other: whoever tells for us hears of each.
            let prefix = self.tenure.prefix();
            let record = |transition: &Transition| {
                let value = serde_json::to_vec(&transition.alert).unwrap_or_default();
                state_record(&alert_key(&prefix, &transition.alert), Some(value), now)
            };
            let of_interest =
                |transition: &&Transition| matches!(transition.to_state, AlertState::Firing | AlertState::Resolved);
            let records: Vec<Record> = self.pending.iter().filter(of_interest).map(record).collect();
            if !records.is_empty() {
                self.log.append(STATE_TOPIC, 0, &records)?;
            }
            // What stands there is deleted when the alert is forgotten.
            for transition in std::mem::take(&mut self.pending).into_iter().filter(|one| of_interest(&one)) {
                self.saved_alerts.insert(alert_key(&prefix, &transition.alert), transition.alert);
            }
            return Ok(());
        }
        let mut seen = HashSet::new();
        for transition in std::mem::take(&mut self.pending) {
            self.observe(&transition.alert, &mut seen, now);
        }
        Ok(())
    }

    /// Writes the rows of streams, each window's under a number of its own: rows that are made again after a crash are duplicates then.
    fn write_streams(&mut self) -> Result<(), StationError> {
        self.pending_streams.extend(self.judge.take_streams());
        while let Some(StreamRows { stream, version, end, rows }) = self.pending_streams.first() {
            let source = format!("stream:{}", self.tenure.part.name());
            // Parts of one window, where it does not fit one frame.
            let seq = (end.0.max(0) as u64 / 1_000) * FRAMES_OF_WINDOW;
            let mut origin = Origin { source: source.clone(), incarnation: version.clone(), seq };
            let records = wire::encode_split(stream, &mut origin, rows)?;
            let topic = format!("{TOPIC_PREFIX}{stream}");
            // A partition for each share: two in one would wait for each other's time.
            let partition = self.tenure.part.partition().unwrap_or(0) % self.log.partitions(&topic)?.max(1);
            self.log.append(&topic, partition, &records)?;
            self.pending_streams.remove(0);
        }
        Ok(())
    }

    /// Appends rows of a table of our own.
    pub(super) fn append_rows(&mut self, table: &str, rows: &RecordBatch) -> Result<(), StationError> {
        let records = wire::encode_split(table, &mut self.origin, rows)?;
        let topic = format!("{TOPIC_PREFIX}{table}");
        let partition = self.log.lane().unwrap_or(0).min(self.log.partitions(&topic)?.max(1) - 1);
        self.log.append(&topic, partition, &records)?;
        Ok(())
    }

    /// Writes the alerts that changed, and then the position that they belong to, with one append.
    pub(super) fn save_state(&mut self, now: Timestamp) -> Result<(), StationError> {
        // The position says that their windows are over.
        self.write_streams()?;
        self.tenure.check(self.log.as_ref())?;
        let prefix = self.tenure.prefix();
        // An alert that is over is kept until everybody who heard of it has heard that too; one of a share, too, as long as it fires.
        let told = self.dispatcher.alerts();
        let mut alerts: BTreeMap<String, Alert> = match &self.follower {
            None => told
                .filter(|alert| alert.state == AlertState::Resolved)
                .map(|alert| (alert_key(&prefix, alert), alert.clone()))
                .collect(),
            Some(_) => told.map(|alert| (told_key(&prefix, alert), alert.clone())).collect(),
        };
        alerts.extend(self.judge.alerts().map(|alert| (alert_key(&prefix, alert), alert.clone())));
        let mut records = Vec::new();
        for (key, alert) in &alerts {
            if self.saved_alerts.get(key) != Some(alert) {
                records.push(state_record(key, Some(serde_json::to_vec(alert).unwrap_or_default()), now));
            }
        }
        for key in self.saved_alerts.keys().filter(|key| !alerts.contains_key(*key)) {
            records.push(state_record(key, None, now));
        }
        let position = Position {
            version: 1,
            rules: {
                let mut rules = self.kept_positions.clone();
                rules.extend(self.judge.engine().positions().map(|(rule, ts)| (rule.to_string(), ts)));
                rules
            },
            offsets: self
                .sources
                .iter()
                .map(|source| (format!("{}/{}", source.topic, source.partition), source.next.max(source.judge_from)))
                .collect(),
            watermarks: {
                let each = self.watermarks.iter().flat_map(|(table, watermark)| {
                    watermark.partitions().map(move |(partition, newest)| (format!("{table}/{partition}"), newest))
                });
                each.collect()
            },
            followed: self.follower.as_ref().map(Follower::position),
        };
        let value = serde_json::to_vec(&position).unwrap_or_default();
        records.push(state_record(&format!("{prefix}{POSITION_KEY}"), Some(value), now));
        self.log.append(STATE_TOPIC, 0, &records)?;
        self.saved_alerts = alerts;
        self.saved_at = now;
        if !self.left_behind.is_empty() {
            let forget = |key: &Vec<u8>| Record { key: key.clone(), timestamp: now, ..Record::default() };
            self.log.append(STATE_TOPIC, 0, &self.left_behind.iter().map(forget).collect::<Vec<_>>())?;
            self.left_behind.clear();
        }
        Ok(())
    }

    /// The alerts and the position of this part, as its last tenant left them; of the whole, when a group takes over from
    /// a single engine.
    fn read_state(&mut self) -> Result<(Vec<Alert>, Position), StationError> {
        let records = read_compacted(self.log.as_ref(), STATE_TOPIC)?;
        let of_group = |key: &[u8]| key.starts_with(SHARE.as_bytes()) || key.starts_with(b"rest/");
        if self.tenure.part == Part::Whole {
            if records.keys().any(|key| of_group(key)) {
                return Err(StationError::OfGroup);
            }
            let (alerts, position) = parse_state(&records, "")?;
            self.saved_alerts = alerts.iter().map(|alert| (alert_key("", alert), alert.clone())).collect();
            return Ok((alerts, position));
        }
        let name = self.tenure.part.name();
        self.left_behind = records.keys().filter(|key| key.starts_with(name.as_bytes())).cloned().collect();
        let newest = newest_prefixes(&records);
        let part = self.tenure.part;
        // Shares know nothing of each other's hosts; what moves comes from the rest, or goes to it.
        let is_share = |name: &String| name.starts_with(SHARE);
        let others = newest.iter().filter(|(other, _)| is_share(other) != is_share(&name)).map(|(_, prefix)| prefix);
        let mut others: Vec<String> = others.cloned().collect();
        let (mut alerts, mut position) = match newest.get(&name) {
            Some(prefix) => parse_state(&records, prefix)?,
            None => {
                // The first of a group goes on where a single engine stopped.
                others.push(String::new());
                (vec![], Position::default())
            }
        };
        let rules: BTreeMap<&str, &Rule> = self.judge.rules().map(|rule| (rule.name.as_str(), rule)).collect();
        let known: BTreeSet<String> = position.rules.keys().cloned().collect();
        // A rule that another part judged until now comes with its alerts.
        for prefix in others {
            let (theirs, there) = parse_state(&records, &prefix)?;
            let comes = |rule: &str| rules.contains_key(rule) && !known.contains(rule);
            if !prefix.is_empty() && !there.rules.keys().any(|rule| comes(rule)) {
                continue;
            }
            for (rule, ts) in there.rules.into_iter().filter(|(rule, _)| comes(rule)) {
                let earliest = position.rules.entry(rule).or_insert(ts);
                *earliest = ts.min(*earliest);
            }
            for (place, offset) in there.offsets {
                position.offsets.entry(place).or_insert(offset);
            }
            for (place, newest) in there.watermarks {
                position.watermarks.entry(place).or_insert(newest);
            }
            for alert in theirs.into_iter().filter(|alert| comes(&alert.rule)) {
                let table = rules.get(alert.rule.as_str()).map(|rule| format!("tidewatch.{}", rule.table));
                let partitions = table.map_or(Ok(1), |topic| self.log.partitions(&topic))?;
                if part.has_alert(&alert, partitions) {
                    alerts.push(alert);
                }
            }
        }
        Ok((alerts, position))
    }
}

/// For each part of a group the beginning of the keys of its newest state. Epochs have a fixed width: the last in order is the
/// highest.
fn newest_prefixes(records: &Compacted) -> BTreeMap<String, String> {
    let mut newest = BTreeMap::new();
    for key in records.keys() {
        let prefix = std::str::from_utf8(key).ok().and_then(|key| key.strip_suffix(POSITION_KEY));
        if let Some((part, _)) = prefix.and_then(|prefix| prefix.split_once('/')) {
            newest.insert(format!("{part}/"), prefix.unwrap_or_default().to_string());
        }
    }
    newest
}

fn alert_key(prefix: &str, alert: &Alert) -> String {
    format!("{prefix}{ALERT_KEY}{}/{}", alert.rule, alert.fingerprint())
}

/// The key of an alert that people were told of here.
fn told_key(prefix: &str, alert: &Alert) -> String {
    format!("{prefix}{TOLD_KEY}{}/{}", alert.rule, alert.fingerprint())
}

fn state_record(key: &str, value: Option<Vec<u8>>, now: Timestamp) -> Record {
    Record { key: key.as_bytes().to_vec(), headers: vec![], value, timestamp: now }
}

/// The newest record of each key, tombstones left out, with its offset.
pub(super) fn read_compacted(log: &dyn Log, topic: &str) -> Result<Compacted, StationError> {
    let mut newest = BTreeMap::new();
    let from = log.range(topic, 0)?.start;
    read_to_end(log, topic, 0, from, &mut |offset, record| match record.value {
        Some(value) => drop(newest.insert(record.key, (offset, value))),
        None => drop(newest.remove(&record.key)),
    })?;
    Ok(newest)
}

/// The newest record of each key, with its offset.
pub(super) type Compacted = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// The alerts and the position under a prefix of the keys.
fn parse_state(records: &Compacted, prefix: &str) -> Result<(Vec<Alert>, Position), StationError> {
    let (position_key, alert_prefix) = (format!("{prefix}{POSITION_KEY}"), format!("{prefix}{ALERT_KEY}"));
    let mut alerts = Vec::new();
    let mut position = Position::default();
    for (key, (offset, value)) in records {
        let wrong = |problem: String| StationError::State { topic: STATE_TOPIC, offset: *offset, problem };
        if *key == position_key.as_bytes() {
            position = serde_json::from_slice(value).map_err(|error| wrong(error.to_string()))?;
            if position.version != 1 {
                return Err(wrong(format!("version {}: expected 1", position.version)));
            }
        } else if key.starts_with(alert_prefix.as_bytes()) {
            alerts.push(serde_json::from_slice(value).map_err(|error| wrong(error.to_string()))?);
        }
    }
    Ok((alerts, position))
}

/// Ids of the transitions in the log at or after an event time.
fn read_event_ids(log: &dyn Log, from: Timestamp) -> Result<HashSet<String>, StationError> {
    let topic = "tidewatch.alert_event";
    let mut ids = HashSet::new();
    let from = log.offset_for_time(topic, 0, from)?;
    read_to_end(log, topic, 0, from, &mut |_, record| {
        let Ok((_, rows)) = wire::decode(&record) else { return };
        if let Some(column) = rows.column_by_name("event_id").and_then(|column| column.as_string_opt::<i32>()) {
            ids.extend(column.iter().flatten().map(str::to_string));
        }
    })?;
    Ok(ids)
}
