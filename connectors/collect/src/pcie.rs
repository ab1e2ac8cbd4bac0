//! The table `pcie`: links and errors of what matters on the PCIe bus (Documentation/ABI/testing/sysfs-bus-pci,
//! sysfs-bus-pci-devices-aer_stats).

use std::collections::BTreeMap;

use tidewatch_model::Timestamp;

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable, float, integer, names_in};
use crate::rows::{Cell, Rows, RowsError};

/// Where devices are, under /sys.
const DEVICES: &str = "bus/pci/devices";
/// Devices that are read; beyond it they are left out, which is said. A machine of eight GPUs has some 60.
const MOST: usize = 256;
/// NVIDIA's vendor number: of its bridges of class "other" NVSwitches are made.
const NVIDIA: &str = "0x10de";
/// What the kernel says of a width that it does not know, beside 0.
const UNKNOWN_WIDTH: i64 = 255;

/// Reads the bus. The state of a link is asked of the device itself, which may hang: to be run aside.
pub struct PcieCollector {
    roots: Roots,
    host: String,
    faults: Faults,
}

/// A device that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    class: &'static str,
    /// The port above it.
    slot: Option<String>,
}

impl PcieCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        PcieCollector { roots, host: host.to_string(), faults: Faults::default() }
    }

    /// What matters, and the bridges above it, by address.
    fn devices(&mut self) -> BTreeMap<String, Device> {
        let mut devices = BTreeMap::new();
        let mut above = BTreeMap::new();
        for address in names_in(&self.roots.sys.join(DEVICES)) {
            let folder = self.roots.sys.join(DEVICES).join(&address);
            let Some(class) = self.class_of(&address) else { continue };
            // A virtual function has neither a link nor errors of its own, and there may be hundreds.
            if folder.join("physfn").exists() || !(is_link(&folder) || folder.join("aer_dev_fatal").exists()) {
                continue;
            }
            // /sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0: who stands above whom.
            let real = folder.canonicalize().unwrap_or(folder);
            let mut ports: Vec<String> = real
                .ancestors()
                .skip(1)
                .filter_map(|part| part.file_name()?.to_str())
                .take_while(|name| is_address(name))
                .map(str::to_string)
                .collect();
            devices.insert(address, Device { class, slot: ports.first().cloned() });
            while !ports.is_empty() {
                let port = ports.remove(0);
                above.insert(port, Device { class: "bridge", slot: ports.first().cloned() });
            }
        }
        for (port, device) in above {
            devices.entry(port).or_insert(device);
        }
        if devices.len() > MOST {
            let left_out = devices.len() - MOST;
            self.faults
                .note("pci_bus_id", Unreadable::absent(format!("{left_out} devices are left out: {MOST} are read")));
            // Cards before bridges.
            let mut order: Vec<(String, Device)> = devices.into_iter().collect();
            order.sort_by_key(|(address, device)| (device.class == "bridge", address.clone()));
            order.truncate(MOST);
            devices = order.into_iter().collect();
        }
        devices
    }

    /// The class in a word, of those that matter.
    fn class_of(&self, address: &str) -> Option<&'static str> {
        let class = self.roots.sys_file(&format!("{DEVICES}/{address}/class")).ok()?;
        let class = class.trim().strip_prefix("0x")?;
        Some(match class.get(..2)? {
            "01" => "storage",
            "02" => "network",
            "03" => "display",
            "12" => "accelerator",
            "06" if class.starts_with("0680") && self.word(address, "vendor").as_deref() == Some(NVIDIA) => "switch",
            _ => return None,
        })
    }

    fn word(&self, address: &str, file: &str) -> Option<String> {
        Some(self.roots.sys_file(&format!("{DEVICES}/{address}/{file}")).ok()?.trim().to_string())
    }

    /// What a file of the device says; `None` where it has none, or is gone meanwhile.
    fn told(&mut self, column: &'static str, address: &str, file: &str) -> Option<String> {
        match self.roots.sys_file(&format!("{DEVICES}/{address}/{file}")) {
            Ok(text) => Some(text.trim().to_string()),
            Err(why) if why.absent => None,
            Err(why) => {
                if self.roots.sys.join(DEVICES).join(address).exists() {
                    self.faults.note(column, why);
                }
                None
            }
        }
    }

    fn width(&mut self, column: &'static str, address: &str, file: &str) -> Option<i64> {
        let text = self.told(column, address, file)?;
        let lanes = self.faults.keep(column, integer(&text, &format!("{address}/{file}")))?;
        (lanes > 0 && lanes != UNKNOWN_WIDTH).then_some(lanes)
    }

    /// `16.0 GT/s PCIe`, `Unknown`.
    fn speed(&mut self, column: &'static str, address: &str, file: &str) -> Option<f64> {
        let text = self.told(column, address, file)?;
        let number = text.split_whitespace().next().filter(|word| !word.starts_with("Unknown"))?;
        self.faults.keep(column, float(number, &format!("{address}/{file}")))
    }

    fn errors(&mut self, column: &'static str, address: &str, file: &str) -> Option<i64> {
        let text = self.told(column, address, file)?;
        self.faults.keep(column, total(&text, &format!("{address}/{file}")))
    }

    fn row(&mut self, address: &str, device: &Device) -> Vec<(&'static str, Cell)> {
        let slot = device.slot.as_deref();
        // To ask a link that sleeps would wake the device.
        let sleeps = self.word(address, "power/runtime_status").as_deref() == Some("suspended");
        let mut cells: Vec<(&'static str, Cell)> = vec![
            ("host", self.host.as_str().into()),
            ("pci_bus_id", address.into()),
            ("class", device.class.into()),
            ("driver", self.driver(address).into()),
            ("device", self.names(address).into()),
            ("slot", slot.into()),
        ];
        let width = if sleeps { None } else { self.width("link_width", address, "current_link_width") };
        cells.push(("link_width", width.into()));
        cells.push(("link_width_max", self.width("link_width_max", address, "max_link_width").into()));
        let slot_width = slot.and_then(|slot| self.width("slot_width_max", slot, "max_link_width"));
        cells.push(("slot_width_max", slot_width.into()));
        let column = "link_speed_gigatransfers_per_second";
        let speed = if sleeps { None } else { self.speed(column, address, "current_link_speed") };
        cells.push((column, speed.into()));
        let column = "link_speed_max_gigatransfers_per_second";
        cells.push((column, self.speed(column, address, "max_link_speed").into()));
        let column = "slot_speed_max_gigatransfers_per_second";
        cells.push((column, slot.and_then(|slot| self.speed(column, slot, "max_link_speed")).into()));
        for (column, file) in [
            ("correctable_errors_total", "aer_dev_correctable"),
            ("nonfatal_errors_total", "aer_dev_nonfatal"),
            ("fatal_errors_total", "aer_dev_fatal"),
        ] {
            cells.push((column, self.errors(column, address, file).into()));
        }
        cells
    }

    fn driver(&self, address: &str) -> Option<String> {
        let link = std::fs::read_link(self.roots.sys.join(DEVICES).join(address).join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    /// What people know it by: `mlx5_0 ibp26s0`, `nvme0`.
    fn names(&self, address: &str) -> Option<String> {
        let folder = self.roots.sys.join(DEVICES).join(address);
        let names: Vec<String> =
            ["infiniband", "net", "nvme"].iter().flat_map(|kind| names_in(&folder.join(kind))).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("pcie")?;
        for (address, device) in self.devices() {
            let cells = self.row(&address, &device);
            // One that was pulled out while it was read is gone.
            if self.roots.sys.join(DEVICES).join(&address).exists() {
                rows.push(now, cells)?;
            }
        }
        Ok(rows)
    }
}

fn is_link(folder: &std::path::Path) -> bool {
    folder.join("current_link_width").exists()
}

/// `0000:3b:00.0`.
fn is_address(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = name.split([':', '.']).collect();
    name.matches(':').count() == 2 && parts.len() == 4 && parts.into_iter().all(digits)
}

/// The last line of the errors by kind, which is their sum; where it is missing, the sum of the lines.
fn total(text: &str, file: &str) -> Result<i64, Unreadable> {
    let mut sum: i64 = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (kind, count) = line
            .trim()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(|| Unreadable::damaged(format!("{file}: '{line}' is no kind of error and a count")))?;
        let count = integer(count, file)?;
        if kind.trim().starts_with("TOTAL_ERR") {
            return Ok(count);
        }
        sum = sum.saturating_add(count);
    }
    Ok(sum)
}

