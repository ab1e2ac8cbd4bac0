//! Alertmanagers that get every alert: a thread for each, so that one that hangs holds up nobody, and so that what fires is renewed
//! while the engine waits for a disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewatch_model::Alert;
use tidewatch_model::ports::Clock;
use tidewatch_model::time::SystemClock;
use tidewatch_notifiers::Feed;

use crate::alerting_file::Alertmanager;

/// How often is looked what is due, when no alert changes.
const LOOK: Duration = Duration::from_secs(1);

/// The threads.
#[derive(Default)]
pub struct Feeds {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    alerts: Mutex<Option<Arc<Vec<Alert>>>>,
    changed: Condvar,
    stop: AtomicBool,
    sent: AtomicU64,
    failures: AtomicU64,
    problems: Mutex<Vec<String>>,
}

impl Feeds {
    /// Begins; nothing is sent before [`Feeds::set`].
    pub fn start(alertmanagers: Vec<Alertmanager>, external_url: &str) -> Feeds {
        let shared: Arc<Shared> = Arc::default();
        let mut threads = Vec::new();
        for alertmanager in alertmanagers {
            let (shared, shown) = (shared.clone(), alertmanager.shown());
            let feed = alertmanager.feed(external_url);
            let named = std::thread::Builder::new().name("alertmanager".to_string());
            threads.extend(named.spawn(move || work(&shared, feed, &shown)));
        }
        Feeds { shared, threads }
    }

    /// Whether there is anybody.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// The alerts that fire, and those that are over for a short while.
    pub fn set(&self, alerts: Vec<Alert>) {
        *self.shared.alerts.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(alerts));
        self.shared.changed.notify_all();
    }

    /// Alerts that were taken, and requests that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.sent.load(Ordering::Relaxed), self.shared.failures.load(Ordering::Relaxed))
    }

    /// What went wrong, and was mended, since the last call.
    pub fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn work(shared: &Shared, mut feed: Feed, shown: &str) {
    let mut last = None;
    while !shared.stop.load(Ordering::SeqCst) {
        let alerts = {
            let guard = shared.alerts.lock().unwrap_or_else(PoisonError::into_inner);
            let (guard, _) = shared.changed.wait_timeout(guard, LOOK).unwrap_or_else(PoisonError::into_inner);
            guard.clone()
        };
        let Some(alerts) = alerts else { continue };
        let problem = match feed.send(&alerts, SystemClock.now()) {
            Ok(count) => {
                shared.sent.fetch_add(count as u64, Ordering::Relaxed);
                None
            }
            Err(error) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                Some(format!("{shown}: {error}"))
            }
        };
        // Said once when it begins, and once when it is over.
        let said = match (&last, &problem) {
            (None, Some(problem)) => Some(format!("error: {problem}")),
            (Some(_), None) => Some(format!("{shown} takes alerts again")),
            _ => None,
        };
        shared.problems.lock().unwrap_or_else(PoisonError::into_inner).extend(said);
        if problem.is_some() && !shared.stop.load(Ordering::SeqCst) {
            // It is asked once a second, however often alerts change.
            std::thread::sleep(LOOK);
        }
        last = problem;
    }
}

#[cfg(test)]
#[path = "feeds_tests.rs"]
mod tests;
