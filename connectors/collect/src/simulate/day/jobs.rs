//! Training jobs: slots of machines on which one job follows the other, with steps, checkpoints, evaluations and restarts.

use std::ops::Range;

use tidewatch_model::{Span, Timestamp};

use super::happenings::{Happening, Kind, Of};
use super::places::{Dice, PER_HOST, Places, Role};
use crate::rows::{Cell, Rows, RowsError};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is no process.
    Idle,
    /// Processes start, read the checkpoint, compile.
    Loading,
    /// Steps.
    Stepping,
    /// Rank 0 writes, the others wait for it in a collective.
    Checkpoint,
    /// All ranks write without waiting.
    Saving,
    /// An evaluation.
    Evaluation,
    /// A collective hangs.
    Hang,
}

/// One job of a slot.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number in Slurm.
    pub name: String,
    /// When it begins.
    pub start: i64,
    /// When it ends.
    pub end: i64,
    /// Whether it tells its end; who cancels a job gets none.
    pub tells_end: bool,
    loading: i64,
    step_seconds: f64,
    checkpoint_every: i64,
    evaluation_every: i64,
    evaluation: i64,
}

/// Machines on which one job follows the other.
#[derive(Debug)]
pub struct Slot {
    /// The machines.
    pub hosts: Range<usize>,
    /// The jobs, in order.
    pub jobs: Vec<Job>,
    /// Whether each rank tells its steps, or only the first.
    pub all_ranks: bool,
    /// Whether a rank tells the time of its own work, or that until all were done.
    pub own_work: bool,
    /// What it does.
    pub phase: Phase,
    outages: Vec<(i64, i64)>,
    current: usize,
    until: i64,
    next_step: f64,
    paused: f64,
    step: i64,
    saved: i64,
    next_checkpoint: i64,
    next_evaluation: i64,
    checkpoints: u64,
    nan: bool,
    bump: bool,
}

impl Slot {
    /// The job that runs or is next.
    pub fn job(&self) -> Option<&Job> {
        self.jobs.get(self.current)
    }

    /// The job of a time, when it has one.
    pub fn job_at(&self, t: i64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.start <= t && t < job.end)
    }

    fn ranks(&self) -> usize {
        self.hosts.len() * PER_HOST
    }
}

/// All slots.
#[derive(Debug)]
pub struct Jobs {
    /// The slots.
    pub slots: Vec<Slot>,
    dice: Dice,
    start: Timestamp,
}

/// What each slot has of the machines that train.
const SHARES: [f64; 10] = [0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025];
/// How many hours the jobs of a slot take, at least and at most.
const HOURS: [(i64, i64); 10] = [(90, 100), (8, 12), (5, 8), (5, 8), (4, 6), (4, 6), (2, 5), (2, 4), (2, 5), (1, 4)];

/// How many slots a fleet has.
fn slots(places: &Places) -> usize {
    SHARES.len().min(places.with(Role::Training).len())
}

impl Jobs {
    /// The jobs of a day.
    pub fn new(places: &Places, duration: i64, seed: u64, start: Timestamp) -> Jobs {
        let dice = Dice::new(seed, 2);
        let training = places.with(Role::Training);
        let count = slots(places);
        let mut first = training.start;
        let mut number = 481_500;
        let slots = (0..count).map(|index| {
            let left = training.end - first - (count - index - 1);
            let hosts = ((SHARES[index] * training.len() as f64).round() as usize).clamp(1, left.max(1));
            let hosts = if index + 1 == count { training.end - first } else { hosts };
            let range = first..first + hosts;
            first += hosts;
            Slot {
                jobs: plan(&dice, index, duration, &mut number),
                hosts: range,
                all_ranks: index % 4 != 3,
                own_work: index % 2 == 0,
                phase: Phase::Stepping,
                outages: vec![],
                current: 0,
                until: 0,
                next_step: dice.unit() * 5.0,
                paused: 0.0,
                step: 12_000 + dice.between(0, 3_000),
                saved: 12_000,
                next_checkpoint: dice.between(60, 1_500),
                next_evaluation: dice.between(1_800, 7_200),
                checkpoints: index as u64,
                nan: false,
                bump: false,
            }
        });
        Jobs { slots: slots.collect(), dice, start }
    }

    /// Takes note of what ends jobs before their time.
    pub fn set_outages(&mut self, happenings: &[Happening]) {
        for happening in happenings {
            let (from, until) = match happening.kind {
                Kind::JobRestart => (happening.from, happening.until),
                Kind::GpuOffBus | Kind::Uncorrectable | Kind::GpuProcessOom => {
                    (happening.from + 8, happening.from + 260)
                }
                // The others of the job are given half a minute to end.
                Kind::CgroupOom | Kind::HostUncorrectable => (happening.from + 30, happening.from + 260),
                Kind::HostDown => (happening.from + 30, happening.until + 150),
                _ => continue,
            };
            let slot = match happening.kind.of() {
                Of::Slot => Some(happening.to),
                Of::Host => self.slot_of(happening.to),
                _ => self.slot_of(happening.to / PER_HOST),
            };
            if let Some(slot) = slot {
                self.slots[slot].outages.push((from, until));
            }
        }
    }

