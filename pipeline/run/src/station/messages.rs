//! Telling people: one thread per target, so that one that hangs holds up nobody else.
//!
//! What is to be told is decided from the alerts and from what everybody was told last. Before a notice is sent, it is written down as an
//! intent, so that after a crash it is sent again under the same key; when it was delivered, what was told is written with the end
//! of the intent, in one append.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewatch_flow::alerting::{Place, Told};
use tidewatch_flow::outbox::{IN_FLIGHT, Progress};
use tidewatch_model::alert::hex;
use tidewatch_model::limits::RECORD_BYTES;
use tidewatch_model::ports::{Delivery, Notify, Record};
use tidewatch_model::{Alert, AlertState, Notice, Timestamp};

use super::scope::SHARE;
use super::state::read_compacted;
use super::{NOTICE_TOPIC, Part, SILENCES_INTERVAL, Station, StationError};
use crate::alert_rows::{NoticeOutcome, notice_batch};
use crate::judge::Judge;

/// How long a target's thread works at what it was handed, besides the attempt that it is at.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Receivers by name, and where their answers go.
type Inline = (BTreeMap<String, Arc<dyn Notify>>, Sender<Answer>);
/// How an attempt ended; none, when it was not made, since the one before it failed.
type Answer = (Notice, Option<Delivery>);

/// The receivers' threads.
pub struct Messages {
    receivers: BTreeMap<String, SyncSender<(Notice, Instant)>>,
    answers: Receiver<Answer>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// In simulations telling is a part of the step.
    inline: Option<Inline>,
}

impl Messages {
    /// A thread for each receiver; none in simulations, `inline`.
    pub fn start(receivers: Vec<Arc<dyn Notify>>, inline: bool) -> Messages {
        let (answer, answers) = channel();
        let mut messages =
            Messages { receivers: BTreeMap::new(), answers, threads: vec![], stop: Arc::default(), inline: None };
        if inline {
            let named = receivers.into_iter().map(|receiver| (receiver.target().to_string(), receiver));
            messages.inline = Some((named.collect(), answer));
            return messages;
        }
        for receiver in receivers {
            let (sender, inbox) = sync_channel::<(Notice, Instant)>(IN_FLIGHT);
            let name = receiver.target().to_string();
            let (answer, stop): (Sender<Answer>, _) = (answer.clone(), messages.stop.clone());
            let work = move || {
                while let Ok((notice, handed_at)) = inbox.recv() {
                    let delivery = receiver.notify(&notice);
                    let failed = matches!(delivery, Delivery::Retry { .. });
                    if answer.send((notice, Some(delivery))).is_err() {
                        return;
                    }
                    // Nobody is asked sixty times what was just refused, a stop waits for one attempt only, and what is urgent not for
                    // sixty that are slow; nor is anything told that somebody else has decided otherwise since.
                    if failed || stop.load(Ordering::Relaxed) || handed_at.elapsed() > BATCH_TIME {
                        inbox.try_iter().for_each(|(untried, _)| drop(answer.send((untried, None))));
                    }
                }
            };
            if let Ok(thread) = std::thread::Builder::new().name(format!("notify-{name}")).spawn(work) {
                messages.threads.push(thread);
                messages.receivers.insert(name, sender);
            }
        }
        messages
    }

    /// Hands a notice to its receiver; false, when that is gone or busy.
    fn send(&self, notice: &Notice) -> bool {
        match &self.inline {
            Some((receivers, answer)) => receivers.get(&notice.target).is_some_and(|receiver| {
                let delivery = receiver.notify(notice);
                answer.send((notice.clone(), Some(delivery))).is_ok()
            }),
            None => self
                .receivers
                .get(&notice.target)
                .is_some_and(|receiver| receiver.try_send((notice.clone(), Instant::now())).is_ok()),
        }
    }

    /// Ends the threads; each finishes the notice that it is at.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.receivers.clear();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// The beginning of the keys of what was told.
const TOLD: &str = "told/";

/// A notice that is about to be sent: its alerts are those of `told`, as they stand in the state.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Intent {
    notice: Notice,
    told: Told,
    /// See [`times_of`].
    #[serde(default)]
    times: String,
}

/// A hash of when alerts began: one that has ended and begun again since is another one, and the key of a notice is not for it.
fn times_of(alerts: &[Alert]) -> String {
    let mut hasher = Sha256::new();
    for alert in alerts {
        hasher.update(alert.fired_at.unwrap_or(alert.active_at).0.to_le_bytes());
    }
    hex(&hasher.finalize()[..8])
}

