//! Signals: what they ask a running `up` for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// What signals ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals {
    /// A clean stop: the first SIGINT or SIGTERM; the second ends the process.
    pub(super) stop: Arc<AtomicBool>,
    /// SIGHUP: files of rules and tables are looked at now.
    pub(super) hangup: Arc<AtomicBool>,
    /// SIGUSR1: NVML is let go.
    pub(super) release: Arc<AtomicBool>,
    /// SIGUSR2: NVML is opened again.
    pub(super) reopen: Arc<AtomicBool>,
}

impl Signals {
    /// Watches for them from now on.
    pub(super) fn watch() -> Result<Signals, Failure> {
        let signals = Signals::default();
        let flags = signals.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::no)?;
        // The handlers must stand before anything is opened.
        let (begun, wait) = std::sync::mpsc::channel();
        let watch = move || {
            runtime.block_on(async move {
                let handlers = (|| {
                    let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
                    let [release, reopen] = [SignalKind::user_defined1(), SignalKind::user_defined2()].map(signal);
                    let hangup = signal(SignalKind::hangup());
                    Ok::<_, std::io::Error>((interrupt?, terminate?, hangup?, release?, reopen?))
                })();
                let (mut interrupt, mut terminate, mut hangup, mut release, mut reopen) = match handlers {
                    Ok(handlers) => handlers,
                    Err(error) => return drop(begun.send(Err(error))),
                };
                drop(begun.send(Ok(())));
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => { flags.hangup.store(true, Ordering::SeqCst); continue }
                        _ = release.recv() => { flags.release.store(true, Ordering::SeqCst); continue }
                        _ = reopen.recv() => { flags.reopen.store(true, Ordering::SeqCst); continue }
                    }
                    if flags.stop.swap(true, Ordering::SeqCst) {
                        std::process::exit(1);
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".to_string()).spawn(watch).map_err(Failure::no)?;
        match wait.recv() {
            Ok(Ok(())) => Ok(signals),
            Ok(Err(error)) => Err(Failure::no(format!("can't watch for signals: {error}"))),
            Err(_) => Err(Failure::no("can't watch for signals")),
        }
    }
}
