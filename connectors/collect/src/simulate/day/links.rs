//! Disks, network interfaces and InfiniBand ports of a day, every ten seconds.

use tidewatch_model::{Span, Timestamp};

use super::gpus::phase_of;
use super::happenings::{Happening, Kind, Marks, SILENT};
use super::machines::Machines;
use super::places::{Dice, IB_PORTS, Places, Role};
use crate::rows::{Cell, Rows, RowsError};

/// What a machine's disks and links have counted.
#[derive(Debug, Clone, Default)]
struct Links {
    operations: i64,
    busy: f64,
    packets: i64,
    flaps: i64,
    symbols: [i64; IB_PORTS],
    downs: [i64; IB_PORTS],
    copied: f64,
    filled: f64,
    booted: i64,
}

/// All machines' disks and links.
#[derive(Debug)]
pub struct Wires {
    links: Vec<Links>,
    dice: Dice,
    start: Timestamp,
}

/// Scratch space of a machine.
const SCRATCH: f64 = 28e12;

impl Wires {
    /// At the start of the day.
    pub fn new(places: &Places, machines: &Machines, seed: u64, start: Timestamp) -> Wires {
        let links = (0..places.hosts.len()).map(|host| Links { booted: machines.booted(host), ..Links::default() });
        Wires { links: links.collect(), dice: Dice::new(seed, 5), start }
    }

    /// How much of the scratch space is left: checkpoints fill it, and every one to two hours the old ones are deleted;
    /// on one machine in four little is left all the time.
    fn scratch(&self, host: usize, now: i64) -> f64 {
        let period = 3_600 + (host as i64 * 977) % 3_600;
        let since = ((now + host as i64 * 1_313) % period) as f64 / period as f64;
        let (least, range) = if host % 4 == 1 { (0.14, 0.08) } else { (0.32 + 0.05 * (host % 7) as f64, 0.09) };
        // A checkpoint is written at once, ten of them in a period.
        least + range * (1.0 - (since * 10.0).floor() / 10.0)
    }

    /// Counts what begins.
    pub fn note(&mut self, begun: &[Happening]) {
        for happening in begun {
            let Some(links) = self.links.get_mut(happening.to) else { continue };
            let port = happening.from as usize % IB_PORTS;
            match happening.kind {
                Kind::LinkFlap => links.flaps += 2,
                Kind::SymbolErrors => links.symbols[port] += happening.amount.ceil() as i64,
                Kind::IbFlap => links.downs[port] += 1,
                _ => {}
            }
        }
    }

