//! The stations of one process: the one that does everything, or those of the parts that a group has given to it.

use std::collections::BTreeMap;

use tidewatch_flow::alerting::GroupView;
use tidewatch_lake::LakeError;

use crate::api::RuleHealth;
use tidewatch_model::ports::{Change, Membership};
use tidewatch_model::{Alert, Span, Timestamp};
use tidewatch_sql::{Dimensions, Renewed};

use crate::station::{Part, Parts, RuleSet, Station, StationError, Stats};

#[cfg(test)]
mod tests;

/// Who does which part.
pub enum Division {
    /// This process does everything.
    Alone,
    /// A group divides so many shares, and the rest.
    Group {
        /// This process in it.
        membership: Box<dyn Membership>,
        /// Shares of the group.
        shares: u32,
    },
}

/// The stations of this process.
pub struct Stations {
    parts: Parts,
    division: Division,
    /// By the partition of the engines' topic; 0 for the whole.
    running: BTreeMap<u32, Station>,
    /// Parts that are ours and not open yet, and when they are tried.
    waiting: BTreeMap<u32, Timestamp>,
    /// Sums of stations that are closed.
    past: Stats,
    stats: Stats,
    trouble: Option<String>,
    /// When a step failed last.
    failed_at: Timestamp,
}

/// How long after a failure it is well again: what fails is tried again within that.
const WELL_AFTER: Span = Span::seconds(5);
/// How soon a part that could not be opened is tried again.
const RETRY: Span = Span::seconds(1);
/// How long a part that another engine took over is left alone: the group says by then whose it is.
const LEFT_ALONE: Span = Span::seconds(3);

impl Stations {
    /// Alone, the one station is opened at once; in a group they are opened when they are given.
    ///
    /// # Errors
    /// The station's.
    pub fn open(parts: Parts, division: Division, now: Timestamp) -> Result<Stations, StationError> {
        let mut running = BTreeMap::new();
        if matches!(division, Division::Alone) {
            running.insert(0, Station::open(parts.clone(), now)?);
        }
        let waiting = BTreeMap::new();
        Ok(Stations {
            parts,
            division,
            running,
            waiting,
            past: Stats::default(),
            stats: Stats::default(),
            trouble: None,
            failed_at: Timestamp::MIN,
        })
    }

    /// Follows the group, and lets every station do what there is to do. Returns whether more is waiting.
    ///
    /// # Errors
    /// The first of what keeps one of them from going on; the others went on.
    pub fn step(&mut self, now: Timestamp) -> Result<bool, StationError> {
        let mut failure = self.follow(now).err();
        let mut more = false;
        let keys: Vec<u32> = self.running.keys().copied().collect();
        for key in keys {
            let Some(station) = self.running.get_mut(&key) else { continue };
            match station.step(now) {
                Ok(waiting) => more |= waiting,
                Err(error) => {
                    if self.is_over(&error) {
                        self.drop_station(key);
                        self.waiting.insert(key, now + LEFT_ALONE);
                    }
                    failure = failure.or(Some(error));
                }
            }
        }
        self.stats = self.past.clone();
        self.running.values().for_each(|station| self.stats.add(station.stats()));
        self.stats.trouble.clone_from(&self.trouble);
        if failure.is_some() {
            self.failed_at = now;
        }
        failure.map_or(Ok(more), Err)
    }

    /// A clean stop of everything that this process does.
    ///
    /// # Errors
    /// The first failure; the other stations are closed all the same.
    pub fn close(&mut self, now: Timestamp) -> Result<(), StationError> {
        let mut failure = None;
        for (key, mut station) in std::mem::take(&mut self.running) {
            if let Err(error) = station.close(now)
                && !self.is_over(&error)
            {
                failure = failure.or(Some(error));
            }
            self.past.add(&station.stats().counts_only());
            // What could not be settled at the end is said at the end.
            self.past.unsettled.extend(station.stats().unsettled.iter().cloned());
            self.give_back(&[key]).unwrap_or_else(|error| failure = failure.take().or(Some(error)));
        }
        self.stats = self.past.clone();
        failure.map_or(Ok(()), Err)
    }

