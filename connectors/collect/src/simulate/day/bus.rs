//! The PCIe bus of a day's machines: the table `pcie`, every thirty seconds.

use tidewatch_model::{Span, Timestamp};

use super::gpus::{Gpus, phase_of};
use super::happenings::{Happening, Kind, Marks, SILENT};
use super::machines::Machines;
use super::places::{Dice, IB_PORTS, PER_HOST, Places, Role};
use crate::rows::{Cell, Rows, RowsError};

/// A device.
#[derive(Debug, Clone)]
struct Device {
    address: String,
    class: &'static str,
    driver: &'static str,
    names: Option<String>,
    slot: Option<String>,
    lanes: i64,
    slot_lanes: i64,
    /// Gigatransfers per second.
    speed: f64,
    /// The machine's GPU that it is.
    gpu: Option<usize>,
    /// Transactions that failed when the machine was started and looked for devices: as many each time.
    at_start: i64,
    corrected: i64,
    fatal: i64,
}

/// The devices of a machine: network cards and drives first.
#[derive(Debug)]
struct Bus {
    devices: Vec<Device>,
    /// How many are network cards and drives.
    cards: usize,
    booted: i64,
}

/// All machines' devices.
#[derive(Debug)]
pub struct Buses {
    buses: Vec<Bus>,
    dice: Dice,
    start: Timestamp,
}

/// Drives of a machine.
const DRIVES: usize = 2;

fn devices(host: usize, role: Role) -> (Vec<Device>, usize) {
    let device = |bus: usize, class, lanes, speed| Device {
        address: format!("0000:{bus:02x}:00.0"),
        class,
        driver: "pcieport",
        names: None,
        slot: Some(format!("0000:{:02x}:01.0", bus - 1)),
        lanes,
        slot_lanes: lanes,
        speed,
        gpu: None,
        at_start: 0,
        corrected: 0,
        fatal: 0,
    };
    let ports = if role == Role::Training { IB_PORTS } else { 0 };
    let mut all: Vec<Device> = (0..ports)
        .map(|port| Device {
            driver: "mlx5_core",
            names: Some(format!("mlx5_{port} ib{port}")),
            ..device(0x10 * port + 0x14, "network", 16, 32.0)
        })
        .collect();
    // On one machine in five the card is wider than its slot.
    let slot_lanes = if host % 5 == 2 { 8 } else { 16 };
    all.push(Device {
        driver: "mlx5_core",
        names: Some("mlx5_8 eth0".to_string()),
        slot_lanes,
        ..device(0x90, "network", 16, 16.0)
    });
    all.extend((0..DRIVES).map(|drive| Device {
        driver: "nvme",
        names: Some(format!("nvme{drive}")),
        at_start: i64::from((host + drive).is_multiple_of(6)),
        ..device(0x10 * drive + 0xA0, "storage", 4, 16.0)
    }));
    let cards = all.len();
    all.extend((0..PER_HOST).map(|gpu| Device {
        driver: "nvidia",
        gpu: Some(gpu),
        ..device(0x10 * gpu + 0x10, "display", 16, 32.0)
    }));
    // The ports above GPUs.
    let above = (0..PER_HOST).map(|gpu| Device {
        address: format!("0000:{:02x}:01.0", 0x10 * gpu + 0x0F),
        slot: None,
        ..device(0x10 * gpu + 0x10, "bridge", 16, 32.0)
    });
    all.extend(above);
    (all, cards)
}

impl Buses {
    /// At the start of the day: links have been trained weeks ago, and were corrected now and then.
    pub fn new(places: &Places, machines: &Machines, seed: u64, start: Timestamp) -> Buses {
        let dice = Dice::new(seed, 10);
        let buses = (0..places.hosts.len()).map(|host| {
            let (mut devices, cards) = devices(host, places.roles[host]);
            devices.iter_mut().for_each(|device| device.corrected = dice.between(0, 900));
            Bus { devices, cards, booted: machines.booted(host) }
        });
        Buses { buses: buses.collect(), dice, start }
    }

