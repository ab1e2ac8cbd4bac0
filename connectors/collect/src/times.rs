//! The CPU times of /proc/stat, and shares of them between two readings.

use crate::reading::{Unreadable, integer};

/// Ticks since boot of one core, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    user: i64,
    nice: i64,
    system: i64,
    idle: i64,
    iowait: i64,
    irq: i64,
    softirq: i64,
    steal: i64,
}

/// Shares of the time between two readings, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuShares {
    /// Not idle and not waiting.
    pub utilization: f64,
    /// In programs.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
    /// Idle while a disk was waited for.
    pub iowait: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
}

impl CpuTimes {
    /// Reads the fields behind `cpu` or `cpuN`. Guest time is part of user time already; kernels before 2.6.11 have no
    /// steal.
    pub(crate) fn parse(fields: &str, what: &str) -> Result<CpuTimes, Unreadable> {
        let numbers = fields.split_whitespace().map(|field| integer(field, what)).collect::<Result<Vec<_>, _>>()?;
        if numbers.len() < 7 {
            return Err(Unreadable::damaged(format!("{what}: {} fields, expected at least 7", numbers.len())));
        }
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        Ok(CpuTimes {
            user: at(0),
            nice: at(1),
            system: at(2),
            idle: at(3),
            iowait: at(4),
            irq: at(5),
            softirq: at(6),
            steal: at(7),
        })
    }

    fn total(&self) -> i64 {
        [self.user, self.nice, self.system, self.idle, self.iowait, self.irq, self.softirq, self.steal]
            .iter()
            .fold(0, |sum, ticks| sum.saturating_add(*ticks))
    }

    /// Ticks of all kinds since an earlier reading; `None` when time went back or stood still.
    pub fn ticks_since(&self, before: &CpuTimes) -> Option<i64> {
        Some(self.total().saturating_sub(before.total())).filter(|ticks| *ticks > 0)
    }

    /// Shares since an earlier reading. The kernel's iowait may go back a little: a negative difference counts as none.
    pub fn since(&self, before: &CpuTimes) -> Option<CpuShares> {
        let total = self.ticks_since(before)? as f64;
        let share = |now: i64, then: i64| (now.saturating_sub(then).max(0) as f64 / total).min(1.0);
        let idle = share(self.idle, before.idle) + share(self.iowait, before.iowait);
        Some(CpuShares {
            utilization: (1.0 - idle).clamp(0.0, 1.0),
            user: share(self.user.saturating_add(self.nice), before.user.saturating_add(before.nice)),
            system: share(
                self.system.saturating_add(self.irq).saturating_add(self.softirq),
                before.system.saturating_add(before.irq).saturating_add(before.softirq),
            ),
            iowait: share(self.iowait, before.iowait),
            steal: share(self.steal, before.steal),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_time_between() {
        let before = CpuTimes::parse("100 0 100 700 100 0 0 0 0 0", "cpu").unwrap();
        let after = CpuTimes::parse("150 10 120 760 120 10 10 20 0 0", "cpu").unwrap();
        let shares = after.since(&before).unwrap();
        assert_eq!((shares.utilization, shares.user, shares.iowait, shares.steal), (0.6, 0.3, 0.1, 0.1));
        assert_eq!(shares.system, 0.2);
        assert_eq!(before.since(&after), None, "a counter that went back gives nothing");
        assert_eq!(before.since(&before), None);
        assert!(CpuTimes::parse("1 2 3", "cpu").is_err() && CpuTimes::parse("a 2 3 4 5 6 7", "cpu").is_err());
    }
}
