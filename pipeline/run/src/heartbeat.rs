//! The dead man's switch: a notice that leaves the process every minute, as long as the engine goes round its loop without trouble. Whoever
//! gets it wakes somebody when it stops coming; nobody here can tell that we are gone.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewatch_model::alert::Labels;
use tidewatch_model::ports::{Clock, Delivery, Notify};
use tidewatch_model::time::SystemClock;
use tidewatch_model::{Alert, AlertState, Notice, NoticeStatus, Severity, Span, Timestamp};

/// The name of its alert, which those who know Prometheus expect.
const WATCHDOG: &str = "Watchdog";

/// The threads, one per target.
#[derive(Default)]
pub struct Heartbeat {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// When the engine was last seen to go round, in microseconds; 0 before.
    alive_at: AtomicI64,
    stop: AtomicBool,
    stopped: (Mutex<()>, Condvar),
    sent: AtomicU64,
    failures: AtomicU64,
}

impl Heartbeat {
    /// Begins; nothing is sent before [`Heartbeat::alive`].
    pub fn start(targets: Vec<Arc<dyn Notify>>, interval: Span) -> Heartbeat {
        let shared: Arc<Shared> = Arc::default();
        let mut threads = Vec::new();
        for target in targets {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name("heartbeat".to_string());
            threads.extend(named.spawn(move || beat(&shared, target.as_ref(), interval)));
        }
        Heartbeat { shared, threads }
    }

    /// The engine has gone round its loop without trouble.
    pub fn alive(&self, now: Timestamp) {
        self.shared.alive_at.store(now.0, Ordering::Relaxed);
    }

    /// Heartbeats that were delivered, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.sent.load(Ordering::Relaxed), self.shared.failures.load(Ordering::Relaxed))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.stopped.1.notify_all();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn beat(shared: &Shared, target: &dyn Notify, interval: Span) {
    // Until the engine goes round for the first time, it is looked more often.
    let mut wait = Duration::from_millis(100).min(interval.to_std());
    while !shared.stop.load(Ordering::SeqCst) {
        let guard = shared.stopped.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(shared.stopped.1.wait_timeout(guard, wait));
        let (now, alive_at) = (SystemClock.now(), Timestamp(shared.alive_at.load(Ordering::Relaxed)));
        if alive_at == Timestamp(0) || shared.stop.load(Ordering::SeqCst) {
            continue;
        }
        wait = interval.to_std();
        if now - alive_at >= interval {
            continue;
        }
        match target.notify(&notice(target.target(), now)) {
            Delivery::Delivered => shared.sent.fetch_add(1, Ordering::Relaxed),
            // The next one comes soon.
            Delivery::Retry { .. } | Delivery::GiveUp { .. } => shared.failures.fetch_add(1, Ordering::Relaxed),
        };
    }
}

fn notice(target: &str, now: Timestamp) -> Notice {
    let labels = Labels::from([("alertname".to_string(), WATCHDOG.to_string())]);
    let summary = "Tidewatch is alive: when this stops coming, it is not".to_string();
    let alert = Alert {
        state: AlertState::Firing,
        fired_at: Some(now),
        annotations: [("summary".to_string(), summary)].into(),
        ..Alert::new(labels.clone(), Severity::Info, now)
    };
    Notice {
        notice_id: format!("heartbeat-{}", now.0),
        receiver: target.to_string(),
        target: target.to_string(),
        group_key: format!("{{}}:{{alertname=\"{WATCHDOG}\"}}"),
        group_labels: labels,
        status: NoticeStatus::Firing,
        reason: "heartbeat".to_string(),
        alerts: vec![alert],
        ts: now,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use tidewatch_notifiers::ScriptedNotifier;

    use super::*;

    #[test]
    fn it_beats_as_long_as_the_engine_goes_round() {
        let target = Arc::new(ScriptedNotifier::new("switch", []));
        let heartbeat = Heartbeat::start(vec![target.clone()], Span::millis(40));
        let wait_for = |holds: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while !holds() {
                assert!(begun.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        // Many looks of the thread: before the engine has gone round once, nothing is said.
        std::thread::sleep(Duration::from_millis(400));
        assert!(target.seen().is_empty(), "nothing runs yet");
        wait_for(&|| {
            heartbeat.alive(SystemClock.now());
            heartbeat.counts().0 >= 3
        });
        // The engine hangs: what was begun ends, and then nothing comes.
        wait_for(&|| {
            SystemClock.now() - Timestamp(heartbeat.shared.alive_at.load(Ordering::Relaxed)) > Span::millis(200)
        });
        let (sent, seen) = (heartbeat.counts().0, target.seen());
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(heartbeat.counts().0, sent);
        assert_eq!((seen[0].alerts[0].rule.as_str(), seen[0].status), ("Watchdog", NoticeStatus::Firing));
        let begun = Instant::now();
        drop(heartbeat);
        assert!(begun.elapsed() < Duration::from_secs(5), "it stops at once");
    }
}