/// What a target was told of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    group_key: String,
    target: String,
    told: Told,
}

/// A longer text is compressed.
const PLAIN_BYTES: usize = 64 << 10;
/// What is left of a record for its key.
const SPARE_BYTES: usize = 16 << 10;
/// The longest text that is read: that of a group of millions of alerts.
const TEXT_BYTES: usize = 1 << 30;

/// As JSON, compressed where it is long: a group may have a hundred thousand alerts.
fn packed(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    match text.len() > PLAIN_BYTES {
        true => zstd::bulk::compress(&text, 1).unwrap_or(text),
        false => text,
    }
}

/// What [`packed`] made.
fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // JSON begins with a bracket, and what is compressed with a number of its own (RFC 8878, 3.1.1).
    if bytes.first() == Some(&b'{') {
        return serde_json::from_slice(bytes).map_err(|error| error.to_string());
    }
    let size = zstd::bulk::Decompressor::upper_bound(bytes).filter(|size| *size <= TEXT_BYTES);
    let size = size.ok_or_else(|| "neither JSON nor compressed".to_string())?;
    let text = zstd::bulk::decompress(bytes, size).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// The alerts of which a part knows best: where it follows others, those of rules that it judges.
fn own(judge: &Judge, follows: bool) -> impl Iterator<Item = &Alert> {
    judge.alerts().filter(move |alert| !follows || judge.judges(&alert.rule))
}

/// For tests: the alerts that an intent says fire.
#[cfg(test)]
pub(super) fn promised_in(record: &[u8]) -> Option<Vec<String>> {
    let intent = unpacked::<Intent>(record).ok()?;
    Some(intent.told.firing.into_keys().collect())
}

impl Station {
    /// Takes silences and acks that are new.
    pub(super) fn look_at_silences(&mut self, now: Timestamp) -> Result<(), StationError> {
        if self.silences_due > now {
            return Ok(());
        }
        self.silences_due = now + SILENCES_INTERVAL;
        let version = self.silences.refresh()?;
        if version != self.silences_known {
            self.silences_known = version;
            self.silences.all().into_iter().for_each(|silence| self.dispatcher.set_silence(silence));
        }
        let version = self.acks.refresh()?;
        if version != self.acks_known {
            self.acks_known = version;
            self.dispatcher.set_acks(self.acks.all());
        }
        Ok(())
    }

    /// Values and severities of alerts that go on.
    fn refresh(&mut self, now: Timestamp) {
        for alert in own(&self.judge, self.follower.is_some()) {
            self.dispatcher.refresh(alert, now);
        }
    }

    /// Takes a change of an alert. What happened to it before (`seen`), as when much is read at once, is told before.
    pub(super) fn observe(&mut self, alert: &Alert, seen: &mut HashSet<String>, now: Timestamp) {
        if !seen.insert(alert.fingerprint()) {
            self.decide(now);
            seen.clear();
        }
        self.dispatcher.observe(alert, now);
    }

    /// Decides what is due to be told.
    pub(super) fn decide(&mut self, now: Timestamp) {
        let notices = self.dispatcher.tick(now);
        self.decided.extend(notices);
    }

    /// Writes down what is to be told before anybody is.
    pub(super) fn tell(&mut self, now: Timestamp) -> Result<(), StationError> {
        if !self.tells() {
            return Ok(());
        }
        if self.dispatcher.next_at() <= now {
            // Values and severities of alerts that go on.
            self.refresh(now);
            self.decide(now);
        }
        if !self.decided.is_empty() {
            // Before they are taken: what can't be checked stays decided.
            self.tenure.check(self.log.as_ref())?;
        }
        let mut notices = std::mem::take(&mut self.decided);
        let mut refused: Vec<Notice> = Vec::new();
        if !notices.is_empty() {
            let record = |notice: &Notice| {
                let told = self.dispatcher.promised(notice).cloned().unwrap_or_default();
                let times = times_of(&notice.alerts);
                let intent = Intent { notice: Notice { alerts: vec![], ..notice.clone() }, told, times };
                Record { key: self.intent_key(notice), headers: vec![], value: Some(packed(&intent)), timestamp: now }
            };
            let mut records: Vec<Record> = notices.iter().map(record).collect();
            let fits =
                |record: &Record| record.value.as_ref().is_none_or(|value| value.len() + SPARE_BYTES <= RECORD_BYTES);
            if !records.iter().all(fits) {
                let (small, large): (Vec<_>, Vec<_>) =
                    notices.into_iter().zip(records).partition(|(_, record)| fits(record));
                (notices, records) = small.into_iter().unzip();
                refused = large.into_iter().map(|(notice, _)| notice).collect();
            }
            if let Err(error) = self.log.append(NOTICE_TOPIC, 0, &records) {
                // What can't be written down was not decided.
                notices.iter().chain(&refused).for_each(|notice| self.dispatcher.take_back(notice, now));
                return Err(error.into());
            }
        }
        self.refuse(refused, now)?;
        self.send(notices, false, now)
    }

