//! Notices on their way: some in flight per target, those of a group in order, tried again with backoff, given up in the end.

use std::collections::{BTreeMap, HashSet, VecDeque};

use tidewatch_model::limits::{NOTICES_WAITING, NOTIFY_BUDGET};
use tidewatch_model::ports::Delivery;
use tidewatch_model::{Notice, Severity, Span, Timestamp};

/// The shortest wait before another attempt; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Span = Span::seconds(1);
/// The longest wait before another attempt, unless the other side asks for more.
const LONGEST_WAIT: Span = Span::seconds(60);

/// Notices that are handed to a target at once.
pub const IN_FLIGHT: usize = 64;

/// A notice that waits.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    notice: Notice,
    severity: Severity,
    /// When it was tried first.
    since: Option<Timestamp>,
    attempts: u32,
    not_before: Timestamp,
    in_flight: bool,
    /// An attempt may have reached them.
    perhaps: bool,
}

/// How an attempt changed the outbox.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// It was delivered, after so many attempts.
    Delivered {
        /// Attempts made.
        attempts: u32,
    },
    /// It will be tried again.
    Retrying {
        /// Not before.
        at: Timestamp,
    },
    /// It was given up.
    GaveUp {
        /// Attempts made.
        attempts: u32,
        /// The last error.
        error: String,
        /// Whether an attempt may have reached them all the same.
        perhaps: bool,
    },
    /// The outbox does not know this notice.
    Unknown,
}

/// Notices waiting, per target in order.
#[derive(Debug, Default)]
pub struct Outbox {
    targets: BTreeMap<String, VecDeque<Waiting>>,
}

impl Outbox {
    /// Takes a notice; one that is waiting already is not taken twice. `perhaps`: it may have been delivered before a restart, and nobody lived
    /// to hear the answer. Returns what had to be given up for it, because
    /// too many wait for its target: the oldest of the least urgent that are not in flight, and whether it may have been
    /// delivered.
    pub fn push(&mut self, notice: Notice, perhaps: bool) -> Option<(Notice, bool)> {
        let queue = self.targets.entry(notice.target.clone()).or_default();
        if queue.iter().any(|waiting| waiting.notice.notice_id == notice.notice_id) {
            return None;
        }
        queue.push_back(Waiting {
            severity: notice.severity(),
            notice,
            since: None,
            attempts: 0,
            not_before: Timestamp::MIN,
            in_flight: false,
            perhaps,
        });
        if queue.len() <= NOTICES_WAITING {
            return None;
        }
        let free = queue.iter().enumerate().filter(|(_, waiting)| !waiting.in_flight);
        let (least, _) = free.min_by_key(|(index, waiting)| (waiting.severity, *index))?;
        queue.remove(least).map(|waiting| (waiting.notice, waiting.perhaps))
    }

    /// The notices to try now, marked as in flight until [`Outbox::done`] tells how it went: for each target so many of different groups, the
    /// most urgent first, and no more before all of them are done.
    pub fn due(&mut self, now: Timestamp) -> Vec<Notice> {
        let mut due = Vec::new();
        for queue in self.targets.values_mut() {
            if queue.iter().any(|waiting| waiting.in_flight) {
                continue;
            }
            // One that waits for its next attempt holds up those of its own group only.
            let mut held: HashSet<&str> = HashSet::new();
            let heads = queue.iter().enumerate().filter(|(_, waiting)| held.insert(&waiting.notice.group_key));
            let free = heads.filter(|(_, waiting)| waiting.not_before <= now);
            let mut free: Vec<(Severity, usize)> = free.map(|(index, waiting)| (waiting.severity, index)).collect();
            free.sort_by_key(|(severity, index)| (std::cmp::Reverse(*severity), *index));
            for (_, index) in free.into_iter().take(IN_FLIGHT) {
                let next = &mut queue[index];
                next.in_flight = true;
                next.attempts += 1;
                next.since.get_or_insert(now);
                due.push(next.notice.clone());
            }
        }
        due
    }

    /// One that was in flight was not tried after all: the one before it failed.
    pub fn put_back(&mut self, target: &str, notice_id: &str) {
        let queue = self.targets.get_mut(target).into_iter().flatten();
        if let Some(waiting) = queue.into_iter().find(|waiting| waiting.notice.notice_id == notice_id) {
            waiting.in_flight = false;
            waiting.attempts -= 1;
            if waiting.attempts == 0 {
                waiting.since = None;
            }
        }
    }

    /// An attempt ended. A delivery that fails waits longer each time; one that has failed for the whole budget is given
    /// up, so that it does not hold back what comes after it.
    pub fn done(&mut self, target: &str, notice_id: &str, delivery: &Delivery, now: Timestamp) -> Progress {
        let Some(queue) = self.targets.get_mut(target) else { return Progress::Unknown };
        let Some(index) = queue.iter().position(|waiting| waiting.notice.notice_id == notice_id) else {
            return Progress::Unknown;
        };
        let waiting = &mut queue[index];
        waiting.in_flight = false;
        let attempts = waiting.attempts;
        let progress = match delivery {
            Delivery::Delivered => Progress::Delivered { attempts },
            Delivery::GiveUp { error } => Progress::GaveUp { attempts, error: error.clone(), perhaps: waiting.perhaps },
            Delivery::Retry { after, error, perhaps } => {
                waiting.perhaps |= perhaps;
                let doubled = Span(FIRST_WAIT.0 << attempts.saturating_sub(1).min(10)).min(LONGEST_WAIT);
                let at = now.saturating_add(doubled.max(after.unwrap_or(Span::ZERO)));
                if at - waiting.since.unwrap_or(now) > NOTIFY_BUDGET {
                    Progress::GaveUp { attempts, error: error.clone(), perhaps: waiting.perhaps }
                } else {
                    waiting.not_before = at;
                    return Progress::Retrying { at };
                }
            }
        };
        queue.remove(index);
        progress
    }

