//! The stub's one machine: its scenario, its clock, and what is initialised.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::scenario::{Gpu, Scenario, Step, code_of};

/// Names the file of the scenario, for a process of its own.
pub const SCENARIO_VARIABLE: &str = "NVML_STUB_SCENARIO";

/// Everything behind the C functions.
#[derive(Default)]
pub struct Machine {
    scenario: Option<Scenario>,
    clock: Clock,
    /// Initialisations less shutdowns.
    users: u32,
    /// The moment of the last initialisation that found nobody using the library: what it enumerated then stands.
    opened_ms: u64,
    /// Events registered: GPU, set, and up to which moment its events were given out.
    events: Vec<Registered>,
    next_set: usize,
    /// How often each function was called on each GPU.
    calls: BTreeMap<(usize, String), u64>,
}

struct Registered {
    set: usize,
    gpu: usize,
    until_ms: u64,
}

/// Time as the scenario counts it.
enum Clock {
    /// Since the library was loaded.
    Real(Instant),
    /// As it was told.
    Told(u64),
}

impl Default for Clock {
    fn default() -> Self {
        Clock::Real(Instant::now())
    }
}

/// The one machine of this copy of the library.
static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);
/// Notified whenever the clock is told something.
static TOLD: Condvar = Condvar::new();
/// How often a waiting call looks at a clock of its own.
const LOOK: Duration = Duration::from_millis(10);
/// What waiting for events is called.
const WAIT: &str = "nvmlEventSetWait_v2";

type Guard = MutexGuard<'static, Option<Machine>>;

fn lock() -> Guard {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(work: impl FnOnce(&mut Machine) -> T) -> T {
    work(lock().get_or_insert_with(Machine::default))
}

/// Replaces the scenario.
pub fn set_scenario(scenario: Scenario) {
    with(|machine| machine.scenario = Some(scenario));
}

/// Sets the clock; it stands still from then on.
pub fn set_clock(now_ms: u64) {
    with(|machine| machine.clock = Clock::Told(now_ms));
    TOLD.notify_all();
}

/// How often a function was called on a GPU; of waiting for its events, how often that failed.
pub fn calls(gpu: usize, name: &str) -> u64 {
    with(|machine| machine.calls.get(&(gpu, name.to_string())).copied().unwrap_or(0))
}

/// `nvmlInit_v2`.
pub fn open() -> i32 {
    with(|machine| {
        if machine.scenario.is_none() {
            let file = std::env::var(SCENARIO_VARIABLE).unwrap_or_default();
            let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            match read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
                Ok(scenario) => machine.scenario = Some(scenario),
                Err(_) => return code_of("DRIVER_NOT_LOADED"),
            }
        }
        if let Some(error) = machine.scenario.as_ref().and_then(|scenario| scenario.init.as_ref()) {
            return code_of(error);
        }
        if machine.users == 0 {
            machine.opened_ms = machine.now_ms();
        }
        machine.users += 1;
        0
    })
}

/// `nvmlShutdown`.
pub fn close() -> i32 {
    with(|machine| match machine.users {
        0 => code_of("UNINITIALIZED"),
        _ => {
            machine.users -= 1;
            0
        }
    })
}

/// The driver's version, or an error.
pub fn driver() -> Result<String, i32> {
    with(|machine| {
        machine.ready()?;
        let reloads = machine.steps().iter().filter(|step| step.at_ms <= machine.opened_ms);
        let last = reloads.filter_map(|step| step.reload.clone()).next_back();
        Ok(last.unwrap_or_else(|| machine.scenario.as_ref().map(|found| found.driver.clone()).unwrap_or_default()))
    })
}

/// The GPUs that the last initialisation found, by their places in the scenario.
pub fn enumerated() -> Result<Vec<usize>, i32> {
    with(|machine| {
        machine.ready()?;
        Ok((0..machine.gpus().len()).filter(|gpu| machine.is_there(*gpu, machine.opened_ms)).collect())
    })
}

/// Enters a call on a GPU: waits as long as the scenario lets it hang, then fails as the scenario says, or looks at it.
pub fn call<T>(gpu: usize, name: &str, look: impl FnOnce(&View) -> Result<T, i32>) -> Result<T, i32> {
    let mut guard = lock();
    let machine = guard.get_or_insert_with(Machine::default);
    let begun = machine.now_ms();
    machine.count(gpu, name);
    loop {
        let machine = guard.get_or_insert_with(Machine::default);
        let hangs = |step: &&Step| step.gpu == gpu && step.at_ms <= begun && begun < step.at_ms + step.hang_ms;
        let until = machine.steps().iter().filter(hangs).map(|step| step.at_ms + step.hang_ms).max();
        match until {
            Some(until) if machine.now_ms() < until => {
                guard = TOLD.wait_timeout(guard, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
            _ => break,
        }
    }
    let machine = guard.get_or_insert_with(Machine::default);
    machine.ready()?;
    let now_ms = machine.now_ms();
    if !machine.is_there(gpu, now_ms) {
        return Err(code_of("GPU_IS_LOST"));
    }
    let found = machine.gpus().get(gpu).ok_or(code_of("INVALID_ARGUMENT"))?;
    if let Some(error) = found.failure(name, now_ms, machine.steps(), gpu) {
        return Err(error);
    }
    look(&View { gpu: found, place: gpu, now_ms, steps: machine.steps() })
}

/// A GPU at a moment.
pub struct View<'a> {
    /// What it was at the beginning.
    pub gpu: &'a Gpu,
    /// Where it stands in the scenario.
    pub place: usize,
    /// The moment.
    pub now_ms: u64,
    steps: &'a [Step],
}

impl View<'_> {
    /// A value; one that nobody has is not supported.
    pub fn value(&self, name: &str) -> Result<f64, i32> {
        self.value_at(name, self.now_ms)
    }

    /// What it was at a moment.
    pub fn value_at(&self, name: &str, at_ms: u64) -> Result<f64, i32> {
        self.gpu.at(name, at_ms, self.steps, self.place).ok_or(code_of("NOT_SUPPORTED"))
    }

    /// What a name fails with.
    pub fn failure(&self, name: &str) -> Option<i32> {
        self.gpu.failure(name, self.now_ms, self.steps, self.place)
    }

    /// Its MIG instances.
    pub fn mig(&self) -> &[String] {
        let passed = self.steps.iter().filter(|step| step.gpu == self.place && step.at_ms <= self.now_ms);
        passed.filter_map(|step| step.mig.as_deref()).next_back().unwrap_or(&self.gpu.mig)
    }
}