    /// Gives up notices of groups that are too large to be written down.
    fn refuse(&mut self, notices: Vec<Notice>, now: Timestamp) -> Result<(), StationError> {
        let mut outcomes = Vec::new();
        for notice in notices {
            self.dispatcher.gave_up(&notice, false, now);
            let error =
                format!("a group of {} alerts is too large: expected more labels in group_by", notice.alerts.len());
            outcomes.push(NoticeOutcome { notice, outcome: "gave_up", attempts: 0, error: Some(error) });
        }
        *self.stats.notices.entry("gave_up").or_default() += outcomes.len() as u64;
        self.record_outcomes(&outcomes, vec![], now)
    }

    /// Puts notices into the outbox; what has to be given up for them is recorded. `again`: they may have been delivered before.
    fn send(&mut self, notices: Vec<Notice>, again: bool, now: Timestamp) -> Result<(), StationError> {
        let (mut given_up, mut told) = (Vec::new(), Vec::new());
        for notice in notices {
            if let Some((notice, perhaps)) = self.outbox.push(notice, again) {
                let known = self.dispatcher.gave_up(&notice, perhaps, now);
                told.extend(known.map(|known| ((notice.group_key.clone(), notice.target.clone()), known)));
                let error = Some("too many notices wait for this target".to_string());
                given_up.push(NoticeOutcome { notice, outcome: "gave_up", attempts: 0, error });
            }
        }
        *self.stats.notices.entry("gave_up").or_default() += given_up.len() as u64;
        self.record_outcomes(&given_up, told, now)
    }

    /// Intents belong to the part of the work, and not to its tenant: whoever takes it over sees them off.
    fn intent_key(&self, notice: &Notice) -> Vec<u8> {
        format!("{}{}", self.tenure.part.name(), notice.notice_id).into_bytes()
    }

    fn told_key(&self, (group, target): &Place) -> String {
        let hash = hex(&Sha256::digest(format!("{group}\u{ff}{target}"))[..16]);
        format!("{}{TOLD}{hash}", self.tenure.part.name())
    }

