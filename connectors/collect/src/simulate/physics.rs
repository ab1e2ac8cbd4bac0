//! A plain model of a GPU: power follows utilisation, temperature follows power with a lag.

use tidewatch_model::scripted::SeededRandom;

/// Power limit of a GPU, watts: an SXM board's.
pub const POWER_LIMIT_WATTS: f64 = 700.0;
/// Power of an idle GPU, watts.
const IDLE_WATTS: f64 = 110.0;
/// Largest clock of the streaming multiprocessors, MHz.
pub const CLOCK_MAX_MHZ: f64 = 1_980.0;
/// Clock while the power limit holds it down, MHz.
const CLOCK_CAPPED_MHZ: f64 = 1_100.0;
/// Time constant of the temperature, seconds.
const THERMAL_SECONDS: f64 = 60.0;
/// Degrees that a watt adds in the steady state.
const DEGREES_PER_WATT: f64 = 0.055;
/// Degrees that broken cooling adds in the steady state.
const BROKEN_COOLING_DEGREES: f64 = 45.0;

/// What the job and the incidents ask of a GPU in a tick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// The job computes; otherwise it writes a checkpoint or there is none.
    pub busy: bool,
    /// The job hangs in a collective.
    pub stalled: bool,
    /// Cooling is broken.
    pub overheating: bool,
    /// The power limit holds the clocks down.
    pub capped: bool,
    /// Uncorrectable errors come.
    pub ecc_burst: bool,
    /// One corrected error comes.
    pub single_ecc: bool,
    /// What the sensor shows instead of the temperature.
    pub shown_degrees: Option<f64>,
}

/// The state of one GPU.
#[derive(Debug, Clone, Default)]
pub struct Gpu {
    /// Share of time in which a kernel ran.
    pub utilization: f64,
    /// Share of time in which the tensor cores worked.
    pub tensor: f64,
    /// Watts.
    pub power: f64,
    /// Degrees at the sensor.
    pub shown_temperature: f64,
    /// Degrees of the memory.
    pub memory_temperature: f64,
    /// MHz.
    pub clock: f64,
    /// Joules since the start.
    pub energy: f64,
    /// Nanoseconds held down by the power limit.
    pub throttle_ns: f64,
    /// Uncorrectable errors.
    pub ecc_uncorrected: i64,
    /// Corrected errors.
    pub ecc_corrected: i64,
    /// Bytes received over PCIe.
    pub pcie_rx: f64,
    /// Bytes sent over PCIe.
    pub pcie_tx: f64,
    temperature: f64,
    burst_seconds: f64,
}

/// Degrees of the room at a time: a slow wave over hours.
fn ambient(seconds: f64) -> f64 {
    30.0 + 2.0 * (seconds / 3_600.0 * 0.8).sin()
}

impl Gpu {
    /// A GPU that has been at work for long.
    pub fn warm() -> Self {
        Gpu { temperature: 66.0, ..Gpu::default() }
    }

    /// Lets time pass. `noise` draws from -1 to 1.
    pub fn step(&mut self, demand: &Demand, seconds: f64, elapsed: f64, random: &SeededRandom) {
        let noise = || random.unit() * 2.0 - 1.0;
        let (utilization, tensor) = match (demand.stalled, demand.busy) {
            (true, _) => (1.0, 0.0),
            (false, true) => (0.955 + 0.025 * noise(), 0.55 + 0.05 * noise()),
            (false, false) => (0.03 + 0.02 * noise(), 0.0),
        };
        (self.utilization, self.tensor) = (utilization, tensor);
        self.power = match (demand.stalled, demand.capped) {
            (true, _) => 0.3 * POWER_LIMIT_WATTS + 4.0 * noise(),
            (false, true) => POWER_LIMIT_WATTS - 1.0 + noise(),
            (false, false) => IDLE_WATTS + (0.9 * POWER_LIMIT_WATTS - IDLE_WATTS) * utilization + 6.0 * noise(),
        };
        self.clock =
            if demand.capped { CLOCK_CAPPED_MHZ + 20.0 * noise() } else { CLOCK_MAX_MHZ - 30.0 + 15.0 * noise() };
        let broken = if demand.overheating { BROKEN_COOLING_DEGREES } else { 0.0 };
        let target = ambient(elapsed) + DEGREES_PER_WATT * self.power + broken;
        self.temperature += (target - self.temperature) * (seconds / THERMAL_SECONDS).min(1.0);
        self.shown_temperature = demand.shown_degrees.unwrap_or(self.temperature + 0.3 * noise()).clamp(0.0, 120.0);
        self.memory_temperature = (self.temperature + 8.0 + 0.3 * noise()).clamp(0.0, 120.0);
        self.energy += self.power * seconds;
        self.throttle_ns += if demand.capped { 0.9e9 * seconds } else { 0.0 };
        self.pcie_rx += seconds * (2.0e9 * utilization + 1.0e8 * (noise() + 1.0));
        self.pcie_tx += seconds * (1.5e9 * utilization + 1.0e8 * (noise() + 1.0));
        self.errors(demand, seconds);
    }

    /// In a burst one uncorrectable error every ten seconds, and twenty corrected ones a second.
    fn errors(&mut self, demand: &Demand, seconds: f64) {
        if demand.ecc_burst {
            self.burst_seconds += seconds;
            self.ecc_corrected += (20.0 * seconds) as i64;
            while self.burst_seconds >= 10.0 {
                self.burst_seconds -= 10.0;
                self.ecc_uncorrected += 1;
            }
        }
        self.ecc_corrected += i64::from(demand.single_ecc);
    }
}