    /// Machines with the newest boards: those of the largest jobs.
    pub fn newest(&self) -> Range<usize> {
        self.slots.first().map_or(0..0, |slot| slot.hosts.clone())
    }

    /// The slot of a machine.
    pub fn slot_of(&self, host: usize) -> Option<usize> {
        self.slots.iter().position(|slot| slot.hosts.contains(&host))
    }

    /// What a machine's job does, and its name while there are processes.
    pub fn on(&self, host: usize) -> (Phase, Option<&str>) {
        let Some(slot) = self.slot_of(host).map(|slot| &self.slots[slot]) else { return (Phase::Idle, None) };
        match (slot.phase, slot.job()) {
            (Phase::Idle, _) | (_, None) => (Phase::Idle, None),
            (phase, Some(job)) => (phase, Some(&job.name)),
        }
    }

    /// Steps and events of the tick from `now` to `end`.
    pub fn advance(&mut self, now: i64, end: i64, places: &Places, marks: &[u128]) -> Result<(Rows, Rows), RowsError> {
        let (mut steps, mut events) = (Rows::of("train_step")?, Rows::of("job_event")?);
        let Jobs { slots, dice, start } = self;
        for (index, slot) in slots.iter_mut().enumerate() {
            let mut told: Vec<(&str, &str, bool)> = Vec::new();
            let bits = marks[index];
            slot.nan |= bits & Kind::OneNan.bit() != 0;
            slot.bump |= bits & Kind::GradBump.bit() != 0;
            let Some(job) = slot.jobs.get(slot.current).cloned() else { continue };
            turn(slot, &job, now, bits, dice, &mut told);
            let at = *start + Span::seconds(now);
            for (kind, message, by_all) in told {
                for rank in 0..if by_all { slot.ranks() } else { 1 } {
                    let host = places.hosts[slot.hosts.start + rank / PER_HOST].as_str();
                    let message = (!message.is_empty()).then_some(message);
                    let cells: [(&str, Cell); 5] = [
                        ("job", job.name.as_str().into()),
                        ("rank", (rank as i64).into()),
                        ("host", host.into()),
                        ("kind", kind.into()),
                        ("message", message.into()),
                    ];
                    events.push(at + Span::millis(rank as i64 % 700), cells)?;
                }
            }
            while slot.phase == Phase::Stepping && slot.next_step < end as f64 {
                step(slot, &job, index, *start, places, bits, dice, &mut steps)?;
            }
        }
        Ok((steps, events))
    }
}

/// The jobs of a slot: all slots are at work when the day begins.
fn plan(dice: &Dice, index: usize, duration: i64, number: &mut i64) -> Vec<Job> {
    let (least, most) = HOURS[index];
    let mut jobs = Vec::new();
    let mut start = -dice.between(3_600, 7_200);
    while start < duration {
        let end = start + dice.between(least * 3_600, most * 3_600 + 1);
        *number += dice.between(1, 40);
        let step_seconds = 3.0 + 6.0 * dice.unit();
        jobs.push(Job {
            name: number.to_string(),
            start,
            end,
            tells_end: index < 6 || !dice.chance(0.25),
            loading: dice.between(90, 420),
            step_seconds,
            checkpoint_every: dice.between(1_200, 2_700),
            evaluation_every: dice.between(5_400, 9_000),
            evaluation: dice.between(60, 480),
        });
        start = end + dice.between(120, 1_500);
    }
    jobs
}

