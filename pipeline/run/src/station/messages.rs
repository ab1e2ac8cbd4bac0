//! Telling people: one thread per receiver, so that one that hangs holds up nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use tidewatch_flow::notices::decide;
use tidewatch_flow::outbox::Progress;
use tidewatch_model::ports::{Delivery, Notify, Record};
use tidewatch_model::{Notice, Timestamp, Transition};

use super::{NOTICE_TOPIC, Station, StationError};
use crate::alert_rows::{NoticeOutcome, notice_batch};

/// The receivers' threads.
pub struct Messages {
    receivers: BTreeMap<String, SyncSender<Notice>>,
    answers: Receiver<(Notice, Delivery)>,
    threads: Vec<JoinHandle<()>>,
}

impl Messages {
    /// A thread for each receiver.
    pub fn start(receivers: Vec<Arc<dyn Notify>>) -> Messages {
        let (answer, answers) = channel();
        let mut messages = Messages { receivers: BTreeMap::new(), answers, threads: vec![] };
        for receiver in receivers {
            // The outbox has one notice in flight per receiver.
            let (sender, inbox) = sync_channel::<Notice>(1);
            let name = receiver.receiver().to_string();
            let answer: Sender<(Notice, Delivery)> = answer.clone();
            let work = move || {
                for notice in inbox {
                    let delivery = receiver.notify(&notice);
                    if answer.send((notice, delivery)).is_err() {
                        return;
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

    /// Names of the receivers.
    pub fn names(&self) -> Vec<String> {
        self.receivers.keys().cloned().collect()
    }

    /// Ends the threads; each finishes the notice that it is at.
    pub fn stop(&mut self) {
        self.receivers.clear();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Station {
    /// Writes down whom a transition is to be told to, before anybody is.
    pub(super) fn intents(&self, transition: &Transition) -> Result<Vec<(Notice, Record)>, StationError> {
        let notices = decide(transition, &self.messages.names());
        let intents = notices.into_iter().map(|notice| {
            let value = serde_json::to_vec(&notice).unwrap_or_default();
            let record =
                Record { key: self.intent_key(&notice), headers: vec![], value: Some(value), timestamp: notice.ts };
            (notice, record)
        });
        Ok(intents.collect())
    }

    /// Intents belong to the part of the work, and not to its tenant: whoever takes it over sees them off.
    fn intent_key(&self, notice: &Notice) -> Vec<u8> {
        format!("{}{}", self.tenure.part.name(), notice.notice_id).into_bytes()
    }

    /// Hands the notices that are due to their receivers.
    pub(super) fn send_due(&mut self, now: Timestamp) {
        for notice in self.outbox.due(now) {
            let sent = self.messages.receivers.get(&notice.receiver).map(|receiver| receiver.try_send(notice.clone()));
            if !matches!(sent, Some(Ok(()))) {
                let gone = Delivery::Retry { after: None, error: "the receiver's thread is busy or gone".to_string() };
                self.outbox.done(&notice.receiver, &notice.notice_id, &gone, now);
            }
        }
    }

    /// Takes the answers: what is delivered or given up is forgotten, and becomes a row of `notice_event`.
    pub(super) fn collect_deliveries(&mut self, now: Timestamp) -> Result<(), StationError> {
        let mut outcomes = Vec::new();
        while let Ok((notice, delivery)) = self.messages.answers.try_recv() {
            let last_error = match &delivery {
                Delivery::Delivered => None,
                Delivery::Retry { error, .. } | Delivery::GiveUp { error } => Some(error.clone()),
            };
            let (outcome, attempts) = match self.outbox.done(&notice.receiver, &notice.notice_id, &delivery, now) {
                Progress::Delivered { attempts } => ("delivered", attempts),
                Progress::GaveUp { attempts, .. } => ("gave_up", attempts),
                Progress::Retrying { .. } => {
                    *self.stats.notices.entry("retried").or_default() += 1;
                    continue;
                }
                Progress::Unknown => continue,
            };
            *self.stats.notices.entry(outcome).or_default() += 1;
            outcomes.push(NoticeOutcome { notice, outcome, attempts: i64::from(attempts), error: last_error });
        }
        self.record_outcomes(&outcomes, now)
    }

    /// Writes finished notices down; without this a restart would send them again, with the same key.
    pub(super) fn record_outcomes(&mut self, outcomes: &[NoticeOutcome], now: Timestamp) -> Result<(), StationError> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let forget = |outcome: &NoticeOutcome| Record {
            key: self.intent_key(&outcome.notice),
            headers: vec![],
            value: None,
            timestamp: now,
        };
        self.log.append(NOTICE_TOPIC, 0, &outcomes.iter().map(forget).collect::<Vec<_>>())?;
        let rows = notice_batch(outcomes, now)?;
        self.append_rows("notice_event", &rows)
    }
}