    /// What everybody was told before the start, the alerts as they stand, and the notices of which nobody knows whether they were
    /// delivered. The rest of a group tells for all: what a single engine told before it, and what shares told themselves, is its own.
    pub(super) fn restore_messages(&mut self, alerts: &[Alert], now: Timestamp) -> Result<(), StationError> {
        let name = self.tenure.part.name();
        let mut intents: Vec<(u64, Intent)> = Vec::new();
        let mut told: BTreeMap<Place, Told> = BTreeMap::new();
        let (mut moved, mut joined) = (Vec::new(), false);
        for (key, (offset, value)) in read_compacted(self.log.as_ref(), NOTICE_TOPIC)? {
            let text = String::from_utf8_lossy(&key).into_owned();
            let of_share = text.split_once('/').filter(|(part, _)| part.starts_with(SHARE));
            let bare = of_share.map_or_else(|| text.strip_prefix(&name).unwrap_or(&text), |(_, bare)| bare);
            let of_single = !text.strip_prefix(TOLD).unwrap_or(&text).contains('/');
            let comes = (of_single || text.starts_with(SHARE)) && matches!(self.tenure.part, Part::Rest { .. });
            let is_ours = if name.is_empty() { of_single } else { text.starts_with(&name) };
            if !comes && !is_ours {
                continue;
            }
            let wrong = |problem: String| StationError::State { topic: NOTICE_TOPIC, offset, problem };
            if bare.starts_with(TOLD) {
                let Kept { group_key, target, told: known } = unpacked(&value).map_err(wrong)?;
                // Several shares may have told of one group.
                told.entry((group_key, target)).or_default().join(known);
            } else {
                intents.push((offset, unpacked(&value).map_err(wrong)?));
            }
            if comes {
                if bare.starts_with(TOLD) {
                    joined = true;
                } else {
                    let ours = [name.as_bytes(), bare.as_bytes()].concat();
                    moved.push(Record { key: ours, headers: vec![], value: Some(value), timestamp: now });
                }
                moved.push(Record { key, headers: vec![], value: None, timestamp: now });
            }
        }
        if joined {
            let all = told.iter().filter_map(|(place, told)| self.told_record(place.clone(), told.clone(), now));
            moved.extend(all);
        }
        if !moved.is_empty() {
            self.log.append(NOTICE_TOPIC, 0, &moved)?;
        }
        self.kept_told = told.keys().cloned().collect();
        self.silences_known = self.silences.refresh()?;
        self.silences.all().into_iter().for_each(|silence| self.dispatcher.set_silence(silence));
        self.acks_known = self.acks.refresh()?;
        self.dispatcher.set_acks(self.acks.all());
        self.dispatcher.restore(told);
        intents.sort_by_key(|(offset, _)| *offset);
        let by_fingerprint: BTreeMap<String, &Alert> =
            alerts.iter().map(|alert| (alert.fingerprint(), alert)).collect();
        let mut again = Vec::new();
        for (_, Intent { mut notice, told, times }) in intents {
            let is =
                |fingerprint: &String, state| by_fingerprint.get(fingerprint).is_some_and(|alert| alert.state == state);
            // Only what is still true is sent again; anything else may have been heard, and is decided anew.
            let is_true = told.firing.keys().all(|fingerprint| is(fingerprint, AlertState::Firing))
                && told.resolved.iter().all(|fingerprint| is(fingerprint, AlertState::Resolved));
            let ends = told.resolved.iter().filter(|_| self.dispatcher.hears_the_end(&notice.target));
            let shown = told.firing.keys().chain(ends).filter_map(|fingerprint| by_fingerprint.get(fingerprint));
            notice.alerts = shown.map(|alert| Alert::clone(alert)).collect();
            let is_true = is_true && !notice.alerts.is_empty() && times_of(&notice.alerts) == times;
            if self.dispatcher.resume(&notice, told) && is_true {
                again.push(notice);
                continue;
            }
            let known = self.dispatcher.gave_up(&notice, true, now);
            let mut records =
                vec![Record { key: self.intent_key(&notice), headers: vec![], value: None, timestamp: now }];
            let place = (notice.group_key.clone(), notice.target.clone());
            if let Some(record) = known.and_then(|known| self.told_record(place.clone(), known, now)) {
                self.kept_told.insert(place);
                records.push(record);
            }
            self.log.append(NOTICE_TOPIC, 0, &records)?;
        }
        // Alerts come after what was told, and after what may have been: of both the end is still to be told.
        let heard: BTreeSet<String> =
            self.dispatcher.told().flat_map(|(_, known)| known.firing.keys().chain(&known.hidden)).cloned().collect();
        for alert in alerts {
            let again = alert.state == AlertState::Pending && heard.contains(&alert.fingerprint());
            if again {
                // What was told of it is over, and the next time has begun: its end is still to be told.
                let resolved_at = Some(alert.active_at);
                self.dispatcher.observe(&Alert { state: AlertState::Resolved, resolved_at, ..alert.clone() }, now);
            } else {
                self.dispatcher.observe(alert, now);
            }
        }
        self.send(again, true, now)
    }

    /// The record of what a target was told; none when no log takes it: after a restart it is told again then.
    fn told_record(&self, place: Place, told: Told, now: Timestamp) -> Option<Record> {
        let key = self.told_key(&place).into_bytes();
        let (group_key, target) = place;
        let value = packed(&Kept { group_key, target, told });
        let fits = value.len() + SPARE_BYTES <= RECORD_BYTES;
        fits.then_some(Record { key, headers: vec![], value: Some(value), timestamp: now })
    }

