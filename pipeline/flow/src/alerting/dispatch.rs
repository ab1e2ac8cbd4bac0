//! Who is told what, and when: groups of alerts, and for each target what it was told last.
//!
//! It is pure: alerts and the time come in, notices go out, and the answer whether a notice was delivered comes back in. What a target
//! was told ([`Told`]) changes only with a delivery, so a crash repeats a notice at most.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use tidewatch_model::alert::{Labels, hex};
use tidewatch_model::{Alert, AlertState, Notice, NoticeStatus, Span, Timestamp};

use super::mute::{Ack, Inhibitor, SILENCE_KEPT, Silence, SilenceState};
use super::policy::Policy;
use super::route::{GroupBy, Route};
use super::told::{Seen, Told, Why, decide};

/// An alert that fires, or fired.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    alert: Alert,
    labels: Labels,
    groups: BTreeSet<GroupId>,
}

/// A group: its route, by its place among all, and its key. Routes side by side may have the same key.
type GroupId = (usize, String);

impl Known {
    fn fires(&self) -> bool {
        self.alert.state == AlertState::Firing
    }
}

/// Alerts that are told together.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    /// Its route, by its place among all.
    route: usize,
    labels: Labels,
    members: BTreeSet<String>,
    next: Timestamp,
}

/// What a notice says when it is delivered.
#[derive(Debug, Clone, PartialEq)]
struct Promise {
    notice_id: String,
    told: Told,
}

/// What keeps an alert from being told now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Muting {
    /// Ids of silences.
    pub silenced_by: Vec<String>,
    /// The fingerprint of the alert that inhibits it.
    pub inhibited_by: Vec<String>,
}

/// A group, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupView {
    /// Its labels.
    pub labels: Labels,
    /// Its receiver.
    pub receiver: String,
    /// Its alerts, by fingerprint.
    pub members: Vec<String>,
}

/// A group of one target: by these what was told is kept.
pub type Place = (String, String);

/// All groups, and what everybody was told.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    policy: Policy,
    alerts: BTreeMap<String, Known>,
    groups: BTreeMap<GroupId, Group>,
    told: BTreeMap<Place, Told>,
    in_flight: BTreeMap<Place, Promise>,
    silences: BTreeMap<String, Silence>,
    acks: BTreeMap<String, Ack>,
}

/// When a group that waits for nothing is looked at again, while one of its alerts is muted.
const MUTED_RECHECK: Span = Span::seconds(5);
/// When what could not be delivered is decided anew, in a group that waits for nothing.
const DECIDED_ANEW: Span = Span::minutes(5);

impl Dispatcher {
    /// Nobody was told anything.
    pub fn new(policy: Policy) -> Dispatcher {
        Dispatcher {
            policy,
            alerts: BTreeMap::new(),
            groups: BTreeMap::new(),
            told: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            silences: BTreeMap::new(),
            acks: BTreeMap::new(),
        }
    }

    /// Puts back what was told before a restart; alerts come after it.
    pub fn restore(&mut self, told: impl IntoIterator<Item = (Place, Told)>) {
        self.told.extend(told);
    }

    /// Puts back a notice that was decided before a restart and of which nobody knows whether it was delivered. False, when its
    /// target is none any more.
    pub fn resume(&mut self, notice: &Notice, told: Told) -> bool {
        let known = self.policy.receivers.values().flatten().any(|target| target.name == notice.target);
        if known {
            let place = (notice.group_key.clone(), notice.target.clone());
            self.in_flight.insert(place, Promise { notice_id: notice.notice_id.clone(), told });
        }
        known
    }

    /// Whether a target hears of what is over.
    pub fn hears_the_end(&self, target: &str) -> bool {
        self.policy.receivers.values().flatten().any(|known| known.name == target && known.send_resolved)
    }

