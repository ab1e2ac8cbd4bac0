//! The table `net`: one row for each network interface but the loopback.

use tidewatch_model::Timestamp;

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, integer, integer_at};
use crate::rows::{Cell, Rows, RowsError};

/// Reads the interfaces.
pub struct NetCollector {
    roots: Roots,
    host: String,
    faults: Faults,
}

/// Columns of /proc/net/dev that are kept, and where they stand behind the name.
const COUNTERS: [(&str, usize); 8] = [
    ("rx_bytes_total", 0),
    ("tx_bytes_total", 8),
    ("rx_packets_total", 1),
    ("tx_packets_total", 9),
    ("rx_errors_total", 2),
    ("tx_errors_total", 10),
    ("rx_dropped_total", 3),
    ("tx_dropped_total", 11),
];

impl NetCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        NetCollector { roots, host: host.to_string(), faults: Faults::default() }
    }

    fn interface(&mut self, name: &str, counters: &str) -> Vec<(&'static str, Cell)> {
        let mut cells: Vec<(&'static str, Cell)> =
            vec![("host", self.host.as_str().into()), ("interface", name.into())];
        let up = self
            .roots
            .sys_file(&format!("class/net/{name}/operstate"))
            .map(|state| matches!(state.trim(), "up" | "unknown"));
        cells.push(("up", self.faults.keep("up", up).into()));
        cells.push(("speed_bits_per_second", self.speed(name).into()));
        let fields: Vec<&str> = counters.split_whitespace().collect();
        for (column, index) in COUNTERS {
            let value = integer_at(&fields, index, "net/dev");
            cells.push((column, self.faults.keep(column, value).into()));
        }
        let changes = self
            .roots
            .sys_file(&format!("class/net/{name}/carrier_changes"))
            .and_then(|text| integer(&text, "carrier_changes"));
        cells.push(("carrier_changes_total", self.faults.keep("carrier_changes_total", changes).into()));
        cells
    }

    /// Megabits in the file; virtual interfaces and those without a link answer -1, or refuse to be read.
    fn speed(&mut self, name: &str) -> Option<i64> {
        let megabits = self.roots.sys_file(&format!("class/net/{name}/speed")).ok()?;
        let megabits = integer(&megabits, "speed").ok()?;
        (megabits > 0).then(|| megabits.saturating_mul(1_000_000))
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("net")?;
        let text = self.faults.keep("", self.roots.proc_file("net/dev")).unwrap_or_default();
        for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
            let name = name.trim();
            if name != "lo" {
                let cells = self.interface(name, counters);
                rows.push(now, cells)?;
            }
        }
        Ok(rows)
    }
}

impl Collector for NetCollector {
    fn table(&self) -> &'static str {
        "net"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }
}