    /// Forgets what was told of groups that are gone, and alerts that nobody judges here any more.
    pub(super) fn tidy_messages(&mut self, now: Timestamp) -> Result<(), StationError> {
        self.refresh(now);
        let alive =
            own(&self.judge, self.follower.is_some()).chain(self.others()).filter(|alert| alert.state.is_alive());
        let alive: BTreeSet<String> = alive.map(Alert::fingerprint).collect();
        match self.follower {
            Some(_) => {
                self.end_missing(&alive, now);
                if self.removed_at.is_none() {
                    // Every share has had the time to say what it has.
                    self.dispatcher.retain_firing(&|_| true);
                }
            }
            None => self.dispatcher.retain_firing(&|fingerprint| alive.contains(fingerprint)),
        }
        let told: BTreeSet<Place> = self.dispatcher.told().map(|(place, _)| place.clone()).collect();
        let gone: Vec<Place> = self.kept_told.difference(&told).cloned().collect();
        if !gone.is_empty() {
            let forget = |place: &Place| Record {
                key: self.told_key(place).into_bytes(),
                headers: vec![],
                value: None,
                timestamp: now,
            };
            self.log.append(NOTICE_TOPIC, 0, &gone.iter().map(forget).collect::<Vec<_>>())?;
        }
        self.kept_told = self.kept_told.intersection(&told).cloned().collect();
        Ok(())
    }

    /// Hands the notices that are due to their receivers.
    pub(super) fn send_due(&mut self, now: Timestamp) {
        // Whoever took the part over tells what is due.
        if self.outbox.waiting() > 0 && self.tenure.check(self.log.as_ref()).is_err() {
            return;
        }
        for notice in self.outbox.due(now) {
            if !self.messages.send(&notice) {
                let gone = Delivery::Retry {
                    after: None,
                    error: "the target's thread is busy or gone".to_string(),
                    perhaps: false,
                };
                self.outbox.done(&notice.target, &notice.notice_id, &gone, now);
            }
        }
    }

    /// Writes what could not be written before.
    fn write_outcomes(&mut self) -> Result<(), StationError> {
        if !self.unwritten.is_empty() {
            self.log.append(NOTICE_TOPIC, 0, &self.unwritten)?;
            self.unwritten.clear();
        }
        Ok(())
    }

    /// Takes the answers: what is delivered or given up is forgotten, and becomes a row of `notice_event`.
    pub(super) fn collect_deliveries(&mut self, now: Timestamp) -> Result<(), StationError> {
        self.write_outcomes()?;
        let mut outcomes = Vec::new();
        let mut told = Vec::new();
        while let Ok((notice, delivery)) = self.messages.answers.try_recv() {
            let Some(delivery) = delivery else {
                self.outbox.put_back(&notice.target, &notice.notice_id);
                continue;
            };
            let last_error = match &delivery {
                Delivery::Delivered => None,
                Delivery::Retry { error, .. } | Delivery::GiveUp { error } => Some(error.clone()),
            };
            match &last_error {
                None => drop(self.stats.target_errors.remove(&notice.target)),
                Some(error) => drop(self.stats.target_errors.insert(notice.target.clone(), error.clone())),
            }
            let (outcome, attempts, known) = match self.outbox.done(&notice.target, &notice.notice_id, &delivery, now) {
                Progress::Delivered { attempts } => ("delivered", attempts, self.dispatcher.delivered(&notice, now)),
                Progress::GaveUp { attempts, perhaps, .. } => {
                    ("gave_up", attempts, self.dispatcher.gave_up(&notice, perhaps, now))
                }
                Progress::Retrying { .. } => {
                    *self.stats.notices.entry("retried").or_default() += 1;
                    continue;
                }
                Progress::Unknown => continue,
            };
            told.extend(known.map(|known| ((notice.group_key.clone(), notice.target.clone()), known)));
            *self.stats.notices.entry(outcome).or_default() += 1;
            outcomes.push(NoticeOutcome { notice, outcome, attempts: i64::from(attempts), error: last_error });
        }
        self.record_outcomes(&outcomes, told, now)
    }

    /// Writes finished notices down, and what their targets know now; without this a restart would send them again, with the same key.
    fn record_outcomes(
        &mut self,
        outcomes: &[NoticeOutcome],
        told: Vec<(Place, Told)>,
        now: Timestamp,
    ) -> Result<(), StationError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let places: Vec<Place> = told.iter().map(|(place, _)| place.clone()).collect();
        let known = told.into_iter().filter_map(|(place, told)| self.told_record(place, told, now));
        let mut records: Vec<Record> = known.collect();
        let forget = |outcome: &NoticeOutcome| Record {
            key: self.intent_key(&outcome.notice),
            headers: vec![],
            value: None,
            timestamp: now,
        };
        records.extend(outcomes.iter().map(forget));
        self.kept_told.extend(places);
        // What can't be written now is written first the next time.
        self.unwritten.extend(records);
        self.write_outcomes()?;
        let rows = notice_batch(outcomes, now)?;
        self.append_rows("notice_event", &rows)
    }
}