impl Collector for PcieCollector {
    fn table(&self) -> &'static str {
        "pcie"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::recorded::{Recorded, check, row, rows};

    const PORT: &str = "sys/devices/pci0000:3a/0000:3a:00.0";

    fn device(machine: &Recorded, real: &str, files: &[(&str, &str)]) {
        files.iter().for_each(|(file, text)| machine.put(&format!("{real}/{file}"), text));
        let address = real.rsplit('/').next().unwrap();
        machine.link(&format!("sys/{DEVICES}/{address}"), machine.folder().join(real).to_str().unwrap());
    }

    /// A port with a card below it, a drive at the root, a virtual function, a device without a link, and somebody else's bridge.
    fn machine() -> Recorded {
        let machine = Recorded::of(&[]);
        let counts = "RxErr 0\nBadTLP 2\nBadDLLP 1\nTOTAL_ERR_COR 3\n";
        let none = "Undefined 0\nDLP 0\nTOTAL_ERR_FATAL 0\n";
        device(
            &machine,
            PORT,
            &[
                ("class", "0x060400\n"),
                ("current_link_width", "8\n"),
                ("max_link_width", "8\n"),
                ("current_link_speed", "32.0 GT/s PCIe\n"),
                ("max_link_speed", "32.0 GT/s PCIe\n"),
                ("aer_dev_correctable", "RxErr 7\n"),
                ("aer_dev_fatal", none),
            ],
        );
        let card = format!("{PORT}/0000:3b:00.0");
        device(
            &machine,
            &card,
            &[
                ("class", "0x020700\n"),
                ("current_link_width", "4\n"),
                ("max_link_width", "16\n"),
                ("current_link_speed", "8.0 GT/s PCIe\n"),
                ("max_link_speed", "32.0 GT/s PCIe\n"),
                ("aer_dev_correctable", counts),
                ("aer_dev_nonfatal", "DLP 0\nTOTAL_ERR_NONFATAL 1\n"),
                ("aer_dev_fatal", none),
                ("infiniband/mlx5_0/x", ""),
                ("net/ibp59s0/x", ""),
            ],
        );
        machine.link(&format!("{card}/driver"), "../../../../bus/pci/drivers/mlx5_core");
        device(
            &machine,
            &format!("{PORT}/0000:3b:00.1"),
            &[("class", "0x020000\n"), ("current_link_width", "0\n"), ("physfn/class", "0x020000\n")],
        );
        device(
            &machine,
            "sys/devices/pci0000:00/0000:00:04.0",
            &[
                ("class", "0x010802\n"),
                ("current_link_width", "0\n"),
                ("max_link_width", "255\n"),
                ("current_link_speed", "Unknown\n"),
                ("max_link_speed", "Unknown speed\n"),
                ("nvme/nvme0/x", ""),
            ],
        );
        device(&machine, "sys/devices/pci0000:00/0000:00:05.0", &[("class", "0x020000\n"), ("vendor", "0x1af4\n")]);
        device(&machine, "sys/devices/pci0000:00/0000:00:1c.0", &[("class", "0x060400\n"), ("max_link_width", "1\n")]);
        machine
    }

