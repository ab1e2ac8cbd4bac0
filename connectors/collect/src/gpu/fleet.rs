//! The supervisor of a machine's GPUs: asks each, waits for none, and says what became of them.

mod opening;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewatch_model::{Span, Timestamp};

use opening::REOPEN;

use super::bus::gpus_on_bus;
use super::class::Class;
use super::library::{self, Identity, Introduction, Opener, Session, Worker, Xid};
use super::pass::{Cells, Pass, Process, Question};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable};

/// How long one tick waits for all GPUs together, and for all of those that must say who they are. A healthy pass takes a
/// few milliseconds.
const PATIENCE: Duration = Duration::from_millis(300);
/// A call that has not returned for so long hangs.
const STUCK_AFTER: Span = Span::seconds(5);
/// A pass that took longer is no picture of any moment: its values are dropped.
const OLDEST_PASS: Span = Span::seconds(2);
/// How often the bus is compared with what the driver names.
const BUS_INTERVAL: Span = Span::seconds(10);
/// How soon the library is opened anew for a GPU that is lost and still on the bus, and the longest of the growing times
/// between two attempts: only then does the driver look at it again, and the other GPUs miss a row or two meanwhile.
const LOST_RETRY: Span = Span::minutes(2);
const LOST_RETRY_MOST: Span = Span::hours(1);
/// How often the slow columns are read.
const SLOW_INTERVAL: Span = Span::seconds(30);
/// How often processes are read.
const PROCESS_INTERVAL: Span = Span::seconds(10);
/// NVML and the kernel tell of an XID within so long.
const SAME_XID: Span = Span::seconds(5);
/// XIDs, and events of ours, that wait to be taken; beyond it new ones are not kept.
const WAITING: usize = 1_024;

/// A row of `gpu` in the making.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuRow {
    /// When it was read.
    pub ts: Timestamp,
    /// Whose it is.
    pub gpu: Identity,
    /// Which MIG instance.
    pub mig: Option<String>,
    /// Its values.
    pub cells: Cells,
}

/// A row of `gpu_event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuEvent {
    /// When it happened.
    pub ts: Timestamp,
    /// To which GPU, by its UUID.
    pub uuid: String,
    /// Its place on the bus.
    pub pci: String,
    /// What (contracts.md, gpu_event).
    pub kind: &'static str,
    /// The XID.
    pub code: Option<i64>,
    /// Who told: `nvml` or `kernel`.
    pub source: &'static str,
    /// In words.
    pub message: Option<String>,
}

/// An XID in the kernel's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelXid {
    /// When it was said.
    pub ts: Timestamp,
    /// The GPU's place on the bus, as the kernel writes it; empty when that was not said.
    pub pci: String,
    /// Its number.
    pub code: i64,
    /// The message.
    pub message: String,
}

/// What a request of the operator asks for.
#[derive(Debug, Default)]
pub struct Requests {
    release: AtomicBool,
    reopen: AtomicBool,
    kernel: Mutex<VecDeque<KernelXid>>,
}

impl Requests {
    /// Lets the library go, so that the driver can be unloaded; it is opened again on request or after ten minutes.
    pub fn release(&self) {
        self.release.store(true, Ordering::SeqCst);
    }

    /// Opens the library again, now.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::SeqCst);
    }

    /// Takes an XID; of too many the oldest go.
    pub fn said_by_kernel(&self, xid: KernelXid) {
        let mut waiting = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back(xid);
    }
}

