//! What goes wrong in a simulated fleet, what only looks so, and what must be found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidewatch_model::ports::Random;
use tidewatch_model::scripted::SeededRandom;
use tidewatch_model::{Span, Timestamp};

use super::SimulateError;

/// Kinds of incidents and of near misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A GPU's cooling fails: it goes beyond 90 degrees within two minutes.
    Overheating,
    /// Uncorrectable memory errors, with many corrected ones.
    EccBurst,
    /// An XID that needs a reset.
    Xid,
    /// The GPU falls off the bus: an event, and then no rows.
    GpuLost,
    /// The power limit holds the clocks down.
    PowerCap,
    /// A training job hangs in a collective: its GPUs spin at full utilisation and low power.
    TrainingStall,
    /// Near miss: one sample of 110 degrees.
    OneSampleGlitch,
    /// Near miss: a host sends nothing for a while.
    CollectorGap,
    /// Near miss: one corrected memory error.
    SingleEcc,
    /// Near miss: a short time at 88 degrees.
    ShortOverheat,
    /// Near miss: an XID of the application's making.
    AppXid,
    /// Near miss: a checkpoint that takes long.
    CheckpointDip,
}

/// One incident or near miss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// What happens.
    pub kind: Kind,
    /// When, after the start.
    pub at: Span,
    /// For how long; what is over at once has zero.
    #[serde(default)]
    pub duration: Span,
    /// To which GPU, counted over the fleet. A job's or host's incident happens to that of the GPU.
    pub gpu: usize,
    /// The XID, for the kinds that have one.
    #[serde(default)]
    pub code: Option<i64>,
}

/// What is true of one incident: whether and where a rule must find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// What happened.
    pub kind: Kind,
    /// Whether no rule may find it.
    pub near_miss: bool,
    /// The bundled rule that must fire.
    pub expected_rule: Option<String>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Labels that the alert must have.
    pub labels: BTreeMap<String, String>,
}

impl Kind {
    /// In the order in which the default set places them.
    pub const ALL: [Kind; 12] = [
        Kind::Overheating,
        Kind::OneSampleGlitch,
        Kind::EccBurst,
        Kind::SingleEcc,
        Kind::Xid,
        Kind::AppXid,
        Kind::GpuLost,
        Kind::ShortOverheat,
        Kind::PowerCap,
        Kind::CollectorGap,
        Kind::TrainingStall,
        Kind::CheckpointDip,
    ];

    /// The bundled rule that must find it; `None` for a near miss.
    pub fn rule(self) -> Option<&'static str> {
        match self {
            Kind::Overheating => Some("gpu_overheating"),
            Kind::EccBurst => Some("gpu_ecc_uncorrectable"),
            Kind::Xid => Some("gpu_xid_critical"),
            Kind::GpuLost => Some("gpu_lost"),
            Kind::PowerCap => Some("gpu_power_capped"),
            Kind::TrainingStall => Some("train_stall_gpu_busy"),
            _ => None,
        }
    }

    /// How long the default set lets it last.
    fn usual_duration(self) -> Span {
        match self {
            Kind::Xid | Kind::AppXid | Kind::SingleEcc | Kind::OneSampleGlitch => Span::ZERO,
            Kind::ShortOverheat => Span::seconds(20),
            Kind::CollectorGap => Span::seconds(75),
            Kind::CheckpointDip => Span::seconds(90),
            _ => Span::minutes(5),
        }
    }

    /// Whether it happens to a whole job.
    pub fn of_job(self) -> bool {
        matches!(self, Kind::TrainingStall | Kind::CheckpointDip)
    }
}

impl Incident {
    /// Whether it lasts at this time after the start. What is over at once lasts for the tick in which it begins.
    pub fn covers(&self, elapsed: Span, interval: Span) -> bool {
        elapsed >= self.at && elapsed < self.at + self.duration.max(interval)
    }
}

/// Reads incidents from JSON: an array of objects with kind, at, duration, gpu and, for XIDs, code.
///
/// # Errors
/// What is wrong, with line and column.
pub fn incidents_from_json(text: &str) -> Result<Vec<Incident>, SimulateError> {
    serde_json::from_str(text).map_err(|error| SimulateError::Incidents(error.to_string()))
}

/// Time before the first incident of the default set, and after the last.
const MARGIN: Span = Span::minutes(5);
/// Time from one incident to the next, where they share GPUs.
const APART: Span = Span::minutes(8);

/// The default set: every kind once, in a large fleet at the same time on different jobs, in a small one after each other
/// as far as the duration goes. The seed moves them by up to half a minute.
pub fn default_incidents(gpus: usize, gpus_per_job: usize, duration: Span, random: &SeededRandom) -> Vec<Incident> {
    let jobs = gpus.div_ceil(gpus_per_job).max(1);
    let together = jobs >= 4 && duration >= Span::minutes(30);
    let room = Span(duration.0 - 2 * MARGIN.0 - Kind::Overheating.usual_duration().0);
    let step = if together { Span(room.0 / Kind::ALL.len() as i64) } else { APART };
    let mut incidents = Vec::new();
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        let wobble = Span::seconds((random.next_u64() % 30) as i64);
        let at = MARGIN + Span(step.0 * index as i64) + wobble;
        if at + kind.usual_duration() + MARGIN > duration {
            break;
        }
        // GPUs' incidents in the first half of the jobs, a host's and the checkpoint's in the third quarter, the stall last.
        let job = match kind {
            _ if !together => index % jobs,
            Kind::TrainingStall => jobs - 1,
            Kind::CollectorGap | Kind::CheckpointDip => jobs - 2,
            _ => index % (jobs - 2),
        };
        let gpu = (job * gpus_per_job + index % gpus_per_job).min(gpus - 1);
        let code = match kind {
            Kind::Xid => Some([79, 48, 63, 95][(random.next_u64() % 4) as usize]),
            Kind::AppXid => Some([31, 43][(random.next_u64() % 2) as usize]),
            _ => None,
        };
        incidents.push(Incident { kind, at, duration: kind.usual_duration(), gpu, code });
    }
    incidents
}
