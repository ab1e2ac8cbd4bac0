//! The library of a fleet: opened, let go, opened anew when the driver went away, and whom it names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewatch_model::{Span, Timestamp};

use super::{Condition, Fleet, Gpu, Library, STUCK_AFTER, Stranger};
use crate::gpu::bus::gpus_on_bus;
use crate::gpu::library::{self, Identity, Opened, Opener, Refusal, Worker};
use crate::reading::Unreadable;

/// How often the library is looked for where there is none.
const RETRY: Span = Span::seconds(30);
/// How soon it is opened again after the driver went away under it; twice as late each time, up to `RETRY`, until a GPU
/// answers.
pub(super) const REOPEN: Span = Span::seconds(2);
/// How long a driver that is there may refuse to be opened before its GPUs are lost.
const BLIND_FOR: Span = Span::minutes(1);
/// How long a release on request lasts when nobody ends it.
const RELEASED_FOR: Span = Span::minutes(10);

impl Fleet {
    /// Does what the operator asked for.
    pub(super) fn obey(&mut self, now: Timestamp) {
        if self.requests.release.swap(false, Ordering::SeqCst) {
            self.close(now + RELEASED_FOR);
            self.blind = None;
        }
        if self.requests.reopen.swap(false, Ordering::SeqCst)
            && let Library::Closed { until } = &mut self.library
        {
            *until = now;
        }
    }

    /// Lets the library go: every thread that is not away drops it.
    pub(super) fn close(&mut self, until: Timestamp) {
        if let Library::Open { stop, nvml } = std::mem::replace(&mut self.library, Library::Closed { until }) {
            stop.store(true, Ordering::SeqCst);
            self.before = nvml.gone();
            nvml.let_go();
        }
        for gpu in self.gpus.values_mut() {
            // One that hangs keeps its thread, so that no second one is sent after it.
            gpu.worker = gpu.worker.take().filter(Worker::is_busy);
        }
        self.strangers.clear();
    }

    pub(super) fn open_library(&mut self, now: Timestamp) {
        if let Library::Closed { until } = &self.library
            && *until <= now
        {
            if self.opener.as_ref().is_none_or(Opener::is_gone) {
                match library::opener(self.path.clone()) {
                    Ok(opener) => self.opener = Some(opener),
                    Err(error) => return self.faults.note("", Unreadable::damaged(format!("no thread: {error}"))),
                }
            }
            if let Some(opener) = &mut self.opener {
                opener.ask(self.before.clone(), now);
                self.library = Library::Opening;
            }
        }
        // Waited for when it was asked just now, and not while it hangs.
        let just_now = self.opener.as_ref().and_then(|opener| opener.busy_for(now)) == Some(Span::ZERO);
        let wait = if just_now { self.patience } else { Duration::ZERO };
        let answer = self.opener.as_mut().and_then(|opener| opener.answer(wait));
        match answer {
            // A release was asked for meanwhile.
            Some((_, Ok(opened))) if !matches!(self.library, Library::Opening) => {
                self.before = opened.nvml.gone();
                opened.nvml.let_go();
            }
            Some((_, Err(_))) if !matches!(self.library, Library::Opening) => {}
            Some((_, Ok(opened))) => self.opened(opened, now),
            Some((_, Err(refusal))) => self.refused(refusal, now),
            None if self.opener.as_ref().is_some_and(Opener::is_gone) => {
                self.faults.note("", Unreadable::damaged("opening NVML panicked"));
                self.library = Library::Closed { until: now + RETRY };
            }
            None => {}
        }
    }

    /// The library can't be opened. On a machine without GPUs, or one that has them for others, that is no illness and told
    /// once; where GPUs were read before, or are on the bus of a driver that is installed, nobody watches them now.
    fn refused(&mut self, refusal: Refusal, now: Timestamp) {
        self.library = Library::Closed { until: now + RETRY };
        let on_bus = || gpus_on_bus(&self.roots).is_some_and(|found| !found.is_empty());
        if self.generation > 0 || refusal.is_mismatch || refusal.is_installed && on_bus() {
            let since = self.blind.take().map_or(now, |(since, _)| since);
            self.blind = Some((since, refusal.why));
        } else {
            self.faults.note("", Unreadable::absent(refusal.why));
        }
    }

    /// Says at every tick that nobody watches the GPUs, and after a while that those that were known are lost.
    pub(super) fn say_blind(&mut self, now: Timestamp) {
        let Some((since, why)) = self.blind.clone() else { return };
        self.faults.note("", Unreadable::damaged(why.clone()));
        if now - since >= BLIND_FOR {
            let is_lost = |gpu: &&Gpu| matches!(gpu.condition, Condition::Lost { .. } | Condition::Vanished);
            let others = self.gpus.values().filter(|gpu| !is_lost(gpu));
            let known: Vec<Identity> = others.map(|gpu| gpu.identity.clone()).collect();
            known.iter().for_each(|identity| self.lost(identity, &why, now));
        }
    }

    /// What GPUs say of the library is believed when none answers as it should. Otherwise it is the GPU that is ill; two ticks,
    /// since the driver may go away between the answers of one.
    pub(super) fn judge_library(&mut self, now: Timestamp) {
        let [accusers, before] = std::mem::take(&mut self.accusers);
        if self.is_heard {
            self.reopen = REOPEN;
            for (uuid, (identity, why)) in &accusers {
                if before.contains_key(uuid) {
                    self.lost(identity, why, now);
                }
            }
        } else if !accusers.is_empty() {
            self.reloading = true;
            self.close(now + self.reopen);
            self.reopen = Span(self.reopen.0 * 2).min(RETRY);
        }
        self.accusers = [BTreeMap::new(), accusers];
        self.is_heard = false;
    }