/// A new set of events.
pub fn new_set() -> usize {
    with(|machine| {
        machine.next_set += 1;
        machine.next_set
    })
}

/// Registers a GPU's events after a moment: that of the call, since the clock may go on before this is reached.
pub fn register(set: usize, gpu: usize, until_ms: u64) {
    with(|machine| machine.events.push(Registered { set, gpu, until_ms }));
}

/// Frees a set.
pub fn free_set(set: usize) {
    with(|machine| machine.events.retain(|registered| registered.set != set));
}

/// The next XID of a set, waiting for it.
pub fn next_event(set: usize, wait: Duration) -> Result<(usize, u64), i32> {
    let deadline = Instant::now() + wait;
    let mut guard = lock();
    loop {
        let machine = guard.get_or_insert_with(Machine::default);
        machine.ready()?;
        if let Some(found) = machine.take_event(set) {
            return Ok(found);
        }
        if let Some((gpu, error)) = machine.event_failure(set) {
            machine.count(gpu, WAIT);
            return Err(error);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(code_of("TIMEOUT"));
        }
        guard = TOLD.wait_timeout(guard, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Machine {
    fn count(&mut self, gpu: usize, name: &str) {
        *self.calls.entry((gpu, name.to_string())).or_default() += 1;
    }

    fn now_ms(&self) -> u64 {
        match self.clock {
            Clock::Real(since) => since.elapsed().as_millis() as u64,
            Clock::Told(now_ms) => now_ms,
        }
    }

    fn gpus(&self) -> &[Gpu] {
        self.scenario.as_ref().map_or(&[], |scenario| &scenario.gpus)
    }

    fn steps(&self) -> &[Step] {
        self.scenario.as_ref().map_or(&[], |scenario| &scenario.steps)
    }

    /// Whether calls can be answered at all: initialised, and by the driver that is there now.
    fn ready(&self) -> Result<(), i32> {
        if self.users == 0 {
            return Err(code_of("UNINITIALIZED"));
        }
        let now_ms = self.now_ms();
        let between = |step: &Step| step.reload.is_some() && step.at_ms > self.opened_ms && step.at_ms <= now_ms;
        match self.steps().iter().any(between) {
            true => Err(code_of("LIB_RM_VERSION_MISMATCH")),
            false => Ok(()),
        }
    }

    fn is_there(&self, gpu: usize, at_ms: u64) -> bool {
        let passed = self.steps().iter().filter(|step| step.gpu == gpu && step.at_ms <= at_ms);
        let begins_absent = self.steps().iter().filter(|step| step.gpu == gpu).find_map(|step| match step {
            Step { appear: true, .. } => Some(true),
            Step { vanish: true, .. } => Some(false),
            _ => None,
        });
        let last = passed.filter(|step| step.vanish || step.appear).map(|step| step.appear).next_back();
        last.unwrap_or(begins_absent != Some(true))
    }

    /// What waiting for a set's events fails with: that one of its GPUs is gone, or as the scenario says.
    fn event_failure(&self, set: usize) -> Option<(usize, i32)> {
        let now_ms = self.now_ms();
        let gpus = self.events.iter().filter(|registered| registered.set == set).map(|registered| registered.gpu);
        gpus.filter_map(|gpu| match self.is_there(gpu, now_ms) {
            true => Some((gpu, self.gpus().get(gpu)?.failure(WAIT, now_ms, self.steps(), gpu)?)),
            false => Some((gpu, code_of("GPU_IS_LOST"))),
        })
        .next()
    }

    fn take_event(&mut self, set: usize) -> Option<(usize, u64)> {
        let now_ms = self.now_ms();
        let steps: Vec<(u64, usize, u64)> = self
            .steps()
            .iter()
            .filter(|step| step.at_ms <= now_ms)
            .filter_map(|step| Some((step.at_ms, step.gpu, step.xid?)))
            .collect();
        for registered in self.events.iter_mut().filter(|registered| registered.set == set) {
            let new = |(at_ms, gpu, _): &&(u64, usize, u64)| *gpu == registered.gpu && *at_ms > registered.until_ms;
            if let Some((at_ms, gpu, xid)) = steps.iter().find(new) {
                registered.until_ms = *at_ms;
                return Some((*gpu, *xid));
            }
        }
        None
    }
}