    #[test]
    fn a_card_in_a_slot_that_is_narrower_than_it() {
        let machine = machine();
        let collected = PcieCollector::new(machine.roots(), "n1").collect(Timestamp(0));
        assert!(collected.faults.is_empty(), "{:?}", collected.faults);
        assert_eq!(rows(&collected), 3, "the drive, the port and the card");
        check(
            &row(&collected, 0),
            &[
                ("pci_bus_id", "0000:00:04.0"),
                ("class", "storage"),
                ("device", "nvme0"),
                ("slot", "NULL"),
                ("link_width", "NULL"),
                ("link_width_max", "NULL"),
                ("link_speed_gigatransfers_per_second", "NULL"),
                ("fatal_errors_total", "NULL"),
            ],
        );
        check(
            &row(&collected, 1),
            &[("pci_bus_id", "0000:3a:00.0"), ("class", "bridge"), ("correctable_errors_total", "7")],
        );
        check(
            &row(&collected, 2),
            &[
                ("class", "network"),
                ("driver", "mlx5_core"),
                ("device", "mlx5_0 ibp59s0"),
                ("slot", "0000:3a:00.0"),
                ("link_width", "4"),
                ("link_width_max", "16"),
                ("slot_width_max", "8"),
                ("link_speed_gigatransfers_per_second", "8.0"),
                ("slot_speed_max_gigatransfers_per_second", "32.0"),
                ("correctable_errors_total", "3"),
                ("nonfatal_errors_total", "1"),
                ("fatal_errors_total", "0"),
            ],
        );
    }