    /// Takes an alert as it is now. Only those that fire or fired are told of.
    pub fn observe(&mut self, alert: &Alert, now: Timestamp) {
        let fingerprint = alert.fingerprint();
        if !matches!(alert.state, AlertState::Firing | AlertState::Resolved) {
            return;
        }
        let labels = alert.wire_labels();
        let known = self.alerts.remove(&fingerprint);
        let was_known = known.is_some();
        if !was_known && alert.state == AlertState::Resolved && !self.was_told(&fingerprint) {
            return;
        }
        let mut groups = known.map(|known| known.groups).unwrap_or_default();
        let routes = self.policy.routes();
        let mut places: Vec<(usize, String, Labels)> = Vec::new();
        for route in self.policy.trees.iter().flat_map(|tree| tree.matching(&labels)) {
            // Severity may change within one alert: by all labels means by those that make its identity.
            let all = if route.group_by == GroupBy::All { &alert.labels } else { &labels };
            let group = route.group_labels(all);
            let index = routes.iter().position(|other| std::ptr::eq(*other, route)).unwrap_or(0);
            places.push((index, route.group_key(&group), group));
        }
        for (index, key, labels) in places {
            let route = routes[index];
            let told_at = self.told.range((key.clone(), String::new())..).next();
            let told_at = told_at.filter(|((group, _), _)| *group == key).map(|(_, told)| told.at);
            let group = self.groups.entry((index, key.clone())).or_insert_with(|| Group {
                route: index,
                labels,
                members: BTreeSet::new(),
                // One that was told before a restart goes on in its step.
                next: match told_at {
                    Some(at) => at.saturating_add(route.group_interval).max(now),
                    None => now.saturating_add(route.group_wait),
                },
            });
            group.members.insert(fingerprint.clone());
            groups.insert((index, key));
        }
        // Whoever was told that it fires stays in the know.
        for key in &groups {
            if let Some(group) = self.groups.get_mut(key)
                && routes[group.route].group_interval == Span::ZERO
            {
                group.next = group.next.min(now);
            }
        }
        self.alerts.insert(fingerprint, Known { alert: alert.clone(), labels, groups });
    }

    /// Takes what changed in an alert that goes on: values, texts, severity.
    pub fn refresh(&mut self, alert: &Alert, now: Timestamp) {
        let Some(known) = self.alerts.get_mut(&alert.fingerprint()) else { return };
        if known.alert.state != alert.state || known.alert == *alert {
            return;
        }
        if known.labels == alert.wire_labels() {
            known.alert = alert.clone();
        } else {
            // Another severity: other routes, perhaps.
            self.observe(alert, now);
        }
    }

    /// Forgets alerts that fire and are not judged here any more; nobody is told anything.
    pub fn retain_firing(&mut self, is_judged: &dyn Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .alerts
            .iter()
            .filter(|(fingerprint, known)| known.fires() && !is_judged(fingerprint))
            .map(|(fingerprint, _)| fingerprint.clone())
            .collect();
        for fingerprint in gone {
            let Some(known) = self.alerts.remove(&fingerprint) else { continue };
            for key in known.groups {
                if let Some(group) = self.groups.get_mut(&key) {
                    group.members.remove(&fingerprint);
                    if group.members.is_empty() {
                        self.groups.remove(&key);
                    }
                }
                for (_, told) in self.told.range_mut(places_of(&key.1)).take_while(|(place, _)| place.0 == key.1) {
                    told.firing.remove(&fingerprint);
                    told.hidden.remove(&fingerprint);
                }
            }
        }
        // What was told of groups that no route makes any more is nobody's.
        let keys: BTreeSet<&String> = self.groups.keys().map(|(_, key)| key).collect();
        self.told.retain(|place, _| keys.contains(&place.0));
    }