/// From one phase to the next; what is told of it, and whether by all ranks.
fn turn(
    slot: &mut Slot,
    job: &Job,
    now: i64,
    bits: u128,
    dice: &Dice,
    told: &mut Vec<(&'static str, &'static str, bool)>,
) {
    let begins = |slot: &mut Slot| {
        slot.phase = Phase::Loading;
        slot.until = now + job.loading;
    };
    let down = slot.outages.iter().any(|(from, until)| *from <= now && now < *until);
    match slot.phase {
        _ if now >= job.end => {
            if slot.phase != Phase::Idle && job.tells_end {
                told.push(("end", "", true));
            }
            slot.phase = Phase::Idle;
            slot.current += 1;
            slot.step = 0;
            slot.saved = 0;
        }
        Phase::Idle if now >= job.start && !down => {
            told.push(("start", "", true));
            begins(slot);
        }
        Phase::Idle => {}
        _ if down => {
            told.push(("failed", "RuntimeError: a rank ended", false));
            slot.phase = Phase::Idle;
            slot.step = slot.saved;
        }
        Phase::Loading if now >= slot.until => {
            slot.phase = Phase::Stepping;
            slot.next_step = now as f64 + job.step_seconds;
            slot.paused = 0.0;
            slot.next_checkpoint = now + job.checkpoint_every;
            slot.next_evaluation = now + job.evaluation_every;
        }
        Phase::Checkpoint | Phase::Saving | Phase::Evaluation if now >= slot.until => {
            if slot.phase == Phase::Evaluation {
                told.push(("evaluation", "", false));
            } else {
                told.push(("checkpoint", "", slot.all_ranks && slot.own_work));
                slot.saved = slot.step;
            }
            slot.phase = Phase::Stepping;
        }
        Phase::Stepping if bits & (Kind::ShortHang.bit() | Kind::Stall.bit()) != 0 => slot.phase = Phase::Hang,
        Phase::Hang if bits & (Kind::ShortHang.bit() | Kind::Stall.bit()) == 0 => {
            slot.phase = Phase::Stepping;
            pause(slot, now, job);
        }
        Phase::Stepping if now >= slot.next_checkpoint => {
            slot.checkpoints += 1;
            // Most are short; one in ten meets a busy storage.
            let length = if slot.checkpoints % 10 == 7 { dice.between(120, 260) } else { dice.between(15, 80) };
            slot.next_checkpoint = now + job.checkpoint_every;
            slot.until = now + length;
            slot.phase = if slot.own_work { Phase::Checkpoint } else { Phase::Saving };
            pause(slot, slot.until, job);
        }
        Phase::Stepping if now >= slot.next_evaluation => {
            slot.next_evaluation = now + job.evaluation_every;
            slot.until = now + job.evaluation;
            slot.phase = Phase::Evaluation;
            pause(slot, slot.until, job);
        }
        _ => {}
    }
}

/// The next step ends after the pause, and took as much longer.
fn pause(slot: &mut Slot, until: i64, job: &Job) {
    let next = until as f64 + 0.5 * job.step_seconds;
    slot.paused = (next - slot.next_step).max(0.0);
    slot.next_step = slot.next_step.max(next);
}

#[allow(clippy::too_many_arguments)]
fn step(
    slot: &mut Slot,
    job: &Job,
    index: usize,
    start: Timestamp,
    places: &Places,
    bits: u128,
    dice: &Dice,
    rows: &mut Rows,
) -> Result<(), RowsError> {
    slot.step += 1;
    let ranks = slot.ranks();
    let slow_rank = (slot.step as usize / 100_000 + 5) % ranks;
    let slow = bits & (Kind::Straggler.bit() | Kind::ShortStraggler.bit()) != 0;
    let waits = bits & Kind::DataWait.bit() != 0;
    let own = job.step_seconds * (if waits { 1.3 } else { 1.0 }) * (1.0 + 0.01 * dice.noise());
    let longest = own * if slow { 1.5 } else { 1.025 };
    let loss = match bits & Kind::LossNan.bit() != 0 || std::mem::take(&mut slot.nan) {
        true => f64::NAN,
        false => 2.0 + 8.0 / (1.0 + slot.step as f64 / 200.0) + 0.05 * dice.noise(),
    };
    let bump = std::mem::take(&mut slot.bump);
    let norm = if bump { 4.0 } else { 0.8 + 0.4 * dice.unit() };
    let norm = if loss.is_nan() { f64::NAN } else { norm };
    for rank in 0..if slot.all_ranks { ranks } else { 1 } {
        let [noise, hair, late, ..] = dice.five();
        // A rank is always a little slower or faster than the others, by its place.
        let place = 0.008 * ((rank * 37 % 101) as f64 / 50.0 - 1.0);
        let seconds = match slot.own_work {
            true if slow && rank == slow_rank => longest * (1.0 + 0.01 * noise),
            true => own * (1.0 + place + 0.008 * noise) + slot.paused,
            false => longest + slot.paused + 0.002 * noise,
        };
        let data = own * if waits { 0.28 } else { 0.03 + 0.01 * hair };
        let at = start + Span::micros((slot.next_step * 1e6) as i64 + ((late + 1.0) * 40_000.0) as i64);
        let cells: [(&str, Cell); 10] = [
            ("job", job.name.as_str().into()),
            ("rank", (rank as i64).into()),
            ("host", places.hosts[slot.hosts.start + rank / PER_HOST].as_str().into()),
            ("step", slot.step.into()),
            ("loss", (loss + 0.01 * hair).into()),
            ("gradient_norm", norm.into()),
            ("learning_rate", 3e-4.into()),
            ("step_seconds", seconds.into()),
            ("data_seconds", data.into()),
            ("tokens", (4_194_304 / (1 + index as i64)).into()),
        ];
        rows.push(at, cells)?;
    }
    slot.paused = 0.0;
    slot.next_step += longest;
    Ok(())
}
