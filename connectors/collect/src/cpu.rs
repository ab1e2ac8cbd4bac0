//! The table `cpu`: one row for each core.

use std::collections::HashMap;

use tidewatch_model::Timestamp;

use crate::collector::{Collected, Collector};
use crate::fault::Faults;
use crate::reading::{Roots, Unreadable, float, integer};
use crate::rows::{Rows, RowsError};
use crate::times::CpuTimes;

/// Reads the cores.
pub struct CpuCollector {
    roots: Roots,
    host: String,
    before: HashMap<i64, CpuTimes>,
    faults: Faults,
}

impl CpuCollector {
    /// For this machine's name.
    pub fn new(roots: Roots, host: &str) -> Self {
        CpuCollector { roots, host: host.to_string(), before: HashMap::new(), faults: Faults::default() }
    }

    fn cores(&mut self) -> Vec<(i64, CpuTimes)> {
        let Some(stat) = self.faults.keep("utilization_ratio", self.roots.proc_file("stat")) else { return vec![] };
        let lines = stat
            .lines()
            .filter_map(|line| line.strip_prefix("cpu")?.split_once(' '))
            .filter(|(core, _)| !core.is_empty());
        let parsed =
            lines.map(|(core, fields)| Ok((integer(core, "stat: cpu")?, CpuTimes::parse(fields, "stat: cpu")?)));
        let read: Vec<Result<_, Unreadable>> = parsed.collect();
        read.into_iter().filter_map(|core| self.faults.keep("utilization_ratio", core)).collect()
    }

    /// The current frequency: from cpufreq, else what /proc/cpuinfo says, which virtual machines have too.
    fn frequency(&mut self, core: i64, cpuinfo: &str) -> Option<f64> {
        let scaled = self.roots.sys_file(&format!("devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"));
        let scaled = scaled.and_then(|text| Ok(float(&text, "scaling_cur_freq")? / 1000.0));
        let read = scaled.or_else(|absent| match listed_frequency(cpuinfo, core) {
            Some(text) => float(text, "cpuinfo: cpu MHz"),
            None => Err(absent),
        });
        self.faults.keep("frequency_mhz", read)
    }

    fn rows(&mut self, now: Timestamp) -> Result<Rows, RowsError> {
        let mut rows = Rows::of("cpu")?;
        let cpuinfo = self.roots.proc_file("cpuinfo").unwrap_or_default();
        let cores = self.cores();
        for (core, times) in &cores {
            let shares = self.before.get(core).and_then(|before| times.since(before));
            let frequency = self.frequency(*core, &cpuinfo);
            rows.push(
                now,
                [
                    ("host", self.host.as_str().into()),
                    ("core", (*core).into()),
                    ("utilization_ratio", shares.map(|shares| shares.utilization).into()),
                    ("user_ratio", shares.map(|shares| shares.user).into()),
                    ("system_ratio", shares.map(|shares| shares.system).into()),
                    ("iowait_ratio", shares.map(|shares| shares.iowait).into()),
                    ("steal_ratio", shares.map(|shares| shares.steal).into()),
                    ("frequency_mhz", frequency.into()),
                ],
            )?;
        }
        self.before = cores.into_iter().collect();
        Ok(rows)
    }
}

impl Collector for CpuCollector {
    fn table(&self) -> &'static str {
        "cpu"
    }

    fn collect(&mut self, now: Timestamp) -> Collected {
        let rows = self.rows(now);
        self.faults.collected(rows)
    }
}

/// `cpu MHz` of one processor in /proc/cpuinfo.
fn listed_frequency(cpuinfo: &str, core: i64) -> Option<&str> {
    let field = |line: &str, key: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let mut lines = cpuinfo.lines().skip_while(|line| {
        !(field(line, "processor") && line.split_once(':').is_some_and(|(_, number)| number.trim().parse() == Ok(core)))
    });
    let block = lines.by_ref().skip(1).take_while(|line| !line.trim().is_empty());
    block.filter(|line| field(line, "cpu MHz")).find_map(|line| Some(line.split_once(':')?.1))
}
