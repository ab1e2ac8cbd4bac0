//! The table `memory_controller`: errors of the memory's modules, as EDAC counts them (Documentation/admin-guide/ras.rst).

use tidewatch_model::Timestamp;

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable, integer, names_in};
use crate::rows::{Rows, RowsError};

/// Where controllers are, under /sys.
const CONTROLLERS: &str = "devices/system/edac/mc";
/// Modules that are read; beyond it they are left out, which is said. The largest machines have some 64.
const MOST: usize = 512;

/// Reads the controllers.
pub struct EdacCollector {
    roots: Roots,
    host: String,
    faults: Faults,
}

/// One row in the making: a module, or what no module was found for.
#[derive(Debug)]
struct Module {
    dimm: Option<String>,
    label: Option<String>,
    location: Option<String>,
    size_bytes: Option<i64>,
    corrected: Option<i64>,
    uncorrected: Option<i64>,
}

impl EdacCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        EdacCollector { roots, host: host.to_string(), faults: Faults::default() }
    }

    fn count(&mut self, column: &'static str, path: String) -> Option<i64> {
        let read = self.roots.sys_file(&path).and_then(|text| integer(&text, &path));
        self.faults.keep(column, read)
    }

    fn words(&self, path: String) -> Option<String> {
        let text = self.roots.sys_file(&path).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_string())
    }

    /// Modules of a controller, and the errors of none: together all of its errors, each once.
    fn modules(&mut self, controller: &str) -> Vec<Module> {
        let folder = format!("{CONTROLLERS}/{controller}");
        let names = names_in(&self.roots.sys.join(&folder));
        // `rankN` where the controller sees ranks and not modules; `csrowN` are the same counters once more.
        let dimms: Vec<String> = names.into_iter().filter(|name| is_numbered(name, &["dimm", "rank"])).collect();
        // A controller that knows no module has its errors in all only.
        let [corrected, uncorrected] = match dimms.is_empty() {
            true => ["ce_count", "ue_count"],
            false => ["ce_noinfo_count", "ue_noinfo_count"],
        };
        let mut modules = vec![Module {
            dimm: None,
            label: None,
            location: None,
            size_bytes: None,
            corrected: self.count("corrected_total", format!("{folder}/{corrected}")),
            uncorrected: self.count("uncorrected_total", format!("{folder}/{uncorrected}")),
        }];
        for dimm in dimms {
            let file = |name: &str| format!("{folder}/{dimm}/{name}");
            let size = self.words(file("size")).and_then(|text| integer(&text, "size").ok());
            modules.push(Module {
                label: self.words(file("dimm_label")),
                location: self.words(file("dimm_location")),
                size_bytes: size.and_then(|mebibytes| mebibytes.checked_mul(1 << 20)),
                corrected: self.count("corrected_total", file("dimm_ce_count")),
                uncorrected: self.count("uncorrected_total", file("dimm_ue_count")),
                dimm: Some(dimm),
            });
        }
        modules
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("memory_controller")?;
        let mut left = MOST;
        for controller in names_in(&self.roots.sys.join(CONTROLLERS)) {
            if !is_numbered(&controller, &["mc"]) {
                continue;
            }
            let name = self.words(format!("{CONTROLLERS}/{controller}/mc_name"));
            for module in self.modules(&controller) {
                if left == 0 {
                    self.faults.note("dimm", Unreadable::absent(format!("only the first {MOST} modules are read")));
                    return Ok(rows);
                }
                left -= 1;
                rows.push(
                    now,
                    [
                        ("host", self.host.as_str().into()),
                        ("controller", controller.as_str().into()),
                        ("dimm", module.dimm.into()),
                        ("controller_name", name.as_deref().into()),
                        ("label", module.label.into()),
                        ("location", module.location.into()),
                        ("size_bytes", module.size_bytes.into()),
                        ("corrected_total", module.corrected.into()),
                        ("uncorrected_total", module.uncorrected.into()),
                    ],
                )?;
            }
        }
        Ok(rows)
    }
}