/// All GPUs of a machine.
pub struct Fleet {
    roots: Roots,
    requests: Arc<Requests>,
    patience: Duration,
    opener: Option<Opener>,
    path: OsString,
    library: Library,
    /// GPUs that were asked who they are.
    strangers: Vec<Stranger>,
    /// Those that said so since the library was opened.
    named: BTreeSet<String>,
    /// By UUID, so that rows come in a steady order.
    gpus: BTreeMap<String, Gpu>,
    driver: Option<String>,
    /// Whether the library that was let go is shut down.
    before: Arc<AtomicBool>,
    /// Counts how often the library was opened: a worker belongs to one of them.
    generation: u64,
    /// The library was given up because of its answers: what comes next is another driver, or the same one again.
    reloading: bool,
    /// How soon it is opened again then.
    reopen: Span,
    /// What is to be said of every GPU of a driver that was loaded anew.
    reloaded: Option<String>,
    /// There are GPUs and the library can't be opened: since when, and why.
    blind: Option<(Timestamp, String)>,
    /// GPUs that say that the library must be opened anew, at this tick and at the one before.
    accusers: [BTreeMap<String, (Identity, String)>; 2],
    /// Some GPU answered as it should at this tick.
    is_heard: bool,
    bus_due: Timestamp,
    /// When it is opened anew for GPUs that are lost, and the wait after that.
    lost_retry: Option<(Timestamp, Span)>,
    /// Addresses on the bus for which it was opened anew in vain.
    unnamed: BTreeSet<String>,
    process_due: Timestamp,
    xids: (SyncSender<Xid>, Receiver<Xid>),
    /// XIDs that were told of lately, by whom, and of which place on the bus: the kernel and NVML tell of the same ones.
    told: Vec<(&'static str, String, Option<i64>, Timestamp)>,
    rows: Vec<GpuRow>,
    processes: Vec<(Identity, Process)>,
    events: Vec<GpuEvent>,
    faults: Faults,
}

enum Library {
    /// Not open; looked for again then.
    Closed { until: Timestamp },
    /// The opener is at it.
    Opening,
    /// Open.
    Open { nvml: Arc<Session>, stop: Arc<AtomicBool> },
}

/// A GPU that has not said yet who it is.
struct Stranger {
    index: u32,
    /// The question under way.
    introduction: Option<Introduction>,
    /// When it is asked (again).
    due: Timestamp,
    /// Whether it was said that it does not answer.
    told: bool,
}

struct Gpu {
    identity: Identity,
    worker: Option<Worker>,
    /// Of which opening the worker is.
    generation: u64,
    slow_due: Timestamp,
    condition: Condition,
    /// Whether the bus ever showed it: only then does its absence there mean anything.
    was_on_bus: bool,
    /// Its MIG instances at the last pass; `None` before the first.
    instances: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    /// It does not answer.
    Lost {
        since: Timestamp,
    },
    /// A call hangs, and that was said.
    Stuck {
        since: Timestamp,
    },
    /// Neither the driver nor the bus names it.
    Vanished,
}

impl Fleet {
    /// Without an open library yet: the first tick asks for it. `path` is the library's; by default `libnvidia-ml.so.1`.
    pub fn new(roots: Roots, path: Option<OsString>, requests: Arc<Requests>) -> Fleet {
        Fleet {
            roots,
            requests,
            patience: PATIENCE,
            opener: None,
            path: path.unwrap_or_else(|| OsString::from("libnvidia-ml.so.1")),
            library: Library::Closed { until: Timestamp::MIN },
            strangers: vec![],
            named: BTreeSet::new(),
            gpus: BTreeMap::new(),
            driver: None,
            before: Arc::new(AtomicBool::new(true)),
            generation: 0,
            reloading: false,
            reopen: REOPEN,
            reloaded: None,
            blind: None,
            accusers: Default::default(),
            is_heard: false,
            bus_due: Timestamp::MIN,
            lost_retry: None,
            unnamed: BTreeSet::new(),
            process_due: Timestamp::MIN,
            xids: sync_channel(WAITING),
            told: vec![],
            rows: vec![],
            processes: vec![],
            events: vec![],
            faults: Faults::default(),
        }
    }

    /// With another patience than an agent's: a test is not about how busy its machine is.
    #[cfg(test)]
    pub fn with_patience(mut self, patience: Duration) -> Fleet {
        self.patience = patience;
        self
    }

    /// Asks every GPU that is not busy, takes what is there within the patience, and looks after the library. Never waits
    /// for one that is known to hang.
    pub fn tick(&mut self, now: Timestamp) {
        self.obey(now);
        self.open_library(now);
        self.take_xids(now);
        self.introduce(Instant::now() + self.patience, now);
        let deadline = Instant::now() + self.patience;
        let with_processes = self.process_due <= now;
        if with_processes {
            self.process_due = now.floor(PROCESS_INTERVAL) + PROCESS_INTERVAL;
            self.processes.clear();
        }
        // What came back late is taken first: whoever is back is asked anew at once.
        for uuid in self.uuids() {
            self.take_answer(&uuid, Duration::ZERO, now);
            self.ask(&uuid, with_processes, now);
        }
        for uuid in self.uuids() {
            self.take_answer(&uuid, deadline.saturating_duration_since(Instant::now()), now);
        }
        self.judge_library(now);
        self.say_blind(now);
        self.say_stuck(now);
        self.compare_with_bus(now);
    }

