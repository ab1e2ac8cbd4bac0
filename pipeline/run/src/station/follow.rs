//! In a group the rest tells for all: it follows the states that the shares write, alert by alert, so that groups, inhibition and what
//! everybody was told reach over all engines.
//!
//! A share writes each change of an alert into the topic of states, in order, before its state as a whole. Of each share the state
//! with the highest epoch counts, and what a process writes that lost its share is not listened to.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidewatch_model::ports::{Log, read_to_end};
use tidewatch_model::{Alert, AlertState, Span, Timestamp};

use super::scope::{Part, SHARE};
use super::state::{ALERT_KEY, POSITION_KEY};
use super::{REMOVED_AFTER, STATE_TOPIC, Station, StationError};

/// How often is looked for what shares wrote.
const FOLLOW_INTERVAL: Span = Span::millis(100);

/// What the shares say.
#[derive(Debug, Default)]
pub(super) struct Follower {
    next: u64,
    /// Up to there everything was heard before the start.
    followed: u64,
    due: Timestamp,
    shares: BTreeMap<String, Share>,
    /// By fingerprint: each alert as it was heard of last, if it fires or is over.
    known: BTreeMap<String, Alert>,
    /// What was heard and not handed over yet.
    news: Vec<News>,
    /// Alerts that fire and that no part has, and since when.
    missing: BTreeMap<String, Timestamp>,
}

/// The states of one share, by the beginning of their keys, which grows with each tenant.
#[derive(Debug, Default)]
struct Share {
    newest: String,
    alerts: BTreeMap<String, BTreeMap<String, Alert>>,
}

/// What was heard.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    /// It began, ended, or changed so that people may have to be told.
    Changed(Alert),
    /// Its values are others.
    Refreshed(Alert),
}

impl News {
    fn alert(&self) -> &Alert {
        let (News::Changed(alert) | News::Refreshed(alert)) = self;
        alert
    }
}

impl Follower {
    /// What the shares' states are now. What was followed up to an offset, by whoever was here before, was heard; what came after it is news.
    pub(super) fn start(log: &dyn Log, followed: u64) -> Result<Follower, StationError> {
        let mut follower = Follower { next: log.range(STATE_TOPIC, 0)?.start, followed, ..Follower::default() };
        follower.read(log)?;
        Ok(follower)
    }

    /// The offset up to which everything was heard.
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// Takes what came since. What was heard before something went wrong is not lost.
    fn read(&mut self, log: &dyn Log) -> Result<(), StationError> {
        let range = log.range(STATE_TOPIC, 0)?;
        // Compaction may have moved the beginning beyond us.
        let from = self.next.clamp(range.start, range.end);
        self.next = from;
        let mut wrong = None;
        if from < range.end {
            let read = read_to_end(log, STATE_TOPIC, 0, from, &mut |offset, record| {
                let key = String::from_utf8_lossy(&record.key).into_owned();
                match self.apply(&key, record.value.as_deref()) {
                    Ok(heard) => self.news.extend(heard.filter(|_| offset >= self.followed)),
                    Err(problem) => {
                        wrong.get_or_insert(StationError::State { topic: STATE_TOPIC, offset, problem });
                    }
                }
                self.next = offset + 1;
            });
            read?;
        }
        wrong.map_or(Ok(()), Err)
    }