    /// The library is open: every GPU that it names is asked who it is.
    fn opened(&mut self, opened: Opened, now: Timestamp) {
        let before = self.driver.replace(opened.driver.clone());
        if self.reloading || before.as_ref().is_some_and(|before| *before != opened.driver) {
            self.reloaded = Some(format!("driver {} is loaded, after {}", opened.driver, before.unwrap_or_default()));
        }
        self.reloading = false;
        self.blind = None;
        self.generation += 1;
        self.named.clear();
        let stranger = |index| Stranger { index, introduction: None, due: now, told: false };
        self.strangers = (0..opened.count).map(stranger).collect();
        for gpu in self.gpus.values_mut() {
            gpu.slow_due = Timestamp::MIN;
        }
        self.library = Library::Open { nvml: opened.nvml, stop: Arc::new(AtomicBool::new(false)) };
        self.bus_due = now;
    }

    /// Asks those that have not said who they are, and takes their answers. None keeps the others waiting.
    pub(super) fn introduce(&mut self, deadline: Instant, now: Timestamp) {
        let Library::Open { nvml, .. } = &self.library else { return };
        if self.strangers.is_empty() {
            return;
        }
        let nvml = nvml.clone();
        let mut strangers = std::mem::take(&mut self.strangers);
        for stranger in strangers.iter_mut().filter(|stranger| stranger.introduction.is_none() && stranger.due <= now) {
            match library::introduction(&nvml, stranger.index) {
                Ok(mut introduction) => {
                    introduction.ask((), now);
                    stranger.introduction = Some(introduction);
                }
                Err(error) => self.faults.note("", Unreadable::damaged(format!("no thread: {error}"))),
            }
        }
        drop(nvml);
        let mut answered = false;
        strangers.retain_mut(|stranger| {
            let Some(introduction) = stranger.introduction.as_mut() else { return true };
            let just_now = introduction.busy_for(now) == Some(Span::ZERO);
            let wait = if just_now { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            let why = match introduction.answer(wait) {
                Some((_, Ok(identity))) => {
                    answered = true;
                    self.introduced(identity, now);
                    return false;
                }
                Some((_, Err(error))) => error,
                None if introduction.is_gone() => "asking it panicked".to_string(),
                None => {
                    let hangs = introduction.busy_for(now).is_some_and(|busy| busy >= STUCK_AFTER);
                    if hangs && !std::mem::replace(&mut stranger.told, true) {
                        let message =
                            format!("GPU {} does not say who it is: the call does not return", stranger.index);
                        self.event(now, &Identity::unknown(stranger.index), "stuck", Some(message));
                    }
                    return true;
                }
            };
            answered = true;
            stranger.introduction = None;
            stranger.due = now + RETRY;
            let reason = format!("GPU {} does not say who it is: {why}", stranger.index);
            self.faults.note("gpu_uuid", Unreadable::damaged(reason.clone()));
            // Lost before we came, it can't be told by its UUID; one that was known is told of as missing.
            let all_known_are_named = self.gpus.keys().all(|uuid| self.named.contains(uuid));
            if all_known_are_named && !std::mem::replace(&mut stranger.told, true) {
                self.event(now, &Identity::unknown(stranger.index), "lost", Some(reason));
            }
            true
        });
        self.strangers = strangers;
        if answered && self.strangers.iter().all(|stranger| stranger.introduction.is_none()) {
            self.all_introduced(now);
        }
    }

    fn introduced(&mut self, identity: Identity, now: Timestamp) {
        if let Library::Open { nvml, stop } = &self.library
            && library::watch_xids(nvml, &identity, self.xids.0.clone(), stop.clone()).is_err()
        {
            self.faults.note("", Unreadable::damaged("no thread to wait for XIDs"));
        }
        self.named.insert(identity.uuid.clone());
        match self.gpus.get_mut(&identity.uuid) {
            Some(known) => {
                known.identity = identity.clone();
                if known.condition == Condition::Vanished {
                    known.condition = Condition::Well;
                    self.event(now, &identity, "recovered", Some("it is back on the bus".to_string()));
                }
            }
            None => {
                self.gpus.insert(identity.uuid.clone(), Gpu::new(identity.clone()));
                // At the first opening all are new, which is no news.
                if self.generation > 1 {
                    self.event(now, &identity, "new", Some(format!("{} at {}", identity.name, identity.pci)));
                }
            }
        }
        if let Some(message) = self.reloaded.clone() {
            self.event(now, &identity, "driver_reload", Some(message));
        }
    }

    /// Those that were there and are not named any more do not answer.
    fn all_introduced(&mut self, now: Timestamp) {
        self.reloaded = None;
        let on_bus = gpus_on_bus(&self.roots);
        for gpu in self.gpus.values_mut() {
            gpu.was_on_bus |= on_bus.as_ref().is_some_and(|on_bus| on_bus.contains(&gpu.identity.pci));
        }
        // Opening the library has just been tried for all that the bus has.
        self.unnamed = self.unnamed_of(&on_bus.unwrap_or_default());
        let missing = self.gpus.values().map(|gpu| &gpu.identity).filter(|one| !self.named.contains(&one.uuid));
        for identity in missing.cloned().collect::<Vec<_>>() {
            self.lost(&identity, "the driver does not name it any more", now);
        }
    }
}