    /// Rows since the last call.
    pub fn take_rows(&mut self) -> Vec<GpuRow> {
        std::mem::take(&mut self.rows)
    }

    /// Events since the last call.
    pub fn take_events(&mut self) -> Vec<GpuEvent> {
        std::mem::take(&mut self.events)
    }

    /// Processes as they were found last.
    pub fn processes(&self) -> &[(Identity, Process)] {
        &self.processes
    }

    /// What could not be read since the last call.
    pub fn take_faults(&mut self) -> Vec<crate::fault::Fault> {
        self.faults.take()
    }

    /// How long the longest call that has not returned has been under way, beyond what is usual.
    pub fn stuck(&self, now: Timestamp) -> Option<Span> {
        let workers = self.gpus.values().filter_map(|gpu| gpu.worker.as_ref()?.busy_for(now));
        let opening = self.opener.as_ref().and_then(|opener| opener.busy_for(now));
        let strangers = self.strangers.iter().filter_map(|stranger| stranger.introduction.as_ref()?.busy_for(now));
        workers.chain(opening).chain(strangers).filter(|busy| *busy >= STUCK_AFTER).max()
    }

    fn uuids(&self) -> Vec<String> {
        self.gpus.keys().cloned().collect()
    }

    fn ask(&mut self, uuid: &str, with_processes: bool, now: Timestamp) {
        let Library::Open { nvml, .. } = &self.library else { return };
        let Some(gpu) = self.gpus.get_mut(uuid) else { return };
        if gpu.condition == Condition::Vanished || !self.named.contains(uuid) {
            return;
        }
        let outdated = |worker: &Worker| worker.is_gone() || gpu.generation != self.generation && !worker.is_busy();
        if gpu.worker.as_ref().is_none_or(outdated) {
            match library::worker(nvml, &gpu.identity) {
                Ok(worker) => (gpu.worker, gpu.generation) = (Some(worker), self.generation),
                Err(error) => return self.faults.note("", Unreadable::damaged(format!("no thread: {error}"))),
            }
        }
        let slow = gpu.slow_due <= now;
        if let Some(worker) = gpu.worker.as_mut().filter(|worker| !worker.is_busy()) {
            worker.ask(Question { slow, processes: with_processes, timed: false }, now);
            if slow {
                gpu.slow_due = now.floor(SLOW_INTERVAL) + SLOW_INTERVAL;
            }
        }
    }

    fn take_answer(&mut self, uuid: &str, wait: Duration, now: Timestamp) {
        let Some(gpu) = self.gpus.get_mut(uuid) else { return };
        let Some(worker) = gpu.worker.as_mut() else { return };
        // One that was late at an earlier tick is not waited for again.
        let wait = if worker.busy_for(now).is_some_and(|busy| busy > Span::ZERO) { Duration::ZERO } else { wait };
        let Some((asked, pass)) = worker.answer(wait) else { return };
        let identity = gpu.identity.clone();
        let is_old = gpu.generation != self.generation || !matches!(self.library, Library::Open { .. });
        if is_old {
            // It holds a library that was let go.
            gpu.worker = None;
        }
        self.settle_condition(&identity, &pass, is_old, now);
        self.take_pass(&identity, pass, asked, now);
    }

    /// What an answer says of the GPU's condition; one through a library that was let go says little.
    fn settle_condition(&mut self, identity: &Identity, pass: &Pass, is_old: bool, now: Timestamp) {
        let Some(gpu) = self.gpus.get_mut(&identity.uuid) else { return };
        self.is_heard |= pass.trouble.is_none() && !is_old;
        match (&pass.trouble, gpu.condition) {
            (Some((Class::Library, why)), _) => {
                if !is_old {
                    self.accusers[0].insert(identity.uuid.clone(), (identity.clone(), why.clone()));
                }
            }
            (Some((_, why)), _) => self.lost(identity, why, now),
            (None, Condition::Lost { since } | Condition::Stuck { since }) => {
                gpu.condition = Condition::Well;
                self.event(now, identity, "recovered", Some(format!("it answers again, after {}", now - since)));
            }
            (None, Condition::Well | Condition::Vanished) => {}
        }
    }

