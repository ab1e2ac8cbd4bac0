//! Memory modules of a day: the table `memory_controller`, every ten seconds.

use tidewatch_model::{Span, Timestamp};

use super::gpus::phase_of;
use super::happenings::{Happening, Kind, Marks, SILENT};
use super::machines::Machines;
use super::places::{Dice, Places};
use crate::rows::{Cell, Rows, RowsError};

/// Controllers of a machine, one to a socket.
const CONTROLLERS: usize = 2;
/// Modules of a controller.
const MODULES: usize = 8;
/// Size of a module.
const SIZE: i64 = 128 << 30;
/// How often a module is corrected that is corrected some sixty times in an hour, seconds.
pub const RUN_EVERY: i64 = 450;

/// What a machine's modules have counted.
#[derive(Debug, Clone, Default)]
struct Counts {
    corrected: [i64; CONTROLLERS * MODULES],
    uncorrected: [i64; CONTROLLERS * MODULES],
    booted: i64,
}

/// All machines' modules.
#[derive(Debug)]
pub struct Modules {
    counts: Vec<Counts>,
    dice: Dice,
    start: Timestamp,
}

impl Modules {
    /// At the start of the day: some have been corrected long ago.
    pub fn new(places: &Places, machines: &Machines, seed: u64, start: Timestamp) -> Modules {
        let dice = Dice::new(seed, 9);
        let counts = (0..places.hosts.len()).map(|host| {
            let mut counts = Counts { booted: machines.booted(host), ..Counts::default() };
            if host % 7 == 3 {
                counts.corrected[host % (CONTROLLERS * MODULES)] = dice.between(1, 5_000);
            }
            counts
        });
        Modules { counts: counts.collect(), dice, start }
    }

    /// Counts what begins.
    pub fn note(&mut self, begun: &[Happening]) {
        for happening in begun {
            match happening.kind {
                Kind::CorrectedDimm => self.counts[happening.to].corrected[1] += 1,
                Kind::HostUncorrectable => self.counts[happening.to].uncorrected[2] += 1,
                _ => {}
            }
        }
    }

    /// The rows of `memory_controller`: of each controller its modules, and what was found in none.
    pub fn rows<'a>(
        &mut self,
        now: i64,
        places: &Places,
        machines: &Machines,
        marks: &Marks,
        active: impl Iterator<Item = &'a Happening>,
    ) -> Result<Rows, RowsError> {
        for happening in active {
            let corrected = match happening.kind {
                Kind::DimmRun if (now - happening.from).rem_euclid(RUN_EVERY) < 10 => {
                    (MODULES + 4, happening.amount.ceil() as i64)
                }
                Kind::DimmWears => (6, i64::from(self.dice.chance(0.5)) * 2),
                _ => continue,
            };
            self.counts[happening.to].corrected[corrected.0] += corrected.1;
        }
        let mut rows = Rows::of("memory_controller")?;
        for (host, counts) in self.counts.iter_mut().enumerate() {
            if counts.booted != machines.booted(host) {
                *counts = Counts { booted: machines.booted(host), ..Counts::default() };
            }
            if marks.hosts[host] & SILENT != 0 {
                continue;
            }
            let at = self.start + Span::seconds(now) + Span::micros(phase_of(host));
            for controller in 0..CONTROLLERS {
                for module in std::iter::once(None).chain((0..MODULES).map(Some)) {
                    let index = module.map(|module| controller * MODULES + module);
                    let label =
                        |module: usize| format!("CPU_SrcID#{controller}_MC#0_Chan#{}_DIMM#{}", module / 2, module % 2);
                    let cells: [(&str, Cell); 9] = [
                        ("host", places.hosts[host].as_str().into()),
                        ("controller", format!("mc{controller}").into()),
                        ("dimm", module.map(|module| format!("dimm{module}")).into()),
                        ("controller_name", "Simulated memory controller".into()),
                        ("label", module.map(label).into()),
                        ("location", module.map(|module| format!("channel {} slot {}", module / 2, module % 2)).into()),
                        ("size_bytes", module.map(|_| SIZE).into()),
                        ("corrected_total", index.map_or(0, |index| counts.corrected[index]).into()),
                        ("uncorrected_total", index.map_or(0, |index| counts.uncorrected[index]).into()),
                    ];
                    rows.push(at, cells)?;
                }
            }
        }
        Ok(rows)
    }
}