/// Whether a name is one of these words and a number.
fn is_numbered(name: &str, words: &[&str]) -> bool {
    words.iter().any(|word| {
        name.strip_prefix(word)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

impl Collector for EdacCollector {
    fn table(&self) -> &'static str {
        "memory_controller"
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

    /// A socket of two modules, and an old controller that knows its rows only.
    const TREE: &[(&str, &str)] = &[
        ("sys/devices/system/edac/mc/mc0/mc_name", "Skylake Socket#0 IMC#0\n"),
        ("sys/devices/system/edac/mc/mc0/ce_count", "12\n"),
        ("sys/devices/system/edac/mc/mc0/ue_count", "1\n"),
        ("sys/devices/system/edac/mc/mc0/ce_noinfo_count", "2\n"),
        ("sys/devices/system/edac/mc/mc0/ue_noinfo_count", "0\n"),
        ("sys/devices/system/edac/mc/mc0/csrow0/ce_count", "10\n"),
        ("sys/devices/system/edac/mc/mc0/dimm0/dimm_label", "CPU_SrcID#0_MC#0_Chan#0_DIMM#0\n"),
        ("sys/devices/system/edac/mc/mc0/dimm0/dimm_location", "channel 0 slot 0 \n"),
        ("sys/devices/system/edac/mc/mc0/dimm0/size", "32768\n"),
        ("sys/devices/system/edac/mc/mc0/dimm0/dimm_ce_count", "10\n"),
        ("sys/devices/system/edac/mc/mc0/dimm0/dimm_ue_count", "0\n"),
        ("sys/devices/system/edac/mc/mc0/dimm3/dimm_label", "\n"),
        ("sys/devices/system/edac/mc/mc0/dimm3/dimm_ce_count", "0\n"),
        ("sys/devices/system/edac/mc/mc0/dimm3/dimm_ue_count", "1\n"),
        ("sys/devices/system/edac/mc/mc1/ce_count", "5\n"),
        ("sys/devices/system/edac/mc/mc1/ue_count", "0\n"),
        ("sys/devices/system/edac/mc/mc1/ce_noinfo_count", "1\n"),
        ("sys/devices/system/edac/mc/power/control", "auto\n"),
    ];

    #[test]
    fn every_error_is_counted_once() {
        let machine = Recorded::of(TREE);
        let mut collector = EdacCollector::new(machine.roots(), "n1");
        let collected = collector.collect(Timestamp(0));
        assert!(collected.faults.is_empty(), "{:?}", collected.faults);
        assert_eq!(rows(&collected), 4);
        let of = |number: usize, cells: &[(&str, &str)]| check(&row(&collected, number), cells);
        of(0, &[("controller", "mc0"), ("dimm", "NULL"), ("corrected_total", "2"), ("uncorrected_total", "0")]);
        of(
            1,
            &[
                ("controller_name", "Skylake Socket#0 IMC#0"),
                ("dimm", "dimm0"),
                ("label", "CPU_SrcID#0_MC#0_Chan#0_DIMM#0"),
                ("location", "channel 0 slot 0"),
                ("size_bytes", "34359738368"),
                ("corrected_total", "10"),
                ("uncorrected_total", "0"),
            ],
        );
        of(2, &[("dimm", "dimm3"), ("label", "NULL"), ("size_bytes", "NULL"), ("uncorrected_total", "1")]);
        of(3, &[("controller", "mc1"), ("dimm", "NULL"), ("corrected_total", "5"), ("controller_name", "NULL")]);
    }

    #[test]
    fn damage_is_null_and_a_controller_that_is_gone_has_no_rows() {
        let machine = Recorded::of(TREE);
        let mut collector = EdacCollector::new(machine.roots(), "n1");
        machine.put("sys/devices/system/edac/mc/mc0/dimm0/dimm_ce_count", "many\n");
        machine.remove("sys/devices/system/edac/mc/mc0/dimm3/dimm_ue_count");
        let collected = collector.collect(Timestamp(0));
        check(&row(&collected, 1), &[("corrected_total", "NULL"), ("uncorrected_total", "0")]);
        check(&row(&collected, 2), &[("corrected_total", "0"), ("uncorrected_total", "NULL")]);
        let reasons: Vec<&str> = collected.faults.iter().map(|fault| fault.reason.as_str()).collect();
        assert!(reasons[0].ends_with("mc0/dimm0/dimm_ce_count: 'many' is not a whole number"), "{reasons:?}");
        machine.remove("sys/devices/system/edac/mc/mc0");
        assert_eq!(rows(&collector.collect(Timestamp(1))), 1);
        machine.remove("sys/devices");
        let none = collector.collect(Timestamp(2));
        assert!(none.batch.is_none() && none.faults.is_empty(), "a machine without EDAC is a normal one");
    }

    #[test]
    fn more_modules_than_are_read_are_said_once() {
        let machine = Recorded::of(&[]);
        for dimm in 0..MOST {
            machine.put(&format!("sys/devices/system/edac/mc/mc0/dimm{dimm}/dimm_ce_count"), "0\n");
            machine.put(&format!("sys/devices/system/edac/mc/mc0/dimm{dimm}/dimm_ue_count"), "0\n");
        }
        machine.put("sys/devices/system/edac/mc/mc0/ce_noinfo_count", "0\n");
        machine.put("sys/devices/system/edac/mc/mc0/ue_noinfo_count", "0\n");
        let mut collector = EdacCollector::new(machine.roots(), "n1");
        for told in [1, 0] {
            let collected = collector.collect(Timestamp(0));
            assert_eq!((rows(&collected), collected.faults.len()), (MOST, told), "{:?}", collected.faults);
        }
    }
}
