//! The table `ib`: one row for each port of an InfiniBand or RoCE device (Documentation/ABI/stable/sysfs-class-infiniband).

use std::collections::BTreeMap;

use tidewatch_model::{Timestamp, table};

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable, float, integer, names_in};
use crate::rows::{Cell, Rows, RowsError};

/// Where devices are, under /sys.
const DEVICES: &str = "class/infiniband";
/// Data is counted in words of so many bytes.
const WORD: i64 = 4;

/// Reads the ports. A counter is a question to the card's firmware, which may hang: to be run aside.
pub struct IbCollector {
    roots: Roots,
    host: String,
    /// Columns that are counters, and the names of their files.
    counters: Vec<(&'static str, String)>,
    /// Where each port has its counters, once it was looked for: that does not change, and most ports lack some.
    known: BTreeMap<String, Vec<(&'static str, String)>>,
    faults: Faults,
}

impl IbCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        let columns = table::find("ib").map_or(&[][..], |table| table.columns).iter().map(|column| column.name);
        let counters = columns.filter_map(|name| {
            let file = match name {
                "rx_bytes_total" => "port_rcv_data",
                "tx_bytes_total" => "port_xmit_data",
                name => name.strip_suffix("_total")?,
            };
            Some((name, file.to_string()))
        });
        let counters = counters.collect();
        IbCollector { roots, host: host.to_string(), counters, known: BTreeMap::new(), faults: Faults::default() }
    }

    fn port(&mut self, device: &str, port: &str) -> Option<Vec<(&'static str, Cell)>> {
        let folder = format!("{DEVICES}/{device}/ports/{port}");
        let number = self.faults.keep("port", integer(port, "port"))?;
        // `4: ACTIVE`, `5: LinkUp`, `400 Gb/sec (4X NDR)`.
        let word = |text: String| {
            text.split_once(':').map_or_else(|| text.trim().to_string(), |(_, word)| word.trim().to_string())
        };
        let state = self.roots.sys_file(&format!("{folder}/state")).map(word);
        let physical = self.roots.sys_file(&format!("{folder}/phys_state")).map(word);
        let rate = self.roots.sys_file(&format!("{folder}/rate"));
        let rate = rate.and_then(|text| float(text.split_whitespace().next().unwrap_or_default(), "rate"));
        let mut cells: Vec<(&'static str, Cell)> = vec![
            ("host", self.host.as_str().into()),
            ("device", device.into()),
            ("port", number.into()),
            ("state", self.faults.keep("state", state).into()),
            ("physical_state", self.faults.keep("physical_state", physical).into()),
            ("rate_gigabits_per_second", self.faults.keep("rate_gigabits_per_second", rate).into()),
        ];
        for (column, path) in self.counters_of(&folder) {
            let value = self.roots.sys_file(&path).and_then(|text| match text.trim() {
                // What a port without a performance management agent says.
                text if text.starts_with("N/A") => Err(Unreadable::absent(format!("{path}: {text}"))),
                text => integer(text, column),
            });
            let words = if matches!(column, "rx_bytes_total" | "tx_bytes_total") { WORD } else { 1 };
            let value = self.faults.keep(column, value).map(|value| value.saturating_mul(words));
            cells.push((column, value.into()));
        }
        Some(cells)
    }

    /// Counters of a port that are there, and their files.
    fn counters_of(&mut self, folder: &str) -> Vec<(&'static str, String)> {
        if let Some(known) = self.known.get(folder) {
            return known.clone();
        }
        let mut found = Vec::new();
        for (column, file) in &self.counters {
            let paths = ["counters", "hw_counters"].map(|kind| format!("{folder}/{kind}/{file}"));
            found
                .extend(paths.into_iter().find(|path| self.roots.sys.join(path).is_file()).map(|path| (*column, path)));
        }
        // A device that is not ready yet is looked at again.
        if !found.is_empty() {
            self.known.insert(folder.to_string(), found.clone());
        }
        found
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("ib")?;
        let devices = names_in(&self.roots.sys.join(DEVICES));
        // Devices that are gone may come back as others.
        self.known.retain(|folder, _| devices.iter().any(|device| folder.starts_with(&format!("{DEVICES}/{device}/"))));
        for device in devices {
            for port in names_in(&self.roots.sys.join(DEVICES).join(&device).join("ports")) {
                if let Some(cells) = self.port(&device, &port) {
                    rows.push(now, cells)?;
                }
            }
        }
        Ok(rows)
    }
}

impl Collector for IbCollector {
    fn table(&self) -> &'static str {
        "ib"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use arrow::array::{Array, AsArray, RecordBatch};
    use arrow::datatypes::{Float64Type, Int64Type};

    use std::time::Duration;

    use tidewatch_model::Span;

    use super::*;
    use crate::aside::Aside;

    fn collector(sys: &Path) -> Aside {
        Aside::new(IbCollector::new(
            Roots { proc: sys.to_path_buf(), sys: sys.to_path_buf(), ..Roots::default() },
            "n1",
        ))
    }

    fn whole(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
        let column = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    }

    fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> &'a str {
        batch.column_by_name(column).unwrap().as_string::<i32>().value(row)
    }

    fn put(sys: &Path, path: &str, content: &str) {
        let path = sys.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn a_port_says_how_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let port = "class/infiniband/mlx5_0/ports/1";
        for (file, content) in [
            ("state", "4: ACTIVE\n"),
            ("phys_state", "5: LinkUp\n"),
            ("rate", "400 Gb/sec (4X NDR)\n"),
            ("counters/port_rcv_data", "100\n"),
            ("counters/link_downed", "3\n"),
            ("counters/symbol_error", "N/A (no PMA)\n"),
            ("hw_counters/out_of_sequence", "7\n"),
        ] {
            put(sys, &format!("{port}/{file}"), content);
        }
        put(sys, "class/infiniband/mlx5_1/ports/1/state", "1: DOWN\n");
        put(sys, "class/infiniband/mlx5_1/ports/1/counters/link_downed", "many\n");
        let mut collector = collector(sys);
        let collected = collector.collect(Timestamp::from_seconds(1));
        let batch = collected.batch.unwrap();
        assert_eq!(
            (text(&batch, "device", 0), text(&batch, "state", 0), text(&batch, "physical_state", 0)),
            ("mlx5_0", "ACTIVE", "LinkUp")
        );
        let rate = batch.column_by_name("rate_gigabits_per_second").unwrap().as_primitive::<Float64Type>();
        assert_eq!((rate.value(0), rate.is_null(1)), (400.0, true));
        assert_eq!(whole(&batch, "rx_bytes_total", 0), Some(400), "words of four bytes");
        assert_eq!(
            (whole(&batch, "link_downed_total", 0), whole(&batch, "out_of_sequence_total", 0)),
            (Some(3), Some(7))
        );
        assert_eq!((whole(&batch, "symbol_error_total", 0), whole(&batch, "tx_bytes_total", 0)), (None, None));
        assert_eq!((text(&batch, "state", 1), whole(&batch, "link_downed_total", 1)), ("DOWN", None));
        let reasons: Vec<&str> = collected.faults.iter().map(|fault| fault.reason.as_str()).collect();
        assert!(reasons.iter().any(|reason| reason.contains("'many' is not a whole number")), "{reasons:?}");
        std::fs::remove_dir_all(sys.join("class/infiniband/mlx5_1")).unwrap();
        assert_eq!(collector.collect(Timestamp::from_seconds(2)).batch.unwrap().num_rows(), 1);
    }

    /// A card whose firmware hangs: a read of a counter that does not return, as that of a pipe without a writer.
    #[test]
    fn a_port_that_hangs_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        put(sys, "class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n");
        std::fs::create_dir(sys.join("class/infiniband/mlx5_0/ports/1/counters")).unwrap();
        let pipe = sys.join("class/infiniband/mlx5_0/ports/1/rate");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut collector = collector(sys);
        let begun = std::time::Instant::now();
        for second in 0..10 {
            assert!(collector.collect(Timestamp::from_seconds(second)).batch.is_none());
        }
        assert!(begun.elapsed() < Duration::from_secs(9), "each pass waits a moment");
        assert_eq!(collector.stuck(), Some(Span::seconds(9)));
        // It comes back.
        std::fs::write(&pipe, "400 Gb/sec\n").unwrap();
        let mut second = 10;
        while collector.collect(Timestamp::from_seconds(second)).batch.is_none() {
            second += 1;
            std::fs::remove_file(&pipe).ok();
        }
        assert_eq!(collector.stuck(), None);
    }

    #[test]
    fn a_machine_without_devices_has_no_rows_and_no_faults() {
        let folder = tempfile::tempdir().unwrap();
        let collected = collector(folder.path()).collect(Timestamp::from_seconds(1));
        assert!(collected.batch.is_none() && collected.faults.is_empty());
    }

    /// A recorded machine with eight InfiniBand ports of 400 Gb/s and a bond of Ethernet, where it is at hand.
    #[test]
    fn a_recorded_h100_machine_is_read_whole() {
        let archive =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/sys-class-infiniband-h100.tar.gz");
        if !archive.is_file() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let unpacked = std::process::Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(folder.path()).status();
        assert!(unpacked.unwrap().success());
        let recorded = "components/accelerator/nvidia/infiniband/class/testdata/sys-class-infiniband-h100.0";
        std::fs::create_dir(folder.path().join("class")).unwrap();
        std::fs::rename(folder.path().join(recorded), folder.path().join(DEVICES)).unwrap();
        let collected = collector(folder.path()).collect(Timestamp::from_seconds(1));
        let batch = collected.batch.unwrap();
        let failed = collected.faults.iter().filter(|fault| fault.kind == crate::FaultKind::Failed).count();
        assert_eq!((batch.num_rows(), failed), (9, 0), "{:?}", collected.faults);
        let rates = batch.column_by_name("rate_gigabits_per_second").unwrap().as_primitive::<Float64Type>();
        assert_eq!(rates.values().iter().filter(|rate| **rate == 400.0).count(), 8);
        let known = batch.columns().iter().filter(|column| column.null_count() == 0).count();
        assert!(known > 45, "{known} columns");
    }
}