    /// The alerts that fire, and those that are over and still to be told.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().map(|known| &known.alert)
    }

    fn was_told(&self, fingerprint: &str) -> bool {
        self.told.values().any(|told| told.knows(fingerprint))
    }

    /// When there is something to do next.
    pub fn next_at(&self) -> Timestamp {
        self.groups.values().map(|group| group.next).min().unwrap_or(Timestamp::MAX)
    }

    /// The notices that are due. Each is in flight until [`Dispatcher::delivered`] or [`Dispatcher::gave_up`].
    pub fn tick(&mut self, now: Timestamp) -> Vec<Notice> {
        if self.next_at() > now {
            return vec![];
        }
        self.silences.retain(|_, silence| silence.ends_at.saturating_add(SILENCE_KEPT) > now);
        let due: Vec<GroupId> =
            self.groups.iter().filter(|(_, group)| group.next <= now).map(|(key, _)| key.clone()).collect();
        let muted = self.muted(now);
        let routes: Vec<Route> = self.policy.routes().into_iter().cloned().collect();
        let mut notices = Vec::new();
        for id in due {
            notices.extend(self.flush(&id, &routes, &muted, now));
            self.tidy(&id);
        }
        notices
    }

    /// The alerts that inhibit others.
    fn inhibitor(&self) -> Inhibitor<'_> {
        let firing = self.alerts.iter().filter(|(_, known)| known.fires());
        let labels = firing.map(|(fingerprint, known)| (fingerprint.as_str(), &known.labels));
        Inhibitor::new(&self.policy.inhibit_rules, labels)
    }

    /// Fingerprints of alerts that silences or other alerts mute.
    fn muted(&self, now: Timestamp) -> BTreeSet<String> {
        let active: Vec<&Silence> =
            self.silences.values().filter(|silence| silence.state(now) == SilenceState::Active).collect();
        if active.is_empty() && self.policy.inhibit_rules.is_empty() {
            return BTreeSet::new();
        }
        let inhibitor = self.inhibitor();
        let is_muted = |known: &Known| {
            active.iter().any(|silence| silence.mutes(&known.labels, now))
                || inhibitor.source_of(&known.labels).is_some()
        };
        let muted = self.alerts.iter().filter(|(_, known)| is_muted(known));
        muted.map(|(fingerprint, _)| fingerprint.clone()).collect()
    }

    fn flush(&mut self, id: &GroupId, routes: &[Route], muted: &BTreeSet<String>, now: Timestamp) -> Vec<Notice> {
        let key = &id.1;
        let Some(group) = self.groups.get_mut(id) else { return vec![] };
        let route = &routes[group.route];
        group.next = if route.group_interval == Span::ZERO {
            // Until something changes, or it is to be repeated.
            now.saturating_add(route.repeat_interval).saturating_add(Span::millis(1))
        } else {
            now.saturating_add(route.group_interval)
        };
        let group = group.clone();
        let is_mute = self.policy.is_mute(route, now);
        let mut notices = Vec::new();
        let targets = self.policy.receivers.get(&route.receiver).cloned().unwrap_or_default();
        let mut again = Timestamp::MAX;
        let mut escalated = Timestamp::MAX;
        for target in targets {
            let place = (key.clone(), target.name.clone());
            if self.in_flight.contains_key(&place) {
                // Decided anew when it is known whether that one was delivered.
                continue;
            }
            if let Some(told) = self.told.get_mut(&place) {
                // What is better than it was told is told again when it is as bad again.
                for (fingerprint, before) in &mut told.firing {
                    if let Some(alert) = self.alerts.get(fingerprint).map(|known| &known.alert) {
                        before.stale &= alert.stale_since.is_some();
                        before.flaps &= alert.flaps;
                        before.severity = before.severity.min(alert.severity);
                    }
                }
            }
            let told = self.told.get(&place);
            let was_told = |fingerprint: &String| told.is_some_and(|told| told.knows(fingerprint));
            let (mut firing, mut resolved) = (BTreeMap::new(), BTreeSet::new());
            for fingerprint in &group.members {
                let Some(known) = self.alerts.get(fingerprint) else { continue };
                let is_muted = is_mute || muted.contains(fingerprint);
                let due = escalation(route, known, self.acks.get(fingerprint), now);
                // Whoever heard of it is not told that it is over because somebody else knows of it.
                if known.fires() && !is_muted && due > now && !was_told(fingerprint) {
                    escalated = escalated.min(due);
                } else if known.fires() && is_muted {
                    again = again.min(now.saturating_add(MUTED_RECHECK));
                } else if known.fires() {
                    let alert = &known.alert;
                    let each_time = route.group_interval == Span::ZERO;
                    let episode = alert.fired_at.filter(|_| each_time).unwrap_or(Timestamp(0));
                    let (stale, flaps) = (alert.stale_since.is_some(), alert.flaps);
                    let seen = Seen { severity: alert.severity, stale, flaps, episode };
                    firing.insert(fingerprint.clone(), seen);
                } else if was_told(fingerprint) {
                    // Whoever was told that it fires is told that it is over, muted or not; and nobody else.
                    resolved.insert(fingerprint.clone());
                }
            }
            let Some(mut why) = decide(&firing, &resolved, told, target.send_resolved, route.repeat_interval, now)
            else {
                let repeated =
                    told.map(|told| told.at.saturating_add(route.repeat_interval).saturating_add(Span::millis(1)));
                again = again.min(repeated.filter(|at| *at > now).unwrap_or(Timestamp::MAX));
                continue;
            };
            if why == Why::Repeat {
                let ends = firing.keys().map(|fingerprint| self.acked_until(fingerprint, now));
                // Somebody knows of all of them.
                if let Some(end) = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().min()) {
                    again = again.min(end);
                    continue;
                }
            }
            // What is muted and was told stays told: its end is to be told too.
            let before = told.into_iter().flat_map(|told| told.firing.keys().chain(&told.hidden));
            let still = |fingerprint: &&String| {
                self.alerts.get(*fingerprint).is_some_and(Known::fires) && !firing.contains_key(*fingerprint)
            };
            let hidden: BTreeSet<String> = before.filter(still).cloned().collect();
            if why == Why::AllResolved && !hidden.is_empty() {
                why = Why::SomeResolved;
            }
            let before = told.map_or(Timestamp(0), |told| told.at);
            let promised = Told { at: now, firing, resolved, hidden };
            let shown = promised.firing.keys().chain(promised.resolved.iter().filter(|_| target.send_resolved));
            let alerts: Vec<Alert> =
                shown.filter_map(|fingerprint| self.alerts.get(fingerprint)).map(|known| known.alert.clone()).collect();
            let status = if promised.firing.is_empty() { NoticeStatus::Resolved } else { NoticeStatus::Firing };
            let notice_id = notice_id(&place, &promised, why, before, &alerts);
            if alerts.is_empty() {
                // It does not hear of what is over.
                self.told.insert(place, promised);
                continue;
            }
            notices.push(Notice {
                notice_id: notice_id.clone(),
                receiver: route.receiver.clone(),
                target: target.name,
                group_key: key.clone(),
                group_labels: group.labels.clone(),
                status,
                reason: why.to_string(),
                ts: alerts.iter().map(last_change).max().unwrap_or(now),
                alerts,
            });
            self.in_flight.insert(place, Promise { notice_id, told: promised });
        }
        if let Some(group) = self.groups.get_mut(id) {
            let again = if route.group_interval == Span::ZERO { again } else { Timestamp::MAX };
            group.next = group.next.min(again).min(escalated);
        }
        notices
    }

    /// What a notice will have told when it is delivered.
    pub fn promised(&self, notice: &Notice) -> Option<&Told> {
        let promise = self.in_flight.get(&(notice.group_key.clone(), notice.target.clone()))?;
        (promise.notice_id == notice.notice_id).then_some(&promise.told)
    }

    /// A notice was delivered: what its target knows now, to be kept.
    pub fn delivered(&mut self, notice: &Notice, now: Timestamp) -> Option<Told> {
        let place = (notice.group_key.clone(), notice.target.clone());
        self.promised(notice)?;
        let told = self.in_flight.remove(&place)?.told;
        self.told.insert(place, told.clone());
        self.look_again(&notice.group_key, now);
        for index in 0..self.policy.routes().len() {
            self.tidy(&(index, notice.group_key.clone()));
        }
        Some(told)
    }

    /// A notice was given up: what is to be told is decided anew at the group's next turn. When its target may have it all the
    /// same (`perhaps`), nobody knows what it believes: what is to be kept then.
    pub fn gave_up(&mut self, notice: &Notice, perhaps: bool, now: Timestamp) -> Option<Told> {
        let place = (notice.group_key.clone(), notice.target.clone());
        self.promised(notice)?;
        let promise = self.in_flight.remove(&place)?;
        self.look_again(&notice.group_key, now.saturating_add(DECIDED_ANEW));
        if !perhaps {
            return None;
        }
        let told = self.told.entry(place).or_default();
        // They may believe either: both that it fires and that it is over is told again.
        let began = promise.told.firing.into_keys().filter(|key| !told.firing.contains_key(key));
        let ended = promise.told.resolved.into_iter().filter(|key| told.firing.contains_key(key));
        let unsure: Vec<String> = began.chain(ended).collect();
        for fingerprint in unsure {
            told.firing.remove(&fingerprint);
            told.resolved.remove(&fingerprint);
            told.hidden.insert(fingerprint);
        }
        Some(told.clone())
    }

    /// A notice was not sent, and will not be: it is decided anew at once.
    pub fn take_back(&mut self, notice: &Notice, now: Timestamp) {
        if self.promised(notice).is_some() {
            self.in_flight.remove(&(notice.group_key.clone(), notice.target.clone()));
            let groups = self.groups.iter_mut().filter(|((_, key), _)| *key == notice.group_key);
            groups.for_each(|(_, group)| group.next = now);
        }
    }

    /// In a group that waits for nothing, what changed while a notice was in flight was not decided.
    fn look_again(&mut self, key: &str, at: Timestamp) {
        for (index, route) in self.policy.routes().into_iter().enumerate() {
            if let Some(group) = self.groups.get_mut(&(index, key.to_string()))
                && route.group_interval == Span::ZERO
            {
                group.next = group.next.min(at);
            }
        }
    }

    /// Forgets alerts that are over and of which nobody is to be told, groups without alerts, and what was told of them.
    fn tidy(&mut self, id: &GroupId) {
        let key = &id.1;
        let in_flight = self.in_flight.range(places_of(key)).next().is_some_and(|(place, _)| place.0 == *key);
        let Some(group) = self.groups.get_mut(id).filter(|_| !in_flight) else { return };
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for (_, told) in self.told.range(places_of(key)).take_while(|(place, _)| place.0 == *key) {
            needed.extend(told.firing.keys().chain(&told.hidden).cloned());
        }
        let alerts = &self.alerts;
        let over: Vec<String> = group
            .members
            .iter()
            .filter(|fingerprint| !needed.contains(*fingerprint) && !alerts.get(*fingerprint).is_some_and(Known::fires))
            .cloned()
            .collect();
        for fingerprint in over {
            group.members.remove(&fingerprint);
            if let Some(known) = self.alerts.get_mut(&fingerprint) {
                known.groups.remove(id);
                if known.groups.is_empty() {
                    self.alerts.remove(&fingerprint);
                }
            }
        }
        if group.members.is_empty() {
            self.groups.remove(id);
            let of_group = self.told.range(places_of(key)).take_while(|(place, _)| place.0 == *key);
            let nothing = of_group.filter(|(_, told)| told.firing.is_empty() && told.hidden.is_empty());
            let nothing: Vec<Place> = nothing.map(|(place, _)| place.clone()).collect();
            nothing.iter().for_each(|place| drop(self.told.remove(place)));
        }
    }

    /// What everybody was told, by group and target.
    pub fn told(&self) -> impl Iterator<Item = (&Place, &Told)> {
        self.told.iter()
    }

    /// Adds a silence, or replaces the one with its id.
    pub fn set_silence(&mut self, silence: Silence) {
        self.silences.insert(silence.id.clone(), silence);
        self.look_at_all_again();
    }

    /// These acks hold, and no others.
    pub fn set_acks(&mut self, acks: impl IntoIterator<Item = Ack>) {
        self.acks = acks.into_iter().map(|ack| (ack.fingerprint.clone(), ack)).collect();
        self.look_at_all_again();
    }

    /// Alerts that were muted may be due at once.
    fn look_at_all_again(&mut self) {
        let routes = self.policy.routes();
        for group in self.groups.values_mut().filter(|group| routes[group.route].group_interval == Span::ZERO) {
            group.next = group.next.min(Timestamp(0));
        }
    }

    /// Until when somebody knows of an alert.
    fn acked_until(&self, fingerprint: &str, now: Timestamp) -> Option<Timestamp> {
        let fired_at = self.alerts.get(fingerprint)?.alert.fired_at;
        let ack = self.acks.get(fingerprint).filter(|ack| ack.holds(fired_at, now))?;
        Some(ack.until.unwrap_or(Timestamp::MAX))
    }

    /// What keeps an alert from being told now.
    pub fn muting(&self, labels: &Labels, now: Timestamp) -> Muting {
        let silences = self.silences.values().filter(|silence| silence.mutes(labels, now));
        Muting {
            silenced_by: silences.map(|silence| silence.id.clone()).collect(),
            inhibited_by: self.inhibitor().source_of(labels).map(str::to_string).into_iter().collect(),
        }
    }

    /// The groups, for people.
    pub fn groups(&self) -> Vec<GroupView> {
        let routes = self.policy.routes();
        let view = |group: &Group| GroupView {
            labels: group.labels.clone(),
            receiver: routes[group.route].receiver.clone(),
            members: group.members.iter().cloned().collect(),
        };
        self.groups.values().map(view).collect()
    }
}