    #[test]
    fn damage_is_null_a_link_that_sleeps_is_not_asked_and_a_card_that_is_gone_has_no_row() {
        let machine = machine();
        let mut collector = PcieCollector::new(machine.roots(), "n1");
        machine.put(&format!("{PORT}/0000:3b:00.0/current_link_width"), "wide\n");
        machine.put(&format!("{PORT}/0000:3b:00.0/aer_dev_fatal"), "nothing\n");
        let collected = collector.collect(Timestamp(0));
        check(&row(&collected, 2), &[("link_width", "NULL"), ("fatal_errors_total", "NULL"), ("link_width_max", "16")]);
        let reasons: Vec<&str> = collected.faults.iter().map(|fault| fault.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "0000:3b:00.0/current_link_width: 'wide' is not a whole number",
                "0000:3b:00.0/aer_dev_fatal: 'nothing' is no kind of error and a count"
            ]
        );
        machine.put(&format!("{PORT}/0000:3b:00.0/power/runtime_status"), "suspended\n");
        assert_eq!(collector.collect(Timestamp(1)).faults.len(), 1, "the width was not read");
        machine.remove(&format!("sys/{DEVICES}/0000:3b:00.0"));
        assert_eq!(rows(&collector.collect(Timestamp(2))), 1, "and nothing stands below the port");
        machine.remove("sys/bus");
        let none = collector.collect(Timestamp(3));
        assert!(none.batch.is_none() && none.faults.is_empty());
    }

    #[test]
    fn of_too_many_devices_the_cards_are_read_and_it_is_said_once() {
        let machine = Recorded::of(&[]);
        for number in 0..MOST {
            let port = format!("sys/devices/pci0000:00/0000:{:02x}:00.0", number % 256);
            let card = format!("{port}/0001:{:02x}:00.{}", number % 256, number / 256);
            device(&machine, &card, &[("class", "0x020000\n"), ("current_link_width", "16\n")]);
        }
        let mut collector = PcieCollector::new(machine.roots(), "n1");
        for told in [1, 0] {
            let collected = collector.collect(Timestamp(0));
            assert_eq!((rows(&collected), collected.faults.len()), (MOST, told), "{:?}", collected.faults);
            check(&row(&collected, MOST - 1), &[("class", "network")]);
        }
    }
}