    /// How many wait, those in flight included.
    pub fn waiting(&self) -> usize {
        self.targets.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidewatch_model::{Alert, AlertState, NoticeStatus};

    fn notice(id: &str, target: &str) -> Notice {
        Notice {
            notice_id: id.to_string(),
            receiver: String::new(),
            target: target.to_string(),
            group_key: String::new(),
            group_labels: tidewatch_model::alert::Labels::new(),
            status: NoticeStatus::Firing,
            reason: String::new(),
            alerts: vec![],
            ts: Timestamp(0),
        }
    }

    fn urgent() -> Alert {
        Alert {
            state: AlertState::Firing,
            ..Alert::new(tidewatch_model::alert::Labels::new(), Severity::Critical, Timestamp(0))
        }
    }

    fn ids(notices: Vec<Notice>) -> Vec<String> {
        notices.into_iter().map(|notice| notice.notice_id).collect()
    }

    fn retry(after: Option<Span>) -> Delivery {
        Delivery::Retry { after, error: "busy".to_string(), perhaps: false }
    }

    #[test]
    fn one_in_flight_per_target_in_order() {
        let mut outbox = Outbox::default();
        let now = Timestamp(0);
        for (id, target) in [("a", "x"), ("b", "x"), ("c", "y"), ("a", "x")] {
            assert_eq!(outbox.push(notice(id, target), false), None);
        }
        assert_eq!(ids(outbox.due(now)), ["a", "c"]);
        assert!(outbox.due(now).is_empty());
        assert_eq!(outbox.done("x", "a", &Delivery::Delivered, now), Progress::Delivered { attempts: 1 });
        assert_eq!(ids(outbox.due(now)), ["b"]);
        assert_eq!(outbox.done("x", "zzz", &Delivery::Delivered, now), Progress::Unknown);
        assert_eq!(outbox.waiting(), 2);
    }

    #[test]
    fn waits_double_honour_the_other_side_and_end() {
        let mut outbox = Outbox::default();
        let mut now = Timestamp(0);
        outbox.push(notice("a", "x"), false);
        let mut waits = Vec::new();
        loop {
            assert_eq!(ids(outbox.due(now)), ["a"]);
            let after = (waits.len() == 2).then_some(Span::seconds(30));
            match outbox.done("x", "a", &retry(after), now) {
                Progress::Retrying { at } => {
                    assert!(outbox.due(Timestamp(at.0 - 1)).is_empty());
                    waits.push((at - now).0 / 1_000_000);
                    now = at;
                }
                Progress::GaveUp { error, .. } => break assert_eq!(error, "busy"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits[..7], [1, 2, 30, 8, 16, 32, 60]);
        assert!(now - Timestamp(0) <= NOTIFY_BUDGET);
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn what_may_have_been_delivered_before_a_restart_may_have_been_for_ever() {
        let mut outbox = Outbox::default();
        for (id, again) in [("a", true), ("b", false)] {
            outbox.push(notice(id, id), again);
            outbox.due(Timestamp(0));
            let refused = Delivery::GiveUp { error: "no".to_string() };
            let done = outbox.done(id, id, &refused, Timestamp(0));
            assert_eq!(done, Progress::GaveUp { attempts: 1, error: "no".to_string(), perhaps: again });
        }
    }

    #[test]
    fn groups_go_together_the_most_urgent_first() {
        let mut outbox = Outbox::default();
        let now = Timestamp(0);
        for index in 0..100 {
            let mut notice = notice(&format!("{index:03}"), "x");
            notice.group_key = format!("g{}", index % 90);
            if index == 95 || index == 50 {
                notice.alerts = vec![urgent()];
            }
            outbox.push(notice, false);
        }
        let first = ids(outbox.due(now));
        assert_eq!((first.len(), first[0].as_str(), first[1].as_str()), (IN_FLIGHT, "050", "000"));
        assert!(outbox.due(now).is_empty(), "not before these are done");
        for id in &first[1..] {
            outbox.done("x", id, &Delivery::Delivered, now);
        }
        outbox.put_back("x", "050");
        // Of the fifth group the next is urgent, and has its turn.
        assert_eq!(ids(outbox.due(now))[..2], ["050", "095"]);
    }

    #[test]
    fn a_full_outbox_gives_up_the_oldest() {
        let mut outbox = Outbox::default();
        for index in 0..NOTICES_WAITING {
            assert_eq!(outbox.push(notice(&index.to_string(), "x"), false), None);
        }
        assert_eq!(ids(outbox.due(Timestamp(0))), ["0"]);
        assert_eq!(outbox.push(notice("new", "x"), false).unwrap().0.notice_id, "1");
    }
}