    /// A GPU does not answer: it is lost, or not even on the bus any more.
    fn lost(&mut self, identity: &Identity, why: &str, now: Timestamp) {
        let on_bus = gpus_on_bus(&self.roots);
        let Some(gpu) = self.gpus.get_mut(&identity.uuid) else { return };
        if gpu.was_on_bus && on_bus.is_some_and(|on_bus| !on_bus.contains(&identity.pci)) {
            return self.vanished(identity, now);
        }
        if !matches!(gpu.condition, Condition::Lost { .. } | Condition::Vanished) {
            gpu.condition = Condition::Lost { since: now };
            self.event(now, identity, "lost", Some(why.to_string()));
        }
    }

    fn vanished(&mut self, identity: &Identity, now: Timestamp) {
        let Some(gpu) = self.gpus.get_mut(&identity.uuid) else { return };
        if gpu.condition != Condition::Vanished {
            gpu.condition = Condition::Vanished;
            self.event(now, identity, "vanished", Some(format!("the bus has no {} any more", identity.pci)));
        }
    }

    fn take_pass(&mut self, identity: &Identity, pass: Pass, asked: Timestamp, now: Timestamp) {
        for (column, reason, for_ever) in pass.faults {
            let reason = format!("GPU {}: {reason}", identity.index);
            let why = if for_ever { Unreadable::absent(reason) } else { Unreadable::damaged(reason) };
            self.faults.note(column, why);
        }
        let Some(cells) = pass.whole else { return };
        let Some(gpu) = self.gpus.get_mut(&identity.uuid) else { return };
        let instances: BTreeSet<String> = pass.instances.iter().map(|(uuid, _)| uuid.clone()).collect();
        let count = instances.len();
        if let Some(before) = gpu.instances.replace(instances.clone()).filter(|before| *before != instances) {
            self.event(now, identity, "mig_change", Some(format!("MIG instances: {} -> {count}", before.len())));
        }
        if let Some(processes) = pass.processes {
            self.processes.extend(processes.into_iter().map(|process| (identity.clone(), process)));
        }
        if now - asked > OLDEST_PASS {
            let late = format!("GPU {}: its values took {} to read and are dropped", identity.index, now - asked);
            return self.faults.note("", Unreadable::damaged(late));
        }
        self.rows.push(GpuRow { ts: asked, gpu: identity.clone(), mig: None, cells });
        for (uuid, cells) in pass.instances {
            self.rows.push(GpuRow { ts: asked, gpu: identity.clone(), mig: Some(uuid), cells });
        }
    }

    /// A call that does not return is said once.
    fn say_stuck(&mut self, now: Timestamp) {
        let mut stuck = Vec::new();
        for gpu in self.gpus.values_mut() {
            let busy = gpu.worker.as_ref().and_then(|worker| worker.busy_for(now)).filter(|busy| *busy >= STUCK_AFTER);
            if let Some(busy) = busy
                && gpu.condition == Condition::Well
            {
                gpu.condition = Condition::Stuck { since: now - busy };
                stuck.push((gpu.identity.clone(), busy));
            }
        }
        for (identity, busy) in stuck {
            self.event(now, &identity, "stuck", Some(format!("a call into the driver has not returned for {busy}")));
        }
    }

    fn take_xids(&mut self, now: Timestamp) {
        while let Ok(xid) = self.xids.1.try_recv() {
            let Some(gpu) = self.gpus.get(&xid.uuid) else { continue };
            let identity = gpu.identity.clone();
            let ts = now - Span::micros(xid.at.elapsed().as_micros() as i64);
            if self.is_news("nvml", &identity.pci, xid.code, now) {
                self.push(GpuEvent { code: xid.code, ..GpuEvent::of(ts, &identity, "xid", None) });
            }
        }
        let said = std::mem::take(&mut *self.requests.kernel.lock().unwrap_or_else(PoisonError::into_inner));
        for KernelXid { ts, pci, code, message } in said {
            if self.is_news("kernel", &pci, Some(code), now) {
                let known = self.gpus.values().find(|gpu| gpu.identity.pci == pci).map(|gpu| gpu.identity.clone());
                let identity = known.unwrap_or_else(|| Identity { pci, ..Identity::unknown(0) });
                let event = GpuEvent::of(ts, &identity, "xid", Some(message));
                self.push(GpuEvent { code: Some(code), source: "kernel", ..event });
            }
        }
    }