    fn apply(&mut self, key: &str, value: Option<&[u8]>) -> Result<Option<News>, String> {
        let mut words = key.splitn(3, '/');
        let (Some(part), Some(epoch), Some(tail)) = (words.next(), words.next(), words.next()) else { return Ok(None) };
        if !part.starts_with(SHARE) {
            return Ok(None);
        }
        let share = self.shares.entry(part.to_string()).or_default();
        if epoch < share.newest.as_str() {
            return Ok(None);
        }
        match (tail == POSITION_KEY, value) {
            (true, Some(_)) => {
                share.newest = epoch.to_string();
                share.alerts.retain(|known, _| known.as_str() >= epoch);
                Ok(None)
            }
            (false, Some(value)) if tail.starts_with(ALERT_KEY) => {
                let alert: Alert = serde_json::from_slice(value).map_err(|error| error.to_string())?;
                share.alerts.entry(epoch.to_string()).or_default().insert(tail.to_string(), alert.clone());
                Ok(self.hear(alert))
            }
            (false, None) => {
                let known = share.alerts.get_mut(epoch).and_then(|alerts| alerts.remove(tail));
                if let Some(alert) = known.filter(|alert| alert.state == AlertState::Resolved) {
                    self.known.remove(&alert.fingerprint());
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Takes an alert, unless more was heard of it before: whoever takes a share over judges again what its predecessor did.
    fn hear(&mut self, alert: Alert) -> Option<News> {
        if !matches!(alert.state, AlertState::Firing | AlertState::Resolved) {
            return None;
        }
        let of = |alert: &Alert| (alert.state, alert.severity, alert.stale_since.is_some(), alert.flaps);
        match self.known.insert(alert.fingerprint(), alert.clone()) {
            Some(before) if is_older(&alert, &before) => {
                self.known.insert(before.fingerprint(), before);
                None
            }
            Some(before) if before == alert => None,
            Some(before) if before.fired_at == alert.fired_at && of(&before) == of(&alert) => {
                Some(News::Refreshed(alert))
            }
            _ => Some(News::Changed(alert)),
        }
    }

    /// All alerts that the shares have, as they stand.
    pub(super) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.shares.values().flat_map(|share| share.alerts.values().flat_map(BTreeMap::values))
    }
}

/// Whether what is said of an alert was true before what is known of it.
fn is_older(alert: &Alert, known: &Alert) -> bool {
    let began = |alert: &Alert| alert.fired_at.unwrap_or(alert.active_at);
    let is_over = |alert: &Alert| alert.state == AlertState::Resolved;
    began(alert) < began(known) || began(alert) == began(known) && is_over(known) && !is_over(alert)
}

impl Station {
    /// Whether this part tells people; a share leaves it to the rest.
    pub(super) fn tells(&self) -> bool {
        !matches!(self.tenure.part, Part::Share { .. })
    }

    /// What shares say of alerts; of rules that are judged here now they know nothing any more.
    pub(super) fn others(&self) -> impl Iterator<Item = &Alert> {
        let all = self.follower.iter().flat_map(Follower::alerts);
        all.filter(|alert| !self.judge.judges(&alert.rule))
    }

    /// Takes what shares wrote.
    pub(super) fn follow(&mut self, now: Timestamp) -> Result<(), StationError> {
        let Some(follower) = self.follower.as_mut().filter(|follower| follower.due <= now) else { return Ok(()) };
        follower.due = now + FOLLOW_INTERVAL;
        let read = follower.read(self.log.as_ref());
        let news = std::mem::take(&mut follower.news);
        let is_news = !news.is_empty();
        let mut seen = HashSet::new();
        for heard in news {
            if self.judge.judges(&heard.alert().rule) {
                continue;
            }
            match heard {
                News::Changed(alert) => self.observe(&alert, &mut seen, now),
                News::Refreshed(alert) => self.dispatcher.refresh(&alert, now),
            }
        }
        if is_news {
            // That it was heard is written down before anybody is told: whoever comes next tells nothing twice.
            self.save_state(now)?;
        }
        read
    }

    /// Ends, for those who heard of them, alerts that no part has had for a while: what moves from one to another is nobody's for a
    /// moment. `present`: those that are alive.
    pub(super) fn end_missing(&mut self, present: &BTreeSet<String>, now: Timestamp) {
        let Some(follower) = &mut self.follower else { return };
        follower.missing.retain(|fingerprint, _| !present.contains(fingerprint));
        let firing = self.dispatcher.alerts().filter(|alert| alert.state == AlertState::Firing);
        let mut over = Vec::new();
        for alert in firing.filter(|alert| !present.contains(&alert.fingerprint())) {
            let since = *follower.missing.entry(alert.fingerprint()).or_insert(now);
            if now - since >= REMOVED_AFTER {
                over.push(Alert { state: AlertState::Resolved, resolved_at: Some(now), ..alert.clone() });
            }
        }
        for alert in over {
            self.dispatcher.observe(&alert, now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidewatch_model::NoticeStatus;
    use tidewatch_notifiers::sample;

    fn alert(state: AlertState, fired: i64) -> Alert {
        let mut alert = sample(NoticeStatus::Firing).alerts.remove(0);
        (alert.state, alert.fired_at) = (state, Some(Timestamp::from_seconds(fired)));
        alert
    }

    fn heard(follower: &mut Follower, key: &str, alert: Option<&Alert>) -> String {
        let value = alert.map(|alert| serde_json::to_vec(alert).unwrap());
        match follower.apply(key, value.as_deref()).unwrap() {
            None => "nothing".to_string(),
            Some(News::Changed(alert)) => format!("{} {}", alert.state, alert.fired_at.unwrap().0 / 1_000_000),
            Some(News::Refreshed(_)) => "refreshed".to_string(),
        }
    }

    #[test]
    fn of_each_share_the_newest_tenant_is_heard_and_nothing_twice() {
        let mut follower = Follower::default();
        let (firing, over) = (alert(AlertState::Firing, 1), alert(AlertState::Resolved, 1));
        let key = |epoch: &str| format!("share-0/{epoch}/alert/sample/x");
        assert_eq!(heard(&mut follower, "rest/01/alert/sample/x", Some(&firing)), "nothing", "that is ours");
        assert_eq!(heard(&mut follower, "alert/sample/x", Some(&firing)), "nothing", "that is a single engine's");
        assert_eq!(heard(&mut follower, &key("01"), Some(&alert(AlertState::Pending, 1))), "nothing");
        assert_eq!(heard(&mut follower, &key("01"), Some(&firing)), "firing 1");
        assert_eq!(heard(&mut follower, &key("01"), Some(&firing)), "nothing", "again");
        let hotter = Alert { last_match: Timestamp(7), ..firing.clone() };
        assert_eq!(heard(&mut follower, &key("01"), Some(&hotter)), "refreshed");
        assert_eq!(heard(&mut follower, &key("01"), Some(&over)), "resolved 1");
        // The next tenant judges again.
        assert_eq!(heard(&mut follower, &key("02"), Some(&firing)), "nothing", "that was before its end");
        assert_eq!(heard(&mut follower, &key("02"), Some(&over)), "nothing");
        assert_eq!(heard(&mut follower, &key("02"), Some(&alert(AlertState::Firing, 5))), "firing 5");
        follower.apply("share-0/02/position", Some(b"{}")).unwrap();
        // Its predecessor does not know that it is over.
        assert_eq!(heard(&mut follower, &key("01"), Some(&alert(AlertState::Firing, 9))), "nothing");
        assert_eq!(follower.alerts().count(), 1);
        assert_eq!(heard(&mut follower, &key("02"), None), "nothing");
        assert_eq!(follower.alerts().count(), 0);
        assert!(follower.apply(&key("02"), Some(b"{")).is_err());
    }
}
