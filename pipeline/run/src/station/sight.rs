//! What absence means: how far event time has come where no row says so, and whether we would have seen a row.

use tidewatch_flow::watermark::{Tick, Watermark};
use tidewatch_model::limits::SUSPENDED;
use tidewatch_model::ports::Record;
use tidewatch_model::table;
use tidewatch_model::{Span, Timestamp};

use super::source::Source;
use super::{Station, StationError, TICK_TOPIC};

/// How often the wall clock may move a watermark.
const TICK_INTERVAL: Span = Span::seconds(1);
/// How often the log is asked, at most, how far a table goes.
const ASK_EVERY: Span = Span::seconds(2);
/// For how long its word counts once all of it is read.
const CONFIRMED_FOR: Span = Span::seconds(10);

/// How far a table went when the log was asked, by source, and when all of that was read.
#[derive(Debug, Default)]
pub struct Confirmation {
    ends: Vec<u64>,
    asked_at: Timestamp,
    confirmed_at: Timestamp,
    /// Whether it did not answer the last time.
    lost: bool,
    /// Until then sources are being heard again.
    blind_until: Timestamp,
}

impl Station {
    /// Takes note of a pause that we made ourselves, and tells the rules about silence what they can't know now.
    pub(super) fn look_around(&mut self, now: Timestamp) {
        if now - self.stepped_at > SUSPENDED {
            self.seeing_from = now + self.idle_timeout;
        }
        self.stepped_at = now;
        for table in table::all() {
            let blind = self.is_blind(table.name, now);
            self.judge.set_blind(table.name, blind);
        }
    }

    /// Moves the watermarks of tables whose sources are silent, by the wall clock, and writes those ticks down.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), StationError> {
        if now - self.ticked_at < TICK_INTERVAL {
            return Ok(());
        }
        self.ticked_at = now;
        let mut records = Vec::new();
        for table in table::all() {
            // A stream has come as far as what it is made of.
            let of_tables = self.made_of(table.name);
            let is_behind = |name: &str| self.sources.iter().any(|source| source.table.name == name && source.lag > 0);
            let behind = of_tables.iter().any(|(name, _)| is_behind(name));
            // One that nobody ever wrote holds nothing back.
            let come = of_tables[1..].iter().filter_map(|(name, late)| {
                let reached = self.watermarks.get(*name).and_then(Watermark::current)?;
                Some(reached.saturating_sub(*late).saturating_add(self.idle_timeout))
            });
            let by_clock = come.min().map_or(now, |come| come.min(now));
            let Some(watermark) = self.watermarks.get_mut(table.name) else { continue };
            let (tick, never) = (watermark.advance(Some(by_clock)), watermark.current().is_none());
            // The log is asked no more than it must be.
            if tick.is_none() && !(never && self.is_joined(table.name)) {
                continue;
            }
            let mut lagging = false;
            for (name, _) in &of_tables {
                lagging |= self.is_blind(name, now) || !self.is_confirmed(name, now);
            }
            let Some(tick) = tick else {
                // Nobody ever wrote it: what is joined with it need not wait.
                if !lagging && !behind {
                    let transitions = self.judge.advance_joined(table.name, now.saturating_sub(self.idle_timeout));
                    self.pending.extend(transitions);
                }
                continue;
            };
            if (lagging || behind) && tick.from_clock {
                continue;
            }
            if tick.from_clock {
                records.push(tick_record(table.name, tick, now));
            }
            let transitions = self.judge.advance(table.name, tick.watermark, lagging);
            self.pending.extend(transitions);
        }
        if !records.is_empty() {
            self.log.append(TICK_TOPIC, 0, &records)?;
        }
        Ok(())
    }

    /// Whether a rule reads the table together with others.
    fn is_joined(&self, table: &str) -> bool {
        self.judge.rules().any(|rule| !rule.joined.is_empty() && rule.tables().any(|name| name == table))
    }

    /// A table, and for a stream the tables that it is made of, with how much later its rows come.
    fn made_of(&self, table: &'static str) -> Vec<(&'static str, Span)> {
        let mut found = vec![(table, Span::ZERO)];
        let mut next = 0;
        while let Some((name, late)) = found.get(next).copied() {
            next += 1;
            let Some((tables, delay)) = self.feeds.get(name) else { continue };
            for of in tables.iter().filter_map(|of| table::find(of)) {
                if found.iter().all(|(known, _)| *known != of.name) {
                    found.push((of.name, Span(late.0 + delay.0)));
                }
            }
        }
        found
    }

    /// Whether a table's rows may be there and not be seen: what is absent is unknown then.
    fn is_blind(&self, table: &str, now: Timestamp) -> bool {
        let heard_again = self.confirmations.get(table).is_some_and(|asked| now < asked.blind_until);
        heard_again
            || now < self.seeing_from
            || self.sources.iter().any(|source| source.table.name == table && source.unread)
    }

    /// Whether the log itself has said a short while ago how far a table goes, and all of that is read: a broker that does not
    /// answer looks like sources that are silent. When it answers again, what was sent meanwhile is still on its way.
    fn is_confirmed(&mut self, table: &'static str, now: Timestamp) -> bool {
        let sources = || self.sources.iter().filter(|source| source.table.name == table);
        let all_read = |ends: &[u64]| sources().zip(ends).all(|(source, end): (&Source, &u64)| source.next >= *end);
        let asked = self.confirmations.entry(table).or_default();
        if !asked.ends.is_empty() && all_read(&asked.ends) {
            asked.confirmed_at = asked.confirmed_at.max(asked.asked_at);
        }
        if now - asked.asked_at >= ASK_EVERY {
            let ends = sources().map(|source| Some(self.log.range(&source.topic, source.partition).ok()?.end));
            match ends.collect::<Option<Vec<u64>>>() {
                Some(ends) => {
                    if all_read(&ends) {
                        asked.confirmed_at = now;
                    }
                    asked.ends = ends;
                    asked.asked_at = now;
                    if std::mem::take(&mut asked.lost) {
                        asked.blind_until = now + self.idle_timeout;
                    }
                }
                None => asked.lost = true,
            }
        }
        !asked.lost && now - asked.confirmed_at < CONFIRMED_FOR
    }
}

fn tick_record(table: &str, tick: Tick, now: Timestamp) -> Record {
    let text = serde_json::json!({ "table": table, "watermark": tick.watermark, "at": now });
    Record {
        key: table.as_bytes().to_vec(),
        headers: vec![],
        value: Some(text.to_string().into_bytes()),
        timestamp: now,
    }
}