/// When a route tells of an alert: at once, or once it has fired for so long that somebody should have known of it.
fn escalation(route: &Route, known: &Known, ack: Option<&Ack>, now: Timestamp) -> Timestamp {
    if route.escalate_after == Span::ZERO {
        return Timestamp::MIN;
    }
    let fired_at = known.alert.fired_at;
    let after = fired_at.unwrap_or(known.alert.active_at).saturating_add(route.escalate_after);
    match ack.filter(|ack| ack.holds(fired_at, now)) {
        Some(ack) => after.max(ack.until.unwrap_or(Timestamp::MAX)),
        None => after,
    }
}

/// Where what was told of a group begins.
fn places_of(key: &str) -> std::ops::RangeFrom<Place> {
    (key.to_string(), String::new())..
}

/// Event time of the last thing that happened to an alert.
fn last_change(alert: &Alert) -> Timestamp {
    let fired = alert.fired_at.unwrap_or(alert.active_at);
    fired.max(alert.resolved_at.unwrap_or(fired)).max(alert.stale_since.unwrap_or(fired))
}

/// The idempotency key: the same decision about the same alerts has the same one, also after a crash.
fn notice_id(place: &Place, told: &Told, why: Why, before: Timestamp, alerts: &[Alert]) -> String {
    let mut hasher = Sha256::new();
    let mut feed = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update([0xFF]);
    };
    feed(&place.0);
    feed(&place.1);
    feed(&why.to_string());
    feed(&before.0.to_string());
    told.firing.keys().for_each(|fingerprint| feed(fingerprint));
    feed("");
    told.resolved.iter().for_each(|fingerprint| feed(fingerprint));
    alerts.iter().for_each(|alert| feed(&alert.fired_at.unwrap_or(alert.active_at).0.to_string()));
    hex(&hasher.finalize()[..16])
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