    /// The rows of `disk`, `net` and `ib`.
    pub fn rows(
        &mut self,
        now: i64,
        places: &Places,
        machines: &Machines,
        marks: &Marks,
    ) -> Result<[Rows; 3], RowsError> {
        let [mut disks, mut nets, mut ports] = [Rows::of("disk")?, Rows::of("net")?, Rows::of("ib")?];
        for host in 0..places.hosts.len() {
            let bits = marks.hosts[host];
            let has = |kind: Kind| bits & kind.bit() != 0;
            let usual = self.scratch(host, now);
            let links = &mut self.links[host];
            if links.booted != machines.booted(host) {
                *links = Links { booted: machines.booted(host), copied: links.copied, ..Links::default() };
            }
            // Who copies looks first whether there is room: a quarter stays free, and what checkpoints need.
            let copies = has(Kind::BigCopy) && usual - links.copied > 0.34;
            // A seventh of the space in an hour and a quarter.
            links.copied += if copies { 10.0 / 31_500.0 } else { 0.0 };
            links.filled = if has(Kind::DiskFills) { links.filled + 10.0 / 12_600.0 } else { 0.0 };
            let operations = (if copies { 30_000.0 } else { 900.0 } * (1.0 + 0.5 * self.dice.noise())) as i64;
            links.operations += operations;
            links.busy += operations as f64 * if copies { 0.02 } else { 0.000_3 };
            links.packets += (2e6 * (1.0 + 0.4 * self.dice.noise())) as i64;
            if bits & SILENT != 0 {
                continue;
            }
            let at = self.start + Span::seconds(now) + Span::micros(phase_of(host));
            let name = places.hosts[host].as_str();
            let links = &self.links[host];
            let free = (usual - links.copied).max(0.05) - links.filled * usual;
            let root = 0.62 - 0.03 * ((now + host as i64 * 600) % 86_400) as f64 / 86_400.0;
            let shared = 0.41 - 0.03 * now as f64 / 86_400.0;
            for (device, mount, filesystem, size, left, counted) in [
                ("nvme0n1p2", "/", "ext4", 9e11, root, true),
                ("md0", "/scratch", "xfs", SCRATCH, free.max(0.000_2), true),
                ("storage:/shared", "/shared", "nfs4", 2.1e15, shared, false),
            ] {
                let counted = |value: i64| counted.then_some(value);
                let cells: [(&str, Cell); 12] = [
                    ("host", name.into()),
                    ("device", device.into()),
                    ("mount_point", mount.into()),
                    ("filesystem", filesystem.into()),
                    ("read_only", false.into()),
                    ("size_bytes", (size as i64).into()),
                    ("available_bytes", ((size * left) as i64).into()),
                    ("inodes_free", 400_000_000.into()),
                    ("reads_total", counted(links.operations / 2).into()),
                    ("writes_total", counted(links.operations / 2).into()),
                    ("read_seconds_total", counted(0).map(|_| links.busy / 2.0).into()),
                    ("write_seconds_total", counted(0).map(|_| links.busy / 2.0).into()),
                ];
                disks.push(at, cells)?;
            }
            for interface in ["eth0", "bond0"] {
                let cells: [(&str, Cell); 11] = [
                    ("host", name.into()),
                    ("interface", interface.into()),
                    ("up", true.into()),
                    ("speed_bits_per_second", 100_000_000_000.into()),
                    ("rx_bytes_total", (links.packets * 3_000).into()),
                    ("tx_bytes_total", (links.packets * 2_500).into()),
                    ("rx_packets_total", links.packets.into()),
                    ("tx_packets_total", links.packets.into()),
                    ("rx_errors_total", (links.packets / 40_000_000).into()),
                    ("tx_errors_total", 0.into()),
                    ("carrier_changes_total", (2 + links.flaps).into()),
                ];
                nets.push(at, cells)?;
            }
            if places.roles[host] != Role::Training {
                continue;
            }
            // A port of a machine that has just started waits for the subnet manager.
            let starts = now - links.booted < 60;
            for port in 0..IB_PORTS {
                let down = has(Kind::IbFlap) && links.downs[port] > 0;
                let (state, physical) = match () {
                    () if down => ("DOWN", "Polling"),
                    () if starts => ("INIT", "LinkUp"),
                    () => ("ACTIVE", "LinkUp"),
                };
                let cells: [(&str, Cell); 16] = [
                    ("host", name.into()),
                    ("device", format!("mlx5_{port}").into()),
                    ("port", 1.into()),
                    ("state", state.into()),
                    ("physical_state", physical.into()),
                    ("rate_gigabits_per_second", (if down { 10.0 } else { 400.0 }).into()),
                    ("rx_bytes_total", (links.packets * 40_000).into()),
                    ("tx_bytes_total", (links.packets * 40_000).into()),
                    ("excessive_buffer_overrun_errors_total", 0.into()),
                    ("link_downed_total", links.downs[port].into()),
                    ("link_error_recovery_total", 0.into()),
                    ("local_link_integrity_errors_total", 0.into()),
                    ("port_rcv_errors_total", (links.symbols[port] / 40).into()),
                    ("port_xmit_wait_total", (links.packets / 3).into()),
                    ("symbol_error_total", links.symbols[port].into()),
                    ("rnr_nak_retry_err_total", (links.packets / 9_000_000).into()),
                ];
                ports.push(at, cells)?;
            }
        }
        Ok([disks, nets, ports])
    }
}