    /// Begins to change the rules to these; see [`Station::change_rules`]. What this process does not do now begins with them.
    ///
    /// # Errors
    /// The first of a station's; the others have begun.
    pub fn change_rules(&mut self, set: RuleSet, now: Timestamp) -> Result<Renewed, StationError> {
        self.parts.rules = set.clone();
        let mut all = Renewed::default();
        let mut failure = None;
        let keys: Vec<u32> = self.running.keys().copied().collect();
        for key in keys {
            let Some(station) = self.running.get_mut(&key) else { continue };
            if !station.reads_enough(&set) {
                // It begins again with the tables that it needs now.
                self.drop_station(key);
                self.waiting.insert(key, now);
                continue;
            }
            match station.change_rules(set.clone()) {
                Ok(change) => {
                    all.begun.extend(change.begun);
                    all.dropped.extend(change.dropped);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        for names in [&mut all.begun, &mut all.dropped] {
            names.sort();
            names.dedup();
        }
        failure.map_or(Ok(all), Err)
    }

    /// Commits what is read by the end of the next step, without waiting until it is due.
    pub fn commit_soon(&mut self) {
        self.running.values_mut().for_each(Station::commit_soon);
    }

    /// Whether that is done, or has failed.
    pub fn is_committed(&self) -> bool {
        self.running.values().all(Station::is_committed)
    }

    /// Gives the dimension tables other rows, from now on.
    pub fn set_dimensions(&mut self, dimensions: Dimensions) {
        self.running.values_mut().for_each(|station| station.set_dimensions(&dimensions));
        self.parts.dimensions = dimensions;
    }

    /// The sum of what happened since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Says what is wrong, or that nothing is any more.
    pub fn set_trouble(&mut self, trouble: Option<String>) {
        self.trouble.clone_from(&trouble);
        self.stats.trouble = trouble;
    }

    /// Alerts that are pending or firing.
    pub fn live_alerts(&self) -> Vec<Alert> {
        match self.division {
            Division::Alone => self.running.values().flat_map(Station::live_alerts).collect(),
            // The rest knows those of the shares, and some may be here too.
            Division::Group { .. } => {
                let all = self.running.values().flat_map(Station::live_alerts);
                let by_fingerprint: BTreeMap<String, Alert> = all.map(|alert| (alert.fingerprint(), alert)).collect();
                by_fingerprint.into_values().collect()
            }
        }
    }

    /// Whether rules are judged and people are told here, without trouble for some seconds. In a group the rest tells for all.
    pub fn is_well(&self, now: Timestamp) -> bool {
        let tells = match self.division {
            Division::Alone => true,
            Division::Group { shares, .. } => self.running.contains_key(&shares),
        };
        tells && self.waiting.is_empty() && self.failed_at.saturating_add(WELL_AFTER) < now
    }

    /// Requests to Alertmanagers that failed so far.
    pub fn set_feed_failures(&mut self, failures: u64) {
        self.running.values_mut().take(1).for_each(|station| station.set_feed_failures(failures));
    }

    /// How rules do; where several parts judge one, what the slowest says, and what any says that is wrong.
    pub fn rule_health(&self) -> RuleHealth {
        let mut all = RuleHealth::default();
        for RuleHealth { positions, failing } in self.running.values().map(Station::rule_health) {
            for (rule, ts) in positions {
                let slowest = all.positions.entry(rule).or_insert(ts);
                *slowest = ts.min(*slowest);
            }
            all.failing.extend(failing);
        }
        all
    }

    /// Alerts that are pending, firing, or over for a short while.
    pub fn known_alerts(&self) -> Vec<Alert> {
        self.running.values().flat_map(Station::known_alerts).cloned().collect()
    }

    /// Groups of alerts that are told together.
    pub fn alert_groups(&self) -> Vec<GroupView> {
        self.running.values().flat_map(Station::alert_groups).collect()
    }

    /// Names of the parts that are done here, in a group.
    pub fn parts(&self) -> Vec<String> {
        let of = match self.division {
            Division::Alone => return vec![],
            Division::Group { shares, .. } => shares,
        };
        let name = |key: &u32| Part::of_partition(*key, of).name().trim_end_matches('/').to_string();
        self.running.keys().map(name).collect()
    }

    /// Whether the part is not ours any more, or must be begun anew from what is committed.
    fn is_over(&self, error: &StationError) -> bool {
        let superseded =
            matches!(error, StationError::Superseded { .. } | StationError::Lake(LakeError::Fenced { .. }));
        let is_broken = matches!(error, StationError::Thread(_));
        (superseded || is_broken) && matches!(self.division, Division::Group { .. })
    }

    /// Does what the group asks, and opens what is ours.
    fn follow(&mut self, now: Timestamp) -> Result<(), StationError> {
        let Division::Group { membership, shares } = &mut self.division else { return Ok(()) };
        let shares = *shares;
        let mut failure = None;
        let changes = membership.poll().unwrap_or_else(|error| {
            failure = Some(error.into());
            vec![]
        });
        for change in changes {
            match change {
                Change::Given(keys) => self.waiting.extend(keys.into_iter().map(|key| (key, now))),
                Change::Taken(keys) => {
                    for key in keys {
                        self.waiting.remove(&key);
                        self.drop_station(key);
                    }
                }
                Change::AskedBack(keys) => {
                    for key in &keys {
                        self.waiting.remove(key);
                        let Some(mut station) = self.running.remove(key) else { continue };
                        // What can't be written now is read again by whoever comes next.
                        drop(station.close(now));
                        self.past.add(&station.stats().counts_only());
                    }
                    // What is heard besides must not be lost over it.
                    failure = failure.or(self.give_back(&keys).err());
                }
            }
        }
        let due: Vec<u32> = self.waiting.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for key in due {
            let parts = Parts { part: Part::of_partition(key, shares), ..self.parts.clone() };
            self.waiting.insert(key, now + RETRY);
            match Station::open(parts, now) {
                Ok(station) => {
                    self.waiting.remove(&key);
                    self.running.insert(key, station);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn give_back(&mut self, keys: &[u32]) -> Result<(), StationError> {
        match &mut self.division {
            Division::Alone => Ok(()),
            Division::Group { membership, .. } => Ok(membership.give_back(keys)?),
        }
    }

    fn drop_station(&mut self, key: u32) {
        if let Some(station) = self.running.remove(&key) {
            self.past.add(&station.stats().counts_only());
        }
    }
}