    /// Whether an XID was not told of by the other source a moment ago, by when it came and not by its time, which two clocks say. One source tells of each that there is.
    fn is_news(&mut self, source: &'static str, pci: &str, code: Option<i64>, now: Timestamp) -> bool {
        self.told.retain(|(_, _, _, before)| now - *before <= SAME_XID);
        match self.told.iter().position(|(by, of, known, _)| *by != source && of == pci && *known == code) {
            // Each answers for one of the other's.
            Some(index) => {
                self.told.remove(index);
                false
            }
            None => {
                self.told.push((source, pci.to_string(), code, now));
                true
            }
        }
    }

    /// Compares what the driver names with what is on the bus. A GPU that neither has is gone; one that only the bus has is
    /// looked for by opening the library anew.
    fn compare_with_bus(&mut self, now: Timestamp) {
        if self.bus_due > now || !matches!(self.library, Library::Open { .. }) {
            return;
        }
        self.bus_due = now.floor(BUS_INTERVAL) + BUS_INTERVAL;
        let Some(on_bus) = gpus_on_bus(&self.roots) else { return };
        let mut gone = Vec::new();
        for gpu in self.gpus.values_mut() {
            let is_there = on_bus.contains(&gpu.identity.pci);
            gpu.was_on_bus |= is_there;
            // One that answers is there, whatever sysfs shows.
            if gpu.was_on_bus && !is_there && gpu.condition != Condition::Well {
                gone.push(gpu.identity.clone());
            }
        }
        for identity in gone {
            self.vanished(&identity, now);
        }
        let asked = self.strangers.iter().any(|stranger| stranger.introduction.is_some());
        let hangs = asked || self.gpus.values().any(|gpu| matches!(gpu.condition, Condition::Stuck { .. }));
        if !hangs && self.is_worth_opening_anew(&on_bus, now) {
            // The library only looks for GPUs when nobody has it open.
            self.close(now);
        }
    }

    /// Whether there is a GPU that only a new opening can bring (back).
    fn is_worth_opening_anew(&mut self, on_bus: &BTreeSet<String>, now: Timestamp) -> bool {
        let unnamed = self.unnamed_of(on_bus);
        let appeared = unnamed.difference(&self.unnamed).next().is_some();
        self.unnamed = unnamed;
        let is_lost = |gpu: &Gpu| matches!(gpu.condition, Condition::Lost { .. });
        if !self.gpus.values().any(is_lost) {
            self.lost_retry = None;
            return appeared;
        }
        let (due, wait) = self.lost_retry.unwrap_or((now + LOST_RETRY, LOST_RETRY));
        let is_due = due <= now;
        let next = Span(wait.0 * 2).min(LOST_RETRY_MOST);
        self.lost_retry = Some(if is_due { (now + next, next) } else { (due, wait) });
        appeared || is_due
    }

    /// Addresses on the bus of which no GPU is known, or one that had vanished.
    fn unnamed_of(&self, on_bus: &BTreeSet<String>) -> BTreeSet<String> {
        let named = self.gpus.values().filter(|gpu| gpu.condition != Condition::Vanished);
        let named: BTreeSet<&String> = named.map(|gpu| &gpu.identity.pci).collect();
        on_bus.iter().filter(|address| !named.contains(address)).cloned().collect()
    }

    fn event(&mut self, ts: Timestamp, identity: &Identity, kind: &'static str, message: Option<String>) {
        self.push(GpuEvent::of(ts, identity, kind, message));
    }

    fn push(&mut self, event: GpuEvent) {
        if self.events.len() < WAITING {
            self.events.push(event);
        }
    }
}

impl GpuEvent {
    fn of(ts: Timestamp, identity: &Identity, kind: &'static str, message: Option<String>) -> GpuEvent {
        let (uuid, pci) = (identity.uuid.clone(), identity.pci.clone());
        GpuEvent { ts, uuid, pci, kind, code: None, source: "nvml", message }
    }
}

impl Gpu {
    fn new(identity: Identity) -> Gpu {
        Gpu {
            identity,
            worker: None,
            generation: 0,
            slow_due: Timestamp::MIN,
            condition: Condition::Well,
            was_on_bus: false,
            instances: None,
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Whoever waits for XIDs ends; whoever hangs ends with the process.
        self.close(Timestamp::MAX);
    }
}