    /// Counts what begins.
    pub fn note(&mut self, begun: &[Happening]) {
        for happening in begun {
            let fatal = match happening.kind {
                Kind::PcieFatal => 1,
                Kind::PcieBurst => 0,
                _ => continue,
            };
            let bus = &mut self.buses[happening.to];
            let device = bus.which(happening.from);
            device.fatal += fatal;
            device.corrected += if fatal == 0 { happening.amount as i64 } else { 0 };
        }
    }

    /// The rows of `pcie`.
    pub fn rows<'a>(
        &mut self,
        now: i64,
        places: &Places,
        machines: &Machines,
        gpus: &Gpus,
        marks: &Marks,
        active: impl Iterator<Item = &'a Happening>,
    ) -> Result<Rows, RowsError> {
        // Links that have lost something: the machine, which, and whether it is the speed.
        let mut low: Vec<(usize, String, bool)> = Vec::new();
        for happening in active {
            let Some(bus) = self.buses.get_mut(happening.to) else { continue };
            match happening.kind {
                Kind::PcieNoisy => bus.which(happening.from).corrected += self.dice.between(90, 150),
                Kind::LinkRetrains | Kind::LinkLow => {
                    let device = bus.which(happening.from);
                    low.push((happening.to, device.address.clone(), happening.from % 2 == 0));
                }
                _ => {}
            }
        }
        let mut rows = Rows::of("pcie")?;
        for (host, bus) in self.buses.iter_mut().enumerate() {
            if bus.booted != machines.booted(host) {
                bus.booted = machines.booted(host);
                // While links are trained some packets go wrong.
                bus.devices
                    .iter_mut()
                    .for_each(|device| (device.corrected, device.fatal) = (self.dice.between(0, 250), 0));
            }
            if marks.hosts[host] & SILENT != 0 {
                continue;
            }
            let at = self.start + Span::seconds(now) + Span::micros(phase_of(host));
            for device in &mut bus.devices {
                device.corrected += i64::from(self.dice.chance(0.001));
                let gpu = device.gpu.map(|gpu| host * PER_HOST + gpu);
                let has = |kind: Kind| gpu.is_some_and(|gpu| marks.gpus[gpu] & kind.bit() != 0);
                if has(Kind::GpuOffBus) {
                    continue;
                }
                let lost = low.iter().find(|(of, address, _)| *of == host && *address == device.address);
                let lost = lost.map(|(.., speed)| *speed);
                let lanes = device.lanes.min(device.slot_lanes);
                let lanes = if lost == Some(false) || has(Kind::PcieWidth) { lanes / 2 } else { lanes };
                let speed = match gpu {
                    // The link of a GPU that does nothing rests.
                    Some(gpu) if gpus.rests(gpu) => 2.5,
                    _ if lost == Some(true) => device.speed / 2.0,
                    _ => device.speed,
                };
                let cells: [(&str, Cell); 15] = [
                    ("host", places.hosts[host].as_str().into()),
                    ("pci_bus_id", device.address.as_str().into()),
                    ("class", device.class.into()),
                    ("driver", device.driver.into()),
                    ("device", device.names.as_deref().into()),
                    ("slot", device.slot.as_deref().into()),
                    ("link_width", lanes.into()),
                    ("link_width_max", device.lanes.into()),
                    ("slot_width_max", device.slot.as_ref().map(|_| device.slot_lanes).into()),
                    ("link_speed_gigatransfers_per_second", speed.into()),
                    ("link_speed_max_gigatransfers_per_second", device.speed.into()),
                    ("slot_speed_max_gigatransfers_per_second", device.slot.as_ref().map(|_| 32.0).into()),
                    ("correctable_errors_total", device.corrected.into()),
                    ("nonfatal_errors_total", device.at_start.into()),
                    ("fatal_errors_total", device.fatal.into()),
                ];
                rows.push(at, cells)?;
            }
        }
        Ok(rows)
    }
}

impl Bus {
    /// The network card or drive that something happens to.
    fn which(&mut self, seed: i64) -> &mut Device {
        let at = (seed / 2) as usize % self.cards;
        &mut self.devices[at]
    }
}
